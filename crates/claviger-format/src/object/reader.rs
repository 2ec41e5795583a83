//! The reader: authenticated plaintext out of ciphertext pieces, for whole objects and ranges.

use crate::crc64::Crc64;
use crate::layout::{
    CipherRange, HEADER_LEN, PlainRange, SEGMENT_LEN, covering_single, g, segment_count, segment_len,
};
use crate::metadata::Layout;
use crate::segment::{Opened, Pieces, to_usize};
use crate::suite::{SegmentAead, TAG_LEN};
use crate::unit::{Kind, UnitContext, UnitHeader};
use crate::{Dek, Error, FooterRead, Manifest, OpenedEnvelope, Result, Structure, footer};
use std::sync::Arc;

/// Opens an object, whole or in part. Only authenticated bytes come out; after an error it is dead.
///
/// Feed exactly the bytes of [`ObjectReader::cipher_range`], in order, then call [`ObjectReader::finish`]: without it
/// nothing says that the object was complete. At every moment the bytes released are a true prefix of what was asked
/// for (docs/format.md §3.6).
pub struct ObjectReader<A> {
    dek: Dek,
    source: Source,
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

enum Source {
    Single { context: UnitContext, total_size: u64 },
    Multipart(Arc<Manifest>),
}

enum Step<A> {
    Header { part: usize },
    Segments { part: usize, opened: Opened<A>, index: u64 },
    Pad { left: u64 },
    Footer { len: usize },
    Done,
    Failed,
}

impl Source {
    fn parts(&self) -> usize {
        match self {
            Self::Single { .. } => 1,
            Self::Multipart(manifest) => manifest.entries().len(),
        }
    }

    fn part_len(&self, part: usize) -> u64 {
        match self {
            Self::Single { context, .. } => context.length,
            Self::Multipart(manifest) => manifest.entries()[part].length,
        }
    }

    /// The part's context, complete if its salt is known from an authentic source.
    fn bound_context(&self, part: usize) -> Option<UnitContext> {
        match self {
            Self::Single { context, .. } => Some(*context),
            Self::Multipart(manifest) => {
                let entry = &manifest.entries()[part];
                Some(UnitContext {
                    kind: Kind::Part,
                    number: entry.number,
                    length: entry.length,
                    epoch_id: manifest.epoch_id(),
                    object_id: manifest.object_id(),
                    salt: entry.salt?,
                })
            }
        }
    }

    fn total_size(&self) -> u64 {
        match self {
            Self::Single { total_size, .. } => *total_size,
            Self::Multipart(manifest) => manifest.total_size(),
        }
    }

    /// Lengths of pad and of manifest and footer header.
    fn tail(&self) -> Result<(u64, u64)> {
        let (pad_len, footer_len) = match self {
            Self::Multipart(manifest) => (manifest.pad_len(), manifest.footer_len()),
            Self::Single { context, .. } => {
                let entry = crate::Entry { number: 1, length: context.length, salt: None, crc64: None };
                let footer_len = footer::footer_len(&[entry])?;
                (footer_len - footer::BARE_SINGLE_LEN, footer_len)
            }
        };
        Ok((pad_len, footer_len - pad_len))
    }
}

impl<A: SegmentAead> ObjectReader<A> {
    /// A whole single object of `total_size` stored bytes; `length` comes from the opened envelope
    /// (docs/format.md §3.6). One upstream request; pad, footer and CRC are verified at the end.
    pub fn single(dek: &Dek, envelope: &OpenedEnvelope, total_size: u64) -> Result<Self> {
        let context = single_context(envelope)?;
        if g(context.length) != Some(total_size) {
            return Err(Error::Inconsistent(Structure::Body));
        }
        let source = Source::Single { context, total_size };
        Self::whole(dek, source, context.length)
    }

    /// A range of a single object. The manifest is the proof that the object was ever committed; its verdict may be
    /// cached per object id (docs/format.md §3.7).
    pub fn single_range(
        dek: &Dek,
        envelope: &OpenedEnvelope,
        manifest: &Manifest,
        range: PlainRange,
    ) -> Result<Self> {
        let context = single_context(envelope)?;
        check_single_manifest(&context, manifest)?;
        let fetch = covering_single(context.length, range)?;
        let source = Source::Single { context, total_size: manifest.total_size() };
        let opened = Opened::new(&context.derive(dek, None));
        let index = range.first() / SEGMENT_LEN;
        let mut reader = Self::new(dek, source, fetch, range, 0);
        reader.last_segment = range.last() / SEGMENT_LEN;
        reader.skip = range.first() % SEGMENT_LEN;
        reader.step = Step::Segments { part: 0, opened, index };
        Ok(reader)
    }

    /// A whole multipart object, whose footer has been verified: nothing is released before (docs/format.md §3.6).
    pub fn multipart(dek: &Dek, manifest: &Arc<Manifest>) -> Result<Self> {
        Self::whole(dek, Source::Multipart(Arc::clone(manifest)), manifest.length())
    }

    /// A range of a multipart object. `first_header` is what [`Manifest::covering`] asked for in its field of that
    /// name, 96 bytes.
    pub fn multipart_range(
        dek: &Dek,
        manifest: &Arc<Manifest>,
        range: PlainRange,
        first_header: Option<&[u8]>,
    ) -> Result<Self> {
        let covering = manifest.covering(range)?;
        let (first_part, last_part) = (manifest.part_at(range.first()), manifest.part_at(range.last()));
        let in_part = |part, offset: u64| offset - manifest.part_plain(part).map_or(0, |(start, _)| start);
        let (first, last) = (in_part(first_part, range.first()), in_part(last_part, range.last()));
        let source = Source::Multipart(Arc::clone(manifest));
        let mut reader = Self::new(dek, source, covering.data, range, last_part);
        reader.last_segment = last / SEGMENT_LEN;
        reader.skip = first % SEGMENT_LEN;
        reader.step = match (reader.source.bound_context(first_part), covering.first_header, first_header) {
            (Some(context), _, _) => {
                let opened = Opened::new(&context.derive(&reader.dek, None));
                Step::Segments { part: first_part, opened, index: first / SEGMENT_LEN }
            }
            (None, None, _) => Step::Header { part: first_part },
            (None, Some(_), Some(header)) => {
                let opened = reader.open_unit(first_part, header)?;
                Step::Segments { part: first_part, opened, index: first / SEGMENT_LEN }
            }
            (None, Some(_), None) => return Err(Error::Inconsistent(Structure::UnitHeader)),
        };
        Ok(reader)
    }

    fn whole(dek: &Dek, source: Source, length: u64) -> Result<Self> {
        let fetch = CipherRange::whole(source.total_size());
        let last_part = source.parts() - 1;
        Ok(Self {
            dek: dek.duplicate(),
            fetch,
            plain_len: length,
            skip: 0,
            released: 0,
            last_part,
            last_segment: segment_count(source.part_len(last_part)).saturating_sub(1),
            full: true,
            crc: Crc64::new(),
            held: Vec::new(),
            step: Step::Header { part: 0 },
            source,
        })
    }

    fn new(dek: &Dek, source: Source, fetch: CipherRange, range: PlainRange, last_part: usize) -> Self {
        Self {
            dek: dek.duplicate(),
            source,
            fetch,
            plain_len: range.len(),
            skip: 0,
            released: 0,
            last_part,
            last_segment: 0,
            full: false,
            crc: Crc64::new(),
            held: Vec::new(),
            step: Step::Failed,
        }
    }

    /// The bytes of the stored object to feed, in order and without a gap.
    #[must_use]
    pub fn cipher_range(&self) -> CipherRange {
        self.fetch
    }

    /// Plaintext bytes that will come out.
    #[must_use]
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Plaintext bytes that have come out.
    #[must_use]
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Whether everything has been read and verified, so that [`Self::finish`] will succeed.
    #[must_use]
    pub fn complete(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// Takes the next ciphertext and appends the plaintext of every segment whose tag verified. On an error nothing
    /// of this call stays in `out`, and the reader is dead.
    pub fn push(&mut self, ciphertext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        self.push_pieces(&[ciphertext], out)
    }

    /// As [`Self::push`], for ciphertext in several pieces.
    pub fn push_pieces(&mut self, pieces: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let result = self.drive(&mut Pieces::new(pieces), out);
        if result.is_err() {
            out[start..].fill(0);
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

    fn drive(&mut self, pieces: &mut Pieces<'_, '_>, out: &mut Vec<u8>) -> Result<()> {
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
                    self.step = Step::Footer { len: to_usize(self.source.tail()?.1) };
                    continue;
                }
                Step::Header { .. } => to_usize(HEADER_LEN),
                Step::Footer { len } => *len,
                Step::Segments { part, index, .. } => {
                    to_usize(segment_len(self.source.part_len(*part), *index)) + TAG_LEN
                }
            };
            let missing = len - self.held.len();
            if pieces.remaining() < missing as u64 {
                pieces.drain_into(&mut self.held);
                return Ok(());
            }
            self.take_item(missing, pieces, out)?;
        }
    }

    /// Processes one header, segment or footer that is now complete.
    fn take_item(&mut self, missing: usize, pieces: &mut Pieces<'_, '_>, out: &mut Vec<u8>) -> Result<()> {
        let held = core::mem::take(&mut self.held);
        let mut parts = Vec::with_capacity(8);
        parts.push(&held[..]);
        pieces.take(missing, &mut parts);
        match &self.step {
            Step::Header { part } => {
                let (part, header) = (*part, parts.concat());
                let opened = self.open_unit(part, &header)?;
                self.step = Step::Segments { part, opened, index: 0 };
                if self.source.part_len(part) == 0 {
                    self.next_part(part)?;
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

    fn take_segment(&mut self, sealed: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
        let Step::Segments { part, opened, index } = &mut self.step else { return Err(Error::Poisoned) };
        let start = out.len();
        opened.open_segment(*index, sealed, out)?;
        let part = *part;
        let last_of_part = segment_count(self.source.part_len(part)).saturating_sub(1);
        let last = if part == self.last_part { self.last_segment } else { last_of_part };
        let done = *index >= last;
        *index += 1;
        if self.full {
            self.crc.update(&out[start..]);
        }
        self.trim(start, out);
        if done { self.next_part(part) } else { Ok(()) }
    }

    /// Cuts off what lies before or behind the range.
    fn trim(&mut self, start: usize, out: &mut Vec<u8>) {
        let skip = to_usize(core::mem::take(&mut self.skip));
        out.drain(start..start + skip);
        let left = self.plain_len - self.released;
        let fresh = ((out.len() - start) as u64).min(left);
        out.truncate(start + to_usize(fresh));
        self.released += fresh;
    }

    fn next_part(&mut self, part: usize) -> Result<()> {
        self.step = if part < self.last_part {
            Step::Header { part: part + 1 }
        } else if self.full {
            Step::Pad { left: self.source.tail()?.0 }
        } else {
            Step::Done
        };
        Ok(())
    }

    /// Checks a header in the stream: byte for byte where the salt is known from an authentic source, and by its
    /// commitment otherwise (docs/format.md §3.6).
    fn open_unit(&self, part: usize, header: &[u8]) -> Result<Opened<A>> {
        let header = UnitHeader::parse(header)?;
        let expected = self.source.bound_context(part);
        let context = match (&self.source, expected) {
            (_, Some(context)) => context,
            (Source::Multipart(manifest), None) => {
                let entry = &manifest.entries()[part];
                UnitContext {
                    kind: Kind::Part,
                    number: entry.number,
                    length: entry.length,
                    epoch_id: manifest.epoch_id(),
                    object_id: manifest.object_id(),
                    salt: header.context.salt,
                }
            }
            (Source::Single { context, .. }, None) => *context,
        };
        if header.context != context {
            return Err(Error::Inconsistent(Structure::UnitHeader));
        }
        let keys = context.derive(&self.dek, None);
        header.verify(&keys)?;
        Ok(Opened::new(&keys))
    }

    fn check_footer(&self, tail: &[u8]) -> Result<()> {
        let inconsistent = Error::Inconsistent(Structure::Footer);
        let (epoch_id, object_id) = match &self.source {
            Source::Single { context, .. } => (context.epoch_id, context.object_id),
            Source::Multipart(manifest) => (manifest.epoch_id(), manifest.object_id()),
        };
        let total_size = self.source.total_size();
        let FooterRead::Verified(found) = footer::open(&self.dek, epoch_id, object_id, tail, total_size)?
        else {
            return Err(inconsistent);
        };
        match &self.source {
            Source::Single { context, .. } => check_single_manifest(context, &found)?,
            Source::Multipart(manifest) if **manifest != found => return Err(inconsistent),
            Source::Multipart(_) => {}
        }
        if found.info().crc64.is_some_and(|crc64| crc64 != self.crc.value()) {
            return Err(Error::Inconsistent(Structure::Body));
        }
        Ok(())
    }
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

fn single_context(envelope: &OpenedEnvelope) -> Result<UnitContext> {
    let Layout::Single { salt, length } = envelope.layout else {
        return Err(Error::Inconsistent(Structure::Envelope));
    };
    let (epoch_id, object_id) = (envelope.epoch_id, envelope.object_id);
    Ok(UnitContext { kind: Kind::Single, number: 1, length, epoch_id, object_id, salt })
}

/// A single object's manifest has one bound entry, the very unit that the envelope names (docs/format.md §3.4).
fn check_single_manifest(context: &UnitContext, manifest: &Manifest) -> Result<()> {
    let [entry] = manifest.entries() else { return Err(Error::Inconsistent(Structure::Footer)) };
    let same = manifest.epoch_id() == context.epoch_id
        && manifest.object_id() == context.object_id
        && (entry.number, entry.length, entry.salt) == (1, context.length, Some(context.salt));
    if same { Ok(()) } else { Err(Error::Inconsistent(Structure::Footer)) }
}
