//! A download in parts: several ranges at once where the server knows ranges and proves by a strong
//! `ETag` that they belong together, handed on in order.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::header::{ACCEPT_RANGES, HeaderMap, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Method, Response, StatusCode, Url};

use super::{
    Answer, Error, Fetcher, for_origin, header_length, range_header, same_rest, strong_etag,
};
use crate::stores::Bytestream;

impl Fetcher {
    /// All of what `url` names, in parts where that is possible. What is read ahead is bounded by
    /// `[fetch] parts` times `part_size`.
    ///
    /// # Errors
    /// [`Error`]; once the body flows, errors are its own: [`Changed`](super::Changed) where the
    /// source did.
    pub async fn download(&self, url: &str, headers: &HeaderMap) -> Result<Answer, Error> {
        let (response, at) = self.ask(Method::GET, url, headers).await?;
        let (headers, url) = (&for_origin(headers, url, &at), at);
        let length = header_length(&response);
        let part = self.rules.part_size.max(1);
        let etag = self.proof(&response);
        let (Some(length), Some(etag)) = (length.filter(|l| *l > part), etag) else {
            let transfer = self.transfer(response, url, headers, 0..u64::MAX);
            return Ok(Answer {
                length,
                body: transfer.stream(),
            });
        };
        let starts = (1..=(length - 1) / part).map(move |n| n * part);
        let (this, of, with) = (self.clone(), url.clone(), headers.clone());
        let rest = stream::iter(starts)
            .map(move |start| {
                let (this, of, with) = (this.clone(), of.clone(), with.clone());
                let range = start..length.min(start.saturating_add(part));
                let etag = etag.clone();
                async move { this.part(of, with, range, etag).await }
            })
            .buffered(self.rules.parts)
            .map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok)))
            .try_flatten();
        // The answer we have is the first part; what it would send after that is not read.
        let first = self.transfer(response, url, headers, 0..part);
        let body: Bytestream = first.stream().chain(rest).boxed();
        Ok(Answer {
            length: Some(length),
            body,
        })
    }

    /// What proves of the parts that they are of one thing, where parts are wanted and known.
    fn proof(&self, response: &Response) -> Option<HeaderValue> {
        let knows_ranges = response
            .headers()
            .get(ACCEPT_RANGES)
            .is_some_and(|units| units == "bytes");
        let fits = self.rules.parts > 1 && response.status() == StatusCode::OK;
        strong_etag(response).filter(|_| fits && knows_ranges)
    }

    /// One part, whole.
    async fn part(
        &self,
        url: Url,
        headers: HeaderMap,
        range: Range<u64>,
        etag: HeaderValue,
    ) -> io::Result<Vec<Bytes>> {
        let mut asked = headers.clone();
        asked.insert(RANGE, range_header(range.start, Some(range.end)));
        asked.insert(IF_RANGE, etag.clone());
        let asking = self.ask(Method::GET, url.as_str(), &asked).await;
        let (response, _) = asking.map_err(io::Error::other)?;
        same_rest(&response, &etag, range.start)?;
        let mut transfer = self.transfer(response, url, &headers, range);
        let mut pieces = Vec::new();
        while let Some(piece) = transfer.next().await? {
            pieces.push(piece);
        }
        Ok(pieces)
    }
}
