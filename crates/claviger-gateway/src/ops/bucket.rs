//! Operations on buckets. A bucket is the gateway's if the key service has bound its name; what else the account
//! holds at the provider does not exist here.

use std::collections::HashSet;

use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{BucketOnly, CreateBucket, ListBuckets};
use claviger_s3::xml::{self, CREATE_BUCKET_LEN_MAX};
use http::header::{HeaderName, LOCATION};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::bucket_accounts::{Accounts, Sight};
use super::reply;
use crate::authz::{ManageBucket, ReadBucket};
use crate::bindings::Bindings;
use crate::body::client::ClientBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
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
    let _alone = gateway.bucket_locks.lock(bucket).await?;
    let accounts = Accounts::of(call);
    // A foreign bucket is noticed before its name is bound. Once bound, a name keeps its id whatever becomes of the
    // request: another one may have made the bucket and written to it meanwhile, and no answer of the provider may make
    // objects unreadable. A binding without a bucket is harmless, and DeleteBucket ends it.
    let seen = accounts.own_sight(bucket).await?;
    if is_taken(call, &accounts, bucket, seen).await? {
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
    // the binding. The bucket stays all the same: somebody else may have been told that it is his.
    let is_second = seen == Sight::Nothing && accounts.another_is_older(bucket).await;
    if is_second || !gateway.bindings.stands_for(bucket, &bound).await? {
        return Err(S3Error::new(ErrorCode::OperationAborted).into());
    }
    let mut response = reply::empty(StatusCode::OK);
    reply::set(response.headers_mut(), LOCATION, &format!("/{bucket}"));
    Ok(response)
}

/// Whether the caller, who sees so much of a bucket of this name, can't have it: it holds objects that Claviger can't have
/// written, as the name was not bound (an empty one is adopted); or the name is another account's.
async fn is_taken(
    call: &Call<'_>,
    accounts: &Accounts,
    bucket: &str,
    seen: Sight,
) -> Result<bool, GatewayError> {
    let is_bound = call.gateway.bindings.is_bound(bucket).await?;
    match seen {
        Sight::Nothing => accounts.others_see(bucket, is_bound).await,
        // Somebody else's, perhaps. A name is not bound for a request that is bound to fail.
        Sight::Filled if !is_bound => Ok(true),
        Sight::Empty | Sight::Filled => Ok(accounts.another_is_older(bucket).await),
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

/// Serves DeleteBucket: at the provider first, which refuses while objects are in it. Goes on without the client: nobody
/// else may be at the name before it is over.
///
/// # Errors
/// `BucketNotEmpty`, `NoSuchBucket`, or the provider's.
pub(crate) async fn delete(call: &Call<'_>, op: &BucketOnly) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ManageBucket>(op.bucket.as_str(), "")?;
    let alone = call.gateway.bucket_locks.lock(permit.bucket()).await?;
    let (gateway, accounts) = (call.gateway.clone(), Accounts::of(call));
    let task = call.gateway.errands.spawn(async move {
        let _alone = alone;
        delete_and_unbind(&gateway.bindings, &accounts, permit.bucket()).await
    });
    task.await.map_err(|_| GatewayError::Internal("the deletion of a bucket panicked"))??;
    Ok(reply::empty(StatusCode::NO_CONTENT))
}

async fn delete_and_unbind(
    bindings: &Bindings,
    accounts: &Accounts,
    bucket: &str,
) -> Result<(), GatewayError> {
    let bound = bindings.resolve(bucket).await?;
    let deleted = match accounts.own.delete_bucket(bucket).await {
        Ok(()) => Ok(()),
        // Deleted behind our back, or by an earlier attempt whose unbinding failed: the binding still has to go.
        Err(error) if error.is_upstream_not_found() => Err(no_such_bucket(error, bucket)),
        Err(error) => return Err(error),
    };
    // One answer of the provider is not enough to end a binding. And the bucket may be there again: somebody made it the
    // moment that it was gone, and has been told so.
    match accounts.any_sees(bucket).await {
        Ok(false) => bindings.unbind(bucket, &bound).await?,
        Ok(true) => {}
        // It is deleted all the same. A binding without a bucket is harmless, and another DeleteBucket ends it.
        Err(error) => {
            tracing::warn!(%error, "it can't be told whether a deleted bucket is gone: its name stays bound")
        }
    }
    deleted
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
