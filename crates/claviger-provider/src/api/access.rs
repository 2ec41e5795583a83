//! Who may ask: whoever signs with the one key pair, for the right region.

use http::HeaderMap;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

/// The one key pair.
pub(crate) struct KeyRing {
    pub(crate) access_key_id: String,
    pub(crate) secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for KeyRing {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key_id {
            Ok(self.secret_key.clone())
        } else {
            Err(s3_error!(InvalidAccessKeyId, "The access key id does not exist here."))
        }
    }
}

/// Refuses requests without a signature, those signed for another region, and those that would give others rights.
pub(crate) struct Gate {
    pub(crate) region: String,
}

#[async_trait::async_trait]
impl S3Access for Gate {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        if cx.credentials().is_none() {
            return Err(s3_error!(AccessDenied, "A signature is required."));
        }
        match signed_region(cx) {
            Some(region) if region != self.region => Err(s3_error!(
                AuthorizationHeaderMalformed,
                "The region '{region}' is wrong; expecting '{}'.",
                self.region
            )),
            _ => without_rights(cx.headers()),
        }
    }
}

/// Refuses headers that give others rights: here nobody has any but the one account, and silence would look like consent.
fn without_rights(headers: &HeaderMap) -> S3Result<()> {
    let asks = headers.iter().any(|(name, value)| match name.as_str() {
        "x-amz-acl" => value != "private",
        "x-amz-object-ownership" => value != "BucketOwnerEnforced",
        name => name.starts_with("x-amz-grant-"),
    });
    if asks { Err(s3_error!(NotImplemented, "There are no ACLs here.")) } else { Ok(()) }
}

/// The region of the credential scope `<access key>/<date>/<region>/s3/aws4_request`, in the header or the query.
fn signed_region(cx: &S3AccessContext<'_>) -> Option<String> {
    let header = cx.headers().get("authorization").and_then(|value| value.to_str().ok());
    let scope = match header {
        Some(value) => value.split_once("Credential=")?.1.split(',').next()?.replace("%2F", "/"),
        None => cx.uri().query()?.split_once("X-Amz-Credential=")?.1.split('&').next()?.replace("%2F", "/"),
    };
    scope.rsplit('/').nth(2).map(ToOwned::to_owned)
}
