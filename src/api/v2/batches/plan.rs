//! What a batch asks for, checked: every image that it makes is what its caller might have created
//! and imported by itself.

use axum::http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::super::{find, import};
use super::name::{Fields, Template};
use crate::api::error::Failure;
use crate::api::wire::{Plan, SourcePlan};
use crate::api::{orders, properties, schema};
use crate::auth::{Context, policy};
use crate::catalog::Tx;
use crate::config;
use crate::convert::Form;
use crate::domain::{Expected, HashAlgo, Image, ImageId, Measured, Status, Timestamp, endings};
use crate::ingest::{Manner, Part};
use crate::jobs::Source;
use crate::service::Service;

/// Items that a batch may have worked on at once.
const MOST_AT_ONCE: u32 = 1000;

/// Bytes of what all images of a batch have in common, counted for each.
const SHARED_MAX: usize = 8 << 20;

/// Fields of images that a plan says for each by itself.
const SAID_OTHERWISE: [&str; 5] = ["id", "name", "owner", "disk_format", "container_format"];

/// Reads the body of `POST /v2/batches`.
pub(super) fn parse(body: Value, limits: &config::Batches) -> Result<Plan, Failure> {
    if !body.is_object() {
        return Err(Failure::bad("Request body must be a JSON object."));
    }
    let plan: Plan = serde_json::from_value(body).map_err(of_serde)?;
    let items = plan.sources.len();
    if items == 0 || items > limits.items {
        let most = limits.items;
        let sentence = format!("A batch has 1 to {most} 'sources', and this one has {items}");
        return Err(Failure::bad(sentence));
    }
    if !(1..=MOST_AT_ONCE).contains(&plan.concurrency.unwrap_or(1)) {
        let sentence = format!("'concurrency' is a number from 1 to {MOST_AT_ONCE}");
        return Err(Failure::bad(sentence));
    }
    Ok(plan)
}

/// A fault of the body, which may quote much of it.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn of_serde(error: serde_json::Error) -> Failure {
    Failure::bad(format!("{:.300}", error.to_string()))
}

/// The images of a batch, and how they are made.
pub(super) struct Order {
    /// In the order of the sources: what cannot be begun says why.
    pub(super) parts: Vec<Result<Part, Failure>>,
    pub(super) manner: Manner,
}

/// Checks these sources of a plan, each with its place among all `of` of them, for a batch that
/// belongs to `owner`.
pub(super) async fn order(
    svc: &Service,
    ctx: &Context,
    owner: Option<&str>,
    plan: &Plan,
    sources: &[(u32, Value)],
    of: u32,
) -> Result<Order, Failure> {
    let template = Template::parse(&plan.name);
    let template = template.map_err(|e| Failure::bad(format!("'name': {e}")))?;
    let mut said = Map::new();
    said.extend(
        plan.convert
            .clone()
            .map(|convert| ("convert".into(), convert)),
    );
    let convert = orders::convert(&said, &svc.config)?;
    let stores = stores(svc, plan.stores.as_deref())?;
    let form = Form::of(&svc.config, &stores, convert.as_ref()).map_err(Failure::bad)?;
    let maker = Maker {
        svc,
        ctx,
        blank: blank(svc, ctx, owner, &plan.properties)?,
        template,
        form: form.as_ref(),
        of,
    };
    // Every image gets them.
    let shared = serde_json::to_string(&plan.properties).map_or(usize::MAX, |text| text.len());
    if shared.saturating_mul(sources.len()) > SHARED_MAX {
        return Err(Failure::bad(format!(
            "'properties' of {shared} bytes for {} images are too much: {} MiB are allowed together",
            sources.len(),
            SHARED_MAX >> 20
        )));
    }
    let mut parts = Vec::with_capacity(sources.len());
    let mut tx = svc.catalog.read().await?;
    for (n, source) in sources {
        parts.push(maker.part(&mut tx, *n, source).await);
    }
    let manner = Manner {
        stores,
        inject: import::injects(svc, ctx),
        convert,
    };
    Ok(Order { parts, manner })
}

/// The stores to write to, each once.
fn stores(svc: &Service, said: Option<&[String]>) -> Result<Vec<String>, Failure> {
    let Some(said) = said else {
        return Ok(vec![svc.stores.default_id().to_owned()]);
    };
    let mut stores: Vec<String> = Vec::new();
    for id in said {
        let store = svc.stores.get(id).filter(|store| !store.config.read_only);
        if store.is_none() {
            return Err(import::unknown_store(id));
        }
        if !stores.contains(id) {
            stores.push(id.clone());
        }
    }
    if stores.is_empty() {
        return Err(Failure::bad("'stores' must be a list of store identifiers"));
    }
    Ok(stores)
}

/// What all images have in common; the caller may create such, publish them and import into them.
fn blank(
    svc: &Service,
    ctx: &Context,
    owner: Option<&str>,
    said: &Map<String, Value>,
) -> Result<Image, Failure> {
    if let Some(name) = SAID_OTHERWISE.iter().find(|name| said.contains_key(**name)) {
        let sentence = format!("'properties' cannot say '{name}', which differs by image");
        return Err(Failure::bad(sentence));
    }
    properties::refuse_links(said)?;
    schema::validate(&schema::image(&svc.config.formats), said).map_err(Failure::bad)?;
    let owner = owner.map(str::to_owned);
    let bare = Image::new(ImageId::random(), owner, Timestamp::now());
    let mut image = bare.clone();
    properties::fill(&caller(svc, ctx), &mut image, said.clone())?;
    policy::add_image(ctx, image.owner.as_deref())?;
    policy::publish(ctx, &image)?;
    policy::modify_image(ctx, &image)?;
    properties::within_quota(&svc.config.quota, &bare, &image)?;
    Ok(image)
}

fn caller<'a>(svc: &'a Service, ctx: &'a Context) -> properties::Caller<'a> {
    properties::Caller {
        ctx,
        protections: &svc.protections,
    }
}

/// What the parts of one batch have in common.
struct Maker<'a> {
    svc: &'a Service,
    ctx: &'a Context,
    blank: Image,
    template: Template,
    form: Option<&'a Form>,
    of: u32,
}

/// What a source is before anybody reads it.
struct Found {
    from: Source,
    /// What it is called.
    name: String,
    formats: Option<(String, String)>,
    expected: Option<Expected>,
    /// Memory and disk a guest needs at least.
    needs: (i64, i64),
}

impl Maker<'_> {
    async fn part(&self, tx: &mut Tx, n: u32, source: &Value) -> Result<Part, Failure> {
        let bad = |e: String| Failure::bad(format!("Source {n}: {e}"));
        let source = match source {
            Value::String(url) => SourcePlan {
                url: Some(url.clone()),
                ..SourcePlan::default()
            },
            Value::Object(_) => serde_json::from_value(source.clone())
                .map_err(|e| bad(format!("{:.300}", e.to_string())))?,
            _ => return Err(bad("it must be a URL or an object".into())),
        };
        let asked = json!(source);
        let found = match (&source.url, &source.image, &source.file) {
            (Some(url), None, None) => self.url(url).map_err(bad)?,
            (None, Some(id), None) => {
                let found = self.image(tx, id, &source).await?;
                found.map_err(bad)?
            }
            (None, None, Some(path)) => {
                policy::add_batch_files(self.ctx)?;
                self.file(path).await.map_err(bad)?
            }
            _ => {
                let sentence = "it must say one of 'url', 'image' and 'file'";
                return Err(bad(sentence.into()));
            }
        };
        let expected = asked.as_object().map(orders::expected).transpose()?;
        let (disk, container) = formats(&source, &found).map_err(bad)?;
        let mut image = self.blank.clone();
        image.id = ImageId::random();
        (image.min_ram, image.min_disk) = (
            image.min_ram.max(found.needs.0),
            image.min_disk.max(found.needs.1),
        );
        let name = source.name.unwrap_or_else(|| {
            self.template.fill(&Fields {
                name: &found.name,
                stem: endings::stem(&found.name),
                n,
                of: self.of,
                id: image.id.as_str(),
                format: self.form.map_or(&disk, |form| &form.disk_format),
            })
        });
        let own = json!({"name": name, "disk_format": disk, "container_format": container});
        let Value::Object(own) = own else {
            return Err(Failure::of(StatusCode::INTERNAL_SERVER_ERROR));
        };
        schema::validate(&schema::image(&self.svc.config.formats), &own).map_err(bad)?;
        properties::fill(&caller(self.svc, self.ctx), &mut image, own)?;
        Ok(Part {
            n,
            asked,
            image,
            from: found.from,
            expected: expected.flatten().or(found.expected),
        })
    }

    fn url(&self, url: &str) -> Result<Found, String> {
        let methods = &self.svc.config.import.methods;
        if !methods.iter().any(|m| m == "web-download") {
            return Err("web-download is not offered here".into());
        }
        self.svc.fetcher.permits(url).map_err(|e| {
            tracing::info!(reason = ?e, "a URL was refused");
            format!("the URL does not pass filtering: {url}")
        })?;
        Ok(Found::named(last_part(url), |_| Source::Web {
            uri: url.to_owned(),
        }))
    }

    async fn file(&self, path: &str) -> Result<Found, String> {
        self.svc
            .folders
            .file(path)
            .await
            .map_err(|e| format!("{path}: {e}"))?;
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        Ok(Found::named(name, |_| Source::File {
            path: path.to_owned(),
        }))
    }

    async fn image(
        &self,
        tx: &mut Tx,
        id: &str,
        said: &SourcePlan,
    ) -> Result<Result<Found, String>, Failure> {
        let Some(image) = find(tx, self.ctx, id).await? else {
            return Ok(Err(format!("No image found with ID {id}")));
        };
        policy::download_image(self.ctx, &image)?;
        if said.disk_format.is_some() || said.container_format.is_some() {
            return Ok(Err("the formats of an image are its own".into()));
        }
        if image.status != Status::Active {
            let status = image.status;
            return Ok(Err(format!("image {id} is {status} and not active")));
        }
        let hash = |h: &crate::domain::Hashes| {
            let algo: HashAlgo = h.algo.parse().ok()?;
            Some(Expected {
                algo,
                value: h.value.clone(),
                of: Measured::Sent,
            })
        };
        Ok(Ok(Found {
            from: Source::Image {
                id: image.id.to_string(),
            },
            expected: image.hashes.as_ref().and_then(hash),
            name: image.name.unwrap_or_else(|| id.to_owned()),
            formats: image.disk_format.zip(image.container_format),
            needs: (image.min_ram, image.min_disk),
        }))
    }
}

impl Found {
    /// What is known of it is its name.
    fn named(name: String, from: impl Fn(&str) -> Source) -> Self {
        let formats = endings::formats(&name);
        Self {
            from: from(&name),
            formats: formats.map(|(disk, container)| (disk.into(), container.into())),
            name,
            expected: None,
            needs: (0, 0),
        }
    }
}

/// The formats that are said, else those that the source tells.
fn formats(said: &SourcePlan, found: &Found) -> Result<(String, String), String> {
    let told = found.formats.clone();
    let disk = said.disk_format.clone();
    let container = said.container_format.clone();
    match (disk, container, told) {
        (Some(disk), Some(container), _) => Ok((disk, container)),
        (Some(disk), None, told) => {
            let told = told.filter(|(other, _)| *other == disk);
            Ok((
                disk,
                told.map_or_else(|| "bare".into(), |(_, container)| container),
            ))
        }
        (None, container, Some((disk, told))) => Ok((disk, container.unwrap_or(told))),
        (None, _, None) => Err(format!(
            "the name {:?} does not tell its 'disk_format', which must be said",
            found.name
        )),
    }
}

/// What a URL calls what it names: the last part of its path, or its host.
fn last_part(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    let part = path.rsplit('/').find(|part| !part.is_empty());
    percent_decode_str(part.unwrap_or(path))
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_end_with_a_name() {
        for (url, name) in [
            ("http://h/a/disk.qcow2", "disk.qcow2"),
            ("http://h/a%20b.raw?x=/y#z", "a b.raw"),
            ("http://h/images/", "images"),
            ("http://h", "h"),
        ] {
            assert_eq!(last_part(url), name, "{url}");
        }
    }

    #[test]
    fn formats_are_said_or_told() {
        let of = |name: &str, disk: Option<&str>, container: Option<&str>| {
            let said = SourcePlan {
                disk_format: disk.map(str::to_owned),
                container_format: container.map(str::to_owned),
                ..SourcePlan::default()
            };
            let found = Found::named(name.into(), |_| Source::Staged);
            formats(&said, &found).ok()
        };
        let both = |disk: &str, container: &str| Some((disk.to_owned(), container.to_owned()));
        assert_eq!(of("a.qcow2", None, None), both("qcow2", "bare"));
        assert_eq!(of("a.ova", None, None), both("vmdk", "ova"));
        assert_eq!(of("a.ova", Some("vmdk"), None), both("vmdk", "ova"));
        assert_eq!(of("a.ova", Some("raw"), None), both("raw", "bare"));
        assert_eq!(of("a.vmdk", None, Some("ova")), both("vmdk", "ova"));
        assert_eq!(
            of("a", Some("raw"), Some("compressed")),
            both("raw", "compressed")
        );
        assert_eq!(of("a.img", None, None), None);
    }
}
