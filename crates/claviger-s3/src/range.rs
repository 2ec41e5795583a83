//! Byte ranges (RFC 9110 §14), read as S3 reads them.

/// One requested range, before the length of the object is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeSpec {
    /// `bytes=a-b`, both ends included, `a <= b`.
    Inclusive {
        /// First byte.
        first: u64,
        /// Last byte, included.
        last: u64,
    },
    /// `bytes=a-`.
    From {
        /// First byte.
        first: u64,
    },
    /// `bytes=-n`: the last `n` bytes.
    Suffix {
        /// How many bytes.
        len: u64,
    },
}

/// What a range means for an object of known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// 200 with everything.
    Whole,
    /// 206 with the bytes from `start` up to but without `end`; never empty.
    Range {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// 416.
    Unsatisfiable,
}

impl RangeSpec {
    /// Reads a `Range` header. `None` means that the object is answered whole: another unit, broken syntax, or several
    /// ranges (S3 does not serve multipart/byteranges).
    pub fn parse(header: &str) -> Option<Self> {
        let (unit, set) = header.trim().split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
            return None;
        }
        let (first, last) = set.trim().split_once('-')?;
        match (first.trim(), last.trim()) {
            ("", len) => Some(Self::Suffix { len: number(len)? }),
            (first, "") => Some(Self::From { first: number(first)? }),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(Self::Inclusive { first, last })
            }
        }
    }

    /// Reads `x-amz-copy-source-range`, which allows only `bytes=a-b`.
    pub fn parse_copy_source(header: &str) -> Option<Self> {
        let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Self::Inclusive { first, last })
    }

    /// Applies the range to an object of `len` bytes. An end beyond the object saturates; a start at or beyond its
    /// end, or a suffix of zero bytes, can't be satisfied. A suffix of an empty object is 416 too, as S3 answers it.
    pub fn resolve(self, len: u64) -> Resolved {
        let (start, end) = match self {
            Self::Inclusive { first, last } => (first, last.saturating_add(1).min(len)),
            Self::From { first } => (first, len),
            Self::Suffix { len: suffix } => (len.saturating_sub(suffix), len),
        };
        if start < end { Resolved::Range { start, end } } else { Resolved::Unsatisfiable }
    }
}

/// Applies an optional range: no range is the whole object.
pub fn resolve(range: Option<RangeSpec>, len: u64) -> Resolved {
    range.map_or(Resolved::Whole, |range| range.resolve(len))
}

/// `Content-Range` of a 206: `bytes first-last/len`. `end` is one past the last byte and greater than `start`.
pub fn content_range(start: u64, end: u64, len: u64) -> String {
    format!("bytes {start}-{}/{len}", end.saturating_sub(1))
}

/// `Content-Range` of a 416: `bytes */len`.
pub fn content_range_unsatisfiable(len: u64) -> String {
    format!("bytes */{len}")
}

/// Reads an upstream `Content-Range: bytes first-last/len` as `(start, end, len)`, `end` being one past the last byte.
/// `None` when it is malformed, contradictory, or leaves the length open.
pub fn parse_content_range(header: &str) -> Option<(u64, u64, u64)> {
    let (range, len) = header.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, len) = (number(first)?, number(last)?, number(len)?);
    (first <= last && last < len).then_some((first, last + 1, len))
}

/// Decimal digits only; a number too large for 64 bits saturates, since every range end may lie beyond the object.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_resolve_as_s3_resolves_them() {
        let cases = [
            ("bytes=0-", 10, Resolved::Range { start: 0, end: 10 }),
            ("bytes=0-0", 10, Resolved::Range { start: 0, end: 1 }),
            ("bytes=5-99", 10, Resolved::Range { start: 5, end: 10 }),
            ("bytes=9-9", 10, Resolved::Range { start: 9, end: 10 }),
            ("bytes=10-", 10, Resolved::Unsatisfiable),
            ("bytes=10-20", 10, Resolved::Unsatisfiable),
            ("bytes=-3", 10, Resolved::Range { start: 7, end: 10 }),
            ("bytes=-99", 10, Resolved::Range { start: 0, end: 10 }),
            ("bytes=-0", 10, Resolved::Unsatisfiable),
            ("bytes=0-", 0, Resolved::Unsatisfiable),
            ("bytes=-5", 0, Resolved::Unsatisfiable),
            ("bytes=0-99999999999999999999999999", 10, Resolved::Range { start: 0, end: 10 }),
            ("Bytes = 1 - 2", 10, Resolved::Range { start: 1, end: 3 }),
        ];
        for (header, len, expected) in cases {
            assert_eq!(resolve(RangeSpec::parse(header), len), expected, "{header} of {len}");
        }
    }

    #[test]
    fn broken_foreign_and_multiple_ranges_are_answered_whole() {
        let headers = [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-4",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=+1-2",
        ];
        for header in headers {
            assert_eq!(resolve(RangeSpec::parse(header), 10), Resolved::Whole, "{header}");
        }
    }

    #[test]
    fn a_copy_source_range_is_strict() {
        let parsed = RangeSpec::parse_copy_source("bytes=0-9");
        assert_eq!(parsed, Some(RangeSpec::Inclusive { first: 0, last: 9 }));
        for header in ["bytes=0-", "bytes=-9", "0-9", "bytes=9-0", "bytes= 0-9", "bytes=0-1,2-3"] {
            assert_eq!(RangeSpec::parse_copy_source(header), None, "{header}");
        }
    }

    #[test]
    fn content_range_is_written_and_read_back() {
        assert_eq!(content_range(0, 1, 10), "bytes 0-0/10");
        assert_eq!(content_range_unsatisfiable(10), "bytes */10");
        assert_eq!(parse_content_range(&content_range(3, 7, 10)), Some((3, 7, 10)));
        for header in ["bytes 3-10/10", "bytes 4-3/10", "bytes */10", "bytes 0-1/*", "0-1/2"] {
            assert_eq!(parse_content_range(header), None, "{header}");
        }
    }
}
