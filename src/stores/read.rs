//! Reading a file for a client: positioned, in pieces, in buffers that are used again.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::task::spawn_blocking;

use super::Bytestream;

/// Bytes read at once: they are still in the processor's cache when they are sent.
const READ: usize = 256 << 10;

/// A file's bytes in pieces. What the kernel has at hand is copied right here; a thread is taken for
/// each piece that must come from a disk, so that slow clients hold none.
pub(crate) fn read_stream(file: Arc<File>, range: Range<u64>) -> Bytestream {
    // A longer look ahead by the kernel; where it is not heard, nothing is lost.
    let _ = fadvise(&file, range.start, None, Advice::Sequential);
    let reader = Reader {
        file,
        at: range.start,
        end: range.end,
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
