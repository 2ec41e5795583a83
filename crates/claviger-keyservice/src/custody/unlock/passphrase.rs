//! A generated passphrase of 256 bits, in a file that only the service may read or that an operator brings.

use claviger_format::Random;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{MASTER, secret};
use crate::ServiceError;
use crate::custody::{open, seal};

const PREFIX: &str = "clv-passphrase-1.";
const SALT_LEN: usize = 16;

/// A fresh passphrase: `clv-passphrase-1.` and 64 hex digits. It is a key in writing, so no stretching is needed; others
/// are not taken.
pub(crate) fn generate(random: &dyn Random) -> Result<Zeroizing<String>, ServiceError> {
    let mut entropy = Zeroizing::new([0u8; 32]);
    random.fill(&mut entropy[..])?;
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 65));
    text.push_str(PREFIX);
    for byte in entropy.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    Ok(text)
}

/// Wraps the master: `salt(16) ‖ nonce(12) ‖ ct`.
pub(crate) fn wrap(
    master: &[u8; 32],
    passphrase: &str,
    random: &dyn Random,
) -> Result<Vec<u8>, ServiceError> {
    let mut salt = [0u8; SALT_LEN];
    random.fill(&mut salt)?;
    let key = wrapping_key(passphrase, &salt).ok_or(ServiceError::WrongPassphrase)?;
    Ok([&salt[..], &seal(&key, MASTER, master, random)?].concat())
}

/// Unwraps the master.
///
/// # Errors
/// [`ServiceError::WrongPassphrase`], whatever the reason.
pub(crate) fn unwrap(wrapped: &[u8], passphrase: &str) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
    let open = || {
        let (salt, sealed) = wrapped.split_first_chunk::<SALT_LEN>()?;
        secret(&open(&*wrapping_key(passphrase, salt)?, MASTER, sealed)?)
    };
    open().ok_or(ServiceError::WrongPassphrase)
}

fn wrapping_key(passphrase: &str, salt: &[u8; SALT_LEN]) -> Option<Zeroizing<[u8; 32]>> {
    let digits = passphrase.trim().strip_prefix(PREFIX)?;
    if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut key = Zeroizing::new([0u8; 32]);
    Hkdf::<Sha256>::new(Some(salt), digits.as_bytes())
        .expand(b"claviger service passphrase", &mut key[..])
        .ok()?;
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn only_the_passphrase_that_wrapped_it_opens_the_master() {
        let (first, second) = (generate(&*random()).unwrap(), generate(&*random()).unwrap());
        assert_ne!(*first, *second);
        let wrapped = wrap(&[9; 32], &first, &*random()).unwrap();
        assert_eq!(*unwrap(&wrapped, &format!("{}\n", *first)).unwrap(), [9; 32]);
        assert!(matches!(unwrap(&wrapped, &second), Err(ServiceError::WrongPassphrase)));
    }

    #[test]
    fn every_altered_byte_of_the_wrapped_master_is_noticed() {
        let passphrase = generate(&*random()).unwrap();
        let wrapped = wrap(&[9; 32], &passphrase, &*random()).unwrap();
        for at in 0..wrapped.len() {
            let mut altered = wrapped.clone();
            altered[at] ^= 1;
            assert!(unwrap(&altered, &passphrase).is_err(), "byte {at}");
        }
        assert!(unwrap(&wrapped[..20], &passphrase).is_err());
    }

    #[test]
    fn a_passphrase_of_ones_own_is_refused() {
        assert!(matches!(wrap(&[9; 32], "correct horse", &*random()), Err(ServiceError::WrongPassphrase)));
    }
}
