//! Values in Python's spelling, for the sentences of schema errors: `repr` and `pprint`, because
//! the reference prints both into its answers (02-create.http) and clients show them to people.

use serde_json::{Map, Value};

/// `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(n) => n.to_string(),
        Value::String(text) => repr_str(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(repr).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let items: Vec<_> = map
                .iter()
                .map(|(k, v)| format!("{}: {}", repr_str(k), repr(v)))
                .collect();
            format!("{{{}}}", items.join(", "))
        }
    }
}

/// `repr` of a string.
pub(super) fn repr_str(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::with_capacity(text.len() + 2);
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// `pprint.pformat(value, width=72, sort_dicts=False)`.
pub(super) fn pformat(value: &Value) -> String {
    let mut out = String::new();
    format(value, &mut out, 0, 0, 0);
    out
}

const WIDTH: usize = 72;

fn len(text: &str) -> usize {
    text.chars().count()
}

/// `indent`: the column we are in. `allowance`: what must still fit behind the value.
fn format(value: &Value, out: &mut String, indent: usize, allowance: usize, level: usize) {
    let flat = repr(value);
    if len(&flat) <= WIDTH.saturating_sub(indent + allowance) {
        out.push_str(&flat);
        return;
    }
    match value {
        Value::Object(map) if !map.is_empty() => dict(map, out, indent, allowance, level + 1),
        Value::Array(items) if !items.is_empty() => list(items, out, indent, allowance, level + 1),
        Value::String(text) => string(text, out, indent, allowance, level + 1),
        _ => out.push_str(&flat),
    }
}

fn dict(map: &Map<String, Value>, out: &mut String, indent: usize, allowance: usize, level: usize) {
    out.push('{');
    let indent = indent + 1;
    let last = map.len() - 1;
    for (n, (key, value)) in map.iter().enumerate() {
        let key = repr_str(key);
        out.push_str(&key);
        out.push_str(": ");
        let behind = if n == last { allowance + 1 } else { 1 };
        format(value, out, indent + len(&key) + 2, behind, level);
        if n != last {
            new_line(out, ",", indent);
        }
    }
    out.push('}');
}

fn list(items: &[Value], out: &mut String, indent: usize, allowance: usize, level: usize) {
    out.push('[');
    let indent = indent + 1;
    let last = items.len() - 1;
    for (n, item) in items.iter().enumerate() {
        let behind = if n == last { allowance + 1 } else { 1 };
        format(item, out, indent, behind, level);
        if n != last {
            new_line(out, ",", indent);
        }
    }
    out.push(']');
}

/// A long string is broken at white space into adjacent literals, in parentheses at the top.
fn string(text: &str, out: &mut String, indent: usize, allowance: usize, level: usize) {
    let top = level == 1;
    let (indent, allowance) = if top {
        (indent + 1, allowance + 1)
    } else {
        (indent, allowance)
    };
    let width = WIDTH.saturating_sub(indent);
    let mut chunks: Vec<String> = Vec::new();
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    for (n, line) in lines.iter().enumerate() {
        let last_line = n + 1 == lines.len();
        let room = |last: bool| width.saturating_sub(if last { allowance } else { 0 });
        let whole = repr_str(line);
        if len(&whole) <= room(last_line) {
            chunks.push(whole);
            continue;
        }
        let words = words(line);
        let mut current = String::new();
        for (m, word) in words.iter().enumerate() {
            let candidate = format!("{current}{word}");
            if len(&repr_str(&candidate)) > room(last_line && m + 1 == words.len()) {
                if !current.is_empty() {
                    chunks.push(repr_str(&current));
                }
                current = (*word).to_owned();
            } else {
                current = candidate;
            }
        }
        if !current.is_empty() {
            chunks.push(repr_str(&current));
        }
    }
    if let [only] = chunks.as_slice() {
        out.push_str(only);
        return;
    }
    if top {
        out.push('(');
    }
    for (n, chunk) in chunks.iter().enumerate() {
        if n > 0 {
            new_line(out, "", indent);
        }
        out.push_str(chunk);
    }
    if top {
        out.push(')');
    }
}

/// Words with the white space behind them.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = 0;
    let mut in_space = false;
    for (at, c) in line.char_indices() {
        if in_space && !c.is_whitespace() {
            words.push(&line[start..at]);
            start = at;
        }
        in_space = c.is_whitespace();
    }
    words.push(&line[start..]);
    words
}

fn new_line(out: &mut String, end: &str, indent: usize) {
    out.push_str(end);
    out.push('\n');
    out.extend(std::iter::repeat_n(' ', indent));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    // Expected values: Python 3.13, repr() and pprint.pformat(…, width=72, sort_dicts=False).

    #[test]
    fn repr_is_pythons() {
        for (value, want) in [
            (json!("it's"), r#""it's""#),
            (json!("both ' and \""), r#"'both \' and "'"#),
            (json!("a\n\u{1}\\"), r"'a\n\x01\\'"),
            (json!([null, true, {"a": 1}]), "[None, True, {'a': 1}]"),
        ] {
            assert_eq!(repr(&value), want);
        }
    }

    #[test]
    fn pformat_breaks_where_python_does() {
        let value = json!({
            "type": ["null", "string"],
            "readOnly": true,
            "description": "Hexdigest of the image contents using the algorithm specified by the os_hash_algo",
            "maxLength": 128,
        });
        assert_eq!(
            pformat(&value),
            "{'type': ['null', 'string'],\n 'readOnly': True,\n \
             'description': 'Hexdigest of the image contents using the algorithm '\n                \
             'specified by the os_hash_algo',\n 'maxLength': 128}"
        );
        assert_eq!(pformat(&json!({"type": "string"})), "{'type': 'string'}");
    }
}
