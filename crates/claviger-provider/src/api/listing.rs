//! Listings: pages of a sorted set of keys, with delimiters, markers and encoded names.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{
    CommonPrefix, EncodingType, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    Object, ObjectStorageClass,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::buckets::owner;
use super::{Api, signed, strong, timestamp};
use crate::store::{Listed, UploadRecord};

/// Most entries in one page.
const PAGE_LEN_MAX: i32 = 1000;

impl Api {
    pub(super) async fn run_list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let max = page_len(input.max_keys)?;
        let encoder = Encoder::of(input.encoding_type.as_ref())?;
        let (prefix, delimiter) = (input.prefix.unwrap_or_default(), input.delimiter.unwrap_or_default());
        let marker = input.marker.unwrap_or_default();
        let bucket = self.store.bucket(&input.bucket)?;
        let page = bucket.listed(|index| page(index, &prefix, &delimiter, &marker, max))?;
        // Without a delimiter S3 names no next marker: it is the last key.
        let next_marker = (page.truncated && !delimiter.is_empty()).then(|| encoder.text(&page.last));
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            contents: Some(contents(&page, encoder, true)),
            common_prefixes: Some(common_prefixes(&page, encoder)),
            prefix: Some(encoder.text(&prefix)),
            delimiter: encoder.optional(Some(&delimiter)),
            marker: Some(encoder.text(&marker)),
            max_keys: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            is_truncated: Some(page.truncated),
            next_marker,
            encoding_type: input.encoding_type,
            ..ListObjectsOutput::default()
        }))
    }

    pub(super) async fn run_list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let max = page_len(input.max_keys)?;
        let encoder = Encoder::of(input.encoding_type.as_ref())?;
        let (prefix, delimiter) = (input.prefix.unwrap_or_default(), input.delimiter.unwrap_or_default());
        let after = match &input.continuation_token {
            Some(token) => resumed(token)?,
            None => input.start_after.clone().unwrap_or_default(),
        };
        let bucket = self.store.bucket(&input.bucket)?;
        let page = bucket.listed(|index| page(index, &prefix, &delimiter, &after, max))?;
        let key_count = i32::try_from(page.contents.len() + page.prefixes.len()).unwrap_or(i32::MAX);
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            contents: Some(contents(&page, encoder, input.fetch_owner.unwrap_or(false))),
            common_prefixes: Some(common_prefixes(&page, encoder)),
            prefix: Some(encoder.text(&prefix)),
            delimiter: encoder.optional(Some(&delimiter)),
            start_after: encoder.optional(input.start_after.as_deref()),
            continuation_token: input.continuation_token,
            next_continuation_token: page.truncated.then(|| URL_SAFE_NO_PAD.encode(&page.last)),
            max_keys: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            key_count: Some(key_count),
            is_truncated: Some(page.truncated),
            encoding_type: input.encoding_type,
            ..ListObjectsV2Output::default()
        }))
    }
}

/// The length of a page that a client asks for: 0 to 1,000.
pub(super) fn page_len(asked: Option<i32>) -> S3Result<usize> {
    let asked = asked.unwrap_or(PAGE_LEN_MAX).min(PAGE_LEN_MAX);
    usize::try_from(asked).map_err(|_| s3_error!(InvalidArgument, "A page has at least 0 entries."))
}

/// A continuation token is the last key or prefix of the page before.
fn resumed(token: &str) -> S3Result<String> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect"))
}

/// One page of objects.
struct Page {
    contents: Vec<(String, Listed)>,
    prefixes: Vec<String>,
    truncated: bool,
    /// The last key or prefix of the page.
    last: String,
}

/// The entries after `after` in byte order; keys that share a prefix up to the delimiter become one entry.
fn page(index: &BTreeMap<String, Listed>, prefix: &str, delimiter: &str, after: &str, max: usize) -> Page {
    let mut page = Page { contents: Vec::new(), prefixes: Vec::new(), truncated: false, last: String::new() };
    if max == 0 {
        return page;
    }
    let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
    let keys =
        index.range::<str, _>((start, Bound::Unbounded)).take_while(|(key, _)| key.starts_with(prefix));
    for (key, listed) in keys {
        let common = common_prefix(key, prefix, delimiter);
        if common
            .is_some_and(|common| common == after || page.prefixes.last().is_some_and(|last| last == common))
        {
            continue;
        }
        if page.contents.len() + page.prefixes.len() == max {
            page.truncated = true;
            break;
        }
        match common {
            Some(common) => page.prefixes.push(common.to_owned()),
            None => page.contents.push((key.clone(), listed.clone())),
        }
        page.last = common.unwrap_or(key).to_owned();
    }
    page
}

/// What the client asks of a listing of uploads.
pub(super) struct UploadsQuery<'a> {
    pub(super) prefix: &'a str,
    pub(super) delimiter: &'a str,
    pub(super) key_marker: &'a str,
    pub(super) upload_id_marker: &'a str,
    pub(super) max: usize,
}

/// One page of uploads.
pub(super) struct UploadsPage<'a> {
    pub(super) uploads: Vec<&'a (String, UploadRecord)>,
    pub(super) prefixes: Vec<String>,
    pub(super) truncated: bool,
    pub(super) next_key: String,
    pub(super) next_id: String,
}

/// A page of `all`, which is sorted by key and then by id.
pub(super) fn uploads<'a>(all: &'a [(String, UploadRecord)], query: &UploadsQuery<'_>) -> UploadsPage<'a> {
    let mut page = UploadsPage {
        uploads: Vec::new(),
        prefixes: Vec::new(),
        truncated: false,
        next_key: String::new(),
        next_id: String::new(),
    };
    let marker = (query.key_marker, query.upload_id_marker);
    for upload in all.iter().filter(|(_, record)| record.key.starts_with(query.prefix)) {
        let (id, key) = (upload.0.as_str(), upload.1.key.as_str());
        // A key marker alone skips all uploads of that key; with an id, those up to it.
        let seen = if marker.1.is_empty() { key <= marker.0 } else { (key, id) <= marker };
        let common = common_prefix(key, query.prefix, query.delimiter);
        let repeated = common.is_some_and(|common| {
            common == query.key_marker || page.prefixes.last().is_some_and(|last| last == common)
        });
        if query.max == 0 || seen || repeated {
            continue;
        }
        if page.uploads.len() + page.prefixes.len() == query.max {
            page.truncated = true;
            break;
        }
        match common {
            Some(common) => page.prefixes.push(common.to_owned()),
            None => page.uploads.push(upload),
        }
        page.next_key = common.unwrap_or(key).to_owned();
        page.next_id = if common.is_some() { String::new() } else { id.to_owned() };
    }
    page
}

/// `prefix` and what follows up to the end of the first delimiter, if there is one.
fn common_prefix<'a>(key: &'a str, prefix: &str, delimiter: &str) -> Option<&'a str> {
    if delimiter.is_empty() {
        return None;
    }
    let rest = key.get(prefix.len()..)?;
    let at = rest.find(delimiter)?;
    key.get(..prefix.len() + at + delimiter.len())
}

fn contents(page: &Page, encoder: Encoder, with_owner: bool) -> Vec<Object> {
    let object = |(key, listed): &(String, Listed)| Object {
        key: Some(encoder.text(key)),
        e_tag: Some(strong(&listed.etag)),
        last_modified: Some(timestamp(listed.last_modified_ms)),
        size: Some(signed(listed.size)),
        owner: with_owner.then(owner),
        storage_class: Some(listed.storage_class.clone().map_or_else(
            || ObjectStorageClass::from_static(ObjectStorageClass::STANDARD),
            ObjectStorageClass::from,
        )),
        ..Object::default()
    };
    page.contents.iter().map(object).collect()
}

fn common_prefixes(page: &Page, encoder: Encoder) -> Vec<CommonPrefix> {
    page.prefixes.iter().map(|prefix| CommonPrefix { prefix: Some(encoder.text(prefix)) }).collect()
}

/// Names as they are, or percent-encoded where the client asked for `encoding-type=url`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encoder {
    url: bool,
}

impl Encoder {
    pub(super) fn of(asked: Option<&EncodingType>) -> S3Result<Self> {
        match asked.map(EncodingType::as_str) {
            None => Ok(Self { url: false }),
            Some(EncodingType::URL) => Ok(Self { url: true }),
            Some(_) => Err(s3_error!(InvalidArgument, "Invalid Encoding Method specified in Request")),
        }
    }

    pub(super) fn text(self, text: &str) -> String {
        if self.url { encode(text) } else { text.to_owned() }
    }

    /// Nothing for an empty or missing text.
    pub(super) fn optional(self, text: Option<&str>) -> Option<String> {
        text.filter(|text| !text.is_empty()).map(|text| self.text(text))
    }
}

/// Percent-encodes all but unreserved characters and `/`.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests;
