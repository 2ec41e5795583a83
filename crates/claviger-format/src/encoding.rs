//! Hex, base64url and a bounds-checked cursor over untrusted bytes.

use crate::{Error, Result, Structure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .map(char::from)
        .collect()
}

/// Reads exactly `N` bytes of lower-case hex; upper case is refused, so that there is one text for one value.
pub(crate) fn unhex<const N: usize>(text: &str) -> Result<[u8; N]> {
    let malformed = Error::Malformed(Structure::Identifier);
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    if text.len() != 2 * N {
        return Err(malformed);
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => high << 4 | low,
            _ => return Err(malformed),
        };
    }
    Ok(out)
}

/// Base64url without padding (RFC 4648 §5).
pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Strict inverse of [`base64url`]: padding and non-canonical trailing bits are refused (docs/format.md §5.1).
pub(crate) fn unbase64url(text: &str, what: Structure) -> Result<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Malformed(what))
}

/// Reads fixed-length fields off the front of untrusted bytes.
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    what: Structure,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], what: Structure) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn malformed(&self) -> Error {
        Error::Malformed(self.what)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Error::Malformed(self.what))?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Malformed(self.what))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// Takes `len` reserved bytes, which MUST be zero.
    pub(crate) fn zeros(&mut self, len: usize) -> Result<()> {
        if self.take(len)?.iter().any(|b| *b != 0) {
            return Err(self.malformed());
        }
        Ok(())
    }

    /// Takes the magic, which MUST match.
    pub(crate) fn magic(&mut self, magic: &[u8; 4]) -> Result<()> {
        let found = self.array::<4>()?;
        if found == *magic {
            Ok(())
        } else if found[..3] == magic[..3] {
            Err(Error::Unsupported(self.what))
        } else {
            Err(self.malformed())
        }
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Trailing bytes are refused.
    pub(crate) fn end(self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::Malformed(self.what)) }
    }
}

/// Appends `u16(len) ‖ bytes`.
pub(crate) fn put_u16_prefixed(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    put_u16_prefixed_pieces(out, &[bytes])
}

/// As [`put_u16_prefixed`], of bytes that lie in pieces.
pub(crate) fn put_u16_prefixed_pieces(out: &mut Vec<u8>, pieces: &[&[u8]]) -> Result<()> {
    let len = pieces.iter().map(|piece| piece.len()).sum::<usize>();
    let len = u16::try_from(len).map_err(|_| Error::TooLarge)?;
    out.extend_from_slice(&len.to_be_bytes());
    for piece in pieces {
        out.extend_from_slice(piece);
    }
    Ok(())
}
