//! DeleteObject and DeleteObjects. Nothing is opened for them; every key of a batch is authorised by itself.

use claviger_format::token::object_etag;
use claviger_s3::error::ErrorCode;
use claviger_s3::operation::{DeleteObject as DeleteOp, DeleteObjects};
use claviger_s3::xml::{self, DELETE_LEN_MAX, DeleteEntry, DeleteErrorEntry, DeleteRequest, DeleteResult};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::reply;
use crate::authz::{DeleteObject, ReadBucket};
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;

/// Serves DeleteObject.
///
/// # Errors
/// `AccessDenied`, or the provider's.
pub(crate) async fn delete_object(
    call: &Call<'_>,
    op: &DeleteOp,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<DeleteObject>(op.bucket.as_str(), op.key.as_str())?;
    let gateway = call.gateway;
    gateway.bindings.resolve(permit.bucket()).await?;
    match gateway.upstream.delete_object(permit.bucket(), permit.key(), op.if_match.as_ref()).await {
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
    let body = ClientBody::new(body, gateway.client_idle_timeout(), &call.authenticated, &op.body, &[])?;
    let request = xml::parse_delete(&body.document(DELETE_LEN_MAX).await?)?;
    gateway.bindings.resolve(op.bucket.as_str()).await?;
    let (allowed, errors) = authorise(call, op.bucket.as_str(), request.objects);
    let mut result = DeleteResult { deleted: Vec::new(), errors };
    if !allowed.is_empty() {
        let upstream = DeleteRequest { objects: allowed, quiet: request.quiet };
        let answered = gateway.upstream.delete_objects(op.bucket.as_str(), &upstream).await?;
        result.deleted = answered.deleted;
        result.errors.extend(answered.errors.into_iter().map(|error| DeleteErrorEntry {
            message: ErrorCode::from_name(&error.code).map_or("", ErrorCode::default_message).to_owned(),
            ..error
        }));
    }
    if request.quiet {
        result.deleted.clear();
    }
    Ok(reply::document(result.to_xml()))
}

fn authorise(
    call: &Call<'_>,
    bucket: &str,
    entries: Vec<DeleteEntry>,
) -> (Vec<DeleteEntry>, Vec<DeleteErrorEntry>) {
    let (mut allowed, mut errors) = (Vec::new(), Vec::new());
    for entry in entries {
        let refusal = |code: ErrorCode, entry: DeleteEntry| DeleteErrorEntry {
            key: entry.key,
            version_id: entry.version_id,
            code: code.as_str().to_owned(),
            message: code.default_message().to_owned(),
        };
        if entry.version_id.as_deref().is_some_and(|version| version != "null") {
            errors.push(refusal(ErrorCode::NotImplemented, entry));
        } else if call.permit::<DeleteObject>(bucket, &entry.key).is_err() {
            errors.push(refusal(ErrorCode::AccessDenied, entry));
        } else {
            let etag = entry.etag.map(|etag| object_etag::unmark(etag.trim_matches('"')).to_owned());
            allowed.push(DeleteEntry { key: entry.key, version_id: None, etag });
        }
    }
    (allowed, errors)
}
