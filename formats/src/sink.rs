//! Positioned bytes out.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Error, HostOffset, Result};

/// Where an image is written, by position. Bytes never written read as zeros.
pub trait Sink: Send + Sync {
    /// Writes all of `bytes` at `at`.
    ///
    /// # Errors
    /// `Io`, a full disk among them.
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()>;

    /// Sets the length in bytes; growing leaves a hole.
    ///
    /// # Errors
    /// `Io`.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Asks for room for the first `len` bytes, where the sink can: later writes there will not
    /// find it full. What was written stays.
    ///
    /// # Errors
    /// `Io`, when there is not as much room.
    fn reserve(&self, len: u64) -> Result<()> {
        let _ = len;
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// `Io`.
    fn sync(&self) -> Result<()>;

    /// Whether it takes bytes in ascending order only, one write after the other: a pipe.
    fn is_sequential(&self) -> bool {
        false
    }
}

/// An open file to write to.
#[derive(Debug)]
pub struct FileSink(File);

impl FileSink {
    /// Wraps a file opened for writing.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(file)
    }
}

impl Sink for FileSink {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        self.0
            .write_all_at(bytes, at.0)
            .map_err(|e| Error::io(format!("writing {} bytes at {at}", bytes.len()), e))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0
            .set_len(len)
            .map_err(|e| Error::io(format!("setting the length to {len}"), e))
    }

    fn reserve(&self, len: u64) -> Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        if len == 0 {
            return Ok(());
        }
        match fallocate(&self.0, FallocateFlags::empty(), 0, len) {
            // Not every file system knows how to.
            Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
            Err(e) => Err(Error::io(format!("reserving {len} bytes"), e.into())),
        }
    }

    fn sync(&self) -> Result<()> {
        self.0
            .sync_all()
            .map_err(|e| Error::io("making the file durable", e))
    }
}

/// Writes zeros, in pieces.
pub(crate) fn write_zeros(sink: &dyn Sink, range: Range<HostOffset>) -> Result<()> {
    const PIECE: u64 = 1 << 20;
    let zeros = vec![0; PIECE.min(range.end.since(range.start)) as usize];
    let mut at = range.start;
    while at < range.end {
        let len = PIECE.min(range.end.since(at));
        sink.write_all_at(&zeros[..len as usize], at)?;
        at.0 += len;
    }
    Ok(())
}

/// Bytes of the front that a [`StreamSink`] remembers.
const FRONT: usize = 64 << 10;

/// A pipe, or whatever else takes bytes one after the other. What is skipped goes out as zeros.
pub struct StreamSink<W>(Mutex<Stream<W>>);

struct Stream<W> {
    out: W,
    at: u64,
    /// The first bytes written: formats whose header comes last write them once more.
    front: Vec<u8>,
}

impl<W: Write> Stream<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let at = self.at;
        if let Err(e) = self.out.write_all(bytes) {
            // What lies beneath may be a sink of ours, which says more.
            return Err(e.downcast::<Error>().unwrap_or_else(|e| {
                Error::io(format!("writing {} bytes at {at}", bytes.len()), e)
            }));
        }
        if self.front.len() as u64 == at && self.front.len() < FRONT {
            let room = FRONT - self.front.len();
            self.front
                .extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn skip_to(&mut self, at: u64) -> Result<()> {
        let zeros = [0; 32 << 10];
        while self.at < at {
            let len = usize::try_from(at - self.at).map_or(zeros.len(), |n| n.min(zeros.len()));
            self.write(&zeros[..len])?;
        }
        Ok(())
    }

    fn is_repeated(&self, bytes: &[u8], at: u64) -> bool {
        let start = usize::try_from(at).ok();
        let known = start.and_then(|start| self.front.get(start..start.checked_add(bytes.len())?));
        known == Some(bytes)
    }
}

impl<W: Write + Send> StreamSink<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self(Mutex::new(Stream {
            out,
            at: 0,
            front: Vec::new(),
        }))
    }

    /// Gives `out` back.
    pub fn into_inner(self) -> W {
        self.0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .out
    }

    fn lock(&self) -> MutexGuard<'_, Stream<W>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write + Send> Sink for StreamSink<W> {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        let mut stream = self.lock();
        if at.0 < stream.at {
            if stream.is_repeated(bytes, at.0) {
                return Ok(());
            }
            return Err(Error::usage(format!(
                "a stream at byte {} cannot go back to {at}",
                stream.at
            )));
        }
        stream.skip_to(at.0)?;
        stream.write(bytes)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut stream = self.lock();
        if len < stream.at {
            return Err(Error::usage(format!(
                "a stream of {} bytes cannot be cut to {len}",
                stream.at
            )));
        }
        stream.skip_to(len)
    }

    fn sync(&self) -> Result<()> {
        let flushed = self.lock().out.flush();
        flushed.map_err(|e| Error::io("writing the last bytes", e))
    }

    fn is_sequential(&self) -> bool {
        true
    }
}

/// A sink in memory, for tests and small images.
#[derive(Debug, Default)]
pub struct MemorySink(Mutex<Vec<u8>>);

impl MemorySink {
    /// Takes out what was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for MemorySink {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        let mut all = self.lock();
        let start = usize::try_from(at.0).map_err(|_| Error::usage("offset beyond memory"))?;
        let end = start
            .checked_add(bytes.len())
            .ok_or_else(|| Error::usage("offset beyond memory"))?;
        if all.len() < end {
            all.resize(end, 0);
        }
        all[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = usize::try_from(len).map_err(|_| Error::usage("length beyond memory"))?;
        self.lock().resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }
}

/// Several files as one sink: each takes a range of its space.
///
/// A length ends the file in whose range it lies (the end of a range is the full length of that
/// file). Files are opened when they are written to, and few stay open.
pub struct Parts<'a> {
    /// Ascending, apart.
    ranges: Vec<Range<HostOffset>>,
    open: Box<OpenPart<'a>>,
    recent: Mutex<VecDeque<(usize, Arc<dyn Sink>)>>,
}

/// Opens the file of a part, by its number. Asked again for a file that was closed meanwhile.
type OpenPart<'a> = dyn Fn(usize) -> Result<Arc<dyn Sink>> + Send + Sync + 'a;

/// Files kept open: a copy writes one, and now and then the one before.
const OPEN_PARTS: usize = 16;

impl<'a> Parts<'a> {
    /// Files that take `ranges`, which ascend and lie apart.
    pub fn new(
        ranges: Vec<Range<HostOffset>>,
        open: impl Fn(usize) -> Result<Arc<dyn Sink>> + Send + Sync + 'a,
    ) -> Self {
        debug_assert!(ranges.is_sorted_by(|a, b| a.end <= b.start));
        Self {
            ranges,
            open: Box::new(open),
            recent: Mutex::default(),
        }
    }

    fn part(&self, n: usize) -> Result<Arc<dyn Sink>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, sink)) = recent.iter().find(|(open, _)| *open == n) {
            return Ok(sink.clone());
        }
        let sink = (self.open)(n)?;
        recent.truncate(OPEN_PARTS - 1);
        recent.push_front((n, sink.clone()));
        Ok(sink)
    }
}

impl Sink for Parts<'_> {
    fn write_all_at(&self, bytes: &[u8], at: HostOffset) -> Result<()> {
        let (mut rest, mut at) = (bytes, at);
        while !rest.is_empty() {
            let n = self.ranges.partition_point(|range| range.end <= at);
            let Some(range) = self.ranges.get(n).filter(|range| range.start <= at) else {
                return Err(Error::usage(format!("no file takes bytes at {at}")));
            };
            let len =
                usize::try_from(range.end.since(at)).map_or(rest.len(), |n| n.min(rest.len()));
            let (now, later) = rest.split_at(len);
            self.part(n)?
                .write_all_at(now, HostOffset(at.since(range.start)))?;
            (rest, at) = (later, HostOffset(at.0 + len as u64));
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let n = self.ranges.partition_point(|range| range.end.0 < len);
        match self.ranges.get(n).filter(|range| range.start.0 < len) {
            Some(range) => self.part(n)?.set_len(len - range.start.0),
            None => Err(Error::usage(format!("no file ends at {len}"))),
        }
    }

    fn sync(&self) -> Result<()> {
        (0..self.ranges.len()).try_for_each(|n| self.part(n)?.sync())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_take_what_lies_in_their_ranges() {
        let ranges = [0..10, 10..20, 30..40];
        let ranges = ranges.map(|r| HostOffset(r.start)..HostOffset(r.end));
        let files = [(); 3].map(|()| Arc::new(MemorySink::default()));
        let parts = Parts::new(ranges.to_vec(), |n| {
            let file: Arc<dyn Sink> = files[n].clone();
            Ok(file)
        });
        for (at, len) in [(20, 1), (18, 3), (39, 2), (90, 1)] {
            assert!(parts.write_all_at(&vec![0; len], HostOffset(at)).is_err());
        }
        parts.write_all_at(&[1; 6], HostOffset(7)).unwrap();
        parts.write_all_at(&[2; 3], HostOffset(30)).unwrap();
        parts.set_len(10).unwrap();
        parts.set_len(14).unwrap();
        parts.set_len(32).unwrap();
        parts.sync().unwrap();
        for len in [0, 25, 30, 41] {
            assert!(parts.set_len(len).is_err(), "{len}");
        }
        drop(parts);
        let [a, b, c] = files.map(|f| Arc::into_inner(f).unwrap().into_bytes());
        assert_eq!(a, [0, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
        assert_eq!(b, [1, 1, 1, 0]);
        assert_eq!(c, [2, 2]);
    }

    #[test]
    fn few_parts_stay_open() {
        let (count, opened) = (100, Mutex::new(0));
        let ranges = (0..count).map(|n| HostOffset(n * 10)..HostOffset(n * 10 + 10));
        let parts = Parts::new(ranges.collect(), |_| {
            *opened.lock().unwrap() += 1;
            let sink: Arc<dyn Sink> = Arc::new(MemorySink::default());
            Ok(sink)
        });
        for n in (0..count).chain(count - 8..count) {
            parts.write_all_at(&[1], HostOffset(n * 10)).unwrap();
        }
        assert_eq!(*opened.lock().unwrap(), count);
        assert!(parts.recent.lock().unwrap().len() <= OPEN_PARTS);
    }

    #[test]
    fn a_stream_fills_gaps_and_never_goes_back() {
        let sink = StreamSink::new(Vec::new());
        assert!(sink.is_sequential());
        sink.write_all_at(b"head", HostOffset::ZERO).unwrap();
        sink.write_all_at(b"data", HostOffset(6)).unwrap();
        // The same header again is what formats do that write it last.
        sink.write_all_at(b"head", HostOffset::ZERO).unwrap();
        assert!(sink.write_all_at(b"HEAD", HostOffset::ZERO).is_err());
        assert!(sink.write_all_at(b"data", HostOffset(8)).is_err());
        assert!(sink.set_len(9).is_err());
        sink.set_len(12).unwrap();
        assert_eq!(sink.into_inner(), b"head\0\0data\0\0");
    }
}
