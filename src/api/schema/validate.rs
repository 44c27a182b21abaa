//! The judgement of a body by a schema: the keywords of JSON schema that ours use, in the order they
//! stand there. The sentence, and the parts of schema and body below it, are those of Python's
//! `jsonschema`, which the reference hands on to clients.

use serde_json::{Map, Value};

use crate::api::python::{pformat, repr, repr_str};
use crate::domain::ImageId;

/// Checks a body against its schema: the first fault, as the reference words it.
///
/// # Errors
/// The sentence (and the schema's part, and the value) to show.
pub(in crate::api) fn validate(schema: &Value, body: &Map<String, Value>) -> Result<(), String> {
    let body = Value::Object(body.clone());
    check(schema, schema, &body).map_err(|fault| {
        let name = schema["name"].as_str().unwrap_or_default();
        format!("Provided object does not match schema '{name}': {fault}")
    })
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

type Checked = Result<(), Box<Fault>>;

/// Checks a value by a part of the schema `root`.
fn check(root: &Value, schema: &Value, value: &Value) -> Checked {
    let Some(keywords) = schema.as_object() else {
        return Ok(());
    };
    for (keyword, wanted) in keywords {
        let fault = |keyword, message| {
            Err(Box::new(Fault {
                message,
                keyword,
                schema_path: Vec::new(),
                value_path: Vec::new(),
                schema: schema.clone(),
                value: value.clone(),
            }))
        };
        match (keyword.as_str(), value) {
            ("$ref", _) => check(root, referred(root, wanted), value)?,
            ("allOf", _) => {
                for (n, part) in wanted.as_array().into_iter().flatten().enumerate() {
                    check(root, part, value).map_err(|mut f| {
                        f.schema_path.push(format!("[{n}]"));
                        f.schema_path.push("['allOf']".into());
                        f
                    })?;
                }
            }
            ("type", _) if !is_of_type(wanted, value) => {
                let types = match wanted {
                    Value::Array(types) => types.iter().map(repr).collect::<Vec<_>>().join(", "),
                    one => repr(one),
                };
                return fault("type", format!("{} is not of type {types}", repr(value)));
            }
            ("enum", _) if !wanted.as_array().is_some_and(|w| w.contains(value)) => {
                let message = format!("{} is not one of {}", repr(value), repr(wanted));
                return fault("enum", message);
            }
            ("pattern", Value::String(text)) if text.parse::<ImageId>().is_err() => {
                let message = format!("{} does not match {}", repr(value), repr(wanted));
                return fault("pattern", message);
            }
            ("maxLength", Value::String(text)) if text.chars().count() as u64 > number(wanted) => {
                return fault("maxLength", format!("{} is too long", repr(value)));
            }
            ("minimum", Value::Number(n)) if n.as_f64() < wanted.as_f64() => {
                let message = format!("{n} is less than the minimum of {}", repr(wanted));
                return fault("minimum", message);
            }
            ("uniqueItems", Value::Array(items)) if *wanted == true && has_twins(items) => {
                return fault(
                    "uniqueItems",
                    format!("{} has non-unique elements", repr(value)),
                );
            }
            ("items", Value::Array(items)) => {
                for (n, item) in items.iter().enumerate() {
                    check(root, wanted, item).map_err(|mut f| {
                        f.schema_path.push("['items']".into());
                        f.value_path.push(format!("[{n}]"));
                        f
                    })?;
                }
            }
            ("required", Value::Object(map)) => {
                let names = wanted.as_array().into_iter().flatten();
                if let Some(name) = names
                    .filter_map(Value::as_str)
                    .find(|name| !map.contains_key(*name))
                {
                    let message = format!("{} is a required property", repr_str(name));
                    return fault("required", message);
                }
            }
            ("properties", Value::Object(map)) => {
                for (key, part) in wanted.as_object().into_iter().flatten() {
                    if let Some(value) = map.get(key) {
                        check(root, part, value).map_err(|f| f.under(&["properties", key], key))?;
                    }
                }
            }
            ("additionalProperties", Value::Object(map)) => {
                let named = schema["properties"].as_object();
                let others = map
                    .iter()
                    .filter(|(key, _)| named.is_none_or(|n| !n.contains_key(*key)));
                if *wanted == false {
                    let names: Vec<_> = others.map(|(key, _)| repr_str(key)).collect();
                    let were = match names.as_slice() {
                        [] => continue,
                        [_] => "was",
                        _ => "were",
                    };
                    let message = format!(
                        "Additional properties are not allowed ({} {were} unexpected)",
                        names.join(", ")
                    );
                    return fault("additionalProperties", message);
                }
                for (key, value) in others {
                    check(root, wanted, value)
                        .map_err(|f| f.under(&["additionalProperties"], key))?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// What `#/definitions/…` names in the schema.
fn referred<'s>(root: &'s Value, reference: &Value) -> &'s Value {
    let pointer = reference.as_str().and_then(|r| r.strip_prefix('#'));
    pointer
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(&Value::Null)
}

fn has_twins(items: &[Value]) -> bool {
    let mut seen = std::collections::HashSet::with_capacity(items.len());
    !items.iter().all(|item| seen.insert(item.to_string()))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(u64::MAX)
}

fn is_of_type(wanted: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        // Of any spelling: 1.0 is one, as `jsonschema` has it.
        "integer" => value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
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
    use serde_json::json;

    use super::super::{image, metadefs};
    use super::*;
    use crate::config::Formats;

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
        for good in [json!(1), json!(1.0), json!(1e3), json!(u64::MAX)] {
            assert_eq!(fault(&json!({"min_ram": good})), None);
        }
        for bad in [json!(1.5), json!(true), json!("1"), json!(null)] {
            assert!(fault(&json!({"min_ram": bad})).is_some(), "{bad}");
        }
    }

    fn fault_of_namespace(body: &Value) -> Option<String> {
        validate(&metadefs::namespace(), body.as_object().unwrap())
            .err()
            .map(|text| text.lines().next().unwrap().to_owned())
    }

    #[test]
    fn all_keywords_of_the_metadata_schemas_are_held() {
        let property = |more: Value| {
            let mut property = json!({"title": "X", "type": "integer"});
            property
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({"namespace": "n", "properties": {"x": property}})
        };
        assert_eq!(
            fault_of_namespace(&property(json!({"minimum": -1.5, "minLength": 0}))),
            None
        );
        for (body, want) in [
            (json!({}), "'namespace' is a required property"),
            (
                json!({"namespace": "n", "color": 1, "size": 2}),
                "Additional properties are not allowed ('color', 'size' were unexpected)",
            ),
            (
                property(json!({"maxLength": -1})),
                "-1 is less than the minimum of 0",
            ),
            (
                property(json!({"minLength": -1})),
                "-1 is less than the minimum of 0",
            ),
            (
                property(json!({"minimum": true})),
                "True is not of type 'number'",
            ),
            (
                property(json!({"required": ["a", "a"]})),
                "['a', 'a'] has non-unique elements",
            ),
            (
                json!({"namespace": "n", "properties": {"x": {"title": "X"}}}),
                "'type' is a required property",
            ),
        ] {
            let want = format!("Provided object does not match schema 'namespace': {want}");
            assert_eq!(fault_of_namespace(&body), Some(want), "{body}");
        }
    }
}
