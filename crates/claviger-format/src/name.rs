//! Sealed object names: AES-256-SIV per `/`-separated component (docs/format.md §6).
//!
//! ```text
//! C_i = SIV(NK; AD; pad(component_i))    pad = 0x80, then zeros to a multiple of 16
//! AD  = "clv1 name\0" ‖ u8(0 leaf, 1 directory) ‖ u16(len) ‖ bucket_id ‖ parent path with its final '/'
//! ```

use crate::encoding::{base64url, put_u16_prefixed, unbase64url};
use crate::{BucketId, Error, NameKey, Result, Structure, kdf};
use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;

/// Longest sealed name in bytes: S3's limit for keys.
pub const SEALED_NAME_LEN_MAX: usize = 1_024;

const PAD_BLOCK: usize = 16;
const PAD_MARK: u8 = 0x80;
const SEALED_COMPONENT: Error = Error::Malformed(Structure::SealedName);

/// Whether a component is followed by a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Component {
    /// The last component of a key.
    Leaf = 0,
    /// Any other.
    Directory = 1,
}

/// Seals a whole key. [`Error::NameTooLong`] above 1,024 bytes of sealed name.
pub fn seal_key(name_key: &NameKey, bucket_id: &BucketId, key: &str) -> Result<String> {
    let sealed = map_components(key, |parent, component, kind, _| {
        seal_component(name_key, bucket_id, parent, kind, component)
    })?;
    if sealed.len() > SEALED_NAME_LEN_MAX { Err(Error::NameTooLong) } else { Ok(sealed) }
}

/// Opens a whole sealed key; every component must be authentic at its place.
pub fn open_key(name_key: &NameKey, bucket_id: &BucketId, sealed: &str) -> Result<String> {
    if sealed.len() > SEALED_NAME_LEN_MAX {
        return Err(SEALED_COMPONENT);
    }
    map_components(sealed, |_, component, kind, opened_so_far| {
        open_component(name_key, bucket_id, opened_so_far, kind, component)
    })
}

/// Applies `map(parent in the input, component, kind, output so far)` to every component and keeps the slashes.
fn map_components(path: &str, map: impl Fn(&str, &str, Component, &str) -> Result<String>) -> Result<String> {
    let mut out = String::new();
    let mut start = 0;
    while let Some(slash) = path[start..].find('/') {
        let component = map(&path[..start], &path[start..start + slash], Component::Directory, &out)?;
        out.push_str(&component);
        out.push('/');
        start += slash + 1;
    }
    let leaf = map(&path[..start], &path[start..], Component::Leaf, &out)?;
    out.push_str(&leaf);
    Ok(out)
}

/// Seals one component below the plaintext path `parent` (empty, or ending in `/`). An empty component stays empty.
pub fn seal_component(
    name_key: &NameKey,
    bucket_id: &BucketId,
    parent: &str,
    kind: Component,
    component: &str,
) -> Result<String> {
    if component.is_empty() {
        return Ok(String::new());
    }
    let mut padded = component.as_bytes().to_vec();
    padded.push(PAD_MARK);
    padded.resize(padded.len().next_multiple_of(PAD_BLOCK), 0);
    let associated = associated_data(bucket_id, parent, kind)?;
    let sealed = Aes256Siv::new(name_key.expose().into()).encrypt([&associated], &padded);
    Ok(base64url(&sealed.map_err(|_| Error::NameTooLong)?))
}

/// Opens one sealed component below the plaintext path `parent`.
pub fn open_component(
    name_key: &NameKey,
    bucket_id: &BucketId,
    parent: &str,
    kind: Component,
    sealed: &str,
) -> Result<String> {
    if sealed.is_empty() {
        return Ok(String::new());
    }
    let sealed = unbase64url(sealed, Structure::SealedName)?;
    if sealed.len() < 2 * PAD_BLOCK || sealed.len() % PAD_BLOCK != 0 {
        return Err(SEALED_COMPONENT);
    }
    let associated = associated_data(bucket_id, parent, kind)?;
    let padded = Aes256Siv::new(name_key.expose().into()).decrypt([&associated], &sealed);
    let component = unpad(padded.map_err(|_| Error::Authentication)?)?;
    let component = String::from_utf8(component).map_err(|_| SEALED_COMPONENT)?;
    if component.is_empty() || component.contains('/') { Err(SEALED_COMPONENT) } else { Ok(component) }
}

/// Exactly one string, never empty (docs/format.md §6).
fn associated_data(bucket_id: &BucketId, parent: &str, kind: Component) -> Result<Vec<u8>> {
    let mut out = kdf::NAME.to_vec();
    out.push(kind as u8);
    put_u16_prefixed(&mut out, bucket_id.as_str().as_bytes())?;
    out.extend_from_slice(parent.as_bytes());
    Ok(out)
}

/// Removes the pad, which must be the shortest that fills a block.
fn unpad(mut padded: Vec<u8>) -> Result<Vec<u8>> {
    let mark = padded.iter().rposition(|b| *b != 0).ok_or(SEALED_COMPONENT)?;
    if padded[mark] != PAD_MARK || padded.len() - mark > PAD_BLOCK {
        return Err(SEALED_COMPONENT);
    }
    padded.truncate(mark);
    Ok(padded)
}
