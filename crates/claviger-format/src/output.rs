//! Where readers and writers put what they make.

/// Takes bytes at its end. What a reader or writer appended before it failed it takes back.
pub trait Output {
    /// Bytes so far.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `len` bytes that the caller overwrites, all of them; what they are before that nothing says.
    fn grow(&mut self, len: usize) -> &mut [u8];

    /// Cuts off all but the first `len` bytes.
    fn truncate(&mut self, len: usize);

    /// All bytes so far.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) {
        self.grow(bytes.len()).copy_from_slice(bytes);
    }

    /// Removes `len` bytes behind the first `start`.
    fn cut_out(&mut self, start: usize, len: usize) {
        if len > 0 {
            let end = self.len();
            self.bytes_mut().copy_within(start + len..end, start);
            self.truncate(end - len);
        }
    }
}

impl Output for Vec<u8> {
    fn len(&self) -> usize {
        self.len()
    }

    fn grow(&mut self, len: usize) -> &mut [u8] {
        let start = self.len();
        self.resize(start + len, 0);
        &mut self[start..]
    }

    fn truncate(&mut self, len: usize) {
        self.truncate(len);
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self
    }

    fn append(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Bytes in a room that is used again and again: unlike a `Vec`, which is cleared each time it grows, it is cleared once, when
/// the room is made.
#[derive(Default)]
pub struct Buffer {
    room: Vec<u8>,
    len: usize,
}

impl Buffer {
    /// An empty one with room for `capacity` bytes; more makes it grow.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { room: vec![0; capacity], len: 0 }
    }

    /// Bytes that fit without growing.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.room.len()
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.room[..self.len]
    }

    /// Forgets the bytes; the room stays, with what is in it.
    pub fn clear(&mut self) {
        self.len = 0;
    }
}

impl Output for Buffer {
    fn len(&self) -> usize {
        self.len
    }

    fn grow(&mut self, len: usize) -> &mut [u8] {
        let start = self.len;
        self.len += len;
        if self.room.len() < self.len {
            self.room.resize(self.len.max(2 * self.room.len()), 0);
        }
        &mut self.room[start..self.len]
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.len]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl core::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.room.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Append(Vec<u8>),
        Truncate(usize),
        CutOut(usize, usize),
        Clear,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..50).prop_map(Step::Append),
            (0..200_usize).prop_map(Step::Truncate),
            (0..200_usize, 0..100_usize).prop_map(|(start, len)| Step::CutOut(start, len)),
            Just(Step::Clear),
        ]
    }

    proptest! {
        #[test]
        fn a_buffer_that_is_used_again_holds_what_a_new_vec_would(steps in proptest::collection::vec(step(), 0..40)) {
            let (mut buffer, mut vec) = (Buffer::with_capacity(16), Vec::new());
            for step in steps {
                match step {
                    Step::Append(bytes) => {
                        buffer.append(&bytes);
                        Output::append(&mut vec, &bytes);
                    }
                    Step::Truncate(len) => {
                        Output::truncate(&mut buffer, len);
                        Output::truncate(&mut vec, len);
                    }
                    Step::CutOut(start, len) => {
                        let start = start.min(vec.len());
                        let len = len.min(vec.len() - start);
                        buffer.cut_out(start, len);
                        vec.drain(start..start + len);
                    }
                    Step::Clear => {
                        buffer.clear();
                        vec.clear();
                    }
                }
                prop_assert_eq!(buffer.as_slice(), &vec[..]);
                prop_assert_eq!(buffer.bytes_mut(), &vec[..]);
                prop_assert_eq!(Output::len(&buffer), vec.len());
            }
        }
    }
}
