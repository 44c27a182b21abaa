//! What clients may set of an image, at creation and by patches: names that are ours, bounds, and
//! how a value gets into the image. Types were judged by the schema before.

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::Failure;
use super::patch::{Change, Dialect, Op};
use crate::auth::protections::{Act, Protections};
use crate::auth::{Context, policy};
use crate::config::Quota;
use crate::domain::{Image, Status};

/// Longest value of a custom property, in bytes: what every catalog column holds.
const MAX_VALUE: usize = 65_535;

/// Base properties that only the service sets.
const READ_ONLY: [&str; 14] = [
    "checksum",
    "created_at",
    "direct_url",
    "file",
    "id",
    "os_hash_algo",
    "os_hash_value",
    "schema",
    "self",
    "size",
    "status",
    "stores",
    "updated_at",
    "virtual_size",
];

/// Names no property may have.
const RESERVED: [&str; 3] = ["deleted", "deleted_at", "location"];

/// The namespace of properties that are the service's own.
const OURS: &str = "os_glance";

/// Base properties that clients set.
const WRITABLE: [&str; 10] = [
    "container_format",
    "disk_format",
    "min_disk",
    "min_ram",
    "name",
    "os_hidden",
    "owner",
    "protected",
    "tags",
    "visibility",
];

fn forbidden(sentence: impl Into<String>) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, sentence)
}

/// Whether every image has the property.
fn is_base(name: &str) -> bool {
    WRITABLE.contains(&name) || READ_ONLY.contains(&name) || name == "locations"
}

fn refuse_read_only(name: &str) -> Result<(), Failure> {
    if READ_ONLY.contains(&name) {
        return Err(forbidden(format!("Attribute '{name}' is read-only.")));
    }
    if RESERVED.contains(&name) {
        return Err(forbidden(format!("Attribute '{name}' is reserved.")));
    }
    Ok(())
}

/// Links that a client got from us and must not send back, refused before types are looked at.
pub(super) fn refuse_links(body: &Map<String, Value>) -> Result<(), Failure> {
    ["direct_url", "self", "file", "schema", "stores"]
        .iter()
        .filter(|name| body.contains_key(**name))
        .try_for_each(|name| refuse_read_only(name))
}

/// Fills a new image with what the client sent, but for `id` and `owner`, which made it.
pub(super) fn fill(
    caller: &Caller<'_>,
    image: &mut Image,
    body: Map<String, Value>,
) -> Result<(), Failure> {
    for name in body.keys() {
        if name.starts_with(OURS) {
            let sentence = format!("Attribute '{name}' is reserved.");
            return Err(Failure::detail(StatusCode::FORBIDDEN, sentence));
        }
        if name == "locations" {
            return Err(forbidden("Attribute 'locations' is reserved."));
        }
        if name != "id" {
            refuse_read_only(name)?;
        }
        caller.may(Act::Create, name)?;
    }
    for (name, value) in body {
        if name != "id" && name != "owner" {
            set(image, &name, value)?;
        }
    }
    Ok(())
}

/// Who changes properties, and what protects them.
pub(super) struct Caller<'a> {
    pub(super) ctx: &'a Context,
    pub(super) protections: &'a Protections,
}

impl Caller<'_> {
    /// Whether the caller may do it to a custom property.
    fn may(&self, act: Act, name: &str) -> Result<(), Failure> {
        if is_base(name) || self.protections.allows(act, name, self.ctx) {
            return Ok(());
        }
        Err(forbidden(format!("Property '{name}' is protected")))
    }
}

/// Refuses a change that no caller may make to any image.
pub(super) fn refuse_change(change: &Change) -> Result<(), Failure> {
    refuse_read_only(&change.name)?;
    if change.name.starts_with(OURS) {
        return Err(forbidden(format!(
            "Attribute '{}' is reserved.",
            change.name
        )));
    }
    Ok(())
}

/// Makes one change of a patch.
pub(super) fn apply(
    caller: &Caller<'_>,
    image: &mut Image,
    change: Change,
    dialect: Dialect,
) -> Result<(), Failure> {
    let Change { name, op, .. } = change;
    let ctx = caller.ctx;
    // What a caller may not see is not there for them.
    let is_there = image.properties.contains_key(&name);
    let exists = is_base(&name) || (is_there && caller.may(Act::Read, &name).is_ok());
    if is_there && exists {
        caller.may(
            match op {
                Op::Remove => Act::Delete,
                Op::Add(_) | Op::Replace(_) => Act::Update,
            },
            &name,
        )?;
    }
    let absent = || {
        let sentence = format!("Property {name} does not exist.");
        Err(Failure::detail(StatusCode::CONFLICT, sentence))
    };
    match op {
        Op::Remove if is_base(&name) => Err(Failure::detail(
            StatusCode::FORBIDDEN,
            format!("Property {name} may not be removed."),
        )),
        Op::Remove | Op::Replace(_) if !exists => absent(),
        Op::Remove => {
            image.properties.remove(&name);
            Ok(())
        }
        Op::Add(_) if exists && dialect == Dialect::V20 => Err(Failure::detail(
            StatusCode::CONFLICT,
            format!("Property {name} already present."),
        )),
        Op::Add(value) | Op::Replace(value) => {
            if name == "owner" && !ctx.is_admin {
                let sentence = "Owner can't be updated by non admin.";
                return Err(Failure::detail(StatusCode::FORBIDDEN, sentence));
            }
            if !exists {
                let act = if is_there { Act::Update } else { Act::Create };
                caller.may(act, &name)?;
            }
            let before = image.visibility;
            set(image, &name, value)?;
            if name == "visibility" && image.visibility != before {
                policy::publish(ctx, image)?;
            }
            Ok(())
        }
    }
}

/// Sets a property that may be set.
fn set(image: &mut Image, name: &str, value: Value) -> Result<(), Failure> {
    if has_astral(name) {
        return Err(Failure::bad("Property names can't contain 4 byte unicode."));
    }
    if value.as_str().is_some_and(has_astral) {
        return Err(Failure::bad(format!(
            "{} can't contain 4 byte unicode characters.",
            titled(name)
        )));
    }
    match (name, value) {
        ("name", value) => image.name = text(value),
        ("owner", value) => image.owner = text(value),
        ("container_format", value) => {
            only_queued(image, name)?;
            image.container_format = text(value);
        }
        ("disk_format", value) => {
            only_queued(image, name)?;
            image.disk_format = text(value);
        }
        ("visibility", Value::String(word)) => {
            image.visibility = word
                .parse()
                .map_err(|()| Failure::bad(format!("Invalid visibility value: {word}")))?;
        }
        ("protected", value) => image.protected = value == Value::Bool(true),
        ("os_hidden", value) => image.hidden = value == Value::Bool(true),
        ("min_ram", value) => image.min_ram = minimum(name, &value)?,
        ("min_disk", value) => image.min_disk = minimum(name, &value)?,
        ("tags", Value::Array(tags)) => {
            let tags: BTreeSet<_> = tags.into_iter().filter_map(text).collect();
            if tags.iter().any(|t| has_astral(t)) {
                return Err(Failure::bad("Param values can't contain 4 byte unicode."));
            }
            image.tags = tags.into_iter().collect();
        }
        (_, Value::String(value)) => {
            if name.chars().count() > 255 {
                return Err(Failure::bad(
                    "Custom property names are at most 255 characters long.",
                ));
            }
            if value.len() > MAX_VALUE {
                return Err(Failure::bad(format!(
                    "The value of custom property '{name}' is longer than {MAX_VALUE} bytes."
                )));
            }
            image.properties.insert(name.to_owned(), value);
        }
        (_, _) => return Err(Failure::bad(format!("Invalid value for '{name}'."))),
    }
    Ok(())
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

fn only_queued(image: &Image, name: &str) -> Result<(), Failure> {
    if image.status == Status::Queued {
        return Ok(());
    }
    Err(forbidden(format!(
        "Attribute {name} can be only replaced for a queued image."
    )))
}

/// A number that a signed 32-bit column holds, and not negative.
fn minimum(name: &str, value: &Value) -> Result<i64, Failure> {
    let max = i64::from(i32::MAX);
    match integer(value) {
        Some(n) if n < 0 => Err(Failure::bad(format!(
            "Invalid value '{n}' for parameter '{name}': Cannot be a negative value"
        ))),
        Some(n) if n <= max => Ok(n),
        _ => Err(Failure::bad(format!(
            "'{name}' value out of range, must not exceed {max}."
        ))),
    }
}

/// A number without a fraction, however it is written: 2, 2.0 or 2e0.
fn integer(value: &Value) -> Option<i64> {
    // Exact, where it is at all: 64 bits hold 2^63 and more in other ways.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates, and is bounded then"
    )]
    let whole = |n: f64| (n.fract() == 0.0).then_some(n as i64);
    value.as_i64().or_else(|| value.as_f64().and_then(whole))
}

/// Whether there are characters outside the basic plane: four bytes in UTF-8, which not every
/// catalog holds.
pub(super) fn has_astral(text: &str) -> bool {
    text.chars().any(|c| c.len_utf8() == 4)
}

/// Python's `str.title`.
fn titled(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut in_word = false;
    for c in name.chars() {
        if in_word {
            out.extend(c.to_lowercase());
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphabetic();
    }
    out
}

/// Refuses more tags or custom properties than allowed, unless there were more before.
pub(super) fn within_quota(quota: &Quota, before: &Image, after: &Image) -> Result<(), Failure> {
    let custom = |image: &Image| {
        let names = image.properties.keys();
        names.filter(|n| !n.starts_with(OURS)).count()
    };
    for (what, max, before, after) in [
        ("tags", quota.tags, before.tags.len(), after.tags.len()),
        (
            "properties",
            quota.properties,
            custom(before),
            custom(after),
        ),
    ] {
        if usize::try_from(max).is_ok_and(|max| after > max && after > before) {
            return Err(Failure::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "The limit has been exceeded on the number of allowed image {what}. \
                     Attempted: {after}, Maximum: {max}"
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{ImageId, Timestamp};

    fn image() -> Image {
        Image::new(ImageId::random(), Some("p".into()), Timestamp(0))
    }

    #[test]
    fn titles_are_pythons() {
        assert_eq!(titled("name"), "Name");
        assert_eq!(titled("os_dIstro2x"), "Os_Distro2X");
    }

    #[test]
    fn tags_are_a_set() {
        let mut image = image();
        set(&mut image, "tags", json!(["b", "a", "b"])).unwrap();
        assert_eq!(image.tags, ["a", "b"]);
    }

    #[test]
    fn quotas_refuse_growth_only() {
        let quota = Quota {
            tags: 1,
            properties: -1,
            ..Quota::default()
        };
        let with = |tags: &[&str]| Image {
            tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            ..image()
        };
        let (one, two, three) = (with(&["a"]), with(&["a", "b"]), with(&["a", "b", "c"]));
        assert!(within_quota(&quota, &one, &two).is_err());
        assert!(within_quota(&quota, &three, &two).is_ok());
        assert!(within_quota(&quota, &two, &one).is_ok());
    }

    #[test]
    fn formats_change_while_queued_only() {
        let mut image = image();
        set(&mut image, "disk_format", json!("raw")).unwrap();
        image.status = Status::Active;
        assert!(set(&mut image, "disk_format", json!("raw")).is_err());
    }

    #[test]
    fn a_patch_dialect_decides_what_add_does() {
        let ctx = Context::with_roles("u", "p", &["member"]);
        let protections = Protections::default();
        let caller = Caller {
            ctx: &ctx,
            protections: &protections,
        };
        let add = |name: &str| Change {
            name: name.into(),
            at: None,
            op: Op::Add(json!("x")),
        };
        let mut image = image();
        apply(&caller, &mut image, add("k"), Dialect::V20).unwrap();
        assert!(apply(&caller, &mut image, add("k"), Dialect::V20).is_err());
        assert!(apply(&caller, &mut image, add("name"), Dialect::V20).is_err());
        apply(&caller, &mut image, add("k"), Dialect::V21).unwrap();
        apply(&caller, &mut image, add("name"), Dialect::V21).unwrap();
        assert_eq!(image.name.as_deref(), Some("x"));
        assert!(apply(&caller, &mut image, add("owner"), Dialect::V21).is_err());
    }
}
