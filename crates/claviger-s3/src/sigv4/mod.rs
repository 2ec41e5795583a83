//! AWS Signature Version 4: verifying requests of clients, signing requests to the store.
//!
//! Source: "Authenticating Requests (AWS Signature Version 4)" in the S3 API reference. Version 2 has a module
//! of its own ([`crate::sigv2`]), the asymmetric version 4a is refused.

mod canonical;
mod chunk;
mod form;
mod key;
mod parse;
mod presented;
mod sign;
#[cfg(test)]
mod tests;

pub use chunk::ChunkVerifier;
pub use form::FormClaims;
pub use key::{SecretAccessKey, SessionToken, SigningKey};
pub use parse::PayloadMode;
pub(crate) use parse::sigv2_refused;
pub use presented::{EXPIRES_S_MAX, Presented, VerifyPolicy};
pub use sign::{PayloadHash, Signer, sign};

/// SHA-256 of nothing, in hexadecimal: the payload hash of a request without a body.
pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The payload hash of a request whose body is not signed.
pub(crate) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
pub(crate) const STREAMING_UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = vec![0; 2 * bytes.len()];
    for (digits, byte) in text.chunks_exact_mut(2).zip(bytes) {
        digits[0] = DIGITS[usize::from(byte >> 4)];
        digits[1] = DIGITS[usize::from(byte & 15)];
    }
    String::from_utf8(text).expect("digits are ASCII")
}

/// Reads 64 digits of lower-case hexadecimal, the only form that signatures and hashes have.
pub(crate) fn unhex32(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}
