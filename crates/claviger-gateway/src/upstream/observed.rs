//! What the provider's answers to one call said that is of use beyond each of them.

use std::sync::{Mutex, PoisonError};

use http::HeaderMap;

use super::transport::header_text;
use crate::server::StoreRequestIds;

/// Collects it, for one call of a client.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    request_ids: StoreRequestIds,
    cors: Mutex<HeaderMap>,
}

impl Observed {
    /// Takes the ids that the provider gave a request: they stand in its own log.
    pub(super) fn answer(&self, headers: &HeaderMap) {
        let id = |name| header_text(headers, name).unwrap_or_default();
        self.request_ids.add(id("x-amz-request-id"), id("x-amz-id-2"));
    }

    /// Takes what an answer tells a browser; the last one counts, since it is the one that the client's is made of.
    pub(super) fn judged(&self, headers: HeaderMap) {
        *self.cors.lock().unwrap_or_else(PoisonError::into_inner) = headers;
    }

    /// Adds what the provider said of the page that asks to the answer, whatever that is.
    pub(crate) fn tell_browser(&self, answer: &mut HeaderMap) {
        let cors = std::mem::take(&mut *self.cors.lock().unwrap_or_else(PoisonError::into_inner));
        answer.extend(cors);
    }

    /// The provider's request ids, as they go into the access log. Grows while the call goes on.
    pub(crate) fn request_ids(&self) -> StoreRequestIds {
        self.request_ids.clone()
    }
}
