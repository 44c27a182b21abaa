//! Formats that are recognised only, so that they are refused by name instead of being taken for
//! raw: a guest given such a file as its disk would see rubbish.
//!
//! One table: the magic at byte 0, what it is, where its virtual size stands if that is plain; and
//! one that is known by its end.

mod nrg;
mod table;

use crate::Format;
use table::KNOWN;

use crate::inspect::{Facts, Finding, Inspector, Next, Region, Severity, Span};

/// Bytes of the head looked at.
const HEAD: u64 = 2560;

/// A foreign format.
struct Known {
    format: Format,
    /// What people call it.
    name: &'static str,
    magic: &'static [u8],
    /// Whether the head is one, which begins with the magic.
    check: fn(&[u8]) -> bool,
    /// Bytes the guest would see, from the head of the file.
    virtual_size: fn(&[u8]) -> Option<u64>,
}

/// One inspector a foreign format.
pub(crate) fn inspectors() -> impl Iterator<Item = Box<dyn Inspector>> {
    let by_head = KNOWN.iter().map(|known| Box::new(Recogniser(known)) as _);
    by_head.chain([Box::new(nrg::Recogniser::default()) as _])
}

struct Recogniser(&'static Known);

impl Inspector for Recogniser {
    fn format(&self) -> Format {
        self.0.format
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEAD)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        let known = self.0;
        let is_one =
            |head: &&Region<'_>| head.bytes.starts_with(known.magic) && (known.check)(head.bytes);
        let Some(head) = regions.first().filter(is_one) else {
            return Next::NotMine;
        };
        let mut facts = Facts::new(known.format);
        facts.virtual_size = (known.virtual_size)(head.bytes);
        facts.findings.push(finding("header, byte 0", known.name));
        Next::Done(facts)
    }
}

/// The finding that it is something that is not read: `name`.
pub(crate) fn finding(place: impl Into<String>, name: &str) -> Finding {
    Finding {
        rule: "unsupported_format",
        severity: Severity::Unsafe,
        place: place.into(),
        message: format!("is {name}: not read here, and no raw disk either"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inspect::inspect;
    use crate::{ErrorKind, Limits, OpenOptions, open};

    /// Bytes at their places in a head.
    fn head(pieces: &[(usize, &[u8])]) -> Vec<u8> {
        let mut head = vec![0; 4096];
        for (at, bytes) in pieces {
            head[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        head
    }

    /// What the second look at a head wants beyond its magic.
    fn rest(known: &Known) -> &'static [(usize, &'static [u8])] {
        match known.magic {
            b"MComprHD" => &[(8, b"\0\0\0\x7c\0\0\0\x05"), (32, b"\0\0\0\0\0\x01")],
            b"CISO" => &[(4, b"\0\0\x20\0\x01\x01")],
            b"ZISO" => &[(4, b"\x18\0\0\0\0\0\x01\0\0\0\0\0\0\x08\0\0\x01")],
            b"VMA\0\0\0\0\x01" => &[(58, b"\x30")],
            b"MEDIA DESCRIPTOR" => &[(16, b"\x01")],
            b"MSCF\0\0\0\0" => &[(24, b"\x03\x01")],
            b"xar!" => &[(4, b"\0\x1c\0\x01")],
            b"!<arch>\n" => &[(8, b"debian-binary"), (66, b"`\n")],
            b"\xed\xab\xee\xdb" => &[(4, b"\x03"), (79, b"\x05")],
            b"\x1f\x9d" => &[(2, b"\x90a")],
            b"pbzx\0\0\0\0" => &[(8, b"\x01")],
            [0, 0xff, ..] => &[
                (15, b"\x01"),
                (2352, b"\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0"),
            ],
            _ => &[],
        }
    }

    #[test]
    fn every_known_format_is_refused_by_name() {
        for known in KNOWN {
            let file = head(&[&[(0, known.magic)][..], rest(known)].concat());
            let i = inspect(&file, &Limits::default()).unwrap();
            assert_eq!(i.format, known.format, "{}", known.name);
            let finding = i.unsafe_finding().unwrap();
            assert_eq!(finding.rule, "unsupported_format");
            assert!(finding.message.contains(known.name));
            let error = open(Arc::new(file), &OpenOptions::default()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn a_disk_that_begins_like_one_is_a_disk_still() {
        for known in KNOWN.iter().filter(|known| !rest(known).is_empty()) {
            let file = head(&[(0, known.magic), (510, b"\x55\xaa")]);
            let i = inspect(&file, &Limits::default()).unwrap();
            assert_eq!(i.format, Format::Raw, "{}", known.name);
            assert!(i.unsafe_finding().is_none(), "{:?}", i.findings);
        }
    }

    #[test]
    fn sizes_are_told_where_they_stand() {
        let size = |magic: &[u8]| {
            let known = KNOWN.iter().find(|known| known.magic == magic).unwrap();
            let file = head(&[&[(0, known.magic)][..], rest(known)].concat());
            inspect(&file, &Limits::default()).unwrap().virtual_size
        };
        assert_eq!(size(b"MComprHD"), Some(1 << 16));
        assert_eq!(size(b"ZISO"), Some(1 << 16));
        assert_eq!(size(b"CISO"), None);
    }
}
