//! Signature Version 4 of a form: the string to sign is the policy in base64, nothing else.
//!
//! Source: "Authenticating Requests: Browser-Based Uploads Using POST (AWS Signature Version 4)", S3 API reference.

use subtle::ConstantTimeEq as _;

use super::canonical::ALGORITHM;
use super::key::{SecretAccessKey, SigningKey};
use super::parse::Credential;
use super::unhex32;
use crate::error::{ErrorCode, S3Error};
use crate::timestamp::parse_amz_date;

/// The fields of a form that sign its policy, parsed and plausible, not yet verified.
#[derive(Debug)]
pub struct FormClaims {
    credential: Credential,
    signature: [u8; 32],
}

impl FormClaims {
    /// Reads the values of `x-amz-algorithm`, `x-amz-credential`, `x-amz-date` and `x-amz-signature`.
    ///
    /// # Errors
    /// `InvalidArgument` for a value that can't be; `SignatureDoesNotMatch` for a signature that can't be one.
    pub fn parse(algorithm: &str, credential: &str, date: &str, signature: &str) -> Result<Self, S3Error> {
        if algorithm != ALGORITHM {
            return Err(S3Error::invalid_argument(
                "x-amz-algorithm",
                &algorithm.chars().take(100).collect::<String>(),
                "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\".",
            ));
        }
        let credential = Credential::parse(credential)
            .map_err(|reason| S3Error::invalid_argument("x-amz-credential", "", reason))?;
        if parse_amz_date(date).is_none() || !date.starts_with(&credential.date) {
            return Err(S3Error::invalid_argument(
                "x-amz-date",
                &date.chars().take(100).collect::<String>(),
                "X-Amz-Date must be in the ISO8601 form YYYYMMDDThhmmssZ, on the day of the credential.",
            ));
        }
        let signature = unhex32(signature).ok_or(S3Error::new(ErrorCode::SignatureDoesNotMatch))?;
        Ok(Self { credential, signature })
    }

    /// Whose key it claims to be.
    pub fn access_key_id(&self) -> &str {
        &self.credential.access_key_id
    }

    /// Verifies the signature over `policy`, the field's text.
    ///
    /// # Errors
    /// `SignatureDoesNotMatch`, in constant time.
    pub fn verify(&self, policy: &[u8], secret: &SecretAccessKey) -> Result<(), S3Error> {
        let key = SigningKey::derive(secret, &self.credential.date, &self.credential.region, "s3");
        if bool::from(key.sign(policy).ct_eq(&self.signature)) {
            return Ok(());
        }
        Err(S3Error::new(ErrorCode::SignatureDoesNotMatch).with_extra("AWSAccessKeyId", self.access_key_id()))
    }
}
