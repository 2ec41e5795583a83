//! Whether a bucket keeps versions: GetBucketVersioning and PutBucketVersioning. The store keeps them; the gateway's
//! own objects lie in another bucket and have none.

use claviger_s3::operation::{BucketDocument, BucketOnly};
use claviger_s3::xml::{self, VERSIONING_LEN_MAX};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::reply;
use crate::authz::{ManageBucket, ReadBucket};
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;

/// Serves GetBucketVersioning.
///
/// # Errors
/// `NoSuchBucket`, or the provider's.
pub(crate) async fn get(call: &Call<'_>, op: &BucketOnly) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadBucket>(op.bucket.as_str(), "")?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    Ok(reply::document(call.upstream.versioning(permit.bucket()).await?.to_xml()))
}

/// Serves PutBucketVersioning.
///
/// # Errors
/// What is wrong with the document, or the provider's.
pub(crate) async fn put(
    call: &Call<'_>,
    op: BucketDocument,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ManageBucket>(op.bucket.as_str(), "")?;
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let status = xml::parse_versioning(&body.document(VERSIONING_LEN_MAX).await?)?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    call.upstream.set_versioning(permit.bucket(), status).await?;
    Ok(reply::empty(StatusCode::OK))
}
