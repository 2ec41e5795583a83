//! The complete list of key derivation labels (docs/format.md §2), and nothing that uses any other.
//!
//! `Expand` is HKDF-Expand (RFC 5869 §2.3) with HMAC-SHA-256; every `prk` is 32 uniform bytes, so there is no Extract.
//! Labels end in a zero byte and hold no other, so the set is prefix-free. Adding one is a format change.

use crate::secret::{Dek, EtagKey, KemSeed, Psk, RootSecret, UnitKeys, UploadKey, Wek};
use crate::suite::SUITE_ID;
use crate::{EpochId, Hedge, KeysetId, ObjectId, SealerId};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

const ROOT_KEM: &[u8] = b"clv1 root kem\0";
const ROOT_AUTH: &[u8] = b"clv1 root auth\0";
const PSK: &[u8] = b"clv1 psk\0";
const EPOCH: &[u8] = b"clv1 epoch\0";
const DEK: &[u8] = b"clv1 dek\0";
const UNIT: &[u8] = b"clv1 unit\0";
const UPLOAD: &[u8] = b"clv1 upload\0";
const ETAG: &[u8] = b"clv1 etag\0";
const WEK: &[u8] = b"clv1 wek\0";
const SALT: &[u8] = b"clv1 salt\0";

/// `info` of an epoch record's HPKE seal (docs/format.md §2.3).
pub(crate) const EPOCH_SEAL: &[u8] = b"clv1 epoch seal\0";
/// `info` of a keyset record's HPKE seal (docs/format.md §2.5).
pub(crate) const KEYSET_SEAL: &[u8] = b"clv1 keyset seal\0";
/// `psk_id` of both (docs/format.md §2.3).
pub(crate) const PSK_ID: &[u8] = b"clv1 psk id\0";
/// Associated data of a sealed name's component (docs/format.md §6).
pub(crate) const NAME: &[u8] = b"clv1 name\0";

fn expand(prk: &[u8; 32], info: &[&[u8]], out: &mut [u8]) {
    Hkdf::<Sha256>::from_prk(prk)
        .expect("a 32-byte key is as long as the hash")
        .expand_multi_info(info, out)
        .expect("no derivation asks for more than 76 of 8,160 bytes");
}

/// X-Wing private key of a keyset version.
pub(crate) fn kem_seed(root: &RootSecret, keyset_id: KeysetId, version: u32) -> KemSeed {
    KemSeed::build(|out| {
        expand(root.expose(), &[ROOT_KEM, keyset_id.as_bytes(), &version.to_be_bytes()], out);
    })
}

/// Pre-shared key of one sealer under a keyset version.
pub(crate) fn psk(root: &RootSecret, keyset_id: KeysetId, version: u32, sealer_id: SealerId) -> Psk {
    let mut auth = [0; 32];
    expand(root.expose(), &[ROOT_AUTH, keyset_id.as_bytes(), &version.to_be_bytes()], &mut auth);
    let psk = Psk::build(|out| expand(&auth, &[PSK, keyset_id.as_bytes(), sealer_id.as_bytes()], out));
    auth.zeroize();
    psk
}

/// Public commitment to an epoch key and its record's header.
pub(crate) fn wek_commit(wek: &Wek, epoch_header: &[u8; 64]) -> [u8; 32] {
    let mut commit = [0; 32];
    expand(wek.expose(), &[EPOCH, epoch_header], &mut commit);
    commit
}

/// Key of one object.
pub(crate) fn dek(wek: &Wek, epoch_id: EpochId, object_id: ObjectId) -> Dek {
    let info: [&[u8]; 4] = [DEK, &[SUITE_ID], epoch_id.as_bytes(), object_id.as_bytes()];
    Dek::build(|out| expand(wek.expose(), &info, out))
}

/// Key, commitment and base nonce of one unit; `extra` is the name for an envelope and empty otherwise.
pub(crate) fn unit_keys(dek: &Dek, context: &[u8; 64], extra: &[u8]) -> UnitKeys {
    UnitKeys::build(|out| expand(dek.expose(), &[UNIT, context, extra], out))
}

/// MAC key of upload tokens.
pub(crate) fn upload_key(dek: &Dek) -> UploadKey {
    UploadKey::build(|out| expand(dek.expose(), &[UPLOAD], out))
}

/// MAC key of part-ETag tokens.
pub(crate) fn etag_key(dek: &Dek) -> EtagKey {
    EtagKey::build(|out| expand(dek.expose(), &[ETAG], out))
}

/// A fresh epoch key from two seeds (docs/format.md §2.2).
pub(crate) fn wek(entropy: &[u8; 32], seed: &[u8; 32]) -> Wek {
    let mut hash = Sha256::new();
    for part in [WEK, entropy, seed] {
        hash.update(part);
    }
    Wek::build(|out| hash.finalize_into(out.into()))
}

/// A hedged salt (docs/format.md §2.9).
pub(crate) fn salt(entropy: &[u8; 32], hedge: &Hedge) -> [u8; 16] {
    let (counter, time_ns) = (hedge.counter.to_be_bytes(), hedge.time_ns.to_be_bytes());
    let hash = sha256(&[SALT, entropy, &hedge.boot_nonce, &counter, &time_ns]);
    *hash.first_chunk().expect("SHA-256 gives 32 bytes")
}

/// HMAC-SHA-256 over the concatenation of `parts`.
pub(crate) fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// SHA-256.
pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
