//! One HTTP/2 connection to the key service, made again when it breaks: to the replica that serves, where there are several.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use claviger_env::Clock;
use claviger_keyapi::routes::{self, ANSWER_LEN_MAX, ErrorAnswer};
use claviger_keyapi::tls::{self, Accept};
use claviger_keyapi::wiping::{self, WipingBuffer};
use claviger_keyapi::{Answer, KeyServiceError, Line, UnavailableReason};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Sleep;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::addresses::{Addresses, Target};
use super::lines::Lines;
use super::{ClientError, StoredIdentity};

/// For one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// Between two questions whether the other end is there, and for the answer.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// After all addresses refused, until they are tried again. A service counts handshakes that come to nothing, and takes no more from where
/// there were too many: a gateway with much to do must not find itself shut out by the replica that has just taken over.
const PAUSE: Duration = Duration::from_millis(500);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);

/// Over which connection something may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Whatever is there.
    Any,
    /// One whose other end has shown its log, if anybody looks at logs.
    Usual,
    /// One whose other end has shown its log.
    Seen,
}

impl Over {
    fn of(path: &str) -> Self {
        // The log itself is asked for at once.
        if path == routes::CONSISTENCY { Self::Any } else { Self::Usual }
    }
}

type Sender = SendRequest<Full<Bytes>>;

/// The channel. Cheap to call from many tasks: their requests share the connection.
pub struct Transport {
    addresses: Addresses,
    clock: Arc<dyn Clock>,
    config: RwLock<Arc<ClientConfig>>,
    connection: Mutex<Option<Connection>>,
    /// Connections made so far; the last one's number.
    made: AtomicU64,
    /// The one over which the service has shown its log; 0 if nobody asks for that.
    seen: AtomicU64,
    /// Ends when the addresses may be tried again; whoever has the connection's lock waits for it.
    pause: Mutex<Option<Pin<Box<Sleep>>>>,
    /// Attempts to connect that failed: whoever waited for one shares its fate instead of trying once more himself.
    failures: AtomicU64,
}

#[derive(Clone)]
struct Connection {
    sender: Sender,
    to: Target,
    number: Line,
    /// Ends it with all that goes over it.
    driver: AbortHandle,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.addresses.text())
    }
}

impl Transport {
    /// A channel to `address` (`host:port` or `unix:PATH`, or several divided by commas) with an identity. Connects when it is first used.
    ///
    /// # Errors
    /// [`ClientError::Tls`] if the identity can't be used.
    pub fn new(
        address: &str,
        identity: &StoredIdentity,
        accept: Accept,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let config = identity_config(identity, accept, &clock)?;
        Ok(Self::with_config(address, config, clock))
    }

    pub(super) fn with_config(address: &str, config: ClientConfig, clock: Arc<dyn Clock>) -> Self {
        Self {
            addresses: Addresses::parse(address),
            clock,
            config: RwLock::new(Arc::new(config)),
            connection: Mutex::new(None),
            made: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            pause: Mutex::new(None),
            failures: AtomicU64::new(0),
        }
    }

    /// From the next request on, uses another identity.
    pub(super) async fn replace(&self, identity: &StoredIdentity, accept: Accept) -> Result<(), ClientError> {
        let config = identity_config(identity, accept, &self.clock)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        // Requests under way keep their handle and finish on the old connection.
        *self.connection.lock().await = None;
        Ok(())
    }

    /// From now on nothing is asked over another connection than this one, but for its log and what may go over [`Over::Any`].
    pub(super) fn keep_to(&self, line: Line) {
        self.seen.store(line, Ordering::Release);
    }

    /// Where the service may be, and where it is connected.
    pub(super) async fn places(&self) -> Result<(Vec<Target>, Option<Target>), ClientError> {
        let connected = {
            let connection = self.connection.lock().await;
            connection.as_ref().filter(|there| !there.sender.is_closed()).map(|there| there.to.clone())
        };
        Ok((self.addresses.targets().await?, connected))
    }

    /// Connects if it is not connected.
    pub(super) async fn connect_now(&self) -> Result<(), ClientError> {
        self.connected().await.map(drop)
    }

    /// Asks one route. The answer carries the moment at which the request was sent.
    ///
    /// # Errors
    /// What the service refused with, as [`ClientError::Service`]; else why it could not be asked.
    pub async fn call<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<Answer<A>, ClientError> {
        Ok(self.call_over_a_line(path, request).await?.0)
    }

    /// The same over such a connection.
    pub(super) async fn call_over<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        over: Over,
        path: &str,
        request: &Q,
    ) -> Result<Answer<A>, ClientError> {
        Ok(self.exchange(over, path, request).await?.0)
    }

    /// The same, and tells over which connection the answer came.
    pub(super) async fn call_over_a_line<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<(Answer<A>, Line), ClientError> {
        self.exchange(Over::of(path), path, request).await
    }

    async fn exchange<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        over: Over,
        path: &str,
        request: &Q,
    ) -> Result<(Answer<A>, Line), ClientError> {
        let body = encoded(request)?;
        let mut others = self.addresses.count() - 1;
        loop {
            let sent_boot_ms = self.clock.boot_ms();
            // On the heap: it is held by everything that asks for a key.
            let exchange = Box::pin(async {
                let (answer, from) = self.send(over, path, body.clone()).await?;
                let (status, body) = read(answer).await?;
                Ok((status, body, from))
            });
            let (status, answer, from) = self.in_time(exchange).await?;
            if status == StatusCode::OK {
                let value = serde_json::from_slice(&answer).map_err(|_| unintelligible(path))?;
                return Ok((Answer { value, sent_boot_ms }, from.number));
            }
            let refusal = self.refusal(path, &answer, &from.to).await;
            if others == 0 || !is_of_standby(&refusal) {
                return Err(refusal);
            }
            others -= 1;
        }
    }

    /// Asks a route that answers with lines for as long as it likes. Only the beginning of the answer has to come in time.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub(super) async fn stream<Q: Serialize + Sync>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<Lines, ClientError> {
        let (answer, from) = self.in_time(self.send(Over::of(path), path, encoded(request)?)).await?;
        if answer.status() == StatusCode::OK {
            return Ok(Lines::new(answer.into_body()));
        }
        let (_, body) = self.in_time(read(answer)).await?;
        Err(self.refusal(path, &body, &from.to).await)
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match tokio::time::timeout(REQUEST_TIMEOUT, exchange).await {
            Ok(done) => done,
            Err(_) => {
                let asked = self.connection.lock().await.as_ref().map(|connection| connection.to.clone());
                if let Some(asked) = asked {
                    self.leave(&asked).await;
                }
                Err(ClientError::Timeout(self.addresses.text()))
            }
        }
    }

    async fn refusal(&self, path: &str, body: &[u8], from: &Target) -> ClientError {
        let Ok(refusal) = serde_json::from_slice::<ErrorAnswer>(body) else { return unintelligible(path) };
        tracing::debug!(path, request_id = refusal.request_id, error = %refusal.error, "the key service refused");
        let error = ClientError::from(refusal.error);
        let is_unauthenticated =
            matches!(error, ClientError::Service(KeyServiceError::Unauthenticated { .. }));
        if is_unauthenticated || is_of_standby(&error) {
            // Perhaps the connection outlived its certificate, or the name means another machine by now: the next request
            // makes a new one.
            self.drop_connection(from).await;
        }
        if does_not_serve(&error) {
            self.leave(from).await;
        }
        error
    }

    /// Where there are others, asks one of them from now on. A stream that is held over the connection ends with it: what there is
    /// to be heard, another one tells.
    async fn leave(&self, from: &Target) {
        if self.addresses.count() < 2 {
            return;
        }
        self.addresses.is_standby(from.clone());
        let mut connection = self.connection.lock().await;
        if let Some(left) = connection.take_if(|there| there.to == *from) {
            left.driver.abort();
        }
    }

    /// Unless another one was made meanwhile.
    async fn drop_connection(&self, to: &Target) {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_some_and(|there| there.to == *to) {
            *connection = None;
        }
    }

    /// Sends, once more if the connection was found closed before anything was sent on it.
    async fn send(
        &self,
        over: Over,
        path: &str,
        body: Bytes,
    ) -> Result<(http::Response<Incoming>, Connection), ClientError> {
        let mut connection = Box::pin(self.connected_for(over)).await?;
        let request = |body: Bytes| {
            Request::post(format!("https://{}{path}", tls::SERVICE_NAME))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .map_err(|_| ClientError::Service(KeyServiceError::Internal))
        };
        match connection.sender.try_send_request(request(body)?).await {
            Ok(answer) => Ok((answer, connection)),
            Err(mut failed) => match failed.take_message() {
                // It comes back only if no byte of it left.
                Some(unsent) => {
                    *self.connection.lock().await = None;
                    let mut connection = Box::pin(self.connected_for(over)).await?;
                    Ok((connection.sender.send_request(unsent).await?, connection))
                }
                None => Err(failed.into_error().into()),
            },
        }
    }

    async fn connected_for(&self, over: Over) -> Result<Connection, ClientError> {
        let connection = self.connected().await?;
        let seen = self.seen.load(Ordering::Acquire);
        let will_do = match over {
            Over::Any => true,
            Over::Usual => seen == 0 || seen == connection.number,
            Over::Seen => seen == connection.number,
        };
        if will_do { Ok(connection) } else { Err(ClientError::Unseen(connection.to.to_string())) }
    }

    async fn connected(&self) -> Result<Connection, ClientError> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut connection = self.connection.lock().await;
        if let Some(there) = connection.as_ref().filter(|there| !there.sender.is_closed()) {
            return Ok(there.clone());
        }
        if self.failures.load(Ordering::Acquire) != failures {
            let reason = io::Error::new(io::ErrorKind::NotConnected, "no connection a moment ago");
            return Err(ClientError::Connect { address: self.addresses.text(), reason });
        }
        let mut pause = self.pause.lock().await;
        if let Some(pause) = pause.as_mut() {
            pause.await;
        }
        *pause = None;
        let made = self.connect_to_any().await.inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::AcqRel);
            *pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
        })?;
        *connection = Some(made.clone());
        Ok(made)
    }

    /// To the first that takes us. If none does, tells why not of one that could not be reached rather than of one that is locked
    /// or stands by: that one's reason is not why there is no service.
    async fn connect_to_any(&self) -> Result<Connection, ClientError> {
        let mut failure = None;
        for to in self.addresses.targets().await? {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.connect(&to)).await;
            match connected.unwrap_or_else(|_| Err(ClientError::Timeout(to.to_string()))) {
                Ok(connection) => {
                    self.addresses.reached(to);
                    return Ok(connection);
                }
                Err(error) => {
                    tracing::debug!(%to, %error, "no connection to the key service");
                    if failure.as_ref().is_none_or(|known| matches!(known, ClientError::Handshake { .. })) {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| self.addresses.nowhere()))
    }

    async fn connect(&self, to: &Target) -> Result<Connection, ClientError> {
        let failed = |reason| ClientError::Connect { address: to.to_string(), reason };
        match to {
            Target::Ip(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                stream.set_nodelay(true).map_err(failed)?;
                self.connect_over(stream, to).await
            }
            Target::Local(path) => {
                self.connect_over(UnixStream::connect(path).await.map_err(failed)?, to).await
            }
        }
    }

    async fn connect_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        to: &Target,
    ) -> Result<Connection, ClientError> {
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let stream = TlsConnector::from(config)
            .connect(tls::server_name(), stream)
            .await
            .map_err(|reason| ClientError::Handshake { address: to.to_string(), reason })?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .handshake(TokioIo::new(stream))
            .await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the key service ended");
            }
        });
        let number = self.made.fetch_add(1, Ordering::AcqRel) + 1;
        Ok(Connection { sender, to: to.clone(), number, driver: driver.abort_handle() })
    }
}

/// Whether it can't serve now, and another replica perhaps can.
fn does_not_serve(error: &ClientError) -> bool {
    let ClientError::Service(KeyServiceError::Unavailable { reason, .. }) = error else { return false };
    use UnavailableReason as R;
    matches!(reason, R::Standby | R::Store | R::Audit | R::Shutdown)
}

/// Whether another replica is the one to ask. Nothing was done with the request.
fn is_of_standby(error: &ClientError) -> bool {
    let ClientError::Service(KeyServiceError::Unavailable { reason, .. }) = error else { return false };
    *reason == UnavailableReason::Standby
}

fn encoded(request: &impl Serialize) -> Result<Bytes, ClientError> {
    let body = wiping::to_json(request).map_err(|_| KeyServiceError::Internal)?;
    Ok(Bytes::from_owner(body))
}

async fn read(answer: http::Response<Incoming>) -> Result<(StatusCode, Zeroizing<Vec<u8>>), ClientError> {
    let status = answer.status();
    let declared = answer.body().size_hint().upper().and_then(|len| usize::try_from(len).ok());
    let mut out = WipingBuffer::with_capacity(declared.unwrap_or(4096).min(ANSWER_LEN_MAX));
    let mut body = Limited::new(answer.into_body(), ANSWER_LEN_MAX);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            out.push(&data);
        }
    }
    Ok((status, out.into_bytes()))
}

pub(super) fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
    ClientError::Connect { address: "key service".to_owned(), reason: io::Error::other(error) }
}

fn unintelligible(path: &str) -> ClientError {
    tracing::error!(path, "the key service's answer can't be understood; are both of the same version?");
    KeyServiceError::Internal.into()
}

fn identity_config(
    identity: &StoredIdentity,
    accept: Accept,
    clock: &Arc<dyn Clock>,
) -> Result<ClientConfig, ClientError> {
    Ok(tls::client_config(identity.tls()?, identity.ca(), accept, Arc::new(ClockTime(Arc::clone(clock))))?)
}

/// Our clock in rustls's shape.
pub(super) struct ClockTime(pub(super) Arc<dyn Clock>);

impl std::fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClockTime")
    }
}

impl rustls::time_provider::TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_millis(self.0.now_ms())))
    }
}
