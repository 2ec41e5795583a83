//! The signature that a client presents.

use std::sync::Arc;

use super::key::{SecretAccessKey, SigningKey};
use crate::aws_chunked::Framing;
use crate::error::S3Error;
use crate::request::RequestHead;

/// How the signature covers the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadMode {
    /// Its exact SHA-256, checked by [`crate::checksum::BodyVerifier`].
    Sha256([u8; 32]),
    /// `UNSIGNED-PAYLOAD`
    Unsigned,
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD` or, with `trailer`, `…-TRAILER`
    SignedChunks {
        /// A signed trailer section follows the chunks.
        trailer: bool,
    },
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`
    UnsignedChunksTrailer,
}

impl PayloadMode {
    /// Whether the body is `aws-chunked`.
    pub fn is_chunked(&self) -> bool {
        matches!(self, Self::SignedChunks { .. } | Self::UnsignedChunksTrailer)
    }
}

/// What the caller accepts.
#[derive(Debug, Clone, Copy)]
pub struct VerifyPolicy<'a> {
    /// The only region that scopes may name; `None` accepts any (it is signed all the same).
    pub region: Option<&'a str>,
}

/// A signature as presented: parsed and plausible, not yet verified.
#[derive(Debug)]
pub struct Presented {
    access_key_id: String,
}

/// Proof that the holder of an access key signed this request.
#[derive(Debug)]
pub struct Authenticated {
    access_key_id: String,
    payload: PayloadMode,
    signing_key: Arc<SigningKey>,
}

impl Presented {
    /// Reads `Authorization` or the presigned query.
    pub fn parse(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        let _ = head;
        todo!()
    }
    /// Whose key it claims to be; unknown ids are answered `InvalidAccessKeyId` by the caller.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
    /// `YYYYMMDD` of the scope.
    pub fn date(&self) -> &str {
        todo!()
    }
    /// Region of the scope.
    pub fn region(&self) -> &str {
        todo!()
    }
    /// Derives the key that the signature has to be made with. Cache it by (access key, date, region).
    pub fn signing_key(&self, secret: &SecretAccessKey) -> SigningKey {
        let _ = secret;
        todo!()
    }
    /// Verifies the signature at the time `now_ms`.
    pub fn verify(
        self,
        head: &RequestHead<'_>,
        key: &Arc<SigningKey>,
        policy: &VerifyPolicy<'_>,
        now_ms: u64,
    ) -> Result<Authenticated, S3Error> {
        let _ = (head, key, policy, now_ms);
        todo!()
    }
}

impl Authenticated {
    /// The access key.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }
    /// How the body is covered.
    pub fn payload(&self) -> PayloadMode {
        self.payload
    }
    /// What the body is wrapped in, for [`crate::aws_chunked::Decoder::new`]; `None` when it is sent as it is.
    pub fn framing(&self) -> Option<Framing> {
        let _ = &self.signing_key;
        todo!()
    }
}
