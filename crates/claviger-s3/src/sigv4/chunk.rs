//! The chain of chunk signatures.

/// Verifies the signatures of chunks and trailers, each of which covers the one before.
#[derive(Debug)]
pub struct ChunkVerifier {}
