//! AWS Signature Version 4: verifying requests of clients, signing requests to the store.

mod canonical;
mod chunk;
mod key;
mod presented;
mod sign;

pub use chunk::ChunkVerifier;
pub use key::{SecretAccessKey, SigningKey};
pub use presented::{Authenticated, PayloadMode, Presented, VerifyPolicy};
pub use sign::{PayloadHash, Signer, sign};

/// SHA-256 of nothing, in hexadecimal: the payload hash of a request without a body.
pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
