//! What the integration tests share: seeded randomness and finished objects to work on.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses its own part of this")]

use claviger_format::*;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub type Aead = RustCryptoAes256Gcm;

/// SHA-256 in counter mode: different at every call, the same in every run.
pub struct SeededRandom {
    seed: u64,
    calls: AtomicU64,
}

impl SeededRandom {
    pub fn new(seed: u64) -> Self {
        Self { seed, calls: AtomicU64::new(0) }
    }
}

impl Random for SeededRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        for chunk in out.chunks_mut(32) {
            let call = self.calls.fetch_add(1, Ordering::Relaxed);
            let block = Sha256::new().chain_update(self.seed.to_be_bytes()).chain_update(call.to_be_bytes());
            chunk.copy_from_slice(&block.finalize()[..chunk.len()]);
        }
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        let counter = self.calls.fetch_add(1, Ordering::Relaxed);
        Hedge { boot_nonce: [7; 32], counter, time_ns: 1_750_000_000_000_000_000 }
    }
}

/// A random source that is out of order.
pub struct BrokenRandom;

impl Random for BrokenRandom {
    fn fill(&self, _: &mut [u8]) -> Result<(), RandomError> {
        Err(RandomError)
    }

    fn hedge(&self) -> Hedge {
        Hedge { boot_nonce: [0; 32], counter: 0, time_ns: 0 }
    }
}

/// Incompressible, position-dependent plaintext.
pub fn plaintext(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(len)
        .collect()
}

pub fn name(key: &str) -> ObjectName {
    ObjectName::new(BucketId::new("vault#000102030405060708090a0b0c0d0e0f").unwrap(), key).unwrap()
}

pub fn metadata() -> Metadata {
    Metadata {
        system: vec![(SystemHeader::ContentType, b"text/plain".to_vec())],
        user: vec![("colour".to_owned(), b"blue".to_vec())],
        created_ms: Some(1_750_000_000_000),
        checksum: None,
    }
}

/// One write epoch and everything to seal and open objects under it.
pub struct World {
    pub rng: SeededRandom,
    pub wek: Wek,
    pub epoch_id: EpochId,
}

/// A stored object: what the provider holds, and what it should read as.
pub struct Stored {
    /// As a gateway keeps it: read with more than once.
    pub dek: Dek,
    pub epoch_id: EpochId,
    pub object_id: ObjectId,
    pub body: Vec<u8>,
    pub envelope: String,
    pub plaintext: Vec<u8>,
    pub name: ObjectName,
    /// Offset of every unit, of the pad, of the manifest and of the footer header, and the end.
    pub boundaries: Vec<usize>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let rng = SeededRandom::new(seed);
        let wek = Wek::generate(&rng, &[9; 32]).unwrap();
        let epoch_id = EpochId::draw(&rng).unwrap();
        Self { rng, wek, epoch_id }
    }

    pub fn object_id(&self) -> (ObjectId, Dek) {
        let object_id = ObjectId::draw(&self.rng).unwrap();
        (object_id, self.wek.dek(self.epoch_id, object_id))
    }

    pub fn seal_envelope(&self, dek: &Dek, object_id: ObjectId, name: &ObjectName, layout: Layout) -> String {
        let max = envelope::TLV_LEN_MAX_S3;
        envelope::seal(dek, self.epoch_id, object_id, name, &layout, &metadata(), max, &self.rng).unwrap()
    }

    pub fn put(&self, key: &str, plaintext: Vec<u8>) -> Stored {
        let (object_id, dek) = self.object_id();
        let length = plaintext.len() as u64;
        let mut writer =
            BodyWriter::<Aead>::begin(&dek, self.epoch_id, object_id, length, &self.rng).unwrap();
        let mut body = Vec::new();
        writer.push(&plaintext, &mut body).unwrap();
        let salt = writer.salt();
        writer.finish(1_750_000_000_000, None, &mut body).unwrap();
        let name = name(key);
        let envelope = self.seal_envelope(&dek, object_id, &name, Layout::Single { salt, length });
        let pad_at = usize::try_from(layout::h(length).unwrap()).unwrap();
        let boundaries = vec![0, 96, pad_at, body.len() - 248, body.len() - 96, body.len()];
        Stored {
            dek: dek.to_keep(),
            epoch_id: self.epoch_id,
            object_id,
            body,
            envelope,
            plaintext,
            name,
            boundaries,
        }
    }

    pub fn part(&self, dek: &Dek, object_id: ObjectId, number: u16, text: &[u8]) -> (Vec<u8>, PartState) {
        let length = text.len() as u64;
        let mut writer =
            PartWriter::<Aead>::begin(dek, self.epoch_id, object_id, number, length, &self.rng).unwrap();
        let mut unit = Vec::new();
        writer.push(text, &mut unit).unwrap();
        let state = writer.finish(&mut unit).unwrap();
        assert_eq!(unit.len() as u64, layout::h(length).unwrap());
        (unit, state)
    }

    /// A multipart object of parts (number, plaintext, bound).
    pub fn multipart(&self, key: &str, parts: &[(u16, Vec<u8>, bool)]) -> Stored {
        let (object_id, dek) = self.object_id();
        let (mut body, mut text) = (Vec::new(), Vec::new());
        let (mut entries, mut boundaries) = (Vec::new(), Vec::new());
        for (number, part, bound) in parts {
            let (unit, state) = self.part(&dek, object_id, *number, part);
            boundaries.extend([body.len(), body.len() + 96]);
            body.extend_from_slice(&unit);
            text.extend_from_slice(part);
            let unbound = Entry { salt: None, crc64: None, ..state.entry() };
            entries.push(if *bound { state.entry() } else { unbound });
        }
        let crc64 = parts.iter().all(|part| part.2).then(|| crc64::crc64(&text));
        let info = FooterInfo { created_ms: 5, crc64, checksum: None };
        let footer = footer::seal(&dek, self.epoch_id, object_id, &entries, &info, &self.rng).unwrap();
        boundaries.push(body.len());
        body.extend_from_slice(&footer);
        boundaries.extend([body.len() - 208 - 40 * entries.len(), body.len() - 96, body.len()]);
        let name = name(key);
        let envelope = self.seal_envelope(&dek, object_id, &name, Layout::Multipart);
        let epoch_id = self.epoch_id;
        Stored { dek: dek.to_keep(), epoch_id, object_id, body, envelope, plaintext: text, name, boundaries }
    }
}

impl Stored {
    pub fn open_envelope(&self) -> Result<OpenedEnvelope> {
        Envelope::parse(&self.envelope)?.open(&self.dek, &self.name)
    }

    pub fn manifest_of(&self, body: &[u8]) -> Result<Arc<Manifest>> {
        let mut suffix_len = 65_536.min(body.len());
        loop {
            let suffix = &body[body.len() - suffix_len..];
            match footer::open(&self.dek, self.epoch_id, self.object_id, suffix, body.len() as u64)? {
                FooterRead::Verified(manifest) => return Ok(Arc::new(manifest)),
                FooterRead::NeedMore { suffix_len: more } => {
                    let more = usize::try_from(more).unwrap();
                    assert!(more > suffix_len, "a request for more asks for more");
                    if more > body.len() {
                        return Err(Error::LengthMismatch { expected: more as u64, got: body.len() as u64 });
                    }
                    suffix_len = more;
                }
            }
        }
    }

    /// What a gateway does for a full GET of whatever the provider answers.
    pub fn read_body(&self, body: &[u8]) -> (Vec<u8>, Result<()>) {
        self.read_body_in(body, 100_000)
    }

    /// The same, in pieces of `piece_len` bytes.
    pub fn read_body_in(&self, body: &[u8], piece_len: usize) -> (Vec<u8>, Result<()>) {
        let mut out = Vec::new();
        let result = self.read_into(body, piece_len, &mut out);
        (out, result)
    }

    fn read_into(&self, body: &[u8], piece_len: usize, out: &mut Vec<u8>) -> Result<()> {
        let envelope = self.open_envelope()?;
        let mut reader = match envelope.layout {
            Layout::Single { .. } => ObjectReader::<Aead>::single(&self.dek, &envelope, body.len() as u64)?,
            Layout::Multipart => ObjectReader::multipart(&self.dek, &self.manifest_of(body)?)?,
        };
        for piece in body.chunks(piece_len) {
            reader.push(piece, out)?;
        }
        reader.finish()
    }

    /// Whatever the provider answered: the request fails, and what came out before is a prefix of the truth.
    #[track_caller]
    pub fn assert_rejected(&self, body: &[u8], what: &str) {
        let (out, result) = self.read_body(body);
        assert!(result.is_err(), "accepted: {what}");
        assert!(self.plaintext.starts_with(&out), "released something else: {what}");
    }

    #[track_caller]
    pub fn assert_reads(&self, body: &[u8]) {
        let (out, result) = self.read_body(body);
        assert_eq!(result, Ok(()));
        assert!(out == self.plaintext, "plaintext differs");
    }
}
