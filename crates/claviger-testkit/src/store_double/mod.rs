//! Doubles of providers that can't be run here: the embedded provider behind a proxy that refuses what the provider
//! documents to refuse, and says so in its `Server` header. What a double accepts is not proof that the provider does.
//!
//! ```text
//! gateway under test ── HTTP ──▶ double (the provider's rules) ── HTTP ──▶ embedded provider ── files
//! ```

mod judge;
mod rules;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use claviger_env::SystemClock;
use claviger_provider::{Credentials, Provider};
use http::header::{CONTENT_TYPE, EXPECT, HeaderValue, SERVER};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

pub use rules::{ConditionalWrites, RULES, Rules, named};

use judge::{Asked, Refusal, judge, part_sizes};

/// The access key id that a double takes.
pub const ACCESS_KEY_ID: &str = "double-access-key";
/// Its secret.
pub const SECRET_ACCESS_KEY: &str = "double-secret-key-0123456789";

type Body = BoxBody<Bytes, io::Error>;

/// A double and the provider behind it. Both end when it is dropped.
pub struct StoreDouble {
    address: SocketAddr,
    _stop: Vec<oneshot::Sender<()>>,
    _folder: tempfile::TempDir,
}

struct Shared {
    rules: &'static Rules,
    provider: SocketAddr,
    /// Stored bytes of every part, by upload id.
    parts: Mutex<HashMap<String, HashMap<u16, u64>>>,
}

impl StoreDouble {
    /// Starts an empty provider in a temporary folder, and before it the double with these rules.
    ///
    /// # Errors
    /// No folder, or no socket on loopback.
    pub async fn start(rules: &'static Rules) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY);
        let provider = Provider::open(folder.path(), credentials, rules.region, Arc::new(SystemClock))
            .map_err(io::Error::other)?;
        let inner = TcpListener::bind("127.0.0.1:0").await?;
        let outer = TcpListener::bind("127.0.0.1:0").await?;
        let address = outer.local_addr()?;
        let shared = Arc::new(Shared { rules, provider: inner.local_addr()?, parts: Mutex::default() });
        let (stop_inner, inner_stopped) = oneshot::channel();
        let (stop_outer, outer_stopped) = oneshot::channel();
        tokio::spawn(async move {
            // A dropped sender means: end.
            provider
                .serve(inner, async { drop(inner_stopped.await) })
                .await
                .expect("a loopback listener goes on");
        });
        tokio::spawn(accept(outer, shared, outer_stopped));
        Ok(Self { address, _stop: vec![stop_outer, stop_inner], _folder: folder })
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl std::fmt::Debug for StoreDouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreDouble").field("address", &self.address).finish_non_exhaustive()
    }
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
            // An error is a connection that one side broke off.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let mut response = self.decide(request).await?;
        let name = format!("claviger-store-double/{}", self.rules.name);
        response.headers_mut().insert(SERVER, HeaderValue::try_from(name).map_err(io::Error::other)?);
        Ok(response)
    }

    async fn decide(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let asked = Asked::new(&parts.method, &parts.uri, &parts.headers);
        if let Some(refusal) = judge(self.rules, &asked) {
            // Read to its end, so that a client that sends all of it first sees the answer.
            drop(body.collect().await);
            return Ok(refusal.into_response());
        }
        let part = asked.part().map(|(upload, number)| (upload, number, asked.content_len()));
        let completes = asked.completes().map(str::to_owned);
        let body = match &completes {
            Some(upload) => {
                let document = body.collect().await.map_err(io::Error::other)?.to_bytes();
                if let Some(refusal) = part_sizes(self.rules, &self.sizes_of(upload, &document)) {
                    return Ok(refusal.into_response());
                }
                whole(document)
            }
            None => body.map_err(io::Error::other).boxed(),
        };
        let response = self.forward(Request::from_parts(parts, body)).await?;
        if let Some((upload, number, len)) = part.filter(|_| response.status().is_success()) {
            self.lock_parts().entry(upload).or_default().insert(number, len);
        }
        Ok(response)
    }

    /// Stored sizes of the parts that a Complete's document names, in its order.
    fn sizes_of(&self, upload: &str, document: &[u8]) -> Vec<u64> {
        let parts = self.lock_parts();
        let Some(known) = parts.get(upload) else { return Vec::new() };
        let text = String::from_utf8_lossy(document);
        let numbers =
            text.split("<PartNumber>").skip(1).filter_map(|rest| rest.split('<').next()?.parse().ok());
        numbers.filter_map(|number: u16| known.get(&number).copied()).collect()
    }

    fn lock_parts(&self) -> std::sync::MutexGuard<'_, HashMap<String, HashMap<u16, u64>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the provider, over a connection of its own.
    async fn forward(&self, mut request: Request<Body>) -> io::Result<Response<Body>> {
        request.headers_mut().remove(EXPECT);
        let stream = TcpStream::connect(self.provider).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        Ok(response.map(|body| body.map_err(io::Error::other).boxed()))
    }
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let Self { status, code, message } = self;
        let document = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        let mut response = Response::new(whole(document.into()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        response
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}
