//! Documents that clients send (and, for Delete and Complete, that go to the store).

use bytes::Bytes;

use crate::checksum::ObjectChecksum;
use crate::error::S3Error;

/// Largest `CompleteMultipartUpload` document that is read, in bytes.
pub const COMPLETE_LEN_MAX: usize = 4 << 20;
/// Largest `Delete` document that is read, in bytes.
pub const DELETE_LEN_MAX: usize = 2 << 20;
/// Largest `CreateBucketConfiguration` document that is read, in bytes.
pub const CREATE_BUCKET_LEN_MAX: usize = 64 << 10;

/// One part that a client names in Complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    /// `PartNumber`, 1 to 10,000; ascending in the document.
    pub part_number: u16,
    /// `ETag` without quotes.
    pub etag: String,
    /// `Checksum…`
    pub checksum: Option<ObjectChecksum>,
}

/// One key of a `Delete` document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteEntry {
    /// `Key`, 1 to 1,024 bytes.
    pub key: String,
    /// `VersionId`
    pub version_id: Option<String>,
    /// `ETag` without quotes: delete only if it is this one.
    pub etag: Option<String>,
}

/// `Delete`
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteRequest {
    /// `Object`, 1 to 1,000
    pub objects: Vec<DeleteEntry>,
    /// `Quiet`: answer errors only.
    pub quiet: bool,
}

/// Reads a `CompleteMultipartUpload` document: `MalformedXML` when broken, empty or above 10,000 parts,
/// `InvalidPartOrder` when the numbers do not ascend.
pub fn parse_complete(body: &[u8]) -> Result<Vec<CompletedPart>, S3Error> {
    let _ = body;
    todo!()
}
/// Writes a `CompleteMultipartUpload` document for the store.
pub fn write_complete(parts: &[CompletedPart]) -> Bytes {
    let _ = parts;
    todo!()
}
/// Reads a `Delete` document: `MalformedXML` when broken, empty or above 1,000 keys.
pub fn parse_delete(body: &[u8]) -> Result<DeleteRequest, S3Error> {
    let _ = body;
    todo!()
}
/// Writes a `Delete` document for the store.
pub fn write_delete(request: &DeleteRequest) -> Bytes {
    let _ = request;
    todo!()
}
/// Reads a `CreateBucketConfiguration` and gives its location constraint; an empty body has none. Anything but a
/// location is `NotImplemented`.
pub fn parse_create_bucket(body: &[u8]) -> Result<Option<String>, S3Error> {
    let _ = body;
    todo!()
}
/// Writes a `CreateBucketConfiguration` for the store.
pub fn write_create_bucket(location: &str) -> Bytes {
    let _ = location;
    todo!()
}
