//! Frames of bodies on their way: buffers that are cleared once and used again, by the thread that filled them.
//!
//! A buffer holds ciphertext or plaintext of earlier frames behind what it says that it holds. Only what readers and writers
//! put in is ever handed out, and they put in nothing that is not sealed or authenticated.

use std::cell::RefCell;

use bytes::Bytes;
use claviger_format::Buffer;

/// Room of a frame: two segments that are ready, and one that comes in one piece with what completes them.
const ROOM: usize = 3 * 65_552;
/// So many each thread keeps.
const KEPT_MAX: usize = 16;

thread_local! {
    static KEPT: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// A frame being filled; its buffer comes back when it, or the last of what was made of it, is dropped.
#[derive(Debug, Default)]
pub(super) struct Frame(Buffer);

impl Frame {
    /// An empty one for a body of which `left_len` bytes are still to come. Small bodies get small buffers of their own.
    pub(super) fn for_body(left_len: u64) -> Self {
        let wanted = usize::try_from(left_len).unwrap_or(usize::MAX).min(ROOM);
        if wanted < ROOM {
            return Self(Buffer::with_capacity(wanted));
        }
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
        Self(kept.unwrap_or_else(|| Buffer::with_capacity(ROOM)))
    }

    /// Where to put the bytes.
    pub(super) fn buffer(&mut self) -> &mut Buffer {
        &mut self.0
    }

    /// Bytes in it.
    pub(super) fn len(&self) -> usize {
        self.0.as_slice().len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it has no room yet.
    pub(super) fn is_missing(&self) -> bool {
        self.0.capacity() == 0
    }

    /// The bytes, to be sent.
    pub(super) fn into_bytes(self) -> Bytes {
        if self.is_empty() { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if self.0.capacity() != ROOM {
            return;
        }
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        // A thread that ends has nothing to keep it in.
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < KEPT_MAX {
                kept.push(buffer);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use claviger_format::Output as _;

    use super::*;

    fn kept() -> usize {
        KEPT.with(|kept| kept.borrow().len())
    }

    #[test]
    fn a_buffer_comes_back_with_the_last_handle_on_its_bytes_and_shows_nothing_of_before() {
        assert_eq!(kept(), 0);
        let mut first = Frame::for_body(u64::MAX);
        first.buffer().append(&[7; 1000]);
        let bytes = first.into_bytes();
        let slice = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((kept(), &slice[..]), (0, &[7; 10][..]));
        drop(slice);
        assert_eq!(kept(), 1);
        let mut second = Frame::for_body(u64::MAX);
        assert_eq!(kept(), 0);
        assert!(second.is_empty() && second.as_ref().is_empty());
        second.buffer().append(b"ab");
        assert_eq!(second.into_bytes(), "ab");
    }

    #[test]
    fn small_bodies_have_small_buffers_and_few_are_kept() {
        let small = Frame::for_body(4096);
        assert_eq!(small.0.capacity(), 4096);
        drop(small);
        assert_eq!(kept(), 0);
        let many: Vec<Frame> = (0..KEPT_MAX + 3).map(|_| Frame::for_body(u64::MAX)).collect();
        drop(many);
        assert_eq!(kept(), KEPT_MAX);
        drop(Frame::default());
        assert_eq!(kept(), KEPT_MAX);
    }
}
