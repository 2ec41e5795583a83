//! HeadObject: what the provider says, checked against the envelope (docs/format.md §3.8).

use claviger_format::layout::g_inverse;
use claviger_s3::operation::GetObject;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::get_object::{Slice, refuse_unsigned_overrides, resolve, respond};
use super::source::{Found, Source, judge, plaintext_len};
use super::{checksums, metadata, object_headers, reply};
use crate::authz::ReadObject;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;

/// Serves a HEAD.
///
/// # Errors
/// Everything that [`Source`] reports.
pub(crate) async fn head(call: &Call<'_>, op: GetObject) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadObject>(op.bucket.as_str(), op.key.as_str())?;
    refuse_unsigned_overrides(call, &op)?;
    let source = Source::locate(call, &permit, op.version.as_ref()).await?;
    let found = source.head().await?;
    judge(&op.conditions, &found.head)?;
    if !call.gateway.read_keys.may_open_metadata(&source.bound).await? {
        return unverified(&found);
    }
    if op.checksum_mode || op.part_number.is_some() || op.range.is_some() {
        return with_manifest(&source, &op, found).await;
    }
    let envelope = call.gateway.read_keys.open_metadata(source.asked(&found)).await?;
    let length = plaintext_len(&found.head, &envelope)?;
    // Ranges come next: large objects are read that way.
    source.saw(&found.head, &envelope);
    let mut response = reply::empty(StatusCode::OK);
    let headers = response.headers_mut();
    object_headers::set_stored(headers, &found.head);
    metadata::set_headers(headers, &envelope.metadata, Some(&op.overrides));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// What needs the object's key or its footer: the checksum, parts, ranges.
async fn with_manifest(
    source: &Source<'_>,
    op: &GetObject,
    found: Found,
) -> Result<Response<ResponseBody>, GatewayError> {
    let object = source.open(found).await?;
    source.saw(&object.head, &object.envelope);
    let slice: Slice = resolve(source, op, &object).await?;
    let mut response = respond(op, &object, &slice);
    if op.checksum_mode && slice.range.is_none() {
        let manifest = source.manifest(&object).await?;
        if let Some(checksum) = checksums::of_footer(manifest.info()) {
            checksums::set_headers(response.headers_mut(), &checksum);
        }
    }
    Ok(response)
}

/// What a write-only gateway can say: it can't open the envelope, and says so (docs/format.md §2.8).
fn unverified(found: &Found) -> Result<Response<ResponseBody>, GatewayError> {
    let length = g_inverse(found.head.total_size)
        .ok_or(GatewayError::UpstreamAnswer("a size that no sealed object has"))?;
    let mut response = reply::empty(StatusCode::OK);
    let headers = response.headers_mut();
    object_headers::set_stored(headers, &found.head);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(HeaderName::from_static("x-claviger-sealed"), HeaderValue::from_static("1"));
    Ok(response)
}
