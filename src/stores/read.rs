//! Reading a file for a client: positioned, in pieces, in buffers that are used again.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::fs::{Advice, SeekFrom, fadvise, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::spawn_blocking;

use super::Bytestream;

/// Bytes read at once: they are still in the processor's cache when they are sent.
const READ: usize = 256 << 10;

static ZEROS: [u8; READ] = [0; READ];

/// A file's bytes in pieces. What the kernel has at hand is copied right here; a thread is taken for
/// each piece that must come from a disk, so that slow clients hold none. Holes are not read at all:
/// the kernel would fill its memory with their zeros.
pub(crate) fn read_stream(file: Arc<File>, range: Range<u64>) -> Bytestream {
    // A longer look ahead by the kernel; where it is not heard, nothing is lost.
    let _ = fadvise(&file, range.start, None, Advice::Sequential);
    // A file without holes is never asked for them: some file systems ask a server.
    let meta = file.metadata().ok();
    let sparse = meta.filter(|meta| meta.blocks() < meta.len() / 512);
    let reader = Reader {
        file,
        at: range.start,
        end: range.end,
        hole: range.start,
        sparse: sparse.map_or(0, |meta| meta.len()),
        buffers: Arc::default(),
    };
    stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|piece| (piece, reader)))
    })
    .boxed()
}

struct Reader {
    file: Arc<File>,
    at: u64,
    end: u64,
    /// Where the hole ends that we are in, if it is behind `at`.
    hole: u64,
    /// The file's length, if there are holes; else 0.
    sparse: u64,
    buffers: Buffers,
}

/// Buffers whose pieces were sent, to be read into again: fresh memory would be cleared first, by the
/// kernel and by us.
type Buffers = Arc<Mutex<Vec<Vec<u8>>>>;

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let len = READ.min(usize::try_from(self.end - self.at).unwrap_or(READ));
        if len == 0 {
            return Ok(None);
        }
        if self.at >= self.hole {
            self.hole = self.hole_end();
        }
        if self.at < self.hole {
            let len = len.min(usize::try_from(self.hole - self.at).unwrap_or(len));
            self.at += len as u64;
            return Ok(Some(Bytes::from_static(&ZEROS[..len])));
        }
        let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
        buffer.resize(READ, 0);
        let slices = &mut [IoSliceMut::new(&mut buffer[..len])];
        let read = match preadv2(&self.file, slices, self.at, ReadWriteFlags::NOWAIT) {
            Ok(n) if n > 0 => n,
            // Not at hand, or not to be had this way: wait for it elsewhere.
            _ => {
                let (file, at) = (self.file.clone(), self.at);
                let waited = spawn_blocking(move || {
                    file.read_exact_at(&mut buffer[..len], at)?;
                    Ok::<_, io::Error>(buffer)
                });
                buffer = waited.await.map_err(io::Error::other)??;
                len
            }
        };
        self.at += read as u64;
        let piece = Piece {
            buffer,
            len: read,
            buffers: self.buffers.clone(),
        };
        Ok(Some(Bytes::from_owner(piece)))
    }

    /// Where the hole ends that begins here: right here, where there is none, or none is told.
    fn hole_end(&self) -> u64 {
        let last = self.sparse.min(self.end);
        if self.at >= last {
            return self.at;
        }
        // It moves the file's own position, which nobody reads by.
        match seek(&self.file, SeekFrom::Data(self.at)) {
            Ok(data) => data.min(last),
            Err(Errno::NXIO) => last,
            Err(_) => self.at,
        }
    }
}

/// The beginning of a buffer, which goes back to the others when nobody looks at it any more.
struct Piece {
    buffer: Vec<u8>,
    len: usize,
    buffers: Buffers,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        lock(&self.buffers).push(mem::take(&mut self.buffer));
    }
}

fn lock(buffers: &Buffers) -> MutexGuard<'_, Vec<Vec<u8>>> {
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn holes_are_zeros_and_an_end_is_an_end() {
        let file = tempfile::tempfile().unwrap();
        let len = 3 << 20;
        file.set_len(len).unwrap();
        for at in [0, (1 << 20) + 7, len - 3] {
            file.write_all_at(b"abc", at).unwrap();
        }
        let mut want = vec![0; len as usize];
        file.read_exact_at(&mut want, 0).unwrap();
        let file = Arc::new(file);
        for range in [0..len, 5..len - 1, (1 << 20)..(2 << 20), 9..9] {
            let pieces = read_stream(file.clone(), range.clone());
            let read: Vec<Bytes> = pieces.try_collect().await.unwrap();
            assert!(read.concat() == want[range.start as usize..range.end as usize]);
        }
        let beyond: Result<Vec<_>, _> = read_stream(file, 0..len + 1).try_collect().await;
        assert_eq!(beyond.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
