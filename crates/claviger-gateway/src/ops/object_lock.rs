//! Object Lock: retention and legal hold of objects, and the default of buckets. All of it is kept and enforced by the
//! store; documents are read here and written anew, so that nothing but a lock passes.

use claviger_s3::lock::LegalHold;
use claviger_s3::operation::{BucketDocument, BucketOnly, ObjectDocument, ObjectVersion};
use claviger_s3::xml::{self, LOCK_LEN_MAX, XmlError};
use claviger_s3::{ErrorCode, S3Error};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::delete::may_bypass;
use super::reply;
use crate::authz::{ManageBucket, ReadBucket, ReadObject, WriteObject};
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::object_settings::At;

/// Serves GetObjectRetention.
///
/// # Errors
/// The provider's, also that there is none.
pub(crate) async fn retention(
    call: &Call<'_>,
    op: &ObjectVersion,
) -> Result<Response<ResponseBody>, GatewayError> {
    let at = readable(call, op).await?;
    let retention = call.upstream.retention(at).await?;
    let retention = retention.ok_or_else(|| S3Error::new(ErrorCode::NoSuchObjectLockConfiguration))?;
    Ok(reply::document(xml::write_retention(Some(&retention))))
}

/// Serves PutObjectRetention.
///
/// # Errors
/// What is wrong with the document, or the provider's.
pub(crate) async fn put_retention(
    call: &Call<'_>,
    op: ObjectDocument,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let (at, document) = written(call, &op, body).await?;
    let retention = xml::parse_retention(&document).map_err(malformed)?;
    let bypass = may_bypass(call, at.bucket, op.bypass_governance)?;
    call.upstream.set_retention(at, retention.as_ref(), bypass).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// Serves GetObjectLegalHold.
///
/// # Errors
/// The provider's, also that there is none.
pub(crate) async fn legal_hold(
    call: &Call<'_>,
    op: &ObjectVersion,
) -> Result<Response<ResponseBody>, GatewayError> {
    let at = readable(call, op).await?;
    Ok(reply::document(xml::write_legal_hold(call.upstream.legal_hold(at).await?)))
}

/// Serves PutObjectLegalHold. Lifting a hold takes a grant of its own: the account at the store may do it for everybody.
///
/// # Errors
/// What is wrong with the document, `AccessDenied`, or the provider's.
pub(crate) async fn put_legal_hold(
    call: &Call<'_>,
    op: ObjectDocument,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let (at, document) = written(call, &op, body).await?;
    let hold = xml::parse_legal_hold(&document).map_err(malformed)?;
    if hold == LegalHold::Off {
        call.permit::<ManageBucket>(at.bucket, "")?;
    }
    call.upstream.set_legal_hold(at, hold).await?;
    Ok(reply::empty(StatusCode::OK))
}

/// Serves GetObjectLockConfiguration.
///
/// # Errors
/// The provider's, also that there is none.
pub(crate) async fn configuration(
    call: &Call<'_>,
    op: &BucketOnly,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadBucket>(op.bucket.as_str(), "")?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let configuration = call.upstream.lock_configuration(permit.bucket()).await?;
    Ok(reply::document(xml::write_lock_configuration(&configuration)))
}

/// Serves PutObjectLockConfiguration.
///
/// # Errors
/// What is wrong with the document, or the provider's.
pub(crate) async fn put_configuration(
    call: &Call<'_>,
    op: BucketDocument,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ManageBucket>(op.bucket.as_str(), "")?;
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let document = body.document(LOCK_LEN_MAX).await?;
    let configuration = xml::parse_lock_configuration(&document).map_err(malformed)?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    call.upstream.set_lock_configuration(permit.bucket(), &configuration).await?;
    Ok(reply::empty(StatusCode::OK))
}

async fn readable<'a>(call: &Call<'_>, op: &'a ObjectVersion) -> Result<At<'a>, GatewayError> {
    let at = At { bucket: op.bucket.as_str(), key: op.key.as_str(), version: op.version.as_ref() };
    call.permit::<ReadObject>(at.bucket, at.key)?;
    call.gateway.bindings.resolve(at.bucket).await?;
    Ok(at)
}

/// Where a lock is to be set, and the document that says which. Takes the right to read besides the one to write: who
/// may only put objects does not keep others' from being deleted. What comes with an object is `write`'s.
async fn written<'a>(
    call: &Call<'_>,
    op: &'a ObjectDocument,
    body: Incoming,
) -> Result<(At<'a>, bytes::Bytes), GatewayError> {
    let at = At { bucket: op.bucket.as_str(), key: op.key.as_str(), version: op.version.as_ref() };
    call.permit::<ReadObject>(at.bucket, at.key)?;
    call.permit::<WriteObject>(at.bucket, at.key)?;
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let document = body.document(LOCK_LEN_MAX).await?;
    call.gateway.bindings.resolve(at.bucket).await?;
    Ok((at, document.clone()))
}

fn malformed(error: XmlError) -> GatewayError {
    S3Error::from(error).into()
}
