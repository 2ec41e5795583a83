//! Signing of requests to the store.

use std::borrow::Cow;

use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};

use super::canonical::{ALGORITHM, Canonical, Form, string_to_sign};
use super::key::SigningKey;
use super::{EMPTY_SHA256, STREAMING_UNSIGNED_TRAILER, UNSIGNED_PAYLOAD, hex};
use crate::error::{ErrorCode, S3Error};
use crate::timestamp::amz_date;

/// Headers that the HTTP library or a proxy may change or add after signing.
const NOT_SIGNED: &[&str] = &[
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "expect",
    "te",
    "transfer-encoding",
    "user-agent",
];

/// The `x-amz-content-sha256` of a request to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadHash<'a> {
    /// `UNSIGNED-PAYLOAD`: the body is covered by TLS alone.
    Unsigned,
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`: likewise, in `aws-chunked` form with a checksum behind it.
    UnsignedTrailer,
    /// The SHA-256 of nothing.
    Empty,
    /// The SHA-256 of these bytes.
    Body(&'a [u8]),
    /// A SHA-256 that is already known.
    Sha256([u8; 32]),
}

impl PayloadHash<'_> {
    /// The header's value.
    pub fn to_text(&self) -> Cow<'static, str> {
        match self {
            Self::Unsigned => UNSIGNED_PAYLOAD.into(),
            Self::UnsignedTrailer => STREAMING_UNSIGNED_TRAILER.into(),
            Self::Empty => EMPTY_SHA256.into(),
            Self::Body(body) => hex(&Sha256::digest(body)).into(),
            Self::Sha256(digest) => hex(digest).into(),
        }
    }
}

/// Whose signature.
#[derive(Debug, Clone, Copy)]
pub struct Signer<'a> {
    /// The access key id.
    pub access_key_id: &'a str,
    /// The key of the day (see [`SigningKey::covers`]).
    pub key: &'a SigningKey,
    /// `x-amz-security-token` of temporary credentials.
    pub session_token: Option<&'a str>,
}

/// Signs a request: adds `x-amz-date`, `x-amz-content-sha256`, the token and `Authorization` to `headers`, which must
/// already hold `Host` and everything else that will be sent. `raw_path` and `raw_query` (without `?`) are as they will
/// be sent, encoded with [`crate::uri::encode`].
///
/// `InternalError` when `Host` is missing, the key is of another day, or a value can't stand in a header.
pub fn sign(
    signer: &Signer<'_>,
    method: &Method,
    raw_path: &str,
    raw_query: &str,
    headers: &mut HeaderMap,
    payload: PayloadHash<'_>,
    now_ms: u64,
) -> Result<(), S3Error> {
    let timestamp = amz_date(now_ms);
    if !signer.key.covers(now_ms) {
        return Err(internal());
    }
    let payload_hash = payload.to_text();
    set(headers, "x-amz-date", &timestamp)?;
    set(headers, "x-amz-content-sha256", &payload_hash)?;
    if let Some(token) = signer.session_token {
        set(headers, "x-amz-security-token", token)?;
    }
    let host = headers.get(HOST).and_then(|value| value.to_str().ok()).ok_or_else(internal)?;
    let signed_headers = names_to_sign(headers);
    let canonical = Canonical {
        method,
        raw_path,
        raw_query,
        headers,
        host,
        signed_headers: &signed_headers,
        payload_hash: &payload_hash,
    };
    let scope = signer.key.scope();
    let to_sign = string_to_sign(&timestamp, scope, &canonical.request(Form::Encoded));
    let signature = hex(&signer.key.sign(to_sign.as_bytes()));
    let id = signer.access_key_id;
    let authorization = [
        ALGORITHM,
        " Credential=",
        id,
        "/",
        scope,
        ", SignedHeaders=",
        &signed_headers,
        ", Signature=",
        &signature,
    ]
    .concat();
    headers.insert(AUTHORIZATION, HeaderValue::try_from(authorization).map_err(|_| internal())?);
    Ok(())
}

fn names_to_sign(headers: &HeaderMap) -> String {
    let mut names = Vec::with_capacity(headers.keys_len());
    names.extend(headers.keys().map(HeaderName::as_str).filter(|name| !NOT_SIGNED.contains(name)));
    names.sort_unstable();
    names.join(";")
}

fn set(headers: &mut HeaderMap, name: &'static str, value: &str) -> Result<(), S3Error> {
    let value = HeaderValue::from_str(value).map_err(|_| internal())?;
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

fn internal() -> S3Error {
    ErrorCode::InternalError.into()
}
