//! `glint image download`: in parts where the service knows ranges, handed on in their order, so
//! that what is held is bounded and one pass over the bytes hashes and writes them.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::bail;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};
use serde::Serialize;

use super::account::Account;
use super::part::{Closed, Part};
use super::record::{self, Record};
use super::session::{self, Session};
use super::tries::Tries;
use super::{Error, Meter, Way, watched};
use crate::cli::Exit;
use crate::cli::output;

/// Bytes of a part.
const PART: u64 = 8 << 20;
/// How often it is begun anew because the data is other than it was.
const ANEW: u32 = 3;

/// Download an image's data, checked against its digest
///
/// What came of a download that was broken off or ended is kept in a file beside the output, named
/// for the digest and ending in .part: the same command goes on from there. The output gets its name
/// when it is whole and right. Zeros become holes.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    account: Account,

    /// File for the data; ID.FORMAT in this folder unless said
    #[arg(short, value_name = "FILE")]
    output_file: Option<PathBuf>,

    /// Replace FILE if it exists
    #[arg(long)]
    force: bool,

    /// Have the service convert the disk into this format. Nothing is known then that the data could
    /// be checked against, and a download that is ended begins anew
    #[arg(long, value_name = "FMT")]
    disk_format: Option<String>,

    #[command(flatten)]
    way: Way,

    /// Id of the image
    #[arg(value_name = "ID")]
    image: String,
}

/// What was done.
#[derive(Serialize)]
struct Report {
    id: String,
    filename: PathBuf,
    disk_format: Option<String>,
    /// Bytes.
    size: u64,
    /// Of these, bytes that were there from an earlier time.
    resumed_at: u64,
    /// What the data was checked against; of converted data nothing is known.
    hash_algo: Option<&'static str>,
    hash_value: Option<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let meter = Meter::default();
    let report = watched(&meter, args.way.show(), download(args, &meter))?;
    args.way.sum_up(&report, || report.in_words())
}

impl Report {
    fn in_words(&self) -> String {
        let checked = match self.hash_algo {
            Some(algo) => format!("{algo} is right"),
            None => "there is no digest to check it against".into(),
        };
        let name = self.filename.display().to_string();
        format!(
            "{}: {}, {checked}\n",
            output::Plain(&name),
            output::size(self.size)
        )
    }
}

async fn download(args: &Args, meter: &Meter) -> anyhow::Result<Report> {
    let session = Session::open(&args.account, usize::from(args.way.parallel)).await?;
    let mut tries = Tries::default();
    let mut anew = 0;
    loop {
        let before = meter.read().0;
        let error = match once(args, &session, meter).await {
            Ok(report) => return Ok(report),
            Err(e) => e,
        };
        match error.downcast::<Error>()? {
            Error::Changed if anew < ANEW => {
                anew += 1;
                if !args.way.quiet {
                    output::talk("the data is other than what came before: beginning anew");
                }
            }
            other => {
                if meter.read().0 > before {
                    tries.succeeded();
                }
                tries.again(other).await?;
            }
        }
    }
}

/// From asking what the image is to the file with its name.
async fn once(args: &Args, session: &Session, meter: &Meter) -> anyhow::Result<Report> {
    let record = Record::find(session, &args.image).await?;
    if !["active", "deactivated"].contains(&record.status.as_str()) {
        bail!(
            "image {} is {}: it has no data to download",
            args.image,
            record.status
        );
    }
    let is_as_stored = args.disk_format.is_none();
    let format = args.disk_format.as_ref().or(record.disk_format.as_ref());
    let out = match &args.output_file {
        Some(file) => file.clone(),
        None => default_name(&record.id, format.map_or("img", String::as_str))?,
    };
    if !args.force && out.exists() {
        bail!("{} exists, and --force is not given", out.display());
    }
    let data = Data {
        session,
        path: match &args.disk_format {
            None => format!("{}/file", record::path(&args.image)),
            Some(format) => {
                let format = percent_encoding::utf8_percent_encode(
                    format,
                    percent_encoding::NON_ALPHANUMERIC,
                );
                format!("{}/file?disk_format={format}", record::path(&args.image))
            }
        },
        size: record.size.filter(|_| is_as_stored),
        most: match is_as_stored {
            true => record.size,
            // What no format needs more of than this, however little its data compresses.
            false => {
                let most = |v: u64| v.saturating_add(v / 4).saturating_add(64 << 20);
                record.virtual_size.map(most)
            }
        },
        parallel: usize::from(args.way.parallel),
        meter,
    };
    let digest = record.digest().filter(|_| is_as_stored);
    let part = Part::open(&out, digest, data.size).await?;
    let start = part.start();
    meter.start(start, data.size.unwrap_or(0));
    let came = data.bring(&part).await;
    let (closed, size) = settled(part, came).await?;
    let digest = closed.publish(&out, args.force).await?;
    Ok(Report {
        disk_format: format.cloned(),
        id: record.id,
        filename: out,
        size,
        resumed_at: start,
        hash_algo: digest.as_ref().map(|d| d.algo.name()),
        hash_value: digest.map(|d| d.value),
    })
}

/// A part after all has come, or after it has not: what nobody can go on with is removed.
async fn settled(part: Part, came: Result<u64, Error>) -> anyhow::Result<(Closed, u64)> {
    let closed = part.close().await?;
    match came {
        Ok(size) => Ok((closed, size)),
        Err(e) => {
            if matches!(e, Error::Changed) || !closed.goes_on() {
                closed.discard();
            }
            Err(e.into())
        }
    }
}

/// The output's name where none is said: from what cannot lead anywhere else.
fn default_name(id: &str, format: &str) -> anyhow::Result<PathBuf> {
    let is_plain = |text: &str| {
        let mut bytes = text.bytes();
        !text.is_empty() && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if !is_plain(id) || !is_plain(format) {
        bail!("the image's id makes no file name: say -o FILE");
    }
    Ok(format!("{id}.{format}").into())
}

/// The data of an image, as it is to be had.
struct Data<'a> {
    session: &'a Session,
    path: String,
    /// Bytes, where they are known before they come.
    size: Option<u64>,
    /// Bytes that are believed, at most.
    most: Option<u64>,
    parallel: usize,
    meter: &'a Meter,
}

impl Data<'_> {
    /// Brings into `part` what it has not; answers how many bytes there are in all.
    async fn bring(&self, part: &Part) -> Result<u64, Error> {
        let at = part.start();
        let Some(size) = self.size else {
            let answer = self.session.send(Method::GET, &self.path, |r| r).await?;
            return self.whole(answer, 0, part).await;
        };
        if at == size {
            return Ok(size);
        }
        let first = at..size.min(at.saturating_add(PART));
        let answer = self.ask(&first).await?;
        if answer.status() != StatusCode::PARTIAL_CONTENT {
            // It knows no ranges, and sends everything.
            return self.whole(answer, at, part).await;
        }
        self.ranged(answer, first, size, part).await
    }

    async fn ask(&self, range: &Range<u64>) -> Result<Response, Error> {
        let wanted = format!("bytes={}-{}", range.start, range.end - 1);
        let answer = self.session.ask(Method::GET, &self.path, |request| {
            request.header(RANGE, &wanted)
        });
        let answer = answer.await?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Error::Changed);
        }
        session::fine(answer).await
    }

    /// All of it by one answer, of which the first `skip` bytes are there already.
    async fn whole(&self, answer: Response, mut skip: u64, part: &Part) -> Result<u64, Error> {
        let mut answer = session::fine(answer).await?;
        if answer.status() != StatusCode::OK {
            return Err(Error::nonsense(format!(
                "{} to a download",
                answer.status()
            )));
        }
        let length = number(&answer);
        if length.is_some() && self.size.is_some() && length != self.size {
            return Err(Error::Changed);
        }
        let known = length.or(self.size);
        self.meter.start(part.start(), known.unwrap_or(0));
        let mut len = 0;
        while let Some(mut piece) = session::chunk(&mut answer).await? {
            len += piece.len() as u64;
            if self.most.or(known).is_some_and(|most| len > most) {
                return Err(Error::nonsense("more bytes came than there can be"));
            }
            let there = skip.min(piece.len() as u64);
            skip -= there;
            let piece = piece.split_off(usize::try_from(there).unwrap_or(piece.len()));
            self.meter.add(piece.len());
            if !piece.is_empty() && !part.write(vec![piece]).await {
                break;
            }
        }
        match known {
            Some(known) if len < known => Err(Error::Cut),
            _ => Ok(len),
        }
    }

    /// In parts, `answer` being the first of them.
    async fn ranged(
        &self,
        answer: Response,
        first: Range<u64>,
        size: u64,
        part: &Part,
    ) -> Result<u64, Error> {
        let of = Of {
            size,
            etag: answer.headers().get(ETAG).cloned(),
        };
        of.check(&answer, first.start)?;
        let starts = (first.start..size).step_by(PART as usize);
        let mut answer = Some(answer);
        let parts = starts.map(|start| {
            let range = start..size.min(start.saturating_add(PART));
            self.range(range, answer.take(), &of)
        });
        let mut parts = stream::iter(parts).buffered(self.parallel);
        while let Some(pieces) = parts.next().await {
            if !part.write(pieces?).await {
                break;
            }
        }
        Ok(size)
    }

    /// The bytes of a range, asked for again where they broke off.
    async fn range(
        &self,
        range: Range<u64>,
        mut answer: Option<Response>,
        of: &Of,
    ) -> Result<Vec<Bytes>, Error> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        let mut tries = Tries::default();
        loop {
            let before = at;
            match self
                .more(&mut at, range.end, answer.take(), of, &mut pieces)
                .await
            {
                Ok(()) => return Ok(pieces),
                Err(e) => {
                    if at > before {
                        tries.succeeded();
                    }
                    tries.again(e).await?;
                }
            }
        }
    }

    async fn more(
        &self,
        at: &mut u64,
        end: u64,
        answer: Option<Response>,
        of: &Of,
        pieces: &mut Vec<Bytes>,
    ) -> Result<(), Error> {
        let mut answer = match answer {
            Some(answer) => answer,
            None => {
                let answer = self.ask(&(*at..end)).await?;
                of.check(&answer, *at)?;
                answer
            }
        };
        while *at < end {
            let mut piece = session::chunk(&mut answer).await?.ok_or(Error::Cut)?;
            piece.truncate(usize::try_from(end - *at).unwrap_or(usize::MAX));
            *at += piece.len() as u64;
            self.meter.add(piece.len());
            pieces.push(piece);
        }
        Ok(())
    }
}

/// What tells that parts are of one thing. The digest has the last word.
struct Of {
    size: u64,
    etag: Option<HeaderValue>,
}

impl Of {
    fn check(&self, answer: &Response, start: u64) -> Result<(), Error> {
        let is_part = answer.status() == StatusCode::PARTIAL_CONTENT;
        let range = answer.headers().get(CONTENT_RANGE);
        let found = range.and_then(|range| content_range(range.to_str().ok()?));
        match found {
            Some((first, size)) if is_part && first == start => {
                let is_same = size.is_none_or(|size| size == self.size)
                    && answer.headers().get(ETAG) == self.etag.as_ref();
                is_same.then_some(()).ok_or(Error::Changed)
            }
            _ => Err(Error::nonsense("another range than was asked for")),
        }
    }
}

/// The first byte of `bytes 2-5/10`, and the size of the whole where it is told.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let size = match size.trim() {
        "*" => None,
        size => Some(size.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, size))
}

fn number(answer: &Response) -> Option<u64> {
    let length = answer.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_they_are_sent() {
        assert_eq!(content_range("bytes 2-5/10"), Some((2, Some(10))));
        assert_eq!(content_range("bytes 2-5/*"), Some((2, None)));
        for wrong in ["bytes */10", "2-5/10", "bytes 2-5", "bytes a-5/10"] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        let name = default_name("6a97-b85", "qcow2").unwrap();
        assert_eq!(name, PathBuf::from("6a97-b85.qcow2"));
        for (id, format) in [("../x", "raw"), ("a", "/etc"), ("", "raw"), (".", "raw")] {
            assert!(default_name(id, format).is_err(), "{id}.{format}");
        }
    }
}
