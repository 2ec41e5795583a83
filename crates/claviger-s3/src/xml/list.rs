//! Listings of buckets and objects.

use bytes::Bytes;

use super::reader::XmlError;
use crate::checksum::{ChecksumAlgorithm, ChecksumType};
use crate::operation::EncodingType;

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// `ID`
    pub id: String,
    /// `DisplayName`
    pub display_name: Option<String>,
}

/// One bucket of [`ListBucketsResult`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketEntry {
    /// `Name`
    pub name: String,
    /// `CreationDate`, ms since the epoch.
    pub creation_ms: u64,
}

/// `ListAllMyBucketsResult`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListBucketsResult {
    /// `Owner`
    pub owner: Owner,
    /// `Buckets`
    pub buckets: Vec<BucketEntry>,
    /// `Prefix`
    pub prefix: Option<String>,
    /// `ContinuationToken`: where the next page begins.
    pub continuation_token: Option<String>,
}

/// One object of a listing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectEntry {
    /// `Key`, decoded.
    pub key: String,
    /// `LastModified`, ms since the epoch.
    pub last_modified_ms: u64,
    /// `ETag` without quotes.
    pub etag: String,
    /// `Size` in bytes.
    pub size: u64,
    /// `StorageClass`
    pub storage_class: Option<String>,
    /// `Owner`
    pub owner: Option<Owner>,
    /// `ChecksumAlgorithm`
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    /// `ChecksumType`
    pub checksum_type: Option<ChecksumType>,
}

/// `ListBucketResult` of ListObjects (version 1). All names are decoded here and encoded on the wire when
/// `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjectsResult {
    /// `Name` of the bucket.
    pub name: String,
    /// `Prefix`
    pub prefix: String,
    /// `Marker`
    pub marker: String,
    /// `NextMarker`: S3 sends it only for truncated listings with a delimiter.
    pub next_marker: Option<String>,
    /// `Delimiter`
    pub delimiter: Option<String>,
    /// `MaxKeys`
    pub max_keys: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Contents`
    pub contents: Vec<ObjectEntry>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<String>,
}

/// `ListBucketResult` of ListObjectsV2. All names are decoded here and encoded on the wire when `encoding_type` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListObjectsV2Result {
    /// `Name` of the bucket.
    pub name: String,
    /// `Prefix`
    pub prefix: String,
    /// `Delimiter`
    pub delimiter: Option<String>,
    /// `StartAfter`
    pub start_after: Option<String>,
    /// `ContinuationToken` of the request.
    pub continuation_token: Option<String>,
    /// `NextContinuationToken`
    pub next_continuation_token: Option<String>,
    /// `KeyCount`: objects and common prefixes together.
    pub key_count: u32,
    /// `MaxKeys`
    pub max_keys: u32,
    /// `EncodingType`
    pub encoding_type: Option<EncodingType>,
    /// `IsTruncated`
    pub is_truncated: bool,
    /// `Contents`
    pub contents: Vec<ObjectEntry>,
    /// `CommonPrefixes`
    pub common_prefixes: Vec<String>,
}

macro_rules! stub { ($($t:ident)*) => { $(impl $t {
    /// The document.
    pub fn to_xml(&self) -> Bytes { todo!() }
    /// Reads the store's answer; names are decoded if it says `EncodingType` url.
    pub fn parse(body: &[u8]) -> Result<Self, XmlError> { let _ = body; todo!() }
})* } }
stub!(ListBucketsResult ListObjectsResult ListObjectsV2Result);
