//! What the writers of block disks share: an encoder that drops zeros, a table written page by
//! page, and options.

use crate::bytes::is_zero;
use crate::copy::{Encode, Shape, Tables};
use crate::{Error, Format, HostOffset, Result, Sink, UnitIndex};

/// Bytes these formats are written in. Smaller than any block, so that memory stays flat and
/// zeros inside a block stay a hole of the file.
pub(crate) const UNIT: u64 = 4096;

/// Leaves out zeros, stores everything else as it is.
pub(crate) struct Plain;

impl Encode for Plain {
    fn encode(&mut self, _: UnitIndex, data: &[u8], _: &mut Vec<u8>) -> Result<Shape> {
        Ok(if is_zero(data) {
            Shape::Zero
        } else {
            Shape::Verbatim
        })
    }
}

/// Bytes of a table that are handed out at once.
const PAGE: u64 = 64 << 10;

/// Where the parts of blocks go that are given places as they are first written to.
#[derive(Default)]
pub(crate) struct Placer {
    /// The block written to last, and its place.
    current: Option<(u64, HostOffset)>,
}

impl Placer {
    /// The place of unit `n`. Whenever that lies in another block than the last one, `assign`
    /// gives it a place.
    pub(crate) fn place(
        &mut self,
        n: UnitIndex,
        block_size: u64,
        assign: impl FnOnce(u64) -> HostOffset,
    ) -> HostOffset {
        let block = n * UNIT / block_size;
        let at = match self.current {
            Some((current, at)) if current == block => at,
            _ => assign(block),
        };
        self.current = Some((block, at));
        HostOffset(at.0 + n * UNIT % block_size)
    }
}

/// Makes the entries of a page that were never set. Given the byte of the table it begins at.
pub(crate) type Fill = Box<dyn Fn(u64, &mut [u8]) + Send>;

/// Fills with one byte.
pub(crate) fn fill_with(byte: u8) -> Option<Fill> {
    Some(Box::new(move |_, page| page.fill(byte)))
}

/// A table filled in ascending order; at most a page of it is held.
pub(crate) struct TableWriter {
    at: HostOffset,
    len: u64,
    /// `None`: zeros, and a hole where nothing is set.
    fill: Option<Fill>,
    page: Option<(u64, Vec<u8>)>,
    is_written: Vec<bool>,
}

impl TableWriter {
    /// A table of `len` bytes at `at`.
    pub(crate) fn new(at: HostOffset, len: u64, fill: Option<Fill>) -> Self {
        let pages = usize::try_from(len.div_ceil(PAGE)).unwrap_or(0);
        Self {
            at,
            len,
            fill,
            page: None,
            is_written: vec![false; pages],
        }
    }

    /// Puts `entry` at byte `byte` of the table. Pages that are complete by that go to `tables`.
    pub(crate) fn set(&mut self, byte: u64, entry: &[u8], tables: &mut Tables) {
        let number = byte / PAGE;
        if self.page.as_ref().is_none_or(|(held, _)| *held != number) {
            tables.extend(self.take());
            self.page = Some((number, self.unset(number)));
        }
        if let Some((_, page)) = &mut self.page {
            let at = (byte % PAGE) as usize;
            page[at..at + entry.len()].copy_from_slice(entry);
        }
    }

    /// Page `number` with nothing set.
    fn unset(&self, number: u64) -> Vec<u8> {
        let start = number * PAGE;
        let mut page = vec![0; (self.len - start).min(PAGE) as usize];
        if let Some(fill) = &self.fill {
            fill(start, &mut page);
        }
        page
    }

    fn take(&mut self) -> Option<(HostOffset, Vec<u8>)> {
        let (number, page) = self.page.take()?;
        self.is_written[number as usize] = true;
        Some((HostOffset(self.at.0 + number * PAGE), page))
    }

    /// Writes the last page, and those in which nothing was ever set.
    pub(crate) fn finish(mut self, sink: &dyn Sink) -> Result<()> {
        if let Some((at, page)) = self.take() {
            sink.write_all_at(&page, at)?;
        }
        if self.fill.is_none() {
            return Ok(());
        }
        for (n, _) in (0..).zip(&self.is_written).filter(|(_, done)| !**done) {
            sink.write_all_at(&self.unset(n), HostOffset(self.at.0 + n * PAGE))?;
        }
        Ok(())
    }
}

/// An option of a writer that has no such value.
pub(crate) fn bad_option(format: Format, key: &str, value: &str, allowed: &str) -> Error {
    Error::usage(format!(
        "{format} option {key}={value}: allowed is {allowed}"
    ))
}

/// `on` or `off`.
pub(crate) fn parse_switch(format: Format, key: &str, value: &str) -> Result<bool> {
    match value {
        "on" | "true" | "yes" => Ok(true),
        "off" | "false" | "no" => Ok(false),
        _ => Err(bad_option(format, key, value, "on or off")),
    }
}

/// Bytes, with an optional suffix of binary units (`K`, `M`, `G`).
pub(crate) fn parse_bytes(format: Format, key: &str, value: &str) -> Result<u64> {
    let digits = value.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
    let unit = match &value[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => 0,
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .filter(|_| unit > 0)
        .ok_or_else(|| bad_option(format, key, value, "a size such as 2M"))
}

/// The UUID of images whose maker does not give one: the same input makes the same bytes.
pub(crate) const DEFAULT_UUID: [u8; 16] = *b"glint\0\x40\0\x80\0\0\0\0\0\0\x01";

/// A UUID as people write it, in the order of its digits.
pub(crate) fn parse_uuid(format: Format, key: &str, value: &str) -> Result<[u8; 16]> {
    let digits: Vec<u8> = value.bytes().filter(|b| *b != b'-').collect();
    let mut uuid = [0; 16];
    let pairs = digits.as_chunks::<2>();
    let is_right = pairs.0.len() == 16 && pairs.1.is_empty() && value.is_ascii();
    for (byte, pair) in uuid.iter_mut().zip(pairs.0) {
        *byte = std::str::from_utf8(pair)
            .ok()
            .filter(|_| is_right && pair.iter().all(u8::is_ascii_hexdigit))
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or_else(|| bad_option(format, key, value, "a UUID"))?;
    }
    if is_right {
        Ok(uuid)
    } else {
        Err(bad_option(format, key, value, "a UUID"))
    }
}

/// A UUID with its first three fields turned to little-endian, as Microsoft and VirtualBox
/// store it.
pub(crate) fn mixed_endian(mut uuid: [u8; 16]) -> [u8; 16] {
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    uuid
}

/// Refuses `-c`, which these formats do not have.
pub(crate) fn refuse_compression(format: Format, compress: bool) -> Result<()> {
    if compress {
        return Err(Error::usage(format!("{format} cannot be compressed")));
    }
    Ok(())
}

/// An option that a format does not have.
pub(crate) fn unknown_option(format: Format, key: &str) -> Error {
    Error::usage(format!("{format} has no option {key:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemorySink;

    #[test]
    fn hands_out_pages_in_order_and_fills_the_rest() {
        let mut table = TableWriter::new(HostOffset(10), 3 * PAGE + 8, fill_with(0xff));
        let mut tables = Tables::new();
        table.set(4, &[1; 4], &mut tables);
        table.set(8, &[2; 4], &mut tables);
        assert!(tables.is_empty());
        table.set(3 * PAGE + 4, &[3; 4], &mut tables);
        assert_eq!(tables.len(), 1);
        let sink = MemorySink::default();
        for (at, bytes) in &tables {
            sink.write_all_at(bytes, *at).unwrap();
        }
        table.finish(&sink).unwrap();
        let bytes = sink.into_bytes();
        assert_eq!(bytes.len() as u64, 10 + 3 * PAGE + 8);
        assert_eq!(bytes[10..22], [255, 255, 255, 255, 1, 1, 1, 1, 2, 2, 2, 2]);
        assert!(bytes[22..bytes.len() - 4].iter().all(|b| *b == 0xff));
        assert_eq!(bytes[bytes.len() - 4..], [3; 4]);
    }

    #[test]
    fn options_are_read_as_people_write_them() {
        let bytes = |value| parse_bytes(Format::Vhdx, "block_size", value).ok();
        assert_eq!(bytes("2M"), Some(2 << 20));
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("M"), None);
        assert_eq!(bytes("2MM"), None);
        assert_eq!(bytes("99999999999999G"), None);
        let uuid = |value| parse_uuid(Format::Vhdx, "uuid", value).ok();
        let right = uuid("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(right[..4], [0, 0x11, 0x22, 0x33]);
        assert_eq!(
            mixed_endian(right)[..8],
            [0x33, 0x22, 0x11, 0, 0x55, 0x44, 0x77, 0x66]
        );
        assert_eq!(uuid("00112233"), None);
        assert_eq!(uuid("+0112233-4455-6677-8899-aabbccddeeff"), None);
    }
}
