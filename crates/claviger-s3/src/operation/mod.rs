//! The operations that are served, as one closed enum, and the table that says what is refused.

mod accompanying;
mod acl;
mod build;
mod classify;
mod configuration;
mod fields;
mod headers;
mod hosts;
mod inputs;
mod table;
#[cfg(test)]
mod tests;
mod values;

pub use accompanying::Accompanying;
pub use acl::AclHeaders;
pub use classify::classify;
pub(crate) use classify::put_object_of_headers;
pub use configuration::{Choice, Configuration, SUBRESOURCES, Subresource, Verb};
pub use headers::{COMMON_HEADERS, IGNORED_PARAMETERS, REFUSED_HEADERS};
pub use hosts::{VirtualHosts, host_name};
pub use inputs::*;
pub use table::{OperationRow, Parameter, Selector, Target, table};

use crate::name::{BucketName, ObjectKey};

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($input:ty);)* @configurations $($configuration:ident)*) => {
        /// One request, classified: what to do and everything that is needed for it.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Operation {
            $($(#[$doc])* $name($input),)*
            /// Reads, writes or removes a configuration document.
            Configuration(Box<Configuration>),
        }

        /// The operations without their inputs: for policies, metrics and log lines.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum OperationKind {
            $($(#[$doc])* $name,)*
            $(#[doc = concat!("`", stringify!($configuration), "`, see [`SUBRESOURCES`]")] $configuration,)*
        }

        impl Operation {
            /// Which operation it is.
            pub fn kind(&self) -> OperationKind {
                match self {
                    $(Self::$name(_) => OperationKind::$name,)*
                    Self::Configuration(op) => op.kind,
                }
            }
        }

        impl OperationKind {
            /// Every operation that is served.
            pub const ALL: &'static [Self] = &[$(Self::$name,)* $(Self::$configuration,)*];

            /// The name in the S3 API reference.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    $(Self::$configuration => stringify!($configuration),)*
                }
            }
        }
    };
}

operations! {
    /// Buckets of the caller.
    ListBuckets(ListBuckets);
    /// Makes a bucket.
    CreateBucket(CreateBucket);
    /// Whether a bucket exists.
    HeadBucket(BucketOnly);
    /// Removes an empty bucket.
    DeleteBucket(BucketOnly);
    /// The region of a bucket.
    GetBucketLocation(BucketOnly);
    /// Whether a bucket keeps versions.
    GetBucketVersioning(BucketOnly);
    /// Makes a bucket keep versions, or stop to.
    PutBucketVersioning(BucketDocument);
    /// How long new objects of a bucket can't be deleted.
    GetObjectLockConfiguration(BucketOnly);
    /// Says how long new objects of a bucket can't be deleted.
    PutObjectLockConfiguration(BucketDocument);
    /// Stores an object.
    PutObject(Box<PutObject>);
    /// Stores an object that an HTML form brings.
    PostObject(PostObject);
    /// Reads an object.
    GetObject(Box<GetObject>);
    /// Reads an object's headers.
    HeadObject(Box<GetObject>);
    /// Removes an object.
    DeleteObject(DeleteObject);
    /// Removes up to 1,000 objects.
    DeleteObjects(DeleteObjects);
    /// Copies an object, or replaces its metadata.
    CopyObject(Box<CopyObject>);
    /// Size, parts and checksums of an object.
    GetObjectAttributes(GetObjectAttributes);
    /// Tags of an object.
    GetObjectTagging(ObjectVersion);
    /// Replaces the tags of an object.
    PutObjectTagging(ObjectDocument);
    /// Removes the tags of an object.
    DeleteObjectTagging(ObjectVersion);
    /// Until when an object can't be deleted.
    GetObjectRetention(ObjectVersion);
    /// Says until when an object can't be deleted.
    PutObjectRetention(ObjectDocument);
    /// Whether an object can't be deleted at all.
    GetObjectLegalHold(ObjectVersion);
    /// Says whether an object can't be deleted at all.
    PutObjectLegalHold(ObjectDocument);
    /// Lists keys, version 1.
    ListObjects(ListObjects);
    /// Lists keys, version 2.
    ListObjectsV2(ListObjectsV2);
    /// Lists the versions of keys.
    ListObjectVersions(ListObjectVersions);
    /// Begins an upload in parts.
    CreateMultipartUpload(Box<CreateMultipartUpload>);
    /// Stores a part.
    UploadPart(UploadPart);
    /// Stores a part from an existing object.
    UploadPartCopy(Box<UploadPartCopy>);
    /// Makes an object of parts.
    CompleteMultipartUpload(Box<CompleteMultipartUpload>);
    /// Drops an upload.
    AbortMultipartUpload(AbortMultipartUpload);
    /// Lists the parts of an upload.
    ListParts(ListParts);
    /// Lists uploads in progress.
    ListMultipartUploads(ListMultipartUploads);
    /// A browser asks what a page of another origin may do.
    Preflight(BucketOnly);

    @configurations
    GetBucketAcl PutBucketAcl GetObjectAcl PutObjectAcl
    GetBucketCors PutBucketCors DeleteBucketCors
    GetBucketLifecycleConfiguration PutBucketLifecycleConfiguration DeleteBucketLifecycle
    GetBucketPolicy PutBucketPolicy DeleteBucketPolicy GetBucketPolicyStatus
    GetPublicAccessBlock PutPublicAccessBlock DeletePublicAccessBlock
    GetBucketOwnershipControls PutBucketOwnershipControls DeleteBucketOwnershipControls
    GetBucketEncryption PutBucketEncryption DeleteBucketEncryption
    GetBucketTagging PutBucketTagging DeleteBucketTagging
    GetBucketRequestPayment PutBucketRequestPayment
    GetBucketReplication PutBucketReplication DeleteBucketReplication
    GetBucketLogging
    GetBucketNotificationConfiguration PutBucketNotificationConfiguration
    GetBucketAccelerateConfiguration PutBucketAccelerateConfiguration
    GetBucketMetricsConfiguration PutBucketMetricsConfiguration DeleteBucketMetricsConfiguration
    ListBucketMetricsConfigurations
    GetBucketIntelligentTieringConfiguration PutBucketIntelligentTieringConfiguration
    DeleteBucketIntelligentTieringConfiguration ListBucketIntelligentTieringConfigurations
    GetBucketWebsite DeleteBucketWebsite
    GetBucketInventoryConfiguration DeleteBucketInventoryConfiguration ListBucketInventoryConfigurations
    GetBucketAnalyticsConfiguration DeleteBucketAnalyticsConfiguration ListBucketAnalyticsConfigurations
}

impl Operation {
    /// The bucket; `None` for ListBuckets.
    pub fn bucket(&self) -> Option<&BucketName> {
        Some(match self {
            Self::ListBuckets(_) => return None,
            Self::CreateBucket(op) => &op.bucket,
            Self::HeadBucket(op)
            | Self::DeleteBucket(op)
            | Self::GetBucketLocation(op)
            | Self::GetBucketVersioning(op)
            | Self::GetObjectLockConfiguration(op)
            | Self::Preflight(op) => &op.bucket,
            Self::PutBucketVersioning(op) | Self::PutObjectLockConfiguration(op) => &op.bucket,
            Self::PutObject(op) => &op.bucket,
            Self::PostObject(op) => &op.bucket,
            Self::GetObject(op) | Self::HeadObject(op) => &op.bucket,
            Self::DeleteObject(op) => &op.bucket,
            Self::DeleteObjects(op) => &op.bucket,
            Self::CopyObject(op) => &op.bucket,
            Self::GetObjectAttributes(op) => &op.bucket,
            Self::GetObjectTagging(op)
            | Self::DeleteObjectTagging(op)
            | Self::GetObjectRetention(op)
            | Self::GetObjectLegalHold(op) => &op.bucket,
            Self::PutObjectTagging(op) | Self::PutObjectRetention(op) | Self::PutObjectLegalHold(op) => {
                &op.bucket
            }
            Self::ListObjects(op) => &op.bucket,
            Self::ListObjectsV2(op) => &op.bucket,
            Self::ListObjectVersions(op) => &op.bucket,
            Self::CreateMultipartUpload(op) => &op.bucket,
            Self::UploadPart(op) => &op.bucket,
            Self::UploadPartCopy(op) => &op.bucket,
            Self::CompleteMultipartUpload(op) => &op.bucket,
            Self::AbortMultipartUpload(op) => &op.bucket,
            Self::ListParts(op) => &op.bucket,
            Self::ListMultipartUploads(op) => &op.bucket,
            Self::Configuration(op) => &op.bucket,
        })
    }

    /// The object key; `None` for operations on buckets.
    pub fn key(&self) -> Option<&ObjectKey> {
        Some(match self {
            Self::PutObject(op) => &op.key,
            Self::GetObject(op) | Self::HeadObject(op) => &op.key,
            Self::DeleteObject(op) => &op.key,
            Self::CopyObject(op) => &op.key,
            Self::GetObjectAttributes(op) => &op.key,
            Self::GetObjectTagging(op)
            | Self::DeleteObjectTagging(op)
            | Self::GetObjectRetention(op)
            | Self::GetObjectLegalHold(op) => &op.key,
            Self::PutObjectTagging(op) | Self::PutObjectRetention(op) | Self::PutObjectLegalHold(op) => {
                &op.key
            }
            Self::CreateMultipartUpload(op) => &op.key,
            Self::UploadPart(op) => &op.key,
            Self::UploadPartCopy(op) => &op.key,
            Self::CompleteMultipartUpload(op) => &op.key,
            Self::AbortMultipartUpload(op) => &op.key,
            Self::ListParts(op) => &op.key,
            Self::Configuration(op) => return op.key.as_ref(),
            _ => return None,
        })
    }

    /// The source of a copy, which has to be authorised too.
    pub fn copy_source(&self) -> Option<&CopySource> {
        match self {
            Self::CopyObject(op) => Some(&op.source),
            Self::UploadPartCopy(op) => Some(&op.source),
            _ => None,
        }
    }
}
