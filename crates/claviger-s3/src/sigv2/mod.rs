//! AWS Signature Version 2: verifying requests of clients, for stores whose clients still use it. It covers neither the
//! body nor most of the query, so nobody should who has a choice.
//!
//! Source: "Signing and authenticating REST requests (AWS signature version 2)" and "Browser-based uploads using POST
//! (AWS signature version 2)" in the S3 API reference.

mod canonical;
mod disposition;
mod presented;
#[cfg(test)]
mod tests;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use subtle::ConstantTimeEq as _;

pub use canonical::SUB_RESOURCES;
pub use presented::{Presented, VerifyPolicy};

use crate::error::{ErrorCode, S3Error};
use crate::sigv4::SecretAccessKey;

/// Bytes of an HMAC-SHA-1.
const SIGNATURE_LEN: usize = 20;

/// Verifies the `signature` field of a POST form: the HMAC-SHA-1 of the `policy` field, as it was sent, in base64.
///
/// `SignatureDoesNotMatch`, in constant time.
pub fn verify_policy(secret: &SecretAccessKey, policy: &str, signature: &str) -> Result<(), S3Error> {
    let presented = decode(signature).ok_or(ErrorCode::SignatureDoesNotMatch)?;
    if secret.hmac_sha1(policy.as_bytes()).ct_eq(&presented).into() {
        return Ok(());
    }
    Err(ErrorCode::SignatureDoesNotMatch.into())
}

/// A signature in base64; `None` when it is none.
fn decode(signature: &str) -> Option<[u8; SIGNATURE_LEN]> {
    BASE64.decode(signature).ok()?.try_into().ok()
}
