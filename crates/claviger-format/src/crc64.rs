//! CRC64NVME: running, and combined from the CRCs of two neighbours.

use crc_fast::{CrcAlgorithm, Digest};

const ALGORITHM: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;

/// A running CRC64NVME.
pub struct Crc64(Digest);

impl Crc64 {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(Digest::new(ALGORITHM))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The CRC of everything so far.
    pub fn value(&self) -> u64 {
        self.0.finalize()
    }
}

impl Default for Crc64 {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // A checksum of plaintext is as confidential as the plaintext.
        f.write_str("Crc64(..)")
    }
}

/// CRC64NVME of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(ALGORITHM, bytes)
}

/// CRC of `a ‖ b` from the CRCs of both and the length of `b` in bytes.
pub fn combine(crc_a: u64, crc_b: u64, len_b: u64) -> u64 {
    if len_b == 0 { crc_a } else { crc_fast::checksum_combine(ALGORITHM, crc_a, crc_b, len_b) }
}
