//! The headers that GET and HEAD have in common.

use claviger_format::token::object_etag;
use claviger_s3::operation::ObjectHeaders;
use claviger_s3::timestamp::http_date;
use http::header::{ACCEPT_RANGES, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED};

use super::reply;
use crate::upstream::object::StoredHead;

/// Sets what the provider says of the object: entity tag (marked), date, version, storage class and the like.
pub(crate) fn set_stored(headers: &mut HeaderMap, head: &StoredHead) {
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    for (name, value) in validators(head) {
        headers.insert(name, value);
    }
    head.passed.set_on(headers);
}

/// Echoes that the client asked for encryption by the store's own keys: the object is sealed anyway.
pub(crate) fn echo_sse(headers: &mut HeaderMap, asked: &ObjectHeaders) {
    if asked.sse_s3 {
        let name = HeaderName::from_static("x-amz-server-side-encryption");
        headers.insert(name, HeaderValue::from_static("AES256"));
    }
}

/// Entity tag and date, also of a 304.
pub(crate) fn validators(head: &StoredHead) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
    let etag = reply::quoted(&object_etag::mark(head.etag.as_str()));
    [(ETAG, etag), (LAST_MODIFIED, http_date(head.last_modified_ms))]
        .into_iter()
        .filter_map(|(name, value)| Some((name, HeaderValue::try_from(value).ok()?)))
}
