//! Cosignatures (C2SP tlog-cosignature, Ed25519): a witness says that this is the newest checkpoint of a log that he saw.

use crate::checkpoint::SignedCheckpoint;
use crate::note::{KeyKind, Note, NoteError, SigningKey, VerifierKey};

/// Adds a witness's signature to a checkpoint that he verified and found consistent with the last one that he signed.
///
/// # Errors
/// [`NoteError::Key`] if the key is not a witness's, or the time, in seconds since 1970, is beyond 2^63 - 1.
pub fn cosign(checkpoint: &SignedCheckpoint, key: &SigningKey, time_s: u64) -> Result<Note, NoteError> {
    if key.verifier().kind() != KeyKind::Witness || i64::try_from(time_s).is_err() {
        return Err(NoteError::Key);
    }
    let mut note = checkpoint.note().clone();
    let signature = key.sign_bytes(&message(note.text(), time_s));
    note.add(key.verifier(), [&time_s.to_be_bytes()[..], &signature].concat());
    Ok(note)
}

/// When a witness signed a note, in seconds since 1970; if several times, the last time. That the log signed it too has to be
/// verified apart.
///
/// # Errors
/// [`NoteError::Unsigned`]; [`NoteError::Forged`] if one in his name is not his; [`NoteError::Key`] if the key is not a
/// witness's.
pub fn verify(note: &Note, key: &VerifierKey) -> Result<u64, NoteError> {
    if key.kind() != KeyKind::Witness {
        return Err(NoteError::Key);
    }
    let mut last = None;
    for signature in note.of(key) {
        let (time_s, signature) = signature.split_first_chunk::<8>().ok_or(NoteError::Forged)?;
        let time_s = u64::from_be_bytes(*time_s);
        if i64::try_from(time_s).is_err() {
            return Err(NoteError::Forged);
        }
        key.check(&message(note.text(), time_s), signature)?;
        last = last.max(Some(time_s));
    }
    last.ok_or(NoteError::Unsigned)
}

fn message(text: &str, time_s: u64) -> Vec<u8> {
    format!("cosignature/v1\ntime {time_s}\n{text}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_key() -> SigningKey {
        SigningKey::from_seed("log.example/1", KeyKind::Log, &[1; 32]).unwrap()
    }

    fn witness() -> SigningKey {
        SigningKey::from_seed("witness.example/w1", KeyKind::Witness, &[2; 32]).unwrap()
    }

    fn cosigned() -> Note {
        let checkpoint = SignedCheckpoint::sign(3, crate::empty_root(), &log_key()).unwrap();
        cosign(&checkpoint, &witness(), 1_679_315_147).unwrap()
    }

    #[test]
    fn a_cosignature_tells_its_time_and_leaves_the_log_s_signature_good() {
        let note = Note::parse(cosigned().to_string().as_bytes()).unwrap();
        assert_eq!(verify(&note, witness().verifier()), Ok(1_679_315_147));
        assert!(SignedCheckpoint::of_note(note.clone(), log_key().verifier()).is_ok());
        let stranger = SigningKey::from_seed("witness.example/w1", KeyKind::Witness, &[3; 32]).unwrap();
        assert_eq!(verify(&note, stranger.verifier()), Err(NoteError::Unsigned));
    }

    #[test]
    fn the_signed_bytes_are_those_of_the_specification() {
        let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
        let expected = format!("cosignature/v1\ntime 1679315147\n{text}");
        assert_eq!(message(text, 1_679_315_147), expected.as_bytes());
    }

    #[test]
    fn a_cosigned_note_with_any_bit_of_text_or_cosignature_changed_is_refused() {
        let whole = cosigned().to_string();
        let logs_line = whole.find("\u{2014} log.example").unwrap()..whole.find("\u{2014} witness").unwrap();
        for at in (0..whole.len()).filter(|at| !logs_line.contains(at)) {
            for bit in 0..8 {
                let mut bytes = whole.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let verified = Note::parse(&bytes).and_then(|note| verify(&note, witness().verifier()));
                assert!(verified.is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn keys_of_logs_and_of_witnesses_do_not_stand_for_each_other() {
        let checkpoint = SignedCheckpoint::sign(3, crate::empty_root(), &log_key()).unwrap();
        assert_eq!(cosign(&checkpoint, &log_key(), 1), Err(NoteError::Key));
        assert!(SignedCheckpoint::sign(3, crate::empty_root(), &witness()).is_err());
        assert_eq!(verify(checkpoint.note(), log_key().verifier()), Err(NoteError::Key));
        assert_eq!(checkpoint.note().verify(witness().verifier()), Err(NoteError::Key));
    }
}
