//! Unit header and key commitment (docs/format.md §3.1): everything encrypted begins with these 96 bytes.
//!
//! ```text
//!  0 "CLV" 0x01   4 u8 suite   5 u8 kind   6 u16 number   8 u64 length
//! 16 epoch_id    32 object_id 48 salt     64 commitment(32)
//! key ‖ commitment ‖ base_nonce = Expand(DEK, "clv1 unit\0" ‖ header[0..64] ‖ extra, 76)
//! ```

use crate::encoding::Cursor;
use crate::envelope::TLV_LEN_LIMIT;
use crate::layout::{OBJECT_LEN_MAX, PARTS_MAX, UNIT_LEN_MAX};
use crate::suite::SUITE_ID;
use crate::{Dek, EpochId, Error, ObjectId, ObjectName, Random, Result, Salt, Structure, UnitKeys, kdf};
use subtle::ConstantTimeEq;

/// Bytes of a header.
pub const HEADER_LEN: usize = 96;
/// Bytes of a header before the commitment.
pub const CONTEXT_LEN: usize = 64;

const MAGIC: &[u8; 4] = b"CLV\x01";

/// What a unit holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The body of an object that came as one stream.
    Single = 1,
    /// One part of a multipart upload.
    Part = 2,
    /// The manifest at the end of an object.
    Footer = 3,
    /// The metadata envelope.
    Envelope = 4,
}

/// The 64 context bytes of a header; all of them go into the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitContext {
    /// What the unit holds.
    pub kind: Kind,
    /// Single: 1. Part: the client's part number. Footer: number of parts. Envelope: 0.
    pub number: u16,
    /// Plaintext bytes of the unit; footer: of the object; envelope: of the TLV list.
    pub length: u64,
    /// The epoch whose key sealed it.
    pub epoch_id: EpochId,
    /// The object version it belongs to.
    pub object_id: ObjectId,
    /// Fresh for every unit.
    pub salt: Salt,
}

impl UnitContext {
    /// Header bytes 0..64.
    pub fn encode(&self) -> [u8; CONTEXT_LEN] {
        let mut out = [0; CONTEXT_LEN];
        out[..4].copy_from_slice(MAGIC);
        out[4] = SUITE_ID;
        out[5] = self.kind as u8;
        out[6..8].copy_from_slice(&self.number.to_be_bytes());
        out[8..16].copy_from_slice(&self.length.to_be_bytes());
        out[16..32].copy_from_slice(self.epoch_id.as_bytes());
        out[32..48].copy_from_slice(self.object_id.as_bytes());
        out[48..].copy_from_slice(self.salt.as_bytes());
        out
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self> {
        cursor.magic(MAGIC)?;
        if cursor.u8()? != SUITE_ID {
            return Err(Error::Unsupported(Structure::UnitHeader));
        }
        let kind = match cursor.u8()? {
            1 => Kind::Single,
            2 => Kind::Part,
            3 => Kind::Footer,
            4 => Kind::Envelope,
            _ => return Err(Error::Unsupported(Structure::UnitHeader)),
        };
        let context = Self {
            kind,
            number: cursor.u16()?,
            length: cursor.u64()?,
            epoch_id: EpochId::new(cursor.array()?),
            object_id: ObjectId::new(cursor.array()?),
            salt: Salt::new(cursor.array()?),
        };
        context.check()?;
        Ok(context)
    }

    /// Number and length in the bounds of their kind; checked before any allocation that depends on them.
    fn check(&self) -> Result<()> {
        let (number_ok, length_max) = match self.kind {
            Kind::Single => (self.number == 1, UNIT_LEN_MAX),
            Kind::Part => ((1..=PARTS_MAX).contains(&self.number), UNIT_LEN_MAX),
            Kind::Footer => ((1..=PARTS_MAX).contains(&self.number), OBJECT_LEN_MAX),
            Kind::Envelope => (self.number == 0, TLV_LEN_LIMIT as u64),
        };
        if number_ok && self.length <= length_max {
            Ok(())
        } else {
            Err(Error::Malformed(Structure::UnitHeader))
        }
    }

    /// The keys of this unit; `name` for an envelope and for nothing else.
    pub(crate) fn derive(&self, dek: &Dek, name: Option<&ObjectName>) -> UnitKeys {
        debug_assert_eq!(self.kind == Kind::Envelope, name.is_some(), "only envelopes are bound to a name");
        // No envelope's: its keys follow from the name too.
        dek.known_unit(self).unwrap_or_else(|| {
            kdf::unit_keys(dek, &self.encode(), &name.map(ObjectName::extra).unwrap_or_default())
        })
    }
}

/// A parsed header. Its commitment has not been verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitHeader {
    /// Bytes 0..64.
    pub context: UnitContext,
    /// Bytes 64..96: MAC of the context and commitment to the key.
    pub commitment: [u8; 32],
}

impl UnitHeader {
    /// Parses exactly 96 bytes; unknown versions, suites and kinds and impossible numbers are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, Structure::UnitHeader);
        let header = Self { context: UnitContext::read(&mut cursor)?, commitment: cursor.array()? };
        cursor.end()?;
        Ok(header)
    }

    /// The 96 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..CONTEXT_LEN].copy_from_slice(&self.context.encode());
        out[CONTEXT_LEN..].copy_from_slice(&self.commitment);
        out
    }

    /// The keys of this unit, if the commitment says that the header was made with them; `name` for an envelope and for nothing
    /// else. The key remembers what was found genuine ([`Dek::to_keep`]).
    pub(crate) fn open_keys(&self, dek: &Dek, name: Option<&ObjectName>) -> Result<UnitKeys> {
        let keys = self.context.derive(dek, name);
        self.verify(&keys)?;
        dek.remember_unit(&self.context, &keys);
        Ok(keys)
    }

    /// Compares the commitment in constant time; MUST pass before anything is decrypted (docs/format.md §2.10).
    pub(crate) fn verify(&self, keys: &UnitKeys) -> Result<()> {
        if bool::from(self.commitment.ct_eq(keys.commitment())) { Ok(()) } else { Err(Error::Authentication) }
    }
}

/// What unit is asked for, before its salt is drawn.
#[derive(Debug, Clone, Copy)]
pub struct UnitRequest<'a> {
    kind: Kind,
    number: u16,
    length: u64,
    epoch_id: EpochId,
    object_id: ObjectId,
    name: Option<&'a ObjectName>,
}

impl<'a> UnitRequest<'a> {
    fn new(kind: Kind, number: u16, length: u64, epoch_id: EpochId, object_id: ObjectId) -> Self {
        Self { kind, number, length, epoch_id, object_id, name: None }
    }

    /// The body of a single object of `length` bytes.
    pub fn single(epoch_id: EpochId, object_id: ObjectId, length: u64) -> Self {
        Self::new(Kind::Single, 1, length, epoch_id, object_id)
    }

    /// Part `number` of `length` bytes.
    pub fn part(epoch_id: EpochId, object_id: ObjectId, number: u16, length: u64) -> Self {
        Self::new(Kind::Part, number, length, epoch_id, object_id)
    }

    /// The footer of an object of `parts` parts and together `length` bytes.
    pub fn footer(epoch_id: EpochId, object_id: ObjectId, parts: u16, length: u64) -> Self {
        Self::new(Kind::Footer, parts, length, epoch_id, object_id)
    }

    /// An envelope for `name` with `tlv_len` bytes of content, as [`crate::envelope::tlv_len`] counts them.
    pub fn envelope(epoch_id: EpochId, object_id: ObjectId, name: &'a ObjectName, tlv_len: u64) -> Self {
        Self { name: Some(name), ..Self::new(Kind::Envelope, 0, tlv_len, epoch_id, object_id) }
    }

    pub(crate) fn with_salt(&self, dek: &Dek, salt: Salt) -> Result<UnitGrant> {
        let Self { kind, number, length, epoch_id, object_id, name } = *self;
        let context = UnitContext { kind, number, length, epoch_id, object_id, salt };
        context.check()?;
        Ok(UnitGrant { context, keys: context.derive(dek, name) })
    }
}

/// The right to seal exactly one unit: its context with a fresh salt, and its keys. Not Clone; sealing consumes it
/// (docs/format.md §8, rule R1).
#[derive(Debug)]
pub struct UnitGrant {
    context: UnitContext,
    keys: UnitKeys,
}

impl UnitGrant {
    /// Draws the salt and derives the keys (by whoever holds the DEK; docs/format.md §2.7).
    pub fn draw(dek: &Dek, request: &UnitRequest<'_>, rng: &dyn Random) -> Result<Self> {
        request.with_salt(dek, Salt::draw(rng)?)
    }

    /// From the answer of a key service that drew the salt. MUST be made once per answer: the answer is the right to
    /// seal one unit.
    pub fn new(context: UnitContext, keys: UnitKeys) -> Result<Self> {
        context.check()?;
        Ok(Self { context, keys })
    }

    /// What the unit will be.
    pub fn context(&self) -> &UnitContext {
        &self.context
    }

    /// The unit's keys, for the wire between key service and gateway.
    pub fn keys(&self) -> &UnitKeys {
        &self.keys
    }

    pub(crate) fn header(&self) -> UnitHeader {
        UnitHeader { context: self.context, commitment: *self.keys.commitment() }
    }

    pub(crate) fn expect_kind(&self, kind: Kind) -> Result<()> {
        if self.context.kind == kind { Ok(()) } else { Err(Error::Inconsistent(Structure::UnitHeader)) }
    }
}
