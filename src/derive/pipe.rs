//! A worker's output handed to one client as it is written, and kept nowhere. The client sets the
//! pace; when it goes away the worker does.

use std::io;
use std::ops::Range;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::process::ChildStdout;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::codec::{BytesCodec, FramedRead};

use super::source::{self, ours};
use super::{Error, Order};
use crate::convert;
use crate::ingest::Body;
use crate::service::Service;
use crate::telemetry::Stage;

/// How long a client may take nothing of what is there: others wait for its turn.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of the pipe, and of a piece at most.
const ROOM: usize = 1 << 20;

/// The bytes `range` of what a worker writes in order, or all of them.
///
/// # Errors
/// `Busy`, and whatever ends the worker before its first byte.
pub(super) async fn read(
    svc: &Arc<Service>,
    order: &Order,
    range: Option<Range<u64>>,
) -> Result<Body, Error> {
    let permit = svc.derivations.permit()?;
    let image = &order.images[0];
    let mut request = order.wish.request(image, &svc.config)?;
    let range = range.unwrap_or(0..u64::MAX);
    request.in_order = Some(range.start);
    let source = source::open(svc, image).await?;
    let mut worker = convert::start(svc, &request, source, Stdio::piped())?;
    let output = worker
        .take_output()
        .ok_or_else(|| ours("the worker has no output"))?;
    // As large as it may be: fewer changes between the processes.
    let _ = rustix::pipe::fcntl_setpipe_size(&output, ROOM);
    let stage = svc.metrics.stage(Stage::Convert);
    let (reads, mut seen) = watch::channel(true);
    let ended = tokio::spawn(async move {
        let _stage = stage;
        tokio::select! {
            done = worker.finish(|_| {}) => done,
            () = left_alone(&mut seen) => {
                let sentence = "nobody read on for a minute".to_owned();
                Err(convert::Error::Ours(sentence))
            }
        }
    });
    let mut piped = Piped {
        reads,
        abort: ended.abort_handle(),
        output: FramedRead::with_capacity(output, BytesCodec::new(), ROOM),
        ended: Some(ended),
        left: range.end - range.start,
        _permit: permit,
    };
    let first = piped.next().await?;
    let rest = stream::unfold(piped, |mut piped| async {
        let piece = piped.next().await.map_err(io::Error::other).transpose()?;
        Some((piece, piped))
    });
    Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
}

/// Returns when nobody has read for too long.
async fn left_alone(reads: &mut watch::Receiver<bool>) {
    loop {
        if reads.wait_for(|reads| !reads).await.is_err() {
            // Whoever read is gone, and ends us.
            return std::future::pending().await;
        }
        let again = tokio::time::timeout(PATIENCE, reads.wait_for(|reads| *reads)).await;
        if again.is_err() {
            return;
        }
    }
}

/// A worker's output. Dropped, it takes the worker with it.
struct Piped {
    /// Whether somebody waits for the next piece.
    reads: watch::Sender<bool>,
    output: FramedRead<ChildStdout, BytesCodec>,
    ended: Option<JoinHandle<Result<u64, convert::Error>>>,
    abort: AbortHandle,
    /// Bytes still wanted.
    left: u64,
    _permit: OwnedSemaphorePermit,
}

impl Piped {
    /// The next piece; `None` when all that is wanted was read, or the worker says that it is
    /// done.
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.reads.send_replace(true);
        let piece = self.output.next().await;
        self.reads.send_replace(false);
        if let Some(piece) = piece {
            let mut piece = piece.map_err(ours)?;
            piece.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            self.left -= piece.len() as u64;
            return Ok(Some(piece.freeze()));
        }
        match self.ended.take() {
            // Nothing more comes, but is that all?
            Some(ended) => {
                ended.await.map_err(ours)??;
                Ok(None)
            }
            None => Ok(None),
        }
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
