//! Signed notes (C2SP signed-note) with Ed25519 keys: text, and under it signatures of named keys.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer as _, VerifyingKey};
use sha2::{Digest as _, Sha256};

/// Longest note that is read, in bytes.
pub const NOTE_LEN_MAX: usize = 256 << 10;
/// Most signatures that a note may have.
const SIGNATURES_MAX: usize = 64;
const KEY_ID_LEN: usize = 4;
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// What a key's signatures mean; the byte is the one of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum KeyKind {
    /// Signs the text of a note: keys of logs.
    Log = 0x01,
    /// Signs that a checkpoint was seen at a time (`cosignature/v1`): keys of witnesses.
    Witness = 0x04,
}

/// Why a note or a key is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The text is not a verifier key.
    #[error("not a verifier key of the form NAME+HASH+KEY")]
    Key,
    /// The text is not a signed note.
    #[error("not a signed note")]
    Form,
    /// None of the signatures is of this key.
    #[error("not signed by this key")]
    Unsigned,
    /// It claims to be signed by this key, and is not.
    #[error("a signature in the name of this key is forged, or the text was altered")]
    Forged,
}

/// A public key with its name: `NAME+HASH+KEY` in writing, what an auditor is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    kind: KeyKind,
    id: [u8; KEY_ID_LEN],
    key: VerifyingKey,
}

impl VerifierKey {
    /// A public key of 32 bytes (RFC 8032).
    ///
    /// # Errors
    /// [`NoteError::Key`] if the name is empty or has a space or a plus in it, or the bytes are not a key.
    pub fn new(name: &str, kind: KeyKind, public_key: &[u8; 32]) -> Result<Self, NoteError> {
        let key = VerifyingKey::from_bytes(public_key).map_err(|_| NoteError::Key)?;
        if !is_name(name) || key.is_weak() {
            return Err(NoteError::Key);
        }
        Ok(Self { name: name.to_owned(), kind, id: key_id(name, kind, public_key), key })
    }

    /// The key's name; a log's is its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its signatures mean.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    pub(crate) fn id(&self) -> [u8; KEY_ID_LEN] {
        self.id
    }

    pub(crate) fn check(&self, message: &[u8], signature: &[u8]) -> Result<(), NoteError> {
        let signature = Signature::from_slice(signature).map_err(|_| NoteError::Forged)?;
        self.key.verify_strict(message, &signature).map_err(|_| NoteError::Forged)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![self.kind as u8];
        bytes.extend_from_slice(self.key.as_bytes());
        write!(f, "{}+{:08x}+{}", self.name, u32::from_be_bytes(self.id), STANDARD.encode(bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let parse = || {
            // The name has no plus; the base64 of the key may.
            let (name, rest) = text.split_once('+')?;
            let (_, key) = rest.split_once('+')?;
            let bytes = STANDARD.decode(key).ok()?;
            let (kind, key) = bytes.split_first()?;
            let kind = [KeyKind::Log, KeyKind::Witness].into_iter().find(|known| *known as u8 == *kind)?;
            Self::new(name, kind, key.try_into().ok()?).ok()
        };
        parse().filter(|key| key.to_string() == text).ok_or(NoteError::Key)
    }
}

/// A private key with its name. Wiped when dropped; shows nothing of itself.
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    verifier: VerifierKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, redacted)", self.verifier)
    }
}

impl SigningKey {
    /// The key of a seed (RFC 8032 §5.1.5): 32 random bytes.
    ///
    /// # Errors
    /// [`NoteError::Key`] if the name can't be one.
    pub fn from_seed(name: &str, kind: KeyKind, seed: &[u8; 32]) -> Result<Self, NoteError> {
        let key = ed25519_dalek::SigningKey::from_bytes(seed);
        let verifier = VerifierKey::new(name, kind, key.verifying_key().as_bytes())?;
        Ok(Self { key, verifier })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    /// The public half's 32 bytes.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    pub(crate) fn sign_bytes(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

fn key_id(name: &str, kind: KeyKind, public_key: &[u8; 32]) -> [u8; KEY_ID_LEN] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', kind as u8]).chain_update(public_key);
    let hash: [u8; 32] = hash.finalize().into();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// A line under a note.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SignatureLine {
    name: String,
    id: [u8; KEY_ID_LEN],
    signature: Vec<u8>,
}

/// A text with at least one signature. Nothing in it is believed before it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<SignatureLine>,
}

impl Note {
    /// Signs a text, which ends in a newline and has no other control characters.
    ///
    /// # Errors
    /// [`NoteError::Form`] if the text can't be that of a note.
    pub fn sign(text: String, key: &SigningKey) -> Result<Self, NoteError> {
        if !is_text(&text) || key.verifier.kind != KeyKind::Log {
            return Err(NoteError::Form);
        }
        let signature = key.sign_bytes(text.as_bytes());
        let mut note = Self { text, signatures: Vec::new() };
        note.add(&key.verifier, signature.to_vec());
        Ok(note)
    }

    /// Reads a note; its signatures are not verified.
    ///
    /// # Errors
    /// [`NoteError::Form`].
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_LEN_MAX {
            return Err(NoteError::Form);
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Form)?;
        let split = whole.rfind("\n\n").ok_or(NoteError::Form)?;
        let (text, signatures) = (&whole[..=split], &whole[split + 2..]);
        if !is_text(text) || !signatures.ends_with('\n') {
            return Err(NoteError::Form);
        }
        let signatures: Option<Vec<_>> = signatures.lines().map(signature_line).collect();
        let signatures = signatures.filter(|lines| lines.len() <= SIGNATURES_MAX).ok_or(NoteError::Form)?;
        let note = Self { text: text.to_owned(), signatures };
        // Whatever would be written in another way is refused: `\r`, say, which ends lines for some.
        if note.to_string() == whole { Ok(note) } else { Err(NoteError::Form) }
    }

    /// The text, with its last newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a log's key signed it: it did at least once, and nothing in its name is forged.
    ///
    /// # Errors
    /// [`NoteError::Unsigned`], [`NoteError::Forged`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        if key.kind != KeyKind::Log {
            return Err(NoteError::Key);
        }
        self.of(key).try_for_each(|signature| key.check(self.text.as_bytes(), signature))?;
        self.of(key).next().map(|_| ()).ok_or(NoteError::Unsigned)
    }

    /// The signatures in the name of a key, whether good or not.
    pub(crate) fn of<'a>(&'a self, key: &'a VerifierKey) -> impl Iterator<Item = &'a [u8]> {
        self.signatures
            .iter()
            .filter(|line| line.name == key.name && line.id == key.id)
            .map(|line| &line.signature[..])
    }

    pub(crate) fn add(&mut self, key: &VerifierKey, signature: Vec<u8>) {
        self.signatures.push(SignatureLine { name: key.name.clone(), id: key.id(), signature });
    }
}

/// A note begins with its text; an empty line and the signatures follow.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|line| {
            let bytes = [&line.id[..], &line.signature].concat();
            writeln!(f, "{SIGNATURE_PREFIX}{} {}", line.name, STANDARD.encode(bytes))
        })
    }
}

fn is_text(text: &str) -> bool {
    text.ends_with('\n') && !text.bytes().any(|byte| byte < 0x20 && byte != b'\n')
}

fn signature_line(line: &str) -> Option<SignatureLine> {
    let (name, signature) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    let (id, signature) = bytes.split_first_chunk::<KEY_ID_LEN>()?;
    (is_name(name) && !signature.is_empty()).then(|| SignatureLine {
        name: name.to_owned(),
        id: *id,
        signature: signature.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of C2SP signed-note and Go's golang.org/x/mod/sumdb/note.
    const VKEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\
        \n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn key() -> SigningKey {
        SigningKey::from_seed("log.example/7", KeyKind::Log, &[7; 32]).unwrap()
    }

    #[test]
    fn the_known_note_is_verified_with_its_known_key() {
        let key: VerifierKey = VKEY.parse().unwrap();
        assert_eq!((key.name(), key.to_string().as_str()), ("PeterNeumann", VKEY));
        let note = Note::parse(NOTE.as_bytes()).unwrap();
        assert_eq!(note.verify(&key), Ok(()));
        assert_eq!(note.to_string(), NOTE);
        assert_eq!(note.verify(self::key().verifier()), Err(NoteError::Unsigned));
    }

    #[test]
    fn a_note_with_any_bit_changed_is_refused() {
        let key: VerifierKey = VKEY.parse().unwrap();
        for at in 0..NOTE.len() {
            for bit in 0..8 {
                let mut bytes = NOTE.as_bytes().to_vec();
                bytes[at] ^= 1 << bit;
                assert!(
                    Note::parse(&bytes).and_then(|note| note.verify(&key)).is_err(),
                    "byte {at}, bit {bit}"
                );
            }
        }
    }

    #[test]
    fn every_cut_note_is_refused() {
        let key: VerifierKey = VKEY.parse().unwrap();
        for len in 0..NOTE.len() {
            assert!(
                Note::parse(&NOTE.as_bytes()[..len]).and_then(|note| note.verify(&key)).is_err(),
                "{len}"
            );
        }
    }

    #[test]
    fn a_forged_signature_in_the_key_s_name_spoils_a_good_one() {
        let mut note = Note::sign("text\n".into(), &key()).unwrap();
        assert_eq!(note.verify(key().verifier()), Ok(()));
        note.add(key().verifier(), vec![0; 64]);
        assert_eq!(note.verify(key().verifier()), Err(NoteError::Forged));
    }

    #[test]
    fn signatures_of_strangers_are_passed_over() {
        let mut note = Note::sign("text\n".into(), &key()).unwrap();
        let stranger = SigningKey::from_seed("log.example/7", KeyKind::Log, &[8; 32]).unwrap();
        note.add(stranger.verifier(), vec![0; 64]);
        let note = Note::parse(note.to_string().as_bytes()).unwrap();
        assert_eq!(note.verify(key().verifier()), Ok(()));
        assert_eq!(note.verify(stranger.verifier()), Err(NoteError::Forged));
    }

    #[test]
    fn texts_may_have_empty_lines_and_nothing_else_unseen() {
        let note = Note::sign("first\n\nsecond\n".into(), &key()).unwrap();
        assert_eq!(Note::parse(note.to_string().as_bytes()).unwrap().text(), "first\n\nsecond\n");
        for wrong in ["no end", "tab\there\n", "return\r\n", ""] {
            assert_eq!(Note::sign(wrong.into(), &key()), Err(NoteError::Form), "{wrong:?}");
        }
    }

    #[test]
    fn keys_have_one_text() {
        for wrong in [
            VKEY.replace("c74f20a3", "C74F20A3"),
            VKEY.replace("c74f20a3", "c74f20a4"),
            VKEY.replace("PeterNeumann", "Peter Neumann"),
            VKEY.replace("PeterNeumann", ""),
            VKEY.replace("+ARpc", "+AxpC"),
            format!("{VKEY}="),
            // The neutral element: everything is a signature of it.
            VerifierKey::new("a", KeyKind::Log, &{
                let mut one = [0; 32];
                one[0] = 1;
                one
            })
            .map_or_else(|_| String::new(), |key| key.to_string()),
        ] {
            assert_eq!(wrong.parse::<VerifierKey>(), Err(NoteError::Key), "{wrong}");
        }
    }

    #[test]
    fn a_private_key_does_not_show_itself() {
        let shown = format!("{:?}", key());
        assert!(shown.contains("redacted") && shown.contains("log.example/7"), "{shown}");
        let seed = STANDARD.encode([7; 32]);
        assert!(!shown.contains(&seed[..12]) && !shown.contains("0707"), "{shown}");
    }
}
