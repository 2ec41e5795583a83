//! Any name seals and opens to itself; no name that nobody sealed opens, except for empty components.
#![no_main]

use claviger_format::{BucketId, NameKey, name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let key = NameKey::from_slice(&[6; 64]).expect("64 bytes");
    let bucket_id = BucketId::new("vault").expect("a bucket id");
    if let Ok(sealed) = name::seal_key(&key, &bucket_id, text) {
        assert_eq!(name::open_key(&key, &bucket_id, &sealed).expect("our own"), text);
    }
    if let Ok(opened) = name::open_key(&key, &bucket_id, text) {
        assert_eq!(name::seal_key(&key, &bucket_id, &opened).expect("it was one"), text);
    }
});
