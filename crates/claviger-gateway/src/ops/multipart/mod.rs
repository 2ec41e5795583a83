//! Multipart uploads (docs/format.md §3.3, §4.5, §7.2, §7.3). The gateway remembers nothing between the requests but
//! keys that it can do without: the upload token and the part entity tags carry the state, through the client.

pub(crate) mod abort;
mod begun;
pub(crate) mod complete;
pub(crate) mod create;
mod holding;
mod late_answer;
pub(crate) mod list_parts;
pub(crate) mod list_uploads;
pub(crate) mod part;
pub(crate) mod part_copy;
pub(crate) mod part_list;
mod repeated;
pub(crate) mod sliced;
mod store_last;

pub(crate) use repeated::RepeatedParts;

use std::sync::Arc;

use claviger_format::ObjectName;
use claviger_format::token::UploadToken;

use crate::authz::{Permit, WriteObject};
use crate::bindings::BoundBucket;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::keys::uploads::{AskedUpload, no_such_upload};
use crate::upstream::Upstream;
use crate::upstream::multipart::StoreUpload;

/// An upload that a request names, with its token parsed but not believed.
pub(crate) struct NamedUpload {
    /// The provider, by the account of whoever asks.
    pub upstream: Upstream,
    permit: Permit<WriteObject>,
    /// The bucket.
    pub bound: Arc<BoundBucket>,
    /// What the object will be bound to.
    pub name: ObjectName,
    /// The token.
    pub token: UploadToken,
    on_behalf_of: String,
}

impl NamedUpload {
    /// Reads an upload id that has to be a token of ours.
    ///
    /// # Errors
    /// `NoSuchUpload` when it is none.
    pub(crate) async fn locate(
        call: &Call<'_>,
        permit: Permit<WriteObject>,
        upload_id: &str,
    ) -> Result<Self, GatewayError> {
        let bound = call.gateway.bindings.resolve(permit.bucket()).await?;
        let name = bound.name(permit.key())?;
        let token = UploadToken::parse(upload_id).map_err(|_| no_such_upload())?;
        let on_behalf_of = call.on_behalf_of().to_owned();
        Ok(Self { upstream: call.upstream.clone(), permit, bound, name, token, on_behalf_of })
    }

    /// What the keys are asked about.
    pub(crate) fn asked(&self) -> AskedUpload<'_> {
        AskedUpload { token: &self.token, name: &self.name, on_behalf_of: &self.on_behalf_of }
    }

    /// The upload at the provider. Only to be used after the token has been verified.
    pub(crate) fn at_store(&self) -> StoreUpload<'_> {
        StoreUpload {
            bucket: self.permit.bucket(),
            key: self.permit.key(),
            upload_id: &self.token.fields().upstream_upload_id,
        }
    }
}
