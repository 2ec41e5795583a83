//! Checkpoints (C2SP tlog-checkpoint): what a log signs, its size and root.

use crate::hash::Hash;
use crate::line::decimal;
use crate::note::{Note, NoteError, SigningKey, VerifierKey};

/// The head of a log's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log's name.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

/// Why a checkpoint is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The text is not origin, size and root.
    #[error("not a checkpoint: origin, size and root, one a line")]
    Form,
    /// It is of another log than the key.
    #[error("a checkpoint of another log")]
    Origin,
}

impl Checkpoint {
    /// The text that is signed: three lines.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root.to_base64())
    }

    /// Reads such a text. Lines that other logs add after the third are refused: ours adds none, and nobody could check
    /// them.
    ///
    /// # Errors
    /// [`CheckpointError::Form`].
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let parse = || {
            let mut lines = text.strip_suffix('\n')?.split('\n');
            let origin = lines.next().filter(|origin| !origin.is_empty())?.to_owned();
            let size = decimal(lines.next()?)?;
            let root = Hash::from_base64(lines.next()?)?;
            lines.next().is_none().then_some(Self { origin, size, root })
        };
        parse().ok_or(CheckpointError::Form)
    }
}

/// A checkpoint whose signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    checkpoint: Checkpoint,
    note: Note,
}

impl SignedCheckpoint {
    /// Signs with the log's key, whose name becomes the origin.
    ///
    /// # Errors
    /// [`CheckpointError::Note`] if the key is a witness's.
    pub fn sign(size: u64, root: Hash, key: &SigningKey) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint { origin: key.verifier().name().to_owned(), size, root };
        let note = Note::sign(checkpoint.to_text(), key)?;
        Ok(Self { checkpoint, note })
    }

    /// Reads and verifies.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(bytes: &[u8], key: &VerifierKey) -> Result<Self, CheckpointError> {
        Self::of_note(Note::parse(bytes)?, key)
    }

    /// Verifies a note.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn of_note(note: Note, key: &VerifierKey) -> Result<Self, CheckpointError> {
        note.verify(key)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        if checkpoint.origin == key.name() {
            Ok(Self { checkpoint, note })
        } else {
            Err(CheckpointError::Origin)
        }
    }

    /// What was signed.
    #[must_use]
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The note around it, with all its signatures.
    #[must_use]
    pub fn note(&self) -> &Note {
        &self.note
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::note::KeyKind;

    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let checkpoint = Checkpoint::parse(TEXT).unwrap();
        assert_eq!(
            (checkpoint.origin.as_str(), checkpoint.size),
            ("example.com/behind-the-sofa", 20_852_163)
        );
        assert_eq!(checkpoint.to_text(), TEXT);
    }

    #[test]
    fn other_texts_are_refused() {
        for wrong in [
            TEXT.replace("20852163", "020852163"),
            TEXT.replace("20852163", "+20852163"),
            TEXT.replace("20852163", "18446744073709551616"),
            TEXT.replace("20852163", ""),
            TEXT.replace("2I=", "2J="),
            TEXT.replace("2I=", ""),
            TEXT.replace("example.com/behind-the-sofa", ""),
            format!("{TEXT}extension\n"),
            format!("{TEXT}\n"),
            TEXT.trim_end().to_owned(),
            String::new(),
        ] {
            assert_eq!(Checkpoint::parse(&wrong), Err(CheckpointError::Form), "{wrong}");
        }
    }

    #[test]
    fn a_checkpoint_is_believed_only_of_the_log_whose_key_signed_it() {
        let key = SigningKey::from_seed("log.example/1", KeyKind::Log, &[1; 32]).unwrap();
        let signed = SignedCheckpoint::sign(3, crate::empty_root(), &key).unwrap();
        let bytes = signed.note().to_string().into_bytes();
        assert_eq!(SignedCheckpoint::open(&bytes, key.verifier()), Ok(signed));
        let stranger = SigningKey::from_seed("log.example/1", KeyKind::Log, &[2; 32]).unwrap();
        assert_eq!(
            SignedCheckpoint::open(&bytes, stranger.verifier()),
            Err(CheckpointError::Note(NoteError::Unsigned))
        );
        let other_origin = Checkpoint { origin: "log.example/2".into(), size: 3, root: crate::empty_root() };
        let note = Note::sign(other_origin.to_text(), &key).unwrap();
        assert_eq!(SignedCheckpoint::of_note(note, key.verifier()), Err(CheckpointError::Origin));
    }
}
