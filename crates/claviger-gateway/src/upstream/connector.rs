//! How connections to the provider are made, beneath TLS and around it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::read_ahead::ReadAhead;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Another connector with a deadline for the whole of connecting: name look-up, TCP and TLS. The one beneath bounds TCP
/// alone, and a handshake that never ends would hold its request for ever.
#[derive(Clone)]
pub(crate) struct TimedConnector<C> {
    inner: C,
    timeout: Duration,
}

impl<C> TimedConnector<C> {
    pub(crate) fn new(inner: C, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

impl<C> Service<Uri> for TimedConnector<C>
where
    C: Service<Uri, Error = BoxError>,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.timeout, self.inner.call(uri));
        Box::pin(async move {
            let late = |_| io::Error::new(io::ErrorKind::TimedOut, "TCP and TLS took too long");
            connecting.await.map_err(late)?
        })
    }
}

/// TCP connections that are read ahead.
#[derive(Clone)]
pub(crate) struct ReadAheadConnector(HttpConnector);

impl ReadAheadConnector {
    pub(crate) fn new(inner: HttpConnector) -> Self {
        Self(inner)
    }
}

impl Service<Uri> for ReadAheadConnector {
    type Response = TokioIo<ReadAhead>;
    type Error = <HttpConnector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(TokioIo::new(ReadAhead::new(connecting.await?.into_inner()))) })
    }
}

impl Connection for ReadAhead {
    fn connected(&self) -> Connected {
        self.stream().connected()
    }
}
