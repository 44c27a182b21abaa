//! Every image of the corpus: recognised, judged, opened and read as its manifest says.

mod support;

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock};

use formats::codec::stream::Compression;
use formats::container::{self, Context, Ova, inflate_into};
use formats::inspect::{Inspection, Verdict};
use formats::{
    Disk, Error, Extent, Format, GuestOffset, HostOffset, Limits, OpenOptions, Result, Source,
    guest_len, open, read_up_to,
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use support::{Corpus, Entry, GroupResolver, Random, hex};

/// Where we do not do what the manifest expects, and why. An entry that starts to pass fails the
/// test, so that this list never grows stale.
const KNOWN_MISSES: &[(&str, &str)] = &[(
    "raw/grub-rescue-floppy.img.zst",
    "format: the floppy is a bootable ISO 9660 disc, which qemu-img does not know; same bytes",
)];

/// Above this size the content is compared by its blocks that are not zero.
const WHOLE: u64 = 2 << 30;
/// Bytes read at once.
const CHUNK: u64 = 1 << 20;

#[test]
fn every_image_of_the_corpus_is_what_its_manifest_says() {
    let Some(corpus) = Corpus::open().map(Arc::new) else {
        return;
    };
    let outcomes: Vec<_> = corpus
        .entries
        .par_iter()
        .map(|entry| {
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&corpus, entry)));
            (entry, outcome.unwrap_or_else(|_| Err("panicked".into())))
        })
        .collect();

    let mut table: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let mut misses = Vec::new();
    for (entry, outcome) in &outcomes {
        let (right, total) = table.entry(&entry.format).or_default();
        *total += 1;
        *right += usize::from(outcome.is_ok());
        let known = KNOWN_MISSES.iter().any(|(path, _)| *path == entry.path);
        match (outcome, known) {
            (Ok(()), false) | (Err(_), true) => {}
            (Ok(()), true) => misses.push(format!("{}: passes, but is a known miss", entry.path)),
            (Err(why), false) => misses.push(format!("{} ({}): {why}", entry.path, entry.expect)),
        }
    }
    for (format, (right, total)) in &table {
        eprintln!("{format:>14}  {right:>3} of {total:>3}");
    }
    for (path, why) in KNOWN_MISSES {
        eprintln!("known miss: {path}: {why}");
    }
    assert!(
        misses.is_empty(),
        "{} misses:\n{}",
        misses.len(),
        misses.join("\n")
    );
}

type Check = std::result::Result<(), String>;

fn check(corpus: &Arc<Corpus>, entry: &Entry) -> Check {
    let source = corpus.source(entry);
    let judged =
        container::describe(&source, &Limits::default()).map_err(|e| format!("inspecting: {e}"))?;
    let options = OpenOptions {
        resolver: Arc::new(GroupResolver::new(corpus.clone(), entry)),
        ..OpenOptions::default()
    };
    let opened = open_inside(source, &judged, &options);
    match entry.expect.as_str() {
        "ok" => {
            check_facts(entry, &judged)?;
            is_safe(&judged, entry)?;
            let disk = opened.map_err(|e| format!("opening: {e}"))?;
            check_content(entry, disk.as_ref())
        }
        "inspect" => check_facts(entry, &judged),
        "ok-or-refuse" => match opened {
            Ok(disk) => check_content(entry, disk.as_ref()),
            Err(e) if is_refusal(&e) => Ok(()),
            Err(e) => Err(format!("opening: {e}")),
        },
        "reject" | "reject-or-raw" => {
            let is_raw = judged.format == Format::Raw && entry.expect == "reject-or-raw";
            if is_raw || judged.verdict() == Verdict::Unsafe || opened.is_err() {
                return Ok(());
            }
            Err(format!("is accepted as {}", judged.format))
        }
        _ => {
            // Whatever it is: no panic, and no end without an answer.
            if let Ok(disk) = opened {
                let _ = touch(disk.as_ref());
            }
            Ok(())
        }
    }
}

/// Opens the disk in an image, in what is compressed around it, or the first of an archive.
fn open_inside(
    source: Arc<dyn Source>,
    judged: &Inspection,
    options: &OpenOptions,
) -> Result<Arc<dyn Disk>> {
    let cx = Context::new(&options.limits);
    let head = read_up_to(source.as_ref(), HostOffset::ZERO, 4096)?;
    if judged.format == Format::Ova {
        return Ova::open(&source)?.open_disk(0, &cx);
    }
    match Compression::detect(&head).filter(|_| judged.compression.is_some()) {
        None => open(source, options),
        Some(compression) => {
            let file = tempfile::tempfile().map_err(|e| Error::io("making a file", e))?;
            let inflated = inflate_into(&source, compression, file, &cx)?;
            open(Arc::new(inflated), options)
        }
    }
}

fn is_refusal(error: &Error) -> bool {
    use formats::ErrorKind::{Refused, Unsupported};
    matches!(error.kind(), Refused | Unsupported)
}

fn is_safe(judged: &Inspection, entry: &Entry) -> Check {
    match judged.unsafe_finding() {
        // A descriptor names other files, which is for whoever opens it to allow.
        Some(_) if entry.group.is_some() => Ok(()),
        Some(f) => Err(format!("is unsafe: {}: {}: {}", f.rule, f.place, f.message)),
        None => Ok(()),
    }
}

fn check_facts(entry: &Entry, judged: &Inspection) -> Check {
    let expected = match entry.format.as_str() {
        "docker-tar" => "docker",
        "parallels-xml" => "parallels",
        format => format,
    };
    if judged.format.name() != expected {
        return Err(format!("format is {}, expected {expected}", judged.format));
    }
    let is_right = |size| sizes(entry).any(|right| right == size);
    match (entry.virtual_size, judged.virtual_size) {
        (Some(_), Some(size)) if is_right(size) => Ok(()),
        (None, _) => Ok(()),
        (Some(right), size) => Err(format!("virtual size is {size:?}, expected {right}")),
    }
}

fn sizes(entry: &Entry) -> impl Iterator<Item = u64> {
    let others = entry.alternatives.iter().map(|(size, _)| *size);
    entry.virtual_size.into_iter().chain(others)
}

fn check_content(entry: &Entry, disk: &dyn Disk) -> Check {
    let size = disk.virtual_size();
    if entry.virtual_size.is_some() && !sizes(entry).any(|right| right == size) {
        return Err(format!(
            "opens with {size} bytes, expected {:?}",
            entry.virtual_size
        ));
    }
    let extents = all_extents(disk, usize::MAX)?;
    check_holes(disk, &extents)?;
    check_odd_reads(disk)?;
    let (hash, right) = match &entry.sparse64k {
        Some(right) if size > WHOLE => (sparse64k(disk, &extents), vec![right]),
        _ if size > WHOLE => return Ok(()),
        _ => {
            let right = entry.content.iter();
            let others = entry.alternatives.iter().map(|(_, hash)| hash);
            (whole(disk, &extents), right.chain(others).collect())
        }
    };
    let hash = hash.map_err(|e| format!("reading: {e}"))?;
    if right.is_empty() || right.contains(&&hash) {
        Ok(())
    } else {
        Err(format!("content is {hash}, expected {right:?}"))
    }
}

/// All extents, gapless, at most `calls` answers of them.
fn all_extents(disk: &dyn Disk, calls: usize) -> std::result::Result<Vec<Extent>, String> {
    let end = GuestOffset(disk.virtual_size());
    let mut all: Vec<Extent> = Vec::new();
    let mut at = GuestOffset::ZERO;
    for _ in 0..calls {
        if at >= end {
            break;
        }
        let mut some = Vec::new();
        disk.extents(at..end, &mut some)
            .map_err(|e| format!("extents from {at}: {e}"))?;
        if some.is_empty() || some.len() > formats::MAX_EXTENTS {
            return Err(format!("{} extents at once from {at}", some.len()));
        }
        for extent in some {
            if extent.range.start != at || extent.range.is_empty() || extent.range.end > end {
                return Err(format!("extent {extent:?} where {at} was due, of {end}"));
            }
            at = extent.range.end;
            all.push(extent);
        }
    }
    Ok(all)
}

/// Holes read as zeros: small ones throughout, large ones at their ends and in the middle.
fn check_holes(disk: &dyn Disk, extents: &[Extent]) -> Check {
    let mut buf = vec![0; CHUNK as usize];
    for extent in extents.iter().filter(|e| e.kind.is_hole()) {
        let (start, len) = (extent.range.start.0, guest_len(&extent.range));
        let part = len.min(CHUNK);
        for at in [start, start + (len - part) / 2, start + len - part] {
            let buf = &mut buf[..part as usize];
            disk.read_at(buf, GuestOffset(at))
                .map_err(|e| format!("reading a hole: {e}"))?;
            if !formats::bytes::is_zero(buf) {
                return Err(format!("the hole {extent:?} is not zero"));
            }
        }
    }
    Ok(())
}

/// Reads of any place and length give the same bytes as aligned ones.
fn check_odd_reads(disk: &dyn Disk) -> Check {
    let size = disk.virtual_size();
    let mut random = Random(size);
    for _ in 0..if size == 0 { 0 } else { 32 } {
        let at = random.below(size);
        let len = random.below(200_000).min(size - at);
        let base = at & !511;
        let mut odd = vec![1; len as usize];
        let mut even = vec![2; (at + len - base) as usize];
        disk.read_at(&mut odd, GuestOffset(at))
            .map_err(|e| e.to_string())?;
        disk.read_at(&mut even, GuestOffset(base))
            .map_err(|e| e.to_string())?;
        if odd != even[(at - base) as usize..] {
            return Err(format!("{len} bytes at {at} differ from an aligned read"));
        }
    }
    let mut beyond = [0; 2];
    match disk.read_at(&mut beyond, GuestOffset(size.saturating_sub(1))) {
        Ok(()) => Err("reads past its end".into()),
        Err(_) => Ok(()),
    }
}

fn whole(disk: &dyn Disk, extents: &[Extent]) -> Result<String> {
    if extents.iter().all(|e| e.kind.is_hole()) {
        return Ok(zeros(disk.virtual_size()));
    }
    let mut hash = Sha256::new();
    let mut buf = vec![0; CHUNK as usize];
    for extent in extents {
        let mut at = extent.range.start;
        if extent.kind.is_hole() {
            buf.fill(0);
        }
        while at < extent.range.end {
            let buf = &mut buf[..extent.range.end.since(at).min(CHUNK) as usize];
            if !extent.kind.is_hole() {
                disk.read_at(buf, at)?;
            }
            hash.update(&*buf);
            at.0 += buf.len() as u64;
        }
    }
    Ok(hex(hash))
}

/// The hash of zeros: several large images hold nothing else.
fn zeros(len: u64) -> String {
    static KNOWN: OnceLock<Mutex<HashMap<u64, String>>> = OnceLock::new();
    let mut known = KNOWN.get_or_init(Mutex::default).lock().unwrap();
    let hash = known.entry(len).or_insert_with(|| {
        let zeros = vec![0; CHUNK as usize];
        let mut hash = Sha256::new();
        let mut rest = len;
        while rest > 0 {
            let part = rest.min(CHUNK);
            hash.update(&zeros[..part as usize]);
            rest -= part;
        }
        hex(hash)
    });
    hash.clone()
}

fn sparse64k(disk: &dyn Disk, extents: &[Extent]) -> Result<String> {
    const BLOCK: u64 = 64 << 10;
    let mut hash = Sha256::new();
    let mut block = vec![0; BLOCK as usize];
    let mut next = 0;
    for extent in extents.iter().filter(|e| !e.kind.is_hole()) {
        let last = (extent.range.end.0 - 1) / BLOCK;
        for n in next.max(extent.range.start.0 / BLOCK)..=last {
            let len = (disk.virtual_size() - n * BLOCK).min(BLOCK) as usize;
            disk.read_at(&mut block[..len], GuestOffset(n * BLOCK))?;
            if !formats::bytes::is_zero(&block[..len]) {
                hash.update(n.to_le_bytes());
                hash.update(&block[..len]);
            }
        }
        next = last + 1;
    }
    Ok(hex(hash))
}

/// Walks the extents and reads a little.
fn touch(disk: &dyn Disk) -> Check {
    let mut buf = vec![0; disk.virtual_size().min(CHUNK) as usize];
    disk.read_at(&mut buf, GuestOffset::ZERO)
        .map_err(|e| e.to_string())?;
    all_extents(disk, 64).map(drop)
}
