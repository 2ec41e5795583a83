//! A line whose record was removed. What is left is the record's entry, so the tree stays whole:
//!
//! ```text
//! {"index":7,"pruned":"<64 hex>"}\n
//! ```

use std::io::Write as _;

use crate::hash::HASH_LEN;
use crate::line::{Line, LineError, unhex, whole_number};

const AFTER_INDEX: &[u8] = b",\"pruned\":\"";

/// The place of a record that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Position in the log, counted from 0.
    pub index: u64,
    /// The entry of the tree, [`Line::entry`] of what was there.
    pub entry: [u8; HASH_LEN],
}

/// A line of the log, with its record or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLine<'a> {
    /// A record.
    Record(Line<'a>),
    /// The place of one.
    Pruned(Pruned),
}

impl Pruned {
    /// Appends the line, with its end.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Writing to a Vec has no way to fail.
        let _ = write!(out, "{{\"index\":{}", self.index);
        out.extend_from_slice(AFTER_INDEX);
        for byte in self.entry {
            let _ = write!(out, "{byte:02x}");
        }
        out.extend_from_slice(b"\"}\n");
    }
}

impl<'a> LogLine<'a> {
    /// Reads a line without its end (`\n`).
    ///
    /// # Errors
    /// [`LineError`].
    pub fn parse(line: &'a [u8]) -> Result<Self, LineError> {
        match split(line) {
            Some((index, entry)) => Ok(Self::Pruned(Pruned { index, entry })),
            None => Line::parse(line).map(Self::Record),
        }
    }

    /// Position in the log.
    #[must_use]
    pub fn index(&self) -> u64 {
        match self {
            Self::Record(line) => line.index,
            Self::Pruned(pruned) => pruned.index,
        }
    }

    /// The entry of the tree.
    #[must_use]
    pub fn entry(&self) -> [u8; HASH_LEN] {
        match self {
            Self::Record(line) => line.entry(),
            Self::Pruned(pruned) => pruned.entry,
        }
    }
}

fn split(line: &[u8]) -> Option<(u64, [u8; HASH_LEN])> {
    let rest = line.strip_prefix(b"{\"index\":")?;
    let (index, rest) = whole_number(rest)?;
    let entry = rest.strip_prefix(AFTER_INDEX)?.strip_suffix(b"\"}")?;
    Some((index, unhex(entry)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pruned_line_has_the_entry_of_its_record_and_one_form() {
        let line = Line { index: 7, salt: [3; 16], record: "{\"v\":1}" };
        let pruned = Pruned { index: 7, entry: line.entry() };
        let mut text = Vec::new();
        pruned.write(&mut text);
        assert_eq!(text.pop(), Some(b'\n'));
        let read = LogLine::parse(&text).unwrap();
        assert_eq!((read, read.entry(), read.index()), (LogLine::Pruned(pruned), line.entry(), 7));
        for at in 0..text.len() {
            for value in 0..=255u8 {
                let mut altered = text.clone();
                altered[at] = value;
                if altered != text
                    && let Ok(other) = LogLine::parse(&altered)
                {
                    assert_ne!(other, read, "byte {at}");
                }
            }
        }
        for len in 0..text.len() {
            assert!(LogLine::parse(&text[..len]).is_err(), "{len}");
        }
        let mut longer = text.clone();
        longer.push(b' ');
        assert!(LogLine::parse(&longer).is_err());
    }
}
