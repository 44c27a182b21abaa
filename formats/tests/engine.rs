//! The copy engine from disk to raw: order, holes, failures and cancelling.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use formats::copy::{CopyOptions, Progress, Summary, copy};
use formats::{
    CreateOptions, Disk, Error, ErrorKind, Extent, ExtentKind, FileSink, FileSource, GuestOffset,
    HostOffset, MAX_EXTENTS, MemorySink, Result, Sink, Source, check_range, create, guest_len,
    push_extent, raw,
};
use proptest::prelude::*;

/// A disk in memory: stretches of bytes, holes between them.
#[derive(Default)]
struct Sparse {
    size: u64,
    /// Ascending, apart.
    stretches: Vec<(u64, Vec<u8>)>,
    /// Reads at or past this byte fail.
    fails_from: Option<u64>,
    /// Extents handed out at once.
    at_once: usize,
}

impl Sparse {
    /// From lengths of holes and of stretches, in turn; no byte of a stretch is zero.
    fn new(lengths: &[(u64, u64)]) -> Self {
        let mut disk = Self {
            at_once: MAX_EXTENTS,
            ..Self::default()
        };
        for (n, (hole, data)) in (1..).zip(lengths) {
            disk.size += hole;
            let bytes = (0..*data).map(|at| ((at ^ n) % 255 + 1) as u8).collect();
            disk.stretches.push((disk.size, bytes));
            disk.size += data;
        }
        disk
    }

    fn bytes(&self) -> Vec<u8> {
        let mut all = vec![0; self.size as usize];
        for (at, bytes) in &self.stretches {
            all[*at as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        all
    }
}

impl Disk for Sparse {
    fn virtual_size(&self) -> u64 {
        self.size
    }

    fn unit(&self) -> u64 {
        512
    }

    fn extents(&self, range: Range<GuestOffset>, out: &mut Vec<Extent>) -> Result<()> {
        check_range(range.start, guest_len(&range), self.size)?;
        let mut push = |from: u64, to: u64, kind| {
            let range = GuestOffset(from).max(range.start)..GuestOffset(to).min(range.end);
            push_extent(out, Extent { range, kind });
            out.len() < self.at_once
        };
        let mut at = 0;
        for (start, bytes) in &self.stretches {
            let end = start + bytes.len() as u64;
            if !push(at, *start, ExtentKind::Zero)
                || !push(*start, end, ExtentKind::Data { host: None })
            {
                return Ok(());
            }
            at = end;
        }
        push(at, self.size, ExtentKind::Unallocated);
        Ok(())
    }

    fn read_at(&self, buf: &mut [u8], at: GuestOffset) -> Result<()> {
        check_range(at, buf.len() as u64, self.size)?;
        let end = at.0 + buf.len() as u64;
        if self.fails_from.is_some_and(|from| end > from) {
            return Err(Error::io("reading", std::io::Error::other("bad sector")));
        }
        buf.fill(0);
        for (start, bytes) in &self.stretches {
            let from = at.0.max(*start);
            let to = end.min(start + bytes.len() as u64);
            if from < to {
                buf[(from - at.0) as usize..(to - at.0) as usize]
                    .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }
}

/// A sink that counts its writes, and fails from the nth on.
#[derive(Default)]
struct Counting {
    inner: MemorySink,
    writes: AtomicU64,
    fails_at: Option<u64>,
    /// Told to cancel with the nth write.
    cancels: Option<(u64, Arc<Progress>)>,
}

impl Sink for Counting {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        let n = self.writes.fetch_add(1, SeqCst);
        if let Some((when, progress)) = &self.cancels
            && n == *when
        {
            progress.cancel();
        }
        if self.fails_at.is_some_and(|when| n >= when) {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::io("writing", full));
        }
        self.inner.write_all_at(bytes, at)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.inner.set_len(len)
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

fn run(disk: &dyn Disk, sink: &dyn Sink, threads: usize, progress: &Progress) -> Result<Summary> {
    let threads = NonZero::new(threads).unwrap();
    let target = create(
        &CreateOptions::Raw(raw::WriteOptions::default()),
        disk.virtual_size(),
    )?;
    copy(disk, target, sink, &CopyOptions { threads }, progress)
}

fn copied(disk: &dyn Disk, threads: usize) -> Vec<u8> {
    let sink = MemorySink::default();
    let progress = Progress::default();
    let summary = run(disk, &sink, threads, &progress).unwrap();
    assert_eq!(summary.file_size, disk.virtual_size());
    assert_eq!(progress.done(), progress.total());
    sink.into_bytes()
}

/// Twelve megabytes and a bit in twelve stretches: more jobs than any window.
fn large() -> Sparse {
    Sparse::new(&[(70_000, 1_100_003); 12])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..Default::default() })]
    #[test]
    fn any_disk_arrives_whole_whatever_the_threads(
        lengths in prop::collection::vec((0u64..300_000, 0u64..300_000), 0..12),
        tail in 0u64..9000,
        at_once in 1usize..5,
    ) {
        let mut disk = Sparse::new(&lengths);
        disk.size += tail;
        disk.at_once = at_once;
        let bytes = disk.bytes();
        prop_assert!(copied(&disk, 1) == bytes);
        prop_assert!(copied(&disk, 7) == bytes);
    }
}

#[test]
fn an_empty_disk_makes_an_empty_file() {
    assert!(copied(&Sparse::default(), 3).is_empty());
}

#[test]
fn holes_stay_holes() {
    let gap = 8 << 20;
    let disk = Sparse::new(&[(gap, 4096), (gap, 4096)]);
    let file = tempfile::tempfile().unwrap();
    let sink = FileSink::new(file.try_clone().unwrap());
    let progress = Progress::default();
    run(&disk, &sink, 2, &progress).unwrap();
    assert_eq!(progress.written(), 8192);
    let source = Arc::new(FileSource::new(file).unwrap());
    assert_eq!(source.len(), disk.size);
    assert!(
        source.allocated() < 1 << 20,
        "{} bytes allocated",
        source.allocated()
    );
    // And again, out of the file: its holes are seen.
    let again = Counting::default();
    let disk = raw::Reader::new(source).unwrap();
    run(&disk, &again, 2, &progress).unwrap();
    let mut extents = Vec::new();
    disk.extents(
        GuestOffset(0)..GuestOffset(disk.virtual_size()),
        &mut extents,
    )
    .unwrap();
    let data = extents.iter().filter(|e| !e.kind.is_hole());
    assert!(data.map(|e| guest_len(&e.range)).sum::<u64>() < 1 << 20);
}

#[test]
fn zeros_stored_as_data_are_not_written() {
    let mut disk = Sparse::new(&[(0, 1 << 20)]);
    disk.stretches[0].1[4096..1 << 19].fill(0);
    let sink = Counting::default();
    let progress = Progress::default();
    run(&disk, &sink, 1, &progress).unwrap();
    assert_eq!(progress.written(), (1 << 20) - (1 << 19) + 4096);
    assert!(sink.inner.into_bytes() == disk.bytes());
}

#[test]
fn a_failing_write_ends_the_copy_with_its_error() {
    let disk = large();
    for threads in [1, 7] {
        let count = Counting::default();
        run(&disk, &count, threads, &Progress::default()).unwrap();
        let writes = count.writes.into_inner();
        assert!(writes > 4);
        for fails_at in [0, 1, writes / 2, writes - 1] {
            let sink = Counting {
                fails_at: Some(fails_at),
                ..Counting::default()
            };
            let error = run(&disk, &sink, threads, &Progress::default()).unwrap_err();
            assert_eq!(
                (error.kind(), error.to_string().as_str()),
                (ErrorKind::Io, "writing")
            );
        }
    }
}

#[test]
fn a_failing_read_ends_the_copy_with_its_error() {
    let mut disk = large();
    disk.fails_from = Some(disk.size / 2);
    for threads in [1, 7] {
        let error = run(&disk, &MemorySink::default(), threads, &Progress::default()).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Io, "reading")
        );
    }
}

#[test]
fn cancelling_stops_the_copy() {
    // A job a stretch: many more than seven threads may be ahead by.
    let disk = Sparse::new(&[(70_000, 5000); 100]);
    for (threads, when) in [(1, 0), (1, 3), (7, 0)] {
        let progress = Arc::new(Progress::default());
        let sink = Counting {
            cancels: Some((when, progress.clone())),
            ..Counting::default()
        };
        let error = run(&disk, &sink, threads, &progress).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
    let progress = Progress::default();
    progress.cancel();
    let sink = Counting::default();
    assert_eq!(
        run(&disk, &sink, 2, &progress).unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert_eq!(sink.writes.into_inner(), 0);
}
