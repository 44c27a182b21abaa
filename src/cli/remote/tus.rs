//! Uploads by tus 1.0: a file in one upload, or in several that the service puts together.
//! <https://tus.io/protocols/resumable-upload>

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use reqwest::{Body, Method, RequestBuilder, Response, StatusCode};
use tokio::sync::watch;

use super::local::Local;
use super::record::{self, Record};
use super::session::{self, PATIENCE, Session};
use super::state::{Memory, parts_of};
use super::tries::Tries;
use super::{Error, Meter};
use crate::stores::read_stream;

const RESUMABLE: (&str, &str) = ("tus-resumable", "1.0.0");
const OFFSET: &str = "upload-offset";
const CONCAT: &str = "upload-concat";
const OCTETS: &str = "application/offset+octet-stream";

/// Bytes on their way out.
pub(super) struct Outgoing<'a> {
    pub(super) session: &'a Session,
    pub(super) image: &'a str,
    /// The store that is asked for.
    pub(super) store: Option<&'a str>,
    pub(super) local: Local,
    pub(super) meter: Arc<Meter>,
    /// How far in the file what was sent reaches.
    pub(super) sent: watch::Sender<u64>,
}

/// What became of an image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It has its data.
    Active,
    /// It waits for data.
    Waits,
    /// It is gone, or of no use.
    Lost,
}

impl Outgoing<'_> {
    /// A body of these bytes of the file; `done` counts them.
    pub(super) fn body(&self, range: Range<u64>, done: &Arc<AtomicU64>) -> Body {
        let (meter, sent, done) = (self.meter.clone(), self.sent.clone(), done.clone());
        let mut at = range.start;
        let bytes = read_stream(self.local.file.clone(), range);
        Body::wrap_stream(bytes.inspect_ok(move |piece| {
            at += piece.len() as u64;
            meter.add(piece.len());
            done.fetch_add(piece.len() as u64, Ordering::Relaxed);
            sent.send_if_modified(|sent| {
                *sent < at && {
                    *sent = at;
                    true
                }
            });
        }))
    }

    /// An upload's request: it may take as long as it wants, but its bytes have to move.
    pub(super) async fn push(
        &self,
        method: Method,
        path: &str,
        range: Range<u64>,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let done = Arc::new(AtomicU64::new(0));
        let len = range.end - range.start;
        let push = self.session.send(method, path, |request| {
            // Anew, where the token had to be.
            self.meter.sub(done.swap(0, Ordering::Relaxed));
            fill(request)
                .header(CONTENT_LENGTH, len)
                .body(self.body(range.clone(), &done))
        });
        let stalled = async {
            let mut before = 0;
            loop {
                tokio::time::sleep(PATIENCE).await;
                let now = done.load(Ordering::Relaxed);
                if now == before && now < len {
                    return;
                }
                before = now;
            }
        };
        let answer = tokio::select! {
            answer = push => answer,
            () = stalled => Err(Error::Silent),
        };
        let answer = match answer {
            Ok(answer) => session::fine(answer).await,
            Err(e) => Err(e),
        };
        if answer.is_err() {
            // What of it counts, the service will say.
            self.meter.sub(done.load(Ordering::Relaxed));
        }
        answer
    }

    /// What has become of the image, once nobody is at work on it any more.
    pub(super) async fn fate(&self) -> Result<Fate, Error> {
        fate(self.session, self.image).await
    }
}

/// What has become of an image, once nobody is at work on it any more.
pub(super) async fn fate(session: &Session, image: &str) -> Result<Fate, Error> {
    loop {
        match Record::find(session, image).await?.status.as_str() {
            "active" => return Ok(Fate::Active),
            "queued" | "uploading" => return Ok(Fate::Waits),
            "saving" | "importing" => tokio::time::sleep(PATIENCE / 120).await,
            _ => return Ok(Fate::Lost),
        }
    }
}

/// An upload in parts that are remembered.
pub(super) struct Tus<'a> {
    pub(super) out: Outgoing<'a>,
    pub(super) memory: &'a Memory,
    /// Bytes of a part.
    pub(super) part: u64,
    /// Parts at once.
    pub(super) parallel: usize,
    /// Bytes that the service had before.
    pub(super) had: AtomicU64,
}

impl Tus<'_> {
    fn path(&self) -> String {
        format!("{}/upload", record::path(self.out.image))
    }

    /// How many parts there are; one is the file alone.
    fn parts(&self) -> usize {
        parts_of(self.out.local.size(), self.part)
    }

    fn range(&self, n: usize) -> Range<u64> {
        let start = n as u64 * self.part;
        start..self.out.local.size().min(start.saturating_add(self.part))
    }

    /// Brings the file there; `false` where the service does not know how.
    pub(super) async fn run(&self) -> anyhow::Result<bool> {
        if !self.is_known().await? {
            return Ok(false);
        }
        let parts = stream::iter(0..self.parts()).map(|n| self.bring(n));
        let brought = parts.buffer_unordered(self.parallel).try_collect::<()>();
        brought.await?;
        if self.parts() > 1 {
            self.join().await?;
        }
        Ok(true)
    }

    /// Whether the service knows such uploads: the first part's is made, unless it was before.
    async fn is_known(&self) -> anyhow::Result<bool> {
        if self.memory.upload(0).is_some() {
            return Ok(true);
        }
        let first = self.range(0);
        let made = Tries::until_done(async || self.create(first.end - first.start).await);
        let upload = made.await?;
        let is_known = upload.is_some();
        if is_known {
            self.memory.note(0, upload).await?;
        }
        Ok(is_known)
    }

    /// Brings one part there, however often it breaks off.
    async fn bring(&self, n: usize) -> anyhow::Result<()> {
        let mut tries = Tries::default();
        // Bytes that the service said it has, and that the meter has counted.
        let mut told = 0;
        let mut had = None;
        loop {
            let before = told;
            let gone_on = self.go_on(n, &mut told, &mut had).await;
            let error = match gone_on {
                Ok(()) => {
                    self.had.fetch_add(had.unwrap_or(0), Ordering::Relaxed);
                    return Ok(());
                }
                Err(e) => e.downcast::<Error>()?,
            };
            // All bytes may have been taken without our hearing of it.
            if self.parts() == 1 && self.out.fate().await? == Fate::Active {
                return Ok(());
            }
            if told > before {
                tries.succeeded();
            }
            let may_pass = error.is_transient() || error.is_conflict();
            tries.again_if(may_pass, error).await?;
        }
    }

    /// Goes on with a part where the service says; `had` is what it said at first.
    async fn go_on(&self, n: usize, told: &mut u64, had: &mut Option<u64>) -> anyhow::Result<()> {
        let range = self.range(n);
        let len = range.end - range.start;
        let has = match self.memory.upload(n) {
            Some(upload) => self.offset(&upload).await?.map(|has| (upload, has)),
            None => None,
        };
        let (upload, has) = match has {
            Some(has) => has,
            None => {
                let made = self.create(len).await?;
                let upload = made.ok_or_else(|| Error::nonsense("it knows no uploads any more"))?;
                self.memory.note(n, Some(upload.clone())).await?;
                (upload, 0)
            }
        };
        if has > len {
            return Err(Error::nonsense("an upload has more bytes than it was to have").into());
        }
        self.out.meter.sub(*told);
        self.out.meter.count(has);
        *told = has;
        had.get_or_insert(has);
        if has < len {
            let path = format!("{}/{}", self.path(), record::segment(&upload));
            let rest = range.start + has..range.end;
            let answer = self.out.push(Method::PATCH, &path, rest, |request| {
                let (name, version) = RESUMABLE;
                request
                    .header(name, version)
                    .header(CONTENT_TYPE, OCTETS)
                    .header(OFFSET, has)
            });
            let answer = answer.await?;
            *told = len;
            if number(&answer) != Some(len) {
                return Err(Error::Cut.into());
            }
        }
        // The digest may be made of what an earlier time has sent.
        let sent = &self.out.sent;
        sent.send_if_modified(|sent| {
            *sent < range.end && {
                *sent = range.end;
                true
            }
        });
        Ok(())
    }

    /// Makes an upload of `len` bytes; `None` where the service knows no such thing.
    async fn create(&self, len: u64) -> Result<Option<String>, Error> {
        let answer = self.post(|request| {
            let request = request.header("upload-length", len);
            match self.parts() {
                1 => request,
                _ => request.header(CONCAT, "partial"),
            }
        });
        let answer = answer.await?;
        if [404, 405, 501].contains(&answer.status().as_u16()) {
            return Ok(None);
        }
        let answer = session::fine(answer).await?;
        let location = answer.headers().get(LOCATION);
        let id = location.and_then(|l| l.to_str().ok()?.trim_end_matches('/').rsplit('/').next());
        let is_id = |id: &&str| {
            (1..=64).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let id = id.filter(is_id);
        let id = id.ok_or_else(|| Error::nonsense("an upload without a name"))?;
        Ok(Some(id.to_owned()))
    }

    async fn post(
        &self,
        fill: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, Error> {
        let path = self.path();
        let (name, version) = RESUMABLE;
        let post = self.out.session.send(Method::POST, &path, |request| {
            let mut request = request.header(name, version).header(CONTENT_LENGTH, 0);
            if let Some(store) = self.out.store {
                request = request.header("x-image-meta-store", store);
            }
            fill(request)
        });
        post.await
    }

    /// Bytes that an upload has; `None` where it is gone. Of all bytes at once, the service answers
    /// when it has done what is to be done with them.
    async fn offset(&self, upload: &str) -> Result<Option<u64>, Error> {
        let path = format!("{}/{}", self.path(), record::segment(upload));
        let (name, version) = RESUMABLE;
        let head = self
            .out
            .session
            .send(Method::HEAD, &path, |request| request.header(name, version));
        let answer = head.await?;
        if [StatusCode::NOT_FOUND, StatusCode::GONE].contains(&answer.status()) {
            return Ok(None);
        }
        let answer = session::fine(answer).await?;
        let offset = number(&answer);
        Ok(Some(offset.ok_or_else(|| {
            Error::nonsense("an upload without an offset")
        })?))
    }

    /// Has all parts put together.
    async fn join(&self) -> anyhow::Result<()> {
        let path = self.path();
        let urls: Option<Vec<_>> = (0..self.parts())
            .map(|n| Some(format!("{path}/{}", self.memory.upload(n)?)))
            .collect();
        let urls = urls.ok_or_else(|| Error::nonsense("a part without a name"))?;
        let urls = format!("final;{}", urls.join(" "));
        let mut tries = Tries::default();
        loop {
            let error = match self.post(|request| request.header(CONCAT, &urls)).await {
                Ok(answer) => match session::fine(answer).await {
                    Ok(_) => return Ok(()),
                    Err(e) => e,
                },
                Err(e) => e,
            };
            let may_pass = error.is_transient() || error.is_conflict();
            // It may have been done without our hearing of it.
            if may_pass && self.out.fate().await? == Fate::Active {
                return Ok(());
            }
            tries.again_if(may_pass, error).await?;
        }
    }
}

fn number(answer: &Response) -> Option<u64> {
    answer.headers().get(OFFSET)?.to_str().ok()?.parse().ok()
}
