//! The string that Version 2 signs.
//!
//! ```text
//! METHOD \n Content-MD5 \n Content-Type \n date \n (x-amz-name:value \n)* resource
//! ```

use std::collections::BTreeMap;

use http::header::{CONTENT_TYPE, HeaderMap};
use percent_encoding::percent_decode_str;

use super::disposition;
use crate::request::RequestHead;

/// The query parameters that the signature covers. Everything that makes another operation of a request is among them
/// (a test compares them with the table of operations): nobody can turn a presigned request into another one.
pub const SUB_RESOURCES: &[&str] = &[
    "accelerate",
    "acl",
    "analytics",
    "annotation",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "intelligent-tiering",
    "inventory",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "object-lock",
    "ownershipControls",
    "partNumber",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "replication",
    "requestPayment",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "restore",
    "retention",
    "select",
    "session",
    "tagging",
    "torrent",
    "uploadId",
    "uploads",
    "versionId",
    "versioning",
    "versions",
    "website",
];

/// What is signed, beside the request's own head.
#[derive(Clone, Copy)]
pub(super) struct Canonical<'a> {
    pub(super) head: &'a RequestHead<'a>,
    /// The path of the resource, encoded as it came.
    pub(super) path: &'a str,
    /// The bucket of a virtual host.
    pub(super) bucket: Option<&'a str>,
    /// What stands in the place of the date: the `Date` header, nothing with `x-amz-date`, or `Expires` of a presigned
    /// request.
    pub(super) date: &'a str,
    /// Presigned: headers may stand in the query.
    pub(super) is_query: bool,
}

/// The string to sign.
pub(super) fn string_to_sign(what: Canonical<'_>) -> String {
    let Canonical { head, path, bucket, date, is_query } = what;
    let mut out = String::with_capacity(256);
    let plain =
        |name: &str| header(head.headers, name).or_else(|| hoisted(head, name, is_query)).unwrap_or_default();
    for line in [head.method.as_str(), &plain("content-md5"), &plain(CONTENT_TYPE.as_str()), date] {
        out.push_str(line);
        out.push('\n');
    }
    for (name, value) in amz_headers(head, is_query) {
        out.push_str(&name);
        out.push(':');
        out.push_str(&value);
        out.push('\n');
    }
    push_resource(&mut out, head, path, bucket);
    out
}

/// Whether something of the query that the signature covers has a control character. What is signed is a text of lines, with
/// values decoded: a line break in one of them would let the same signature stand for another request.
pub(super) fn has_control_characters(head: &RequestHead<'_>, is_query: bool) -> bool {
    decoded_pairs(head).any(|(name, value)| {
        let lower = name.to_ascii_lowercase();
        let is_header = lower.starts_with("x-amz-") || ["content-md5", "content-type"].contains(&&*lower);
        let is_covered = (is_query && is_header) || SUB_RESOURCES.contains(&name.as_str());
        is_covered && (name.contains(char::is_control) || value.contains(char::is_control))
    })
}

/// Whether a presigned request's covered parameters could be read as others than were signed. They are signed decoded, with `&`
/// between them: a value with an ampersand in it looks like several, and several like one. What people choose freely is the
/// name of a file in `response-content-disposition`. So no value may hold the beginning of another covered parameter; no quote
/// may be open at the end of a value; and something covered follows a disposition only where that is complete in itself.
pub(super) fn is_ambiguous(head: &RequestHead<'_>) -> bool {
    let covered = sub_resources(head);
    let holds_another = |(_, value): &(String, String)| {
        let mut pieces = value.split('&').skip(1);
        pieces.any(|piece| SUB_RESOURCES.contains(&piece.split('=').next().unwrap_or_default()))
    };
    let is_open = |(_, value): &(String, String)| has_open_quote(value);
    let is_cut = |(name, value): &(String, String)| {
        name == "response-content-disposition" && !disposition::is_complete(value)
    };
    let (_, before_last) = covered.split_last().unzip();
    let before_last: &[_] = before_last.unwrap_or_default();
    covered.iter().any(holds_another)
        || (covered.len() > 1 && covered.iter().any(is_open))
        || before_last.iter().any(is_cut)
}

/// Whether a quoted string has no end. A backslash takes away the meaning of what follows it (RFC 9110 §5.6.4).
fn has_open_quote(value: &str) -> bool {
    let mut is_open = false;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if is_open => drop(chars.next()),
            '"' => is_open = !is_open,
            _ => {}
        }
    }
    is_open
}

/// All `x-amz-*` headers in order. SDKs that presign move them into the query; they count as headers there.
fn amz_headers(head: &RequestHead<'_>, is_query: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, value) in decoded_pairs(head).filter(|_| is_query) {
        let name = name.to_ascii_lowercase();
        if name.starts_with("x-amz-") {
            all.insert(name, value.trim().to_owned());
        }
    }
    let names = head.headers.keys().map(http::HeaderName::as_str).filter(|name| name.starts_with("x-amz-"));
    for name in names {
        all.insert(name.to_owned(), header(head.headers, name).unwrap_or_default());
    }
    all
}

/// The path, behind the bucket of a virtual host, and the sub-resources in order with decoded values.
fn push_resource(out: &mut String, head: &RequestHead<'_>, path: &str, bucket: Option<&str>) {
    if let Some(bucket) = bucket {
        out.push('/');
        out.push_str(bucket);
    }
    out.push_str(path);
    let mut separator = '?';
    for (name, value) in sub_resources(head) {
        out.push(separator);
        out.push_str(&name);
        if !value.is_empty() {
            out.push('=');
            out.push_str(&value);
        }
        separator = '&';
    }
}

/// The covered parameters, decoded, in the order in which they are signed.
fn sub_resources(head: &RequestHead<'_>) -> Vec<(String, String)> {
    // Names are decoded first, as whoever acts on them does: `%61cl` is `acl`.
    let covered = decoded_pairs(head).filter(|(name, _)| SUB_RESOURCES.contains(&name.as_str()));
    let mut covered: Vec<_> = covered.collect();
    covered.sort_unstable();
    covered
}

/// A header's values, trimmed and joined by commas.
fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(name).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes().trim_ascii())).collect();
    (!values.is_empty()).then(|| values.join(","))
}

fn hoisted(head: &RequestHead<'_>, name: &str, is_query: bool) -> Option<String> {
    decoded_pairs(head)
        .find(|(other, _)| is_query && other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
}

fn decoded_pairs<'a>(head: &RequestHead<'a>) -> impl Iterator<Item = (String, String)> + use<'a> {
    head.raw_pairs().map(|(name, value)| (decoded(name), decoded(value)))
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}
