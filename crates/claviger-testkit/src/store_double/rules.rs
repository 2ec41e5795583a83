//! What providers document, one row each. Written from their documents and not from the gateway's own table of stores,
//! so that a mistake in one of them shows.

/// What a provider does that not every S3 store does.
#[derive(Debug)]
pub struct Rules {
    /// The provider, in the double's `Server` header and on its command line.
    pub name: &'static str,
    /// The region that requests have to be signed for.
    pub region: &'static str,
    /// Whether CreateBucket without a location is refused.
    pub wants_location: bool,
    /// Bytes of names and values of user metadata (without `x-amz-meta-`).
    pub metadata_bytes_max: usize,
    /// Bytes of a request's headers in all, if that is limited.
    pub header_bytes_max: Option<usize>,
    /// Bytes of one PUT.
    pub put_bytes_max: u64,
    /// All parts but the last of one size, and the last not larger.
    pub equal_parts: bool,
    /// Conditions on PutObject, CopyObject and CompleteMultipartUpload.
    pub conditional_writes: ConditionalWrites,
    /// DeleteObjects.
    pub delete_objects: bool,
    /// Object tags.
    pub tagging: bool,
    /// `x-amz-acl` values; others are refused.
    pub acls: &'static [&'static str],
    /// Versioning.
    pub versioning: bool,
    /// Writes with Object Lock headers, and PUTs into a bucket with a default retention (here: one whose name ends in
    /// `-locked`), have to carry a digest of the body.
    pub lock_wants_digest: bool,
    /// `x-amz-storage-class` values.
    pub storage_classes: &'static [&'static str],
    /// Any other `x-amz-*` header than the double knows is refused; else it is ignored, as S3 does.
    pub refuses_unknown_headers: bool,
    /// Where this is documented.
    pub sources: &'static [&'static str],
}

/// What becomes of a condition on a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionalWrites {
    /// It is kept.
    Kept,
    /// 501 NotImplemented.
    Refused,
    /// The headers mean nothing on a write. Who sends them gets 400, so that a test sees it.
    Meaningless,
}

const CANNED: &[&str] = &[
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];
const GIB: u64 = 1 << 30;

const S3: Rules = Rules {
    name: "aws",
    region: "eu-central-1",
    // "If you don't specify a Region, the bucket is created in us-east-1": the endpoint of another region refuses that
    // with IllegalLocationConstraintException. API_CreateBucket.html
    wants_location: true,
    // "the user-defined metadata is limited to 2 KB in size", "the PUT request header is limited to 8 KB in size".
    // userguide/UsingMetadata.html
    metadata_bytes_max: 2048,
    header_bytes_max: Some(8192),
    put_bytes_max: 5 * GIB,
    equal_parts: false,
    // userguide/conditional-writes.html
    conditional_writes: ConditionalWrites::Kept,
    delete_objects: true,
    tagging: true,
    acls: CANNED,
    versioning: true,
    // "The Content-MD5 or x-amz-sdk-checksum-algorithm header is required for any request to upload an object with a
    // retention period configured using Amazon S3 Object Lock." API_PutObject.html
    lock_wants_digest: true,
    storage_classes: &[
        "STANDARD",
        "REDUCED_REDUNDANCY",
        "STANDARD_IA",
        "ONEZONE_IA",
        "INTELLIGENT_TIERING",
        "GLACIER",
        "DEEP_ARCHIVE",
        "GLACIER_IR",
    ],
    refuses_unknown_headers: false,
    sources: &[
        "https://docs.aws.amazon.com/AmazonS3/latest/API/",
        "https://docs.aws.amazon.com/AmazonS3/latest/userguide/",
    ],
};

/// All doubles.
pub static RULES: &[Rules] = &[
    S3,
    Rules {
        name: "minio",
        region: "us-east-1",
        wants_location: false,
        // The check was dropped on purpose: https://github.com/minio/minio/issues/16480
        lock_wants_digest: false,
        // "ACLs are not supported": https://min.io/docs/minio/linux/operations/concepts/thresholds.html
        acls: &["private"],
        storage_classes: &["STANDARD", "REDUCED_REDUNDANCY"],
        sources: &["https://min.io/docs/minio/linux/operations/concepts/thresholds.html"],
        ..S3
    },
    Rules {
        name: "gcs",
        region: "auto",
        wants_location: false,
        // https://cloud.google.com/storage/quotas
        metadata_bytes_max: 8192,
        header_bytes_max: None,
        // "If-Match: applicable for requests that retrieve data": https://cloud.google.com/storage/docs/request-preconditions
        conditional_writes: ConditionalWrites::Meaningless,
        // "POST ?delete is not implemented for objects": https://github.com/minio/mc/issues/4778
        delete_objects: false,
        tagging: false,
        versioning: false,
        lock_wants_digest: false,
        // https://cloud.google.com/storage/docs/storage-classes
        storage_classes: &["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"],
        // The migration guide lists which x-amz- headers have a meaning; others have to be left out.
        refuses_unknown_headers: true,
        sources: &[
            "https://cloud.google.com/storage/docs/migrating",
            "https://cloud.google.com/storage/docs/xml-api/reference-headers",
        ],
        ..S3
    },
    Rules {
        name: "ovhcloud",
        region: "gra",
        // Conditions since June 2026: https://github.com/ovh/ovhcloud-docs/pull/28
        sources: &["https://github.com/ovh/ovhcloud-docs"],
        storage_classes: &["STANDARD", "STANDARD_IA", "HIGH_PERF", "EXPRESS_ONEZONE", "GLACIER_IR"],
        ..S3
    },
    Rules {
        name: "r2",
        // "the region for an R2 bucket is auto": https://developers.cloudflare.com/r2/api/s3/api/
        region: "auto",
        wants_location: false,
        // "Object metadata size: 8,192 bytes"; "5 MiB less than 5 GiB": https://developers.cloudflare.com/r2/platform/limits/
        metadata_bytes_max: 8192,
        header_bytes_max: None,
        put_bytes_max: 5 * GIB - (5 << 20),
        // "All parts except the last one must be the same size. The last part has no minimum size, but must be the same
        // or smaller than the other parts": https://developers.cloudflare.com/r2/objects/multipart-objects/#limitations
        equal_parts: true,
        // https://developers.cloudflare.com/r2/api/s3/conditional-operations/
        conditional_writes: ConditionalWrites::Kept,
        // The tables of unimplemented features: https://developers.cloudflare.com/r2/api/s3/api/
        tagging: false,
        acls: &[],
        versioning: false,
        lock_wants_digest: false,
        storage_classes: &["STANDARD", "STANDARD_IA"],
        refuses_unknown_headers: true,
        sources: &["https://developers.cloudflare.com/r2/api/s3/api/"],
        ..S3
    },
    Rules {
        name: "b2",
        region: "us-west-004",
        wants_location: false,
        // 7,000 bytes of file name and file info, 2,048 with encryption or Object Lock:
        // https://www.backblaze.com/apidocs/b2-upload-file
        metadata_bytes_max: 2048,
        header_bytes_max: Some(7000),
        // "A header you provided implies functionality that is not implemented":
        // https://github.com/sathinduga/obsidian-s3-sync-and-backup/pull/84
        conditional_writes: ConditionalWrites::Refused,
        tagging: false,
        // "between private and public-read only": https://www.backblaze.com/docs/cloud-storage-s3-compatible-api
        acls: &["private", "public-read"],
        lock_wants_digest: false,
        storage_classes: &["STANDARD"],
        sources: &["https://www.backblaze.com/docs/cloud-storage-s3-compatible-api"],
        ..S3
    },
    Rules {
        name: "wasabi",
        region: "eu-central-1",
        // "100% bit-compatible with the Amazon Web Services Simple Storage Service": https://docs.wasabi.com/apidocs/wasabi-api
        storage_classes: &["STANDARD"],
        sources: &["https://docs.wasabi.com/apidocs/wasabi-api"],
        ..S3
    },
];

/// The row of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Rules> {
    RULES.iter().find(|rules| rules.name == name)
}
