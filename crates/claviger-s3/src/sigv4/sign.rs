//! Signing of requests to the store.

use http::{HeaderMap, Method};

use super::key::SigningKey;
use crate::error::S3Error;

/// The `x-amz-content-sha256` of a request to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadHash<'a> {
    /// `UNSIGNED-PAYLOAD`: only over TLS.
    Unsigned,
    /// The SHA-256 of nothing.
    Empty,
    /// The SHA-256 of these bytes.
    Body(&'a [u8]),
    /// A SHA-256 that is already known.
    Sha256([u8; 32]),
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
/// already hold `Host` and everything else that will be sent. `raw_path` and `raw_query` are as they will be sent.
pub fn sign(
    signer: &Signer<'_>,
    method: &Method,
    raw_path: &str,
    raw_query: &str,
    headers: &mut HeaderMap,
    payload: PayloadHash<'_>,
    now_ms: u64,
) -> Result<(), S3Error> {
    let _ = (signer, method, raw_path, raw_query, headers, payload, now_ms);
    todo!()
}
