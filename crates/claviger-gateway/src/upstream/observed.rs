//! What the provider's answers to one call said that is of use beyond each of them.

use http::HeaderMap;

use super::transport::header_text;
use crate::server::StoreRequestIds;

/// Collects it, for one call of a client.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    request_ids: StoreRequestIds,
}

impl Observed {
    /// Takes the ids that the provider gave a request: they stand in its own log.
    pub(super) fn answer(&self, headers: &HeaderMap) {
        let id = |name| header_text(headers, name).unwrap_or_default();
        self.request_ids.add(id("x-amz-request-id"), id("x-amz-id-2"));
    }

    /// The provider's request ids, as they go into the access log. Grows while the call goes on.
    pub(crate) fn request_ids(&self) -> StoreRequestIds {
        self.request_ids.clone()
    }
}
