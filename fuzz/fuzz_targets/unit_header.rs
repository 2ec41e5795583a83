//! Any 96 bytes parse to what they encode, or not at all.
#![no_main]

use claviger_format::UnitHeader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(header) = UnitHeader::parse(data) {
        assert_eq!(header.encode()[..], *data);
    }
});
