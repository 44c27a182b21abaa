//! The JSON schemas that clients load before they speak (`/v2/schemas/…`), built from the
//! configuration, and the judgement of a request's body by them in the reference's words.

use serde_json::{Map, Value, json};

use super::python::{pformat, repr, repr_str};
use crate::config::Formats;
use crate::domain::ImageId;

/// The one pattern that schemas use; [`ImageId`] parses exactly what it matches.
const UUID: &str =
    "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";

/// `/v2/schemas/image`
#[must_use]
pub(super) fn image(formats: &Formats) -> Value {
    let or_null = |words: &[String]| -> Vec<Value> {
        std::iter::once(Value::Null)
            .chain(words.iter().map(|w| w.as_str().into()))
            .collect()
    };
    json!({
        "name": "image",
        "properties": {
            "id": {"type": "string", "description": "An identifier for the image", "pattern": UUID},
            "name": {
                "type": ["null", "string"],
                "description": "Descriptive name for the image",
                "maxLength": 255,
            },
            "status": {
                "type": "string",
                "readOnly": true,
                "description": "Status of the image",
                "enum": [
                    "queued", "saving", "active", "killed", "deleted", "uploading", "importing",
                    "pending_delete", "deactivated",
                ],
            },
            "visibility": {
                "type": "string",
                "description": "Scope of image accessibility",
                "enum": ["community", "public", "private", "shared"],
            },
            "protected": {
                "type": "boolean",
                "description": "If true, image will not be deletable.",
            },
            "os_hidden": {
                "type": "boolean",
                "description": "If true, image will not appear in default image list response.",
            },
            "checksum": {
                "type": ["null", "string"],
                "readOnly": true,
                "description": "md5 hash of image contents.",
                "maxLength": 32,
            },
            "os_hash_algo": {
                "type": ["null", "string"],
                "readOnly": true,
                "description": "Algorithm to calculate the os_hash_value",
                "maxLength": 64,
            },
            "os_hash_value": {
                "type": ["null", "string"],
                "readOnly": true,
                "description": "Hexdigest of the image contents using the algorithm specified by \
                                the os_hash_algo",
                "maxLength": 128,
            },
            "owner": {
                "type": ["null", "string"],
                "description": "Owner of the image",
                "maxLength": 255,
            },
            "size": {
                "type": ["null", "integer"],
                "readOnly": true,
                "description": "Size of image file in bytes",
            },
            "virtual_size": {
                "type": ["null", "integer"],
                "readOnly": true,
                "description": "Virtual size of image in bytes",
            },
            "container_format": {
                "type": ["null", "string"],
                "description": "Format of the container",
                "enum": or_null(&formats.container_formats),
            },
            "disk_format": {
                "type": ["null", "string"],
                "description": "Format of the disk",
                "enum": or_null(&formats.disk_formats),
            },
            "created_at": {
                "type": "string",
                "readOnly": true,
                "description": "Date and time of image registration",
            },
            "updated_at": {
                "type": "string",
                "readOnly": true,
                "description": "Date and time of the last image modification",
            },
            "tags": {
                "type": "array",
                "description": "List of strings related to the image",
                "items": {"type": "string", "maxLength": 255},
            },
            "direct_url": {
                "type": "string",
                "readOnly": true,
                "description": "URL to access the image file kept in external store",
            },
            "min_ram": {
                "type": "integer",
                "description": "Amount of ram (in MB) required to boot image.",
            },
            "min_disk": {
                "type": "integer",
                "description": "Amount of disk space (in GB) required to boot image.",
            },
            "self": {"type": "string", "readOnly": true, "description": "An image self url"},
            "file": {"type": "string", "readOnly": true, "description": "An image file url"},
            "stores": {
                "type": "string",
                "readOnly": true,
                "description": "Store in which image data resides.  Only present when the \
                                operator has enabled multiple stores.  May be a comma-separated \
                                list of store identifiers.",
            },
            "schema": {"type": "string", "readOnly": true, "description": "An image schema url"},
            "locations": locations(),
        },
        "additionalProperties": {"type": "string"},
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// The part of `/v2/schemas/image` on locations.
fn locations() -> Value {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "url": {"type": "string", "maxLength": 255},
                "metadata": {"type": "object"},
                "validation_data": {
                    "description": "Values to be used to populate the corresponding image \
                                    properties. If the image status is not 'queued', \
                                    values must exactly match those already contained in \
                                    the image properties.",
                    "type": "object",
                    "writeOnly": true,
                    "additionalProperties": false,
                    "properties": {
                        "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
                        "os_hash_algo": {"type": "string", "maxLength": 64},
                        "os_hash_value": {"type": "string", "maxLength": 128},
                    },
                    "required": ["os_hash_algo", "os_hash_value"],
                },
            },
            "required": ["url", "metadata"],
        },
        "description": "A set of URLs to access the image file kept in external store",
    })
}

/// `/v2/schemas/images`
#[must_use]
pub(super) fn images(formats: &Formats) -> Value {
    json!({
        "name": "images",
        "properties": {
            "images": {"type": "array", "items": image(formats)},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    })
}

/// `/v2/schemas/member`
#[must_use]
pub(super) fn member() -> Value {
    let says = |description: &str| json!({"type": "string", "description": description});
    json!({
        "name": "member",
        "properties": {
            "member_id": says("An identifier for the image member (tenantId)"),
            "image_id": {"type": "string", "description": "An identifier for the image", "pattern": UUID},
            "created_at": says("Date and time of image member creation"),
            "updated_at": says("Date and time of last modification of image member"),
            "status": {
                "type": "string",
                "description": "The status of this image member",
                "enum": ["pending", "accepted", "rejected"],
            },
            "schema": {"readOnly": true, "type": "string"},
        },
    })
}

/// `/v2/schemas/task`
#[must_use]
pub(super) fn task() -> Value {
    let says = |description: &str| json!({"description": description, "type": "string"});
    let blob = |description: &str| json!({"description": description, "type": ["null", "object"]});
    json!({
        "name": "task",
        "properties": {
            "id": {"description": "An identifier for the task", "pattern": UUID, "type": "string"},
            "type": {
                "description": "The type of task represented by this content",
                "enum": ["import", "api_image_import", "location_import"],
                "type": "string",
            },
            "status": {
                "description": "The current status of this task",
                "enum": ["pending", "processing", "success", "failure"],
                "type": "string",
            },
            "input": blob("The parameters required by task, JSON blob"),
            "result": blob("The result of current task, JSON blob"),
            "owner": says("An identifier for the owner of this task"),
            "message": says(
                "Human-readable informative message only included when appropriate (usually on \
                 failure)"
            ),
            "image_id": says("Image associated with the task"),
            "request_id": says("Human-readable informative request-id"),
            "user_id": says("User associated with the task"),
            "expires_at": {
                "description": "Datetime when this resource would be subject to removal",
                "type": ["null", "string"],
            },
            "created_at": says("Datetime when this resource was created"),
            "updated_at": says("Datetime when this resource was updated"),
            "self": {"readOnly": true, "type": "string"},
            "schema": {"readOnly": true, "type": "string"},
        },
    })
}

/// `/v2/schemas/members`
#[must_use]
pub(super) fn members() -> Value {
    collection("members", &member())
}

/// `/v2/schemas/tasks`: its items are stubs, without input, result and message.
#[must_use]
pub(super) fn tasks() -> Value {
    let mut stub = task();
    if let Some(properties) = stub["properties"].as_object_mut() {
        for left_out in ["input", "result", "message"] {
            properties.shift_remove(left_out);
        }
    }
    collection("tasks", &stub)
}

fn collection(name: &str, item: &Value) -> Value {
    json!({
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "describedby", "href": "{schema}"}],
    })
}

/// Checks an object against an object's schema: the first fault, as the reference words it.
///
/// # Errors
/// The sentence (and the schema's part, and the value) to show.
pub(super) fn validate(schema: &Value, object: &Map<String, Value>) -> Result<(), String> {
    let fail = |fault: Box<Fault>| {
        let name = schema["name"].as_str().unwrap_or_default();
        format!("Provided object does not match schema '{name}': {fault}")
    };
    let properties = schema["properties"].as_object();
    for (key, part) in properties.into_iter().flatten() {
        if let Some(value) = object.get(key) {
            check(part, value)
                .map_err(|f| f.under(&["properties", key], key))
                .map_err(fail)?;
        }
    }
    let additional = &schema["additionalProperties"];
    for (key, value) in object {
        if properties.is_none_or(|p| !p.contains_key(key)) {
            check(additional, value)
                .map_err(|f| f.under(&["additionalProperties"], key))
                .map_err(fail)?;
        }
    }
    Ok(())
}

/// A value that does not fit.
struct Fault {
    message: String,
    keyword: &'static str,
    /// Steps to the part of the schema, outermost last.
    schema_path: Vec<String>,
    /// Steps to the value, outermost last.
    value_path: Vec<String>,
    schema: Value,
    value: Value,
}

impl Fault {
    fn under(mut self: Box<Self>, schema_steps: &[&str], value_step: &str) -> Box<Self> {
        self.schema_path.extend(
            schema_steps
                .iter()
                .rev()
                .map(|s| format!("[{}]", repr_str(s))),
        );
        self.value_path.push(format!("[{}]", repr_str(value_step)));
        self
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = |steps: &[String]| steps.iter().rev().cloned().collect::<String>();
        let indented = |text: String| text.replace('\n', "\n    ");
        write!(
            f,
            "{}\n\nFailed validating '{}' in schema{}:\n    {}\n\nOn instance{}:\n    {}",
            self.message,
            self.keyword,
            path(&self.schema_path),
            indented(pformat(&self.schema)),
            path(&self.value_path),
            indented(pformat(&self.value)),
        )
    }
}

/// The keywords our schemas use, in the order they stand in the schema.
fn check(schema: &Value, value: &Value) -> Result<(), Box<Fault>> {
    let fault = |keyword, message| {
        Box::new(Fault {
            message,
            keyword,
            schema_path: Vec::new(),
            value_path: Vec::new(),
            schema: schema.clone(),
            value: value.clone(),
        })
    };
    let Some(keywords) = schema.as_object() else {
        return Ok(());
    };
    for (keyword, wanted) in keywords {
        match (keyword.as_str(), value) {
            ("type", _) if !is_of_type(wanted, value) => {
                let types = match wanted {
                    Value::Array(types) => types.iter().map(repr).collect::<Vec<_>>().join(", "),
                    one => repr(one),
                };
                let message = format!("{} is not of type {types}", repr(value));
                return Err(fault("type", message));
            }
            ("enum", _) if !wanted.as_array().is_some_and(|w| w.contains(value)) => {
                let message = format!("{} is not one of {}", repr(value), repr(wanted));
                return Err(fault("enum", message));
            }
            ("pattern", Value::String(text)) if text.parse::<ImageId>().is_err() => {
                let message = format!("{} does not match {}", repr(value), repr(wanted));
                return Err(fault("pattern", message));
            }
            ("maxLength", Value::String(text)) if text.chars().count() as u64 > number(wanted) => {
                return Err(fault("maxLength", format!("{} is too long", repr(value))));
            }
            ("items", Value::Array(items)) => {
                for (n, item) in items.iter().enumerate() {
                    check(wanted, item).map_err(|mut f| {
                        f.schema_path.push("['items']".into());
                        f.value_path.push(format!("[{n}]"));
                        f
                    })?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

fn is_of_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    match wanted {
        Value::String(name) => is(name),
        Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &Value) -> Option<String> {
        let schema = image(&Formats::default());
        validate(&schema, body.as_object().unwrap()).err()
    }

    #[test]
    fn what_fits_passes() {
        assert_eq!(
            fault(&json!({
                "name": null, "tags": ["a"], "min_ram": 4, "custom": "x", "disk_format": null,
                "id": "11111111-2222-4333-8444-555555555555", "protected": true,
            })),
            None
        );
    }

    #[test]
    fn faults_read_as_the_references() {
        // 02-create.http, "tag of 256 characters" and "non-string property".
        let tag = "t".repeat(256);
        let text = fault(&json!({"tags": ["a", tag]})).unwrap();
        assert!(text.contains(
            "in schema['properties']['tags']['items']:\n    {'type': 'string', 'maxLength': 255}"
        ));
        assert!(text.contains("\n\nOn instance['tags'][1]:\n"));
        assert_eq!(
            fault(&json!({"custom": 7})).unwrap(),
            "Provided object does not match schema 'image': 7 is not of type 'string'\n\nFailed \
             validating 'type' in schema['additionalProperties']:\n    {'type': 'string'}\n\nOn \
             instance['custom']:\n    7"
        );
    }

    #[test]
    fn numbers_are_whole_and_booleans_are_none() {
        for bad in [json!(1.5), json!(true), json!("1"), json!(null)] {
            assert!(fault(&json!({"min_ram": bad})).is_some(), "{bad}");
        }
    }
}
