//! The table of operations, readable by machines: it drives classification and documentation alike.

use super::OperationKind;
use super::headers::{
    BODY, BUCKET_CREATE, COMPLETE, COPY_SOURCE, COPY_WRITE, CREATE_MULTIPART, GET_ATTRIBUTES, HARMLESS_WRITE,
    OBJECT_WRITE, READ,
};

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `/`
    Service,
    /// `/bucket`
    Bucket,
    /// `/bucket/key`
    Object,
}

/// What has to be present for a row to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// A query parameter with any value.
    Query(&'static str),
    /// A query parameter with this value.
    QueryValue(&'static str, &'static str),
    /// A header (or its hoisted form).
    Header(&'static str),
}

/// A query parameter or header and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// The name in lower case for headers, as written for parameters; a final `*` stands for any rest.
    pub name: &'static str,
    /// What becomes of it.
    pub note: &'static str,
}

/// One operation of S3.
#[derive(Debug, Clone, Copy)]
pub struct OperationRow {
    /// The name in the S3 API reference.
    pub name: &'static str,
    /// The operation, if it is served; refused ones answer `NotImplemented`.
    pub served: Option<OperationKind>,
    /// The method.
    pub method: &'static str,
    /// What it is about.
    pub target: Target,
    /// What tells it from its neighbours.
    pub selectors: &'static [Selector],
    /// Further query parameters that are accepted.
    pub parameters: &'static [&'static str],
    /// `x-amz-*` headers that are accepted, in groups. Those of every request are in [`super::COMMON_HEADERS`].
    pub headers: &'static [&'static [Parameter]],
    /// A remark for the documentation.
    pub note: &'static str,
}

/// All operations that are served, and those of the S3 API that are refused by name. A request that matches no row is
/// refused as well.
pub fn table() -> impl Iterator<Item = &'static OperationRow> {
    SERVED.iter().chain(REFUSED)
}

use OperationKind as Kind;
use Selector::{Header, Query, QueryValue};
use Target::{Bucket, Object, Service};

const RESPONSE_OVERRIDES: &[&str] = &[
    "partNumber",
    "response-cache-control",
    "response-content-disposition",
    "response-content-encoding",
    "response-content-language",
    "response-content-type",
    "response-expires",
    "versionId",
];

const fn row(
    kind: Kind,
    method: &'static str,
    target: Target,
    selectors: &'static [Selector],
) -> OperationRow {
    OperationRow {
        name: kind.as_str(),
        served: Some(kind),
        method,
        target,
        selectors,
        parameters: &[],
        headers: &[],
        note: "",
    }
}

static SERVED: &[OperationRow] = &[
    OperationRow {
        parameters: &["continuation-token", "max-buckets", "prefix"],
        ..row(Kind::ListBuckets, "GET", Service, &[])
    },
    OperationRow {
        headers: &[BUCKET_CREATE, BODY],
        note: "A `CreateBucketConfiguration` may hold a location constraint and nothing else.",
        ..row(Kind::CreateBucket, "PUT", Bucket, &[])
    },
    row(Kind::HeadBucket, "HEAD", Bucket, &[]),
    row(Kind::DeleteBucket, "DELETE", Bucket, &[]),
    row(Kind::GetBucketLocation, "GET", Bucket, &[Query("location")]),
    OperationRow {
        parameters: &["allow-unordered", "delimiter", "encoding-type", "marker", "max-keys", "prefix"],
        ..row(Kind::ListObjects, "GET", Bucket, &[])
    },
    OperationRow {
        parameters: &[
            "allow-unordered",
            "continuation-token",
            "delimiter",
            "encoding-type",
            "fetch-owner",
            "max-keys",
            "prefix",
            "start-after",
        ],
        ..row(Kind::ListObjectsV2, "GET", Bucket, &[QueryValue("list-type", "2")])
    },
    OperationRow {
        parameters: &[
            "delimiter",
            "encoding-type",
            "key-marker",
            "max-uploads",
            "prefix",
            "upload-id-marker",
        ],
        ..row(Kind::ListMultipartUploads, "GET", Bucket, &[Query("uploads")])
    },
    OperationRow { headers: &[BODY], ..row(Kind::DeleteObjects, "POST", Bucket, &[Query("delete")]) },
    OperationRow {
        headers: &[OBJECT_WRITE, BODY],
        note: "`If-None-Match: *` and `If-Match` are passed on to the store.",
        ..row(Kind::PutObject, "PUT", Object, &[])
    },
    OperationRow {
        headers: &[OBJECT_WRITE, COPY_SOURCE, COPY_WRITE],
        note: "Within the store; only the sealed metadata is made anew.",
        ..row(Kind::CopyObject, "PUT", Object, &[Header("x-amz-copy-source")])
    },
    OperationRow {
        parameters: RESPONSE_OVERRIDES,
        headers: &[READ],
        note: "Several ranges in one request are answered with the whole object, as S3 does.",
        ..row(Kind::GetObject, "GET", Object, &[])
    },
    OperationRow {
        parameters: RESPONSE_OVERRIDES,
        headers: &[READ],
        ..row(Kind::HeadObject, "HEAD", Object, &[])
    },
    OperationRow {
        parameters: &["versionId"],
        note: "`If-Match` is passed on to the store.",
        ..row(Kind::DeleteObject, "DELETE", Object, &[])
    },
    OperationRow {
        parameters: &["versionId"],
        headers: &[GET_ATTRIBUTES],
        ..row(Kind::GetObjectAttributes, "GET", Object, &[Query("attributes")])
    },
    OperationRow {
        parameters: &["versionId"],
        note: "Answers an empty set: tags can't be written yet.",
        ..row(Kind::GetObjectTagging, "GET", Object, &[Query("tagging")])
    },
    OperationRow {
        headers: &[OBJECT_WRITE, CREATE_MULTIPART],
        ..row(Kind::CreateMultipartUpload, "POST", Object, &[Query("uploads")])
    },
    OperationRow {
        headers: &[HARMLESS_WRITE, BODY],
        ..row(Kind::UploadPart, "PUT", Object, &[Query("partNumber"), Query("uploadId")])
    },
    OperationRow {
        headers: &[HARMLESS_WRITE, COPY_SOURCE],
        note: "`x-amz-copy-source-range` has to be `bytes=first-last`.",
        ..row(
            Kind::UploadPartCopy,
            "PUT",
            Object,
            &[Query("partNumber"), Query("uploadId"), Header("x-amz-copy-source")],
        )
    },
    OperationRow {
        headers: &[HARMLESS_WRITE, COMPLETE],
        note: "`If-None-Match: *` and `If-Match` are passed on to the store.",
        ..row(Kind::CompleteMultipartUpload, "POST", Object, &[Query("uploadId")])
    },
    row(Kind::AbortMultipartUpload, "DELETE", Object, &[Query("uploadId")]),
    OperationRow {
        parameters: &["encoding-type", "max-parts", "part-number-marker"],
        ..row(Kind::ListParts, "GET", Object, &[Query("uploadId")])
    },
];

const fn refused(
    name: &'static str,
    method: &'static str,
    target: Target,
    selectors: &'static [Selector],
) -> OperationRow {
    OperationRow { name, served: None, method, target, selectors, parameters: &[], headers: &[], note: "" }
}

/// The rest of the S3 API, so that its refusals can name what was asked for.
static REFUSED: &[OperationRow] = &[
    refused("CreateSession", "GET", Bucket, &[Query("session")]),
    refused("PostObject", "POST", Bucket, &[]),
    refused("ListObjectVersions", "GET", Bucket, &[Query("versions")]),
    refused("GetBucketAccelerateConfiguration", "GET", Bucket, &[Query("accelerate")]),
    refused("PutBucketAccelerateConfiguration", "PUT", Bucket, &[Query("accelerate")]),
    refused("GetBucketAcl", "GET", Bucket, &[Query("acl")]),
    refused("PutBucketAcl", "PUT", Bucket, &[Query("acl")]),
    refused("GetBucketAnalyticsConfiguration", "GET", Bucket, &[Query("analytics")]),
    refused("PutBucketAnalyticsConfiguration", "PUT", Bucket, &[Query("analytics")]),
    refused("DeleteBucketAnalyticsConfiguration", "DELETE", Bucket, &[Query("analytics")]),
    refused("GetBucketCors", "GET", Bucket, &[Query("cors")]),
    refused("PutBucketCors", "PUT", Bucket, &[Query("cors")]),
    refused("DeleteBucketCors", "DELETE", Bucket, &[Query("cors")]),
    refused("GetBucketEncryption", "GET", Bucket, &[Query("encryption")]),
    refused("PutBucketEncryption", "PUT", Bucket, &[Query("encryption")]),
    refused("DeleteBucketEncryption", "DELETE", Bucket, &[Query("encryption")]),
    refused("GetBucketIntelligentTieringConfiguration", "GET", Bucket, &[Query("intelligent-tiering")]),
    refused("PutBucketIntelligentTieringConfiguration", "PUT", Bucket, &[Query("intelligent-tiering")]),
    refused("DeleteBucketIntelligentTieringConfiguration", "DELETE", Bucket, &[Query("intelligent-tiering")]),
    refused("GetBucketInventoryConfiguration", "GET", Bucket, &[Query("inventory")]),
    refused("PutBucketInventoryConfiguration", "PUT", Bucket, &[Query("inventory")]),
    refused("DeleteBucketInventoryConfiguration", "DELETE", Bucket, &[Query("inventory")]),
    refused("GetBucketLifecycleConfiguration", "GET", Bucket, &[Query("lifecycle")]),
    refused("PutBucketLifecycleConfiguration", "PUT", Bucket, &[Query("lifecycle")]),
    refused("DeleteBucketLifecycle", "DELETE", Bucket, &[Query("lifecycle")]),
    refused("GetBucketLogging", "GET", Bucket, &[Query("logging")]),
    refused("PutBucketLogging", "PUT", Bucket, &[Query("logging")]),
    refused("GetBucketMetadataConfiguration", "GET", Bucket, &[Query("metadataConfiguration")]),
    refused("CreateBucketMetadataConfiguration", "POST", Bucket, &[Query("metadataConfiguration")]),
    refused("DeleteBucketMetadataConfiguration", "DELETE", Bucket, &[Query("metadataConfiguration")]),
    refused("GetBucketMetadataTableConfiguration", "GET", Bucket, &[Query("metadataTable")]),
    refused("CreateBucketMetadataTableConfiguration", "POST", Bucket, &[Query("metadataTable")]),
    refused("DeleteBucketMetadataTableConfiguration", "DELETE", Bucket, &[Query("metadataTable")]),
    refused(
        "UpdateBucketMetadataInventoryTableConfiguration",
        "PUT",
        Bucket,
        &[Query("metadataInventoryTable")],
    ),
    refused("UpdateBucketMetadataJournalTableConfiguration", "PUT", Bucket, &[Query("metadataJournalTable")]),
    refused("GetBucketMetricsConfiguration", "GET", Bucket, &[Query("metrics")]),
    refused("PutBucketMetricsConfiguration", "PUT", Bucket, &[Query("metrics")]),
    refused("DeleteBucketMetricsConfiguration", "DELETE", Bucket, &[Query("metrics")]),
    refused("GetBucketNotificationConfiguration", "GET", Bucket, &[Query("notification")]),
    refused("PutBucketNotificationConfiguration", "PUT", Bucket, &[Query("notification")]),
    refused("GetObjectLockConfiguration", "GET", Bucket, &[Query("object-lock")]),
    refused("PutObjectLockConfiguration", "PUT", Bucket, &[Query("object-lock")]),
    refused("GetBucketOwnershipControls", "GET", Bucket, &[Query("ownershipControls")]),
    refused("PutBucketOwnershipControls", "PUT", Bucket, &[Query("ownershipControls")]),
    refused("DeleteBucketOwnershipControls", "DELETE", Bucket, &[Query("ownershipControls")]),
    refused("GetBucketPolicy", "GET", Bucket, &[Query("policy")]),
    refused("PutBucketPolicy", "PUT", Bucket, &[Query("policy")]),
    refused("DeleteBucketPolicy", "DELETE", Bucket, &[Query("policy")]),
    refused("GetBucketPolicyStatus", "GET", Bucket, &[Query("policyStatus")]),
    refused("GetPublicAccessBlock", "GET", Bucket, &[Query("publicAccessBlock")]),
    refused("PutPublicAccessBlock", "PUT", Bucket, &[Query("publicAccessBlock")]),
    refused("DeletePublicAccessBlock", "DELETE", Bucket, &[Query("publicAccessBlock")]),
    refused("GetBucketReplication", "GET", Bucket, &[Query("replication")]),
    refused("PutBucketReplication", "PUT", Bucket, &[Query("replication")]),
    refused("DeleteBucketReplication", "DELETE", Bucket, &[Query("replication")]),
    refused("GetBucketRequestPayment", "GET", Bucket, &[Query("requestPayment")]),
    refused("PutBucketRequestPayment", "PUT", Bucket, &[Query("requestPayment")]),
    refused("GetBucketTagging", "GET", Bucket, &[Query("tagging")]),
    refused("PutBucketTagging", "PUT", Bucket, &[Query("tagging")]),
    refused("DeleteBucketTagging", "DELETE", Bucket, &[Query("tagging")]),
    refused("GetBucketVersioning", "GET", Bucket, &[Query("versioning")]),
    refused("PutBucketVersioning", "PUT", Bucket, &[Query("versioning")]),
    refused("GetBucketWebsite", "GET", Bucket, &[Query("website")]),
    refused("PutBucketWebsite", "PUT", Bucket, &[Query("website")]),
    refused("DeleteBucketWebsite", "DELETE", Bucket, &[Query("website")]),
    refused("GetObjectAcl", "GET", Object, &[Query("acl")]),
    refused("PutObjectAcl", "PUT", Object, &[Query("acl")]),
    refused("GetObjectAnnotation", "GET", Object, &[Query("annotation")]),
    refused("PutObjectAnnotation", "PUT", Object, &[Query("annotation")]),
    refused("DeleteObjectAnnotation", "DELETE", Object, &[Query("annotation")]),
    refused("UpdateObjectEncryption", "PUT", Object, &[Query("encryption")]),
    refused("GetObjectLegalHold", "GET", Object, &[Query("legal-hold")]),
    refused("PutObjectLegalHold", "PUT", Object, &[Query("legal-hold")]),
    refused("RenameObject", "PUT", Object, &[Query("renameObject")]),
    refused("RestoreObject", "POST", Object, &[Query("restore")]),
    refused("GetObjectRetention", "GET", Object, &[Query("retention")]),
    refused("PutObjectRetention", "PUT", Object, &[Query("retention")]),
    refused("SelectObjectContent", "POST", Object, &[Query("select")]),
    refused("PutObjectTagging", "PUT", Object, &[Query("tagging")]),
    refused("DeleteObjectTagging", "DELETE", Object, &[Query("tagging")]),
    refused("GetObjectTorrent", "GET", Object, &[Query("torrent")]),
];
