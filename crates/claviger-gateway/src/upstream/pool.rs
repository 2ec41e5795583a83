//! Connections to the provider, kept for the next request.
//!
//! A connection has no task of its own: whoever uses it drives it, first while it waits for the head of the answer, then
//! as it reads the body. So a request costs no hand-over between tasks, and a body that nobody reads is not read ahead.
//! Connections that nobody uses are looked at when one is wanted; what the provider has closed meanwhile is dropped then.
//!
//! Each of the server's workers has idle connections of its own, since a connection wakes the runtime that it was made in.
//!
//! Making a connection costs both sides more than a small request. So who finds none idle waits a moment for one that comes back:
//! in a volley most do, and without it each volley would be followed by one of handshakes, behind which the next requests wait.

use std::collections::{HashMap, VecDeque};
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
use tokio::sync::oneshot;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;
use tower_service::Service;

use super::body::UpstreamBody;
use super::connector::{ReadAheadConnector, TimedConnector};
use crate::server::workers;

/// One frame of a body at a time waits to be sent, and so long may the head of an answer be.
const BUFFER_LEN: usize = 64 << 10;

/// How long a request waits for a connection that others use, before it makes one: many small requests, and little beside the
/// two ways to a provider and back that making one takes.
const PATIENCE: Duration = Duration::from_millis(2);

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

/// Connections of one worker, by the host that they lead to (as it is written).
type Shelf = HashMap<Box<str>, Place>;

/// Connections to one host, of which there has been one at least.
#[derive(Default)]
struct Place {
    /// The oldest first.
    idle: Vec<Idle>,
    /// Who wants one that comes back, the first first; some may have given up.
    waiting: VecDeque<oneshot::Sender<Link>>,
}

impl Place {
    /// Hands a connection to who has waited longest; gives it back where nobody waits.
    fn hand_on(&mut self, mut link: Link) -> Option<Link> {
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(link) {
                Ok(()) => return None,
                Err(unwanted) => link = unwanted,
            }
        }
        Some(link)
    }
}

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
            let (mut link, is_kept) = match self.take(host) {
                Some(link) => (link, true),
                // Boxed, since it is rare and large: a request would carry the room for it.
                None => Box::pin(self.wait_or_connect(host)).await?,
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

    /// A connection, and whether it was in use before.
    async fn wait_or_connect(&self, host: &Authority) -> Result<(Link, bool), ExchangeError> {
        if let Some(coming_back) = self.wait(host)
            && let Ok(Ok(link)) = tokio::time::timeout(PATIENCE, coming_back).await
        {
            return Ok((link, true));
        }
        Ok((self.connect(host).await?, false))
    }

    /// The next connection to the host that comes back; `None` before there was one at all. Whether any is still out there is
    /// not known here.
    fn wait(&self, host: &Authority) -> Option<oneshot::Receiver<Link>> {
        let mut shelf = self.shelf();
        let waiting = &mut shelf.get_mut(host.as_str())?.waiting;
        waiting.retain(|waiting| !waiting.is_closed());
        let (hand_on, coming_back) = oneshot::channel();
        waiting.push_back(hand_on);
        Some(coming_back)
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
        let idle = &mut shelf.get_mut(host.as_str())?.idle;
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
        let Some(place) = shelf.get_mut(host.as_str()) else {
            let place = Place { idle: vec![Idle { link, since: now }], ..Place::default() };
            shelf.insert(host.as_str().into(), place);
            return;
        };
        let Some(link) = place.hand_on(link) else { return };
        let idle = &mut place.idle;
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
            let hosts: Vec<Box<str>> = lock().keys().cloned().collect();
            for host in hosts {
                let idle = lock().get_mut(&host).map(|place| std::mem::take(&mut place.idle));
                let Some(mut idle) = idle else { continue };
                // Looked at without the lock: whoever wants a connection meanwhile waits for one, or makes one.
                idle.retain_mut(|idle| {
                    now.duration_since(idle.since) < self.idle_timeout && idle.link.is_free()
                });
                let mut shelf = lock();
                let place = shelf.entry(host.clone()).or_default();
                // The oldest first, and no more than there may be.
                idle.append(&mut place.idle);
                let surplus = idle.len().saturating_sub(self.idle_max);
                idle.drain(..surplus);
                while let Some(Idle { link, since }) = idle.pop() {
                    if let Some(link) = place.hand_on(link) {
                        idle.push(Idle { link, since });
                        break;
                    }
                }
                place.idle = idle;
                place.waiting.retain(|waiting| !waiting.is_closed());
                if place.idle.is_empty() && place.waiting.is_empty() {
                    shelf.remove(&host);
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
