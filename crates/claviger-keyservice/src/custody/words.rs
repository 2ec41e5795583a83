//! Shares as words of the English list of BIP-39: 2048 words, 11 bits each, told apart by their first four letters. Only the
//! list is BIP-39's; the check digits are the share's own.
//!
//! Bits are taken from the packed share big-endian; the last word is filled up with zero bits.

use bip39::Language;
use zeroize::Zeroizing;

use super::share::Share;
use crate::ServiceError;

const BITS: usize = 11;
/// Letters that tell the words apart.
const LETTERS: usize = 4;
/// Words of a share, and the bytes that they stand for.
const LENGTHS: [(usize, usize); 2] = [(62, 84), (47, 64)];

fn list() -> &'static [&'static str; 2048] {
    Language::English.word_list()
}

/// The words of a packed share.
pub(super) fn encode(packed: &[u8]) -> Vec<&'static str> {
    let bit = |at: usize| packed.get(at / 8).map_or(0, |byte| usize::from(byte >> (7 - at % 8) & 1));
    let word = |at: usize| list()[(0..BITS).fold(0, |index, n| index << 1 | bit(at * BITS + n))];
    (0..(packed.len() * 8).div_ceil(BITS)).map(word).collect()
}

/// The packed share of words as typed.
///
/// # Errors
/// [`ServiceError::ShareWord`] with the place of a word that is not in the list; [`ServiceError::Share`] if they are too many
/// or too few.
pub(super) fn decode(typed: &[&str]) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
    if packed_len(typed.len()).is_none() {
        return Err(ServiceError::Share(
            "a recovery share has 62 words, an unlock share 47: some are missing, or there are too many",
        ));
    }
    let mut indexes = Zeroizing::new(Vec::with_capacity(typed.len()));
    for (number, word) in (1..).zip(typed) {
        indexes.push(index(word).ok_or(ServiceError::ShareWord { number })?);
    }
    pack(&indexes).ok_or(ServiceError::Share("the last word is another than on the paper"))
}

/// Which word is wrong, counted from 1, if all but one are right and that one is in the list: tries every other word at every
/// place. A wrong answer has a chance of three in a hundred thousand. Takes a second or so.
#[must_use]
pub fn suspect(text: &str) -> Option<usize> {
    let tokens = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let typed: Vec<&str> = tokens.flat_map(str::split_whitespace).filter(|token| !is_number(token)).collect();
    packed_len(typed.len())?;
    let mut indexes = Zeroizing::new(typed.iter().map(|word| index(word)).collect::<Option<Vec<_>>>()?);
    for at in 0..indexes.len() {
        let original = indexes[at];
        for other in 0..2048 {
            indexes[at] = other;
            if pack(&indexes).is_some_and(|packed| Share::unpack(&packed).is_some()) {
                return Some(at + 1);
            }
        }
        indexes[at] = original;
    }
    None
}

/// Whether a token is a word's number: `17`, `17.`, `17:` or `17)`.
pub(super) fn is_number(token: &str) -> bool {
    let digits = token.strip_suffix(['.', ':', ')']).unwrap_or(token);
    !digits.is_empty() && digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit())
}

fn index(word: &str) -> Option<u16> {
    let word = Zeroizing::new(word.to_ascii_lowercase());
    let exact = list().binary_search(&word.as_str()).ok();
    let found = exact.or_else(|| {
        // Long enough to be the only one; what goes on differently is another word.
        let of_prefix = |known: &&str| word.len() >= LETTERS && known.starts_with(word.as_str());
        list().iter().position(of_prefix)
    });
    u16::try_from(found?).ok()
}

fn packed_len(words: usize) -> Option<usize> {
    LENGTHS.iter().find(|(known, _)| *known == words).map(|(_, len)| *len)
}

/// `None` if the bits that fill up the last word are not zero.
fn pack(indexes: &[u16]) -> Option<Zeroizing<Vec<u8>>> {
    let mut packed = Zeroizing::new(vec![0u8; packed_len(indexes.len())?]);
    let bits = indexes.iter().flat_map(|index| (0..BITS).rev().map(move |n| (index >> n & 1) as u8));
    let mut fill = 0;
    for (at, bit) in bits.enumerate() {
        match packed.get_mut(at / 8) {
            Some(byte) => *byte |= bit << (7 - at % 8),
            None => fill |= bit,
        }
    }
    (fill == 0).then_some(packed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custody::share::tests::example;

    #[test]
    fn four_letters_tell_all_words_apart() {
        for (at, word) in list().iter().enumerate() {
            assert_eq!(index(&word[..word.len().min(LETTERS)]).map(usize::from), Some(at), "{word}");
        }
        assert_eq!(index("aban"), Some(0));
        assert_eq!(index("aba"), None);
        assert_eq!(index("abandonment"), None);
    }

    #[test]
    fn the_one_wrong_word_is_found() {
        let mut words = example().to_words();
        words[4] = if words[4] == "zoo" { "zone" } else { "zoo" };
        assert_eq!(suspect(&words.join(" ")), Some(5));
        words[50] = if words[50] == "zoo" { "zone" } else { "zoo" };
        assert_eq!(suspect(&words[..61].join(" ")), None, "too few to say");
    }
}
