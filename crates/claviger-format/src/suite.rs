//! The cipher suite, and the small trait behind which bulk AES-256-GCM sits.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Tag};

/// Object suite 1: AES-256-GCM, HKDF-Expand-SHA256, 64 KiB segments (docs/format.md §9). There is no other.
pub const SUITE_ID: u8 = 1;
/// Bytes of an AEAD key.
pub const KEY_LEN: usize = 32;
/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

/// The tag did not match, or the pieces have an impossible length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct OpenError;

/// AES-256-GCM with empty associated data under one key, for body segments of at most 64 KiB.
///
/// Nonces come from the caller, which never repeats one under the same key (docs/format.md §3.1). Implementations
/// wipe the key on drop as far as their library allows. The gathering forms exist so that a backend can fuse the copy
/// out of network buffers with the cipher; their defaults copy first.
pub trait SegmentAead: Send + Sync + Sized + 'static {
    /// Sets up the key.
    fn new(key: &[u8; KEY_LEN]) -> Self;

    /// Encrypts in place and gives the tag.
    fn seal(&self, nonce: &[u8; NONCE_LEN], in_out: &mut [u8]) -> [u8; TAG_LEN];

    /// Verifies and decrypts in place. On an error the content of `in_out` is unspecified and MUST NOT be used.
    fn open(&self, nonce: &[u8; NONCE_LEN], in_out: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), OpenError>;

    /// Encrypts the concatenation of `plaintext_parts` into `out`, tag last.
    ///
    /// `out` is exactly [`TAG_LEN`] longer than all parts together.
    fn seal_gather(&self, nonce: &[u8; NONCE_LEN], plaintext_parts: &[&[u8]], out: &mut [u8]) {
        let (text, tag) = out.split_at_mut(out.len() - TAG_LEN);
        copy_parts(plaintext_parts, text, &mut []);
        tag.copy_from_slice(&self.seal(nonce, text));
    }

    /// Verifies and decrypts the concatenation of `sealed_parts` (ciphertext, then tag, cut anywhere) into `out`.
    ///
    /// `out` is exactly [`TAG_LEN`] shorter than all parts together. On an error its content is unspecified and MUST
    /// NOT be used.
    fn open_gather(
        &self,
        nonce: &[u8; NONCE_LEN],
        sealed_parts: &[&[u8]],
        out: &mut [u8],
    ) -> Result<(), OpenError> {
        let mut tag = [0; TAG_LEN];
        copy_parts(sealed_parts, out, &mut tag);
        self.open(nonce, out, &tag)
    }
}

/// Copies parts that hold `text.len()` bytes of text and then the tag, cut anywhere.
pub fn copy_parts(parts: &[&[u8]], text: &mut [u8], tag: &mut [u8]) {
    let (mut text, mut tag) = (text, tag);
    for part in parts {
        let (in_text, in_tag) = part.split_at(part.len().min(text.len()));
        let (head, rest) = text.split_at_mut(in_text.len());
        head.copy_from_slice(in_text);
        text = rest;
        let (head, rest) = tag.split_at_mut(in_tag.len());
        head.copy_from_slice(in_tag);
        tag = rest;
    }
    debug_assert!(text.is_empty() && tag.is_empty(), "callers size the output to the parts");
}

/// The backend inside this crate: RustCrypto `aes-gcm`, constant time, wiped on drop.
pub struct RustCryptoAes256Gcm(Aes256Gcm);

impl SegmentAead for RustCryptoAes256Gcm {
    fn new(key: &[u8; KEY_LEN]) -> Self {
        Self(Aes256Gcm::new(key.into()))
    }

    fn seal(&self, nonce: &[u8; NONCE_LEN], in_out: &mut [u8]) -> [u8; TAG_LEN] {
        self.0
            .encrypt_inout_detached(nonce.into(), b"", in_out.into())
            .expect("AES-GCM refuses only messages above 64 GiB; ours are at most 400 KiB")
            .into()
    }

    fn open(&self, nonce: &[u8; NONCE_LEN], in_out: &mut [u8], tag: &[u8; TAG_LEN]) -> Result<(), OpenError> {
        let tag: &Tag = tag.into();
        self.0.decrypt_inout_detached(nonce.into(), b"", in_out.into(), tag).map_err(|_| OpenError)
    }
}
