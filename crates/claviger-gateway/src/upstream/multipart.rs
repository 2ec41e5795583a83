//! Calls on multipart uploads, by the provider's own upload ids.

use claviger_s3::conditions::WriteCondition;
use claviger_s3::etag::ETag;
use claviger_s3::xml::{
    self, CompleteMultipartUploadResult, CompletedPart, InitiateMultipartUploadResult,
    ListMultipartUploadsResult, ListPartsResult, Reply,
};
use claviger_s3::{ErrorCode, S3Error};
use http::Method;
use http::header::{ETAG, HeaderMap};
use md5::{Digest as _, Md5};

use super::body::UpstreamBody;
use super::condition::{self, Write};
use super::mark::Mark;
use super::object::{Stored, Which, failed_in_body};
use super::passed::Passed;
use super::transport::{StoreRequest, Upstream, header_text};
use crate::error::GatewayError;

/// An upload at the provider.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoreUpload<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// The provider's upload id.
    pub upload_id: &'a str,
}

impl<'a> StoreUpload<'a> {
    fn request(self, method: Method) -> StoreRequest<'a> {
        StoreRequest::new(method, self.bucket, Some(self.key)).query("uploadId", self.upload_id)
    }
}

/// Where a listing of uploads goes on, and what it is limited to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListUploadsWhat<'a> {
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Groups keys into common prefixes.
    pub delimiter: Option<&'a str>,
    /// Only keys behind it.
    pub key_marker: &'a str,
    /// Of the marked key, only uploads behind this one, in the provider's ids.
    pub upload_id_marker: &'a str,
    /// At most so many entries.
    pub max_uploads: u32,
}

impl Upstream {
    /// Begins an upload with the headers of a `StoreAs`; gives the provider's id.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn create_upload(
        &self,
        bucket: &str,
        key: &str,
        headers: HeaderMap,
    ) -> Result<String, GatewayError> {
        let mut request = StoreRequest::new(Method::POST, bucket, Some(key)).query("uploads", "");
        request.headers = headers;
        let (_, answer) = self.document(request).await?;
        let result = InitiateMultipartUploadResult::parse(&answer);
        Ok(result.map_err(|_| GatewayError::UpstreamAnswer("CreateMultipartUpload"))?.upload_id)
    }

    /// Stores a part; gives the provider's entity tag.
    ///
    /// # Errors
    /// The provider's error; nothing is stored then.
    pub(crate) async fn upload_part(
        &self,
        upload: StoreUpload<'_>,
        number: u16,
        body: UpstreamBody,
    ) -> Result<ETag, GatewayError> {
        let request = upload.request(Method::PUT).query("partNumber", number.to_string()).body(body);
        let response = self.send(request).await?;
        let etag = header_text(response.headers(), ETAG).and_then(ETag::parse);
        etag.ok_or(GatewayError::UpstreamAnswer("a part without an entity tag"))
    }

    /// Makes an object of parts; the entity tags are the provider's. Asks for the object's own tag where the store
    /// does not answer it; `mark` tells whether the answer is about this object.
    ///
    /// # Errors
    /// The provider's error, also the one that comes with status 200. `ServiceUnavailable` when the object was made, has
    /// been replaced since, and nobody can tell its tag any more.
    pub(crate) async fn complete_upload(
        &self,
        upload: StoreUpload<'_>,
        parts: &[CompletedPart],
        condition: Option<&WriteCondition>,
        mark: Mark<'_>,
    ) -> Result<Stored, GatewayError> {
        let mut request =
            upload.request(Method::POST).body(UpstreamBody::control(xml::write_complete(parts)));
        condition::set(&mut request.headers, condition, Write::Complete, self.profile())?;
        let (answered, answer) = self.document(request).await?;
        let reply = CompleteMultipartUploadResult::parse(&answer);
        let result = match reply.map_err(|_| GatewayError::UpstreamAnswer("CompleteMultipartUpload"))? {
            Reply::Done(result) => result,
            Reply::Failed(error) => return Err(failed_in_body(error)),
        };
        let passed = Passed::of_answer(&answered.headers);
        match ETag::parse(&result.etag) {
            Some(etag) => Ok(Stored { etag, passed }),
            // Some stores answer an empty tag here; the object itself knows better.
            None => self.made_of(upload, parts, passed, mark).await,
        }
    }

    /// The object that an upload has become. In a bucket without versions it may have been replaced since, and then the
    /// tag there is somebody else's.
    async fn made_of(
        &self,
        upload: StoreUpload<'_>,
        parts: &[CompletedPart],
        passed: Passed,
        mark: Mark<'_>,
    ) -> Result<Stored, GatewayError> {
        let version = passed.version();
        let which = Which { version: version.as_ref(), same_as: None };
        match self.head_object(upload.bucket, upload.key, which).await {
            Ok(head) if mark.is_on(&head) => {
                Ok(Stored { etag: head.etag, passed: if version.is_some() { passed } else { head.passed } })
            }
            Err(error) if !error.is_upstream_not_found() => Err(error),
            _ => {
                let etag = tag_of_parts(parts).ok_or_else(|| S3Error::new(ErrorCode::ServiceUnavailable))?;
                Ok(Stored { etag, passed })
            }
        }
    }

    /// Drops an upload.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn abort_upload(&self, upload: StoreUpload<'_>) -> Result<(), GatewayError> {
        self.send(upload.request(Method::DELETE)).await.map(drop)
    }

    /// One page of an upload's parts, with the provider's sizes and entity tags.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn list_parts(
        &self,
        upload: StoreUpload<'_>,
        marker: u16,
        max_parts: u32,
    ) -> Result<ListPartsResult, GatewayError> {
        let request = upload
            .request(Method::GET)
            .query("max-parts", max_parts.to_string())
            .maybe_query("part-number-marker", (marker > 0).then(|| marker.to_string()));
        let (_, answer) = self.document(request).await?;
        ListPartsResult::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("ListParts"))
    }

    /// One page of a bucket's uploads, with the provider's ids. Ceph RGW, asked to encode keys, does so without saying it,
    /// so they are asked for as they are; encoded only where one of them can't stand in XML.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn list_uploads(
        &self,
        bucket: &str,
        what: ListUploadsWhat<'_>,
    ) -> Result<ListMultipartUploadsResult, GatewayError> {
        let plain = self.document(list_uploads_request(bucket, what, None)).await?;
        if let Ok(page) = ListMultipartUploadsResult::parse(&plain.1) {
            return Ok(page);
        }
        let (_, encoded) = self.document(list_uploads_request(bucket, what, Some("url"))).await?;
        ListMultipartUploadsResult::parse(&encoded)
            .map_err(|_| GatewayError::UpstreamAnswer("ListMultipartUploads"))
    }
}

/// The tag that S3 gives an object of these parts, if theirs are MD5s: the MD5 of these, and their number.
fn tag_of_parts(parts: &[CompletedPart]) -> Option<ETag> {
    let mut hasher = Md5::new();
    for part in parts {
        let digits = part.etag.trim_matches('"');
        if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        hasher.update(u128::from_str_radix(digits, 16).ok()?.to_be_bytes());
    }
    let digest = u128::from_be_bytes(hasher.finalize().into());
    ETag::parse(&format!("{digest:032x}-{}", parts.len()))
}

fn list_uploads_request<'a>(
    bucket: &'a str,
    what: ListUploadsWhat<'_>,
    encoding_type: Option<&str>,
) -> StoreRequest<'a> {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    StoreRequest::new(Method::GET, bucket, None)
        .query("uploads", "")
        .maybe_query("encoding-type", encoding_type)
        .query("max-uploads", what.max_uploads.to_string())
        .maybe_query("prefix", some(what.prefix))
        .maybe_query("delimiter", what.delimiter)
        .maybe_query("key-marker", some(what.key_marker))
        .maybe_query("upload-id-marker", some(what.upload_id_marker))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::double::{self, Double};

    const UPLOAD: StoreUpload<'_> = StoreUpload { bucket: "b", key: "k", upload_id: "u" };

    /// A store that names no tag when it completes, and shows an object with this envelope.
    async fn tagless(shown: &str) -> Double {
        let shown = double::object(&[(crate::upstream::ENVELOPE_HEADER, shown)]);
        double::store("ceph-rgw", move |request| match double::method(request) {
            "POST" => double::answer(
                200,
                &[],
                "<CompleteMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><ETag></ETag>\
                 </CompleteMultipartUploadResult>",
            ),
            _ => shown.clone(),
        })
        .await
    }

    fn part(part_number: u16, etag: &str) -> CompletedPart {
        CompletedPart { part_number, etag: etag.to_owned(), checksum: None }
    }

    #[tokio::test]
    async fn a_complete_never_answers_the_tag_of_another_object() {
        // The MD5s of "a" and "b", and the tag of an object made of them.
        let parts =
            [part(1, "0cc175b9c0f1b6a831c399e269772661"), part(2, "92eb5ffee6ae2fec3ad71c777531578f")];
        for (shown, expected) in [("mine", "abc"), ("another", "96e024ba2074fe77e8e965ba43a704be-2")] {
            let store = tagless(shown).await;
            let made = store.upstream.complete_upload(UPLOAD, &parts, None, Mark::Envelope("mine")).await;
            assert_eq!(made.unwrap().etag.as_str(), expected, "{shown}");
            assert_eq!(store.lines(), ["POST /b/k?uploadId=u", "HEAD /b/k"]);
        }
        let store = tagless("another").await;
        let parts = [part(1, "no-md5")];
        let error = store.upstream.complete_upload(UPLOAD, &parts, None, Mark::Envelope("mine")).await;
        assert_eq!(error.unwrap_err().to_s3("/b/k").code(), ErrorCode::ServiceUnavailable);
    }
}
