//! Plaintext into sealed units, as a stream with a declared length.
//!
//! The writer is consumed by the commit point: the last bytes (footer of an object, last segment of a part) exist
//! only after the source has verified everything that its sender declared. Until then the provider has an
//! incomplete request; on any failure the stream ends in an error and the connection is torn down.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use claviger_format::Buffer;
use claviger_format::object::{BodySummary, BodyWriter, PartState, PartWriter};

use super::frames::Frame;
use super::{PlaintextSource, Verified};
use crate::aead::AwsLcAead;
use crate::error::GatewayError;
use crate::upstream::body::{Abandoned, Ciphertext, SealedStream};

/// Ciphertext is handed on in frames of about this size: two segments, so that system calls are few and the memory
/// of a stream stays small.
const FRAME_LEN: usize = 2 * 65_552;

/// A unit being sealed.
pub(crate) trait UnitWriter: Send {
    /// What is known of the unit when it is complete.
    type Summary: Send;

    /// Bytes that it comes to.
    fn sealed_len(&self) -> u64;

    /// Seals as much as is complete, never the commit point.
    fn push(&mut self, plaintext: &[u8], out: &mut Buffer) -> Result<(), claviger_format::Error>;

    /// Seals the rest.
    fn commit(self, verified: &Verified, out: &mut Buffer) -> Result<Self::Summary, claviger_format::Error>;
}

/// A whole object received as one stream (docs/format.md §3.2).
pub(crate) struct ObjectUnit {
    /// The sealer.
    pub writer: BodyWriter<AwsLcAead>,
    /// Goes into the footer.
    pub created_ms: u64,
}

impl UnitWriter for ObjectUnit {
    type Summary = BodySummary;

    fn sealed_len(&self) -> u64 {
        self.writer.sealed_len()
    }

    fn push(&mut self, plaintext: &[u8], out: &mut Buffer) -> Result<(), claviger_format::Error> {
        self.writer.push(plaintext, out)
    }

    fn commit(self, verified: &Verified, out: &mut Buffer) -> Result<BodySummary, claviger_format::Error> {
        self.writer.finish(self.created_ms, verified.footer_checksum(), out)
    }
}

impl UnitWriter for PartWriter<AwsLcAead> {
    type Summary = PartState;

    fn sealed_len(&self) -> u64 {
        Self::sealed_len(self)
    }

    fn push(&mut self, plaintext: &[u8], out: &mut Buffer) -> Result<(), claviger_format::Error> {
        Self::push(self, plaintext, out)
    }

    fn commit(self, _: &Verified, out: &mut Buffer) -> Result<PartState, claviger_format::Error> {
        self.finish(out)
    }
}

/// How the sealing went, for the one who waits for the provider's answer.
pub(crate) struct Outcome<T>(Arc<Mutex<Option<Settled<T>>>>);

/// The unit's summary and what was verified, or why nothing was committed.
type Settled<T> = Result<(T, Verified), GatewayError>;

impl<T> Outcome<T> {
    /// Takes the result: `None` while the stream has neither committed nor failed.
    pub(crate) fn take(&self) -> Option<Settled<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The error that tore the stream down, or else `fallback` (the provider's own failure).
    pub(crate) fn cause_or(&self, fallback: GatewayError) -> GatewayError {
        match self.take() {
            Some(Err(cause)) => cause,
            _ => fallback,
        }
    }

    /// The summary of a committed stream.
    ///
    /// # Errors
    /// The failure, or an internal error when the provider answered success to a body it has not read to the end.
    pub(crate) fn committed(&self) -> Settled<T> {
        self.take().unwrap_or(Err(GatewayError::UpstreamAnswer("success before the body was complete")))
    }
}

/// The stream.
pub(crate) struct Sealing<S, W: UnitWriter> {
    source: S,
    writer: Option<W>,
    outcome: Outcome<W::Summary>,
    out: Frame,
    /// Sealed bytes that were not handed on yet.
    left_len: u64,
}

impl<S: PlaintextSource, W: UnitWriter> Sealing<S, W> {
    /// Takes the source and the writer; gives the stream and where its outcome will be found.
    pub(crate) fn new(source: S, writer: W) -> (Self, Outcome<W::Summary>) {
        let slot = Arc::new(Mutex::new(None));
        let left_len = writer.sealed_len();
        let outcome = Outcome(slot.clone());
        let stream = Self { source, writer: Some(writer), outcome, out: Frame::default(), left_len };
        (stream, Outcome(slot))
    }

    fn settle(&mut self, result: Settled<W::Summary>) {
        *self.outcome.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }

    fn fail(&mut self, error: GatewayError) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
        self.writer = None;
        self.settle(Err(error));
        Poll::Ready(Some(Err(Abandoned)))
    }

    fn emit(&mut self) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
        let sealed = std::mem::take(&mut self.out).into_bytes();
        self.left_len = self.left_len.saturating_sub(sealed.len() as u64);
        Poll::Ready(Some(Ok(Ciphertext::sealed(sealed))))
    }

    fn commit(&mut self) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
        let verified = match self.source.verify() {
            Ok(verified) => verified,
            Err(error) => return self.fail(error),
        };
        let Some(writer) = self.writer.take() else { return Poll::Ready(None) };
        match writer.commit(&verified, self.out.buffer()) {
            Ok(summary) => {
                self.settle(Ok((summary, verified)));
                self.emit()
            }
            Err(source) => self.fail(GatewayError::Integrity { context: "sealing", source }),
        }
    }
}

impl<S: PlaintextSource, W: UnitWriter> SealedStream for Sealing<S, W> {
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
        loop {
            let Some(writer) = &mut self.writer else { return Poll::Ready(None) };
            match self.source.poll_plaintext(cx) {
                Poll::Pending if self.out.is_empty() => return Poll::Pending,
                Poll::Pending => return self.emit(),
                Poll::Ready(None) => return self.commit(),
                Poll::Ready(Some(Err(error))) => return self.fail(error),
                Poll::Ready(Some(Ok(piece))) => {
                    if self.out.is_missing() {
                        self.out = Frame::for_body(self.left_len);
                    }
                    if let Err(source) = writer.push(&piece, self.out.buffer()) {
                        return self.fail(GatewayError::Integrity { context: "sealing", source });
                    }
                    if self.out.len() >= FRAME_LEN {
                        return self.emit();
                    }
                }
            }
        }
    }
}
