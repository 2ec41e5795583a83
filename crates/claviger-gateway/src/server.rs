//! The HTTP front: sockets, TLS, limits, request ids, the access log, and a stop that ends transfers properly.
//!
//! HTTP/1.1 only. One task per connection, requests of a connection one after the other. What is bounded: open
//! connections (the next waits in the kernel's queue), requests in flight (the next is answered 503 SlowDown),
//! headers (431), the time to send them, and the time that a transfer may stand still. Nothing bounds how long a
//! transfer takes that moves.
//!
//! A [`Handler`] answers requests. If it panics, the client gets a 500 and the connection ends; if its body fails,
//! the connection is broken off, so that no client takes the part that it got for the whole.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use claviger_env::Clock;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::LimitsConfig;

mod access_log;
mod connection;
mod idle;
mod io;
mod linger;
mod reply;
mod store_ids;
mod tls;
mod turns;
pub(crate) mod workers;

pub use access_log::{AccessNote, Blame};
pub use idle::{IdleTimeout, RequestBodyError};
pub use reply::{BodyError, error_reply};
pub use store_ids::StoreRequestIds;
pub use tls::{TlsConfigError, read_certificates, tls_config};
pub use workers::Workers;

/// The body of an answer. An error from it breaks the connection off. Like a [`Handler`], it is polled when it has been woken, and
/// not whenever its connection is.
pub type ResponseBody = UnsyncBoxBody<Bytes, BodyError>;

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers requests. What waits has to have registered the waker that it was polled with, as the contract of futures has it: nobody
/// polls it for any other reason.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. The answer may carry an [`AccessNote`] among its extensions for the log; request id,
    /// host id and `Server` headers are added to it. An answer to a body that was not read to its end has to say
    /// `Connection: close`; what the client still sends is then thrown away for a while, so that it reads the answer.
    fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        meta: RequestMeta,
    ) -> BoxFuture<'static, Response<ResponseBody>>;
}

/// What the server knows about a request beside its bytes.
#[derive(Debug, Clone)]
pub struct RequestMeta {
    /// Goes out as `x-amz-request-id`, into `<RequestId>` and into every line of the log.
    pub request_id: RequestId,
    /// Goes out as `x-amz-id-2` and into `<HostId>`: names this run of the gateway.
    pub host_id: Arc<str>,
    /// Where the connection comes from.
    pub peer: SocketAddr,
    /// Whether the connection is TLS.
    pub tls: bool,
}

/// Sixteen upper-case hex digits, unique in one run of the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; 16]);

impl RequestId {
    fn from_number(number: u64) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        let mut text = [0; 16];
        for (index, digit) in text.iter_mut().enumerate() {
            let nibble = (number >> (60 - 4 * index)) & 0xF;
            *digit = DIGITS[usize::try_from(nibble).expect("a nibble is below 16")];
        }
        Self(text)
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a server needs beside its listener and handler.
#[derive(Clone)]
pub struct ServerOptions {
    /// The bounds.
    pub limits: LimitsConfig,
    /// Measures durations for the log.
    pub clock: Arc<dyn Clock>,
    /// A random number drawn at start: request ids of two runs then differ.
    pub instance: u64,
    /// Threads that serve the connections; without them the caller's runtime does.
    pub workers: Option<Arc<Workers>>,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeReport {
    /// Connections that were broken off because their transfers did not end within the drain time.
    pub connections_aborted: usize,
}

/// What all connections share.
struct Shared {
    handler: Arc<dyn Handler>,
    options: ServerOptions,
    host_id: Arc<str>,
    next_request: AtomicU64,
    requests: Arc<Semaphore>,
}

impl Shared {
    fn next_request_id(&self) -> RequestId {
        let count = self.next_request.fetch_add(1, Ordering::Relaxed);
        RequestId::from_number(scramble(self.options.instance.wrapping_add(count)))
    }
}

/// A bijection that makes consecutive numbers look unlike each other: three rounds of xor-shift and multiplication
/// by an odd constant, each of which can be undone.
const fn scramble(number: u64) -> u64 {
    let mut x = number;
    x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x = (x ^ (x >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    x ^ (x >> 32)
}

/// Serves connections on `listener` until `shutdown` resolves; then takes no new ones, lets running requests finish
/// for `drain_timeout_s`, and breaks off what is left.
pub async fn serve(
    listener: TcpListener,
    handler: Arc<dyn Handler>,
    options: ServerOptions,
    tls: Option<Arc<rustls::ServerConfig>>,
    shutdown: impl Future<Output = ()>,
) -> ServeReport {
    let connections_max = options.limits.concurrent_connections_max;
    let drain_timeout = Duration::from_secs(options.limits.drain_timeout_s);
    let shared = Arc::new(Shared {
        handler,
        host_id: format!("{:016x}", scramble(!options.instance)).into(),
        next_request: AtomicU64::new(0),
        requests: Arc::new(Semaphore::new(options.limits.concurrent_requests_max)),
        options,
    });
    let acceptor = tls.map(TlsAcceptor::from);
    let (drain, draining) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => log_end(ended),
            accepted = listener.accept(), if connections.len() < connections_max => match accepted {
                Ok((stream, peer)) => {
                    let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
                    let workers = shared.options.workers.clone();
                    let connection = connection::Accepted { stream, peer, acceptor, draining: draining.clone() };
                    match workers.as_ref().and_then(|workers| workers.seat()) {
                        Some((worker, seat)) => {
                            connections.spawn_on(connection.run_elsewhere(shared, seat), worker);
                        }
                        None => {
                            connections.spawn(connection.run(shared));
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drain.send_replace(true);
    let report = drain_connections(connections, drain_timeout).await;
    tracing::info!(connections_aborted = report.connections_aborted, "the server has stopped");
    report
}

async fn drain_connections(mut connections: JoinSet<()>, timeout: Duration) -> ServeReport {
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_end(ended);
        }
    };
    let drained = tokio::time::timeout(timeout, all_ended).await;
    let connections_aborted = if drained.is_ok() { 0 } else { connections.len() };
    // Dropping a connection drops its request's future with it: the transfer to the store is aborted, and the
    // client's socket closes before the announced length or the last chunk.
    connections.shutdown().await;
    ServeReport { connections_aborted }
}

/// A body that panics takes its connection's task down, which closes the socket: worth a line, nothing more.
fn log_end(ended: Result<(), tokio::task::JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        metrics::counter!(crate::metrics::PANICS).increment(1);
        tracing::error!("a connection's task panicked; its client sees a broken transfer");
    }
}

#[cfg(test)]
mod tests;
