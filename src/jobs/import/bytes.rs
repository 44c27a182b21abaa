//! Getting the bytes of an import, judged and in the form they will have in the stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use formats::FileSource;
use formats::inspect::Inspection;

use super::pass::{Origin, of_taking};
use super::publish::of_store;
use super::{ImportJob, Scratch};
use crate::catalog::staged;
use crate::convert::{self, Plan};
use crate::domain::{Expected, HashAlgo, Hashes, Image, Measured};
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
    size: u64,
    hashes: Hashes,
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
            Plan::Keep { virtual_size } => Ok(Ready {
                path: raw.path,
                size: raw.size,
                virtual_size,
                hashes: raw.hashes,
                converted_to: None,
            }),
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
                if let Some(expected) = self.expected_of(Measured::Sent) {
                    check(&raw, expected, meter).await?;
                }
                raw
            }
        };
        let image = origin.map_or(image, |origin| &origin.image);
        let look = if as_it_is {
            Look::Beginning
        } else {
            Look::Whole
        };
        meter.begin(Phase::Inspecting, Some(raw.size), None);
        let found = describe(svc, &raw.path, look).await?;
        let of_content = self.expected_of(Measured::Content);
        let is_wrapped =
            found.compression.is_some() && image.container_format.as_deref() != Some("compressed");
        // A conversion takes the wrapper off as it goes, unless somebody must see what is in it.
        let unpacks = match converts {
            // Several read from it.
            _ if self.appliance => true,
            true => of_content.is_some(),
            false => decompresses,
        };
        let (raw, found) = if is_wrapped && unpacks {
            unpack(svc, &raw, &scratch.unpacked, meter).await?
        } else {
            (raw, found)
        };
        if let Some(expected) = of_content {
            if found.compression.is_some() {
                meter.begin(Phase::Verifying, Some(raw.size), None);
                check_content(svc, &raw, expected).await?;
            } else {
                check(&raw, expected, meter).await?;
            }
        }
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
            hashes: staged.hashes,
        })
    }
}

/// Takes the wrapper off, in a worker process.
async fn unpack(
    svc: &Arc<Service>,
    raw: &Raw,
    to: &Path,
    meter: &Arc<Meter>,
) -> Result<(Raw, Inspection), Failure> {
    let request = convert::unpack(&svc.config);
    meter.begin(Phase::Decompressing, None, None);
    meter.writes(to);
    let report = |done, total| meter.has_read(done, Some(total));
    convert::supervise(svc, &request, &raw.path, to, report)
        .await
        .map_err(of_worker)?;
    let found = describe(svc, to, Look::Beginning).await?;
    let algo = svc.config.import.hash_algo();
    let (size, hashes) = digest(to, found.file_size, algo, meter).await?;
    let path = to.to_owned();
    Ok((Raw { path, size, hashes }, found))
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
    meter.writes(to);
    let report = |done, total| meter.has_read(done, Some(total));
    let stage = svc.metrics.stage(Stage::Convert);
    let virtual_size = convert::supervise(svc, request, &raw.path, to, report)
        .await
        .map_err(of_worker)?;
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
    let algo = svc.config.import.hash_algo();
    let (size, hashes) = digest(to, written.file_size, algo, meter).await?;
    Ok(Ready {
        path: to.to_owned(),
        size,
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
        hashes: staged.hashes,
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

async fn digest(
    path: &Path,
    size: u64,
    algo: HashAlgo,
    meter: &Arc<Meter>,
) -> Result<(u64, Hashes), Failure> {
    meter.begin(Phase::Verifying, Some(size), None);
    let body = meter.count_in(stores::read_stream(Arc::new(open(path)?), 0..size), false);
    ingest::digest(body, algo).await.map_err(transient)
}

fn open(path: &Path) -> Result<std::fs::File, Failure> {
    std::fs::File::open(path)
        .map_err(|e| Failure::Transient(format!("opening {}: {e}", path.display()).into()))
}

pub(super) fn source(path: &Path) -> Result<Arc<dyn formats::Source>, Failure> {
    let source = FileSource::new(open(path)?).map_err(|e| Failure::Transient(chain(&e).into()))?;
    Ok(Arc::new(source))
}

/// Holds the digest of a file's bytes against what its caller expects.
async fn check(raw: &Raw, expected: &Expected, meter: &Arc<Meter>) -> Result<(), Failure> {
    let known = match expected.algo {
        HashAlgo::Md5 => raw.hashes.checksum.clone(),
        algo if raw.hashes.algo == algo.name() => Some(raw.hashes.value.clone()),
        _ => None,
    };
    let got = match known {
        Some(known) => known,
        None => {
            let digested = digest(&raw.path, raw.size, expected.algo, meter).await?;
            digested.1.value
        }
    };
    let checked = expected.check(&got);
    checked.map_err(|sentence| Failure::Final(sentence.into()))
}

/// The same of what a compressed file holds.
async fn check_content(svc: &Arc<Service>, raw: &Raw, expected: &Expected) -> Result<(), Failure> {
    let checked = ingest::content::check(svc, Some(source(&raw.path)?), expected).await;
    checked.map_err(|e| match e {
        ingest::Error::OtherDigest(reason) | ingest::Error::Refused { reason } => {
            Failure::Final(reason.into())
        }
        other => transient(other),
    })
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
