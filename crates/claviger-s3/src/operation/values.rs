//! Values that several operations share.

use super::acl::AclHeaders;
use super::build::{OF_THE_SOURCE, read_conditions};
use super::classify::shortened;
use super::fields::Fields;
use super::inputs::{BodyHead, CopySource, ObjectHeaders, StorageClass, TaggingDirective};
use crate::checksum::{
    BodyIntegrity, ChecksumAlgorithm, ChecksumType, ChecksumValue, ExpectedChecksum, Md5Digest,
    ObjectChecksum, parse_content_md5,
};
use crate::conditions::{EtagCondition, WriteCondition, WriteTag};
use crate::error::{ErrorCode, S3Error};
use crate::header::{SystemHeaders, UserMetadata, content_encoding_without_aws_chunked};
use crate::lock::{LegalHold, LockHeaders, LockMode, RetainUntil, Retention};
use crate::name::{BucketName, ObjectKey};
use crate::tagging::TagSet;
use crate::timestamp::parse_http_date;
use crate::uri::decode_path;
use crate::version::VersionId;

const STORAGE_CLASSES: &[&str] = &[
    "STANDARD",
    "DEEP_ARCHIVE",
    "EXPRESS_ONEZONE",
    "FSX_ONTAP",
    "FSX_OPENZFS",
    "GLACIER",
    "GLACIER_IR",
    "INTELLIGENT_TIERING",
    "ONEZONE_IA",
    "OUTPOSTS",
    "REDUCED_REDUNDANCY",
    "SNOW",
    "STANDARD_IA",
];

/// Content headers, user metadata, storage class, SSE-S3.
pub(super) fn object_headers(f: &Fields<'_>) -> Result<ObjectHeaders, S3Error> {
    let sse_s3 = check_harmless(f)?;
    let storage_class = match f.header_non_empty("x-amz-storage-class")? {
        None => None,
        Some(text) => {
            let class = STORAGE_CLASSES.iter().find(|class| **class == text);
            Some(StorageClass(class.ok_or_else(|| S3Error::new(ErrorCode::InvalidStorageClass))?))
        }
    };
    Ok(ObjectHeaders {
        system: system_headers(f)?,
        user_metadata: user_metadata(f)?,
        storage_class,
        acl: AclHeaders::read(f)?,
        tags: TagSet::parse_header(&f.header("x-amz-tagging")?.unwrap_or_default())?,
        lock: lock_headers(f)?,
        sse_s3,
    })
}

/// As [`check_harmless`], for the requests of an upload behind its first, where an ACL says nothing any more.
pub(super) fn check_harmless_in_upload(f: &Fields<'_>) -> Result<(), S3Error> {
    check_harmless(f)?;
    match f.header_non_empty("x-amz-acl")?.filter(|value| value != "private") {
        None => Ok(()),
        Some(value) => Err(S3Error::not_implemented(format!(
            "x-amz-acl: {} is not implemented here, only private is.",
            shortened(&value)
        ))),
    }
}

/// Refuses the values of tolerated headers that would change something, and gives whether SSE-S3 was asked for.
pub(super) fn check_harmless(f: &Fields<'_>) -> Result<bool, S3Error> {
    const ALLOWED: &[(&str, &str)] = &[
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-bucket-key-enabled", "false"),
    ];
    for (name, allowed) in ALLOWED {
        if let Some(value) = f.header_non_empty(name)?.filter(|value| !value.eq_ignore_ascii_case(allowed)) {
            return Err(S3Error::not_implemented(format!(
                "{name}: {} is not implemented, only {allowed} is.",
                shortened(&value)
            )));
        }
    }
    Ok(f.header_non_empty("x-amz-server-side-encryption")?.is_some())
}

/// `x-amz-object-ownership` of a new bucket.
pub(super) fn object_ownership(f: &Fields<'_>) -> Result<Option<&'static str>, S3Error> {
    const NAME: &str = "x-amz-object-ownership";
    const VALUES: &[&str] = &["BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter"];
    let Some(sent) = f.header_non_empty(NAME)? else { return Ok(None) };
    match VALUES.iter().find(|value| **value == sent) {
        Some(value) => Ok(Some(value)),
        None => {
            Err(S3Error::invalid_argument(NAME, &shortened(&sent), "Invalid x-amz-object-ownership header"))
        }
    }
}

fn system_headers(f: &Fields<'_>) -> Result<SystemHeaders, S3Error> {
    let encoding = f.header_non_empty("content-encoding")?;
    Ok(SystemHeaders {
        content_type: f.header_non_empty("content-type")?,
        cache_control: f.header_non_empty("cache-control")?,
        content_disposition: f.header_non_empty("content-disposition")?,
        content_encoding: encoding.and_then(|value| content_encoding_without_aws_chunked(&value)),
        content_language: f.header_non_empty("content-language")?,
        expires: f.header_non_empty("expires")?,
    })
}

fn user_metadata(f: &Fields<'_>) -> Result<UserMetadata, S3Error> {
    let mut pairs = Vec::new();
    for name in f.amz_names() {
        if let Some(short) = name.strip_prefix("x-amz-meta-") {
            pairs.push((short.to_owned(), f.header(name)?.unwrap_or_default()));
        }
    }
    Ok(UserMetadata::from_pairs(pairs))
}

/// Lengths and checksums of a body.
pub(super) fn body_head(f: &Fields<'_>) -> Result<BodyHead, S3Error> {
    let number = |name: &str| f.header_non_empty(name)?.map(|text| length(name, &text)).transpose();
    Ok(BodyHead {
        content_length: number("content-length")?,
        decoded_content_length: number("x-amz-decoded-content-length")?,
        integrity: BodyIntegrity { content_md5: content_md5(f)?, checksum: expected_checksum(f)? },
    })
}

pub(super) fn content_md5(f: &Fields<'_>) -> Result<Option<Md5Digest>, S3Error> {
    f.header("content-md5")?.map(|text| parse_content_md5(&text)).transpose()
}

/// The one checksum of a body, in a header or announced as a trailer, checked against the algorithm that the SDK says it
/// used.
fn expected_checksum(f: &Fields<'_>) -> Result<Option<ExpectedChecksum>, S3Error> {
    const SDK: &str = "x-amz-sdk-checksum-algorithm";
    let header = match checksum_header(f)? {
        None => None,
        Some((algorithm, text)) => Some(ExpectedChecksum::Header(ChecksumValue::parse(algorithm, &text)?)),
    };
    let expected = match (header, trailer(f)?) {
        (Some(_), Some(_)) => return Err(several_checksums()),
        (header, trailer) => header.or(trailer.map(ExpectedChecksum::Trailer)),
    };
    let Some(name) = f.header_non_empty(SDK)? else { return Ok(expected) };
    let announced = ChecksumAlgorithm::from_name(&name).ok_or_else(|| {
        S3Error::new(ErrorCode::InvalidRequest).with_message(
            "Checksum algorithm provided is unsupported. Please try again with a supported algorithm.",
        )
    })?;
    match expected {
        Some(expected) if expected.algorithm() == announced => Ok(Some(expected)),
        Some(_) => Err(S3Error::new(ErrorCode::InvalidRequest)
            .with_message("Value for x-amz-sdk-checksum-algorithm header is invalid.")),
        // A presigned URL may name the algorithm before the body exists.
        None if !f.was_sent(SDK) => Ok(None),
        None => Err(S3Error::new(ErrorCode::InvalidRequest).with_message(
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers \
             were found.",
        )),
    }
}

/// The only `x-amz-checksum-<algorithm>` header.
///
/// A presigning SDK has no body yet and signs the checksum of nothing into the URL; S3 itself ignores checksums in a
/// query (docs/decisions: presigned checksums). Here only that one value is ignored, any other one is verified.
fn checksum_header(f: &Fields<'_>) -> Result<Option<(ChecksumAlgorithm, String)>, S3Error> {
    let mut found = None;
    for &algorithm in ChecksumAlgorithm::ALL {
        let name = algorithm.header_name();
        if let Some(text) = f.header(name)?
            && (f.was_sent(name) || text != ChecksumValue::of_nothing(algorithm).to_base64())
            && found.replace((algorithm, text)).is_some()
        {
            return Err(several_checksums());
        }
    }
    Ok(found)
}

fn several_checksums() -> S3Error {
    S3Error::new(ErrorCode::InvalidRequest)
        .with_message("Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
}

fn trailer(f: &Fields<'_>) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    let Some(names) = f.header_non_empty("x-amz-trailer")? else { return Ok(None) };
    let algorithm = ChecksumAlgorithm::from_header_name(&names.to_ascii_lowercase());
    algorithm.map(Some).ok_or_else(|| {
        S3Error::new(ErrorCode::InvalidRequest)
            .with_message("The value specified in the x-amz-trailer header is not supported")
    })
}

/// The checksum that Complete claims for the whole object.
pub(super) fn object_checksum(f: &Fields<'_>) -> Result<Option<ObjectChecksum>, S3Error> {
    let header = checksum_header(f)?;
    header.map(|(algorithm, text)| ObjectChecksum::parse(algorithm, &text)).transpose()
}

pub(super) fn checksum_algorithm(f: &Fields<'_>) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    let Some(name) = f.header_non_empty("x-amz-checksum-algorithm")? else { return Ok(None) };
    ChecksumAlgorithm::from_name(&name).map(Some).ok_or_else(|| {
        S3Error::new(ErrorCode::InvalidRequest).with_message(
            "Checksum algorithm provided is unsupported. Please try again with a supported algorithm.",
        )
    })
}

pub(super) fn checksum_type(f: &Fields<'_>) -> Result<Option<ChecksumType>, S3Error> {
    let Some(name) = f.header_non_empty("x-amz-checksum-type")? else { return Ok(None) };
    ChecksumType::from_name(&name).map(Some).ok_or_else(|| {
        S3Error::new(ErrorCode::InvalidRequest)
            .with_message("Value for x-amz-checksum-type header is invalid.")
    })
}

/// `x-amz-copy-source` and its conditions. A plus stands for itself, as in a path.
pub(super) fn copy_source(f: &Fields<'_>) -> Result<CopySource, S3Error> {
    const NAME: &str = "x-amz-copy-source";
    let text = f.header(NAME)?.unwrap_or_default();
    let (path, version) = match text.split_once("?versionId=") {
        Some((path, version)) => (path, Some(version)),
        None => (text.as_str(), None),
    };
    let decoded = decode_path(path).map_err(|_| {
        S3Error::invalid_argument(NAME, &shortened(&text), "Copy Source must be URL-encoded UTF-8.")
    })?;
    if decoded.starts_with("arn:") {
        return Err(S3Error::not_implemented("Access points are not implemented as a copy source."));
    }
    let trimmed = decoded.strip_prefix('/').unwrap_or(&decoded);
    let (bucket, key) = trimmed.split_once('/').filter(|(_, key)| !key.is_empty()).ok_or_else(|| {
        S3Error::invalid_argument(
            NAME,
            &shortened(&text),
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
        )
    })?;
    let version = version.map(decode_path).transpose()?;
    let version = version.map(|version| VersionId::parse(&version)).transpose()?;
    Ok(CopySource {
        bucket: BucketName::parse(bucket)?,
        key: ObjectKey::parse(key.to_owned())?,
        version,
        conditions: read_conditions(f, &OF_THE_SOURCE)?,
    })
}

/// `versionId`
pub(super) fn version_id(f: &Fields<'_>) -> Result<Option<VersionId>, S3Error> {
    f.query("versionId").map(VersionId::parse).transpose()
}

/// `x-amz-bypass-governance-retention`
pub(super) fn bypass_governance(f: &Fields<'_>) -> Result<bool, S3Error> {
    boolean(f, "x-amz-bypass-governance-retention")
}

/// A header that says `true` or `false`; `false` when it is missing.
pub(super) fn boolean(f: &Fields<'_>, name: &str) -> Result<bool, S3Error> {
    match f.header_non_empty(name)? {
        None => Ok(false),
        Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(text) => {
            Err(S3Error::invalid_argument(name, &shortened(&text), "The value has to be true or false."))
        }
    }
}

/// `x-amz-tagging-directive`
pub(super) fn tagging_directive(f: &Fields<'_>) -> Result<TaggingDirective, S3Error> {
    const NAME: &str = "x-amz-tagging-directive";
    match f.header_non_empty(NAME)?.as_deref() {
        None | Some("COPY") => Ok(TaggingDirective::Copy),
        Some("REPLACE") => Ok(TaggingDirective::Replace),
        Some(other) => Err(S3Error::invalid_argument(NAME, &shortened(other), "Unknown tagging directive.")),
    }
}

/// `x-amz-object-lock-*`: `InvalidArgument` for what S3 does not know, and for one half of a retention.
fn lock_headers(f: &Fields<'_>) -> Result<LockHeaders, S3Error> {
    const MODE: &str = "x-amz-object-lock-mode";
    const UNTIL: &str = "x-amz-object-lock-retain-until-date";
    const HOLD: &str = "x-amz-object-lock-legal-hold";
    let invalid =
        |name: &str, text: &str, why: &'static str| S3Error::invalid_argument(name, &shortened(text), why);
    let retention = match (f.header_non_empty(MODE)?, f.header_non_empty(UNTIL)?) {
        (None, None) => None,
        (Some(mode), Some(until)) => Some(Retention {
            mode: LockMode::from_name(&mode)
                .ok_or_else(|| invalid(MODE, &mode, "Unknown wormMode directive."))?,
            until: RetainUntil::parse(&until).ok_or_else(|| {
                invalid(UNTIL, &until, "The retain until date must be provided in ISO 8601 format")
            })?,
        }),
        (mode, _) => {
            let missing = if mode.is_some() { UNTIL } else { MODE };
            let why = "x-amz-object-lock-retain-until-date and x-amz-object-lock-mode must both be supplied";
            return Err(invalid(missing, "", why));
        }
    };
    let legal_hold = match f.header_non_empty(HOLD)? {
        None => None,
        Some(text) => Some(
            LegalHold::from_name(&text)
                .ok_or_else(|| invalid(HOLD, &text, "Legal Hold must be either of 'ON' or 'OFF'"))?,
        ),
    };
    Ok(LockHeaders { retention, legal_hold })
}

/// `If-None-Match: *` or `If-Match` with one tag: what stores can do for a write.
pub(super) fn write_condition(f: &Fields<'_>) -> Result<Option<WriteCondition>, S3Error> {
    refuse_conditions(f, &["if-modified-since", "if-unmodified-since"])?;
    let refused = || {
        Err(S3Error::not_implemented(
            "Writes are conditional by If-None-Match or If-Match with * or one entity tag.",
        ))
    };
    let single = |condition| match condition {
        EtagCondition::Any => Some(WriteTag::Any),
        EtagCondition::Tags(tags) => <[_; 1]>::try_from(tags).ok().map(|[tag]| WriteTag::Tag(tag)),
    };
    let condition = match (etag_condition(f, "if-match")?, etag_condition(f, "if-none-match")?) {
        (None, None) => return Ok(None),
        (None, Some(condition)) => single(condition).map(WriteCondition::IfNoneMatch),
        (Some(condition), None) => single(condition).map(WriteCondition::IfMatch),
        (Some(_), Some(_)) => None,
    };
    condition.map_or_else(refused, |condition| Ok(Some(condition)))
}

/// Conditions that would be ignored are refused: a write must not happen in spite of one.
pub(super) fn refuse_conditions(f: &Fields<'_>, names: &[&str]) -> Result<(), S3Error> {
    match names.iter().find(|name| f.has_header(name)) {
        None => Ok(()),
        Some(name) => Err(S3Error::not_implemented(format!("{name} is not implemented for this operation."))
            .with_extra("Header", *name)),
    }
}

pub(super) fn etag_condition(f: &Fields<'_>, name: &str) -> Result<Option<EtagCondition>, S3Error> {
    let Some(text) = f.header_non_empty(name)? else { return Ok(None) };
    EtagCondition::parse(&text)
        .map(Some)
        .ok_or_else(|| S3Error::invalid_argument(name, &shortened(&text), "The entity tag is not valid."))
}

pub(super) fn http_time(f: &Fields<'_>, name: &str) -> Result<Option<u64>, S3Error> {
    Ok(f.header_non_empty(name)?.and_then(|text| parse_http_date(&text)))
}

/// 1 to 10,000.
pub(super) fn part_number(text: &str) -> Result<u16, S3Error> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| is_number && (1..=10_000).contains(number));
    number.ok_or_else(|| {
        S3Error::invalid_argument(
            "partNumber",
            &shortened(text),
            "Part number must be an integer between 1 and 10000, inclusive",
        )
    })
}

/// A page size: 0 up to the 31-bit range, cut to `most`; `most` when it is missing or empty.
pub(super) fn limit(f: &Fields<'_>, name: &str, most: u32) -> Result<u32, S3Error> {
    let Some(text) = f.query_non_empty(name) else { return Ok(most) };
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i32>().ok().filter(|_| is_number).and_then(|number| u32::try_from(number).ok()) {
        Some(number) => Ok(number.min(most)),
        None => Err(S3Error::invalid_argument(
            name,
            &shortened(&text),
            format!("Provided {name} not an integer or within integer range"),
        )),
    }
}

/// A length in bytes or another plain number.
pub(super) fn length(name: &str, text: &str) -> Result<u64, S3Error> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| {
        S3Error::invalid_argument(
            name,
            &shortened(text),
            "The value is not a number in the range of 64 bits.",
        )
    })
}
