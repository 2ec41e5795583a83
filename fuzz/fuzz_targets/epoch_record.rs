//! Any bytes parse to what they encode, or not at all; nothing that nobody sealed opens.
#![no_main]

use claviger_format::{EpochRecord, Root, RootSecret};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The parts that no mutation finds: magic, and the fixed fields of one recipient.
    let mut shaped = data.to_vec();
    if shaped.len() >= 1293 {
        shaped.truncate(1293);
        shaped[..8].copy_from_slice(b"CLE\x01\x01\0\0\0");
        shaped[96] = 1;
        shaped[101..105].copy_from_slice(&[1, 1, 0, 0]);
        shaped.copy_within(32..48, 105);
        shaped[121..123].copy_from_slice(&1120_u16.to_be_bytes());
        shaped[1243..1245].copy_from_slice(&48_u16.to_be_bytes());
    }
    for bytes in [data, &shaped] {
        if let Ok(record) = EpochRecord::parse(bytes) {
            assert_eq!(record.to_bytes(), bytes);
            let (version, _) = record.recipients().next().expect("at least one");
            let secret = RootSecret::from_slice(&[4; 32]).expect("32 bytes");
            assert!(record.open(&Root::new(secret, record.header().keyset_id, version)).is_err());
        }
    }
});
