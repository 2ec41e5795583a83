//! The signature that a client presents, and its verification.

use std::sync::Arc;

use subtle::ConstantTimeEq as _;

use super::canonical::{Canonical, Form, string_to_sign};
use super::key::{SecretAccessKey, SessionToken, SigningKey};
use super::parse::{Claims, PayloadMode, malformed, query_error, sigv2_refused, sigv4a_refused};
use super::{UNSIGNED_PAYLOAD, hex};
use crate::authentication::{
    Authenticated, CONTENT_SHA256, ChunkSeed, SKEW_MS_MAX, Scheme, check_skew, check_token, content_sha256,
    header_time, security_token,
};
use crate::error::{ErrorCode, S3Error};
use crate::request::RequestHead;
use crate::timestamp::{amz_date, iso8601, parse_amz_date};

/// How long a presigned request may be valid: seven days.
pub const EXPIRES_S_MAX: u64 = 7 * 24 * 60 * 60;

/// What the caller accepts.
#[derive(Debug, Clone, Copy, Default)]
pub struct VerifyPolicy<'a> {
    /// The only region that scopes may name; `None` accepts any (it is signed all the same).
    pub region: Option<&'a str>,
    /// The token that belongs to the access key, which then has to come with it; `None` for a key without one.
    pub session_token: Option<&'a SessionToken>,
    /// Names that clients may know this endpoint by, beside the one in the `Host` header: where a load balancer
    /// rewrites that header, the signature covers one of these.
    pub host_aliases: &'a [String],
}

/// A signature as presented: parsed and plausible, not yet verified.
#[derive(Debug)]
pub struct Presented {
    claims: Claims,
    /// ms since the epoch, whole seconds.
    signed_at_ms: u64,
    /// Set for presigned requests.
    expires_s: Option<u64>,
    payload_hash: String,
    payload: PayloadMode,
    session_token: Option<String>,
}

impl Presented {
    /// Reads `Authorization` or the presigned query. Nothing is verified yet.
    ///
    /// No signature at all is `AccessDenied`; SigV2 `InvalidRequest`; SigV4a `UnsupportedSignature`; broken fields
    /// `AuthorizationHeaderMalformed` or `AuthorizationQueryParametersError`; an unsigned `x-amz-*` header
    /// `AccessDenied`.
    pub fn parse(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        match Scheme::of(head)? {
            Scheme::SigV4 => {}
            Scheme::SigV2 => return Err(sigv2_refused()),
            Scheme::Anonymous => {
                return Err(
                    S3Error::new(ErrorCode::AccessDenied).with_message("Anonymous access is not allowed.")
                );
            }
        }
        let mut authorization = head.headers.get_all(http::header::AUTHORIZATION).iter();
        let presented = match authorization.next() {
            Some(value) => {
                let value =
                    value.to_str().map_err(|_| malformed("The authorization header is not ASCII."))?;
                Self::from_header(head, value)?
            }
            None => Self::from_query(head, &PresignedQuery::read(head)?)?,
        };
        if authorization.next().is_some() {
            return Err(malformed("There is more than one authorization header."));
        }
        presented.require_signed_headers(head)?;
        Ok(presented)
    }

    /// Whose key it claims to be; an unknown id is answered `InvalidAccessKeyId` by the caller.
    pub fn access_key_id(&self) -> &str {
        &self.claims.credential.access_key_id
    }

    /// `YYYYMMDD` of the scope.
    pub fn date(&self) -> &str {
        &self.claims.credential.date
    }

    /// Region of the scope.
    pub fn region(&self) -> &str {
        &self.claims.credential.region
    }

    /// Derives the key that the signature has to be made with. Cache it by (access key, date, region), and only after
    /// [`Self::verify`] has succeeded, since date and region are the client's choice.
    pub fn signing_key(&self, secret: &SecretAccessKey) -> SigningKey {
        SigningKey::derive(secret, self.date(), self.region(), "s3")
    }

    /// Verifies time, scope and signature at the time `now_ms`.
    ///
    /// `InvalidToken` for a session token that does not belong to the key, `InvalidAccessKeyId` where it is missing;
    /// `RequestTimeTooSkewed`; `AccessDenied` ("Request has expired") for presigned requests;
    /// `AuthorizationHeaderMalformed` or `AuthorizationQueryParametersError` for a wrong region;
    /// `SignatureDoesNotMatch`, in constant time.
    pub fn verify(
        self,
        head: &RequestHead<'_>,
        key: &Arc<SigningKey>,
        policy: &VerifyPolicy<'_>,
        now_ms: u64,
    ) -> Result<Authenticated, S3Error> {
        self.check_time(now_ms)?;
        self.check_region(policy)?;
        if key.date() != self.date() || key.region() != self.region() {
            return Err(ErrorCode::InternalError.into());
        }
        let host = check_token(policy.session_token, self.session_token.as_deref(), || {
            self.check_signature(head, key, policy.host_aliases)
        })?;
        let timestamp = amz_date(self.signed_at_ms);
        let seed = ChunkSeed { key: Arc::clone(key), timestamp, signature: self.claims.signature };
        let id = self.claims.credential.access_key_id;
        Ok(Authenticated::by_sigv4(id, self.payload, seed).under_host(host))
    }

    fn from_header(head: &RequestHead<'_>, value: &str) -> Result<Self, S3Error> {
        let claims = Claims::from_authorization(value)?;
        let signed_at_ms = header_time(head)?;
        let payload_hash = content_sha256(head)?.ok_or_else(|| {
            S3Error::new(ErrorCode::InvalidRequest)
                .with_message("Missing required header for this request: x-amz-content-sha256")
        })?;
        if !amz_date(signed_at_ms).starts_with(&claims.credential.date) {
            return Err(malformed("The date of the credential is not that of the request."));
        }
        let payload = PayloadMode::parse(&payload_hash)?;
        let session_token = security_token(head, None)?;
        Ok(Self { claims, signed_at_ms, expires_s: None, payload_hash, payload, session_token })
    }

    fn from_query(head: &RequestHead<'_>, query: &PresignedQuery) -> Result<Self, S3Error> {
        match query.algorithm.as_str() {
            super::canonical::ALGORITHM => {}
            other if other.starts_with("AWS4-ECDSA") => return Err(sigv4a_refused()),
            _ => return Err(query_error("X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\".")),
        }
        let claims = Claims::from_query(&query.credential, &query.signed_headers, &query.signature)?;
        let signed_at_ms = parse_amz_date(&query.date)
            .ok_or_else(|| query_error("X-Amz-Date must be in the ISO8601 form YYYYMMDDThhmmssZ."))?;
        if !query.date.starts_with(&claims.credential.date) {
            return Err(query_error("The date of the credential is not that of the request."));
        }
        let payload_hash = match content_sha256(head)? {
            Some(value) => value,
            None => query.content_sha256.clone().unwrap_or_else(|| UNSIGNED_PAYLOAD.to_owned()),
        };
        let payload = PayloadMode::parse(&payload_hash)?;
        let session_token = security_token(head, query.security_token.clone())?;
        let expires_s = Some(query.expires_s()?);
        Ok(Self { claims, signed_at_ms, expires_s, payload_hash, payload, session_token })
    }

    /// Every `x-amz-*` header has to be signed, else anybody on the way could add one. The payload hash is part of the
    /// canonical request in any case.
    fn require_signed_headers(&self, head: &RequestHead<'_>) -> Result<(), S3Error> {
        let is_signed = |name: &str| self.claims.signed_headers.split(';').any(|signed| signed == name);
        let names = head.headers.keys().map(http::HeaderName::as_str);
        let unsigned: Vec<&str> = names
            .filter(|name| name.starts_with("x-amz-") && *name != CONTENT_SHA256 && !is_signed(name))
            .collect();
        if unsigned.is_empty() {
            return Ok(());
        }
        Err(S3Error::new(ErrorCode::AccessDenied)
            .with_message("There were headers present in the request which were not signed")
            .with_extra("HeadersNotSigned", unsigned.join(", ")))
    }

    fn check_time(&self, now_ms: u64) -> Result<(), S3Error> {
        let Some(expires_s) = self.expires_s else {
            return check_skew(self.signed_at_ms, now_ms);
        };
        let denied = |message| S3Error::new(ErrorCode::AccessDenied).with_message(message);
        let expires_ms = self.signed_at_ms.saturating_add(expires_s * 1000);
        if now_ms > expires_ms {
            return Err(denied("Request has expired")
                .with_extra("X-Amz-Expires", expires_s.to_string())
                .with_extra("Expires", iso8601(expires_ms))
                .with_extra("ServerTime", iso8601(now_ms)));
        }
        if self.signed_at_ms > now_ms.saturating_add(SKEW_MS_MAX) {
            return Err(denied("Request is not valid yet").with_extra("ServerTime", iso8601(now_ms)));
        }
        Ok(())
    }

    fn check_region(&self, policy: &VerifyPolicy<'_>) -> Result<(), S3Error> {
        let Some(region) = policy.region.filter(|region| *region != self.region()) else { return Ok(()) };
        let code = match self.expires_s {
            None => ErrorCode::AuthorizationHeaderMalformed,
            Some(_) => ErrorCode::AuthorizationQueryParametersError,
        };
        let message = format!("The region '{}' is wrong; expecting '{region}'", self.region());
        Err(S3Error::new(code).with_message(message).with_extra("Region", region))
    }

    /// Gives the alias under which the signature verifies, if it is not the name in the request.
    fn check_signature<'h>(
        &self,
        head: &RequestHead<'_>,
        key: &SigningKey,
        aliases: &'h [String],
    ) -> Result<Option<&'h str>, S3Error> {
        let canonical = Canonical {
            method: head.method,
            raw_path: head.raw_path,
            raw_query: head.raw_query,
            headers: head.headers,
            host: head.host.unwrap_or(""),
            signed_headers: &self.claims.signed_headers,
            payload_hash: &self.payload_hash,
        };
        let timestamp = amz_date(self.signed_at_ms);
        let matches = |canonical: &Canonical<'_>, form| {
            let to_sign = string_to_sign(&timestamp, key.scope(), &canonical.request(form));
            bool::from(key.sign(to_sign.as_bytes()).ct_eq(&self.claims.signature))
        };
        let matches_host = |host| {
            let canonical = Canonical { host, ..canonical };
            matches(&canonical, Form::Encoded) || matches(&canonical, Form::Raw)
        };
        if matches_host(canonical.host) {
            return Ok(None);
        }
        if let Some(alias) = aliases.iter().find(|alias| matches_host(alias)) {
            return Ok(Some(alias));
        }
        let request = canonical.request(Form::Encoded);
        Err(S3Error::new(ErrorCode::SignatureDoesNotMatch)
            .with_extra("AWSAccessKeyId", self.access_key_id())
            .with_extra("StringToSign", string_to_sign(&timestamp, key.scope(), &request))
            .with_extra("SignatureProvided", hex(&self.claims.signature))
            .with_extra("CanonicalRequest", String::from_utf8_lossy(&request).into_owned()))
    }
}

/// The parameters of a presigned request, decoded.
struct PresignedQuery {
    algorithm: String,
    credential: String,
    date: String,
    expires: String,
    signed_headers: String,
    signature: String,
    content_sha256: Option<String>,
    security_token: Option<String>,
}

impl PresignedQuery {
    fn read(head: &RequestHead<'_>) -> Result<Self, S3Error> {
        let pairs = head.pairs()?;
        let optional = |name: &str| {
            let mut values = pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| value.clone());
            match (values.next(), values.next()) {
                (value, None) => Ok(value),
                _ => Err(query_error("A parameter of the signature occurs twice.")),
            }
        };
        let required = |name| {
            optional(name)?.ok_or_else(|| {
                query_error(
                    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, \
                     X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.",
                )
            })
        };
        Ok(Self {
            algorithm: required("X-Amz-Algorithm")?,
            credential: required("X-Amz-Credential")?,
            date: required("X-Amz-Date")?,
            expires: required("X-Amz-Expires")?,
            signed_headers: required("X-Amz-SignedHeaders")?,
            signature: required("X-Amz-Signature")?,
            content_sha256: optional("X-Amz-Content-Sha256")?,
            security_token: optional("X-Amz-Security-Token")?,
        })
    }

    fn expires_s(&self) -> Result<u64, S3Error> {
        let digits = self.expires.strip_prefix('-').unwrap_or(&self.expires);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(query_error("X-Amz-Expires should be a number"));
        }
        // A time that no presigned request can have is answered like one that is over. Amazon S3 says 400 here, other
        // stores 403, which is what the public conformance tests demand.
        let denied = |message| Err(S3Error::new(ErrorCode::AccessDenied).with_message(message));
        if digits.len() < self.expires.len() {
            return denied("X-Amz-Expires must be non-negative");
        }
        match self.expires.parse() {
            Ok(0) => denied("X-Amz-Expires must be positive"),
            Ok(seconds) if seconds <= EXPIRES_S_MAX => Ok(seconds),
            _ => denied(
                "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be less \
                 than 604800 seconds",
            ),
        }
    }
}
