//! Checksums that a client sent and Claviger keeps sealed (docs/format.md §3.4, §7.4).

use crate::{Error, Result, Structure};

/// Checksum algorithm codes (docs/format.md §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Algo {
    /// CRC-32 (ISO-HDLC).
    Crc32 = 1,
    /// CRC-32C (iSCSI).
    Crc32c = 2,
    /// SHA-1.
    Sha1 = 3,
    /// SHA-256.
    Sha256 = 4,
    /// CRC-64/NVME.
    Crc64Nvme = 5,
    /// MD5.
    Md5 = 6,
    /// SHA-512.
    Sha512 = 7,
    /// XXH64.
    XxHash64 = 8,
    /// XXH3 with 64 bits.
    XxHash3 = 9,
    /// XXH3 with 128 bits.
    XxHash128 = 10,
}

impl Algo {
    /// From its code; 0 is not an algorithm.
    pub fn from_code(code: u8) -> Result<Self> {
        use Algo::{Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256, Sha512, XxHash3, XxHash64, XxHash128};
        [Crc32, Crc32c, Sha1, Sha256, Crc64Nvme, Md5, Sha512, XxHash64, XxHash3, XxHash128]
            .into_iter()
            .find(|algo| algo.code() == code)
            .ok_or(Error::Unsupported(Structure::Checksum))
    }

    /// The code that the format stores.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Length of one value in bytes.
    pub const fn value_len(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme | Self::XxHash64 | Self::XxHash3 => 8,
            Self::Md5 | Self::XxHash128 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// What a checksum covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChecksumType {
    /// The whole plaintext.
    FullObject = 1,
    /// The concatenated checksums of the parts.
    Composite = 2,
}

impl ChecksumType {
    /// From its code.
    pub fn from_code(code: u8) -> Result<Self> {
        match code {
            1 => Ok(Self::FullObject),
            2 => Ok(Self::Composite),
            _ => Err(Error::Unsupported(Structure::Checksum)),
        }
    }

    /// The code that the format stores.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// A verified checksum of an object's plaintext. As confidential as the plaintext: it is stored sealed only.
#[derive(Clone, PartialEq, Eq)]
pub struct Checksum {
    algo: Algo,
    ty: ChecksumType,
    value: Vec<u8>,
    composite_parts: u32,
}

impl Checksum {
    /// A checksum of the whole plaintext; `value` has the algorithm's length.
    pub fn full_object(algo: Algo, value: impl Into<Vec<u8>>) -> Result<Self> {
        Self::new(algo, ChecksumType::FullObject, value.into(), 0)
    }

    /// A checksum of the checksums of `parts` parts.
    pub fn composite(algo: Algo, value: impl Into<Vec<u8>>, parts: u32) -> Result<Self> {
        Self::new(algo, ChecksumType::Composite, value.into(), parts)
    }

    /// Any checksum, as stored.
    pub fn new(algo: Algo, ty: ChecksumType, value: Vec<u8>, composite_parts: u32) -> Result<Self> {
        if value.len() != algo.value_len() || (ty == ChecksumType::FullObject && composite_parts != 0) {
            return Err(Error::Malformed(Structure::Checksum));
        }
        Ok(Self { algo, ty, value, composite_parts })
    }

    /// The algorithm.
    pub fn algo(&self) -> Algo {
        self.algo
    }

    /// What it covers.
    pub fn ty(&self) -> ChecksumType {
        self.ty
    }

    /// The raw value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Number of parts of a composite checksum, 0 otherwise.
    pub fn composite_parts(&self) -> u32 {
        self.composite_parts
    }
}

impl core::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Checksum({:?}, {:?}, ..)", self.algo, self.ty)
    }
}
