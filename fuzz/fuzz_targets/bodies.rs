//! However the plaintext is cut on the way in and the ciphertext on the way out, the body comes back; with one bit
//! flipped it does not, and what came out before is a prefix.
#![no_main]

use claviger_format::{BodyWriter, Layout, Metadata, ObjectReader, OpenedEnvelope, RustCryptoAes256Gcm};
use claviger_fuzz::{Counting, EPOCH_ID, OBJECT_ID, dek};
use libfuzzer_sys::fuzz_target;

type Aead = RustCryptoAes256Gcm;

fuzz_target!(|input: (u32, Vec<u16>, Vec<u32>, Option<u32>)| {
    let (len, pieces, cuts, flip) = input;
    let plaintext: Vec<u8> = (0..len % 400_000).map(|i| (i * 7 >> 3).to_le_bytes()[0]).collect();
    let length = plaintext.len() as u64;
    let mut writer =
        BodyWriter::<Aead>::begin(&dek(), EPOCH_ID, OBJECT_ID, length, &Counting::new()).expect("a body");
    let mut body = Vec::new();
    let mut rest = &plaintext[..];
    for piece in pieces {
        let (head, tail) = rest.split_at(rest.len().min(piece.into()));
        let emits = body.len() as u64 + writer.emits(head.len() as u64);
        writer.push(head, &mut body).expect("within the length");
        assert_eq!(body.len() as u64, emits);
        rest = tail;
    }
    writer.push(rest, &mut body).expect("within the length");
    let (salt, sealed_len) = (writer.salt(), writer.sealed_len());
    writer.finish(0, None, &mut body).expect("a whole body");
    assert_eq!(body.len() as u64, sealed_len);
    if let Some(bit) = flip {
        let bit = bit as usize % (body.len() * 8);
        body[bit / 8] ^= 1 << (bit % 8);
    }
    let layout = Layout::Single { salt, length };
    let envelope =
        OpenedEnvelope { epoch_id: EPOCH_ID, object_id: OBJECT_ID, layout, metadata: Metadata::default() };
    let mut reader = ObjectReader::<Aead>::single(&dek(), &envelope, sealed_len).expect("the size fits");
    let mut out = Vec::new();
    let mut rest = &body[..];
    let mut result = Ok(());
    for cut in cuts.into_iter().chain([u32::MAX]) {
        let (head, tail) = rest.split_at(rest.len().min(cut as usize));
        result = result.and_then(|()| reader.push(head, &mut out));
        rest = tail;
    }
    let result = result.and_then(|()| reader.finish());
    assert_eq!(result.is_ok(), flip.is_none());
    assert!(if flip.is_some() { plaintext.starts_with(&out) } else { plaintext == out });
});
