//! Getting the bytes of an import, judged and in the form they will have in the stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::inspect::Inspection;
use formats::{FileSource, container};
use tokio::sync::watch;

use super::digests::{self, Trail};
use super::pass::{Origin, of_taking};
use super::publish::of_store;
use super::{ImportJob, Scratch};
use crate::catalog::staged;
use crate::convert::{self, Plan};
use crate::domain::{Expected, Hashes, Image, Measured};
use crate::fetch;
use crate::ingest::{self, Look};
use crate::jobs::meter::{Meter, Phase};
use crate::jobs::runner::{Failure, chain};
use crate::service::Service;
use crate::stores::{self, Store};
use crate::telemetry::Stage;

/// What goes into the stores.
pub(super) enum Bytes {
    /// A file of ours.
    File(Ready),
    /// What the image's other locations hold.
    Copy(Image),
}

/// Bytes ready to be published.
pub(super) struct Ready {
    path: PathBuf,
    pub(super) size: u64,
    pub(super) virtual_size: Option<u64>,
    pub(super) hashes: Hashes,
    /// The disk format they were converted to, where they were.
    pub(super) converted_to: Option<&'static str>,
}

/// A file with the bytes as they came.
pub(super) struct Raw {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Where somebody needed them so far.
    pub(super) hashes: Option<Hashes>,
}

impl ImportJob {
    /// Gets the bytes, judges them, unpacks and converts them where that is asked for.
    pub(super) async fn prepare(
        &self,
        svc: &Arc<Service>,
        image: &Image,
        origin: Option<&Origin>,
        scratch: &Scratch,
        meter: &Arc<Meter>,
    ) -> Result<Ready, Failure> {
        let form = self.form(svc)?;
        let (raw, found) = self.obtain(svc, image, origin, scratch, meter).await?;
        let image = origin.map_or(image, |origin| &origin.image);
        match convert::decide(image, &found, form.as_ref(), &svc.config)
            .map_err(|reason| Failure::Final(reason.into()))?
        {
            Plan::Keep { virtual_size } => {
                let algo = svc.config.import.hash_algo();
                let hashes = match raw.hashes {
                    Some(hashes) => hashes,
                    None => digests::of_file(&raw.path, raw.size, algo, meter).await?,
                };
                Ok(Ready {
                    path: raw.path,
                    size: raw.size,
                    virtual_size,
                    hashes,
                    converted_to: None,
                })
            }
            Plan::Convert { request, target } => {
                convert(svc, &raw, &request, target, &scratch.output, meter).await
            }
        }
    }

    /// Gets the bytes and looks at them, without what is around them where that is to be so.
    pub(super) async fn obtain(
        &self,
        svc: &Arc<Service>,
        image: &Image,
        origin: Option<&Origin>,
        scratch: &Scratch,
        meter: &Arc<Meter>,
    ) -> Result<(Raw, Inspection), Failure> {
        let form = self.form(svc)?;
        let converts = form.is_some();
        let decompresses = svc.config.import.decompress;
        let as_it_is = !converts && !decompresses && !self.appliance;
        let raw = match origin {
            Some(origin) => {
                let to = &scratch.fetched;
                self.fetch(svc, origin, to, as_it_is, meter).await?
            }
            None => {
                let raw = staged_bytes(svc, image).await?;
                match self.expected_of(Measured::Sent) {
                    Some(expected) => digests::check(svc, raw, expected, meter).await?,
                    None => raw,
                }
            }
        };
        let image = origin.map_or(image, |origin| &origin.image);
        let of_content = self.expected_of(Measured::Content);
        let is_compressed = image.container_format.as_deref() == Some("compressed");
        let unpacks = !is_compressed && !as_it_is;
        let raw = if unpacks && wrapper(svc, &raw.path).await? {
            // A conversion makes something else of it; what must have some digest is read once nobody
            // can write it any more.
            let is_followed = !converts && !self.appliance && of_content.is_none();
            unpack(svc, &raw, &scratch.unpacked, is_followed, meter).await?
        } else {
            raw
        };
        let look = if as_it_is {
            Look::Beginning
        } else {
            Look::Whole
        };
        meter.begin(Phase::Inspecting, Some(raw.size), None);
        let found = describe(svc, &raw.path, look).await?;
        let raw = match of_content {
            Some(expected) if found.compression.is_some() => {
                meter.begin(Phase::Verifying, Some(raw.size), None);
                digests::check_content(svc, &raw, expected).await?;
                raw
            }
            Some(expected) => digests::check(svc, raw, expected, meter).await?,
            None => raw,
        };
        Ok((raw, found))
    }

    /// The digest the data must have, if it is of those bytes.
    pub(super) fn expected_of(&self, of: Measured) -> Option<&Expected> {
        self.expected.as_ref().filter(|e| e.of == of)
    }

    /// Downloads into a file of this run.
    async fn fetch(
        &self,
        svc: &Arc<Service>,
        origin: &Origin,
        to: &Path,
        as_it_is: bool,
        meter: &Arc<Meter>,
    ) -> Result<Raw, Failure> {
        let (body, announced) = self.open(svc, origin, meter).await?;
        let image = &origin.image;
        let taken = ingest::take(svc, image, body, &announced, to, as_it_is).await;
        let staged = taken.map_err(|e| match e {
            ingest::Error::StoreFull => Failure::Final("The staging area is full".into()),
            other => of_taking(other, image),
        })?;
        Ok(Raw {
            path: to.to_owned(),
            size: staged.size,
            hashes: Some(staged.hashes),
        })
    }
}

/// The compression around a file that is to be taken off.
async fn wrapper(svc: &Arc<Service>, path: &Path) -> Result<bool, Failure> {
    let (source, limits) = (source(path)?, svc.limits());
    let found = tokio::task::spawn_blocking(move || container::wrapper(&source, &limits)).await;
    let found = found.map_err(|e| Failure::Transient(e.to_string().into()))?;
    let found = found.map_err(|e| of_worker(e.into()))?;
    Ok(found.is_some())
}

/// Takes the wrapper off, in a worker process; where that `is_followed`, its digests are made meanwhile.
async fn unpack(
    svc: &Arc<Service>,
    raw: &Raw,
    to: &Path,
    is_followed: bool,
    meter: &Arc<Meter>,
) -> Result<Raw, Failure> {
    let request = convert::unpack(&svc.config);
    meter.begin(Phase::Decompressing, None, None);
    let algo = svc.config.import.hash_algo();
    let (tell, settled) = watch::channel(0);
    let worked = work(svc, &request, raw, to, tell, meter);
    let (size, hashes) = if is_followed {
        let (size, trail) = tokio::try_join!(worked, Trail::follow(algo, to, settled))?;
        (size, Some(trail.finish(size, meter).await?))
    } else {
        (worked.await?, None)
    };
    let path = to.to_owned();
    Ok(Raw { path, size, hashes })
}

/// Runs a worker over `raw`, which writes `to`, and tells how much of that stays as it is.
async fn work(
    svc: &Arc<Service>,
    request: &convert::Request,
    raw: &Raw,
    to: &Path,
    tell: watch::Sender<u64>,
    meter: &Arc<Meter>,
) -> Result<u64, Failure> {
    meter.writes(to);
    let report = move |step: convert::Step| {
        meter.has_read(step.done, Some(step.total));
        tell.send_replace(step.settled);
    };
    let worked = convert::supervise(svc, request, &raw.path, to, report).await;
    worked.map_err(of_worker)
}

pub(super) async fn convert(
    svc: &Arc<Service>,
    raw: &Raw,
    request: &convert::Request,
    target: formats::Format,
    to: &Path,
    meter: &Arc<Meter>,
) -> Result<Ready, Failure> {
    meter.begin(Phase::Converting, None, None);
    let stage = svc.metrics.stage(Stage::Convert);
    let algo = svc.config.import.hash_algo();
    let (tell, settled) = watch::channel(0);
    let worked = work(svc, request, raw, to, tell, meter);
    let (virtual_size, trail) = tokio::try_join!(worked, Trail::follow(algo, to, settled))?;
    drop(stage);
    // What a worker wrote is judged like anything else that came in.
    let written = describe(svc, to, Look::Whole).await?;
    let is_raw = target == formats::Format::Raw;
    if (!is_raw && written.format != target) || written.unsafe_finding().is_some() {
        let sentence = format!(
            "The conversion gave {} instead of a safe {target}",
            written.format
        );
        return Err(Failure::Final(sentence.into()));
    }
    let cap = svc.config.quota.image_size_cap;
    if written.file_size > cap {
        let sentence = format!(
            "The conversion gave {} bytes, more than the {cap} allowed",
            written.file_size
        );
        return Err(Failure::Final(sentence.into()));
    }
    let hashes = trail.finish(written.file_size, meter).await?;
    Ok(Ready {
        path: to.to_owned(),
        size: written.file_size,
        // What was only taken out is no disk to the worker.
        virtual_size: match request.unpack {
            true => written.virtual_size,
            false => Some(virtual_size),
        },
        hashes,
        converted_to: Some(target.name()),
    })
}

impl Ready {
    /// What was written into the stores already, as it came.
    pub(super) fn written(size: u64, virtual_size: Option<u64>, hashes: Hashes) -> Self {
        Self {
            path: PathBuf::new(),
            size,
            virtual_size,
            hashes,
            converted_to: None,
        }
    }
}

impl Bytes {
    /// How many they are.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::File(ready) => ready.size,
            Self::Copy(image) => image.size.unwrap_or(0),
        }
    }

    /// Makes them the blob at `url`.
    pub(super) async fn write(
        &self,
        svc: &Arc<Service>,
        store: &Store,
        url: &str,
        meter: &Arc<Meter>,
    ) -> Result<(), Failure> {
        let name = &store.config.id;
        match self {
            Self::File(ready) => write_file(store, url, ready, meter)
                .await
                .map_err(|e| of_store(name, &e)),
            Self::Copy(image) => {
                ingest::copy(svc, image, store, url, |body| meter.count_in(body, true))
                    .await
                    .map_err(|e| match e {
                        ingest::Error::StoreUnavailable(e) => of_store(name, &e),
                        ingest::Error::StoreFull => {
                            Failure::Final(format!("Store {name} is full").into())
                        }
                        ingest::Error::NoData => {
                            Failure::Final("The data of the image cannot be found".into())
                        }
                        ingest::Error::Refused { reason } => Failure::Final(reason.into()),
                        other => transient(other),
                    })
            }
        }
    }
}

async fn staged_bytes(svc: &Arc<Service>, image: &Image) -> Result<Raw, Failure> {
    let mut tx = svc.catalog.read().await?;
    let staged = staged::find(&mut tx, &image.id).await?;
    let staged = staged.ok_or_else(|| Failure::Final("Staged data is missing".into()))?;
    Ok(Raw {
        path: svc.staging.path(&image.id),
        size: staged.size,
        hashes: Some(staged.hashes),
    })
}

async fn describe(svc: &Arc<Service>, path: &Path, look: Look) -> Result<Inspection, Failure> {
    ingest::describe(svc, source(path)?, look)
        .await
        .map_err(transient)
}

/// Makes the file the blob at `url`.
async fn write_file(
    store: &Store,
    url: &str,
    ready: &Ready,
    meter: &Arc<Meter>,
) -> stores::Result<()> {
    let count = |body| meter.count_in(body, true);
    let is_linked = stores::put_file(&store.blobs, url, &ready.path, ready.size, count).await?;
    if is_linked {
        meter.moved(ready.size, true);
    }
    Ok(())
}

pub(super) fn open(path: &Path) -> Result<std::fs::File, Failure> {
    std::fs::File::open(path)
        .map_err(|e| Failure::Transient(format!("opening {}: {e}", path.display()).into()))
}

pub(super) fn source(path: &Path) -> Result<Arc<dyn formats::Source>, Failure> {
    let source = FileSource::new(open(path)?).map_err(|e| Failure::Transient(chain(&e).into()))?;
    Ok(Arc::new(source))
}

fn of_worker(error: convert::Error) -> Failure {
    match error {
        convert::Error::Image(reason) => Failure::Final(reason.into()),
        convert::Error::Ours(reason) => Failure::Transient(reason.into()),
    }
}

/// What clients are told of a source is that it did not answer; the log says more.
#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn of_fetch(error: fetch::Error) -> Failure {
    tracing::warn!(
        error = chain(&error),
        "a source of an import could not be read"
    );
    if error.is_transient() {
        Failure::Transient(error.to_string().into())
    } else {
        Failure::Final(error.to_string().into())
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub(super) fn transient(error: ingest::Error) -> Failure {
    Failure::Transient(chain(&error).into())
}
