//! CompleteMultipartUpload: the footer is sealed over the part list and goes up as the provider's part 10,000, behind
//! the held last part if there is one; the provider's own Complete is the commit (docs/format.md §4.5).

use std::time::Duration;

use claviger_format::Checksum;
use claviger_format::footer::{self, FooterInfo};
use claviger_keyapi::ReleaseError;
use claviger_s3::ETag;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::CompleteMultipartUpload;
use claviger_s3::xml::{self, COMPLETE_LEN_MAX, CompleteMultipartUploadResult, CompletedPart};
use http::Response;
use hyper::body::Incoming;

use super::{NamedUpload, late_answer, part_list, store_last};
use crate::authz::WriteObject;
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::keys::uploads::UnitRight;
use crate::ops::put_object::confirm;
use crate::ops::{checksums, reply};
use crate::server::ResponseBody;
use crate::upstream::mark::Mark;
use crate::upstream::object::Which;
use crate::upstream::passed::Passed;

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
    let list = xml::parse_complete(&body.document(COMPLETE_LEN_MAX).await?)?;
    let upload = NamedUpload::locate(call, permit, &op.upload_id).await?;
    let resource = format!("/{}/{}", op.bucket.as_str(), op.key.as_str());
    let share = gateway.stream_share().await?;
    let errands = gateway.errands.clone();
    let place = call.place.clone();
    let mut task = errands.spawn(async move {
        let _held = (share, place);
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
    // Nothing of the upload is looked at before the token is known to be this upload's, under the name as it is bound now. Only
    // then is it asked whether it was completed: an object of a bucket that was deleted since is nobody's.
    let committed = match gateway.uploads.check(upload.asked()).await {
        Ok(_) => commit(gateway, upload, op, list, checksum).await,
        Err(error) if is_finished(&error) => Err(error),
        Err(error) => return Err(error),
    };
    let result = match committed {
        Ok(result) => result,
        Err(error) if is_gone(&error) => return already_committed(upload).await?.ok_or(error),
        Err(error) => return Err(error),
    };
    let fields = upload.token.fields();
    let bucket_id = &upload.bound.bucket_id;
    gateway.uploads.close(fields.object_id);
    gateway.system.forget_upload(bucket_id, &fields.upstream_upload_id, fields.object_id).await;
    gateway.uploads.finished(upload.asked()).await;
    // Last: who repeats the request meanwhile may name the same entity tags.
    gateway.repeated_parts.forget(fields.object_id);
    Ok(result)
}

async fn commit(
    gateway: &Gateway,
    upload: &NamedUpload,
    op: &CompleteMultipartUpload,
    list: Vec<CompletedPart>,
    known: Option<Checksum>,
) -> Result<Completed, GatewayError> {
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
    let at_store = store_last::store(gateway, upload, &parts, footer.into()).await?;
    let mark = Mark::Upload(upload.token.fields().object_id);
    let condition = op.condition.as_ref();
    let stored = upload.upstream.complete_upload(upload.at_store(), &at_store, condition, mark).await?;
    confirm(gateway, &upload.upstream, &upload.permit, &upload.bound, &stored, mark).await?;
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

fn is_finished(error: &GatewayError) -> bool {
    matches!(error, GatewayError::Release(ReleaseError::UploadFinished))
}

fn is_gone(error: &GatewayError) -> bool {
    match error {
        GatewayError::S3(error) => error.code() == ErrorCode::NoSuchUpload,
        error if is_finished(error) => true,
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
    let same = Mark::Upload(upload.token.fields().object_id).is_on(&head);
    Ok(same.then(|| answer(upload, &head.etag, head.passed, None)))
}
