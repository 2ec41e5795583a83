//! GetObject.
//!
//! A whole object is one upstream request, two for a multipart one (its footer). A range is mapped as in the
//! object that was last seen under the name, and where none was as if it were a single one, since most are; the envelope
//! comes with the answer and says whether that was right. If it was not, that answer is dropped. Suffixes, `If-Range` and `partNumber` need the object's length first, hence a HEAD.

use claviger_format::layout::PlainRange;
use claviger_format::metadata::Layout;
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::GetObject;
use claviger_s3::range::{RangeSpec, Resolved, content_range};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::BodyExt;

use super::source::{Object, Source, judge, was_replaced};
use super::{checksums, metadata, object_headers, reply};
use crate::authz::ReadObject;
use crate::body::open::OpenedBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::server::ResponseBody;
use crate::upstream::object::Wanted;
use crate::upstream::transport::StoreBody;

/// What goes out.
pub(crate) struct Slice {
    /// First plaintext byte and one past the last; `None` for the whole object with status 200.
    pub range: Option<(u64, u64)>,
    /// Number of parts, when a part was asked for.
    pub parts_count: Option<usize>,
}

impl Slice {
    /// Plaintext bytes that go out.
    pub(crate) fn len(&self, object: &Object) -> u64 {
        self.range.map_or(object.length, |(start, end)| end - start)
    }
}

/// Serves a GET.
///
/// # Errors
/// Everything that [`Source`] reports.
pub(crate) async fn get(call: &Call<'_>, op: GetObject) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<ReadObject>(op.bucket.as_str(), op.key.as_str())?;
    refuse_unsigned_overrides(call, &op)?;
    let share = call.gateway.stream_share().await?;
    let source = Source::locate(call, &permit, op.version.as_ref()).await?;
    let (mut response, opened) = match attempt(&source, &op).await {
        // The object was replaced between two requests of ours: once more, with the new one.
        Err(error) if was_replaced(&error) => Box::pin(attempt(&source, &op)).await?,
        other => other?,
    };
    *response.body_mut() = opened.holding(share).boxed_unsync();
    Ok(response)
}

/// Who made a link does not choose how a browser takes the object: overrides have to be signed, as at S3.
///
/// # Errors
/// `InvalidRequest`.
pub(crate) fn refuse_unsigned_overrides(call: &Call<'_>, op: &GetObject) -> Result<(), GatewayError> {
    if call.identity.is_anonymous() && op.overrides.headers.iter().next().is_some() {
        let text = "Request specific response headers cannot be used for anonymous GET requests.";
        return Err(S3Error::new(ErrorCode::InvalidRequest).with_message(text).into());
    }
    Ok(())
}

async fn attempt(
    source: &Source<'_>,
    op: &GetObject,
) -> Result<(Response<ResponseBody>, OpenedBody), GatewayError> {
    // Where "not modified" is the likely answer, no body is asked for before it is known to be wanted.
    let head_first = op.conditions.if_none_match.is_some() || op.conditions.if_modified_since_ms.is_some();
    let wanted = match (&op.if_range, op.part_number, op.range) {
        _ if head_first => None,
        (None, None, None) => Some(Wanted::Whole),
        (None, None, Some(RangeSpec::Inclusive { first, last })) => source.wanted_of_range(first, Some(last)),
        (None, None, Some(RangeSpec::From { first })) => source.wanted_of_range(first, None),
        _ => None,
    };
    let early = match wanted {
        Some(wanted) => match source.get(wanted).await {
            Ok((found, body)) => Some((found, body)),
            // Beyond the stored bytes, or the store can't say: the HEAD tells.
            Err(error) if error.upstream_code() == Some(ErrorCode::InvalidRange) => None,
            Err(error) => return Err(error),
        },
        None => None,
    };
    let (found, body) = match early {
        Some((found, body)) => (found, Some(body)),
        None => (Box::pin(source.head()).await?, None),
    };
    judge(&op.conditions, &found.head)?;
    let object = source.open(found).await?;
    // The rare ways to the store are boxed: every GET would carry the room for them.
    let slice = resolve(source, op, &object).await?;
    let opened = open_body(source, &object, &slice, body).await?;
    let mut response = respond(op, &object, &slice);
    if opened.len() != slice.len(&object) {
        return Err(GatewayError::Internal("the body has another length than its headers"));
    }
    // Only what is known without another request (docs/format.md §7.4): the footer of a multipart object is, by now.
    if op.checksum_mode && slice.range.is_none() {
        let manifest = source.known_manifest(&object);
        if let Some(checksum) = manifest.and_then(|manifest| checksums::of_footer(manifest.info())) {
            checksums::set_headers(response.headers_mut(), &checksum);
        }
    }
    Ok((response, opened))
}

/// Decides what goes out.
///
/// # Errors
/// 416, or that there is no such part.
pub(crate) async fn resolve(
    source: &Source<'_>,
    op: &GetObject,
    object: &Object,
) -> Result<Slice, GatewayError> {
    if let Some(number) = op.part_number {
        return Box::pin(resolve_part(source, object, number)).await;
    }
    let holds = |range: &RangeSpec| {
        let marked = super::reply::marked(&object.head.etag);
        let holds =
            op.if_range.as_ref().is_none_or(|if_range| if_range.holds(&marked, object.head.last_modified_ms));
        holds.then_some(*range)
    };
    match op.range.as_ref().and_then(holds).map(|range| range.resolve(object.length)) {
        None | Some(Resolved::Whole) => Ok(Slice { range: None, parts_count: None }),
        Some(Resolved::Range { start, end }) => Ok(Slice { range: Some((start, end)), parts_count: None }),
        Some(Resolved::Unsatisfiable) => {
            // Tools take a 416 for the end of the object: its length has to be authentic.
            if object.envelope.layout == Layout::Multipart {
                Box::pin(source.manifest(object)).await?;
            }
            Err(GatewayError::RangeBeyond { length: object.length })
        }
    }
}

async fn resolve_part(source: &Source<'_>, object: &Object, number: u16) -> Result<Slice, GatewayError> {
    let invalid = || GatewayError::from(S3Error::new(source.no_such_part()));
    if let Layout::Single { .. } = object.envelope.layout {
        let range = (object.length > 0).then_some((0, object.length));
        return if number == 1 { Ok(Slice { range, parts_count: None }) } else { Err(invalid()) };
    }
    let manifest = source.manifest(object).await?;
    // S3 counts the parts of a completed object from 1, whatever numbers they were uploaded under.
    let index = usize::from(number).checked_sub(1).ok_or_else(invalid)?;
    let (start, length) = manifest.part_plain(index).ok_or_else(invalid)?;
    let range = (length > 0).then_some((start, start + length));
    Ok(Slice { range, parts_count: Some(manifest.entries().len()) })
}

async fn open_body(
    source: &Source<'_>,
    object: &Object,
    slice: &Slice,
    body: Option<StoreBody>,
) -> Result<OpenedBody, GatewayError> {
    match (slice.range, body) {
        (Some((start, end)), body) => {
            let range = PlainRange::new(start, end.saturating_sub(1))
                .map_err(|_| GatewayError::Internal("an empty range was resolved"))?;
            source.range(object, range, body).await
        }
        (None, Some(body)) if object.head.range.is_none() => source.whole(object, body).await,
        (None, _) => {
            let body = Box::pin(source.get_again(object)).await?;
            source.whole(object, body).await
        }
    }
}

/// The head of the answer to a GET or HEAD.
pub(crate) fn respond(op: &GetObject, object: &Object, slice: &Slice) -> Response<ResponseBody> {
    let mut response = reply::empty(StatusCode::OK);
    let headers = response.headers_mut();
    object_headers::set_stored(headers, &object.head);
    metadata::set_headers(headers, &object.envelope.metadata, Some(&op.overrides));
    if let Some((start, end)) = slice.range {
        reply::set(headers, CONTENT_RANGE, &content_range(start, end, object.length));
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(slice.len(object)));
    if let Some(count) = slice.parts_count {
        headers.insert(HeaderName::from_static("x-amz-mp-parts-count"), HeaderValue::from(count));
    }
    let known = object.envelope.metadata.checksum.as_ref().and_then(checksums::to_s3);
    if let Some(checksum) = known.filter(|_| op.checksum_mode && slice.range.is_none()) {
        checksums::set_headers(headers, &checksum);
    }
    if slice.range.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}
