//! The smallest S3 client that `peek` and `demo` need: one signed GET of the beginning of an object.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use claviger_env::Clock;
use claviger_s3::sigv4::{PayloadHash, SecretAccessKey, Signer, SigningKey, sign};
use claviger_s3::uri::{Slash, encode};
use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_platform_verifier::ConfigVerifierExt;

/// Whom to ask, and as whom.
pub(crate) struct Account {
    pub(crate) endpoint: String,
    pub(crate) region: String,
    pub(crate) access_key_id: String,
    pub(crate) secret: SecretAccessKey,
    pub(crate) session_token: Option<String>,
}

/// An answer, with the first bytes of its body.
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// Asks for an object and takes at most `len_max` bytes of it; the rest is not fetched.
///
/// # Errors
/// When no answer comes. An answer that is an S3 error is an answer.
pub(crate) async fn get_beginning(
    account: &Account,
    bucket: &str,
    key: &str,
    len_max: usize,
    clock: &dyn Clock,
) -> Result<Reply> {
    let path =
        format!("/{}/{}", encode(bucket.as_bytes(), Slash::Encode), encode(key.as_bytes(), Slash::Keep));
    let endpoint = account.endpoint.trim_end_matches('/');
    let mut request = Request::builder().uri(format!("{endpoint}{path}")).body(Empty::<Bytes>::new())?;
    let host = request.uri().authority().ok_or_else(|| anyhow!("{endpoint} names no host"))?.to_string();
    *request.headers_mut() = signed_headers(account, &host, &path, clock)?;
    let response = client()?
        .request(request)
        .await
        .with_context(|| format!("no answer from {endpoint}; is it running?"))?;
    let (head, mut body) = response.into_parts();
    let mut beginning = Vec::new();
    while beginning.len() < len_max
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame.context("the answer broke off")?.into_data() {
            beginning.extend_from_slice(&data);
        }
    }
    beginning.truncate(len_max);
    Ok(Reply { status: head.status, headers: head.headers, body: beginning })
}

fn signed_headers(account: &Account, host: &str, path: &str, clock: &dyn Clock) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_str(host)?);
    let now_ms = clock.now_ms();
    let key = SigningKey::for_time(&account.secret, now_ms, &account.region);
    let signer = Signer {
        access_key_id: &account.access_key_id,
        key: &key,
        session_token: account.session_token.as_deref(),
    };
    sign(&signer, &Method::GET, path, "", &mut headers, PayloadHash::Empty, now_ms)
        .map_err(|error| anyhow!("can't sign the request: {error}"))?;
    Ok(headers)
}

pub(crate) type HttpsClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// A client for plain HTTP and for HTTPS with the system's authorities.
///
/// # Errors
/// When these can't be read.
pub(crate) fn client() -> Result<HttpsClient> {
    Ok(client_for(connector()?))
}

/// The same for requests with bodies of any kind.
pub(crate) fn client_for<B>(
    connector: HttpsConnector<HttpConnector>,
) -> Client<HttpsConnector<HttpConnector>, B>
where
    B: hyper::body::Body + Send,
    B::Data: Send,
{
    Client::builder(TokioExecutor::new()).build(connector)
}

/// What such a client connects with.
///
/// # Errors
/// When the system's authorities can't be read.
pub(crate) fn connector() -> Result<HttpsConnector<HttpConnector>> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing the race means that another thread has set the same one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let tls =
        rustls::ClientConfig::with_platform_verifier().context("can't read the system's authorities")?;
    Ok(hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
}

/// For callers that hold the clock as the other components do.
pub(crate) fn system_clock() -> Arc<dyn Clock> {
    Arc::new(claviger_env::SystemClock)
}
