//! A line that is read is written the same way, and none of its bytes is without effect.
#![no_main]

use claviger_audit::Line;
use libfuzzer_sys::fuzz_target;

const FRAME: &[u8] = b"{\"index\":7,\"salt\":\"000102030405060708090a0b0c0d0e0f\",\"record\":";

fuzz_target!(|data: &[u8]| {
    for line in [data.to_vec(), [FRAME, data, b"}"].concat()] {
        if let Ok(read) = Line::parse(&line) {
            let mut written = Vec::new();
            read.write(&mut written);
            assert_eq!(written.strip_suffix(b"\n"), Some(&line[..]));
        }
    }
});
