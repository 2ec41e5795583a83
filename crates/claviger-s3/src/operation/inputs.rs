//! The typed inputs of each operation: everything a handler needs, so that it never reads a raw header.

use super::acl::AclHeaders;
use crate::checksum::{BodyIntegrity, ChecksumAlgorithm, ChecksumType, ObjectChecksum};
use crate::conditions::{EtagCondition, IfRange, ReadConditions, WriteCondition};
use crate::error::{ErrorCode, S3Error};
use crate::header::{SystemHeaders, UserMetadata};
use crate::lock::LockHeaders;
use crate::name::{BucketName, ObjectKey};
use crate::post_form::Boundary;
use crate::range::RangeSpec;
use crate::sigv4::PayloadMode;
use crate::tagging::TagSet;
use crate::version::VersionId;

/// `encoding-type=url` of listings: keys, prefixes, markers and delimiters are percent-encoded in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodingType {
    /// The only form there is.
    Url,
}

/// The storage class asked for; passed on to the store (declared leakage).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageClass(pub(crate) &'static str);

impl StorageClass {
    /// The class as S3 writes it, for example `STANDARD_IA`.
    pub fn as_str(&self) -> &'static str {
        self.0
    }
}

/// What the client declared about a body that will be streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyHead {
    /// `Content-Length`: bytes on the wire, chunk framing included.
    pub content_length: Option<u64>,
    /// `x-amz-decoded-content-length`: bytes without chunk framing.
    pub decoded_content_length: Option<u64>,
    /// The checksums that the plaintext has to meet.
    pub integrity: BodyIntegrity,
}

impl BodyHead {
    /// The length of the plaintext: the decoded length of a chunked body, else the content length.
    ///
    /// `MissingContentLength` (411) when it was not declared; `InvalidRequest` when a body that isn't chunked
    /// declares a decoded length that differs from its content length.
    pub fn plaintext_len(&self, payload: &PayloadMode) -> Result<u64, S3Error> {
        let missing = || S3Error::new(ErrorCode::MissingContentLength);
        if payload.is_chunked() {
            return self.decoded_content_length.ok_or_else(missing);
        }
        let len = self.content_length.ok_or_else(missing)?;
        match self.decoded_content_length {
            Some(decoded) if decoded != len => Err(S3Error::new(ErrorCode::InvalidRequest)
                .with_message("x-amz-decoded-content-length differs from the length of an unchunked body.")),
            _ => Ok(len),
        }
    }
}

/// What a write says about the object besides its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectHeaders {
    /// Content headers.
    pub system: SystemHeaders,
    /// `x-amz-meta-*`
    pub user_metadata: UserMetadata,
    /// `x-amz-storage-class`, if it is sent.
    pub storage_class: Option<StorageClass>,
    /// `x-amz-acl`, `x-amz-grant-*`
    pub acl: AclHeaders,
    /// `x-amz-tagging`; empty when not sent.
    pub tags: TagSet,
    /// `x-amz-object-lock-*`
    pub lock: LockHeaders,
    /// `x-amz-server-side-encryption: AES256` was sent: echo it.
    pub sse_s3: bool,
}

/// `GET /`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListBuckets {
    /// Only names that begin so; empty for all.
    pub prefix: String,
    /// `max-buckets`, 1 to 10,000; 10,000 when not given.
    pub max_buckets: u32,
    /// Where to go on.
    pub continuation_token: Option<String>,
}

/// `PUT /bucket`. The body may hold a `CreateBucketConfiguration` (see [`crate::xml::parse_create_bucket`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateBucket {
    /// The bucket.
    pub bucket: BucketName,
    /// `x-amz-acl`, `x-amz-grant-*`
    pub acl: AclHeaders,
    /// `x-amz-object-ownership`, one of its three values.
    pub object_ownership: Option<&'static str>,
    /// `x-amz-bucket-object-lock-enabled: true`
    pub object_lock: bool,
    /// `Content-Length` and checksums of the document.
    pub body: BodyHead,
}

/// Operations that only name a bucket: HeadBucket, DeleteBucket, GetBucketLocation, GetBucketVersioning,
/// GetObjectLockConfiguration, and the preflight of browsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketOnly {
    /// The bucket.
    pub bucket: BucketName,
}

/// Operations that send a document about a bucket: PutBucketVersioning, PutObjectLockConfiguration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketDocument {
    /// The bucket.
    pub bucket: BucketName,
    /// Lengths and checksums of the document.
    pub body: BodyHead,
}

/// `PUT /bucket/key`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutObject {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// Metadata, storage class.
    pub headers: ObjectHeaders,
    /// `If-Match` or `If-None-Match: *`.
    pub condition: Option<WriteCondition>,
    /// Lengths and checksums.
    pub body: BodyHead,
}

/// `POST /bucket` with a form: everything else is in its body (see [`crate::post_form`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostObject {
    /// The bucket.
    pub bucket: BucketName,
    /// What separates the parts of the body.
    pub boundary: Boundary,
    /// `Content-Length`: bytes of the whole body.
    pub content_length: u64,
}

/// `response-*` parameters: replace headers of the answer to a GET or HEAD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResponseOverrides {
    /// The values, in the place of the object's own.
    pub headers: SystemHeaders,
}

/// `GET` or `HEAD /bucket/key`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetObject {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// `Range`, if it is one range in bytes; other ranges are answered whole.
    pub range: Option<RangeSpec>,
    /// `If-Range`: the range counts only if it holds.
    pub if_range: Option<IfRange>,
    /// Conditions.
    pub conditions: ReadConditions,
    /// `response-*`
    pub overrides: ResponseOverrides,
    /// `partNumber`, 1 to 10,000; never together with `range`.
    pub part_number: Option<u16>,
    /// `x-amz-checksum-mode: ENABLED`
    pub checksum_mode: bool,
    /// `versionId`; `None` for the newest version.
    pub version: Option<VersionId>,
}

/// `DELETE /bucket/key`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteObject {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// `If-Match`
    pub if_match: Option<EtagCondition>,
    /// `versionId`; `None` for the newest version.
    pub version: Option<VersionId>,
    /// `x-amz-bypass-governance-retention: true`
    pub bypass_governance: bool,
}

/// `POST /bucket?delete`; the body is read with [`crate::xml::parse_delete`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteObjects {
    /// The bucket.
    pub bucket: BucketName,
    /// Lengths and checksums of the document.
    pub body: BodyHead,
    /// `x-amz-bypass-governance-retention: true`
    pub bypass_governance: bool,
}

/// `x-amz-copy-source`, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    /// The source bucket.
    pub bucket: BucketName,
    /// The source key.
    pub key: ObjectKey,
    /// `?versionId=` behind the key; `None` for the newest version.
    pub version: Option<VersionId>,
    /// `x-amz-copy-source-if-*`
    pub conditions: ReadConditions,
}

/// `x-amz-metadata-directive`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataDirective {
    /// Keep the source's content headers and user metadata.
    Copy,
    /// Use the request's.
    Replace,
}

/// `x-amz-tagging-directive`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaggingDirective {
    /// Keep the source's tags.
    Copy,
    /// Use the request's.
    Replace,
}

/// `PUT /bucket/key` with `x-amz-copy-source`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyObject {
    /// The destination bucket.
    pub bucket: BucketName,
    /// The destination key.
    pub key: ObjectKey,
    /// What to copy.
    pub source: CopySource,
    /// Whether [`Self::headers`] replace the source's metadata.
    pub metadata_directive: MetadataDirective,
    /// Whether the tags in [`Self::headers`] replace the source's.
    pub tagging_directive: TaggingDirective,
    /// Metadata and tags (each counts only with `Replace`), storage class.
    pub headers: ObjectHeaders,
    /// Condition on the destination.
    pub condition: Option<WriteCondition>,
    /// `x-amz-checksum-algorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
}

/// What `x-amz-object-attributes` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ObjectAttributes {
    /// `ETag`
    pub etag: bool,
    /// `Checksum`
    pub checksum: bool,
    /// `ObjectParts`
    pub object_parts: bool,
    /// `StorageClass`
    pub storage_class: bool,
    /// `ObjectSize`
    pub object_size: bool,
}

/// `GET /bucket/key?attributes`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetObjectAttributes {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// What to return.
    pub attributes: ObjectAttributes,
    /// `x-amz-max-parts`, up to 1,000.
    pub max_parts: u32,
    /// `x-amz-part-number-marker`; 0 for the start.
    pub part_number_marker: u16,
    /// `versionId`; `None` for the newest version.
    pub version: Option<VersionId>,
}

/// Operations that only name an object: GetObjectTagging, DeleteObjectTagging, GetObjectRetention, GetObjectLegalHold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// `versionId`; `None` for the newest version.
    pub version: Option<VersionId>,
}

/// Operations that send a document about an object: PutObjectTagging, PutObjectRetention, PutObjectLegalHold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectDocument {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// `versionId`; `None` for the newest version.
    pub version: Option<VersionId>,
    /// `x-amz-bypass-governance-retention: true`; only with a retention.
    pub bypass_governance: bool,
    /// Lengths and checksums of the document.
    pub body: BodyHead,
}

/// `GET /bucket`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListObjects {
    /// The bucket.
    pub bucket: BucketName,
    /// Only keys that begin so; empty for all.
    pub prefix: String,
    /// Groups keys into common prefixes; never empty when present.
    pub delimiter: Option<String>,
    /// Only keys behind it; empty for the start.
    pub marker: String,
    /// 0 to 1,000; larger values are cut.
    pub max_keys: u32,
    /// Whether names in the answer are encoded.
    pub encoding_type: Option<EncodingType>,
}

/// `GET /bucket?list-type=2`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListObjectsV2 {
    /// The bucket.
    pub bucket: BucketName,
    /// Only keys that begin so; empty for all.
    pub prefix: String,
    /// Groups keys into common prefixes; never empty when present.
    pub delimiter: Option<String>,
    /// Only keys behind it.
    pub start_after: Option<String>,
    /// Where to go on; wins over `start_after`. Never empty when present.
    pub continuation_token: Option<String>,
    /// 0 to 1,000; larger values are cut.
    pub max_keys: u32,
    /// Whether to name owners.
    pub fetch_owner: bool,
    /// Whether names in the answer are encoded.
    pub encoding_type: Option<EncodingType>,
}

/// `GET /bucket?versions`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListObjectVersions {
    /// The bucket.
    pub bucket: BucketName,
    /// Only keys that begin so; empty for all.
    pub prefix: String,
    /// Groups keys into common prefixes; never empty when present.
    pub delimiter: Option<String>,
    /// Only keys behind it (or at it, behind [`Self::version_id_marker`]); empty for the start.
    pub key_marker: String,
    /// Of the marked key, only versions older than this one. Only together with a key marker.
    pub version_id_marker: Option<VersionId>,
    /// 0 to 1,000; larger values are cut.
    pub max_keys: u32,
    /// Whether names in the answer are encoded.
    pub encoding_type: Option<EncodingType>,
}

/// `POST /bucket/key?uploads`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateMultipartUpload {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// Metadata, storage class.
    pub headers: ObjectHeaders,
    /// `x-amz-checksum-algorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `x-amz-checksum-type`; only together with an algorithm that can do it.
    pub checksum_type: Option<ChecksumType>,
}

/// `PUT /bucket/key?partNumber&uploadId`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPart {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// 1 to 10,000.
    pub part_number: u16,
    /// The upload, as the client names it; never empty.
    pub upload_id: String,
    /// Lengths and checksums.
    pub body: BodyHead,
}

/// `PUT /bucket/key?partNumber&uploadId` with `x-amz-copy-source`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPartCopy {
    /// The destination bucket.
    pub bucket: BucketName,
    /// The destination key.
    pub key: ObjectKey,
    /// 1 to 10,000.
    pub part_number: u16,
    /// The upload, as the client names it; never empty.
    pub upload_id: String,
    /// What to copy.
    pub source: CopySource,
    /// `x-amz-copy-source-range` (always [`RangeSpec::Inclusive`]); `None` copies everything.
    pub source_range: Option<RangeSpec>,
}

/// `POST /bucket/key?uploadId`; the body is read with [`crate::xml::parse_complete`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteMultipartUpload {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// The upload, as the client names it; never empty.
    pub upload_id: String,
    /// `If-Match` or `If-None-Match: *`.
    pub condition: Option<WriteCondition>,
    /// The checksum that the whole object has to have.
    pub checksum: Option<ObjectChecksum>,
    /// `x-amz-checksum-type`
    pub checksum_type: Option<ChecksumType>,
    /// `x-amz-mp-object-size`: the length that the whole object has to have.
    pub object_size: Option<u64>,
    /// Lengths of the document. Its checksum headers speak of the object, not of the document; `Content-MD5` of the
    /// document.
    pub body: BodyHead,
}

/// `DELETE /bucket/key?uploadId`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbortMultipartUpload {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// The upload, as the client names it; never empty.
    pub upload_id: String,
}

/// `GET /bucket/key?uploadId`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListParts {
    /// The bucket.
    pub bucket: BucketName,
    /// The key.
    pub key: ObjectKey,
    /// The upload, as the client names it; never empty.
    pub upload_id: String,
    /// 0 to 1,000; larger values are cut.
    pub max_parts: u32,
    /// Only parts behind it; 0 for the start.
    pub part_number_marker: u16,
    /// Whether names in the answer are encoded.
    pub encoding_type: Option<EncodingType>,
}

/// `GET /bucket?uploads`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMultipartUploads {
    /// The bucket.
    pub bucket: BucketName,
    /// Only keys that begin so; empty for all.
    pub prefix: String,
    /// Groups keys into common prefixes; never empty when present.
    pub delimiter: Option<String>,
    /// Only keys behind it (or at it, behind [`Self::upload_id_marker`]); empty for the start.
    pub key_marker: String,
    /// Counts only together with a key marker; empty when not given.
    pub upload_id_marker: String,
    /// 0 to 1,000; larger values are cut.
    pub max_uploads: u32,
    /// Whether names in the answer are encoded.
    pub encoding_type: Option<EncodingType>,
}
