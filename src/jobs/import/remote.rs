//! glance-download: what is taken over from an image of another image service beside its bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::bytes::of_fetch;
use super::{ImportJob, Token};
use crate::domain::Image;
use crate::jobs::runner::Failure;
use crate::service::Service;

/// Bytes an image's description may have.
const MAX_DESCRIPTION: usize = 4 << 20;

#[derive(Deserialize)]
struct Remote {
    status: String,
    disk_format: Option<String>,
    container_format: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The headers every request to the other service carries.
pub(super) fn headers(token: &Token) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    if !token.0.is_empty() {
        let mut value = HeaderValue::from_str(&token.0)
            .map_err(|_| Failure::Final("the token is no header".into()))?;
        value.set_sensitive(true);
        headers.insert("x-auth-token", value);
    }
    Ok(headers)
}

impl ImportJob {
    /// Takes over formats and chosen properties; answers the image with them.
    pub(super) async fn copy_metadata(
        &self,
        svc: &Arc<Service>,
        image: &Image,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<Image, Failure> {
        let mut headers = headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let answer = svc.fetcher.get(url, &headers).await.map_err(of_fetch)?;
        let mut body = answer.body;
        let mut text = Vec::new();
        while let Some(piece) = body.next().await {
            text.extend_from_slice(
                &piece.map_err(|_| Failure::Transient("The other service broke off".into()))?,
            );
            if text.len() > MAX_DESCRIPTION {
                return Err(Failure::Final("The other service says too much".into()));
            }
        }
        let remote: Remote = serde_json::from_slice(&text)
            .map_err(|_| Failure::Final("The other service answered with no image".into()))?;
        if remote.status != "active" {
            let sentence = format!("The remote image is {} and not active", remote.status);
            return Err(Failure::Final(sentence.into()));
        }
        let formats = &svc.config.formats;
        let known =
            |list: &[String], it: &Option<String>| it.as_ref().is_some_and(|it| list.contains(it));
        if !known(&formats.disk_formats, &remote.disk_format)
            || !known(&formats.container_formats, &remote.container_format)
        {
            let sentence = "The formats of the remote image are not enabled here";
            return Err(Failure::Final(sentence.into()));
        }
        let wanted = taken_over(&svc.config.import.glance_properties, &remote.rest);

        let mut tx = svc.catalog.write().await?;
        let quota = usize::try_from(svc.config.quota.properties).unwrap_or(usize::MAX);
        let mut too_many = false;
        let image = self
            .change(&mut tx, &image.id, |image| {
                image.disk_format = remote.disk_format;
                image.container_format = remote.container_format;
                image.properties.extend(wanted);
                let custom = image.properties.keys();
                let custom = custom.filter(|n| !n.starts_with("os_glance")).count();
                too_many = custom > quota;
            })
            .await?;
        if too_many {
            return Err(Failure::Final(
                "With the properties of the remote image there would be too many".into(),
            ));
        }
        tx.commit().await?;
        Ok(image)
    }
}

/// The properties whose names begin as configured; never the service's own.
fn taken_over(prefixes: &[String], rest: &Map<String, Value>) -> BTreeMap<String, String> {
    rest.iter()
        .filter(|(name, _)| !name.starts_with("os_glance"))
        .filter(|(name, _)| prefixes.iter().any(|p| name.starts_with(p.as_str())))
        .filter(|(name, _)| name.chars().count() <= 255)
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_named_properties_are_taken_over() {
        let remote = json!({
            "hw_disk_bus": "scsi", "os_glance_import_task": "x", "os_type": "linux",
            "secret": "s", "hw_number": 7, "trait:X": "required",
        });
        let prefixes = ["hw_", "trait:", "os_"].map(str::to_owned);
        let got = taken_over(&prefixes, remote.as_object().unwrap());
        let names: Vec<_> = got.keys().map(String::as_str).collect();
        assert_eq!(names, ["hw_disk_bus", "os_type", "trait:X"]);
    }
}
