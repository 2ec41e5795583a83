//! A note, a checkpoint or a key that is read is written the same way; nothing that nobody signed is believed.
#![no_main]

use claviger_audit::note::KeyKind;
use claviger_audit::{Checkpoint, Note, SignedCheckpoint, SigningKey, VerifierKey, cosignature};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = std::str::from_utf8(data).unwrap_or_default();
    if let Ok(key) = text.parse::<VerifierKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(checkpoint) = Checkpoint::parse(text) {
        assert_eq!(checkpoint.to_text(), text);
    }
    let key = |kind| SigningKey::from_seed("log.example/1", kind, &[1; 32]).expect("a name");
    if let Ok(note) = Note::parse(data) {
        assert_eq!(note.to_string().as_bytes(), data);
        assert!(SignedCheckpoint::open(data, key(KeyKind::Log).verifier()).is_err(), "a forged checkpoint");
        assert!(
            cosignature::verify(&note, key(KeyKind::Witness).verifier()).is_err(),
            "a forged cosignature"
        );
    }
});
