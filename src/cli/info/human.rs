//! The text of `qemu-img info`, from the same objects as its JSON.

use serde_json::Value;
use time::OffsetDateTime;

use crate::cli::output::Plain;

/// One image.
pub(super) fn image(node: &Value) -> String {
    let mut out = String::new();
    line(&mut out, 0, "image", &text(&node["filename"]));
    line(&mut out, 0, "file format", &text(&node["format"]));
    line(&mut out, 0, "virtual size", &both(&node["virtual-size"]));
    line(&mut out, 0, "disk size", &short(&node["actual-size"]));
    if node["encrypted"] == true {
        line(&mut out, 0, "encrypted", "yes");
    }
    if let Some(size) = node.get("cluster-size") {
        line(&mut out, 0, "cluster_size", &text(size));
    }
    if node["dirty-flag"] == true {
        line(&mut out, 0, "cleanly shut down", "no");
    }
    if let Some(name) = node.get("backing-filename") {
        let (name, full) = (text(name), text(&node["full-backing-filename"]));
        let shown = match name == full {
            true => name,
            false => format!("{name} (actual path: {full})"),
        };
        line(&mut out, 0, "backing file", &shown);
    }
    if let Some(format) = node.get("backing-filename-format") {
        line(&mut out, 0, "backing file format", &text(format));
    }
    if let Some(list) = node.get("snapshots").and_then(Value::as_array) {
        snapshots(&mut out, list);
    }
    let data = &node["format-specific"]["data"];
    if data.as_object().is_some_and(|data| !data.is_empty()) {
        out.push_str("Format specific information:\n");
        tree(&mut out, 1, data);
    }
    for child in node["children"].as_array().into_iter().flatten() {
        let (name, info) = (text(&child["name"]), &child["info"]);
        out.push_str(&format!("Child node '/{name}':\n"));
        line(&mut out, 1, "filename", &text(&info["filename"]));
        line(&mut out, 1, "protocol type", &text(&info["format"]));
        line(&mut out, 1, "file length", &both(&info["virtual-size"]));
        line(&mut out, 1, "disk size", &short(&info["actual-size"]));
    }
    out
}

fn line(out: &mut String, depth: usize, label: &str, value: &str) {
    let indent = "    ".repeat(depth);
    out.push_str(&format!("{indent}{label}: {value}\n"));
}

/// A value as a word, harmless to a terminal.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => Plain(text).to_string(),
        other => other.to_string(),
    }
}

fn tree(out: &mut String, depth: usize, value: &Value) {
    let mut entry = |label: &str, value: &Value| match value {
        Value::Array(_) | Value::Object(_) => {
            out.push_str(&format!("{}{label}:\n", "    ".repeat(depth)));
            tree(out, depth + 1, value);
        }
        other => line(out, depth, label, &text(other)),
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                entry(&key.replace('-', " "), value);
            }
        }
        Value::Array(list) => {
            for (n, value) in list.iter().enumerate() {
                entry(&format!("[{n}]"), value);
            }
        }
        _ => {}
    }
}

/// A size as C's `%0.3g` has it, in the largest unit that leaves a digit before the point.
fn short(bytes: &Value) -> String {
    let bytes = bytes.as_u64().unwrap_or(0);
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    // Three significant digits, and no zeros at the end.
    let digits = match value {
        ..0.1 => 4,
        ..1.0 => 3,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    let mut number = format!("{value:.digits$}");
    if number.contains('.') {
        number.truncate(number.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{number} {}", units[unit])
}

fn both(bytes: &Value) -> String {
    format!("{} ({bytes} bytes)", short(bytes))
}

/// The table of internal snapshots; dates are UTC.
fn snapshots(out: &mut String, list: &[Value]) {
    out.push_str("Snapshot list:\n");
    let mut row = |cells: [&str; 6]| {
        let [id, tag, size, date, clock, icount] = cells;
        out.push_str(&format!(
            "{id:<7} {tag:<16} {size:>8} {date:>20} {clock:>15} {icount:>10}\n"
        ));
    };
    row(["ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"]);
    for one in list {
        let date = one["date-sec"]
            .as_i64()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
            .map_or_else(String::new, |at| {
                format!(
                    "{:04}-{:02}-{:02} {:02}:{:02}:{:02}",
                    at.year(),
                    u8::from(at.month()),
                    at.day(),
                    at.hour(),
                    at.minute(),
                    at.second()
                )
            });
        let seconds = one["vm-clock-sec"].as_u64().unwrap_or(0);
        let millis = one["vm-clock-nsec"].as_u64().unwrap_or(0) / 1_000_000;
        let clock = format!(
            "{:04}:{:02}:{:02}.{millis:03}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        );
        let icount = one.get("icount").map_or_else(|| "--".into(), text);
        row([
            &text(&one["id"]),
            &text(&one["name"]),
            &short(&one["vm-state-size"]),
            &date,
            &clock,
            &icount,
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (3_117_056, "2.97 MiB"),
            (852_480, "832 KiB"),
            (610_304, "596 KiB"),
            (11_u64 << 40, "11 TiB"),
        ] {
            assert_eq!(short(&bytes.into()), shown);
        }
    }
}
