//! Bytes that nobody sealed never make a manifest.
#![no_main]

use claviger_format::{FooterRead, footer};
use claviger_fuzz::{EPOCH_ID, OBJECT_ID, dek};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (size, suffix) = input;
    match footer::open(&dek(), EPOCH_ID, OBJECT_ID, suffix, size) {
        Ok(FooterRead::Verified(_)) => panic!("a forged footer"),
        Ok(FooterRead::NeedMore { suffix_len }) => {
            assert!(suffix_len > suffix.len() as u64 && suffix_len <= 400_208)
        }
        Err(_) => {}
    }
});
