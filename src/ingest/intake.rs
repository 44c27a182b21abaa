//! The one pass: while bytes arrive they are hashed twice, inspected and written, side by side.
//!
//! ```text
//!  body ─► batches of ~256 KiB ─┬─► MD5, a thread      ┐
//!                               ├─► SHA-512, a thread  ├─ the same buffers, counted references
//!                               ├─► inspectors, here   │
//!                               └─► the writer         ┘
//! ```
//! Bounded queues: the slowest of the four sets the pace, and memory stays flat.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;
use formats::inspect::Stream;
use futures_util::StreamExt;
use tokio::sync::oneshot;

use super::{Body, Error};
use crate::domain::{HashAlgo, Hashes};
use crate::quota::{self, Allowance};
use crate::stores::{BlobWriter, Chunk};

/// Bytes collected before they are handed on: hyper's pieces are small, and every hand-over
/// wakes three threads.
const BATCH: usize = 256 << 10;
/// Batches waiting at each thread, at most: an upload holds little more than a MiB in all.
const QUEUE: usize = 2;
/// How long a client may send nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came in.
pub struct Received {
    /// Bytes.
    pub size: u64,
    /// Their digests.
    pub hashes: Hashes,
    /// The inspectors, at the end of the stream.
    pub inspectors: Stream,
}

/// What to expect of a body.
pub(super) struct Expect<'a> {
    /// Bytes announced, if they were.
    pub(super) announced: Option<u64>,
    /// Bytes allowed.
    pub(super) cap: u64,
    /// What the project may still take in, where that is bounded.
    pub(super) allowance: Option<&'a mut Allowance>,
    /// The hash beside MD5.
    pub(super) algo: HashAlgo,
    /// Looks at what is known so far; a reason ends the upload at once.
    pub(super) early: &'a (dyn Fn(&Stream) -> Option<String> + Sync),
}

/// Takes a body in. The writer is neither committed nor aborted.
pub(super) async fn receive(
    mut body: Body,
    writer: &mut dyn BlobWriter,
    mut expect: Expect<'_>,
) -> Result<Received, Error> {
    if let Some(size) = expect.announced
        && size > expect.cap
    {
        return Err(Error::TooLarge { cap: expect.cap });
    }
    let mut inspectors = Stream::default();
    let mut hashers = Hashers::start(expect.algo)?;
    let mut batch: Vec<Bytes> = Vec::new();
    let (mut held, mut size) = (0, 0u64);
    loop {
        let piece = tokio::time::timeout(PATIENCE, body.next())
            .await
            .unwrap_or_else(|_| Some(Err(io::ErrorKind::TimedOut.into())))
            .transpose()
            .map_err(Error::Client)?;
        let at_end = piece.is_none();
        if let Some(piece) = piece {
            size += piece.len() as u64;
            if size > expect.cap {
                return Err(Error::TooLarge { cap: expect.cap });
            }
            if let Some(allowance) = &mut expect.allowance {
                let taken = allowance.take(piece.len() as u64);
                taken.map_err(quota::Error::from)?;
            }
            held += piece.len();
            batch.push(piece);
        }
        if held >= BATCH || (at_end && held > 0) {
            let chunk: Chunk = std::mem::take(&mut batch).into();
            held = 0;
            for piece in chunk.iter() {
                inspectors.feed(piece);
            }
            hashers.feed(&chunk).await?;
            writer.write(chunk).await?;
            // At the end the whole verdict follows, which knows more.
            if !at_end && let Some(reason) = (expect.early)(&inspectors) {
                return Err(Error::Refused { reason });
            }
        }
        if at_end {
            break;
        }
    }
    if let Some(expected) = expect.announced
        && expected != size
    {
        return Err(Error::SizeMismatch {
            expected,
            got: size,
        });
    }
    Ok(Received {
        size,
        hashes: hashers.finish().await?,
        inspectors,
    })
}

/// The digests of a body that is stored already.
///
/// # Errors
/// `Client` when it cannot be read.
pub async fn digest(mut body: Body, algo: HashAlgo) -> Result<(u64, Hashes), Error> {
    let mut hashers = Hashers::start(algo)?;
    let mut size = 0;
    while let Some(piece) = body.next().await.transpose().map_err(Error::Client)? {
        size += piece.len() as u64;
        hashers.feed(&[piece].into()).await?;
    }
    Ok((size, hashers.finish().await?))
}

/// Two threads, each with a hash, fed the same chunks.
struct Hashers {
    algo: HashAlgo,
    threads: [Hasher; 2],
}

struct Hasher {
    queue: Sender<Chunk>,
    done: oneshot::Receiver<String>,
}

impl Hashers {
    fn start(algo: HashAlgo) -> Result<Self, Error> {
        let strong = match algo {
            HashAlgo::Md5 => Hasher::start::<md5::Md5>("md5"),
            HashAlgo::Sha1 => Hasher::start::<sha1::Sha1>("sha1"),
            HashAlgo::Sha256 => Hasher::start::<sha2::Sha256>("sha256"),
            HashAlgo::Sha384 => Hasher::start::<sha2::Sha384>("sha384"),
            HashAlgo::Sha512 => Hasher::start::<sha2::Sha512>("sha512"),
        };
        let start = |hasher: io::Result<Hasher>| {
            hasher.map_err(|e| Error::Internal(format!("starting a thread: {e}")))
        };
        Ok(Self {
            algo,
            threads: [start(Hasher::start::<md5::Md5>("md5"))?, start(strong)?],
        })
    }

    async fn feed(&mut self, chunk: &Chunk) -> Result<(), Error> {
        for hasher in &self.threads {
            hasher.feed(chunk.clone()).await?;
        }
        Ok(())
    }

    async fn finish(self) -> Result<Hashes, Error> {
        let [checksum, value] = self.threads.map(Hasher::finish);
        Ok(Hashes {
            checksum: Some(checksum.await?),
            algo: self.algo.name().into(),
            value: value.await?,
        })
    }
}

impl Hasher {
    fn start<D: md5::Digest>(name: &str) -> io::Result<Self> {
        let (queue, chunks) = crossbeam_channel::bounded::<Chunk>(QUEUE);
        let (reply, done) = oneshot::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut hash = D::new();
                for chunk in chunks {
                    for piece in chunk.iter() {
                        hash.update(piece);
                    }
                }
                // Nobody waits for the digest of an upload that failed.
                let _ = reply.send(hex(&hash.finalize()));
            })?;
        Ok(Self { queue, done })
    }

    /// Hands a chunk over; waits off the runtime's threads when the queue is full.
    async fn feed(&self, chunk: Chunk) -> Result<(), Error> {
        let Err(full) = self.queue.try_send(chunk) else {
            return Ok(());
        };
        let queue = self.queue.clone();
        let sent = tokio::task::spawn_blocking(move || queue.send(full.into_inner())).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            _ => Err(Error::Internal("a hashing thread has ended".into())),
        }
    }

    async fn finish(self) -> Result<String, Error> {
        drop(self.queue);
        self.done
            .await
            .map_err(|_| Error::Internal("a hashing thread has ended".into()))
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Reads back what a writer holds so far, where inspectors need it, and judges.
pub(super) async fn judge(
    inspectors: Stream,
    writer: &mut dyn BlobWriter,
    limits: formats::Limits,
) -> Result<
    (
        formats::inspect::Inspection,
        Option<Arc<dyn formats::Source>>,
    ),
    Error,
> {
    let staged = writer.read_back().await?;
    let source = staged.clone();
    let inspection =
        tokio::task::spawn_blocking(move || inspectors.finish(source.as_deref(), &limits))
            .await
            .map_err(|e| Error::Internal(e.to_string()))??;
    Ok((inspection, staged))
}
