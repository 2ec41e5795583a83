//! What the targets share: fixed keys, and sealed messages with any content, so that fuzzing reaches behind the tags.

use claviger_format::*;

/// Different at every call, the same in every run.
pub struct Counting(std::sync::atomic::AtomicU64);

impl Counting {
    /// Starts at zero.
    pub fn new() -> Self {
        Self(std::sync::atomic::AtomicU64::new(0))
    }
}

impl Default for Counting {
    fn default() -> Self {
        Self::new()
    }
}

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) -> std::result::Result<(), RandomError> {
        for byte in out {
            *byte = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_le_bytes()[0];
        }
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        let counter = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Hedge { boot_nonce: [0; 32], counter, time_ns: 0 }
    }
}

pub const EPOCH_ID: EpochId = EpochId::new([1; 16]);
pub const OBJECT_ID: ObjectId = ObjectId::new([2; 16]);

/// The key of the one object.
pub fn dek() -> Dek {
    Dek::from_slice(&[3; 32]).expect("32 bytes")
}

/// The name of the one object.
pub fn name() -> ObjectName {
    ObjectName::new(BucketId::new("vault").expect("a bucket id"), "a/b").expect("a key")
}

/// Header and sealed message of a unit with any content: what only a holder of the key could make.
pub fn seal_message(request: &UnitRequest<'_>, message: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let grant = UnitGrant::draw(&dek(), request, &Counting::new()).ok()?;
    let keys = grant.keys().expose();
    let header = UnitHeader { context: *grant.context(), commitment: keys[32..64].try_into().ok()? };
    let mut sealed = message.to_vec();
    let aead = RustCryptoAes256Gcm::new(keys[..32].try_into().ok()?);
    let tag = aead.seal(keys[64..].try_into().ok()?, &mut sealed);
    sealed.extend_from_slice(&tag);
    Some((header.encode().to_vec(), sealed))
}

/// Base64url without padding.
pub fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=chunk.len()].copy_from_slice(chunk);
        let word = u32::from_be_bytes(word);
        for i in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * i) & 63) as usize]));
        }
    }
    out
}
