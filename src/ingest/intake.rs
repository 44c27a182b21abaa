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
use formats::inspect::Stream;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::{Body, Error};
use crate::domain::{HashAlgo, Hashes};
use crate::quota::{self, Allowance};
use crate::stores::{BlobWriter, Chunk};

/// Bytes collected before they are handed on: hyper's pieces are small, and every hand-over
/// wakes three threads.
const BATCH: usize = 256 << 10;
/// Batches waiting at each thread, at most: an upload holds little more than a MiB in all.
const QUEUE: usize = 2;
/// The same where a job reads by itself, of which there are few: a hash need not wait for its reader to
/// get a core.
const DEEP_QUEUE: usize = 16;
/// How long a client may send nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came in.
pub struct Received {
    /// Bytes.
    pub size: u64,
    /// Their digests.
    pub hashes: Hashes,
    /// The digest that was asked for beside them.
    pub also: Option<String>,
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
    /// One more, where it is none of the two.
    pub(super) also: Option<HashAlgo>,
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
    let mut hashers = Hashers::start(expect.algo, expect.also, QUEUE)?;
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
    let (hashes, also) = hashers.finish().await?;
    Ok(Received {
        size,
        hashes,
        also,
        inspectors,
    })
}

/// The digests of a body that is stored already.
///
/// # Errors
/// `Client` when it cannot be read.
pub async fn digest(body: Body, algo: HashAlgo) -> Result<(u64, Hashes), Error> {
    let mut digests = Digests::start(algo)?;
    digests.feed(body).await?;
    digests.finish().await
}

/// The same of what comes in several parts.
pub(crate) struct Digests {
    hashers: Hashers,
    size: u64,
}

impl Digests {
    pub(crate) fn start(algo: HashAlgo) -> Result<Self, Error> {
        let hashers = Hashers::start(algo, None, DEEP_QUEUE)?;
        Ok(Self { hashers, size: 0 })
    }

    /// Bytes so far.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    pub(crate) async fn feed(&mut self, mut body: Body) -> Result<(), Error> {
        while let Some(piece) = body.next().await.transpose().map_err(Error::Client)? {
            self.size += piece.len() as u64;
            self.hashers.feed(&[piece].into()).await?;
        }
        Ok(())
    }

    pub(crate) async fn finish(self) -> Result<(u64, Hashes), Error> {
        Ok((self.size, self.hashers.finish().await?.0))
    }
}

/// Threads, each with a hash, fed the same chunks.
struct Hashers {
    algo: HashAlgo,
    md5: Hasher,
    strong: Hasher,
    also: Also,
}

/// The digest asked for beside the two that are always made.
enum Also {
    Nothing,
    Md5,
    Strong,
    Another(Hasher),
}

struct Hasher {
    queue: mpsc::Sender<Chunk>,
    done: oneshot::Receiver<String>,
}

impl Hashers {
    fn start(algo: HashAlgo, also: Option<HashAlgo>, queue: usize) -> Result<Self, Error> {
        let also = match also {
            None => Also::Nothing,
            Some(HashAlgo::Md5) => Also::Md5,
            Some(same) if same == algo => Also::Strong,
            Some(another) => Also::Another(Hasher::of(another, queue)?),
        };
        Ok(Self {
            algo,
            md5: Hasher::of(HashAlgo::Md5, queue)?,
            strong: Hasher::of(algo, queue)?,
            also,
        })
    }

    async fn feed(&mut self, chunk: &Chunk) -> Result<(), Error> {
        self.md5.feed(chunk.clone()).await?;
        self.strong.feed(chunk.clone()).await?;
        if let Also::Another(hasher) = &self.also {
            hasher.feed(chunk.clone()).await?;
        }
        Ok(())
    }

    async fn finish(self) -> Result<(Hashes, Option<String>), Error> {
        let checksum = self.md5.finish().await?;
        let value = self.strong.finish().await?;
        let also = match self.also {
            Also::Nothing => None,
            Also::Md5 => Some(checksum.clone()),
            Also::Strong => Some(value.clone()),
            Also::Another(hasher) => Some(hasher.finish().await?),
        };
        let hashes = Hashes {
            checksum: Some(checksum),
            algo: self.algo.name().into(),
            value,
        };
        Ok((hashes, also))
    }
}

/// A digest being made, of whichever hash.
pub(crate) struct Digest(Box<dyn sha2::digest::DynDigest + Send>);

impl Digest {
    pub(crate) fn new(algo: HashAlgo) -> Self {
        Self(match algo {
            HashAlgo::Md5 => Box::<md5::Md5>::default(),
            HashAlgo::Sha1 => Box::<sha1::Sha1>::default(),
            HashAlgo::Sha256 => Box::<sha2::Sha256>::default(),
            HashAlgo::Sha384 => Box::<sha2::Sha384>::default(),
            HashAlgo::Sha512 => Box::<sha2::Sha512>::default(),
        })
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// In hexadecimal.
    pub(crate) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

impl Hasher {
    fn of(algo: HashAlgo, queue: usize) -> Result<Self, Error> {
        Self::start(algo, queue).map_err(|e| Error::Internal(format!("starting a thread: {e}")))
    }

    fn start(algo: HashAlgo, queue: usize) -> io::Result<Self> {
        let (queue, mut chunks) = mpsc::channel::<Chunk>(queue);
        let (reply, done) = oneshot::channel();
        std::thread::Builder::new()
            .name(algo.name().to_owned())
            .spawn(move || {
                let mut hash = Digest::new(algo);
                while let Some(chunk) = chunks.blocking_recv() {
                    for piece in chunk.iter() {
                        hash.update(piece);
                    }
                }
                // Nobody waits for the digest of an upload that failed.
                let _ = reply.send(hash.finish());
            })?;
        Ok(Self { queue, done })
    }

    /// Hands a chunk over as soon as there is room for it.
    async fn feed(&self, chunk: Chunk) -> Result<(), Error> {
        let sent = self.queue.send(chunk).await;
        sent.map_err(|_| Error::Internal("a hashing thread has ended".into()))
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
