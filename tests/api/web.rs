//! Somebody else's web server, on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::get;
use tokio::task::JoinHandle;

/// What is served. Ends when dropped.
pub(crate) struct Web {
    pub(crate) address: SocketAddr,
    /// Ranges asked for so far.
    pub(crate) ranges: Arc<AtomicUsize>,
    server: JoinHandle<()>,
}

impl Drop for Web {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A raw disk of 1 MiB.
pub(crate) fn tiny() -> Vec<u8> {
    (0..1_u32 << 20).map(|n| (n / 7 % 251) as u8).collect()
}

impl Web {
    pub(crate) async fn start() -> Self {
        let ranges = Arc::new(AtomicUsize::new(0));
        let counter = ranges.clone();
        let count = move |name, headers: HeaderMap| {
            if headers.contains_key(header::RANGE) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            file(name, headers)
        };
        let router = Router::new().route("/{name}", get(count));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            address,
            ranges,
            server,
        }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }
}

/// `tiny.raw` and what goes wrong with it, by name.
async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response<Body> {
    let data = tiny();
    let answer = Response::builder();
    let redirect = |to: &str| {
        let answer = Response::builder().status(StatusCode::FOUND);
        answer.header(header::LOCATION, to).body(Body::empty())
    };
    match name.as_str() {
        "tiny.raw" => ranged(&headers, &data),
        // Knows no ranges.
        "plain.raw" => answer.body(Body::from(data)),
        // Is another thing by the time that its second part is asked for.
        "changing.raw" if headers.contains_key(header::RANGE) => answer
            .header(header::ETAG, "\"two\"")
            .body(Body::from(data)),
        // Knows ranges, and says so.
        "parts.raw" | "changing.raw" => ranged(&headers, &data).map(knows_ranges),
        "moved" => redirect("/tiny.raw"),
        "round" => redirect("/round"),
        "inside" => redirect("http://10.0.0.1/secret"),
        "empty" => answer.body(Body::empty()),
        "busy" => answer.status(503).body(Body::empty()),
        // Breaks off in the middle of what it has announced.
        "broken" => {
            let half = &data[..data.len() / 2];
            broken(&headers, half, data.len())
        }
        // Sends a little and then nothing more.
        "stuck" => {
            let piece = Ok::<_, std::convert::Infallible>(Bytes::from(vec![1; 1 << 16]));
            let first = futures_util::stream::once(async { piece });
            let pieces = futures_util::StreamExt::chain(first, futures_util::stream::pending());
            answer.body(Body::from_stream(pieces))
        }
        "endless" => {
            let piece = Bytes::from(vec![1; 1 << 16]);
            let pieces = futures_util::stream::repeat_with(move || {
                Ok::<_, std::convert::Infallible>(piece.clone())
            });
            answer.body(Body::from_stream(pieces))
        }
        _ => answer.status(404).body(Body::from("nothing here")),
    }
    .unwrap()
}

fn knows_ranges(mut answer: Response<Body>) -> Response<Body> {
    let bytes = header::HeaderValue::from_static("bytes");
    answer.headers_mut().insert(header::ACCEPT_RANGES, bytes);
    answer
}

fn ranged(headers: &HeaderMap, data: &[u8]) -> axum::http::Result<Response<Body>> {
    let range = headers.get(header::RANGE).and_then(|r| r.to_str().ok());
    let range = range.and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
    let answer = Response::builder().header(header::ETAG, "\"one\"");
    let Some((first, last)) = range else {
        return answer.body(Body::from(data.to_vec()));
    };
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(data.len() - 1).min(data.len() - 1);
    answer
        .status(StatusCode::PARTIAL_CONTENT)
        .header(
            header::CONTENT_RANGE,
            format!("bytes {first}-{last}/{}", data.len()),
        )
        .body(Body::from(data[first..=last].to_vec()))
}

/// Half of the data with the length of all of it; the other half for whoever asks for it.
fn broken(headers: &HeaderMap, half: &[u8], whole: usize) -> axum::http::Result<Response<Body>> {
    if headers.contains_key(header::RANGE) {
        assert_eq!(headers[header::IF_RANGE], "\"one\"");
        return ranged(headers, &tiny());
    }
    let first = Bytes::copy_from_slice(half);
    let pieces = [Ok(first), Err(std::io::Error::other("broken off"))];
    Response::builder()
        .header(header::ETAG, "\"one\"")
        .header(header::CONTENT_LENGTH, whole)
        .body(Body::from_stream(futures_util::stream::iter(pieces)))
}
