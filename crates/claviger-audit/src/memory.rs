//! What somebody outside remembers of a log, and whether what it shows now continues that.

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::hash::Hash;
use crate::note::VerifierKey;
use crate::proof::verify_consistency;

/// What a log shows of itself.
#[derive(Debug, Clone)]
pub struct Shown<'a> {
    /// Name and key that it claims.
    pub key: &'a VerifierKey,
    /// The bytes of its newest checkpoint.
    pub checkpoint: &'a [u8],
    /// That this checkpoint continues the one of the size that was asked about.
    pub proof: &'a [Hash],
}

/// Why what a log shows can't be the continuation of what is remembered. Each of these means that somebody who holds the log's
/// key or the service's channel shows two histories; none comes from a connection that broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Contradiction {
    /// Another log, or the same name with another key.
    #[error("it shows the log {shown}, and {known} is the one that is known")]
    Key {
        /// The key that is remembered.
        known: String,
        /// The key that is shown.
        shown: String,
    },
    /// Its checkpoint is none, or not signed with its key.
    #[error("its newest checkpoint is not its own: {0}")]
    Unsigned(#[from] CheckpointError),
    /// Fewer records than there were.
    #[error("its log has {shown} records, and had {known}: it was cut off, or an earlier state was put back")]
    Shrunk {
        /// How many records there were.
        known: u64,
        /// How many there are said to be.
        shown: u64,
    },
    /// As many or more, but not the same ones.
    #[error(
        "its log of {shown} records does not continue the one of {known} records that was shown before: they are two histories"
    )]
    Forked {
        /// How many records there were.
        known: u64,
        /// How many there are said to be.
        shown: u64,
    },
}

/// One log as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogMemory {
    key: VerifierKey,
    newest: Option<SignedCheckpoint>,
}

impl LogMemory {
    /// A log of which nothing but its key is known.
    #[must_use]
    pub fn new(key: VerifierKey) -> Self {
        Self { key, newest: None }
    }

    /// A log as it was written down.
    ///
    /// # Errors
    /// [`CheckpointError`] if the checkpoint is not signed with the key.
    pub fn restore(key: VerifierKey, checkpoint: &[u8]) -> Result<Self, CheckpointError> {
        let newest = Some(SignedCheckpoint::open(checkpoint, &key)?);
        Ok(Self { key, newest })
    }

    /// The log's name and key.
    #[must_use]
    pub fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The newest checkpoint that was believed.
    #[must_use]
    pub fn newest(&self) -> Option<&SignedCheckpoint> {
        self.newest.as_ref()
    }

    /// Its size; 0 if there is none. What a proof is to be asked from.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.newest.as_ref().map_or(0, |newest| newest.checkpoint().size)
    }

    /// Believes what is shown if it continues what is remembered, and says whether it is newer. The proof has to be from
    /// [`Self::size`] as it is now.
    ///
    /// # Errors
    /// [`Contradiction`]; what is remembered stays.
    pub fn believe(&mut self, shown: &Shown<'_>) -> Result<bool, Contradiction> {
        if *shown.key != self.key {
            return Err(Contradiction::Key { known: self.key.to_string(), shown: shown.key.to_string() });
        }
        let newer = SignedCheckpoint::open(shown.checkpoint, &self.key)?;
        let head = newer.checkpoint();
        let Some(newest) = &self.newest else {
            self.newest = Some(newer);
            return Ok(true);
        };
        let known = newest.checkpoint();
        if head.size < known.size {
            return Err(Contradiction::Shrunk { known: known.size, shown: head.size });
        }
        verify_consistency(known.size, &known.root, head.size, &head.root, shown.proof)
            .map_err(|_| Contradiction::Forked { known: known.size, shown: head.size })?;
        let is_newer = head.size > known.size;
        self.newest = Some(newer);
        Ok(is_newer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{KeyKind, SigningKey};
    use crate::proof::prove_consistency;
    use crate::tree::root;
    use crate::tree::testing::{Leaves, entry};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed("log.example/1", KeyKind::Log, &[seed; 32]).unwrap()
    }

    /// A log's leaves; from `forked_at` on they are others.
    fn leaves(size: u64, forked_at: u64) -> Leaves {
        let leaf = |n| crate::leaf_hash(&if n < forked_at { entry(n) } else { [0xff; 32] });
        Leaves::of((0..size).map(leaf).collect())
    }

    fn checkpoint(leaves: &Leaves, size: u64, seed: u8) -> String {
        let Ok(root) = root(leaves, size);
        SignedCheckpoint::sign(size, root, &key(seed)).unwrap().note().to_string()
    }

    fn believe(memory: &mut LogMemory, leaves: &Leaves, to: u64, seed: u8) -> Result<bool, Contradiction> {
        let from = memory.size();
        let proof = if from <= to { prove_consistency(leaves, from, to) } else { Ok(Vec::new()) };
        let Ok(proof) = proof;
        let key = key(seed);
        let note = checkpoint(leaves, to, seed);
        memory.believe(&Shown { key: key.verifier(), checkpoint: note.as_bytes(), proof: &proof })
    }

    #[test]
    fn a_log_that_grows_or_stands_still_is_believed() {
        let mut memory = LogMemory::new(key(1).verifier().clone());
        let leaves = leaves(300, u64::MAX);
        for (size, is_newer) in [(2, true), (2, false), (3, true), (256, true), (300, true), (300, false)] {
            assert_eq!(believe(&mut memory, &leaves, size, 1), Ok(is_newer), "{size}");
            assert_eq!(memory.size(), size);
        }
        let text = memory.newest().unwrap().note().to_string();
        assert_eq!(LogMemory::restore(key(1).verifier().clone(), text.as_bytes()), Ok(memory));
        assert!(LogMemory::restore(key(2).verifier().clone(), text.as_bytes()).is_err());
    }

    #[test]
    fn a_fork_a_cut_and_another_key_are_contradictions_and_what_is_remembered_stays() {
        let mut memory = LogMemory::new(key(1).verifier().clone());
        let honest = leaves(300, u64::MAX);
        believe(&mut memory, &honest, 200, 1).unwrap();
        let before = memory.clone();
        let shrunk = Contradiction::Shrunk { known: 200, shown: 199 };
        assert_eq!(believe(&mut memory, &honest, 199, 1), Err(shrunk));
        for size in [200, 201, 300] {
            let forked = Contradiction::Forked { known: 200, shown: size };
            assert_eq!(believe(&mut memory, &leaves(300, 150), size, 1), Err(forked), "{size}");
        }
        assert!(matches!(believe(&mut memory, &honest, 300, 2), Err(Contradiction::Key { .. })));
        let foreign = checkpoint(&honest, 300, 2);
        let key = key(1);
        let shown = Shown { key: key.verifier(), checkpoint: foreign.as_bytes(), proof: &[] };
        assert!(matches!(memory.believe(&shown), Err(Contradiction::Unsigned(_))));
        assert_eq!(memory, before);
        // A fork after what is remembered can't be told from here.
        assert_eq!(believe(&mut memory, &leaves(300, 200), 300, 1), Ok(true));
    }

    #[test]
    fn a_proof_of_something_else_is_a_contradiction() {
        let mut memory = LogMemory::new(key(1).verifier().clone());
        let honest = leaves(300, u64::MAX);
        believe(&mut memory, &honest, 200, 1).unwrap();
        let note = checkpoint(&honest, 300, 1);
        let Ok(other) = prove_consistency(&honest, 199, 300);
        let key = key(1);
        for proof in [&other[..], &[]] {
            let shown = Shown { key: key.verifier(), checkpoint: note.as_bytes(), proof };
            assert!(matches!(memory.believe(&shown), Err(Contradiction::Forked { .. })));
        }
    }
}
