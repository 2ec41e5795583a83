//! HTTP to the provider: one pool of connections, every request signed.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use claviger_env::Clock;
use claviger_s3::error::{ErrorCode, UpstreamError};
use claviger_s3::sigv4::PayloadHash;
use claviger_s3::uri::{Slash, encode};
use http::header::{AsHeaderName, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;

use super::account::{Account, ToSign};
use super::along::Along;
use super::body::{Progress, UpstreamBody};
use super::connector::{ReadAheadConnector, TimedConnector};
use super::observed::Observed;
use super::passed::Passed;
use super::pool::{Connections, PooledBody};
use super::profile::Profile;
use super::trailer::trailer_name;
use crate::boxed::boxed;
use crate::config::{Addressing, UpstreamConfig};
use crate::error::GatewayError;
use crate::metrics;
use crate::server::IdleTimeout;

/// Room that is made for an answer because the store says that it is so long: it may never come.
const ANNOUNCED_LEN_MAX: usize = 1 << 20;

/// The longest XML answer that is read into memory: 1,000 keys of 1,024 escaped bytes and then some.
const DOCUMENT_LEN_MAX: usize = 8 << 20;
/// Of an error answer only this much is read.
const ERROR_LEN_MAX: usize = 64 << 10;

/// The HTTP layer asks for more body only when its buffer of some hundred kilobytes has gone out, so that a slow upload
/// that moves all the time shows no progress for minutes. The kernel sees more; this is for what it does not see.
const STALL_FACTOR: u32 = 20;

/// A body from the provider that gives up when nothing comes.
pub(crate) type StoreBody = IdleTimeout<PooledBody>;

/// One request.
pub(crate) struct StoreRequest<'a> {
    /// The method.
    pub method: Method,
    /// The bucket; `None` for ListBuckets.
    pub bucket: Option<&'a str>,
    /// The key, not encoded; `None` for requests on the bucket.
    pub key: Option<&'a str>,
    /// The S3 operation's name, where method and query don't tell it.
    pub name: Option<&'static str>,
    /// Name and value, not encoded; an empty value is sent as `name=`.
    pub query: Vec<(&'a str, String)>,
    /// What goes out beside Host and the signature.
    pub headers: HeaderMap,
    /// The body.
    pub body: UpstreamBody,
}

impl<'a> StoreRequest<'a> {
    /// A request without query, headers or body.
    pub(crate) fn new(method: Method, bucket: &'a str, key: Option<&'a str>) -> Self {
        Self {
            method,
            bucket: Some(bucket),
            key,
            name: None,
            query: Vec::new(),
            headers: HeaderMap::new(),
            body: UpstreamBody::empty(),
        }
    }

    /// Names the S3 operation, for metrics.
    pub(crate) fn named(mut self, name: &'static str) -> Self {
        self.name = Some(name);
        self
    }

    /// Adds a query parameter.
    pub(crate) fn query(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a query parameter if there is a value.
    pub(crate) fn maybe_query(self, name: &'a str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.query(name, value),
            None => self,
        }
    }

    /// Sets a header.
    ///
    /// # Errors
    /// When the value can't stand in a header; such values never come from sealed data.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Result<Self, GatewayError> {
        let value = HeaderValue::from_str(value)
            .map_err(|_| GatewayError::Internal("a header value is not ASCII"))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// The S3 operation's name, for metrics.
    fn operation(&self) -> &'static str {
        if let Some(name) = self.name {
            return name;
        }
        let has = |name: &str| self.query.iter().any(|(other, _)| *other == name);
        let copies = self.headers.contains_key("x-amz-copy-source");
        match (&self.method, self.bucket.is_some(), self.key.is_some()) {
            (_, false, _) => "ListBuckets",
            (&Method::PUT, _, true) if has("uploadId") => "UploadPart",
            (&Method::PUT, _, true) if copies => "CopyObject",
            (&Method::PUT, _, true) => "PutObject",
            (&Method::PUT, ..) => "CreateBucket",
            (&Method::POST, _, true) if has("uploads") => "CreateMultipartUpload",
            (&Method::POST, _, true) => "CompleteMultipartUpload",
            (&Method::POST, ..) => "DeleteObjects",
            (&Method::DELETE, _, true) if has("uploadId") => "AbortMultipartUpload",
            (&Method::DELETE, _, true) => "DeleteObject",
            (&Method::DELETE, ..) => "DeleteBucket",
            (&Method::HEAD, _, true) => "HeadObject",
            (&Method::HEAD, ..) => "HeadBucket",
            (_, _, true) if has("uploadId") => "ListParts",
            (_, _, true) => "GetObject",
            _ if has("uploads") => "ListMultipartUploads",
            _ => "ListObjects",
        }
    }

    /// Has a checksum of the body follow behind it, if the body is a stream.
    ///
    /// # Errors
    /// None that can happen: all values are ASCII.
    pub(super) fn with_trailer(mut self) -> Result<Self, GatewayError> {
        let Some(sealed_len) = self.body.with_trailer() else { return Ok(self) };
        self.header("content-encoding", "aws-chunked")?
            .header("x-amz-decoded-content-length", &sealed_len.to_string())?
            .header("x-amz-trailer", trailer_name())
    }

    /// Sets the body.
    pub(crate) fn body(mut self, body: UpstreamBody) -> Self {
        self.body = body;
        self
    }
}

/// What of an answer a request gave reason for.
struct Asked {
    conditional: bool,
    ranged: bool,
}

impl Asked {
    fn of(request: &StoreRequest<'_>) -> Self {
        let has = |name: &str| request.headers.contains_key(name);
        let conditional = has("if-match") || has("if-none-match") || has("x-amz-copy-source-if-match");
        Self { conditional, ranged: has("range") }
    }

    /// Whether a code is believed. It has to be of its status's kind, else a 500 could tell a client that its object
    /// is gone; and nobody fails a condition or a range that was not sent.
    fn explains(&self, code: ErrorCode, status: StatusCode) -> bool {
        let of_its_kind = code.status().as_u16() / 100 == status.as_u16() / 100;
        // 429 is how some stores say SlowDown, which S3 says with 503.
        (of_its_kind || (status == StatusCode::TOO_MANY_REQUESTS && code == ErrorCode::SlowDown))
            && (self.conditional || code != ErrorCode::PreconditionFailed)
            && (self.ranged || code != ErrorCode::InvalidRange)
    }
}

/// The provider, as one account sees it. A clone is cheap: all share one pool of connections.
#[derive(Clone)]
pub(crate) struct Upstream {
    pool: Arc<Pool>,
    account: Arc<Account>,
    /// `None` for what is nobody's call.
    observed: Option<Arc<Observed>>,
    /// `None` for what is nobody's call.
    along: Option<Arc<Along>>,
}

/// Where the provider is, and the connections to it.
struct Pool {
    connections: Arc<Connections>,
    authority: Authority,
    addressing: Addressing,
    region: String,
    clock: Arc<dyn Clock>,
    response_timeout: Duration,
    body_idle_timeout: Duration,
    profile: &'static Profile,
}

impl Upstream {
    /// Prepares the pool, for the gateway's own `account`; nothing is sent yet.
    ///
    /// # Errors
    /// When the endpoint is not a URL of a host.
    pub(crate) fn new(
        config: &UpstreamConfig,
        account: Arc<Account>,
        tls: rustls::ClientConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, GatewayError> {
        let malformed = GatewayError::Internal("the upstream endpoint is not http(s)://host[:port]");
        let uri: Uri =
            config.endpoint.parse().map_err(|_| GatewayError::Internal("the upstream endpoint is no URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
            return Err(malformed);
        };
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.enforce_http(false);
        http.set_keepalive(Some(Duration::from_secs(60)));
        // A peer that takes nothing is given up by the kernel, which knows what has been taken.
        http.set_tcp_user_timeout(Some(Duration::from_secs(config.body_idle_timeout_s)));
        http.set_connect_timeout(Some(Duration::from_secs(config.connect_timeout_s)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(ReadAheadConnector::new(http));
        let connector = TimedConnector::new(connector, Duration::from_secs(config.connect_timeout_s));
        let idle_timeout = Duration::from_secs(config.pool_idle_timeout_s);
        let pool = Pool {
            connections: Connections::new(connector, scheme.clone(), idle_timeout, config.pool_idle_max),
            authority: authority.clone(),
            addressing: config.addressing,
            region: config.region.clone(),
            clock,
            response_timeout: Duration::from_secs(config.response_timeout_s),
            body_idle_timeout: Duration::from_secs(config.body_idle_timeout_s),
            profile: Profile::of(config.profile),
        };
        Ok(Self { pool: Arc::new(pool), account, observed: None, along: None })
    }

    /// The same provider for one call of a client: requests are `account`'s, `along` goes with them, and `observed` hears
    /// of the answers.
    pub(crate) fn on_behalf_of(
        &self,
        account: Arc<Account>,
        along: Arc<Along>,
        observed: Arc<Observed>,
    ) -> Self {
        Self { pool: self.pool.clone(), account, observed: Some(observed), along: Some(along) }
    }

    /// The same call with another account's key.
    pub(crate) fn with_account(&self, account: Arc<Account>) -> Self {
        Self { account, ..self.clone() }
    }

    /// The account that requests are signed with.
    pub(crate) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// The region that requests are signed for.
    pub(crate) fn region(&self) -> &str {
        &self.pool.region
    }

    /// Sends a request and waits for the head of the answer; anything but 2xx is an error.
    ///
    /// # Errors
    /// The provider's error, or that it could not be reached; that it has no versions, where the request names one.
    pub(crate) async fn send(&self, request: StoreRequest<'_>) -> Result<Response<StoreBody>, GatewayError> {
        self.refuse_version(&request)?;
        let asked = Asked::of(&request);
        let mut response = self.exchange(request).await?;
        self.forget_version(response.headers_mut());
        if response.status().is_success() {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        if parts.status.is_redirection() || parts.status.is_informational() {
            // No request of the gateway asks for a 304, and none follows a redirect.
            return Err(GatewayError::UpstreamAnswer("a redirect or a 304"));
        }
        let document = read_up_to(body, ERROR_LEN_MAX).await.unwrap_or_default();
        let mut error = UpstreamError::parse(parts.status, &document);
        error.code = error.code.filter(|code| asked.explains(*code, parts.status));
        error.passed = Passed::of_error(parts.status, &parts.headers);
        Err(GatewayError::Upstream(Box::new(error)))
    }

    /// Sends a request and reads an answer that is a document.
    ///
    /// # Errors
    /// As [`Self::send`], or when the document is longer than any that the gateway asks for.
    pub(crate) async fn document(
        &self,
        request: StoreRequest<'_>,
    ) -> Result<(http::response::Parts, Bytes), GatewayError> {
        let (parts, body) = self.send(request).await?.into_parts();
        Ok((parts, read_up_to(body, DOCUMENT_LEN_MAX).await?))
    }

    async fn exchange(&self, request: StoreRequest<'_>) -> Result<Response<StoreBody>, GatewayError> {
        let operation = request.operation();
        let pool = &self.pool;
        let begun_ms = pool.clock.boot_ms();
        let bucket = request.bucket.map(str::to_owned);
        let (host, request, progress) = self.signed(request)?;
        // Boxed, so that waiting for two things does not copy it.
        let answer = boxed(|| pool.connections.request(&host, request));
        let patience = progress.until_stalled(pool.body_idle_timeout * STALL_FACTOR, pool.response_timeout);
        let result = tokio::select! {
            // An answer that is there counts, however late it is looked at.
            biased;
            answer = answer => answer.map_err(|error| {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
                GatewayError::UpstreamUnreachable(format!("{error}{}", source.unwrap_or_default()))
            }),
            () = patience => Err(GatewayError::UpstreamUnreachable("no answer in time".to_owned())),
        };
        let status = result.as_ref().ok().map(|answer| answer.status().as_u16());
        let elapsed = Duration::from_millis(pool.clock.boot_ms().saturating_sub(begun_ms));
        metrics::store_asked(operation, status, elapsed.as_secs_f64());
        let response = result?;
        if let Some(observed) = &self.observed {
            observed.answer(response.headers());
            if let Some(judgement) =
                self.along.as_ref().and_then(|along| along.judgement(bucket.as_deref(), response.headers()))
            {
                observed.judged(judgement);
            }
        }
        Ok(response.map(|body| IdleTimeout::new(body, pool.body_idle_timeout)))
    }

    /// The request as it goes out, and to which host.
    fn signed(
        &self,
        request: StoreRequest<'_>,
    ) -> Result<(Authority, Request<UpstreamBody>, Progress), GatewayError> {
        let StoreRequest { method, bucket, key, name: _, query, mut headers, mut body } = request;
        let (host, path) = self.pool.place(bucket, key)?;
        let query = query
            .iter()
            .map(|(name, value)| format!("{name}={}", encode(value.as_bytes(), Slash::Encode)))
            .collect::<Vec<_>>()
            .join("&");
        let host_value = HeaderValue::from_str(host.as_str())
            .map_err(|_| GatewayError::Internal("malformed host name"))?;
        headers.insert(HOST, host_value);
        if let Some(along) = &self.along {
            along.apply(&method, bucket, &mut headers)?;
        }
        let payload = match body.in_memory() {
            Some([]) => PayloadHash::Empty,
            Some(bytes) => PayloadHash::Body(bytes),
            None if body.has_trailer() => PayloadHash::UnsignedTrailer,
            None => PayloadHash::Unsigned,
        };
        let (region, now_ms) = (self.pool.region.as_str(), self.pool.clock.now_ms());
        let what = ToSign { method: &method, path: &path, query: &query, payload, region, now_ms };
        self.account.sign(what, &mut headers)?;
        let target = if query.is_empty() { path } else { format!("{path}?{query}") };
        if matches!(body.in_memory(), Some([])) && (method == Method::PUT || method == Method::POST) {
            // Without it some stores answer 411.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let target =
            PathAndQuery::try_from(target).map_err(|_| GatewayError::Internal("the key makes no URL"))?;
        let progress = body.watch();
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = target.into();
        *request.headers_mut() = headers;
        Ok((host, request, progress))
    }

    /// Closes connections that nobody has used for long. To be called now and then.
    pub(crate) fn close_idle(&self) {
        self.pool.connections.close_expired();
    }

    /// What kind of store it is.
    pub(crate) fn profile(&self) -> &'static Profile {
        self.pool.profile
    }
}

impl Pool {
    fn place(&self, bucket: Option<&str>, key: Option<&str>) -> Result<(Authority, String), GatewayError> {
        let key_path = key.map(|key| encode(key.as_bytes(), Slash::Keep)).unwrap_or_default();
        let key_path = key_path.as_str();
        Ok(match (bucket, self.addressing) {
            (None, _) => (self.authority.clone(), "/".to_owned()),
            (Some(bucket), Addressing::Path) if key.is_none() => {
                (self.authority.clone(), ["/", bucket].concat())
            }
            (Some(bucket), Addressing::Path) => {
                (self.authority.clone(), ["/", bucket, "/", key_path].concat())
            }
            (Some(bucket), Addressing::Virtual) => {
                let host = Authority::try_from(format!("{bucket}.{}", self.authority));
                (
                    host.map_err(|_| GatewayError::Internal("the bucket makes no host name"))?,
                    ["/", key_path].concat(),
                )
            }
        })
    }
}

/// Reads a body of at most `len_max` bytes into memory.
///
/// # Errors
/// When it is longer or breaks off.
pub(crate) async fn read_up_to(mut body: StoreBody, len_max: usize) -> Result<Bytes, GatewayError> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut all = BytesMut::with_capacity(announced.min(len_max).min(ANNOUNCED_LEN_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| GatewayError::UpstreamUnreachable(error.to_string()))?;
        if let Ok(data) = frame.into_data() {
            if all.len() + data.len() > len_max {
                return Err(GatewayError::UpstreamAnswer("longer than any answer that was asked for"));
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

/// The value of a header that is text.
pub(crate) fn header_text(headers: &HeaderMap, name: impl AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(names: &[&'static str]) -> Asked {
        let mut request = StoreRequest::new(Method::GET, "bucket", Some("key"));
        for name in names {
            request = request.header(name, "x").unwrap();
        }
        Asked::of(&request)
    }

    #[test]
    fn a_code_is_believed_only_under_a_status_of_its_kind() {
        let plain = asked(&[]);
        assert!(plain.explains(ErrorCode::NoSuchKey, StatusCode::NOT_FOUND));
        assert!(!plain.explains(ErrorCode::NoSuchKey, StatusCode::INTERNAL_SERVER_ERROR));
        assert!(!plain.explains(ErrorCode::NotModified, StatusCode::INTERNAL_SERVER_ERROR));
        assert!(!plain.explains(ErrorCode::PermanentRedirect, StatusCode::SERVICE_UNAVAILABLE));
    }

    #[test]
    fn throttling_stays_throttling_under_either_of_its_statuses() {
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
            let error = UpstreamError::parse(status, b"<Error><Code>SlowDown</Code></Error>");
            assert!(asked(&[]).explains(error.code.unwrap(), status), "{status}");
        }
        let bare = UpstreamError::parse(StatusCode::TOO_MANY_REQUESTS, b"");
        assert!(asked(&[]).explains(bare.code.unwrap(), StatusCode::TOO_MANY_REQUESTS));
    }

    #[test]
    fn nobody_fails_a_condition_or_a_range_that_was_not_sent() {
        let (failed, beyond) = (StatusCode::PRECONDITION_FAILED, StatusCode::RANGE_NOT_SATISFIABLE);
        assert!(!asked(&[]).explains(ErrorCode::PreconditionFailed, failed));
        assert!(asked(&["if-match"]).explains(ErrorCode::PreconditionFailed, failed));
        assert!(!asked(&[]).explains(ErrorCode::InvalidRange, beyond));
        assert!(asked(&["range"]).explains(ErrorCode::InvalidRange, beyond));
    }
}
