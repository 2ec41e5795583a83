//! Documents of clients: no panic; what is accepted is within its limits and survives being written again.
#![no_main]

use claviger_s3::xml::{
    DELETE_KEYS_MAX, PARTS_MAX, parse_complete, parse_create_bucket, parse_delete, write_complete,
    write_delete,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(parts) = parse_complete(body) {
        assert!(!parts.is_empty() && parts.len() <= PARTS_MAX);
        assert!(parts.windows(2).all(|pair| pair[0].part_number < pair[1].part_number));
        assert_eq!(parse_complete(&write_complete(&parts)).as_ref(), Ok(&parts));
    }
    if let Ok(request) = parse_delete(body) {
        assert!(!request.objects.is_empty() && request.objects.len() <= DELETE_KEYS_MAX);
        assert_eq!(parse_delete(&write_delete(&request)).as_ref(), Ok(&request));
    }
    let _ = parse_create_bucket(body);
});
