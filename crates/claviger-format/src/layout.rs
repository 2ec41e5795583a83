//! Every size and offset (docs/format.md §4): `g`, its inverse, and which ciphertext covers which plaintext.

use crate::suite::TAG_LEN;
use crate::{Error, Result};

/// Plaintext bytes of a full segment.
pub const SEGMENT_LEN: u64 = 65_536;
/// Ciphertext bytes of a full segment.
pub const SEALED_SEGMENT_LEN: u64 = SEGMENT_LEN + TAG_LEN_U64;
/// Bytes of a unit header.
pub const HEADER_LEN: u64 = 96;
/// Plaintext below which only the last part may be: 5 MiB, 80 segments.
pub const PART_LEN_MIN: u64 = 5 * 1024 * 1024;
/// Parts of one object.
pub const PARTS_MAX: u16 = 10_000;
/// Plaintext of one unit (docs/format.md §2.9).
pub const UNIT_LEN_MAX: u64 = 1 << 40;
/// Plaintext of one object: as many of the largest units as there can be parts.
pub const OBJECT_LEN_MAX: u64 = UNIT_LEN_MAX * PARTS_MAX as u64;
/// Largest part that a client may send, so that its ciphertext fits an upstream part of 5 GiB (docs/format.md §4.4).
pub const CLIENT_PART_LEN_MAX: u64 = 5_367_398_608;
/// Largest plaintext whose object fits one upstream PUT of 5 GiB (docs/format.md §4.4).
pub const SINGLE_PUT_LEN_MAX: u64 = 5_367_242_912;
/// Largest PutObject that a client may send: 5 GiB.
pub const CLIENT_PUT_LEN_MAX: u64 = 5 << 30;
/// Smallest object: header and footer of nothing.
pub const OBJECT_SIZE_MIN: u64 = FIXED;
/// Bytes of the manifest's info block.
pub const INFO_LEN: u64 = 96;
/// Bytes of one manifest entry.
pub const ENTRY_LEN: u64 = 40;

const TAG_LEN_U64: u64 = TAG_LEN as u64;
/// Two headers, the info block, one entry and one tag.
const FIXED: u64 = 2 * HEADER_LEN + INFO_LEN + ENTRY_LEN + TAG_LEN_U64;
/// What one more part may cost: header, entry and the tag of its ragged last segment.
const PAD_STEP: u64 = HEADER_LEN + ENTRY_LEN + TAG_LEN_U64;
const PAD_STEPS_MAX: u64 = PARTS_MAX as u64 - 1;

/// Size of an object with `n` bytes of plaintext, whatever its parts (docs/format.md §4.1). `None` above
/// [`OBJECT_LEN_MAX`].
pub const fn g(n: u64) -> Option<u64> {
    if n > OBJECT_LEN_MAX {
        return None;
    }
    let steps = n / PART_LEN_MIN;
    let steps = if steps < PAD_STEPS_MAX { steps } else { PAD_STEPS_MAX };
    Some(sealed_segments_len(n) + FIXED + PAD_STEP * steps)
}

/// Plaintext length of an object of `size` bytes, `None` if no object has that size (docs/format.md §4.2).
pub fn g_inverse(size: u64) -> Option<u64> {
    const PERIOD: u64 = PART_LEN_MIN + PART_LEN_MIN / SEGMENT_LEN * TAG_LEN_U64 + PAD_STEP;
    let rest = size.checked_sub(FIXED)?;
    let (steps, rest_of_step) = (rest / PERIOD, rest % PERIOD);
    if steps < PAD_STEPS_MAX {
        let tail = unsealed_segments_len(rest_of_step).filter(|tail| *tail < PART_LEN_MIN)?;
        return Some(steps * PART_LEN_MIN + tail);
    }
    unsealed_segments_len(rest - PAD_STEPS_MAX * PAD_STEP)
        .filter(|n| (PAD_STEPS_MAX * PART_LEN_MIN..=OBJECT_LEN_MAX).contains(n))
}

/// Size of a single-body or part unit of `p` bytes of plaintext: header and segments (docs/format.md §3.1). `None`
/// above [`UNIT_LEN_MAX`].
pub const fn h(p: u64) -> Option<u64> {
    if p > UNIT_LEN_MAX { None } else { Some(HEADER_LEN + sealed_segments_len(p)) }
}

/// Plaintext length of a unit of `size` bytes, `None` if no unit has that size (docs/format.md §4.2).
pub fn h_inverse(size: u64) -> Option<u64> {
    unsealed_segments_len(size.checked_sub(HEADER_LEN)?).filter(|p| *p <= UNIT_LEN_MAX)
}

/// Segments of a unit with `length` bytes of plaintext.
pub const fn segment_count(length: u64) -> u64 {
    length.div_ceil(SEGMENT_LEN)
}

/// Plaintext length of segment `index` in a unit of `length` bytes; 0 beyond the last.
pub const fn segment_len(length: u64, index: u64) -> u64 {
    let rest = length.saturating_sub(index.saturating_mul(SEGMENT_LEN));
    if rest < SEGMENT_LEN { rest } else { SEGMENT_LEN }
}

const fn sealed_segments_len(length: u64) -> u64 {
    length + TAG_LEN_U64 * segment_count(length)
}

fn unsealed_segments_len(sealed: u64) -> Option<u64> {
    let (full, tail) = (sealed / SEALED_SEGMENT_LEN, sealed % SEALED_SEGMENT_LEN);
    match tail {
        0 => Some(full * SEGMENT_LEN),
        1..=TAG_LEN_U64 => None,
        _ => Some(full * SEGMENT_LEN + tail - TAG_LEN_U64),
    }
}

/// Bytes `first..=last` of a plaintext, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlainRange {
    first: u64,
    last: u64,
}

impl PlainRange {
    /// Both ends inclusive, as in HTTP; the caller has already clipped `last` to the object.
    pub fn new(first: u64, last: u64) -> Result<Self> {
        if first > last || last >= OBJECT_LEN_MAX {
            return Err(Error::Range);
        }
        Ok(Self { first, last })
    }

    /// First byte.
    pub const fn first(self) -> u64 {
        self.first
    }

    /// Last byte, inclusive.
    pub const fn last(self) -> u64 {
        self.last
    }

    /// Number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.last - self.first + 1
    }
}

/// Bytes `first..=last` of a stored object, never empty: what goes into an upstream Range header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CipherRange {
    /// First byte.
    pub first: u64,
    /// Last byte, inclusive.
    pub last: u64,
}

impl CipherRange {
    /// Number of bytes.
    #[allow(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub const fn len(self) -> u64 {
        self.last - self.first + 1
    }

    /// All of an object of `size` bytes; no object is empty.
    pub const fn whole(size: u64) -> Self {
        Self { first: 0, last: size.saturating_sub(1) }
    }
}

/// Where segments `first..=last` of a unit of `length` bytes lie, counted from the unit's first byte.
pub(crate) fn segments_range(length: u64, first: u64, last: u64) -> CipherRange {
    let end = (last + 1) * SEALED_SEGMENT_LEN;
    let end = end.min(sealed_segments_len(length));
    CipherRange { first: HEADER_LEN + first * SEALED_SEGMENT_LEN, last: HEADER_LEN + end - 1 }
}

/// The ciphertext that covers `range` in a single object of `n` bytes (docs/format.md §3.7): whole segments, without
/// the header, which the envelope makes redundant.
pub fn covering_single(n: u64, range: PlainRange) -> Result<CipherRange> {
    if range.last >= n || n > UNIT_LEN_MAX {
        return Err(Error::Range);
    }
    Ok(segments_range(n, range.first / SEGMENT_LEN, range.last / SEGMENT_LEN))
}
