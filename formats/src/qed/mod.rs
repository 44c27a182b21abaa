//! QED, QEMU's enhanced disk: recognised so that it is refused by name.
//!
//! ```text
//!  byte 0   magic, cluster size, table size, header size, features   little-endian
//!      40   L1 table offset, image size, backing file name (offset, length)
//!      64   … the backing file's name, inside the header's clusters
//! ```
//! QEMU `docs/interop/qed_spec.rst`. The format is no longer developed, holds nothing qcow2 does
//! not, and names its backing file: it is refused as a whole (rule `banned`).

use crate::Format;
use crate::bytes::{le32, le64};
use crate::inspect::{Facts, Next, Region, Severity, Span};

const MAGIC: &[u8; 4] = b"QED\0";
/// Feature bit: there is a backing file.
const BACKING_FILE: u64 = 1;
/// The specification's bound on the backing file's name.
const MAX_NAME: usize = 1023;

/// Recognises QED.
#[derive(Default)]
pub struct Inspector {}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Qed
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(4096)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match regions {
            [head] if head.bytes.starts_with(MAGIC) => Next::Done(judge(head.bytes)),
            _ => Next::NotMine,
        }
    }
}

fn judge(head: &[u8]) -> Facts {
    let mut facts = Facts::new(Format::Qed);
    facts.find(
        "banned",
        Severity::Unsafe,
        "header, byte 0",
        "qed images are not accepted; convert it to qcow2",
    );
    if let Some(size) = le64(head, 48) {
        facts.virtual_size = Some(size);
    }
    if let Some(size) = le32(head, 4) {
        facts.detail("cluster_size", size);
    }
    if let Some(name) = backing_file(head) {
        facts.detail("backing_filename", name.as_str());
        facts.find(
            "backing_file",
            Severity::Unsafe,
            "header, byte 56",
            format!("names the backing file {name:?}"),
        );
    }
    facts
}

fn backing_file(head: &[u8]) -> Option<String> {
    if le64(head, 16)? & BACKING_FILE == 0 {
        return None;
    }
    let at = usize::try_from(le32(head, 56)?).ok()?;
    let len = usize::try_from(le32(head, 60)?).ok()?.min(MAX_NAME);
    let name = head.get(at..at.checked_add(len)?).unwrap_or_default();
    Some(String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;
    use crate::inspect::inspect;

    #[test]
    fn is_refused_with_its_facts() {
        let mut file = vec![0; 4096];
        file[..4].copy_from_slice(MAGIC);
        file[4..8].copy_from_slice(&65536u32.to_le_bytes());
        file[16] = 1;
        file[48..56].copy_from_slice(&(1u64 << 30).to_le_bytes());
        file[56] = 64;
        file[60] = 11;
        file[64..75].copy_from_slice(b"/etc/passwd");
        let i = inspect(&file, &Limits::default()).unwrap();
        assert_eq!((i.format, i.virtual_size), (Format::Qed, Some(1 << 30)));
        assert_eq!(i.unsafe_finding().unwrap().rule, "banned");
        assert_eq!(i.details["backing_filename"], "/etc/passwd");
        // A name that leaves the header is told, and nothing is read for it.
        file[56..60].fill(0xff);
        let i = inspect(&file, &Limits::default()).unwrap();
        assert_eq!(i.details["backing_filename"], "");
        assert!(
            inspect(&file[..6].to_vec(), &Limits::default())
                .unwrap()
                .unsafe_finding()
                .is_some()
        );
    }
}
