//! Reading URLs that clients name: checked by the operator's rules, connected to the address that
//! was checked, redirects followed a few times and checked again, broken transfers taken up where
//! they broke off.

mod parts;
mod rules;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, IF_RANGE,
    LOCATION, RANGE,
};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};

use crate::config::Fetch;
use crate::stores::Bytestream;
use crate::telemetry::trace;

/// Why a URL could not be read. Displayed to clients: nothing here tells of our network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules do not allow it; the reason is for the log.
    #[error("the URL, or one it redirects to, is not allowed")]
    Refused(&'static str),
    /// It was answered, but not with what it names.
    #[error("the source answered {0}")]
    Status(u16),
    /// It redirects too often.
    #[error("the source redirects too often")]
    Redirects,
    /// Nobody answered, or not in HTTP.
    #[error("the source cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// We cannot ask anybody.
    #[error("no HTTP client could be made: {0}")]
    Ours(String),
}

impl Error {
    /// Whether the same request may be answered later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Ours(_) => true,
            Self::Status(status) => *status >= 500 || [408, 425, 429].contains(status),
            Self::Refused(_) | Self::Redirects => false,
        }
    }
}

/// What was read belongs to something else than what came before.
#[derive(Debug, thiserror::Error)]
#[error("the source changed while it was read")]
pub struct Changed;

impl Changed {
    /// Whether a body ended for this reason.
    #[must_use]
    pub fn is(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

/// An answer with a body to come.
pub struct Answer {
    /// Bytes of the body, where the server says.
    pub length: Option<u64>,
    /// The body.
    pub body: Bytestream,
}

/// Reads URLs by the rules.
#[derive(Clone)]
pub struct Fetcher {
    rules: Arc<Fetch>,
    client: Result<Client, String>,
}

impl Fetcher {
    /// A client that follows `rules`.
    #[must_use]
    pub fn new(rules: &Fetch) -> Self {
        let rules = Arc::new(rules.clone());
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Checked(rules.clone())))
            .connect_timeout(Duration::from_secs(rules.connect_timeout))
            .read_timeout(Duration::from_secs(rules.read_timeout))
            .user_agent(concat!("glint/", env!("CARGO_PKG_VERSION")))
            .build();
        Self {
            rules,
            // Without it (no root certificates, say) everything else still works.
            client: client.map_err(|e| chain(&e)),
        }
    }

    /// Whether a URL may be read: checked by the rules, and its host resolved.
    ///
    /// # Errors
    /// `Refused`
    pub async fn check(&self, url: &str) -> Result<(), Error> {
        let url = rules::check(&self.rules, url).map_err(Error::Refused)?;
        let host = url.host_str().unwrap_or_default();
        if host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_err()
        {
            Checked(self.rules.clone())
                .lookup(host)
                .await
                .map_err(|_| Error::Refused("its host does not resolve to an allowed address"))?;
        }
        Ok(())
    }

    /// Whether the rules allow a URL as it is written. Its host is resolved, and the address
    /// checked, when it is read.
    ///
    /// # Errors
    /// `Refused`
    pub fn permits(&self, url: &str) -> Result<(), Error> {
        rules::check(&self.rules, url)
            .map(drop)
            .map_err(Error::Refused)
    }

    /// The whole of what `url` names.
    ///
    /// # Errors
    /// [`Error`]; once the body flows, errors are its own.
    pub async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Answer, Error> {
        self.open(url, headers, 0, None).await
    }

    /// The bytes `range` of what `url` names, whether or not the server knows ranges.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn get_range(&self, url: &str, range: Range<u64>) -> Result<Bytestream, Error> {
        let headers = HeaderMap::new();
        let answer = self
            .open(url, &headers, range.start, Some(range.end))
            .await?;
        Ok(answer.body)
    }

    /// Bytes of what `url` names, without reading it. `None` where the server does not say.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn length(&self, url: &str) -> Result<Option<u64>, Error> {
        let headers = HeaderMap::new();
        let (response, _) = match self.ask(Method::HEAD, url, &headers).await {
            // Not every server answers HEAD: ask for all of it and do not read it.
            Err(Error::Status(403 | 405 | 501)) => self.ask(Method::GET, url, &headers).await?,
            other => other?,
        };
        Ok(header_length(&response))
    }

    async fn open(
        &self,
        url: &str,
        headers: &HeaderMap,
        start: u64,
        end: Option<u64>,
    ) -> Result<Answer, Error> {
        let mut asked = headers.clone();
        if start > 0 || end.is_some() {
            asked.insert(RANGE, range_header(start, end));
        }
        let (response, at) = self.ask(Method::GET, url, &asked).await?;
        let (headers, url) = (&for_origin(headers, url, &at), at);
        let skip = match response.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&response, start) => 0,
            StatusCode::PARTIAL_CONTENT => return Err(Error::Status(206)),
            // It does not know ranges, and sends everything.
            _ => start,
        };
        let length = header_length(&response);
        let range = start..end.unwrap_or(u64::MAX);
        let mut transfer = self.transfer(response, url, headers, range);
        transfer.skip = skip;
        Ok(Answer {
            length,
            body: transfer.stream(),
        })
    }

    /// The body of `response`, which begins with the first byte of `range`; up to its end, where that
    /// is none of all bytes there are.
    fn transfer(
        &self,
        response: Response,
        url: Url,
        headers: &HeaderMap,
        range: Range<u64>,
    ) -> Transfer {
        let end = (range.end != u64::MAX).then_some(range.end);
        Transfer {
            fetcher: self.clone(),
            headers: headers.clone(),
            etag: strong_etag(&response),
            at: range.start,
            end,
            // A length holds for the whole; with ranges `end` says when to stop.
            whole: header_length(&response).filter(|_| end.is_none()),
            retries: self.rules.retries,
            url,
            skip: 0,
            response: Some(response),
        }
    }

    /// Asks, following redirects. Answers only what has a body of the kind asked for.
    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &HeaderMap,
    ) -> Result<(Response, Url), Error> {
        let client = self.client.as_ref().map_err(|e| Error::Ours(e.clone()))?;
        let mut url = rules::check(&self.rules, url).map_err(Error::Refused)?;
        let mut headers = headers.clone();
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for _ in 0..=self.rules.redirects {
            // Which trace this is part of is nothing for others to know.
            let span = trace::call(&method, &url);
            let response = client
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .send()
                .await;
            trace::called(&span, response.as_ref().ok().map(Response::status));
            let response = response.map_err(Error::Unreachable)?;
            let status = response.status();
            match status.as_u16() {
                200 | 206 => return Ok((response, url)),
                301 | 302 | 303 | 307 | 308 => {}
                other => return Err(Error::Status(other)),
            }
            let next = response
                .headers()
                .get(LOCATION)
                .and_then(|l| l.to_str().ok())
                .and_then(|l| url.join(l).ok())
                .ok_or(Error::Status(status.as_u16()))?;
            if next.origin() != url.origin() {
                // What was meant for one server is not shown to another.
                headers.remove("x-auth-token");
            }
            url = rules::check(&self.rules, next.as_str()).map_err(Error::Refused)?;
        }
        Err(Error::Redirects)
    }
}

/// The headers to go on with at `at`, where asking for `asked` led: what was meant for one server is
/// not shown to another.
fn for_origin(headers: &HeaderMap, asked: &str, at: &Url) -> HeaderMap {
    let mut headers = headers.clone();
    if !Url::parse(asked).is_ok_and(|asked| asked.origin() == at.origin()) {
        headers.remove("x-auth-token");
    }
    headers
}

/// A body on its way, taken up again when it breaks off.
struct Transfer {
    fetcher: Fetcher,
    url: Url,
    headers: HeaderMap,
    /// Proof that what comes later belongs to what came before.
    etag: Option<HeaderValue>,
    /// The next byte to hand on.
    at: u64,
    /// Where to stop, if not at the end.
    end: Option<u64>,
    /// Bytes there are, where the server said.
    whole: Option<u64>,
    retries: u32,
    /// Bytes to pass over before the next one.
    skip: u64,
    response: Option<Response>,
}

impl Transfer {
    fn stream(self) -> Bytestream {
        stream::try_unfold(self, async |mut this| {
            Ok(this.next().await?.map(|piece| (piece, this)))
        })
        .boxed()
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.end.is_some_and(|end| self.at >= end) {
                return Ok(None);
            }
            let Some(response) = &mut self.response else {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            };
            match response.chunk().await {
                Ok(Some(mut piece)) => {
                    let skipped = self.skip.min(piece.len() as u64);
                    self.skip -= skipped;
                    drop(piece.split_to(usize::try_from(skipped).unwrap_or(piece.len())));
                    if let Some(end) = self.end {
                        let left = usize::try_from(end - self.at).unwrap_or(usize::MAX);
                        piece.truncate(left);
                    }
                    if !piece.is_empty() {
                        self.at += piece.len() as u64;
                        return Ok(Some(piece));
                    }
                }
                Ok(None) if self.is_whole() => return Ok(None),
                Ok(None) => self.resume(io::ErrorKind::UnexpectedEof.into()).await?,
                Err(e) => self.resume(io::Error::other(e)).await?,
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.skip == 0 && self.end.is_none() && self.whole.is_none_or(|whole| self.at == whole)
    }

    /// Asks for the rest, where the server proves that it is the rest of the same.
    async fn resume(&mut self, broken: io::Error) -> io::Result<()> {
        let Some(etag) = self.etag.clone().filter(|_| self.retries > 0) else {
            return Err(broken);
        };
        self.retries -= 1;
        let mut headers = self.headers.clone();
        headers.insert(RANGE, range_header(self.at, self.end));
        headers.insert(IF_RANGE, etag.clone());
        let (response, _) = self
            .fetcher
            .ask(Method::GET, self.url.as_str(), &headers)
            .await
            .map_err(io::Error::other)?;
        same_rest(&response, &etag, self.at)?;
        self.skip = 0;
        self.response = Some(response);
        Ok(())
    }
}

fn range_header(start: u64, end: Option<u64>) -> HeaderValue {
    let range = match end {
        Some(end) => format!("bytes={start}-{}", end.saturating_sub(1)),
        None => format!("bytes={start}-"),
    };
    HeaderValue::try_from(range).expect("digits and a dash make a header")
}

/// Whether an answer is what was asked for: the bytes from `start` on of what `etag` names.
fn same_rest(response: &Response, etag: &HeaderValue, start: u64) -> io::Result<()> {
    if response.headers().get(ETAG) != Some(etag) {
        return Err(io::Error::other(Changed));
    }
    if response.status() != StatusCode::PARTIAL_CONTENT || !starts_at(response, start) {
        return Err(io::Error::other("the source knows no ranges after all"));
    }
    Ok(())
}

/// Whether a part begins where it was asked to.
fn starts_at(response: &Response, start: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE);
    range
        .and_then(|r| r.to_str().ok())
        .and_then(|r| r.strip_prefix("bytes "))
        .and_then(|r| r.split('-').next())
        .is_some_and(|first| first.trim().parse() == Ok(start))
}

fn strong_etag(response: &Response) -> Option<HeaderValue> {
    let etag = response.headers().get(ETAG)?;
    (!etag.as_bytes().starts_with(b"W/")).then(|| etag.clone())
}

/// `Content-Length` as it was sent: the body of an answer to HEAD has none.
fn header_length(response: &Response) -> Option<u64> {
    let length = response.headers().get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Resolves names to the addresses that may be connected to, and to no others: what was checked is
/// what is connected to.
struct Checked(Arc<Fetch>);

impl Checked {
    async fn lookup(&self, host: &str) -> io::Result<Vec<SocketAddr>> {
        let found = tokio::net::lookup_host((host, 0)).await?;
        let allowed: Vec<_> = found
            .filter(|a| rules::may_connect(&self.0, host, a.ip()))
            .collect();
        if allowed.is_empty() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(allowed)
    }
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let this = Self(self.0.clone());
        Box::pin(async move {
            let found = this.lookup(name.as_str()).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_on_only_to_where_it_was_meant_for() {
        let token = HeaderValue::from_static("secret");
        let headers = HeaderMap::from_iter([("x-auth-token".parse().unwrap(), token)]);
        let asked = "https://images.example/v2/images/1/file";
        for (at, is_shown) in [
            (asked, true),
            ("https://images.example/elsewhere", true),
            ("https://images.example:8443/v2", false),
            ("http://images.example/v2", false),
            ("https://store.example/1", false),
        ] {
            let shown = for_origin(&headers, asked, &Url::parse(at).unwrap());
            assert_eq!(shown.contains_key("x-auth-token"), is_shown, "{at}");
        }
    }
}
