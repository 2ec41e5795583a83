//! The footer: zero pad, sealed manifest, header last (docs/format.md §3.4, §3.5). No footer, no object.
//!
//! ```text
//! pad(z zero bytes) ‖ AEAD(info(96) ‖ m × entry(40)) ‖ footer header(96)
//! info:  0 u64 created_ms   8 u64 crc64nvme  16 u8 flags  17 u8 algo  18 u8 type  19 u8 value length
//!       20 u32 composite part count  24 value(64, zero padded)  88 eight zero bytes
//! entry: 0 u16 number  2 u16 flags  4 u32 0  8 u64 length  16 salt(16)  32 u64 crc64nvme
//! ```

use core::fmt;

use crate::checksum::{Algo, Checksum, ChecksumType};
use crate::encoding::Cursor;
use crate::layout::{
    CipherRange, ENTRY_LEN, HEADER_LEN, INFO_LEN, OBJECT_SIZE_MIN, PART_LEN_MIN, PARTS_MAX, PlainRange,
    SEGMENT_LEN, g, h, segments_range,
};
use crate::segment::{open_message, seal_message, to_usize};
use crate::suite::TAG_LEN;
use crate::unit::{Kind, UnitGrant, UnitHeader, UnitRequest};
use crate::{Dek, EpochId, Error, ObjectId, Random, Result, Salt, Structure};

const INFO_HAS_CRC64: u8 = 1;
const ENTRY_BOUND: u16 = 1;
const ENTRY_HAS_CRC64: u16 = 2;
const VALUE_FIELD_LEN: usize = 64;

/// What the footer says about the whole object. Checksums of plaintext are as confidential as the plaintext: they are never
/// printed.
#[derive(Clone, PartialEq, Eq)]
pub struct FooterInfo {
    /// When the object was committed, in milliseconds since 1970.
    pub created_ms: u64,
    /// CRC64NVME of the plaintext; absent if a part's is not known.
    pub crc64: Option<u64>,
    /// A checksum that the client sent and that was verified.
    pub checksum: Option<Checksum>,
}

impl fmt::Debug for FooterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FooterInfo").field("created_ms", &self.created_ms).finish_non_exhaustive()
    }
}

/// One part, as the manifest lists it; its checksum is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The client's part number; 1 for a single object.
    pub number: u16,
    /// Plaintext bytes.
    pub length: u64,
    /// Salt of the part's unit; `None` makes the entry unbound (docs/format.md §7.3).
    pub salt: Option<Salt>,
    /// CRC64NVME of the part, where known.
    pub crc64: Option<u64>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("number", &self.number)
            .field("length", &self.length)
            .field("salt", &self.salt)
            .finish_non_exhaustive()
    }
}

/// Bytes of the whole footer, pad included, for this part list. Fails on a list that no object may have.
pub fn footer_len(entries: &[Entry]) -> Result<u64> {
    Ok(Geometry::of(entries)?.footer_len)
}

/// Seals the footer: the last bytes of the object, whose arrival upstream is the commit (docs/format.md §3.4).
pub fn seal(
    dek: &Dek,
    epoch_id: EpochId,
    object_id: ObjectId,
    entries: &[Entry],
    info: &FooterInfo,
    rng: &dyn Random,
) -> Result<Vec<u8>> {
    let length = Geometry::of(entries)?.length;
    let request = UnitRequest::footer(epoch_id, object_id, part_count(entries)?, length);
    seal_granted(UnitGrant::draw(dek, &request, rng)?, entries, info)
}

/// As [`seal`], with the keys that a key service released for exactly this footer.
pub fn seal_granted(grant: UnitGrant, entries: &[Entry], info: &FooterInfo) -> Result<Vec<u8>> {
    let geometry = Geometry::of(entries)?;
    grant.expect_kind(Kind::Footer)?;
    if grant.context().number != part_count(entries)? || grant.context().length != geometry.length {
        return Err(Error::Inconsistent(Structure::Footer));
    }
    let mut manifest = Vec::with_capacity(to_usize(manifest_len(grant.context().number)) + TAG_LEN);
    put_info(&mut manifest, info);
    for entry in entries {
        put_entry(&mut manifest, entry);
    }
    let mut out = Vec::with_capacity(to_usize(geometry.footer_len));
    out.resize(to_usize(geometry.pad_len), 0);
    out.extend_from_slice(&seal_message(grant.keys(), manifest));
    out.extend_from_slice(&grant.header().encode());
    Ok(out)
}

/// Result of looking at the end of an object.
#[derive(Debug)]
pub enum FooterRead {
    /// Everything of docs/format.md §3.5 holds.
    Verified(Manifest),
    /// The header is authentic, but the manifest begins before the bytes given: fetch the last `suffix_len` bytes.
    NeedMore {
        /// Bytes from the end of the object that suffice.
        suffix_len: u64,
    },
}

/// Checks the footer of an object of `total_size` bytes, of which `suffix` are the last ones (docs/format.md §3.5).
///
/// `epoch_id` and `object_id` come from the envelope. Any failure rejects the object.
pub fn open(
    dek: &Dek,
    epoch_id: EpochId,
    object_id: ObjectId,
    suffix: &[u8],
    total_size: u64,
) -> Result<FooterRead> {
    if total_size < OBJECT_SIZE_MIN || suffix.len() as u64 > total_size {
        return Err(Error::Malformed(Structure::Footer));
    }
    let Some((sealed, header)) = suffix.split_last_chunk::<{ crate::unit::HEADER_LEN }>() else {
        return Ok(FooterRead::NeedMore { suffix_len: HEADER_LEN });
    };
    let header = UnitHeader::parse(header)?;
    let context = header.context;
    if context.kind != Kind::Footer || context.epoch_id != epoch_id || context.object_id != object_id {
        return Err(Error::Inconsistent(Structure::Footer));
    }
    let keys = header.open_keys(dek, None)?;
    if g(context.length) != Some(total_size) {
        return Err(Error::Inconsistent(Structure::Footer));
    }
    let sealed_len = to_usize(manifest_len(context.number)) + TAG_LEN;
    let Some(start) = sealed.len().checked_sub(sealed_len) else {
        return Ok(FooterRead::NeedMore { suffix_len: sealed_len as u64 + HEADER_LEN });
    };
    let manifest = open_message(&keys, &sealed[start..])?;
    let manifest = Manifest::parse(&manifest, context.epoch_id, context.object_id, total_size)?;
    if manifest.length() != context.length || part_count(&manifest.entries)? != context.number {
        return Err(Error::Inconsistent(Structure::Footer));
    }
    Ok(FooterRead::Verified(manifest))
}

fn part_count(entries: &[Entry]) -> Result<u16> {
    u16::try_from(entries.len()).ok().filter(|m| (1..=PARTS_MAX).contains(m)).ok_or(Error::PartList)
}

fn manifest_len(parts: u16) -> u64 {
    INFO_LEN + ENTRY_LEN * u64::from(parts)
}

/// Sizes that follow from a part list, which this checks (docs/format.md §3.5, §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Geometry {
    length: u64,
    total_size: u64,
    footer_len: u64,
    pad_len: u64,
}

impl Geometry {
    fn of(entries: &[Entry]) -> Result<Self> {
        let parts = part_count(entries)?;
        let (mut length, mut body_len) = (0, 0);
        for (index, entry) in entries.iter().enumerate() {
            let ascending = index == 0 || entries[index - 1].number < entry.number;
            if !ascending || !(1..=PARTS_MAX).contains(&entry.number) {
                return Err(Error::PartList);
            }
            if entry.length < PART_LEN_MIN && index + 1 < entries.len() {
                return Err(Error::PartTooSmall(entry.number));
            }
            body_len += h(entry.length).ok_or(Error::TooLarge)?;
            length += entry.length;
        }
        let total_size = g(length).ok_or(Error::TooLarge)?;
        let bare_len = manifest_len(parts) + TAG_LEN as u64 + HEADER_LEN;
        // §4.1 proves that g always leaves room; a part list for which it does not is refused all the same.
        let pad_len = total_size.checked_sub(body_len + bare_len).ok_or(Error::PartList)?;
        Ok(Self { length, total_size, footer_len: pad_len + bare_len, pad_len })
    }
}

fn put_info(out: &mut Vec<u8>, info: &FooterInfo) {
    out.extend_from_slice(&info.created_ms.to_be_bytes());
    out.extend_from_slice(&info.crc64.unwrap_or(0).to_be_bytes());
    out.push(if info.crc64.is_some() { INFO_HAS_CRC64 } else { 0 });
    let mut value = [0; VALUE_FIELD_LEN];
    let (mut algo, mut ty, mut len, mut parts) = (0, 0, 0, 0);
    if let Some(checksum) = &info.checksum {
        let bytes = checksum.value();
        (algo, ty, parts) = (checksum.algo().code(), checksum.ty().code(), checksum.composite_parts());
        len = u8::try_from(bytes.len()).expect("a checksum has at most 64 bytes");
        value[..bytes.len()].copy_from_slice(bytes);
    }
    out.extend_from_slice(&[algo, ty, len]);
    out.extend_from_slice(&parts.to_be_bytes());
    out.extend_from_slice(&value);
    out.extend_from_slice(&[0; 8]);
}

fn read_info(cursor: &mut Cursor<'_>) -> Result<FooterInfo> {
    let (created_ms, crc64, flags) = (cursor.u64()?, cursor.u64()?, cursor.u8()?);
    let crc64 = flagged(crc64, flags & INFO_HAS_CRC64 != 0, 0, cursor)?;
    if flags & !INFO_HAS_CRC64 != 0 {
        return Err(cursor.malformed());
    }
    let (algo, ty, len, parts) = (cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u32()?);
    let checksum = if algo == 0 {
        if ty != 0 || len != 0 || parts != 0 {
            return Err(cursor.malformed());
        }
        None
    } else {
        let value = cursor.take(usize::from(len).min(VALUE_FIELD_LEN))?.to_vec();
        Some(Checksum::new(Algo::from_code(algo)?, ChecksumType::from_code(ty)?, value, parts)?)
    };
    cursor.zeros(VALUE_FIELD_LEN - checksum.as_ref().map_or(0, |checksum| checksum.value().len()))?;
    cursor.zeros(8)?;
    Ok(FooterInfo { created_ms, crc64, checksum })
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let mut flags = 0;
    flags |= if entry.salt.is_some() { ENTRY_BOUND } else { 0 };
    flags |= if entry.crc64.is_some() { ENTRY_HAS_CRC64 } else { 0 };
    out.extend_from_slice(&entry.number.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&entry.length.to_be_bytes());
    out.extend_from_slice(entry.salt.unwrap_or(Salt::new([0; 16])).as_bytes());
    out.extend_from_slice(&entry.crc64.unwrap_or(0).to_be_bytes());
}

fn read_entry(cursor: &mut Cursor<'_>) -> Result<Entry> {
    let (number, flags) = (cursor.u16()?, cursor.u16()?);
    cursor.zeros(4)?;
    if flags & !(ENTRY_BOUND | ENTRY_HAS_CRC64) != 0 {
        return Err(cursor.malformed());
    }
    let length = cursor.u64()?;
    let salt = Salt::new(cursor.array()?);
    let salt = flagged(salt, flags & ENTRY_BOUND != 0, Salt::new([0; 16]), cursor)?;
    let crc64 = cursor.u64()?;
    let crc64 = flagged(crc64, flags & ENTRY_HAS_CRC64 != 0, 0, cursor)?;
    Ok(Entry { number, length, salt, crc64 })
}

/// A field that a flag marks as present MUST be zero without the flag.
fn flagged<T: PartialEq>(value: T, present: bool, zero: T, cursor: &Cursor<'_>) -> Result<Option<T>> {
    match present {
        true => Ok(Some(value)),
        false if value == zero => Ok(None),
        false => Err(cursor.malformed()),
    }
}

/// A verified footer: the proof that the object was committed, with its parts and where they lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    epoch_id: EpochId,
    object_id: ObjectId,
    info: FooterInfo,
    entries: Vec<Entry>,
    /// First plaintext and first ciphertext byte of every part.
    starts: Vec<(u64, u64)>,
    geometry: Geometry,
}

/// What to fetch for a range of a multipart object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covering {
    /// The bytes that the reader is fed with.
    pub data: CipherRange,
    /// Header of the first part, needed beforehand if its entry is unbound and `data` does not begin with it.
    pub first_header: Option<CipherRange>,
}

impl Manifest {
    fn parse(bytes: &[u8], epoch_id: EpochId, object_id: ObjectId, total_size: u64) -> Result<Self> {
        let mut cursor = Cursor::new(bytes, Structure::Footer);
        let info = read_info(&mut cursor)?;
        let mut entries = Vec::with_capacity(cursor.remaining() / to_usize(ENTRY_LEN));
        while cursor.remaining() > 0 {
            entries.push(read_entry(&mut cursor)?);
        }
        let manifest = Self::new(epoch_id, object_id, info, entries);
        let manifest = manifest.map_err(|_| Error::Inconsistent(Structure::Footer))?;
        if manifest.total_size() != total_size {
            return Err(Error::Inconsistent(Structure::Footer));
        }
        Ok(manifest)
    }

    /// What the footer of an object with these parts will have to say; its info is not known yet.
    pub(crate) fn expected(epoch_id: EpochId, object_id: ObjectId, entries: Vec<Entry>) -> Result<Self> {
        Self::new(epoch_id, object_id, FooterInfo { created_ms: 0, crc64: None, checksum: None }, entries)
    }

    fn new(epoch_id: EpochId, object_id: ObjectId, info: FooterInfo, entries: Vec<Entry>) -> Result<Self> {
        let geometry = Geometry::of(&entries)?;
        let starts = entries.iter().scan((0, 0), |next, entry| {
            let start = *next;
            *next = (start.0 + entry.length, start.1 + h(entry.length)?);
            Some(start)
        });
        let starts = starts.collect();
        Ok(Self { epoch_id, object_id, info, entries, starts, geometry })
    }

    /// Whether both list the same units of the same object, whatever they say about checksums.
    pub(crate) fn same_parts(&self, other: &Self) -> bool {
        let unit = |entry: &Entry| (entry.number, entry.length, entry.salt);
        self.epoch_id == other.epoch_id
            && self.object_id == other.object_id
            && self.entries.iter().map(unit).eq(other.entries.iter().map(unit))
    }

    /// The epoch whose key sealed the object.
    pub fn epoch_id(&self) -> EpochId {
        self.epoch_id
    }

    /// The object version.
    pub fn object_id(&self) -> ObjectId {
        self.object_id
    }

    /// Plaintext bytes of the object.
    pub fn length(&self) -> u64 {
        self.geometry.length
    }

    /// Stored bytes of the object.
    pub fn total_size(&self) -> u64 {
        self.geometry.total_size
    }

    /// Bytes of zero pad between the last part and the sealed manifest.
    pub fn pad_len(&self) -> u64 {
        self.geometry.pad_len
    }

    /// Bytes of the footer, pad included.
    pub fn footer_len(&self) -> u64 {
        self.geometry.footer_len
    }

    /// Creation time and checksums.
    pub fn info(&self) -> &FooterInfo {
        &self.info
    }

    /// The parts in ascending number, at least one.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The index of the part with this number.
    pub fn index_of_number(&self, number: u16) -> Option<usize> {
        self.entries.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    /// First plaintext byte and length of part `index`.
    pub fn part_plain(&self, index: usize) -> Option<(u64, u64)> {
        Some((self.starts.get(index)?.0, self.entries.get(index)?.length))
    }

    /// Where the unit of part `index` lies in the stored object.
    pub fn part_cipher_range(&self, index: usize) -> Option<CipherRange> {
        let first = self.starts.get(index)?.1;
        Some(CipherRange { first, last: first + h(self.entries.get(index)?.length)? - 1 })
    }

    /// The part that holds plaintext byte `offset`, which is inside the object, and the offset within that part.
    pub(crate) fn locate(&self, offset: u64) -> (usize, u64) {
        let part = self.starts.partition_point(|start| start.0 <= offset) - 1;
        (part, offset - self.starts[part].0)
    }

    /// What to fetch for `range` of a multipart object (docs/format.md §3.7).
    pub fn covering(&self, range: PlainRange) -> Result<Covering> {
        if range.last() >= self.length() {
            return Err(Error::Range);
        }
        let ((from, first), (to, last)) = (self.locate(range.first()), self.locate(range.last()));
        let (first_segment, last_segment) = (first / SEGMENT_LEN, last / SEGMENT_LEN);
        let start = self.starts[from].1;
        let begin = segments_range(self.entries[from].length, first_segment, first_segment).first;
        let end = segments_range(self.entries[to].length, last_segment, last_segment).last;
        let last = self.starts[to].1 + end;
        let header = CipherRange { first: start, last: start + HEADER_LEN - 1 };
        let bound = self.entries[from].salt.is_some();
        let with_header = !bound && first_segment == 0;
        let first = if with_header { start } else { start + begin };
        let first_header = (!bound && !with_header).then_some(header);
        Ok(Covering { data: CipherRange { first, last }, first_header })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_checksum_of_plaintext_is_ever_printed() {
        let entry = Entry { number: 1, length: 7, salt: None, crc64: Some(0x1122_3344_5566_7788) };
        let info = FooterInfo { created_ms: 5, crc64: Some(0x1122_3344_5566_7788), checksum: None };
        let text = format!("{entry:?} {info:?}");
        assert!(text.contains("number: 1") && text.contains("created_ms: 5"));
        assert!(!text.contains(&0x1122_3344_5566_7788u64.to_string()), "{text}");
    }
}
