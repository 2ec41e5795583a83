//! Any bytes, cut anywhere: no panic, no more payload than declared, and no payload beyond what came in.
#![no_main]

use bytes::Bytes;
use claviger_s3::aws_chunked::{Decoder, Framing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u8, Vec<u8>)| {
    let (decoded_len, piece, body) = input;
    let mut decoder =
        Decoder::new(Framing::UnsignedTrailer, u64::from(decoded_len), Some("x-amz-checksum-crc32"));
    let mut payload_len = 0;
    for piece in body.chunks(usize::from(piece).max(1)) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match decoder.decode(&mut piece) {
                Ok(Some(payload)) => payload_len += payload.len(),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(piece.is_empty());
        assert!(payload_len <= usize::from(decoded_len) && payload_len <= body.len());
    }
    if decoder.finish().is_ok() {
        assert_eq!(payload_len, usize::from(decoded_len));
    }
});
