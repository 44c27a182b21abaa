//! Digests of files of ours: of those that are there, and of those that a worker still writes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::bytes::{Raw, open, source, transient};
use crate::domain::{Expected, HashAlgo, Hashes};
use crate::ingest::{self, Digests};
use crate::jobs::meter::{Meter, Phase};
use crate::jobs::runner::Failure;
use crate::service::Service;
use crate::stores;

/// Bytes read at once behind a worker: when it has ended, what is left is told of.
const STRETCH: u64 = 8 << 20;

/// The digests of the beginning of a file whose rest is not there, or not read, yet. That the beginning
/// stays as it is says a worker, which could as well have written something else.
pub(super) struct Trail {
    path: PathBuf,
    digests: Digests,
}

impl Trail {
    /// Reads the file at `path` as far as is `settled`, for as long as somebody says so.
    pub(super) async fn follow(
        algo: HashAlgo,
        path: &Path,
        mut settled: watch::Receiver<u64>,
    ) -> Result<Self, Failure> {
        let mut digests = Digests::start(algo).map_err(transient)?;
        let mut file = None;
        loop {
            let (at, end) = (digests.size(), *settled.borrow_and_update());
            if at < end && settled.has_changed().is_ok() {
                let file = match &file {
                    Some(file) => Arc::clone(file),
                    None => file.insert(Arc::new(open(path)?)).clone(),
                };
                let stretch = at..end.min(at + STRETCH);
                let read = digests.feed(stores::read_stream(file, stretch)).await;
                read.map_err(|e| unread(path, e))?;
            } else if settled.changed().await.is_err() {
                let path = path.to_owned();
                return Ok(Self { path, digests });
            }
        }
    }

    /// Reads the rest of the file, which has `size` bytes, and makes it durable meanwhile.
    pub(super) async fn finish(mut self, size: u64, meter: &Arc<Meter>) -> Result<Hashes, Failure> {
        let at = self.digests.size();
        let left = size
            .checked_sub(at)
            .ok_or_else(|| Failure::Final("The conversion told of more than it wrote".into()))?;
        meter.begin(Phase::Verifying, Some(left), None);
        let file = Arc::new(open(&self.path)?);
        let synced = sync(file.clone());
        let rest = meter.count_in(stores::read_stream(file, at..size), false);
        let read = self.digests.feed(rest).await;
        read.map_err(|e| unread(&self.path, e))?;
        let (_, hashes) = self.digests.finish().await.map_err(transient)?;
        synced.await?;
        Ok(hashes)
    }
}

/// Begins at once.
fn sync(file: Arc<File>) -> impl Future<Output = Result<(), Failure>> {
    let synced = tokio::task::spawn_blocking(move || file.sync_all());
    async {
        let synced = synced.await.map_err(std::io::Error::other).flatten();
        synced.map_err(|e| Failure::Transient(format!("making the output durable: {e}").into()))
    }
}

/// Those of the `size` bytes of a file.
pub(super) async fn of_file(
    path: &Path,
    size: u64,
    algo: HashAlgo,
    meter: &Arc<Meter>,
) -> Result<Hashes, Failure> {
    meter.begin(Phase::Verifying, Some(size), None);
    let body = meter.count_in(stores::read_stream(Arc::new(open(path)?), 0..size), false);
    let digested = ingest::digest(body, algo).await;
    Ok(digested.map_err(|e| unread(path, e))?.1)
}

/// What sends the bytes is a file of ours, and no client.
fn unread(path: &Path, error: ingest::Error) -> Failure {
    match error {
        ingest::Error::Client(e) => {
            Failure::Transient(format!("reading {}: {e}", path.display()).into())
        }
        other => transient(other),
    }
}

/// Holds the digest of a file's bytes against what its caller expects; what is made for that is kept.
pub(super) async fn check(
    svc: &Service,
    mut raw: Raw,
    expected: &Expected,
    meter: &Arc<Meter>,
) -> Result<Raw, Failure> {
    let of = |hashes: &Hashes| match expected.algo {
        HashAlgo::Md5 => hashes.checksum.clone(),
        algo => (hashes.algo == algo.name()).then(|| hashes.value.clone()),
    };
    let ours = svc.config.import.hash_algo();
    let got = match raw.hashes.as_ref().and_then(of) {
        Some(known) => known,
        None if matches!(expected.algo, HashAlgo::Md5) || expected.algo == ours => {
            let hashes = of_file(&raw.path, raw.size, ours, meter).await?;
            let got = of(&hashes).unwrap_or_default();
            raw.hashes = Some(hashes);
            got
        }
        None => {
            of_file(&raw.path, raw.size, expected.algo, meter)
                .await?
                .value
        }
    };
    let checked = expected.check(&got);
    checked.map_err(|sentence| Failure::Final(sentence.into()))?;
    Ok(raw)
}

/// The same of what a compressed file holds.
pub(super) async fn check_content(
    svc: &Arc<Service>,
    raw: &Raw,
    expected: &Expected,
) -> Result<(), Failure> {
    let checked = ingest::content::check(svc, Some(source(&raw.path)?), expected).await;
    checked.map_err(|e| match e {
        ingest::Error::OtherDigest(reason) | ingest::Error::Refused { reason } => {
            Failure::Final(reason.into())
        }
        other => transient(other),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// The digests of a file that is written, and told of, in such steps.
    async fn followed(path: &Path, steps: &[u64], size: u64) -> Result<Hashes, Failure> {
        let (tell, settled) = watch::channel(0);
        let writer = async {
            for end in steps {
                tell.send_replace(*end);
                tokio::task::yield_now().await;
            }
            drop(tell);
            Ok(())
        };
        let trail = Trail::follow(HashAlgo::Sha256, path, settled);
        let (trail, ()) = tokio::try_join!(trail, writer)?;
        trail.finish(size, &Arc::default()).await
    }

    #[tokio::test]
    async fn a_trail_comes_to_the_digests_of_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let size = 3 * STRETCH + 5;
        file.as_file().set_len(size).unwrap();
        for at in [0, STRETCH - 2, size - 4] {
            file.as_file().write_all_at(b"data", at).unwrap();
        }
        let meter = Arc::default();
        let whole = of_file(file.path(), size, HashAlgo::Sha256, &meter).await;
        let whole = whole.unwrap();
        let steps: [&[u64]; 4] = [&[], &[1, STRETCH], &[STRETCH + 1, size], &[size, size]];
        for steps in steps {
            let hashes = followed(file.path(), steps, size).await.unwrap();
            assert_eq!(hashes, whole, "{steps:?}");
        }
    }

    #[tokio::test]
    async fn more_than_there_is_gives_no_digests() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(100).unwrap();
        let (_tell, settled) = watch::channel(101);
        let trail = Trail::follow(HashAlgo::Sha256, file.path(), settled).await;
        assert!(trail.is_err());

        let mut digests = Digests::start(HashAlgo::Sha256).unwrap();
        let read = stores::read_stream(Arc::new(open(file.path()).unwrap()), 0..80);
        digests.feed(read).await.unwrap();
        let path = file.path().to_owned();
        let trail = Trail { path, digests };
        assert!(trail.finish(70, &Arc::default()).await.is_err());
    }
}
