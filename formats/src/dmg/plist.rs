//! The property list, as far as it matters: the `Data` of each entry of `blkx`.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::{Error, Format, Result};

/// The tables of chunks in a property list, decoded.
pub(super) fn tables(xml: &[u8]) -> Result<Vec<Vec<u8>>> {
    let malformed = |message: String| Error::malformed(Format::Dmg, "property list", message);
    let xml = str::from_utf8(xml).map_err(|e| malformed(format!("is no UTF-8: {e}")))?;
    let mut reader = Reader::from_str(xml);
    let mut tables = Vec::new();
    let mut depth = 0_u32;
    // Depth of the array of tables, while inside it.
    let mut array = None;
    let (mut element, mut key, mut text) = (String::new(), String::new(), String::new());
    loop {
        match reader.read_event() {
            Err(e) => return Err(malformed(format!("is no XML: {e}"))),
            Ok(Event::Eof) => break,
            Ok(Event::Start(tag)) => {
                depth += 1;
                tag.name().as_ref().clone_into(&mut element);
                text.clear();
                if element == "array" && key == "blkx" && array.is_none() {
                    array = Some(depth);
                }
            }
            Ok(Event::Text(part)) => text.push_str(&part),
            Ok(Event::End(tag)) => {
                if tag.name().as_ref() == "key" && element == "key" {
                    text.trim().clone_into(&mut key);
                } else if array.is_some() && key == "Data" && tag.name().as_ref() == "data" {
                    let table = decode_base64(text.as_bytes())
                        .ok_or_else(|| malformed("a table of chunks is no base64".into()))?;
                    tables.push(table);
                }
                if array == Some(depth) {
                    array = None;
                    key.clear();
                }
                depth = depth.saturating_sub(1);
            }
            Ok(_) => {}
        }
    }
    if tables.is_empty() {
        return Err(malformed(
            "has no table of chunks (resource-fork, blkx)".into(),
        ));
    }
    Ok(tables)
}

/// Decodes base64, white space in it allowed.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for &byte in text {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => break,
            _ if byte.is_ascii_whitespace() => continue,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_tables_and_nothing_else() {
        let xml = b"<plist><dict><key>plst</key><array><dict><key>Data</key><data>AAAA</data>\
            </dict></array><key>blkx</key><array><dict><key>Name</key><string>x</string>\
            <key>Data</key>\n<data>\n aGVs\n bG8=\n</data></dict><dict><key>Data</key>\
            <data>YWI=</data></dict></array><key>Data</key><data>AAAA</data></dict></plist>";
        assert_eq!(tables(xml).unwrap(), [b"hello".to_vec(), b"ab".to_vec()]);
    }

    #[test]
    fn refuses_what_is_none() {
        for xml in [
            "",
            "<a></b>",
            "<plist><key>blkx</key><array></array></plist>",
        ] {
            assert!(tables(xml.as_bytes()).is_err(), "{xml}");
        }
        assert_eq!(decode_base64(b"a*b"), None);
    }
}
