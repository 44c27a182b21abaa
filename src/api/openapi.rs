//! `/openapi.json`: the routes there are, as OpenAPI 3.1. Paths and verbs come from the router's own
//! table, so that none can be missing; what goes in and out is told here.

use serde_json::{Map, Value, json};

use super::router::Route;
use super::schema;
use crate::config::Formats;

/// The document.
#[must_use]
pub(super) fn document(routes: &[Route], formats: &Formats) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let operations: Map<String, Value> = route
            .verbs
            .iter()
            .map(|verb| {
                let operation = operation(verb, route.path, formats);
                (verb.to_ascii_lowercase(), operation)
            })
            .collect();
        paths.insert(route.path.to_owned(), operations.into());
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "glint: the OpenStack image API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            },
            "responses": {
                "Failure": {
                    "description": "Why not, as `Accept` wants it",
                    "content": {
                        "text/html": {"schema": {"type": "string"}},
                        "text/plain": {"schema": {"type": "string"}},
                        "application/json": {"schema": {
                            "type": "object",
                            "properties": {
                                "code": {"type": "string"},
                                "title": {"type": "string"},
                                "message": {"type": "string"},
                            },
                        }},
                    },
                },
            },
        },
    })
}

fn operation(verb: &str, path: &str, formats: &Formats) -> Value {
    let told = OPERATIONS.iter().find(|o| (o.0, o.1) == (verb, path));
    let (success, kind) = match told {
        Some((_, _, success, kind)) => (*success, *kind),
        None => by_verb(verb),
    };
    let mut responses = Map::new();
    for status in success {
        let mut response = json!({"description": describe(*status)});
        if let Some(media_type) = kind.media_type(*status) {
            response["content"] = json!({ media_type: {} });
        }
        responses.insert(status.to_string(), response);
    }
    let failure = json!({"$ref": "#/components/responses/Failure"});
    responses.insert("default".into(), failure);
    let mut operation = json!({
        "operationId": operation_id(verb, path),
        "parameters": parameters(verb, path),
        "responses": responses,
    });
    if let Some(body) = body(verb, path, formats) {
        operation["requestBody"] = body;
    }
    operation
}

/// What comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Json,
    Octets,
    Nothing,
}

impl Kind {
    fn media_type(self, status: u16) -> Option<&'static str> {
        match self {
            Self::Json => Some("application/json"),
            Self::Octets if status != 204 => Some("application/octet-stream"),
            Self::Octets | Self::Nothing => None,
        }
    }
}

/// An upload that goes on where it was broken off.
const UPLOAD: &str = "/v2/images/{image}/upload/{upload}";

/// Verb, path, statuses of success, and what comes with them, where the verb alone does not tell.
const OPERATIONS: &[(&str, &str, &[u16], Kind)] = &[
    (
        "GET",
        "/v2/images/{image}/file",
        &[200, 204, 206],
        Kind::Octets,
    ),
    (
        "GET",
        "/v2/appliances/{appliance}/file",
        &[200, 206],
        Kind::Octets,
    ),
    ("PUT", "/v2/images/{image}/file", &[204], Kind::Nothing),
    ("PUT", "/v2/images/{image}/stage", &[204], Kind::Nothing),
    ("POST", "/v2/images/{image}/upload", &[201], Kind::Nothing),
    ("PATCH", UPLOAD, &[204], Kind::Nothing),
    ("POST", "/v2/images/{image}/import", &[202], Kind::Nothing),
    (
        "POST",
        "/v2/images/{image}/actions/deactivate",
        &[204],
        Kind::Nothing,
    ),
    (
        "POST",
        "/v2/images/{image}/actions/reactivate",
        &[204],
        Kind::Nothing,
    ),
    (
        "PUT",
        "/v2/images/{image}/tags/{tag}",
        &[204],
        Kind::Nothing,
    ),
    ("POST", "/v2/images/{image}/members", &[200], Kind::Json),
    (
        "POST",
        "/v2/images/{image}/locations",
        &[202],
        Kind::Nothing,
    ),
    ("DELETE", "/v2/tasks/{task}", &[], Kind::Nothing),
    ("POST", "/v2/tasks/{task}/cancel", &[202], Kind::Nothing),
    ("POST", "/v2/batches", &[202], Kind::Json),
    ("POST", "/v2/batches/{batch}/cancel", &[202], Kind::Nothing),
    ("POST", "/v2/batches/{batch}/retry", &[202], Kind::Json),
    ("PUT", "/v2/cache/{image}", &[202], Kind::Nothing),
    ("POST", "/v2/cache/clean", &[200], Kind::Json),
    ("POST", "/v2/cache/prune", &[200], Kind::Json),
];

fn by_verb(verb: &str) -> (&'static [u16], Kind) {
    match verb {
        "POST" => (&[201], Kind::Json),
        "DELETE" => (&[204], Kind::Nothing),
        _ => (&[200], Kind::Json),
    }
}

const fn describe(status: u16) -> &'static str {
    match status {
        201 => "Made",
        202 => "Accepted: it will be done",
        204 => "Done, and nothing to say",
        206 => "The part asked for",
        _ => "Done",
    }
}

/// `get_v2_images_image_file`
fn operation_id(verb: &str, path: &str) -> String {
    let words = path.replace(['{', '}'], "").replace('/', "_");
    format!("{}{words}", verb.to_ascii_lowercase())
}

fn parameters(verb: &str, path: &str) -> Value {
    let named = path.split('{').skip(1).filter_map(|p| p.split('}').next());
    let mut all: Vec<_> = named
        .map(|name| {
            json!({
                "name": name, "in": "path", "required": true, "schema": {"type": "string"},
            })
        })
        .collect();
    let query: &[&str] = match (verb, path) {
        ("GET", "/v2/images") => &[
            "limit",
            "marker",
            "sort",
            "sort_key",
            "sort_dir",
            "visibility",
            "member_status",
            "owner",
            "name",
            "id",
            "status",
            "container_format",
            "disk_format",
            "created_at",
            "updated_at",
            "size_min",
            "size_max",
            "tag",
            "os_hidden",
            "protected",
            "checksum",
            "os_hash_algo",
            "os_hash_value",
        ],
        ("GET", "/v2/batches") => &["limit", "marker"],
        ("GET", "/v2/tasks") => &["limit", "marker", "sort_key", "sort_dir", "status", "type"],
        ("GET", "/v2/metadefs/namespaces") => &[
            "limit",
            "marker",
            "sort_key",
            "sort_dir",
            "visibility",
            "resource_types",
        ],
        ("GET", "/v2/images/{image}/file") => &[
            "prefer",
            "disk_format",
            "container_format",
            "compress",
            "disk",
        ],
        _ => &[],
    };
    let headers: &[&str] = match (verb, path) {
        ("GET", "/v2/images/{image}/file") => &["Range"],
        ("PUT", "/v2/images/{image}/file") => &["X-Image-Meta-Store", "X-Openstack-Image-Size"],
        ("PUT", "/v2/images/{image}/stage") => &["X-Openstack-Image-Size"],
        ("POST", "/v2/images/{image}/import") => &["X-Image-Meta-Store"],
        _ => &[],
    };
    for (place, names) in [("query", query), ("header", headers)] {
        all.extend(
            names
                .iter()
                .map(|name| json!({"name": name, "in": place, "schema": {"type": "string"}})),
        );
    }
    all.into()
}

fn body(verb: &str, path: &str, formats: &Formats) -> Option<Value> {
    let text = || json!({"type": "string"});
    let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required});
    let convert = || {
        object(
            json!({
                "disk_format": text(), "options": {"type": "object"},
                "compress": {"type": "boolean"},
            }),
            &["disk_format"],
        )
    };
    let expected = || {
        object(
            json!({
                "algo": {"enum": ["md5", "sha1", "sha256", "sha384", "sha512"]},
                "value": text(), "of": {"enum": ["sent", "content"]},
            }),
            &["algo", "value"],
        )
    };
    let schema = match (verb, path) {
        ("PUT", "/v2/images/{image}/file" | "/v2/images/{image}/stage") => {
            let octets = json!({"application/octet-stream": {"schema": {}}});
            return Some(json!({"required": true, "content": octets}));
        }
        ("PATCH", UPLOAD) => {
            let octets = json!({"application/offset+octet-stream": {"schema": {}}});
            return Some(json!({"required": true, "content": octets}));
        }
        ("PATCH", "/v2/images/{image}") => {
            let step = json!({"type": "object", "properties": {
                "op": {"enum": ["add", "replace", "remove"]}, "path": text(), "value": {},
            }});
            let old = json!({"type": "object", "properties": {
                "add": text(), "replace": text(), "remove": text(), "value": {},
            }});
            let of = |items: Value| json!({"schema": {"type": "array", "items": items}});
            let content = json!({
                "application/openstack-images-v2.1-json-patch": of(step),
                "application/openstack-images-v2.0-json-patch": of(old),
            });
            return Some(json!({"required": true, "content": content}));
        }
        ("POST", "/v2/images") => writable(&schema::image(formats)),
        ("POST", "/v2/batches") => {
            let source = json!({"type": "object", "properties": {
                "url": text(), "image": text(), "file": text(), "name": text(),
                "disk_format": text(), "container_format": text(), "expected": expected(),
            }});
            let sources = json!({"type": "array", "items": {"anyOf": [text(), source]}});
            object(
                json!({
                    "sources": sources, "name": text(), "convert": convert(),
                    "stores": {"type": "array", "items": text()},
                    "concurrency": {"type": "integer"}, "properties": {"type": "object"},
                }),
                &["sources"],
            )
        }
        ("POST", "/v2/images/{image}/import") => {
            let method = object(
                json!({
                    "name": {"enum": ["glance-direct", "web-download", "copy-image", "glance-download"]},
                    "uri": text(), "glance_region": text(), "glance_image_id": text(),
                }),
                &["name"],
            );
            let flag = json!({"type": "boolean"});
            object(
                json!({
                    "method": method, "stores": {"type": "array", "items": text()},
                    "all_stores": flag, "all_stores_must_succeed": flag,
                    "convert": convert(), "expected": expected(),
                }),
                &["method"],
            )
        }
        ("POST", "/v2/images/{image}/members") => object(json!({"member": text()}), &["member"]),
        ("PUT", "/v2/images/{image}/members/{member}") => {
            let status = json!({"enum": ["pending", "accepted", "rejected"]});
            object(json!({"status": status}), &["status"])
        }
        ("POST", "/v2/images/{image}/locations") => {
            let said = object(
                json!({"os_hash_algo": text(), "os_hash_value": text()}),
                &["os_hash_algo", "os_hash_value"],
            );
            object(json!({"url": text(), "validation_data": said}), &["url"])
        }
        ("POST", "/v2/tasks") => {
            let input = object(
                json!({
                    "import_from": text(), "import_from_format": text(),
                    "image_properties": {"type": "object"},
                }),
                &["import_from"],
            );
            let kind = json!({"enum": ["import"]});
            object(json!({"type": kind, "input": input}), &["type", "input"])
        }
        // A single tag is named by its path, and the cache's verbs say everything.
        ("POST", "/v2/metadefs/namespaces/{namespace}/tags/{tag}") => return None,
        ("POST" | "PUT", path) if path.starts_with("/v2/metadefs") => json!({"type": "object"}),
        _ => return None,
    };
    let content = json!({"application/json": {"schema": schema}});
    Some(json!({"required": true, "content": content}))
}

/// A schema without what only the service sets.
fn writable(schema: &Value) -> Value {
    let properties: Map<_, _> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, part)| part["readOnly"] != true)
        .map(|(name, part)| (name.clone(), part.clone()))
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": {"type": "string"},
    })
}
