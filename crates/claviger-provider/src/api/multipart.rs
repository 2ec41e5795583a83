//! Multipart uploads.

use std::sync::Arc;

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CommonPrefix, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, Initiator,
    ListMultipartUploadsInput, ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload,
    Part, StorageClass, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Request, S3Response, S3Result, s3_error};

use super::attributes::attributes_of;
use super::body::{self, Announced};
use super::buckets::owner;
use super::listing::{self, Encoder};
use super::objects::answer_with_checksums;
use super::{Api, conditions, signed, strong, timestamp};
use crate::store::{CompletedPart, Completion};

/// Part numbers are 1 to 10,000.
pub(super) fn part_number(number: i32) -> S3Result<u16> {
    match u16::try_from(number) {
        Ok(number @ 1..=10_000) => Ok(number),
        _ => Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive")),
    }
}

impl Api {
    pub(super) async fn run_create_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let mut input = request.input;
        let attributes = attributes_of!(input)?;
        let bucket = self.store.bucket(&input.bucket)?;
        let key = input.key.clone();
        let id = self.on_store(move |_| bucket.create_upload(&key, attributes)).await?;
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            ..CreateMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn run_upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let number = part_number(input.part_number)?;
        let bucket = self.store.bucket(&input.bucket)?;
        let (id, key, checked) = (input.upload_id.clone(), input.key.clone(), Arc::clone(&bucket));
        let staged = self
            .on_store(move |store| {
                checked.upload(&id, &key)?;
                store.stage()
            })
            .await?;
        let announced = Announced {
            content_length: input.content_length,
            content_md5: input.content_md5,
            headers: request.headers,
            trailers: request.trailing_headers,
        };
        let received = body::receive(input.body, announced, staged.path()).await?;
        let (id, key, facts) = (input.upload_id, input.key, (number, received.size, received.md5));
        let part = self.on_store(move |_| bucket.commit_part(&id, &key, staged, facts)).await?;
        let mut output = UploadPartOutput { e_tag: Some(strong(&part.etag)), ..UploadPartOutput::default() };
        answer_with_checksums!(output, &received.checksums);
        Ok(S3Response::new(output))
    }

    pub(super) async fn run_complete_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let conditions = conditions::of_write(input.if_match, input.if_none_match)?;
        let mut wanted = Vec::new();
        for part in input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default() {
            let number = part_number(part.part_number.ok_or_else(|| s3_error!(MalformedXML))?)?;
            let etag = part.e_tag.ok_or_else(|| s3_error!(MalformedXML))?.value().to_owned();
            wanted.push(CompletedPart { number, etag });
        }
        let bucket = self.store.bucket(&input.bucket)?;
        let (id, key) = (input.upload_id, input.key.clone());
        let announced_size = input.mpu_object_size.map(|size| u64::try_from(size).unwrap_or(u64::MAX));
        let object = self
            .on_store(move |store| {
                let staged = store.stage()?;
                bucket.complete(&id, &key, staged, &Completion { wanted, announced_size, conditions })
            })
            .await?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            location: Some(format!("/{}/{}", input.bucket, listing::encode(&input.key))),
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(strong(&object.etag)),
            ..CompleteMultipartUploadOutput::default()
        }))
    }

    pub(super) async fn run_abort_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        let bucket = self.store.bucket(&input.bucket)?;
        self.on_store(move |_| bucket.abort(&input.upload_id, &input.key)).await?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    pub(super) async fn run_list_parts(
        &self,
        request: S3Request<ListPartsInput>,
    ) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let max = listing::page_len(input.max_parts)?;
        let after = input.part_number_marker.unwrap_or(0);
        let bucket = self.store.bucket(&input.bucket)?;
        let (id, key) = (input.upload_id.clone(), input.key.clone());
        let (upload, parts) =
            self.on_store(move |_| Ok((bucket.upload(&id, &key)?, bucket.parts(&id, &key)?))).await?;
        let mut rest = parts.into_iter().filter(|part| i32::from(part.number) > after);
        let page: Vec<_> = rest.by_ref().take(max).collect();
        let truncated = max > 0 && rest.next().is_some();
        let part = |part: &crate::store::PartRecord| Part {
            e_tag: Some(strong(&part.etag)),
            last_modified: Some(timestamp(part.last_modified_ms)),
            part_number: Some(i32::from(part.number)),
            size: Some(signed(part.size)),
            ..Part::default()
        };
        Ok(S3Response::new(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            part_number_marker: Some(after),
            next_part_number_marker: page.last().map(|part| i32::from(part.number)).or(Some(after)),
            max_parts: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            is_truncated: Some(truncated),
            parts: Some(page.iter().map(part).collect()),
            initiator: Some(Initiator { display_name: owner().display_name, id: owner().id }),
            owner: Some(owner()),
            storage_class: Some(storage_class(upload.attributes.storage_class)),
            ..ListPartsOutput::default()
        }))
    }

    pub(super) async fn run_list_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        let max = listing::page_len(input.max_uploads)?;
        let bucket = self.store.bucket(&input.bucket)?;
        let uploads = self.on_store(move |_| bucket.uploads()).await?;
        let query = listing::UploadsQuery {
            prefix: input.prefix.as_deref().unwrap_or(""),
            delimiter: input.delimiter.as_deref().unwrap_or(""),
            key_marker: input.key_marker.as_deref().unwrap_or(""),
            upload_id_marker: input.upload_id_marker.as_deref().unwrap_or(""),
            max,
        };
        let page = listing::uploads(&uploads, &query);
        let encoder = Encoder::of(input.encoding_type.as_ref())?;
        let upload = |(id, record): &&(String, crate::store::UploadRecord)| MultipartUpload {
            initiated: Some(timestamp(record.initiated_ms)),
            initiator: Some(Initiator { display_name: owner().display_name, id: owner().id }),
            owner: Some(owner()),
            key: Some(encoder.text(&record.key)),
            upload_id: Some(id.clone()),
            storage_class: Some(storage_class(record.attributes.storage_class.clone())),
            ..MultipartUpload::default()
        };
        let prefix = |prefix: &String| CommonPrefix { prefix: Some(encoder.text(prefix)) };
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(input.bucket),
            uploads: Some(page.uploads.iter().map(upload).collect()),
            common_prefixes: Some(page.prefixes.iter().map(prefix).collect()),
            delimiter: encoder.optional(input.delimiter.as_deref()),
            encoding_type: input.encoding_type.clone(),
            is_truncated: Some(page.truncated),
            key_marker: Some(encoder.text(query.key_marker)),
            upload_id_marker: Some(query.upload_id_marker.to_owned()),
            max_uploads: Some(i32::try_from(max).unwrap_or(i32::MAX)),
            next_key_marker: page.truncated.then(|| encoder.text(&page.next_key)),
            next_upload_id_marker: page.truncated.then_some(page.next_id),
            prefix: Some(encoder.text(query.prefix)),
            ..ListMultipartUploadsOutput::default()
        }))
    }
}

fn storage_class(named: Option<String>) -> StorageClass {
    named.map_or_else(|| StorageClass::from_static(StorageClass::STANDARD), StorageClass::from)
}
