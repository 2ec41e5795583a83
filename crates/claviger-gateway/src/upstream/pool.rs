//! Connections to the provider, kept for the next request.
//!
//! A connection has no task of its own: whoever uses it drives it, first while it waits for the head of the answer, then
//! as it reads the body. So a request costs no hand-over between tasks, and a body that nobody reads is not read ahead.
//! Connections that nobody uses are looked at when one is wanted; what the provider has closed meanwhile is dropped then.
//!
//! Each of the server's workers has idle connections of its own, since a connection wakes the runtime that it was made in.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tower_service::Service;

use super::body::UpstreamBody;
use super::connector::{ReadAheadConnector, TimedConnector};
use crate::server::workers;

/// One frame of a body at a time waits to be sent, and so long may the head of an answer be.
const BUFFER_LEN: usize = 64 << 10;

/// What makes connections.
pub(super) type Connector = TimedConnector<HttpsConnector<ReadAheadConnector>>;
type Stream = <Connector as Service<Uri>>::Response;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The provider can't be reached.
    #[error("{0}")]
    Connect(Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke, or what came over it is no HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// Idle connections of one worker, by the host that they lead to (as it is written), the oldest first.
type Shelf = HashMap<Box<str>, Vec<Idle>>;

struct Idle {
    link: Link,
    since: Instant,
}

/// Connections to one provider.
pub(super) struct Connections {
    connector: Connector,
    scheme: Scheme,
    shelves: Vec<Mutex<Shelf>>,
    idle_timeout: Duration,
    /// Per worker and host.
    idle_max: usize,
}

impl Connections {
    /// Keeps at most about `idle_max` connections to a host, each for `idle_timeout`.
    pub(super) fn new(
        connector: Connector,
        scheme: Scheme,
        idle_timeout: Duration,
        idle_max: usize,
    ) -> Arc<Self> {
        let shelves = workers::COUNT_MAX + 1;
        let workers = workers::count_wanted();
        Arc::new(Self {
            connector,
            scheme,
            shelves: (0..shelves).map(|_| Mutex::default()).collect(),
            idle_timeout,
            idle_max: idle_max.div_ceil(workers),
        })
    }

    /// Sends a request to `host` and waits for the head of the answer. Dropping the future, or the body before its end, ends
    /// the connection.
    ///
    /// # Errors
    /// See [`ExchangeError`]. A request that a kept connection did not take, because the provider had just closed it, has gone
    /// over another one.
    pub(super) async fn request(
        self: &Arc<Self>,
        host: &Authority,
        mut request: Request<UpstreamBody>,
    ) -> Result<Response<PooledBody>, ExchangeError> {
        loop {
            let kept = self.take(host);
            let is_kept = kept.is_some();
            let mut link = match kept {
                Some(link) => link,
                // Boxed, since it is rare and large: a request would carry the room for it.
                None => Box::pin(self.connect(host)).await?,
            };
            let mut error = match link.exchange(request).await {
                Ok(response) => {
                    let home = Home { connections: self.clone(), host: host.clone() };
                    return Ok(response.map(|body| PooledBody::new(body, link, home)));
                }
                Err(error) => error,
            };
            match error.take_message() {
                Some(untouched) if is_kept => request = untouched,
                _ => return Err(error.into_error().into()),
            }
        }
    }

    async fn connect(&self, host: &Authority) -> Result<Link, ExchangeError> {
        let uri =
            Uri::builder().scheme(self.scheme.clone()).authority(host.clone()).path_and_query("/").build();
        let uri = uri.map_err(|error| ExchangeError::Connect(error.into()))?;
        let stream = self.connector.clone().call(uri).await.map_err(ExchangeError::Connect)?;
        let (sender, driver) = http1::Builder::new().max_buf_size(BUFFER_LEN).handshake(stream).await?;
        Ok(Link { sender, driver: Driver(Some(Box::pin(driver))) })
    }

    fn shelf(&self) -> std::sync::MutexGuard<'_, Shelf> {
        let shelf = &self.shelves[workers::current().min(self.shelves.len() - 1)];
        shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that was used last, if it is still good.
    fn take(&self, host: &Authority) -> Option<Link> {
        let mut shelf = self.shelf();
        let idle = shelf.get_mut(host.as_str())?;
        while let Some(Idle { mut link, since }) = idle.pop() {
            if since.elapsed() < self.idle_timeout && link.is_free() {
                return Some(link);
            }
        }
        None
    }

    fn put_back(&self, host: &Authority, link: Link) {
        if self.idle_max == 0 {
            return;
        }
        let now = Instant::now();
        let mut shelf = self.shelf();
        let Some(idle) = shelf.get_mut(host.as_str()) else {
            shelf.insert(host.as_str().into(), vec![Idle { link, since: now }]);
            return;
        };
        let expired = idle.partition_point(|idle| now.duration_since(idle.since) >= self.idle_timeout);
        let surplus = (idle.len() + 1).saturating_sub(self.idle_max);
        idle.drain(..expired.max(surplus).min(idle.len()));
        idle.push(Idle { link, since: now });
    }

    /// Closes what has been idle for too long. To be called now and then: a provider that is not asked has no reason to wait
    /// for its next request.
    pub(super) fn close_expired(&self) {
        let now = Instant::now();
        for shelf in &self.shelves {
            let lock = || shelf.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = std::mem::take(&mut *lock());
            // Looked at without the lock: whoever wants a connection meanwhile makes one.
            for (host, mut idle) in idle {
                idle.retain_mut(|idle| {
                    now.duration_since(idle.since) < self.idle_timeout && idle.link.is_free()
                });
                if !idle.is_empty() {
                    let mut shelf = lock();
                    let newer = shelf.entry(host).or_default();
                    // The oldest first, and no more than there may be.
                    idle.append(newer);
                    let surplus = idle.len().saturating_sub(self.idle_max);
                    idle.drain(..surplus);
                    *newer = idle;
                }
            }
        }
    }
}

/// One connection.
struct Link {
    sender: SendRequest<UpstreamBody>,
    driver: Driver,
}

/// What moves bytes in either direction; `None` once the connection is over.
struct Driver(Option<Pin<Box<http1::Connection<Stream, UpstreamBody>>>>);

impl Driver {
    fn drive(&mut self, cx: &mut Context<'_>) {
        // Why it is over, the request or the body that waits for it hears; and a request that it had not begun with comes back
        // when it is dropped, not before.
        if self.0.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

impl Link {
    async fn exchange(
        &mut self,
        request: Request<UpstreamBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<UpstreamBody>>> {
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        std::future::poll_fn(|cx| {
            driver.drive(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it can take a request now. Looks even where the task has had its turn: it would be told that nothing came.
    fn is_free(&mut self) -> bool {
        let driver = &mut self.driver;
        let look = std::future::poll_fn(|cx| {
            driver.drive(cx);
            Poll::Ready(())
        });
        let look = std::pin::pin!(unconstrained(look));
        let _ = look.poll(&mut Context::from_waker(Waker::noop()));
        self.driver.0.is_some() && self.sender.is_ready()
    }
}

/// Where a connection goes when it is not needed any more.
struct Home {
    connections: Arc<Connections>,
    host: Authority,
}

/// The body of an answer. Reading it drives its connection; once it has been read to its end, the connection is kept.
pub(crate) struct PooledBody {
    body: Incoming,
    /// `None` once the connection has been given back.
    link: Option<(Link, Home)>,
}

impl PooledBody {
    fn new(body: Incoming, link: Link, home: Home) -> Self {
        let mut pooled = Self { body, link: Some((link, home)) };
        if pooled.body.is_end_stream() {
            pooled.give_back();
        }
        pooled
    }

    /// To be called at the end of the body.
    fn give_back(&mut self) {
        if let Some((mut link, home)) = self.link.take()
            && link.is_free()
        {
            home.connections.put_back(&home.host, link);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some((link, _)) = &mut self.link {
            link.driver.drive(cx);
        }
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let is_end = match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            _ => false,
        };
        if is_end {
            self.give_back();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl std::fmt::Debug for PooledBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PooledBody").field(&self.body).finish()
    }
}

#[cfg(test)]
mod tests;
