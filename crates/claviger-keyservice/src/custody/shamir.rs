//! Splitting a root into recovery shares, so that any m of n open it without this service, its database or its passphrase,
//! and putting shares together.

use std::collections::BTreeSet;
use std::convert::Infallible;

use claviger_format::{KeysetId, Random, RandomError, Root, RootSecret};
use sha2::{Digest as _, Sha256};
use vsss_rs::Gf256;
use zeroize::Zeroizing;

pub use super::share::{SHARES_MAX, Share, ShareOf, THRESHOLD_MIN};
use super::unlock::quorum;
use crate::ServiceError;

/// First 16 bytes of SHA-256 of the public key: stands on the shares, and can be compared with the keyset record.
#[must_use]
pub fn root_fingerprint(public_key: &[u8]) -> [u8; 16] {
    let mut fingerprint = [0u8; 16];
    fingerprint.copy_from_slice(&Sha256::digest(public_key)[..16]);
    fingerprint
}

/// Splits a root.
///
/// # Errors
/// [`ServiceError::Share`] unless 2 ≤ threshold ≤ count ≤ 32; [`ServiceError::Random`].
pub fn split(
    root: &RootSecret,
    keyset_id: KeysetId,
    version: u32,
    threshold: u8,
    count: u8,
    random: &dyn Random,
) -> Result<Vec<Share>, ServiceError> {
    let fingerprint = fingerprint_of(root, keyset_id, version)?;
    split_secret(root.expose(), ShareOf::Root { keyset_id, version }, fingerprint, (threshold, count), random)
}

/// Whether so many shares, and so many of them needed, may be made.
///
/// # Errors
/// [`ServiceError::Share`] unless 2 ≤ threshold ≤ count ≤ 32.
pub(crate) fn check_counts(threshold: u8, count: u8) -> Result<(), ServiceError> {
    if threshold < THRESHOLD_MIN || threshold > count || count > SHARES_MAX {
        return Err(ServiceError::Share(
            "the threshold is 2 or more, and at most the number of shares, which is at most 32",
        ));
    }
    Ok(())
}

/// Splits any secret of 32 bytes, so that `threshold` of `count` shares give it.
pub(super) fn split_secret(
    secret: &[u8; 32],
    of: ShareOf,
    fingerprint: [u8; 16],
    (threshold, count): (u8, u8),
    random: &dyn Random,
) -> Result<Vec<Share>, ServiceError> {
    check_counts(threshold, count)?;
    let mut set = [0u8; 8];
    random.fill(&mut set)?;
    let mut source = ShareRandom { source: random, failure: None };
    let split = Gf256::split_bytes(usize::from(threshold), usize::from(count), secret, &mut source);
    // Taken over before anything can fail, so that they are wiped.
    let values: Vec<Zeroizing<Vec<u8>>> =
        split.map_err(|_| ServiceError::Share("splitting failed"))?.into_iter().map(Zeroizing::new).collect();
    source.failure.map_or(Ok(()), Err)?;
    let share = |value: Zeroizing<Vec<u8>>| Share {
        of,
        set,
        index: value[0],
        threshold,
        count,
        fingerprint,
        value: Zeroizing::new(value[1..].to_vec()),
    };
    Ok(values.into_iter().map(share).collect())
}

/// Puts recovery shares together; more than needed may be given, and all must agree.
///
/// # Errors
/// [`ServiceError::Share`] if they don't belong together, are too few, are shares of something else, or do not give the root
/// whose fingerprint they carry.
pub fn combine(shares: &[Share]) -> Result<RootSecret, ServiceError> {
    let first = shares.first().ok_or(ServiceError::Share("none given"))?;
    let ShareOf::Root { keyset_id, version } = first.of else {
        return Err(ServiceError::Share("these unlock a service; they are no recovery shares"));
    };
    let secret = interpolate(shares)?;
    let root = RootSecret::from_slice(&secret).map_err(|_| ServiceError::Share("they don't combine"))?;
    if fingerprint_of(&root, keyset_id, version)? != first.fingerprint {
        return Err(ServiceError::Share("they give another root than the one they name"));
    }
    Ok(root)
}

/// The value at 0 of the polynomial that the shares lie on. Whoever calls this compares a fingerprint afterwards: any points
/// give something.
pub(super) fn interpolate(shares: &[Share]) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
    let first = shares.first().ok_or(ServiceError::Share("none given"))?;
    if !shares.iter().all(|share| share.belongs_with(first)) {
        return Err(ServiceError::Share("they come from different sets"));
    }
    if shares.len() < usize::from(first.threshold) {
        return Err(ServiceError::Share("too few"));
    }
    let points =
        Zeroizing::new(shares.iter().map(|s| [&[s.index], &s.value[..]].concat()).collect::<Vec<_>>());
    let secret =
        Gf256::combine_bytes(points.as_slice()).map_err(|_| ServiceError::Share("they don't combine"))?;
    Ok(Zeroizing::new(secret))
}

/// What [`verify`] found; everything that is wrong is an error instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They give the secret whose fingerprint they carry.
    Proved,
    /// They belong together, but are too few to give anything.
    TooFew {
        /// So many more are needed.
        missing: u8,
    },
}

/// Whether shares belong together and, if there are enough, give what they name. The secret exists for that moment only.
///
/// # Errors
/// [`ServiceError::Share`].
pub fn verify(shares: &[Share]) -> Result<Verdict, ServiceError> {
    let first = shares.first().ok_or(ServiceError::Share("none given"))?;
    if !shares.iter().all(|share| share.belongs_with(first)) {
        return Err(ServiceError::Share("they come from different sets"));
    }
    let distinct: BTreeSet<u8> = shares.iter().map(|share| share.index).collect();
    if distinct.len() != shares.len() {
        return Err(ServiceError::Share("one is there twice"));
    }
    let given = u8::try_from(shares.len()).unwrap_or(u8::MAX);
    if given < first.threshold {
        return Ok(Verdict::TooFew { missing: first.threshold - given });
    }
    match first.of {
        ShareOf::Root { .. } => drop(combine(shares)?),
        ShareOf::Unlock => drop(quorum::combine(shares)?),
    }
    Ok(Verdict::Proved)
}

fn fingerprint_of(root: &RootSecret, keyset_id: KeysetId, version: u32) -> Result<[u8; 16], ServiceError> {
    let copy = RootSecret::from_slice(root.expose())?;
    Ok(root_fingerprint(Root::new(copy, keyset_id, version).public_key()?.as_bytes()))
}

/// Our random source in the shape that vsss-rs wants, which can't fail: a failure is kept and asked for afterwards.
struct ShareRandom<'a> {
    source: &'a dyn Random,
    failure: Option<RandomError>,
}

impl rand_core::TryRng for ShareRandom<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0u8; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0u8; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        if let Err(failure) = self.source.fill(out) {
            // vsss-rs draws coefficients again until they are not zero; ones end its loop, and the result is thrown away.
            out.fill(1);
            self.failure = Some(failure);
        }
        Ok(())
    }
}

impl rand_core::TryCryptoRng for ShareRandom<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    fn shares(threshold: u8, count: u8) -> (RootSecret, Vec<Share>) {
        let root = RootSecret::draw(&*random()).unwrap();
        let shares = split(&root, KeysetId::new([7; 16]), 1, threshold, count, &*random()).unwrap();
        (root, shares)
    }

    #[test]
    fn any_quorum_gives_the_root_and_fewer_give_nothing() {
        let (root, shares) = shares(3, 5);
        let lines: Vec<_> = shares.iter().map(Share::to_line).collect();
        for picks in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
            let quorum: Vec<_> = picks.iter().map(|&i| Share::parse(&lines[i]).unwrap()).collect();
            assert_eq!(combine(&quorum).unwrap().expose(), root.expose());
        }
        assert!(combine(&shares[..2]).is_err());
        assert_eq!(combine(&shares).unwrap().expose(), root.expose());
    }

    #[test]
    fn shares_are_verified_without_giving_the_root_away() {
        let (root, mut shares) = shares(3, 5);
        assert_eq!(verify(&shares).unwrap(), Verdict::Proved);
        assert_eq!(verify(&shares[..3]).unwrap(), Verdict::Proved);
        assert_eq!(verify(&shares[3..]).unwrap(), Verdict::TooFew { missing: 1 });
        let text = |shares: &[Share]| verify(shares).unwrap_err().to_string();
        let again =
            [Share::parse(&shares[0].to_line()).unwrap(), Share::parse(&shares[0].to_line()).unwrap()];
        assert!(text(&again).contains("twice"));
        // Right check digits, wrong value: someone made it up.
        shares[4].value[0] ^= 1;
        assert!(text(&shares).contains("another root"));
        assert!(text(&shares[2..]).contains("another root"));
        let mut other = split(&root, KeysetId::new([7; 16]), 1, 3, 5, &*random()).unwrap();
        shares[0] = other.swap_remove(0);
        assert!(text(&shares).contains("different sets"));
    }

    #[test]
    fn a_mistyped_share_is_noticed() {
        let (_, shares) = shares(2, 2);
        let line = shares[0].to_line().to_string();
        for at in 0..line.len() {
            let mut typo = line.clone().into_bytes();
            typo[at] = if typo[at] == b'0' { b'1' } else { b'0' };
            assert!(Share::parse(std::str::from_utf8(&typo).unwrap()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn shares_of_different_sets_do_not_combine() {
        let (root, first) = shares(2, 2);
        let second = split(&root, KeysetId::new([7; 16]), 1, 2, 2, &*random()).unwrap();
        let mixed: Vec<Share> = first.into_iter().take(1).chain(second.into_iter().skip(1)).collect();
        assert!(combine(&mixed).is_err());
    }

    #[test]
    fn a_single_share_never_opens_a_root() {
        let root = RootSecret::draw(&*random()).unwrap();
        for (threshold, count) in [(1, 1), (1, 3), (4, 3), (2, 33)] {
            assert!(split(&root, KeysetId::new([7; 16]), 1, threshold, count, &*random()).is_err());
        }
    }

    #[test]
    fn a_random_source_that_fails_makes_no_shares() {
        struct Broken;
        impl Random for Broken {
            fn fill(&self, _out: &mut [u8]) -> Result<(), RandomError> {
                Err(RandomError)
            }
            fn hedge(&self) -> claviger_format::Hedge {
                claviger_format::Hedge { boot_nonce: [0; 32], counter: 0, time_ns: 0 }
            }
        }
        let root = RootSecret::draw(&*random()).unwrap();
        assert!(matches!(
            split(&root, KeysetId::new([7; 16]), 1, 2, 3, &Broken),
            Err(ServiceError::Random(_))
        ));
    }
}
