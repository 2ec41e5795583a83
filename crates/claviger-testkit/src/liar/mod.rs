//! A provider that lies: a proxy before an embedded provider that changes its answers by a script.
//!
//! ```text
//! gateway under test ── HTTP ──▶ liar ── HTTP ──▶ embedded provider (honest) ── files
//!                                  └─ knows: the files, and every object that was replaced or deleted through it
//! ```
//!
//! Requests pass unchanged (the `Host` that was signed as well), so signatures are verified behind it. It keeps what it
//! receives for a search afterwards. Bodies that it lies about are held in memory: keep test objects small.

mod answer;
mod lie;
mod memory;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use claviger_env::SystemClock;
use claviger_provider::{Credentials, Provider};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use lie::{LIST_LIES, Lie, READ_LIES, Script, Subject, WRITE_FAULTS};

use answer::{Answer, Told};
use memory::Memory;

/// The access key id that the provider takes.
pub const ACCESS_KEY_ID: &str = "liar-access-key";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "liar-secret-key-0123456789";
/// The provider's region.
pub const REGION: &str = "us-east-1";

type Body = BoxBody<Bytes, io::Error>;

/// The liar and the provider behind it. Ends when dropped.
pub struct LyingProvider {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: Vec<oneshot::Sender<()>>,
    tasks: Vec<JoinHandle<()>>,
    folder: tempfile::TempDir,
}

/// A lie that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Which.
    pub lie: Lie,
    /// About which kind of request.
    pub subject: Subject,
    /// Its path, percent-encoded.
    pub path: String,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The method.
    pub method: Method,
    /// Path and query, percent-encoded.
    pub target: String,
    /// All headers.
    pub headers: HeaderMap,
}

struct Shared {
    provider: Provider,
    provider_address: SocketAddr,
    script: Mutex<Script>,
    memory: Mutex<Memory>,
    told: Mutex<Vec<Instance>>,
    arrived: Mutex<Vec<Arrived>>,
    received: Mutex<Vec<u8>>,
}

impl LyingProvider {
    /// Starts an empty provider in a temporary folder, and the liar before it, honest for now.
    ///
    /// # Errors
    /// No folder, or no socket on loopback.
    pub async fn start() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY);
        let provider = Provider::open(folder.path(), credentials, REGION, Arc::new(SystemClock))
            .map_err(io::Error::other)?;
        let inner = TcpListener::bind("127.0.0.1:0").await?;
        let outer = TcpListener::bind("127.0.0.1:0").await?;
        let address = outer.local_addr()?;
        let shared = Arc::new(Shared {
            provider,
            provider_address: inner.local_addr()?,
            script: Mutex::new(Script::Honest),
            memory: Mutex::new(Memory::default()),
            told: Mutex::default(),
            arrived: Mutex::default(),
            received: Mutex::default(),
        });
        let (stop_inner, inner_stopped) = oneshot::channel();
        let (stop_outer, outer_stopped) = oneshot::channel();
        let served = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            let stopped = async { drop(inner_stopped.await) };
            served.provider.serve(inner, stopped).await.expect("a loopback listener goes on accepting");
        });
        let lying = tokio::spawn(accept(outer, Arc::clone(&shared), outer_stopped));
        Ok(Self { shared, address, stop: vec![stop_outer, stop_inner], tasks: vec![lying, serving], folder })
    }

    /// The liar's URL: what the gateway under test gets as its store.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The honest provider's URL, past the liar.
    pub fn honest_endpoint(&self) -> String {
        format!("http://{}", self.shared.provider_address)
    }

    /// The provider's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The provider itself, for a look at its files.
    pub fn provider(&self) -> &Provider {
        &self.shared.provider
    }

    /// From now on lies are told by this script.
    pub fn tell(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }

    /// The lies that were really told, in order: a lie that needs another object, an earlier version or a body, and
    /// does not find one, is not told.
    pub fn told(&self) -> Vec<Instance> {
        lock(&self.shared.told).clone()
    }

    /// The requests that arrived, in order.
    pub fn arrived(&self) -> Vec<Arrived> {
        lock(&self.shared.arrived).clone()
    }

    /// Everything that arrived: targets, header values and bodies. For a search for what must not be there.
    pub fn received(&self) -> Vec<u8> {
        lock(&self.shared.received).clone()
    }

    /// Ends both servers and waits for them.
    pub async fn stop(mut self) {
        self.stop.clear();
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // Cancelled is what was asked for.
            let _ = task.await;
        }
    }
}

impl std::fmt::Debug for LyingProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LyingProvider").field("address", &self.address).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { shared.answer(request).await }
            });
            // An error is a connection that one side broke off; often this side, on purpose.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Shared {
    /// Answers one request. An error breaks the connection off.
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        self.note(&request);
        let subject = subject_of(&request);
        let path = request.uri().path().to_owned();
        let lie = lock(&self.script).next(subject, &path);
        if matches!(subject, Subject::Put | Subject::Complete | Subject::Delete) {
            lock(&self.memory).remember(&self.provider, &path);
        }
        match lie {
            None => self.forward(request).await,
            Some(lie) if matches!(subject, Subject::Get | Subject::Head | Subject::List) => {
                let asked = request.headers().clone();
                let truth = Answer::collect(self.forward(request).await?).await?;
                let told = {
                    let memory = lock(&self.memory);
                    answer::tell(
                        lie,
                        &truth,
                        &answer::Scene {
                            provider: &self.provider,
                            memory: &memory,
                            path: &path,
                            asked: &asked,
                        },
                    )
                };
                self.give(lie, subject, path, truth, told)
            }
            Some(fault) => {
                lock(&self.told).push(Instance { lie: fault, subject, path });
                self.fail(fault, request).await
            }
        }
    }

    fn give(
        &self,
        lie: Lie,
        subject: Subject,
        path: String,
        truth: Answer,
        told: Told,
    ) -> io::Result<Response<Body>> {
        if !matches!(told, Told::Nothing) {
            lock(&self.told).push(Instance { lie, subject, path });
        }
        match told {
            Told::Nothing => Ok(truth.into_response(subject == Subject::Head)),
            Told::Answer(answer) => Ok(answer.into_response(subject == Subject::Head)),
            Told::Broken(answer, at) => Ok(answer.into_broken_response(at)),
        }
    }

    /// Does what a fault says with a write.
    async fn fail(&self, fault: Lie, request: Request<Incoming>) -> io::Result<Response<Body>> {
        match fault {
            Lie::FailedNotDone | Lie::ErrorIn200 => self.swallow(request).await?,
            Lie::ResetNotDone => {
                // A piece of the body, so that it breaks off in the middle.
                let _ = request.into_body().frame().await;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            _ => {
                Answer::collect(self.forward(request).await?).await?;
            }
        }
        let status = match fault {
            Lie::FailedNotDone | Lie::FailedButDone => StatusCode::INTERNAL_SERVER_ERROR,
            Lie::ErrorIn200 => StatusCode::OK,
            _ => return Err(io::ErrorKind::ConnectionReset.into()),
        };
        Ok(Answer::error(status, "InternalError").into_response(false))
    }

    async fn swallow(&self, request: Request<Incoming>) -> io::Result<()> {
        let mut body = request.into_body();
        while let Some(frame) = body.frame().await {
            self.keep(&frame.map_err(io::Error::other)?);
        }
        Ok(())
    }

    /// Asks the honest provider, over a connection of its own.
    async fn forward(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let stream = TcpStream::connect(self.provider_address).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let (mut parts, body) = request.into_parts();
        parts.headers.remove(http::header::EXPECT);
        // A copy of the body is kept whole before it is sent on: test objects are small.
        let mut kept = Vec::new();
        let mut body = body;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(io::Error::other)?;
            self.keep(&frame);
            if let Ok(data) = frame.into_data() {
                kept.extend_from_slice(&data);
            }
        }
        let request = Request::from_parts(parts, Full::new(Bytes::from(kept)));
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok(response.map(|body| body.map_err(io::Error::other).boxed()))
    }

    fn keep(&self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            lock(&self.received).extend_from_slice(data);
        }
    }

    fn note(&self, request: &Request<Incoming>) {
        let target = request.uri().to_string();
        let mut received = lock(&self.received);
        received.extend_from_slice(target.as_bytes());
        for (name, value) in request.headers() {
            received.push(b'\n');
            received.extend_from_slice(name.as_str().as_bytes());
            received.extend_from_slice(value.as_bytes());
        }
        let arrived =
            Arrived { method: request.method().clone(), target, headers: request.headers().clone() };
        lock(&self.arrived).push(arrived);
    }
}

fn subject_of(request: &Request<Incoming>) -> Subject {
    let of_object =
        request.uri().path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
    let query = request.uri().query().unwrap_or_default();
    let names: Vec<&str> = query.split('&').map(|pair| pair.split('=').next().unwrap_or_default()).collect();
    let has = |name: &str| names.contains(&name);
    match (request.method(), of_object) {
        (&Method::GET, true) if !has("uploadId") && !has("attributes") => Subject::Get,
        (&Method::HEAD, true) => Subject::Head,
        (&Method::GET, false) if !has("uploads") && !has("location") && has("prefix") | has("list-type") => {
            Subject::List
        }
        (&Method::PUT, true) => Subject::Put,
        (&Method::POST, true) if has("uploadId") => Subject::Complete,
        (&Method::DELETE, true) => Subject::Delete,
        _ => Subject::Other,
    }
}

/// A whole body.
fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

/// A body that breaks off after its first `at` bytes.
fn broken(bytes: &Bytes, at: usize) -> Body {
    let start = stream::iter([Ok(Frame::data(bytes.slice(..at.min(bytes.len()))))]);
    // The pause lets the bytes go out before the end that breaks the connection.
    let end = stream::once(async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Err(io::Error::from(io::ErrorKind::ConnectionReset))
    });
    BoxBody::new(StreamBody::new(start.chain(end)))
}
