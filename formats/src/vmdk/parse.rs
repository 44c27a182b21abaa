//! The grammar of descriptors.
//!
//! Strict on purpose. Programs search this text in different ways (by line, by substring, first
//! or last one wins), so whatever two of them could read differently is a fault.

use super::descriptor::{
    CreateType, Descriptor, ExtentLine, ExtentType, Fault, MAX_EXTENT_LINES, MAX_FAULTS, MAX_HINT,
    confined, count, is_text, shown, without_bom,
};

/// Reads what can be read of `text`, and lists what is wrong.
pub(super) fn read(text: &[u8]) -> (Descriptor, Vec<Fault>) {
    let text = without_bom(text);
    let mut reading = Reading::default();
    if let Some(at) = text.iter().position(|&b| !is_text(b)) {
        reading.fault(
            "descriptor",
            format!("byte {:#04x} at {at} of the text is not ASCII", text[at]),
        );
    }
    for (n, line) in text.split(|&b| b == b'\n').enumerate() {
        reading.line(n + 1, &String::from_utf8_lossy(line));
        if reading.faults.len() >= MAX_FAULTS {
            break;
        }
    }
    reading.finish(text);
    (reading.descriptor, reading.faults)
}

#[derive(Default)]
struct Reading {
    descriptor: Descriptor,
    faults: Vec<Fault>,
    /// Lower-cased keys whose second mention would be read differently by different programs.
    seen: Vec<&'static str>,
}

/// Keys that may stand once only, and nowhere else in the text.
const ONCE: &[&str] = &["createtype", "parentcid", "parentfilenamehint"];

impl Reading {
    fn fault(&mut self, rule: &'static str, message: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(Fault {
                rule,
                message: message.into(),
            });
        }
    }

    fn line(&mut self, n: usize, line: &str) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return;
        }
        let word = line.split([' ', '\t']).next().unwrap_or("");
        let access = ["RW", "RDONLY", "NOACCESS"]
            .into_iter()
            .find(|known| known.eq_ignore_ascii_case(word));
        if let Some(access) = access {
            match extent_line(n, access, line[word.len()..].trim_start()) {
                Ok(extent) => self.extent(extent),
                Err(why) => self.fault(
                    "descriptor",
                    format!("line {n} is no extent line, {why}: {:?}", shown(line)),
                ),
            }
            return;
        }
        let is_ddb = line.get(..3).is_some_and(|s| s.eq_ignore_ascii_case("ddb"));
        match line.split_once('=') {
            Some((key, value)) if is_ddb => self.data_base(key.trim_end(), value.trim_start()),
            // VMware allows spaces around the sign.
            Some((key, value)) if is_word(key.trim_end()) => {
                self.key(n, key.trim_end(), value.trim());
            }
            _ if is_ddb => {}
            _ => self.fault(
                "descriptor",
                format!(
                    "line {n} is neither key=value nor an extent: {:?}",
                    shown(line)
                ),
            ),
        }
    }

    fn extent(&mut self, extent: ExtentLine) {
        if self.descriptor.extents.len() < MAX_EXTENT_LINES {
            self.descriptor.extents.push(extent);
        } else {
            let fault = format!("has more than {MAX_EXTENT_LINES} extents");
            if !self.faults.iter().any(|f| f.message == fault) {
                self.fault("extent_count", fault);
            }
        }
    }

    fn data_base(&mut self, key: &str, value: &str) {
        let value = Some(shown(value.trim_matches('"')));
        if key.eq_ignore_ascii_case("ddb.adapterType") {
            self.descriptor.adapter_type = value;
        } else if key.eq_ignore_ascii_case("ddb.virtualHWVersion") {
            self.descriptor.hardware_version = value;
        }
    }

    fn key(&mut self, n: usize, key: &str, value: &str) {
        let lower = key.to_ascii_lowercase();
        if let Some(once) = ONCE.iter().find(|once| **once == lower) {
            self.seen.push(once);
        }
        match lower.as_str() {
            "createtype" => {
                let quoted = value
                    .strip_prefix('"')
                    .and_then(|v| v.strip_suffix('"'))
                    .filter(|v| !v.is_empty() && !v.contains('"'));
                match quoted {
                    Some(name) => self.descriptor.create_type = CreateType::parse(name),
                    None => self.fault(
                        "create_type",
                        format!("line {n}: createType is {:?}, not quoted", shown(value)),
                    ),
                }
            }
            "cid" => self.descriptor.cid = self.content_id(n, key, value),
            "parentcid" => self.descriptor.parent_cid = self.content_id(n, key, value),
            "parentfilenamehint" => {
                let name = value.trim_matches('"');
                if name.len() > MAX_HINT {
                    let message = format!("line {n}: parentFileNameHint is {} bytes", name.len());
                    self.fault("parent_link", message);
                } else {
                    self.descriptor.parent_file_name_hint = Some(name.to_owned());
                }
            }
            "changetrackpath" => {
                self.descriptor.change_track_path = Some(shown(value.trim_matches('"')));
            }
            _ => {}
        }
    }

    fn content_id(&mut self, n: usize, key: &str, value: &str) -> Option<u32> {
        let is_hex = (1..=8).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_hexdigit());
        let id = is_hex
            .then(|| u32::from_str_radix(value, 16).ok())
            .flatten();
        if id.is_none() {
            self.fault(
                if key.eq_ignore_ascii_case("parentCID") {
                    "parent_link"
                } else {
                    "descriptor"
                },
                format!(
                    "line {n}: {key} is {:?}, wanted up to 8 hexadecimal digits",
                    shown(value)
                ),
            );
        }
        id
    }

    /// Judges what only the whole text tells.
    fn finish(&mut self, text: &[u8]) {
        let lower = text.to_ascii_lowercase();
        for &key in ONCE {
            let mentions = count(&lower, key.as_bytes());
            let keys = self.seen.iter().filter(|seen| **seen == key).count();
            if mentions > 1 || mentions != keys {
                self.fault(
                    if key == "createtype" {
                        "create_type"
                    } else {
                        "parent_link"
                    },
                    format!(
                        "mentions {key} {mentions} times, {keys} as a key: programs would \
                         disagree on which counts"
                    ),
                );
            }
        }
        if self.descriptor.create_type.name.is_empty()
            && !self.faults.iter().any(|f| f.rule == "create_type")
        {
            self.fault("create_type", "has no createType");
        }
        if self.descriptor.extents.is_empty() {
            self.fault("extent_count", "names no extent");
        }
    }
}

fn is_word(key: &str) -> bool {
    !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Parses an extent line after its access word.
fn extent_line(n: usize, access: &'static str, rest: &str) -> Result<ExtentLine, &'static str> {
    let (sectors, rest) = split_word(rest);
    let sectors = number(sectors).ok_or("its size is no number of sectors")?;
    let (kind, rest) = split_word(rest);
    let kind = ExtentType::ALL
        .iter()
        .copied()
        .find(|known| known.name().eq_ignore_ascii_case(kind))
        .ok_or("its type is unknown")?;
    let mut extent = ExtentLine {
        line: n,
        access,
        sectors,
        kind,
        name: None,
        offset_sectors: 0,
    };
    if rest.is_empty() {
        return match kind {
            ExtentType::Zero => Ok(extent),
            _ => Err("it names no file"),
        };
    }
    let (name, rest) = rest
        .strip_prefix('"')
        .and_then(|rest| rest.split_once('"'))
        .ok_or("its file name is not quoted")?;
    extent.name = Some(name.to_owned());
    let (offset, rest) = split_word(rest.trim_start());
    if !offset.is_empty() {
        extent.offset_sectors = number(offset).ok_or("its offset is no number of sectors")?;
    }
    // Devices carry an identity of their partition; they are refused anyway.
    let is_device =
        matches!(kind, ExtentType::VmfsRdm | ExtentType::VmfsRaw) || confined(name).is_some();
    if !rest.is_empty() && !is_device {
        return Err("something follows its offset");
    }
    Ok(extent)
}

fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text
        .split_once(|c: char| c.is_ascii_whitespace())
        .unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// A decimal number without sign.
fn number(text: &str) -> Option<u64> {
    let is_decimal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_decimal.then(|| text.parse().ok()).flatten()
}
