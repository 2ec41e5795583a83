//! Any text parses to what it encodes, or not at all; nothing that nobody sealed opens.
#![no_main]

use claviger_format::Envelope;
use claviger_fuzz::{base64url, dek, name};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let texts = [std::str::from_utf8(data).unwrap_or_default().to_owned(), base64url(data)];
    for text in texts {
        if let Ok(envelope) = Envelope::parse(&text) {
            assert_eq!(envelope.to_text(), text);
            assert!(envelope.open(&dek(), &name()).is_err(), "a forged envelope");
        }
    }
});
