//! What a Complete still has to bring to the provider: held parts, and the footer as the provider's last part, number
//! 10,000, behind the held last part if there is one (docs/format.md §4.5).

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use claviger_format::layout::{HEADER_LEN, PARTS_MAX, h};
use claviger_format::unit::{Kind, UnitHeader};
use claviger_s3::ETag;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::xml::CompletedPart;
use http_body::Body;

use super::NamedUpload;
use super::part_list::NamedPart;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::keys::uploads::no_such_upload;
use crate::upstream::body::{Abandoned, Ciphertext, SealedStream, UpstreamBody};
use crate::upstream::transport::StoreBody;

/// Stores everything that is not there as the provider's part yet; gives the provider's list of parts.
///
/// # Errors
/// `InvalidPart` when a held part is gone or has been replaced; the provider's.
pub(super) async fn store(
    gateway: &Gateway,
    upload: &NamedUpload,
    parts: &[NamedPart],
    footer: Bytes,
) -> Result<Vec<CompletedPart>, GatewayError> {
    let mut at_store = Vec::with_capacity(parts.len() + 2);
    let mut add = |part_number: u16, etag: &str| {
        at_store.push(CompletedPart { part_number, etag: etag.to_owned(), checksum: None });
    };
    let (last, before) = parts.split_last().ok_or(GatewayError::Internal("a Complete without parts"))?;
    for part in before {
        if part.held {
            add(part.entry.number, move_up(gateway, upload, part).await?.as_str());
        } else {
            add(part.entry.number, part.store_etag());
        }
    }
    if !last.held {
        add(last.entry.number, last.store_etag());
        add(
            PARTS_MAX,
            put(upload, PARTS_MAX, UpstreamBody::sealed(Ciphertext::sealed(footer))).await?.as_str(),
        );
        return Ok(at_store);
    }
    let held_len = stored_len(last)?;
    let common_len = if upload.upstream.profile().equal_parts {
        before.first().map(stored_len).transpose()?
    } else {
        None
    };
    let cut = common_len.and_then(|common_len| cut_at(held_len, footer.len(), common_len, last.entry.number));
    let mut behind = footer;
    let beyond = cut.map(|at| behind.split_off(at));
    let number = if beyond.is_some() { last.entry.number } else { PARTS_MAX };
    let held = open_held(gateway, upload, last, held_len).await?;
    add(number, put(upload, number, held_then(held, held_len, upload, last, behind)).await?.as_str());
    if let Some(beyond) = beyond {
        let body = UpstreamBody::sealed(Ciphertext::sealed(beyond));
        add(PARTS_MAX, put(upload, PARTS_MAX, body).await?.as_str());
    }
    Ok(at_store)
}

/// Where the footer is cut, so that the held last part and its beginning fill one of the provider's parts of
/// `common_len` bytes and the rest is the last, which may not be larger than the others. `None`: it fits as it is, or
/// there is no number for one more part.
fn cut_at(held_len: u64, footer_len: usize, common_len: u64, number: u16) -> Option<usize> {
    let fits = held_len.saturating_add(footer_len as u64) <= common_len;
    if fits || number == PARTS_MAX {
        return None;
    }
    usize::try_from(common_len.checked_sub(held_len)?).ok().filter(|at| *at < footer_len)
}

async fn put(upload: &NamedUpload, number: u16, body: UpstreamBody) -> Result<ETag, GatewayError> {
    upload.upstream.upload_part(upload.at_store(), number, body).await
}

fn stored_len(part: &NamedPart) -> Result<u64, GatewayError> {
    h(part.entry.length).ok_or(GatewayError::Internal("a part beyond the format"))
}

/// Brings a held part that turned out not to be the last to where it belongs.
async fn move_up(gateway: &Gateway, upload: &NamedUpload, part: &NamedPart) -> Result<ETag, GatewayError> {
    let held_len = stored_len(part)?;
    let held = open_held(gateway, upload, part, held_len).await?;
    put(upload, part.entry.number, held_then(held, held_len, upload, part, Bytes::new())).await
}

fn held_then(
    held: StoreBody,
    held_len: u64,
    upload: &NamedUpload,
    part: &NamedPart,
    footer: Bytes,
) -> UpstreamBody {
    let sealed_len = held_len + footer.len() as u64;
    let expected = ExpectedPart::new(upload, part);
    let stream = HeldThenFooter { held, left_len: held_len, header: Vec::new(), part: expected, footer };
    UpstreamBody::stream(Box::new(stream), sealed_len)
}

async fn open_held(
    gateway: &Gateway,
    upload: &NamedUpload,
    part: &NamedPart,
    held_len: u64,
) -> Result<StoreBody, GatewayError> {
    let number = part.entry.number;
    let held = gateway.system.fetch_held(upload.token.fields().object_id, number).await?;
    // Gone: the upload was completed or aborted meanwhile.
    let (head, body) = held.ok_or_else(no_such_upload)?;
    if head.total_size != held_len || head.etag.as_str() != part.store_etag() {
        // A later upload of the same number has taken its place.
        return Err(S3Error::new(ErrorCode::InvalidPart).with_extra("PartNumber", number.to_string()).into());
    }
    Ok(body)
}

/// What the header of a held part has to say.
struct ExpectedPart {
    epoch_id: claviger_format::EpochId,
    object_id: claviger_format::ObjectId,
    number: u16,
    length: u64,
    salt: Option<claviger_format::Salt>,
}

impl ExpectedPart {
    fn new(upload: &NamedUpload, part: &NamedPart) -> Self {
        let fields = upload.token.fields();
        Self {
            epoch_id: fields.epoch_id,
            object_id: fields.object_id,
            number: part.entry.number,
            length: part.entry.length,
            salt: part.entry.salt,
        }
    }

    fn matches(&self, header: &[u8]) -> bool {
        UnitHeader::parse(header).is_ok_and(|header| {
            let context = header.context;
            context.kind == Kind::Part
                && context.epoch_id == self.epoch_id
                && context.object_id == self.object_id
                && context.number == self.number
                && context.length == self.length
                && self.salt.is_none_or(|salt| salt == context.salt)
        })
    }
}

/// A held part as it lies in the system area, then the footer. Its header is looked at on the way, so that a provider
/// that hands back another part is noticed before the commit and not at the first read.
struct HeldThenFooter {
    held: StoreBody,
    left_len: u64,
    header: Vec<u8>,
    part: ExpectedPart,
    footer: Bytes,
}

impl SealedStream for HeldThenFooter {
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
        if self.left_len == 0 {
            let footer = std::mem::take(&mut self.footer);
            return Poll::Ready((!footer.is_empty()).then(|| Ok(Ciphertext::sealed(footer))));
        }
        let frame = match Pin::new(&mut self.held).poll_frame(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(Ok(frame))) => frame,
            Poll::Ready(_) => return Poll::Ready(Some(Err(Abandoned))),
        };
        let mut data = frame.into_data().unwrap_or_default();
        data.truncate(usize::try_from(self.left_len).unwrap_or(usize::MAX));
        self.left_len -= data.len() as u64;
        let header_len = usize::try_from(HEADER_LEN).unwrap_or(usize::MAX);
        if self.header.len() < header_len {
            let missing = (header_len - self.header.len()).min(data.len());
            self.header.extend_from_slice(&data[..missing]);
            if self.header.len() == header_len && !self.part.matches(&self.header) {
                return Poll::Ready(Some(Err(Abandoned)));
            }
        }
        Poll::Ready(Some(Ok(Ciphertext::sealed(data))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_cut_only_where_the_last_part_would_be_larger_than_the_others() {
        assert_eq!(cut_at(100, 50, 150, 3), None, "it fits exactly");
        assert_eq!(cut_at(100, 51, 150, 3), Some(50), "one byte is left for the last part");
        assert_eq!(cut_at(150, 51, 150, 3), Some(0), "the held part fills a part by itself");
        assert_eq!(cut_at(200, 51, 150, 3), None, "the client's last part is larger than the others");
        assert_eq!(cut_at(100, 51, 150, PARTS_MAX), None, "no number is left");
    }
}
