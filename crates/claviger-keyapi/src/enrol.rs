//! Enrolment: the one-time token, the certificate request and the certificate.
//!
//! A token is `clv-enrol-1.` and the base64url of its JSON. It carries the SHA-256 of the service CA's public key: the one
//! who enrols checks the service against it before sending anything, and his private key never leaves him.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::SecretText;
use crate::wire::{Blob, Id16};
use crate::{Identity, tls::SpkiHash};

const TOKEN_PREFIX: &str = "clv-enrol-1.";

/// Longest life of a token, one hour.
pub const TOKEN_TTL_MS_MAX: u64 = 3_600_000;
/// Longest token text, in bytes.
pub const TOKEN_LEN_MAX: usize = 4096;
/// Life of a certificate, 24 hours.
pub const CERTIFICATE_TTL_MS: u64 = 86_400_000;

/// The text is not an enrolment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not an enrolment token: it starts with `clv-enrol-1.` and is one word without spaces")]
pub struct TokenError;

/// What an operator hands to the one who is to be enrolled. Good once, for an hour at most.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolToken {
    /// `host:port` of the key service.
    pub address: String,
    /// SHA-256 of the DER public key (SPKI) of the service's CA.
    pub ca_spki_sha256: SpkiHash,
    /// Who will be enrolled.
    pub identity: Identity,
    /// Names of the keysets he is enrolled for.
    pub keysets: Vec<String>,
    /// Unix milliseconds after which the service refuses it.
    pub expires_ms: u64,
    /// The one-time secret, base64url of 32 bytes; the service keeps only its hash.
    pub secret: SecretText,
}

impl EnrolToken {
    /// The text to hand over.
    #[must_use]
    pub fn to_text(&self) -> SecretText {
        let json = serde_json::to_vec(self).expect("strings and numbers serialise to memory without fail");
        let json = Zeroizing::new(json);
        SecretText::new(format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(&json[..])))
    }

    /// Reads a token; surrounding white space is ignored.
    ///
    /// # Errors
    /// [`TokenError`] if it is none.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.len() > TOKEN_LEN_MAX {
            return Err(TokenError);
        }
        let encoded = text.strip_prefix(TOKEN_PREFIX).ok_or(TokenError)?;
        let json = Zeroizing::new(URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError)?);
        serde_json::from_slice(&json).map_err(|_| TokenError)
    }
}

/// Asks for the first certificate; the caller has none yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The token's identity.
    pub identity: Identity,
    /// The token's secret.
    pub secret: SecretText,
    /// PKCS#10 request, DER. Only its public key and its proof of possession are used.
    pub csr: Blob,
}

/// Asks for an operator's certificate with recovery shares, where no two operators are left.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// The operator.
    pub identity: Identity,
    /// As many recovery shares as open a keyset of the service, as they stand in their files; secret.
    pub shares: Vec<SecretText>,
    /// PKCS#10 request, DER. Only its public key and its proof of possession are used.
    pub csr: Blob,
}

/// Asks for a new certificate with the present one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewRequest {
    /// PKCS#10 request, DER, for a new key.
    pub csr: Blob,
}

/// A certificate that was issued.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The leaf, DER.
    pub certificate: Blob,
    /// The service's CA, DER: the only root that the holder trusts for this service.
    pub ca: Blob,
    /// `sealer_id` of a gateway; zeros for an operator.
    pub gateway_id: Id16,
    /// Unix milliseconds from which it is good.
    pub not_before_ms: u64,
    /// Unix milliseconds until which it is good.
    pub not_after_ms: u64,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate(gateway {}, until {} ms)", self.gateway_id, self.not_after_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> EnrolToken {
        EnrolToken {
            address: "127.0.0.1:7000".into(),
            ca_spki_sha256: SpkiHash([3; 32]),
            identity: "gateway:edge".parse().unwrap(),
            keysets: vec!["default".into()],
            expires_ms: 5,
            secret: SecretText::new("s3cret".into()),
        }
    }

    #[test]
    fn a_token_survives_its_text() {
        let text = token().to_text();
        let read = EnrolToken::parse(&format!(" {}\n", text.expose())).unwrap();
        assert_eq!(read.identity, token().identity);
        assert_eq!(read.secret.expose(), "s3cret");
        assert_eq!(read.ca_spki_sha256, SpkiHash([3; 32]));
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for bad in ["", "clv-enrol-1.", "clv-enrol-2.e30", "clv-enrol-1.e30", "clv-enrol-1.!!!"] {
            assert!(EnrolToken::parse(bad).is_err(), "{bad}");
        }
    }
}
