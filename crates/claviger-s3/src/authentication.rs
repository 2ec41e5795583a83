//! How a request says whose it is, and what is known once that is settled.

use std::sync::Arc;

use http::header::AUTHORIZATION;

use crate::aws_chunked::Framing;
use crate::error::{ErrorCode, S3Error};
use crate::request::RequestHead;
use crate::sigv4::{ChunkVerifier, PayloadMode, SessionToken, SigningKey};
use crate::timestamp::{amz_date, iso8601, parse_amz_date, parse_http_date};

/// How far the client's clock may be from ours, either way.
pub const SKEW_MS_MAX: u64 = 15 * 60 * 1000;

pub(crate) const CONTENT_SHA256: &str = "x-amz-content-sha256";

/// How a request says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// It does not.
    Anonymous,
    /// Signature Version 2, in a header or in the query.
    SigV2,
    /// Signature Version 4, in a header or in the query; also whatever else an `Authorization` header may hold, which
    /// is then refused by name.
    SigV4,
}

impl Scheme {
    /// Looks for signatures; none is verified.
    ///
    /// `InvalidArgument` when there are several: nobody could say which of them the request goes by.
    pub fn of(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        let pairs = head.pairs()?;
        let has = |name: &str| pairs.iter().any(|(other, _)| other == name);
        let header = head.headers.get(AUTHORIZATION).map(|value| {
            let is_v2 = value.as_bytes().trim_ascii_start().starts_with(b"AWS ");
            if is_v2 { Self::SigV2 } else { Self::SigV4 }
        });
        let v4_query = ["X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Signature"].into_iter().any(has);
        let v2_query = has("AWSAccessKeyId") || (has("Signature") && has("Expires"));
        let presented =
            header.into_iter().chain(v4_query.then_some(Self::SigV4)).chain(v2_query.then_some(Self::SigV2));
        let presented: Vec<Self> = presented.collect();
        match presented[..] {
            [] => Ok(Self::Anonymous),
            [one] => Ok(one),
            _ => Err(S3Error::new(ErrorCode::InvalidArgument)
                .with_message("Only one way of authentication is allowed: the header or the query.")),
        }
    }
}

/// Whose a request is, and how its body is covered.
#[derive(Debug)]
pub struct Authenticated {
    access_key_id: String,
    payload: PayloadMode,
    chunks: Option<ChunkSeed>,
    host: Option<String>,
}

/// Where the chain of chunk signatures begins.
#[derive(Debug)]
pub(crate) struct ChunkSeed {
    pub(crate) key: Arc<SigningKey>,
    pub(crate) timestamp: String,
    pub(crate) signature: [u8; 32],
}

impl Authenticated {
    pub(crate) fn by_sigv4(access_key_id: String, payload: PayloadMode, chunks: ChunkSeed) -> Self {
        Self { access_key_id, payload, chunks: Some(chunks), host: None }
    }

    /// A request whose body no signature covers: an anonymous one. The body may still
    /// announce its SHA-256, or carry an unsigned trailer.
    ///
    /// `InvalidArgument` for chunks that claim to be signed: there is no signature that their chain could begin with.
    pub fn without_payload_signature(access_key_id: String, head: &RequestHead<'_>) -> Result<Self, S3Error> {
        Self::announcing(access_key_id, content_sha256(head)?)
    }

    /// A request of Signature Version 2. Where it is presigned, `is_query`, the SHA-256 of the body may stand in the query, and
    /// is as binding there as the header: the signature covers both alike.
    ///
    /// As [`Self::without_payload_signature`]; `InvalidRequest` for several of them.
    pub(crate) fn by_sigv2(
        access_key_id: String,
        head: &RequestHead<'_>,
        is_query: bool,
    ) -> Result<Self, S3Error> {
        let sent = content_sha256(head)?;
        let pairs = if is_query { head.pairs()? } else { Vec::new() };
        let hoisted = pairs.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case(CONTENT_SHA256));
        let mut all = sent.into_iter().chain(hoisted.map(|(_, value)| value.trim().to_owned()));
        match (all.next(), all.next()) {
            (announced, None) => Self::announcing(access_key_id, announced),
            _ => Err(sent_twice()),
        }
    }

    fn announcing(access_key_id: String, content_sha256: Option<String>) -> Result<Self, S3Error> {
        let payload = match content_sha256 {
            None => PayloadMode::Unsigned,
            Some(value) => PayloadMode::parse(&value)?,
        };
        if matches!(payload, PayloadMode::SignedChunks { .. }) {
            return Err(S3Error::new(ErrorCode::InvalidArgument)
                .with_message("Signed chunks need a request that is signed with AWS4-HMAC-SHA256."));
        }
        Ok(Self { access_key_id, payload, chunks: None, host: None })
    }

    /// Whoever sent a form; its body has neither a hash nor chunks.
    pub fn of_form(access_key_id: String) -> Self {
        Self { access_key_id, payload: PayloadMode::Unsigned, chunks: None, host: None }
    }

    /// Notes the host name under which the signature verified, where it was not the one in the request.
    pub(crate) fn under_host(mut self, host: Option<&str>) -> Self {
        self.host = host.map(str::to_owned);
        self
    }

    /// The access key.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The host name that the client signed, where it is an alias and not the one in the request. Who looks at the
    /// host has to look at this one.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// How the body is covered.
    pub fn payload(&self) -> PayloadMode {
        self.payload
    }

    /// What the body is wrapped in, for [`crate::aws_chunked::Decoder::new`]; `None` when it is sent as it is.
    pub fn framing(&self) -> Option<Framing> {
        match (self.payload, &self.chunks) {
            (PayloadMode::SignedChunks { trailer }, Some(seed)) => {
                let ChunkSeed { key, timestamp, signature } = seed;
                let verifier = ChunkVerifier::new(Arc::clone(key), timestamp.clone(), *signature);
                Some(Framing::Signed { verifier, trailer })
            }
            (PayloadMode::UnsignedChunksTrailer, _) => Some(Framing::UnsignedTrailer),
            _ => None,
        }
    }
}

/// Verifies a signature and the session token that comes with it; what `verify` gives is given.
///
/// `InvalidToken` for a token that does not belong to the key, `InvalidAccessKeyId` where one is missing: the key of
/// temporary credentials alone is no key. A token is compared, in constant time, after the signature.
pub(crate) fn check_token<T>(
    expected: Option<&SessionToken>,
    presented: Option<&str>,
    verify: impl FnOnce() -> Result<T, S3Error>,
) -> Result<T, S3Error> {
    match (expected, presented) {
        (None, None) => verify(),
        (None, Some(_)) => Err(ErrorCode::InvalidToken.into()),
        (Some(_), None) => Err(ErrorCode::InvalidAccessKeyId.into()),
        (Some(expected), Some(presented)) => {
            let verified = verify()?;
            if expected.matches(presented) { Ok(verified) } else { Err(ErrorCode::InvalidToken.into()) }
        }
    }
}

/// Whether a request was signed near enough to now.
///
/// `RequestTimeTooSkewed` with both times.
pub(crate) fn check_skew(signed_at_ms: u64, now_ms: u64) -> Result<(), S3Error> {
    if signed_at_ms.abs_diff(now_ms) <= SKEW_MS_MAX {
        return Ok(());
    }
    Err(S3Error::new(ErrorCode::RequestTimeTooSkewed)
        .with_extra("RequestTime", amz_date(signed_at_ms))
        .with_extra("ServerTime", iso8601(now_ms))
        .with_extra("MaxAllowedSkewMilliseconds", SKEW_MS_MAX.to_string()))
}

/// `x-amz-date`, else `Date`, whole seconds in ms. `x-amz-date` wins where both are there.
///
/// `AccessDenied` where neither can be read.
pub(crate) fn header_time(head: &RequestHead<'_>) -> Result<u64, S3Error> {
    let text = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap_or("").trim());
    let time = text("x-amz-date").or_else(|| text("date")).and_then(parse_time);
    time.map(|ms| ms / 1000 * 1000).ok_or_else(|| {
        S3Error::new(ErrorCode::AccessDenied)
            .with_message("AWS authentication requires a valid Date or x-amz-date header")
    })
}

/// ISO 8601 in short, the forms of HTTP, and that of mail where it is in UTC; nothing before 1970.
fn parse_time(text: &str) -> Option<u64> {
    let http = || match text.strip_suffix(" +0000") {
        Some(mail) => parse_http_date(&format!("{mail} GMT")),
        None => parse_http_date(text),
    };
    parse_amz_date(text).or_else(http).filter(|ms| *ms > 0)
}

/// `x-amz-security-token`, or what the query holds of it.
///
/// `InvalidToken` when there is more than one.
pub(crate) fn security_token(
    head: &RequestHead<'_>,
    query: Option<String>,
) -> Result<Option<String>, S3Error> {
    let mut values = head.headers.get_all("x-amz-security-token").iter();
    match (values.next(), values.next(), query) {
        (None, _, query) => Ok(query),
        (Some(value), None, None) => Ok(Some(value.to_str().unwrap_or("").trim().to_owned())),
        _ => Err(ErrorCode::InvalidToken.into()),
    }
}

/// `x-amz-content-sha256`.
///
/// `InvalidRequest` when it was sent twice.
pub(crate) fn content_sha256(head: &RequestHead<'_>) -> Result<Option<String>, S3Error> {
    let mut values = head.headers.get_all(CONTENT_SHA256).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => Ok(Some(value.to_str().unwrap_or("").trim().to_owned())),
        _ => Err(sent_twice()),
    }
}

fn sent_twice() -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest).with_message("x-amz-content-sha256 was sent twice.")
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, Uri};

    use super::*;

    fn scheme(target: &str, authorization: Option<&str>) -> Result<Scheme, ErrorCode> {
        let uri: Uri = target.parse().unwrap();
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        Scheme::of(&RequestHead::new(&Method::GET, &uri, &headers)).map_err(|error| error.code())
    }

    #[test]
    fn a_request_goes_by_one_way_of_authentication_or_none() {
        assert_eq!(scheme("/b/k?prefix=a", None), Ok(Scheme::Anonymous));
        assert_eq!(scheme("/b/k", Some("AWS4-HMAC-SHA256 Credential=a")), Ok(Scheme::SigV4));
        assert_eq!(scheme("/b/k", Some("Bearer x")), Ok(Scheme::SigV4));
        assert_eq!(scheme("/b/k", Some("AWS id:c2ln")), Ok(Scheme::SigV2));
        assert_eq!(scheme("/b/k?X-Amz-Signature=a", None), Ok(Scheme::SigV4));
        assert_eq!(scheme("/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", None), Ok(Scheme::SigV2));
        let v2_query = "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1";
        for (target, authorization) in [
            (v2_query, Some("AWS id:c2ln")),
            (v2_query, Some("AWS4-HMAC-SHA256 Credential=a")),
            ("/b/k?X-Amz-Signature=a", Some("AWS id:c2ln")),
            ("/b/k?X-Amz-Signature=a&AWSAccessKeyId=a&Signature=b&Expires=1", None),
        ] {
            assert_eq!(scheme(target, authorization), Err(ErrorCode::InvalidArgument), "{target}");
        }
    }

    #[test]
    fn chunks_that_claim_to_be_signed_need_a_signature_to_begin_with() {
        let uri: Uri = "/b/k".parse().unwrap();
        let authenticated = |value: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert("x-amz-content-sha256", value.parse().unwrap());
            }
            let head = RequestHead::new(&Method::PUT, &uri, &headers);
            Authenticated::without_payload_signature("anonymous".to_owned(), &head)
        };
        assert_eq!(authenticated(None).unwrap().payload(), PayloadMode::Unsigned);
        let trailer = authenticated(Some("STREAMING-UNSIGNED-PAYLOAD-TRAILER")).unwrap();
        assert!(matches!(trailer.framing(), Some(Framing::UnsignedTrailer)));
        for value in ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"] {
            assert_eq!(authenticated(Some(value)).unwrap_err().code(), ErrorCode::InvalidArgument);
        }
    }
}
