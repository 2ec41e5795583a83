//! Segments: `segment_i = AEAD(key, base_nonce XOR u96(i), "", plaintext_i)` (docs/format.md §3.1).

use crate::crc64::Crc64;
use crate::layout::{SEGMENT_LEN, segment_count, segment_len};
use crate::output::Output;
use crate::suite::{NONCE_LEN, RustCryptoAes256Gcm, SegmentAead, TAG_LEN};
use crate::unit::HEADER_LEN;
use crate::{Error, Result, UnitGrant, UnitKeys};
use zeroize::Zeroizing;

/// The nonce of TLS 1.3 and HPKE, with the whole 96-bit counter.
fn nonce(base: &[u8; NONCE_LEN], index: u64) -> [u8; NONCE_LEN] {
    let mut nonce = *base;
    for (byte, counter) in nonce[4..].iter_mut().zip(index.to_be_bytes()) {
        *byte ^= counter;
    }
    nonce
}

/// Seals the one message of a footer or an envelope.
pub(crate) fn seal_message(keys: &UnitKeys, mut message: Vec<u8>) -> Vec<u8> {
    let tag = RustCryptoAes256Gcm::new(keys.key()).seal(&nonce(keys.base_nonce(), 0), &mut message);
    message.extend_from_slice(&tag);
    message
}

/// Opens the one message of a footer or an envelope, whose commitment has been verified.
pub(crate) fn open_message(keys: &UnitKeys, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
    let (text, tag) = sealed.split_last_chunk::<TAG_LEN>().ok_or(Error::Authentication)?;
    let mut text = Zeroizing::new(text.to_vec());
    RustCryptoAes256Gcm::new(keys.key())
        .open(&nonce(keys.base_nonce(), 0), &mut text, tag)
        .map_err(|_| Error::Authentication)?;
    Ok(text)
}

/// A `usize` that a segment, header or footer length always fits.
pub(crate) fn to_usize(len: u64) -> usize {
    usize::try_from(len).expect("lengths of single items are far below 4 GiB")
}

/// Input that came in several pieces, taken from the front without copying.
pub(crate) struct Pieces<'a, 'p> {
    pieces: &'p [&'a [u8]],
    offset: usize,
    remaining: u64,
}

impl<'a, 'p> Pieces<'a, 'p> {
    pub(crate) fn new(pieces: &'p [&'a [u8]]) -> Self {
        Self { pieces, offset: 0, remaining: total_len(pieces) }
    }

    pub(crate) fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes the next `len` bytes, which must be there, as slices appended to `into`.
    pub(crate) fn take<'b>(&mut self, len: usize, into: &mut Vec<&'b [u8]>)
    where
        'a: 'b,
    {
        let mut missing = len;
        while missing > 0 {
            let piece = self.next_up_to(missing);
            missing -= piece.len();
            into.push(piece);
        }
    }

    /// Takes at most `len_max` bytes of the current piece; empty only at the end.
    pub(crate) fn next_up_to(&mut self, len_max: usize) -> &'a [u8] {
        while let Some((first, rest)) = self.pieces.split_first() {
            let left = &first[self.offset..];
            if left.is_empty() {
                self.pieces = rest;
                self.offset = 0;
                continue;
            }
            let taken = &left[..left.len().min(len_max)];
            self.offset += taken.len();
            self.remaining -= taken.len() as u64;
            return taken;
        }
        &[]
    }

    pub(crate) fn drain_into(&mut self, buffer: &mut Vec<u8>) {
        self.copy_into(to_usize(self.remaining), buffer);
    }

    /// Takes the next `len` bytes, which must be there, as copies appended to `into`.
    pub(crate) fn copy_into(&mut self, len: usize, into: &mut Vec<u8>) {
        let mut missing = len;
        while missing > 0 {
            let piece = self.next_up_to(missing);
            missing -= piece.len();
            into.extend_from_slice(piece);
        }
    }
}

pub(crate) fn total_len(pieces: &[&[u8]]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Seals one unit: header, then segments. Holds less than one segment of plaintext, or all of the last one when told
/// to keep it back.
pub(crate) struct UnitSealer<A> {
    aead: A,
    base_nonce: [u8; NONCE_LEN],
    header: Option<[u8; HEADER_LEN]>,
    length: u64,
    taken: u64,
    next_index: u64,
    held: Zeroizing<Vec<u8>>,
    hold_last: bool,
    crc: Crc64,
}

impl<A: SegmentAead> UnitSealer<A> {
    pub(crate) fn new(grant: UnitGrant, hold_last: bool) -> Self {
        Self {
            aead: A::new(grant.keys().key()),
            base_nonce: *grant.keys().base_nonce(),
            header: Some(grant.header().encode()),
            length: grant.context().length,
            taken: 0,
            next_index: 0,
            held: Zeroizing::default(),
            hold_last,
            crc: Crc64::new(),
        }
    }

    pub(crate) fn crc64(&self) -> u64 {
        self.crc.value()
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Plaintext bytes that are still missing to the next full segment (or to the end of the unit).
    pub(crate) fn until_segment(&self) -> u64 {
        segment_len(self.length, self.next_index) - self.held.len() as u64
    }

    /// Bytes that pushing `incoming` more bytes of plaintext emits.
    pub(crate) fn emits(&self, incoming: u64) -> u64 {
        let held_back = self.hold_last && self.length == 0;
        let header = if self.header.is_some() && !held_back { HEADER_LEN as u64 } else { 0 };
        let rest = self.length.saturating_sub(self.next_index * SEGMENT_LEN);
        let available = self.held.len() as u64 + incoming;
        let whole = available >= rest;
        let mut segments = if whole { segment_count(rest) } else { available / SEGMENT_LEN };
        if whole && self.hold_last {
            segments = segments.saturating_sub(1);
        }
        header + rest.min(segments * SEGMENT_LEN) + segments * TAG_LEN as u64
    }

    /// Seals what is complete into the front of `out`, which holds at least [`Self::emits`] bytes, and gives their
    /// number.
    pub(crate) fn push_into(&mut self, pieces: &[&[u8]], out: &mut [u8]) -> Result<usize> {
        let incoming = total_len(pieces);
        let got = self.taken.saturating_add(incoming);
        if got > self.length {
            return Err(Error::LengthMismatch { expected: self.length, got });
        }
        let emitted = self.emits(incoming);
        let capacity = out.len() as u64;
        if capacity < emitted {
            return Err(Error::LengthMismatch { expected: emitted, got: capacity });
        }
        let emitted = to_usize(emitted);
        self.taken = got;
        let mut pieces = Pieces::new(pieces);
        let mut out = &mut out[..emitted];
        if !(self.hold_last && self.length == 0) {
            out = self.put_header(out);
        }
        while !out.is_empty() {
            out = self.seal_next(&mut pieces, out);
        }
        self.hold(&mut pieces);
        Ok(emitted)
    }

    /// What [`Self::finish_into`] will emit.
    pub(crate) fn finish_len(&self) -> usize {
        let tag = if self.held.is_empty() { 0 } else { TAG_LEN };
        self.header.map_or(0, |header| header.len()) + self.held.len() + tag
    }

    /// Emits what was held back. Fails on short input.
    pub(crate) fn finish_into(&mut self, out: &mut [u8]) -> Result<()> {
        if self.taken != self.length {
            return Err(Error::LengthMismatch { expected: self.length, got: self.taken });
        }
        let out = self.put_header(out);
        if !self.held.is_empty() {
            self.seal_next(&mut Pieces::new(&[]), out);
        }
        Ok(())
    }

    fn put_header<'o>(&mut self, out: &'o mut [u8]) -> &'o mut [u8] {
        let Some(header) = self.header.take() else { return out };
        let (head, rest) = out.split_at_mut(header.len());
        head.copy_from_slice(&header);
        rest
    }

    /// Keeps what is left of the pieces, less than a segment or the last one.
    fn hold(&mut self, pieces: &mut Pieces<'_, '_>) {
        // All of it at once: growing bit by bit would leave copies of plaintext behind.
        let room = to_usize(segment_len(self.length, self.next_index));
        if pieces.remaining() > 0 && self.held.capacity() < room {
            let mut held = Zeroizing::new(Vec::with_capacity(room));
            held.extend_from_slice(&self.held);
            self.held = held;
        }
        self.hold_up_to(room, pieces);
    }

    /// Keeps the next bytes of the pieces until `len` are held or no more come.
    fn hold_up_to(&mut self, len: usize, pieces: &mut Pieces<'_, '_>) {
        while pieces.remaining() > 0 && self.held.len() < len {
            let piece = pieces.next_up_to(len - self.held.len());
            self.held.extend_from_slice(piece);
            self.crc.update(piece);
        }
    }

    /// Seals the next segment from what is held and what comes; both together suffice. Where something is held already the
    /// rest joins it, so that no byte is copied twice; the CRC follows each copy and each sealing, while the bytes are still in
    /// the processor's cache.
    fn seal_next<'o>(&mut self, pieces: &mut Pieces<'_, '_>, out: &'o mut [u8]) -> &'o mut [u8] {
        let len = to_usize(segment_len(self.length, self.next_index));
        let (sealed, rest) = out.split_at_mut(len + TAG_LEN);
        let nonce = nonce(&self.base_nonce, self.next_index);
        if self.held.is_empty() {
            let mut parts = Vec::with_capacity(8);
            pieces.take(len, &mut parts);
            self.aead.seal_gather(&nonce, &parts, sealed);
            for part in parts {
                self.crc.update(part);
            }
        } else {
            self.hold_up_to(len, pieces);
            self.aead.seal_gather(&nonce, &[&self.held], sealed);
            self.held.clear();
        }
        self.next_index += 1;
        rest
    }
}

/// A unit whose key has been authenticated: the only thing that can open a segment.
pub(crate) struct Opened<A> {
    aead: A,
    base_nonce: [u8; NONCE_LEN],
}

impl<A: SegmentAead> Opened<A> {
    /// `keys` MUST come from a verified commitment or from an authenticated envelope or manifest (salt and length).
    pub(crate) fn new(keys: &UnitKeys) -> Self {
        Self { aead: A::new(keys.key()), base_nonce: *keys.base_nonce() }
    }

    /// Opens segment `index` and appends its plaintext; on failure nothing is left in `out`.
    pub(crate) fn open_segment(&self, index: u64, sealed: &[&[u8]], out: &mut impl Output) -> Result<()> {
        let start = out.len();
        let len = to_usize(total_len(sealed)).checked_sub(TAG_LEN).ok_or(Error::Authentication)?;
        let room = out.grow(len);
        if self.aead.open_gather(&nonce(&self.base_nonce, index), sealed, room).is_ok() {
            return Ok(());
        }
        room.fill(0);
        out.truncate(start);
        Err(Error::Authentication)
    }
}
