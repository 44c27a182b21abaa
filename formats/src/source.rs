//! Positioned bytes in. No cursor: threads share a source without a lock.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::SeekFrom;

use crate::{Error, HostOffset, Result};

/// The bytes of an image file, read by position.
pub trait Source: Send + Sync {
    /// Length in bytes.
    fn len(&self) -> u64;

    /// Whether there are no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` from `at`, or fails: never short. An empty `buf` is full, wherever `at` is.
    ///
    /// # Errors
    /// `Io` when reading fails or the range reaches past the end.
    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()>;

    /// The first range at or after `from` that may hold something but zeros; `None` when only a
    /// hole is left. Without knowledge of holes: all the rest.
    ///
    /// # Errors
    /// `Io` when the file system cannot tell.
    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        let end = HostOffset(self.len());
        Ok((from < end).then_some(from..end))
    }

    /// Bytes that take up room in the file system.
    fn allocated(&self) -> u64 {
        self.len()
    }
}

/// Reads up to `len` bytes from `at`, fewer where the source ends first.
pub fn read_up_to(source: &dyn Source, at: HostOffset, len: usize) -> Result<Vec<u8>> {
    let rest = usize::try_from(HostOffset(source.len()).since(at)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(rest)];
    source.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn past_end(len: usize, at: HostOffset, end: u64) -> Error {
    Error::io(
        format!("reading {len} bytes at {at}"),
        std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            format!("the file ends at byte {end}"),
        ),
    )
}

/// An open file. Its length is taken once, when it is opened.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// Wraps an open regular file or block device.
    ///
    /// # Errors
    /// `Io` when its length cannot be told; `Usage` for directories, pipes and sockets.
    pub fn new(file: File) -> Result<Self> {
        let meta = file
            .metadata()
            .map_err(|e| Error::io("reading file attributes", e))?;
        let len = if meta.is_file() {
            meta.len()
        } else if rustix::fs::FileType::from_raw_mode(meta.mode())
            == rustix::fs::FileType::BlockDevice
        {
            rustix::fs::seek(&file, SeekFrom::End(0))
                .map_err(|e| Error::io("finding the size of the device", e.into()))?
        } else {
            return Err(Error::usage("not a regular file"));
        };
        Ok(Self { file, len })
    }

    /// The file itself.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        self.file
            .read_exact_at(buf, at.0)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::UnexpectedEof => past_end(buf.len(), at, self.len),
                _ => Error::io(format!("reading {} bytes at {at}", buf.len()), e),
            })
    }

    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        if from.0 >= self.len {
            return Ok(None);
        }
        // The kernel's cursor moves, but every read here is positioned: nobody looks at it.
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(from.0)) {
            Ok(start) => start.max(from.0),
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
                return Ok(Some(from..HostOffset(self.len)));
            }
            Err(e) => return Err(Error::io(format!("looking for data at {from}"), e.into())),
        };
        if start >= self.len {
            return Ok(None);
        }
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start))
            .map_err(|e| Error::io(format!("looking for a hole at {start}"), e.into()))?;
        Ok(Some(
            HostOffset(start)..HostOffset(end.clamp(start + 1, self.len)),
        ))
    }

    fn allocated(&self) -> u64 {
        self.file
            .metadata()
            .map_or(self.len, |meta| meta.blocks() * 512)
    }
}

/// Bytes in memory.
impl Source for Vec<u8> {
    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let part = usize::try_from(at.0)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or_else(|| past_end(buf.len(), at, self.as_slice().len() as u64))?;
        buf.copy_from_slice(part);
        Ok(())
    }
}

/// A part of another source, seen as a whole: a member of an archive, an extent of a disk.
#[derive(Clone)]
pub struct Slice {
    inner: Arc<dyn Source>,
    start: u64,
    len: u64,
}

impl Slice {
    /// The `len` bytes of `inner` from `start`.
    ///
    /// # Errors
    /// `Usage` when they do not lie inside `inner`.
    pub fn new(inner: Arc<dyn Source>, start: HostOffset, len: u64) -> Result<Self> {
        match start.checked_add(len) {
            Some(end) if end.0 <= inner.len() => Ok(Self {
                inner,
                start: start.0,
                len,
            }),
            _ => Err(Error::usage(format!(
                "{len} bytes at {start} reach past the end of the file at {}",
                inner.len()
            ))),
        }
    }
}

impl Source for Slice {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_exact_at(&self, buf: &mut [u8], at: HostOffset) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        if at
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end.0 > self.len)
        {
            return Err(past_end(buf.len(), at, self.len));
        }
        self.inner.read_exact_at(buf, HostOffset(self.start + at.0))
    }

    fn next_data(&self, from: HostOffset) -> Result<Option<Range<HostOffset>>> {
        if from.0 >= self.len {
            return Ok(None);
        }
        let found = self.inner.next_data(HostOffset(self.start + from.0))?;
        Ok(found.and_then(|range| {
            let start = range.start.0 - self.start;
            let end = (range.end.0 - self.start).min(self.len);
            (start < self.len).then_some(HostOffset(start)..HostOffset(end))
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn a_slice_stays_inside_its_bounds() {
        let inner: Arc<dyn Source> = Arc::new((0..100u8).collect::<Vec<_>>());
        let slice = Slice::new(inner.clone(), HostOffset(10), 20).unwrap();
        let mut buf = [0; 4];
        slice.read_exact_at(&mut buf, HostOffset(16)).unwrap();
        assert_eq!(buf, [26, 27, 28, 29]);
        assert!(slice.read_exact_at(&mut buf, HostOffset(17)).is_err());
        assert!(Slice::new(inner, HostOffset(90), 11).is_err());
    }

    #[test]
    fn reading_up_to_a_length_ends_with_the_source() {
        let bytes = vec![1, 2, 3];
        let slice = Slice::new(Arc::new(bytes.clone()), HostOffset(0), 3).unwrap();
        for source in [&bytes as &dyn Source, &slice] {
            assert_eq!(read_up_to(source, HostOffset(1), 9).unwrap(), [2, 3]);
            assert!(read_up_to(source, HostOffset(99), 9).unwrap().is_empty());
        }
    }

    #[test]
    fn a_file_tells_its_holes() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(4 << 20).unwrap();
        file.seek(std::io::SeekFrom::Start(1 << 20)).unwrap();
        file.write_all(&[7; 4096]).unwrap();
        let source = FileSource::new(file).unwrap();
        let data = source.next_data(HostOffset::ZERO).unwrap().unwrap();
        assert!(
            data.start.0 <= 1 << 20 && data.end.0 >= (1 << 20) + 4096,
            "{data:?}"
        );
        assert_eq!(source.next_data(data.end).unwrap(), None);
        assert!(source.allocated() < 4 << 20);
    }
}
