//! What browsers ask before a request, and what the store says to it. The first line is the origin, the second the method,
//! the third the names of headers, the others headers of the store's answer: no panic, and what is passed on is of the
//! named headers only and was said by the store.
#![no_main]

use claviger_s3::cors::CrossOrigin;
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;

const ASKED: [&str; 3] = ["origin", "access-control-request-method", "access-control-request-headers"];

fuzz_target!(|text: &[u8]| {
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in ASKED {
        if let Some(value) = lines.next().filter(|line| !line.is_empty())
            && let Ok(value) = HeaderValue::from_bytes(value)
        {
            headers.insert(name, value);
        }
    }
    let Ok(said) = CrossOrigin::read(&headers) else { return };
    let _ = CrossOrigin::check_preflight(said.as_ref());
    let Some(page) = said else { return };
    let mut answer = HeaderMap::new();
    for line in lines {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let name = halves.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = halves.next().and_then(|value| HeaderValue::from_bytes(value).ok());
        if let (Some(name), Some(value)) = (name, value) {
            answer.append(name, value);
        }
    }
    for (name, value) in &page.judgement(&answer) {
        assert!(name.as_str().starts_with("access-control-") || name == "vary");
        assert!(name == "vary" || answer.get_all(name).iter().any(|theirs| theirs == value));
    }
});
