//! Documents of single objects: copy, delete, attributes, tagging, location, error.

use bytes::Bytes;

use super::multipart::PartEntry;
use super::reader::XmlError;
use crate::checksum::ObjectChecksum;
use crate::error::{S3Error, UpstreamError};

/// The answer to Complete and Copy, which may carry an error in spite of its status 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<T> {
    /// It is done.
    Done(T),
    /// It has failed.
    Failed(UpstreamError),
}

/// `CopyObjectResult`, and `CopyPartResult` of UploadPartCopy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyResult {
    /// `ETag` without quotes.
    pub etag: String,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `Checksum…`
    pub checksum: Option<ObjectChecksum>,
}

/// One key of `Deleted`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeletedEntry {
    /// `Key`
    pub key: String,
    /// `VersionId`
    pub version_id: Option<String>,
    /// `DeleteMarker`
    pub delete_marker: bool,
    /// `DeleteMarkerVersionId`
    pub delete_marker_version_id: Option<String>,
}

/// One key of `Error` in a `DeleteResult`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteErrorEntry {
    /// `Key`
    pub key: String,
    /// `VersionId`
    pub version_id: Option<String>,
    /// `Code`
    pub code: String,
    /// `Message`
    pub message: String,
}

/// `DeleteResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteResult {
    /// `Deleted`; left empty by quiet requests.
    pub deleted: Vec<DeletedEntry>,
    /// `Error`
    pub errors: Vec<DeleteErrorEntry>,
}

/// `ObjectParts` of [`GetObjectAttributesResult`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectPartsResult {
    /// `PartsCount` (on the wire; the SDKs call it TotalPartsCount).
    pub total_parts_count: u32,
    /// `PartNumberMarker`
    pub part_number_marker: u16,
    /// `NextPartNumberMarker`
    pub next_part_number_marker: Option<u16>,
    /// `MaxParts`
    pub max_parts: u32,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Part`: number, size and checksum count; S3 lists them only for objects with a checksum per part.
    pub parts: Vec<PartEntry>,
}

/// `GetObjectAttributesResponse`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetObjectAttributesResult {
    /// `ETag`, written without quotes as S3 does here.
    pub etag: Option<String>,
    /// `Checksum`
    pub checksum: Option<ObjectChecksum>,
    /// `ObjectParts`
    pub object_parts: Option<ObjectPartsResult>,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `ObjectSize` in bytes
    pub object_size: Option<u64>,
}

impl CopyResult {
    /// `CopyObjectResult`
    pub fn to_object_xml(&self) -> Bytes {
        todo!()
    }
    /// `CopyPartResult`
    pub fn to_part_xml(&self) -> Bytes {
        todo!()
    }
    /// Reads the store's answer to a copy with status 200, which may still be an error.
    pub fn parse(body: &[u8]) -> Result<Reply<Self>, XmlError> {
        let _ = body;
        todo!()
    }
}
impl DeleteResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        todo!()
    }
    /// Reads the store's answer.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> {
        let _ = body;
        todo!()
    }
}
impl GetObjectAttributesResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        todo!()
    }
}
/// `LocationConstraint`; empty for `us-east-1`, as S3 answers it.
pub fn location_constraint(region: &str) -> Bytes {
    let _ = region;
    todo!()
}
/// `Tagging` with no tag.
pub fn empty_tagging() -> Bytes {
    todo!()
}
pub(crate) fn write_error(error: &S3Error, request_id: &str, host_id: &str) -> Bytes {
    let _ = (error, request_id, host_id);
    todo!()
}
pub(crate) fn parse_error(body: &[u8]) -> Option<(String, String)> {
    let _ = body;
    todo!()
}
