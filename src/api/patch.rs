//! JSON patches of images, in both dialects the reference speaks, as a list of [`Change`]s. Only
//! syntax is judged here; what a change means for an image is `properties`' matter.

use serde_json::{Map, Value};

/// A dialect, by its media type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// `{"replace": "/name", "value": …}`; adding what exists is a conflict.
    V20,
    /// `{"op": "replace", "path": "/name", "value": …}` (RFC 6902); adding overwrites.
    V21,
}

impl Dialect {
    /// The media types taken, as `Accept-Patch` lists them.
    pub(super) const MEDIA_TYPES: &str = "application/openstack-images-v2.0-json-patch, \
                                   application/openstack-images-v2.1-json-patch";

    /// The dialect of a media type.
    #[must_use]
    pub(super) fn of(media_type: &str) -> Option<Self> {
        match media_type {
            "application/openstack-images-v2.0-json-patch" => Some(Self::V20),
            "application/openstack-images-v2.1-json-patch" => Some(Self::V21),
            _ => None,
        }
    }
}

/// What is done to a property.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Op {
    /// Set it; `V20` wants that it does not exist.
    Add(Value),
    /// Set it; it must exist.
    Replace(Value),
    /// Take it away; it must exist.
    Remove,
}

/// One step of a patch.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Change {
    /// The property, unescaped.
    pub name: String,
    /// Of `locations`: the place of one of them, or `-` behind the last.
    pub at: Option<String>,
    /// What is done to it.
    pub op: Op,
}

const OPS: [&str; 3] = ["add", "remove", "replace"];

/// Reads a patch.
///
/// # Errors
/// The sentence of a 400.
pub(super) fn parse(dialect: Dialect, body: &Value) -> Result<Vec<Change>, String> {
    let steps = body
        .as_array()
        .ok_or("Request body must be a JSON array of operation objects.")?;
    steps.iter().map(|step| parse_step(dialect, step)).collect()
}

fn parse_step(dialect: Dialect, step: &Value) -> Result<Change, String> {
    let step = step.as_object().ok_or("Operations must be JSON objects.")?;
    let (op, pointer) = match dialect {
        Dialect::V20 => op_v20(step)?,
        Dialect::V21 => op_v21(step)?,
    };
    let path = parse_pointer(pointer)?;
    let value = || {
        step.get("value").cloned().ok_or(format!(
            "Operation \"{op}\" requires a member named \"value\"."
        ))
    };
    let change = match op {
        "add" => Op::Add(value()?),
        "replace" => Op::Replace(value()?),
        _ => Op::Remove,
    };
    // Single locations are addressed one level deeper, unless all are replaced.
    let locations = path[0] == "locations" && !matches!(change, Op::Replace(_));
    if path.len() != if locations { 2 } else { 1 } {
        return Err(format!(
            "Invalid JSON pointer for this resource: '/{}'",
            path.join("/")
        ));
    }
    let mut path = path.into_iter();
    Ok(Change {
        name: path.next().unwrap_or_default(),
        at: path.next(),
        op: change,
    })
}

fn op_v20(step: &Map<String, Value>) -> Result<(&'static str, &str), String> {
    let mut found = OPS.into_iter().filter(|op| step.contains_key(*op));
    let op = found.next().ok_or(
        "Operation objects must contain exactly one member named \"add\", \"remove\", or \
         \"replace\".",
    )?;
    if found.next().is_some() {
        return Err(
            "Operation objects must contain only one member named \"add\", \"remove\", or \
             \"replace\"."
                .into(),
        );
    }
    Ok((op, text(&step[op])?))
}

fn op_v21(step: &Map<String, Value>) -> Result<(&'static str, &str), String> {
    let missing = |name| {
        format!(
            "Unable to find `{name}` in JSON Schema change. It must be one of the following: \
             add, remove, replace."
        )
    };
    let named = step.get("op").ok_or_else(|| missing("op"))?;
    let op = OPS
        .into_iter()
        .find(|op| named.as_str() == Some(*op))
        .ok_or_else(|| {
            let named = named.as_str().map_or(named.to_string(), str::to_owned);
            format!(
                "Invalid operation: `{named}`. It must be one of the following: add, remove, \
                 replace."
            )
        })?;
    let path = step
        .get("path")
        .ok_or("Unable to find 'path' in JSON Schema change")?;
    Ok((op, text(path)?))
}

fn text(pointer: &Value) -> Result<&str, String> {
    pointer
        .as_str()
        .ok_or_else(|| format!("Pointer `{pointer}` is not a string."))
}

/// `/a~1b` is `["a/b"]`.
fn parse_pointer(pointer: &str) -> Result<Vec<String>, String> {
    let fault = |what: &str| Err(format!("Pointer `{pointer}` {what}."));
    let Some(steps) = pointer.strip_prefix('/') else {
        return fault("does not start with \"/\"");
    };
    let steps: Vec<_> = steps.split('/').map(str::trim).collect();
    let last = steps.len() - 1;
    if steps[..last].iter().any(|step| step.is_empty()) {
        return fault("contains adjacent \"/\"");
    }
    if steps[last].is_empty() {
        return fault(if last == 0 {
            "does not contain a valid token"
        } else {
            "ends with \"/\""
        });
    }
    let escapes = steps.iter().flat_map(|s| s.split('~').skip(1));
    if escapes.into_iter().any(|e| !e.starts_with(['0', '1'])) {
        return fault("contains \"~\" not part of a recognized escape sequence");
    }
    Ok(steps
        .iter()
        .map(|s| s.replace("~1", "/").replace("~0", "~"))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one(dialect: Dialect, step: &Value) -> Result<Change, String> {
        parse(dialect, &json!([step])).map(|mut changes| changes.remove(0))
    }

    #[test]
    fn both_dialects_say_the_same() {
        let change = Change {
            name: "name".into(),
            at: None,
            op: Op::Replace(json!("x")),
        };
        assert_eq!(
            one(
                Dialect::V21,
                &json!({"op": "replace", "path": "/name", "value": "x"})
            ),
            Ok(change.clone())
        );
        assert_eq!(
            one(Dialect::V20, &json!({"replace": "/name", "value": "x"})),
            Ok(change)
        );
        assert_eq!(
            one(Dialect::V20, &json!({"remove": "/k"})).unwrap().op,
            Op::Remove
        );
    }

    #[test]
    fn pointers() {
        let name = |path: &str| {
            one(Dialect::V21, &json!({"op": "remove", "path": path})).map(|change| change.name)
        };
        assert_eq!(name("/a~1b~0c~01").unwrap(), "a/b~c~1");
        assert_eq!(name("/ k ").unwrap(), "k");
        for (path, why) in [
            ("k", "does not start"),
            ("", "does not start"),
            ("/", "valid token"),
            ("/k/", "ends with"),
            ("/k//x", "adjacent"),
            ("//", "adjacent"),
            ("/k~2", "escape"),
            ("/k~", "escape"),
            ("/k/x", "Invalid JSON pointer"),
        ] {
            let fault = name(path).unwrap_err();
            assert!(fault.contains(why), "{path}: {fault}");
        }
        assert_eq!(name("/locations/0").unwrap(), "locations");
        assert!(name("/locations").is_err());
    }

    #[test]
    fn what_is_no_patch() {
        for (dialect, body) in [
            (Dialect::V21, json!({})),
            (Dialect::V21, json!([1])),
            (Dialect::V21, json!([{"path": "/a", "value": 1}])),
            (Dialect::V21, json!([{"op": 7, "path": "/a", "value": 1}])),
            (
                Dialect::V21,
                json!([{"op": "test", "path": "/a", "value": 1}]),
            ),
            (Dialect::V21, json!([{"op": "add", "path": "/a"}])),
            (Dialect::V21, json!([{"op": "add", "value": 1}])),
            (Dialect::V21, json!([{"op": "add", "path": 3, "value": 1}])),
            (Dialect::V20, json!([{"value": 1}])),
            (
                Dialect::V20,
                json!([{"add": "/a", "remove": "/a", "value": 1}]),
            ),
            (Dialect::V20, json!([{"add": "/a"}])),
        ] {
            assert!(parse(dialect, &body).is_err(), "{body}");
        }
        assert_eq!(parse(Dialect::V21, &json!([])), Ok(vec![]));
    }
}
