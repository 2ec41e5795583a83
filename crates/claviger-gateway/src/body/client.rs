//! What a client sends, decoded and checked while it streams by.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use claviger_s3::aws_chunked::Decoder;
use claviger_s3::checksum::{BodyVerifier, ChecksumAlgorithm};
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::operation::BodyHead;
use http_body::Body;
use hyper::body::Incoming;

use super::{PlaintextSource, Verified, within};
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::memory_budget::MemoryShare;
use crate::server::{IdleTimeout, RequestBodyError};

/// Documents up to this many bytes are not counted among what is held in memory.
const SMALL_DOCUMENT_LEN: usize = 64 << 10;

/// The body of a signed request: `aws-chunked` framing taken off, lengths, payload hash and checksums verified.
pub(crate) struct ClientBody {
    incoming: IdleTimeout<Incoming>,
    read_to_end: Arc<AtomicBool>,
    decoder: Option<Decoder>,
    verifier: Option<BodyVerifier>,
    input: Bytes,
    plaintext_len: u64,
    left_len: u64,
    gateway: Arc<Gateway>,
    is_stranger: bool,
    /// For a body that is held in memory until it is whole.
    held_timeout: Option<Duration>,
}

/// A document of a client's, with its share of the memory.
#[derive(Debug)]
pub(crate) struct Document {
    bytes: Bytes,
    _share: Option<MemoryShare>,
}

impl std::ops::Deref for Document {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl ClientBody {
    /// Prepares to read. `also` names algorithms whose value is wanted besides what the client declared.
    ///
    /// # Errors
    /// `MissingContentLength` when the plaintext's length was not declared.
    pub(crate) fn new(
        call: &Call<'_>,
        incoming: Incoming,
        head: &BodyHead,
        also: &[ChecksumAlgorithm],
    ) -> Result<Self, GatewayError> {
        let payload = call.authenticated.payload();
        let plaintext_len = head.plaintext_len(&payload)?;
        let trailer = head.integrity.trailer_name();
        let decoder =
            call.authenticated.framing().map(|framing| Decoder::new(framing, plaintext_len, trailer));
        Ok(Self {
            incoming: IdleTimeout::new(incoming, call.gateway.client_idle_timeout()),
            read_to_end: call.body_read_to_end.clone(),
            decoder,
            verifier: Some(BodyVerifier::new(&head.integrity, &payload, also)),
            input: Bytes::new(),
            plaintext_len,
            left_len: plaintext_len,
            gateway: call.gateway.clone(),
            is_stranger: call.identity.is_anonymous(),
            held_timeout: call.gateway.held_body_timeout(&call.identity),
        })
    }

    /// Reads a body that came without a length into memory, and verifies it.
    ///
    /// # Errors
    /// `MissingContentLength` when it is longer than `len_max` bytes; what [`PlaintextSource`] reports.
    pub(crate) async fn uncounted(
        call: &Call<'_>,
        incoming: Incoming,
        head: &BodyHead,
        len_max: usize,
    ) -> Result<(Bytes, Verified), GatewayError> {
        let bounded = BodyHead { content_length: Some(len_max as u64), ..head.clone() };
        let mut body = Self::new(call, incoming, &bounded, &[])?;
        let all = within(body.held_timeout, body.whole(0)).await.map_err(uncounted_error)?;
        if head.decoded_content_length.is_some_and(|declared| declared != all.len() as u64) {
            return Err(incomplete("the body is not as long as declared"));
        }
        body.left_len = 0;
        Ok((all.into(), body.verify()?))
    }

    /// Plaintext bytes that the client declared.
    pub(crate) fn plaintext_len(&self) -> u64 {
        self.plaintext_len
    }

    /// Reads a document of at most `len_max` bytes into memory and verifies it.
    ///
    /// # Errors
    /// `MaxMessageLengthExceeded` when it is longer; what [`PlaintextSource`] reports; `SlowDown` when there is no memory;
    /// `RequestTimeout` where nobody signed and it does not come in time.
    pub(crate) async fn document(mut self, len_max: usize) -> Result<Document, GatewayError> {
        let len = usize::try_from(self.plaintext_len).ok().filter(|len| *len <= len_max);
        let len = len.ok_or_else(|| S3Error::new(ErrorCode::MaxMessageLengthExceeded))?;
        let share = match len > SMALL_DOCUMENT_LEN {
            true => Some(self.gateway.memory.held(len, self.is_stranger).await?),
            false => None,
        };
        let all = within(self.held_timeout, self.whole(len)).await?;
        self.verify()?;
        Ok(Document { bytes: all.into(), _share: share })
    }

    /// All pieces; probably `len` bytes.
    async fn whole(&mut self, len: usize) -> Result<Vec<u8>, GatewayError> {
        let mut all = Vec::with_capacity(len);
        while let Some(piece) = std::future::poll_fn(|cx| self.poll_plaintext(cx)).await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }

    /// The next payload in `input`; `None` when more has to be read from the client.
    fn decode(&mut self) -> Result<Option<Bytes>, GatewayError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let piece = match &mut self.decoder {
            Some(decoder) => decoder.decode(&mut self.input)?,
            None => Some(std::mem::take(&mut self.input)),
        };
        if let Some(piece) = &piece {
            self.left_len = self
                .left_len
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| incomplete("the body is longer than declared"))?;
            if let Some(verifier) = &mut self.verifier {
                verifier.update(piece);
            }
        }
        Ok(piece)
    }
}

impl PlaintextSource for ClientBody {
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        loop {
            match self.decode() {
                Ok(Some(piece)) => return Poll::Ready(Some(Ok(piece))),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                None => {
                    self.read_to_end.store(true, Ordering::Relaxed);
                    return Poll::Ready(None);
                }
                Some(Ok(frame)) => self.input = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(body_error(&error)))),
            }
        }
    }

    fn verify(&mut self) -> Result<Verified, GatewayError> {
        let trailers = self.decoder.take().map(Decoder::finish).transpose()?;
        if self.left_len > 0 {
            return Err(incomplete("the body is shorter than declared"));
        }
        let verifier = self.verifier.take().ok_or(GatewayError::Internal("a body is verified once"))?;
        Ok(Verified { client: Some(verifier.finish(trailers.as_ref())?) })
    }
}

fn incomplete(message: &'static str) -> GatewayError {
    S3Error::new(ErrorCode::IncompleteBody).with_message(message).into()
}

/// That more came than the bound which stood in for a declared length: the client has to declare one.
fn uncounted_error(error: GatewayError) -> GatewayError {
    match error {
        GatewayError::S3(error) if error.code() == ErrorCode::IncompleteBody => {
            S3Error::new(ErrorCode::MissingContentLength).into()
        }
        other => other,
    }
}

/// A body that stood still or broke off.
pub(super) fn body_error(error: &RequestBodyError) -> GatewayError {
    match error {
        RequestBodyError::Idle(_) => S3Error::new(ErrorCode::RequestTimeout).into(),
        RequestBodyError::Broken(error) => GatewayError::ClientBody(error.to_string()),
    }
}
