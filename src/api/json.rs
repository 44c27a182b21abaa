//! JSON on the wire, spaced as Python's `json.dumps` spaces it, because that is what clients of
//! the reference have always seen: `{"a": 1, "b": [2, 3]}`.

use std::io::{self, Write};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::ser::Formatter;

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

/// The text of `value`.
pub(super) fn to_string<T: Serialize + ?Sized>(value: &T) -> String {
    let mut out = Vec::new();
    let mut ser = serde_json::Serializer::with_formatter(&mut out, Spaced);
    value
        .serialize(&mut ser)
        .expect("wire types have string keys, and a Vec takes all bytes");
    String::from_utf8(out).expect("JSON is written as UTF-8")
}

/// A JSON answer: 200 unless a status is put before it.
pub(super) struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let kind = [(header::CONTENT_TYPE, "application/json")];
        (StatusCode::OK, kind, to_string(&self.0)).into_response()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn is_spaced_as_python_does() {
        let value = json!({"b": [1, "ü\n", null], "a": {}, "c": []});
        assert_eq!(
            super::to_string(&value),
            r#"{"b": [1, "ü\n", null], "a": {}, "c": []}"#
        );
    }
}
