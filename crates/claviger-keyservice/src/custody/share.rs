//! One share of a secret that was split, and its two texts: a line for machines and words for people.
//!
//! ```text
//! clv-share-1.<keyset_id 32 hex>.<version>.<set 16 hex>.<index>.<threshold>.<count>.<root 32 hex>.<value 64 hex>.<check 8 hex>
//! clv-unlock-1.<set 16 hex>.<index>.<threshold>.<count>.<key 32 hex>.<value 64 hex>.<check 8 hex>
//! ```
//! The first is a recovery share, the second unlocks a service (`unlock::quorum`). `set` tells sets of the same secret apart,
//! `root` and `key` are fingerprints (`root` the first 16 bytes of SHA-256 of `pk_v`), `value` the 32 share bytes over
//! GF(2^8) (x = index, modulus x^8+x^4+x^3+x+1, one polynomial for each byte), `check` the first 4 bytes of SHA-256 of
//! everything before it. Lines that begin with `#` are for people.
//!
//! The words carry the same fields, big-endian and packed, the check digits included (`words`).

use std::fmt::Write as _;

use claviger_format::KeysetId;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::words;
use crate::ServiceError;

const RECOVERY_PREFIX: &str = "clv-share-1";
const UNLOCK_PREFIX: &str = "clv-unlock-1";
/// Fields after the prefix and those that say what was split: set, index, threshold, count, fingerprint, value.
const COMMON_FIELDS: usize = 6;
const VALUE_LEN: usize = 32;
const CHECK_LEN: usize = 4;
/// Bytes of the packed form between what was split and the check digits.
const PACKED_COMMON_LEN: usize = 8 + 3 + 16 + VALUE_LEN;

/// Fewest shares that may open a secret: one alone would be the secret on paper.
pub const THRESHOLD_MIN: u8 = 2;
/// Most shares of one set.
pub const SHARES_MAX: u8 = 32;

/// What was split. Shares of one kind are never taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareOf {
    /// The root of a keyset version: a recovery share.
    Root {
        /// Keyset that the root belongs to.
        keyset_id: KeysetId,
        /// Its version.
        version: u32,
    },
    /// The key that wraps a service's master: an unlock share.
    Unlock,
}

/// One share.
pub struct Share {
    /// What was split.
    pub of: ShareOf,
    /// Which splitting it comes from.
    pub set: [u8; 8],
    /// x coordinate, from 1.
    pub index: u8,
    /// Shares needed.
    pub threshold: u8,
    /// Shares made.
    pub count: u8,
    /// Fingerprint of what was split.
    pub fingerprint: [u8; 16],
    pub(super) value: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Share({} of {}, redacted)", self.index, self.count)
    }
}

impl Share {
    /// Whether both come from one splitting of one secret.
    #[must_use]
    pub fn belongs_with(&self, other: &Self) -> bool {
        (self.of, self.set, self.threshold, self.count, self.fingerprint)
            == (other.of, other.set, other.threshold, other.count, other.fingerprint)
    }

    /// Which splitting it comes from, as it stands on paper: 16 hex digits.
    #[must_use]
    pub fn set_text(&self) -> String {
        let mut text = String::new();
        push_hex(&mut text, &self.set);
        text
    }

    /// The share's line, in lower case.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(256));
        // Writing to a String has no way to fail.
        let _ = match self.of {
            ShareOf::Root { keyset_id, version } => write!(line, "{RECOVERY_PREFIX}.{keyset_id}.{version}."),
            ShareOf::Unlock => write!(line, "{UNLOCK_PREFIX}."),
        };
        push_hex(&mut line, &self.set);
        let _ = write!(line, ".{}.{}.{}.", self.index, self.threshold, self.count);
        push_hex(&mut line, &self.fingerprint);
        line.push('.');
        push_hex(&mut line, &self.value);
        line.push('.');
        let check = check_of(&line);
        push_hex(&mut line, &check);
        line
    }

    /// The check digits that end the line: 8 hex digits, nothing secret.
    #[must_use]
    pub fn check_digits(&self) -> String {
        let line = self.to_line();
        line[line.len() - 2 * CHECK_LEN..].to_owned()
    }

    /// The share as words of the 2048-word list, in order: 62 for a recovery share, 47 for an unlock share.
    #[must_use]
    pub fn to_words(&self) -> Vec<&'static str> {
        words::encode(&self.pack())
    }

    /// Reads a share from text that holds its line, its words, or both: a file's content, or what someone typed. Lines that
    /// begin with `#` don't count, nor do capital letters, nor the numbers before words. Of words the first four letters do.
    ///
    /// # Errors
    /// [`ServiceError::Share`] if it is none or was mistyped; [`ServiceError::ShareWord`] with the word's place.
    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        let mut lines = Vec::new();
        let mut typed = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            for token in line.split_whitespace() {
                if token.contains('.') && !words::is_number(token) {
                    lines.push(token);
                } else if !words::is_number(token) {
                    typed.push(token);
                }
            }
        }
        match (lines.as_slice(), typed.is_empty()) {
            ([line], true) => Self::parse_line(line),
            ([], false) => Self::parse_words(&typed),
            ([line], false) => {
                let (first, second) = (Self::parse_line(line)?, Self::parse_words(&typed)?);
                let same = *first.to_line() == *second.to_line();
                same.then_some(first).ok_or(ServiceError::Share(
                    "the line and the words are different shares; keep one of them",
                ))
            }
            _ => Err(ServiceError::Share("a file holds exactly one share: a line, its words, or both")),
        }
    }

    fn parse_line(line: &str) -> Result<Self, ServiceError> {
        let line = Zeroizing::new(line.to_ascii_lowercase());
        let wrong =
            ServiceError::Share("not a share: clv-share-1. and nine more fields, or clv-unlock-1. and seven");
        let (body, check) = line.rsplit_once('.').ok_or(wrong)?;
        if hex::<CHECK_LEN>(check) != Some(check_of(&line[..=body.len()])) {
            return Err(ServiceError::Share("mistyped: the check digits don't match"));
        }
        Self::parse_fields(body).ok_or(ServiceError::Share(
            "not a share: clv-share-1. and nine more fields, or clv-unlock-1. and seven",
        ))
    }

    fn parse_fields(body: &str) -> Option<Self> {
        let fields: Vec<&str> = body.split('.').collect();
        let (of, common) = match fields[..] {
            [RECOVERY_PREFIX, keyset_id, version, ref common @ ..] => {
                (ShareOf::Root { keyset_id: keyset_id.parse().ok()?, version: version.parse().ok()? }, common)
            }
            [UNLOCK_PREFIX, ref common @ ..] => (ShareOf::Unlock, common),
            _ => return None,
        };
        let [set, index, threshold, count, fingerprint, value] =
            *<&[&str; COMMON_FIELDS]>::try_from(common).ok()?;
        Self {
            of,
            set: hex(set)?,
            index: index.parse().ok()?,
            threshold: threshold.parse().ok()?,
            count: count.parse().ok()?,
            fingerprint: hex(fingerprint)?,
            value: Zeroizing::new(Zeroizing::new(hex::<VALUE_LEN>(value)?).to_vec()),
        }
        .sound()
    }

    fn parse_words(typed: &[&str]) -> Result<Self, ServiceError> {
        let packed = words::decode(typed)?;
        Self::unpack(&packed).ok_or(ServiceError::Share(
            "the words are no share, or one of them is another than on the paper: the check digits don't match",
        ))
    }

    /// `kind(1) ‖ what was split ‖ set ‖ index ‖ threshold ‖ count ‖ fingerprint ‖ value ‖ check(4)`, numbers big-endian.
    /// `kind` 1 is a root: `keyset_id(16) ‖ version(4)`, 2 an unlock key and nothing
    /// more. The check digits are those of the line.
    fn pack(&self) -> Zeroizing<Vec<u8>> {
        let mut packed = Zeroizing::new(Vec::with_capacity(128));
        match self.of {
            ShareOf::Root { keyset_id, version } => {
                packed.push(1);
                packed.extend_from_slice(keyset_id.as_bytes());
                packed.extend_from_slice(&version.to_be_bytes());
            }
            ShareOf::Unlock => packed.push(2),
        }
        packed.extend_from_slice(&self.set);
        packed.extend_from_slice(&[self.index, self.threshold, self.count]);
        packed.extend_from_slice(&self.fingerprint);
        packed.extend_from_slice(&self.value);
        let line = self.to_line();
        packed.extend_from_slice(&check_of(&line[..line.len() - 2 * CHECK_LEN]));
        packed
    }

    pub(super) fn unpack(packed: &[u8]) -> Option<Self> {
        let (kind, rest) = packed.split_first()?;
        let (of, rest) = match kind {
            1 => {
                let (keyset_id, rest) = rest.split_first_chunk::<16>()?;
                let (version, rest) = rest.split_first_chunk::<4>()?;
                let version = u32::from_be_bytes(*version);
                (ShareOf::Root { keyset_id: KeysetId::new(*keyset_id), version }, rest)
            }
            2 => (ShareOf::Unlock, rest),
            _ => return None,
        };
        let (common, check) = rest.split_first_chunk::<PACKED_COMMON_LEN>()?;
        let (set, common) = common.split_first_chunk::<8>()?;
        let ([index, threshold, count], common) = common.split_first_chunk::<3>()?;
        let (fingerprint, value) = common.split_first_chunk::<16>()?;
        let share = Self {
            of,
            set: *set,
            index: *index,
            threshold: *threshold,
            count: *count,
            fingerprint: *fingerprint,
            value: Zeroizing::new(value.to_vec()),
        };
        let line = share.to_line();
        let ours = check_of(&line[..line.len() - 2 * CHECK_LEN]);
        if check == ours { share.sound() } else { None }
    }

    fn sound(self) -> Option<Self> {
        let sound = self.threshold >= THRESHOLD_MIN
            && self.threshold <= self.count
            && self.count <= SHARES_MAX
            && (1..=self.count).contains(&self.index);
        sound.then_some(self)
    }
}

/// First bytes of SHA-256 of the line up to and including the last dot.
fn check_of(line: &str) -> [u8; CHECK_LEN] {
    let digest = Sha256::digest(line.as_bytes());
    [digest[0], digest[1], digest[2], digest[3]]
}

pub(super) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // As above.
        let _ = write!(out, "{byte:02x}");
    }
}

/// Exactly `N` bytes in lower-case hex digits.
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A share of no use, with every field different.
    pub(in crate::custody) fn example() -> Share {
        Share {
            of: ShareOf::Root { keyset_id: KeysetId::new([7; 16]), version: 3 },
            set: [1, 2, 3, 4, 5, 6, 7, 8],
            index: 2,
            threshold: 3,
            count: 5,
            fingerprint: [0xab; 16],
            value: Zeroizing::new((0..32).map(|n| n * 7).collect()),
        }
    }

    fn error(text: &str) -> String {
        Share::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn line_and_words_are_the_same_share() {
        let share = example();
        let words = share.to_words();
        assert_eq!(words.len(), 62);
        let line = share.to_line();
        for text in [line.to_string(), line.to_uppercase(), words.join(" "), words.join("\n").to_uppercase()]
        {
            assert_eq!(*Share::parse(&text).unwrap().to_line(), *line);
        }
        assert_eq!(
            *Share::parse(&format!("# a note\n{}\n{}", *line, words.join(" "))).unwrap().to_line(),
            *line
        );
    }

    #[test]
    fn an_unlock_share_is_never_taken_for_a_recovery_share() {
        let (recovery, unlock) = (example(), Share { of: ShareOf::Unlock, ..example() });
        assert_eq!(unlock.to_words().len(), 47);
        let read = Share::parse(&unlock.to_words().join(" ")).unwrap();
        assert_eq!((read.of, &*read.to_line()), (ShareOf::Unlock, &*unlock.to_line()));
        assert!(!unlock.belongs_with(&recovery) && *unlock.to_line() != *recovery.to_line());
        let renamed = unlock.to_line().replace("clv-unlock-1.", "clv-share-1.");
        assert!(error(&renamed).contains("check digits"));
        assert!(crate::custody::shamir::combine(&[unlock]).unwrap_err().to_string().contains("no recovery"));
    }

    #[test]
    fn words_may_be_numbered_and_cut_to_four_letters() {
        let share = example();
        let typed: Vec<String> = (1..)
            .zip(share.to_words())
            .map(|(n, word)| format!("{n}. {}", &word[..word.len().min(4)]))
            .collect();
        assert_eq!(*Share::parse(&typed.join("  ")).unwrap().to_line(), *share.to_line());
    }

    #[test]
    fn every_wrong_word_is_noticed_and_an_unknown_one_is_named_by_its_place() {
        let words = example().to_words();
        for at in 0..words.len() {
            let mut wrong = words.clone();
            wrong[at] = if words[at] == "zoo" { "abandon" } else { "zoo" };
            let text = error(&wrong.join(" "));
            assert!(
                text.contains("check digits") || at == 61 && text.contains("last word"),
                "word {at}: {text}"
            );
        }
        let mut unknown = words.clone();
        unknown[16] = "claviger";
        assert!(error(&unknown.join(" ")).contains("word 17"));
        assert!(error(&words[1..].join(" ")).contains("62"));
        let mut swapped = words;
        swapped.swap(40, 41);
        assert!(error(&swapped.join(" ")).contains("check digits"));
    }

    #[test]
    fn two_shares_in_one_file_and_none_are_refused() {
        let (first, mut second) = (example(), example());
        second.index = 3;
        let both = format!("{}\n{}", *first.to_line(), *second.to_line());
        assert!(error(&both).contains("exactly one"));
        assert!(error("# nothing here\n").contains("exactly one"));
        let differ = format!("{}\n{}", *first.to_line(), second.to_words().join(" "));
        assert!(error(&differ).contains("different shares"));
    }

    #[test]
    fn a_share_that_says_impossible_things_is_none() {
        for (index, threshold, count) in [(0, 2, 3), (4, 2, 3), (1, 1, 3), (1, 4, 3), (1, 2, 33)] {
            let share = Share { index, threshold, count, ..example() };
            assert!(Share::parse(&share.to_line()).is_err(), "{index} {threshold} {count}");
            assert!(Share::parse(&share.to_words().join(" ")).is_err(), "{index} {threshold} {count}");
        }
    }
}
