//! Decoding of `aws-chunked` bodies.
//!
//! ```text
//! body    = *chunk last
//! chunk   = hex-size [";chunk-signature=" 64HEX] CRLF payload CRLF
//! last    = "0" [";chunk-signature=" 64HEX] CRLF trailers CRLF
//! trailers = *(name ":" value CRLF) ["x-amz-trailer-signature:" 64HEX CRLF]
//! ```
//! Source: "Signature calculations … transferring payload in multiple chunks" and "… including trailing headers" in
//! the S3 API reference. Some clients end a trailer with LF CRLF; both forms are read.

use bytes::{Buf as _, Bytes};
use sha2::{Digest as _, Sha256};

use crate::error::{ErrorCode, S3Error};
use crate::sigv4::{ChunkVerifier, unhex32};

/// Longest line between chunks or in the trailer section, in bytes.
pub const LINE_LEN_MAX: usize = 1024;

/// Most bytes of the trailer section.
const TRAILERS_LEN_MAX: usize = 4096;

const TRAILER_SIGNATURE: &str = "x-amz-trailer-signature";

/// What the body is wrapped in.
#[derive(Debug)]
pub enum Framing {
    /// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD`, or `…-TRAILER` when `trailer` is set.
    Signed {
        /// Checks the chain of signatures.
        verifier: ChunkVerifier,
        /// A signed trailer section follows.
        trailer: bool,
    },
    /// `STREAMING-UNSIGNED-PAYLOAD-TRAILER`
    UnsignedTrailer,
}

/// The trailers that followed the payload: lower-case names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailers(Vec<(String, String)>);

impl Trailers {
    /// The value of a trailer by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Takes the framing off a body, piece by piece, without copying or buffering payload: memory is bounded by
/// [`LINE_LEN_MAX`] and the trailer section, whatever the size of a chunk.
///
/// Payload is handed out **before** the signature of its chunk is verified: the caller may seal and send it, but may
/// commit only after [`Self::finish`] has returned `Ok`. After an error the decoder must be dropped.
#[derive(Debug)]
pub struct Decoder {
    framing: Framing,
    state: State,
    line: Vec<u8>,
    /// Payload that the request declared and that has not been announced by a chunk yet.
    undeclared: u64,
    hasher: Sha256,
    trailer_name: Option<&'static str>,
    trailers: Trailers,
    trailers_len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the line that begins a chunk.
    Size,
    /// In the payload of a chunk.
    Payload { left: u64, signature: [u8; 32] },
    /// In the line end after a payload.
    PayloadEnd,
    /// Behind the last chunk: trailers up to an empty line.
    Trailer,
    /// Behind the trailer signature: only the empty line is missing, which some clients leave out.
    Signed,
    /// All has been read.
    Done,
}

impl Decoder {
    /// Prepares for a body of `decoded_len` bytes of payload, ending with the trailer `trailer_name` if the request
    /// announced one (`x-amz-trailer`, [`crate::checksum::BodyIntegrity::trailer_name`]).
    pub fn new(framing: Framing, decoded_len: u64, trailer_name: Option<&'static str>) -> Self {
        Self {
            framing,
            state: State::Size,
            line: Vec::new(),
            undeclared: decoded_len,
            hasher: Sha256::new(),
            trailer_name,
            trailers: Trailers::default(),
            trailers_len: 0,
        }
    }

    /// Takes bytes from the front of `input` and gives the next piece of payload, a slice of `input` that is never
    /// empty; `None` when `input` is used up. Call it until `None`, then with the next input.
    ///
    /// `IncompleteBody` when chunks and declared length disagree, `InvalidChunkSizeError`, `SignatureDoesNotMatch`,
    /// `MalformedTrailerError`.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, S3Error> {
        while !input.is_empty() {
            if let State::Payload { left, signature } = self.state {
                return self.take_payload(input, left, signature).map(Some);
            }
            let Some(line) = self.take_line(input)? else { break };
            match self.state {
                State::Size => self.begin_chunk(&line)?,
                State::PayloadEnd if line.is_empty() => self.state = State::Size,
                State::PayloadEnd => return Err(incomplete("A chunk is longer than it says.")),
                State::Trailer => self.take_trailer(&line)?,
                State::Signed | State::Done if line.is_empty() => self.state = State::Done,
                State::Signed | State::Done => return Err(ErrorCode::MalformedTrailerError.into()),
                State::Payload { .. } => {}
            }
        }
        Ok(None)
    }

    /// The verdict when the body has ended: `IncompleteBody` when something is missing, `MalformedTrailerError` when
    /// the announced trailer did not come.
    pub fn finish(self) -> Result<Trailers, S3Error> {
        let is_done = matches!(self.state, State::Done | State::Signed);
        if !is_done || !self.line.iter().all(|byte| *byte == b'\r') {
            return Err(incomplete("The request body terminated unexpectedly"));
        }
        match self.trailer_name {
            Some(name) if self.trailers.get(name).is_none() => Err(ErrorCode::MalformedTrailerError.into()),
            _ => Ok(self.trailers),
        }
    }

    fn take_payload(&mut self, input: &mut Bytes, left: u64, signature: [u8; 32]) -> Result<Bytes, S3Error> {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let payload = input.split_to(len);
        if matches!(self.framing, Framing::Signed { .. }) {
            self.hasher.update(&payload);
        }
        let left = left - u64::try_from(len).expect("a buffer length fits 64 bits");
        self.state = State::Payload { left, signature };
        if left == 0 {
            self.check_chunk(&signature)?;
            self.state = State::PayloadEnd;
        }
        Ok(payload)
    }

    /// Collects a line and gives it without its end; `None` when more input is needed.
    fn take_line(&mut self, input: &mut Bytes) -> Result<Option<Vec<u8>>, S3Error> {
        let end = input.iter().position(|byte| *byte == b'\n');
        let piece = input.split_to(end.unwrap_or(input.len()));
        if self.line.len() + piece.len() > LINE_LEN_MAX {
            return Err(self.line_error());
        }
        self.line.extend_from_slice(&piece);
        if end.is_none() {
            return Ok(None);
        }
        input.advance(1);
        let mut line = std::mem::take(&mut self.line);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }

    fn begin_chunk(&mut self, line: &[u8]) -> Result<(), S3Error> {
        let line = std::str::from_utf8(line).map_err(|_| self.line_error())?;
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let size = parse_size(size).ok_or_else(|| self.line_error())?;
        let signature = match self.framing {
            Framing::UnsignedTrailer => [0; 32],
            Framing::Signed { .. } => {
                let text = extension.trim().strip_prefix("chunk-signature=").unwrap_or("");
                unhex32(text).ok_or(S3Error::new(ErrorCode::SignatureDoesNotMatch))?
            }
        };
        if size > 0 {
            self.undeclared = self
                .undeclared
                .checked_sub(size)
                .ok_or_else(|| incomplete("The chunks are longer than x-amz-decoded-content-length."))?;
            self.state = State::Payload { left: size, signature };
            return Ok(());
        }
        self.check_chunk(&signature)?;
        if self.undeclared > 0 {
            return Err(incomplete("The chunks are shorter than x-amz-decoded-content-length."));
        }
        // Without a trailer section only the empty line remains.
        self.state = match self.framing {
            Framing::Signed { trailer: false, .. } => State::Signed,
            _ => State::Trailer,
        };
        Ok(())
    }

    fn check_chunk(&mut self, signature: &[u8; 32]) -> Result<(), S3Error> {
        match &mut self.framing {
            Framing::UnsignedTrailer => Ok(()),
            Framing::Signed { verifier, .. } => {
                verifier.check_chunk(signature, &self.hasher.finalize_reset().into())
            }
        }
    }

    fn take_trailer(&mut self, line: &[u8]) -> Result<(), S3Error> {
        let malformed = || S3Error::new(ErrorCode::MalformedTrailerError);
        self.trailers_len += line.len() + 2;
        if self.trailers_len > TRAILERS_LEN_MAX {
            return Err(malformed());
        }
        if line.is_empty() {
            // A signed section ends with its signature, and an empty line may come before it.
            if matches!(self.framing, Framing::UnsignedTrailer) {
                self.state = State::Done;
            }
            return Ok(());
        }
        let text = std::str::from_utf8(line).map_err(|_| malformed())?;
        let (name, value) = text.split_once(':').ok_or_else(malformed)?;
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
        if name == TRAILER_SIGNATURE {
            return self.check_trailers(value);
        }
        if self.trailer_name != Some(name.as_str()) || self.trailers.get(&name).is_some() {
            return Err(malformed());
        }
        self.trailers.0.push((name, value.to_owned()));
        Ok(())
    }

    fn check_trailers(&mut self, signature: &str) -> Result<(), S3Error> {
        let Framing::Signed { verifier, .. } = &mut self.framing else {
            return Err(ErrorCode::MalformedTrailerError.into());
        };
        let signature = unhex32(signature).ok_or(S3Error::new(ErrorCode::SignatureDoesNotMatch))?;
        let mut hasher = Sha256::new();
        for (name, value) in &self.trailers.0 {
            hasher.update(format!("{name}:{value}\n"));
        }
        verifier.check_trailer(&signature, &hasher.finalize().into())?;
        self.state = State::Signed;
        Ok(())
    }

    fn line_error(&self) -> S3Error {
        match self.state {
            State::Size => S3Error::new(ErrorCode::InvalidChunkSizeError)
                .with_message("The size of a chunk is not a hexadecimal number in a line of its own."),
            State::PayloadEnd => incomplete("A chunk is longer than it says."),
            _ => ErrorCode::MalformedTrailerError.into(),
        }
    }
}

/// At most 16 hexadecimal digits, and no sign, which `from_str_radix` would take.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_hex = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok())?
}

fn incomplete(message: &'static str) -> S3Error {
    S3Error::new(ErrorCode::IncompleteBody).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CRC32: &str = "x-amz-checksum-crc32";

    /// Feeds the body in pieces of the given size and gives payload and trailers.
    fn decode(
        body: &[u8],
        piece: usize,
        len: u64,
        name: Option<&'static str>,
    ) -> Result<(Vec<u8>, Trailers), S3Error> {
        let mut decoder = Decoder::new(Framing::UnsignedTrailer, len, name);
        let mut out = Vec::new();
        for piece in body.chunks(piece) {
            let mut input = Bytes::copy_from_slice(piece);
            while let Some(payload) = decoder.decode(&mut input)? {
                assert!(!payload.is_empty());
                out.extend_from_slice(&payload);
            }
            assert!(input.is_empty());
        }
        Ok((out, decoder.finish()?))
    }

    fn code(body: &str, len: u64) -> ErrorCode {
        decode(body.as_bytes(), 7, len, Some(CRC32)).unwrap_err().code()
    }

    #[test]
    fn payload_and_trailer_come_out() {
        let body = b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Amz-Checksum-CRC32: lZe8jQ== \r\n\r\n";
        for piece in 1..=body.len() {
            let (payload, trailers) = decode(body, piece, 11, Some(CRC32)).unwrap();
            assert_eq!((payload.as_slice(), trailers.get(CRC32)), (&b"hello world"[..], Some("lZe8jQ==")));
        }
    }

    #[test]
    fn an_empty_body_without_trailer_is_complete() {
        assert_eq!(decode(b"0\r\n\r\n", 1, 0, None).unwrap(), (vec![], Trailers::default()));
    }

    #[test]
    fn lengths_have_to_agree() {
        assert_eq!(code("5\r\nhello\r\n0\r\n\r\n", 4), ErrorCode::IncompleteBody);
        assert_eq!(code("5\r\nhello\r\n0\r\n\r\n", 6), ErrorCode::IncompleteBody);
        assert_eq!(code("5\r\nhelloo\r\n0\r\n\r\n", 5), ErrorCode::IncompleteBody);
        for cut in ["", "5", "5\r\n", "5\r\nhel", "5\r\nhello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n"] {
            assert_eq!(code(cut, 5), ErrorCode::IncompleteBody, "{cut:?}");
        }
    }

    #[test]
    fn broken_sizes_are_refused() {
        let long = "0".repeat(LINE_LEN_MAX + 1);
        for size in ["", "x", "-1", "+5", "10000000000000000", "5 5", &long] {
            assert_eq!(
                code(&format!("{size}\r\nhello\r\n0\r\n\r\n"), 5),
                ErrorCode::InvalidChunkSizeError,
                "{size}"
            );
        }
        assert_eq!(code("ffffffffffffffff\r\n", 5), ErrorCode::IncompleteBody);
    }

    #[test]
    fn only_the_announced_trailer_may_come_once() {
        let with = |trailers: &str| format!("1\r\na\r\n0\r\n{trailers}\r\n");
        for trailers in [
            "",
            "x-amz-checksum-sha1:AA==\r\n",
            "x-amz-checksum-crc32:AA==\r\nx-amz-checksum-crc32:AA==\r\n",
            "no colon\r\n",
            "x-amz-trailer-signature:00\r\n",
        ] {
            assert_eq!(code(&with(trailers), 1), ErrorCode::MalformedTrailerError, "{trailers}");
        }
        let behind = with("x-amz-checksum-crc32:AA==\r\n") + "more\r\n";
        assert_eq!(code(&behind, 1), ErrorCode::MalformedTrailerError);
    }

    #[test]
    fn a_chunk_of_a_gibibyte_is_not_buffered() {
        let mut decoder = Decoder::new(Framing::UnsignedTrailer, 1 << 30, None);
        let mut input = Bytes::from_static(b"40000000\r\n");
        assert_eq!(decoder.decode(&mut input).unwrap(), None);
        let block = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..1 << 10 {
            let mut input = block.clone();
            let payload = decoder.decode(&mut input).unwrap().unwrap();
            assert_eq!(payload.as_ptr(), block.as_ptr(), "the slice is the input itself");
        }
        let mut input = Bytes::from_static(b"\r\n0\r\n\r\n");
        assert_eq!(decoder.decode(&mut input).unwrap(), None);
        assert!(decoder.finish().is_ok());
    }

    proptest! {
        #[test]
        fn any_cutting_gives_the_same_payload(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..50), 0..6),
            piece in 1usize..40,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                body.extend_from_slice(chunk);
                body.extend_from_slice(b"\r\n");
            }
            body.extend_from_slice(b"0\r\nx-amz-checksum-crc32:AA==\r\n\r\n");
            let whole = chunks.concat();
            let len = u64::try_from(whole.len()).unwrap();
            prop_assert_eq!(decode(&body, piece, len, Some(CRC32)).unwrap().0, whole);
        }

        #[test]
        fn no_bytes_make_it_panic(body in "[0-9a-f;\r\n:x-]{0,120}", piece in 1usize..9, len in 0u64..40) {
            let _ = decode(body.as_bytes(), piece, len, Some(CRC32));
        }
    }
}
