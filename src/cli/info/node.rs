//! The objects of `qemu-img info --output=json`: from our facts to its fields (`ImageInfo` and
//! its kin in QEMU's `qapi/block-core.json`).

use std::path::Path;

use formats::Format;
use formats::inspect::Inspection;
use serde_json::{Map, Value, json};

use super::qemu_name;

/// Bytes that QEMU counts files in.
const SECTOR: u64 = 512;

/// A file on the host.
pub(super) struct File {
    pub(super) name: String,
    /// Bytes.
    pub(super) len: u64,
    /// Bytes that take up room in the file system.
    pub(super) allocated: u64,
}

/// The node of the file itself, beneath that of the format.
fn children(file: &File) -> Value {
    json!([{
        "name": "file",
        "info": {
            "children": [],
            "virtual-size": file.len.next_multiple_of(SECTOR),
            "filename": file.name,
            "format": "file",
            "actual-size": file.allocated,
            "format-specific": { "type": "file", "data": {} },
            "dirty-flag": false,
        },
    }])
}

/// A file taken as raw.
pub(super) fn raw(file: &File) -> Value {
    json!({
        "children": children(file),
        "virtual-size": file.len.next_multiple_of(SECTOR),
        "filename": file.name,
        "format": "raw",
        "actual-size": file.allocated,
        "dirty-flag": false,
    })
}

/// The image found in a file; `None` when its size is not known.
pub(super) fn image(file: &File, found: &Inspection) -> Option<Value> {
    let details = &found.details;
    let mut size = found.virtual_size?;
    let format = qemu_name(found.format);
    if format == "raw" {
        size = size.next_multiple_of(SECTOR);
    }
    let mut node = Map::new();
    let mut put = |key: &str, value: Value| node.insert(key.to_owned(), value);
    put("children", children(file));
    if let Some(list) = details.get("snapshot_list").and_then(Value::as_array) {
        put("snapshots", list.iter().map(snapshot).collect());
    }
    let is_delta = details.contains_key("parent_file_name_hint");
    if let Some(format) = details.get("backing_file_format") {
        put("backing-filename-format", format.clone());
    } else if is_delta {
        put("backing-filename-format", "vmdk".into());
    }
    put("virtual-size", size.into());
    put("filename", file.name.as_str().into());
    if let Some(size) = cluster_size(found) {
        put("cluster-size", size);
    }
    put("format", format.into());
    put("actual-size", file.allocated.into());
    if let Some(compression) = found.compression {
        // Not a word of qemu-img, which sees no format in such a file.
        put("compression", compression.into());
    }
    let specific = match found.format {
        Format::Qcow2 => Some(qcow2(details)),
        Format::Vmdk => Some(vmdk(file, size, details)),
        Format::Luks => Some(luks(details)),
        _ => None,
    };
    if let Some(data) = specific {
        put("format-specific", json!({ "type": format, "data": data }));
    }
    if found.format == Format::Luks || details.contains_key("encryption") {
        put("encrypted", true.into());
    }
    let backing = ["backing_file", "backing_filename", "parent_file_name_hint"]
        .iter()
        .find_map(|key| details.get(*key)?.as_str());
    if let Some(backing) = backing {
        put("full-backing-filename", beside(&file.name, backing).into());
        put("backing-filename", backing.into());
    }
    if has_dirty_flag(found.format) {
        let dirty = details.get("dirty").cloned();
        put("dirty-flag", dirty.unwrap_or(Value::Bool(false)));
    }
    Some(Value::Object(node))
}

/// Formats whose drivers tell QEMU more than their size.
fn has_dirty_flag(format: Format) -> bool {
    matches!(
        format,
        Format::Raw
            | Format::Iso
            | Format::Gpt
            | Format::Qcow2
            | Format::Qcow1
            | Format::Qed
            | Format::Vmdk
            | Format::Vhd
            | Format::Vhdx
            | Format::Vdi
            | Format::Luks
    )
}

fn cluster_size(found: &Inspection) -> Option<Value> {
    let key = match found.format {
        Format::Qcow2 | Format::Qcow1 | Format::Qed => "cluster_size",
        Format::Vmdk => "grain_size",
        Format::Vhd | Format::Vhdx | Format::Vdi => "block_size",
        _ => return None,
    };
    found.details.get(key).cloned()
}

/// A name in the image at `path`, as whoever opens it would take it.
fn beside(path: &str, name: &str) -> String {
    let has_protocol = name
        .split_once(':')
        .is_some_and(|(protocol, _)| !protocol.contains('/'));
    match Path::new(path).parent() {
        Some(dir) if dir != Path::new("") && !has_protocol => {
            dir.join(name).to_string_lossy().into_owned()
        }
        _ => name.to_owned(),
    }
}

/// Renames facts: ours on the left, QEMU's on the right.
fn renamed(details: &Map<String, Value>, names: &[(&str, &str)]) -> Map<String, Value> {
    names
        .iter()
        .filter_map(|(ours, theirs)| Some(((*theirs).to_owned(), details.get(*ours)?.clone())))
        .collect()
}

fn snapshot(ours: &Value) -> Value {
    const SECOND: u64 = 1_000_000_000;
    let clock = ours["vm_clock_nsec"].as_u64().unwrap_or(0);
    let mut theirs = json!({
        "vm-clock-nsec": clock % SECOND,
        "name": ours["name"],
        "date-sec": ours["date_sec"],
        "date-nsec": ours["date_nsec"],
        "vm-clock-sec": clock / SECOND,
        "id": ours["id"],
        "vm-state-size": ours["vm_state_size"],
    });
    if ours["icount"].is_u64() {
        theirs["icount"] = ours["icount"].clone();
    }
    theirs
}

fn qcow2(details: &Map<String, Value>) -> Map<String, Value> {
    let is_old = details.get("version") == Some(&Value::from(2));
    let mut data = Map::new();
    data.insert("compat".into(), if is_old { "0.10" } else { "1.1" }.into());
    data.extend(renamed(
        details,
        &[("compression_type", "compression-type")],
    ));
    if !is_old {
        data.extend(renamed(details, &[("lazy_refcounts", "lazy-refcounts")]));
    }
    if details.get("bitmaps").is_some_and(Value::is_array) {
        data.extend(renamed(details, &[("bitmaps", "bitmaps")]));
    }
    data.extend(renamed(details, &[("refcount_bits", "refcount-bits")]));
    if let Some(method) = details.get("encryption") {
        data.insert("encrypt".into(), json!({ "format": method }));
    }
    let last = [
        ("data_file", "data-file"),
        ("data_file_raw", "data-file-raw"),
        ("corrupt", "corrupt"),
        ("extended_l2", "extended-l2"),
    ];
    if !is_old {
        data.extend(renamed(details, &last));
    }
    data
}

fn vmdk(file: &File, size: u64, details: &Map<String, Value>) -> Map<String, Value> {
    let mut data = Map::new();
    for (ours, theirs) in [("cid", "cid"), ("parent_cid", "parent-cid")] {
        let number = details
            .get(ours)
            .and_then(|v| u32::from_str_radix(v.as_str()?, 16).ok());
        if let Some(number) = number {
            data.insert(theirs.into(), number.into());
        }
    }
    data.extend(renamed(details, &[("create_type", "create-type")]));
    let listed = details.get("extents").and_then(Value::as_array);
    // A file that holds its own grains is its only extent.
    let extents: Vec<Value> = if details.contains_key("grain_size") {
        let mut extent = Map::new();
        if details.get("compressed") == Some(&Value::Bool(true)) {
            extent.insert("compressed".into(), true.into());
        }
        extent.insert("virtual-size".into(), size.into());
        extent.insert("filename".into(), file.name.as_str().into());
        extent.extend(renamed(details, &[("grain_size", "cluster-size")]));
        extent.insert("format".into(), "".into());
        vec![Value::Object(extent)]
    } else {
        let extent = |ours: &Value| {
            json!({
                "virtual-size": ours["size"],
                "filename": beside(&file.name, ours["file"].as_str().unwrap_or_default()),
                "format": ours["type"],
            })
        };
        listed.into_iter().flatten().map(extent).collect()
    };
    data.insert("extents".into(), extents.into());
    data
}

fn luks(details: &Map<String, Value>) -> Map<String, Value> {
    let mut data = Map::new();
    let text = |key: &str| details.get(key).and_then(Value::as_str);
    let (mode, iv) = text("cipher_mode")
        .and_then(|mode| mode.split_once('-'))
        .unwrap_or_default();
    if let (Some(cipher), Some(bits)) = (text("cipher"), details.get("key_bits")) {
        // XTS takes two keys of the cipher.
        let halves = if mode == "xts" { 2 } else { 1 };
        let bits = bits.as_u64().unwrap_or(0) / halves;
        data.insert("cipher-alg".into(), format!("{cipher}-{bits}").into());
    }
    if !mode.is_empty() {
        data.insert("ivgen-alg".into(), iv.into());
        data.insert("cipher-mode".into(), mode.into());
    }
    data.insert("detached-header".into(), false.into());
    data.extend(renamed(
        details,
        &[
            ("hash", "hash-alg"),
            ("uuid", "uuid"),
            ("payload_offset", "payload-offset"),
        ],
    ));
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_from_where_the_image_lies() {
        assert_eq!(beside("a.qcow2", "b"), "b");
        assert_eq!(beside("dir/a.qcow2", "b"), "dir/b");
        assert_eq!(beside("/dir/a.qcow2", "../b"), "/dir/../b");
        assert_eq!(beside("dir/a.qcow2", "/b"), "/b");
        assert_eq!(beside("dir/a.qcow2", "nbd:host:10809"), "nbd:host:10809");
        assert_eq!(beside("dir/a.qcow2", "sub/b:1"), "dir/sub/b:1");
    }
}
