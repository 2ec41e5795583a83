//! What can go wrong, and how S3 names it.

use s3s::{S3Error, S3ErrorCode, s3_error};

/// Failures of the embedded provider's store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system failed.
    #[error("the provider's files: {0}")]
    Io(#[from] std::io::Error),
    /// A sidecar or `bucket.json` on disk can't be read as what it should be.
    #[error("{path}: {source}")]
    Damaged {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file task of the runtime was cancelled or panicked.
    #[error("a file task did not finish: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// An S3 error that the client is told as it is.
    #[error("{0:?}")]
    S3(Reply),
}

/// The S3 errors that the store itself answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// 404 NoSuchBucket.
    NoSuchBucket,
    /// 404 NoSuchKey.
    NoSuchKey,
    /// 404 NoSuchUpload.
    NoSuchUpload,
    /// 409 BucketNotEmpty.
    BucketNotEmpty,
    /// 409 BucketAlreadyOwnedByYou.
    BucketAlreadyOwnedByYou,
    /// 412 PreconditionFailed.
    PreconditionFailed,
    /// 400 InvalidPart.
    InvalidPart,
    /// 400 InvalidPartOrder.
    InvalidPartOrder,
    /// 400 EntityTooSmall.
    EntityTooSmall,
    /// 400 MalformedXML.
    MalformedXml,
    /// 400 InvalidRequest.
    InvalidRequest,
}

impl From<Reply> for Error {
    fn from(reply: Reply) -> Self {
        Self::S3(reply)
    }
}

impl From<Error> for S3Error {
    fn from(error: Error) -> Self {
        match error {
            Error::S3(reply) => Self::new(match reply {
                Reply::NoSuchBucket => S3ErrorCode::NoSuchBucket,
                Reply::NoSuchKey => S3ErrorCode::NoSuchKey,
                Reply::NoSuchUpload => S3ErrorCode::NoSuchUpload,
                Reply::BucketNotEmpty => S3ErrorCode::BucketNotEmpty,
                Reply::BucketAlreadyOwnedByYou => S3ErrorCode::BucketAlreadyOwnedByYou,
                Reply::PreconditionFailed => S3ErrorCode::PreconditionFailed,
                Reply::InvalidPart => S3ErrorCode::InvalidPart,
                Reply::InvalidPartOrder => S3ErrorCode::InvalidPartOrder,
                Reply::EntityTooSmall => S3ErrorCode::EntityTooSmall,
                Reply::MalformedXml => S3ErrorCode::MalformedXML,
                Reply::InvalidRequest => S3ErrorCode::InvalidRequest,
            }),
            other => {
                tracing::error!(error = %other, "the embedded provider failed");
                s3_error!(InternalError, "the provider's storage failed")
            }
        }
    }
}
