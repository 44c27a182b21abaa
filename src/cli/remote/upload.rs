//! `glint image upload`: a file becomes an image's data, and the digest that the service made of it
//! is held against our own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::account::Account;
use super::import::{From, Import};
use super::local::{self, Local};
use super::made;
use super::plain::Door;
use super::record::{Digest, Record};
use super::session::Session;
use super::state::{self, Memory, State, parts_of};
use super::tus::{Fate, Outgoing, Tus};
use super::{Error, Meter, Way, watched};
use crate::cli::output;
use crate::cli::{Exit, size, target};
use crate::domain::HashAlgo;

/// The hash that services make unless told otherwise.
const USUAL: HashAlgo = HashAlgo::Sha512;

/// What `sent` says when all the data has been sent, and not only read.
const ALL: u64 = u64::MAX;
/// The protocol of an import of what was staged.
const STAGED: &str = "glance-direct";

/// Upload a file as an image's data, checked against the digest that comes back
///
/// The image is made, by what is found in the file unless formats are given. A large file goes in
/// parts, several at once, and each goes on where it breaks off. After an end of this program
/// `--resume` goes on from there. A service that knows no uploads in parts (tus 1.0) gets the file
/// in one request.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    account: Account,

    /// Name of the image; that of FILE unless given
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,

    /// The image's disk format; found in FILE unless given
    #[arg(long, value_name = "FMT")]
    pub(super) disk_format: Option<String>,

    /// The image's container format; found in FILE unless given
    #[arg(long, value_name = "FMT")]
    pub(super) container_format: Option<String>,

    /// A property of the image, or one of its fields (visibility, min_disk, …); may be repeated
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = target::pair)]
    pub(super) properties: Vec<(String, String)>,

    /// An image that waits for its data, instead of a new one
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = ["name", "disk_format", "container_format", "properties"]
    )]
    id: Option<String>,

    /// Store of the service for the data
    #[arg(long, value_name = "NAME")]
    store: Option<String>,

    /// Stage the file and have the service import it, in place of a plain upload
    #[arg(long)]
    import: bool,

    /// Have the import convert the disk into this format; implies --import
    #[arg(long, value_name = "FMT")]
    convert: Option<String>,

    /// Have the service import what this URL names, in place of a file; wants --disk-format or --id
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "resume"])]
    from_url: Option<String>,

    /// Go on with an earlier upload of FILE, where there is one
    #[arg(long)]
    resume: bool,

    /// Size of a part, at least
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size::parse)]
    part_size: u64,

    #[command(flatten)]
    way: Way,

    /// File to upload
    #[arg(value_name = "FILE", required_unless_present = "from_url")]
    file: Option<PathBuf>,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    id: String,
    filename: Option<PathBuf>,
    status: String,
    disk_format: Option<String>,
    container_format: Option<String>,
    /// Bytes that the service stores.
    size: Option<u64>,
    virtual_size: Option<u64>,
    /// How it was brought there: `tus`, `put`, `glance-direct`, `web-download`.
    protocol: &'static str,
    /// Bytes that the service had from an earlier time.
    resumed_at: u64,
    /// The digest that the service and we have made; of what it stores in another form there is none
    /// that could be compared.
    hash_algo: Option<&'static str>,
    hash_value: Option<String>,
    /// Whether the service has made a digest.
    #[serde(skip)]
    has_digest: bool,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let meter = Arc::new(Meter::default());
    let is_noted = AtomicBool::new(false);
    let done = watched(&meter, args.way.show(), async {
        let session = Session::open(&args.account, 0).await?;
        match (&args.file, &args.from_url) {
            (Some(file), _) => upload(args, file, &session, &meter, &is_noted).await,
            (None, Some(url)) => fetch(args, url, &session, &meter).await,
            (None, None) => bail!("neither FILE nor --from-url is given"),
        }
    });
    if done.is_err() && is_noted.into_inner() && !args.way.quiet {
        output::talk("what is there already is kept: --resume goes on with it");
    }
    let report = done?;
    args.way.sum_up(&report, || report.in_words())
}

impl Report {
    fn in_words(&self) -> String {
        let format = self.disk_format.as_deref().unwrap_or_default();
        let checked = match self.hash_algo {
            Some(algo) => format!("{algo} is right"),
            None if self.filename.is_none() => "fetched by the service, and not compared".into(),
            None if !self.has_digest => "not compared: the service tells no digest".into(),
            None => "stored in another form than it was sent in, and not compared".into(),
        };
        format!(
            "{}: {} {}, {checked}\n",
            output::Plain(&self.id),
            output::Plain(format),
            output::size(self.size.unwrap_or(0))
        )
    }
}

async fn upload(
    args: &Args,
    file: &Path,
    session: &Session,
    meter: &Arc<Meter>,
    is_noted: &AtomicBool,
) -> anyhow::Result<Report> {
    let local = spawn_blocking({
        let path = file.to_owned();
        move || Local::open(&path).with_context(|| path.display().to_string())
    });
    let local = local.await??;
    let memory = begin(args, file, session, &local).await?;
    let image = memory.state().image;
    is_noted.store(memory.is_kept(), Ordering::Relaxed);
    let over = async {
        is_noted.store(false, Ordering::Relaxed);
        memory.forget().await
    };
    let (sent, seen) = watch::channel(0);
    let brought = bring(args, session, &local, &memory, meter, (sent.clone(), seen)).await;
    let error = match brought {
        Ok(report) => {
            over.await?;
            return Ok(report);
        }
        Err(e) => e,
    };
    // All is there: only a verdict on it takes it away again.
    let is_sent = *sent.borrow() == ALL;
    let known = error.downcast_ref::<Error>();
    let is_final = match known {
        Some(e) if is_sent => e.is_verdict(),
        Some(e) => e.is_final(),
        None => false,
    };
    if is_final || matches!(known, Some(Error::Changed)) {
        over.await?;
    }
    if is_final && memory.state().is_ours {
        made::remove(session, &image).await;
    }
    Err(error)
}

/// The image and the parts of the upload: those of an earlier time, or new ones.
async fn begin(
    args: &Args,
    file: &Path,
    session: &Session,
    local: &Local,
) -> anyhow::Result<Memory> {
    let name = file.display();
    let place = state::place(&local.stamp.path, session.base());
    if args.resume {
        let found = spawn_blocking({
            let place = place.clone();
            move || place.map_or(Ok(None), |place| state::recall(&place))
        });
        let found = found
            .await?
            .context("reading what is noted of the upload")?;
        if let Some(state) = found {
            if state.file != local.stamp {
                bail!("{name} is not what it was when its upload began: leave out --resume");
            }
            if args.id.as_ref().is_some_and(|id| *id != state.image) {
                bail!("the upload that was begun is of image {}", state.image);
            }
            return Ok(Memory::new(place, state));
        }
    }
    let record = match &args.id {
        Some(id) => made::waiting(session, id).await?,
        None => {
            let formats = made::found(args, file).await?;
            made::make(args, session, formats, file.file_name()).await?
        }
    };
    let least = local.size().div_ceil(state::MOST_PARTS);
    let part = args.part_size.max(least).max(1);
    let state = State {
        file: local.stamp.clone(),
        image: record.id,
        is_ours: args.id.is_none(),
        disk_format: record.disk_format,
        container_format: record.container_format,
        part,
        uploads: vec![None; parts_of(local.size(), part)],
    };
    let memory = Memory::new(place, state);
    memory.save().await?;
    Ok(memory)
}

/// Sends the file, and compares the digests. `sent` tells how far it is.
async fn bring(
    args: &Args,
    session: &Session,
    local: &Local,
    memory: &Memory,
    meter: &Arc<Meter>,
    (sent, seen): (watch::Sender<u64>, watch::Receiver<u64>),
) -> anyhow::Result<Report> {
    let state = memory.state();
    meter.start(0, local.size());
    let tus = Tus {
        out: Outgoing {
            session,
            image: &state.image,
            store: args.store.as_deref(),
            local: local.clone(),
            meter: meter.clone(),
            sent,
        },
        memory,
        part: state.part,
        parallel: usize::from(args.way.parallel),
        had: AtomicU64::new(0),
    };
    let (protocol, ours) = tokio::try_join!(
        send(args, &tus),
        local::digest(local.file.clone(), local.size(), USUAL, seen)
    )?;
    if tus.out.fate().await? != Fate::Active {
        bail!("the service has not made image {} of the data", state.image);
    }
    let record = Record::find(session, &state.image).await?;
    let may_differ = protocol == STAGED;
    let compared = compare(local, &state, &record, ours, may_differ).await;
    let local = local.clone();
    if !spawn_blocking(move || local.is_unchanged()).await?? {
        return Err(match compared {
            Ok(_) => anyhow::Error::new(Error::Changed).context(format!("image {}", state.image)),
            Err(e) => e.context("the file changed while it was sent"),
        });
    }
    let digest = compared?;
    let resumed_at = tus.had.into_inner();
    Ok(report(args, record, protocol, resumed_at, digest))
}

fn report(
    args: &Args,
    record: Record,
    protocol: &'static str,
    resumed_at: u64,
    digest: Option<Digest>,
) -> Report {
    Report {
        filename: args.file.clone(),
        protocol,
        resumed_at,
        has_digest: record.digest().is_some(),
        hash_algo: digest.as_ref().map(|d| d.algo.name()),
        hash_value: digest.map(|d| d.value),
        id: record.id,
        status: record.status,
        disk_format: record.disk_format,
        container_format: record.container_format,
        size: record.size,
        virtual_size: record.virtual_size,
    }
}

/// Has the service fetch what a URL names.
async fn fetch(args: &Args, url: &str, session: &Session, meter: &Meter) -> anyhow::Result<Report> {
    let record = match (&args.id, made::said(args)) {
        (Some(id), _) => made::waiting(session, id).await?,
        (None, Some(formats)) => {
            let name = name_of(url).map(OsString::from);
            made::make(args, session, formats, name.as_deref()).await?
        }
        (None, None) => bail!("what a URL names is not looked at here: say --disk-format"),
    };
    let image = record.id;
    if !args.way.quiet {
        output::talk(format_args!("importing image {}", output::Plain(&image)));
    }
    let import = Import {
        session,
        image: &image,
        from: From::Url(url),
        convert: args.convert.as_deref(),
        store: args.store.as_deref(),
    };
    let begun = import.begin().await;
    let is_refused = begun.as_ref().is_err_and(Error::is_refusal);
    let done = match begun {
        Ok(()) => import.follow(meter).await,
        Err(e) => Err(e.into()),
    };
    if let Err(e) = done {
        let is_verdict = e.downcast_ref().is_some_and(Error::is_verdict);
        if (is_refused || is_verdict) && args.id.is_none() {
            made::remove(session, &image).await;
        }
        return Err(e);
    }
    let record = Record::find(session, &image).await?;
    Ok(report(args, record, "web-download", 0, None))
}

/// The name of what a URL leads to: never of its host, or of who asks there.
fn name_of(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let name = url.path_segments()?.next_back()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Brings the file there: as asked for, or the best way that the service knows. Answers how.
async fn send(args: &Args, tus: &Tus<'_>) -> anyhow::Result<&'static str> {
    let out = &tus.out;
    let protocol = if args.import || args.convert.is_some() {
        import(args, out).await?;
        STAGED
    // It may be there: we were ended before we heard of it.
    } else if out.fate().await? == Fate::Active || tus.run().await? {
        "tus"
    } else {
        if !args.way.quiet {
            output::talk("the service takes no uploads in parts: sending the file in one request");
        }
        out.put(Door::File).await?;
        "put"
    };
    out.sent.send_replace(ALL);
    Ok(protocol)
}

/// Stages the file, and has it imported; or goes on where that was left.
async fn import(args: &Args, out: &Outgoing<'_>) -> anyhow::Result<()> {
    let import = Import {
        session: out.session,
        image: out.image,
        from: From::Staged,
        convert: args.convert.as_deref(),
        store: args.store.as_deref(),
    };
    let record = Record::find(out.session, out.image).await?;
    let is_begun = ["importing", "active"].contains(&record.status.as_str());
    if record.status == "uploading" {
        // So it is from the beginning of a staging on; it has a size when that has ended.
        if record.size != Some(out.local.size()) {
            bail!(
                "image {} is being staged by another request, or has something else staged: its \
                 import cannot begin",
                out.image
            );
        }
    } else if !is_begun {
        out.put(Door::Stage).await?;
    }
    out.sent.send_replace(ALL);
    if !is_begun {
        import.begin().await?;
    }
    import.follow(&out.meter).await
}

/// The digest that both have made, where the service stores what was sent. What `may_differ` is
/// taken in another form by being told so; a plain upload where it gets another format, or loses its
/// compression.
async fn compare(
    local: &Local,
    state: &State,
    record: &Record,
    ours: String,
    may_differ: bool,
) -> anyhow::Result<Option<Digest>> {
    if record.disk_format != state.disk_format || record.container_format != state.container_format
    {
        return Ok(None);
    }
    if let Some(found) = record.size.filter(|size| *size != local.size()) {
        let path = local.stamp.path.clone();
        let is_compressed = spawn_blocking(move || local::is_compressed(&path)).await?;
        // What cannot be looked at is not known to be.
        if may_differ || is_compressed.unwrap_or(false) {
            return Ok(None);
        }
        return Err(Error::Size {
            image: record.id.clone(),
            found,
            wanted: local.size(),
        }
        .into());
    }
    let Some(theirs) = record.digest() else {
        return Ok(None);
    };
    let ours = match theirs.algo {
        USUAL => ours,
        other => {
            let (_sent, seen) = watch::channel(ALL);
            local::digest(local.file.clone(), local.size(), other, seen).await?
        }
    };
    if ours == theirs.value {
        return Ok(Some(theirs));
    }
    Err(Error::Digest {
        algo: theirs.algo.name(),
        found: theirs.value,
        wanted: ours,
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_for_the_path_of_a_url() {
        assert_eq!(name_of("https://h/a/b.qcow2?c=/d#e").unwrap(), "b.qcow2");
        for url in [
            "http://user:secret@host",
            "http://user:secret@host/",
            "host",
        ] {
            assert_eq!(name_of(url), None, "{url}");
        }
    }
}
