//! A request's body that gives up when the client sends nothing for too long.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// Why a request's body did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum RequestBodyError {
    /// The connection broke, the body was shorter than announced, or its framing was wrong.
    #[error("the request's body broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// Not one byte came for this many seconds. S3 calls it `RequestTimeout`.
    #[error("the client sent nothing for {0} s")]
    Idle(u64),
}

/// A body with a bound on the time between two frames. The time counts only while someone waits for a frame, so that
/// a slow store is not the client's fault.
#[derive(Debug)]
pub struct IdleTimeout<B> {
    body: B,
    timeout: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl<B> IdleTimeout<B> {
    /// Wraps `body`; `timeout` is [`crate::config::LimitsConfig::body_idle_timeout_s`].
    pub fn new(body: B, timeout: Duration) -> Self {
        Self { body, timeout, sleep: None, waiting: false }
    }
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for IdleTimeout<B> {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(RequestBodyError::Broken)));
        }
        let deadline = Instant::now() + self.timeout;
        let restart = !std::mem::replace(&mut self.waiting, true);
        let timeout_s = self.timeout.as_secs();
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if restart {
            sleep.as_mut().reset(deadline);
        }
        sleep.as_mut().poll(cx).map(|()| Some(Err(RequestBodyError::Idle(timeout_s))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
