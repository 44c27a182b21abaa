//! Recognising and judging, without I/O.
//!
//! ```text
//!  head ──► first cluster ──► refcount table, L1 table ──► last refcount block, L2 tables,
//!   │            │                                         end of the file
//!   └ not mine   └ refused by the header or a name: done          └ done
//! ```
//! The highest cluster with a refcount and the L2 tables say how long the file must be: a
//! download that broke off is told from one that is whole. The judgement must not depend on how
//! the file is read, and a stream cannot go back: tables are looked at where they lie behind
//! what points to them, as programs write them, or near the head.

use super::bitmaps::Directory;
use super::extensions::{Extensions, backing_name};
use super::layout::{self, Header, incompatible};
use super::plan::{Plan, clipped};
use super::rules::{self, Broken};
use crate::Format;
use crate::bytes::be32;
use crate::inspect::{Facts, Next, Region, Severity, Span};

/// Bytes that hold any header.
pub(super) const HEAD: u64 = 512;
/// Bytes of the first cluster looked at for header extensions and names.
pub(super) const NAMES: u64 = 64 << 10;

/// Recognises qcow2; version 1 is [`qcow1`](crate::qcow1)'s.
#[derive(Default)]
pub struct Inspector(State);

#[derive(Default)]
enum State {
    #[default]
    Head,
    Names(Box<Draft>),
    Roots(Box<Draft>),
    Tables(Box<Draft>, Plan),
    Finished,
}

/// A judgement in the making.
struct Draft {
    header: Header,
    facts: Facts,
    /// The directory of bitmaps, where there is a valid one.
    bitmaps: Option<Directory>,
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Qcow2
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEAD)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match (std::mem::replace(&mut self.0, State::Finished), regions) {
            (State::Head, [head]) => self.head(head.bytes),
            (State::Names(draft), [first]) => self.names(draft, first.bytes),
            (State::Roots(draft), [refcounts, l1]) => self.roots(draft, refcounts, l1),
            (State::Tables(draft, plan), [end, tables @ ..]) => {
                let Draft {
                    header, mut facts, ..
                } = *draft;
                // A `Tail` was among the wants: the length is known.
                plan.check(&header, end.file_len.unwrap_or(end.at), tables, &mut facts);
                Next::Done(facts)
            }
            _ => Next::NotMine,
        }
    }
}

impl Inspector {
    fn head(&mut self, head: &[u8]) -> Next {
        if head.get(..4) != Some(&layout::MAGIC[..]) {
            return Next::NotMine;
        }
        if be32(head, 4) == Some(1) {
            // `qcow1` knows it: the magic number is all they share.
            return Next::NotMine;
        }
        let header = match Header::parse(head) {
            Ok(header) => header,
            Err(error) => {
                let mut facts = Facts::new(Format::Qcow2);
                let rule = if (head.len() as u64) < HEAD {
                    "truncated"
                } else {
                    "header"
                };
                break_rule(&mut facts, (rule, error));
                return Next::Done(facts);
            }
        };
        let wanted = vec![Span::head(header.geometry.cluster_size().min(NAMES))];
        let mut facts = Facts::new(Format::Qcow2);
        describe(&header, &mut facts);
        self.0 = State::Names(Box::new(Draft {
            header,
            facts,
            bitmaps: None,
        }));
        Next::Want(wanted)
    }

    fn names(&mut self, mut draft: Box<Draft>, first: &[u8]) -> Next {
        let Draft {
            header,
            facts,
            bitmaps,
        } = draft.as_mut();
        *bitmaps = names(header, first, facts);
        for broken in rules::features(header) {
            break_rule(facts, broken);
        }
        if let Err(e) = rules::apart(header) {
            break_rule(facts, ("overlap", e));
        }
        if let Some(broken) = rules::encryption(header) {
            break_rule(facts, broken);
        }
        if facts.is_lost() {
            return Next::Done(draft.facts);
        }
        let wanted = vec![
            clipped(
                header.refcount_table_offset.0,
                header.refcount_table_bytes(),
            ),
            clipped(header.l1_offset.0, header.l1_bytes()),
        ];
        self.0 = State::Roots(draft);
        Next::Want(wanted)
    }

    fn roots(&mut self, mut draft: Box<Draft>, refcounts: &Region<'_>, l1: &Region<'_>) -> Next {
        let plan = match Plan::new(&draft.header, refcounts, l1, draft.bitmaps) {
            Ok(plan) => plan,
            Err(broken) => {
                break_rule(&mut draft.facts, broken);
                return Next::Done(draft.facts);
            }
        };
        let mut wanted = vec![Span::Tail(0)];
        wanted.extend(plan.spans(&draft.header));
        self.0 = State::Tables(draft, plan);
        Next::Want(wanted)
    }
}

pub(super) fn break_rule(facts: &mut Facts, (rule, error): Broken) {
    facts.find(rule, Severity::Unsafe, error.place(), error.message());
}

/// What the header alone says.
fn describe(header: &Header, facts: &mut Facts) {
    facts.virtual_size = Some(header.virtual_size);
    facts.detail("version", header.version);
    facts.detail("cluster_size", header.geometry.cluster_size());
    facts.detail("compression_type", header.compression.name());
    facts.detail("refcount_bits", 1 << header.refcount_order);
    facts.detail("extended_l2", header.geometry.is_extended);
    facts.detail("lazy_refcounts", header.has_lazy_refcounts());
    facts.detail("dirty", header.has(incompatible::DIRTY));
    facts.detail("corrupt", header.has(incompatible::CORRUPT));
    facts.detail("snapshots", header.snapshots);
    if header.crypt_method != 0 {
        let name = match header.crypt_method {
            1 => "aes",
            2 => "luks",
            _ => "unknown",
        };
        facts.detail("encryption", name);
    }
    if header.has(incompatible::DIRTY) {
        facts.find(
            "dirty",
            Severity::Warning,
            "header, byte 72",
            "was not closed properly: refcounts may be wrong, the disk's content is not affected",
        );
    }
    if header.snapshots > 0 {
        facts.find(
            "internal_snapshots",
            Severity::Warning,
            "header, byte 60",
            format!(
                "holds {} internal snapshots: a conversion drops them, all else keeps their data",
                header.snapshots
            ),
        );
    }
}

/// What the first cluster says beyond the header: names of other files, above all. Gives the
/// directory of bitmaps.
fn names(header: &Header, first: &[u8], facts: &mut Facts) -> Option<Directory> {
    let extensions = match Extensions::parse(header, first) {
        Ok(extensions) => extensions,
        Err(error) => {
            break_rule(facts, ("header_extension", error));
            Extensions::default()
        }
    };
    if let Some((at, len)) = header.backing_file {
        let name = backing_name(header, first);
        let shown = name.as_ref().map_or_else(
            || format!("{len} bytes of name at {at:#x}"),
            |n| format!("{n:?}"),
        );
        facts.detail("backing_file", name.unwrap_or_default());
        if let Some(format) = &extensions.backing_format {
            facts.detail("backing_file_format", format.as_str());
        }
        facts.find(
            "backing_file",
            Severity::Unsafe,
            "header, byte 8",
            format!("depends on another file, {shown}: flatten it before uploading"),
        );
    }
    if header.has(incompatible::DATA_FILE) {
        let name = extensions.data_file.as_deref().unwrap_or_default();
        facts.detail("data_file", name);
        facts.find(
            "data_file",
            Severity::Unsafe,
            "header, byte 72",
            format!("keeps its data in another file, {name:?}: convert it to one file"),
        );
    } else if extensions.data_file.is_some() {
        facts.find(
            "stray_data_file",
            Severity::Warning,
            "header, byte 72",
            "a header extension names an external data file, but bit 2 says that there is none",
        );
    }
    if extensions.encryption_header.is_some() && header.crypt_method == 0 {
        facts.find(
            "stray_encryption_header",
            Severity::Warning,
            "header, byte 32",
            "crypt_method is 0, but a header extension points to an encryption header",
        );
    }
    extensions.bitmaps.filter(|_| header.has_bitmaps())
}
