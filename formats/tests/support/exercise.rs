//! What anybody would do with a file, and what must hold whatever the file says. The mutations and
//! the fuzz targets come through here; whatever does not hold panics.

use std::num::NonZero;
use std::sync::{Arc, Mutex};

use formats::check::{MAX_PROBLEMS, check};
use formats::container::{Context, Ova, describe, examine};
use formats::copy::{CopyOptions, Progress, copy};
use formats::inspect::{Inspection, Stream, Verdict, inspect};
use formats::parallels::bundle;
use formats::qcow2::{Repair, repair, resize};
use formats::resolve::{Alone, Granted, Resolver, Wanted};
use formats::{
    CreateOptions, Disk, Error, ErrorKind, ExtentKind, Format, GuestOffset, HostOffset, Limits,
    MAX_EXTENTS, MemorySink, OpenOptions, Passphrase, Result, Sink, Source, create, guest_len,
    open,
};

use super::random::Random;

/// Questions for extents put to a disk.
const QUESTIONS: usize = 64;
/// Bytes read of a disk.
const READ: u64 = 1 << 20;
/// Bytes read in one piece.
const PIECE: u64 = 64 << 10;
/// Bytes of files that are judged as they pass by, whatever the target.
const PASSED: u64 = 128 << 10;
/// Bytes that an answer to a person may have, beside those of the file.
const SAID: usize = 512 << 10;

pub(crate) fn limits() -> Limits {
    Limits {
        max_table: 4 << 20,
        cache: 1 << 20,
        max_inflated: 4 << 20,
        max_look: 1 << 20,
        ..Limits::default()
    }
}

fn options(format: Format) -> OpenOptions {
    OpenOptions {
        format: Some(format),
        limits: limits(),
        ..OpenOptions::default()
    }
}

/// Grants one file under every name, and that file itself again.
struct Loop(Arc<dyn Source>);

impl Resolver for Loop {
    fn resolve(&self, _: Format, _: Wanted, _: &str) -> Result<Granted> {
        Ok(Granted {
            source: self.0.clone(),
            resolver: Arc::new(Self(self.0.clone())),
        })
    }
}

/// Grants one file under every name, and that file none.
struct Beside(Arc<dyn Source>);

impl Resolver for Beside {
    fn resolve(&self, _: Format, _: Wanted, _: &str) -> Result<Granted> {
        Ok(Granted::alone(self.0.clone()))
    }
}

/// An error of a file in memory is never the system's, and says something.
fn blame<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(e) => {
            assert!(e.kind() != ErrorKind::Io, "blames the system: {e}");
            assert!(!e.message().is_empty(), "says nothing: {e:?}");
            let said = e.to_string();
            assert!(
                said.len() <= 4096,
                "{} bytes of error: {said:.200}",
                said.len()
            );
            None
        }
    }
}

/// Judges the file, and a short one as it passes by too.
pub(crate) fn judge(source: &Arc<dyn Source>) -> Inspection {
    if source.len() <= PASSED {
        judge_passing(source);
    }
    let judged = describe(source, &limits()).expect("memory can be read");
    for finding in &judged.findings {
        assert!(
            !finding.place.is_empty() && !finding.message.is_empty(),
            "a finding that says nothing: {finding:?}"
        );
    }
    let said = format!("{judged:?}").len();
    let len = usize::try_from(source.len()).unwrap_or(usize::MAX);
    assert!(
        said <= SAID.saturating_add(8 * len.min(64 << 10)),
        "{said} bytes said of {len}"
    );
    judged
}

/// Judges the file as it passes by and by position, which comes to the same.
pub(crate) fn judge_passing(source: &Arc<dyn Source>) {
    let limits = limits();
    let bare = inspect(source.as_ref(), &limits).expect("memory can be read");
    let mut random = Random(source.len());
    for staged in [Some(source.as_ref()), None] {
        let mut stream = Stream::default();
        let mut at = 0;
        while at < source.len() {
            let chunk = 1 + random.below(source.len().min(300_000));
            let mut bytes = vec![0; chunk.min(source.len() - at) as usize];
            source
                .read_exact_at(&mut bytes, HostOffset(at))
                .expect("memory can be read");
            stream.feed(&bytes);
            at += bytes.len() as u64;
        }
        let passed = stream.finish(staged, &limits).expect("memory can be read");
        // Without staging, bytes that are gone may be missed, but never in silence.
        let is_told = passed.findings.iter().any(|f| f.rule == "not_streamable");
        let is_same = passed.format == bare.format
            && passed.virtual_size == bare.virtual_size
            && passed.details == bare.details
            && passed.findings == bare.findings;
        assert!(
            is_same || (staged.is_none() && is_told),
            "passing by: {passed:#?}\nby position: {bare:#?}"
        );
    }
}

/// What is judged, opened as `format`, read and checked.
pub(crate) fn disk(source: &Arc<dyn Source>, format: Format) {
    judge(source);
    let mut options = options(format);
    if let Some(disk) = blame(open(source.clone(), &options)) {
        read(disk.as_ref(), Some(source.as_ref()));
    }
    examine_tables(source, &options);
    options.resolver = Arc::new(Loop(source.clone()));
    if let Some(disk) = blame(open(source.clone(), &options)) {
        read(disk.as_ref(), None);
    }
}

/// An image that needs `beside` under whatever name.
pub(crate) fn overlay(source: &Arc<dyn Source>, format: Format, beside: &Arc<dyn Source>) {
    let mut options = options(format);
    options.resolver = Arc::new(Beside(beside.clone()));
    if let Some(disk) = blame(open(source.clone(), &options)) {
        read(disk.as_ref(), None);
    }
    examine_tables(source, &options);
}

/// A parallels bundle whose files are all `image`.
pub(crate) fn parallels_bundle(descriptor: &Arc<dyn Source>, image: Arc<dyn Source>) {
    let mut options = options(Format::Parallels);
    options.resolver = Arc::new(Beside(image));
    if let Some(disk) = blame(bundle::open(descriptor.as_ref(), &options)) {
        read(disk.as_ref(), None);
    }
}

/// Encrypted with the passphrase of the seeds.
pub(crate) fn luks(source: &Arc<dyn Source>) {
    judge(source);
    let mut options = options(Format::Luks);
    options.passphrase = Some(Passphrase::new(b"open sesame").expect("bytes"));
    if let Some(disk) = blame(open(source.clone(), &options)) {
        read(disk.as_ref(), None);
    }
}

/// What may hold disks: an archive, a descriptor, something compressed.
pub(crate) fn package(source: &Arc<dyn Source>) {
    let judged = judge(source);
    let limits = limits();
    let cx = Context::new(&limits);
    let Some((whole, held)) = blame(examine(source, &cx)) else {
        return;
    };
    // Of what is longer than the look only the beginning was judged.
    if held.len() <= limits.max_look && whole.verdict() == Verdict::Safe {
        let (format, verdict) = (judged.format, judged.verdict());
        assert_eq!(
            (format, verdict),
            (whole.format, Verdict::Safe),
            "{judged:#?}\n{whole:#?}"
        );
    }
    let package = match whole.format {
        Format::Ova | Format::Vagrant => blame(Ova::open(&held)),
        Format::Ovf => {
            let resolver = Loop(source.clone());
            blame(Ova::open_descriptor(held.as_ref(), &resolver))
        }
        _ => None,
    };
    let Some(package) = package else {
        return;
    };
    blame(package.verify_manifest(&cx));
    for n in 0..package.disks().len().min(4) {
        if let Some(disk) = blame(package.open_disk(n, &cx)) {
            read(disk.as_ref(), None);
        }
    }
}

/// Walks the extents, and reads what they say. `source` is the file of a disk that stands alone.
pub(crate) fn read(disk: &dyn Disk, source: Option<&dyn Source>) {
    let size = disk.virtual_size();
    assert!(disk.unit() > 0, "a unit of nothing");
    let mut left = READ;
    // From the start, and again near the end.
    for start in [0, size.saturating_sub(READ)] {
        let mut at = GuestOffset(start);
        let mut extents = Vec::new();
        for _ in 0..QUESTIONS {
            if at.0 == size {
                break;
            }
            extents.clear();
            if blame(disk.extents(at..GuestOffset(size), &mut extents)).is_none() {
                break;
            }
            assert!(
                !extents.is_empty() && extents.len() <= MAX_EXTENTS,
                "{} extents at {at}",
                extents.len()
            );
            for extent in &extents {
                let is_next = extent.range.start == at && guest_len(&extent.range) > 0;
                assert!(
                    is_next && extent.range.end.0 <= size,
                    "{extent:?} after {at}"
                );
                at = extent.range.end;
                let len = guest_len(&extent.range).min(PIECE).min(left);
                if len > 0 {
                    left -= len;
                    read_extent(disk, extent.range.start, len, extent.kind, source);
                }
            }
        }
    }
    if size <= READ {
        copied(disk);
    }
}

fn read_extent(
    disk: &dyn Disk,
    at: GuestOffset,
    len: u64,
    kind: ExtentKind,
    source: Option<&dyn Source>,
) {
    let mut bytes = vec![0xee; len as usize];
    if blame(disk.read_at(&mut bytes, at)).is_none() {
        return;
    }
    match (kind, source) {
        (ExtentKind::Zero | ExtentKind::Unallocated, Some(_)) => {
            assert!(
                bytes.iter().all(|b| *b == 0),
                "a hole at {at} that is not zero"
            );
        }
        (ExtentKind::Data { host: Some(host) }, Some(source)) => {
            let mut stored = vec![0; bytes.len()];
            source
                .read_exact_at(&mut stored, host)
                .unwrap_or_else(|e| panic!("{len} bytes at {host}, guest {at}: {e}"));
            assert!(
                stored == bytes,
                "other bytes at {host} than the guest's at {at}"
            );
        }
        _ => {}
    }
    // One byte in the middle, asked for alone.
    let middle = len / 2;
    let mut one = [0xee];
    disk.read_at(&mut one, GuestOffset(at.0 + middle))
        .expect("was read before");
    assert_eq!(
        one[0], bytes[middle as usize],
        "the byte at {at} + {middle}"
    );
}

/// A copy holds what the disk does.
fn copied(disk: &dyn Disk) {
    let mut bytes = vec![0xee; disk.virtual_size() as usize];
    let read = blame(disk.read_at(&mut bytes, GuestOffset::ZERO));
    let target = create(
        &CreateOptions::Raw(formats::raw::WriteOptions::default()),
        disk.virtual_size(),
    )
    .expect("raw has any size");
    let sink = MemorySink::default();
    let options = CopyOptions {
        threads: NonZero::<usize>::MIN,
    };
    let copied = blame(copy(disk, target, &sink, &options, &Progress::default()));
    if read.is_some() && copied.is_some() {
        assert!(sink.into_bytes() == bytes, "the copy differs");
    } else {
        // What cannot be read may lie in what a copy leaves out, never the other way round.
        assert!(read.is_none(), "is read, and yet cannot be copied");
    }
}

fn examine_tables(source: &Arc<dyn Source>, options: &OpenOptions) {
    let Some(found) = blame(check(source, options, &Progress::default())) else {
        return;
    };
    assert!(found.problems.len() <= MAX_PROBLEMS);
    assert!(found.problems.len() as u64 <= found.corruptions + found.leaks);
    for problem in &found.problems {
        let len = problem.place.len() + problem.message.len();
        assert!(!problem.message.is_empty() && len < 2048, "{problem:?}");
    }
    // What is found clean can be walked from end to end.
    if found.corruptions == 0
        && let Ok(disk) = open(source.clone(), options)
    {
        let mut extents = Vec::new();
        let size = GuestOffset(disk.virtual_size());
        let mut at = GuestOffset::ZERO;
        for _ in 0..QUESTIONS {
            if at < size {
                let walked = disk.extents(at..size, &mut extents);
                walked.unwrap_or_else(|e| panic!("found clean, but {e}: {found:?}"));
                at = extents.pop().map_or(size, |e| e.range.end);
                extents.clear();
            }
        }
    }
}

/// A file in memory, read and written.
struct File(Mutex<Vec<u8>>);

/// Bytes a file in memory may grow to.
const ROOM: u64 = 32 << 20;

impl File {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics with it")
    }

    fn snapshot(&self) -> Arc<dyn Source> {
        Arc::new(self.bytes().clone())
    }
}

impl Source for File {
    fn len(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        self.bytes().read_exact_at(buf, at)
    }
}

impl Sink for File {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        let end =
            at.0.checked_add(bytes.len() as u64)
                .filter(|end| *end <= ROOM);
        let Some(end) = end else {
            return Err(Error::usage("too large for the test"));
        };
        let mut file = self.bytes();
        if end > file.len() as u64 {
            file.resize(end as usize, 0);
        }
        file[at.0 as usize..end as usize].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if len > ROOM {
            return Err(Error::usage("too large for the test"));
        }
        self.bytes().resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// The first bytes a guest sees, where they can be read.
fn contents(source: Arc<dyn Source>) -> Option<Vec<u8>> {
    let disk = open(source, &options(Format::Qcow2)).ok()?;
    let mut bytes = vec![0; disk.virtual_size().min(READ) as usize];
    disk.read_at(&mut bytes, GuestOffset::ZERO).ok()?;
    Some(bytes)
}

/// Repairs a qcow2 image, and gives it another size: the guest's bytes stay, tables agree.
pub(crate) fn mended(bytes: &[u8]) {
    let before = contents(Arc::new(bytes.to_vec()));
    // Repairing has these limits.
    let options = OpenOptions {
        limits: Limits::default(),
        ..options(Format::Qcow2)
    };
    let check_of = |file: &File| check(&file.snapshot(), &options, &Progress::default());
    for what in [Repair::Leaks, Repair::All] {
        let file = Arc::new(File(Mutex::new(bytes.to_vec())));
        let source: Arc<dyn Source> = file.clone();
        let Some(left) = blame(repair(&source, file.as_ref(), what, &Progress::default())) else {
            continue;
        };
        let again = check_of(&file).expect("was checked before");
        assert_eq!(
            (again.corruptions, again.leaks),
            (left.corruptions, left.leaks),
            "{left:?}\n{again:?}"
        );
        if let Some(before) = &before {
            let now = contents(file.snapshot()).expect("was read before");
            let differs = before.iter().zip(&now).position(|(a, b)| a != b);
            assert!(
                before.len() == now.len() && differs.is_none(),
                "repairing {what:?} changed the byte at {differs:?}: {again:#?}"
            );
        }
        if !left.is_clean() || what == Repair::Leaks {
            continue;
        }
        let size = before
            .as_ref()
            .map_or(1 << 20, |bytes| bytes.len() as u64 + (1 << 20));
        let resized = resize(&source, file.as_ref(), size, false, &Progress::default());
        if blame(resized).is_some() {
            let again = check_of(&file).expect("was checked before");
            assert!(again.is_clean(), "after growing: {again:?}");
            let now = contents(file.snapshot());
            if let (Some(before), Some(now)) = (&before, &now) {
                let len = before.len().min(now.len());
                assert!(before[..len] == now[..len], "growing changed the contents");
            }
        }
    }
}

/// The snapshot with the id `1`, where there is one.
pub(crate) fn snapshot(source: &Arc<dyn Source>, format: Format) {
    let mut options = options(format);
    options.snapshot = Some("1".into());
    options.resolver = Arc::new(Alone);
    if let Ok(disk) = open(source.clone(), &options) {
        read(disk.as_ref(), None);
    }
}
