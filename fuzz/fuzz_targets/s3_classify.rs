//! Any request head: no panic; the names of what is accepted are within their limits.
#![no_main]

use claviger_s3::name::KEY_LEN_MAX;
use claviger_s3::{RequestHead, VirtualHosts, classify};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;

const METHODS: [Method; 6] =
    [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::HEAD, Method::PATCH];

fuzz_target!(|input: (u8, String, Vec<(String, Vec<u8>)>)| {
    let (method, target, fields) = input;
    let Ok(uri) = format!("/{target}").parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.into_iter().take(50) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            headers.append(name, value);
        }
    }
    let method = &METHODS[usize::from(method) % METHODS.len()];
    let hosts = VirtualHosts::new(["s3.test"]);
    if let Ok(operation) = classify(&RequestHead::new(method, &uri, &headers), &hosts) {
        assert!(operation.bucket().is_none_or(|bucket| (3..=63).contains(&bucket.as_str().len())));
        assert!(operation.key().is_none_or(|key| (1..=KEY_LEN_MAX).contains(&key.as_str().len())));
    }
});
