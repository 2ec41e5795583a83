//! Any part ETag parses to what it encodes, or not at all; the object ETag's mark is reversible.
#![no_main]

use claviger_format::PartTag;
use claviger_format::token::object_etag;
use claviger_fuzz::{base64url, dek};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let shaped = format!("9b2cf535f27731c974343645a3985328-{}", base64url(data).replace('-', "."));
    for text in [text, &shaped] {
        if let Ok(tag) = PartTag::parse(text) {
            assert_eq!(tag.to_text(), text);
            if let Ok(Some(_)) = tag.verify(&dek().etag_key()) {
                panic!("a forged tag");
            }
        }
    }
    if !text.ends_with("-0") {
        assert_eq!(object_etag::unmark(&object_etag::mark(text)), text);
    }
});
