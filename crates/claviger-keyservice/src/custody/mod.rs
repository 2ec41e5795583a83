//! Who holds what: one master secret per service wraps everything at rest; each keyset version has a root of its own,
//! wrapped by the master for daily use and split into recovery shares for the worst day (docs/decisions/004).
//!
//! ```text
//! unlock method: passphrase, quorum or HSM ──AES-256-GCM or RSA-OAEP──▶ master (32 B, `unlock`)
//! master ─┬─ "claviger service wrap"  ─▶ seals: CA key, RS_v, NK
//!         ├─ "claviger service rows"  ─▶ MACs:  every row that authorises
//!         └─ "claviger service ledger" ─▶ digest of all of them together (`ledger`), seals on lines of the log
//! ```
//! These labels and this encoding belong to the service's database, not to the at-rest format of objects.

pub(crate) mod backup_wrap;
pub mod paper;
pub mod shamir;
pub mod unlock;
pub mod words;

mod share;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use claviger_format::Random;
use hkdf::Hkdf;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::ServiceError;

const NONCE_LEN: usize = 12;

/// The master and its three subkeys. The master itself is kept to be wrapped anew when the unlock method changes; it opens no more
/// than they do.
pub(crate) struct Master {
    secret: Zeroizing<[u8; 32]>,
    wrap: Zeroizing<[u8; 32]>,
    rows: Zeroizing<[u8; 32]>,
    ledger: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Master {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Master(redacted)")
    }
}

impl Master {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self {
            secret: Zeroizing::new(*secret),
            wrap: expand(secret, b"claviger service wrap"),
            rows: expand(secret, b"claviger service rows"),
            ledger: expand(secret, b"claviger service ledger"),
        }
    }

    /// The master itself, to be wrapped.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// Seals a small secret under a name; it opens under no other.
    pub(crate) fn seal(
        &self,
        name: &str,
        plain: &[u8],
        random: &dyn Random,
    ) -> Result<Vec<u8>, ServiceError> {
        seal(&self.wrap, name, plain, random)
    }

    pub(crate) fn open(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        open(&self.wrap, name, sealed)
    }

    /// The MAC of a database row: kind, id and body are bound together.
    pub(crate) fn row_mac(&self, kind: &str, id: &str, body: &[u8]) -> [u8; 32] {
        hmac(&self.rows, &[kind.as_bytes(), id.as_bytes(), body]).finalize().into_bytes().into()
    }

    pub(crate) fn row_is_ours(&self, kind: &str, id: &str, body: &[u8], mac: &[u8]) -> bool {
        hmac(&self.rows, &[kind.as_bytes(), id.as_bytes(), body]).verify_slice(mac).is_ok()
    }

    /// What a row adds to the ledger's sum.
    pub(crate) fn ledger_term(&self, kind: &str, id: &str, mac: &[u8]) -> [u8; 32] {
        let fields = [b"row".as_slice(), kind.as_bytes(), id.as_bytes(), mac];
        hmac(&self.ledger, &fields).finalize().into_bytes().into()
    }

    /// The secret that the lines of one log are sealed with.
    pub(crate) fn lines_secret(&self, log_id: &[u8; 16]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(hmac(&self.ledger, &[b"lines", log_id]).finalize().into_bytes().into())
    }

    /// What stands for a sum where others can read it.
    pub(crate) fn ledger_state(&self, seq: u64, sum: &[u8]) -> [u8; 32] {
        let fields = [b"state".as_slice(), &seq.to_be_bytes(), sum];
        hmac(&self.ledger, &fields).finalize().into_bytes().into()
    }
}

fn hmac(key: &[u8; 32], fields: &[&[u8]]) -> Hmac<Sha256> {
    let mut hmac =
        <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&key[..]).expect("HMAC takes a key of any length");
    for field in fields {
        hmac.update(&(field.len() as u64).to_be_bytes());
        hmac.update(field);
    }
    hmac
}

fn expand(secret: &[u8; 32], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0u8; 32]);
    Hkdf::<Sha256>::from_prk(secret)
        .and_then(|hkdf| hkdf.expand(info, &mut out[..]).map_err(|_| hkdf::InvalidPrkLength))
        .expect("32 bytes are a valid key and a valid output length");
    out
}

/// `nonce(12) ‖ AES-256-GCM(plain)`, with the name as associated data. A random nonce serves: one key seals a handful of
/// values in its life, far from 2^32.
fn seal(key: &[u8; 32], name: &str, plain: &[u8], random: &dyn Random) -> Result<Vec<u8>, ServiceError> {
    let mut nonce = [0u8; NONCE_LEN];
    random.fill(&mut nonce)?;
    let sealed = Aes256Gcm::new(key.into())
        .encrypt(&Nonce::from(nonce), Payload { msg: plain, aad: name.as_bytes() })
        .expect("a few hundred bytes are within AES-GCM's limit");
    Ok([&nonce[..], &sealed].concat())
}

fn open(key: &[u8; 32], name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    Aes256Gcm::new(key.into())
        .decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: name.as_bytes() })
        .ok()
        .map(Zeroizing::new)
}
