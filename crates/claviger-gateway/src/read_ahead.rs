//! A socket that is read in one system call where TLS asks for pieces.
//!
//! rustls reads at most 4 KiB at a time, so a record of 16 KiB costs it five calls. Here each call takes what has arrived into a
//! buffer of the thread's, which is given back as soon as it has been read. A connection that waits holds none. All that passes
//! is what was on the wire.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A few records of TLS (RFC 8446 §5.1).
const AHEAD_LEN: usize = 32 << 10;
/// Whoever asks for more than this at once needs nobody to read ahead.
const PIECE_MAX: usize = 4 << 10;
/// Buffers that a thread keeps for the next connection.
const SPARE_MAX: usize = 16;

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that came in before they were asked for.
struct Ahead {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Ahead {
    fn of_thread() -> Self {
        let buffer = SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; AHEAD_LEN].into());
        Self { buffer, start: 0, end: 0 }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A thread that is ending keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(buffer);
            }
        });
    }
}

/// A TCP stream, read ahead.
pub(crate) struct ReadAhead {
    stream: TcpStream,
    ahead: Option<Ahead>,
}

impl ReadAhead {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream, ahead: None }
    }

    /// The stream itself, for its addresses.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Takes what has arrived, up to a buffer full.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut Option<Ahead>>> {
        if self.ahead.is_none() {
            let mut ahead = Ahead::of_thread();
            let mut room = ReadBuf::new(&mut ahead.buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
            ahead.end = room.filled().len();
            self.ahead = Some(ahead);
        }
        Poll::Ready(Ok(&mut self.ahead))
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.ahead.is_none() && buf.remaining() > PIECE_MAX {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let filled = ready!(self.poll_fill(cx))?;
        if let Some(ahead) = filled {
            let len = buf.remaining().min(ahead.end - ahead.start);
            buf.put_slice(&ahead.buffer[ahead.start..ahead.start + len]);
            ahead.start += len;
            if ahead.start == ahead.end {
                *filled = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, ReadAhead) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, ReadAhead::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn every_byte_comes_once_and_in_order_whatever_the_pieces() {
        let sent: Vec<u8> =
            (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (mut near, mut far) = pair().await;
        let to_send = sent.clone();
        let sending = tokio::spawn(async move {
            for piece in to_send.chunks(70_001) {
                near.write_all(piece).await.unwrap();
            }
        });
        let (mut received, mut piece, mut turn) = (Vec::new(), vec![0; 9_000], 0);
        loop {
            turn += 1;
            let len = 1 + turn * 7_919 % piece.len();
            match far.read(&mut piece[..len]).await.unwrap() {
                0 => break,
                read => received.extend_from_slice(&piece[..read]),
            }
        }
        sending.await.unwrap();
        assert!(received == sent);
    }

    #[tokio::test]
    async fn what_came_with_the_end_is_read_before_the_end() {
        let (mut near, mut far) = pair().await;
        near.write_all(b"all of it").await.unwrap();
        drop(near);
        let mut received = String::new();
        far.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "all of it");
    }

    #[tokio::test]
    async fn a_connection_that_waits_holds_no_buffer() {
        let (mut near, mut far) = pair().await;
        let mut first = [0];
        near.write_all(b"abc").await.unwrap();
        while far.ahead.is_none() {
            // Its bytes may come one by one.
            far.read_exact(&mut first).await.unwrap();
            near.write_all(b"d").await.unwrap();
        }
        let left = far.ahead.as_ref().map_or(0, |ahead| ahead.end - ahead.start);
        far.read_exact(&mut vec![0; left]).await.unwrap();
        assert!(far.ahead.is_none());
        assert!(SPARE.with_borrow(Vec::len) >= 1);
    }
}
