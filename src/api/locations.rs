//! Locations that clients give an image, by patches (`image-api.md` 7.1): what they say is judged
//! first, then the stores are asked for sizes, and only then is anything changed.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::error::Failure;
use super::patch::{Change, Op};
use crate::auth::{Context, policy};
use crate::domain::{Event, Hashes, Image, Location, Status};
use crate::service::Service;

/// A location as a client gives it.
#[derive(Clone, PartialEq, Debug)]
struct Given {
    url: String,
    metadata: Map<String, Value>,
    validation: Option<Validation>,
    store: String,
    size: u64,
}

/// What a client says of the bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Validation {
    checksum: Option<String>,
    algo: String,
    value: String,
}

/// A change of locations, ready to be made.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Step {
    /// One more.
    Add(Box<Addition>),
    /// All of them at once.
    Replace(Vec<Addition>),
    /// The one at this place, or the last.
    Remove(Option<usize>),
}

/// A location a store has answered for.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Addition(Given);

/// What a patch did to locations.
#[derive(Default)]
pub(super) struct Outcome {
    /// To be inserted.
    pub(super) added: Vec<Location>,
    /// Whose metadata is other than before.
    pub(super) changed: Vec<Location>,
    /// Ids to be doomed.
    pub(super) removed: Vec<String>,
}

fn forbidden(sentence: &str) -> Failure {
    Failure::new(StatusCode::FORBIDDEN, sentence)
}

fn conflict(sentence: impl Into<String>) -> Failure {
    Failure::new(StatusCode::CONFLICT, sentence)
}

/// Reads a change of `locations` and asks the stores for what it names.
pub(super) async fn prepare(svc: &Service, change: &Change) -> Result<Step, Failure> {
    let shown = svc.config.api.show_multiple_locations;
    if let Op::Replace(Value::Array(none)) = &change.op
        && none.is_empty()
    {
        let sentence = "Cannot set locations to empty list.";
        return Err(Failure::detail(StatusCode::FORBIDDEN, sentence));
    }
    if !shown {
        return Err(forbidden(
            "It's not allowed to update locations if locations are invisible.",
        ));
    }
    let at = change.at.as_deref().filter(|at| *at != "-");
    let at = at.map(place).transpose()?;
    match &change.op {
        Op::Add(value) => {
            let addition = look_at(svc, value).await?;
            Ok(Step::Add(Box::new(addition)))
        }
        Op::Replace(Value::Array(list)) => {
            let mut additions = Vec::new();
            for value in list {
                additions.push(look_at(svc, value).await?);
            }
            Ok(Step::Replace(additions))
        }
        Op::Replace(_) => Err(Failure::bad("Invalid locations: a list is expected")),
        Op::Remove => Ok(Step::Remove(at)),
    }
}

fn place(text: &str) -> Result<usize, Failure> {
    text.parse()
        .map_err(|_| Failure::bad(format!("Invalid position for locations: {text}")))
}

/// Reads one location and asks its store how large it is.
async fn look_at(svc: &Service, value: &Value) -> Result<Addition, Failure> {
    let url = value
        .get("url")
        .and_then(Value::as_str)
        .ok_or_else(|| Failure::bad("Invalid location: a url is expected"))?;
    let metadata = match value.get("metadata") {
        Some(Value::Object(map)) => map.clone(),
        _ => return Err(Failure::bad("Invalid location: metadata is expected")),
    };
    let validation = value.get("validation_data").map(validation).transpose()?;
    if let Some(validation) = &validation
        && validation.algo != svc.config.import.hash_algo().name()
    {
        return Err(conflict(format!(
            "os_hash_algo must be {}, not {}",
            svc.config.import.hash_algo(),
            validation.algo
        )));
    }
    let (store, size) = ask(svc, url).await?;
    Ok(Addition(Given {
        url: url.to_owned(),
        metadata,
        validation,
        store,
        size,
    }))
}

/// The store of a client's URL, and the size of what lies there.
async fn ask(svc: &Service, url: &str) -> Result<(String, u64), Failure> {
    let store = svc.stores.of_url(url).ok_or_else(|| invalid(url))?;
    match store.blobs.stat(url).await {
        Ok(size) if size > 0 => Ok((store.config.id.clone(), size)),
        Ok(_) => Err(invalid(url)),
        Err(e) => {
            tracing::info!(error = %e, "a location was refused");
            Err(invalid(url))
        }
    }
}

/// One sentence for all that is wrong with a URL: it tells nothing of what we can reach.
pub(super) fn invalid(url: &str) -> Failure {
    Failure::bad(format!("Invalid location: {url}"))
}

fn validation(value: &Value) -> Result<Validation, Failure> {
    let fault = || Failure::bad("Invalid validation_data");
    let object = value.as_object().ok_or_else(fault)?;
    let known = ["checksum", "os_hash_algo", "os_hash_value"];
    if object.keys().any(|key| !known.contains(&key.as_str())) {
        return Err(fault());
    }
    let field = |name: &str| match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.to_ascii_lowercase())),
        Some(_) => Err(fault()),
    };
    let validation = Validation {
        checksum: field("checksum")?,
        algo: field("os_hash_algo")?.ok_or_else(fault)?,
        value: field("os_hash_value")?.ok_or_else(fault)?,
    };
    if let Some(checksum) = &validation.checksum
        && !is_digest("md5", checksum)
    {
        return Err(conflict("checksum (md5) is not a valid hexadecimal value"));
    }
    if !is_digest(&validation.algo, &validation.value) {
        return Err(conflict(format!(
            "os_hash_value is not a valid hexadecimal value of {}",
            validation.algo
        )));
    }
    Ok(validation)
}

/// Whether `value` is a digest that `algo` can give, in hexadecimal.
pub(super) fn is_digest(algo: &str, value: &str) -> bool {
    let digits = match algo {
        "md5" => 32,
        "sha1" => 40,
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    value.len() == digits && value.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Makes a change. What was added stands at the end of the image's locations.
pub(super) fn apply(
    svc: &Service,
    ctx: &Context,
    image: &mut Image,
    step: Step,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    match step {
        Step::Add(addition) => {
            in_status(image, &[Status::Active, Status::Queued], "add")?;
            policy::set_image_location(ctx, image)?;
            add(svc, image, *addition, outcome)
        }
        Step::Replace(additions) => {
            in_status(image, &[Status::Active, Status::Queued], "replace")?;
            policy::set_image_location(ctx, image)?;
            let before: Vec<_> = image.locations.iter().map(|l| &l.url).collect();
            let same = before
                .iter()
                .copied()
                .eq(additions.iter().map(|a| &a.0.url));
            if same {
                for (location, Addition(given)) in image.locations.iter_mut().zip(additions) {
                    let mut metadata = given.metadata;
                    // Shown beside what clients noted, and not theirs to say.
                    metadata.remove("store");
                    if location.metadata != metadata {
                        location.metadata = metadata;
                        outcome.changed.push(location.clone());
                    }
                }
                return Ok(());
            }
            if !before.is_empty() {
                return Err(Failure::bad(
                    "Unable to replace locations from a non-empty list to another one",
                ));
            }
            additions
                .into_iter()
                .try_for_each(|addition| add(svc, image, addition, outcome))
        }
        Step::Remove(at) => {
            in_status(image, &[Status::Active], "remove")?;
            policy::delete_image_location(ctx, image)?;
            remove(svc, image, at, outcome)
        }
    }
}

fn in_status(image: &Image, allowed: &[Status], verb: &str) -> Result<(), Failure> {
    if allowed.contains(&image.status) {
        return Ok(());
    }
    Err(conflict(format!(
        "It's not allowed to {verb} locations if image status is {}.",
        image.status
    )))
}

fn add(
    svc: &Service,
    image: &mut Image,
    Addition(given): Addition,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    if image.locations.iter().any(|l| l.url == given.url) {
        return Err(invalid(&given.url));
    }
    let attempted = image.locations.len() + 1;
    let max = svc.config.quota.locations;
    if usize::try_from(max).is_ok_and(|max| attempted > max) {
        return Err(Failure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "The limit has been exceeded on the number of allowed image locations. \
                 Attempted: {attempted}, Maximum: {max}"
            ),
        ));
    }
    if let Some(validation) = given.validation {
        believe(image, validation)?;
    }
    if let Ok(active) = image.status.apply(Event::LocationAdded) {
        image
            .has_formats()
            .map_err(|unset| Failure::bad(unset.to_string()))?;
        image.status = active;
        image.size = Some(given.size);
    }
    let location = Location::new(&given.store, &given.url, given.metadata);
    image.locations.push(location.clone());
    outcome.added.push(location);
    Ok(())
}

/// Takes over what a client says of a queued image's bytes; of others it must be what is known.
fn believe(image: &mut Image, said: Validation) -> Result<(), Failure> {
    let hashes = Hashes {
        checksum: said.checksum,
        algo: said.algo,
        value: said.value,
    };
    match &image.hashes {
        // Others of the same patch came first, and said the same.
        Some(known)
            if known.value == hashes.value
                && known.algo == hashes.algo
                && (hashes.checksum.is_none() || known.checksum == hashes.checksum) => {}
        None if image.status == Status::Queued => image.hashes = Some(hashes),
        Some(_) => {
            return Err(conflict(
                "validation_data contradicts what is known of the image",
            ));
        }
        None => {
            return Err(conflict(
                "New value(s) for validation_data may only be provided when image status is 'queued'",
            ));
        }
    }
    Ok(())
}

fn remove(
    svc: &Service,
    image: &mut Image,
    at: Option<usize>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    if image.locations.len() == 1 {
        return Err(forbidden("Cannot remove last location in the image."));
    }
    // Places are those that clients see.
    let seen = svc.stores.by_weight(&image.locations);
    let found = match at {
        Some(at) => seen.get(at),
        None => seen.last(),
    };
    let Some(id) = found.map(|location| location.id.clone()) else {
        return Err(Failure::bad("Invalid position for removing a location."));
    };
    image.locations.retain(|l| l.id != id);
    match outcome.added.iter().position(|l| l.id == id) {
        Some(at) => drop(outcome.added.remove(at)),
        None => outcome.removed.push(id),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn digests_have_their_length() {
        assert!(is_digest("md5", &"a".repeat(32)));
        assert!(is_digest("sha512", &"0".repeat(128)));
        for (algo, value) in [
            ("md5", "a".repeat(31)),
            ("md5", "g".repeat(32)),
            ("sha256", "a".repeat(32)),
            ("crc32", "a".repeat(8)),
        ] {
            assert!(!is_digest(algo, &value), "{algo}");
        }
    }

    #[test]
    fn validation_data_is_whole_or_refused() {
        let value = "a".repeat(128);
        let good = json!({"os_hash_algo": "sha512", "os_hash_value": value});
        assert!(validation(&good).is_ok());
        for (bad, status) in [
            (json!({"os_hash_algo": "sha512"}), 400),
            (json!({"os_hash_value": value}), 400),
            (json!([]), 400),
            (
                json!({"os_hash_algo": "sha512", "os_hash_value": value, "x": 1}),
                400,
            ),
            (
                json!({"os_hash_algo": "sha512", "os_hash_value": "zz"}),
                409,
            ),
            (
                json!({"os_hash_algo": "sha512", "os_hash_value": value, "checksum": "z"}),
                409,
            ),
        ] {
            let failure = validation(&bad).unwrap_err();
            assert_eq!(failure.status(), status, "{bad}");
        }
    }
}
