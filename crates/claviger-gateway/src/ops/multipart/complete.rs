//! CompleteMultipartUpload: the footer is sealed over the part list and goes up as the provider's part 10,000, behind
//! the held last part if there is one; the provider's own Complete is the commit (docs/format.md §4.5).

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use claviger_format::Checksum;
use claviger_format::envelope::Envelope;
use claviger_format::footer::{self, FooterInfo};
use claviger_format::layout::{HEADER_LEN, PARTS_MAX, h};
use claviger_format::unit::{Kind, UnitHeader};
use claviger_s3::ETag;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::CompleteMultipartUpload;
use claviger_s3::xml::{self, COMPLETE_LEN_MAX, CompleteMultipartUploadResult, CompletedPart};
use http::Response;
use http_body::Body;
use hyper::body::Incoming;

use super::part_list::{self, NamedPart};
use super::{NamedUpload, late_answer};
use crate::authz::WriteObject;
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::keys::uploads::{UnitRight, no_such_upload};
use crate::ops::put_object::confirm;
use crate::ops::{checksums, reply};
use crate::server::ResponseBody;
use crate::upstream::body::{Abandoned, Ciphertext, SealedStream, UpstreamBody};
use crate::upstream::object::Which;
use crate::upstream::passed::Passed;
use crate::upstream::transport::StoreBody;

/// How long a client waits for the head of the answer; after that it gets it, and spaces until the document is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a Complete came to.
pub(crate) struct Completed {
    /// The document of the answer.
    pub result: CompleteMultipartUploadResult,
    /// Headers of the answer; too late where its head has gone out before.
    pub passed: Passed,
}

/// Serves CompleteMultipartUpload. Once it has begun it goes on without the client.
///
/// # Errors
/// What is wrong with the list, `NoSuchUpload`, the provider's. A repeated Complete succeeds.
pub(crate) async fn complete(
    call: &Call<'_>,
    op: CompleteMultipartUpload,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let gateway = call.gateway.clone();
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let document = body.document(COMPLETE_LEN_MAX).await?;
    let list = xml::parse_complete(&document)?;
    let upload = NamedUpload::locate(call, permit, &op.upload_id).await?;
    let resource = format!("/{}/{}", op.bucket.as_str(), op.key.as_str());
    let share = gateway.stream_share().await?;
    let errands = gateway.errands.clone();
    let mut task = errands.spawn(async move {
        let _share = share;
        finish(&gateway, &upload, &op, list, None).await
    });
    match tokio::time::timeout(PATIENCE, &mut task).await {
        Ok(Ok(completed)) => {
            let Completed { result, passed } = completed?;
            let mut response = reply::document(result.to_xml());
            passed.set_on(response.headers_mut());
            Ok(response)
        }
        Ok(Err(_)) => Err(GatewayError::Internal("the completion of an upload panicked")),
        Err(_) => Ok(late_answer::respond(task, resource, call.meta)),
    }
}

/// Completes an upload; `checksum` of the whole object where it was verified elsewhere than by parts.
///
/// # Errors
/// As [`complete`].
pub(crate) async fn finish(
    gateway: &Gateway,
    upload: &NamedUpload,
    op: &CompleteMultipartUpload,
    list: Vec<CompletedPart>,
    checksum: Option<Checksum>,
) -> Result<Completed, GatewayError> {
    let result = match commit(gateway, upload, op, list, checksum).await {
        Ok(result) => result,
        // The token is not verified on this way: what it says may be compared, and nothing be removed by it.
        Err(error) if is_gone(&error) => return already_committed(upload).await?.ok_or(error),
        Err(error) => return Err(error),
    };
    let fields = upload.token.fields();
    let bucket_id = &upload.bound.bucket_id;
    gateway.system.forget_upload(bucket_id, &fields.upstream_upload_id, fields.object_id).await;
    gateway.uploads.finished(upload.asked()).await;
    Ok(result)
}

async fn commit(
    gateway: &Gateway,
    upload: &NamedUpload,
    op: &CompleteMultipartUpload,
    list: Vec<CompletedPart>,
    known: Option<Checksum>,
) -> Result<Completed, GatewayError> {
    // Nothing of the upload is looked at before the token is known to be this upload's.
    gateway.uploads.check(upload.asked()).await?;
    let parts = part_list::read(gateway, upload, list).await?;
    let count = u16::try_from(parts.len()).map_err(|_| GatewayError::Internal("more parts than numbers"))?;
    let length = parts.iter().try_fold(0u64, |sum, part| sum.checked_add(part.entry.length));
    let length = length.ok_or_else(|| S3Error::new(ErrorCode::EntityTooLarge))?;
    if op.object_size.is_some_and(|claimed| claimed != length) {
        let text = "The provided 'x-amz-mp-object-size' header does not match what was uploaded.";
        return Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into());
    }
    let UnitRight { grant, etag_key } = gateway.uploads.footer_right(upload.asked(), count, length).await?;
    part_list::verify(&parts, &etag_key)?;
    let checksum = known.or(part_list::object_checksum(upload, op, &parts)?);
    let entries: Vec<_> = parts.iter().map(|part| part.entry).collect();
    let info = FooterInfo {
        created_ms: gateway.clock.now_ms(),
        crc64: part_list::whole_crc64(&parts),
        checksum: checksum.clone(),
    };
    let footer =
        footer::seal_granted(grant, &entries, &info).map_err(GatewayError::integrity("sealing a footer"))?;
    let last = store_last(gateway, upload, &parts, footer.into()).await?;
    let at_store: Vec<CompletedPart> = parts
        .iter()
        .filter(|part| !part.held)
        .map(|part| (part.entry.number, part.store_etag().to_owned()))
        .chain([(PARTS_MAX, last.as_str().to_owned())])
        .map(|(part_number, etag)| CompletedPart { part_number, etag, checksum: None })
        .collect();
    let stored = upload.upstream.complete_upload(upload.at_store(), &at_store, op.condition.as_ref()).await?;
    confirm(gateway, &upload.upstream, &upload.permit, &upload.bound, &stored).await?;
    Ok(answer(upload, &stored.etag, stored.passed, checksum.as_ref().and_then(checksums::to_s3)))
}

fn answer(
    upload: &NamedUpload,
    etag: &ETag,
    passed: Passed,
    checksum: Option<claviger_s3::checksum::ObjectChecksum>,
) -> Completed {
    let at = upload.at_store();
    let result = CompleteMultipartUploadResult {
        location: format!("/{}/{}", at.bucket, at.key),
        bucket: at.bucket.to_owned(),
        key: at.key.to_owned(),
        etag: reply::marked(etag).as_str().to_owned(),
        checksum,
    };
    Completed { result, passed }
}

/// Uploads the provider's last part: the held one, if the list ends with it, and the footer.
async fn store_last(
    gateway: &Gateway,
    upload: &NamedUpload,
    parts: &[NamedPart],
    footer: Bytes,
) -> Result<ETag, GatewayError> {
    let body = match parts.last().filter(|part| part.held) {
        None => UpstreamBody::sealed(Ciphertext::sealed(footer)),
        Some(part) => {
            let held_len =
                h(part.entry.length).ok_or(GatewayError::Internal("a held part beyond the format"))?;
            let held = open_held(gateway, upload, part, held_len).await?;
            let sealed_len = held_len + footer.len() as u64;
            let expected = ExpectedPart::new(upload, part);
            let stream =
                HeldThenFooter { held, left_len: held_len, header: Vec::new(), part: expected, footer };
            UpstreamBody::stream(Box::new(stream), sealed_len)
        }
    };
    upload.upstream.upload_part(upload.at_store(), PARTS_MAX, body).await
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

fn is_gone(error: &GatewayError) -> bool {
    match error {
        GatewayError::S3(error) => error.code() == ErrorCode::NoSuchUpload,
        GatewayError::Release(error) => matches!(error, claviger_keyapi::ReleaseError::UploadFinished),
        other => other.upstream_code() == Some(ErrorCode::NoSuchUpload),
    }
}

/// Whether an earlier Complete of this very upload has made the object that is the newest (docs/format.md §7.2).
async fn already_committed(upload: &NamedUpload) -> Result<Option<Completed>, GatewayError> {
    let at = upload.at_store();
    let head = match upload.upstream.head_object(at.bucket, at.key, Which::default()).await {
        Ok(head) => head,
        Err(error) if error.is_upstream_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let envelope = head.envelope.as_deref().and_then(|text| Envelope::parse(text).ok());
    let same = envelope.is_some_and(|envelope| envelope.object_id() == upload.token.fields().object_id);
    Ok(same.then(|| answer(upload, &head.etag, head.passed, None)))
}
