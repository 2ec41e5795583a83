//! The part list of a Complete: what the client names, checked, with lengths, salts and checksums.

use std::collections::HashMap;

use claviger_format::crc64;
use claviger_format::footer::Entry;
use claviger_format::layout::{PART_LEN_MIN, PARTS_MAX, h_inverse};
use claviger_format::token::PartTag;
use claviger_format::unit::UnitHeader;
use claviger_format::{Checksum, EtagKey, Salt};
use claviger_s3::checksum::{
    ChecksumAlgorithm, ChecksumType, ChecksumValue, Composite, ObjectChecksum, combine_crc,
};
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::CompleteMultipartUpload;
use claviger_s3::xml::CompletedPart;

use super::NamedUpload;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::ops::checksums;

/// One part that the client names.
pub(crate) struct NamedPart {
    tag: PartTag,
    /// What goes into the manifest.
    pub entry: Entry,
    /// Whether the part lies in the system area.
    pub held: bool,
    /// The checksum that was verified when it was uploaded.
    checksum: Option<ChecksumValue>,
    claimed: Option<ObjectChecksum>,
}

impl NamedPart {
    /// The provider's entity tag.
    pub(crate) fn store_etag(&self) -> &str {
        self.tag.upstream_etag()
    }
}

/// Reads the client's list; entity tags are parsed but not believed.
///
/// # Errors
/// `InvalidPartOrder`, `InvalidPart`, `EntityTooSmall`; the provider's when bare tags need its listing.
pub(crate) async fn read(
    gateway: &Gateway,
    upload: &NamedUpload,
    parts: Vec<CompletedPart>,
) -> Result<Vec<NamedPart>, GatewayError> {
    if parts.is_empty() {
        return Err(S3Error::new(ErrorCode::MalformedXML).into());
    }
    if !parts.is_sorted_by_key(|part| part.part_number) {
        return Err(S3Error::new(ErrorCode::InvalidPartOrder).into());
    }
    let parts = last_of_each(parts);
    let mut tagged = Vec::with_capacity(parts.len());
    for part in parts {
        let tag = PartTag::parse(part.etag.trim_matches('"')).map_err(|_| invalid_part(part.part_number))?;
        let object_id = upload.token.fields().object_id;
        let tag = gateway.repeated_parts.in_place_of(object_id, part.part_number, &tag).unwrap_or(tag);
        tagged.push((part, tag));
    }
    let listed = if tagged.iter().any(|(_, tag)| tag.claimed_state().is_none()) {
        Some(Listed::fetch(gateway, upload).await?)
    } else {
        None
    };
    let mut named = Vec::with_capacity(tagged.len());
    for (part, tag) in tagged {
        let mut part = name_part(part, tag, listed.as_ref())?;
        if part.held && part.entry.salt.is_none() {
            // A held part is always bound: its header tells the salt (docs/format.md §7.3).
            part.entry.salt = Some(held_salt(gateway, upload, part.entry.number).await?);
        }
        named.push(part);
    }
    let non_last = &named[..named.len() - 1];
    if let Some(small) = non_last.iter().find(|part| part.entry.length < PART_LEN_MIN) {
        return Err(S3Error::new(ErrorCode::EntityTooSmall)
            .with_extra("ProposedSize", small.entry.length.to_string())
            .with_extra("MinSizeAllowed", PART_LEN_MIN.to_string())
            .with_extra("PartNumber", small.entry.number.to_string())
            .into());
    }
    Ok(named)
}

/// A part that was uploaded twice may be named twice, as some clients do; the later upload is the one that is there.
fn last_of_each(parts: Vec<CompletedPart>) -> Vec<CompletedPart> {
    let mut last: Vec<CompletedPart> = Vec::with_capacity(parts.len());
    for part in parts {
        if last.last().is_some_and(|before| before.part_number == part.part_number) {
            last.pop();
        }
        last.push(part);
    }
    last
}

/// Checks the tags under the upload's key, and the checksums that the client repeats.
///
/// # Errors
/// `InvalidPart`.
pub(crate) fn verify(parts: &[NamedPart], etag_key: &EtagKey) -> Result<(), GatewayError> {
    for part in parts {
        let number = part.entry.number;
        part.tag.verify(etag_key).map_err(|_| invalid_part(number))?;
        match (&part.claimed, &part.checksum) {
            (Some(claimed), Some(known)) if claimed.value.algorithm() == known.algorithm() => {
                if claimed.value != *known {
                    return Err(invalid_part(number));
                }
            }
            (Some(_), _) => {
                let text =
                    format!("The checksum of part {number} can't be verified: it was not uploaded with it.");
                return Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into());
            }
            (None, _) => {}
        }
    }
    Ok(())
}

/// CRC64NVME of the whole, if every part's is known.
pub(crate) fn whole_crc64(parts: &[NamedPart]) -> Option<u64> {
    let mut parts = parts.iter();
    let first = parts.next()?.entry.crc64?;
    parts.try_fold(first, |crc, part| Some(crc64::combine(crc, part.entry.crc64?, part.entry.length)))
}

/// The checksum of the object in the words of S3, checked against what the client claims (docs/format.md §7.4).
///
/// # Errors
/// `BadDigest` when the claim is wrong, `InvalidRequest` when it can't be verified before the commit.
pub(crate) fn object_checksum(
    upload: &NamedUpload,
    op: &CompleteMultipartUpload,
    parts: &[NamedPart],
) -> Result<Option<Checksum>, GatewayError> {
    let chosen = upload.token.fields().checksum;
    let algorithm = chosen
        .map(|(algo, _)| checksums::algorithm(algo))
        .or(op.checksum.map(|claimed| claimed.value.algorithm()));
    let Some(algorithm) = algorithm else { return Ok(None) };
    let chosen_type = chosen.and_then(|(_, ty)| ty).map(checksums::s3_type);
    if let (Some(chosen), Some(claimed)) = (chosen_type, op.checksum_type)
        && chosen != claimed
    {
        let text = format!("The upload was created with the {} checksum type.", chosen.as_str());
        return Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into());
    }
    let by_claim = op.checksum.map(|claimed| claimed.checksum_type());
    let default =
        if chosen.is_some() { algorithm.default_multipart_type() } else { ChecksumType::FullObject };
    let ty = chosen_type.or(op.checksum_type).or(by_claim).unwrap_or(default);
    let computed = match ty {
        ChecksumType::Composite => composite(algorithm, parts),
        ChecksumType::FullObject => full_object(algorithm, parts),
    };
    match (op.checksum, computed) {
        (Some(claimed), Some(computed)) if claimed != computed => {
            Err(S3Error::new(ErrorCode::BadDigest).into())
        }
        (Some(_), None) => {
            let text = "The checksum of the whole object can't be verified: it is not known of every part. Complete \
                        without it, or upload the parts with this algorithm.";
            Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into())
        }
        (_, computed) => Ok(computed.as_ref().map(checksums::to_format)),
    }
}

fn composite(algorithm: ChecksumAlgorithm, parts: &[NamedPart]) -> Option<ObjectChecksum> {
    let mut composite = Composite::new(algorithm);
    parts
        .iter()
        .all(|part| part.checksum.is_some_and(|value| composite.add(&value)))
        .then(|| composite.finish())
}

fn full_object(algorithm: ChecksumAlgorithm, parts: &[NamedPart]) -> Option<ObjectChecksum> {
    let value = if algorithm == ChecksumAlgorithm::Crc64Nvme {
        ChecksumValue::from_crc(algorithm, whole_crc64(parts)?)?
    } else {
        let of = |part: &NamedPart| part.checksum.filter(|value| value.algorithm() == algorithm);
        let mut parts = parts.iter();
        let first = of(parts.next()?)?;
        parts.try_fold(first, |whole, part| combine_crc(&whole, &of(part)?, part.entry.length))?
    };
    Some(ObjectChecksum::full(value))
}

async fn held_salt(gateway: &Gateway, upload: &NamedUpload, number: u16) -> Result<Salt, GatewayError> {
    let header = gateway.system.fetch_held_header(upload.token.fields().object_id, number).await?;
    let header = header.ok_or_else(|| invalid_part(number))?;
    let header = UnitHeader::parse(&header).map_err(GatewayError::integrity("a held part"))?;
    Ok(header.context.salt)
}

fn name_part(part: CompletedPart, tag: PartTag, listed: Option<&Listed>) -> Result<NamedPart, GatewayError> {
    let number = part.part_number;
    let (entry, held, checksum) = match (tag.claimed_state(), listed) {
        (Some(state), _) => {
            // The tag of another part: `verify` finds the tag itself genuine (docs/format.md §7.3).
            if state.part.number != number {
                return Err(invalid_part(number));
            }
            let checksum = state
                .checksum
                .as_ref()
                .and_then(|(algo, value)| ChecksumValue::from_bytes(checksums::algorithm(*algo), value));
            (state.part.entry(), state.held, checksum)
        }
        (None, Some(listed)) => {
            let (length, held) =
                listed.find(number, tag.upstream_etag()).ok_or_else(|| invalid_part(number))?;
            (Entry { number, length, salt: None, crc64: None }, held, None)
        }
        (None, None) => return Err(GatewayError::Internal("a bare part without a listing")),
    };
    Ok(NamedPart { tag, entry, held, checksum, claimed: part.checksum })
}

/// Everything that lies there of an upload, for parts whose entity tag carries no state.
struct Listed {
    stored: HashMap<u16, (String, u64)>,
    held: HashMap<u16, (String, u64)>,
}

impl Listed {
    async fn fetch(gateway: &Gateway, upload: &NamedUpload) -> Result<Self, GatewayError> {
        let mut stored = HashMap::new();
        let mut marker = 0;
        loop {
            let page = upload.upstream.list_parts(upload.at_store(), marker, 1000).await?;
            let last = page.parts.last().map(|part| part.part_number);
            // The provider's part 10,000 is a footer that an unfinished Complete has left.
            for part in page.parts.into_iter().filter(|part| part.part_number != PARTS_MAX) {
                stored.insert(part.part_number, (part.etag.trim_matches('"').to_owned(), part.size));
            }
            match (page.is_truncated, page.next_part_number_marker.or(last)) {
                (true, Some(next)) if next > marker => marker = next,
                _ => break,
            }
        }
        let held = gateway.system.held_parts(upload.token.fields().object_id).await?;
        let held = held.into_iter().map(|part| (part.number, (part.etag, part.stored_len))).collect();
        Ok(Self { stored, held })
    }

    /// Plaintext length of a part by its number and entity tag, and whether it is held.
    fn find(&self, number: u16, etag: &str) -> Option<(u64, bool)> {
        let of = |parts: &HashMap<u16, (String, u64)>| {
            parts.get(&number).filter(|(other, _)| other == etag).and_then(|(_, size)| h_inverse(*size))
        };
        of(&self.stored).map(|length| (length, false)).or_else(|| of(&self.held).map(|length| (length, true)))
    }
}

fn invalid_part(number: u16) -> GatewayError {
    S3Error::new(ErrorCode::InvalidPart).with_extra("PartNumber", number.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_part_that_is_named_twice_the_later_upload_counts() {
        let named = [(1, "a"), (1, "b"), (2, "c"), (2, "d"), (2, "e"), (7, "f")];
        let parts = named.map(|(part_number, etag)| CompletedPart {
            part_number,
            etag: etag.to_owned(),
            checksum: None,
        });
        let left: Vec<_> =
            last_of_each(parts.to_vec()).into_iter().map(|part| (part.part_number, part.etag)).collect();
        assert_eq!(left, [(1, "b".to_owned()), (2, "e".to_owned()), (7, "f".to_owned())]);
    }
}
