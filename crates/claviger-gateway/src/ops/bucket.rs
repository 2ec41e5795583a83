//! Operations on buckets. A bucket is the gateway's if the key service has bound its name; what else the account
//! holds at the provider does not exist here.

use std::collections::HashSet;
use std::sync::Arc;

use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{BucketOnly, CreateBucket, ListBuckets};
use claviger_s3::xml::{self, CREATE_BUCKET_LEN_MAX};
use http::header::{HeaderName, LOCATION};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::reply;
use crate::authz::{ManageBucket, ReadBucket};
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::Upstream;
use crate::upstream::list::ListWhat;
use crate::upstream::object::MakeAs;

/// Serves ListBuckets: what is bound, exists at the provider, and concerns the caller.
///
/// # Errors
/// The provider's or the key service's.
pub(crate) async fn list_buckets(
    call: &Call<'_>,
    op: &ListBuckets,
) -> Result<Response<ResponseBody>, GatewayError> {
    let gateway = call.gateway;
    let (bindings, stored) = tokio::try_join!(gateway.bindings.all(), call.upstream.list_buckets())?;
    let bound: HashSet<&str> = bindings.iter().map(|binding| binding.bucket.as_str()).collect();
    let mut result = stored;
    result.buckets.retain(|bucket| {
        bound.contains(bucket.name.as_str())
            && bucket.name != gateway.system.bucket()
            && call.identity.may_see_bucket(&bucket.name)
            && bucket.name.starts_with(&op.prefix)
            && op.continuation_token.as_ref().is_none_or(|token| bucket.name > *token)
    });
    result.buckets.sort_by(|a, b| a.name.cmp(&b.name));
    result.prefix = Some(op.prefix.clone()).filter(|prefix| !prefix.is_empty());
    let max = usize::try_from(op.max_buckets).unwrap_or(usize::MAX);
    result.continuation_token = None;
    if result.buckets.len() > max {
        result.buckets.truncate(max);
        result.continuation_token = result.buckets.last().map(|bucket| bucket.name.clone());
    }
    Ok(reply::document(result.to_xml()))
}

/// Serves CreateBucket: the name is bound first, so that no bucket is ever there without a keyset.
///
/// # Errors
/// `BucketAlreadyExists` and the like; `OperationAborted` while an earlier binding of the name is closing.
pub(crate) async fn create(
    call: &Call<'_>,
    op: CreateBucket,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ManageBucket>(op.bucket.as_str(), "")?;
    let gateway = call.gateway;
    if op.body.content_length.is_some_and(|len| len > 0) || call.authenticated.payload().is_chunked() {
        let body = ClientBody::new(call, body, &op.body, &[])?;
        let document = body.document(CREATE_BUCKET_LEN_MAX).await?;
        // The location is the upstream's affair: the gateway stands before one store in one region.
        xml::parse_create_bucket(&document)?;
    }
    let bucket = permit.bucket();
    let _alone = gateway.bucket_locks.lock(bucket).await;
    // A foreign bucket is noticed before its name is bound. Once bound, a name keeps its id whatever becomes of the
    // request: another one may have made the bucket and written to it meanwhile, and no answer of the provider may make
    // objects unreadable. A binding without a bucket is harmless, and DeleteBucket ends it.
    if !gateway.bindings.is_bound(bucket).await? && holds_foreign_objects(call, bucket).await? {
        return Err(S3Error::new(ErrorCode::BucketAlreadyExists).into());
    }
    if held_elsewhere(call, bucket).await? {
        return Err(S3Error::new(ErrorCode::BucketAlreadyExists).into());
    }
    let make_as =
        MakeAs { acl: Some(&op.acl), object_ownership: op.object_ownership, object_lock: op.object_lock };
    let (bound, is_new) = gateway.bindings.bind(bucket).await?;
    match call.upstream.create_bucket(bucket, make_as).await {
        // The account's own empty bucket, made before the name was bound.
        Err(error) if is_new && error.upstream_code() == Some(ErrorCode::BucketAlreadyOwnedByYou) => {}
        other => other?,
    }
    // Other gateways may have been at it too: a second bucket of the name beside this one, or a DeleteBucket that ended
    // the binding. Nobody has been told of this bucket yet.
    if owned_elsewhere(call, bucket).await? {
        call.upstream.delete_bucket(bucket).await?;
        return Err(S3Error::new(ErrorCode::OperationAborted).into());
    }
    if !gateway.bindings.stands_for(bucket, &bound).await? {
        return Err(S3Error::new(ErrorCode::OperationAborted).into());
    }
    let mut response = reply::empty(StatusCode::OK);
    reply::set(response.headers_mut(), LOCATION, &format!("/{bucket}"));
    Ok(response)
}

/// Whether the provider's account holds a bucket of this name with objects in it that Claviger can't have written: the
/// name was not bound. It is not adopted; an empty one is.
async fn holds_foreign_objects(call: &Call<'_>, bucket: &str) -> Result<bool, GatewayError> {
    let what = ListWhat { prefix: "", delimiter: None, max_keys: 1 };
    match call.upstream.list_objects_v2(bucket, what, None, None, false).await {
        Ok(page) => Ok(!page.contents.is_empty()),
        Err(error) if error.is_upstream_not_found() => Ok(false),
        // Somebody else's, and what is in it can't be told. Its name is not bound for a request that is bound to fail.
        Err(error) if error.upstream_code() == Some(ErrorCode::AccessDenied) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether another account of this gateway has a bucket of this name of its own, as it lists its buckets.
async fn owned_elsewhere(call: &Call<'_>, bucket: &str) -> Result<bool, GatewayError> {
    for other in others(call) {
        let listed = other.list_buckets().await?;
        if listed.buckets.iter().any(|listed| listed.name == bucket) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether any account of this gateway is told that a bucket of this name exists, the caller's among them.
///
/// # Errors
/// As [`held_elsewhere`].
async fn is_seen_by_any(call: &Call<'_>, bucket: &str) -> Result<bool, GatewayError> {
    Ok(is_seen(&call.upstream, bucket).await? || is_seen_by_others(call, bucket).await?)
}

/// Whether another account than the caller's is told that a bucket of this name exists.
///
/// # Errors
/// As [`held_elsewhere`].
async fn is_seen_by_others(call: &Call<'_>, bucket: &str) -> Result<bool, GatewayError> {
    for other in others(call) {
        if is_seen(&other, bucket).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The store through each account of this gateway but the caller's.
fn others(call: &Call<'_>) -> impl Iterator<Item = Upstream> {
    let own = call.upstream.account();
    let accounts = call.gateway.accounts().filter(move |other| !Arc::ptr_eq(other, own));
    accounts.map(|other| call.upstream.with_account(other.clone()))
}

/// Whether the caller's account sees no bucket of this name, while another account of this gateway does. Some stores
/// keep a space of names for each tenant or key; here a name is bound once. A second bucket of the name must not come to
/// share the binding of the first, and its end must not end that binding. Costs nothing where there is one account.
///
/// # Errors
/// The provider's, also for an account that it does not know any more: what that one holds can't be told then.
async fn held_elsewhere(call: &Call<'_>, bucket: &str) -> Result<bool, GatewayError> {
    if others(call).next().is_none() || is_seen(&call.upstream, bucket).await? {
        return Ok(false);
    }
    is_seen_by_others(call, bucket).await
}

/// Whether an account is told that a bucket exists, its own or not.
async fn is_seen(upstream: &Upstream, bucket: &str) -> Result<bool, GatewayError> {
    let what = ListWhat { prefix: "", delimiter: None, max_keys: 1 };
    match upstream.list_objects_v2(bucket, what, None, None, false).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_upstream_not_found() => Ok(false),
        Err(error) if error.upstream_code() == Some(ErrorCode::AccessDenied) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Serves HeadBucket.
///
/// # Errors
/// `NoSuchBucket`, or the provider's.
pub(crate) async fn head(call: &Call<'_>, op: &BucketOnly) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadBucket>(op.bucket.as_str(), "")?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    call.upstream
        .head_bucket(permit.bucket())
        .await
        .map_err(|error| no_such_bucket(error, permit.bucket()))?;
    let mut response = reply::empty(StatusCode::OK);
    let name = HeaderName::from_static("x-amz-bucket-region");
    reply::set(response.headers_mut(), name, call.gateway.region());
    Ok(response)
}

/// Serves DeleteBucket: at the provider first, which refuses while objects are in it.
///
/// # Errors
/// `BucketNotEmpty`, `NoSuchBucket`, or the provider's.
pub(crate) async fn delete(call: &Call<'_>, op: &BucketOnly) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ManageBucket>(op.bucket.as_str(), "")?;
    let (gateway, bucket) = (call.gateway, permit.bucket());
    let _alone = gateway.bucket_locks.lock(bucket).await;
    let bound = gateway.bindings.resolve(bucket).await?;
    match call.upstream.delete_bucket(bucket).await {
        Ok(()) => {}
        // Deleted behind our back, or by an earlier attempt whose unbinding failed: the binding still has to go. One
        // answer of the provider is not enough for that.
        Err(error) if error.is_upstream_not_found() => {
            let what = ListWhat { prefix: "", delimiter: None, max_keys: 1 };
            if let Err(listed) = call.upstream.list_objects_v2(bucket, what, None, None, false).await
                && listed.upstream_code() == Some(ErrorCode::NoSuchBucket)
                && !is_seen_by_others(call, bucket).await?
            {
                gateway.bindings.unbind(bucket, &bound).await?;
            }
            return Err(no_such_bucket(error, bucket));
        }
        Err(error) => return Err(error),
    }
    // It may be there again: somebody made it the moment that it was gone, and has been told so.
    if !is_seen_by_any(call, bucket).await? {
        gateway.bindings.unbind(bucket, &bound).await?;
    }
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

/// Serves GetBucketLocation: the store's own answer. Clients sign for what it says, and any region is accepted.
///
/// # Errors
/// `NoSuchBucket`, or the provider's.
pub(crate) async fn location(
    call: &Call<'_>,
    op: &BucketOnly,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadBucket>(op.bucket.as_str(), "")?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let location = call.upstream.bucket_location(permit.bucket()).await?;
    Ok(reply::document(xml::location_constraint(&location)))
}

/// A HEAD answers 404 without saying what is missing; here it can only be the bucket.
fn no_such_bucket(error: GatewayError, bucket: &str) -> GatewayError {
    if error.is_upstream_not_found() {
        return S3Error::new(ErrorCode::NoSuchBucket).with_extra("BucketName", bucket).into();
    }
    error
}
