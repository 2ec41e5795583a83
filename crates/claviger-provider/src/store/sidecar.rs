//! The JSON files beside the bytes: what the store knows of an object, of an upload, of a part and of a bucket.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The headers and metadata that a client gave an object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    /// Content headers (`content-type`, `cache-control`, …) by lower-case name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
    /// User metadata by name, without `x-amz-meta-`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) user_metadata: BTreeMap<String, String>,
    /// Storage class, as the client named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) storage_class: Option<String>,
}

/// One object: the content of `<name>@meta.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sidecar {
    /// The object's key.
    pub(crate) key: String,
    /// The name, in the same folder, of the file with the object's bytes.
    pub(crate) data: String,
    /// Bytes of the object when it was stored.
    pub(crate) size: u64,
    /// The ETag without quotes.
    pub(crate) etag: String,
    /// When it was stored, milliseconds since the Unix epoch.
    pub(crate) last_modified_ms: u64,
    /// What the client gave with it.
    #[serde(flatten)]
    pub(crate) attributes: Attributes,
    /// Checksums that the client sent and that were verified: header name to base64 value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) checksums: BTreeMap<String, String>,
    /// Sizes of the parts in order, for an object of a multipart upload; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) part_sizes: Vec<u64>,
}

/// One multipart upload in progress: the content of `upload.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UploadRecord {
    /// The key that the object will have.
    pub(crate) key: String,
    /// When it was begun, milliseconds since the Unix epoch.
    pub(crate) initiated_ms: u64,
    /// What the client gave with it.
    #[serde(flatten)]
    pub(crate) attributes: Attributes,
}

/// One part: the content of `<number>@part.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    /// Part number, 1 to 10,000.
    pub(crate) number: u16,
    /// The name, in the same folder, of the file with the part's bytes.
    pub(crate) data: String,
    /// Bytes of the part.
    pub(crate) size: u64,
    /// MD5 of the part, hex: its ETag.
    pub(crate) etag: String,
    /// When it was stored, milliseconds since the Unix epoch.
    pub(crate) last_modified_ms: u64,
}

/// One bucket: the content of `bucket.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BucketRecord {
    /// When it was made, milliseconds since the Unix epoch.
    pub(crate) created_ms: u64,
}

/// Reads one of the records above.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

/// Writes one of the records above at `path`, by way of `staged`, so that a reader finds the old or the new one.
pub(crate) fn write<T: Serialize>(staged: &Path, path: &Path, record: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(record).map_err(std::io::Error::other)?;
    let mut file = fs::File::create(staged)?;
    file.write_all(&bytes)?;
    file.write_all(b"\n")?;
    drop(file);
    fs::rename(staged, path)?;
    Ok(())
}
