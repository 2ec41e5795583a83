//! DeleteObject and DeleteObjects. Nothing is opened for them; every key of a batch is authorised by itself.

use claviger_format::token::object_etag;
use claviger_s3::ETag;
use claviger_s3::conditions::EtagCondition;
use claviger_s3::error::ErrorCode;
use claviger_s3::operation::{DeleteObject as DeleteOp, DeleteObjects};
use claviger_s3::xml::{
    self, DELETE_LEN_MAX, DeleteEntry, DeleteErrorEntry, DeleteRequest, DeleteResult, DeletedEntry,
};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::reply;
use crate::authz::{DeleteObject, ReadBucket};
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::object::store_etag;

/// Serves DeleteObject.
///
/// # Errors
/// `AccessDenied`, or the provider's.
pub(crate) async fn delete_object(
    call: &Call<'_>,
    op: &DeleteOp,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<DeleteObject>(op.bucket.as_str(), op.key.as_str())?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    match call
        .upstream
        .delete_object(permit.bucket(), permit.key(), op.if_match.as_ref(), op.null_version)
        .await
    {
        Ok(()) => Ok(reply::empty(StatusCode::NO_CONTENT)),
        // Deleting what is not there succeeds, whatever the store says to it.
        Err(error) if error.upstream_code() == Some(ErrorCode::NoSuchKey) && op.if_match.is_none() => {
            Ok(reply::empty(StatusCode::NO_CONTENT))
        }
        Err(error) => Err(error),
    }
}

/// Serves DeleteObjects.
///
/// # Errors
/// `MalformedXML` and the like for the document; keys that may not be deleted are errors in the answer.
pub(crate) async fn delete_objects(
    call: &Call<'_>,
    op: DeleteObjects,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let gateway = call.gateway;
    call.permit::<ReadBucket>(op.bucket.as_str(), "")?;
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let request = xml::parse_delete(&body.document(DELETE_LEN_MAX).await?)?;
    gateway.bindings.resolve(op.bucket.as_str()).await?;
    let (allowed, errors) = authorise(call, op.bucket.as_str(), request.objects);
    let mut result = DeleteResult { deleted: Vec::new(), errors };
    let (plain, awkward): (Vec<_>, Vec<_>) =
        allowed.into_iter().partition(|entry| xml::is_xml_text(&entry.key));
    if !plain.is_empty() {
        delete_batch(call, op.bucket.as_str(), plain, &mut result).await?;
    }
    // No XML document can name these keys, and one of them would fail the whole batch.
    for entry in awkward {
        delete_alone(call, op.bucket.as_str(), entry, &mut result).await;
    }
    if request.quiet {
        result.deleted.clear();
    }
    Ok(reply::document(result.to_xml()))
}

/// One request for many keys. A key that the answer does not mention is an error: nobody knows what became of it.
async fn delete_batch(
    call: &Call<'_>,
    bucket: &str,
    entries: Vec<DeleteEntry>,
    result: &mut DeleteResult,
) -> Result<(), GatewayError> {
    let request = DeleteRequest { objects: entries, quiet: false };
    let mut answered = call.upstream.delete_objects(bucket, &request).await?;
    for entry in request.objects {
        // Each line of the answer is used once: a key may have been named twice.
        let failed = answered.errors.iter().position(|error| error.key == entry.key);
        let done = answered.deleted.iter().position(|deleted| deleted.key == entry.key);
        if let Some(at) = failed {
            let code = ErrorCode::from_name(&answered.errors.swap_remove(at).code);
            result.errors.push(refusal(code.unwrap_or(ErrorCode::InternalError), entry));
        } else if let Some(at) = done {
            result.deleted.push(answered.deleted.swap_remove(at));
        } else {
            result.errors.push(refusal(ErrorCode::InternalError, entry));
        }
    }
    Ok(())
}

async fn delete_alone(call: &Call<'_>, bucket: &str, entry: DeleteEntry, result: &mut DeleteResult) {
    let null_version = entry.version_id.is_some();
    // The tag is the provider's by now; on its way out the mark is taken off once more.
    let condition = entry.etag.as_deref().and_then(|etag| ETag::parse(&object_etag::mark(etag)));
    let condition = condition.map(|etag| EtagCondition::Tags(vec![etag]));
    let gone = |error: &GatewayError| {
        condition.is_none()
            && error.upstream_code().is_none_or(|code| code == ErrorCode::NoSuchKey)
            && error.is_upstream_not_found()
    };
    match call.upstream.delete_object(bucket, &entry.key, condition.as_ref(), null_version).await {
        Err(error) if !gone(&error) => {
            let code = error.upstream_code().unwrap_or(ErrorCode::InternalError);
            result.errors.push(refusal(code, entry));
        }
        _ => result.deleted.push(DeletedEntry { key: entry.key, ..DeletedEntry::default() }),
    }
}

fn refusal(code: ErrorCode, entry: DeleteEntry) -> DeleteErrorEntry {
    DeleteErrorEntry {
        key: entry.key,
        version_id: entry.version_id,
        code: code.as_str().to_owned(),
        message: code.default_message().to_owned(),
    }
}

fn authorise(
    call: &Call<'_>,
    bucket: &str,
    entries: Vec<DeleteEntry>,
) -> (Vec<DeleteEntry>, Vec<DeleteErrorEntry>) {
    let (mut allowed, mut errors) = (Vec::new(), Vec::new());
    for entry in entries {
        if entry.version_id.as_deref().is_some_and(|version| version != "null") {
            errors.push(refusal(ErrorCode::NotImplemented, entry));
        } else if call.permit::<DeleteObject>(bucket, &entry.key).is_err() {
            errors.push(refusal(ErrorCode::AccessDenied, entry));
        } else {
            let wanted =
                entry.etag.as_deref().map(|etag| store_etag(etag.trim_matches('"')).map(str::to_owned));
            match wanted {
                None => allowed.push(entry),
                Some(Some(etag)) => allowed.push(DeleteEntry { etag: Some(etag), ..entry }),
                // No object has such a tag, and it is not sent: it may be the MD5 of a plaintext.
                Some(None) => errors.push(refusal(ErrorCode::PreconditionFailed, entry)),
            }
        }
    }
    (allowed, errors)
}
