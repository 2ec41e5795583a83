//! A proof as a file (C2SP tlog-proof): a checkpoint, an index, the hashes between them, and what is proved.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::checkpoint::{CheckpointError, SignedCheckpoint};
use crate::hash::{HASH_LEN, Hash, leaf_hash};
use crate::line::{LINE_LEN_MAX, decimal};
use crate::note::{NOTE_LEN_MAX, Note, NoteError, VerifierKey};
use crate::proof::{PROOF_LEN_MAX, ProofError, verify_inclusion};

const HEADER: &str = "c2sp.org/tlog-proof@v1\n";
/// Longest file that is read, in bytes.
pub const LOG_PROOF_LEN_MAX: usize = 2 * LINE_LEN_MAX + NOTE_LEN_MAX;

/// That an entry is in a log. Nothing in it is believed before it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogProof {
    /// Not covered by the proof itself; ours is the record's line, whose entry is.
    pub extra: Option<Vec<u8>>,
    /// The entry's index.
    pub index: u64,
    /// From the leaf's sibling up to the root's child.
    pub hashes: Vec<Hash>,
    /// The log's checkpoint.
    pub checkpoint: Note,
}

/// Why a proof is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogProofError {
    /// Not a file of this form.
    #[error("not a proof file (c2sp.org/tlog-proof@v1)")]
    Form,
    /// Its checkpoint.
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// Its hashes.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl LogProof {
    /// Reads a proof; it is not verified.
    ///
    /// # Errors
    /// [`LogProofError::Form`].
    pub fn parse(bytes: &[u8]) -> Result<Self, LogProofError> {
        if bytes.len() > LOG_PROOF_LEN_MAX {
            return Err(LogProofError::Form);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| LogProofError::Form)?;
        let proof = split(text).ok_or(LogProofError::Form)?;
        if proof.to_string() == text { Ok(proof) } else { Err(LogProofError::Form) }
    }

    /// Verifies that the entry is in the log of this key, and gives the checkpoint under which it is.
    ///
    /// # Errors
    /// [`LogProofError`].
    pub fn verify(
        &self,
        entry: &[u8; HASH_LEN],
        key: &VerifierKey,
    ) -> Result<SignedCheckpoint, LogProofError> {
        let signed = SignedCheckpoint::of_note(self.checkpoint.clone(), key)?;
        let head = signed.checkpoint();
        verify_inclusion(&leaf_hash(entry), self.index, head.size, &head.root, &self.hashes)?;
        Ok(signed)
    }
}

fn split(text: &str) -> Option<LogProof> {
    let mut rest = text.strip_prefix(HEADER)?;
    let mut extra = None;
    if let Some(after) = rest.strip_prefix("extra ") {
        let (line, after) = after.split_once('\n')?;
        extra = Some(STANDARD.decode(line).ok()?);
        rest = after;
    }
    let (index, mut rest) = rest.strip_prefix("index ")?.split_once('\n')?;
    let mut hashes = Vec::new();
    loop {
        let (line, after) = rest.split_once('\n')?;
        rest = after;
        if line.is_empty() {
            break;
        }
        hashes.push(Hash::from_base64(line)?);
        if hashes.len() > PROOF_LEN_MAX {
            return None;
        }
    }
    let checkpoint = Note::parse(rest.as_bytes()).map_err(|_: NoteError| ()).ok()?;
    Some(LogProof { extra, index: decimal(index)?, hashes, checkpoint })
}

impl fmt::Display for LogProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HEADER)?;
        if let Some(extra) = &self.extra {
            writeln!(f, "extra {}", STANDARD.encode(extra))?;
        }
        writeln!(f, "index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", hash.to_base64()))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::{KeyKind, SigningKey};
    use crate::proof::prove_inclusion;
    use crate::tree::root;
    use crate::tree::testing::{Leaves, entry};

    fn key() -> SigningKey {
        SigningKey::from_seed("log.example/1", KeyKind::Log, &[1; 32]).unwrap()
    }

    fn proof(index: u64, size: u64) -> LogProof {
        let leaves = Leaves::new(size);
        let Ok(root) = root(&leaves, size);
        let Ok(hashes) = prove_inclusion(&leaves, index, size);
        let checkpoint = SignedCheckpoint::sign(size, root, &key()).unwrap().note().clone();
        LogProof { extra: Some(b"what it is".to_vec()), index, hashes, checkpoint }
    }

    #[test]
    fn a_proof_is_read_as_it_was_written_and_proves_its_entry_alone() {
        for (index, size) in [(0, 1), (0, 2), (5, 7), (299, 300)] {
            let text = proof(index, size).to_string();
            let read = LogProof::parse(text.as_bytes()).unwrap();
            assert_eq!(read, proof(index, size));
            assert_eq!(read.verify(&entry(index), key().verifier()).unwrap().checkpoint().size, size);
            assert!(read.verify(&entry(index + 1), key().verifier()).is_err());
        }
        let without = LogProof { extra: None, ..proof(5, 7) };
        assert_eq!(LogProof::parse(without.to_string().as_bytes()), Ok(without));
    }

    #[test]
    fn a_proof_with_any_bit_changed_proves_nothing_or_only_has_other_extra_data() {
        let whole = proof(5, 7);
        let text = whole.to_string();
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                if let Ok(read) = LogProof::parse(&bytes)
                    && read.verify(&entry(5), key().verifier()).is_ok()
                {
                    assert_eq!(
                        LogProof { extra: whole.extra.clone(), ..read },
                        whole,
                        "byte {at}, bit {bit}"
                    );
                }
            }
        }
    }

    #[test]
    fn cut_proofs_and_proofs_without_end_are_refused() {
        let text = proof(5, 7).to_string();
        for len in 0..text.len() {
            assert_eq!(LogProof::parse(&text.as_bytes()[..len]), Err(LogProofError::Form), "{len}");
        }
        let hash = format!("{}\n", crate::empty_root().to_base64());
        let long = text.replacen("index 5\n", &format!("index 5\n{}", hash.repeat(PROOF_LEN_MAX)), 1);
        assert_eq!(LogProof::parse(long.as_bytes()), Err(LogProofError::Form));
    }
}
