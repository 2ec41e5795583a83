//! Calls on multipart uploads, by the provider's own upload ids.

use claviger_s3::conditions::WriteCondition;
use claviger_s3::etag::ETag;
use claviger_s3::xml::{
    self, CompleteMultipartUploadResult, CompletedPart, InitiateMultipartUploadResult,
    ListMultipartUploadsResult, ListPartsResult, Reply,
};
use http::Method;
use http::header::{ETAG, HeaderMap};

use super::body::UpstreamBody;
use super::condition::{self, Write};
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
        let etag = header_text(response.headers(), ETAG.as_str()).and_then(ETag::parse);
        etag.ok_or(GatewayError::UpstreamAnswer("a part without an entity tag"))
    }

    /// Makes an object of parts; the entity tags are the provider's. Asks for the object's own tag where the store
    /// does not answer it.
    ///
    /// # Errors
    /// The provider's error, also the one that comes with status 200.
    pub(crate) async fn complete_upload(
        &self,
        upload: StoreUpload<'_>,
        parts: &[CompletedPart],
        condition: Option<&WriteCondition>,
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
            None => {
                let version = passed.version();
                let which = Which { version: version.as_ref(), same_as: None };
                let head = self.head_object(upload.bucket, upload.key, which).await?;
                Ok(Stored { etag: head.etag, passed: if version.is_some() { passed } else { head.passed } })
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
