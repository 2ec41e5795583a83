//! Checksums of multipart objects from those of their parts.

use crc_fast::CrcAlgorithm;

use super::value::{ChecksumAlgorithm, ChecksumValue, ObjectChecksum};
use super::verify::Hasher;

/// The CRC of two pieces in a row, from the CRC of each and the length of the second in bytes.
///
/// `None` when the two are of different algorithms or not CRCs.
pub fn combine_crc(first: &ChecksumValue, second: &ChecksumValue, second_len: u64) -> Option<ChecksumValue> {
    if first.algorithm() != second.algorithm() {
        return None;
    }
    let algorithm = crc_algorithm(first.algorithm())?;
    let crc = crc_fast::checksum_combine(algorithm, first.as_crc()?, second.as_crc()?, second_len);
    ChecksumValue::from_crc(first.algorithm(), crc)
}

/// The COMPOSITE checksum: the digest of the parts' digests, with their number.
#[derive(Debug)]
pub struct Composite {
    algorithm: ChecksumAlgorithm,
    hasher: Hasher,
    part_count: u32,
}

impl Composite {
    /// Begins with no part.
    pub fn new(algorithm: ChecksumAlgorithm) -> Self {
        Self { algorithm, hasher: Hasher::new(algorithm), part_count: 0 }
    }

    /// Adds the next part in order. `false`, and nothing is added, when the value is of another algorithm.
    #[must_use]
    pub fn add(&mut self, part: &ChecksumValue) -> bool {
        if part.algorithm() != self.algorithm {
            return false;
        }
        self.hasher.update(part.as_bytes());
        self.part_count += 1;
        true
    }

    /// The value, `…-N`.
    pub fn finish(self) -> ObjectChecksum {
        ObjectChecksum { value: self.hasher.finish(), part_count: Some(self.part_count) }
    }
}

pub(super) fn crc_algorithm(algorithm: ChecksumAlgorithm) -> Option<CrcAlgorithm> {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Some(CrcAlgorithm::Crc32IsoHdlc),
        ChecksumAlgorithm::Crc32c => Some(CrcAlgorithm::Crc32Iscsi),
        ChecksumAlgorithm::Crc64Nvme => Some(CrcAlgorithm::Crc64Nvme),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(algorithm: ChecksumAlgorithm, data: &[u8]) -> ChecksumValue {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(data);
        hasher.finish()
    }

    #[test]
    fn a_composite_is_the_digest_of_digests() {
        let algorithm = ChecksumAlgorithm::Sha256;
        let (a, b) = (digest(algorithm, b"a"), digest(algorithm, b"b"));
        let mut composite = Composite::new(algorithm);
        assert!(composite.add(&a) && composite.add(&b));
        assert!(!composite.add(&digest(ChecksumAlgorithm::Sha1, b"c")));
        let joined = [a.as_bytes(), b.as_bytes()].concat();
        let expected = ObjectChecksum { value: digest(algorithm, &joined), part_count: Some(2) };
        assert_eq!(composite.finish(), expected);
    }

    #[test]
    fn different_algorithms_and_hashes_do_not_combine() {
        let crc = digest(ChecksumAlgorithm::Crc32, b"a");
        assert_eq!(combine_crc(&crc, &digest(ChecksumAlgorithm::Crc32c, b"b"), 1), None);
        let sha = digest(ChecksumAlgorithm::Sha1, b"a");
        assert_eq!(combine_crc(&sha, &sha, 1), None);
    }

    proptest! {
        #[test]
        fn the_crc_of_the_whole_follows_from_its_pieces(
            a in proptest::collection::vec(any::<u8>(), 0..300),
            b in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            for algorithm in ChecksumAlgorithm::ALL.iter().copied().filter(|a| a.is_crc()) {
                let whole = digest(algorithm, &[a.as_slice(), &b].concat());
                let combined =
                    combine_crc(&digest(algorithm, &a), &digest(algorithm, &b), u64::try_from(b.len()).unwrap());
                prop_assert_eq!(combined, Some(whole));
            }
        }
    }
}
