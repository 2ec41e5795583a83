//! HeadObject: what the provider says, checked against the envelope (docs/format.md §3.8).

use claviger_format::layout::g_inverse;
use claviger_s3::operation::GetObject;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::get_object::{Slice, resolve, respond, with_validators};
use super::source::{Found, Source, plaintext_len};
use super::{checksums, metadata, object_headers, reply};
use crate::authz::ReadObject;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::object::OnlyIf;

/// Serves a HEAD.
///
/// # Errors
/// Everything that [`Source`] reports.
pub(crate) async fn head(call: &Call<'_>, op: GetObject) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadObject>(op.bucket.as_str(), op.key.as_str())?;
    let source = Source::locate(call, &permit).await?;
    let found =
        source.head(OnlyIf::Client(&op.conditions)).await.map_err(|error| with_validators(error, &op))?;
    if !call.gateway.read_keys.may_open_metadata(&source.bound).await? {
        return unverified(&found);
    }
    if op.checksum_mode || op.part_number.is_some() {
        return with_manifest(&source, &op, found).await;
    }
    let envelope = call.gateway.read_keys.open_metadata(source.asked(&found)).await?;
    let length = plaintext_len(&found.head, &envelope)?;
    let slice = match op.range.map(|range| range.resolve(length)) {
        Some(claviger_s3::range::Resolved::Range { start, end }) if op.if_range.is_none() => {
            Some((start, end))
        }
        Some(claviger_s3::range::Resolved::Unsatisfiable) => {
            return Err(GatewayError::RangeBeyond { length });
        }
        _ => None,
    };
    let mut response =
        reply::empty(if slice.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK });
    let headers = response.headers_mut();
    object_headers::set_stored(headers, &found.head);
    metadata::set_headers(headers, &envelope.metadata, Some(&op.overrides));
    if let Some((start, end)) = slice {
        let value = claviger_s3::range::content_range(start, end, length);
        reply::set(headers, http::header::CONTENT_RANGE, &value);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(slice.map_or(length, |(start, end)| end - start)));
    Ok(response)
}

/// What needs the footer: the checksum, and parts.
async fn with_manifest(
    source: &Source<'_>,
    op: &GetObject,
    found: Found,
) -> Result<Response<ResponseBody>, GatewayError> {
    let object = source.open(found).await?;
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
