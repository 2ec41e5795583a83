//! One line per request, written when its answer has ended. Never a header, never a query: those hold signatures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::metrics::counter;
use claviger_env::Clock;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::sync::OwnedSemaphorePermit;

use super::reply::BodyError;
use super::{RequestMeta, ResponseBody, StoreRequestIds};
use crate::metrics::{self, Raised};

/// Characters of a path in the log at most.
const PATH_LEN_MAX: usize = 3100;

/// What a handler tells the log about a request, as an extension of its answer.
#[derive(Debug, Clone, Default)]
pub struct AccessNote {
    /// The S3 operation's name, from a closed set (it labels metrics). Default: `Unknown`.
    pub operation: Option<&'static str>,
    /// The access key whose signature was right; `None` before that.
    pub access_key_id: Option<String>,
    /// The S3 error code, for an error answer.
    pub error_code: Option<&'static str>,
    /// Whose fault the error is.
    pub blame: Option<Blame>,
    /// The exact cause of an error, for operators; clients see only what the error document says.
    pub detail: Option<String>,
    /// The store's ids of the requests that this one led to.
    pub store_request_ids: StoreRequestIds,
}

/// Whose turn it is to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The request.
    Client,
    /// The store behind the gateway.
    Upstream,
    /// The key service.
    KeyService,
    /// The gateway itself.
    Internal,
}

impl Blame {
    /// As it stands in the log and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::KeyService => "key_service",
            Self::Internal => "internal",
        }
    }
}

/// How an answer's body ended.
pub(super) enum Outcome<'a> {
    Complete,
    Failed(&'a BodyError),
    ClientGone,
}

/// One request from its headers to the end of its answer. Holds the request's place among the concurrent ones.
pub(super) struct AccessRecord {
    meta: RequestMeta,
    method: Method,
    path: String,
    clock: Arc<dyn Clock>,
    begun_ms: u64,
    received: Arc<AtomicU64>,
    note: AccessNote,
    status: StatusCode,
    declared_len: Option<u64>,
    sent_len: u64,
    permit: Option<OwnedSemaphorePermit>,
    in_flight: Option<Raised>,
    finished: bool,
}

/// The beginning of a path.
fn shortened(path: &str) -> String {
    // Of bytes there are no fewer than characters.
    if path.len() <= PATH_LEN_MAX { path.to_owned() } else { path.chars().take(PATH_LEN_MAX).collect() }
}

impl AccessRecord {
    pub(super) fn begin<B>(
        request: &Request<B>,
        meta: &RequestMeta,
        clock: Arc<dyn Clock>,
        received: Arc<AtomicU64>,
    ) -> Self {
        Self {
            meta: meta.clone(),
            method: request.method().clone(),
            path: shortened(request.uri().path()),
            begun_ms: clock.boot_ms(),
            clock,
            received,
            note: AccessNote::default(),
            status: StatusCode::INTERNAL_SERVER_ERROR,
            declared_len: None,
            sent_len: 0,
            permit: None,
            in_flight: Some(Raised::request()),
            finished: false,
        }
    }

    pub(super) fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// Takes what the log needs from the answer's head.
    pub(super) fn answered(&mut self, response: &mut Response<ResponseBody>) {
        self.status = response.status();
        self.declared_len = response.body().size_hint().exact();
        if let Some(note) = response.extensions_mut().remove::<AccessNote>() {
            self.note = note;
        }
    }

    pub(super) fn sent(&mut self, len: usize) {
        self.sent_len += u64::try_from(len).unwrap_or(u64::MAX);
    }

    /// The body was dropped; `nothing_left` if it had no more to give.
    pub(super) fn finish_on_drop(&mut self, nothing_left: bool) {
        let without_body = self.method == Method::HEAD
            || self.status == StatusCode::NOT_MODIFIED
            || self.status == StatusCode::NO_CONTENT;
        let complete = nothing_left || without_body || self.declared_len == Some(self.sent_len);
        self.finish(if complete { Outcome::Complete } else { Outcome::ClientGone });
    }

    /// Writes the line and the metrics, once.
    pub(super) fn finish(&mut self, outcome: Outcome<'_>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.permit = None;
        self.in_flight = None;
        let duration_ms = self.clock.boot_ms().saturating_sub(self.begun_ms);
        // Requests of one connection follow each other, so what came in since the last answer belongs to this one.
        let received_len = self.received.swap(0, Ordering::Relaxed);
        let (outcome, broken_by) = match outcome {
            Outcome::Complete => ("complete", None),
            Outcome::Failed(error) => {
                counter!(metrics::TRANSFERS_ABORTED, "cause" => "server").increment(1);
                ("broken off", Some(error.to_string()))
            }
            Outcome::ClientGone => {
                counter!(metrics::TRANSFERS_ABORTED, "cause" => "client").increment(1);
                ("client gone", None)
            }
        };
        let operation = self.note.operation.unwrap_or("Unknown");
        self.count(operation, received_len, duration_ms);
        let detail = broken_by.or_else(|| self.note.detail.take());
        tracing::info!(
            target: "claviger::access",
            request_id = %self.meta.request_id,
            store_request_ids = self.note.store_request_ids.text(),
            peer = %self.meta.peer,
            tls = self.meta.tls,
            access_key_id = self.note.access_key_id.as_deref(),
            method = %self.method,
            operation,
            path = %self.path,
            status = self.status.as_u16(),
            error = self.note.error_code,
            blame = self.note.blame.map(Blame::as_str),
            detail,
            received_len,
            sent_len = self.sent_len,
            duration_ms,
            outcome,
            "request"
        );
    }

    fn count(&self, operation: &'static str, received_len: u64, duration_ms: u64) {
        #[allow(clippy::cast_precision_loss, reason = "a histogram's value is a float")]
        let seconds = duration_ms as f64 / 1000.0;
        metrics::request_done(operation, self.status.as_u16(), seconds);
        if let Some(code) = self.note.error_code {
            metrics::error_answered(code, self.note.blame.unwrap_or(Blame::Internal).as_str());
        }
        metrics::transferred(received_len, self.sent_len);
    }
}
