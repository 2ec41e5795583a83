//! A proof file that is read is written the same way and proves nothing that nobody signed; no hashes prove two entries.
#![no_main]

use claviger_audit::note::KeyKind;
use claviger_audit::proof::{verify_consistency, verify_inclusion};
use claviger_audit::{Hash, LogProof, SigningKey};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(proof) = LogProof::parse(data) {
        assert_eq!(proof.to_string().as_bytes(), data);
        let key = SigningKey::from_seed("log.example/1", KeyKind::Log, &[1; 32]).expect("a name");
        assert!(proof.verify(&[0; 32], key.verifier()).is_err(), "a forged proof");
    }
    if let Some((numbers, rest)) = data.split_first_chunk::<16>() {
        let (first, second) = numbers.split_at(8);
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("8 bytes"));
        let hashes: Vec<Hash> = rest.as_chunks::<32>().0.iter().map(|hash| Hash(*hash)).collect();
        let (index, size) = (number(first), number(second));
        let root = claviger_audit::empty_root();
        assert!(verify_inclusion(&Hash([1; 32]), index, size, &root, &hashes).is_err());
        if index > 0 {
            assert!(verify_consistency(index, &root, size, &Hash([2; 32]), &hashes).is_err());
        }
    }
});
