//! The path of a tile that is read is written the same way and leads out of no folder.
#![no_main]

use claviger_audit::TilePath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = std::str::from_utf8(data).unwrap_or_default();
    if let Ok(path) = text.parse::<TilePath>() {
        assert_eq!(path.to_string(), text);
        assert!(text.starts_with("tile/") && !text.contains("..") && !text.contains("//"));
        assert!(path.end_index() > 0 && path.file_len() > 0);
    }
});
