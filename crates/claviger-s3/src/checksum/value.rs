//! Algorithms and values.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::verify::Hasher;
use crate::error::{ErrorCode, S3Error};

/// Bytes of the longest value.
const DIGEST_LEN_MAX: usize = 64;

/// The checksum algorithms that are served: all that S3 knows since April 2026.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (ISO-HDLC), 4 bytes.
    Crc32,
    /// CRC-32C (Castagnoli), 4 bytes.
    Crc32c,
    /// CRC-64/NVME, 8 bytes.
    Crc64Nvme,
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-512, 64 bytes.
    Sha512,
    /// MD5, 16 bytes. Not the same as `Content-MD5`, which is checked and forgotten.
    Md5,
    /// XXH64 with seed 0, 8 bytes.
    XxHash64,
    /// XXH3 with 64 bits and seed 0, 8 bytes.
    XxHash3,
    /// XXH3 with 128 bits and seed 0, 16 bytes.
    XxHash128,
}

impl ChecksumAlgorithm {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Crc32,
        Self::Crc32c,
        Self::Crc64Nvme,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
        Self::Md5,
        Self::XxHash64,
        Self::XxHash3,
        Self::XxHash128,
    ];

    const fn facts(self) -> (&'static str, &'static str, &'static str, usize) {
        match self {
            Self::Crc32 => ("CRC32", "x-amz-checksum-crc32", "ChecksumCRC32", 4),
            Self::Crc32c => ("CRC32C", "x-amz-checksum-crc32c", "ChecksumCRC32C", 4),
            Self::Crc64Nvme => ("CRC64NVME", "x-amz-checksum-crc64nvme", "ChecksumCRC64NVME", 8),
            Self::Sha1 => ("SHA1", "x-amz-checksum-sha1", "ChecksumSHA1", 20),
            Self::Sha256 => ("SHA256", "x-amz-checksum-sha256", "ChecksumSHA256", 32),
            Self::Sha512 => ("SHA512", "x-amz-checksum-sha512", "ChecksumSHA512", 64),
            Self::Md5 => ("MD5", "x-amz-checksum-md5", "ChecksumMD5", 16),
            Self::XxHash64 => ("XXHASH64", "x-amz-checksum-xxhash64", "ChecksumXXHASH64", 8),
            Self::XxHash3 => ("XXHASH3", "x-amz-checksum-xxhash3", "ChecksumXXHASH3", 8),
            Self::XxHash128 => ("XXHASH128", "x-amz-checksum-xxhash128", "ChecksumXXHASH128", 16),
        }
    }

    /// The name in headers and XML: `CRC64NVME`.
    pub const fn as_str(self) -> &'static str {
        self.facts().0
    }

    /// The header and trailer: `x-amz-checksum-crc64nvme`.
    pub const fn header_name(self) -> &'static str {
        self.facts().1
    }

    /// The XML element: `ChecksumCRC64NVME`.
    pub const fn element_name(self) -> &'static str {
        self.facts().2
    }

    /// Bytes of a value.
    pub const fn digest_len(self) -> usize {
        self.facts().3
    }

    /// Reads `CRC64NVME` and the like, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.as_str().eq_ignore_ascii_case(name))
    }

    /// The algorithm of a header or trailer name in lower case.
    pub fn from_header_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|algorithm| algorithm.header_name() == name)
    }

    /// Whether values of parts combine to the value of the whole without its bytes.
    pub const fn is_crc(self) -> bool {
        matches!(self, Self::Crc32 | Self::Crc32c | Self::Crc64Nvme)
    }

    /// The type that S3 assumes for a multipart upload when none is named.
    pub const fn default_multipart_type(self) -> ChecksumType {
        match self {
            Self::Crc64Nvme => ChecksumType::FullObject,
            _ => ChecksumType::Composite,
        }
    }

    /// Whether a multipart upload can have a checksum of this type: only CRCs have a full-object form, and CRC64NVME no
    /// composite one.
    pub const fn supports(self, checksum_type: ChecksumType) -> bool {
        match checksum_type {
            ChecksumType::FullObject => self.is_crc(),
            ChecksumType::Composite => !matches!(self, Self::Crc64Nvme),
        }
    }
}

impl fmt::Display for ChecksumAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a checksum of a multipart object covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumType {
    /// All bytes of the object.
    FullObject,
    /// The checksums of its parts.
    Composite,
}

impl ChecksumType {
    /// `FULL_OBJECT` or `COMPOSITE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FullObject => "FULL_OBJECT",
            Self::Composite => "COMPOSITE",
        }
    }

    /// Reads `FULL_OBJECT` or `COMPOSITE`.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::FullObject, Self::Composite].into_iter().find(|t| t.as_str().eq_ignore_ascii_case(name))
    }
}

/// The value of one checksum: as many bytes as the algorithm has, big-endian for CRCs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChecksumValue {
    algorithm: ChecksumAlgorithm,
    bytes: [u8; DIGEST_LEN_MAX],
}

impl ChecksumValue {
    /// Takes raw bytes; `None` when their number is not the algorithm's.
    pub fn from_bytes(algorithm: ChecksumAlgorithm, value: &[u8]) -> Option<Self> {
        let mut bytes = [0; DIGEST_LEN_MAX];
        if value.len() != algorithm.digest_len() {
            return None;
        }
        bytes[..value.len()].copy_from_slice(value);
        Some(Self { algorithm, bytes })
    }

    /// The checksum of an empty body.
    pub fn of_nothing(algorithm: ChecksumAlgorithm) -> Self {
        Hasher::new(algorithm).finish()
    }

    /// Takes the number of a CRC, as `crc-fast` yields it; `None` for other algorithms.
    pub fn from_crc(algorithm: ChecksumAlgorithm, crc: u64) -> Option<Self> {
        let bytes = crc.to_be_bytes();
        algorithm.is_crc().then(|| Self::from_bytes(algorithm, &bytes[8 - algorithm.digest_len()..]))?
    }

    /// Reads base64; `InvalidRequest` in the words of S3 when it is broken or has another length.
    pub fn parse(algorithm: ChecksumAlgorithm, text: &str) -> Result<Self, S3Error> {
        let bytes = BASE64.decode(text.trim()).ok();
        bytes.and_then(|bytes| Self::from_bytes(algorithm, &bytes)).ok_or_else(|| {
            S3Error::new(ErrorCode::InvalidRequest)
                .with_message(format!("Value for {} header is invalid.", algorithm.header_name()))
        })
    }

    /// The algorithm.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.algorithm.digest_len()]
    }

    /// The number of a CRC; `None` for other algorithms.
    pub fn as_crc(&self) -> Option<u64> {
        self.algorithm
            .is_crc()
            .then(|| self.as_bytes().iter().fold(0, |crc, &byte| crc << 8 | u64::from(byte)))
    }

    /// The value in base64, as headers and XML carry it.
    pub fn to_base64(&self) -> String {
        BASE64.encode(self.as_bytes())
    }
}

impl fmt::Debug for ChecksumValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.to_base64())
    }
}

/// The checksum of a whole object or of a part, with what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectChecksum {
    /// The value.
    pub value: ChecksumValue,
    /// The number of parts behind a composite value (`…-N`); `None` for one over the bytes themselves.
    pub part_count: Option<u32>,
}

impl ObjectChecksum {
    /// A checksum over all bytes.
    pub fn full(value: ChecksumValue) -> Self {
        Self { value, part_count: None }
    }

    /// Reads base64 with or without `-N` (1 to 10,000).
    pub fn parse(algorithm: ChecksumAlgorithm, text: &str) -> Result<Self, S3Error> {
        let Some((value, count)) = text.trim().split_once('-') else {
            return Ok(Self::full(ChecksumValue::parse(algorithm, text)?));
        };
        let count: Option<u32> = count.parse().ok().filter(|count| (1..=10_000).contains(count));
        let part_count = Some(count.ok_or_else(|| {
            S3Error::new(ErrorCode::InvalidRequest)
                .with_message(format!("Value for {} header is invalid.", algorithm.header_name()))
        })?);
        Ok(Self { value: ChecksumValue::parse(algorithm, value)?, part_count })
    }

    /// The text for headers and XML: base64, with `-N` when composite.
    pub fn to_text(&self) -> String {
        match self.part_count {
            Some(count) => format!("{}-{count}", self.value.to_base64()),
            None => self.value.to_base64(),
        }
    }

    /// What it covers.
    pub fn checksum_type(&self) -> ChecksumType {
        if self.part_count.is_some() { ChecksumType::Composite } else { ChecksumType::FullObject }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_base64_and_numbers() {
        let crc = ChecksumValue::parse(ChecksumAlgorithm::Crc32, "lZe8jQ==").unwrap();
        assert_eq!(crc.as_crc(), Some(0x9597_bc8d));
        assert_eq!(ChecksumValue::from_crc(ChecksumAlgorithm::Crc32, 0x9597_bc8d), Some(crc));
        assert_eq!(crc.to_base64(), "lZe8jQ==");
        assert_eq!(ChecksumValue::from_crc(ChecksumAlgorithm::Sha1, 1), None);
    }

    #[test]
    fn broken_values_are_refused() {
        for text in ["", "lZe8jQ", "lZe8jQ==x", "AAAA", "!!!!!!=="] {
            let error = ChecksumValue::parse(ChecksumAlgorithm::Crc32c, text).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidRequest, "{text}");
        }
        for text in ["lZe8jQ==-0", "lZe8jQ==-", "lZe8jQ==-x", "lZe8jQ==-10001"] {
            assert!(ObjectChecksum::parse(ChecksumAlgorithm::Crc32, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_composite_value_names_its_parts() {
        let sum = ObjectChecksum::parse(ChecksumAlgorithm::Crc32, "lZe8jQ==-3").unwrap();
        assert_eq!((sum.part_count, sum.checksum_type()), (Some(3), ChecksumType::Composite));
        assert_eq!(sum.to_text(), "lZe8jQ==-3");
    }

    #[test]
    fn types_are_limited_as_s3_limits_them() {
        use ChecksumAlgorithm::*;
        assert!(!Sha256.supports(ChecksumType::FullObject) && Sha256.supports(ChecksumType::Composite));
        assert!(Crc64Nvme.supports(ChecksumType::FullObject) && !Crc64Nvme.supports(ChecksumType::Composite));
        assert!(Crc32.supports(ChecksumType::FullObject) && Crc32.supports(ChecksumType::Composite));
        for &algorithm in ChecksumAlgorithm::ALL {
            assert!(algorithm.supports(algorithm.default_multipart_type()));
        }
    }
}
