//! Tags of objects. The store has to be able to read them, so each bucket's policy (`[[tags]]`) says whether a client may
//! write any. Where it may not, reading them answers an empty set: tools ask for tags before they copy.

use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{CopyObject, ObjectDocument, ObjectHeaders, ObjectVersion, TaggingDirective};
use claviger_s3::tagging::TagSet;
use claviger_s3::xml::{self, TAGGING_LEN_MAX};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::reply;
use super::source::{Found, Source};
use crate::authz::{ReadObject, WriteObject};
use crate::body::client::ClientBody;
use crate::config::TagMode;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::object_settings::At;
use crate::upstream::passed::Passed;

/// Serves GetObjectTagging.
///
/// # Errors
/// `NoSuchKey`, or the provider's.
pub(crate) async fn get(call: &Call<'_>, op: &ObjectVersion) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadObject>(op.bucket.as_str(), op.key.as_str())?;
    let (tags, passed) = match call.gateway.config.tag_mode(permit.bucket()) {
        TagMode::Refused => {
            let source = Source::locate(call, &permit, op.version.as_ref()).await?;
            (TagSet::default(), source.head().await?.head.passed)
        }
        TagMode::Plain => {
            call.gateway.bindings.resolve(permit.bucket()).await?;
            call.upstream.tags(at(op)).await?
        }
    };
    let mut response = reply::document(xml::write_tagging(&tags));
    passed.set_version_on(response.headers_mut());
    Ok(response)
}

/// Serves PutObjectTagging. Takes the right to read the object, too: a policy of the store may let everybody read what
/// has some tag. Tags that come with an object are `write`'s, like the object.
///
/// # Errors
/// Refused by policy; what is wrong with the document; the provider's.
pub(crate) async fn put(
    call: &Call<'_>,
    op: ObjectDocument,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    call.permit::<ReadObject>(op.bucket.as_str(), op.key.as_str())?;
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    allow(call, permit.bucket())?;
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let tags = xml::parse_tagging(&body.document(TAGGING_LEN_MAX).await?)?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let at = At { bucket: permit.bucket(), key: permit.key(), version: op.version.as_ref() };
    let passed = call.upstream.set_tags(at, &tags).await?;
    Ok(answer(StatusCode::OK, &passed))
}

/// Serves DeleteObjectTagging, to whom [`put`] is served.
///
/// # Errors
/// Refused by policy, or the provider's.
pub(crate) async fn delete(
    call: &Call<'_>,
    op: &ObjectVersion,
) -> Result<Response<ResponseBody>, GatewayError> {
    call.permit::<ReadObject>(op.bucket.as_str(), op.key.as_str())?;
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    allow(call, permit.bucket())?;
    call.gateway.bindings.resolve(permit.bucket()).await?;
    let passed = call.upstream.remove_tags(at(op)).await?;
    Ok(answer(StatusCode::NO_CONTENT, &passed))
}

/// Refuses a write that brings tags where the bucket's policy has none.
///
/// # Errors
/// `AccessDenied`, with what to configure.
pub(crate) fn check(call: &Call<'_>, bucket: &str, headers: &ObjectHeaders) -> Result<(), GatewayError> {
    if headers.tags.is_empty() { Ok(()) } else { allow(call, bucket) }
}

/// The tags that a copy gets: the request's, or the source's where both buckets have tags; `None` where neither has, so
/// that nothing need be said of tags. They are read here and sent with the request, since stores differ in what becomes
/// of them when metadata is replaced, as it always is.
///
/// # Errors
/// Refused by policy; the provider's.
pub(crate) async fn of_copy(
    call: &Call<'_>,
    op: &CopyObject,
    source: &Source<'_>,
    found: &Found,
) -> Result<Option<TagSet>, GatewayError> {
    let is_plain = |bucket| call.gateway.config.tag_mode(bucket) == TagMode::Plain;
    let (from, to) = (is_plain(op.source.bucket.as_str()), is_plain(op.bucket.as_str()));
    if op.tagging_directive == TaggingDirective::Replace {
        check(call, op.bucket.as_str(), &op.headers)?;
        return Ok((from || to).then(|| op.headers.tags.clone()));
    }
    if from && to && found.head.passed.has_tags() {
        let version = found.head.passed.version();
        return Ok(Some(call.upstream.tags(source.at(version.as_ref())).await?.0));
    }
    Ok((from || to).then(TagSet::default))
}

fn allow(call: &Call<'_>, bucket: &str) -> Result<(), GatewayError> {
    match call.gateway.config.tag_mode(bucket) {
        TagMode::Plain => Ok(()),
        TagMode::Refused => {
            let text = "Object tags are refused for this bucket: the object store would keep them in clear. An operator \
                        can allow them with [[tags]] in the gateway's configuration.";
            Err(S3Error::new(ErrorCode::AccessDenied).with_message(text).into())
        }
    }
}

fn at(op: &ObjectVersion) -> At<'_> {
    At { bucket: op.bucket.as_str(), key: op.key.as_str(), version: op.version.as_ref() }
}

fn answer(status: StatusCode, passed: &Passed) -> Response<ResponseBody> {
    let mut response = reply::empty(status);
    passed.set_version_on(response.headers_mut());
    response
}
