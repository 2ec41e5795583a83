//! Connections.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::service::S3Service;
use s3s::{HttpError, HttpResponse};
use tokio::net::TcpListener;

use crate::error::Error;

/// How long running requests may go on after the end was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after the system ran out of something that accepting needs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// See [`crate::Provider::serve`].
pub(crate) async fn serve(
    service: S3Service,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            },
            () = &mut shutdown => break,
        };
        stream.set_nodelay(true)?;
        let service = service.clone();
        let answer = service_fn(move |request| answer(service.clone(), request));
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), answer));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the embedded provider ended");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::warn!("the embedded provider ends with requests still running");
    }
    Ok(())
}

/// Answers one request. A refusal of a body that was announced with `Expect` ends the connection: the client may send the
/// body or may not, and what comes next would be taken for the other (RFC 9110 §10.1.1).
async fn answer(service: S3Service, request: Request<Incoming>) -> Result<HttpResponse, HttpError> {
    let announced = request.headers().contains_key(EXPECT);
    let mut response = service.call(request.map(s3s::Body::from)).await?;
    if announced && !response.status().is_success() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Whether accepting may work again later: the client was gone already, or the process has too many files open.
fn is_passing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
        || matches!(error.raw_os_error(), Some(23 | 24))
}
