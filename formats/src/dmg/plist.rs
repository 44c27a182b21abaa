//! The property list, as far as it matters: the `Data` of each entry of `blkx`.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::{Error, Format, Result};

/// Characters of a key that are kept: those looked for are shorter.
const MAX_KEY: usize = 64;

/// Hands each table of chunks in a property list, decoded, to `each`.
///
/// # Errors
/// `Malformed` when it is no property list or has no table, and those of `each`.
pub(super) fn tables(xml: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let malformed = |message: String| Error::malformed(Format::Dmg, "property list", message);
    let xml = str::from_utf8(xml).map_err(|e| malformed(format!("is no UTF-8: {e}")))?;
    let mut reader = Reader::from_str(xml);
    let (mut depth, mut count) = (0_u32, 0_u32);
    // Depth of the array of tables, while inside it.
    let mut array = None;
    let (mut element, mut key) = (String::new(), String::new());
    // The table that is being read.
    let mut table = None;
    loop {
        match reader.read_event() {
            Err(e) => return Err(malformed(format!("is no XML: {e}"))),
            Ok(Event::Eof) => break,
            Ok(Event::Start(tag)) => {
                depth += 1;
                tag.name().as_ref().clone_into(&mut element);
                if element == "array" && key == "blkx" && array.is_none() {
                    array = Some(depth);
                }
                table =
                    (element == "data" && array.is_some() && key == "Data").then(Base64::default);
                if element == "key" {
                    key.clear();
                }
            }
            Ok(Event::Text(part)) => {
                if let Some(table) = &mut table {
                    table
                        .decode(part.as_bytes())
                        .ok_or_else(|| malformed("a table of chunks is no base64".into()))?;
                } else if element == "key" && key.len() + part.len() <= MAX_KEY {
                    key.push_str(part.trim());
                }
            }
            Ok(Event::End(_)) => {
                if let Some(table) = table.take() {
                    count += 1;
                    each(&table.bytes)?;
                }
                element.clear();
                if array == Some(depth) {
                    array = None;
                    key.clear();
                }
                depth = depth.saturating_sub(1);
            }
            Ok(_) => {}
        }
    }
    if count == 0 {
        return Err(malformed(
            "has no table of chunks (resource-fork, blkx)".into(),
        ));
    }
    Ok(())
}

/// Base64 as it is decoded piece by piece, white space in it allowed.
#[derive(Default)]
struct Base64 {
    bytes: Vec<u8>,
    bits: u32,
    count: u32,
    is_over: bool,
}

impl Base64 {
    /// `None` when a character is no digit.
    fn decode(&mut self, text: &[u8]) -> Option<()> {
        for &byte in text {
            let digit = match byte {
                _ if self.is_over => break,
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' => {
                    self.is_over = true;
                    break;
                }
                _ if byte.is_ascii_whitespace() => continue,
                _ => return None,
            };
            self.bits = self.bits << 6 | u32::from(digit);
            self.count += 6;
            if self.count >= 8 {
                self.count -= 8;
                self.bytes.push((self.bits >> self.count) as u8);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_tables_and_nothing_else() {
        let mut tables = Vec::new();
        let xml = b"<plist><dict><key>plst</key><array><dict><key>Data</key><data>AAAA</data>\
            </dict></array><key>blkx</key><array><dict><key>Name</key><string>x</string>\
            <key>Data</key>\n<data>\n aGVs\n bG8=\n</data></dict><dict><key>Data</key>\
            <data>YWI=</data></dict></array><key>Data</key><data>AAAA</data></dict></plist>";
        super::tables(xml, |table| {
            tables.push(table.to_vec());
            Ok(())
        })
        .unwrap();
        assert_eq!(tables, [b"hello".to_vec(), b"ab".to_vec()]);
    }

    #[test]
    fn refuses_what_is_none() {
        for xml in [
            "",
            "<a></b>",
            "<plist><key>blkx</key><array></array></plist>",
        ] {
            assert!(tables(xml.as_bytes(), |_| Ok(())).is_err(), "{xml}");
        }
        assert_eq!(Base64::default().decode(b"a*b"), None);
    }
}
