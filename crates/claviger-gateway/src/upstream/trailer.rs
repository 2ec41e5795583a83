//! A sealed body in S3's chunked form with a checksum behind it, for providers that want a digest with every write into
//! a bucket with Object Lock. The checksum is one of ciphertext, and known only when all of it has gone out; how long
//! the whole will be is known before.

use std::task::{Context, Poll};

use claviger_s3::checksum::{BodyIntegrity, BodyVerifier, ChecksumAlgorithm, ObjectChecksum};
use claviger_s3::sigv4::PayloadMode;

use super::body::{Abandoned, Ciphertext, SealedStream};

/// Bytes of every chunk but the last; S3 wants at least 8 KiB.
const CHUNK_LEN: u64 = 64 << 10;
const ALGORITHM: ChecksumAlgorithm = ChecksumAlgorithm::Crc32;
/// Four bytes in base64.
const VALUE_LEN: u64 = 8;

/// The header that announces the trailer, and the trailer's own name.
pub(super) fn trailer_name() -> &'static str {
    ALGORITHM.header_name()
}

/// The stream in chunks, `0\r\n`, the trailer. Chunks are not signed (`STREAMING-UNSIGNED-PAYLOAD-TRAILER`).
pub(super) struct Chunked {
    stream: Box<dyn SealedStream>,
    /// Of the stream, not in a chunk yet.
    left_len: u64,
    /// Of the chunk that was begun.
    chunk_left_len: u64,
    /// Read from the stream beyond the chunk that was begun.
    rest: bytes::Bytes,
    /// `None` once the end has been written.
    checksum: Option<BodyVerifier>,
    in_chunk: bool,
}

impl Chunked {
    pub(super) fn new(stream: Box<dyn SealedStream>, sealed_len: u64) -> Self {
        let checksum = BodyVerifier::new(&BodyIntegrity::default(), &PayloadMode::Unsigned, &[ALGORITHM]);
        Self {
            stream,
            left_len: sealed_len,
            chunk_left_len: 0,
            rest: bytes::Bytes::new(),
            checksum: Some(checksum),
            in_chunk: false,
        }
    }

    /// Bytes of everything that a stream of `sealed_len` bytes becomes.
    pub(super) fn encoded_len(sealed_len: u64) -> u64 {
        let chunk = |len: u64| format!("{len:x}").len() as u64 + 2 + len + 2;
        let (whole, last_len) = (sealed_len / CHUNK_LEN, sealed_len % CHUNK_LEN);
        let last = if last_len > 0 { chunk(last_len) } else { 0 };
        whole * chunk(CHUNK_LEN)
            + last
            + "0\r\n".len() as u64
            + trailer_name().len() as u64
            + 1
            + VALUE_LEN
            + 4
    }

    fn end(&mut self) -> Option<Result<Ciphertext, Abandoned>> {
        let value = self.checksum.take()?.finish(None).ok().and_then(|verified| verified.value(ALGORITHM));
        let Some(value) = value else { return Some(Err(Abandoned)) };
        let value = ObjectChecksum::full(value).to_text();
        Some(Ok(Ciphertext::framing(format!("0\r\n{}:{value}\r\n\r\n", trailer_name()))))
    }
}

impl SealedStream for Chunked {
    fn poll_sealed(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
        if self.chunk_left_len == 0 {
            if std::mem::take(&mut self.in_chunk) {
                return Poll::Ready(Some(Ok(Ciphertext::framing("\r\n"))));
            }
            if self.left_len == 0 {
                return Poll::Ready(self.end());
            }
            self.chunk_left_len = self.left_len.min(CHUNK_LEN);
            self.left_len -= self.chunk_left_len;
            self.in_chunk = true;
            return Poll::Ready(Some(Ok(Ciphertext::framing(format!("{:x}\r\n", self.chunk_left_len)))));
        }
        if self.rest.is_empty() {
            match self.stream.poll_sealed(cx) {
                Poll::Ready(Some(Ok(sealed))) => self.rest = sealed.as_bytes().clone(),
                Poll::Ready(None) => return Poll::Ready(Some(Err(Abandoned))),
                other => return other,
            }
        }
        let take = usize::try_from(self.chunk_left_len).unwrap_or(usize::MAX).min(self.rest.len());
        let piece = self.rest.split_to(take);
        self.chunk_left_len -= piece.len() as u64;
        if let Some(checksum) = &mut self.checksum {
            checksum.update(&piece);
        }
        Poll::Ready(Some(Ok(Ciphertext::sealed(piece))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pieces of seven bytes.
    struct Pieces(bytes::Bytes);

    impl SealedStream for Pieces {
        fn poll_sealed(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Ciphertext, Abandoned>>> {
            let piece = self.0.split_to(self.0.len().min(7_000));
            Poll::Ready((!piece.is_empty()).then(|| Ok(Ciphertext::sealed(piece))))
        }
    }

    fn encoded(content: &[u8], declared_len: u64) -> Result<Vec<u8>, Abandoned> {
        let stream = Pieces(bytes::Bytes::copy_from_slice(content));
        let mut chunked = Chunked::new(Box::new(stream), declared_len);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut all = Vec::new();
        loop {
            match chunked.poll_sealed(&mut cx) {
                Poll::Ready(Some(piece)) => all.extend_from_slice(piece?.as_bytes()),
                Poll::Ready(None) => return Ok(all),
                Poll::Pending => panic!("this stream is always ready"),
            }
        }
    }

    #[test]
    fn a_short_body_is_one_chunk_and_its_checksum() {
        // CRC-32 of "123456789" is CBF43926 (the check value of every catalogue of CRCs).
        let want = "9\r\n123456789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";
        assert_eq!(String::from_utf8(encoded(b"123456789", 9).unwrap()).unwrap(), want);
    }

    #[test]
    fn the_length_is_known_before_for_every_length() {
        for len in [0, 1, 15, 16, 7_000, 65_535, 65_536, 65_537, 131_072, 200_000] {
            let content = vec![7; len];
            let len = len as u64;
            assert_eq!(encoded(&content, len).unwrap().len() as u64, Chunked::encoded_len(len), "{len}");
        }
    }

    #[test]
    fn chunks_are_whole_whatever_the_pieces() {
        let text = encoded(&[b'x'; 65_537], 65_537).unwrap();
        assert!(text.starts_with(b"10000\r\nxxx"));
        assert!(text[7 + 65_536..].starts_with(b"\r\n1\r\nx\r\n0\r\nx-amz-checksum-crc32:"));
    }

    #[test]
    fn a_stream_that_ends_early_gets_no_checksum() {
        assert!(encoded(b"123", 4).is_err());
    }
}
