//! The image that is to take the data: one that waits for it, or one that is made.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;

use super::local::{self, Formats};
use super::record::{self, Record};
use super::session::{self, Session};
use super::upload::Args;
use crate::cli::output;

/// An image that is there already, and waits for its data.
pub(super) async fn waiting(session: &Session, id: &str) -> anyhow::Result<Record> {
    let record = Record::find(session, id).await?;
    if record.status != "queued" {
        bail!("image {} is {}: it takes no data", record.id, record.status);
    }
    Ok(record)
}

/// The formats of the image to be: as said, or as found in the file.
pub(super) async fn found(args: &Args, file: &Path) -> anyhow::Result<Formats> {
    if let Some(formats) = said(args) {
        return Ok(formats);
    }
    let path = file.to_owned();
    let found =
        spawn_blocking(move || local::formats(&path).with_context(|| path.display().to_string()));
    let found = found.await??;
    Ok(Formats {
        container: args.container_format.clone().unwrap_or(found.container),
        ..found
    })
}

/// The formats of the image to be, where the disk's is said.
pub(super) fn said(args: &Args) -> Option<Formats> {
    let container = args.container_format.clone();
    Some(Formats {
        disk: args.disk_format.clone()?,
        container: container.unwrap_or_else(|| "bare".into()),
    })
}

/// Makes the image.
pub(super) async fn make(
    args: &Args,
    session: &Session,
    formats: Formats,
    file: Option<&OsStr>,
) -> anyhow::Result<Record> {
    let file = file.map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or(file);
    let mut body = Map::new();
    for (key, value) in &args.properties {
        body.insert(key.clone(), field(key, value)?);
    }
    body.insert("name".into(), json!(name));
    body.insert("disk_format".into(), json!(formats.disk));
    body.insert("container_format".into(), json!(formats.container));
    let body = Value::Object(body).to_string();
    let made = session.json(Method::POST, "/v2/images", |request| {
        request
            .header("content-type", "application/json")
            .body(body.clone())
    });
    made.await.context("making the image")
}

/// The value of a field or property, in the type that it has in the API.
fn field(key: &str, value: &str) -> anyhow::Result<Value> {
    Ok(match key {
        "min_disk" | "min_ram" => {
            json!(
                value
                    .parse::<u64>()
                    .with_context(|| format!("{key}={value}"))?
            )
        }
        "protected" | "os_hidden" => {
            json!(
                value
                    .parse::<bool>()
                    .with_context(|| format!("{key}={value}"))?
            )
        }
        "tags" => value.split(',').map(Value::from).collect(),
        _ => json!(value),
    })
}

/// Removes an image of ours that came to nothing.
pub(super) async fn remove(session: &Session, image: &str) {
    let path = record::path(image);
    let removed = async {
        let answer = session
            .ask(Method::DELETE, &path, |request| request)
            .await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(()),
            _ => session::fine(answer).await.map(drop),
        }
    };
    if let Err(e) = removed.await {
        let e = anyhow::Error::new(e);
        output::talk(format_args!(
            "image {} came to nothing and could not be removed: {}",
            output::Plain(image),
            output::Plain(&format!("{e:#}"))
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_types_of_the_api() {
        assert_eq!(field("min_disk", "3").unwrap(), json!(3));
        assert_eq!(field("protected", "true").unwrap(), json!(true));
        assert_eq!(field("tags", "a,b").unwrap(), json!(["a", "b"]));
        assert_eq!(field("os_version", "12").unwrap(), json!("12"));
        assert!(field("min_ram", "much").is_err());
    }
}
