//! The S3 operations, on top of the store. Parsing and signatures are the framework's; what it means is here.

mod access;
mod attributes;
mod body;
mod buckets;
mod conditions;
mod copy;
mod listing;
mod multipart;
mod objects;

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateBucketInput, CreateBucketOutput,
    CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput,
    DeleteObjectInput, DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, ETag,
    GetBucketLocationInput, GetBucketLocationOutput, GetBucketVersioningInput, GetBucketVersioningOutput,
    GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListBucketsInput, ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput,
    ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput,
    ListPartsOutput, PutObjectInput, PutObjectOutput, Timestamp, UploadPartCopyInput, UploadPartCopyOutput,
    UploadPartInput, UploadPartOutput,
};
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};

pub(crate) use access::{Gate, KeyRing};

use crate::error::Error;
use crate::store::Store;

/// The operations over one store.
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) region: String,
}

impl Api {
    /// Runs blocking work on the store away from the sockets.
    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> S3Result<T> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&store)).await.map_err(Error::from)?;
        Ok(done?)
    }
}

/// Milliseconds since the Unix epoch as S3's timestamp.
fn timestamp(ms: u64) -> Timestamp {
    Timestamp::from(UNIX_EPOCH + Duration::from_millis(ms))
}

fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

/// A length as the signed number that S3's data model has; files are far below 2^63 bytes.
fn signed(len: u64) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

/// An S3 error whose code the framework does not list.
fn unlisted(code: &'static str, status: http::StatusCode) -> S3Error {
    let mut error = S3Error::new(S3ErrorCode::Custom(code.into()));
    error.set_status_code(status);
    error
}

fn internal(error: std::io::Error) -> S3Error {
    Error::from(error).into()
}

/// One method of the trait, handed to the method of the same name and input on [`Api`].
macro_rules! operations {
    ($($method:ident => $run:ident: $input:ty => $output:ty;)*) => {
        #[async_trait::async_trait]
        impl S3 for Api {
            $(async fn $method(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.$run(request).await
            })*
        }
    };
}

operations! {
    list_buckets => run_list_buckets: ListBucketsInput => ListBucketsOutput;
    create_bucket => run_create_bucket: CreateBucketInput => CreateBucketOutput;
    head_bucket => run_head_bucket: HeadBucketInput => HeadBucketOutput;
    delete_bucket => run_delete_bucket: DeleteBucketInput => DeleteBucketOutput;
    get_bucket_location => run_get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput;
    get_bucket_versioning => run_get_bucket_versioning: GetBucketVersioningInput => GetBucketVersioningOutput;
    put_object => run_put_object: PutObjectInput => PutObjectOutput;
    get_object => run_get_object: GetObjectInput => GetObjectOutput;
    head_object => run_head_object: HeadObjectInput => HeadObjectOutput;
    delete_object => run_delete_object: DeleteObjectInput => DeleteObjectOutput;
    delete_objects => run_delete_objects: DeleteObjectsInput => DeleteObjectsOutput;
    copy_object => run_copy_object: CopyObjectInput => CopyObjectOutput;
    list_objects => run_list_objects: ListObjectsInput => ListObjectsOutput;
    list_objects_v2 => run_list_objects_v2: ListObjectsV2Input => ListObjectsV2Output;
    create_multipart_upload => run_create_upload: CreateMultipartUploadInput => CreateMultipartUploadOutput;
    upload_part => run_upload_part: UploadPartInput => UploadPartOutput;
    upload_part_copy => run_upload_part_copy: UploadPartCopyInput => UploadPartCopyOutput;
    complete_multipart_upload => run_complete_upload: CompleteMultipartUploadInput => CompleteMultipartUploadOutput;
    abort_multipart_upload => run_abort_upload: AbortMultipartUploadInput => AbortMultipartUploadOutput;
    list_parts => run_list_parts: ListPartsInput => ListPartsOutput;
    list_multipart_uploads => run_list_uploads: ListMultipartUploadsInput => ListMultipartUploadsOutput;
}
