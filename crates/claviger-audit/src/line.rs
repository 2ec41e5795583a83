//! A record as it lies in the log's files, one line each, and the entry of the tree that stands for it.
//!
//! ```text
//! {"index":7,"salt":"<32 hex>","record":{…}}\n
//! ```
//! The entry is `SHA-256(salt ‖ record)`, over the record's exact bytes as they stand in the line. Nothing else in a line is
//! free: it has exactly one form for an index, a salt and a record, so that every byte of a file is covered.

use std::io::Write as _;

use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};

use crate::hash::HASH_LEN;

/// Length of a salt, in bytes. It keeps an entry from telling anything about a record that was removed.
pub const SALT_LEN: usize = 16;

/// Longest line that is read, in bytes, its end included. Writers stay far below it.
pub const LINE_LEN_MAX: usize = 1 << 20;

const AFTER_INDEX: &[u8] = b",\"salt\":\"";
const AFTER_SALT: &[u8] = b"\",\"record\":";

/// One record with its place and its salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Position in the log, counted from 0.
    pub index: u64,
    /// What makes the entry unguessable.
    pub salt: [u8; SALT_LEN],
    /// A JSON object, byte for byte as it was written.
    pub record: &'a str,
}

/// Why a line is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Longer than [`LINE_LEN_MAX`].
    #[error("longer than any record is")]
    TooLong,
    /// It has another form than the one that is written.
    #[error("not of the form {{\"index\":…,\"salt\":\"…\",\"record\":{{…}}}}")]
    Frame,
    /// The record is not a JSON object.
    #[error("its record is not a JSON object")]
    Record,
}

impl<'a> Line<'a> {
    /// Reads a line without its end (`\n`).
    ///
    /// # Errors
    /// [`LineError`].
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        if line.len() >= LINE_LEN_MAX {
            return Err(LineError::TooLong);
        }
        let (index, salt, record) = split(line).ok_or(LineError::Frame)?;
        if !record.starts_with('{') || serde_json::from_str::<IgnoredAny>(record).is_err() {
            return Err(LineError::Record);
        }
        Ok(Self { index, salt, record })
    }

    /// Appends the line, with its end.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing to a Vec has no way to fail.
        let _ = write!(out, "{{\"index\":{}", self.index);
        out.extend_from_slice(AFTER_INDEX);
        for byte in self.salt {
            let _ = write!(out, "{byte:02x}");
        }
        out.extend_from_slice(AFTER_SALT);
        out.extend_from_slice(self.record.as_bytes());
        out.extend_from_slice(b"}\n");
    }

    /// The entry of the tree: `SHA-256(salt ‖ record)`.
    #[must_use]
    pub fn entry(&self) -> [u8; HASH_LEN] {
        Sha256::new().chain_update(self.salt).chain_update(self.record).finalize().into()
    }
}

fn split(line: &[u8]) -> Option<(u64, [u8; SALT_LEN], &str)> {
    let (index, rest) = whole_number(line.strip_prefix(b"{\"index\":")?)?;
    let rest = rest.strip_prefix(AFTER_INDEX)?;
    let (salt, rest) = rest.split_at_checked(2 * SALT_LEN)?;
    let rest = rest.strip_prefix(AFTER_SALT)?.strip_suffix(b"}")?;
    Some((index, unhex(salt)?, std::str::from_utf8(rest).ok()?))
}

/// The number at the beginning, and what follows it.
pub(crate) fn whole_number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().position(|byte| !byte.is_ascii_digit())?;
    Some((decimal(std::str::from_utf8(&text[..digits]).ok()?)?, &text[digits..]))
}

/// Reads a number in its one decimal form: no sign, no leading zeros.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if canonical { text.parse().ok() } else { None }
}

/// Lower-case hex digits of exactly `N` bytes.
pub(crate) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_chunks::<2>().0) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "{\"index\":7,\"salt\":\"000102030405060708090a0b0c0d0e0f\",\"record\":{\"v\":1,\"key\":\"ä \\\"b\"}}";

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let line = Line::parse(LINE.as_bytes()).unwrap();
        assert_eq!((line.index, line.salt[15], line.record), (7, 15, "{\"v\":1,\"key\":\"ä \\\"b\"}"));
        let mut written = Vec::new();
        line.write(&mut written);
        assert_eq!(written, format!("{LINE}\n").as_bytes());
    }

    #[test]
    fn the_entry_is_the_hash_of_salt_and_exact_record() {
        let text = "{\"index\":0,\"salt\":\"000102030405060708090a0b0c0d0e0f\",\"record\":{\"v\":1}}";
        let entry = Line::parse(text.as_bytes()).unwrap().entry();
        // What sha256sum says of the 16 bytes 00 to 0f and `{"v":1}`.
        let known = "cdcdf9a25d1cbded783747eb39fe90846b76d8bae6e00c0c715aa54f61b2eb75";
        assert_eq!(format!("{:?}", crate::Hash(entry)), known);
        let spaced = text.replace("\"v\":1", "\"v\": 1");
        assert_ne!(Line::parse(spaced.as_bytes()).unwrap().entry(), entry);
    }

    #[test]
    fn every_single_byte_change_gives_another_line_or_none() {
        let known = Line::parse(LINE.as_bytes()).unwrap();
        for at in 0..LINE.len() {
            for value in 0..=255u8 {
                let mut altered = LINE.as_bytes().to_vec();
                altered[at] = value;
                if altered != LINE.as_bytes()
                    && let Ok(line) = Line::parse(&altered)
                {
                    assert!(line.index != known.index || line.entry() != known.entry(), "byte {at}");
                }
            }
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for wrong in [
            LINE.replace("\"index\":7", "\"index\":07"),
            LINE.replace("\"index\":7", "\"index\": 7"),
            LINE.replace("\"index\":7", "\"index\":18446744073709551616"),
            LINE.replace("0a0b", "0A0B"),
            LINE.replace("\"salt\":\"00", "\"salt\":\""),
            format!("{LINE} "),
            format!(" {LINE}"),
            LINE.replace("\"v\":1", "\"v\":1,"),
            "{\"index\":7,\"salt\":\"000102030405060708090a0b0c0d0e0f\",\"record\":[]}".into(),
            String::new(),
        ] {
            assert!(Line::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let long = LINE.replace("\"v\":1", &format!("\"v\":{}", "1".repeat(LINE_LEN_MAX)));
        assert_eq!(Line::parse(long.as_bytes()), Err(LineError::TooLong));
    }
}
