//! Answers: the body that tells the access log how it ended, and the error document.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use claviger_s3::S3Error;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};

use super::access_log::{AccessNote, AccessRecord, Blame, Outcome};
use super::turns::Turns;
use super::{RequestMeta, ResponseBody};

/// Why an answer's body can't go on. The client sees a broken connection; the text is for the log.
pub struct BodyError(Box<dyn std::error::Error + Send + Sync>);

impl BodyError {
    /// Wraps the cause.
    pub fn new(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(cause.into())
    }
}

impl fmt::Debug for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyError({})", self.0)
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for BodyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// The answer that S3 clients expect for `error`: its XML document, `Retry-After` for a 503, and a note for the log.
/// The caller adds what it knows better (operation, whose fault) by replacing the [`AccessNote`] extension.
#[must_use]
pub fn error_reply(error: &S3Error, meta: &RequestMeta) -> Response<ResponseBody> {
    let document = error.to_xml(meta.request_id.as_str(), &meta.host_id);
    let mut response = Response::new(full(document));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if error.status() == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let blame = match error.code().blame() {
        claviger_s3::Blame::Client => Blame::Client,
        claviger_s3::Blame::Service => Blame::Internal,
    };
    let note =
        AccessNote { error_code: Some(error.code().as_str()), blame: Some(blame), ..AccessNote::default() };
    response.extensions_mut().insert(note);
    response
}

/// A body of bytes in hand.
pub(crate) fn full(bytes: Bytes) -> ResponseBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// An answer's body on its way out. Whatever way it ends, the request's line in the log is written then.
pub(super) struct ReplyBody {
    body: ResponseBody,
    record: AccessRecord,
    turns: Arc<Turns>,
}

impl ReplyBody {
    pub(super) fn new(body: ResponseBody, record: AccessRecord, turns: Arc<Turns>) -> Self {
        Self { body, record, turns }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Self { body, record, turns } = self.get_mut();
        let frame = ready!(turns.poll_within(|cx| Pin::new(body).poll_frame(cx)));
        match &frame {
            Some(Ok(frame)) => record.sent(frame.data_ref().map_or(0, Bytes::len)),
            Some(Err(error)) => record.finish(Outcome::Failed(error)),
            None => record.finish(Outcome::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReplyBody {
    /// hyper drops a body without asking for its end when there is none to send (HEAD, 304) or when all announced
    /// bytes are out; in every other case the client went away.
    fn drop(&mut self) {
        let complete = self.body.is_end_stream() || self.body.size_hint().exact() == Some(0);
        self.record.finish_on_drop(complete);
    }
}
