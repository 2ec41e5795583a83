//! UploadPart: one unit under a fresh salt, with its last segment held back until the body has been verified. A part
//! that can only be the last one goes to the system area until Complete (docs/format.md §4.5).

use claviger_format::layout::CLIENT_PART_LEN_MAX;
use claviger_format::object::PartWriter;
use claviger_format::token::{PartTag, PartTagState};
use claviger_s3::checksum::{ChecksumAlgorithm, ObjectChecksum};
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::UploadPart;
use http::header::ETAG;
use http::{Response, StatusCode};
use hyper::body::Incoming;

use super::{NamedUpload, holding};
use crate::aead::AwsLcAead;
use crate::authz::WriteObject;
use crate::body::client::ClientBody;
use crate::body::seal::Sealing;
use crate::body::{PlaintextSource, Verified};
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::keys::uploads::{UnitRight, no_such_upload};
use crate::ops::put_object::too_large;
use crate::ops::{checksums, reply};
use crate::server::ResponseBody;
use crate::upstream::body::UpstreamBody;

/// Serves UploadPart.
///
/// # Errors
/// `NoSuchUpload`, `EntityTooLarge`, what the client's body gets wrong, the provider's.
pub(crate) async fn upload(
    call: &Call<'_>,
    op: UploadPart,
    body: Incoming,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let upload = NamedUpload::locate(call, permit, &op.upload_id).await?;
    let wanted = wanted_algorithm(&upload);
    let declared = op.body.integrity.checksum.map(|expected| expected.algorithm());
    if let (Some(wanted), Some(declared)) = (wanted, declared)
        && wanted != declared
    {
        let text = format!(
            "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
            wanted.as_str().to_lowercase(),
            declared.as_str().to_lowercase()
        );
        return Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into());
    }
    let gateway = call.gateway;
    let _share = gateway.stream_share().await?;
    let body = ClientBody::new(call, body, &op.body, wanted.as_slice())?;
    let length = body.plaintext_len();
    let (tag, verified) = store(gateway, &upload, op.part_number, length, body).await?;
    let mut response = reply::empty(StatusCode::OK);
    let headers = response.headers_mut();
    reply::set(headers, ETAG, &reply::quoted(&tag.to_text()));
    if let Some(value) = verified.client.and_then(|verified| verified.checksum) {
        let name = http::HeaderName::from_static(value.algorithm().header_name());
        reply::set(headers, name, &ObjectChecksum::full(value).to_text());
    }
    Ok(response)
}

/// The algorithm that the upload's parts have to know their checksum by.
pub(crate) fn wanted_algorithm(upload: &NamedUpload) -> Option<ChecksumAlgorithm> {
    upload.token.fields().checksum.map(|(algo, _)| checksums::algorithm(algo))
}

/// Seals a stream of plaintext into a part and stores it.
///
/// # Errors
/// As [`upload`].
pub(crate) async fn store<S: PlaintextSource + 'static>(
    gateway: &Gateway,
    upload: &NamedUpload,
    number: u16,
    length: u64,
    source: S,
) -> Result<(PartTag, Verified), GatewayError> {
    if length > CLIENT_PART_LEN_MAX {
        return Err(too_large(length, CLIENT_PART_LEN_MAX));
    }
    let UnitRight { grant, etag_key } = gateway.uploads.part_right(upload.asked(), number, length).await?;
    let writer: PartWriter<AwsLcAead> =
        PartWriter::begin_granted(grant).map_err(GatewayError::integrity("beginning a part"))?;
    let sealed_len = writer.sealed_len();
    let (stream, outcome) = Sealing::new(source, writer);
    let body = UpstreamBody::stream(Box::new(stream), sealed_len);
    let held = holding::is_held(gateway, upload, number, length).await?;
    let object_id = upload.token.fields().object_id;
    let stored = if held {
        gateway.system.store_held(object_id, number, body).await
    } else {
        let etag = upload.upstream.upload_part(upload.at_store(), number, body).await;
        etag.map(|etag| etag.as_str().to_owned())
    };
    let etag = stored.map_err(|error| outcome.cause_or(error))?;
    let (part, verified) = outcome.committed()?;
    if held && holding::is_over(gateway, upload).await {
        gateway.system.forget_held(object_id, number).await;
        return Err(no_such_upload());
    }
    if gateway.uploads.note_part(object_id, number, held) {
        gateway.system.forget_held(object_id, number).await;
    }
    let wanted = wanted_algorithm(upload);
    let computed = verified.client.as_ref();
    let checksum = computed
        .and_then(|computed| wanted.and_then(|algorithm| computed.value(algorithm)).or(computed.checksum))
        .map(|value| (checksums::algo(value.algorithm()), value.as_bytes().to_vec()));
    let state = PartTagState { held, part, checksum };
    let tag = PartTag::issue(&etag_key, &etag, state)
        .map_err(|_| GatewayError::UpstreamAnswer("a part's entity tag that is not printable"))?;
    gateway.repeated_parts.note(object_id, number, &tag);
    Ok((tag, verified))
}
