//! No (key, nonce) pair ever meets two plaintexts (docs/format.md §10.5), whatever retries, crashes and repeated
//! random sources do. The known answers, which reuse salts on purpose, run elsewhere.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use claviger_format::*;
use common::*;
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

type Hash = [u8; 32];

/// Which plaintext a (key, nonce) pair has sealed.
#[derive(Default)]
struct Ledger {
    seen: Mutex<HashMap<(Hash, [u8; 12]), Hash>>,
}

impl Ledger {
    fn global() -> &'static Self {
        static LEDGER: OnceLock<Ledger> = OnceLock::new();
        LEDGER.get_or_init(Ledger::default)
    }

    /// `false` if the pair has sealed another plaintext before.
    fn record(&self, key: Hash, nonce: [u8; 12], text: &[u8]) -> bool {
        let text: Hash = Sha256::digest(text).into();
        *self.seen.lock().unwrap().entry((key, nonce)).or_insert(text) == text
    }

    fn len(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// The RustCrypto backend behind the ledger.
struct LedgerAead {
    inner: RustCryptoAes256Gcm,
    key: Hash,
}

impl SegmentAead for LedgerAead {
    fn new(key: &[u8; 32]) -> Self {
        Self { inner: RustCryptoAes256Gcm::new(key), key: Sha256::digest(key).into() }
    }

    fn seal(&self, nonce: &[u8; 12], in_out: &mut [u8]) -> [u8; 16] {
        assert!(Ledger::global().record(self.key, *nonce, in_out), "a nonce met a second plaintext");
        self.inner.seal(nonce, in_out)
    }

    fn open(&self, nonce: &[u8; 12], in_out: &mut [u8], tag: &[u8; 16]) -> Result<(), OpenError> {
        self.inner.open(nonce, in_out, tag)
    }
}

/// Footers and envelopes are recorded from what left: their keys follow from their headers. Equal keys, nonces and
/// plaintexts give equal ciphertexts, so the ciphertext stands for the plaintext.
fn record_message(dek: &Dek, header: &[u8], extra: &[u8], sealed: &[u8]) {
    let mut keys = [0; 76];
    let info = [b"clv1 unit\0", &header[..64], extra].concat();
    Hkdf::<Sha256>::from_prk(dek.expose()).unwrap().expand(&info, &mut keys).unwrap();
    assert_eq!(keys[32..64], header[64..96], "the header commits to these keys");
    let (key, nonce) = (Sha256::digest(&keys[..32]).into(), keys[64..].try_into().unwrap());
    assert!(Ledger::global().record(key, nonce, sealed), "a nonce met a second plaintext");
}

fn record_footer(dek: &Dek, footer: &[u8]) {
    let (sealed, header) = footer.split_at(footer.len() - 96);
    let sealed_len = 112 + 40 * usize::from(u16::from_be_bytes([header[6], header[7]]));
    record_message(dek, header, b"", &sealed[sealed.len() - sealed_len..]);
}

fn record_envelope(dek: &Dek, name: &ObjectName, text: &str) {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    record_message(dek, &bytes[..96], &name.extra(), &bytes[96..]);
}

/// A virtual machine resumed twice from one snapshot: the same random bytes again and again, the same boot nonce.
struct Replaying {
    counter: AtomicU64,
    time_ns: u64,
}

impl Random for Replaying {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        out.fill(0x5a);
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        Hedge { boot_nonce: [1; 32], counter, time_ns: self.time_ns }
    }
}

/// One gateway at work: retries with other data, uploads given up halfway, Complete twice, copies.
fn gateway_at_work(rng: &dyn Random, wek: &Wek, epoch_id: EpochId, texts: u64) {
    let object_id = ObjectId::draw(rng).unwrap();
    let dek = wek.dek(epoch_id, object_id);
    for attempt in 0..3 {
        for len in [0, 5, 65_536, 150_000] {
            put(rng, &dek, epoch_id, object_id, &plaintext(len, texts + attempt), attempt == 1);
        }
        upload(rng, &dek, epoch_id, object_id, texts + attempt);
        let name = name("k");
        for layout in [Layout::Multipart, Layout::Single { salt: Salt::draw(rng).unwrap(), length: attempt }]
        {
            let max = envelope::TLV_LEN_MAX_S3;
            let sealed =
                envelope::seal(&dek, epoch_id, object_id, &name, &layout, &metadata(), max, rng).unwrap();
            record_envelope(&dek, &name, &sealed);
        }
    }
}

fn put(rng: &dyn Random, dek: &Dek, epoch_id: EpochId, object_id: ObjectId, text: &[u8], give_up: bool) {
    let mut writer =
        BodyWriter::<LedgerAead>::begin(dek, epoch_id, object_id, text.len() as u64, rng).unwrap();
    let mut out = Vec::new();
    for piece in text.chunks(10_000) {
        writer.push(piece, &mut out).unwrap();
    }
    if !give_up {
        writer.finish(1, None, &mut out).unwrap();
        record_footer(dek, &out);
    }
}

fn upload(rng: &dyn Random, dek: &Dek, epoch_id: EpochId, object_id: ObjectId, text: u64) {
    let text = plaintext(100_000, text);
    let mut out = Vec::new();
    let mut writer =
        PartWriter::<LedgerAead>::begin(dek, epoch_id, object_id, 1, text.len() as u64, rng).unwrap();
    writer.push(&text, &mut out).unwrap();
    let state = writer.finish(&mut out).unwrap();
    for created_ms in 0..2 {
        let info = FooterInfo { created_ms, crc64: Some(state.crc64), checksum: None };
        let footer = footer::seal(dek, epoch_id, object_id, &[state.entry()], &info, rng).unwrap();
        record_footer(dek, &footer);
    }
}

#[test]
fn retries_crashes_and_repeated_randomness_never_reuse_a_nonce() {
    let rng = Arc::new(SeededRandom::new(1));
    let wek = Wek::generate(&*rng, &[0; 32]).unwrap();
    let epoch_id = EpochId::draw(&*rng).unwrap();
    let before = Ledger::global().len();
    for texts in [0, 100, 200] {
        gateway_at_work(&*rng, &wek, epoch_id, texts);
    }
    // Two clones of one machine with the same epoch key, the same object ids and other data, a moment apart.
    for time_ns in [1, 2] {
        let clone = Replaying { counter: AtomicU64::new(0), time_ns };
        gateway_at_work(&clone, &wek, epoch_id, 1_000 * time_ns);
    }
    assert!(Ledger::global().len() > before + 200, "the ledger has seen the work");
}

#[test]
fn the_ledger_notices_a_nonce_that_meets_a_second_plaintext() {
    let ledger = Ledger::default();
    assert!(ledger.record([1; 32], [2; 12], b"first"));
    assert!(ledger.record([1; 32], [2; 12], b"first"), "the same message again is no reuse");
    assert!(!ledger.record([1; 32], [2; 12], b"second"));
    let aead = LedgerAead::new(&[77; 32]);
    aead.seal(&[0; 12], &mut [1, 2, 3]);
    let caught = std::panic::catch_unwind(|| aead.seal(&[0; 12], &mut [1, 2, 4]));
    assert!(caught.is_err());
}
