//! Hashes of the Merkle tree (RFC 6962 §2.1).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

/// Length of a hash, in bytes.
pub const HASH_LEN: usize = 32;

/// A node of the tree: SHA-256. Public information.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hash(pub [u8; HASH_LEN]);

impl Hash {
    /// Standard base64 with padding, 44 characters: the form in checkpoints and proofs.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// Reads that form; no other text gives the same hash.
    #[must_use]
    pub fn from_base64(text: &str) -> Option<Self> {
        Some(Self(STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The root of a tree without leaves: SHA-256 of nothing.
#[must_use]
pub fn empty_root() -> Hash {
    Hash(Sha256::digest([]).into())
}

/// The leaf of an entry: SHA-256(0x00 ‖ entry).
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Hash(Sha256::new().chain_update([0]).chain_update(entry).finalize().into())
}

/// The parent of two nodes: SHA-256(0x01 ‖ left ‖ right).
#[must_use]
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Hash(Sha256::new().chain_update([1]).chain_update(left.0).chain_update(right.0).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_tree_and_the_empty_leaf_are_those_of_rfc_6962() {
        let hex = |hash: Hash| format!("{hash:?}");
        assert_eq!(hex(empty_root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
    }

    #[test]
    fn only_the_one_base64_text_of_a_hash_is_read() {
        let text = leaf_hash(b"x").to_base64();
        assert_eq!(Hash::from_base64(&text), Some(leaf_hash(b"x")));
        // The last character before the padding carries bits that are not part of the hash.
        let odd = format!("{}{}=", &text[..42], if text.as_bytes()[42] == b'9' { '8' } else { '9' });
        for wrong in [&text[..43], &format!("{text}\n"), &odd, ""] {
            assert_ne!(Hash::from_base64(wrong), Some(leaf_hash(b"x")), "{wrong}");
        }
    }
}
