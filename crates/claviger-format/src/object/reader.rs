//! The reader: authenticated plaintext out of ciphertext pieces, for whole objects and ranges.

use crate::crc64::Crc64;
use crate::layout::{CipherRange, HEADER_LEN, PlainRange, SEGMENT_LEN, segment_count, segment_len};
use crate::metadata::Layout;
use crate::output::Output;
use crate::segment::{Opened, Pieces, to_usize};
use crate::suite::{SegmentAead, TAG_LEN};
use crate::unit::{Kind, UnitContext, UnitHeader};
use crate::{Dek, Entry, Error, FooterRead, Manifest, OpenedEnvelope, Result, Salt, Structure, footer};
use std::sync::Arc;

/// Opens an object, whole or in part. Only authenticated bytes come out; after an error it is dead.
///
/// Feed exactly the bytes of [`ObjectReader::cipher_range`], in order, then call [`ObjectReader::finish`]: without it
/// nothing says that the object was complete. At every moment the bytes released are a true prefix of what was asked
/// for (docs/format.md §3.6).
pub struct ObjectReader<A> {
    dek: Dek,
    kind: Kind,
    /// The parts and where they lie. Of a whole single object: what its footer will have to say.
    manifest: Arc<Manifest>,
    fetch: CipherRange,
    plain_len: u64,
    /// Plaintext of the current segment that lies before the range.
    skip: u64,
    released: u64,
    last_part: usize,
    /// Where the range ends: segment index in the last part, inclusive; the last one of every other part.
    last_segment: u64,
    full: bool,
    crc: Crc64,
    held: Vec<u8>,
    step: Step<A>,
}

enum Step<A> {
    Header { part: usize },
    Segments { part: usize, opened: Opened<A>, index: u64 },
    Pad { left: u64 },
    Footer { len: usize },
    Done,
    Failed,
}

impl<A: SegmentAead> ObjectReader<A> {
    /// A whole single object of `total_size` stored bytes; `length` comes from the opened envelope
    /// (docs/format.md §3.6). One upstream request; pad, footer and CRC are verified at the end.
    pub fn single(dek: &Dek, envelope: &OpenedEnvelope, total_size: u64) -> Result<Self> {
        let expected = expected_of_single(envelope)?;
        if expected.total_size() != total_size {
            return Err(Error::Inconsistent(Structure::Body));
        }
        Ok(Self::whole(dek, Kind::Single, Arc::new(expected)))
    }

    /// A range of a single object. The manifest is the proof that the object was ever committed; its verdict may be
    /// cached per object id (docs/format.md §3.7).
    pub fn single_range(
        dek: &Dek,
        envelope: &OpenedEnvelope,
        manifest: &Manifest,
        range: PlainRange,
    ) -> Result<Self> {
        if !manifest.same_parts(&expected_of_single(envelope)?) {
            return Err(Error::Inconsistent(Structure::Footer));
        }
        Self::ranged(dek, Kind::Single, Arc::new(manifest.clone()), range, None)
    }

    /// A whole multipart object, whose footer has been verified: nothing is released before (docs/format.md §3.6).
    pub fn multipart(dek: &Dek, manifest: &Arc<Manifest>) -> Result<Self> {
        Ok(Self::whole(dek, Kind::Part, Arc::clone(manifest)))
    }

    /// A range of a multipart object. `first_header` is what [`Manifest::covering`] asked for in its field of that
    /// name, 96 bytes.
    pub fn multipart_range(
        dek: &Dek,
        manifest: &Arc<Manifest>,
        range: PlainRange,
        first_header: Option<&[u8]>,
    ) -> Result<Self> {
        Self::ranged(dek, Kind::Part, Arc::clone(manifest), range, first_header)
    }

    /// A whole object of which nothing but the stored bytes is left, of the kind that its first header says; its footer has
    /// been verified (docs/format.md §8.1). What comes out is one committed object. Under which name, nothing says.
    pub fn unnamed(dek: &Dek, kind: Kind, manifest: &Arc<Manifest>) -> Result<Self> {
        let sound = match (kind, manifest.entries()) {
            (Kind::Single, [entry]) => entry.number == 1 && entry.salt.is_some(),
            (Kind::Part, _) => true,
            _ => false,
        };
        if !sound {
            return Err(Error::Inconsistent(Structure::Footer));
        }
        Ok(Self::whole(dek, kind, Arc::clone(manifest)))
    }

    fn whole(dek: &Dek, kind: Kind, manifest: Arc<Manifest>) -> Self {
        let last_part = manifest.entries().len() - 1;
        Self {
            dek: dek.duplicate(),
            kind,
            fetch: CipherRange::whole(manifest.total_size()),
            plain_len: manifest.length(),
            skip: 0,
            released: 0,
            last_part,
            last_segment: last_segment(manifest.entries()[last_part].length),
            full: true,
            crc: Crc64::new(),
            held: Vec::new(),
            step: Step::Header { part: 0 },
            manifest,
        }
    }

    fn ranged(
        dek: &Dek,
        kind: Kind,
        manifest: Arc<Manifest>,
        range: PlainRange,
        first_header: Option<&[u8]>,
    ) -> Result<Self> {
        let covering = manifest.covering(range)?;
        let (part, first) = manifest.locate(range.first());
        let (last_part, last) = manifest.locate(range.last());
        let mut reader = Self::whole(dek, kind, manifest);
        reader.full = false;
        reader.fetch = covering.data;
        reader.plain_len = range.len();
        reader.skip = first % SEGMENT_LEN;
        reader.last_part = last_part;
        reader.last_segment = last / SEGMENT_LEN;
        let salt = reader.manifest.entries()[part].salt;
        let opened = match (salt, covering.first_header, first_header) {
            (Some(salt), ..) => {
                // Of an authenticated envelope or manifest.
                let context = reader.context(part, salt);
                let keys = context.derive(dek, None);
                dek.remember_unit(&context, &keys);
                Opened::new(&keys)
            }
            (None, None, _) => {
                reader.step = Step::Header { part };
                return Ok(reader);
            }
            (None, Some(_), Some(header)) => reader.open_unit(part, header)?,
            (None, Some(_), None) => return Err(Error::Inconsistent(Structure::UnitHeader)),
        };
        reader.step = Step::Segments { part, opened, index: first / SEGMENT_LEN };
        Ok(reader)
    }

    fn part_len(&self, part: usize) -> u64 {
        self.manifest.entries()[part].length
    }

    fn context(&self, part: usize, salt: Salt) -> UnitContext {
        let (epoch_id, object_id) = (self.manifest.epoch_id(), self.manifest.object_id());
        let Entry { number, length, .. } = self.manifest.entries()[part];
        UnitContext { kind: self.kind, number, length, epoch_id, object_id, salt }
    }

    /// The bytes of the stored object to feed, in order and without a gap.
    pub fn cipher_range(&self) -> CipherRange {
        self.fetch
    }

    /// Plaintext bytes that will come out.
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Plaintext bytes that have come out.
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Whether everything has been read and verified, so that [`Self::finish`] will succeed.
    pub fn complete(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Takes the next ciphertext and appends the plaintext of every segment whose tag verified. On an error nothing
    /// of this call stays in `out`, and the reader is dead.
    pub fn push(&mut self, ciphertext: &[u8], out: &mut impl Output) -> Result<()> {
        self.push_pieces(&[ciphertext], out)
    }

    /// As [`Self::push`], for ciphertext in several pieces.
    pub fn push_pieces(&mut self, pieces: &[&[u8]], out: &mut impl Output) -> Result<()> {
        let start = out.len();
        let result = self.drive(&mut Pieces::new(pieces), out);
        if result.is_err() {
            out.bytes_mut()[start..].fill(0);
            out.truncate(start);
            self.step = Step::Failed;
        }
        result
    }

    /// Succeeds only if everything came and verified.
    pub fn finish(self) -> Result<()> {
        match self.step {
            Step::Done if self.released == self.plain_len => Ok(()),
            Step::Failed => Err(Error::Poisoned),
            _ => Err(Error::LengthMismatch { expected: self.plain_len, got: self.released }),
        }
    }

    fn drive(&mut self, pieces: &mut Pieces<'_, '_>, out: &mut impl Output) -> Result<()> {
        loop {
            let len = match &mut self.step {
                Step::Failed => return Err(Error::Poisoned),
                Step::Done if pieces.remaining() == 0 => return Ok(()),
                Step::Done => {
                    let expected = self.fetch.len();
                    return Err(Error::LengthMismatch { expected, got: expected + pieces.remaining() });
                }
                Step::Pad { left } => {
                    take_pad(left, pieces)?;
                    if *left > 0 {
                        return Ok(());
                    }
                    let len = self.manifest.footer_len() - self.manifest.pad_len();
                    self.step = Step::Footer { len: to_usize(len) };
                    continue;
                }
                Step::Header { .. } => to_usize(HEADER_LEN),
                Step::Footer { len } => *len,
                Step::Segments { part, index, .. } => {
                    to_usize(segment_len(self.manifest.entries()[*part].length, *index)) + TAG_LEN
                }
            };
            let missing = len - self.held.len();
            if pieces.remaining() < missing as u64 {
                self.held.reserve_exact(missing);
                pieces.drain_into(&mut self.held);
                return Ok(());
            }
            self.take_item(missing, pieces, out)?;
        }
    }

    /// Processes one header, segment or footer that is now complete. Where something is held already the rest joins it, so that
    /// no byte is copied twice.
    fn take_item(
        &mut self,
        missing: usize,
        pieces: &mut Pieces<'_, '_>,
        out: &mut impl Output,
    ) -> Result<()> {
        let mut held = core::mem::take(&mut self.held);
        let mut parts = Vec::with_capacity(8);
        if held.is_empty() {
            pieces.take(missing, &mut parts);
        } else {
            pieces.copy_into(missing, &mut held);
            parts.push(&held[..]);
        }
        match &self.step {
            Step::Header { part } => {
                let (part, header) = (*part, parts.concat());
                let opened = self.open_unit(part, &header)?;
                self.step = Step::Segments { part, opened, index: 0 };
                if self.part_len(part) == 0 {
                    self.next_part(part);
                }
            }
            Step::Segments { .. } => self.take_segment(&parts, out)?,
            Step::Footer { .. } => {
                self.check_footer(&parts.concat())?;
                self.step = Step::Done;
            }
            Step::Pad { .. } | Step::Done | Step::Failed => return Err(Error::Poisoned),
        }
        self.held = held;
        self.held.clear();
        Ok(())
    }

    fn take_segment(&mut self, sealed: &[&[u8]], out: &mut impl Output) -> Result<()> {
        let Step::Segments { part, opened, index } = &mut self.step else { return Err(Error::Poisoned) };
        let start = out.len();
        opened.open_segment(*index, sealed, out)?;
        let part = *part;
        let last_of_part = last_segment(self.manifest.entries()[part].length);
        let last = if part == self.last_part { self.last_segment } else { last_of_part };
        let done = *index >= last;
        *index += 1;
        if self.full {
            self.crc.update(&out.bytes_mut()[start..]);
        }
        self.trim(start, out);
        if done {
            self.next_part(part);
        }
        Ok(())
    }

    /// Cuts off what lies before or behind the range.
    fn trim(&mut self, start: usize, out: &mut impl Output) {
        let skip = to_usize(core::mem::take(&mut self.skip));
        out.cut_out(start, skip);
        let left = self.plain_len - self.released;
        let fresh = ((out.len() - start) as u64).min(left);
        out.truncate(start + to_usize(fresh));
        self.released += fresh;
    }

    fn next_part(&mut self, part: usize) {
        self.step = if part < self.last_part {
            Step::Header { part: part + 1 }
        } else if self.full {
            Step::Pad { left: self.manifest.pad_len() }
        } else {
            Step::Done
        };
    }

    /// Checks a header in the stream: its context where the salt is known from an authentic source, and always its
    /// commitment (docs/format.md §3.6).
    fn open_unit(&self, part: usize, header: &[u8]) -> Result<Opened<A>> {
        let header = UnitHeader::parse(header)?;
        let salt = self.manifest.entries()[part].salt.unwrap_or(header.context.salt);
        if header.context != self.context(part, salt) {
            return Err(Error::Inconsistent(Structure::UnitHeader));
        }
        Ok(Opened::new(&header.open_keys(&self.dek, None)?))
    }

    /// A single object's footer must list the unit that the envelope named; a multipart object's must be the one that
    /// was verified before.
    fn check_footer(&self, tail: &[u8]) -> Result<()> {
        let known = &*self.manifest;
        let read = footer::open(&self.dek, known.epoch_id(), known.object_id(), tail, known.total_size())?;
        let FooterRead::Verified(found) = read else { return Err(Error::Inconsistent(Structure::Footer)) };
        if !(if self.kind == Kind::Single { found.same_parts(known) } else { found == *known }) {
            return Err(Error::Inconsistent(Structure::Footer));
        }
        if found.info().crc64.is_some_and(|crc64| crc64 != self.crc.value()) {
            return Err(Error::Inconsistent(Structure::Body));
        }
        Ok(())
    }
}

fn last_segment(length: u64) -> u64 {
    segment_count(length).saturating_sub(1)
}

fn take_pad(left: &mut u64, pieces: &mut Pieces<'_, '_>) -> Result<()> {
    while *left > 0 && pieces.remaining() > 0 {
        let piece = pieces.next_up_to(usize::try_from(*left).unwrap_or(usize::MAX));
        if piece.iter().any(|b| *b != 0) {
            return Err(Error::Malformed(Structure::Pad));
        }
        *left -= piece.len() as u64;
    }
    Ok(())
}

/// A single object's manifest has one bound entry, the very unit that the envelope names (docs/format.md §3.4).
fn expected_of_single(envelope: &OpenedEnvelope) -> Result<Manifest> {
    let Layout::Single { salt, length } = envelope.layout else {
        return Err(Error::Inconsistent(Structure::Envelope));
    };
    let entry = Entry { number: 1, length, salt: Some(salt), crc64: None };
    Manifest::expected(envelope.epoch_id, envelope.object_id, vec![entry])
}
