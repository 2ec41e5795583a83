//! The preflight of browsers: may a page of this origin send such a request? The bucket's CORS rules at the store say so.

use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::BucketOnly;
use http::{Response, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::reply;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::server::ResponseBody;
use crate::upstream::Upstream;

/// Preflights of people who proved nothing that may be on their way at once. The store takes some ms for each.
const STRANGERS_MAX: usize = 16;

/// Bounds what people who proved nothing can have asked at the store at once.
#[derive(Debug)]
pub(crate) struct StrangerPreflights(Semaphore);

impl StrangerPreflights {
    /// With all places free.
    pub(crate) fn new() -> Self {
        Self(Semaphore::new(STRANGERS_MAX))
    }

    /// A place, held until it is dropped. Nobody waits for one: who waits holds a place that others need.
    ///
    /// # Errors
    /// [`GatewayError::Busy`] while all are taken.
    pub(crate) fn take(&self) -> Result<SemaphorePermit<'_>, GatewayError> {
        let text = "too many ask at once, without a signature, what pages of other origins may do";
        self.0.try_acquire().map_err(|_| GatewayError::Busy(text))
    }
}

/// Serves a preflight. It comes without a signature, since browsers have none to give, and goes to the store without one;
/// `upstream` carries the three headers that it consists of, and its answer's headers are collected there.
///
/// # Errors
/// `NoSuchBucket`, what `complete` lacks, the store's refusal, or that too many ask about buckets that this gateway does not know.
pub(crate) async fn answer(
    gateway: &Gateway,
    upstream: &Upstream,
    op: &BucketOnly,
    complete: Result<(), S3Error>,
) -> Result<Response<ResponseBody>, GatewayError> {
    let bucket = op.bucket.as_str();
    if bucket == gateway.system.bucket() {
        return Err(S3Error::new(ErrorCode::AccessDenied).into());
    }
    gateway.bindings.known_to_anyone(bucket).await?;
    complete?;
    upstream.preflight(bucket).await?;
    Ok(reply::empty(StatusCode::OK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_preflights_of_strangers_are_on_their_way() {
        let preflights = StrangerPreflights::new();
        let mut places: Vec<_> = (0..STRANGERS_MAX).map(|_| preflights.take().unwrap()).collect();
        assert!(matches!(preflights.take(), Err(GatewayError::Busy(_))));
        places.pop();
        assert!(preflights.take().is_ok());
    }
}
