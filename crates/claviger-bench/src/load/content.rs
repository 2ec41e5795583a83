//! What is written: bytes that neither repeat within a segment nor compress, made once.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const BLOCK_LEN: usize = 256 << 10;

/// Xorshift (Marsaglia 2003): nobody relies on these bytes.
fn block() -> &'static Bytes {
    static BLOCK: OnceLock<Bytes> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        words.take(BLOCK_LEN / 8).flat_map(u64::to_le_bytes).collect()
    })
}

/// A body of so many bytes, the block over and over.
pub(crate) struct Content {
    left_len: u64,
}

impl Content {
    pub(crate) fn new(len: u64) -> Self {
        Self { left_len: len }
    }

    /// Whether `piece` is what stands at `offset`.
    pub(crate) fn is_at(offset: u64, piece: &[u8]) -> bool {
        let mut at = usize::try_from(offset % BLOCK_LEN as u64).unwrap_or(0);
        let mut rest = piece;
        while !rest.is_empty() {
            let len = rest.len().min(BLOCK_LEN - at);
            if rest[..len] != block()[at..at + len] {
                return false;
            }
            rest = &rest[len..];
            at = 0;
        }
        true
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left_len == 0 {
            return Poll::Ready(None);
        }
        let len = BLOCK_LEN.min(usize::try_from(self.left_len).unwrap_or(BLOCK_LEN));
        self.left_len -= len as u64;
        Poll::Ready(Some(Ok(Frame::data(block().slice(..len)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left_len == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_len)
    }
}
