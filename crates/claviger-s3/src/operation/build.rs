//! The typed inputs of each operation from the fields of a request.

use super::acl::AclHeaders;
use super::classify::{Names, shortened};
use super::configuration::{Configuration, Subresource};
use super::fields::Fields;
use super::inputs::*;
use super::values::{
    body_head, bypass_governance, checksum_algorithm, checksum_type, content_md5, copy_source,
    etag_condition, http_time, length, limit, object_checksum, object_headers, part_number,
    refuse_conditions, tagging_directive, version_id, write_condition,
};
use super::{Operation, OperationKind};
use crate::checksum::BodyIntegrity;
use crate::conditions::{IfRange, ReadConditions};
use crate::error::{ErrorCode, S3Error};
use crate::header::SystemHeaders;
use crate::name::{BucketName, ObjectKey};
use crate::post_form::Boundary;
use crate::range::RangeSpec;
use crate::version::VersionId;

pub(super) fn operation(kind: OperationKind, names: Names, f: &Fields<'_>) -> Result<Operation, S3Error> {
    use OperationKind as Kind;
    if Subresource::of(kind).is_some() {
        return Ok(Operation::Configuration(Box::new(Configuration::read(kind, names, f)?)));
    }
    let Names { bucket, key } = names;
    let Some(bucket) = bucket else { return list_buckets(f).map(Operation::ListBuckets) };
    let Some(key) = key else { return on_bucket(kind, bucket, f) };
    Ok(match kind {
        Kind::PutObject => Operation::PutObject(Box::new(put_object(bucket, key, f)?)),
        Kind::GetObject => Operation::GetObject(Box::new(get_object(bucket, key, f)?)),
        Kind::HeadObject => Operation::HeadObject(Box::new(get_object(bucket, key, f)?)),
        Kind::DeleteObject => Operation::DeleteObject(delete_object(bucket, key, f)?),
        Kind::CopyObject => Operation::CopyObject(Box::new(copy_object(bucket, key, f)?)),
        Kind::GetObjectAttributes => Operation::GetObjectAttributes(get_attributes(bucket, key, f)?),
        Kind::GetObjectTagging => Operation::GetObjectTagging(object_version(bucket, key, f)?),
        Kind::PutObjectTagging => Operation::PutObjectTagging(object_document(bucket, key, f)?),
        Kind::DeleteObjectTagging => Operation::DeleteObjectTagging(object_version(bucket, key, f)?),
        Kind::GetObjectRetention => Operation::GetObjectRetention(object_version(bucket, key, f)?),
        Kind::PutObjectRetention => Operation::PutObjectRetention(object_document(bucket, key, f)?),
        Kind::GetObjectLegalHold => Operation::GetObjectLegalHold(object_version(bucket, key, f)?),
        Kind::PutObjectLegalHold => Operation::PutObjectLegalHold(object_document(bucket, key, f)?),
        Kind::CreateMultipartUpload => {
            Operation::CreateMultipartUpload(Box::new(create_multipart(bucket, key, f)?))
        }
        Kind::UploadPart => Operation::UploadPart(upload_part(bucket, key, f)?),
        Kind::UploadPartCopy => Operation::UploadPartCopy(Box::new(upload_part_copy(bucket, key, f)?)),
        Kind::CompleteMultipartUpload => {
            Operation::CompleteMultipartUpload(Box::new(complete_multipart(bucket, key, f)?))
        }
        Kind::AbortMultipartUpload => {
            Operation::AbortMultipartUpload(AbortMultipartUpload { bucket, key, upload_id: upload_id(f)? })
        }
        Kind::ListParts => Operation::ListParts(list_parts(bucket, key, f)?),
        _ => return Err(ErrorCode::InternalError.into()),
    })
}

fn on_bucket(kind: OperationKind, bucket: BucketName, f: &Fields<'_>) -> Result<Operation, S3Error> {
    use OperationKind as Kind;
    Ok(match kind {
        Kind::CreateBucket => Operation::CreateBucket(create_bucket(bucket, f)?),
        Kind::HeadBucket => Operation::HeadBucket(BucketOnly { bucket }),
        Kind::DeleteBucket => Operation::DeleteBucket(BucketOnly { bucket }),
        Kind::GetBucketLocation => Operation::GetBucketLocation(BucketOnly { bucket }),
        Kind::GetBucketVersioning => Operation::GetBucketVersioning(BucketOnly { bucket }),
        Kind::PutBucketVersioning => {
            Operation::PutBucketVersioning(BucketDocument { bucket, body: body_head(f)? })
        }
        Kind::GetObjectLockConfiguration => Operation::GetObjectLockConfiguration(BucketOnly { bucket }),
        Kind::PutObjectLockConfiguration => {
            Operation::PutObjectLockConfiguration(BucketDocument { bucket, body: body_head(f)? })
        }
        Kind::ListObjects => Operation::ListObjects(list_objects(bucket, f)?),
        Kind::ListObjectsV2 => Operation::ListObjectsV2(list_objects_v2(bucket, f)?),
        Kind::ListObjectVersions => Operation::ListObjectVersions(list_versions(bucket, f)?),
        Kind::ListMultipartUploads => Operation::ListMultipartUploads(list_uploads(bucket, f)?),
        Kind::DeleteObjects => Operation::DeleteObjects(DeleteObjects {
            bucket,
            body: body_head(f)?,
            bypass_governance: bypass_governance(f)?,
        }),
        Kind::PostObject => Operation::PostObject(post_object(bucket, f)?),
        _ => return Err(ErrorCode::InternalError.into()),
    })
}

fn object_version(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<ObjectVersion, S3Error> {
    Ok(ObjectVersion { bucket, key, version: version_id(f)? })
}

fn object_document(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<ObjectDocument, S3Error> {
    Ok(ObjectDocument {
        bucket,
        key,
        version: version_id(f)?,
        bypass_governance: bypass_governance(f)?,
        body: body_head(f)?,
    })
}

fn list_buckets(f: &Fields<'_>) -> Result<ListBuckets, S3Error> {
    let max_buckets = limit(f, "max-buckets", 10_000)?;
    if max_buckets == 0 {
        return Err(S3Error::invalid_argument("max-buckets", "0", "max-buckets must be between 1 and 10000"));
    }
    Ok(ListBuckets {
        prefix: f.query_string("prefix"),
        max_buckets,
        continuation_token: f.query_non_empty("continuation-token"),
    })
}

fn create_bucket(bucket: BucketName, f: &Fields<'_>) -> Result<CreateBucket, S3Error> {
    super::values::check_harmless(f)?;
    let (acl, object_ownership) = (AclHeaders::read(f)?, super::values::object_ownership(f)?);
    let object_lock = super::values::boolean(f, "x-amz-bucket-object-lock-enabled")?;
    Ok(CreateBucket { bucket, acl, object_ownership, object_lock, body: body_head(f)? })
}

fn encoding_type(f: &Fields<'_>) -> Result<Option<EncodingType>, S3Error> {
    match f.query("encoding-type") {
        None => Ok(None),
        Some("url") => Ok(Some(EncodingType::Url)),
        Some(other) => Err(S3Error::invalid_argument(
            "encoding-type",
            other,
            "Invalid Encoding Method specified in Request",
        )),
    }
}

fn list_objects(bucket: BucketName, f: &Fields<'_>) -> Result<ListObjects, S3Error> {
    unordered_without_delimiter(f)?;
    Ok(ListObjects {
        bucket,
        prefix: f.query_string("prefix"),
        delimiter: f.query_non_empty("delimiter"),
        marker: f.query_string("marker"),
        max_keys: limit(f, "max-keys", 1000)?,
        encoding_type: encoding_type(f)?,
    })
}

/// Ceph's `allow-unordered`: an ordered listing is one of those that it allows. With a delimiter Ceph refuses it.
fn unordered_without_delimiter(f: &Fields<'_>) -> Result<(), S3Error> {
    let unordered = f.query("allow-unordered").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if unordered && f.query_non_empty("delimiter").is_some() {
        let text = "An unordered listing can't have a delimiter.";
        return Err(S3Error::invalid_argument("allow-unordered", "true", text));
    }
    Ok(())
}

fn list_objects_v2(bucket: BucketName, f: &Fields<'_>) -> Result<ListObjectsV2, S3Error> {
    unordered_without_delimiter(f)?;
    Ok(ListObjectsV2 {
        bucket,
        prefix: f.query_string("prefix"),
        delimiter: f.query_non_empty("delimiter"),
        start_after: f.query_non_empty("start-after"),
        continuation_token: f.query("continuation-token").map(str::to_owned),
        max_keys: limit(f, "max-keys", 1000)?,
        fetch_owner: f.query("fetch-owner").is_some_and(|value| value.eq_ignore_ascii_case("true")),
        encoding_type: encoding_type(f)?,
    })
}

fn list_versions(bucket: BucketName, f: &Fields<'_>) -> Result<ListObjectVersions, S3Error> {
    const MARKER: &str = "version-id-marker";
    let key_marker = f.query_string("key-marker");
    let version_id_marker = f.query_non_empty(MARKER);
    if key_marker.is_empty()
        && let Some(marker) = &version_id_marker
    {
        let text = "A version-id marker cannot be specified without a key marker.";
        return Err(S3Error::invalid_argument(MARKER, &shortened(marker), text));
    }
    Ok(ListObjectVersions {
        bucket,
        prefix: f.query_string("prefix"),
        delimiter: f.query_non_empty("delimiter"),
        key_marker,
        version_id_marker: version_id_marker.map(|marker| VersionId::parse(&marker)).transpose()?,
        max_keys: limit(f, "max-keys", 1000)?,
        encoding_type: encoding_type(f)?,
    })
}

fn list_uploads(bucket: BucketName, f: &Fields<'_>) -> Result<ListMultipartUploads, S3Error> {
    Ok(ListMultipartUploads {
        bucket,
        prefix: f.query_string("prefix"),
        delimiter: f.query_non_empty("delimiter"),
        key_marker: f.query_string("key-marker"),
        upload_id_marker: f.query_string("upload-id-marker"),
        max_uploads: limit(f, "max-uploads", 1000)?,
        encoding_type: encoding_type(f)?,
    })
}

fn post_object(bucket: BucketName, f: &Fields<'_>) -> Result<PostObject, S3Error> {
    const CONDITIONS: &[&str] = &["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
    refuse_conditions(f, CONDITIONS)?;
    refuse_content_range(f)?;
    let boundary = Boundary::of(f.head())?;
    let text = f.header_non_empty("content-length")?;
    let text = text.ok_or_else(|| S3Error::new(ErrorCode::MissingContentLength))?;
    Ok(PostObject { bucket, boundary, content_length: length("content-length", &text)? })
}

pub(super) fn put_object(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<PutObject, S3Error> {
    refuse_content_range(f)?;
    Ok(PutObject {
        bucket,
        key,
        headers: object_headers(f)?,
        condition: write_condition(f)?,
        body: body_head(f)?,
    })
}

fn get_object(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<GetObject, S3Error> {
    let number = f.query("partNumber").map(part_number).transpose()?;
    let range = f.header_non_empty("range")?;
    if number.is_some() && range.is_some() {
        return Err(S3Error::new(ErrorCode::InvalidRequest)
            .with_message("Cannot specify both Range header and partNumber query parameter"));
    }
    // An If-Range that is neither tag nor date can't hold: the range does not count.
    let if_range = f.header_non_empty("if-range")?.map(|value| IfRange::parse(&value));
    let range = match if_range {
        Some(None) => None,
        _ => range.and_then(|value| RangeSpec::parse(&value)),
    };
    Ok(GetObject {
        bucket,
        key,
        range,
        if_range: if_range.flatten(),
        conditions: read_conditions(f, &OF_THE_OBJECT)?,
        overrides: overrides(f)?,
        part_number: number,
        checksum_mode: checksum_mode(f)?,
        version: version_id(f)?,
    })
}

fn checksum_mode(f: &Fields<'_>) -> Result<bool, S3Error> {
    match f.header_non_empty("x-amz-checksum-mode")?.as_deref() {
        None => Ok(false),
        Some(value) if value.eq_ignore_ascii_case("ENABLED") => Ok(true),
        Some(value) => {
            Err(S3Error::invalid_argument("x-amz-checksum-mode", value, "The mode has to be ENABLED."))
        }
    }
}

/// Under which names conditions come: a match, no match, modified since, unmodified since.
pub(super) type ConditionNames = [&'static str; 4];

/// Those of what is read.
const OF_THE_OBJECT: ConditionNames =
    ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
/// Those of what is copied.
pub(super) const OF_THE_SOURCE: ConditionNames = [
    "x-amz-copy-source-if-match",
    "x-amz-copy-source-if-none-match",
    "x-amz-copy-source-if-modified-since",
    "x-amz-copy-source-if-unmodified-since",
];

/// Dates that can't be read are ignored, as RFC 9110 §13.1.3 demands.
pub(super) fn read_conditions(f: &Fields<'_>, names: &ConditionNames) -> Result<ReadConditions, S3Error> {
    let [if_match, if_none_match, if_modified_since, if_unmodified_since] = names;
    Ok(ReadConditions {
        if_match: etag_condition(f, if_match)?,
        if_none_match: etag_condition(f, if_none_match)?,
        if_modified_since_ms: http_time(f, if_modified_since)?,
        if_unmodified_since_ms: http_time(f, if_unmodified_since)?,
    })
}

fn overrides(f: &Fields<'_>) -> Result<ResponseOverrides, S3Error> {
    let mut headers = SystemHeaders::default();
    let names = f.query_names().filter_map(|name| name.strip_prefix("response-"));
    for name in names {
        let value = f.query(&format!("response-{name}")).unwrap_or_default();
        if http::HeaderValue::from_str(value).is_err() {
            return Err(S3Error::invalid_argument(name, "", "The value can't stand in a header."));
        }
        if let Some(place) = headers.get_mut(name) {
            *place = Some(value.to_owned());
        }
    }
    Ok(ResponseOverrides { headers })
}

fn delete_object(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<DeleteObject, S3Error> {
    refuse_conditions(f, &["if-none-match", "if-modified-since", "if-unmodified-since"])?;
    Ok(DeleteObject {
        bucket,
        key,
        if_match: etag_condition(f, "if-match")?,
        version: version_id(f)?,
        bypass_governance: bypass_governance(f)?,
    })
}

fn copy_object(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<CopyObject, S3Error> {
    if f.has_header("x-amz-copy-source-range") {
        return Err(S3Error::not_implemented("A range of a source can only be copied with UploadPartCopy."));
    }
    let metadata_directive = match f.header_non_empty("x-amz-metadata-directive")?.as_deref() {
        None | Some("COPY") => MetadataDirective::Copy,
        Some("REPLACE") => MetadataDirective::Replace,
        Some(other) => {
            return Err(S3Error::invalid_argument(
                "x-amz-metadata-directive",
                other,
                "Unknown metadata directive.",
            ));
        }
    };
    let copy = CopyObject {
        bucket,
        key,
        source: copy_source(f)?,
        metadata_directive,
        tagging_directive: tagging_directive(f)?,
        headers: object_headers(f)?,
        condition: write_condition(f)?,
        checksum_algorithm: checksum_algorithm(f)?,
    };
    if changes_nothing(&copy) {
        return Err(S3Error::new(ErrorCode::InvalidRequest).with_message(
            "This copy request is illegal because it is trying to copy an object to itself without changing the \
             object's metadata, storage class, website redirect location or encryption attributes.",
        ));
    }
    Ok(copy)
}

fn changes_nothing(copy: &CopyObject) -> bool {
    copy.source.bucket == copy.bucket
        && copy.source.key == copy.key
        // An older version may be put on top again.
        && copy.source.version.is_none()
        && copy.metadata_directive == MetadataDirective::Copy
        && copy.headers.storage_class.is_none()
        && !copy.headers.sse_s3
        && copy.checksum_algorithm.is_none()
}

fn get_attributes(
    bucket: BucketName,
    key: ObjectKey,
    f: &Fields<'_>,
) -> Result<GetObjectAttributes, S3Error> {
    const NAME: &str = "x-amz-object-attributes";
    let wanted = f.header_non_empty(NAME)?.ok_or_else(|| {
        S3Error::new(ErrorCode::InvalidRequest).with_message(
            "The x-amz-object-attributes header specifying the attributes to be retrieved is missing",
        )
    })?;
    let mut attributes = ObjectAttributes::default();
    for attribute in wanted.split(',').map(str::trim) {
        match attribute {
            "ETag" => attributes.etag = true,
            "Checksum" => attributes.checksum = true,
            "ObjectParts" => attributes.object_parts = true,
            "StorageClass" => attributes.storage_class = true,
            "ObjectSize" => attributes.object_size = true,
            other => return Err(S3Error::invalid_argument(NAME, other, "Invalid attribute name specified.")),
        }
    }
    let header_number = |name: &str, default: u64| -> Result<u64, S3Error> {
        Ok(f.header_non_empty(name)?.map(|text| length(name, &text)).transpose()?.unwrap_or(default))
    };
    let max_parts = header_number("x-amz-max-parts", 1000)?.min(1000);
    let marker = header_number("x-amz-part-number-marker", 0)?.min(10_000);
    Ok(GetObjectAttributes {
        bucket,
        key,
        attributes,
        max_parts: u32::try_from(max_parts).unwrap_or(1000),
        part_number_marker: u16::try_from(marker).unwrap_or(10_000),
        version: version_id(f)?,
    })
}

fn create_multipart(
    bucket: BucketName,
    key: ObjectKey,
    f: &Fields<'_>,
) -> Result<CreateMultipartUpload, S3Error> {
    const CONDITIONS: &[&str] = &["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
    refuse_conditions(f, CONDITIONS)?;
    let (algorithm, checksum_type) = (checksum_algorithm(f)?, checksum_type(f)?);
    let is_possible = match (algorithm, checksum_type) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(algorithm), Some(checksum_type)) => algorithm.supports(checksum_type),
    };
    if !is_possible {
        return Err(S3Error::new(ErrorCode::InvalidRequest)
            .with_message("The checksum type can't be used with the checksum algorithm."));
    }
    let headers = object_headers(f)?;
    Ok(CreateMultipartUpload { bucket, key, headers, checksum_algorithm: algorithm, checksum_type })
}

fn upload_id(f: &Fields<'_>) -> Result<String, S3Error> {
    f.query_non_empty("uploadId").ok_or_else(|| ErrorCode::NoSuchUpload.into())
}

fn upload_part(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<UploadPart, S3Error> {
    const CONDITIONS: &[&str] = &["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"];
    refuse_conditions(f, CONDITIONS)?;
    refuse_content_range(f)?;
    super::values::check_harmless_in_upload(f)?;
    let number = part_number(f.query("partNumber").unwrap_or_default())?;
    Ok(UploadPart { bucket, key, part_number: number, upload_id: upload_id(f)?, body: body_head(f)? })
}

fn upload_part_copy(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<UploadPartCopy, S3Error> {
    const RANGE: &str = "x-amz-copy-source-range";
    super::values::check_harmless_in_upload(f)?;
    let source_range = match f.header_non_empty(RANGE)? {
        None => None,
        Some(text) => Some(RangeSpec::parse_copy_source(&text).ok_or_else(|| {
            S3Error::invalid_argument(
                RANGE,
                &text,
                "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are \
                 the zero-based offsets of the first and last bytes to copy",
            )
        })?),
    };
    Ok(UploadPartCopy {
        bucket,
        key,
        part_number: part_number(f.query("partNumber").unwrap_or_default())?,
        upload_id: upload_id(f)?,
        source: copy_source(f)?,
        source_range,
    })
}

fn complete_multipart(
    bucket: BucketName,
    key: ObjectKey,
    f: &Fields<'_>,
) -> Result<CompleteMultipartUpload, S3Error> {
    super::values::check_harmless_in_upload(f)?;
    let number = |name: &str| f.header_non_empty(name)?.map(|text| length(name, &text)).transpose();
    Ok(CompleteMultipartUpload {
        bucket,
        key,
        upload_id: upload_id(f)?,
        condition: write_condition(f)?,
        checksum: object_checksum(f)?,
        checksum_type: checksum_type(f)?,
        object_size: number("x-amz-mp-object-size")?,
        body: BodyHead {
            content_length: number("content-length")?,
            decoded_content_length: number("x-amz-decoded-content-length")?,
            integrity: BodyIntegrity { content_md5: content_md5(f)?, checksum: None },
        },
    })
}

fn list_parts(bucket: BucketName, key: ObjectKey, f: &Fields<'_>) -> Result<ListParts, S3Error> {
    let marker = f.query_non_empty("part-number-marker").map(|text| length("part-number-marker", &text));
    let marker = marker.transpose()?.unwrap_or(0).min(10_000);
    Ok(ListParts {
        bucket,
        key,
        upload_id: upload_id(f)?,
        max_parts: limit(f, "max-parts", 1000)?,
        part_number_marker: u16::try_from(marker).unwrap_or(10_000),
        encoding_type: encoding_type(f)?,
    })
}

/// A partial PUT (RFC 9110 §14.5) would be stored as if it were the whole.
fn refuse_content_range(f: &Fields<'_>) -> Result<(), S3Error> {
    if f.has_header("content-range") {
        return Err(S3Error::not_implemented("Content-Range is not implemented for uploads."));
    }
    Ok(())
}
