//! The bulk cipher: AES-256-GCM of aws-lc, behind the format crate's trait.
//!
//! Sealing and opening go straight from the network's buffers into the output where a segment arrives in one
//! piece; a segment that arrives in several is gathered into the output first and worked on in place, which is one
//! copy and no allocation.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use claviger_format::suite::{NONCE_LEN, OpenError, SegmentAead, TAG_LEN};

/// One AES-256-GCM key, expanded once for a whole unit.
pub struct AwsLcAead(LessSafeKey);

impl std::fmt::Debug for AwsLcAead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsLcAead")
    }
}

impl SegmentAead for AwsLcAead {
    fn new(key: &[u8; 32]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes every key of 32 bytes");
        Self(LessSafeKey::new(key))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(*nonce), Aad::empty(), in_out)
            .expect("GCM seals every message shorter than 64 GiB");
        tag.as_ref().try_into().expect("a GCM tag has 16 bytes")
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], in_out: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), OpenError> {
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.0.open_in_place_separate_tag(nonce, Aad::empty(), tag, in_out).is_ok();
        cleared_unless(opened, in_out)
    }

    fn seal_gather(&self, nonce: &[u8; NONCE_LEN], parts: &[&[u8]], out: &mut [u8]) {
        let (text, tag) = out.split_at_mut(out.len() - TAG_LEN);
        if let [part] = parts {
            let nonce = Nonce::assume_unique_for_key(*nonce);
            self.0
                .seal_out_of_place_scatter(nonce, Aad::empty(), part, text, &[], tag)
                .expect("the output is as long as the input and the tag");
        } else {
            gather(parts, text);
            tag.copy_from_slice(&self.seal(nonce, text));
        }
    }

    fn open_gather(&self, nonce: &[u8; NONCE_LEN], parts: &[&[u8]], out: &mut [u8]) -> Result<(), OpenError> {
        if let [part] = parts {
            let (text, tag) = part.split_at(out.len());
            let nonce = Nonce::assume_unique_for_key(*nonce);
            let opened = self.0.open_separate_gather(nonce, Aad::empty(), text, tag, out).is_ok();
            return cleared_unless(opened, out);
        }
        let mut tag = [0; TAG_LEN];
        gather_split(parts, out, &mut tag);
        self.open(nonce, out, &tag)
    }
}

/// aws-lc leaves unspecified bytes behind when a tag is wrong; none of them may be taken for plaintext.
fn cleared_unless(opened: bool, out: &mut [u8]) -> Result<(), OpenError> {
    if opened {
        return Ok(());
    }
    out.fill(0);
    Err(OpenError)
}

fn gather(parts: &[&[u8]], out: &mut [u8]) {
    let mut rest = out;
    for part in parts {
        let (head, tail) = rest.split_at_mut(part.len());
        head.copy_from_slice(part);
        rest = tail;
    }
    assert!(rest.is_empty(), "the parts fill the output");
}

/// Gathers into two outputs, the second beginning where the first is full.
fn gather_split(parts: &[&[u8]], first: &mut [u8], second: &mut [u8]) {
    let (mut first, mut second) = (first, second);
    for part in parts {
        let (head, tail) = part.split_at(part.len().min(first.len()));
        let (to, rest) = first.split_at_mut(head.len());
        to.copy_from_slice(head);
        first = rest;
        let (to, rest) = second.split_at_mut(tail.len());
        to.copy_from_slice(tail);
        second = rest;
    }
    assert!(first.is_empty() && second.is_empty(), "the parts fill both outputs");
}

#[cfg(test)]
mod tests {
    use claviger_format::suite::RustCryptoAes256Gcm;

    use super::*;

    const KEY: [u8; 32] = [7; 32];
    const NONCE: [u8; 12] = [9; 12];

    fn message(len: usize) -> Vec<u8> {
        (0..=250_u8).cycle().take(len).collect()
    }

    /// The message sealed by the other backend.
    fn sealed(len: usize) -> Vec<u8> {
        let mut text = message(len);
        let tag = RustCryptoAes256Gcm::new(&KEY).seal(&NONCE, &mut text);
        text.extend_from_slice(&tag);
        text
    }

    fn cuts(bytes: &[u8], at: &[usize]) -> Vec<Vec<u8>> {
        let mut from = 0;
        let mut pieces = Vec::new();
        for &to in at {
            pieces.push(bytes[from..to].to_vec());
            from = to;
        }
        pieces.push(bytes[from..].to_vec());
        pieces
    }

    fn slices(pieces: &[Vec<u8>]) -> Vec<&[u8]> {
        pieces.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn every_known_answer_of_the_format_comes_out() {
        claviger_format::conformance::run::<AwsLcAead>();
    }

    #[test]
    fn both_backends_seal_the_same_bytes_however_the_input_is_cut() {
        let aead = AwsLcAead::new(&KEY);
        for len in [0, 1, 15, 16, 17, 4096, 65_535, 65_536] {
            for at in [vec![], vec![0], vec![len / 2], vec![len / 3, len / 2, len]] {
                let pieces = cuts(&message(len), &at);
                let mut out = vec![0xAA; len + TAG_LEN];
                aead.seal_gather(&NONCE, &slices(&pieces), &mut out);
                assert_eq!(out, sealed(len), "length {len}, cut at {at:?}");
            }
            let mut in_place = message(len);
            let tag = aead.seal(&NONCE, &mut in_place);
            in_place.extend_from_slice(&tag);
            assert_eq!(in_place, sealed(len));
        }
    }

    #[test]
    fn what_the_other_backend_sealed_opens_however_it_is_cut() {
        let aead = AwsLcAead::new(&KEY);
        for len in [0, 1, 4096, 65_536] {
            let whole = sealed(len);
            for at in [vec![], vec![len], vec![len / 2, len + 3], vec![0, len + 15], vec![1.min(len)]] {
                let mut out = vec![0; len];
                aead.open_gather(&NONCE, &slices(&cuts(&whole, &at)), &mut out).unwrap();
                assert_eq!(out, message(len), "length {len}, cut at {at:?}");
            }
            let (text, tag) = whole.split_at(len);
            let mut in_place = text.to_vec();
            aead.open(&NONCE, &mut in_place, tag.try_into().unwrap()).unwrap();
            assert_eq!(in_place, message(len));
        }
    }

    #[test]
    fn a_flipped_bit_is_rejected_and_leaves_no_plaintext_behind() {
        let aead = AwsLcAead::new(&KEY);
        for position in [0, 50, 99, 100, 115] {
            for at in [vec![], vec![40]] {
                let mut whole = sealed(100);
                whole[position] ^= 1;
                let mut out = vec![0xEE; 100];
                assert!(aead.open_gather(&NONCE, &slices(&cuts(&whole, &at)), &mut out).is_err());
                assert_eq!(out, [0; 100], "position {position}, cut at {at:?}");
            }
        }
    }
}
