//! AbortMultipartUpload. An expired token still serves, and so does the provider's own id, for those who clean up.

use claviger_format::token::UploadToken;
use claviger_s3::error::ErrorCode;
use claviger_s3::operation::AbortMultipartUpload;
use http::{Response, StatusCode};

use super::NamedUpload;
use crate::authz::WriteObject;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::ops::reply;
use crate::server::ResponseBody;
use crate::upstream::multipart::StoreUpload;

/// Serves AbortMultipartUpload.
///
/// # Errors
/// `NoSuchUpload`, or the provider's.
pub(crate) async fn abort(
    call: &Call<'_>,
    op: &AbortMultipartUpload,
) -> Result<Response<ResponseBody>, GatewayError> {
    let permit = call.permit::<WriteObject>(op.bucket.as_str(), op.key.as_str())?;
    let gateway = call.gateway;
    if UploadToken::parse(&op.upload_id).is_err() {
        let bound = gateway.bindings.resolve(permit.bucket()).await?;
        let upload = StoreUpload { bucket: permit.bucket(), key: permit.key(), upload_id: &op.upload_id };
        call.upstream.abort_upload(upload).await?;
        gateway.system.forget_token(&bound.bucket_id, &op.upload_id).await;
        return Ok(reply::empty(StatusCode::NO_CONTENT));
    }
    let upload = NamedUpload::locate(call, permit, &op.upload_id).await?;
    gateway.uploads.check(upload.asked()).await?;
    drop_upload(gateway, &upload).await.map(|()| reply::empty(StatusCode::NO_CONTENT))
}

/// Drops an upload whose token is known to be right, and what was kept for it.
///
/// # Errors
/// The provider's.
pub(crate) async fn drop_upload(gateway: &Gateway, upload: &NamedUpload) -> Result<(), GatewayError> {
    let aborted = upload.upstream.abort_upload(upload.at_store()).await;
    let gone = matches!(&aborted, Err(error) if error.upstream_code() == Some(ErrorCode::NoSuchUpload));
    if aborted.is_ok() || gone {
        let fields = upload.token.fields();
        let bucket_id = &upload.bound.bucket_id;
        gateway.uploads.close(fields.object_id);
        gateway.system.forget_upload(bucket_id, &fields.upstream_upload_id, fields.object_id).await;
        gateway.uploads.finished(upload.asked()).await;
        gateway.repeated_parts.forget(fields.object_id);
    }
    aborted
}
