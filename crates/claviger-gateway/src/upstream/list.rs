//! Listings of objects. The provider is always asked with `encoding-type=url`, whatever the client asked for, since
//! keys may hold characters that XML can't.

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
    ) -> Result<ListObjectsResult, GatewayError> {
        let request =
            list_request(bucket, what).maybe_query("marker", Some(marker).filter(|m| !m.is_empty()));
        let (_, answer) = self.document(request).await?;
        ListObjectsResult::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("ListObjects"))
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
    ) -> Result<ListObjectsV2Result, GatewayError> {
        let request = list_request(bucket, what)
            .query("list-type", "2")
            .maybe_query("start-after", start_after)
            .maybe_query("continuation-token", continuation_token)
            .maybe_query("fetch-owner", fetch_owner.then_some("true"));
        let (_, answer) = self.document(request).await?;
        ListObjectsV2Result::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("ListObjectsV2"))
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
    ) -> Result<ListVersionsResult, GatewayError> {
        let request = list_request(bucket, what)
            .named("ListObjectVersions")
            .query("versions", "")
            .maybe_query("key-marker", Some(key_marker).filter(|marker| !marker.is_empty()))
            .maybe_query("version-id-marker", version_id_marker.map(VersionId::as_str));
        let (_, answer) = self.document(request).await?;
        ListVersionsResult::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("ListObjectVersions"))
    }
}

fn list_request<'a>(bucket: &'a str, what: ListWhat<'a>) -> StoreRequest<'a> {
    StoreRequest::new(Method::GET, bucket, None)
        .query("encoding-type", "url")
        .query("max-keys", what.max_keys.to_string())
        .maybe_query("prefix", Some(what.prefix).filter(|prefix| !prefix.is_empty()))
        .maybe_query("delimiter", what.delimiter)
}
