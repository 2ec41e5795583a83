//! The master under a key of 256 bits that was split: any m of n shares give it, and nobody holds it alone. Each wrap draws a
//! key of its own, so that making new shares makes the old ones worthless for the database as it is from then on.

use claviger_format::Random;
use claviger_keyapi::wire::Blob;
use hkdf::Hkdf;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{MASTER, draw_master, secret};
use crate::ServiceError;
use crate::custody::paper::hex_text;
use crate::custody::shamir::{interpolate, split_secret};
use crate::custody::share::{Share, ShareOf};
use crate::custody::{open, seal};

/// The wrap and what can be told of its shares without holding any. The hashes let a share that was made up be refused when it
/// is brought, not when all are there; a share has 256 random bits, so its hash gives nothing away.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuorumWrap {
    pub(crate) set: String,
    pub(crate) threshold: u8,
    pub(crate) count: u8,
    /// SHA-256 of each share's line, by index from 1.
    share_sha256: Vec<String>,
    wrapped: Blob,
}

/// Wraps the master under a fresh key and splits that.
///
/// # Errors
/// [`ServiceError::Share`] unless 2 ≤ threshold ≤ count ≤ 32; [`ServiceError::Random`].
pub(crate) fn wrap(
    master: &[u8; 32],
    (threshold, count): (u8, u8),
    random: &dyn Random,
) -> Result<(QuorumWrap, Vec<Share>), ServiceError> {
    let key = draw_master(random)?;
    let shares = split_secret(&key, ShareOf::Unlock, fingerprint(&key), (threshold, count), random)?;
    let set = shares.first().map(|share| hex_text(&share.set)).unwrap_or_default();
    let wrapped = Blob(seal(&wrapping_key(&key), MASTER, master, random)?);
    let share_sha256 = shares.iter().map(hash).collect();
    Ok((QuorumWrap { set, threshold, count, share_sha256, wrapped }, shares))
}

impl QuorumWrap {
    /// Whether a share is one of this wrap's.
    ///
    /// # Errors
    /// [`ServiceError::Share`] with what is wrong with it.
    pub(crate) fn check(&self, share: &Share) -> Result<(), ServiceError> {
        if share.of != ShareOf::Unlock {
            return Err(ServiceError::Share(
                "this is a recovery share: it opens a keyset's root and unlocks no service; put it back into its safe",
            ));
        }
        if hex_text(&share.set) != self.set {
            return Err(ServiceError::Share(
                "this share is of another set: of another service, or made before the shares were made anew",
            ));
        }
        let known = usize::from(share.index).checked_sub(1).and_then(|at| self.share_sha256.get(at));
        let same = known.is_some_and(|known| known.as_bytes().ct_eq(hash(share).as_bytes()).into());
        if same { Ok(()) } else { Err(ServiceError::Share("this share was not made by this service")) }
    }

    /// Unwraps the master with shares that were checked.
    ///
    /// # Errors
    /// [`ServiceError::Share`] if they are too few or do not give the key.
    pub(crate) fn unwrap(&self, shares: &[Share]) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
        let key = combine(shares)?;
        let plain = open(&wrapping_key(&key), MASTER, &self.wrapped.0);
        plain
            .and_then(|plain| secret(&plain))
            .ok_or(ServiceError::Share("they give a key that does not open this service's master secret"))
    }
}

/// The key that shares give.
///
/// # Errors
/// [`ServiceError::Share`] if it is not the one whose fingerprint they carry.
pub(crate) fn combine(shares: &[Share]) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
    let first = shares.first().ok_or(ServiceError::Share("none given"))?;
    if first.of != ShareOf::Unlock {
        return Err(ServiceError::Share("these are recovery shares; they unlock no service"));
    }
    let key = secret(&interpolate(shares)?).ok_or(ServiceError::Share("they don't combine"))?;
    if fingerprint(&key) != first.fingerprint {
        return Err(ServiceError::Share("they give another key than the one they name"));
    }
    Ok(key)
}

fn wrapping_key(key: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    expand(key, b"claviger service quorum")
}

/// Stands on the shares.
fn fingerprint(key: &[u8; 32]) -> [u8; 16] {
    let mut fingerprint = [0u8; 16];
    fingerprint.copy_from_slice(&expand(key, b"claviger service quorum fingerprint")[..16]);
    fingerprint
}

fn expand(key: &[u8; 32], info: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0u8; 32]);
    Hkdf::<Sha256>::new(None, key).expand(info, &mut out[..]).expect("32 bytes are a valid output length");
    out
}

fn hash(share: &Share) -> String {
    hex_text(&Sha256::digest(share.to_line().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn any_quorum_opens_the_master_and_fewer_do_not() {
        let (wrap, shares) = wrap(&[9; 32], (2, 3), &*random()).unwrap();
        for share in &shares {
            wrap.check(share).unwrap();
        }
        assert_eq!(*wrap.unwrap(&shares[1..]).unwrap(), [9; 32]);
        assert_eq!(*wrap.unwrap(&shares).unwrap(), [9; 32]);
        assert!(wrap.unwrap(&shares[..1]).is_err());
        assert!(wrap.unwrap(&[]).is_err());
    }

    #[test]
    fn shares_of_an_earlier_wrap_open_nothing() {
        let (_, old) = wrap(&[9; 32], (2, 2), &*random()).unwrap();
        let (new, _) = wrap(&[9; 32], (2, 2), &*random()).unwrap();
        assert!(new.check(&old[0]).unwrap_err().to_string().contains("another set"));
        assert!(new.unwrap(&old).is_err());
    }

    #[test]
    fn a_share_that_was_made_up_is_refused_when_it_is_brought() {
        let (wrap, mut shares) = wrap(&[9; 32], (2, 3), &*random()).unwrap();
        shares[0].value[7] ^= 1;
        assert!(wrap.check(&shares[0]).unwrap_err().to_string().contains("not made by this service"));
        shares[1].index = 9;
        assert!(wrap.check(&shares[1]).is_err());
        shares[2].of = crate::custody::share::tests::example().of;
        assert!(wrap.check(&shares[2]).unwrap_err().to_string().contains("recovery share"));
    }

    #[test]
    fn every_altered_byte_of_the_wrap_is_noticed() {
        let (mut wrap, shares) = wrap(&[9; 32], (2, 2), &*random()).unwrap();
        for at in 0..wrap.wrapped.0.len() {
            wrap.wrapped.0[at] ^= 1;
            assert!(wrap.unwrap(&shares).is_err(), "byte {at}");
            wrap.wrapped.0[at] ^= 1;
        }
    }
}
