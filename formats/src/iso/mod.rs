//! Optical discs: ISO 9660 and UDF.
//!
//! ```text
//!  byte 0x8000   volume descriptors, one a 2048-byte sector, from sector 16
//!    ISO 9660      primary (1) · boot record (0) · supplementary (2) … terminator (255)   CD001
//!    UDF           BEA01 · NSR02 or NSR03 · TEA01, after those of ISO 9660 or alone
//! ```
//! ECMA-119 (ISO 9660) section 8, ECMA-167 part 2 (volume recognition), El Torito 1.0, Joliet,
//! SUSP 1.12 and Rock Ridge 1.12.
//!
//! The guest's drive hands out the file as it is, so its length is the virtual size; what the
//! volume descriptor says is a detail, and a warning where the file ends before the volume. The
//! descriptors may stand in any order. A partition table beside them (hybrid) is reported by
//! [`gpt`](crate::gpt) and does not make two formats.

mod boot;
mod layout;
mod udf;

use crate::Format;
use crate::bytes::is_zero;
use crate::inspect::{Facts, Next, Region, Severity, Span, is_ahead};

use layout::{Descriptor, SECTOR};

/// Byte of the first volume descriptor.
const START: u64 = 16 * SECTOR as u64;
/// Descriptors walked: far more than any disc has.
const MAX_DESCRIPTORS: u64 = 32;
/// Bytes of the descriptors looked at, and where they end.
const DESCRIPTORS: u64 = MAX_DESCRIPTORS * SECTOR as u64;
const DESCRIPTORS_END: u64 = START + DESCRIPTORS;
/// Bytes of the head looked at for partition tables.
const HEAD: u64 = 4096;
/// Bytes of the end looked at for an anchor and for what follows the volume.
const TAIL: u64 = 4096;

/// Recognises ISO 9660 and UDF.
#[derive(Default)]
pub struct Inspector {
    state: State,
}

#[derive(Default)]
enum State {
    /// Wants the first identifier.
    #[default]
    First,
    Descriptors,
    /// Wants head, boot catalogue, root directory and, on a UDF disc, the anchors.
    Places(Box<Disc>),
    /// Wants the volume descriptor sequence of UDF, and the end.
    End(Box<Disc>, Option<udf::Sequence>),
}

/// What was read of a disc.
#[derive(Default)]
struct Disc {
    descriptors: Vec<u8>,
    /// The partition tables beside it.
    tables: Vec<&'static str>,
    /// The boot catalogue by its sector.
    catalog: Option<(u64, Vec<u8>)>,
    has_rock_ridge: bool,
    has_anchor: bool,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Iso
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::At { at: START, len: 7 }])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match (std::mem::take(&mut self.state), regions) {
            (State::First, [first]) if layout::is_known(first.bytes) => {
                self.state = State::Descriptors;
                Next::Want(vec![Span::At {
                    at: START,
                    len: DESCRIPTORS,
                }])
            }
            (State::Descriptors, [descriptors]) => self.ask_places(descriptors.bytes),
            (State::Places(disc), [head, catalog, root, anchors @ ..]) => {
                self.places(disc, head, catalog, root, anchors)
            }
            (State::End(disc, sequence), [found, tail]) => {
                Next::Done(disc.judge(sequence.as_ref(), found.bytes, tail))
            }
            _ => Next::NotMine,
        }
    }
}

/// A span, or none of it where a stream may have lost it by now.
fn if_ahead(at: u64, len: u64) -> Span {
    match is_ahead(at, len, DESCRIPTORS_END) {
        true => Span::At { at, len },
        false => Span::head(0),
    }
}

impl Inspector {
    fn ask_places(&mut self, descriptors: &[u8]) -> Next {
        let disc = Disc {
            descriptors: descriptors.to_vec(),
            ..Disc::default()
        };
        let (mut catalog, mut root, mut is_udf) = (Span::head(0), Span::head(0), false);
        for (_, descriptor) in disc.descriptors() {
            match descriptor {
                Descriptor::Primary(volume) => root = if_ahead(volume.root(), SECTOR as u64),
                Descriptor::ElTorito(at) => {
                    catalog = if_ahead(at * SECTOR as u64, SECTOR as u64);
                }
                Descriptor::Udf(_) => is_udf = true,
                _ => {}
            }
        }
        let mut spans = vec![Span::head(HEAD), catalog, root];
        if is_udf {
            spans.extend(udf::anchor_spans());
        }
        self.state = State::Places(Box::new(disc));
        Next::Want(spans)
    }

    fn places(
        &mut self,
        mut disc: Box<Disc>,
        head: &Region<'_>,
        catalog: &Region<'_>,
        root: &Region<'_>,
        anchors: &[Region<'_>],
    ) -> Next {
        disc.tables = tables(head.bytes);
        disc.has_rock_ridge = layout::has_rock_ridge(root.bytes);
        if !catalog.bytes.is_empty() {
            let sector = catalog.at / SECTOR as u64;
            disc.catalog = Some((sector, catalog.bytes.to_vec()));
        }
        let before = anchors
            .last()
            .map_or(DESCRIPTORS_END, |last| last.at + SECTOR as u64);
        let found = udf::anchored(anchors.iter().map(|region| region.bytes));
        disc.has_anchor = found.is_some();
        let sequence = found.filter(|found| {
            let (at, len) = found.span();
            is_ahead(at, len, before)
        });
        let span = match &sequence {
            Some(sequence) => {
                let (at, len) = sequence.span();
                Span::At { at, len }
            }
            None => Span::head(0),
        };
        self.state = State::End(disc, sequence);
        Next::Want(vec![span, Span::Tail(TAIL)])
    }
}

/// The partition tables at the head of a disc, which make it start as a memory stick too.
fn tables(head: &[u8]) -> Vec<&'static str> {
    let has = |at: usize, magic: &[u8]| head.get(at..).is_some_and(|b| b.starts_with(magic));
    let known = [
        ("mbr", has(510, b"\x55\xaa")),
        ("gpt", has(512, b"EFI PART") || has(2048, b"EFI PART")),
        (
            "apm",
            has(0, b"ER") && (has(512, b"PM") || has(2048, b"PM")),
        ),
    ];
    let there = known.into_iter().filter(|(_, is_there)| *is_there);
    there.map(|(name, _)| name).collect()
}

impl Disc {
    /// The volume descriptors by their sectors.
    fn descriptors(&self) -> impl Iterator<Item = (u64, Descriptor)> {
        (16..)
            .zip(self.descriptors.chunks(SECTOR))
            .map_while(|(n, sector)| Some((n, Descriptor::parse(sector)?)))
    }

    fn judge(&self, sequence: Option<&udf::Sequence>, found: &[u8], tail: &Region<'_>) -> Facts {
        let file_len = tail.file_len;
        let mut facts = Facts::new(Format::Iso);
        let (mut volume_size, mut is_udf) = (None, false);
        for (n, descriptor) in self.descriptors() {
            let place = format!("volume descriptor, sector {n}");
            match descriptor {
                // Later ones are copies.
                Descriptor::Primary(_) if volume_size.is_some() => {}
                Descriptor::Primary(volume) => {
                    volume_size = Some(volume.size());
                    volume.report(&mut facts, &place, file_len);
                }
                Descriptor::Joliet(name) => facts.detail("joliet_volume_id", name),
                Descriptor::ElTorito(catalog) => {
                    facts.detail("el_torito", true);
                    if file_len.is_some_and(|len| catalog * SECTOR as u64 >= len) {
                        facts.find(
                            "truncated",
                            Severity::Warning,
                            place,
                            format!(
                                "the boot catalogue is in sector {catalog}, past the end of the \
                                 file"
                            ),
                        );
                    }
                }
                Descriptor::Udf(version) => {
                    is_udf = true;
                    facts.detail("udf", version);
                }
                Descriptor::Cut => facts.find(
                    "truncated",
                    Severity::Unsafe,
                    place,
                    "the file ends within the descriptor",
                ),
                Descriptor::Other => {}
            }
        }
        if volume_size.is_none() && !is_udf {
            facts.find(
                "no_volume",
                Severity::Unsafe,
                "volume descriptors, sector 16",
                "there is neither a primary volume descriptor nor a UDF one among them",
            );
        }
        if self.has_rock_ridge {
            facts.detail("rock_ridge", true);
        }
        if let Some((sector, catalog)) = &self.catalog {
            boot::report(catalog, *sector, file_len, &mut facts);
        }
        if !self.tables.is_empty() {
            facts.detail("hybrid", self.tables.as_slice());
        }
        match sequence {
            Some(sequence) => udf::report(sequence, found, &mut facts),
            None if is_udf && !self.has_anchor && !udf::ends_with_anchor(tail.bytes) => facts.find(
                "udf_anchor",
                Severity::Warning,
                "udf anchor, block 256",
                "no anchor was found: the disc is damaged or cut",
            ),
            None => {}
        }
        // Further partitions, UDF and padding lie after the volume for good reasons.
        let is_plain = self.tables.is_empty() && !is_udf && !is_zero(tail.bytes);
        if let (Some(size), Some(len)) = (volume_size, file_len)
            && size < len
            && is_plain
        {
            let rest = len - size;
            facts.find(
                "trailing_data",
                Severity::Note,
                format!("byte {size}"),
                format!("{rest} bytes follow the volume: a later session, or no part of the disc"),
            );
        }
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::layout::tests::{descriptor, primary};
    use super::*;
    use crate::Limits;
    use crate::inspect::{Inspection, Verdict, inspect};

    fn disc(descriptors: &[Vec<u8>], len: usize) -> Inspection {
        let mut file = vec![0; 16 * SECTOR];
        for d in descriptors {
            file.extend_from_slice(d);
        }
        file.resize(len, 0);
        inspect(&file, &Limits::default()).unwrap()
    }

    #[test]
    fn the_primary_descriptor_may_come_late() {
        let i = disc(
            &[
                descriptor(0, b"CD001"),
                primary("MINE", 20),
                descriptor(255, b"CD001"),
            ],
            20 * SECTOR,
        );
        assert_eq!((i.format, i.verdict()), (Format::Iso, Verdict::Safe));
        assert_eq!(i.virtual_size, Some(20 * 2048));
        assert_eq!(i.details["volume_id"], "MINE");
        assert_eq!(i.findings, []);
    }

    #[test]
    fn pure_udf_is_a_disc_too() {
        let i = disc(
            &[
                descriptor(0, b"BEA01"),
                descriptor(0, b"NSR03"),
                descriptor(0, b"TEA01"),
            ],
            99 * SECTOR,
        );
        assert_eq!((i.format, i.verdict()), (Format::Iso, Verdict::Safe));
        assert_eq!(i.details["udf"], "NSR03");
    }

    #[test]
    fn a_volume_longer_than_its_file_is_a_warning() {
        let i = disc(
            &[primary("CUT", 500), descriptor(255, b"CD001")],
            20 * SECTOR,
        );
        assert_eq!(i.verdict(), Verdict::Safe);
        assert_eq!(i.findings[0].rule, "truncated");
        assert_eq!(i.details["volume_size"], 500 * 2048);
    }

    #[test]
    fn a_disc_without_a_volume_is_unsafe() {
        let i = disc(&[descriptor(255, b"CD001")], 20 * SECTOR);
        assert_eq!(i.unsafe_finding().unwrap().rule, "no_volume");
        let i = disc(&[primary("CUT", 500)], 16 * SECTOR + 40);
        assert_eq!(i.verdict(), Verdict::Unsafe);
    }
}
