//! Percent-encoding: S3's decoding of paths and queries, and the encoding of Signature Version 4.

use std::borrow::Cow;

use crate::error::{ErrorCode, S3Error};

/// How `/` is written by [`encode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slash {
    /// `/` stays: paths and the `url` encoding of listings.
    Keep,
    /// `/` becomes `%2F`: query names and values.
    Encode,
}

/// Encodes every byte but `A-Z a-z 0-9 - . _ ~` (and `/` where it is kept) as `%XX` with upper-case digits, the
/// `UriEncode` of the Signature Version 4 documentation.
pub fn encode(bytes: &[u8], slash: Slash) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if is_unreserved(byte) || (byte == b'/' && slash == Slash::Keep) {
            out.push(char::from(byte));
        } else {
            push_escape(&mut out, byte);
        }
    }
    out
}

/// Whether [`encode`] leaves a byte as it is whatever `slash` says.
pub(crate) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The `encoding-type=url` form of keys, prefixes and markers in listings: as [`encode`] with `/` kept, but `*` stays too and
/// `~` does not. A space is `%20`, which every client reads.
pub fn encode_listing(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_encoded_listing(&mut out, text);
    out
}

/// Appends what [`encode_listing`] gives.
pub(crate) fn push_encoded_listing(out: &mut String, text: &str) {
    // Most names are plain. Looking at all bytes takes less time than finding the first that is not: 16 or more are
    // compared at once.
    if text.bytes().fold(true, |all, byte| all & stays_in_listing(byte)) {
        return out.push_str(text);
    }
    for &byte in text.as_bytes() {
        if stays_in_listing(byte) {
            out.push(char::from(byte));
        } else {
            push_escape(out, byte);
        }
    }
}

fn stays_in_listing(byte: u8) -> bool {
    matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' | b'/')
}

/// Reverses [`encode_listing`] and its variants (`+` for a space, as S3 writes it). What is no escape stays as it is. `None` when
/// the result is not UTF-8.
pub fn decode_listing(text: &str) -> Option<String> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    // The room at once: the library's own text grows as it goes.
    let mut name = Vec::with_capacity(spaced.len());
    name.extend(percent_encoding::percent_decode_str(&spaced));
    String::from_utf8(name).ok()
}

/// Decodes a path: `%XX` only, `+` is a plus. Broken escapes and bytes that are not UTF-8 are `InvalidURI`.
pub fn decode_path(raw: &str) -> Result<String, S3Error> {
    decode(raw)
}

/// Decodes a query name or value: `+` is a space, then `%XX`. Broken escapes or bytes are `InvalidURI`.
pub fn decode_query_component(raw: &str) -> Result<String, S3Error> {
    if raw.contains('+') { decode(&raw.replace('+', " ")) } else { decode(raw) }
}

fn decode(raw: &str) -> Result<String, S3Error> {
    let bytes = raw.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (&[high, low], tail) = tail.split_first_chunk::<2>().ok_or_else(invalid_uri)?;
        let (high, low) = hex_digit(high).zip(hex_digit(low)).ok_or_else(invalid_uri)?;
        out.push(high << 4 | low);
        rest = tail;
    }
    String::from_utf8(out).map_err(|_| invalid_uri())
}

fn invalid_uri() -> S3Error {
    S3Error::new(ErrorCode::InvalidURI)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

fn push_escape(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plus_is_a_plus_in_a_path_and_a_space_in_a_query() {
        assert_eq!(decode_path("a+b%20c%2Bd").unwrap(), "a+b c+d");
        assert_eq!(decode_query_component("a+b%20c%2Bd").unwrap(), "a b c+d");
    }

    #[test]
    fn broken_escapes_and_foreign_bytes_are_refused() {
        for raw in ["%", "%4", "%zz", "a%", "%ff", "%C3", "%+1"] {
            assert_eq!(decode_path(raw).unwrap_err().code(), ErrorCode::InvalidURI, "{raw}");
        }
    }

    #[test]
    fn listing_names_are_encoded_as_s3_does() {
        assert_eq!(encode_listing("a b+c/d%é~*"), "a%20b%2Bc/d%25%C3%A9%7E*");
        assert_eq!(decode_listing("a+b%20c%2B").as_deref(), Some("a b c+"));
        assert_eq!(decode_listing("%ff"), None);
        assert_eq!(decode_listing("%2fa%2Fb%2"), Some("/a/b%2".to_owned()));
        assert_eq!(decode_listing("%%zz%+%"), Some("%%zz% %".to_owned()));
    }

    proptest! {
        #[test]
        fn whatever_is_encoded_decodes_to_itself(text in ".*") {
            prop_assert_eq!(decode_path(&encode(text.as_bytes(), Slash::Keep)).unwrap(), text.clone());
            prop_assert_eq!(decode_query_component(&encode(text.as_bytes(), Slash::Encode)).unwrap(), text.clone());
            prop_assert_eq!(decode_listing(&encode_listing(&text)).unwrap(), text);
        }

        #[test]
        fn decoding_never_panics(text in ".*") {
            let _ = decode_path(&text);
            let _ = decode_query_component(&text);
        }
    }
}
