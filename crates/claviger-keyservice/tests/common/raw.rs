//! A client without manners: it shows any certificate or none, and sends its body when it likes.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use claviger_keyapi::enrol::EnrolToken;
use claviger_keyapi::tls::{self, Accept, TlsIdentity};
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::{World, stored};

type Frames = std::pin::Pin<Box<dyn Body<Data = Bytes, Error = std::convert::Infallible> + Send>>;

pub(crate) struct Raw(http2::SendRequest<Frames>);

#[derive(Debug)]
struct Now(u64);
impl rustls::time_provider::TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0)))
    }
}

/// Connects with the identity of a folder, or as a stranger.
pub(crate) async fn connect(world: &World, folder: Option<&str>) -> Raw {
    let config = config(world, folder).await;
    connect_with(world, &config).await.unwrap()
}

/// What it takes to connect with the identity of a folder, or as a stranger.
pub(crate) async fn config(world: &World, folder: Option<&str>) -> Arc<rustls::ClientConfig> {
    let now = Arc::new(Now(claviger_env::Clock::now_ms(&*world.clock)));
    Arc::new(if let Some(folder) = folder {
        let certificate = stored(world, folder).certificate;
        let file = std::fs::read_to_string(world.path(folder).join("identity.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&file).unwrap();
        let key = STANDARD.decode(json["key"].as_str().unwrap()).unwrap();
        let identity = TlsIdentity {
            chain: vec![CertificateDer::from(certificate.certificate.0)],
            key: PrivateKeyDer::Pkcs8(key.into()),
        };
        tls::client_config(identity, CertificateDer::from(certificate.ca.0), Accept::AnyState, now).unwrap()
    } else {
        let token = EnrolToken::parse(&world.token("gateway:nobody").await).unwrap();
        tls::enrol_config(token.ca_spki_sha256, now).unwrap()
    })
}

/// Connects; the service may hang up.
pub(crate) async fn connect_with(
    world: &World,
    config: &Arc<rustls::ClientConfig>,
) -> Result<Raw, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(world.config.listen).await?;
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let stream = connector.connect(tls::server_name(), stream).await?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(Raw(sender))
}

/// Connects as one who takes no byte of any answer.
pub(crate) async fn connect_deaf(world: &World, folder: &str) -> Raw {
    let stream = TcpStream::connect(world.config.listen).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(config(world, Some(folder)).await);
    let stream = connector.connect(tls::server_name(), stream).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Raw(sender)
}

/// A request of which a part was sent.
pub(crate) struct Begun {
    rest: mpsc::UnboundedSender<Bytes>,
    answer: tokio::task::JoinHandle<(u16, String)>,
}

impl Raw {
    /// Whether the other end has not hung up, as far as that was heard.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.is_closed()
    }

    /// The head of an answer, whose body is left where it is; `None` if the service hung up.
    pub(crate) async fn ask_and_leave(
        &mut self,
        path: &str,
        body: &str,
    ) -> Option<http::Response<hyper::body::Incoming>> {
        self.request(path, body).await.ok()
    }

    fn request(
        &mut self,
        path: &str,
        body: &str,
    ) -> impl Future<Output = hyper::Result<http::Response<hyper::body::Incoming>>> + Send + use<> {
        let body = stream::iter([Ok(Frame::data(Bytes::from(body.to_owned())))]);
        let body: Frames = Box::pin(StreamBody::new(body));
        let request = http::Request::post(format!("https://{}{path}", tls::SERVICE_NAME)).body(body).unwrap();
        self.0.send_request(request)
    }

    /// Status of a call; `None` if the service hung up.
    pub(crate) async fn try_ask(&mut self, path: &str, body: &str) -> Option<u16> {
        self.ask_once(path, body).await
    }

    /// The same, of several at once.
    pub(crate) fn ask_once(
        &mut self,
        path: &str,
        body: &str,
    ) -> impl Future<Output = Option<u16>> + Send + use<> {
        let answer = self.request(path, body);
        async { Some(answer.await.ok()?.status().as_u16()) }
    }

    /// Sends the beginning of a body and leaves the request open.
    pub(crate) fn begin(&mut self, path: &str, body: &str) -> Begun {
        let (rest, frames) = mpsc::unbounded_channel::<Bytes>();
        rest.send(Bytes::from(body.to_owned())).unwrap();
        let frames = stream::unfold(frames, |mut frames| async {
            frames.recv().await.map(|bytes| (Ok(Frame::data(bytes)), frames))
        });
        let body: Frames = Box::pin(StreamBody::new(frames));
        let request = http::Request::post(format!("https://{}{path}", tls::SERVICE_NAME)).body(body).unwrap();
        let answer = self.0.send_request(request);
        let answer = tokio::spawn(async move {
            let answer = answer.await.unwrap();
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        });
        Begun { rest, answer }
    }

    pub(crate) async fn ask(&mut self, path: &str, body: &str) -> (u16, String) {
        self.begin(path, body).end("").await
    }
}

impl Begun {
    /// Sends nothing more, and does not end it either.
    pub(crate) async fn wait(self) -> (u16, String) {
        let answer = self.answer.await.unwrap();
        drop(self.rest);
        answer
    }

    /// Sends the rest; status and body of the answer.
    pub(crate) async fn end(self, rest: &str) -> (u16, String) {
        // The service may have answered already.
        let _ = self.rest.send(Bytes::from(rest.to_owned()));
        drop(self.rest);
        self.answer.await.unwrap()
    }
}
