//! Listings of objects. The provider is always asked with `encoding-type=url`, whatever the client asked for, since
//! keys may hold characters that XML can't.
//!
//! A page is given as it was sent, and read where it stays: its entries borrow from it, so that a thousand of them cost
//! next to no allocations.

use bytes::Bytes;
use claviger_s3::VersionId;
use claviger_s3::xml::{ListObjectsResult, ListObjectsV2Result, ListVersionsResult};
use http::Method;

use super::transport::{StoreRequest, Upstream};
use crate::error::GatewayError;

/// What to list.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ListWhat<'a> {
    /// Only keys that begin so.
    pub prefix: &'a str,
    /// Groups keys into common prefixes.
    pub delimiter: Option<&'a str>,
    /// At most so many entries.
    pub max_keys: u32,
}

/// An answer to ListObjects.
#[derive(Debug)]
pub(crate) struct ObjectsDocument(Bytes);

/// An answer to ListObjectsV2.
#[derive(Debug)]
pub(crate) struct ObjectsV2Document(Bytes);

/// An answer to ListObjectVersions.
#[derive(Debug)]
pub(crate) struct VersionsDocument(Bytes);

impl ObjectsDocument {
    /// The page.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn page(&self) -> Result<ListObjectsResult<'_>, GatewayError> {
        ListObjectsResult::parse(&self.0).map_err(|_| GatewayError::UpstreamAnswer("ListObjects"))
    }
}

impl ObjectsV2Document {
    /// The page.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn page(&self) -> Result<ListObjectsV2Result<'_>, GatewayError> {
        ListObjectsV2Result::parse(&self.0).map_err(|_| GatewayError::UpstreamAnswer("ListObjectsV2"))
    }
}

impl VersionsDocument {
    /// The page.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn page(&self) -> Result<ListVersionsResult<'_>, GatewayError> {
        ListVersionsResult::parse(&self.0).map_err(|_| GatewayError::UpstreamAnswer("ListObjectVersions"))
    }
}

impl Upstream {
    /// One page, version 1.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn list_objects(
        &self,
        bucket: &str,
        what: ListWhat<'_>,
        marker: &str,
    ) -> Result<ObjectsDocument, GatewayError> {
        let request =
            list_request(bucket, what).maybe_query("marker", Some(marker).filter(|m| !m.is_empty()));
        Ok(ObjectsDocument(self.document(request).await?.1))
    }

    /// One page, version 2.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn list_objects_v2(
        &self,
        bucket: &str,
        what: ListWhat<'_>,
        start_after: Option<&str>,
        continuation_token: Option<&str>,
        fetch_owner: bool,
    ) -> Result<ObjectsV2Document, GatewayError> {
        let request = list_request(bucket, what)
            .query("list-type", "2")
            .maybe_query("start-after", start_after)
            .maybe_query("continuation-token", continuation_token)
            .maybe_query("fetch-owner", fetch_owner.then_some("true"));
        Ok(ObjectsV2Document(self.document(request).await?.1))
    }
}

impl Upstream {
    /// One page of versions.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn list_versions(
        &self,
        bucket: &str,
        what: ListWhat<'_>,
        key_marker: &str,
        version_id_marker: Option<&VersionId>,
    ) -> Result<VersionsDocument, GatewayError> {
        let request = list_request(bucket, what)
            .named("ListObjectVersions")
            .query("versions", "")
            .maybe_query("key-marker", Some(key_marker).filter(|marker| !marker.is_empty()))
            .maybe_query("version-id-marker", version_id_marker.map(VersionId::as_str));
        Ok(VersionsDocument(self.document(request).await?.1))
    }
}

fn list_request<'a>(bucket: &'a str, what: ListWhat<'a>) -> StoreRequest<'a> {
    StoreRequest::new(Method::GET, bucket, None)
        .query("encoding-type", "url")
        .query("max-keys", what.max_keys.to_string())
        .maybe_query("prefix", Some(what.prefix).filter(|prefix| !prefix.is_empty()))
        .maybe_query("delimiter", what.delimiter)
}
