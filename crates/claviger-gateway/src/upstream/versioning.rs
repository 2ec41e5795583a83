//! Calls on the versioning state of buckets.

use claviger_s3::xml::{self, VersioningResult, VersioningStatus};
use http::Method;

use super::object::control;
use super::transport::{StoreRequest, Upstream};
use crate::error::GatewayError;

impl Upstream {
    /// Whether a bucket keeps versions.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn versioning(&self, bucket: &str) -> Result<VersioningResult, GatewayError> {
        let request = StoreRequest::new(Method::GET, bucket, None).query("versioning", "");
        let (_, answer) = self.document(request).await?;
        VersioningResult::parse(&answer).map_err(|_| GatewayError::UpstreamAnswer("GetBucketVersioning"))
    }

    /// Makes a bucket keep versions, or stop to.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn set_versioning(
        &self,
        bucket: &str,
        status: VersioningStatus,
    ) -> Result<(), GatewayError> {
        let request = StoreRequest::new(Method::PUT, bucket, None).query("versioning", "");
        self.send(control(request, xml::write_versioning(status))?).await.map(drop)
    }
}
