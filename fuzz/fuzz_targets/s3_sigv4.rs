//! Any authorization of either version, in the header or the query: no panic, and nothing verifies that was not signed.
#![no_main]

use std::sync::Arc;

use claviger_s3::sigv4::{Presented, SecretAccessKey, VerifyPolicy};
use claviger_s3::{RequestHead, Scheme, VirtualHosts, sigv2};
use http::{HeaderMap, HeaderValue, Method, Uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<u8>, String, Vec<u8>)| {
    let (authorization, query, date) = input;
    let Ok(uri) = format!("/bkt/key?{query}").parse::<Uri>() else { return };
    let mut headers = HeaderMap::new();
    for (name, value) in [("authorization", &authorization), ("x-amz-date", &date)] {
        match HeaderValue::from_bytes(value) {
            Ok(value) if !value.is_empty() => headers.insert(name, value),
            _ => None,
        };
    }
    headers.insert("host", HeaderValue::from_static("h"));
    headers.insert("x-amz-content-sha256", HeaderValue::from_static("UNSIGNED-PAYLOAD"));
    let head = RequestHead::new(&Method::GET, &uri, &headers);
    if let Ok(presented) = Presented::parse(&head) {
        let key = Arc::new(presented.signing_key(&SecretAccessKey::new("a secret that no input knows")));
        let verified = presented.verify(&head, &key, &VerifyPolicy::default(), 1_750_000_000_000);
        assert!(verified.is_err());
    }
    if matches!(Scheme::of(&head), Ok(Scheme::SigV2))
        && let Ok(presented) = sigv2::Presented::parse(&head)
    {
        let policy = sigv2::VerifyPolicy { hosts: &VirtualHosts::default(), session_token: None };
        let secret = SecretAccessKey::new("a secret that no input knows");
        assert!(presented.verify(&head, &secret, &policy, 1_750_000_000_000).is_err());
    }
});
