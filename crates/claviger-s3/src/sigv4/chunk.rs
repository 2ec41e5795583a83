//! The chain of chunk signatures.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::key::SigningKey;
use super::{EMPTY_SHA256, hex};
use crate::error::{ErrorCode, S3Error};

/// Verifies the signatures of chunks and trailers, each of which covers the one before; the first covers that of the
/// request.
#[derive(Debug)]
pub struct ChunkVerifier {
    key: Arc<SigningKey>,
    timestamp: String,
    previous: [u8; 32],
}

impl ChunkVerifier {
    /// Begins the chain with the signature of the request, made at `timestamp` (`YYYYMMDDThhmmssZ`).
    pub(crate) fn new(key: Arc<SigningKey>, timestamp: String, seed: [u8; 32]) -> Self {
        Self { key, timestamp, previous: seed }
    }

    /// Verifies the next chunk from the SHA-256 of its payload; `SignatureDoesNotMatch` otherwise.
    pub(crate) fn check_chunk(&mut self, signature: &[u8; 32], sha256: &[u8; 32]) -> Result<(), S3Error> {
        let covered = format!("{EMPTY_SHA256}\n{}", hex(sha256));
        self.check("AWS4-HMAC-SHA256-PAYLOAD", &covered, signature)
    }

    /// Verifies the trailer section from the SHA-256 of its `name:value\n` lines; `SignatureDoesNotMatch` otherwise.
    pub(crate) fn check_trailer(&mut self, signature: &[u8; 32], sha256: &[u8; 32]) -> Result<(), S3Error> {
        self.check("AWS4-HMAC-SHA256-TRAILER", &hex(sha256), signature)
    }

    fn check(&mut self, label: &str, covered: &str, signature: &[u8; 32]) -> Result<(), S3Error> {
        let (timestamp, scope, previous) = (&self.timestamp, self.key.scope(), hex(&self.previous));
        let expected =
            self.key.sign(format!("{label}\n{timestamp}\n{scope}\n{previous}\n{covered}").as_bytes());
        if bool::from(expected.ct_eq(signature)) {
            self.previous = expected;
            return Ok(());
        }
        Err(ErrorCode::SignatureDoesNotMatch.into())
    }
}
