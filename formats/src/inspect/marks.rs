//! Marks by which other programs would take a file for something else: no formats by themselves,
//! and harmless in a raw disk, which may hold anything. Beside a format they make a polyglot.
//!
//! | mark | where | what is misled |
//! | --- | --- | --- |
//! | `55 AA` | byte 510 | whatever looks for a partition table or boot sector |
//! | `ustar` | byte 257 | tar |
//! | end of central directory | the end | zip, and all that read their files from its end |

use super::{Facts, Next, Region, Span};
use crate::Format;
use crate::bytes::{le16, le32};

/// Bytes of the end looked at: a directory's end may carry a comment of nearly this length.
const TAIL: u64 = 64 << 10;
/// Bytes of the record that ends a zip archive, without comment.
const ZIP_END: usize = 22;

/// A mark found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The signature of a boot sector.
    BootSector,
    /// The magic of a tar header.
    Tar,
    /// The record that ends a zip archive, at this byte.
    Zip(u64),
}

impl Mark {
    /// Whether it makes a polyglot of a file with these facts.
    pub(super) fn misleads(self, facts: &Facts) -> bool {
        let format = facts.format;
        // What begins the file is the guest's, part of a hybrid disc, random bytes of a key slot
        // or a table of any content.
        let is_free =
            facts.guest_at_zero || matches!(format, Format::Iso | Format::Luks | Format::Parallels);
        match self {
            _ if matches!(format, Format::Raw | Format::Gpt) => false,
            Self::BootSector => !is_free,
            Self::Tar => !facts.guest_at_zero,
            Self::Zip(_) => true,
        }
    }

    /// Where it stands, and what it is.
    pub(super) fn describe(self) -> (String, &'static str) {
        match self {
            Self::BootSector => ("byte 510".into(), "the signature of a boot sector (55 AA)"),
            Self::Tar => ("byte 257".into(), "the magic of a tar archive"),
            Self::Zip(at) => (format!("byte {at}"), "the end of a zip archive"),
        }
    }
}

/// Looks for the marks. Its facts are those of raw: it never rules anything out.
#[derive(Default)]
pub(super) struct Inspector {}

impl super::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Raw
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(512), Span::Tail(TAIL)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        let mut facts = Facts::new(Format::Raw);
        if let [head, tail] = regions {
            let has = |at: usize, magic: &[u8]| head.bytes.get(at..at + magic.len()) == Some(magic);
            if has(510, b"\x55\xaa") {
                facts.marks.push(Mark::BootSector);
            }
            if has(257, b"ustar") {
                facts.marks.push(Mark::Tar);
            }
            if let Some(at) = zip_end(tail.bytes) {
                facts.marks.push(Mark::Zip(tail.at + at as u64));
            }
        }
        Next::Done(facts)
    }
}

/// Where the record that ends a zip archive stands, whose comment reaches to the end of `tail`
/// and whose directory lies right before it, as far as that can be seen.
fn zip_end(tail: &[u8]) -> Option<usize> {
    let last = tail.len().checked_sub(ZIP_END)?;
    (0..=last).rev().find(|at| {
        let record = &tail[*at..];
        if !record.starts_with(b"PK\x05\x06") {
            return false;
        }
        let comment = le16(record, 20).map_or(usize::MAX, usize::from);
        let directory = le32(record, 12).map(|len| len as usize);
        let begins = directory.and_then(|len| tail.get(at.checked_sub(len)?..));
        record.len() == ZIP_END + comment
            && directory != Some(0)
            && begins.is_none_or(|bytes| bytes.starts_with(b"PK\x01\x02"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty file's directory entry and the record that ends the archive.
    fn end(comment: &[u8]) -> Vec<u8> {
        let mut bytes = b"PK\x01\x02".to_vec();
        bytes.resize(46, 0);
        bytes.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0\x2e\0\0\0\0\0\0\0");
        bytes.extend_from_slice(&(comment.len() as u16).to_le_bytes());
        bytes.extend_from_slice(comment);
        bytes
    }

    #[test]
    fn a_zip_archive_is_found_by_its_end() {
        assert_eq!(zip_end(&end(b"")), Some(46));
        assert_eq!(
            zip_end(&[&[7; 100][..], &end(b"some words")].concat()),
            Some(146)
        );
        let comment = end(b"PK\x05\x06 is not the end");
        assert_eq!(zip_end(&comment), Some(46));
        assert_eq!(zip_end(&[end(b""), vec![0]].concat()), None);
        let mut elsewhere = end(b"");
        elsewhere[0] = b'Q';
        assert_eq!(zip_end(&elsewhere), None);
        assert_eq!(zip_end(b"PK\x05\x06"), None);
    }
}
