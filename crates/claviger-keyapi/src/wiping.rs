//! A buffer for bytes with secrets in them: whatever it leaves behind when it grows or ends is wiped.

use std::io::{self, Write};

use serde::Serialize;
use zeroize::{Zeroize as _, Zeroizing};

/// Grows by copying and wiping, so that no freed memory keeps a secret. Never prints its content.
pub struct WipingBuffer(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for WipingBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WipingBuffer({} bytes)", self.0.len())
    }
}

impl WipingBuffer {
    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let mut larger = Vec::with_capacity((self.0.len() + bytes.len()) * 2);
            larger.extend_from_slice(&self.0);
            std::mem::swap(&mut *self.0, &mut larger);
            larger.zeroize();
        }
        self.0.extend_from_slice(bytes);
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes; still wiped when dropped.
    #[must_use]
    pub fn into_bytes(self) -> Zeroizing<Vec<u8>> {
        self.0
    }
}

impl Write for WipingBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON of something that may carry secrets.
///
/// # Errors
/// If the value can't be written as JSON.
pub fn to_json<T: Serialize>(value: &T) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
    let mut out = WipingBuffer::with_capacity(4096);
    serde_json::to_writer(&mut out, value)?;
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_over_any_growth() {
        let mut buffer = WipingBuffer::with_capacity(0);
        assert!(buffer.is_empty());
        for n in 0..1000u32 {
            buffer.push(&n.to_be_bytes());
        }
        assert_eq!(buffer.len(), 4000);
        assert_eq!(format!("{buffer:?}"), "WipingBuffer(4000 bytes)");
        let expected: Vec<u8> = (0..1000u32).flat_map(u32::to_be_bytes).collect();
        assert_eq!(*buffer.into_bytes(), expected);
        let long = "x".repeat(10_000);
        assert_eq!(*to_json(&long).unwrap(), serde_json::to_vec(&long).unwrap());
    }
}
