//! The gateway's one error, with the blame axis, and how each becomes an answer in the words of S3.
//!
//! The texts of the provider and of the format never reach a client: integrity failures are one opaque answer
//! (docs/format.md §9), and what the provider said goes to the log only.

use claviger_keyapi::{KeyServiceError, ReleaseError};
use claviger_s3::error::{ErrorCode, S3Error, UpstreamError};
use claviger_s3::range::content_range_unsatisfiable;
use http::header::{self, HeaderName, HeaderValue};

pub use crate::server::Blame;

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GatewayError {
    /// The client's request can't be served as it is.
    #[error("{0}")]
    S3(#[from] S3Error),
    /// The provider answered with an error.
    #[error("{0}")]
    Upstream(Box<UpstreamError>),
    /// No whole answer came from the provider.
    #[error("the provider did not answer: {0}")]
    UpstreamUnreachable(String),
    /// The provider's answer can't be understood.
    #[error("the provider's answer makes no sense: {0}")]
    UpstreamAnswer(&'static str),
    /// What the provider served does not authenticate as this object.
    #[error("integrity check failed ({context}): {source}")]
    Integrity {
        /// Where in the request it was noticed.
        context: &'static str,
        /// What the format found.
        source: claviger_format::Error,
    },
    /// The provider served something that no envelope of ours goes with.
    #[error("refused: {0}")]
    NotSealed(&'static str),
    /// The object was replaced while it was being read.
    #[error("the object was replaced while it was being read")]
    Replaced,
    /// Something failed in the gateway's own area at the provider. What the provider said of it is no answer to what
    /// the client asked: a missing epoch record is not a missing object.
    #[error("in the system area: {0}")]
    SystemArea(Box<GatewayError>),
    /// A call to the key service failed.
    #[error("key service: {0}")]
    KeyService(#[from] KeyServiceError),
    /// The key service refused one key.
    #[error("key release: {0}")]
    Release(#[from] ReleaseError),
    /// The key service took something away while a request used a key that may be part of it.
    #[error("the key service took back what this request used")]
    TakenBack,
    /// The client went away or its body broke off.
    #[error("the client's body ended early: {0}")]
    ClientBody(String),
    /// The object is still what the client has: 304 with these validators.
    #[error("not modified")]
    NotModified(Vec<(HeaderName, HeaderValue)>),
    /// The range begins beyond the object's `length` bytes.
    #[error("the range begins beyond the object's {length} bytes")]
    RangeBeyond {
        /// Plaintext bytes of the object.
        length: u64,
    },
    /// A limit of this gateway is reached.
    #[error("busy: {0}")]
    Busy(&'static str),
    /// A mistake of this gateway.
    #[error("internal: {0}")]
    Internal(&'static str),
}

impl GatewayError {
    /// Marks a failure as one of the system area.
    pub(crate) fn in_system_area(self) -> Self {
        Self::SystemArea(Box::new(self))
    }

    /// A failure of the format while `context` was going on.
    pub(crate) fn integrity(context: &'static str) -> impl Fn(claviger_format::Error) -> Self {
        move |source| Self::Integrity { context, source }
    }

    /// Headers that go with the answer.
    pub(crate) fn answer_headers(&self) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::NotModified(headers) => headers.clone(),
            Self::Upstream(error) => error.passed.clone(),
            Self::RangeBeyond { length } => HeaderValue::from_str(&content_range_unsatisfiable(*length))
                .map(|value| vec![(header::CONTENT_RANGE, value)])
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Counts what operators should hear of beyond the error rate.
    pub(crate) fn count(&self) {
        match self {
            Self::Integrity { .. } => {
                ::metrics::counter!(crate::metrics::INTEGRITY_FAILURES, "kind" => "object").increment(1);
            }
            Self::Release(ReleaseError::BindingMismatch | ReleaseError::KeysetMismatch) => {
                ::metrics::counter!(crate::metrics::INTEGRITY_FAILURES, "kind" => "binding").increment(1);
            }
            Self::Release(
                ReleaseError::EpochRejected | ReleaseError::EpochRevoked | ReleaseError::UnknownEpoch,
            ) => {
                ::metrics::counter!(crate::metrics::INTEGRITY_FAILURES, "kind" => "epoch").increment(1);
            }
            Self::NotSealed(_) => ::metrics::counter!(crate::metrics::FOREIGN_OBJECTS).increment(1),
            _ => {}
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::S3(error)
                if error.status().is_server_error() && error.code() != ErrorCode::NotImplemented =>
            {
                Blame::Internal
            }
            Self::S3(_) | Self::ClientBody(_) | Self::NotModified(_) | Self::RangeBeyond { .. } => {
                Blame::Client
            }
            Self::Upstream(error) if error.status.is_client_error() => Blame::Client,
            Self::Upstream(_)
            | Self::UpstreamUnreachable(_)
            | Self::UpstreamAnswer(_)
            | Self::Replaced
            | Self::SystemArea(_)
            | Self::Integrity { .. }
            | Self::NotSealed(_) => Blame::Upstream,
            Self::KeyService(error) => key_service_blame(error.blame()),
            Self::Release(error) => key_service_blame(error.blame()),
            Self::TakenBack => Blame::KeyService,
            Self::Busy(_) | Self::Internal(_) => Blame::Internal,
        }
    }

    /// The code of an upstream answer, where that is what this is.
    #[must_use]
    pub fn upstream_code(&self) -> Option<ErrorCode> {
        match self {
            Self::Upstream(error) => error.code,
            _ => None,
        }
    }

    /// Whether the provider answered that there is no such key, bucket or upload.
    #[must_use]
    pub fn is_upstream_not_found(&self) -> bool {
        matches!(self, Self::Upstream(error) if error.status.as_u16() == 404)
    }

    /// What the client is told. `resource` is the path that it asked for.
    #[must_use]
    pub fn to_s3(&self, resource: &str) -> S3Error {
        let error = match self {
            Self::S3(error) => error.clone(),
            Self::Upstream(error) => upstream_to_s3(error),
            Self::UpstreamUnreachable(_) => S3Error::new(ErrorCode::ServiceUnavailable)
                .with_message("The object store behind this gateway can't be reached. Please try again."),
            Self::UpstreamAnswer(_) => S3Error::new(ErrorCode::InternalError)
                .with_message("The object store behind this gateway gave an answer that makes no sense."),
            Self::Integrity { .. } => S3Error::new(ErrorCode::InternalError).with_message("integrity check failed"),
            Self::NotSealed(_) => S3Error::new(ErrorCode::InvalidObjectState).with_message(
                "The object was not written through Claviger, or its envelope is gone. It is not served as if it were \
                 authentic. Copy it into a sealed bucket through the gateway to use it.",
            ),
            Self::Replaced => S3Error::new(ErrorCode::ServiceUnavailable)
                .with_message("The object was replaced while it was being read. Please try again."),
            Self::SystemArea(_) => S3Error::new(ErrorCode::ServiceUnavailable)
                .with_message("The gateway's own records at the object store can't be used now. Please try again."),
            Self::KeyService(error) => key_service_to_s3(error),
            Self::Release(error) => release_to_s3(error),
            Self::TakenBack => S3Error::new(ErrorCode::ServiceUnavailable)
                .with_message("What this gateway may open has just changed. Please try again."),
            Self::ClientBody(_) => S3Error::new(ErrorCode::IncompleteBody),
            Self::NotModified(_) => S3Error::new(ErrorCode::NotModified),
            Self::RangeBeyond { length } => {
                S3Error::new(ErrorCode::InvalidRange).with_extra("ActualObjectSize", length.to_string())
            }
            Self::Busy(_) => S3Error::new(ErrorCode::SlowDown),
            Self::Internal(_) => S3Error::new(ErrorCode::InternalError),
        };
        if error.resource().is_none() { error.with_resource(resource) } else { error }
    }

    /// When to try again, in whole seconds, for `Retry-After`.
    #[must_use]
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::KeyService(error) => error.retry_after_ms().map(|ms| ms.div_ceil(1000).max(1)),
            Self::UpstreamUnreachable(_)
            | Self::Replaced
            | Self::SystemArea(_)
            | Self::TakenBack
            | Self::Busy(_) => Some(1),
            _ => None,
        }
    }
}

fn key_service_blame(blame: claviger_keyapi::Blame) -> Blame {
    match blame {
        claviger_keyapi::Blame::Caller => Blame::Client,
        claviger_keyapi::Blame::Stored => Blame::Upstream,
        claviger_keyapi::Blame::KeyService => Blame::KeyService,
    }
}

/// The provider's code where a client has a use for it; never its text, which may name inner things.
fn upstream_to_s3(error: &UpstreamError) -> S3Error {
    match error.code {
        // The gateway signs for itself: that the provider refuses the gateway's key is not the client's doing.
        Some(
            ErrorCode::InvalidAccessKeyId
            | ErrorCode::SignatureDoesNotMatch
            | ErrorCode::RequestTimeTooSkewed
            | ErrorCode::AuthorizationHeaderMalformed
            | ErrorCode::ExpiredToken
            | ErrorCode::InvalidToken
            | ErrorCode::InvalidSecurity
            | ErrorCode::XAmzContentSHA256Mismatch,
        ) => S3Error::new(ErrorCode::InternalError)
            .with_message("The object store refused the gateway's own credentials or signature."),
        Some(code) => S3Error::new(code),
        None if error.status.as_u16() == 404 => S3Error::new(ErrorCode::NoSuchKey),
        None if error.status.is_client_error() => S3Error::new(ErrorCode::InvalidRequest)
            .with_message("The object store behind this gateway does not accept this request."),
        None => S3Error::new(ErrorCode::ServiceUnavailable),
    }
}

fn key_service_to_s3(error: &KeyServiceError) -> S3Error {
    match error {
        KeyServiceError::Denied { text } | KeyServiceError::Frozen { text } => {
            S3Error::new(ErrorCode::AccessDenied).with_message(text.clone())
        }
        KeyServiceError::UnknownBucket => S3Error::new(ErrorCode::NoSuchBucket),
        KeyServiceError::BucketClosing { .. } => S3Error::new(ErrorCode::OperationAborted),
        KeyServiceError::Keyset { text } => {
            S3Error::new(ErrorCode::InvalidRequest).with_message(text.clone())
        }
        KeyServiceError::Locked => S3Error::new(ErrorCode::ServiceUnavailable)
            .with_message("The key service is locked. An operator has to unlock it."),
        KeyServiceError::Distrusted { .. } => S3Error::new(ErrorCode::ServiceUnavailable).with_message(
            "The key service's audit log contradicts what this gateway remembers of it. An operator of the gateway has to look \
             into it.",
        ),
        KeyServiceError::Unauthenticated { .. } | KeyServiceError::Unavailable { .. } => {
            S3Error::new(ErrorCode::ServiceUnavailable)
                .with_message("The key service can't be reached or can't answer now. Please try again.")
        }
        KeyServiceError::TooManyItems { .. }
        | KeyServiceError::Malformed { .. }
        | KeyServiceError::Conflict { .. }
        | KeyServiceError::Internal => S3Error::new(ErrorCode::InternalError),
    }
}

fn release_to_s3(error: &ReleaseError) -> S3Error {
    match error {
        ReleaseError::Denied { text } | ReleaseError::Frozen { text } | ReleaseError::SealAnew { text } => {
            S3Error::new(ErrorCode::AccessDenied).with_message(text.clone())
        }
        ReleaseError::EpochQuarantined => S3Error::new(ErrorCode::AccessDenied).with_message(
            "The object belongs to an epoch in quarantine: a stolen gateway could have forged it. Operators of the key service \
             can accept the epoch.",
        ),
        ReleaseError::TooManyEpochs => S3Error::new(ErrorCode::SlowDown),
        // What S3 says of objects under a KMS key that is disabled or gone: final, so that nobody tries again and again.
        ReleaseError::Destroyed { text } => {
            S3Error::new(ErrorCode::KMSInvalidStateException).with_message(text.clone())
        }
        ReleaseError::UploadExpired | ReleaseError::UploadFinished => S3Error::new(ErrorCode::NoSuchUpload),
        ReleaseError::UnknownBucket => S3Error::new(ErrorCode::NoSuchBucket),
        ReleaseError::UnknownEpoch
        | ReleaseError::EpochRejected
        | ReleaseError::EpochRevoked
        | ReleaseError::KeysetMismatch
        | ReleaseError::BindingMismatch => {
            S3Error::new(ErrorCode::InternalError).with_message("integrity check failed")
        }
        ReleaseError::Malformed { .. } => S3Error::new(ErrorCode::InternalError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_under_a_destroyed_version_is_refused_for_good_and_nobody_is_told_to_try_again() {
        let text =
            "version 1 of keyset default was destroyed 2026-01-01T00:00:00Z: nothing opens this any more";
        let error = GatewayError::Release(ReleaseError::Destroyed { text: text.to_owned() });
        let told = error.to_s3("/photos/a");
        assert_eq!((told.code().as_str(), told.status().as_u16()), ("KMS.KMSInvalidStateException", 400));
        assert!(told.message().contains("was destroyed"));
        assert_eq!(error.retry_after_s(), None);
    }
}
