//! PutObject: one upstream PUT whose last bytes leave only when everything that the client declared has been verified.

use std::sync::Arc;

use claviger_format::envelope;
use claviger_format::layout::CLIENT_PUT_LEN_MAX;
use claviger_format::metadata::Layout;
use claviger_format::object::BodyWriter;
use claviger_format::{Checksum, ObjectName};
use claviger_s3::VersionId;
use claviger_s3::checksum::{ChecksumAlgorithm, ChecksumValue, ExpectedChecksum, ObjectChecksum};
use claviger_s3::conditions::EtagCondition;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::{ObjectHeaders, PutObject};
use http::header::ETAG;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::{checksums, metadata, object_headers, reply, tagging};
use crate::authz::{Permit, WriteObject};
use crate::bindings::BoundBucket;
use crate::body::client::ClientBody;
use crate::body::form::HeldFile;
use crate::body::seal::{ObjectUnit, Sealing};
use crate::body::{PlaintextSource, Verified};
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::keys::write::NewObject;
use crate::server::ResponseBody;
use crate::upstream::Upstream;
use crate::upstream::body::UpstreamBody;
use crate::upstream::mark::Mark;
use crate::upstream::object::{Deletion, StoreAs, Stored, Which};

/// Bytes of a body without a length that are held in memory; a longer one is `MissingContentLength`, as at AWS any is.
const UNCOUNTED_LEN_MAX: usize = 1 << 20;

/// Where and how a stream of plaintext becomes an object.
pub(crate) struct NewBody<'a> {
    /// The name, and the right to write it.
    pub permit: &'a Permit<WriteObject>,
    /// Its bucket.
    pub bound: &'a Arc<BoundBucket>,
    /// What its envelope is bound to.
    pub name: &'a ObjectName,
    /// Plaintext bytes.
    pub length: u64,
    /// Sealed into the envelope.
    pub metadata: claviger_format::Metadata,
    /// Storage class and condition; its `envelope` is filled in here.
    pub store_as: StoreAs<'a>,
}

/// Serves a PUT.
///
/// # Errors
/// What the client did wrong, the provider's, or the key service's failure; nothing is stored then.
pub(crate) async fn put(
    call: &Call<'_>,
    op: PutObject,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let gateway = call.gateway;
    if op.body.content_length.is_none() && !call.authenticated.payload().is_chunked() {
        return Box::pin(put_uncounted(call, &permit, &op, body)).await;
    }
    let _share = gateway.stream_share().await?;
    let body = ClientBody::new(call, body, &op.body, &[])?;
    let length = body.plaintext_len();
    if length > CLIENT_PUT_LEN_MAX {
        return Err(too_large(length, CLIENT_PUT_LEN_MAX));
    }
    store_asked(call, &permit, &op, length, body).await
}

/// A body of HTTP's own chunks says no length, which sealing has to know: a small one is counted first.
async fn put_uncounted(
    call: &Call<'_>,
    permit: &Permit<WriteObject>,
    op: &PutObject,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let _share = call.gateway.stream_share_holding(&call.identity, UNCOUNTED_LEN_MAX).await?;
    let (bytes, verified) = ClientBody::uncounted(call, body, &op.body, UNCOUNTED_LEN_MAX).await?;
    let length = bytes.len() as u64;
    store_asked(call, permit, op, length, HeldFile::new(bytes, verified)).await
}

/// Stores what `op` asks for with `length` bytes from `source`, and answers as PutObject does.
///
/// # Errors
/// As [`put`].
pub(crate) async fn store_asked<S: PlaintextSource + 'static>(
    call: &Call<'_>,
    permit: &Permit<WriteObject>,
    op: &PutObject,
    length: u64,
    source: S,
) -> Result<Response<ResponseBody>, GatewayError> {
    let gateway = call.gateway;
    tagging::check(call, permit.bucket(), &op.headers)?;
    let bound = gateway.bindings.resolve(permit.bucket()).await?;
    let name = bound.name(permit.key())?;
    let new = NewBody {
        permit,
        bound: &bound,
        name: &name,
        length,
        metadata: metadata_asked(call, op),
        store_as: StoreAs::of_request(&op.headers, op.condition.as_ref()),
    };
    let (stored, verified, crc64) = store(gateway, &call.upstream, new, source).await?;
    Ok(answer(&stored, &verified, crc64, &op.headers))
}

/// What `op` wants sealed beside the bytes.
pub(crate) fn metadata_asked(call: &Call<'_>, op: &PutObject) -> claviger_format::Metadata {
    let mut metadata = metadata::of_request(&op.headers, call.gateway.clock.now_ms());
    metadata.checksum = known_early(op.body.integrity.checksum.as_ref());
    metadata
}

/// Seals a stream of plaintext into a new object and stores it through `upstream`, the caller's account. Gives the client's verified checksum and the CRC64NVME.
///
/// # Errors
/// As [`put`].
pub(crate) async fn store<S: PlaintextSource + 'static>(
    gateway: &Gateway,
    upstream: &Upstream,
    new: NewBody<'_>,
    source: S,
) -> Result<(Stored, Verified, u64), GatewayError> {
    let NewObject { dek, epoch_id, object_id, random, .. } =
        gateway.write_epochs.new_object(new.bound.keyset_id, new.length).await?;
    let writer = BodyWriter::begin(&dek, epoch_id, object_id, new.length, &random)
        .map_err(GatewayError::integrity("beginning a body"))?;
    let layout = Layout::Single { salt: writer.salt(), length: new.length };
    let tlv_len_max = metadata::tlv_len_max(&gateway.config.upstream);
    let envelope =
        envelope::seal(&dek, epoch_id, object_id, new.name, &layout, &new.metadata, tlv_len_max, &random)
            .map_err(metadata::seal_error)?;
    let sealed_len = writer.sealed_len();
    let unit = ObjectUnit { writer, created_ms: gateway.clock.now_ms() };
    let (stream, outcome) = Sealing::new(source, unit);
    let store_as = StoreAs { envelope: Some(&envelope), ..new.store_as };
    let (bucket, key) = (new.permit.bucket(), new.permit.key());
    let stored = if sealed_len > upstream.profile().put_bytes_max {
        // Boxed, since it is rare and large.
        let slices = super::multipart::sliced::store(
            &gateway.errands,
            upstream,
            (bucket, key),
            store_as,
            stream,
            sealed_len,
        );
        Box::pin(slices).await
    } else {
        let body = UpstreamBody::stream(Box::new(stream), sealed_len);
        upstream.put_object(bucket, key, store_as, body).await
    };
    match stored {
        Ok(stored) => {
            let (summary, verified) = outcome.committed()?;
            let mark = Mark::Envelope(&envelope);
            confirm(gateway, upstream, new.permit, new.bound, &stored, mark).await?;
            Ok((stored, verified, summary.crc64))
        }
        Err(error) => Err(outcome.cause_or(error)),
    }
}

/// Makes sure that the bucket is still the one that the object was bound to; takes the object back where the name is
/// known to belong to another one, since nobody could ever read it; `mark` is what it is known by.
///
/// # Errors
/// `OperationAborted` when the bucket was deleted and made again meanwhile. Where that can't be told the object stays
/// and the client hears to try again.
pub(crate) async fn confirm(
    gateway: &Gateway,
    upstream: &Upstream,
    permit: &Permit<WriteObject>,
    bound: &BoundBucket,
    stored: &Stored,
    mark: Mark<'_>,
) -> Result<(), GatewayError> {
    if gateway.bindings.still_bound(permit.bucket(), bound).await? {
        return Ok(());
    }
    if let Err(left) = Box::pin(take_back(upstream, (permit.bucket(), permit.key()), stored, mark)).await {
        tracing::warn!(error = %left, "an object of a deleted bucket could not be taken back from its successor");
    }
    Err(S3Error::new(ErrorCode::OperationAborted).into())
}

/// Deletes the object if it is still the one that was stored, by tag and `mark`: its very version where the bucket has
/// versions, else under a condition. Where neither is to be had it stays, and nobody can read it: another client may be
/// told at any moment that an object of his is there instead, and that one must not be deleted.
async fn take_back(
    upstream: &Upstream,
    (bucket, key): (&str, &str),
    stored: &Stored,
    mark: Mark<'_>,
) -> Result<(), GatewayError> {
    let version = stored.passed.version();
    let now = upstream.head_object(bucket, key, Which { version: version.as_ref(), same_as: None }).await?;
    if now.etag != stored.etag || !mark.is_on(&now) {
        return Ok(());
    }
    // Not every store names the version of what it stores; then it is the one that was looked at.
    let version = version.or(now.passed.version());
    let only = EtagCondition::Tags(vec![reply::marked(&stored.etag)]);
    // A version of its own is nobody else's, so that no condition is needed; and not every store takes one.
    let is_shared = version.as_ref().is_none_or(VersionId::is_null);
    if is_shared && !upstream.keeps_condition_on_delete() {
        tracing::warn!(
            "an object of a deleted bucket stays in its successor, where it can't be read: delete it"
        );
        return Ok(());
    }
    let condition = is_shared.then_some(&only);
    let what = Deletion { version: version.as_ref(), condition, bypass_governance: false };
    upstream.delete_object(bucket, key, what).await.map(drop)
}

/// `EntityTooLarge` with the figures.
pub(crate) fn too_large(proposed: u64, allowed: u64) -> GatewayError {
    S3Error::new(ErrorCode::EntityTooLarge)
        .with_extra("ProposedSize", proposed.to_string())
        .with_extra("MaxSizeAllowed", allowed.to_string())
        .into()
}

/// A checksum that came in a header goes into the envelope, where a GET finds it without another request.
fn known_early(expected: Option<&ExpectedChecksum>) -> Option<Checksum> {
    match expected {
        Some(ExpectedChecksum::Header(value)) => Some(checksums::to_format(&ObjectChecksum::full(*value))),
        _ => None,
    }
}

fn answer(
    stored: &Stored,
    verified: &Verified,
    crc64: u64,
    headers: &ObjectHeaders,
) -> Response<ResponseBody> {
    let mut response = reply::empty(StatusCode::OK);
    let out = response.headers_mut();
    reply::set(out, ETAG, &reply::marked(&stored.etag).quoted());
    let declared = verified.client.as_ref().and_then(|verified| verified.checksum);
    // S3 answers the checksum that was sent or, where none was, the CRC64NVME that it keeps for every object.
    let checksum = declared.or_else(|| ChecksumValue::from_crc(ChecksumAlgorithm::Crc64Nvme, crc64));
    if let Some(value) = checksum {
        checksums::set_headers(out, &ObjectChecksum::full(value));
    }
    object_headers::echo_sse(out, headers);
    stored.passed.set_on(out);
    response
}

#[cfg(test)]
mod tests {
    use claviger_s3::ETag;

    use super::*;
    use crate::upstream::ENVELOPE_HEADER;
    use crate::upstream::double;
    use crate::upstream::passed::Passed;

    /// What is asked of a store of this kind that shows `shown` when an object with the envelope `mine` is to be taken
    /// back, and the condition of the DELETE.
    async fn asked(profile: &str, shown: &[(&str, &str)]) -> (Vec<String>, Option<String>) {
        let shown = double::object(shown);
        let store = double::store(profile, move |request| match double::method(request) {
            "DELETE" => double::answer(204, &[], ""),
            _ => shown.clone(),
        })
        .await;
        let stored = Stored { etag: ETag::parse("abc").unwrap(), passed: Passed::default() };
        take_back(&store.upstream, ("b", "k"), &stored, Mark::Envelope("mine")).await.unwrap();
        let heads = store.asked();
        let condition =
            heads.iter().flat_map(|head| head.lines()).find_map(|line| line.strip_prefix("if-match: "));
        (store.lines(), condition.map(str::to_owned))
    }

    #[tokio::test]
    async fn another_object_with_the_same_tag_is_not_taken_back() {
        assert_eq!(asked("aws", &[(ENVELOPE_HEADER, "another")]).await.0, ["HEAD /b/k"]);
        assert_eq!(asked("aws", &[]).await.0, ["HEAD /b/k"]);
        let (lines, condition) = asked("aws", &[(ENVELOPE_HEADER, "mine")]).await;
        assert_eq!(lines, ["HEAD /b/k", "DELETE /b/k"]);
        assert_eq!(condition.as_deref(), Some("\"abc\""));
    }

    #[tokio::test]
    async fn where_no_condition_is_kept_and_no_version_is_told_nothing_is_taken_back() {
        // An object that somebody else stores after the HEAD would be deleted.
        for profile in ["ceph-rgw", "garage", "generic", "gcs"] {
            assert_eq!(asked(profile, &[(ENVELOPE_HEADER, "mine")]).await.0, ["HEAD /b/k"], "{profile}");
        }
        let null = [(ENVELOPE_HEADER, "mine"), ("x-amz-version-id", "null")];
        assert_eq!(asked("ceph-rgw", &null).await.0, ["HEAD /b/k"]);
    }

    #[tokio::test]
    async fn the_version_that_was_looked_at_is_the_one_that_is_taken_back() {
        let shown = [(ENVELOPE_HEADER, "mine"), ("x-amz-version-id", "v7")];
        let (lines, condition) = asked("ceph-rgw", &shown).await;
        assert_eq!((lines.join(" "), condition), ("HEAD /b/k DELETE /b/k?versionId=v7".to_owned(), None));
    }
}
