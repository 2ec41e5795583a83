//! Any text parses to what it encodes, or not at all; no token that nobody issued verifies.
#![no_main]

use claviger_format::UploadToken;
use claviger_fuzz::{base64url, dek, name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let texts = [std::str::from_utf8(data).unwrap_or_default().to_owned(), base64url(data)];
    for text in texts {
        if let Ok(token) = UploadToken::parse(&text) {
            assert_eq!(token.to_text(), text);
            assert!(token.verify(&dek().upload_key(), &name()).is_err(), "a forged token");
            let again = UploadToken::issue(&dek().upload_key(), token.fields().clone(), &name());
            assert!(again.expect("what parses can be issued").verify(&dek().upload_key(), &name()).is_ok());
        }
    }
});
