//! Strings that must never appear where only ciphertext may be.

use claviger_format::random::Random as _;

use crate::SeededRandom;

/// Stands at the start of every 4 KiB of [`data`].
pub const CONTENT: &[u8] = b"CANARY-CONTENT-5e0b77a1c4";
/// A value of user metadata.
pub const META: &str = "canary-meta-91d3f0aa62";
/// A content type.
pub const CONTENT_TYPE: &str = "application/x-canary-6f1e";

/// `len` bytes that the seed determines, with the content canary at the start of every 4 KiB.
pub fn data(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    // The source does not fail: it was not told to.
    let _ = SeededRandom::new(seed).fill(&mut bytes);
    for block in bytes.chunks_mut(4096) {
        let len = CONTENT.len().min(block.len());
        block[..len].copy_from_slice(&CONTENT[..len]);
    }
    bytes
}

/// Whether one of the canaries is in `bytes`.
pub fn is_in(bytes: &[u8]) -> bool {
    [CONTENT, META.as_bytes(), CONTENT_TYPE.as_bytes()]
        .iter()
        .any(|canary| bytes.windows(canary.len()).any(|window| window == *canary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_carries_the_canary_and_noise_does_not() {
        assert!(is_in(&data(1, 5000)));
        assert!(is_in(format!("x{META}y").as_bytes()));
        assert!(!is_in(&[0; 5000]));
        assert_ne!(data(1, 100), data(2, 100));
    }
}
