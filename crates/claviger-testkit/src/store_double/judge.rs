//! Whether a provider would refuse a request, by its head and by the sizes of parts.

use std::collections::BTreeMap;

use http::{HeaderMap, Method, StatusCode, Uri};
use percent_encoding::percent_decode_str;

use super::rules::{ConditionalWrites, Rules};

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Option<Self> {
        Some(Self { status, code, message: message.into() })
    }

    fn not_implemented(what: &str) -> Option<Self> {
        let text = format!("A header you provided implies functionality that is not implemented: {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", text)
    }
}

/// `x-amz-*` headers that every provider knows, beside `x-amz-meta-*`.
const KNOWN: &[&str] = &[
    "x-amz-content-sha256",
    "x-amz-copy-source",
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-range",
    "x-amz-date",
    "x-amz-decoded-content-length",
    "x-amz-metadata-directive",
    "x-amz-security-token",
    "x-amz-storage-class",
    "x-amz-trailer",
];

/// A request's head.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    query: BTreeMap<String, String>,
    has_bucket: bool,
    has_key: bool,
    /// The bucket stands for one with a default retention: its name ends in `-locked`.
    is_locked: bool,
}

impl<'a> Asked<'a> {
    pub(super) fn new(method: &'a Method, uri: &Uri, headers: &'a HeaderMap) -> Self {
        let path = uri.path().trim_start_matches('/');
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let query = query.map(|(name, value)| (decoded(name), decoded(value))).collect();
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (has_bucket, has_key, is_locked) =
            (!bucket.is_empty(), !key.is_empty(), bucket.ends_with("-locked"));
        Self { method, headers, query, has_bucket, has_key, is_locked }
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// Upload id and part number of an UploadPart.
    pub(super) fn part(&self) -> Option<(String, u16)> {
        let number = self.parameter("partNumber")?.parse().ok()?;
        (self.method == Method::PUT).then_some((self.parameter("uploadId")?.to_owned(), number))
    }

    /// The upload id of a CompleteMultipartUpload.
    pub(super) fn completes(&self) -> Option<&str> {
        self.parameter("uploadId").filter(|_| self.method == Method::POST)
    }

    /// Bytes of the body that are content.
    pub(super) fn content_len(&self) -> u64 {
        let number = |name: &str| self.text(name).and_then(|text| text.parse().ok());
        number("x-amz-decoded-content-length").or_else(|| number("content-length")).unwrap_or(0)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    fn is_write(&self) -> bool {
        self.has_key && matches!(*self.method, Method::PUT | Method::POST | Method::DELETE)
    }

    fn has_digest(&self) -> bool {
        let is_checksum = |name: &str| name.starts_with("x-amz-checksum-");
        self.has("content-md5")
            || self.text("x-amz-trailer").is_some_and(is_checksum)
            || self.headers.keys().any(|name| is_checksum(name.as_str()))
    }
}

/// What the provider says to this request, unless it goes on with it.
pub(super) fn judge(rules: &Rules, asked: &Asked<'_>) -> Option<Refusal> {
    sizes(rules, asked)
        .or_else(|| conditions(rules, asked))
        .or_else(|| features(rules, asked))
        .or_else(|| headers(rules, asked))
}

fn sizes(rules: &Rules, asked: &Asked<'_>) -> Option<Refusal> {
    let too_large = |code, text: &str| Refusal::new(StatusCode::BAD_REQUEST, code, text);
    let metadata: usize = asked
        .headers
        .iter()
        .filter_map(|(name, value)| Some(name.as_str().strip_prefix("x-amz-meta-")?.len() + value.len()))
        .sum();
    if metadata > rules.metadata_bytes_max {
        return too_large(
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size",
        );
    }
    let all: usize = asked.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if rules.header_bytes_max.is_some_and(|max| all > max) {
        return too_large(
            "RequestHeaderSectionTooLarge",
            "Your request header section exceeds the maximum allowed",
        );
    }
    if asked.method == Method::PUT && asked.content_len() > rules.put_bytes_max {
        return too_large("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size");
    }
    None
}

fn conditions(rules: &Rules, asked: &Asked<'_>) -> Option<Refusal> {
    if !asked.is_write() || !(asked.has("if-match") || asked.has("if-none-match")) {
        return None;
    }
    match rules.conditional_writes {
        ConditionalWrites::Kept => None,
        ConditionalWrites::Refused => Refusal::not_implemented("If-Match"),
        ConditionalWrites::Meaningless => Refusal::new(
            StatusCode::BAD_REQUEST,
            "InvalidArgument",
            "A precondition of reads stands on a write",
        ),
    }
}

fn features(rules: &Rules, asked: &Asked<'_>) -> Option<Refusal> {
    let names = |parameter: &str| asked.parameter(parameter).is_some();
    if names("delete") && !asked.has_key && !rules.delete_objects {
        let text = "POST ?delete is not implemented for objects.";
        return Refusal::new(StatusCode::BAD_REQUEST, "NotImplemented", text);
    }
    if !rules.tagging && (names("tagging") || asked.has("x-amz-tagging")) {
        return Refusal::not_implemented("tagging");
    }
    if !rules.versioning && (names("versions") || names("versioning") || names("versionId")) {
        return Refusal::not_implemented("versioning");
    }
    if rules.lock_wants_digest
        && *asked.method == Method::PUT
        && asked.has_key
        && (asked.is_locked || asked.has("x-amz-object-lock-mode"))
        && !asked.has("x-amz-copy-source")
        && !asked.has_digest()
    {
        let text = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock \
                    parameters";
        return Refusal::new(StatusCode::BAD_REQUEST, "InvalidRequest", text);
    }
    let creates_bucket =
        *asked.method == Method::PUT && asked.has_bucket && !asked.has_key && asked.query.is_empty();
    if creates_bucket && rules.wants_location && asked.content_len() == 0 {
        let text = "The unspecified location constraint is incompatible for the region specific endpoint this request \
                    was sent to.";
        return Refusal::new(StatusCode::BAD_REQUEST, "IllegalLocationConstraintException", text);
    }
    None
}

fn headers(rules: &Rules, asked: &Asked<'_>) -> Option<Refusal> {
    if let Some(acl) = asked.text("x-amz-acl")
        && !rules.acls.contains(&acl)
    {
        return Refusal::not_implemented("x-amz-acl");
    }
    if let Some(class) = asked.text("x-amz-storage-class")
        && !rules.storage_classes.contains(&class)
    {
        let text = "The storage class you specified is not valid";
        return Refusal::new(StatusCode::BAD_REQUEST, "InvalidStorageClass", text);
    }
    let unknown = |name: &&str| {
        name.starts_with("x-amz-")
            && !name.starts_with("x-amz-meta-")
            && !name.starts_with("x-amz-checksum-")
            && *name != "x-amz-acl"
            && !KNOWN.contains(name)
    };
    let unknown = asked.headers.keys().map(http::HeaderName::as_str).find(unknown);
    unknown.filter(|_| rules.refuses_unknown_headers).and_then(Refusal::not_implemented)
}

/// What R2 says of the sizes of the parts that a Complete names, in order.
pub(super) fn part_sizes(rules: &Rules, sizes: &[u64]) -> Option<Refusal> {
    let (last, before) = sizes.split_last()?;
    let first = *before.first()?;
    let uneven = before.iter().any(|size| *size != first) || *last > first;
    if !rules.equal_parts || !uneven {
        return None;
    }
    let text = "All non-trailing parts must have the same length.";
    Refusal::new(StatusCode::BAD_REQUEST, "InvalidPart", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store_double::rules::named;

    #[test]
    fn parts_may_be_uneven_only_at_the_end() {
        let r2 = named("r2").unwrap();
        for even in [&[8][..], &[8, 8, 8], &[8, 8, 3], &[]] {
            assert_eq!(part_sizes(r2, even), None, "{even:?}");
        }
        for uneven in [&[8, 9][..], &[8, 7, 3], &[8, 8, 9]] {
            assert_eq!(part_sizes(r2, uneven).unwrap().code, "InvalidPart", "{uneven:?}");
            assert_eq!(part_sizes(named("aws").unwrap(), uneven), None);
        }
    }
}
