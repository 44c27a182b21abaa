//! Recognises vmdk in its shapes and judges what the header, descriptor and footer say.

use serde_json::{Map, Value, json};

use super::descriptor::{self, Class, Descriptor, Fault, MAX_SPLIT_DESCRIPTOR};
use super::layout::{GRAIN_MARKER_LEN, HEADER_LEN, Header, SECTOR, SPARSE_MAGIC, STREAM_END};
use super::reach::Reach;
use super::{cowd, rules, sesparse};
use crate::bytes::le32;
use crate::inspect::{Facts, Next, Region, Severity, Span};
use crate::{Format, Limits};

/// How every descriptor begins.
const DESCRIPTOR_BEGINS: &[u8] = b"# Disk DescriptorFile";
/// Extents listed in the details.
const SHOWN_EXTENTS: usize = 64;
/// Tables are looked at when they lie before this byte, which every driver still remembers: all
/// of them up to some 4 GiB of disk. Further ones are met when the disk is read.
const TABLES_END: u64 = 512 << 10;

/// Recognises vmdk: by the sparse header, by the text of a descriptor, and by the headers of
/// the ESX extent files, which are refused.
#[derive(Default)]
pub struct Inspector {
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Head,
    /// Text; whether it is a descriptor is not known yet.
    Text,
    /// Wants the embedded descriptor.
    Embedded(Box<Header>, Facts),
    /// Wants the first tables.
    Tables(Box<Header>, Facts),
    /// Wants the beginning of the last grain they name, and the end of the file.
    End(Box<Header>, Facts, Reach),
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Vmdk
    }

    fn start(&mut self) -> Next {
        // Of a file whose header is damaged the descriptor may be left.
        Next::Want(vec![Span::head(2 * HEADER_LEN as u64)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        let Some(region) = regions.first() else {
            return Next::NotMine;
        };
        match std::mem::take(&mut self.state) {
            State::Head => self.head(region.bytes),
            State::Text => text(region.bytes),
            State::Embedded(header, facts) => self.embedded(header, facts, region.bytes),
            State::Tables(header, facts) => self.tables(header, facts, region),
            State::End(header, facts, reach) => match regions {
                [last, tail] => end(&header, facts, &reach, last, tail),
                _ => Next::NotMine,
            },
        }
    }
}

impl Inspector {
    fn head(&mut self, bytes: &[u8]) -> Next {
        let (head, second) = bytes.split_at(bytes.len().min(HEADER_LEN));
        if head.starts_with(SPARSE_MAGIC) {
            return self.sparse(head);
        }
        if cowd::matches(head) {
            return Next::Done(foreign(
                "vmfsSparse",
                "COWD, an extent file of a vmfsSparse disk",
            ));
        }
        if sesparse::matches(head) {
            let what = "seSparse, an extent file of a seSparse disk";
            return Next::Done(foreign("seSparse", what));
        }
        if descriptor::may_be_descriptor(head) {
            self.state = State::Text;
            return Next::Want(vec![Span::head(MAX_SPLIT_DESCRIPTOR as u64)]);
        }
        if second.starts_with(DESCRIPTOR_BEGINS) {
            let mut facts = Facts::new(Format::Vmdk);
            let message = format!(
                "magic at byte 0 is not KDMV, but a descriptor follows at byte {HEADER_LEN}: the \
                 header is damaged"
            );
            facts.find_at("header", Severity::Unsafe, ("header", 0), message);
            return Next::Done(facts);
        }
        Next::NotMine
    }

    fn sparse(&mut self, head: &[u8]) -> Next {
        let mut facts = Facts::new(Format::Vmdk);
        let version = le32(head, 4);
        // The judge applies the caller's limit.
        let limits = Limits {
            max_virtual_size: u64::MAX,
            ..Limits::default()
        };
        let header = match Header::parse(head, "header", &limits) {
            Ok(header) if head.len() >= HEADER_LEN => header,
            Ok(_) => {
                let message = format!("the file ends inside it, after {} bytes", head.len());
                let place = ("header", head.len() as u64);
                facts.find_at("truncated", Severity::Unsafe, place, message);
                return Next::Done(facts);
            }
            Err(e) => {
                let rule = match version {
                    None => "truncated",
                    Some(1..=3) => "header",
                    Some(_) => "version",
                };
                facts.find_at(rule, Severity::Unsafe, ("header", 0), e.message());
                return Next::Done(facts);
            }
        };
        header_facts(&header, &mut facts);
        let message = match header.descriptor("header") {
            Ok(Some((start, len))) if start == SECTOR => {
                self.state = State::Embedded(Box::new(header), facts);
                return Next::Want(vec![Span::At { at: start, len }]);
            }
            Ok(Some((start, _))) => {
                format!("descriptorOffset is byte {start:#x}, allowed {SECTOR}")
            }
            Ok(None) => "has no descriptor: this is one extent of a disk in several files; upload \
                         the disk as monolithicSparse or streamOptimized"
                .into(),
            Err(e) => e.message().to_owned(),
        };
        facts.find_at("descriptor", Severity::Unsafe, ("header", 28), message);
        Next::Done(facts)
    }

    fn embedded(&mut self, header: Box<Header>, mut facts: Facts, bytes: &[u8]) -> Next {
        let wanted = header.descriptor_sectors.saturating_mul(SECTOR);
        if (bytes.len() as u64) < wanted {
            let message = format!("the file ends inside it, after {} bytes", bytes.len());
            facts.find_at("truncated", Severity::Unsafe, EMBEDDED, message);
            return Next::Done(facts);
        }
        let text = descriptor::text(bytes);
        if text.len() == bytes.len() && !text.ends_with(b"\n") {
            let message = "its text is not terminated: it fills its sectors without a newline";
            facts.find_at("descriptor", Severity::Unsafe, EMBEDDED, message);
        }
        let (descriptor, faults) = Descriptor::read(bytes);
        descriptor_facts(&descriptor, &mut facts);
        blame(&mut facts, EMBEDDED, faults);
        blame(&mut facts, EMBEDDED, parent(&descriptor));
        blame(&mut facts, EMBEDDED, rules::embedded(&header, &descriptor));

        let is_stream = descriptor.create_type.name == "streamOptimized";
        if is_stream != header.is_compressed() && facts.findings.is_empty() {
            let message = format!(
                "createType is {}, but the header's flags say that grains are {}compressed",
                descriptor.create_type.name,
                if is_stream { "not " } else { "" }
            );
            facts.find_at("create_type", Severity::Warning, EMBEDDED, message);
        }
        if !descriptor.extents.is_empty()
            && descriptor
                .sectors()
                .is_some_and(|n| n < header.capacity_sectors)
        {
            let message = format!(
                "its extent is {} sectors, the header rounds up to {}",
                descriptor.sectors().unwrap_or(0),
                header.capacity_sectors
            );
            facts.find_at("capacity", Severity::Note, EMBEDDED, message);
        }
        if let Some(name) = &descriptor.change_track_path {
            let message = format!("changeTrackPath names {name:?}, which is not looked at");
            facts.find_at("change_track_path", Severity::Warning, EMBEDDED, message);
        }
        if facts.is_lost() {
            return Next::Done(facts);
        }
        let at = header
            .directory_sector
            .map_or(0, |n| n.saturating_mul(SECTOR));
        let overhead = header.overhead_sectors.saturating_mul(SECTOR);
        let len = match at {
            0 => 0,
            at => TABLES_END.min(overhead).saturating_sub(at),
        };
        self.state = State::Tables(header, facts);
        Next::Want(vec![Span::At { at, len }])
    }

    fn tables(&mut self, header: Box<Header>, facts: Facts, region: &Region<'_>) -> Next {
        let reach = Reach::of(&header, region);
        let (at, len) = match &reach.grain {
            Some((_, sector)) if header.is_compressed() => (sector * SECTOR, GRAIN_MARKER_LEN),
            _ => (0, 0),
        };
        let len = len as u64;
        let tail = if header.is_compressed() {
            STREAM_END
        } else {
            0
        };
        self.state = State::End(header, facts, reach);
        Next::Want(vec![Span::At { at, len }, Span::Tail(tail)])
    }
}

/// A delta link is not complete in itself.
fn parent(descriptor: &Descriptor) -> Option<Fault> {
    descriptor.parent().map(|message| Fault {
        rule: "parent",
        message,
    })
}

/// A file that is text from its beginning.
fn text(bytes: &[u8]) -> Next {
    if !descriptor::is_descriptor(bytes) {
        return Next::NotMine;
    }
    let mut facts = Facts::new(Format::Vmdk);
    let (descriptor, faults) = Descriptor::read(bytes);
    facts.virtual_size = descriptor
        .sectors()
        .and_then(|sectors| sectors.checked_mul(SECTOR))
        .filter(|_| !descriptor.extents.is_empty());
    descriptor_facts(&descriptor, &mut facts);
    blame(&mut facts, ALONE, faults);
    let elsewhere = Fault {
        rule: match descriptor.create_type.class {
            Class::ExtentFiles => "extent_file",
            _ => "create_type",
        },
        message: rules::why_not_alone(&descriptor),
    };
    blame(&mut facts, ALONE, vec![elsewhere]);
    blame(&mut facts, ALONE, parent(&descriptor));
    let rest = rules::split(&descriptor, false);
    blame(
        &mut facts,
        ALONE,
        rest.into_iter().filter(|f| f.rule != "create_type"),
    );
    Next::Done(facts)
}

/// The last step: what only the end of the file tells.
fn end(
    header: &Header,
    mut facts: Facts,
    reach: &Reach,
    last: &Region<'_>,
    region: &Region<'_>,
) -> Next {
    let limits = Limits {
        max_virtual_size: u64::MAX,
        ..Limits::default()
    };
    let file_len = region
        .file_len
        .unwrap_or(region.at + region.bytes.len() as u64);
    let mut header = header.clone();
    if header.directory_sector.is_none() {
        match header.parse_stream_end(region.bytes, &limits) {
            Ok(footer) => header.directory_sector = footer.directory_sector,
            Err(e) => {
                let place = (e.place(), region.at);
                facts.find_at("footer", Severity::Unsafe, place, e.message());
                return Next::Done(facts);
            }
        }
    }
    let entries = header.directory_entries();
    let directory = header.directory_sector.unwrap_or(0);
    let ends = |sector: u64| {
        sector
            .checked_mul(SECTOR)
            .and_then(|at| at.checked_add(entries.saturating_mul(4)))
    };
    if ends(directory).is_none_or(|end| end > file_len) {
        let message = format!(
            "is {entries} entries at sector {directory:#x}, past the end of the file at \
             {file_len:#x}: it was cut short"
        );
        let place = ("grain directory", directory.saturating_mul(SECTOR));
        facts.find_at("truncated", Severity::Unsafe, place, message);
    } else if header.overhead_sectors.saturating_mul(SECTOR) > file_len {
        let message = format!(
            "overHead is {} sectors at byte 64, past the end of the file at {file_len:#x}: it \
             was cut short",
            header.overhead_sectors
        );
        facts.find_at("truncated", Severity::Unsafe, ("header", 64), message);
    } else if let Some(message) = reach.beyond(&header, last, file_len) {
        let place = ("grain tables", directory.saturating_mul(SECTOR));
        facts.find_at("truncated", Severity::Unsafe, place, message);
    } else if let Some(message) = open_end(&header, region) {
        facts.find_at("footer", Severity::Unsafe, ("end", file_len), message);
    } else if !file_len.is_multiple_of(SECTOR) {
        let message = format!("is {file_len} bytes, not whole sectors: it may have been cut short");
        facts.find_at("truncated", Severity::Warning, ("end", file_len), message);
    }
    if header.has_redundant_directory()
        && ends(header.redundant_directory_sector).is_none_or(|end| end > file_len)
    {
        let message = format!(
            "rgdOffset is sector {:#x} at byte 48, past the end of the file at {file_len:#x}",
            header.redundant_directory_sector
        );
        let place = ("header", 48);
        facts.find_at("redundant_directory", Severity::Warning, place, message);
    }
    Next::Done(facts)
}

/// Why the end of a stream is missing: one whose directory stands behind its grains, where its
/// writer had to come back to the header, still ends with a marker.
fn open_end(header: &Header, region: &Region<'_>) -> Option<String> {
    let directory = header.directory_sector?;
    let is_behind = header.is_compressed() && directory >= header.overhead_sectors;
    let last = region.bytes.len().checked_sub(HEADER_LEN)?;
    let is_ended = crate::bytes::is_zero(&region.bytes[last..]);
    (is_behind && !is_ended)
        .then(|| "the last sector is no end-of-stream marker: it was cut short".into())
}

/// An extent file of ESX, known by its magic.
fn foreign(create_type: &str, what: &str) -> Facts {
    let mut facts = Facts::new(Format::Vmdk);
    facts.detail("create_type", create_type);
    let message = format!("is {what}; upload the disk as monolithicSparse or streamOptimized");
    facts.find_at("create_type", Severity::Unsafe, ("header", 0), message);
    facts
}

/// The descriptor in a sparse file, and one that is the file.
const EMBEDDED: (&str, u64) = ("descriptor", SECTOR);
const ALONE: (&str, u64) = ("descriptor", 0);

/// Records faults. Where the text is at fault already, what follows from it is not news.
fn blame(facts: &mut Facts, place: (&str, u64), faults: impl IntoIterator<Item = Fault>) {
    let known: Vec<_> = facts.findings.iter().map(|f| f.rule).collect();
    for fault in faults {
        if !known.contains(&fault.rule) {
            facts.find_at(fault.rule, Severity::Unsafe, place, fault.message);
        }
    }
}

fn header_facts(header: &Header, facts: &mut Facts) {
    facts.virtual_size = Some(header.capacity());
    facts.detail("version", header.version);
    facts.detail("capacity", header.capacity());
    facts.detail("grain_size", header.grain_size());
    facts.detail("compressed", header.is_compressed());
    if header.is_unclean {
        let message = "uncleanShutdown is set at byte 72: the writer did not finish";
        facts.find_at(
            "unclean_shutdown",
            Severity::Warning,
            ("header", 72),
            message,
        );
    }
    if header.lost_newlines() {
        let message = format!(
            "newline characters are {:02x?} at byte 73: a transfer in text mode may have changed \
             the file",
            header.newlines
        );
        facts.find_at("newlines", Severity::Warning, ("header", 73), message);
    }
}

fn descriptor_facts(descriptor: &Descriptor, facts: &mut Facts) {
    if !descriptor.create_type.name.is_empty() {
        facts.detail("create_type", descriptor.create_type.name.as_str());
    }
    if let Some(cid) = descriptor.cid {
        facts.detail("cid", format!("{cid:08x}"));
    }
    if let Some(cid) = descriptor.parent_cid {
        facts.detail("parent_cid", format!("{cid:08x}"));
    }
    if let Some(hint) = &descriptor.parent_file_name_hint {
        facts.detail("parent_file_name_hint", descriptor::shown(hint));
    }
    if let Some(adapter_type) = &descriptor.adapter_type {
        facts.detail("adapter_type", adapter_type.as_str());
    }
    if let Some(version) = &descriptor.hardware_version {
        facts.detail("hardware_version", version.as_str());
    }
    let extents: Vec<Value> = descriptor
        .extents
        .iter()
        .take(SHOWN_EXTENTS)
        .map(|extent| {
            let mut shown = Map::new();
            shown.insert("access".into(), extent.access.into());
            shown.insert("size".into(), json!(extent.sectors.saturating_mul(SECTOR)));
            shown.insert("type".into(), extent.kind.name().into());
            if let Some(name) = &extent.name {
                shown.insert("file".into(), name.as_str().into());
            }
            Value::Object(shown)
        })
        .collect();
    if !extents.is_empty() {
        facts.detail("extents", extents);
    }
}
