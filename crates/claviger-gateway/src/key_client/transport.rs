//! One HTTP/2 connection to the key service, made again when it breaks.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use claviger_env::Clock;
use claviger_keyapi::routes::{ANSWER_LEN_MAX, ErrorAnswer};
use claviger_keyapi::tls::{self, Accept};
use claviger_keyapi::wiping::{self, WipingBuffer};
use claviger_keyapi::{Answer, KeyServiceError};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls_pki_types::UnixTime;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::lines::Lines;
use super::{ClientError, StoredIdentity};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(35);

type Sender = SendRequest<Full<Bytes>>;

/// The channel. Cheap to call from many tasks: their requests share the connection.
pub struct Transport {
    address: String,
    clock: Arc<dyn Clock>,
    config: RwLock<Arc<ClientConfig>>,
    connection: Mutex<Option<Sender>>,
    /// Attempts to connect that failed: whoever waited for one shares its fate instead of trying once more himself.
    failures: AtomicU64,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.address)
    }
}

impl Transport {
    /// A channel to `address` (`host:port`) with an identity. Connects when it is first used.
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
            address: address.to_owned(),
            clock,
            config: RwLock::new(Arc::new(config)),
            connection: Mutex::new(None),
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

    /// Asks one route. The answer carries the moment at which the request was sent.
    ///
    /// # Errors
    /// What the service refused with, as [`ClientError::Service`]; else why it could not be asked.
    pub async fn call<Q: Serialize + Sync, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<Answer<A>, ClientError> {
        let body = encoded(request)?;
        let sent_boot_ms = self.clock.boot_ms();
        let exchange = async { read(self.send(path, body).await?).await };
        let (status, body) = self.in_time(exchange).await?;
        if status == StatusCode::OK {
            let value = serde_json::from_slice(&body).map_err(|_| unintelligible(path))?;
            return Ok(Answer { value, sent_boot_ms });
        }
        Err(self.refusal(path, &body).await)
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
        let answer = self.in_time(self.send(path, encoded(request)?)).await?;
        if answer.status() == StatusCode::OK {
            return Ok(Lines::new(answer.into_body()));
        }
        let (_, body) = self.in_time(read(answer)).await?;
        Err(self.refusal(path, &body).await)
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let done = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await;
        done.map_err(|_| ClientError::Timeout(self.address.clone()))?
    }

    async fn refusal(&self, path: &str, body: &[u8]) -> ClientError {
        let Ok(refusal) = serde_json::from_slice::<ErrorAnswer>(body) else { return unintelligible(path) };
        if matches!(refusal.error, KeyServiceError::Unauthenticated { .. }) {
            // Perhaps the connection outlived its certificate: the next request makes a new one.
            *self.connection.lock().await = None;
        }
        tracing::debug!(path, request_id = refusal.request_id, error = %refusal.error, "the key service refused");
        refusal.error.into()
    }

    /// Sends, once more if the connection was found closed before anything was sent on it.
    async fn send(&self, path: &str, body: Bytes) -> Result<http::Response<Incoming>, ClientError> {
        let mut sender = self.sender().await?;
        let request = |body: Bytes| {
            Request::post(format!("https://{}{path}", tls::SERVICE_NAME))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(body))
                .map_err(|_| ClientError::Service(KeyServiceError::Internal))
        };
        match sender.try_send_request(request(body.clone())?).await {
            Ok(answer) => Ok(answer),
            Err(mut failed) => match failed.take_message() {
                // It comes back only if no byte of it left.
                Some(unsent) => {
                    *self.connection.lock().await = None;
                    Ok(self.sender().await?.send_request(unsent).await?)
                }
                None => Err(failed.into_error().into()),
            },
        }
    }

    async fn sender(&self) -> Result<Sender, ClientError> {
        let failures = self.failures.load(Ordering::Acquire);
        let mut connection = self.connection.lock().await;
        if let Some(sender) = connection.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        if self.failures.load(Ordering::Acquire) != failures {
            let reason = io::Error::new(io::ErrorKind::NotConnected, "no connection a moment ago");
            return Err(ClientError::Connect { address: self.address.clone(), reason });
        }
        let connected = match tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(ClientError::Timeout(self.address.clone())),
        };
        let sender = connected.inspect_err(|_| {
            self.failures.fetch_add(1, Ordering::AcqRel);
        })?;
        *connection = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> Result<Sender, ClientError> {
        let address = || self.address.clone();
        let stream = TcpStream::connect(&self.address)
            .await
            .map_err(|reason| ClientError::Connect { address: address(), reason })?;
        stream.set_nodelay(true).map_err(|reason| ClientError::Connect { address: address(), reason })?;
        let config = Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner));
        let stream = TlsConnector::from(config)
            .connect(tls::server_name(), stream)
            .await
            .map_err(|reason| ClientError::Handshake { address: address(), reason })?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(10))
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the key service ended");
            }
        });
        Ok(sender)
    }
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
