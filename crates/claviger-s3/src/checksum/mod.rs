//! Checksums over plaintext: what the client asked for, computed once as the body streams.

mod combine;
mod value;
mod verify;

pub use combine::{Composite, combine_crc};
pub use value::{ChecksumAlgorithm, ChecksumType, ChecksumValue, ObjectChecksum};
pub use verify::{BodyIntegrity, BodyVerifier, ExpectedChecksum, Md5Digest, Verified, parse_content_md5};
