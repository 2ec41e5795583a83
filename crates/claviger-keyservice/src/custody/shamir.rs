//! Recovery shares: the root of one keyset version, split so that any m of n open it without this service, its database
//! or its passphrase.
//!
//! One share is one line:
//! ```text
//! clv-share-1.<keyset_id 32 hex>.<version>.<set 16 hex>.<index>.<threshold>.<count>.<root 32 hex>.<value 64 hex>.<check 8 hex>
//! ```
//! `set` tells sets of the same root apart, `root` is the fingerprint (first 16 bytes of SHA-256 of `pk_v`), `value` the
//! 32 share bytes over GF(2^8) (x = index, modulus x^8+x^4+x^3+x+1, one polynomial for each byte), `check` the first
//! 4 bytes of SHA-256 of everything before it. Lines that begin with `#` are for people.

use std::convert::Infallible;
use std::fmt::Write as _;

use claviger_format::{KeysetId, Random, RandomError, Root, RootSecret};
use sha2::{Digest as _, Sha256};
use vsss_rs::Gf256;
use zeroize::Zeroizing;

use crate::ServiceError;

const PREFIX: &str = "clv-share-1";
const FIELDS: usize = 10;

/// Fewest shares that may open a root: one alone would be the root on paper.
pub const THRESHOLD_MIN: u8 = 2;
/// Most shares of one set.
pub const SHARES_MAX: u8 = 32;

/// One recovery share.
pub struct Share {
    /// Keyset that the root belongs to.
    pub keyset_id: KeysetId,
    /// Its version.
    pub version: u32,
    /// Which splitting it comes from.
    pub set: [u8; 8],
    /// x coordinate, from 1.
    pub index: u8,
    /// Shares needed.
    pub threshold: u8,
    /// Shares made.
    pub count: u8,
    /// Fingerprint of the root.
    pub root: [u8; 16],
    value: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({} of {}, redacted)", self.index, self.count)
    }
}

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
    if threshold < THRESHOLD_MIN || threshold > count || count > SHARES_MAX {
        return Err(ServiceError::Share(
            "the threshold is 2 or more, and at most the number of shares, which is at most 32",
        ));
    }
    let mut set = [0u8; 8];
    random.fill(&mut set)?;
    let fingerprint = fingerprint_of(root, keyset_id, version)?;
    let mut source = ShareRandom { source: random, failure: None };
    let split = Gf256::split_bytes(usize::from(threshold), usize::from(count), root.expose(), &mut source);
    // Taken over before anything can fail, so that they are wiped.
    let values: Vec<Zeroizing<Vec<u8>>> =
        split.map_err(|_| ServiceError::Share("splitting failed"))?.into_iter().map(Zeroizing::new).collect();
    source.failure.map_or(Ok(()), Err)?;
    let share = |value: Zeroizing<Vec<u8>>| Share {
        keyset_id,
        version,
        set,
        index: value[0],
        threshold,
        count,
        root: fingerprint,
        value: Zeroizing::new(value[1..].to_vec()),
    };
    Ok(values.into_iter().map(share).collect())
}

/// Puts shares together; more than needed may be given, and all must agree.
///
/// # Errors
/// [`ServiceError::Share`] if they don't belong together, are too few, or do not give the root whose fingerprint they
/// carry.
pub fn combine(shares: &[Share]) -> Result<RootSecret, ServiceError> {
    let first = shares.first().ok_or(ServiceError::Share("none given"))?;
    let same = |s: &Share| {
        (s.keyset_id, s.version, s.set, s.threshold, s.count, s.root)
            == (first.keyset_id, first.version, first.set, first.threshold, first.count, first.root)
    };
    if !shares.iter().all(same) {
        return Err(ServiceError::Share("they come from different sets"));
    }
    if shares.len() < usize::from(first.threshold) {
        return Err(ServiceError::Share("too few"));
    }
    let points =
        Zeroizing::new(shares.iter().map(|s| [&[s.index], &s.value[..]].concat()).collect::<Vec<_>>());
    let secret =
        Gf256::combine_bytes(points.as_slice()).map_err(|_| ServiceError::Share("they don't combine"))?;
    let secret = Zeroizing::new(secret);
    let root = RootSecret::from_slice(&secret).map_err(|_| ServiceError::Share("they don't combine"))?;
    if fingerprint_of(&root, first.keyset_id, first.version)? != first.root {
        return Err(ServiceError::Share("they give another root than the one they name"));
    }
    Ok(root)
}

fn fingerprint_of(root: &RootSecret, keyset_id: KeysetId, version: u32) -> Result<[u8; 16], ServiceError> {
    let copy = RootSecret::from_slice(root.expose())?;
    Ok(root_fingerprint(Root::new(copy, keyset_id, version).public_key()?.as_bytes()))
}

impl Share {
    /// The share's line.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(256));
        // Writing to a String has no way to fail.
        let _ = write!(line, "{PREFIX}.{}.{}.", self.keyset_id, self.version);
        push_hex(&mut line, &self.set);
        let _ = write!(line, ".{}.{}.{}.", self.index, self.threshold, self.count);
        push_hex(&mut line, &self.root);
        line.push('.');
        push_hex(&mut line, &self.value);
        line.push('.');
        let check = Sha256::digest(line.as_bytes());
        push_hex(&mut line, &check[..4]);
        line
    }

    /// A sheet for people: what this is, what it is good for, and the line.
    #[must_use]
    pub fn to_sheet(&self, keyset_name: &str) -> Zeroizing<String> {
        let mut sheet = Zeroizing::new(String::with_capacity(1024));
        let _ = write!(
            sheet,
            "# Claviger recovery share {} of {}, keyset {keyset_name}, version {}\n\
             # Any {} of these {} shares open everything that this keyset version ever sealed, without the key service.\n\
             # Keep each with another person, offline. Alone it is worth nothing.\n",
            self.index, self.count, self.version, self.threshold, self.count
        );
        sheet.push_str(&self.to_line());
        sheet.push('\n');
        sheet
    }

    /// Reads a line or a whole sheet.
    ///
    /// # Errors
    /// [`ServiceError::Share`] if it is no share or was mistyped.
    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(ServiceError::Share("a file holds exactly one share"));
        };
        let wrong = ServiceError::Share("not a share: clv-share-1. and nine more fields");
        let (body, check) = line.rsplit_once('.').ok_or(wrong)?;
        let digest = Sha256::digest([body.as_bytes(), b"."].concat());
        if hex::<4>(check) != Some([digest[0], digest[1], digest[2], digest[3]]) {
            return Err(ServiceError::Share("mistyped: the check digits don't match"));
        }
        Self::parse_fields(line).ok_or(ServiceError::Share("not a share: clv-share-1. and nine more fields"))
    }

    fn parse_fields(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('.').collect();
        if fields.len() != FIELDS || fields[0] != PREFIX {
            return None;
        }
        let share = Self {
            keyset_id: fields[1].parse().ok()?,
            version: fields[2].parse().ok()?,
            set: hex(fields[3])?,
            index: fields[4].parse().ok()?,
            threshold: fields[5].parse().ok()?,
            count: fields[6].parse().ok()?,
            root: hex(fields[7])?,
            value: Zeroizing::new(Zeroizing::new(hex::<32>(fields[8])?).to_vec()),
        };
        let sound = share.threshold >= THRESHOLD_MIN && (1..=share.count).contains(&share.index);
        sound.then_some(share)
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(out, "{byte:02x}");
    }
}

pub(crate) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let mut out = [0u8; N];
    for (at, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(out)
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
        let lines: Vec<_> = shares.iter().map(|s| s.to_sheet("default")).collect();
        for picks in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
            let quorum: Vec<_> = picks.iter().map(|&i| Share::parse(&lines[i]).unwrap()).collect();
            assert_eq!(combine(&quorum).unwrap().expose(), root.expose());
        }
        assert!(combine(&shares[..2]).is_err());
        assert_eq!(combine(&shares).unwrap().expose(), root.expose());
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
