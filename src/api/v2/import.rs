//! `POST /v2/images/{id}/import`

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value};

use super::{empty, must_find};
use crate::api::error::Failure;
use crate::api::extract::{At, Document, text};
use crate::api::orders;
use crate::auth::{Context, policy};
use crate::catalog::staged;
use crate::config::Config;
use crate::convert::Form;
use crate::domain::{Expected, Image, ImageId, Status};
use crate::ingest::{self, ImportRequest};
use crate::jobs::{Source, Token};
use crate::quota::Step;
use crate::service::Service;

/// `POST /v2/images/{id}/import`: 202, and a job does it.
///
/// Status and formats are told before the caller's rights are, as in the reference.
pub(in crate::api) async fn import(
    State(svc): State<Arc<Service>>,
    ctx: Context,
    At(id): At<String>,
    headers: HeaderMap,
    Document(body): Document,
) -> Result<Response, Failure> {
    let wish = Wish::parse(&body, &svc.config)?;
    let mut tx = svc.catalog.read().await?;
    let image = must_find(&mut tx, &ctx, &id).await?;
    drop(tx);
    fits(&image, &wish.method)?;
    if wish.appliance && image.container_format.as_deref() != Some("ova") {
        return Err(Failure::bad(
            "'appliance' needs an image whose container_format is ova",
        ));
    }
    wish.method.check()?;
    match wish.method {
        Method::CopyImage => policy::copy_image(&ctx, &image)?,
        _ => policy::modify_image(&ctx, &image)?,
    }
    let header = text(&headers, "x-image-meta-store")?;
    let mut stores = wish.stores(&svc, header)?;
    if matches!(wish.method, Method::CopyImage) {
        stores = not_yet_in(&image, stores, wish.all_stores)?;
        if stores.is_empty() {
            return Ok(empty(StatusCode::ACCEPTED));
        }
    }
    wish.has_one_form(&svc, &stores)?;
    let from = wish.method.source(&svc, &headers).await?;
    let request = ImportRequest {
        inject: injects(&svc, &ctx) && !matches!(from, Source::Copy),
        convert: wish.convert,
        expected: wish.expected,
        appliance: wish.appliance,
        from,
        stores,
        all_stores_must_succeed: wish.all_stores_must_succeed,
        import_req: body.clone(),
    };
    within_limits(&svc, &image, &request.from).await?;
    ingest::import(&svc, &image.id, request, &ctx)
        .await
        .map_err(|e| match e {
            ingest::Error::UnknownStore(store) => unknown_store(&store),
            ingest::Error::NoData => conflict("The image has no staged data"),
            other => other.into(),
        })?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Whether what this caller imports gets the configured properties.
pub(super) fn injects(svc: &Service, ctx: &Context) -> bool {
    let ignored = &svc.config.import.inject_ignore_roles;
    !ctx.roles.iter().any(|r| ignored.contains(r))
}

/// Whether the image's owner may have what is imported.
async fn within_limits(svc: &Service, image: &Image, from: &Source) -> Result<(), Failure> {
    let step = if matches!(from, Source::Staged) {
        let mut tx = svc.catalog.read().await?;
        let staged = staged::find(&mut tx, &image.id).await?;
        Step::ImportStaged(staged.map_or(0, |s| s.size))
    } else {
        Step::ImportFetched
    };
    let owner = image.owner.as_deref();
    Ok(svc.quotas.check(&svc.catalog, owner, step).await?)
}

fn conflict(sentence: &str) -> Failure {
    Failure::new(StatusCode::CONFLICT, sentence)
}

pub(super) fn unknown_store(store: &str) -> Failure {
    conflict(&format!("Store for identifier {store} not found"))
}

/// Whether an image is where a method takes it up.
fn fits(image: &Image, method: &Method) -> Result<(), Failure> {
    let is_active = image.status == Status::Active;
    match method {
        Method::CopyImage if is_active => return Ok(()),
        Method::CopyImage => {
            return Err(conflict(
                "Only images with status active can be targeted for copying",
            ));
        }
        _ if is_active => {
            return Err(conflict(
                "Image with status active cannot be target for import",
            ));
        }
        Method::GlanceDirect if image.status != Status::Uploading => {
            return Err(conflict(
                "Image needs to be staged before 'glance-direct' method can be used",
            ));
        }
        Method::WebDownload { .. } | Method::GlanceDownload { .. }
            if image.status != Status::Queued =>
        {
            return Err(conflict(&format!(
                "Image needs to be in 'queued' state to use '{}' method",
                method.name()
            )));
        }
        // Its formats come with it.
        Method::GlanceDownload { .. } => return Ok(()),
        _ => {}
    }
    if image.container_format.is_none() {
        return Err(conflict("'container_format' needs to be set before import"));
    }
    if image.disk_format.is_none() {
        return Err(conflict("'disk_format' needs to be set before import"));
    }
    Ok(())
}

/// The stores a copy still has to be made in. One that has the image is a mistake where it was
/// named.
fn not_yet_in(image: &Image, stores: Vec<String>, all: bool) -> Result<Vec<String>, Failure> {
    let has = |store: &String| image.locations.iter().any(|l| l.store == *store);
    if let Some(store) = stores.iter().find(|s| !all && has(s)) {
        return Err(Failure::bad(format!(
            "Image is already present at store '{store}'"
        )));
    }
    Ok(stores.into_iter().filter(|s| !has(s)).collect())
}

/// How the bytes come in, with what was said of it.
#[derive(Debug)]
enum Method {
    GlanceDirect,
    WebDownload {
        uri: Option<String>,
    },
    CopyImage,
    GlanceDownload {
        region: Option<String>,
        image: Option<String>,
    },
}

impl Method {
    fn parse(method: &Value, enabled: &[String]) -> Result<Self, Failure> {
        let name = method
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| Failure::bad("Import request requires a 'name' field."))?;
        let field = |name: &str| method.get(name).and_then(Value::as_str).map(str::to_owned);
        let unknown = || Failure::bad(format!("Unknown import method name '{name}'."));
        if !enabled.iter().any(|m| m == name) {
            return Err(unknown());
        }
        Ok(match name {
            "glance-direct" => Self::GlanceDirect,
            "web-download" => Self::WebDownload { uri: field("uri") },
            "copy-image" => Self::CopyImage,
            "glance-download" => Self::GlanceDownload {
                region: field("glance_region"),
                image: field("glance_image_id"),
            },
            _ => return Err(unknown()),
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::GlanceDirect => "glance-direct",
            Self::WebDownload { .. } => "web-download",
            Self::CopyImage => "copy-image",
            Self::GlanceDownload { .. } => "glance-download",
        }
    }

    /// Whether what a method needs was said.
    fn check(&self) -> Result<(), Failure> {
        let Self::GlanceDownload { region, image } = self else {
            return Ok(());
        };
        if region.is_none() {
            return Err(Failure::bad(
                "Import request for glance-download requires a 'glance_region' field.",
            ));
        }
        let image = image.as_deref().unwrap_or_default();
        if image.parse::<ImageId>().is_err() {
            return Err(Failure::bad(format!(
                "Remote image id does not look like a UUID: {image}"
            )));
        }
        Ok(())
    }

    /// Where the bytes come from. What clients name is checked by the rules of `[fetch]`.
    async fn source(self, svc: &Service, headers: &HeaderMap) -> Result<Source, Failure> {
        let name = self.name();
        let allowed = async |url: &str| {
            svc.fetcher.check(url).await.map_err(|e| {
                tracing::info!(reason = ?e, "a URL was refused");
                Failure::bad(format!("URI for {name} does not pass filtering: {url}"))
            })
        };
        Ok(match self {
            Self::GlanceDirect => Source::Staged,
            Self::CopyImage => Source::Copy,
            Self::WebDownload { uri } => {
                let uri = uri.unwrap_or_else(|| "None".into());
                allowed(&uri).await?;
                Source::Web { uri }
            }
            Self::GlanceDownload { region, image } => {
                let regions = &svc.config.import.glance_regions;
                let endpoint = region.and_then(|region| regions.get(&region));
                let endpoint = endpoint.map(|url| url.trim_end_matches('/').to_owned());
                if let Some(endpoint) = &endpoint {
                    allowed(endpoint).await?;
                }
                // As in the reference, the task tells that a region is not known.
                Source::Glance {
                    endpoint,
                    image: image.unwrap_or_default(),
                    token: Token(
                        text(headers, "x-auth-token")?
                            .unwrap_or_default()
                            .to_owned(),
                    ),
                }
            }
        })
    }
}

/// What the body asks for.
#[derive(Debug)]
struct Wish {
    method: Method,
    /// `None`: not said.
    stores: Option<Vec<String>>,
    all_stores: bool,
    all_stores_must_succeed: bool,
    convert: Option<Form>,
    expected: Option<Expected>,
    /// Whether each disk of an archive becomes an image.
    appliance: bool,
}

impl Wish {
    fn parse(body: &Value, config: &Config) -> Result<Self, Failure> {
        let body = body
            .as_object()
            .ok_or_else(|| Failure::bad("Request body must be a JSON object."))?;
        let method = body
            .get("method")
            .ok_or_else(|| Failure::bad("Import request requires a 'method' field."))?;
        let method = Method::parse(method, &config.import.methods)?;
        let stores = body.get("stores").map(store_names).transpose()?;
        let convert = orders::convert(body, config)?;
        let expected = orders::expected(body)?;
        let appliance = flag(body, "appliance", false)?;
        if appliance && !matches!(method, Method::GlanceDirect | Method::WebDownload { .. }) {
            let sentence = "'appliance' is for glance-direct and web-download";
            return Err(Failure::bad(sentence));
        }
        if matches!(method, Method::CopyImage) {
            for (name, is_said) in [
                ("convert", convert.is_some()),
                ("expected", expected.is_some()),
            ] {
                if is_said {
                    return Err(Failure::bad(format!(
                        "'{name}' cannot be used with copy-image: a copy is the same bytes"
                    )));
                }
            }
        }
        Ok(Self {
            method,
            stores,
            convert,
            expected,
            appliance,
            all_stores: flag(body, "all_stores", false)?,
            all_stores_must_succeed: flag(body, "all_stores_must_succeed", true)?,
        })
    }

    /// Whether these stores agree on how the image is stored, unless its caller says.
    fn has_one_form(&self, svc: &Service, stores: &[String]) -> Result<(), Failure> {
        if !matches!(self.method, Method::CopyImage) {
            Form::of(&svc.config, stores, self.convert.as_ref()).map_err(Failure::bad)?;
        }
        Ok(())
    }

    /// The stores to import to. One that is not known is refused here, before anything happens.
    fn stores(&self, svc: &Service, header: Option<&str>) -> Result<Vec<String>, Failure> {
        let stores = match (&self.stores, header) {
            (stores, header) if self.all_stores => {
                if stores.is_some() || header.is_some() {
                    return Err(Failure::bad(
                        "All_stores parameter can't be used with x-image-meta-store header or \
                         stores parameter",
                    ));
                }
                let all = svc.stores.writable();
                all.map(|s| s.config.id.clone()).collect()
            }
            (Some(_), Some(_)) => {
                return Err(Failure::bad(
                    "Stores parameter and x-image-meta-store header can't be both specified",
                ));
            }
            (Some(stores), None) => stores.clone(),
            (None, Some(store)) => vec![store.to_owned()],
            (None, None) => vec![svc.stores.default_id().to_owned()],
        };
        match stores.iter().find(|s| svc.stores.get(s).is_none()) {
            Some(unknown) => Err(unknown_store(unknown)),
            None => Ok(stores),
        }
    }
}

fn flag(body: &Map<String, Value>, name: &str, default: bool) -> Result<bool, Failure> {
    match body.get(name) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Failure::bad(format!("'{name}' must be boolean value only"))),
    }
}

/// A list of store ids, each once, in order.
fn store_names(value: &Value) -> Result<Vec<String>, Failure> {
    let fault = || Failure::bad("'stores' must be a list of store identifiers");
    let mut names: Vec<String> = Vec::new();
    for name in value.as_array().ok_or_else(fault)? {
        let name = name.as_str().ok_or_else(fault)?;
        if !names.iter().any(|n| n == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(fault());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wish(body: &Value) -> Result<Wish, Failure> {
        let mut config = Config::embedded("/tmp/x".into());
        config.import.methods = ["glance-direct", "glance-download"]
            .map(str::to_owned)
            .into();
        Wish::parse(body, &config)
    }

    #[test]
    fn bodies_of_wrong_types_are_refused() {
        let direct = json!({"name": "glance-direct"});
        for bad in [
            json!([]),
            json!({}),
            json!({"method": 7}),
            json!({"method": {}}),
            json!({"method": {"name": 7}}),
            json!({"method": {"name": "web-download"}}),
            json!({"method": direct, "stores": "a"}),
            json!({"method": direct, "stores": []}),
            json!({"method": direct, "stores": [1]}),
            json!({"method": direct, "all_stores": "true"}),
            json!({"method": direct, "all_stores_must_succeed": null}),
        ] {
            assert!(wish(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stores_are_named_once() {
        let body = json!({"method": {"name": "glance-direct"}, "stores": ["b", "a", "b"]});
        let wish = wish(&body).unwrap();
        assert_eq!(wish.stores.unwrap(), ["b", "a"]);
        assert!(wish.all_stores_must_succeed && !wish.all_stores);
    }

    #[test]
    fn a_remote_image_is_named_whole() {
        let id = "99999999-9999-4999-8999-999999999999";
        for (fields, is_right) in [
            (json!({"glance_region": "r", "glance_image_id": id}), true),
            (json!({"glance_region": "r", "glance_image_id": "x"}), false),
            (json!({"glance_region": "r"}), false),
            (json!({"glance_image_id": id}), false),
            (json!({"glance_region": 7, "glance_image_id": id}), false),
        ] {
            let mut method = fields.clone();
            method["name"] = json!("glance-download");
            let wish = wish(&json!({ "method": method })).unwrap();
            assert_eq!(wish.method.check().is_ok(), is_right, "{fields}");
        }
    }
}
