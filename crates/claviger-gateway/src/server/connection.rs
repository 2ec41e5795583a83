//! One client connection: handshake, requests one after the other, end.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ::metrics::counter;
use claviger_s3::{ErrorCode, S3Error};
use futures_util::FutureExt;
use http::header::{self, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::access_log::AccessRecord;
use super::io::ClientIo;
use super::reply::{ReplyBody, error_reply};
use super::turns::Turns;
use super::workers::Seat;
use super::{RequestMeta, ResponseBody, Shared};
use crate::metrics::{self, Raised};
use crate::read_ahead::ReadAhead;

/// One frame of a body at a time waits to be sent (`body/frames.rs`): more would fill memory where clients are slow.
const BUFFER_LEN: usize = 64 << 10;
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const HOST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");
const SERVER: HeaderValue = HeaderValue::from_static("Claviger");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// A connection that has just come.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    /// `None` for plain HTTP.
    pub(super) acceptor: Option<TlsAcceptor>,
    /// Becomes true when the server begins to stop.
    pub(super) draining: watch::Receiver<bool>,
}

impl Accepted {
    /// Serves it in the runtime that this is called in, which is not the one that accepted it.
    pub(super) async fn run_elsewhere(self, shared: Arc<Shared>, _seat: Seat) {
        let peer = self.peer;
        // Its events have to wake this runtime.
        match self.stream.into_std().and_then(TcpStream::from_std) {
            Ok(stream) => Self { stream, ..self }.run(shared).await,
            Err(error) => tracing::warn!(%peer, %error, "a connection was lost on its way to a worker"),
        }
    }

    /// Serves it.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let Self { stream, peer, acceptor, draining } = self;
        counter!(metrics::CONNECTIONS_ACCEPTED).increment(1);
        let _open = Raised::connection();
        if let Err(error) = tune(&stream) {
            tracing::debug!(%peer, %error, "can't set socket options");
        }
        let Some(acceptor) = acceptor else {
            return serve_requests(shared, stream, peer, false, draining).await;
        };
        let timeout = Duration::from_secs(shared.options.limits.header_read_timeout_s);
        match tokio::time::timeout(timeout, acceptor.accept(ReadAhead::new(stream))).await {
            Ok(Ok(stream)) => serve_requests(shared, stream, peer, true, draining).await,
            Ok(Err(error)) => {
                counter!(metrics::TLS_FAILURES).increment(1);
                tracing::debug!(%peer, %error, "TLS handshake failed");
            }
            Err(_) => {
                counter!(metrics::TLS_FAILURES).increment(1);
                tracing::debug!(%peer, "TLS handshake timed out");
            }
        }
    }
}

/// Small answers leave at once, and a peer that vanished without a word is noticed.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

async fn serve_requests<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    shared: Arc<Shared>,
    stream: S,
    peer: SocketAddr,
    tls: bool,
    mut draining: watch::Receiver<bool>,
) {
    let limits = &shared.options.limits;
    let received = Arc::new(AtomicU64::new(0));
    let body_unread = Arc::new(AtomicBool::new(false));
    let stall_timeout = Duration::from_secs(limits.body_idle_timeout_s);
    let io = ClientIo::new(stream, Arc::clone(&received), Arc::clone(&body_unread), stall_timeout);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.header_read_timeout_s))
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.max(BUFFER_LEN))
        .half_close(true);
    let turns = Turns::new();
    let turns_within = Arc::clone(&turns);
    let service = service_fn(move |request: Request<Incoming>| {
        let meta = RequestMeta {
            request_id: shared.next_request_id(),
            host_id: Arc::clone(&shared.host_id),
            peer,
            tls,
        };
        let has_body = !request.body().is_end_stream();
        let turns = Arc::clone(&turns_within);
        turns.begin();
        let answer = answer(Arc::clone(&shared), request, meta, Arc::clone(&received));
        let body_unread = Arc::clone(&body_unread);
        async move {
            let mut answer = std::pin::pin!(answer);
            let answer = poll_fn(|_| turns.poll_within(|cx| answer.as_mut().poll(cx))).await;
            let closes = answer.headers().get(header::CONNECTION).is_some_and(|value| *value == CLOSE);
            body_unread.store(has_body && closes, Ordering::Relaxed);
            Ok::<_, Infallible>(answer.map(|(body, record)| ReplyBody::new(body, record, turns)))
        }
    });
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = poll_fn(|cx| turns.turn(cx, |cx| connection.as_mut().poll(cx))) => ended,
        () = drained(&mut draining) => {
            connection.as_mut().graceful_shutdown();
            poll_fn(|cx| turns.turn(cx, |cx| connection.as_mut().poll(cx))).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended badly");
    }
}

/// Resolves when the server begins to stop (or is gone).
async fn drained(draining: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped, which is the end of the server too.
    drop(draining.wait_for(|&draining| draining).await);
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    meta: RequestMeta,
    received: Arc<AtomicU64>,
) -> Response<(ResponseBody, AccessRecord)> {
    let mut record = AccessRecord::begin(&request, &meta, Arc::clone(&shared.options.clock), received);
    let mut response = match Arc::clone(&shared.requests).try_acquire_owned() {
        Ok(permit) => {
            record.hold(permit);
            call_handler(&shared, request, &meta).await
        }
        Err(_) => {
            counter!(metrics::REQUESTS_SHED).increment(1);
            let has_body = !request.body().is_end_stream();
            let busy = S3Error::new(ErrorCode::SlowDown)
                .with_message("Too many requests at once. Retry in a moment.");
            let mut response = error_reply(&busy, &meta);
            if has_body {
                response.headers_mut().insert(header::CONNECTION, CLOSE);
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, header_value(meta.request_id.as_str()));
    headers.insert(HOST_ID, header_value(&meta.host_id));
    headers.insert(header::SERVER, SERVER);
    record.answered(&mut response);
    response.map(|body| (body, record))
}

/// Ids are hex digits; anything else would be a bug that an empty header shows.
fn header_value(id: &str) -> HeaderValue {
    HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static(""))
}

async fn call_handler(
    shared: &Shared,
    request: Request<Incoming>,
    meta: &RequestMeta,
) -> Response<ResponseBody> {
    let (handler, handler_meta) = (Arc::clone(&shared.handler), meta.clone());
    let call = async move { handler.handle(request, handler_meta).await };
    // What a panicking handler leaves half-changed is dropped with it; what it shares is behind locks that recover.
    match AssertUnwindSafe(call).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            counter!(metrics::PANICS).increment(1);
            tracing::error!(request_id = %meta.request_id, "the handler panicked");
            let mut response = error_reply(&S3Error::new(ErrorCode::InternalError), meta);
            response.headers_mut().insert(header::CONNECTION, CLOSE);
            response
        }
    }
}
