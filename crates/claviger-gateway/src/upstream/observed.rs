//! What the provider's answers to one call said that is of use beyond each of them.

use std::sync::{Mutex, PoisonError};

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HeaderMap, HeaderValue};

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

    /// What an answer told a browser so far.
    pub(crate) fn told(&self) -> HeaderMap {
        self.cors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the browser forget what it is told at once: it may send one request that it has in hand, and has to ask before
    /// any other.
    pub(crate) fn holds_once(&self) {
        let mut told = self.cors.lock().unwrap_or_else(PoisonError::into_inner);
        if told.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
            told.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("0"));
        }
    }

    /// Takes what an answer tells a browser; the last one counts, since it is the one that the client's is made of.
    pub(crate) fn judged(&self, headers: HeaderMap) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yes_that_holds_once_is_not_kept_whatever_the_provider_says() {
        for said in [Some("600"), None] {
            let observed = Observed::default();
            let mut headers = HeaderMap::new();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://a"));
            if let Some(age) = said {
                headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(age));
            }
            observed.judged(headers);
            observed.holds_once();
            assert_eq!(observed.told().get(ACCESS_CONTROL_MAX_AGE).unwrap(), "0");
        }
        let observed = Observed::default();
        observed.holds_once();
        assert!(observed.told().is_empty(), "a no is a no");
    }
}
