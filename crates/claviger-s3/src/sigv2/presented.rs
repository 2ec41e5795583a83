//! The signature that a client presents, and its verification.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, DATE};
use subtle::ConstantTimeEq as _;

use super::canonical::{Canonical, has_control_characters, is_ambiguous, string_to_sign};
use super::{SIGNATURE_LEN, decode};
use crate::authentication::{Authenticated, check_skew, check_token, header_time, security_token};
use crate::error::{ErrorCode, S3Error};
use crate::operation::VirtualHosts;
use crate::request::RequestHead;
use crate::sigv4::{SecretAccessKey, SessionToken};
use crate::timestamp::iso8601;

/// What the caller accepts.
#[derive(Debug, Clone, Copy)]
pub struct VerifyPolicy<'a> {
    /// The domains of virtual hosts: the signature covers the bucket in the host name.
    pub hosts: &'a VirtualHosts,
    /// The token that belongs to the access key, which then has to come with it; `None` for a key without one.
    pub session_token: Option<&'a SessionToken>,
}

/// A signature as presented: parsed, not yet verified.
#[derive(Debug)]
pub struct Presented {
    access_key_id: String,
    signature: Option<[u8; SIGNATURE_LEN]>,
    time: Time,
    session_token: Option<String>,
}

#[derive(Debug)]
enum Time {
    /// When a request with a header was signed, ms since the epoch, and the text that stands for it in what is signed.
    SignedAt(u64, String),
    /// Until when a presigned request is good, seconds since the epoch, and its text.
    Until(u64, String),
}

impl Presented {
    /// Reads `Authorization: AWS id:signature`, or `AWSAccessKeyId`, `Signature` and `Expires` of the query; to be called
    /// when [`crate::Scheme::of`] says that it is one of them. Nothing is verified yet.
    ///
    /// `InvalidArgument` for a header of another form, `AccessDenied` for a missing or broken date or a missing parameter.
    pub fn parse(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        let mut authorization = head.headers.get_all(AUTHORIZATION).iter();
        match (authorization.next(), authorization.next()) {
            (Some(value), None) => Self::from_header(head, value.to_str().unwrap_or("")),
            (Some(_), Some(_)) => Err(malformed_header()),
            (None, _) => Self::from_query(head),
        }
    }

    fn from_header(head: &RequestHead<'_>, value: &str) -> Result<Self, S3Error> {
        let fields = value.trim().strip_prefix("AWS ").and_then(|rest| rest.trim().rsplit_once(':'));
        let (id, signature) = fields.filter(|(id, _)| !id.is_empty()).ok_or_else(malformed_header)?;
        let signed_at_ms = header_time(head)?;
        // The date is signed among the x-amz- headers then.
        let date = match head.headers.contains_key("x-amz-date") {
            true => "",
            false => head.headers.get(DATE).and_then(|value| value.to_str().ok()).unwrap_or("").trim(),
        };
        Ok(Self {
            access_key_id: id.to_owned(),
            signature: decode(signature.trim()),
            time: Time::SignedAt(signed_at_ms, date.to_owned()),
            session_token: security_token(head, None)?,
        })
    }

    fn from_query(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        let pairs = head.pairs()?;
        let one = |wanted: &str| {
            let mut values = pairs.iter().filter(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
            match (values.next(), values.next()) {
                (Some(value), None) => Ok(value),
                _ => Err(denied(
                    "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
                )),
            }
        };
        let expires = one("Expires")?;
        let is_number = !expires.is_empty() && expires.bytes().all(|byte| byte.is_ascii_digit());
        let until_s = expires.parse().ok().filter(|_| is_number);
        let until_s = until_s.ok_or_else(|| denied("Invalid date (should be seconds since epoch)"))?;
        let mut tokens = pairs.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-amz-security-token"));
        let token = match (tokens.next(), tokens.next()) {
            (token, None) => token.map(|(_, value)| value.clone()),
            _ => return Err(ErrorCode::InvalidToken.into()),
        };
        Ok(Self {
            access_key_id: one("AWSAccessKeyId")?.to_owned(),
            signature: decode(one("Signature")?),
            time: Time::Until(until_s, expires.to_owned()),
            session_token: security_token(head, token)?,
        })
    }

    /// Whose key it claims to be; an unknown id is answered `InvalidAccessKeyId` by the caller.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Verifies time, signature and session token at the time `now_ms`. A covered parameter with a control character matches
    /// no signature.
    ///
    /// `RequestTimeTooSkewed`; `AccessDenied` ("Request has expired") for presigned requests; `SignatureDoesNotMatch`, in
    /// constant time; `InvalidToken` for a session token that does not belong to the key, `InvalidAccessKeyId` where it is
    /// missing.
    pub fn verify(
        self,
        head: &RequestHead<'_>,
        secret: &SecretAccessKey,
        policy: &VerifyPolicy<'_>,
        now_ms: u64,
    ) -> Result<Authenticated, S3Error> {
        let (date, is_query) = match &self.time {
            Time::SignedAt(at_ms, date) => {
                check_skew(*at_ms, now_ms)?;
                (date, false)
            }
            Time::Until(until_s, date) => {
                check_expiry(*until_s, now_ms)?;
                (date, true)
            }
        };
        let bucket = head.host.and_then(|host| policy.hosts.bucket_of(host));
        let canonical = Canonical { head, path: head.raw_path, bucket: bucket.as_deref(), date, is_query };
        let to_sign = string_to_sign(canonical);
        let is_signature_of = |to_sign: &str| {
            let expected = secret.hmac_sha1(to_sign.as_bytes());
            self.signature.is_some_and(|signature| expected.ct_eq(&signature).into())
        };
        // SDKs sign `/bucket/` also where they ask for `/bucket`, which is the same.
        let with_slash =
            bucket_alone(canonical).map(|path| string_to_sign(Canonical { path: &path, ..canonical }));
        let is_tricky = has_control_characters(head, is_query) || (is_query && is_ambiguous(head));
        let matches = !is_tricky
            && (is_signature_of(&to_sign) || with_slash.is_some_and(|to_sign| is_signature_of(&to_sign)));
        check_token(policy.session_token, self.session_token.as_deref(), || match matches {
            true => Ok(()),
            false => Err(S3Error::new(ErrorCode::SignatureDoesNotMatch)
                .with_extra("AWSAccessKeyId", &self.access_key_id)
                .with_extra("StringToSign", to_sign)
                .with_extra(
                    "SignatureProvided",
                    self.signature.map(|s| BASE64.encode(s)).unwrap_or_default(),
                )),
        })?;
        Authenticated::by_sigv2(self.access_key_id, head, is_query)
    }
}

/// The path of a request in path style on a bucket, with the slash that it lacks at its end.
fn bucket_alone(canonical: Canonical<'_>) -> Option<String> {
    let name = canonical.path.strip_prefix('/')?;
    let is_bucket = canonical.bucket.is_none() && !name.is_empty() && !name.contains(['/', '%']);
    is_bucket.then(|| format!("/{name}/"))
}

fn check_expiry(until_s: u64, now_ms: u64) -> Result<(), S3Error> {
    let until_ms = until_s.saturating_mul(1000);
    if now_ms <= until_ms {
        return Ok(());
    }
    Err(denied("Request has expired")
        .with_extra("Expires", iso8601(until_ms))
        .with_extra("ServerTime", iso8601(now_ms)))
}

fn denied(message: &'static str) -> S3Error {
    S3Error::new(ErrorCode::AccessDenied).with_message(message)
}

fn malformed_header() -> S3Error {
    S3Error::new(ErrorCode::InvalidArgument)
        .with_message("AWS authorization header is invalid. Expected AwsAccessKeyId:signature")
}
