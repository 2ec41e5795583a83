//! The client's stream: counts what comes in, gives up on a peer that stops taking what goes out, and does not close
//! while the peer still has to read an answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::linger::Linger;

pub(super) struct ClientIo<S> {
    stream: S,
    received: Arc<AtomicU64>,
    stall_timeout: Duration,
    /// Runs from the first write that the peer does not take to the next that it does.
    stall: Option<Pin<Box<Sleep>>>,
    stalled: bool,
    sending_closed: bool,
    linger: Linger,
}

impl<S> ClientIo<S> {
    /// `body_unread` is set by whoever answers a request without having read its body to the end.
    pub(super) fn new(
        stream: S,
        received: Arc<AtomicU64>,
        body_unread: Arc<AtomicBool>,
        stall_timeout: Duration,
    ) -> Self {
        let linger = Linger::new(body_unread);
        Self { stream, received, stall_timeout, stall: None, stalled: false, sending_closed: false, linger }
    }

    /// Passes a write's outcome on, or the end of patience in place of one more `Pending`.
    fn watch_stall<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = false;
            return outcome;
        }
        let deadline = Instant::now() + self.stall_timeout;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if !self.stalled {
            stall.as_mut().reset(deadline);
            self.stalled = true;
        }
        ready!(stall.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no more data")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientIo<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len() - before;
        self.received.fetch_add(u64::try_from(read).unwrap_or(u64::MAX), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch_stall(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.watch_stall(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch_stall(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.sending_closed {
            let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.watch_stall(cx, outcome))?;
            self.sending_closed = true;
        }
        let Self { stream, linger, .. } = &mut *self;
        linger.poll(stream, cx).map(Ok)
    }
}
