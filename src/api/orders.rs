//! What callers may ask of the data they send or import, beyond the reference: the form it is stored
//! in, and the digest it must have.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde_json::{Map, Value};

use super::error::Failure;
use super::extract::text;
use crate::config::Config;
use crate::convert::Form;
use crate::domain::Expected;

/// The header of uploads that says which digest the data has: `sha256=HEX`, or
/// `sha256=HEX; of=content` for that of what compressed data holds.
pub(super) const DIGEST: &str = "x-image-expected-digest";

/// `convert` of an import: `{"disk_format": …, "options": {…}, "compress": …}`.
pub(super) fn convert(body: &Map<String, Value>, config: &Config) -> Result<Option<Form>, Failure> {
    let Some(said) = body.get("convert").filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let fault = |what: &str| Failure::bad(format!("'convert{what}"));
    let said = said
        .as_object()
        .ok_or_else(|| fault("' must be an object with a 'disk_format'"))?;
    let mut form = Form {
        disk_format: String::new(),
        options: BTreeMap::new(),
        compress: false,
        is_asked: true,
    };
    for (name, value) in said {
        match name.as_str() {
            "disk_format" => {
                let name = value.as_str();
                let name = name.ok_or_else(|| fault(".disk_format' must be a string"))?;
                name.clone_into(&mut form.disk_format);
            }
            "options" => form.options = options(value)?,
            "compress" => {
                let flag = value.as_bool();
                form.compress = flag.ok_or_else(|| fault(".compress' must be true or false"))?;
            }
            other => return Err(fault(&format!(".{other}' is not known"))),
        }
    }
    if form.disk_format.is_empty() {
        return Err(fault(".disk_format' is required"));
    }
    let target = form
        .disk_format
        .parse::<formats::Format>()
        .map_err(|e| fault(&format!(".disk_format': {e}")))?;
    if !config
        .formats
        .disk_formats
        .iter()
        .any(|f| f == target.name())
    {
        let sentence = format!(".disk_format': {target} is not enabled here");
        return Err(fault(&sentence));
    }
    let place = if Form::is_written(target) {
        ".options"
    } else {
        ".disk_format"
    };
    form.target()
        .map_err(|e| fault(&format!("{place}': {e}")))?;
    Ok(Some(form))
}

/// Options as pairs: JSON's own numbers, and its booleans as on and off.
fn options(value: &Value) -> Result<BTreeMap<String, String>, Failure> {
    let pairs = value
        .as_object()
        .ok_or_else(|| Failure::bad("'convert.options' must be an object"))?;
    let text = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(true) => "on".into(),
            Value::Bool(false) => "off".into(),
            _ => {
                return Err(Failure::bad(format!(
                    "'convert.options.{name}' must be a string, a number or a boolean"
                )));
            }
        };
        Ok((name.clone(), value))
    };
    pairs.iter().map(text).collect()
}

/// `expected` of an import: `{"algo": …, "value": …, "of": "sent" or "content"}`.
pub(super) fn expected(body: &Map<String, Value>) -> Result<Option<Expected>, Failure> {
    let Some(said) = body.get("expected").filter(|v| !v.is_null()) else {
        return Ok(None);
    };
    let said = said
        .as_object()
        .ok_or_else(|| Failure::bad("'expected' must be an object with 'algo' and 'value'"))?;
    let mut words = [None; 3];
    for (name, value) in said {
        let place = ["algo", "value", "of"].iter().position(|n| n == name);
        let place = place.ok_or_else(|| Failure::bad(format!("'expected.{name}' is not known")))?;
        let word = value.as_str();
        let fault = || Failure::bad(format!("'expected.{name}' must be a string"));
        words[place] = Some(word.ok_or_else(fault)?);
    }
    let [Some(algo), Some(value), of] = words else {
        return Err(Failure::bad("'expected' must have 'algo' and 'value'"));
    };
    let parsed = Expected::parse(algo, value, of);
    parsed
        .map(Some)
        .map_err(|e| Failure::bad(format!("'expected': {e}")))
}

/// The same of an upload, by its header.
pub(super) fn expected_header(headers: &HeaderMap) -> Result<Option<Expected>, Failure> {
    let Some(said) = text(headers, DIGEST)? else {
        return Ok(None);
    };
    let fault = |e: &str| Failure::bad(format!("{DIGEST}: {e}"));
    let (digest, of) = match said.split_once(';') {
        Some((digest, of)) => {
            let of = of.trim().strip_prefix("of=");
            (digest, Some(of.ok_or_else(|| fault("after ; comes of="))?))
        }
        None => (said, None),
    };
    let (algo, value) = digest
        .trim()
        .split_once('=')
        .ok_or_else(|| fault("it is HASH=HEX"))?;
    Expected::parse(algo, value, of)
        .map(Some)
        .map_err(|e| fault(&e))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::Measured;

    fn form(said: &Value) -> Result<Option<Form>, String> {
        let config = Config::embedded("/tmp/x".into());
        let body = json!({ "convert": said });
        convert(body.as_object().unwrap(), &config).map_err(|e| format!("{e:?}"))
    }

    #[test]
    fn a_form_that_cannot_be_written_is_refused_by_the_name_of_its_field() {
        for (said, place) in [
            (json!("raw"), "'convert'"),
            (json!({}), "'convert.disk_format'"),
            (json!({"disk_format": 7}), "'convert.disk_format'"),
            (json!({"disk_format": "floppy"}), "'convert.disk_format'"),
            (json!({"disk_format": "iso"}), "'convert.disk_format'"),
            (json!({"disk_format": "dmg"}), "'convert.disk_format'"),
            (
                json!({"disk_format": "raw", "format": "x"}),
                "'convert.format'",
            ),
            (
                json!({"disk_format": "raw", "compress": "yes"}),
                "'convert.compress'",
            ),
            (
                json!({"disk_format": "raw", "options": []}),
                "'convert.options'",
            ),
            (
                json!({"disk_format": "qcow2", "options": {"compat": null}}),
                "'convert.options.compat'",
            ),
            (
                json!({"disk_format": "qcow2", "options": {"cluster_size": 7}}),
                "'convert.options'",
            ),
            (
                json!({"disk_format": "vmdk", "options": {"subformat": "twoGbMaxExtentSparse"}}),
                "'convert.options'",
            ),
        ] {
            let error = form(&said).unwrap_err();
            assert!(error.contains(place), "{said}: {error}");
        }
    }

    #[test]
    fn numbers_and_booleans_are_options_too() {
        let said = json!({
            "disk_format": "qcow2", "compress": true,
            "options": {"cluster_size": 131_072, "lazy_refcounts": true, "compat": "1.1"},
        });
        let form = form(&said).unwrap().unwrap();
        assert_eq!(form.options["cluster_size"], "131072");
        assert_eq!(form.options["lazy_refcounts"], "on");
        assert!(form.compress && form.is_asked);
        assert_eq!(self::form(&Value::Null), Ok(None));
    }

    #[test]
    fn digests_are_told_by_field_and_by_header() {
        let md5 = "900150983cd24fb0d6963f7d28e17f72";
        let body = json!({"expected": {"algo": "md5", "value": md5, "of": "content"}});
        let by_field = expected(body.as_object().unwrap()).unwrap().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(DIGEST, format!("md5={md5}; of=content").parse().unwrap());
        assert_eq!(expected_header(&headers).unwrap(), Some(by_field.clone()));
        assert_eq!(by_field.of, Measured::Content);
        for bad in ["md5", "md5=", "crc=00", "md5:x", "md5=x; sent"] {
            headers.insert(DIGEST, bad.parse().unwrap());
            assert!(expected_header(&headers).is_err(), "{bad}");
        }
        for bad in [
            json!(7),
            json!({}),
            json!({"algo": "md5"}),
            json!({"algo": "md5", "value": 7}),
            json!({"algo": "md5", "value": md5, "off": "sent"}),
            json!({"algo": "md5", "value": md5, "of": "disk"}),
        ] {
            let body = json!({ "expected": bad });
            assert!(expected(body.as_object().unwrap()).is_err(), "{body}");
        }
    }
}
