//! Randomness that a seed determines.

use std::sync::atomic::{AtomicU64, Ordering};

use claviger_format::random::{Hedge, Random, RandomError};
use sha2::{Digest as _, Sha256};

/// A random source whose draws depend on the seed and on the number of draws before. SHA-256 in counter mode.
#[derive(Debug)]
pub struct SeededRandom {
    seed: u64,
    draws: AtomicU64,
    hedges: AtomicU64,
    /// Draws after which the source fails.
    fails_after: u64,
}

impl SeededRandom {
    /// The source of that seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, draws: AtomicU64::new(0), hedges: AtomicU64::new(0), fails_after: u64::MAX }
    }

    /// The source of that seed, which delivers `draws` times and fails from then on.
    pub fn failing_after(seed: u64, draws: u64) -> Self {
        Self { fails_after: draws, ..Self::new(seed) }
    }

    /// A number below `bound`, which must not be 0. Slightly uneven, which no test minds.
    pub fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        self.draw(&mut bytes);
        u64::from_be_bytes(bytes) % bound
    }

    fn draw(&self, out: &mut [u8]) -> u64 {
        let draw = self.draws.fetch_add(1, Ordering::SeqCst);
        for (block, piece) in (0_u64..).zip(out.chunks_mut(32)) {
            let mut hash = Sha256::new();
            hash.update(b"claviger testkit");
            hash.update(self.seed.to_be_bytes());
            hash.update(draw.to_be_bytes());
            hash.update(block.to_be_bytes());
            piece.copy_from_slice(&hash.finalize()[..piece.len()]);
        }
        draw
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        if self.draw(out) >= self.fails_after {
            out.fill(0);
            return Err(RandomError);
        }
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        Hedge { boot_nonce: [7; 32], counter: self.hedges.fetch_add(1, Ordering::SeqCst), time_ns: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(random: &SeededRandom) -> [[u8; 40]; 2] {
        let mut out = [[0; 40]; 2];
        for piece in &mut out {
            random.fill(piece).unwrap();
        }
        out
    }

    #[test]
    fn a_seed_repeats_and_no_two_draws_are_alike() {
        let first = draws(&SeededRandom::new(1));
        assert_eq!(first, draws(&SeededRandom::new(1)));
        assert_ne!(first, draws(&SeededRandom::new(2)));
        assert_ne!(first[0], first[1]);
    }

    #[test]
    fn a_failing_source_leaves_no_half_filled_buffer() {
        let random = SeededRandom::failing_after(1, 1);
        let mut out = [9; 16];
        random.fill(&mut out).unwrap();
        assert!(random.fill(&mut out).is_err());
        assert_eq!(out, [0; 16]);
    }
}
