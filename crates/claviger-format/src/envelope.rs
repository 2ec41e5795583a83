//! The metadata envelope: base64url(header kind 4 ‖ AEAD(TLVs)), bound to bucket and key (docs/format.md §5.1).
//!
//! Its key is derived with the name as `extra`, so the commitment is a MAC of the name under the object's own key.

use crate::encoding::{base64url, unbase64url};
use crate::metadata;
use crate::segment::{open_message, seal_message};
use crate::suite::TAG_LEN;
use crate::unit::{HEADER_LEN, Kind, UnitGrant, UnitHeader, UnitRequest};
use crate::{Dek, EpochId, Error, ObjectId, ObjectName, Random, Result, Structure, UnitKeys};

pub use crate::metadata::{Layout, Metadata, SystemHeader};

/// Name of the one user-metadata header: `x-amz-meta-claviger`.
pub const METADATA_NAME: &str = "claviger";
/// Bytes of TLVs that fit S3's 2,048 bytes of user metadata (docs/format.md §5.2).
pub const TLV_LEN_MAX_S3: usize = 1_418;
/// Most TLV bytes that any reader takes, whatever the upstream.
pub const TLV_LEN_LIMIT: usize = 16_384;

const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// A parsed envelope; nothing in it is authenticated yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    header: UnitHeader,
    sealed: Vec<u8>,
}

/// What an envelope says, opened under the name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedEnvelope {
    /// The epoch whose key sealed the object.
    pub epoch_id: EpochId,
    /// The object version.
    pub object_id: ObjectId,
    /// How the body is cut.
    pub layout: Layout,
    /// What the client gave along.
    pub metadata: Metadata,
}

impl Envelope {
    /// Parses the header's text: canonical base64url without padding, kind 4, exact length.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > (OVERHEAD + TLV_LEN_LIMIT).div_ceil(3) * 4 {
            return Err(Error::Malformed(Structure::Envelope));
        }
        let bytes = unbase64url(text, Structure::Envelope)?;
        let (header, sealed) =
            bytes.split_first_chunk::<HEADER_LEN>().ok_or(Error::Malformed(Structure::Envelope))?;
        let header = UnitHeader::parse(header)?;
        if header.context.kind != Kind::Envelope
            || sealed.len() as u64 != header.context.length + TAG_LEN as u64
        {
            return Err(Error::Malformed(Structure::Envelope));
        }
        Ok(Self { header, sealed: sealed.to_vec() })
    }

    /// The text that [`Self::parse`] takes.
    pub fn to_text(&self) -> String {
        base64url(&[&self.header.encode()[..], &self.sealed].concat())
    }

    /// The epoch that the envelope names, not yet authenticated: where to get a key.
    pub fn epoch_id(&self) -> EpochId {
        self.header.context.epoch_id
    }

    /// The object version that the envelope names, not yet authenticated.
    pub fn object_id(&self) -> ObjectId {
        self.header.context.object_id
    }

    /// What commits the envelope to its key, and to the name that went into it; not verified (docs/format.md §2.10).
    pub fn commitment(&self) -> &[u8; 32] {
        &self.header.commitment
    }

    /// Bytes of what is sealed, with its tag; the header not counted.
    pub fn sealed_len(&self) -> usize {
        self.sealed.len()
    }

    /// The 96 header bytes, for the key service's `derive`.
    pub fn header_bytes(&self) -> [u8; HEADER_LEN] {
        self.header.encode()
    }

    /// Verifies the name and opens. [`Error::BindingMismatch`] if it was sealed under another name or key.
    pub fn open(&self, dek: &Dek, name: &ObjectName) -> Result<OpenedEnvelope> {
        self.open_with_unit_keys(&self.header.context.derive(dek, Some(name)))
    }

    /// Opens with the 76-byte unit keys that the key service released for this envelope and name (`head`).
    pub fn open_with_unit_keys(&self, keys: &UnitKeys) -> Result<OpenedEnvelope> {
        self.header.verify(keys).map_err(|_| Error::BindingMismatch)?;
        let (layout, metadata) = metadata::decode(&open_message(keys, &self.sealed)?)?;
        Ok(OpenedEnvelope { epoch_id: self.epoch_id(), object_id: self.object_id(), layout, metadata })
    }
}

/// Seals metadata under a name. A copy is: open under the source's name, seal under the destination's with the same
/// key, ids and layout (docs/format.md §5.4).
///
/// `tlv_len_max` is the upstream's budget, [`TLV_LEN_MAX_S3`] for S3; above it the error is
/// [`Error::MetadataTooLarge`].
#[allow(clippy::too_many_arguments, reason = "each is a different type, and all of them are bound together")]
pub fn seal(
    dek: &Dek,
    epoch_id: EpochId,
    object_id: ObjectId,
    name: &ObjectName,
    layout: &Layout,
    metadata: &Metadata,
    tlv_len_max: usize,
    rng: &dyn Random,
) -> Result<String> {
    let tlvs = metadata::encode(layout, metadata)?;
    let (len, len_max) = (tlvs.len(), tlv_len_max.min(TLV_LEN_LIMIT));
    if len > len_max {
        return Err(Error::MetadataTooLarge { len, len_max });
    }
    let request = UnitRequest::envelope(epoch_id, object_id, name, len as u64);
    Ok(seal_tlvs(UnitGrant::draw(dek, &request, rng)?, tlvs))
}

/// As [`seal`], with the keys that a key service released for exactly this name and TLV length (`copy-source`).
pub fn seal_granted(grant: UnitGrant, layout: &Layout, metadata: &Metadata) -> Result<String> {
    grant.expect_kind(Kind::Envelope)?;
    let tlvs = metadata::encode(layout, metadata)?;
    if tlvs.len() as u64 != grant.context().length {
        return Err(Error::Inconsistent(Structure::Envelope));
    }
    Ok(seal_tlvs(grant, tlvs))
}

/// Consumes the grant, which is for one envelope (docs/format.md §8, rule R1) of so many bytes.
fn seal_tlvs(grant: UnitGrant, tlvs: Vec<u8>) -> String {
    debug_assert_eq!(tlvs.len() as u64, grant.context().length);
    Envelope { header: grant.header(), sealed: seal_message(grant.keys(), tlvs) }.to_text()
}

/// Encoded length of the TLV list in bytes.
pub fn tlv_len(layout: &Layout, metadata: &Metadata) -> Result<usize> {
    Ok(metadata::encode(layout, metadata)?.len())
}

/// Checks that the envelope header `header` (96 bytes) was sealed under `name`, and gives the envelope's unit keys:
/// the key service's side of `derive` and `head` (docs/format.md §2.7).
///
/// Refuses every header that is not kind 4.
pub fn verify_binding(header: &[u8], dek: &Dek, name: &ObjectName) -> Result<UnitKeys> {
    let header = UnitHeader::parse(header)?;
    if header.context.kind != Kind::Envelope {
        return Err(Error::Malformed(Structure::Envelope));
    }
    header.open_keys(dek, Some(name)).map_err(|_| Error::BindingMismatch)
}
