//! What lies in a raw image: a kernel, a ramdisk, a file system, a volume; and what lies in the
//! partitions of a disk. Facts for people and scripts, never a format: the image stays raw.
//!
//! ```text
//!  first 70 KiB ──► kernel · ramdisk · file system · volume · compressed
//!        └─ partition table ──► the beginning of each partition ──► file system · volume · image
//! ```
//! The fact is an object `content` with `kind` (`kernel`, `ramdisk`, `filesystem`, `swap`,
//! `volume`, `encrypted`, `image`, `program`, `firmware`, `compressed`), `type` (`bzImage`,
//! `cpio`, `ext4`, …) and what that type says of itself: `label`, `uuid`, `size` in bytes,
//! `version`, `architecture`. Partitions have one each, in the list of the partition table.
//!
//! Glance's aki, ari and ami are such raw images: a kernel, a ramdisk, a file system.

mod filesystem;
mod kernel;
mod packed;
mod ramdisk;
mod view;
mod volume;

use serde_json::{Map, Value, json};

use crate::inspect::{Facts, Next, Region, Severity, Span, is_ahead};
use crate::{Format, gpt};

use ramdisk::Walk;
use view::View;

/// Bytes of the head looked at: up to the superblocks at 64 KiB.
const HEAD: u64 = 70 << 10;
/// What is looked at in a partition: up to a ZFS label's list, jfs, and all at 64 KiB.
const PEEKS: [(u64, u64); 3] = [(0, 18 << 10), (32 << 10, 512), ((64 << 10) - 16, 2 << 10)];
/// Partitions looked into.
const MAX_PARTITIONS: usize = 32;
/// Bytes looked at where a walked archive goes on.
const WINDOW: u64 = 8 << 10;
/// How often that is.
const MAX_WINDOWS: u32 = 4;

/// What was recognised.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    kind: &'static str,
    facts: Map<String, Value>,
}

impl Content {
    fn new(kind: &'static str, type_name: &'static str) -> Self {
        let facts = Map::from_iter([
            ("kind".to_owned(), kind.into()),
            ("type".to_owned(), type_name.into()),
        ]);
        Self { kind, facts }
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(key.to_owned(), value.into());
        self
    }

    fn maybe(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Tells that `place` is encrypted, where it is.
    fn find_encrypted(&self, place: &str, facts: &mut Facts) {
        if self.kind == "encrypted" {
            let message = "is encrypted: what it holds cannot be judged";
            facts.find("encrypted", Severity::Note, place, message);
        }
    }
}

/// Recognises what a whole file holds that is not compressed.
fn inner(v: View<'_>) -> Option<Content> {
    volume::recognise(v)
        .or_else(|| kernel::recognise(v))
        .or_else(|| filesystem::recognise(v))
        .or_else(|| Walk::start(v.rest(0)?).map(|walk| archive(&walk)))
}

/// A ramdisk, as far as it was walked.
fn archive(walk: &Walk) -> Content {
    let content = Content::new("ramdisk", "cpio")
        .with("format", walk.format)
        .maybe("compression", walk.next);
    if walk.has_microcode {
        content.with("early_microcode", true)
    } else {
        content
    }
}

/// Describes what a raw image holds. It never says "not mine": nothing rules raw out.
#[derive(Default)]
pub(crate) struct Inspector {
    state: State,
    content: Option<Content>,
    /// The compression around it, where that is not undone for whoever wants a disk.
    packed: Option<&'static str>,
}

#[derive(Default)]
enum State {
    #[default]
    Head,
    /// The windows of an archive wanted so far, and the partitions that follow.
    Archive(Walk, u32),
    /// Partitions by their numbers, [`PEEKS`] regions each.
    Partitions(Vec<gpt::Partition>),
}

impl crate::inspect::Inspector for Inspector {
    fn format(&self) -> Format {
        Format::Raw
    }

    fn start(&mut self) -> Next {
        Next::Want(vec![Span::head(HEAD)])
    }

    fn regions(&mut self, regions: &[Region<'_>]) -> Next {
        match (std::mem::take(&mut self.state), regions) {
            (State::Head, [head]) => self.head(head.bytes),
            (State::Archive(mut walk, windows), [window]) => {
                walk.go_on(window.bytes);
                self.walk_on(walk, windows, window.at + WINDOW)
            }
            (State::Partitions(partitions), regions) => self.partitions(&partitions, regions),
            _ => Next::Done(self.facts()),
        }
    }
}

impl Inspector {
    fn head(&mut self, head: &[u8]) -> Next {
        let v = View(&[(0, head)]);
        if let Some(mut walk) = Walk::start(head) {
            walk.go_on(head);
            return self.walk_on(walk, 0, HEAD);
        }
        self.content = inner(v);
        if self.content.is_none() {
            self.content = packed::recognise(v);
            self.packed = packed::unread(head);
        }
        let is_seen = |partition: &gpt::Partition| {
            PEEKS.iter().all(|(skip, len)| {
                let at = partition.start.checked_add(*skip);
                at.is_some_and(|at| is_ahead(at, *len, HEAD))
            })
        };
        let mut partitions = gpt::partitions(head);
        partitions.retain(is_seen);
        partitions.truncate(MAX_PARTITIONS);
        if partitions.is_empty() {
            return Next::Done(self.facts());
        }
        let spans = partitions.iter().flat_map(|partition| {
            PEEKS.map(|(skip, len)| Span::At {
                at: partition.start + skip,
                // A small partition ends where the next begins.
                len: len.min(partition.size.saturating_sub(skip)),
            })
        });
        let next = Next::Want(spans.collect());
        self.state = State::Partitions(partitions);
        next
    }

    fn walk_on(&mut self, walk: Walk, windows: u32, before: u64) -> Next {
        if !walk.is_over && windows < MAX_WINDOWS && is_ahead(walk.at, WINDOW, before) {
            self.state = State::Archive(walk, windows + 1);
            return Next::Want(vec![Span::At {
                at: walk.at,
                len: WINDOW,
            }]);
        }
        self.content = Some(archive(&walk));
        Next::Done(self.facts())
    }

    fn partitions(&mut self, partitions: &[gpt::Partition], regions: &[Region<'_>]) -> Next {
        let mut facts = self.facts();
        let mut listed = Vec::new();
        for (partition, regions) in partitions.iter().zip(regions.chunks(PEEKS.len())) {
            let pieces: Vec<_> = PEEKS
                .iter()
                .zip(regions)
                .map(|((skip, _), region)| (*skip, region.bytes))
                .collect();
            let v = View(&pieces);
            if let Some(content) = volume::recognise(v).or_else(|| filesystem::recognise(v)) {
                content.find_encrypted(&format!("partition {}", partition.index), &mut facts);
                listed.push(json!({"index": partition.index, "content": content.facts}));
            }
        }
        facts.detail("partitions", listed);
        Next::Done(facts)
    }

    fn facts(&self) -> Facts {
        let mut facts = Facts::new(Format::Raw);
        if let Some(content) = &self.content {
            content.find_encrypted("byte 0", &mut facts);
            facts.detail("content", content.facts.clone());
            if let Some(compression) = self.packed
                && !matches!(content.kind, "kernel" | "ramdisk")
            {
                facts.find(
                    "compressed_content",
                    Severity::Unsafe,
                    "byte 0",
                    format!(
                        "is compressed by {compression}, which is not read here: no disk, unless \
                         decompressed; a ramdisk or kernel may be so"
                    ),
                );
            }
        }
        facts
    }
}

/// Adds what was found in a raw image to the details it has, those of a partition table.
pub(crate) fn merge(details: &mut Map<String, Value>, content: Map<String, Value>) {
    for (key, value) in content {
        match details.get_mut(&key) {
            Some(table) => merge_partitions(table, value),
            None if key == "partitions" => {}
            None => {
                details.insert(key, value);
            }
        }
    }
}

/// Puts each content into the entry of its partition.
fn merge_partitions(table: &mut Value, contents: Value) {
    let entries = table.as_array_mut().into_iter().flatten();
    let Value::Array(mut contents) = contents else {
        return;
    };
    for entry in entries {
        let found = contents.iter_mut().find(|c| c["index"] == entry["index"]);
        if let (Some(found), Some(entry)) = (found, entry.as_object_mut()) {
            entry.insert("content".to_owned(), found["content"].take());
        }
    }
}
