//! The `x-amz-*` headers that are known, in groups for the table. Every other one is `NotImplemented`.

use super::table::Parameter;

const fn header(name: &'static str, note: &'static str) -> Parameter {
    Parameter { name, note }
}

/// On every request.
pub static COMMON_HEADERS: &[Parameter] = &[
    header("x-amz-api-version", "ignored: some SDKs name the year of their API model"),
    header("x-amz-content-sha256", "verified"),
    header("x-amz-date", "verified"),
    header("x-amz-expected-bucket-owner", "passed on to the store, which checks it"),
    header("x-amz-request-payer", "`requester` is passed on to the store"),
    header(
        "x-amz-security-token",
        "has to be the token of the access key; InvalidToken for a key without one",
    ),
    header("x-amz-user-agent", "ignored, never passed on"),
];

pub(super) static BODY: &[Parameter] = &[
    header("x-amz-checksum-crc32", "verified over the plaintext"),
    header("x-amz-checksum-crc32c", "verified over the plaintext"),
    header("x-amz-checksum-crc64nvme", "verified over the plaintext"),
    header("x-amz-checksum-sha1", "verified over the plaintext"),
    header("x-amz-checksum-md5", "verified over the plaintext"),
    header("x-amz-checksum-sha256", "verified over the plaintext"),
    header("x-amz-checksum-sha512", "verified over the plaintext"),
    header("x-amz-checksum-xxhash128", "verified over the plaintext"),
    header("x-amz-checksum-xxhash3", "verified over the plaintext"),
    header("x-amz-checksum-xxhash64", "verified over the plaintext"),
    header("x-amz-decoded-content-length", "verified"),
    header("x-amz-sdk-checksum-algorithm", "verified against the checksum that is sent"),
    header("x-amz-trailer", "one checksum, verified over the plaintext"),
];

/// Who may do what, at the store.
pub(super) static ACL: &[Parameter] = &[
    header("x-amz-acl", "passed on to the store (declared leakage)"),
    header("x-amz-grant-full-control", "passed on to the store (declared leakage)"),
    header("x-amz-grant-read", "passed on to the store (declared leakage)"),
    header("x-amz-grant-read-acp", "passed on to the store (declared leakage)"),
    header("x-amz-grant-write", "passed on to the store (declared leakage)"),
    header("x-amz-grant-write-acp", "passed on to the store (declared leakage)"),
];

pub(super) static HARMLESS_WRITE: &[Parameter] = &[
    header(
        "x-amz-acl",
        "`private` is accepted, other ACLs are refused: an upload has its ACL from its beginning",
    ),
    header("x-amz-server-side-encryption", "`AES256` is accepted and echoed; other values are refused"),
    header("x-amz-server-side-encryption-bucket-key-enabled", "`false` is accepted; `true` is refused"),
    header(
        "x-amz-storage-class",
        "passed on to the store (declared leakage) where an object or upload begins",
    ),
];

pub(super) static OBJECT_WRITE: &[Parameter] = &[
    header("x-amz-meta-*", "sealed"),
    header("x-amz-server-side-encryption", "`AES256` is accepted and echoed; other values are refused"),
    header("x-amz-server-side-encryption-bucket-key-enabled", "`false` is accepted; `true` is refused"),
    header("x-amz-storage-class", "passed on to the store (declared leakage)"),
];

pub(super) static TAGS_AND_LOCK: &[Parameter] = &[
    header("x-amz-object-lock-legal-hold", "passed on to the store (declared leakage)"),
    header("x-amz-object-lock-mode", "passed on to the store (declared leakage)"),
    header("x-amz-object-lock-retain-until-date", "passed on to the store (declared leakage)"),
    header("x-amz-tagging", "passed on in clear where `[[tags]]` says so (declared leakage), else refused"),
];

pub(super) static BUCKET_CREATE: &[Parameter] = &[
    header("x-amz-bucket-object-lock-enabled", "passed on to the store"),
    header("x-amz-object-ownership", "passed on to the store"),
];

pub(super) static BYPASS: &[Parameter] =
    &[header("x-amz-bypass-governance-retention", "passed on, for access keys that may `manage` the bucket")];

pub(super) static COPY_SOURCE: &[Parameter] = &[
    header("x-amz-copy-source", "the source, authorised like a read"),
    header("x-amz-copy-source-if-match", "honoured"),
    header("x-amz-copy-source-if-modified-since", "honoured"),
    header("x-amz-copy-source-if-none-match", "honoured"),
    header("x-amz-copy-source-if-unmodified-since", "honoured"),
    header("x-amz-copy-source-range", "UploadPartCopy only"),
    header("x-amz-source-expected-bucket-owner", "passed on to the store, which checks it"),
];

pub(super) static COPY_WRITE: &[Parameter] = &[
    header("x-amz-checksum-algorithm", "honoured where the source's checksum is known"),
    header("x-amz-metadata-directive", "`COPY` or `REPLACE`"),
    header("x-amz-tagging-directive", "`COPY` or `REPLACE`"),
];

pub(super) static CREATE_MULTIPART: &[Parameter] =
    &[header("x-amz-checksum-algorithm", "honoured"), header("x-amz-checksum-type", "honoured")];

pub(super) static COMPLETE: &[Parameter] = &[
    header("x-amz-checksum-crc32", "compared with the checksum of the object"),
    header("x-amz-checksum-crc32c", "compared with the checksum of the object"),
    header("x-amz-checksum-crc64nvme", "compared with the checksum of the object"),
    header("x-amz-checksum-sha1", "compared with the checksum of the object"),
    header("x-amz-checksum-md5", "compared with the checksum of the object"),
    header("x-amz-checksum-sha256", "compared with the checksum of the object"),
    header("x-amz-checksum-sha512", "compared with the checksum of the object"),
    header("x-amz-checksum-xxhash128", "compared with the checksum of the object"),
    header("x-amz-checksum-xxhash3", "compared with the checksum of the object"),
    header("x-amz-checksum-xxhash64", "compared with the checksum of the object"),
    header("x-amz-checksum-type", "compared with the upload"),
    header("x-amz-decoded-content-length", "verified"),
    header("x-amz-mp-object-size", "compared with the length of the object"),
];

pub(super) static READ: &[Parameter] = &[
    header("x-amz-checksum-mode", "`ENABLED` asks for the object's checksum"),
    header("x-amz-te", "ignored: bodies are sent without an appended MD5"),
];

pub(super) static GET_ATTRIBUTES: &[Parameter] = &[
    header("x-amz-max-parts", "honoured"),
    header("x-amz-object-attributes", "honoured"),
    header("x-amz-part-number-marker", "honoured"),
];

/// Headers of S3 that are refused wherever they come, with the reason. Headers that are not listed anywhere are refused
/// as well.
pub static REFUSED_HEADERS: &[Parameter] = &[
    header(
        "x-amz-copy-source-server-side-encryption-customer-*",
        "keys of the client would reach the provider",
    ),
    header("x-amz-mfa", "MFA delete is not implemented"),
    header("x-amz-optional-object-attributes", "restore status is not implemented"),
    header("x-amz-rename-source", "renaming is not implemented"),
    header("x-amz-server-side-encryption-aws-kms-key-id", "keys of the provider are not used"),
    header("x-amz-server-side-encryption-context", "keys of the provider are not used"),
    header("x-amz-server-side-encryption-customer-*", "keys of the client would reach the provider"),
    header("x-amz-website-redirect-location", "website redirects are not implemented"),
    header("x-amz-write-offset-bytes", "appending is not implemented"),
];

/// Query parameters that SDKs add and that mean nothing.
pub static IGNORED_PARAMETERS: &[&str] = &["x-id"];

impl Parameter {
    /// Whether this entry is about the header `name` (lower case).
    pub fn covers(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.len() > prefix.len() && name.starts_with(prefix),
            None => self.name == name,
        }
    }
}
