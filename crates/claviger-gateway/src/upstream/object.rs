//! Calls on single objects and on buckets.

use base64::Engine as _;
use bytes::Bytes;
use claviger_format::token::object_etag;
use claviger_s3::VersionId;
use claviger_s3::conditions::{EtagCondition, WriteCondition};
use claviger_s3::error::UpstreamError;
use claviger_s3::etag::ETag;
use claviger_s3::lock::LockHeaders;
use claviger_s3::operation::{AclHeaders, ObjectHeaders, StorageClass};
use claviger_s3::range::parse_content_range;
use claviger_s3::tagging::TagSet;
use claviger_s3::timestamp;
use claviger_s3::uri::{Slash, encode};
use claviger_s3::xml::{
    self, CopyResult, DeleteEntry, DeleteRequest, DeleteResult, ListBucketsResult, Reply,
};
use http::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED,
};
use http::{Method, StatusCode};
use md5::{Digest as _, Md5};

use super::ENVELOPE_HEADER;
use super::body::UpstreamBody;
use super::condition::{self, Write};
use super::passed::Passed;
use super::profile::Condition;
use super::transport::{StoreBody, StoreRequest, Upstream, header_text};
use crate::error::GatewayError;

/// The longest entity tag that is taken from a provider: they are remembered, and S3's have 34 to 40 characters.
const ETAG_LEN_MAX: usize = 1024;

/// What the provider says of an object. All of it is its claim (docs/format.md §1.2).
#[derive(Debug, Clone)]
pub(crate) struct StoredHead {
    /// Stored bytes of the whole object, the format's C.
    pub total_size: u64,
    /// Its entity tag, as the provider gives it.
    pub etag: ETag,
    /// `Last-Modified`, milliseconds since the epoch.
    pub last_modified_ms: u64,
    /// The metadata envelope, if there is one.
    pub envelope: Option<String>,
    /// The storage class, unless it is the standard one.
    pub storage_class: Option<String>,
    /// For a partial answer: first byte and one past the last.
    pub range: Option<(u64, u64)>,
    /// What else the client hears of it.
    pub passed: Passed,
}

impl StoredHead {
    fn parse(status: StatusCode, headers: &HeaderMap) -> Result<Self, GatewayError> {
        let content_range = header_text(headers, CONTENT_RANGE).and_then(parse_content_range);
        let content_length = header_text(headers, CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let (total_size, range) = match (status, content_range, content_length) {
            (StatusCode::PARTIAL_CONTENT, Some((start, end, total)), _) => (total, Some((start, end))),
            (StatusCode::OK, _, Some(length)) => (length, None),
            _ => return Err(GatewayError::UpstreamAnswer("an object without a length")),
        };
        let etag = header_text(headers, ETAG).filter(|text| text.len() <= ETAG_LEN_MAX).and_then(ETag::parse);
        let modified = header_text(headers, LAST_MODIFIED).and_then(timestamp::parse_http_date);
        Ok(Self {
            total_size,
            etag: etag.ok_or(GatewayError::UpstreamAnswer("an object without an entity tag"))?,
            last_modified_ms: modified.ok_or(GatewayError::UpstreamAnswer("an object without a date"))?,
            envelope: header_text(headers, ENVELOPE_HEADER).map(str::to_owned),
            storage_class: header_text(headers, "x-amz-storage-class").map(str::to_owned),
            range,
            passed: Passed::of_answer(headers),
        })
    }
}

/// What one GET asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// Everything.
    Whole,
    /// These stored bytes, both ends included; `None` as the last: to the end.
    Bytes(u64, Option<u64>),
}

impl Wanted {
    fn header(self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Bytes(first, Some(last)) => Some(format!("bytes={first}-{last}")),
            Self::Bytes(first, None) => Some(format!("bytes={first}-")),
        }
    }
}

/// Which of a key's versions is read. Conditions of clients are judged by the gateway and never sent: a client may
/// name the MD5 of its content in them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Which<'a> {
    /// Exactly the object that an earlier answer spoke of, in the provider's entity tag.
    pub same_as: Option<&'a ETag>,
    /// This version; the newest if there is none.
    pub version: Option<&'a VersionId>,
}

impl Which<'_> {
    /// Puts it into a request.
    ///
    /// # Errors
    /// When a tag can't stand in a header.
    pub(super) fn apply<'r>(self, mut request: StoreRequest<'r>) -> Result<StoreRequest<'r>, GatewayError> {
        if let Some(etag) = self.same_as {
            request = request.header("if-match", &etag.quoted())?;
        }
        Ok(request.maybe_query("versionId", self.version.map(VersionId::as_str)))
    }
}

/// The object that a server-side copy starts from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyFrom<'a> {
    /// Its bucket.
    pub bucket: &'a str,
    /// Its key.
    pub key: &'a str,
    /// The very object, in the provider's entity tag.
    pub etag: &'a ETag,
    /// The version that was found; none in a bucket that never had versions.
    pub version: Option<&'a VersionId>,
}

/// The new version of an object.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// The provider's entity tag.
    pub etag: ETag,
    /// What else the client hears of it, its version id above all.
    pub passed: Passed,
}

impl Stored {
    fn parse(headers: &HeaderMap) -> Result<Self, GatewayError> {
        let etag = header_text(headers, ETAG).and_then(ETag::parse);
        let etag = etag.ok_or(GatewayError::UpstreamAnswer("a stored object without an entity tag"))?;
        Ok(Self { etag, passed: Passed::of_answer(headers) })
    }
}

/// What a DELETE is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Deletion<'a> {
    /// This version, for good; else the newest, which a bucket with versions only hides behind a marker.
    pub version: Option<&'a VersionId>,
    /// The client's condition, passed through and never emulated.
    pub condition: Option<&'a EtagCondition>,
    /// In spite of a retention in governance mode, where the account may.
    pub bypass_governance: bool,
}

/// How an object is to be stored beside its bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StoreAs<'a> {
    /// The metadata envelope; none for Claviger's own objects.
    pub envelope: Option<&'a str>,
    /// The storage class asked for.
    pub storage_class: Option<&'a str>,
    /// Who may do what with it, at the store.
    pub acl: Option<&'a AclHeaders>,
    /// Tags, in clear: the bucket's policy allows them.
    pub tags: Option<&'a TagSet>,
    /// Until when the store lets nobody delete it.
    pub lock: Option<&'a LockHeaders>,
    /// The client's condition, passed through and never emulated.
    pub condition: Option<&'a WriteCondition>,
}

impl<'a> StoreAs<'a> {
    /// What a client's request says of it; the envelope is not made yet.
    pub(crate) fn of_request(headers: &'a ObjectHeaders, condition: Option<&'a WriteCondition>) -> Self {
        let storage_class = headers.storage_class.as_ref().map(StorageClass::as_str);
        Self {
            envelope: None,
            storage_class,
            acl: Some(&headers.acl),
            tags: Some(&headers.tags),
            lock: Some(&headers.lock),
            condition,
        }
    }

    /// The headers that say so.
    ///
    /// # Errors
    /// When a value can't stand in a header; such values never come from sealed data.
    pub(crate) fn headers(&self) -> Result<HeaderMap, GatewayError> {
        let mut headers = HeaderMap::new();
        // Told to every store alike, so that it guesses nothing from the key.
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let mut set = |name: &'static str, value: &str| {
            let value =
                HeaderValue::from_str(value).map_err(|_| GatewayError::Internal("a header is not ASCII"))?;
            headers.insert(name, value);
            Ok::<_, GatewayError>(())
        };
        if let Some(envelope) = self.envelope {
            set(ENVELOPE_HEADER, envelope)?;
        }
        if let Some(class) = self.storage_class {
            set("x-amz-storage-class", class)?;
        }
        for (name, value) in self.acl.into_iter().flat_map(AclHeaders::iter) {
            set(name, value)?;
        }
        if let Some(tags) = self.tags.filter(|tags| !tags.is_empty()) {
            set("x-amz-tagging", &tags.to_header())?;
        }
        if let Some(retention) = self.lock.and_then(|lock| lock.retention.as_ref()) {
            set("x-amz-object-lock-mode", retention.mode.as_str())?;
            set("x-amz-object-lock-retain-until-date", retention.until.as_str())?;
        }
        if let Some(hold) = self.lock.and_then(|lock| lock.legal_hold) {
            set("x-amz-object-lock-legal-hold", hold.as_str())?;
        }
        Ok(headers)
    }
}

/// How a bucket is to be made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MakeAs<'a> {
    /// Who may do what with it, at the store.
    pub acl: Option<&'a AclHeaders>,
    /// Who owns what others store in it.
    pub object_ownership: Option<&'static str>,
    /// With Object Lock, for good.
    pub object_lock: bool,
}

impl Upstream {
    /// HEAD of an object.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn head_object(
        &self,
        bucket: &str,
        key: &str,
        which: Which<'_>,
    ) -> Result<StoredHead, GatewayError> {
        let request = which.apply(StoreRequest::new(Method::HEAD, bucket, Some(key)))?;
        let response = self.send(request).await?;
        StoredHead::parse(response.status(), response.headers())
    }

    /// GET of an object: its head and the bytes that were wanted.
    ///
    /// # Errors
    /// The provider's error, with 416 among them.
    pub(crate) async fn get_object(
        &self,
        bucket: &str,
        key: &str,
        wanted: Wanted,
        which: Which<'_>,
    ) -> Result<(StoredHead, StoreBody), GatewayError> {
        let mut request = which.apply(StoreRequest::new(Method::GET, bucket, Some(key)))?;
        if let Some(range) = wanted.header() {
            request = request.header(RANGE_NAME, &range)?;
        }
        let (parts, body) = self.send(request).await?.into_parts();
        let head = StoredHead::parse(parts.status, &parts.headers)?;
        if matches!(wanted, Wanted::Whole) && head.range.is_some() {
            return Err(GatewayError::UpstreamAnswer("a part of an object that was asked for as a whole"));
        }
        Ok((head, body))
    }

    /// PUT of an object whose body is sealed.
    ///
    /// # Errors
    /// The provider's error; nothing is stored then.
    pub(crate) async fn put_object(
        &self,
        bucket: &str,
        key: &str,
        store_as: StoreAs<'_>,
        body: UpstreamBody,
    ) -> Result<Stored, GatewayError> {
        let mut request = StoreRequest::new(Method::PUT, bucket, Some(key)).body(body);
        request.headers = store_as.headers()?;
        condition::set(&mut request.headers, store_as.condition, Write::Put, self.profile())?;
        if self.profile().checksum_behind_puts {
            request = request.with_trailer()?;
        }
        let response = self.send(request).await?;
        Stored::parse(response.headers())
    }

    /// DELETE of an object or of one of its versions.
    ///
    /// # Errors
    /// The provider's error; that it knows no versions, or not this one.
    pub(crate) async fn delete_object(
        &self,
        bucket: &str,
        key: &str,
        what: Deletion<'_>,
    ) -> Result<Passed, GatewayError> {
        self.make_sure_of_version(bucket, key, what.version).await?;
        let mut request = StoreRequest::new(Method::DELETE, bucket, Some(key))
            .maybe_query("versionId", what.version.map(VersionId::as_str));
        condition::set_on_delete(&mut request.headers, what.condition, self.profile())?;
        if what.bypass_governance {
            request = request.header(BYPASS_NAME, "true")?;
        }
        let response = self.send(request).await?;
        Ok(Passed::of_answer(response.headers()))
    }

    /// Whether the store is known to keep a condition on a DELETE.
    pub(crate) fn keeps_condition_on_delete(&self) -> bool {
        self.profile().conditions.delete == Condition::Kept
    }

    /// DELETE of up to 1,000 objects in one request. Versions that it names have been made sure of before.
    ///
    /// # Errors
    /// The provider's error for the whole request; errors of single keys are in the result.
    pub(crate) async fn delete_objects(
        &self,
        bucket: &str,
        delete: &DeleteRequest,
        bypass_governance: bool,
    ) -> Result<DeleteResult, GatewayError> {
        let names_version = |entry: &DeleteEntry| entry.version_id.as_deref().is_some_and(|id| id != "null");
        if !self.has_versions() && delete.objects.iter().any(names_version) {
            return Err(GatewayError::Internal("a version was to be deleted where there are none"));
        }
        let document = xml::write_delete(delete);
        let request = StoreRequest::new(Method::POST, bucket, None).query("delete", "");
        let mut request = control(request, document)?;
        if bypass_governance {
            request = request.header(BYPASS_NAME, "true")?;
        }
        let (_, answer) = self.document(request).await?;
        DeleteResult::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("DeleteObjects"))
    }

    /// Server-side copy: the provider moves the sealed body, the envelope is replaced (docs/format.md §5.4). Tags go along
    /// where the provider takes them from a copy's headers; else the caller sets them afterwards.
    ///
    /// # Errors
    /// The provider's error, also the one that comes with status 200; an answer that does not say what the copy became.
    pub(crate) async fn copy_object(
        &self,
        source: CopyFrom<'_>,
        dest: (&str, &str),
        store_as: StoreAs<'_>,
    ) -> Result<(CopyResult, Stored), GatewayError> {
        let mut request = StoreRequest::new(Method::PUT, dest.0, Some(dest.1));
        let tags = store_as.tags.filter(|_| self.profile().copy_takes_tags);
        request.headers = StoreAs { tags, ..store_as }.headers()?;
        condition::set(&mut request.headers, store_as.condition, Write::Put, self.profile())?;
        let version = source.version.map(|version| encode(version.as_str().as_bytes(), Slash::Encode));
        let version = version.map(|version| format!("?versionId={version}")).unwrap_or_default();
        // Policies compare it as it stands, and are written without a slash before the bucket.
        let path = format!("{}/{}{version}", source.bucket, encode(source.key.as_bytes(), Slash::Keep));
        request = request
            .header("x-amz-copy-source", &path)?
            .header("x-amz-copy-source-if-match", &source.etag.quoted())?
            .header("x-amz-metadata-directive", "REPLACE")?;
        // The store's own default would be to copy the source's tags, whatever the destination's policy says of them.
        if store_as.tags.is_some() {
            request = request.header("x-amz-tagging-directive", "REPLACE")?;
        }
        let (parts, answer) = self.document(request).await?;
        match CopyResult::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("CopyObject"))? {
            Reply::Done(result) => {
                let etag = ETag::parse(&result.etag);
                let etag = etag.ok_or(GatewayError::UpstreamAnswer("a copy without an entity tag"))?;
                Ok((result, Stored { etag, passed: Passed::of_answer(&parts.headers) }))
            }
            Reply::Failed(error) => Err(failed_in_body(error)),
        }
    }

    /// Creates a bucket; `location` goes into the document where the region wants one.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn create_bucket(&self, bucket: &str, make_as: MakeAs<'_>) -> Result<(), GatewayError> {
        let mut request = StoreRequest::new(Method::PUT, bucket, None);
        for (name, value) in make_as.acl.into_iter().flat_map(AclHeaders::iter) {
            request = request.header(name, value)?;
        }
        if let Some(ownership) = make_as.object_ownership {
            request = request.header("x-amz-object-ownership", ownership)?;
        }
        if make_as.object_lock {
            request = request.header("x-amz-bucket-object-lock-enabled", "true")?;
        }
        if self.profile().names_location(self.region()) {
            request = request.body(UpstreamBody::control(xml::write_create_bucket(self.region())));
        }
        self.send(request).await.map(drop)
    }

    /// Where the store says that a bucket is; empty for its first region.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn bucket_location(&self, bucket: &str) -> Result<String, GatewayError> {
        let request = StoreRequest::new(Method::GET, bucket, None).query("location", "");
        let (_, answer) = self.document(request).await?;
        xml::parse_location_constraint(&answer).map_err(|_| GatewayError::UpstreamAnswer("GetBucketLocation"))
    }

    /// Whether a bucket exists and is the gateway's to use.
    ///
    /// # Errors
    /// The provider's error, 404 when there is none.
    pub(crate) async fn head_bucket(&self, bucket: &str) -> Result<(), GatewayError> {
        self.send(StoreRequest::new(Method::HEAD, bucket, None)).await.map(drop)
    }

    /// Asks the bucket's CORS rules; what they say is in the headers that go with the call.
    ///
    /// # Errors
    /// The provider's refusal.
    pub(crate) async fn preflight(&self, bucket: &str) -> Result<(), GatewayError> {
        self.send(StoreRequest::new(Method::OPTIONS, bucket, None).named("Preflight")).await.map(drop)
    }

    /// Deletes an empty bucket.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn delete_bucket(&self, bucket: &str) -> Result<(), GatewayError> {
        self.send(StoreRequest::new(Method::DELETE, bucket, None)).await.map(drop)
    }

    /// All buckets of the gateway's account.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn list_buckets(&self) -> Result<ListBucketsResult, GatewayError> {
        let mut whole = self.list_buckets_page(None).await?;
        while let Some(token) = whole.continuation_token.take() {
            let page = self.list_buckets_page(Some(token.clone())).await?;
            if page.buckets.is_empty() || page.continuation_token.as_ref() == Some(&token) {
                return Err(GatewayError::UpstreamAnswer("a listing of buckets without an end"));
            }
            whole.buckets.extend(page.buckets);
            whole.continuation_token = page.continuation_token;
        }
        Ok(whole)
    }

    /// The beginning of that listing, which says whose it is: one request, however much there is.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn list_buckets_once(&self) -> Result<ListBucketsResult, GatewayError> {
        self.list_buckets_page(None).await
    }

    async fn list_buckets_page(&self, token: Option<String>) -> Result<ListBucketsResult, GatewayError> {
        let mut request = StoreRequest::new(Method::GET, "", None).maybe_query("continuation-token", token);
        request.bucket = None;
        let (_, answer) = self.document(request).await?;
        ListBucketsResult::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("ListBuckets"))
    }
}

const RANGE_NAME: &str = "range";
pub(super) const BYPASS_NAME: &str = "x-amz-bypass-governance-retention";

/// The error of an answer with status 200: only a code of an error is believed.
pub(super) fn failed_in_body(mut error: UpstreamError) -> GatewayError {
    error.code = error.code.filter(|code| code.status().is_client_error() || code.status().is_server_error());
    GatewayError::Upstream(Box::new(error))
}

/// A client's entity tag as the provider knows it; `None` for one that no answer of ours can have held. Such a tag
/// matches nothing, and it may be the MD5 of a plaintext: it is not sent (docs/format.md §5.3, §7.1).
pub(crate) fn store_etag(etag: &str) -> Option<&str> {
    let (hash, count) = etag.rsplit_once('-')?;
    let is_hash = (1..=64).contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_count = (1..=5).contains(&count.len()) && count.bytes().all(|byte| byte.is_ascii_digit());
    (is_hash && is_count).then(|| object_etag::unmark(etag))
}

/// `Content-MD5` of a control or configuration document, which some stores demand; it never covers content.
pub(super) fn content_md5(document: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(Md5::digest(document))
}

/// A request with a control document as its body. `Content-MD5` goes with it, which some stores demand; it covers names
/// and settings, never content.
pub(super) fn control(request: StoreRequest<'_>, document: Bytes) -> Result<StoreRequest<'_>, GatewayError> {
    Ok(request.header("content-md5", &content_md5(&document))?.body(UpstreamBody::control(document)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double;

    #[test]
    fn only_entity_tags_that_the_gateway_can_have_issued_go_out() {
        let md5 = "5d41402abc4b2a76b9719d911017c592";
        assert_eq!(store_etag(md5), None, "the MD5 of a plaintext");
        assert_eq!(store_etag(&format!("{md5}-0")), Some(md5));
        assert_eq!(store_etag(&format!("{md5}-12")), Some(&*format!("{md5}-12")));
        let composite = "0Rv5BgxnodpITngt/yIo/2+zVjZVwZCpZdZ/tZKC69s=-2";
        assert_eq!(store_etag(composite), None, "the SHA-256 of the parts of a plaintext");
        for tag in ["", "-", "-0", "a-", "any text-1", "x-123456", "secret words"] {
            assert_eq!(store_etag(tag), None, "{tag}");
        }
    }

    #[tokio::test]
    async fn an_entity_tag_that_goes_on_and_on_is_none() {
        for (len, is_taken) in [(ETAG_LEN_MAX - 2, true), (ETAG_LEN_MAX - 1, false)] {
            let tag = format!("\"{}\"", "a".repeat(len));
            let answer = double::object(&[]).replace("\"abc\"", &tag);
            let store = double::store("generic", move |_| answer.clone()).await;
            let head = store.upstream.head_object("b", "k", Which::default()).await;
            assert_eq!(head.is_ok(), is_taken, "{len}");
        }
    }

    #[tokio::test]
    async fn a_copy_that_has_no_entity_tag_is_not_told_of_as_one() {
        let copied = async |tag: &str| {
            let document = format!(
                "<CopyObjectResult><LastModified>2026-11-22T00:00:00Z</LastModified>{tag}</CopyObjectResult>"
            );
            let store = double::store("ceph-rgw", move |_| double::answer(200, &[], &document)).await;
            let etag = ETag::parse("abc").unwrap();
            let from = CopyFrom { bucket: "b", key: "k", etag: &etag, version: None };
            store
                .upstream
                .copy_object(from, ("b", "l"), StoreAs::default())
                .await
                .map(|(_, stored)| stored.etag)
        };
        assert_eq!(copied("<ETag>\"def\"</ETag>").await.unwrap(), ETag::parse("def").unwrap());
        for tag in ["", "<ETag/>", "<ETag>\"\"</ETag>"] {
            assert!(matches!(copied(tag).await, Err(GatewayError::UpstreamAnswer(_))), "{tag}");
        }
    }
}
