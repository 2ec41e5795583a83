//! Any bytes parse to what they encode, or not at all.
#![no_main]

use claviger_format::{KeysetRecord, Root, RootSecret};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // One version with a real public key, fuzz for the rest.
    let secret = || RootSecret::from_slice(&[4; 32]).expect("32 bytes");
    let root = Root::new(secret(), claviger_format::KeysetId::new([5; 16]), 1);
    let public_key = root.public_key().expect("a key");
    let head = [&b"CLK\x01\x01\0\0\0"[..], &[5; 16], &[0, 1, 0, 0, 0, 1, 1, 0, 0, 0], public_key.as_bytes()];
    let shaped = [&head.concat(), data].concat();
    for bytes in [data, &shaped] {
        if let Ok(record) = KeysetRecord::parse(bytes) {
            assert_eq!(record.to_bytes().expect("it was parsed"), bytes);
            assert!(record.open(&root).is_err(), "a forged record");
        }
    }
});
