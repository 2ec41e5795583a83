//! Small answers.

use bytes::Bytes;
use claviger_format::token::object_etag;
use claviger_s3::xml::CONTENT_TYPE as XML;
use claviger_s3::{ETag, VersionId};
use http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};

use crate::server::ResponseBody;

/// No body at all.
pub(crate) fn no_body() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(no_body());
    *response.status_mut() = status;
    response
}

/// 200 with an XML document.
pub(crate) fn document(xml: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(Full::new(xml).map_err(|never| match never {}).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(XML));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// 200 with a document as the provider wrote it. A browser that shows it must not run what may be in it as if it came
/// from this gateway: no script, in an origin of its own (Content Security Policy Level 3, `sandbox`).
pub(crate) fn foreign_document(body: Bytes, content_type: &'static str) -> Response<ResponseBody> {
    let mut response = document(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    response
}

/// Sets a header whose value this gateway made or has from a sealed object. A value that can't stand in a header is
/// left out: it could only have been stored by other means than a request.
pub(crate) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        headers.insert(name, value);
    }
}

/// Says which version was copied, where there are versions.
pub(crate) fn set_copied_version(headers: &mut HeaderMap, version: Option<&VersionId>) {
    if let Some(version) = version {
        set(headers, HeaderName::from_static("x-amz-copy-source-version-id"), version.as_str());
    }
}

/// Quotes an entity tag.
pub(crate) fn quoted(etag: &str) -> String {
    ["\"", etag, "\""].concat()
}

/// The entity tag of an object as clients know it: the provider's with the gateway's mark (docs/format.md §7.1).
pub(crate) fn marked(etag: &ETag) -> ETag {
    let marked = object_etag::mark(etag.as_str());
    ETag::parse(&marked).unwrap_or_else(|| etag.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_the_provider_is_shown_and_never_run() {
        let answer = foreign_document(Bytes::from_static(b"{}"), "application/json");
        let header = |name| answer.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("content-security-policy"), "sandbox; default-src 'none'");
        assert_eq!(header("x-content-type-options"), "nosniff");
    }
}
