//! Running checksums over a body, and the verdict at its end.

use std::fmt;
use std::hash::Hasher as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use twox_hash::{XxHash3_64, XxHash3_128, XxHash64};

use super::combine::crc_algorithm;
use super::value::{ChecksumAlgorithm, ChecksumValue};
use crate::aws_chunked::Trailers;
use crate::error::{ErrorCode, S3Error};
use crate::sigv4::PayloadMode;

/// The 16 bytes of `Content-MD5`.
pub type Md5Digest = [u8; 16];

/// The checksum that a request declares for its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedChecksum {
    /// The value came in a header.
    Header(ChecksumValue),
    /// The value will come as a trailer of a chunked body (`x-amz-trailer`).
    Trailer(ChecksumAlgorithm),
}

impl ExpectedChecksum {
    /// The algorithm.
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        match self {
            Self::Header(value) => value.algorithm(),
            Self::Trailer(algorithm) => *algorithm,
        }
    }
}

/// What the client wants verified over the plaintext before anything is committed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BodyIntegrity {
    /// `Content-MD5`
    pub content_md5: Option<Md5Digest>,
    /// `x-amz-checksum-*`, in a header or announced as a trailer.
    pub checksum: Option<ExpectedChecksum>,
}

impl BodyIntegrity {
    /// The trailer that the body must end with, if one was announced.
    pub fn trailer_name(&self) -> Option<&'static str> {
        match self.checksum {
            Some(ExpectedChecksum::Trailer(algorithm)) => Some(algorithm.header_name()),
            _ => None,
        }
    }
}

/// Reads `Content-MD5`; `InvalidDigest` when it is not the base64 of 16 bytes.
pub fn parse_content_md5(text: &str) -> Result<Md5Digest, S3Error> {
    let bytes = BASE64.decode(text.trim()).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| S3Error::new(ErrorCode::InvalidDigest))
}

/// Computes what was asked for, and nothing else, while a body streams by.
pub struct BodyVerifier {
    md5: Option<(Md5, Md5Digest)>,
    payload_sha256: Option<[u8; 32]>,
    expected: Option<ExpectedChecksum>,
    hashers: Vec<Hasher>,
}

/// What was computed over a body that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The checksum that the client declared, if it did.
    pub checksum: Option<ChecksumValue>,
    computed: Vec<ChecksumValue>,
}

impl Verified {
    /// A value that was computed: the declared one, or one that was asked for with `also`.
    pub fn value(&self, algorithm: ChecksumAlgorithm) -> Option<ChecksumValue> {
        self.computed.iter().copied().find(|value| value.algorithm() == algorithm)
    }
}

impl BodyVerifier {
    /// Prepares what `integrity` and an exact payload hash demand, and the algorithms in `also`, which the caller
    /// wants to know.
    pub fn new(integrity: &BodyIntegrity, payload: &PayloadMode, also: &[ChecksumAlgorithm]) -> Self {
        let payload_sha256 = match payload {
            PayloadMode::Sha256(expected) => Some(*expected),
            _ => None,
        };
        let mut algorithms = also.to_vec();
        algorithms.extend(integrity.checksum.map(|expected| expected.algorithm()));
        algorithms.extend(payload_sha256.map(|_| ChecksumAlgorithm::Sha256));
        algorithms.sort_unstable();
        algorithms.dedup();
        Self {
            md5: integrity.content_md5.map(|expected| (Md5::new(), expected)),
            payload_sha256,
            expected: integrity.checksum,
            hashers: algorithms.into_iter().map(Hasher::new).collect(),
        }
    }

    /// Takes the next bytes of plaintext.
    pub fn update(&mut self, plaintext: &[u8]) {
        if let Some((md5, _)) = &mut self.md5 {
            md5.update(plaintext);
        }
        for hasher in &mut self.hashers {
            hasher.update(plaintext);
        }
    }

    /// The verdict at the end of the body: `BadDigest`, `XAmzContentSHA256Mismatch`, or `MalformedTrailerError` and
    /// `InvalidRequest` for a missing or unreadable trailer. Nothing may be committed unless this returns `Ok`.
    pub fn finish(self, trailers: Option<&Trailers>) -> Result<Verified, S3Error> {
        let computed: Vec<ChecksumValue> = self.hashers.into_iter().map(Hasher::finish).collect();
        let value_of = |algorithm| {
            let found = computed.iter().copied().find(|value: &ChecksumValue| value.algorithm() == algorithm);
            found.expect("new() made a hasher for every expected algorithm")
        };
        if let Some(expected) = self.payload_sha256 {
            let actual = value_of(ChecksumAlgorithm::Sha256);
            if !same(actual.as_bytes(), &expected) {
                return Err(payload_mismatch(&expected, actual.as_bytes()));
            }
        }
        if let Some((md5, expected)) = self.md5
            && !same(&md5.finalize(), &expected)
        {
            return Err(S3Error::new(ErrorCode::BadDigest)
                .with_message("The Content-MD5 you specified did not match what we received."));
        }
        let checksum = match self.expected {
            None => None,
            Some(ExpectedChecksum::Header(value)) => Some(value),
            Some(ExpectedChecksum::Trailer(algorithm)) => Some(from_trailer(algorithm, trailers)?),
        };
        if let Some(expected) = checksum
            && !same(value_of(expected.algorithm()).as_bytes(), expected.as_bytes())
        {
            return Err(S3Error::new(ErrorCode::BadDigest).with_message(format!(
                "The {} you specified did not match the calculated checksum.",
                expected.algorithm()
            )));
        }
        Ok(Verified { checksum, computed })
    }
}

impl fmt::Debug for BodyVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

fn from_trailer(algorithm: ChecksumAlgorithm, trailers: Option<&Trailers>) -> Result<ChecksumValue, S3Error> {
    let text = trailers.and_then(|trailers| trailers.get(algorithm.header_name()));
    ChecksumValue::parse(algorithm, text.ok_or_else(|| S3Error::new(ErrorCode::MalformedTrailerError))?)
}

fn payload_mismatch(expected: &[u8], actual: &[u8]) -> S3Error {
    S3Error::new(ErrorCode::XAmzContentSHA256Mismatch)
        .with_extra("ClientComputedContentSHA256", crate::sigv4::hex(expected))
        .with_extra("S3ComputedContentSHA256", crate::sigv4::hex(actual))
}

fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// One running checksum.
pub(super) enum Hasher {
    Crc(ChecksumAlgorithm, crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
    Sha512(Sha512),
    Md5(Md5),
    XxHash64(XxHash64),
    XxHash3(XxHash3_64),
    XxHash128(XxHash3_128),
}

impl Hasher {
    pub(super) fn new(algorithm: ChecksumAlgorithm) -> Self {
        use ChecksumAlgorithm as Algorithm;
        if let Some(crc) = crc_algorithm(algorithm) {
            return Self::Crc(algorithm, crc_fast::Digest::new(crc));
        }
        match algorithm {
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
            Algorithm::Md5 => Self::Md5(Md5::new()),
            Algorithm::XxHash64 => Self::XxHash64(XxHash64::with_seed(0)),
            Algorithm::XxHash3 => Self::XxHash3(XxHash3_64::new()),
            Algorithm::XxHash128 => Self::XxHash128(XxHash3_128::new()),
            // The CRCs were dealt with.
            Algorithm::Sha256 | Algorithm::Crc32 | Algorithm::Crc32c | Algorithm::Crc64Nvme => {
                Self::Sha256(Sha256::new())
            }
        }
    }

    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Crc(_, digest) => digest.update(data),
            Self::Sha1(digest) => digest.update(data),
            Self::Sha256(digest) => digest.update(data),
            Self::Sha512(digest) => digest.update(data),
            Self::Md5(digest) => digest.update(data),
            Self::XxHash64(digest) => digest.write(data),
            Self::XxHash3(digest) => digest.write(data),
            Self::XxHash128(digest) => digest.write(data),
        }
    }

    pub(super) fn finish(self) -> ChecksumValue {
        use ChecksumAlgorithm as Algorithm;
        let value = match self {
            Self::Crc(algorithm, digest) => ChecksumValue::from_crc(algorithm, digest.finalize()),
            Self::Sha1(digest) => ChecksumValue::from_bytes(Algorithm::Sha1, &digest.finalize()),
            Self::Sha256(digest) => ChecksumValue::from_bytes(Algorithm::Sha256, &digest.finalize()),
            Self::Sha512(digest) => ChecksumValue::from_bytes(Algorithm::Sha512, &digest.finalize()),
            Self::Md5(digest) => ChecksumValue::from_bytes(Algorithm::Md5, &digest.finalize()),
            // As numbers they are written with the high byte first.
            Self::XxHash64(digest) => {
                ChecksumValue::from_bytes(Algorithm::XxHash64, &digest.finish().to_be_bytes())
            }
            Self::XxHash3(digest) => {
                ChecksumValue::from_bytes(Algorithm::XxHash3, &digest.finish().to_be_bytes())
            }
            Self::XxHash128(digest) => {
                ChecksumValue::from_bytes(Algorithm::XxHash128, &digest.finish_128().to_be_bytes())
            }
        };
        value.expect("each hasher yields as many bytes as its algorithm has")
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: &[u8] = b"123456789";

    fn verify(integrity: BodyIntegrity, payload: &PayloadMode, body: &[u8]) -> Result<Verified, S3Error> {
        let mut verifier = BodyVerifier::new(&integrity, payload, &[]);
        body.chunks(4).for_each(|piece| verifier.update(piece));
        verifier.finish(None)
    }

    #[test]
    fn each_algorithm_yields_its_published_check_value() {
        let expected = [
            (ChecksumAlgorithm::Crc32, "cbf43926"),
            (ChecksumAlgorithm::Crc32c, "e3069283"),
            (ChecksumAlgorithm::Crc64Nvme, "ae8b14860a799888"),
            (ChecksumAlgorithm::Sha1, "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
            (ChecksumAlgorithm::Sha256, "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225"),
            (
                ChecksumAlgorithm::Sha512,
                "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274ad27fcd5811b313d681f7e55ec02d73d499c95455b6\
                 b5bb503acf574fba8ffe85",
            ),
            (ChecksumAlgorithm::Md5, "25f9e794323b453885f5181f1b624d0b"),
            (ChecksumAlgorithm::XxHash64, "8cb841db40e6ae83"),
            (ChecksumAlgorithm::XxHash3, "72dcb18b67a17dff"),
            (ChecksumAlgorithm::XxHash128, "33119477ede5dcd5e9716427681d5860"),
        ];
        assert_eq!(expected.len(), ChecksumAlgorithm::ALL.len());
        let mut verifier =
            BodyVerifier::new(&BodyIntegrity::default(), &PayloadMode::Unsigned, ChecksumAlgorithm::ALL);
        CHECK.chunks(2).for_each(|piece| verifier.update(piece));
        let verified = verifier.finish(None).unwrap();
        for (algorithm, hex) in expected {
            assert_eq!(crate::sigv4::hex(verified.value(algorithm).unwrap().as_bytes()), hex);
        }
    }

    #[test]
    fn hashes_of_more_than_one_block_are_those_of_the_reference() {
        // Made with the reference implementation of xxHash (0.8.3).
        let data: Vec<u8> = (0..5000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for (algorithm, hex) in [
            (ChecksumAlgorithm::XxHash64, "a6833d648fd6a332"),
            (ChecksumAlgorithm::XxHash3, "b418500fc42320ee"),
            (ChecksumAlgorithm::XxHash128, "b92ec02c39d33ce7b418500fc42320ee"),
        ] {
            for piece_len in [1, 63, 300, 5000] {
                let mut hasher = Hasher::new(algorithm);
                data.chunks(piece_len).for_each(|piece| hasher.update(piece));
                assert_eq!(crate::sigv4::hex(hasher.finish().as_bytes()), hex, "{algorithm} in {piece_len}");
            }
        }
    }

    #[test]
    fn a_wrong_md5_is_a_bad_digest() {
        let md5 = parse_content_md5("JfnnlDI7RTiF9RgfG2JNCw==").unwrap();
        let integrity = BodyIntegrity { content_md5: Some(md5), checksum: None };
        assert!(verify(integrity, &PayloadMode::Unsigned, CHECK).is_ok());
        let error = verify(integrity, &PayloadMode::Unsigned, b"12345678").unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadDigest);
        for text in ["", "JfnnlDI7RTiF9RgfG2JN", "not base64"] {
            assert_eq!(parse_content_md5(text).unwrap_err().code(), ErrorCode::InvalidDigest);
        }
    }

    #[test]
    fn a_wrong_checksum_header_is_a_bad_digest() {
        let value = ChecksumValue::from_crc(ChecksumAlgorithm::Crc32c, 0xe306_9283).unwrap();
        let checksum = Some(ExpectedChecksum::Header(value));
        let integrity = BodyIntegrity { content_md5: None, checksum };
        let verified = verify(integrity, &PayloadMode::Unsigned, CHECK).unwrap();
        assert_eq!(
            (verified.checksum, verified.value(ChecksumAlgorithm::Crc32c)),
            (Some(value), Some(value))
        );
        let error = verify(integrity, &PayloadMode::Unsigned, b"x").unwrap_err();
        assert_eq!(error.code(), ErrorCode::BadDigest);
    }

    #[test]
    fn a_wrong_payload_hash_is_named() {
        let payload = PayloadMode::Sha256(Sha256::digest(CHECK).into());
        assert!(verify(BodyIntegrity::default(), &payload, CHECK).is_ok());
        let error = verify(BodyIntegrity::default(), &payload, b"").unwrap_err();
        assert_eq!(error.code(), ErrorCode::XAmzContentSHA256Mismatch);
    }

    #[test]
    fn an_announced_trailer_has_to_come() {
        let checksum = Some(ExpectedChecksum::Trailer(ChecksumAlgorithm::Crc32));
        let integrity = BodyIntegrity { content_md5: None, checksum };
        let error = verify(integrity, &PayloadMode::UnsignedChunksTrailer, CHECK).unwrap_err();
        assert_eq!(error.code(), ErrorCode::MalformedTrailerError);
    }
}
