//! Metadata definitions. A whole namespace is also what files of definitions hold.

mod body;
mod view;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

pub(in crate::api) use body::*;
pub(in crate::api) use view::*;

/// What a path cannot hold as it is. Colons stay: every name of a namespace has some.
const IN_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Where a namespace is.
pub(in crate::api) fn namespace_path(name: &str) -> String {
    format!(
        "/v2/metadefs/namespaces/{}",
        utf8_percent_encode(name, IN_PATH)
    )
}

/// Where something in a namespace is: `kind` is the last part but one.
pub(in crate::api) fn part_path(namespace: &str, kind: &str, name: &str) -> String {
    format!(
        "{}/{kind}/{}",
        namespace_path(namespace),
        utf8_percent_encode(name, IN_PATH)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::Timestamp;
    use crate::domain::metadef::{Contents, Namespace};

    fn read(body: Value) -> Result<(Namespace, Contents), String> {
        serde_json::from_value::<NamespaceBody>(body)
            .unwrap()
            .read(None, Timestamp(0))
    }

    #[test]
    fn names_are_bounded_wherever_they_stand() {
        let long = "x".repeat(81);
        for body in [
            json!({"namespace": ""}),
            json!({"namespace": "n", "tags": [{"name": long}]}),
            json!({"namespace": "n", "objects": [{"name": long}]}),
            json!({"namespace": "n", "resource_type_associations": [{"name": long}]}),
            json!({"namespace": "n", "resource_type_associations": [
                {"name": "x", "prefix": long},
            ]}),
            json!({"namespace": "n", "properties": {long: {}}}),
        ] {
            assert!(read(body.clone()).is_err(), "{body}");
        }
        assert!(read(json!({"namespace": "x".repeat(80)})).is_ok());
    }

    #[test]
    fn a_file_reads_as_it_was_written() {
        let body = json!({
            "namespace": "N::S", "display_name": "N", "visibility": "public", "protected": true,
            "owner": "admin",
            "resource_type_associations": [{"name": "OS::Glance::Image", "prefix": "hw_"}],
            "properties": {"a": {"type": "string", "title": "A", "enum": ["x"]}},
            "objects": [{"name": "o", "required": ["b"], "properties": {
                "b": {"type": "integer", "title": "B", "minimum": 1},
            }}],
            "tags": [{"name": "t"}],
        });
        let (namespace, contents) = read(body.clone()).unwrap();
        let view = NamespaceView::bare(&namespace, &contents);
        assert_eq!(serde_json::to_value(&view).unwrap(), body);
    }

    #[test]
    fn paths_keep_colons_and_nothing_that_parts_them() {
        assert_eq!(
            part_path("OS::A b", "objects", "50%/x?"),
            "/v2/metadefs/namespaces/OS::A%20b/objects/50%25%2Fx%3F"
        );
    }
}
