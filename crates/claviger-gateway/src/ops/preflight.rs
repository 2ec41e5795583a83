//! The preflight of browsers: may a page of this origin send such a request? The bucket's CORS rules at the store say so.

use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::BucketOnly;
use http::{Response, StatusCode};

use super::reply;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::server::ResponseBody;
use crate::upstream::Upstream;

/// Serves a preflight. It comes without a signature, since browsers have none to give, and goes to the store without one;
/// `upstream` carries the three headers that it consists of, and its answer's headers are collected there.
///
/// # Errors
/// `NoSuchBucket`, what `complete` lacks, the store's refusal, or that too many ask about buckets that this gateway does not know.
pub(crate) async fn answer(
    gateway: &Gateway,
    upstream: &Upstream,
    op: &BucketOnly,
    complete: Result<(), S3Error>,
) -> Result<Response<ResponseBody>, GatewayError> {
    let bucket = op.bucket.as_str();
    if bucket == gateway.system.bucket() {
        return Err(S3Error::new(ErrorCode::AccessDenied).into());
    }
    gateway.bindings.known_to_anyone(bucket).await?;
    complete?;
    upstream.preflight(bucket).await?;
    Ok(reply::empty(StatusCode::OK))
}
