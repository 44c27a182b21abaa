//! The schemas of metadata definitions (`/v2/schemas/metadefs/…`). What is alike in several of them
//! differs in small ways in the reference, and so it does here (16-schemas.http).

use serde_json::{Map, Value, json};

/// Where a property's type is named. `null` is the reference's, for clients that look at the list.
fn types() -> Value {
    json!({
        "type": "string",
        "enum": ["array", "boolean", "integer", "number", "object", "string", null],
    })
}

fn text(max: u64) -> Value {
    json!({"type": "string", "maxLength": max})
}

fn described(description: &str, max: u64) -> Value {
    json!({"type": "string", "description": description, "maxLength": max})
}

fn time(description: &str) -> Value {
    json!({
        "type": "string",
        "readOnly": true,
        "description": description,
        "format": "date-time",
    })
}

fn read_only() -> Value {
    json!({"readOnly": true, "type": "string"})
}

/// What may be said of a property.
fn keywords() -> Value {
    json!({
        "name": text(80),
        "title": {"type": "string"},
        "description": {"type": "string"},
        "operators": {"type": "array", "items": {"type": "string"}},
        "type": types(),
        "required": {"$ref": "#/definitions/stringArray"},
        "minimum": {"type": "number"},
        "maximum": {"type": "number"},
        "maxLength": {"$ref": "#/definitions/positiveInteger"},
        "minLength": {"$ref": "#/definitions/positiveIntegerDefault0"},
        "pattern": {"type": "string", "format": "regex"},
        "enum": {"type": "array"},
        "readonly": {"type": "boolean"},
        "default": {},
        "items": {"type": "object", "properties": {"type": types(), "enum": {"type": "array"}}},
        "maxItems": {"$ref": "#/definitions/positiveInteger"},
        "minItems": {"$ref": "#/definitions/positiveIntegerDefault0"},
        "uniqueItems": {"type": "boolean", "default": false},
        "additionalItems": {"type": "boolean"},
    })
}

/// The definitions of namespaces and objects, whose properties are maps.
fn definitions() -> Value {
    json!({
        "positiveInteger": {"type": "integer", "minimum": 0},
        "positiveIntegerDefault0": {
            "allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}],
        },
        "stringArray": {"type": "array", "items": {"type": "string"}, "uniqueItems": true},
        "property": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["title", "type"],
                "properties": keywords(),
            },
        },
    })
}

/// The definitions of properties alone.
fn property_definitions() -> Value {
    json!({
        "positiveInteger": {"type": "integer", "minimum": 0},
        "positiveIntegerDefault0": {
            "allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}],
        },
        "stringArray": {
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "uniqueItems": true,
        },
    })
}

/// `/v2/schemas/metadefs/namespace`
#[must_use]
pub(in crate::api) fn namespace() -> Value {
    json!({
        "name": "namespace",
        "properties": {
            "namespace": described("The unique namespace text.", 80),
            "display_name": described(
                "The user friendly name for the namespace. Used by UI if available.",
                80,
            ),
            "description": described(
                "Provides a user friendly description of the namespace.",
                500,
            ),
            "visibility": {
                "type": "string",
                "description": "Scope of namespace accessibility.",
                "enum": ["public", "private"],
            },
            "protected": {
                "type": "boolean",
                "description": "If true, namespace will not be deletable.",
            },
            "owner": described("Owner of the namespace.", 255),
            "created_at": time("Date and time of namespace creation"),
            "updated_at": time("Date and time of the last namespace modification"),
            "schema": read_only(),
            "self": read_only(),
            "resource_type_associations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "prefix": {"type": "string"},
                        "properties_target": {"type": "string"},
                    },
                },
            },
            "properties": {"$ref": "#/definitions/property"},
            "objects": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "description": {"type": "string"},
                        "required": {"$ref": "#/definitions/stringArray"},
                        "properties": {"$ref": "#/definitions/property"},
                    },
                },
            },
            "tags": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": {"type": "string"}}},
            },
        },
        "additionalProperties": false,
        "definitions": definitions(),
        "required": ["namespace"],
    })
}

/// `/v2/schemas/metadefs/object`
#[must_use]
pub(in crate::api) fn object() -> Value {
    json!({
        "name": "object",
        "properties": {
            "name": text(80),
            "description": {"type": "string"},
            "required": {"$ref": "#/definitions/stringArray"},
            "properties": {"$ref": "#/definitions/property"},
            "schema": read_only(),
            "self": read_only(),
            "created_at": time("Date and time of object creation"),
            "updated_at": time("Date and time of the last object modification"),
        },
        "additionalProperties": false,
        "definitions": definitions(),
        "required": ["name"],
    })
}

/// `/v2/schemas/metadefs/property`
#[must_use]
pub(in crate::api) fn property() -> Value {
    json!({
        "name": "property",
        "properties": keywords(),
        "additionalProperties": false,
        "definitions": property_definitions(),
        "required": ["type", "title", "name"],
    })
}

/// `/v2/schemas/metadefs/tag`
#[must_use]
pub(in crate::api) fn tag() -> Value {
    json!({
        "name": "tag",
        "properties": {
            "name": text(80),
            "created_at": time("Date and time of tag creation"),
            "updated_at": time("Date and time of the last tag modification"),
        },
        "additionalProperties": false,
        "required": ["name"],
    })
}

/// `/v2/schemas/metadefs/resource_type`
#[must_use]
pub(in crate::api) fn resource_type() -> Value {
    json!({
        "name": "resource_type_association",
        "properties": {
            "name": described(
                "Resource type names should be aligned with Heat resource types whenever \
                 possible: https://docs.openstack.org/heat/latest/template_guide/openstack.html",
                80,
            ),
            "prefix": described(
                "Specifies the prefix to use for the given resource type. Any properties in the \
                 namespace should be prefixed with this prefix when being applied to the \
                 specified resource type. Must include prefix separator (e.g. a colon :).",
                80,
            ),
            "properties_target": described(
                "Some resource types allow more than one key / value pair per instance.  For \
                 example, Cinder allows user and image metadata on volumes. Only the image \
                 properties metadata is evaluated by Nova (scheduling or drivers). This property \
                 allows a namespace target to remove the ambiguity.",
                80,
            ),
            "created_at": time("Date and time of resource type association"),
            "updated_at": time(
                "Date and time of the last resource type association modification",
            ),
        },
        "additionalProperties": false,
        "required": ["name"],
    })
}

/// `/v2/schemas/metadefs/namespaces`
#[must_use]
pub(in crate::api) fn namespaces() -> Value {
    collection("namespaces", &array(namespace()), Some(definitions()))
}

/// `/v2/schemas/metadefs/objects`
#[must_use]
pub(in crate::api) fn objects() -> Value {
    collection("objects", &array(object()), Some(definitions()))
}

/// `/v2/schemas/metadefs/properties`: a map, whose keys are the names.
#[must_use]
pub(in crate::api) fn properties() -> Value {
    let mut item = item(property());
    item.insert("required".into(), json!(["type", "title"]));
    let map = json!({"type": "object", "additionalProperties": item});
    collection("properties", &map, Some(property_definitions()))
}

/// `/v2/schemas/metadefs/tags`
#[must_use]
pub(in crate::api) fn tags() -> Value {
    collection("tags", &array(tag()), None)
}

/// `/v2/schemas/metadefs/resource_types`
#[must_use]
pub(in crate::api) fn resource_types() -> Value {
    collection("resource_type_associations", &array(resource_type()), None)
}

/// A schema without its definitions, which stand at the root.
fn item(schema: Value) -> Map<String, Value> {
    match schema {
        Value::Object(mut schema) => {
            schema.shift_remove("definitions");
            schema
        }
        _ => Map::new(),
    }
}

fn array(schema: Value) -> Value {
    json!({"type": "array", "items": item(schema)})
}

fn collection(name: &str, items: &Value, definitions: Option<Value>) -> Value {
    let mut schema = json!({
        "name": name,
        "properties": {
            name: items,
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    });
    if let Some(definitions) = definitions {
        schema["definitions"] = definitions;
    }
    schema
}
