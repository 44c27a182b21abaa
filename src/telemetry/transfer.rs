//! Bytes that are counted while they pass.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use super::metrics::{Direction, Metrics, Transfer};
use crate::stores::Bytestream;

/// Counts what passes; `end` hears how much it was, also when it broke off.
pub fn counted(
    metrics: &Metrics,
    direction: Direction,
    bytes: Bytestream,
    end: impl FnOnce(u64) + Send + 'static,
) -> Bytestream {
    Counted {
        bytes,
        transfer: metrics.transfer(direction),
        end: Some(Box::new(end)),
    }
    .boxed()
}

struct Counted {
    bytes: Bytestream,
    transfer: Transfer,
    end: Option<Box<dyn FnOnce(u64) + Send>>,
}

impl Stream for Counted {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.bytes.as_mut().poll_next(cx);
        if let Poll::Ready(Some(Ok(bytes))) = &next {
            self.transfer.moved(bytes.len() as u64);
        }
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.bytes.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end(self.transfer.bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test]
    async fn the_end_hears_what_passed_before_it_broke_off() {
        let metrics = Metrics::default();
        let parts = ["abc", "de", "f"].map(|part| Ok(Bytes::from_static(part.as_bytes())));
        let heard = Arc::new(Mutex::new(None));
        let tell = heard.clone();
        let bytes = futures_util::stream::iter(parts).boxed();
        let mut body = counted(&metrics, Direction::Out, bytes, move |n| {
            *tell.lock().unwrap() = Some(n);
        });
        assert_eq!(body.next().await.unwrap().unwrap(), "abc");
        assert_eq!(body.next().await.unwrap().unwrap(), "de");
        let page = metrics.text();
        assert!(page.contains("glint_transfer_in_flight_bytes{direction=\"out\"} 5\n"));
        drop(body);
        assert_eq!(*heard.lock().unwrap(), Some(5));
    }
}
