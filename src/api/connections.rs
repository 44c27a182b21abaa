//! Connections: accepted, bounded in how long a head may take, drained at the end.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower::Layer;

/// How long to wait when there is no room for one more connection.
const BREATH: Duration = Duration::from_millis(200);

/// Who is at the other end of the connection a request came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Serves until `stop` comes, then ends when the last request has. A client has `head_timeout`
/// to send the head of a request, the wait for it included: one that sends a byte now and then
/// would else hold a connection for ever.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    head_timeout: Duration,
    stop: impl Future<Output = ()>,
) {
    let mut stop = pin!(stop);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout);
    let open = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    if !is_the_clients(&e) {
                        tracing::error!("accepting a connection: {e}");
                        tokio::time::sleep(BREATH).await;
                    }
                    continue;
                }
            },
            () = &mut stop => break,
        };
        // Answers are small and whole: nothing is won by waiting for more to send.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(Extension(Peer(peer)).layer(router.clone()));
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!("a connection ended: {e}");
            }
        });
    }
    drop(listener);
    open.shutdown().await;
}

/// Whether a connection was gone before it was ours: no fault, and the next may be fine.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
