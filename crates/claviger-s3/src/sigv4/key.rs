//! Secret keys and the signing keys derived from them.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::timestamp;

/// The secret half of an access key.
pub struct SecretAccessKey(Zeroizing<String>);

impl SecretAccessKey {
    /// Takes the secret; the caller's copy is the caller's to erase.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }

    /// HMAC-SHA-1 under the secret itself, as Version 2 of the signature has it.
    pub(crate) fn hmac_sha1(&self, message: &[u8]) -> [u8; 20] {
        let mut mac = Hmac::<Sha1>::new_from_slice(self.0.as_bytes()).expect("HMAC takes keys of any length");
        mac.update(message);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for SecretAccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretAccessKey(..)")
    }
}

/// The token that goes with temporary credentials.
pub struct SessionToken(Zeroizing<String>);

impl SessionToken {
    /// Takes the token; the caller's copy is the caller's to erase.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// Whether `presented` is this token, in constant time.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(..)")
    }
}

/// The key of one day, region and service. Deriving it costs four HMACs: callers keep it for the day.
pub struct SigningKey {
    /// HMAC that has taken the key up already; it is wiped on drop, and so is each copy of it.
    keyed: Hmac<Sha256>,
    date: String,
    region: String,
    /// `date/region/service/aws4_request`
    scope: String,
    /// Milliseconds since the epoch at the beginning of the day; `None` for a date that there is not.
    begins_ms: Option<u64>,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl SigningKey {
    /// Derives the key for `date` (`YYYYMMDD`), `region` and `service` (`s3`).
    pub fn derive(secret: &SecretAccessKey, date: &str, region: &str, service: &str) -> Self {
        let mut first = Zeroizing::new(String::with_capacity(4 + secret.0.len()));
        first.push_str("AWS4");
        first.push_str(&secret.0);
        let mut key = hmac_sha256(first.as_bytes(), date.as_bytes());
        for message in [region, service, "aws4_request"] {
            key = hmac_sha256(&key[..], message.as_bytes());
        }
        Self {
            keyed: hmac_of(&key[..]),
            date: date.to_owned(),
            region: region.to_owned(),
            scope: format!("{date}/{region}/{service}/aws4_request"),
            begins_ms: timestamp::parse_amz_date(&format!("{date}T000000Z")),
        }
    }

    /// Derives the key for the day of `now_ms` and the service `s3`.
    pub fn for_time(secret: &SecretAccessKey, now_ms: u64, region: &str) -> Self {
        Self::derive(secret, &timestamp::amz_date(now_ms)[..8], region, "s3")
    }

    /// Whether the key is that of the day of `now_ms`.
    pub fn covers(&self, now_ms: u64) -> bool {
        self.begins_ms.and_then(|begin| now_ms.checked_sub(begin)).is_some_and(|since_ms| since_ms < DAY_MS)
    }

    /// `YYYYMMDD`
    pub fn date(&self) -> &str {
        &self.date
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// `date/region/service/aws4_request`
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// HMAC-SHA-256 of the string to sign.
    pub(crate) fn sign(&self, string_to_sign: &[u8]) -> [u8; 32] {
        self.keyed.clone().chain_update(string_to_sign).finalize().into_bytes().into()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("scope", &self.scope()).finish_non_exhaustive()
    }
}

fn hmac_of(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(hmac_of(key).chain_update(message).finalize().into_bytes().into())
}
