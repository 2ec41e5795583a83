//! Answers as S3 writes them.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};

use super::buckets::Page;
use super::content::Kept;

/// A document, or an object.
pub(super) type Answer = Response<Either<Full<Bytes>, Kept>>;

/// What S3 would call the time of everything.
pub(super) const LAST_MODIFIED: &str = "2026-01-01T00:00:00.000Z";

pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Either::Left(Full::default()));
    *answer.status_mut() = status;
    answer
}

pub(super) fn xml(text: String) -> Answer {
    let mut answer = Response::new(Either::Left(Full::from(text)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    answer
}

pub(super) fn error(status: StatusCode, code: &str) -> Answer {
    let mut answer = xml(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    ));
    *answer.status_mut() = status;
    answer
}

pub(super) fn etag(mut answer: Answer, etag: &str) -> Answer {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{etag}\"")) {
        answer.headers_mut().insert(http::header::ETAG, value);
    }
    answer
}

/// ListObjects of either version.
pub(super) fn listing(
    bucket: &str,
    query: &super::operations::Query<'_>,
    page: &Page,
    encode: impl Fn(&str) -> String,
) -> Answer {
    let is_second = query.get("list-type") == Some("2");
    let mut text = String::with_capacity(400 * (page.entries.len() + 1));
    text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    let _ =
        write!(text, "<Name>{bucket}</Name><Prefix>{}</Prefix>", encode(query.get("prefix").unwrap_or("")));
    let _ = write!(
        text,
        "<MaxKeys>{}</MaxKeys><IsTruncated>{}</IsTruncated>",
        query.get("max-keys").unwrap_or("1000"),
        page.next.is_some()
    );
    if query.get("encoding-type") == Some("url") {
        text.push_str("<EncodingType>url</EncodingType>");
    }
    if let Some(delimiter) = query.get("delimiter") {
        let _ = write!(text, "<Delimiter>{}</Delimiter>", encode(delimiter));
    }
    if is_second {
        let _ = write!(text, "<KeyCount>{}</KeyCount>", page.entries.len() + page.prefixes.len());
    }
    if let Some(next) = &page.next {
        // Markers are names, and encoded as names are; tokens come back as they were given.
        let _ = if is_second {
            write!(text, "<NextContinuationToken>{next}</NextContinuationToken>")
        } else {
            write!(text, "<NextMarker>{}</NextMarker>", encode(next))
        };
    }
    for (key, len, etag) in &page.entries {
        let _ = write!(
            text,
            "<Contents><Key>{}</Key><LastModified>{LAST_MODIFIED}</LastModified><ETag>&quot;{etag}&quot;</ETag>\
             <Size>{len}</Size><StorageClass>STANDARD</StorageClass></Contents>",
            encode(key)
        );
    }
    for prefix in &page.prefixes {
        let _ = write!(text, "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", encode(prefix));
    }
    text.push_str("</ListBucketResult>");
    xml(text)
}
