//! CreateMultipartUpload: the envelope goes out now, because S3 takes metadata only here, and the token is made.

use claviger_format::checksum::{Algo, ChecksumType};
use claviger_format::envelope;
use claviger_format::metadata::{Layout, Metadata};
use claviger_format::token::{UploadFields, UploadToken};
use claviger_s3::operation::{CreateMultipartUpload, ObjectHeaders};
use claviger_s3::xml::InitiateMultipartUploadResult;
use http::Response;
use http::header::HeaderName;

use super::NamedUpload;
use super::begun::BegunUpload;
use crate::authz::{Permit, WriteObject};
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::keys::uploads::UPLOAD_LIFE;
use crate::keys::write::NewObject;
use crate::ops::{checksums, metadata, object_headers, reply, tagging};
use crate::server::ResponseBody;
use crate::upstream::object::StoreAs;

/// Serves CreateMultipartUpload.
///
/// # Errors
/// `MetadataTooLarge`; the provider's or the key service's. An upload that could not be recorded is aborted.
pub(crate) async fn create(
    call: &Call<'_>,
    op: CreateMultipartUpload,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let metadata = metadata::of_request(&op.headers, call.gateway.clock.now_ms());
    let checksum = op
        .checksum_algorithm
        .map(|algorithm| (checksums::algo(algorithm), op.checksum_type.map(checksums::format_type)));
    let upload = begin(call, permit, &op.headers, &metadata, checksum).await?;
    Ok(answer(&op, upload.token.to_text()))
}

/// Begins an upload at the provider, and records it. `checksum` is what its parts are to be known by.
///
/// # Errors
/// As [`create`].
pub(crate) async fn begin(
    call: &Call<'_>,
    permit: Permit<WriteObject>,
    headers: &ObjectHeaders,
    metadata: &Metadata,
    checksum: Option<(Algo, Option<ChecksumType>)>,
) -> Result<NamedUpload, GatewayError> {
    let gateway = call.gateway;
    tagging::check(call, permit.bucket(), headers)?;
    let bound = gateway.bindings.resolve(permit.bucket()).await?;
    let name = bound.name(permit.key())?;
    let now_ms = gateway.clock.now_ms();
    let NewObject { dek, epoch_id, object_id, random, version } =
        gateway.write_epochs.new_object(bound.keyset_id, 0).await?;
    let tlv_len_max = metadata::tlv_len_max(&gateway.config.upstream);
    let envelope =
        envelope::seal(&dek, epoch_id, object_id, &name, &Layout::Multipart, metadata, tlv_len_max, &random)
            .map_err(metadata::seal_error)?;
    let store_as = StoreAs { envelope: Some(&envelope), ..StoreAs::of_request(headers, None) };
    let place = (permit.bucket(), permit.key());
    let begun = BegunUpload::begin(&gateway.errands, &call.upstream, place, store_as).await?;
    let store_upload_id = begun.at_store().upload_id.to_owned();
    let fields = UploadFields {
        epoch_id,
        object_id,
        expires_ms: now_ms.saturating_add(u64::try_from(UPLOAD_LIFE.as_millis()).unwrap_or(u64::MAX)),
        checksum,
        upstream_upload_id: store_upload_id.clone(),
    };
    let token = UploadToken::issue(&dek.upload_key(), fields, &name)
        .map_err(|_| GatewayError::UpstreamAnswer("an upload id that is not printable"))?;
    let text = token.to_text();
    if let Err(error) = gateway.system.store_token(&bound.bucket_id, &store_upload_id, &text).await {
        begun.abandon().await;
        return Err(error);
    }
    // Listings show it from now on.
    begun.keep();
    gateway.uploads.remember(object_id, bound.keyset_id, version, dek);
    Ok(NamedUpload {
        upstream: call.upstream.clone(),
        permit,
        bound,
        name,
        token,
        on_behalf_of: call.on_behalf_of().to_owned(),
    })
}

fn answer(op: &CreateMultipartUpload, token: String) -> Response<ResponseBody> {
    let result = InitiateMultipartUploadResult {
        bucket: op.bucket.as_str().to_owned(),
        key: op.key.as_str().to_owned(),
        upload_id: token,
    };
    let mut response = reply::document(result.to_xml());
    let headers = response.headers_mut();
    if let Some(algorithm) = op.checksum_algorithm {
        let checksum_type = op.checksum_type.unwrap_or_else(|| algorithm.default_multipart_type());
        reply::set(headers, HeaderName::from_static("x-amz-checksum-algorithm"), algorithm.as_str());
        reply::set(headers, HeaderName::from_static("x-amz-checksum-type"), checksum_type.as_str());
    }
    object_headers::echo_sse(headers, &op.headers);
    response
}
