//! What may leave for the provider. There is no way from plaintext to [`UpstreamBody`] but through a sealer:
//! [`Ciphertext`] is made where units are sealed, and [`UpstreamBody::control`] takes only XML that this crate
//! wrote from names, numbers and entity tags, [`UpstreamBody::configuration`] only documents that were checked for being
//! configuration; both are leakage that docs/threat-model.md declares.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use claviger_s3::xml::ConfigurationDocument;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;

use super::trailer::Chunked;

/// Bytes that came out of a sealer: units, epoch records, upload tokens.
#[derive(Clone)]
pub(crate) struct Ciphertext(Bytes);

impl Ciphertext {
    /// Marks `bytes` as sealed. Called only by the code that sealed them, and by the code that passes on
    /// sealed bytes it has just read from the provider (held parts).
    pub(crate) fn sealed(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// What stands around sealed bytes in S3's chunked form: lengths, and a checksum of ciphertext.
    pub(super) fn framing(text: impl Into<Bytes>) -> Self {
        Self(text.into())
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

impl std::fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ciphertext({} bytes)", self.0.len())
    }
}

/// The sender gave up: the connection to the provider is torn down before the declared length is reached, so
/// that the provider stores nothing. The cause is kept where the stream was made.
#[derive(Debug, thiserror::Error)]
#[error("the sealed stream was abandoned before its commit point")]
pub(crate) struct Abandoned;

/// A stream of sealed bytes with a length that is known before the first one.
pub(crate) trait SealedStream: Send {
    /// The next sealed bytes, `None` at the end.
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>>;
}

/// A request body on its way to the provider.
pub(crate) struct UpstreamBody {
    kind: Kind,
    remaining_len: u64,
    /// Who watches the body, while somebody does.
    watched: Option<Watched>,
}

enum Kind {
    Whole(Option<Bytes>),
    Stream(Box<dyn SealedStream>),
    /// As a stream, with the checksum of what went out behind it.
    Chunked(Box<Chunked>),
}

impl UpstreamBody {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { kind: Kind::Whole(None), remaining_len: 0, watched: None }
    }

    /// XML of the S3 protocol that this crate wrote: names, part numbers, entity tags.
    pub(crate) fn control(xml: impl Into<Bytes>) -> Self {
        let bytes = xml.into();
        Self { remaining_len: bytes.len() as u64, kind: Kind::Whole(Some(bytes)), watched: None }
    }

    /// A configuration document as the client wrote it: declared leakage, and no object's content.
    pub(crate) fn configuration(document: ConfigurationDocument) -> Self {
        Self::control(document.into_bytes())
    }

    /// Sealed bytes held in memory.
    pub(crate) fn sealed(ciphertext: Ciphertext) -> Self {
        Self { remaining_len: ciphertext.len() as u64, kind: Kind::Whole(Some(ciphertext.0)), watched: None }
    }

    /// A stream of exactly `sealed_len` bytes.
    pub(crate) fn stream(stream: Box<dyn SealedStream>, sealed_len: u64) -> Self {
        Self { kind: Kind::Stream(stream), remaining_len: sealed_len, watched: None }
    }

    /// A stream gets a checksum behind it, in chunked form; gives the length that it has without. What is in memory is
    /// signed with its digest and stays as it is (`None`).
    pub(super) fn with_trailer(&mut self) -> Option<u64> {
        let Kind::Stream(_) = &self.kind else { return None };
        let sealed_len = self.remaining_len;
        let Kind::Stream(stream) = std::mem::replace(&mut self.kind, Kind::Whole(None)) else { return None };
        self.kind = Kind::Chunked(Box::new(Chunked::new(stream, sealed_len)));
        self.remaining_len = Chunked::encoded_len(sealed_len);
        Some(sealed_len)
    }

    /// Whether a checksum follows behind it.
    pub(super) fn has_trailer(&self) -> bool {
        matches!(self.kind, Kind::Chunked(_))
    }

    /// The bytes when they are in memory, for the payload hash.
    pub(crate) fn in_memory(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Whole(bytes) => Some(bytes.as_deref().unwrap_or_default()),
            Kind::Stream(_) | Kind::Chunked(_) => None,
        }
    }

    /// Begins to watch how the body goes out.
    pub(crate) fn watch(&mut self) -> Progress {
        let (done, when_done) = oneshot::channel();
        let state = Arc::new(ProgressState::default());
        self.watched = Some(Watched { state: state.clone(), _done: done });
        Progress { state, when_done }
    }

    fn note(&self, waits_for_source: bool) {
        if let Some(watched) = &self.watched {
            watched.state.waits_for_source.store(waits_for_source, Ordering::Relaxed);
            watched.state.polls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
struct ProgressState {
    polls: AtomicU64,
    waits_for_source: AtomicBool,
    given_up: AtomicBool,
}

struct Watched {
    state: Arc<ProgressState>,
    /// Dropped with the body: the connection has taken all of it, or given up.
    _done: oneshot::Sender<()>,
}

/// How a request body goes out.
pub(crate) struct Progress {
    state: Arc<ProgressState>,
    when_done: oneshot::Receiver<()>,
}

impl Drop for Progress {
    /// Nobody waits for the request any more: what is left of its body must not go out, and its commit point least.
    fn drop(&mut self) {
        self.state.given_up.store(true, Ordering::Relaxed);
    }
}

impl Progress {
    /// Resolves when the provider has taken nothing for `idle` although there was something to take, or has not
    /// answered for `response` after it had everything. A client that is slow to send is not the provider's delay.
    pub(crate) async fn until_stalled(mut self, idle: Duration, response: Duration) {
        let mut seen = 0;
        loop {
            tokio::select! {
                _ = &mut self.when_done => return tokio::time::sleep(response).await,
                () = tokio::time::sleep(idle) => {}
            }
            let polls = self.state.polls.load(Ordering::Relaxed);
            if polls == seen && !self.state.waits_for_source.load(Ordering::Relaxed) {
                return;
            }
            seen = polls;
        }
    }
}

impl http_body::Body for UpstreamBody {
    type Data = Bytes;
    type Error = Abandoned;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Abandoned>>> {
        if self.watched.as_ref().is_some_and(|watched| watched.state.given_up.load(Ordering::Relaxed)) {
            return Poll::Ready(Some(Err(Abandoned)));
        }
        let polled = match &mut self.kind {
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Ciphertext(bytes)))),
            Kind::Stream(stream) => stream.poll_sealed(cx),
            Kind::Chunked(chunked) => chunked.poll_sealed(cx),
        };
        let Poll::Ready(next) = polled else {
            self.note(true);
            return Poll::Pending;
        };
        let next = next.map(|result| result.map(|sealed| sealed.0));
        self.note(false);
        match next {
            None if self.remaining_len > 0 => Poll::Ready(Some(Err(Abandoned))),
            None => Poll::Ready(None),
            Some(Err(abandoned)) => Poll::Ready(Some(Err(abandoned))),
            Some(Ok(bytes)) => {
                // More than was declared would be read by the provider as the next request on the connection.
                match self.remaining_len.checked_sub(bytes.len() as u64) {
                    Some(left) => self.remaining_len = left,
                    None => return Poll::Ready(Some(Err(Abandoned))),
                }
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.kind, Kind::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body;

    struct Pieces(Vec<&'static [u8]>);

    impl SealedStream for Pieces {
        fn poll_sealed(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
            Poll::Ready(self.0.pop().map(|piece| Ok(Ciphertext::sealed(piece))))
        }
    }

    fn drain(mut body: UpstreamBody) -> Result<usize, Abandoned> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut total = 0;
        loop {
            match Pin::new(&mut body).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(frame))) => total += frame.into_data().map_or(0, |data| data.len()),
                Poll::Ready(Some(Err(abandoned))) => return Err(abandoned),
                Poll::Ready(None) => return Ok(total),
                Poll::Pending => panic!("these streams are always ready"),
            }
        }
    }

    #[test]
    fn a_stream_of_the_declared_length_ends_cleanly() {
        assert_eq!(drain(UpstreamBody::stream(Box::new(Pieces(vec![b"cd", b"ab"])), 4)).unwrap(), 4);
    }

    #[test]
    fn a_stream_that_ends_early_is_an_error_and_not_an_end() {
        assert!(drain(UpstreamBody::stream(Box::new(Pieces(vec![b"ab"])), 4)).is_err());
    }

    #[test]
    fn a_request_that_nobody_waits_for_sends_no_more() {
        let mut body = UpstreamBody::stream(Box::new(Pieces(vec![b"cd", b"ab"])), 4);
        drop(body.watch());
        assert!(drain(body).is_err());
    }

    #[test]
    fn a_stream_longer_than_declared_is_cut_off_with_an_error() {
        assert!(drain(UpstreamBody::stream(Box::new(Pieces(vec![b"cdef", b"ab"])), 4)).is_err());
    }
}
