//! Ciphertext from the provider into authenticated plaintext.
//!
//! Two moments matter. Before the status line: [`OpenedBody::begin`] returns only when the first segment (or, of an
//! empty object, everything) has been authenticated. Before the last byte: with a declared Content-Length the client
//! takes the last byte for a clean end, so the last piece is held until the reader has verified the whole
//! (docs/format.md §3.6); if that fails the connection is torn down one piece short.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use claviger_format::object::ObjectReader;
use http_body::{Body, SizeHint};

use super::frames::Frame;
use super::{PlaintextSource, Verified};
use crate::aead::AwsLcAead;
use crate::error::GatewayError;
use crate::keys::era::Moment;
use crate::memory_budget::MemoryShare;
use crate::server::BodyError;
use crate::upstream::transport::StoreBody;

/// Plaintext is handed on in frames of at least this size where the network delivers that much at once.
const FRAME_LEN: usize = 2 * 65_536;

/// An authenticated body.
pub(crate) struct OpenedBody {
    upstream: StoreBody,
    /// Boxed: a body is handed on some fifteen times before it is read.
    reader: Option<Box<ObjectReader<AwsLcAead>>>,
    /// Ciphertext that the reader still wants; what the provider sends beyond is not read.
    wanted_len: u64,
    /// Plaintext that has not been handed out.
    left_len: u64,
    ready: Option<Bytes>,
    out: Frame,
    share: Option<MemoryShare>,
    /// Nothing more is handed out once the era of its key has ended.
    held: Moment,
}

impl OpenedBody {
    /// Starts reading; `upstream` must deliver the reader's `cipher_range` from its first byte.
    ///
    /// # Errors
    /// When the first segment does not authenticate or the provider breaks off before it is complete.
    pub(crate) async fn begin(
        upstream: StoreBody,
        reader: ObjectReader<AwsLcAead>,
        held: Moment,
    ) -> Result<Self, GatewayError> {
        let mut body = Self {
            upstream,
            wanted_len: reader.cipher_range().len(),
            left_len: reader.plain_len(),
            reader: Some(Box::new(reader)),
            ready: None,
            out: Frame::default(),
            share: None,
            held,
        };
        body.ready = poll_fn(|cx| body.poll_opened(cx)).await.transpose()?;
        Ok(body)
    }

    /// Keeps a share of the memory budget until the transfer has ended.
    pub(crate) fn holding(mut self, share: MemoryShare) -> Self {
        self.share = Some(share);
        self
    }

    /// Plaintext bytes that are still to come.
    pub(crate) fn len(&self) -> u64 {
        self.left_len + self.ready.as_ref().map_or(0, |ready| ready.len() as u64)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        if self.held.is_over() && self.len() > 0 {
            self.ready = None;
            return self.fail(GatewayError::TakenBack);
        }
        match self.ready.take() {
            Some(ready) => Poll::Ready(Some(Ok(ready))),
            None => self.poll_opened(cx),
        }
    }

    fn poll_opened(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        loop {
            if self.reader.is_none() {
                return Poll::Ready(None);
            }
            if self.wanted_len == 0 {
                return Poll::Ready(self.finish());
            }
            match Pin::new(&mut self.upstream).poll_frame(cx) {
                Poll::Pending if self.may_emit() && !self.out.is_empty() => {
                    return Poll::Ready(Some(Ok(self.emit())));
                }
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {
                    return self.fail(GatewayError::UpstreamUnreachable("body ended early".into()));
                }
                Poll::Ready(Some(Err(error))) => {
                    return self.fail(GatewayError::UpstreamUnreachable(error.to_string()));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    if let Err(error) = self.push(&data) {
                        return self.fail(error);
                    }
                    if self.out.len() >= FRAME_LEN && self.may_emit() {
                        return Poll::Ready(Some(Ok(self.emit())));
                    }
                }
            }
        }
    }

    fn push(&mut self, data: &Bytes) -> Result<(), GatewayError> {
        let take_len = usize::try_from(self.wanted_len).unwrap_or(usize::MAX).min(data.len());
        self.wanted_len -= take_len as u64;
        let Some(reader) = &mut self.reader else { return Ok(()) };
        if self.out.is_missing() {
            self.out = Frame::for_body(self.left_len);
        }
        reader.push(&data[..take_len], self.out.buffer()).map_err(GatewayError::integrity("reading a body"))
    }

    /// Whether what is authenticated may go out: not when it would complete the answer.
    fn may_emit(&self) -> bool {
        (self.out.len() as u64) < self.left_len
    }

    fn emit(&mut self) -> Bytes {
        self.left_len -= self.out.len() as u64;
        std::mem::take(&mut self.out).into_bytes()
    }

    fn finish(&mut self) -> Option<Result<Bytes, GatewayError>> {
        let reader = self.reader.take()?;
        if let Err(source) = reader.finish() {
            return Some(Err(GatewayError::Integrity { context: "end of a body", source }));
        }
        if self.out.len() as u64 != self.left_len {
            return Some(Err(GatewayError::Internal("the reader ended at another length than it declared")));
        }
        if self.out.is_empty() { None } else { Some(Ok(self.emit())) }
    }

    fn fail(&mut self, error: GatewayError) -> Poll<Option<Result<Bytes, GatewayError>>> {
        self.reader = None;
        Poll::Ready(Some(Err(error)))
    }
}

impl PlaintextSource for OpenedBody {
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        self.poll_next(cx)
    }

    fn verify(&mut self) -> Result<Verified, GatewayError> {
        // The reader has verified everything before it gave out the last piece.
        Ok(Verified::default())
    }
}

impl Body for OpenedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.poll_next(cx).map(|next| {
            next.map(|result| match result {
                Ok(data) => Ok(http_body::Frame::data(data)),
                Err(error) => {
                    tracing::error!(blame = error.blame().as_str(), %error, "a body was broken off");
                    error.count();
                    Err(BodyError::new(error))
                }
            })
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}
