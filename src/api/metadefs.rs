//! A whole namespace of metadata definitions as a file: the body of `POST
//! /v2/metadefs/namespaces`, held against the same schema.

use serde_json::Value;

use super::schema;
use super::wire::metadef::{NamespaceBody, NamespaceView};
use crate::domain::Timestamp;
use crate::domain::metadef::{Contents, Namespace};

/// Reads a file. Unlike over HTTP a namespace is public, protected and of the project `admin` unless
/// it says otherwise, as the reference loads its files.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn from_file(text: &str, now: Timestamp) -> Result<(Namespace, Contents), String> {
    let body: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let Value::Object(body) = body else {
        return Err("this is no JSON object".into());
    };
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
    schema::validate(&schema::metadefs::namespace(), &body).map_err(first_line)?;
    let mut body: NamespaceBody = serde_json::from_value(body.into()).map_err(|e| e.to_string())?;
    body.visibility.get_or_insert_with(|| "public".into());
    body.protected.get_or_insert(true);
    body.read(Some("admin".into()), now)
}

/// The text of a file.
#[must_use]
pub fn to_file(namespace: &Namespace, contents: &Contents) -> String {
    let view = NamespaceView::bare(namespace, contents);
    let text = serde_json::to_string_pretty(&view);
    text.expect("wire types have string keys, and a String takes all text") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_take_one_line() {
        let fault = |text| from_file(text, Timestamp(0)).unwrap_err();
        assert_eq!(
            fault("{}"),
            "Provided object does not match schema 'namespace': 'namespace' is a required property"
        );
        for text in ["", "[]", r#"{"namespace": "n", "tags": [{}]}"#] {
            assert_eq!(fault(text).lines().count(), 1, "{text}");
        }
    }
}
