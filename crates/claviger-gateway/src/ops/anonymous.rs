//! Requests without a signature, before their operation: anybody can send any number of them, so they cost the key service
//! little.

use claviger_s3::Operation;
use claviger_s3::error::{ErrorCode, S3Error};
use http::Response;

use super::reply;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;

/// Asks whether the buckets that an operation names are bound, as [`admit_bucket`] does for each.
///
/// # Errors
/// As [`admit_bucket`].
pub(crate) async fn admit(call: &Call<'_>, operation: &Operation) -> Result<(), GatewayError> {
    // Refused in any case: nobody who does not sign has `manage`.
    if matches!(operation, Operation::CreateBucket(_)) {
        return Ok(());
    }
    let source = operation.copy_source().map(|source| &source.bucket);
    for bucket in operation.bucket().into_iter().chain(source) {
        admit_bucket(call, bucket.as_str()).await?;
    }
    Ok(())
}

/// Asks whether a bucket is bound, as far as that may be asked for strangers. For signed requests nothing is asked.
///
/// # Errors
/// `NoSuchBucket`; `AccessDenied` for a bucket that no grant covers, without asking; `SlowDown` beyond the bound.
pub(crate) async fn admit_bucket(call: &Call<'_>, bucket: &str) -> Result<(), GatewayError> {
    if !call.identity.is_anonymous() {
        return Ok(());
    }
    if bucket == call.gateway.system.bucket() || !call.identity.may_see_bucket(bucket) {
        return Err(S3Error::new(ErrorCode::AccessDenied).into());
    }
    call.gateway.bindings.known_to_anyone(bucket).await
}

/// Serves ListBuckets for callers without a signature. The store says whether it answers them; no bucket is nobody's, so
/// there is none to show and none to ask the key service about.
///
/// # Errors
/// The provider's.
pub(crate) async fn list_buckets(call: &Call<'_>) -> Result<Response<ResponseBody>, GatewayError> {
    let mut result = call.upstream.list_buckets_once().await?;
    result.buckets.clear();
    result.continuation_token = None;
    Ok(reply::document(result.to_xml()))
}
