//! Decoding of `aws-chunked` bodies.

use bytes::Bytes;

use crate::error::S3Error;
use crate::sigv4::ChunkVerifier;

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

/// Takes the framing off a body, piece by piece, without copying or buffering payload.
///
/// Payload is handed out **before** the signature of its chunk is verified: the caller may seal and send it, but may
/// commit only after [`Self::finish`] has returned `Ok`.
#[derive(Debug)]
pub struct Decoder {
    _framing: Framing,
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

impl Decoder {
    /// Prepares for a body of `decoded_len` bytes of payload, ending with the trailer `trailer_name` if the request
    /// announced one (`x-amz-trailer`).
    pub fn new(framing: Framing, decoded_len: u64, trailer_name: Option<&'static str>) -> Self {
        let _ = (decoded_len, trailer_name);
        Self { _framing: framing }
    }

    /// Takes bytes from the front of `input` and gives the next piece of payload, a slice of `input` that is never
    /// empty; `None` when `input` is used up.
    pub fn decode(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, S3Error> {
        let _ = input;
        todo!()
    }

    /// The verdict when the body has ended.
    pub fn finish(self) -> Result<Trailers, S3Error> {
        todo!()
    }
}
