//! The end of a connection whose client is still sending.
//!
//! A socket that is closed with bytes unread resets its connection, and a reset throws away what the peer has not read
//! yet: whoever uploads and is refused early would see a broken pipe in place of the error. So the sending side is closed
//! first, and what still comes is read and thrown away until the client has closed too (RFC 9112 §9.6). That is
//! bounded in bytes and in time; a client that goes on beyond is reset after all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// What is thrown away at most: two parts of the size that most clients cut, which is also what is on its way in a fast
/// network when the answer arrives.
pub(super) const LINGER_LEN_MAX: usize = 16 << 20;
/// How long it may take.
const LINGER: Duration = Duration::from_secs(5);
/// Without a byte for so long, the client is taken to have stopped.
const SILENCE: Duration = Duration::from_secs(1);
const SCRATCH_LEN: usize = 16 << 10;

/// What is left to do before a stream may be closed.
pub(super) struct Linger {
    /// Whether an answer went out before its request's body was read to the end.
    body_unread: Arc<AtomicBool>,
    left_len: usize,
    sleep: Option<Pin<Box<Sleep>>>,
    ends: Option<Instant>,
}

impl Linger {
    pub(super) fn new(body_unread: Arc<AtomicBool>) -> Self {
        Self { body_unread, left_len: LINGER_LEN_MAX, sleep: None, ends: None }
    }

    /// Reads `stream`, whose sending side has been closed, until it may be closed altogether. Where nothing is unread and
    /// nothing expected, that is at once: an idle connection does not hold up a stop.
    pub(super) fn poll<S: AsyncRead + Unpin>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<()> {
        let mut scratch = [0; SCRATCH_LEN];
        let mut came = false;
        while self.left_len > 0 {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    came = true;
                    self.left_len = self.left_len.saturating_sub(buf.filled().len());
                }
                // The client has closed, or is gone.
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.poll_patience(came, cx),
            }
        }
        Poll::Ready(())
    }

    fn poll_patience(&mut self, came: bool, cx: &mut Context<'_>) -> Poll<()> {
        if !came && self.sleep.is_none() && !self.body_unread.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        let now = Instant::now();
        let until = (*self.ends.get_or_insert(now + LINGER)).min(now + SILENCE);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if came {
            sleep.as_mut().reset(until);
        }
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(())
    }
}
