//! CopyObject: the provider moves the sealed body, a new envelope binds it to the new name (docs/format.md §5.4). Only
//! what that can't do (another keyset, more than one server-side copy takes, an older version of a keyset that is shredded by era)
//! streams through the gateway.

use std::sync::Arc;

use claviger_format::envelope::{self, OpenedEnvelope};
use claviger_format::unit::{Kind, UnitContext, UnitGrant};
use claviger_format::{Metadata, ObjectName, Salt};
use claviger_keyapi::{KeyServiceError, ReleaseError};
use claviger_s3::conditions::Verdict;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{CopyObject, CopySource, MetadataDirective};
use claviger_s3::tagging::TagSet;
use claviger_s3::xml::CopyResult;
use http::Response;

use super::put_object::{NewBody, confirm, store};
use super::source::{Found, Source, plaintext_len};
use super::{metadata, reply, tagging};
use crate::authz::{Permit, ReadObject, WriteObject};
use crate::bindings::BoundBucket;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::keys::read::unit_keys;
use crate::server::ResponseBody;
use crate::upstream::Upstream;
use crate::upstream::mark::Mark;
use crate::upstream::object::{CopyFrom, StoreAs, Which};
use crate::upstream::object_settings::At;
use crate::upstream::passed::Passed;

/// A provider copies at most this many stored bytes in one request.
const SERVER_SIDE_COPY_LEN_MAX: u64 = 5 << 30;

struct Destination<'a> {
    permit: &'a Permit<WriteObject>,
    bound: Arc<BoundBucket>,
    name: ObjectName,
}

/// Serves CopyObject.
///
/// # Errors
/// Both names are authorised; what [`Source`] and the provider report.
pub(crate) async fn copy(call: &Call<'_>, op: CopyObject) -> Result<Response<ResponseBody>, GatewayError> {
    let read = call.permit::<ReadObject>(op.source.bucket.as_str(), op.source.key.as_str())?;
    let write = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let same = op.source.bucket == op.bucket && op.source.key == op.key;
    let unchanged = op.metadata_directive == MetadataDirective::Copy && op.headers.storage_class.is_none();
    // An older version may be put on top again.
    if same && unchanged && op.source.version.is_none() {
        let text = "This copy request is illegal because it is trying to copy an object to itself without changing the \
                    object's metadata, storage class, website redirect location or encryption attributes.";
        return Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into());
    }
    let source = Source::locate(call, &read, op.source.version.as_ref()).await?;
    let bound = call.gateway.bindings.resolve(write.bucket()).await?;
    let name = bound.name(write.key())?;
    let dest = Destination { permit: &write, bound, name };
    let found = find_source(&source, &op.source).await?;
    let in_place =
        dest.bound.keyset_id == source.bound.keyset_id && found.head.total_size <= SERVER_SIDE_COPY_LEN_MAX;
    let copied = found.head.passed.version();
    let tags = tagging::of_copy(call, &op, &source, &found).await?;
    let store_as = StoreAs { tags: tags.as_ref(), ..StoreAs::of_request(&op.headers, op.condition.as_ref()) };
    let way = if in_place { rebound(call, &op, &source, &found, &dest).await? } else { Way::anew() };
    let (result, passed) = match way {
        Way::InStore(envelope) => copy_in_store(call, &op, &found, &dest, &envelope, store_as).await?,
        Way::Anew { why } => {
            let resealed = reseal(call, &op, &source, found, &dest, store_as).await;
            resealed.map_err(|error| because(error, why))?
        }
    };
    let mut response = reply::document(result.to_object_xml());
    passed.set_on(response.headers_mut());
    reply::set_copied_version(response.headers_mut(), copied.as_ref());
    Ok(response)
}

/// The source of a copy, if it meets the request's conditions. They are judged here, since the provider's own check
/// would come after the new envelope has been sealed.
///
/// # Errors
/// 412, or what [`Source`] reports.
pub(crate) async fn find_source(source: &Source<'_>, asked: &CopySource) -> Result<Found, GatewayError> {
    let found = source.head().await?;
    let etag = reply::marked(&found.head.etag);
    match asked.conditions.evaluate_copy_source(&etag, found.head.last_modified_ms) {
        Verdict::Proceed => Ok(found),
        Verdict::NotModified => Err(S3Error::new(ErrorCode::PreconditionFailed).into()),
        Verdict::PreconditionFailed(condition) => {
            Err(S3Error::new(ErrorCode::PreconditionFailed).with_extra("Condition", condition).into())
        }
    }
}

/// The metadata of the copy.
fn new_metadata(call: &Call<'_>, op: &CopyObject, opened: &OpenedEnvelope) -> Metadata {
    match op.metadata_directive {
        MetadataDirective::Copy => opened.metadata.clone(),
        MetadataDirective::Replace => {
            let replaced = metadata::of_request(&op.headers, call.gateway.clock.now_ms());
            Metadata { checksum: opened.metadata.checksum.clone(), ..replaced }
        }
    }
}

/// How a copy is made.
enum Way {
    /// The body stays as it is, under this envelope.
    InStore(String),
    /// It is encrypted anew; `why` if the key service wants it so.
    Anew { why: Option<String> },
}

impl Way {
    fn anew() -> Self {
        Self::Anew { why: None }
    }
}

/// A gateway that may not read the source can't encrypt it anew. The client is told why that was wanted at all.
fn because(error: GatewayError, why: Option<String>) -> GatewayError {
    let is_denied = matches!(
        error,
        GatewayError::KeyService(KeyServiceError::Denied { .. })
            | GatewayError::Release(ReleaseError::Denied { .. })
    );
    match why {
        Some(text) if is_denied => ReleaseError::Denied { text }.into(),
        _ => error,
    }
}

/// The envelope of a copy within the keyset, unless the copy may not stay in the epoch of its source.
async fn rebound(
    call: &Call<'_>,
    op: &CopyObject,
    source: &Source<'_>,
    found: &Found,
    dest: &Destination<'_>,
) -> Result<Way, GatewayError> {
    let read_keys = &call.gateway.read_keys;
    if !read_keys.leases(&source.bound).await? {
        return match rebind_by_service(call, op, source, found, dest).await {
            Err(GatewayError::Release(ReleaseError::SealAnew { text })) => Ok(Way::Anew { why: Some(text) }),
            envelope => envelope.map(Way::InStore),
        };
    }
    if !read_keys.may_stay_in_its_epoch(source.asked(found)).await? {
        return Ok(Way::anew());
    }
    rebind_here(call, op, source, found.clone(), dest).await.map(Way::InStore)
}

async fn copy_in_store(
    call: &Call<'_>,
    op: &CopyObject,
    found: &Found,
    dest: &Destination<'_>,
    envelope: &str,
    store_as: StoreAs<'_>,
) -> Result<(CopyResult, Passed), GatewayError> {
    let version = found.head.passed.version();
    let store_as = StoreAs { envelope: Some(envelope), ..store_as };
    let from = CopyFrom {
        bucket: op.source.bucket.as_str(),
        key: op.source.key.as_str(),
        etag: &found.head.etag,
        version: version.as_ref().or(op.source.version.as_ref()),
    };
    let to = (dest.permit.bucket(), dest.permit.key());
    let (mut result, stored) = call.upstream.copy_object(from, to, store_as).await?;
    let mark = Mark::Envelope(envelope);
    confirm(call.gateway, &call.upstream, dest.permit, &dest.bound, &stored, mark).await?;
    if let Some(tags) = store_as.tags.filter(|tags| !tags.is_empty() && call.upstream.wants_tags_after_copy())
    {
        set_tags(&call.upstream, to, &stored.passed, mark, tags).await?;
    }
    result.etag = reply::marked(&stored.etag).as_str().to_owned();
    result.checksum = None;
    Ok((result, stored.passed))
}

/// Sets the tags of a copy that the store has just made, where they can't come with the request. Not every store says
/// which version the copy became, so what is there is looked at first: nobody else's object gets these tags. In a bucket
/// without versions one that comes between the look and the tags gets them all the same (docs/threat-model.md).
///
/// # Errors
/// `OperationAborted` when the copy is not the newest any more; the provider's. The copy has no tags then.
async fn set_tags(
    upstream: &Upstream,
    (bucket, key): (&str, &str),
    copied: &Passed,
    mark: Mark<'_>,
    tags: &TagSet,
) -> Result<(), GatewayError> {
    let version = copied.version();
    let found = upstream.head_object(bucket, key, Which { same_as: None, version: version.as_ref() }).await;
    let found = match found {
        Ok(found) if mark.is_on(&found) => found,
        Err(error) if !error.is_upstream_not_found() => return Err(error),
        _ => return Err(S3Error::new(ErrorCode::OperationAborted).into()),
    };
    let version = version.or(found.passed.version());
    upstream.set_tags(At { bucket, key, version: version.as_ref() }, tags).await.map(drop)
}

/// With a leased epoch: the object's key is here.
async fn rebind_here(
    call: &Call<'_>,
    op: &CopyObject,
    source: &Source<'_>,
    found: Found,
    dest: &Destination<'_>,
) -> Result<String, GatewayError> {
    let object = source.open(found).await?;
    let metadata = new_metadata(call, op, &object.envelope);
    let OpenedEnvelope { epoch_id, object_id, layout, .. } = &*object.envelope;
    let tlv_len_max = metadata::tlv_len_max(&call.gateway.config.upstream);
    let random = &*call.gateway.random;
    envelope::seal(&object.dek, *epoch_id, *object_id, &dest.name, layout, &metadata, tlv_len_max, random)
        .map_err(metadata::seal_error)
}

/// Object by object: the key service verifies both names and gives the keys of two envelopes, never the object's.
async fn rebind_by_service(
    call: &Call<'_>,
    op: &CopyObject,
    source: &Source<'_>,
    found: &Found,
    dest: &Destination<'_>,
) -> Result<String, GatewayError> {
    let gateway = call.gateway;
    let opened = gateway.read_keys.open_metadata(source.asked(found)).await?;
    plaintext_len(&found.head, &opened)?;
    let metadata = new_metadata(call, op, &opened);
    let tlv_len = envelope::tlv_len(&opened.layout, &metadata).map_err(metadata::seal_error)?;
    let tlv_len_max = metadata::tlv_len_max(&gateway.config.upstream);
    if tlv_len > tlv_len_max {
        let error = claviger_format::Error::MetadataTooLarge { len: tlv_len, len_max: tlv_len_max };
        return Err(metadata::seal_error(error));
    }
    let tlv_len = u32::try_from(tlv_len).map_err(|_| GatewayError::Internal("metadata beyond 4 GiB"))?;
    let drawn = gateway.read_keys.rebind(source.asked(found), &dest.name, tlv_len).await?;
    let context = UnitContext {
        kind: Kind::Envelope,
        number: 0,
        length: drawn.length,
        epoch_id: opened.epoch_id,
        object_id: opened.object_id,
        salt: Salt::new(drawn.salt.0),
    };
    let grant = UnitGrant::new(context, unit_keys(&drawn.unit)?).map_err(metadata::seal_error)?;
    envelope::seal_granted(grant, &opened.layout, &metadata).map_err(metadata::seal_error)
}

/// Opens the source and seals it anew under a key of the destination's keyset: one of its newest version.
async fn reseal(
    call: &Call<'_>,
    op: &CopyObject,
    source: &Source<'_>,
    found: Found,
    dest: &Destination<'_>,
    store_as: StoreAs<'_>,
) -> Result<(CopyResult, Passed), GatewayError> {
    let _share = call.gateway.stream_share().await?;
    let object = source.open(found).await?;
    let body = source.get_again(&object).await?;
    let metadata = new_metadata(call, op, &object.envelope);
    let length = object.length;
    let opened = source.whole(&object, body).await?;
    let new =
        NewBody { permit: dest.permit, bound: &dest.bound, name: &dest.name, length, metadata, store_as };
    let (stored, _, _) = store(call.gateway, &call.upstream, new, opened).await?;
    let etag = reply::marked(&stored.etag).as_str().to_owned();
    let result = CopyResult { etag, last_modified_ms: call.gateway.clock.now_ms(), checksum: None };
    Ok((result, stored.passed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ENVELOPE_HEADER;
    use crate::upstream::double;

    /// What is asked of a store that shows this, and what comes of it.
    async fn tagged(status: u16, shown: &[(&str, &str)]) -> (Vec<String>, Option<ErrorCode>) {
        let shown = if status == 200 { double::object(shown) } else { double::answer(status, shown, "") };
        let store = double::store("ceph-rgw", move |request| match double::method(request) {
            "PUT" => double::answer(200, &[], ""),
            _ => shown.clone(),
        })
        .await;
        let mark = Mark::Envelope("mine");
        let set = set_tags(&store.upstream, ("b", "k"), &Passed::default(), mark, &TagSet::default()).await;
        (store.lines(), set.err().map(|error| error.to_s3("/b/k").code()))
    }

    #[tokio::test]
    async fn the_tags_of_a_copy_go_onto_no_other_object() {
        for (status, shown) in [(200, &[(ENVELOPE_HEADER, "another")][..]), (200, &[]), (404, &[])] {
            let (lines, error) = tagged(status, shown).await;
            assert_eq!(lines, ["HEAD /b/k"], "{status} {shown:?}");
            assert_eq!(error, Some(ErrorCode::OperationAborted), "{status} {shown:?}");
        }
    }

    #[tokio::test]
    async fn the_tags_of_a_copy_go_onto_the_version_that_is_the_copy() {
        let shown = [(ENVELOPE_HEADER, "mine"), ("x-amz-version-id", "v7")];
        let (lines, error) = tagged(200, &shown).await;
        assert_eq!(lines, ["HEAD /b/k", "PUT /b/k?tagging=&versionId=v7"]);
        assert_eq!(error, None);
    }

    #[test]
    fn who_may_not_read_what_has_to_be_encrypted_anew_is_told_why_that_has_to_be() {
        let denied = || GatewayError::from(KeyServiceError::Denied { text: "write-only".to_owned() });
        let told = because(denied(), Some("shredded by era".to_owned())).to_s3("/b/k");
        assert_eq!((told.code(), told.message()), (ErrorCode::AccessDenied, "shredded by era"));
        assert_eq!(because(denied(), None).to_s3("/b/k").message(), "write-only");
        let other = because(GatewayError::Replaced, Some("shredded by era".to_owned()));
        assert!(matches!(other, GatewayError::Replaced), "another failure is itself");
    }
}
