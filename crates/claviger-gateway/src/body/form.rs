//! The body of a form while it streams by: fields first, then the file, whose end shows only when it comes.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use claviger_s3::checksum::{BodyIntegrity, BodyVerifier};
use claviger_s3::error::{ErrorCode, S3Error};
use claviger_s3::post_form::{Boundary, FileReader, Form, FormStart, Started};
use claviger_s3::sigv4::PayloadMode;
use http_body::Body;
use hyper::body::Incoming;

use super::client::body_error;
use super::{PlaintextSource, Verified};
use crate::error::GatewayError;
use crate::server::IdleTimeout;

/// Pieces in which a file that is held in memory is sealed.
const PIECE_LEN: usize = 64 << 10;

/// The body of a form as it comes from the client.
pub(crate) struct FormBody {
    incoming: IdleTimeout<Incoming>,
    read_to_end: Arc<AtomicBool>,
}

impl FormBody {
    /// Prepares to read; `read_to_end` is set when the body is over.
    pub(crate) fn new(incoming: IdleTimeout<Incoming>, read_to_end: Arc<AtomicBool>) -> Self {
        Self { incoming, read_to_end }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if frame.is_none() {
            self.read_to_end.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
            Err(error) => Err(body_error(&error)),
        }))
    }

    /// Reads the fields. Nothing of them is believed yet.
    ///
    /// # Errors
    /// What [`FormStart::read`] reports; a body that ends early or stands still.
    pub(crate) async fn fields(mut self, boundary: &Boundary) -> Result<(Form, FileAhead), GatewayError> {
        let mut start = FormStart::new(boundary);
        while let Some(data) = std::future::poll_fn(|cx| self.poll_data(cx)).await {
            if let Some(Started { form, file, rest, head_len }) = start.read(&data?)? {
                return Ok((form, FileAhead { body: self, reader: file, input: rest, head_len }));
            }
        }
        Err(S3Error::new(ErrorCode::MalformedPOSTRequest).into())
    }
}

/// The file of a form before a byte of it was read.
pub(crate) struct FileAhead {
    body: FormBody,
    reader: FileReader,
    input: Bytes,
    /// Bytes of the body before the file.
    pub head_len: u64,
}

impl FileAhead {
    /// Notes what the file has to meet.
    pub(crate) fn declared(self, integrity: &BodyIntegrity) -> FormFile {
        let verifier = BodyVerifier::new(integrity, &PayloadMode::Unsigned, &[]);
        let Self { body, reader, input, .. } = self;
        let reading =
            Reading { body, reader: Some(reader), verifier: Some(verifier), input, ahead: Bytes::new() };
        FormFile(Arc::new(Mutex::new(reading)))
    }
}

/// The file of a form while it is read, in one go or in several.
pub(crate) struct FormFile(Arc<Mutex<Reading>>);

struct Reading {
    body: FormBody,
    reader: Option<FileReader>,
    verifier: Option<BodyVerifier>,
    input: Bytes,
    /// Of the file, but beyond what was asked for last.
    ahead: Bytes,
}

impl FormFile {
    /// The next `len` bytes of the file as a stream, of which the caller knows that they are all the file's.
    pub(crate) fn next(&self, len: u64) -> FilePart {
        FilePart { file: self.0.clone(), left_len: len }
    }

    /// What remains of the file, at most `len_max` bytes, and what was found of the whole: read, and verified.
    ///
    /// # Errors
    /// `MalformedPOSTRequest`, `BadDigest` and the like: the file must not be kept.
    pub(crate) async fn rest(self, len_max: usize) -> Result<(Bytes, Verified), GatewayError> {
        let mut all = BytesMut::with_capacity(len_max);
        while let Some(piece) = std::future::poll_fn(|cx| lock(&self.0).poll_piece(cx)).await {
            let piece = piece?;
            if all.len() + piece.len() > len_max {
                return Err(GatewayError::Internal("a form's file is longer than its request"));
            }
            all.extend_from_slice(&piece);
        }
        while let Some(data) = std::future::poll_fn(|cx| lock(&self.0).body.poll_data(cx)).await {
            lock(&self.0).take_behind(data?)?;
        }
        let verified = lock(&self.0).finish()?;
        Ok((all.freeze(), verified))
    }
}

impl Reading {
    /// The next piece of the file; `None` when its last byte has been given.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.ahead))));
        }
        let Some(reader) = &mut self.reader else { return Poll::Ready(None) };
        loop {
            match reader.decode(&mut self.input) {
                Ok(Some(piece)) => {
                    if let Some(verifier) = &mut self.verifier {
                        verifier.update(&piece);
                    }
                    return Poll::Ready(Some(Ok(piece)));
                }
                Ok(None) if reader.is_over() => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(data)) => self.input = data,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(Some(Err(S3Error::new(ErrorCode::MalformedPOSTRequest).into()))),
            }
        }
    }

    /// Takes what follows the file.
    fn take_behind(&mut self, mut data: Bytes) -> Result<(), GatewayError> {
        match self.reader.as_mut().map(|reader| reader.decode(&mut data)).transpose()?.flatten() {
            None => Ok(()),
            Some(_) => Err(GatewayError::Internal("a form's file went on behind its end")),
        }
    }

    fn finish(&mut self) -> Result<Verified, GatewayError> {
        let (Some(reader), Some(verifier)) = (self.reader.take(), self.verifier.take()) else {
            return Err(GatewayError::Internal("a form is verified once"));
        };
        reader.finish()?;
        Ok(Verified { client: Some(verifier.finish(None)?) })
    }
}

fn lock(file: &Mutex<Reading>) -> MutexGuard<'_, Reading> {
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A piece of a form's file with a known length. Whether the whole is what its sender declared shows only at its end.
pub(crate) struct FilePart {
    file: Arc<Mutex<Reading>>,
    left_len: u64,
}

impl PlaintextSource for FilePart {
    fn poll_plaintext(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        if self.left_len == 0 {
            return Poll::Ready(None);
        }
        let mut file = lock(&self.file);
        let Some(piece) = ready!(file.poll_piece(cx)) else {
            let text = "More follows the file of the form than is taken of a file of this size.";
            let error = S3Error::new(ErrorCode::MalformedPOSTRequest).with_message(text);
            return Poll::Ready(Some(Err(error.into())));
        };
        let mut piece = piece?;
        let take = usize::try_from(self.left_len).unwrap_or(usize::MAX).min(piece.len());
        file.ahead = piece.split_off(take);
        self.left_len -= take as u64;
        Poll::Ready(Some(Ok(piece)))
    }

    fn verify(&mut self) -> Result<Verified, GatewayError> {
        Ok(Verified::default())
    }
}

/// Plaintext in memory that has been verified.
pub(crate) struct HeldFile {
    bytes: Bytes,
    verified: Verified,
}

impl HeldFile {
    pub(crate) fn new(bytes: Bytes, verified: Verified) -> Self {
        Self { bytes, verified }
    }
}

impl PlaintextSource for HeldFile {
    fn poll_plaintext(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, GatewayError>>> {
        let piece = self.bytes.split_to(self.bytes.len().min(PIECE_LEN));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }

    fn verify(&mut self) -> Result<Verified, GatewayError> {
        Ok(self.verified.clone())
    }
}
