//! The JSON schemas that clients load before they speak (`/v2/schemas/…`), built from the
//! configuration; [`validate()`] judges a request's body by them in the reference's words.

use serde_json::{Value, json};

use crate::config::Formats;

pub(super) mod metadefs;
mod validate;

pub(super) use validate::validate;

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
