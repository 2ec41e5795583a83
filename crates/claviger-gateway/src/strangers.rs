//! Requests without a signature: anybody can send any number of them, and take his time with each. All together have a share
//! of the requests in flight, so that there is always room for those who sign.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::LimitsConfig;
use crate::error::GatewayError;
use crate::memory_budget::TRANSFER_LEN;
use crate::server::{BodyError, ResponseBody};

/// One in so many of the requests in flight may be one without a signature …
const REQUESTS_PER_STRANGER: usize = 8;
/// … and one in so many of the transfers that there is memory for.
const TRANSFERS_PER_STRANGER: usize = 4;

/// The places of requests without a signature.
#[derive(Debug)]
pub(crate) struct Strangers(Arc<Semaphore>);

/// One of the places, free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Strangers {
    /// With all places free; there is at least one.
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        let of_requests = limits.concurrent_requests_max / REQUESTS_PER_STRANGER;
        let of_memory = limits.buffered_bytes_max / TRANSFER_LEN / TRANSFERS_PER_STRANGER;
        let places = of_requests.min(of_memory).clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(places)))
    }

    /// A place. Nobody waits for one: who waits holds a place among all requests.
    ///
    /// # Errors
    /// [`GatewayError::Busy`] while all are taken.
    pub(crate) fn take(&self) -> Result<Place, GatewayError> {
        let place = self.0.clone().try_acquire_owned();
        place
            .map(|_permit| Place { _permit })
            .map_err(|_| GatewayError::Busy("too many requests without a signature at once"))
    }
}

impl Place {
    /// Holds the place until the answer has been sent, or its client is gone: who reads slowly takes it as long as he reads.
    pub(crate) fn until_sent(self: Arc<Self>, answer: Response<ResponseBody>) -> Response<ResponseBody> {
        answer.map(|body| Holding { body, _place: self }.boxed_unsync())
    }
}

struct Holding {
    body: ResponseBody,
    _place: Arc<Place>,
}

impl Body for Holding {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(strangers: &Strangers) -> Vec<Place> {
        std::iter::from_fn(|| strangers.take().ok()).take(1000).collect()
    }

    #[test]
    fn strangers_take_an_eighth_of_the_requests_and_a_quarter_of_the_memory() {
        for (requests, memory, expected) in
            [(512, 512 << 20, 64), (512, 64 << 20, 16), (16, 512 << 20, 2), (1, 0, 1)]
        {
            let limits = LimitsConfig {
                concurrent_requests_max: requests,
                buffered_bytes_max: memory,
                ..LimitsConfig::default()
            };
            let strangers = Strangers::new(&limits);
            let mut taken = places(&strangers);
            assert_eq!(taken.len(), expected);
            assert!(matches!(strangers.take(), Err(GatewayError::Busy(_))));
            taken.pop();
            assert!(strangers.take().is_ok());
        }
    }

    #[tokio::test]
    async fn the_place_is_taken_until_the_body_of_the_answer_is_gone() {
        let limits = LimitsConfig { concurrent_requests_max: 1, ..LimitsConfig::default() };
        let strangers = Strangers::new(&limits);
        let body = http_body_util::Full::new(Bytes::from_static(b"abc")).map_err(|never| match never {});
        let answer = Arc::new(strangers.take().unwrap()).until_sent(Response::new(body.boxed_unsync()));
        assert_eq!(answer.body().size_hint().exact(), Some(3), "the length is still known");
        let mut body = answer.into_body();
        assert!(body.frame().await.is_some() && strangers.take().is_err());
        drop(body);
        assert!(strangers.take().is_ok());
    }
}
