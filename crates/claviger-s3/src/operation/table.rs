//! The table of operations, readable by machines: it drives classification and documentation alike.

use super::OperationKind;
use super::headers::{
    ACL, BODY, BUCKET_CREATE, BYPASS, COMPLETE, COPY_SOURCE, COPY_WRITE, CREATE_MULTIPART, GET_ATTRIBUTES,
    HARMLESS_WRITE, OBJECT_WRITE, READ, TAGS_AND_LOCK,
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
    SERVED.iter().chain(super::configuration::rows()).chain(REFUSED)
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
        headers: &[BUCKET_CREATE, ACL, BODY],
        note: "A `CreateBucketConfiguration` may hold a location constraint and nothing else.",
        ..row(Kind::CreateBucket, "PUT", Bucket, &[])
    },
    row(Kind::HeadBucket, "HEAD", Bucket, &[]),
    row(Kind::DeleteBucket, "DELETE", Bucket, &[]),
    row(Kind::GetBucketLocation, "GET", Bucket, &[Query("location")]),
    row(Kind::GetBucketVersioning, "GET", Bucket, &[Query("versioning")]),
    OperationRow {
        headers: &[BODY],
        note: "MFA delete is refused.",
        ..row(Kind::PutBucketVersioning, "PUT", Bucket, &[Query("versioning")])
    },
    row(Kind::GetObjectLockConfiguration, "GET", Bucket, &[Query("object-lock")]),
    OperationRow {
        headers: &[BODY],
        ..row(Kind::PutObjectLockConfiguration, "PUT", Bucket, &[Query("object-lock")])
    },
    OperationRow {
        parameters: &[
            "allow-unordered",
            "bucket",
            "delimiter",
            "encoding-type",
            "etag",
            "key",
            "marker",
            "max-keys",
            "prefix",
        ],
        note: "`bucket`, `key` and `etag` mean nothing: a form's redirect may lead to the bucket with them.",
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
        parameters: &["delimiter", "encoding-type", "key-marker", "max-keys", "prefix", "version-id-marker"],
        ..row(Kind::ListObjectVersions, "GET", Bucket, &[Query("versions")])
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
    OperationRow { headers: &[BYPASS, BODY], ..row(Kind::DeleteObjects, "POST", Bucket, &[Query("delete")]) },
    OperationRow {
        note: "Also on an object. Needs no signature; parameters and further headers are ignored. The store is asked by the bucket's name alone.",
        ..row(Kind::Preflight, "OPTIONS", Bucket, &[])
    },
    OperationRow {
        headers: &[OBJECT_WRITE, TAGS_AND_LOCK, ACL, BODY],
        note: "`If-None-Match: *` and `If-Match` are passed on to the store.",
        ..row(Kind::PutObject, "PUT", Object, &[])
    },
    OperationRow {
        note: "An HTML form: its fields are judged as the headers of PutObject are.",
        ..row(Kind::PostObject, "POST", Bucket, &[])
    },
    OperationRow {
        headers: &[OBJECT_WRITE, TAGS_AND_LOCK, ACL, COPY_SOURCE, COPY_WRITE],
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
        headers: &[BYPASS],
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
        note: "An empty set where tags are refused.",
        ..row(Kind::GetObjectTagging, "GET", Object, &[Query("tagging")])
    },
    OperationRow {
        parameters: &["versionId"],
        headers: &[BODY],
        note: "Where `[[tags]]` says `plain`.",
        ..row(Kind::PutObjectTagging, "PUT", Object, &[Query("tagging")])
    },
    OperationRow {
        parameters: &["versionId"],
        note: "Where `[[tags]]` says `plain`.",
        ..row(Kind::DeleteObjectTagging, "DELETE", Object, &[Query("tagging")])
    },
    OperationRow {
        parameters: &["versionId"],
        ..row(Kind::GetObjectRetention, "GET", Object, &[Query("retention")])
    },
    OperationRow {
        parameters: &["versionId"],
        headers: &[BYPASS, BODY],
        ..row(Kind::PutObjectRetention, "PUT", Object, &[Query("retention")])
    },
    OperationRow {
        parameters: &["versionId"],
        ..row(Kind::GetObjectLegalHold, "GET", Object, &[Query("legal-hold")])
    },
    OperationRow {
        parameters: &["versionId"],
        headers: &[BODY],
        ..row(Kind::PutObjectLegalHold, "PUT", Object, &[Query("legal-hold")])
    },
    OperationRow {
        headers: &[OBJECT_WRITE, TAGS_AND_LOCK, ACL, CREATE_MULTIPART],
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

/// With the reason, which the answer and the documentation give.
const fn because(reason: &'static str, row: OperationRow) -> OperationRow {
    OperationRow { note: reason, ..row }
}

const METADATA_TABLES: &str =
    "the store would keep tables about sealed objects, which can't be read through the gateway";
const ANNOTATIONS: &str = "an annotation is content that the store would keep in clear";

/// The rest of the S3 API, so that its refusals can name what was asked for.
static REFUSED: &[OperationRow] = &[
    because(
        "sessions belong to directory buckets, which the gateway does not serve",
        refused("CreateSession", "GET", Bucket, &[Query("session")]),
    ),
    because(
        "the store would write reports into a bucket, which are not sealed and can't be read through the gateway",
        refused("PutBucketAnalyticsConfiguration", "PUT", Bucket, &[Query("analytics")]),
    ),
    because(
        "the store would write reports into a bucket, which are not sealed and can't be read through the gateway",
        refused("PutBucketInventoryConfiguration", "PUT", Bucket, &[Query("inventory")]),
    ),
    because(
        "the store would write logs into a bucket, which are not sealed and can't be read through the gateway",
        refused("PutBucketLogging", "PUT", Bucket, &[Query("logging")]),
    ),
    because(
        METADATA_TABLES,
        refused("GetBucketMetadataConfiguration", "GET", Bucket, &[Query("metadataConfiguration")]),
    ),
    because(
        METADATA_TABLES,
        refused("CreateBucketMetadataConfiguration", "POST", Bucket, &[Query("metadataConfiguration")]),
    ),
    because(
        METADATA_TABLES,
        refused("DeleteBucketMetadataConfiguration", "DELETE", Bucket, &[Query("metadataConfiguration")]),
    ),
    because(
        METADATA_TABLES,
        refused("GetBucketMetadataTableConfiguration", "GET", Bucket, &[Query("metadataTable")]),
    ),
    because(
        METADATA_TABLES,
        refused("CreateBucketMetadataTableConfiguration", "POST", Bucket, &[Query("metadataTable")]),
    ),
    because(
        METADATA_TABLES,
        refused("DeleteBucketMetadataTableConfiguration", "DELETE", Bucket, &[Query("metadataTable")]),
    ),
    because(
        METADATA_TABLES,
        refused(
            "UpdateBucketMetadataInventoryTableConfiguration",
            "PUT",
            Bucket,
            &[Query("metadataInventoryTable")],
        ),
    ),
    because(
        METADATA_TABLES,
        refused(
            "UpdateBucketMetadataJournalTableConfiguration",
            "PUT",
            Bucket,
            &[Query("metadataJournalTable")],
        ),
    ),
    because(
        "the store would serve ciphertext as pages",
        refused("PutBucketWebsite", "PUT", Bucket, &[Query("website")]),
    ),
    because(ANNOTATIONS, refused("GetObjectAnnotation", "GET", Object, &[Query("annotation")])),
    because(ANNOTATIONS, refused("PutObjectAnnotation", "PUT", Object, &[Query("annotation")])),
    because(ANNOTATIONS, refused("DeleteObjectAnnotation", "DELETE", Object, &[Query("annotation")])),
    because(
        "objects are sealed; keys of the store are not used",
        refused("UpdateObjectEncryption", "PUT", Object, &[Query("encryption")]),
    ),
    because(
        "an object is sealed for its name; copy and delete it",
        refused("RenameObject", "PUT", Object, &[Query("renameObject")]),
    ),
    because(
        "restore archived objects at the store",
        refused("RestoreObject", "POST", Object, &[Query("restore")]),
    ),
    because(
        "the store can't look into sealed objects",
        refused("SelectObjectContent", "POST", Object, &[Query("select")]),
    ),
    because(
        "the store would hand out ciphertext",
        refused("GetObjectTorrent", "GET", Object, &[Query("torrent")]),
    ),
];
