//! Errors as S3 names them: code, status, text, XML body; and reading those of the upstream store.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use http::StatusCode;

use crate::xml;

/// Who has to change something before the request can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request is wrong or not allowed; sending it again changes nothing.
    Client,
    /// The service, the key service or the store is in trouble.
    Service,
}

macro_rules! error_codes {
    (@code $name:ident) => { stringify!($name) };
    (@code $name:ident $code:literal) => { $code };
    ($($(#[$doc:meta])* $name:ident $(as $code:literal)?, $status:literal, $message:literal;)*) => {
        /// The S3 error codes that are sent or understood, each with its status and its default message.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", error_codes!(@code $name $($code)?), "`, status ", stringify!($status), ": ", $message)] $name,)*
        }

        impl ErrorCode {
            /// Every code, in alphabetical order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code, the HTTP status and the default message, in one place.
            const fn facts(self) -> (&'static str, u16, &'static str) {
                match self {
                    $(Self::$name => (error_codes!(@code $name $($code)?), $status, $message),)*
                }
            }
        }
    };
}

error_codes! {
    AccessControlListNotSupported, 400, "The bucket does not allow ACLs";
    AccessDenied, 403, "Access Denied";
    AccessForbidden, 403, "CORSResponse: This CORS request is not allowed.";
    AmbiguousGrantByEmailAddress, 400, "The email address that you provided is associated with more than one account.";
    AuthorizationHeaderMalformed, 400, "The authorization header that you provided is not valid.";
    AuthorizationQueryParametersError, 400, "The authorization query parameters that you provided are not valid.";
    BadDigest, 400, "The Content-MD5 or checksum value that you specified did not match what the server received.";
    BadRequest, 400, "The request could not be understood.";
    BucketAlreadyExists, 409, "The requested bucket name is not available.";
    BucketAlreadyOwnedByYou, 409, "The bucket that you tried to create already exists, and you own it.";
    BucketNotEmpty, 409, "The bucket that you tried to delete is not empty.";
    ConditionalRequestConflict, 409, "A conflicting operation occurred during the request. Retry it.";
    EntityTooLarge, 400, "Your proposed upload exceeds the maximum allowed size.";
    EntityTooSmall, 400, "Your proposed upload is smaller than the minimum allowed size.";
    ExpiredToken, 400, "The provided token has expired.";
    IllegalLocationConstraintException, 400, "The location constraint is not valid for this endpoint.";
    IllegalVersioningConfigurationException, 400, "The versioning configuration that you specified is not valid.";
    IncompleteBody, 400, "You did not provide the number of bytes specified by the Content-Length HTTP header.";
    InternalError, 500, "We encountered an internal error. Please try again.";
    InvalidAccessKeyId, 403, "The access key ID that you provided does not exist in our records.";
    InvalidArgument, 400, "Invalid Argument";
    InvalidBucketAclWithObjectOwnership, 400, "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting";
    InvalidBucketName, 400, "The specified bucket is not valid.";
    InvalidBucketState, 409, "The request is not valid for the current state of the bucket.";
    InvalidChunkSizeError, 403, "Only the last chunk is allowed to have a size less than 8192 bytes.";
    InvalidDigest, 400, "The Content-MD5 or checksum value that you specified is not valid.";
    InvalidEncryptionAlgorithmError, 400, "The encryption request that you specified is not valid.";
    InvalidLocationConstraint, 400, "The specified location constraint is not valid.";
    InvalidObjectState, 403, "The operation is not valid for the current state of the object.";
    InvalidPart, 400, "One or more of the specified parts could not be found. The part might not have been uploaded, or the specified entity tag might not have matched the part's entity tag.";
    InvalidPartNumber, 416, "The requested partnumber is not satisfiable";
    InvalidPartOrder, 400, "The list of parts was not in ascending order. The parts list must be specified in order by part number.";
    InvalidPolicyDocument, 400, "The content of the form does not meet the conditions specified in the policy document.";
    InvalidRange, 416, "The requested range is not satisfiable";
    InvalidRequest, 400, "The request is not valid.";
    InvalidRetentionPeriod, 400, "The retention period has to be a positive number.";
    InvalidSecurity, 403, "The provided security credentials are not valid.";
    InvalidStorageClass, 400, "The storage class that you specified is not valid.";
    InvalidTag, 400, "The tag provided was not a valid tag. This error can occur if the tag did not pass input validation.";
    InvalidToken, 400, "The provided token is malformed or otherwise not valid.";
    InvalidURI, 400, "Could not parse the specified URI.";
    KMSInvalidStateException as "KMS.KMSInvalidStateException", 400, "The key that the object was encrypted under can't be used in its present state.";
    KeyTooLongError, 400, "Your key is too long";
    MalformedACLError, 400, "The ACL that you provided was not well formed or did not validate against our published schema.";
    MalformedPOSTRequest, 400, "The body of your POST request is not well-formed multipart/form-data.";
    MalformedPolicy, 400, "The policy that you provided is not valid.";
    MalformedPolicyDocument, 400, "The policy document is not well formed.";
    MalformedTrailerError, 400, "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    MalformedXML, 400, "The XML you provided was not well-formed or did not validate against our published schema";
    MaxMessageLengthExceeded, 400, "Your request was too big.";
    MaxPostPreDataLengthExceeded, 400, "Your POST request fields preceding the upload file were too large.";
    MetadataTooLarge, 400, "Your metadata headers exceed the maximum allowed metadata size";
    MethodNotAllowed, 405, "The specified method is not allowed against this resource.";
    MissingContentLength, 411, "You must provide the Content-Length HTTP header.";
    MissingRequestBodyError, 400, "Request Body is empty";
    MissingSecurityHeader, 400, "Your request was missing a required header";
    NoSuchBucket, 404, "The specified bucket does not exist";
    NoSuchBucketPolicy, 404, "The bucket policy does not exist";
    NoSuchCORSConfiguration, 404, "The CORS configuration does not exist";
    NoSuchConfiguration, 404, "The specified configuration does not exist.";
    NoSuchKey, 404, "The specified key does not exist.";
    NoSuchLifecycleConfiguration, 404, "The lifecycle configuration does not exist";
    NoSuchObjectLockConfiguration, 404, "The specified object does not have an object lock configuration.";
    NoSuchPublicAccessBlockConfiguration, 404, "The public access block configuration was not found";
    NoSuchTagSet, 404, "The TagSet does not exist";
    NoSuchUpload, 404, "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    NoSuchVersion, 404, "The specified version does not exist.";
    NoSuchWebsiteConfiguration, 404, "The specified bucket does not have a website configuration";
    NotImplemented, 501, "A header or query you provided requested a function that is not implemented.";
    NotModified, 304, "Not Modified";
    ObjectLockConfigurationNotFoundError, 404, "Object Lock configuration does not exist for this bucket.";
    OperationAborted, 409, "A conflicting conditional operation is currently in progress against this resource. Try again.";
    OwnershipControlsNotFoundError, 404, "The bucket ownership controls were not found";
    PermanentRedirect, 301, "The bucket that you are attempting to access must be addressed using the specified endpoint.";
    PreconditionFailed, 412, "At least one of the pre-conditions you specified did not hold";
    QuotaExceeded, 403, "The quota of the account or bucket is used up.";
    ReplicationConfigurationNotFoundError, 404, "The replication configuration was not found";
    RequestHeaderSectionTooLarge, 400, "Your request header section exceeds the maximum allowed size.";
    RequestTimeTooSkewed, 403, "The difference between the request time and the current time is too large.";
    RequestTimeout, 400, "Your socket connection to the server was not read from or written to within the timeout period.";
    ServerSideEncryptionConfigurationNotFoundError, 404, "The server side encryption configuration was not found";
    ServiceUnavailable, 503, "Service is unable to handle request.";
    SignatureDoesNotMatch, 403, "The request signature we calculated does not match the signature you provided. Check your key and signing method.";
    SlowDown, 503, "Please reduce your request rate.";
    TooManyBuckets, 400, "You have attempted to create more buckets than allowed.";
    TooManyConfigurations, 400, "You have reached the limit of configurations of this kind.";
    TooManyParts, 400, "You have attempted to upload more parts than allowed.";
    UnexpectedContent, 400, "This request contains unsupported content.";
    UnresolvableGrantByEmailAddress, 400, "The email address that you provided does not match any account on record.";
    UnsupportedSignature, 400, "The provided request is signed with an unsupported signature version.";
    XAmzContentSHA256Mismatch, 400, "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

impl ErrorCode {
    /// The code as it stands in `<Code>`.
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The HTTP status that goes with the code.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.facts().1).expect("the table holds statuses from 300 to 503")
    }

    /// The text that goes out when nothing more exact is known.
    pub const fn default_message(self) -> &'static str {
        self.facts().2
    }

    /// The code that bears this name, if it is one of ours. `NoSuchBucket` and the like; case matters, as in S3.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == name)
    }

    /// Whose turn it is to change something.
    pub fn blame(self) -> Blame {
        if self.facts().1 >= 500 && self != Self::NotImplemented { Blame::Service } else { Blame::Client }
    }

    /// Whether the same request may succeed when it is sent again (as the AWS SDKs decide it).
    pub fn is_retryable(self) -> bool {
        match self {
            Self::NotImplemented => false,
            Self::RequestTimeout | Self::RequestTimeTooSkewed | Self::OperationAborted => true,
            Self::ConditionalRequestConflict | Self::IncompleteBody => true,
            other => other.facts().1 >= 500,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error in the words of S3, ready to be sent to a client. It carries no secret and no upstream detail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct S3Error {
    code: ErrorCode,
    message: Cow<'static, str>,
    resource: Option<Box<str>>,
    extra: Vec<(&'static str, String)>,
}

impl S3Error {
    /// An error with the code's default message.
    pub fn new(code: ErrorCode) -> Self {
        Self { code, message: Cow::Borrowed(code.default_message()), resource: None, extra: Vec::new() }
    }

    /// Replaces the message.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.message = message.into();
        self
    }

    /// Names the resource (`/bucket/key`) for `<Resource>`.
    #[must_use]
    pub fn with_resource(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into().into_boxed_str());
        self
    }

    /// Adds one more element to the body, for example `("BucketName", …)` or `("Condition", "If-Match")`.
    #[must_use]
    pub fn with_extra(mut self, element: &'static str, value: impl Into<String>) -> Self {
        self.extra.push((element, value.into()));
        self
    }

    /// `InvalidArgument` with the argument's name and value, as S3 reports it.
    pub fn invalid_argument(name: &str, value: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::InvalidArgument)
            .with_message(message)
            .with_extra("ArgumentName", name)
            .with_extra("ArgumentValue", value)
    }

    /// `NotImplemented` with the header, parameter or feature that is refused.
    pub fn not_implemented(what: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorCode::NotImplemented).with_message(what)
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The message.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The resource, if one was named.
    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// The further elements of the body.
    pub fn extra(&self) -> &[(&'static str, String)] {
        &self.extra
    }

    /// The `<Error>` document (`application/xml`). HEAD and 304 answers carry no body: the caller leaves it out.
    pub fn to_xml(&self, request_id: &str, host_id: &str) -> Bytes {
        xml::write_error(self, request_id, host_id)
    }
}

impl From<ErrorCode> for S3Error {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

/// What the upstream store answered instead of a result. Its texts are the provider's: for logs, never for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamError {
    /// The HTTP status of the answer; 200 for an error inside a Complete or Copy body.
    pub status: StatusCode,
    /// The code, when it is one that we know; for an empty body the one that the status implies.
    pub code: Option<ErrorCode>,
    /// The code as it was written; empty when the body had none.
    pub code_text: String,
    /// The message as it was written, shortened to 1,000 characters.
    pub message: String,
    /// Headers of the answer that go to the client with the error, as whoever read the answer has chosen them; none
    /// from [`UpstreamError::parse`].
    pub passed: Vec<(http::HeaderName, http::HeaderValue)>,
}

impl UpstreamError {
    /// Reads an error answer. Never fails: a body that is no `<Error>` document leaves code and message empty.
    ///
    /// `status` decides the code where there is no body (HEAD) or no known code: 301, 304, 403, 404 (`None`, since it
    /// may mean bucket, key or upload), 405, 409, 411, 412, 416, 429/503, 500, 501.
    pub fn parse(status: StatusCode, body: &[u8]) -> Self {
        let (code_text, message) = xml::parse_error(body).unwrap_or_default();
        let code = ErrorCode::from_name(&code_text).or_else(|| code_of_status(status));
        let message = message.chars().take(1000).collect();
        Self { status, code, code_text, message, passed: Vec::new() }
    }

    /// Whether the same request may succeed when it is sent again.
    pub fn is_retryable(&self) -> bool {
        self.code.map_or(self.status.is_server_error(), ErrorCode::is_retryable)
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream answered {} {}: {}", self.status.as_u16(), self.code_text, self.message)
    }
}

impl std::error::Error for UpstreamError {}

fn code_of_status(status: StatusCode) -> Option<ErrorCode> {
    match status.as_u16() {
        301 => Some(ErrorCode::PermanentRedirect),
        304 => Some(ErrorCode::NotModified),
        403 => Some(ErrorCode::AccessDenied),
        405 => Some(ErrorCode::MethodNotAllowed),
        411 => Some(ErrorCode::MissingContentLength),
        412 => Some(ErrorCode::PreconditionFailed),
        416 => Some(ErrorCode::InvalidRange),
        429 => Some(ErrorCode::SlowDown),
        500 => Some(ErrorCode::InternalError),
        501 => Some(ErrorCode::NotImplemented),
        502..=504 => Some(ErrorCode::ServiceUnavailable),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_name_and_has_an_error_status() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_name(code.as_str()), Some(code));
            assert!(code.status().as_u16() >= 300, "{code}");
            assert!(!code.default_message().is_empty());
        }
        assert_eq!(ErrorCode::from_name("nosuchkey"), None);
    }

    #[test]
    fn only_errors_of_the_service_and_conflicts_are_retried() {
        assert!(ErrorCode::SlowDown.is_retryable() && ErrorCode::InternalError.is_retryable());
        assert!(!ErrorCode::NotImplemented.is_retryable() && !ErrorCode::AccessDenied.is_retryable());
        assert_eq!(ErrorCode::NotImplemented.blame(), Blame::Client);
        assert_eq!(ErrorCode::ServiceUnavailable.blame(), Blame::Service);
    }

    #[test]
    fn the_body_escapes_what_the_client_wrote() {
        let error = S3Error::new(ErrorCode::NoSuchKey).with_resource("/b/<k>&").with_extra("Key", "a\u{1}\"");
        let body = error.to_xml("RID", "HID");
        let text = std::str::from_utf8(&body).unwrap();
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code><Message>The specified key does \
             not exist.</Message><Key>a&#x1;&quot;</Key><Resource>/b/&lt;k&gt;&amp;</Resource><RequestId>RID\
             </RequestId><HostId>HID</HostId></Error>"
        );
    }

    #[test]
    fn an_upstream_error_is_read_with_or_without_a_body() {
        let body = b"<?xml version=\"1.0\"?><Error><Code>NoSuchBucket</Code><Message>gone</Message><Foo>x</Foo></Error>";
        let error = UpstreamError::parse(StatusCode::NOT_FOUND, body);
        assert_eq!((error.code, error.message.as_str()), (Some(ErrorCode::NoSuchBucket), "gone"));
        let error = UpstreamError::parse(StatusCode::PRECONDITION_FAILED, b"");
        assert_eq!(error.code, Some(ErrorCode::PreconditionFailed));
        let error = UpstreamError::parse(StatusCode::NOT_FOUND, b"<html>nope");
        assert_eq!((error.code, error.code_text.as_str()), (None, ""));
        let error = UpstreamError::parse(StatusCode::BAD_REQUEST, b"<Error><Code>Odd</Code></Error>");
        assert_eq!((error.code, error.code_text.as_str()), (None, "Odd"));
        assert!(!error.is_retryable());
    }
}
