//! Recognised so that it is refused by name.

use super::layout::{Header, MAGIC};
use crate::Format;
use crate::inspect::{Facts, Next, Region, Severity, Span};

/// Bytes that hold the header and, as a rule, the backing file's name.
const HEAD: u64 = 4096;

/// Recognises QED.
#[derive(Default)]
pub struct Inspector {}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Qed
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEAD)])
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
    let header = match Header::parse(head) {
        Ok(header) => header,
        Err(error) => {
            facts.find_error(&error);
            return facts;
        }
    };
    facts.virtual_size = Some(header.size);
    facts.detail("cluster_size", header.cluster_size);
    facts.detail("table_size", header.table_size);
    facts.detail("dirty", header.needs_check());
    if header.needs_check() {
        facts.find(
            "dirty",
            Severity::Warning,
            "header, byte 16",
            "was not closed properly: clusters may be lost, the disk's content is not affected",
        );
    }
    if let Some((at, len)) = header.backing_file {
        let start = at as usize; // at most 2^32
        let name = head.get(start..start + len as usize).unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        facts.detail("backing_filename", name.as_str());
        if header.is_backing_raw() {
            facts.detail("backing_file_format", "raw");
        }
        facts.find(
            "backing_file",
            Severity::Unsafe,
            "header, byte 56",
            format!("names the backing file {name:?}"),
        );
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::head;
    use super::*;
    use crate::Limits;
    use crate::inspect::inspect;

    #[test]
    fn is_refused_with_its_facts() {
        let mut file = head();
        file[16] = 3;
        file[56] = 64;
        file[60] = 11;
        file[64..75].copy_from_slice(b"/etc/passwd");
        let i = inspect(&file, &Limits::default()).unwrap();
        assert_eq!((i.format, i.virtual_size), (Format::Qed, Some(1 << 30)));
        let rules: Vec<_> = i.findings.iter().map(|f| f.rule).collect();
        assert_eq!(rules, ["banned", "backing_file", "dirty"]);
        assert_eq!(i.details["backing_filename"], "/etc/passwd");
        // A name that leaves the header is told, and nothing is read for it.
        file[56..60].fill(0xff);
        let i = inspect(&file, &Limits::default()).unwrap();
        assert!(i.findings.iter().any(|f| f.place == "header, byte 56"));
        let short = inspect(&file[..6].to_vec(), &Limits::default()).unwrap();
        assert_eq!(short.unsafe_finding().map(|f| f.rule), Some("banned"));
    }
}
