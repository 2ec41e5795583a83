//! What is written: bytes that neither repeat within a segment nor compress, made once. Each block of an object begins
//! elsewhere in them, so that a block in another's place is seen; up to 64 GiB no two blocks are the same.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const BLOCK_LEN: usize = 256 << 10;
/// By how much further in each block begins than the one before. It is odd, so it comes by every place.
const STEP: u64 = 40_503;

/// Two blocks of bytes. Xorshift (Marsaglia 2003): nobody relies on them.
fn bytes() -> &'static Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        words.take(2 * BLOCK_LEN / 8).flat_map(u64::to_le_bytes).collect()
    })
}

/// What stands at `offset`, up to the end of its block.
fn rest_of_block(offset: u64) -> Bytes {
    let block_len = BLOCK_LEN as u64;
    let begin = (offset / block_len).wrapping_mul(STEP) % block_len;
    // Both are less than a block.
    let [begin, within] = [begin, offset % block_len].map(|at| usize::try_from(at).unwrap_or(0));
    bytes().slice(begin + within..begin + BLOCK_LEN)
}

/// A body: a piece of the object that everybody writes, which has no end.
pub(crate) struct Content {
    at: u64,
    left_len: u64,
}

impl Content {
    /// The first bytes of it.
    pub(crate) fn new(len: u64) -> Self {
        Self::part(0, len)
    }

    /// `len` bytes from `offset` on.
    pub(crate) fn part(offset: u64, len: u64) -> Self {
        Self { at: offset, left_len: len }
    }

    /// Whether `piece` is what stands at `offset`.
    pub(crate) fn is_at(offset: u64, piece: &[u8]) -> bool {
        let (mut at, mut rest) = (offset, piece);
        while !rest.is_empty() {
            let there = rest_of_block(at);
            let len = rest.len().min(there.len());
            if rest[..len] != there[..len] {
                return false;
            }
            rest = &rest[len..];
            at += len as u64;
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
        let mut piece = rest_of_block(self.at);
        piece.truncate(usize::try_from(self.left_len).unwrap_or(usize::MAX));
        self.at += piece.len() as u64;
        self.left_len -= piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left_len == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left_len)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http_body_util::BodyExt as _;

    use super::*;

    async fn all(content: Content) -> Bytes {
        content.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn parts_are_the_pieces_of_the_whole() {
        let whole = all(Content::new(1 << 20)).await;
        assert_eq!(whole.len(), 1 << 20);
        assert!(Content::is_at(0, &whole));
        for (from, to) in [(0, 1), (77, 300_000), (262_143, 262_145), (262_144, 1 << 20)] {
            let part = all(Content::part(from as u64, (to - from) as u64)).await;
            assert!(part == whole[from..to] && Content::is_at(from as u64, &part), "{from}-{to}");
        }
    }

    #[tokio::test]
    async fn what_stands_elsewhere_or_was_changed_is_seen() {
        let block_len = BLOCK_LEN as u64;
        let mut piece = all(Content::part(3 * block_len, block_len)).await.to_vec();
        assert!(Content::is_at(3 * block_len, &piece));
        assert!(!Content::is_at(4 * block_len, &piece) && !Content::is_at(3 * block_len + 1, &piece));
        *piece.last_mut().unwrap() ^= 1;
        assert!(!Content::is_at(3 * block_len, &piece));
    }

    #[test]
    fn no_two_blocks_of_64_gib_are_the_same() {
        let begins: HashSet<Bytes> =
            (0..BLOCK_LEN as u64).map(|block| rest_of_block(block * BLOCK_LEN as u64).slice(..16)).collect();
        assert_eq!(begins.len(), BLOCK_LEN);
    }
}
