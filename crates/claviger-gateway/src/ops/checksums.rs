//! Checksums between the words of S3 and those of the format (docs/format.md §3.4, §7.4).

use claviger_format::checksum::{Algo, Checksum, ChecksumType as FormatType};
use claviger_format::footer::FooterInfo;
use claviger_s3::checksum::{ChecksumAlgorithm, ChecksumType, ChecksumValue, ObjectChecksum};
use http::header::{HeaderMap, HeaderName};

use super::reply;

/// The format's code of an algorithm.
pub(crate) fn algo(algorithm: ChecksumAlgorithm) -> Algo {
    match algorithm {
        ChecksumAlgorithm::Crc32 => Algo::Crc32,
        ChecksumAlgorithm::Crc32c => Algo::Crc32c,
        ChecksumAlgorithm::Crc64Nvme => Algo::Crc64Nvme,
        ChecksumAlgorithm::Sha1 => Algo::Sha1,
        ChecksumAlgorithm::Sha256 => Algo::Sha256,
        ChecksumAlgorithm::Sha512 => Algo::Sha512,
        ChecksumAlgorithm::Md5 => Algo::Md5,
        ChecksumAlgorithm::XxHash64 => Algo::XxHash64,
        ChecksumAlgorithm::XxHash3 => Algo::XxHash3,
        ChecksumAlgorithm::XxHash128 => Algo::XxHash128,
    }
}

/// The algorithm behind a code.
pub(crate) fn algorithm(algo: Algo) -> ChecksumAlgorithm {
    match algo {
        Algo::Crc32 => ChecksumAlgorithm::Crc32,
        Algo::Crc32c => ChecksumAlgorithm::Crc32c,
        Algo::Crc64Nvme => ChecksumAlgorithm::Crc64Nvme,
        Algo::Sha1 => ChecksumAlgorithm::Sha1,
        Algo::Sha256 => ChecksumAlgorithm::Sha256,
        Algo::Sha512 => ChecksumAlgorithm::Sha512,
        Algo::Md5 => ChecksumAlgorithm::Md5,
        Algo::XxHash64 => ChecksumAlgorithm::XxHash64,
        Algo::XxHash3 => ChecksumAlgorithm::XxHash3,
        Algo::XxHash128 => ChecksumAlgorithm::XxHash128,
    }
}

/// S3's type of a checksum in the format's.
pub(crate) fn format_type(checksum_type: ChecksumType) -> FormatType {
    match checksum_type {
        ChecksumType::FullObject => FormatType::FullObject,
        ChecksumType::Composite => FormatType::Composite,
    }
}

/// The format's type of a checksum in S3's.
pub(crate) fn s3_type(checksum_type: FormatType) -> ChecksumType {
    match checksum_type {
        FormatType::FullObject => ChecksumType::FullObject,
        FormatType::Composite => ChecksumType::Composite,
    }
}

/// For the footer or the envelope.
pub(crate) fn to_format(checksum: &ObjectChecksum) -> Checksum {
    let (algo, value) = (algo(checksum.value.algorithm()), checksum.value.as_bytes());
    match checksum.part_count {
        Some(parts) => Checksum::composite(algo, value, parts),
        None => Checksum::full_object(algo, value),
    }
    .expect("a checksum value has its algorithm's length")
}

/// For headers and XML; `None` for a value that is none, which the format excludes.
pub(crate) fn to_s3(checksum: &Checksum) -> Option<ObjectChecksum> {
    let value = ChecksumValue::from_bytes(algorithm(checksum.algo()), checksum.value())?;
    let part_count = (checksum.ty() == FormatType::Composite).then(|| checksum.composite_parts());
    Some(ObjectChecksum { value, part_count })
}

/// What an object's footer says: the client's checksum, or else the CRC64NVME that the gateway always computes, as S3
/// does for objects that came without one.
pub(crate) fn of_footer(info: &FooterInfo) -> Option<ObjectChecksum> {
    match &info.checksum {
        Some(checksum) => to_s3(checksum),
        None => ChecksumValue::from_crc(ChecksumAlgorithm::Crc64Nvme, info.crc64?).map(ObjectChecksum::full),
    }
}

/// Sets `x-amz-checksum-…` and its type.
pub(crate) fn set_headers(headers: &mut HeaderMap, checksum: &ObjectChecksum) {
    let name = HeaderName::from_static(checksum.value.algorithm().header_name());
    reply::set(headers, name, &checksum.to_text());
    let name = HeaderName::from_static("x-amz-checksum-type");
    reply::set(headers, name, checksum.checksum_type().as_str());
}
