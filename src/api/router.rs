//! Every route there is.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::{Method, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{self, MethodRouter};

use super::error::Failure;
use super::v2::{
    actions, appliances, batches, cache, data, images, import, info, locations, members, metadefs,
    schemas, tags, task_events, tasks, upload,
};
use super::{cors, health, json, middleware, observe, openapi, versions};
use crate::auth::Identity;
use crate::service::Service;

type Shared = Arc<Service>;

/// The API, with callers known as the configuration says.
pub fn router(svc: &Shared) -> Router {
    router_for(svc, svc.identity.clone())
}

/// The API, with callers known by `identity`.
pub fn router_for(svc: &Shared, identity: Identity) -> Router {
    let v2 = Table::default()
        .at(
            "/v2/images",
            At::new().get(images::list).post(images::create),
        )
        .at(
            "/v2/images/{image}",
            At::new()
                .get(images::show)
                .patch(images::update)
                .delete(images::delete),
        )
        .at(
            "/v2/images/{image}/file",
            At::new()
                .get(data::download)
                .put(data::upload)
                .head(data::look_at),
        )
        .at(
            "/v2/appliances/{appliance}",
            At::new().get(appliances::show),
        )
        .at(
            "/v2/appliances/{appliance}/file",
            At::new().get(appliances::download),
        )
        .at("/v2/images/{image}/upload", At::new().post(upload::create))
        .at(
            "/v2/images/{image}/upload/{upload}",
            At::new()
                .head(upload::show)
                .patch(upload::append)
                .delete(upload::remove),
        )
        .at("/v2/images/{image}/stage", At::new().put(data::stage))
        .at("/v2/images/{image}/import", At::new().post(import::import))
        .at("/v2/images/{image}/tasks", At::new().get(tasks::of_image))
        .at(
            "/v2/images/{image}/actions/deactivate",
            At::new().post(actions::deactivate),
        )
        .at(
            "/v2/images/{image}/actions/reactivate",
            At::new().post(actions::reactivate),
        )
        .at(
            "/v2/images/{image}/tags/{tag}",
            At::new().put(tags::add).delete(tags::remove),
        )
        .at(
            "/v2/images/{image}/members",
            At::new().get(members::list).post(members::add),
        )
        .at(
            "/v2/images/{image}/members/{member}",
            At::new()
                .get(members::show)
                .put(members::update)
                .delete(members::remove),
        )
        .at(
            "/v2/images/{image}/locations",
            At::new().get(locations::list).post(locations::add),
        )
        .at(
            "/v2/stores/{store}/{image}",
            At::new().delete(locations::delete_from_store),
        )
        .at("/v2/tasks", At::new().get(tasks::list).post(tasks::create))
        .at(
            "/v2/tasks/{task}",
            At::new().get(tasks::show).delete(tasks::delete),
        )
        .at(
            "/v2/tasks/{task}/events",
            At::new().get(task_events::events),
        )
        .at(
            "/v2/tasks/{task}/cancel",
            At::new().post(task_events::cancel),
        )
        .at(
            "/v2/batches",
            At::new().get(batches::list).post(batches::create),
        )
        .at(
            "/v2/batches/{batch}",
            At::new().get(batches::show).delete(batches::delete),
        )
        .at(
            "/v2/batches/{batch}/cancel",
            At::new().post(batches::cancel),
        )
        .at("/v2/batches/{batch}/retry", At::new().post(batches::retry))
        .at(
            "/v2/cache",
            At::new().get(cache::list).delete(cache::delete),
        )
        .at(
            "/v2/cache/{image}",
            At::new().put(cache::queue).delete(cache::delete),
        )
        .at("/v2/cache/nodes/{image}", At::new().get(cache::nodes))
        .at("/v2/cache/clean", At::new().post(cache::clean))
        .at("/v2/cache/prune", At::new().post(cache::prune))
        .at(
            "/v2/cached_images",
            At::new().get(cache::manage).delete(cache::manage),
        )
        .at("/v2/cached_images/{image}", At::new().delete(cache::manage))
        .at(
            "/v2/queued_images",
            At::new().get(cache::manage).delete(cache::manage),
        )
        .at(
            "/v2/queued_images/{image}",
            At::new().put(cache::manage).delete(cache::manage),
        )
        .at("/v2/info/import", At::new().get(info::import))
        .at("/v2/info/stores", At::new().get(info::stores))
        .at("/v2/info/stores/detail", At::new().get(info::stores_detail))
        .at("/v2/info/usage", At::new().get(info::usage))
        .at("/v2/schemas/image", At::new().get(schemas::image))
        .at("/v2/schemas/images", At::new().get(schemas::images))
        .at("/v2/schemas/member", At::new().get(schemas::member))
        .at("/v2/schemas/members", At::new().get(schemas::members))
        .at("/v2/schemas/task", At::new().get(schemas::task))
        .at("/v2/schemas/tasks", At::new().get(schemas::tasks));
    let Table { router, routes } = metadefs(v2);
    let document = json::to_string(&openapi::document(&routes, &svc.config.formats));
    let document = bytes::Bytes::from(document);
    let v2 = router
        .fallback(async || Failure::of(StatusCode::NOT_FOUND))
        .layer(from_fn_with_state(
            (svc.clone(), Arc::new(identity)),
            middleware::identify,
        ))
        .with_state(svc.clone());
    Router::new()
        .route("/healthcheck", routing::get(health::check))
        .route(
            "/openapi.json",
            routing::get(async move || {
                let kind = [(header::CONTENT_TYPE, "application/json")];
                (kind, document.clone())
            }),
        )
        .with_state(svc.clone())
        .fallback_service(v2)
        .layer(from_fn_with_state(svc.clone(), versions::negotiate))
        .layer(from_fn(middleware::linger))
        .layer(from_fn_with_state(svc.clone(), observe::count))
        .layer(from_fn(middleware::pages))
        .layer(from_fn_with_state(svc.clone(), cors::share))
}

/// Metadata definitions and their schemas.
fn metadefs(table: Table) -> Table {
    use metadefs::{associations, namespaces, objects, properties, tags};
    use schemas::metadefs as schema;
    table
        .at(
            "/v2/metadefs/namespaces",
            At::new().get(namespaces::list).post(namespaces::create),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}",
            At::new()
                .get(namespaces::show)
                .put(namespaces::update)
                .delete(namespaces::delete),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/resource_types",
            At::new().get(associations::list).post(associations::create),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/resource_types/{type}",
            At::new().delete(associations::delete),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/objects",
            At::new()
                .get(objects::list)
                .post(objects::create)
                .delete(objects::delete_all),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/objects/{object}",
            At::new()
                .get(objects::show)
                .put(objects::update)
                .delete(objects::delete),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/properties",
            At::new()
                .get(properties::list)
                .post(properties::create)
                .delete(properties::delete_all),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/properties/{property}",
            At::new()
                .get(properties::show)
                .put(properties::update)
                .delete(properties::delete),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/tags",
            At::new()
                .get(tags::list)
                .post(tags::create_several)
                .delete(tags::delete_all),
        )
        .at(
            "/v2/metadefs/namespaces/{namespace}/tags/{tag}",
            At::new()
                .get(tags::show)
                .post(tags::create)
                .put(tags::update)
                .delete(tags::delete),
        )
        .at(
            "/v2/metadefs/resource_types",
            At::new().get(associations::resource_types),
        )
        .at(
            "/v2/schemas/metadefs/namespace",
            At::new().get(schema::namespace),
        )
        .at(
            "/v2/schemas/metadefs/namespaces",
            At::new().get(schema::namespaces),
        )
        .at("/v2/schemas/metadefs/object", At::new().get(schema::object))
        .at(
            "/v2/schemas/metadefs/objects",
            At::new().get(schema::objects),
        )
        .at(
            "/v2/schemas/metadefs/property",
            At::new().get(schema::property),
        )
        .at(
            "/v2/schemas/metadefs/properties",
            At::new().get(schema::properties),
        )
        .at("/v2/schemas/metadefs/tag", At::new().get(schema::tag))
        .at("/v2/schemas/metadefs/tags", At::new().get(schema::tags))
        .at(
            "/v2/schemas/metadefs/resource_type",
            At::new().get(schema::resource_type),
        )
        .at(
            "/v2/schemas/metadefs/resource_types",
            At::new().get(schema::resource_types),
        )
}

/// A path, and the verbs it takes.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) verbs: Vec<&'static str>,
}

#[derive(Default)]
struct Table {
    router: Router<Shared>,
    routes: Vec<Route>,
}

impl Table {
    fn at(mut self, path: &'static str, at: At) -> Self {
        let verbs = at.allow.clone();
        self.routes.push(Route { path, verbs });
        self.router = self.router.route(path, at.finish());
        self
    }
}

/// What a path takes. Everything else is answered 405, with the verbs in the order given here;
/// HEAD too, which the reference does not serve, unless it is asked for here.
struct At {
    methods: MethodRouter<Shared>,
    allow: Vec<&'static str>,
    has_head: bool,
}

macro_rules! verbs {
    ($($name:ident $verb:literal),*) => {$(
        fn $name<H: Handler<T, Shared>, T: 'static>(mut self, handler: H) -> Self {
            self.methods = self.methods.$name(handler);
            self.allow.push($verb);
            self
        }
    )*};
}

impl At {
    fn new() -> Self {
        Self {
            methods: MethodRouter::new(),
            allow: Vec::new(),
            has_head: false,
        }
    }

    verbs!(
        get "GET", post "POST", put "PUT", patch "PATCH", delete "DELETE"
    );

    /// Takes HEAD too, untold: the reference does not.
    fn head<H: Handler<T, Shared>, T: 'static>(mut self, handler: H) -> Self {
        self.methods = self.methods.head(handler);
        self.has_head = true;
        self
    }

    fn finish(self) -> MethodRouter<Shared> {
        let allow = self.allow.join(", ");
        let refuse = move |method: Method| async move { Failure::method(method, &allow) };
        let methods = match self.has_head {
            true => self.methods,
            false => self.methods.head(refuse.clone()),
        };
        methods.fallback(refuse)
    }
}
