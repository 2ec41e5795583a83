//! Writers of single bodies and of parts.

use crate::layout::{g, h};
use crate::output::Output;
use crate::segment::{UnitSealer, to_usize};
use crate::suite::SegmentAead;
use crate::unit::{Kind, UnitGrant, UnitRequest};
use crate::{
    Checksum, Dek, Entry, EpochId, Error, FooterInfo, ObjectId, Random, Result, Salt, Structure, footer,
};

/// What a finished part came to; goes into the part's ETag and into the manifest. A single body is part 1.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PartState {
    /// Client part number.
    pub number: u16,
    /// Plaintext bytes.
    pub length: u64,
    /// Salt of the part's unit.
    pub salt: Salt,
    /// CRC64NVME of the plaintext.
    pub crc64: u64,
}

/// What a finished single body came to.
pub type BodySummary = PartState;

impl core::fmt::Debug for PartState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PartState({}, {} bytes, {:?})", self.number, self.length, self.salt)
    }
}

impl PartState {
    /// The part's bound manifest entry.
    pub fn entry(&self) -> Entry {
        Entry { number: self.number, length: self.length, salt: Some(self.salt), crc64: Some(self.crc64) }
    }
}

/// The pushing half that both writers share.
macro_rules! pushing {
    () => {
        /// Salt of the unit.
        pub fn salt(&self) -> Salt {
            self.salt
        }

        /// Plaintext bytes taken so far.
        pub fn taken(&self) -> u64 {
            self.sealer.taken()
        }

        /// CRC64NVME of the plaintext taken so far.
        pub fn crc64(&self) -> u64 {
            self.sealer.crc64()
        }

        /// Plaintext bytes still missing to the next full segment, or to the end of the body. A caller that pushes
        /// exactly so many, in pieces, has them sealed without a copy in between.
        pub fn until_segment(&self) -> u64 {
            self.sealer.until_segment()
        }

        /// Bytes that a push of `incoming` more plaintext bytes emits.
        pub fn emits(&self, incoming: u64) -> u64 {
            self.sealer.emits(incoming)
        }

        /// Takes the next plaintext and appends what is complete. Fails on more than the declared length.
        pub fn push(&mut self, plaintext: &[u8], out: &mut impl Output) -> Result<()> {
            self.push_pieces(&[plaintext], out)
        }

        /// As [`Self::push`], for plaintext in several pieces.
        pub fn push_pieces(&mut self, pieces: &[&[u8]], out: &mut impl Output) -> Result<()> {
            let incoming = crate::segment::total_len(pieces);
            // A push beyond the declared length fails below and emits nothing.
            let fits = self.sealer.taken().saturating_add(incoming) <= self.length;
            let emits = if fits { to_usize(self.sealer.emits(incoming)) } else { 0 };
            let start = out.len();
            self.push_into(pieces, out.grow(emits)).map(|_| ()).inspect_err(|_| out.truncate(start))
        }

        /// As [`Self::push_pieces`], into the front of a buffer of at least [`Self::emits`] bytes (one that is reused
        /// need not be cleared); gives the number of bytes written.
        pub fn push_into(&mut self, pieces: &[&[u8]], out: &mut [u8]) -> Result<usize> {
            if self.failed {
                return Err(Error::Poisoned);
            }
            let result = self.sealer.push_into(pieces, out);
            self.failed = result.is_err();
            result
        }

        fn finish_unit(&mut self, out: &mut impl Output) -> Result<()> {
            if self.failed {
                return Err(Error::Poisoned);
            }
            let start = out.len();
            let room = out.grow(self.sealer.finish_len());
            self.sealer.finish_into(room).inspect_err(|_| out.truncate(start))
        }
    };
}

/// Seals an object that comes as one stream: header, segments, and at the end the footer (docs/format.md §3.2).
pub struct BodyWriter<A> {
    sealer: UnitSealer<A>,
    footer: UnitGrant,
    salt: Salt,
    length: u64,
    sealed_len: u64,
    failed: bool,
}

impl<A: SegmentAead> BodyWriter<A> {
    /// Begins an object of exactly `length` plaintext bytes, at most 2^40. Draws fresh salts.
    pub fn begin(
        dek: &Dek,
        epoch_id: EpochId,
        object_id: ObjectId,
        length: u64,
        rng: &dyn Random,
    ) -> Result<Self> {
        let body = UnitGrant::draw(dek, &UnitRequest::single(epoch_id, object_id, length), rng)?;
        let footer = UnitGrant::draw(dek, &UnitRequest::footer(epoch_id, object_id, 1, length), rng)?;
        Self::with_grants(body, footer)
    }

    pub(crate) fn with_grants(body: UnitGrant, footer: UnitGrant) -> Result<Self> {
        let (salt, length) = (body.context().salt, body.context().length);
        let sealed_len = g(length).ok_or(Error::TooLarge)?;
        Ok(Self { sealer: UnitSealer::new(body, false), footer, salt, length, sealed_len, failed: false })
    }

    /// Bytes of the whole object, g(length): the Content-Length to declare upstream.
    pub fn sealed_len(&self) -> u64 {
        self.sealed_len
    }

    pushing!();

    /// Appends the footer, after every checksum of the client has verified: its arrival upstream is the commit. Fails
    /// on short input.
    pub fn finish(
        mut self,
        created_ms: u64,
        checksum: Option<Checksum>,
        out: &mut impl Output,
    ) -> Result<PartState> {
        self.finish_unit(out)?;
        let part = PartState { number: 1, length: self.length, salt: self.salt, crc64: self.crc64() };
        let info = FooterInfo { created_ms, crc64: Some(part.crc64), checksum };
        out.append(&footer::seal_granted(self.footer, &[part.entry()], &info)?);
        Ok(part)
    }
}

/// Seals one part of a multipart upload. The last segment (of an empty part: the header) leaves only with `finish`,
/// so that the part cannot complete upstream before its checksums have verified (docs/format.md §7.4).
pub struct PartWriter<A> {
    sealer: UnitSealer<A>,
    number: u16,
    salt: Salt,
    length: u64,
    sealed_len: u64,
    failed: bool,
}

impl<A: SegmentAead> PartWriter<A> {
    /// Begins part `number` (1 to 10,000) of exactly `length` plaintext bytes. Draws a fresh salt.
    pub fn begin(
        dek: &Dek,
        epoch_id: EpochId,
        object_id: ObjectId,
        number: u16,
        length: u64,
        rng: &dyn Random,
    ) -> Result<Self> {
        let request = UnitRequest::part(epoch_id, object_id, number, length);
        Self::begin_granted(UnitGrant::draw(dek, &request, rng)?)
    }

    /// Begins a part with the keys that the key service released for it (`continue`, docs/format.md §2.8).
    pub fn begin_granted(grant: UnitGrant) -> Result<Self> {
        if grant.context().kind != Kind::Part {
            return Err(Error::Inconsistent(Structure::UnitHeader));
        }
        let context = *grant.context();
        Ok(Self {
            sealer: UnitSealer::new(grant, true),
            number: context.number,
            salt: context.salt,
            length: context.length,
            sealed_len: h(context.length).ok_or(Error::TooLarge)?,
            failed: false,
        })
    }

    /// Bytes of the whole part, h(length): the Content-Length to declare upstream.
    pub fn sealed_len(&self) -> u64 {
        self.sealed_len
    }

    pushing!();

    /// Appends what was held back. Fails on short input.
    pub fn finish(mut self, out: &mut impl Output) -> Result<PartState> {
        self.finish_unit(out)?;
        Ok(PartState { number: self.number, length: self.length, salt: self.salt, crc64: self.crc64() })
    }
}
