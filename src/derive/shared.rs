//! One conversion into a file of ours, for however many ask for it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tempfile::NamedTempFile;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{AbortHandle, spawn_blocking};

use super::source::{self, ours};
use super::{Error, Order, keep, ova};
use crate::convert;
use crate::ingest::Body;
use crate::service::Service;
use crate::telemetry::Stage;

/// Bytes read at once for a client.
const PIECE: u64 = 512 << 10;

/// What is under way, by the keys of the orders.
#[derive(Default)]
pub(super) struct Registry(Mutex<HashMap<String, Weak<Running>>>);

/// A conversion under way, or over and still being read. Its file is gone, and its worker dies,
/// when nobody waits for it any more.
pub(super) struct Running {
    file: Arc<File>,
    state: watch::Receiver<State>,
    task: AbortHandle,
    /// Until nobody reads its file any more, or who does not read on could fill the disk.
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Debug)]
enum State {
    /// So many bytes are there, in order.
    Written(u64),
    /// All are: so many.
    Done(u64),
    Failed(Error),
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The conversion that `order` asks for, begun if nobody has yet.
///
/// # Errors
/// `Busy`, or `Ours` when there is no room to begin.
pub(super) fn join(svc: &Arc<Service>, order: &Order) -> Result<Arc<Running>, Error> {
    let Some(key) = &order.key else {
        return begin(svc, order);
    };
    let registry = &svc.derivations.shared.0;
    let mut all = registry.lock().unwrap_or_else(PoisonError::into_inner);
    let found = all.get(key).and_then(Weak::upgrade);
    if let Some(running) = found.filter(|running| !running.has_failed()) {
        return Ok(running);
    }
    all.retain(|_, running| running.strong_count() > 0);
    let running = begin(svc, order)?;
    all.insert(key.clone(), Arc::downgrade(&running));
    Ok(running)
}

fn begin(svc: &Arc<Service>, order: &Order) -> Result<Arc<Running>, Error> {
    let permit = svc.derivations.permit()?;
    let file = svc.staging.derived().map_err(ours)?;
    let reading = file.as_file().try_clone().map_err(ours)?;
    let (tell, state) = watch::channel(State::Written(0));
    let task = tokio::spawn(run(svc.clone(), order.clone(), file, tell));
    Ok(Arc::new(Running {
        file: Arc::new(reading),
        state,
        task: task.abort_handle(),
        _permit: permit,
    }))
}

async fn run(svc: Arc<Service>, order: Order, file: NamedTempFile, tell: watch::Sender<State>) {
    let stage = svc.metrics.stage(Stage::Convert);
    let made = match order.wish.ova() {
        Some(options) => ova::write(&svc, &order, options, file.as_file()).await,
        None => convert(&svc, &order, file.as_file(), &tell).await,
    };
    drop(stage);
    let size = match made {
        Ok(size) => size,
        Err(e) => {
            tracing::warn!(image.id = %order.images[0].id, error = %e, "a conversion on demand failed");
            tell.send_replace(State::Failed(e));
            return;
        }
    };
    tell.send_replace(State::Done(size));
    if keep::keeps(&svc, &order) {
        // Found here until it can be found in the store, whoever goes away meanwhile.
        let found = order.key.as_ref().and_then(|key| {
            let all = svc.derivations.shared.0.lock();
            all.unwrap_or_else(PoisonError::into_inner)
                .get(key)?
                .upgrade()
        });
        tokio::spawn(async move {
            keep::put(&svc, &order, file, size).await;
            drop(found);
        });
    }
}

/// Converts the one image into `file`; answers its size.
async fn convert(
    svc: &Arc<Service>,
    order: &Order,
    file: &File,
    tell: &watch::Sender<State>,
) -> Result<u64, Error> {
    let image = &order.images[0];
    let request = order.wish.request(image, &svc.config)?;
    let source = source::open(svc, image).await?;
    let output = file.try_clone().map_err(ours)?;
    let worker = convert::start(svc, &request, source, output)?;
    let heard = |_| {
        if request.in_order.is_some()
            && let Ok(meta) = file.metadata()
        {
            tell.send_replace(State::Written(meta.len()));
        }
    };
    worker.finish(heard).await?;
    Ok(file.metadata().map_err(ours)?.len())
}

impl Running {
    fn has_failed(&self) -> bool {
        matches!(*self.state.borrow(), State::Failed(_))
    }

    /// Waits until `is_enough`; answers what came.
    async fn until(&self, is_enough: impl Fn(&State) -> bool) -> Result<State, Error> {
        let mut state = self.state.clone();
        let reached = state.wait_for(|state| matches!(state, State::Failed(_)) || is_enough(state));
        let reached = reached.await.map_err(ours)?.clone();
        match reached {
            State::Failed(e) => Err(e),
            state => Ok(state),
        }
    }

    /// Bytes of it all, when it is over; `None` before that, unless it `waits`.
    pub(super) async fn size(&self, waits: bool) -> Result<Option<u64>, Error> {
        match self
            .until(|s| !waits || matches!(s, State::Done(_)))
            .await?
        {
            State::Done(size) => Ok(Some(size)),
            State::Written(_) | State::Failed(_) => Ok(None),
        }
    }
}

/// The bytes `range` of it, or all, as they are written. Answers when the first are there.
///
/// # Errors
/// Why it failed before that.
pub(super) async fn read(running: Arc<Running>, range: Option<Range<u64>>) -> Result<Body, Error> {
    let range = range.unwrap_or(0..u64::MAX);
    let start = range.start;
    running.until(|state| has(state, start)).await?;
    let pieces = stream::unfold((running, range), |(running, mut range)| async {
        let piece = next(&running, &mut range).await.transpose()?;
        Some((piece, (running, range)))
    });
    Ok(pieces.boxed())
}

/// Whether there is something to read at `at`, or never will be.
fn has(state: &State, at: u64) -> bool {
    match state {
        State::Written(written) => *written > at,
        State::Done(_) | State::Failed(_) => true,
    }
}

async fn next(running: &Running, range: &mut Range<u64>) -> io::Result<Option<Bytes>> {
    let at = range.start;
    if at >= range.end {
        return Ok(None);
    }
    let state = running.until(|state| has(state, at)).await;
    let (State::Written(there) | State::Done(there)) = state.map_err(io::Error::other)? else {
        return Ok(None);
    };
    let end = range.end.min(there).min(at + PIECE);
    if at >= end {
        return Ok(None);
    }
    let file = running.file.clone();
    let piece = spawn_blocking(move || {
        let mut piece = vec![0; (end - at) as usize];
        file.read_exact_at(&mut piece, at)?;
        Ok::<_, io::Error>(Bytes::from(piece))
    });
    let piece = piece.await.map_err(io::Error::other)??;
    range.start = end;
    Ok(Some(piece))
}
