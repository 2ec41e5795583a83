//! Reading what a client presents: the `Authorization` header, the presigned query, the payload mode.

use http::HeaderName;

use super::canonical::ALGORITHM;
use super::{UNSIGNED_PAYLOAD, unhex32};
use crate::error::{ErrorCode, S3Error};

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

    /// Reads `x-amz-content-sha256`.
    pub(crate) fn parse(value: &str) -> Result<Self, S3Error> {
        match value {
            UNSIGNED_PAYLOAD => Ok(Self::Unsigned),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Self::SignedChunks { trailer: false }),
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Ok(Self::SignedChunks { trailer: true }),
            "STREAMING-UNSIGNED-PAYLOAD-TRAILER" => Ok(Self::UnsignedChunksTrailer),
            other if other.starts_with("STREAMING-AWS4-ECDSA") => Err(sigv4a_refused()),
            other => unhex32(other).map(Self::Sha256).ok_or_else(|| {
                S3Error::invalid_argument(
                    "x-amz-content-sha256",
                    &other.chars().take(100).collect::<String>(),
                    "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a streaming form, or a valid sha256 value.",
                )
            }),
        }
    }
}

/// `AKID/20130524/us-east-1/s3/aws4_request`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) access_key_id: String,
    pub(super) date: String,
    pub(super) region: String,
}

impl Credential {
    /// `Err` holds the reason, for a message.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut fields = text.rsplitn(5, '/');
        let mut next = || {
            fields
                .next()
                .ok_or("The credential is not in the form AKID/YYYYMMDD/REGION/SERVICE/aws4_request.")
        };
        let (terminator, service, region, date, id) = (next()?, next()?, next()?, next()?, next()?);
        if terminator != "aws4_request" {
            return Err("The credential has to end with aws4_request.");
        }
        if service != "s3" {
            return Err("The credential names an incorrect service. This endpoint belongs to \"s3\".");
        }
        let printable = |text: &str| text.bytes().all(|byte| matches!(byte, 0x21..=0x7e));
        if region.is_empty() || region.len() > 64 || !printable(region) {
            return Err("The credential names no region.");
        }
        if date.len() != 8 || !date.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("The date of the credential is not in the form YYYYMMDD.");
        }
        if id.is_empty() || id.len() > 128 || !printable(id) {
            return Err("The credential names no access key.");
        }
        Ok(Self { access_key_id: id.to_owned(), date: date.to_owned(), region: region.to_owned() })
    }
}

/// What both ways of presenting a signature have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) credential: Credential,
    /// Lower-case names with `;` between them.
    pub(super) signed_headers: String,
    pub(super) signature: [u8; 32],
}

impl Claims {
    /// Reads the value of `Authorization`.
    pub(super) fn from_authorization(value: &str) -> Result<Self, S3Error> {
        let (algorithm, fields) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        match algorithm {
            ALGORITHM => {}
            "AWS" => return Err(sigv2_refused()),
            other if other.starts_with("AWS4-ECDSA") => return Err(sigv4a_refused()),
            _ => {
                return Err(
                    S3Error::new(ErrorCode::InvalidArgument).with_message("Unsupported Authorization Type")
                );
            }
        }
        let (mut credential, mut signed_headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field.trim().split_once('=').unwrap_or((field.trim(), ""));
            let place = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut signed_headers,
                "Signature" => &mut signature,
                _ => return Err(malformed("The authorization header has an unknown field.")),
            };
            if place.replace(value).is_some() {
                return Err(malformed("The authorization header has a field twice."));
            }
        }
        let missing = || malformed("The authorization header lacks Credential, SignedHeaders or Signature.");
        Self::new(
            credential.ok_or_else(missing)?,
            signed_headers.ok_or_else(missing)?,
            signature.ok_or_else(missing)?,
            malformed,
        )
    }

    /// Reads the values of a presigned query.
    pub(super) fn from_query(
        credential: &str,
        signed_headers: &str,
        signature: &str,
    ) -> Result<Self, S3Error> {
        Self::new(credential, signed_headers, signature, query_error)
    }

    fn new(
        credential: &str,
        signed_headers: &str,
        signature: &str,
        error: fn(&'static str) -> S3Error,
    ) -> Result<Self, S3Error> {
        let credential = Credential::parse(credential).map_err(error)?;
        let is_name = |name: &str| HeaderName::from_lowercase(name.as_bytes()).is_ok();
        if !signed_headers.split(';').all(is_name) {
            return Err(error("SignedHeaders has to be a list of lower-case header names."));
        }
        if !signed_headers.split(';').any(|name| name == "host") {
            return Err(error("SignedHeaders has to include host."));
        }
        let signature = unhex32(signature).ok_or(S3Error::new(ErrorCode::SignatureDoesNotMatch))?;
        Ok(Self { credential, signed_headers: signed_headers.to_owned(), signature })
    }
}

pub(super) fn malformed(message: &'static str) -> S3Error {
    S3Error::new(ErrorCode::AuthorizationHeaderMalformed).with_message(message)
}

pub(super) fn query_error(message: &'static str) -> S3Error {
    S3Error::new(ErrorCode::AuthorizationQueryParametersError).with_message(message)
}

pub(crate) fn sigv2_refused() -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest).with_message(
        "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
    )
}

pub(super) fn sigv4a_refused() -> S3Error {
    S3Error::new(ErrorCode::UnsupportedSignature)
        .with_message("Asymmetric signatures (SigV4a) are not supported. Please use AWS4-HMAC-SHA256.")
}
