//! Server-side copies: of whole objects, and of ranges into parts.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::ops;
use std::path::Path;

use md5::{Digest as _, Md5};
use s3s::dto::{
    CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopyPartResult, CopySource, MetadataDirective,
    UploadPartCopyInput, UploadPartCopyOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::attributes::attributes_of;
use super::conditions::{self, ReadConditions};
use super::multipart::part_number;
use super::{Api, strong, timestamp};
use crate::error::Error;
use crate::store::{Opened, Sidecar, hex};

/// Most bytes that one copy may move: 5 GiB.
const COPY_LEN_MAX: u64 = 5 * 1024 * 1024 * 1024;

/// The conditions on a copy's source, which both copies spell the same way.
macro_rules! source_conditions {
    ($input:expr) => {
        ReadConditions {
            if_match: $input.copy_source_if_match.take(),
            if_none_match: $input.copy_source_if_none_match.take(),
            if_modified_since: $input.copy_source_if_modified_since.take(),
            if_unmodified_since: $input.copy_source_if_unmodified_since.take(),
        }
    };
}

impl Api {
    pub(super) async fn run_copy_object(
        &self,
        request: S3Request<CopyObjectInput>,
    ) -> S3Result<S3Response<CopyObjectOutput>> {
        let conditions = conditions::of_copy(&request.headers)?;
        let mut input = request.input;
        let replace =
            input.metadata_directive.as_ref().is_some_and(|d| d.as_str() == MetadataDirective::REPLACE);
        let given = attributes_of!(input)?;
        let target = self.store.bucket(&input.bucket)?;
        let (source_bucket, source_key) = source_of(&input.copy_source)?;
        if !replace && source_bucket == input.bucket && source_key == input.key {
            return Err(s3_error!(
                InvalidRequest,
                "A copy of an object to itself has to change its metadata."
            ));
        }
        let source = self.open_source(&input.copy_source, source_conditions!(input)).await?;
        if source.size > COPY_LEN_MAX {
            return Err(s3_error!(InvalidRequest, "The source is larger than one copy may be: 5 GiB."));
        }
        let key = input.key;
        let object = self
            .on_store(move |store| {
                let staged = store.stage()?;
                let md5 = copy_bytes(source.file, 0..source.size, staged.path())?;
                let attributes = if replace { given } else { source.sidecar.attributes };
                let checksums = source.sidecar.checksums;
                let object = Sidecar {
                    key,
                    data: String::new(),
                    size: source.size,
                    etag: md5,
                    last_modified_ms: 0,
                    attributes,
                    checksums,
                    part_sizes: Vec::new(),
                };
                target.commit(staged, object, &conditions)
            })
            .await?;
        let result = CopyObjectResult {
            e_tag: Some(strong(&object.etag)),
            last_modified: Some(timestamp(object.last_modified_ms)),
            ..CopyObjectResult::default()
        };
        Ok(S3Response::new(CopyObjectOutput {
            copy_object_result: Some(result),
            ..CopyObjectOutput::default()
        }))
    }

    pub(super) async fn run_upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let mut input = request.input;
        let number = part_number(input.part_number)?;
        let target = self.store.bucket(&input.bucket)?;
        let (id, key) = (input.upload_id.clone(), input.key.clone());
        let checked = std::sync::Arc::clone(&target);
        self.on_store(move |_| checked.upload(&id, &key)).await?;
        let source = self.open_source(&input.copy_source, source_conditions!(input)).await?;
        let bytes = copied_range(input.copy_source_range.as_deref(), source.size)?;
        let (id, key) = (input.upload_id, input.key);
        let part = self
            .on_store(move |store| {
                let staged = store.stage()?;
                let size = bytes.end - bytes.start;
                let md5 = copy_bytes(source.file, bytes, staged.path())?;
                target.commit_part(&id, &key, staged, (number, size, md5))
            })
            .await?;
        let result = CopyPartResult {
            e_tag: Some(strong(&part.etag)),
            last_modified: Some(timestamp(part.last_modified_ms)),
            ..CopyPartResult::default()
        };
        Ok(S3Response::new(UploadPartCopyOutput {
            copy_part_result: Some(result),
            ..UploadPartCopyOutput::default()
        }))
    }

    async fn open_source(&self, source: &CopySource, conditions: ReadConditions) -> S3Result<Opened> {
        let (bucket, key) = source_of(source)?;
        let version = match source {
            CopySource::Bucket { version_id, .. } => version_id.as_deref().map(ToOwned::to_owned),
            _ => None,
        };
        match self.open_object(bucket, key, version, conditions).await {
            // A copy has no 304.
            Err(error) if *error.code() == s3s::S3ErrorCode::NotModified => {
                Err(s3_error!(PreconditionFailed))
            }
            other => other,
        }
    }
}

fn source_of(source: &CopySource) -> S3Result<(String, String)> {
    match source {
        CopySource::Bucket { bucket, key, .. } => Ok((bucket.to_string(), key.to_string())),
        _ => Err(s3_error!(NotImplemented, "Copy sources are named by bucket and key here.")),
    }
}

/// `bytes=a-b`, both ends named and inside the source; nothing means all of it.
fn copied_range(range: Option<&str>, size: u64) -> S3Result<ops::Range<u64>> {
    let Some(range) = range else { return Ok(0..size) };
    let parse = || {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?))
    };
    let (first, last) = parse().ok_or_else(|| s3_error!(InvalidArgument, "x-amz-copy-source-range"))?;
    if first > last {
        return Err(s3_error!(InvalidArgument, "x-amz-copy-source-range"));
    }
    if last >= size {
        return Err(s3_error!(InvalidRange));
    }
    Ok(first..last + 1)
}

/// Copies bytes of `source` to the file at `target`; gives their MD5 in hex.
fn copy_bytes(mut source: File, bytes: ops::Range<u64>, target: &Path) -> Result<String, Error> {
    let mut target = File::options().write(true).open(target)?;
    source.seek(SeekFrom::Start(bytes.start))?;
    let mut md5 = Md5::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut left = bytes.end - bytes.start;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let piece = &mut buffer[..want];
        source.read_exact(piece)?;
        md5.update(&*piece);
        target.write_all(piece)?;
        left -= want as u64;
    }
    Ok(hex(&md5.finalize()))
}
