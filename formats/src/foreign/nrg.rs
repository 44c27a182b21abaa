//! Nero disc images: the tracks come first, and the footer says where their list begins.
//!
//! `NER5` and eight bytes of offset, or `NERO` and four, big-endian, end the file; a chunk begins
//! there by its name of four letters.

use super::finding;
use crate::Format;
use crate::bytes::{be32, be64};
use crate::inspect::{Facts, Next, Region, Span};

/// Bytes of the longer footer.
const FOOTER: u64 = 12;
/// Names of the chunk that a list begins with.
const FIRST: [&[u8]; 6] = [b"CUES", b"CUEX", b"DAOI", b"DAOX", b"ETNF", b"ETN2"];

/// Recognises the footer, and then the list.
#[derive(Default)]
pub(super) struct Recogniser {
    is_listed: bool,
}

impl crate::inspect::Inspector for Recogniser {
    fn format(&self) -> Format {
        Format::Nrg
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::Tail(FOOTER)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        let Some(region) = regions.first() else {
            return Next::NotMine;
        };
        if self.is_listed {
            if !FIRST.contains(&region.bytes) {
                return Next::NotMine;
            }
            let mut facts = Facts::new(Format::Nrg);
            let place = format!("list of tracks, byte {:#x}", region.at);
            facts.findings.push(finding(place, "a Nero disc image"));
            return Next::Done(facts);
        }
        match list_at(region.bytes).filter(|at| *at < region.at) {
            Some(at) => {
                self.is_listed = true;
                Next::Want(vec![Span::At { at, len: 4 }])
            }
            None => Next::NotMine,
        }
    }
}

/// Where the list of tracks begins, as the footer says.
fn list_at(footer: &[u8]) -> Option<u64> {
    let old = footer.get(4..)?;
    if footer.starts_with(b"NER5") {
        be64(footer, 4)
    } else if old.starts_with(b"NERO") {
        be32(old, 4).map(u64::from)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::inspect::inspect;
    use crate::{Format, Limits};

    #[test]
    fn is_known_by_its_footer_and_its_list() {
        let mut tracks = vec![7; 4096];
        tracks[4000..4004].copy_from_slice(b"CUEX");
        let new = [&tracks[..], b"NER5", &4000_u64.to_be_bytes()].concat();
        let mut old = [&tracks[..], b"NERO", &4000_u32.to_be_bytes()].concat();
        let format = |file: &Vec<u8>| inspect(file, &Limits::default()).unwrap().format;
        assert_eq!([format(&new), format(&old)], [Format::Nrg; 2]);
        old[4000] = b'X';
        assert_eq!(format(&old), Format::Raw);
        for len in 0..20 {
            assert_eq!(format(&new[new.len() - len..].to_vec()), Format::Raw);
        }
    }
}
