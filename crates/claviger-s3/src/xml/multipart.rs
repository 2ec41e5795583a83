//! Documents of multipart uploads.

use bytes::Bytes;

use super::list::Owner;
use super::reader::XmlError;
use crate::checksum::{ChecksumAlgorithm, ChecksumType, ObjectChecksum};
use crate::operation::EncodingType;

/// `InitiateMultipartUploadResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InitiateMultipartUploadResult {
    /// `Bucket`
    pub bucket: String,
    /// `Key`
    pub key: String,
    /// `UploadId`
    pub upload_id: String,
}

/// `CompleteMultipartUploadResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CompleteMultipartUploadResult {
    /// `Location`
    pub location: String,
    /// `Bucket`
    pub bucket: String,
    /// `Key`
    pub key: String,
    /// `ETag` without quotes; empty when the store sent none (Ceph RGW does that once).
    pub etag: String,
    /// `Checksum…` and `ChecksumType`
    pub checksum: Option<ObjectChecksum>,
}

/// One part of [`ListPartsResult`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartEntry {
    /// `PartNumber`
    pub part_number: u16,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `ETag` without quotes.
    pub etag: String,
    /// `Size` in bytes.
    pub size: u64,
    /// `Checksum…`
    pub checksum: Option<ObjectChecksum>,
}

/// `ListPartsResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPartsResult {
    /// `Bucket`
    pub bucket: String,
    /// `Key`
    pub key: String,
    /// `UploadId`
    pub upload_id: String,
    /// `Initiator`
    pub initiator: Owner,
    /// `Owner`
    pub owner: Owner,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `PartNumberMarker`
    pub part_number_marker: u16,
    /// `NextPartNumberMarker`
    pub next_part_number_marker: Option<u16>,
    /// `MaxParts`
    pub max_parts: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Part`
    pub parts: Vec<PartEntry>,
    /// `ChecksumAlgorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `ChecksumType`
    pub checksum_type: Option<ChecksumType>,
}

/// One upload of [`ListMultipartUploadsResult`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadEntry {
    /// `Key`, decoded.
    pub key: String,
    /// `UploadId`
    pub upload_id: String,
    /// `Initiated`, ms since the epoch.
    pub initiated_ms: u64,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `Initiator`
    pub initiator: Owner,
    /// `Owner`
    pub owner: Owner,
    /// `ChecksumAlgorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `ChecksumType`
    pub checksum_type: Option<ChecksumType>,
}

/// `ListMultipartUploadsResult`. All names are decoded here and encoded on the wire when `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListMultipartUploadsResult {
    /// `Bucket`
    pub bucket: String,
    /// `KeyMarker`
    pub key_marker: String,
    /// `UploadIdMarker`
    pub upload_id_marker: String,
    /// `NextKeyMarker`
    pub next_key_marker: Option<String>,
    /// `NextUploadIdMarker`
    pub next_upload_id_marker: Option<String>,
    /// `Prefix`
    pub prefix: String,
    /// `Delimiter`
    pub delimiter: Option<String>,
    /// `MaxUploads`
    pub max_uploads: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Upload`
    pub uploads: Vec<UploadEntry>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<String>,
}

macro_rules! stub { ($($t:ident)*) => { $(impl $t {
    /// The document.
    pub fn to_xml(&self) -> Bytes { todo!() }
    /// Reads the store's answer.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> { let _ = body; todo!() }
})* } }
stub!(InitiateMultipartUploadResult ListPartsResult ListMultipartUploadsResult);
impl CompleteMultipartUploadResult {
    /// The document.
    pub fn to_xml(&self) -> Bytes {
        todo!()
    }
    /// Reads the store's answer to a Complete with status 200, which may still be an error.
    pub fn parse(body: &[u8]) -> Result<super::Reply<Self>, XmlError> {
        let _ = body;
        todo!()
    }
}
