//! Calls on the versioning state of buckets.

use claviger_s3::S3Error;
use claviger_s3::xml::{self, VersioningResult, VersioningStatus, XmlError};
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
        let request =
            StoreRequest::new(Method::GET, bucket, None).named("GetBucketVersioning").query("versioning", "");
        let (_, answer) = self.document(request).await?;
        match VersioningResult::parse(&answer) {
            Ok(result) => Ok(result),
            // Stores that know no versions answer with the bucket's listing.
            Err(XmlError::UnexpectedRoot(_)) => {
                Err(S3Error::not_implemented("The object store behind this gateway keeps no versions.")
                    .into())
            }
            Err(_) => Err(GatewayError::UpstreamAnswer("GetBucketVersioning")),
        }
    }

    /// Makes a bucket keep versions, or stop to. It is asked about them first: some stores take a PUT of what they don't
    /// know for one of the bucket, which would succeed and do nothing.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn set_versioning(
        &self,
        bucket: &str,
        status: VersioningStatus,
    ) -> Result<(), GatewayError> {
        self.versioning(bucket).await?;
        let request =
            StoreRequest::new(Method::PUT, bucket, None).named("PutBucketVersioning").query("versioning", "");
        self.send(control(request, xml::write_versioning(status))?).await.map(drop)
    }
}
