//! The operations: which request is which, and what it does.

use std::sync::atomic::Ordering;

use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH,
    RANGE,
};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::Either;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::Store;
use super::answers::{self, Answer};
use super::bodies;
use super::buckets::Object;
use super::content::Content;
use super::names::Names;

/// A decoded query.
pub(super) struct Query<'a>(Vec<(&'a str, String)>);

impl<'a> Query<'a> {
    pub(super) fn parse(raw: &'a str) -> Self {
        let pairs = raw.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(name, value)| (name, percent_decode_str(value).decode_utf8_lossy().into_owned()))
                .collect(),
        )
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| *other == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Reads a body, and keeps of it what there is to keep by its name: nothing of what is only written, what is large on disk,
/// what is larger by its ends.
async fn take(store: &Store, key: &str, body: Incoming) -> anyhow::Result<Content> {
    match key.split('/').next() {
        Some("put") => bodies::forget(body, None).await?,
        Some("limited") => bodies::forget(body, Some(&store.limit)).await?,
        Some("large") => return bodies::keep_on_disk(body, &store.keep_dir).await,
        Some("ends") => return Ok(bodies::keep_ends(body).await?),
        _ => return Ok(bodies::keep(body).await?.into()),
    }
    Ok(Content::default())
}

fn is_forgotten(key: &str) -> bool {
    key.starts_with("put/") || key.starts_with("limited/")
}

pub(super) async fn answer(store: &Store, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    store.requests.fetch_add(1, Ordering::Relaxed);
    let path = percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned();
    let query = Query::parse(head.uri.query().unwrap_or(""));
    let (bucket, key) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let answered = match (key.is_empty(), &head.method) {
        (false, &Method::PUT) if query.has("partNumber") => upload_part(store, key, &query, body).await,
        (false, &Method::PUT) => put(store, bucket, key, &head, body).await,
        (false, &Method::POST) if query.has("uploadId") => complete(store, bucket, key, &query, body).await,
        _ => match bodies::forget(body, None).await {
            Ok(_) if key.is_empty() => Ok(on_bucket(store, bucket, &head.method, &query)),
            Ok(_) => Ok(on_object(store, bucket, key, &head, &query)),
            Err(error) => Err(error.into()),
        },
    };
    answered.unwrap_or_else(|error| {
        println!("{} {}: {error:#}", head.method, head.uri);
        answers::error(StatusCode::BAD_REQUEST, "IncompleteBody")
    })
}

pub(super) fn on_bucket(store: &Store, bucket: &str, method: &Method, query: &Query<'_>) -> Answer {
    let buckets = &store.buckets;
    match *method {
        // Not S3: so many requests there were, this one included.
        Method::GET if bucket.is_empty() && query.has("requests") => {
            answers::xml(store.requests.load(Ordering::Relaxed).to_string())
        }
        Method::GET if bucket.is_empty() => list_buckets(store),
        Method::PUT => {
            buckets.create(bucket);
            answers::empty(StatusCode::OK)
        }
        _ if !buckets.has(bucket) => answers::error(StatusCode::NOT_FOUND, "NoSuchBucket"),
        Method::HEAD => answers::empty(StatusCode::OK),
        Method::DELETE => {
            buckets.remove_bucket(bucket);
            answers::empty(StatusCode::NO_CONTENT)
        }
        Method::GET if query.has("location") => answers::xml("<LocationConstraint/>".to_owned()),
        Method::GET if query.has("versioning") => answers::xml("<VersioningConfiguration/>".to_owned()),
        Method::GET if query.0.iter().all(|(name, _)| LISTING.contains(name)) => list(store, bucket, query),
        _ => answers::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

/// What may stand in the query of a listing.
const LISTING: [&str; 9] = [
    "list-type",
    "prefix",
    "delimiter",
    "max-keys",
    "start-after",
    "continuation-token",
    "marker",
    "encoding-type",
    "fetch-owner",
];

fn list_buckets(store: &Store) -> Answer {
    let buckets: String = store
        .buckets
        .names()
        .iter()
        .map(|name| {
            format!(
                "<Bucket><Name>{name}</Name><CreationDate>{}</CreationDate></Bucket>",
                answers::LAST_MODIFIED
            )
        })
        .collect();
    answers::xml(format!(
        "<ListAllMyBucketsResult><Owner><ID>bench</ID></Owner><Buckets>{buckets}</Buckets></ListAllMyBucketsResult>"
    ))
}

fn list(store: &Store, bucket: &str, query: &Query<'_>) -> Answer {
    let text = |name: &str| query.get(name).unwrap_or("");
    let after = [text("continuation-token"), text("start-after"), text("marker")];
    let after = after.into_iter().find(|value| !value.is_empty()).unwrap_or("");
    let max = query.get("max-keys").and_then(|max| max.parse().ok()).unwrap_or(1000).min(1000);
    let page = match Names::of_bucket(bucket) {
        Some(_) if query.has("delimiter") => {
            return answers::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented");
        }
        Some(names) => names.page(text("prefix"), after, max),
        None => match store.buckets.page(bucket, text("prefix"), text("delimiter"), after, max) {
            Some(page) => page,
            None => return answers::error(StatusCode::NOT_FOUND, "NoSuchBucket"),
        },
    };
    let encoded = query.get("encoding-type") == Some("url");
    answers::listing(bucket, query, &page, |name| {
        if encoded { utf8_percent_encode(name, NON_ALPHANUMERIC).to_string() } else { name.to_owned() }
    })
}

fn on_object(store: &Store, bucket: &str, key: &str, head: &Parts, query: &Query<'_>) -> Answer {
    match head.method {
        Method::GET | Method::HEAD if query.0.is_empty() => read(store, bucket, key, head),
        Method::DELETE if query.has("uploadId") => {
            store.buckets.end_upload(query.get("uploadId").unwrap_or(""));
            answers::empty(StatusCode::NO_CONTENT)
        }
        Method::DELETE => {
            store.buckets.delete(bucket, key);
            answers::empty(StatusCode::NO_CONTENT)
        }
        Method::POST if query.has("uploads") => {
            let id = store.buckets.begin_upload(kept_headers(&head.headers));
            answers::xml(format!(
                "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId>\
                 </InitiateMultipartUploadResult>"
            ))
        }
        _ => answers::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"),
    }
}

fn read(store: &Store, bucket: &str, key: &str, head: &Parts) -> Answer {
    let Some(object) = store.buckets.get(bucket, key) else {
        return answers::error(StatusCode::NOT_FOUND, "NoSuchKey");
    };
    if !matches(&head.headers, &object.etag) {
        return answers::error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
    }
    let range = head.headers.get(RANGE).and_then(|range| range.to_str().ok());
    let range = range.and_then(|range| within(range, object.content.len()));
    let kept = match range {
        Some((first, last)) => object.content.range(first, last).and_then(|cut| cut.to_body()),
        None if head.method == Method::HEAD => Content::default().to_body(),
        None => object.content.to_body(),
    };
    // Only the ends of its parts are there.
    let Some(kept) = kept else { return answers::error(StatusCode::NOT_IMPLEMENTED, "NotKept") };
    let mut answer = Answer::new(Either::Right(kept));
    if let Some((first, last)) = range {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {first}-{last}/{}", object.content.len());
        if let Ok(value) = HeaderValue::from_str(&value) {
            answer.headers_mut().insert(CONTENT_RANGE, value);
        }
    } else if head.method == Method::HEAD {
        answer.headers_mut().insert(CONTENT_LENGTH, object.content.len().into());
    }
    answer.headers_mut().extend(object.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    let modified = HeaderValue::from_static("Thu, 01 Jan 2026 00:00:00 GMT");
    answer.headers_mut().insert(http::header::LAST_MODIFIED, modified);
    answer.headers_mut().insert(http::header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    answers::etag(answer, &object.etag)
}

fn matches(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get(IF_MATCH)
        .and_then(|wanted| wanted.to_str().ok())
        .is_none_or(|wanted| wanted == "*" || wanted.trim_matches('"') == etag)
}

/// First and last byte of `bytes=a-b`, `bytes=a-` and `bytes=-n`.
fn within(range: &str, len: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let end = len.checked_sub(1)?;
    match (first.parse::<u64>().ok(), last.parse::<u64>().ok()) {
        (Some(first), last) if first <= end => Some((first, last.unwrap_or(end).min(end))),
        (None, Some(suffix)) => Some((len - suffix.min(len), end)),
        _ => None,
    }
}

fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let keeps = |name: &HeaderName| *name == CONTENT_TYPE || name.as_str().starts_with("x-amz-meta-");
    headers
        .iter()
        .filter(|(name, _)| keeps(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

async fn put(store: &Store, bucket: &str, key: &str, head: &Parts, body: Incoming) -> anyhow::Result<Answer> {
    if head.headers.contains_key("x-amz-copy-source")
        || head.headers.contains_key("x-amz-decoded-content-length")
    {
        bodies::forget(body, None).await?;
        return Ok(answers::error(StatusCode::NOT_IMPLEMENTED, "NotImplemented"));
    }
    let etag = store.buckets.new_id();
    let content = take(store, key, body).await?;
    if is_forgotten(key) {
        return Ok(answers::etag(answers::empty(StatusCode::OK), &etag));
    }
    if head.headers.contains_key(IF_NONE_MATCH) && store.buckets.get(bucket, key).is_some() {
        return Ok(answers::error(StatusCode::PRECONDITION_FAILED, "PreconditionFailed"));
    }
    let object = Object { headers: kept_headers(&head.headers), content, etag: etag.clone() };
    if !store.buckets.put(bucket, key, object) {
        return Ok(answers::error(StatusCode::NOT_FOUND, "NoSuchBucket"));
    }
    Ok(answers::etag(answers::empty(StatusCode::OK), &etag))
}

async fn upload_part(store: &Store, key: &str, query: &Query<'_>, body: Incoming) -> anyhow::Result<Answer> {
    let content = take(store, key, body).await?;
    let number = query.get("partNumber").and_then(|number| number.parse().ok()).unwrap_or(0);
    if !store.buckets.add_part(query.get("uploadId").unwrap_or(""), number, content) {
        return Ok(answers::error(StatusCode::NOT_FOUND, "NoSuchUpload"));
    }
    Ok(answers::etag(answers::empty(StatusCode::OK), &store.buckets.new_id()))
}

async fn complete(
    store: &Store,
    bucket: &str,
    key: &str,
    query: &Query<'_>,
    body: Incoming,
) -> anyhow::Result<Answer> {
    bodies::forget(body, None).await?;
    let Some(upload) = store.buckets.end_upload(query.get("uploadId").unwrap_or("")) else {
        return Ok(answers::error(StatusCode::NOT_FOUND, "NoSuchUpload"));
    };
    let etag = format!("{}-{}", store.buckets.new_id(), upload.parts.len());
    if !is_forgotten(key) {
        let mut content = Content::default();
        upload.parts.into_values().for_each(|part| content.append(part));
        let object = Object { headers: upload.headers, content, etag: etag.clone() };
        store.buckets.put(bucket, key, object);
    }
    Ok(answers::xml(format!(
        "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>&quot;{etag}&quot;</ETag>\
         </CompleteMultipartUploadResult>"
    )))
}
