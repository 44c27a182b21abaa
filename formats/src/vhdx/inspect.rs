use std::borrow::Cow;
use std::ops::Range;

use super::layout::{Header, SECTION_LEN, SIGNATURE, creator};
use super::log;
use super::metadata::{LOOKED_AT, Metadata};
use super::reader::Bat;
use super::region::Regions;
use super::replay::Replay;
use crate::blocks::check_blocks;
use crate::inspect::{Facts, MAX_SPAN, Next, Region, Severity, Span};
use crate::{Error, Format};

/// Recognises vhdx, by the file identifier.
#[derive(Default)]
pub struct Inspector {
    asked: Vec<Piece>,
    section: Option<Vec<u8>>,
    log: Option<Vec<u8>>,
    metadata: Option<Held>,
    bat: Option<Held>,
    file_len: Option<u64>,
}

/// The first bytes of a region of the file, and where they stand.
struct Held {
    at: u64,
    bytes: Vec<u8>,
}

/// What the regions asked for last are.
#[derive(Clone, Copy)]
enum Piece {
    Signature,
    Section,
    Log,
    Metadata,
    Bat,
    End,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Vhdx
    }

    fn start(&mut self) -> Next {
        self.ask(&[(Piece::Signature, Span::head(SIGNATURE.len() as u64))])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        for (piece, region) in self.asked.iter().zip(regions) {
            let bytes = region.bytes.to_vec();
            self.file_len = self.file_len.or(region.file_len);
            match piece {
                Piece::Signature if bytes != SIGNATURE => return Next::NotMine,
                Piece::Signature | Piece::End => {}
                Piece::Section => self.section = Some(bytes),
                Piece::Log => self.log = Some(bytes),
                Piece::Metadata => {
                    self.metadata = Some(Held {
                        at: region.at,
                        bytes,
                    });
                }
                Piece::Bat => {
                    self.bat = Some(Held {
                        at: region.at,
                        bytes,
                    });
                }
            }
        }
        let mut facts = Facts::new(Format::Vhdx);
        match self.judge(&mut facts) {
            Ok(Some(wanted)) => self.ask(&wanted),
            Ok(None) => Next::Done(facts),
            Err((rule, at, e)) => {
                facts.find_at(rule, Severity::Unsafe, (e.place(), at), e.message());
                Next::Done(facts)
            }
        }
    }
}

/// Where the first of the headers and of the region tables stands.
const HEADER: u64 = 64 << 10;
const REGION_TABLE: u64 = 192 << 10;

/// A failed rule, and the byte that the structure at fault begins at.
type Broken = (&'static str, u64, Error);
/// What is wanted next; `None` when all is told.
type Wanted = Option<Vec<(Piece, Span)>>;

/// Names the rule that an error in the structure at byte `at` breaks.
fn breaks(rule: &'static str, at: u64) -> impl Fn(Error) -> Broken {
    move |e| (rule, at, e)
}

impl Inspector {
    fn ask(&mut self, wanted: &[(Piece, Span)]) -> Next {
        self.asked = wanted.iter().map(|(piece, _)| *piece).collect();
        Next::Want(wanted.iter().map(|(_, span)| *span).collect())
    }

    /// What the pieces at hand tell, from the start.
    fn judge(&self, facts: &mut Facts) -> Result<Wanted, Broken> {
        let Some(section) = &self.section else {
            let span = Span::head(SECTION_LEN as u64);
            return Ok(Some(vec![(Piece::Section, span)]));
        };
        facts.detail("creator", creator(section));
        let (header, doubt) = Header::current(section).map_err(breaks("header", HEADER))?;
        if let Some(doubt) = doubt {
            facts.find_at("header_copy", Severity::Warning, ("header", HEADER), doubt);
        }
        facts.detail("log_length", header.log_length);
        let mut section = Cow::from(section);
        let mut replay = None;
        if header.is_dirty() {
            let len = u64::from(header.log_length);
            if len > MAX_SPAN {
                let message = format!(
                    "has {len} bytes not played back, more than is looked at here ({MAX_SPAN}): attach the disk once to clean it"
                );
                let place = ("log", header.log_offset);
                facts.find_at("dirty_log", Severity::Unsafe, place, message);
                return Ok(None);
            }
            let Some(log) = &self.log else {
                let span = Span::At {
                    at: header.log_offset,
                    len,
                };
                let mut wanted = vec![(Piece::Log, span)];
                // The log may move the regions, but never does: a stream does not go back.
                if let Ok((regions, _)) = Regions::parse(&section, &header) {
                    wanted.extend(region_spans(&regions));
                }
                return Ok(Some(wanted));
            };
            let played = log::replay(log, header.log_guid, self.file_len)
                .map_err(breaks("damaged_log", header.log_offset))?;
            played.apply(0, section.to_mut());
            replay = Some(played);
            facts.find_at(
                "dirty_log",
                Severity::Warning,
                ("log", header.log_offset),
                "was not played back: the disk was not detached cleanly (it is played back in memory here)",
            );
        }
        let (regions, doubt) =
            Regions::parse(&section, &header).map_err(breaks("region_table", REGION_TABLE))?;
        if let Some(doubt) = doubt {
            facts.find_at(
                "region_table_copy",
                Severity::Warning,
                ("region table", REGION_TABLE),
                doubt,
            );
        }
        let (Some(metadata), Some(bat)) = (
            held(&self.metadata, regions.metadata.start, &replay),
            held(&self.bat, regions.bat.start, &replay),
        ) else {
            return Ok(Some(region_spans(&regions).into()));
        };
        let metadata =
            Metadata::parse(&metadata).map_err(breaks("metadata", regions.metadata.start))?;
        describe(&metadata, facts);
        if let Some(message) = metadata.parent_message() {
            let place = ("metadata", regions.metadata.start);
            facts.find_at("parent", Severity::Unsafe, place, message);
        }
        let table = Bat::new(&metadata, &regions).map_err(breaks("bat", regions.bat.start))?;
        let Some(file_len) = self.file_len else {
            return Ok(Some(vec![(Piece::End, Span::Tail(0))]));
        };
        let file_len = replay.map_or(file_len, |replay| replay.file_len(file_len));
        let end = regions.bat.start.saturating_add(table.table_len());
        if end > file_len {
            facts.find_at(
                "truncated",
                Severity::Unsafe,
                ("BAT", regions.bat.start),
                format!("ends at {end:#x}, but the file ends at {file_len:#x}"),
            );
            return Ok(None);
        }
        check_blocks(
            &table,
            &bat,
            u64::from(metadata.block_size),
            metadata.virtual_disk_size,
            file_len,
        )
        .map_err(breaks("blocks", regions.bat.start))?;
        Ok(None)
    }
}

/// The bytes of `piece`, should it stand at byte `at`, with the writes of the log made.
fn held<'a>(piece: &'a Option<Held>, at: u64, replay: &Option<Replay>) -> Option<Cow<'a, [u8]>> {
    let held = piece.as_ref().filter(|held| held.at == at)?;
    let mut bytes = Cow::from(&held.bytes);
    if let Some(replay) = replay {
        replay.apply(at, bytes.to_mut());
    }
    Some(bytes)
}

/// What is looked at of metadata and BAT. Both at once: either may stand first, and a stream does
/// not go back.
fn region_spans(regions: &Regions) -> [(Piece, Span); 2] {
    let first = |region: &Range<u64>, most: u64| Span::At {
        at: region.start,
        len: (region.end - region.start).min(most),
    };
    [
        (Piece::Metadata, first(&regions.metadata, LOOKED_AT)),
        (Piece::Bat, first(&regions.bat, MAX_SPAN)),
    ]
}

fn describe(metadata: &Metadata, facts: &mut Facts) {
    facts.virtual_size = Some(metadata.virtual_disk_size);
    facts.detail("block_size", metadata.block_size);
    facts.detail("logical_sector_size", metadata.logical_sector_size);
    facts.detail("physical_sector_size", metadata.physical_sector_size);
    facts.detail("leave_block_allocated", metadata.leave_block_allocated);
    facts.detail("has_parent", metadata.parent.is_some());
    facts.detail("virtual_disk_id", metadata.virtual_disk_id.to_string());
    for (key, value) in metadata.parent.iter().flat_map(|parent| &parent.pairs) {
        if matches!(
            key.as_str(),
            "relative_path" | "absolute_win32_path" | "volume_path" | "parent_linkage"
        ) {
            facts.detail(key, value.as_str());
        }
    }
}
