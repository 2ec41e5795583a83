//! What a stateless fleet makes its clients remember: upload ids and part ETags (docs/format.md §7.1–§7.3).
//!
//! Tokens hold no secret. They are MACed under keys of the upload they belong to.

use crate::checksum::{Algo, ChecksumType};
use crate::encoding::{Cursor, base64url, unbase64url};
use crate::object::PartState;
use crate::{EpochId, Error, EtagKey, ObjectId, ObjectName, Result, Salt, Structure, UploadKey, kdf};
use subtle::ConstantTimeEq;

const VERSION: u8 = 1;
const MAC_LEN: usize = 32;
const TAG_MAC_LEN: usize = 16;
const FLAG_HELD: u8 = 1;

/// Longest upstream upload id that a token carries, in bytes.
pub const UPSTREAM_ID_LEN_MAX: usize = 1_024;
/// Longest upstream ETag that a part ETag carries, in bytes.
pub const UPSTREAM_ETAG_LEN_MAX: usize = 1_024;

/// What an upload token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadFields {
    /// The epoch whose key seals the upload.
    pub epoch_id: EpochId,
    /// The object version that the upload will become.
    pub object_id: ObjectId,
    /// When UploadPart and Complete stop working, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Checksum algorithm and type chosen at Create; the type may stay open.
    pub checksum: Option<(Algo, Option<ChecksumType>)>,
    /// The provider's own upload id: printable ASCII.
    pub upstream_upload_id: String,
}

/// The client's uploadId: `base64url(0x01 ‖ epoch_id ‖ object_id ‖ u64 expires_ms ‖ u8 algo ‖ u8 type ‖ upstream id ‖
/// HMAC-SHA-256(upload key, all before ‖ extra))` (docs/format.md §7.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadToken {
    fields: UploadFields,
    mac: [u8; MAC_LEN],
}

impl UploadToken {
    /// Makes the token of an upload for `name`.
    pub fn issue(key: &UploadKey, fields: UploadFields, name: &ObjectName) -> Result<Self> {
        check_visible(&fields.upstream_upload_id, UPSTREAM_ID_LEN_MAX, Structure::UploadToken)?;
        let mac = Self::mac(key, &fields, name);
        Ok(Self { fields, mac })
    }

    /// Parses the text; nothing in it is authenticated before [`Self::verify`].
    pub fn parse(text: &str) -> Result<Self> {
        let bytes = unbase64url(text, Structure::UploadToken)?;
        let (body, mac) =
            bytes.split_last_chunk::<MAC_LEN>().ok_or(Error::Malformed(Structure::UploadToken))?;
        let mut cursor = Cursor::new(body, Structure::UploadToken);
        if cursor.u8()? != VERSION {
            return Err(Error::Unsupported(Structure::UploadToken));
        }
        let (epoch_id, object_id) = (EpochId::new(cursor.array()?), ObjectId::new(cursor.array()?));
        let expires_ms = cursor.u64()?;
        let checksum = match (cursor.u8()?, cursor.u8()?) {
            (0, 0) => None,
            (algo, 0) => Some((Algo::from_code(algo)?, None)),
            (algo, ty) => Some((Algo::from_code(algo)?, Some(ChecksumType::from_code(ty)?))),
        };
        let upstream_upload_id = visible_text(cursor.rest(), UPSTREAM_ID_LEN_MAX, Structure::UploadToken)?;
        let fields = UploadFields { epoch_id, object_id, expires_ms, checksum, upstream_upload_id };
        Ok(Self { fields, mac: *mac })
    }

    /// The uploadId for the client.
    pub fn to_text(&self) -> String {
        base64url(&[&encode(&self.fields)[..], &self.mac].concat())
    }

    /// What it says; authentic only after [`Self::verify`].
    pub fn fields(&self) -> &UploadFields {
        &self.fields
    }

    /// Checks the MAC under the upload's key and the name of the request, in constant time.
    pub fn verify(&self, key: &UploadKey, name: &ObjectName) -> Result<()> {
        let mac = Self::mac(key, &self.fields, name);
        if bool::from(mac.ct_eq(&self.mac)) { Ok(()) } else { Err(Error::Authentication) }
    }

    /// Expiry blocks UploadPart and Complete, never Abort.
    pub fn expired(&self, now_ms: u64) -> bool {
        now_ms >= self.fields.expires_ms
    }

    fn mac(key: &UploadKey, fields: &UploadFields, name: &ObjectName) -> [u8; MAC_LEN] {
        kdf::mac(key.expose(), &[&encode(fields), &name.extra()])
    }
}

fn encode(fields: &UploadFields) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(fields.epoch_id.as_bytes());
    out.extend_from_slice(fields.object_id.as_bytes());
    out.extend_from_slice(&fields.expires_ms.to_be_bytes());
    let (algo, ty) = fields.checksum.map_or((0, None), |(algo, ty)| (algo.code(), ty));
    out.extend_from_slice(&[algo, ty.map_or(0, ChecksumType::code)]);
    out.extend_from_slice(fields.upstream_upload_id.as_bytes());
    out
}

fn check_visible(text: &str, len_max: usize, what: Structure) -> Result<()> {
    let sound =
        (1..=len_max).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"');
    if sound { Ok(()) } else { Err(Error::Malformed(what)) }
}

fn visible_text(bytes: &[u8], len_max: usize, what: Structure) -> Result<String> {
    let text = core::str::from_utf8(bytes).map_err(|_| Error::Malformed(what))?;
    check_visible(text, len_max, what)?;
    Ok(text.to_owned())
}

/// What a part ETag remembers about an uploaded part (docs/format.md §7.3).
#[derive(Clone, PartialEq, Eq)]
pub struct PartTagState {
    /// The part lies in the system area until Complete (docs/format.md §4.5).
    pub held: bool,
    /// Number, length, salt and CRC of the part.
    pub part: PartState,
    /// The checksum that the client sent for this part.
    pub checksum: Option<(Algo, Vec<u8>)>,
}

impl core::fmt::Debug for PartTagState {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PartTagState({:?}, held: {})", self.part, self.held)
    }
}

/// A part's ETag without its quotes: `<upstream etag>-<b64(state ‖ MAC)>`, or `<upstream etag>-0` where the state is
/// not known (docs/format.md §7.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTag {
    upstream_etag: String,
    state: Option<(PartTagState, [u8; TAG_MAC_LEN])>,
}

impl PartTag {
    /// The ETag that UploadPart returns.
    pub fn issue(key: &EtagKey, upstream_etag: &str, state: PartTagState) -> Result<Self> {
        check_visible(upstream_etag, UPSTREAM_ETAG_LEN_MAX, Structure::PartTag)?;
        if state.checksum.as_ref().is_some_and(|(algo, value)| value.len() != algo.value_len()) {
            return Err(Error::Malformed(Structure::Checksum));
        }
        let mac = Self::mac(key, upstream_etag, &state);
        Ok(Self { upstream_etag: upstream_etag.to_owned(), state: Some((state, mac)) })
    }

    /// The ETag that ListParts returns.
    pub fn bare(upstream_etag: &str) -> Result<Self> {
        check_visible(upstream_etag, UPSTREAM_ETAG_LEN_MAX, Structure::PartTag)?;
        Ok(Self { upstream_etag: upstream_etag.to_owned(), state: None })
    }

    /// Parses an ETag without its quotes; nothing in it is authenticated before [`Self::verify`].
    pub fn parse(text: &str) -> Result<Self> {
        let (upstream_etag, rest) = text.rsplit_once('-').ok_or(Error::Malformed(Structure::PartTag))?;
        if rest == "0" {
            return Self::bare(upstream_etag);
        }
        check_visible(upstream_etag, UPSTREAM_ETAG_LEN_MAX, Structure::PartTag)?;
        let bytes = unbase64url(&rest.replace('.', "-"), Structure::PartTag)?;
        let (state, mac) =
            bytes.split_last_chunk::<TAG_MAC_LEN>().ok_or(Error::Malformed(Structure::PartTag))?;
        let state = read_state(Cursor::new(state, Structure::PartTag))?;
        Ok(Self { upstream_etag: upstream_etag.to_owned(), state: Some((state, *mac)) })
    }

    /// The ETag for the client, without quotes.
    pub fn to_text(&self) -> String {
        let state = self.state.as_ref().map_or_else(
            || "0".to_owned(),
            |(state, mac)| base64url(&[&encode_state(state)[..], mac].concat()).replace('-', "."),
        );
        format!("{}-{state}", self.upstream_etag)
    }

    /// The provider's ETag of the part.
    pub fn upstream_etag(&self) -> &str {
        &self.upstream_etag
    }

    /// The state as the client hands it back, **not authenticated**: for planning what [`Self::verify`] then confirms.
    pub fn claimed_state(&self) -> Option<&PartTagState> {
        self.state.as_ref().map(|(state, _)| state)
    }

    /// Checks the MAC in constant time and gives the state; `None` for a bare tag, whose entry stays unbound.
    ///
    /// The caller MUST compare `state.part.number` with the part number beside the tag (docs/format.md §7.3).
    pub fn verify(&self, key: &EtagKey) -> Result<Option<&PartTagState>> {
        let Some((state, mac)) = &self.state else { return Ok(None) };
        if bool::from(Self::mac(key, &self.upstream_etag, state).ct_eq(mac)) {
            Ok(Some(state))
        } else {
            Err(Error::Authentication)
        }
    }

    fn mac(key: &EtagKey, upstream_etag: &str, state: &PartTagState) -> [u8; TAG_MAC_LEN] {
        let mac = kdf::mac(key.expose(), &[upstream_etag.as_bytes(), &[0], &encode_state(state)]);
        *mac.first_chunk().expect("HMAC-SHA-256 gives 32 bytes")
    }
}

/// `0x01 ‖ u8 flags ‖ u16 number ‖ u64 length ‖ salt(16) ‖ u64 crc64 ‖ u8 algo ‖ u8 len ‖ value`
fn encode_state(state: &PartTagState) -> Vec<u8> {
    let mut out = vec![VERSION, if state.held { FLAG_HELD } else { 0 }];
    out.extend_from_slice(&state.part.number.to_be_bytes());
    out.extend_from_slice(&state.part.length.to_be_bytes());
    out.extend_from_slice(state.part.salt.as_bytes());
    out.extend_from_slice(&state.part.crc64.to_be_bytes());
    let (algo, value) = state.checksum.as_ref().map_or((0, &[][..]), |(algo, value)| (algo.code(), value));
    out.extend_from_slice(&[algo, u8::try_from(value.len()).expect("a checksum has at most 64 bytes")]);
    out.extend_from_slice(value);
    out
}

fn read_state(mut cursor: Cursor<'_>) -> Result<PartTagState> {
    if cursor.u8()? != VERSION {
        return Err(Error::Unsupported(Structure::PartTag));
    }
    let flags = cursor.u8()?;
    let (number, length) = (cursor.u16()?, cursor.u64()?);
    let (salt, crc64) = (Salt::new(cursor.array()?), cursor.u64()?);
    let (algo, len) = (cursor.u8()?, cursor.u8()?);
    let value = cursor.take(usize::from(len))?.to_vec();
    let malformed = cursor.malformed();
    cursor.end()?;
    let checksum = match algo {
        0 if value.is_empty() => None,
        0 => return Err(malformed),
        _ => Some((Algo::from_code(algo)?, value)),
    };
    let sound = flags & !FLAG_HELD == 0
        && (1..=crate::layout::PARTS_MAX).contains(&number)
        && length <= crate::layout::UNIT_LEN_MAX
        && checksum.as_ref().is_none_or(|(algo, value)| value.len() == algo.value_len());
    if !sound {
        return Err(malformed);
    }
    Ok(PartTagState {
        held: flags & FLAG_HELD != 0,
        part: PartState { number, length, salt, crc64 },
        checksum,
    })
}

/// The reversible mark on object ETags, which keeps tools from taking them for the MD5 of the plaintext
/// (docs/format.md §7.1). ETags go in and out without their quotes.
pub mod object_etag {
    /// Appends [`mark_of`] the ETag.
    pub fn mark(upstream_etag: &str) -> String {
        [upstream_etag, mark_of(upstream_etag)].concat()
    }

    /// What marks an ETag: `-0` behind one without a dash, nothing behind others.
    pub fn mark_of(upstream_etag: &str) -> &'static str {
        if upstream_etag.contains('-') { "" } else { "-0" }
    }

    /// Strips a final `-0`, and nothing else.
    pub fn unmark(client_etag: &str) -> &str {
        client_etag.strip_suffix("-0").unwrap_or(client_etag)
    }
}
