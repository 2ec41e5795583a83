//! What an envelope carries, as a list of type-length-values (docs/format.md §5.1).
//!
//! ```text
//! TLV = u8 type ‖ u16 length ‖ value, in ascending type order, the layout first
//! 0x01 single: salt(16) ‖ u64 length     0x02 multipart: empty
//! 0x10 system header: u8 id ‖ value      0x11 user metadata: u8 name length ‖ name ‖ value
//! 0x20 u64 created_ms                    0x21 checksum: u8 algo ‖ u8 type ‖ value
//! ```

use crate::checksum::{Algo, Checksum, ChecksumType};
use crate::encoding::{Cursor, put_u16_prefixed_pieces};
use crate::layout::UNIT_LEN_MAX;
use crate::{Error, Result, Salt, Structure};

const SINGLE: u8 = 0x01;
const MULTIPART: u8 = 0x02;
const SYSTEM_HEADER: u8 = 0x10;
const USER_METADATA: u8 = 0x11;
const CREATED_MS: u8 = 0x20;
const CHECKSUM: u8 = 0x21;
/// From here on, a reader that does not know a type MUST refuse the envelope.
const CRITICAL: u8 = 0x80;

/// How the body is cut into units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One unit of `length` plaintext bytes under `salt`.
    Single {
        /// Salt of the body unit.
        salt: Salt,
        /// Plaintext bytes.
        length: u64,
    },
    /// Parts that the footer lists.
    Multipart,
}

/// Content headers that S3 gives back as they came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum SystemHeader {
    /// `Content-Type`
    ContentType = 1,
    /// `Cache-Control`
    CacheControl = 2,
    /// `Content-Disposition`
    ContentDisposition = 3,
    /// `Content-Encoding`
    ContentEncoding = 4,
    /// `Content-Language`
    ContentLanguage = 5,
    /// `Expires`
    Expires = 6,
    /// `x-amz-website-redirect-location`
    WebsiteRedirect = 7,
}

impl SystemHeader {
    /// All of them, in the order of their codes.
    pub const ALL: [Self; 7] = [
        Self::ContentType,
        Self::CacheControl,
        Self::ContentDisposition,
        Self::ContentEncoding,
        Self::ContentLanguage,
        Self::Expires,
        Self::WebsiteRedirect,
    ];

    /// The HTTP header's name in lower case.
    pub const fn http_name(self) -> &'static str {
        match self {
            Self::ContentType => "content-type",
            Self::CacheControl => "cache-control",
            Self::ContentDisposition => "content-disposition",
            Self::ContentEncoding => "content-encoding",
            Self::ContentLanguage => "content-language",
            Self::Expires => "expires",
            Self::WebsiteRedirect => "x-amz-website-redirect-location",
        }
    }
}

/// What a client gave along with the content. Confidential, hence no content in Debug.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Content headers with their values as bytes; each at most once when sealed.
    pub system: Vec<(SystemHeader, Vec<u8>)>,
    /// User metadata without the `x-amz-meta-` prefix, values as bytes.
    pub user: Vec<(String, Vec<u8>)>,
    /// When the object was made, in milliseconds since 1970.
    pub created_ms: Option<u64>,
    /// A checksum that was known before the body.
    pub checksum: Option<Checksum>,
}

impl Metadata {
    /// The value of a content header.
    pub fn system_header(&self, header: SystemHeader) -> Option<&[u8]> {
        self.system.iter().find(|(id, _)| *id == header).map(|(_, value)| &value[..])
    }
}

impl core::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Metadata({} system, {} user, ..)", self.system.len(), self.user.len())
    }
}

pub(crate) fn encode(layout: &Layout, metadata: &Metadata) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(256);
    match layout {
        Layout::Single { salt, length } => {
            put(&mut out, SINGLE, &[salt.as_bytes(), &length.to_be_bytes()])?;
        }
        Layout::Multipart => put(&mut out, MULTIPART, &[])?,
    }
    let mut system: Vec<_> = metadata.system.iter().collect();
    system.sort_by_key(|(header, _)| *header);
    if system.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(Error::Malformed(Structure::Metadata));
    }
    for (header, value) in system {
        put(&mut out, SYSTEM_HEADER, &[&[*header as u8], value])?;
    }
    for (name, value) in &metadata.user {
        let name_len = u8::try_from(name.len()).map_err(|_| Error::TooLarge)?;
        put(&mut out, USER_METADATA, &[&[name_len], name.as_bytes(), value])?;
    }
    if let Some(created_ms) = metadata.created_ms {
        put(&mut out, CREATED_MS, &[&created_ms.to_be_bytes()])?;
    }
    if let Some(checksum) = &metadata.checksum {
        // The TLV has no part count; a composite checksum is not known before the body anyway.
        if checksum.ty() != ChecksumType::FullObject {
            return Err(Error::Malformed(Structure::Checksum));
        }
        put(&mut out, CHECKSUM, &[&[checksum.algo().code(), checksum.ty().code()], checksum.value()])?;
    }
    Ok(out)
}

fn put(out: &mut Vec<u8>, tag: u8, value: &[&[u8]]) -> Result<()> {
    out.push(tag);
    put_u16_prefixed_pieces(out, value)
}

pub(crate) fn decode(bytes: &[u8]) -> Result<(Layout, Metadata)> {
    let mut cursor = Cursor::new(bytes, Structure::Metadata);
    let (tag, mut value) = read(&mut cursor)?;
    let layout = match tag {
        SINGLE => Layout::Single { salt: Salt::new(value.array()?), length: value.u64()? },
        MULTIPART => Layout::Multipart,
        _ => return Err(cursor.malformed()),
    };
    value.end()?;
    if matches!(layout, Layout::Single { length, .. } if length > UNIT_LEN_MAX) {
        return Err(cursor.malformed());
    }
    let mut metadata = Metadata::default();
    let mut previous = MULTIPART;
    while cursor.remaining() > 0 {
        let (tag, value) = read(&mut cursor)?;
        if tag < previous || tag <= MULTIPART {
            return Err(cursor.malformed());
        }
        previous = tag;
        decode_field(&mut metadata, tag, value)?;
    }
    Ok((layout, metadata))
}

fn read<'a>(cursor: &mut Cursor<'a>) -> Result<(u8, Cursor<'a>)> {
    let (tag, len) = (cursor.u8()?, cursor.u16()?);
    Ok((tag, Cursor::new(cursor.take(usize::from(len))?, Structure::Metadata)))
}

fn decode_field(metadata: &mut Metadata, tag: u8, mut value: Cursor<'_>) -> Result<()> {
    match tag {
        SYSTEM_HEADER => {
            let id = value.u8()?;
            let header = SystemHeader::ALL.into_iter().find(|header| *header as u8 == id);
            let header = header.ok_or(Error::Unsupported(Structure::Metadata))?;
            metadata.system.push((header, value.rest().to_vec()));
        }
        USER_METADATA => {
            let name_len = value.u8()?;
            let name = core::str::from_utf8(value.take(usize::from(name_len))?);
            let name = name.map_err(|_| value.malformed())?.to_owned();
            metadata.user.push((name, value.rest().to_vec()));
        }
        CREATED_MS => {
            let malformed = value.malformed();
            if metadata.created_ms.replace(value.u64()?).is_some() {
                return Err(malformed);
            }
            value.end()?;
        }
        CHECKSUM => {
            let (algo, ty) = (Algo::from_code(value.u8()?)?, ChecksumType::from_code(value.u8()?)?);
            let malformed = value.malformed();
            let checksum = Checksum::new(algo, ty, value.rest().to_vec(), 0)?;
            if metadata.checksum.replace(checksum).is_some() {
                return Err(malformed);
            }
        }
        CRITICAL.. => return Err(Error::Unsupported(Structure::Metadata)),
        // Types below 0x80 that a later writer may add are ignored.
        _ => {}
    }
    Ok(())
}
