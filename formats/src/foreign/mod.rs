//! Formats that are recognised only, so that they are refused by name instead of being taken for
//! raw: a guest given such a file as its disk would see rubbish.
//!
//! One table: the magic at byte 0, what it is, where its virtual size stands if that is plain.

use crate::Format;
use crate::bytes::{be32, le32};
use crate::inspect::{Facts, Inspector, Next, Region, Severity, Span};

/// Bytes of the head looked at.
const HEAD: u64 = 256;

/// A foreign format.
struct Known {
    format: Format,
    /// What people call it.
    name: &'static str,
    magic: &'static [u8],
    /// Bytes the guest would see, from the head of the file.
    virtual_size: fn(&[u8]) -> Option<u64>,
}

const KNOWN: &[Known] = &[
    Known {
        format: Format::SparseImage,
        name: "an Apple sparse image",
        magic: b"sprs\0\0\0\x03",
        virtual_size: |head| Some(u64::from(be32(head, 16)?) * 512),
    },
    Known {
        format: Format::Cloop,
        name: "a compressed loop device (cloop 2.0)",
        magic: b"#!/bin/sh\n#V2.0 Format\n",
        virtual_size: |head| Some(u64::from(be32(head, 128)?) * u64::from(be32(head, 132)?)),
    },
    Known {
        format: Format::Ewf,
        name: "an Expert Witness image (EWF, E01)",
        magic: b"EVF\x09\x0d\x0a\xff\x00",
        virtual_size: |_| None,
    },
    Known {
        format: Format::Ewf,
        name: "an Expert Witness logical image (EWF, L01)",
        magic: b"LVF\x09\x0d\x0a\xff\x00",
        virtual_size: |_| None,
    },
    Known {
        format: Format::Ewf,
        name: "an Expert Witness image, version 2 (Ex01)",
        magic: b"EVF2\x0d\x0a\x81\x00",
        virtual_size: |_| None,
    },
    Known {
        format: Format::AndroidSparse,
        name: "an Android sparse image",
        magic: b"\x3a\xff\x26\xed\x01\0",
        virtual_size: |head| Some(u64::from(le32(head, 12)?) * u64::from(le32(head, 16)?)),
    },
    Known {
        format: Format::Wim,
        name: "a Windows imaging archive (WIM)",
        magic: b"MSWIM\0\0\0",
        virtual_size: |_| None,
    },
];

/// One inspector a foreign format.
pub(crate) fn inspectors() -> impl Iterator<Item = Box<dyn Inspector>> {
    KNOWN.iter().map(|known| Box::new(Recogniser(known)) as _)
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
        let Some(head) = regions.first().filter(|r| r.bytes.starts_with(known.magic)) else {
            return Next::NotMine;
        };
        let mut facts = Facts::new(known.format);
        facts.virtual_size = (known.virtual_size)(head.bytes);
        facts.find(
            "unsupported_format",
            Severity::Unsafe,
            "header, byte 0",
            format!("is {}: not read here, and no raw disk either", known.name),
        );
        Next::Done(facts)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inspect::inspect;
    use crate::{ErrorKind, Limits, OpenOptions, open};

    #[test]
    fn every_known_format_is_refused_by_name() {
        for known in KNOWN {
            let mut file = known.magic.to_vec();
            file.resize(1000, 0);
            let i = inspect(&file, &Limits::default()).unwrap();
            assert_eq!(i.format, known.format);
            let finding = i.unsafe_finding().unwrap();
            assert_eq!(finding.rule, "unsupported_format");
            assert!(finding.message.contains(known.name));
            let error = open(Arc::new(file), &OpenOptions::default()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }
}
