//! One line of the index: what an object was, and where its content lies.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_format::{Algo, Checksum, ChecksumType, Metadata};
use serde::{Deserialize, Serialize};

use super::source::Mark;

/// A recovered object, as a line of `_index.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    /// The bucket, by the name that clients knew.
    pub(super) bucket: String,
    /// The key.
    pub(super) key: String,
    /// Which version of it, as the store calls it; with --all-versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    /// A version that another one or a deletion had taken the place of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_older: bool,
    /// Where the content lies, below the folder.
    pub(super) file: String,
    /// Whether bucket, key and metadata are proved.
    pub(super) name: Proof,
    /// Bytes of content.
    pub(super) size: u64,
    /// CRC64NVME of the content, 16 hexadecimal digits.
    pub(super) crc64nvme: String,
    /// Content headers. A value that is no UTF-8 is shown as Latin-1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) headers: BTreeMap<String, String>,
    /// User metadata, without `x-amz-meta-`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) metadata: BTreeMap<String, String>,
    /// The checksum that the client gave, verified when the object was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<ClientChecksum>,
    /// When the gateway made the object, milliseconds since 1970.
    pub(super) created_ms: u64,
    /// Who sealed what, for whoever looks into a theft.
    pub(super) sealed: Sealed,
    /// What the store said of it.
    pub(super) store: Mark,
}

/// What is proved of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Proof {
    /// The content was sealed under this bucket and key.
    Verified,
    /// The content is that of one committed object; its name and metadata are the word of whoever kept it.
    Unverified,
}

/// Ids from the format, in hexadecimal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub(super) gateway_id: String,
    pub(super) epoch_id: String,
    pub(super) keyset_id: String,
    pub(super) object_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bucket_id: Option<String>,
}

/// A checksum as S3 writes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ClientChecksum {
    algorithm: String,
    #[serde(rename = "type")]
    of: String,
    /// Base64; with `-` and the number of parts behind it where it is composite.
    value: String,
}

impl Entry {
    /// The version's id, if it is an older one.
    pub(super) fn older(&self) -> Option<&str> {
        self.version.as_deref().filter(|_| self.is_older)
    }
}

impl ClientChecksum {
    pub(super) fn of(checksum: &Checksum) -> Self {
        let algorithm = match checksum.algo() {
            Algo::Crc32 => "CRC32",
            Algo::Crc32c => "CRC32C",
            Algo::Sha1 => "SHA1",
            Algo::Sha256 => "SHA256",
            Algo::Crc64Nvme => "CRC64NVME",
            Algo::Md5 => "MD5",
            Algo::Sha512 => "SHA512",
            Algo::XxHash64 => "XXHASH64",
            Algo::XxHash3 => "XXHASH3",
            Algo::XxHash128 => "XXHASH128",
        };
        let value = STANDARD.encode(checksum.value());
        let (of, value) = match checksum.ty() {
            ChecksumType::FullObject => ("FULL_OBJECT", value),
            ChecksumType::Composite => ("COMPOSITE", format!("{value}-{}", checksum.composite_parts())),
        };
        Self { algorithm: algorithm.to_owned(), of: of.to_owned(), value }
    }
}

/// Content headers by name.
pub(super) fn headers(metadata: &Metadata) -> BTreeMap<String, String> {
    metadata.system.iter().map(|(header, value)| (header.http_name().to_owned(), text(value))).collect()
}

/// User metadata by name.
pub(super) fn user_metadata(metadata: &Metadata) -> BTreeMap<String, String> {
    metadata.user.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

fn text(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().map(|byte| char::from(*byte)).collect(),
    }
}
