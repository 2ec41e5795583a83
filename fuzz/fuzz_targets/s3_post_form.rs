//! Any body, cut anywhere: no panic, the file is a piece of the body as it stands there, and what may come before and
//! behind it is bounded. Then its policy, against any fields.
#![no_main]

use base64::Engine as _;
use bytes::Bytes;
use claviger_s3::BucketName;
use claviger_s3::post_form::{
    Boundary, FORM_HEAD_LEN_MAX, FORM_TAIL_LEN_MAX, FormStart, Policy, Presented, Started,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<u8>, String)| {
    let (piece, body, policy) = input;
    judge_policy(&policy);
    let boundary = Boundary::parse("b").expect("a boundary");
    let mut start = FormStart::new(&boundary);
    let mut pieces = body.chunks(usize::from(piece).max(1));
    let Started { form, mut file, rest, head_len } = loop {
        let Some(piece) = pieces.next() else { return };
        match start.read(piece) {
            Ok(Some(started)) => break started,
            Ok(None) => {}
            Err(_) => return,
        }
    };
    assert!(head_len <= FORM_HEAD_LEN_MAX as u64);
    let _ = form.put_object(BucketName::parse("bucket").expect("a name"));
    let _ = Presented::of_form(&form, true);
    if let Some(Ok(policy)) = form.get("policy").map(Policy::parse) {
        let _ = policy.check(&form, "bucket", 0);
    }
    let (mut input, mut read) = (rest, Vec::new());
    loop {
        loop {
            match file.decode(&mut input) {
                Ok(Some(piece)) => read.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(input.is_empty());
        match pieces.next() {
            Some(piece) => input = Bytes::copy_from_slice(piece),
            None => break,
        }
    }
    let from = usize::try_from(head_len).expect("small");
    assert_eq!(body[from..from + read.len()], read[..]);
    if file.finish().is_ok() {
        assert!(body[from + read.len()..].starts_with(b"\r\n--b"));
        assert!(body.len() - from - read.len() <= FORM_TAIL_LEN_MAX);
    }
});

/// A document in any words: no panic, and none that is read without an end.
fn judge_policy(text: &str) {
    let encoded = base64::engine::general_purpose::STANDARD.encode(text);
    if let Ok(policy) = Policy::parse(&encoded) {
        assert!(text.contains("expiration") || text.contains('\\'));
        assert!(policy.check(&Default::default(), "bucket", u64::MAX).is_err());
    }
}
