//! Objects: put, get, head, delete.

use std::ops;

use http::{HeaderMap, HeaderValue};
use s3s::dto::{
    ChecksumType, DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput,
    DeletedObject, Error as DeleteError, GetObjectInput, GetObjectOutput, HeadObjectInput, HeadObjectOutput,
    ObjectIdentifier, PutObjectInput, PutObjectOutput, Range,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::attributes::{answer_with_attributes, attributes_of};
use super::body::{self, Announced};
use super::conditions::{self, ReadConditions, Verdict};
use super::{Api, signed, strong, timestamp, unlisted};
use crate::store::{Opened, Sidecar};

/// Most keys in one DeleteObjects.
const DELETE_KEYS_MAX: usize = 1000;

/// The verified checksums of a sidecar, as the fields of an answer.
macro_rules! answer_with_checksums {
    ($output:expr, $checksums:expr) => {
        let checksums = $checksums;
        let value = |name: &str| checksums.get(name).cloned();
        $output.checksum_crc32 = value("x-amz-checksum-crc32");
        $output.checksum_crc32c = value("x-amz-checksum-crc32c");
        $output.checksum_crc64nvme = value("x-amz-checksum-crc64nvme");
        $output.checksum_sha1 = value("x-amz-checksum-sha1");
        $output.checksum_sha256 = value("x-amz-checksum-sha256");
    };
}
pub(super) use answer_with_checksums;

impl Api {
    pub(super) async fn run_put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        let mut input = request.input;
        let attributes = attributes_of!(input)?;
        let conditions = conditions::of_write(input.if_match, input.if_none_match)?;
        let bucket = self.store.bucket(&input.bucket)?;
        let staged = self.on_store(|store| store.stage()).await?;
        let announced = Announced {
            content_length: input.content_length,
            content_md5: input.content_md5,
            headers: request.headers,
            trailers: request.trailing_headers,
        };
        let received = body::receive(input.body, announced, staged.path()).await?;
        let object = Sidecar {
            key: input.key,
            data: String::new(),
            size: received.size,
            etag: received.md5,
            last_modified_ms: 0,
            attributes,
            checksums: received.checksums,
            part_sizes: Vec::new(),
        };
        let object = self.on_store(move |_| bucket.commit(staged, object, &conditions)).await?;
        let mut output = PutObjectOutput { e_tag: Some(strong(&object.etag)), ..PutObjectOutput::default() };
        answer_with_checksums!(output, &object.checksums);
        Ok(S3Response::new(output))
    }

    pub(super) async fn run_get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let opened = self.open_object(input.bucket, input.key, input.version_id, conditions).await?;
        let slice = Slice::of(&opened, input.range, input.part_number)?;
        let Opened { sidecar, file, .. } = opened;
        let len = slice.bytes.end - slice.bytes.start;
        let mut output = GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            body: Some(body::send(file, slice.bytes.start, len).await?),
            content_length: Some(signed(len)),
            content_range: slice.content_range.clone(),
            e_tag: Some(strong(&sidecar.etag)),
            last_modified: Some(timestamp(sidecar.last_modified_ms)),
            parts_count: slice.parts_count,
            ..GetObjectOutput::default()
        };
        answer_with_attributes!(output, &sidecar.attributes);
        output.cache_control = input.response_cache_control.or(output.cache_control);
        output.content_disposition = input.response_content_disposition.or(output.content_disposition);
        output.content_encoding = input.response_content_encoding.or(output.content_encoding);
        output.content_language = input.response_content_language.or(output.content_language);
        output.content_type = input.response_content_type.or(output.content_type);
        output.expires = input.response_expires.or(output.expires);
        if input.checksum_mode.is_some() && slice.content_range.is_none() && !sidecar.checksums.is_empty() {
            answer_with_checksums!(output, &sidecar.checksums);
            output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        }
        Ok(S3Response::new(output))
    }

    pub(super) async fn run_head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let conditions = ReadConditions {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            if_modified_since: input.if_modified_since,
            if_unmodified_since: input.if_unmodified_since,
        };
        let opened = self.open_object(input.bucket, input.key, input.version_id, conditions).await?;
        let slice = Slice::of(&opened, input.range, input.part_number)?;
        let sidecar = opened.sidecar;
        let mut output = HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(slice.bytes.end - slice.bytes.start)),
            content_range: slice.content_range.clone(),
            e_tag: Some(strong(&sidecar.etag)),
            last_modified: Some(timestamp(sidecar.last_modified_ms)),
            parts_count: slice.parts_count,
            ..HeadObjectOutput::default()
        };
        answer_with_attributes!(output, &sidecar.attributes);
        if input.checksum_mode.is_some() && slice.content_range.is_none() && !sidecar.checksums.is_empty() {
            answer_with_checksums!(output, &sidecar.checksums);
            output.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
        }
        let partial = slice.content_range.is_some();
        let status = if partial { http::StatusCode::PARTIAL_CONTENT } else { http::StatusCode::OK };
        Ok(S3Response::with_status(output, status))
    }

    pub(super) async fn run_delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        refuse_version(input.version_id.as_deref())?;
        let conditions = conditions::of_write(input.if_match, None)?;
        let bucket = self.store.bucket(&input.bucket)?;
        self.on_store(move |_| bucket.delete(&input.key, &conditions)).await?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    pub(super) async fn run_delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let delete = request.input.delete;
        if delete.objects.is_empty() || delete.objects.len() > DELETE_KEYS_MAX {
            return Err(s3_error!(MalformedXML));
        }
        let bucket = self.store.bucket(&request.input.bucket)?;
        let quiet = delete.quiet.unwrap_or(false);
        let remove = move |object: ObjectIdentifier| {
            let outcome = refuse_version(object.version_id.as_deref())
                .and_then(|()| bucket.delete(&object.key, &[]).map_err(S3Error::from));
            (object.key, outcome)
        };
        let outcomes =
            self.on_store(move |_| Ok(delete.objects.into_iter().map(remove).collect::<Vec<_>>())).await?;
        let (mut deleted, mut errors) = (Vec::new(), Vec::new());
        for (key, outcome) in outcomes {
            match outcome {
                Ok(()) if quiet => {}
                Ok(()) => deleted.push(DeletedObject { key: Some(key), ..DeletedObject::default() }),
                Err(error) => errors.push(DeleteError {
                    code: Some(error.code().as_str().to_owned()),
                    key: Some(key),
                    message: error.message().map(ToOwned::to_owned),
                    version_id: None,
                }),
            }
        }
        Ok(S3Response::new(DeleteObjectsOutput {
            deleted: Some(deleted),
            errors: Some(errors),
            ..DeleteObjectsOutput::default()
        }))
    }

    /// Opens an object for a read whose conditions hold.
    pub(super) async fn open_object(
        &self,
        bucket: String,
        key: String,
        version_id: Option<String>,
        conditions: ReadConditions,
    ) -> S3Result<Opened> {
        refuse_version(version_id.as_deref())?;
        let bucket = self.store.bucket(&bucket)?;
        let opened = self.on_store(move |_| bucket.read(&key)).await?;
        match conditions.verdict(&opened.sidecar) {
            Verdict::Go => Ok(opened),
            Verdict::NotModified => Err(conditions::not_modified(&opened.sidecar)),
            Verdict::Failed => Err(s3_error!(PreconditionFailed)),
        }
    }
}

/// There is one version of everything here, and its id is `null`.
fn refuse_version(version_id: Option<&str>) -> S3Result<()> {
    match version_id {
        None | Some("null") => Ok(()),
        Some(_) => Err(s3_error!(NoSuchVersion)),
    }
}

/// The bytes of an object that an answer carries.
struct Slice {
    bytes: ops::Range<u64>,
    content_range: Option<String>,
    parts_count: Option<i32>,
}

impl Slice {
    fn of(object: &Opened, range: Option<Range>, part_number: Option<i32>) -> S3Result<Self> {
        let (bytes, parts_count) = match (range, part_number) {
            (Some(_), Some(_)) => {
                return Err(s3_error!(InvalidRequest, "Range and partNumber exclude each other."));
            }
            (Some(range), None) => (range.check(object.size).map_err(|_| unsatisfiable(object.size))?, None),
            (None, Some(number)) => {
                let parts = &object.sidecar.part_sizes;
                (
                    part_bytes(object, number)?,
                    (!parts.is_empty()).then(|| i32::try_from(parts.len()).unwrap_or(i32::MAX)),
                )
            }
            (None, None) => {
                return Ok(Self { bytes: 0..object.size, content_range: None, parts_count: None });
            }
        };
        let content_range = (bytes.start < bytes.end)
            .then(|| format!("bytes {}-{}/{}", bytes.start, bytes.end.saturating_sub(1), object.size));
        Ok(Self { bytes, content_range, parts_count })
    }
}

/// The bytes of part `number`; an object that was put whole is its own part 1.
fn part_bytes(object: &Opened, number: i32) -> S3Result<ops::Range<u64>> {
    let parts = &object.sidecar.part_sizes;
    let before = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let before = before.ok_or_else(|| s3_error!(InvalidArgument, "partNumber"))?;
    if parts.is_empty() && before == 0 {
        return Ok(0..object.size);
    }
    let len = parts
        .get(before)
        .ok_or_else(|| unlisted("InvalidPartNumber", http::StatusCode::RANGE_NOT_SATISFIABLE))?;
    let start: u64 = parts.iter().take(before).sum();
    Ok(start..start + len)
}

/// 416 with the size, as RFC 9110 §14.4 wants it.
fn unsatisfiable(size: u64) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::InvalidRange);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("bytes */{size}")) {
        headers.insert(http::header::CONTENT_RANGE, value);
    }
    error.set_headers(headers);
    error
}
