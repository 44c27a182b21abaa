//! Partition tables: MBR, and GPT behind its protective MBR. Judged, never followed: an image
//! that holds one is raw.
//!
//! ```text
//!  LBA 0        boot code · four partition entries from byte 446 · 55 AA
//!  LBA 1        GPT header "EFI PART"; a block is 512 or 4096 bytes, whichever has the header
//!  LBA 2 …      partition entries, 128 × 128 bytes as a rule
//!  last LBA     backup GPT header, its entries before it
//! ```
//! UEFI specification 2.10, chapter 5.
//!
//! What is not a partition table although it ends with 55 AA is left to raw without a word: boot
//! records of file systems (FAT, NTFS, BitLocker), and tables without a single possible entry or
//! with a boot flag other than 00 and 80, which are boot code.
//!
//! One thing is refused, as OpenStack does (rule `mbr`): a protective entry (type EE) that breaks
//! UEFI's rules, because then firmware and tools disagree on which table counts. Where the table
//! behind it is sound, checksum and all, the image is a deliberate hybrid MBR, and that is a
//! warning (`hybrid_mbr`). All else is a warning too: guests repair a moved backup header every
//! time a disk grows.

mod layout;

use serde_json::{Value, json};

use crate::Format;
use crate::inspect::{Facts, Next, Region, Severity, Span};

pub(crate) use layout::is_fat;
use layout::{GptHeader, Mbr, is_boot_record};

/// Block sizes a GPT is looked for with.
const BLOCK_SIZES: [u64; 2] = [512, 4096];
/// Entries that end past this byte are not checked: a stream has no memory that long.
const MAX_ENTRIES_END: u64 = 512 << 10;
/// Partitions listed in the details.
const MAX_LISTED: usize = 128;

/// Recognises MBR and GPT partition tables.
#[derive(Default)]
pub struct Inspector {
    asked: Asked,
}

/// What was asked for last.
#[derive(Default)]
enum Asked {
    #[default]
    BootSector,
    /// The end, and before it a GPT header of each block size where one is promised.
    Headers(Mbr),
    /// The backup header, and after it the entries where they are near.
    Table(Mbr, GptHeader),
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Gpt
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(512)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match (std::mem::take(&mut self.asked), regions) {
            (Asked::BootSector, [sector]) => self.boot_sector(sector.bytes),
            (Asked::Headers(mbr), [headers @ .., end]) => {
                let header = headers
                    .iter()
                    .zip(BLOCK_SIZES)
                    .find_map(|(region, size)| GptHeader::parse(region.bytes, size));
                match header {
                    Some(header) => self.ask_table(mbr, header),
                    None => Next::Done(judge_mbr(&mbr, file_len(end))),
                }
            }
            (Asked::Table(mbr, header), [backup, entries @ ..]) => {
                let entries = entries.first().map_or(&[][..], |region| region.bytes);
                Next::Done(judge_gpt(&mbr, &header, backup, entries))
            }
            _ => Next::NotMine,
        }
    }
}

impl Inspector {
    fn boot_sector(&mut self, sector: &[u8]) -> Next {
        let Some(mbr) = Mbr::parse(sector).filter(|_| !is_boot_record(sector)) else {
            return Next::NotMine;
        };
        let mut spans = Vec::new();
        if mbr.has_protective() {
            spans.extend(BLOCK_SIZES.map(|at| Span::At { at, len: 512 }));
        }
        spans.push(Span::Tail(0));
        self.asked = Asked::Headers(mbr);
        Next::Want(spans)
    }

    fn ask_table(&mut self, mbr: Mbr, header: GptHeader) -> Next {
        let mut spans = vec![Span::Tail(header.block_size)];
        spans.extend(header.entries_span());
        self.asked = Asked::Table(mbr, header);
        Next::Want(spans)
    }
}

/// Where a partition lies, in bytes.
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    /// Its number, from one, as in the details.
    pub(crate) index: usize,
    pub(crate) start: u64,
    pub(crate) size: u64,
}

/// The partitions of the table in a file's `head`, where all of it lies there; of an MBR, without
/// the logical ones.
pub(crate) fn partitions(head: &[u8]) -> Vec<Partition> {
    let Some(mbr) = Mbr::parse(head).filter(|_| !is_boot_record(head)) else {
        return Vec::new();
    };
    if !mbr.has_protective() {
        let entries = (1..).zip(&mbr.entries);
        return entries
            .filter(|(_, entry)| entry.is_used() && !entry.is_extended())
            .map(|(index, entry)| Partition {
                index,
                start: u64::from(entry.start) * 512,
                size: u64::from(entry.sectors) * 512,
            })
            .collect();
    }
    let block = |size: u64| head.get(usize::try_from(size).ok()?..);
    let header = BLOCK_SIZES
        .iter()
        .find_map(|size| GptHeader::parse(block(*size)?.get(..512)?, *size));
    let entries = header.as_ref().and_then(|header| {
        let Span::At { at, len } = header.entries_span()? else {
            return None;
        };
        Some((header, block(at)?.get(..usize::try_from(len).ok()?)?))
    });
    let entries = entries
        .into_iter()
        .flat_map(|(header, bytes)| header.entries(bytes));
    entries
        .map(|(index, entry)| Partition {
            index,
            start: entry.start,
            size: entry.size,
        })
        .collect()
}

fn file_len(end: &Region<'_>) -> u64 {
    end.file_len.unwrap_or(u64::MAX)
}

/// Tells of a protective entry that breaks the rules, before a table that is `sound` or not.
fn judge_protective(mbr: &Mbr, sound: bool, facts: &mut Facts) {
    let Some(why) = mbr.broken_protective() else {
        return;
    };
    let (rule, severity) = if sound {
        ("hybrid_mbr", Severity::Warning)
    } else {
        ("mbr", Severity::Unsafe)
    };
    facts.find(rule, severity, "mbr, byte 446", why);
}

fn judge_mbr(mbr: &Mbr, file_len: u64) -> Facts {
    let mut facts = Facts::new(Format::Gpt);
    judge_protective(mbr, false, &mut facts);
    facts.detail("partition_table", "mbr");
    if mbr.has_protective() {
        facts.find(
            "gpt_header",
            Severity::Warning,
            "gpt header, LBA 1",
            "the protective MBR promises a GPT, but there is no header",
        );
    }
    let mut listed = Vec::new();
    for (n, entry) in (1..).zip(&mbr.entries).filter(|(_, e)| e.is_used()) {
        let (start, size) = (u64::from(entry.start) * 512, u64::from(entry.sectors) * 512);
        let kind = format!("{:#04x}", entry.kind);
        check_bounds(&mut facts, n, start, size, file_len);
        listed.push(json!({"index": n, "type": kind, "start": start, "size": size}));
    }
    facts.detail("partitions", Value::Array(listed));
    facts
}

fn judge_gpt(mbr: &Mbr, header: &GptHeader, backup: &Region<'_>, entries: &[u8]) -> Facts {
    let file_len = file_len(backup);
    let mut facts = Facts::new(Format::Gpt);
    judge_protective(mbr, header.is_sound(), &mut facts);
    facts.detail("partition_table", "gpt");
    facts.detail("disk_guid", header.disk_guid.as_str());
    facts.detail("sector_size", header.block_size);
    let mut warn = |rule, place: &str, message: String| {
        facts.find(rule, Severity::Warning, place, message);
    };
    if let Some(why) = header.fault(1) {
        warn("gpt_header", "gpt header, LBA 1", why);
    }
    let blocks = file_len / header.block_size;
    if header.last_usable >= blocks {
        let last = header.last_usable;
        warn(
            "gpt_bounds",
            "gpt header, byte 48",
            format!("the last usable LBA is {last}, the file has {blocks}"),
        );
    }
    match GptHeader::parse(backup.bytes, header.block_size) {
        None => warn(
            "gpt_backup",
            "backup gpt header, last LBA",
            "there is none: the disk was grown, or the file cut".into(),
        ),
        Some(copy) => {
            if let Some(why) = copy.fault(blocks.saturating_sub(1)) {
                warn("gpt_backup", "backup gpt header, last LBA", why);
            } else if copy.disk_guid != header.disk_guid || copy.entries_crc != header.entries_crc {
                let why = "it describes another table than the primary header";
                warn("gpt_backup", "backup gpt header, last LBA", why.into());
            }
        }
    }
    match header.entries_fault(entries) {
        Some(why) => warn("gpt_entries", "gpt partition entries", why),
        None => list_entries(header, file_len, entries, &mut facts),
    }
    facts
}

fn list_entries(header: &GptHeader, file_len: u64, entries: &[u8], facts: &mut Facts) {
    let mut listed = Vec::new();
    for (n, entry) in header.entries(entries) {
        let (start, size) = (entry.start, entry.size);
        if listed.len() == MAX_LISTED {
            break;
        }
        check_bounds(facts, n, start, size, file_len);
        listed.push(json!({
            "index": n, "type": entry.kind, "name": entry.name, "start": start, "size": size,
        }));
    }
    facts.detail("partitions", Value::Array(listed));
}

fn check_bounds(facts: &mut Facts, n: usize, start: u64, size: u64, file_len: u64) {
    if start.saturating_add(size) > file_len {
        facts.find(
            "partition_bounds",
            Severity::Warning,
            format!("partition {n}"),
            format!("takes {size} bytes from {start}, past the end of the file at {file_len}"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::layout::tests::{mbr, table};
    use crate::inspect::{Inspection, Verdict, inspect};
    use crate::{Format, Limits};

    fn judged(file: &[u8]) -> Inspection {
        inspect(&file.to_vec(), &Limits::default()).unwrap()
    }

    fn rules(i: &Inspection) -> Vec<&str> {
        i.findings.iter().map(|f| f.rule).collect()
    }

    const PROTECTIVE: [u8; 16] = [
        0, 0, 2, 0, 0xee, 255, 255, 255, 1, 0, 0, 0, 255, 255, 255, 255,
    ];
    const LINUX: [u8; 16] = [0x80, 0, 2, 0, 0x83, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0];

    #[test]
    fn a_sound_gpt_has_no_findings_with_either_block_size() {
        for block in [512, 4096] {
            let i = judged(&table(block, 64));
            assert_eq!((i.format, i.verdict()), (Format::Raw, Verdict::Safe));
            assert_eq!(rules(&i), [""; 0], "{block}");
            assert_eq!(i.details["partition_table"], "gpt");
            assert_eq!(i.details["sector_size"], block);
            assert_eq!(i.details["partitions"][0]["name"], "root");
            assert_eq!(i.details["partitions"][0]["start"], 8 * block);
        }
    }

    #[test]
    fn flaws_of_a_gpt_are_warnings() {
        let whole = table(512, 64);
        let mut cut = whole.clone();
        cut.truncate(12 * 512);
        assert_eq!(
            rules(&judged(&cut)),
            ["gpt_bounds", "gpt_backup", "partition_bounds"]
        );
        let mut header = whole.clone();
        header[512 + 60] ^= 1;
        assert_eq!(rules(&judged(&header)), ["gpt_header", "gpt_backup"]);
        let mut entries = whole.clone();
        entries[1024 + 60] ^= 1;
        assert_eq!(rules(&judged(&entries)), ["gpt_entries"]);
        let mut gone = whole;
        gone[512..520].fill(0);
        let i = judged(&gone);
        assert_eq!(
            (rules(&i), i.verdict()),
            (vec!["gpt_header"], Verdict::Safe)
        );
    }

    #[test]
    fn a_broken_protective_entry_is_unsafe_unless_the_table_behind_is_sound() {
        let mut file = table(512, 64);
        file[..512].copy_from_slice(&mbr(&[PROTECTIVE, LINUX]));
        let i = judged(&file);
        assert_eq!(
            (rules(&i), i.verdict()),
            (vec!["hybrid_mbr"], Verdict::Safe)
        );
        file[512 + 60] ^= 1;
        assert_eq!(judged(&file).unsafe_finding().unwrap().rule, "mbr");
        let mut alone = mbr(&[LINUX, PROTECTIVE]);
        alone.resize(8192, 0);
        assert_eq!(judged(&alone).unsafe_finding().unwrap().rule, "mbr");
    }

    #[test]
    fn what_is_no_table_is_plain_raw() {
        let mut flag = LINUX;
        flag[0] = 0x33;
        let mut empty = LINUX;
        empty[12..].fill(0);
        let mut fat = mbr(&[LINUX]);
        fat[..14].copy_from_slice(b"\xeb\x3c\x90MSDOS5.0\0\x02\x01");
        fat[14..22].copy_from_slice(&[1, 0, 2, 224, 0, 64, 11, 0xf0]);
        let mut ntfs = mbr(&[LINUX]);
        ntfs[..11].copy_from_slice(b"\xeb\x52\x90NTFS    ");
        for file in [
            mbr(&[flag]),
            mbr(&[empty]),
            fat,
            ntfs,
            mbr(&[LINUX])[..511].to_vec(),
        ] {
            let i = judged(&file);
            assert_eq!((i.format, i.verdict()), (Format::Raw, Verdict::Safe));
            assert!(!i.details.contains_key("partition_table"));
        }
        let i = judged(&mbr(&[LINUX]));
        assert_eq!(i.details["partition_table"], "mbr");
        assert_eq!(i.details["partitions"][0]["type"], "0x83");
        assert_eq!(rules(&i), ["partition_bounds"]);
    }

    #[test]
    fn entries_far_away_are_not_read() {
        let mut file = table(512, 64);
        file[512 + 72..512 + 80].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(rules(&judged(&file)), ["gpt_header", "gpt_entries"]);
        file[512 + 80..512 + 88].fill(0xff);
        assert_eq!(judged(&file).verdict(), Verdict::Safe);
    }
}
