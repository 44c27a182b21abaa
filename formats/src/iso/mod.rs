//! Optical discs: ISO 9660 and UDF.
//!
//! ```text
//!  byte 0x8000   volume descriptors, one a 2048-byte sector, from sector 16
//!    ISO 9660      primary (1) · boot record (0) · supplementary (2) … terminator (255)   CD001
//!    UDF           BEA01 · NSR02 or NSR03 · TEA01, after those of ISO 9660 or alone
//! ```
//! ECMA-119 (ISO 9660) section 8, ECMA-167 part 2 (volume recognition), El Torito 1.0, Joliet.
//!
//! The guest's drive hands out the file as it is, so its length is the virtual size; what the
//! volume descriptor says is a detail, and a warning where the file ends before the volume. The
//! descriptors may stand in any order. A partition table beside them (hybrid) is reported by
//! [`gpt`](crate::gpt) and does not make two formats.

mod layout;

use crate::Format;
use crate::inspect::{Facts, Next, Region, Severity, Span};

use layout::{Descriptor, SECTOR};

/// Byte of the first volume descriptor.
const START: u64 = 16 * SECTOR as u64;
/// Descriptors walked: far more than any disc has.
const MAX_DESCRIPTORS: u64 = 32;

/// Recognises ISO 9660 and UDF.
#[derive(Default)]
pub struct Inspector {}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Iso
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::At { at: START, len: 7 }])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match regions {
            [first] if layout::is_known(first.bytes) => Next::Want(vec![
                Span::At {
                    at: START,
                    len: MAX_DESCRIPTORS * SECTOR as u64,
                },
                Span::Tail(0),
            ]),
            [descriptors, end] => Next::Done(judge(descriptors.bytes, end.file_len)),
            _ => Next::NotMine,
        }
    }
}

fn judge(sectors: &[u8], file_len: Option<u64>) -> Facts {
    let mut facts = Facts::new(Format::Iso);
    let mut has_volume = false;
    for (n, sector) in (16u64..).zip(sectors.chunks(SECTOR)) {
        let Some(descriptor) = Descriptor::parse(sector) else {
            break;
        };
        let place = format!("volume descriptor, sector {n}");
        match descriptor {
            Descriptor::Primary(volume) => {
                // Later ones are copies.
                if !std::mem::replace(&mut has_volume, true) {
                    volume.report(&mut facts, &place, file_len);
                }
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
                            "the boot catalog is in sector {catalog}, past the end of the file"
                        ),
                    );
                }
            }
            Descriptor::Udf(version) => {
                has_volume = true;
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
    if !has_volume {
        facts.find(
            "no_volume",
            Severity::Unsafe,
            "volume descriptors, sector 16",
            "there is neither a primary volume descriptor nor a UDF one among them",
        );
    }
    facts
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
