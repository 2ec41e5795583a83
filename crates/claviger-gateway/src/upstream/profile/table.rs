//! The table. Where a fact of a provider's is not documented, the row says `Unknown`, or what is safest.

use claviger_s3::error::ErrorCode;

use super::{Condition, Conditions, DeleteObjects, Features, Location, Profile, ShownBy, TagForm};
use crate::config::UpstreamProfile;

const GIB: u64 = 1 << 30;
/// S3's limit for user metadata (S3 user guide, "Working with object metadata").
const S3_METADATA: usize = 2048;
/// More than any store takes.
const METADATA_MAX: usize = 65_536;

/// What every S3 store is thought to understand.
pub(super) const GENERIC: Profile = Profile {
    kind: UpstreamProfile::Generic,
    name: "generic",
    store: "any other",
    shown_by: ShownBy::Nothing,
    location: Location::Unnamed,
    regions: &[],
    metadata_bytes_max: METADATA_MAX,
    put_bytes_max: 5 * GIB,
    equal_parts: false,
    tag_on_put: TagForm::Quoted,
    conditions: Conditions::all(Condition::Unknown),
    delete_objects: DeleteObjects::Together,
    signature_v2: false,
    checksum_behind_puts: false,
    complete_wants_all_parts: false,
    marker_skips_prefix: true,
    no_such_part: ErrorCode::InvalidPartNumber,
    copy_takes_tags: true,
    features: Features::ALL,
    storage_classes: &[],
    sources: &[],
};

/// All kinds of stores.
pub static PROFILES: &[Profile] = &[
    Profile {
        kind: UpstreamProfile::Aws,
        name: "aws",
        store: "Amazon S3",
        shown_by: ShownBy::ADouble,
        location: Location::OutsideUsEast1,
        metadata_bytes_max: S3_METADATA,
        conditions: Conditions::all(Condition::Kept),
        checksum_behind_puts: true,
        storage_classes: &[
            "STANDARD",
            "STANDARD_IA",
            "ONEZONE_IA",
            "INTELLIGENT_TIERING",
            "GLACIER_IR",
            "GLACIER",
            "DEEP_ARCHIVE",
        ],
        sources: &[
            "https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html",
            "https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html",
            "https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html",
            "https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::CephRgw,
        name: "ceph-rgw",
        store: "Ceph RGW (16.2)",
        shown_by: ShownBy::TheStore,
        // A request is limited to 16,000 bytes of headers.
        metadata_bytes_max: 8192,
        tag_on_put: TagForm::Bare,
        conditions: Conditions {
            put_if_none_match: Condition::Kept,
            put_if_match: Condition::Kept,
            complete: Condition::Ignored,
            delete: Condition::Ignored,
        },
        signature_v2: true,
        complete_wants_all_parts: true,
        no_such_part: ErrorCode::InvalidPart,
        copy_takes_tags: false,
        storage_classes: &["STANDARD"],
        sources: &[
            "the store itself",
            "https://www.ibm.com/docs/en/storage-ceph/6?topic=api-s3-limitations",
            "https://docs.ceph.com/en/latest/radosgw/s3/",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::Garage,
        no_such_part: ErrorCode::InvalidPart,
        name: "garage",
        store: "Garage (2.5)",
        shown_by: ShownBy::TheStoreOnDemand,
        metadata_bytes_max: S3_METADATA,
        conditions: Conditions::all(Condition::Ignored),
        marker_skips_prefix: false,
        features: Features::NONE,
        sources: &[
            "the store itself",
            "https://garagehq.deuxfleurs.fr/documentation/reference-manual/s3-compatibility/",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::Minio,
        name: "minio",
        store: "MinIO and compatible",
        shown_by: ShownBy::ADouble,
        metadata_bytes_max: S3_METADATA,
        conditions: Conditions {
            put_if_none_match: Condition::Kept,
            put_if_match: Condition::Kept,
            complete: Condition::Kept,
            delete: Condition::Unknown,
        },
        features: Features { acl: false, ..Features::ALL },
        storage_classes: &["STANDARD", "REDUCED_REDUNDANCY"],
        sources: &[
            "https://min.io/docs/minio/linux/operations/concepts/thresholds.html",
            "https://github.com/minio/minio/pull/16551",
            "https://github.com/minio/minio/issues/16480",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::Gcs,
        name: "gcs",
        store: "Google Cloud Storage, XML API",
        shown_by: ShownBy::ADouble,
        // "A custom metadata of 8 KiB" for all keys and values of an object.
        metadata_bytes_max: 8192,
        // `If-Match` and `If-None-Match` are for requests that retrieve data; writes go by generations.
        conditions: Conditions::all(Condition::NotSent),
        delete_objects: DeleteObjects::OneByOne,
        // Versions are generations there (`generation=` for `versionId=`), tags don't exist, ACLs are its own documents.
        features: Features::NONE,
        storage_classes: &["STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE"],
        sources: &[
            "https://cloud.google.com/storage/docs/migrating#methods-comparison",
            "https://cloud.google.com/storage/docs/request-preconditions",
            "https://cloud.google.com/storage/docs/xml-api/reference-headers",
            "https://cloud.google.com/storage/quotas",
            "https://github.com/minio/mc/issues/4778",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::Ovhcloud,
        name: "ovhcloud",
        store: "OVHcloud Object Storage",
        shown_by: ShownBy::ADouble,
        location: Location::OutsideUsEast1,
        metadata_bytes_max: S3_METADATA,
        // Since June 2026.
        conditions: Conditions::all(Condition::Kept),
        storage_classes: &["STANDARD", "STANDARD_IA", "HIGH_PERF", "EXPRESS_ONEZONE", "GLACIER_IR"],
        sources: &[
            "https://github.com/ovh/ovhcloud-docs/pull/28",
            "https://www.mintlify.com/ovh/docs/storage/object-storage",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::R2,
        name: "r2",
        store: "Cloudflare R2",
        shown_by: ShownBy::ADouble,
        location: Location::UnlessAuto,
        // An empty region and us-east-1 are aliases of auto; the others are location hints.
        regions: &["auto", "us-east-1", "wnam", "enam", "weur", "eeur", "apac", "oc"],
        metadata_bytes_max: 8192,
        put_bytes_max: 5 * GIB - (5 << 20),
        equal_parts: true,
        conditions: Conditions { delete: Condition::Unknown, ..Conditions::all(Condition::Kept) },
        features: Features::NONE,
        storage_classes: &["STANDARD", "STANDARD_IA"],
        sources: &[
            "https://developers.cloudflare.com/r2/platform/limits/",
            "https://developers.cloudflare.com/r2/objects/multipart-objects/#limitations",
            "https://developers.cloudflare.com/r2/api/s3/api/",
            "https://developers.cloudflare.com/r2/api/s3/conditional-operations/",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::B2,
        name: "b2",
        store: "Backblaze B2",
        shown_by: ShownBy::ADouble,
        // 7,000 bytes of headers, and 2,048 with server-side encryption or Object Lock.
        metadata_bytes_max: S3_METADATA,
        conditions: Conditions::all(Condition::Refused),
        // ACLs are the bucket's, private or public-read.
        features: Features { tagging: false, acl: false, policy: false, ..Features::ALL },
        sources: &[
            "https://www.backblaze.com/docs/cloud-storage-s3-compatible-api",
            "https://www.backblaze.com/apidocs/s3-put-object",
            "https://www.backblaze.com/apidocs/b2-upload-file",
            "https://github.com/sathinduga/obsidian-s3-sync-and-backup/pull/84",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::Wasabi,
        name: "wasabi",
        store: "Wasabi",
        shown_by: ShownBy::ADouble,
        location: Location::OutsideUsEast1,
        metadata_bytes_max: S3_METADATA,
        storage_classes: &["STANDARD"],
        sources: &[
            "https://docs.wasabi.com/docs/rest-api-introduction",
            "https://docs.wasabi.com/apidocs/wasabi-api",
            "https://docs.wasabi.com/apidocs/object-tagging-with-the-wasabi-s3-api",
        ],
        ..GENERIC
    },
    Profile {
        kind: UpstreamProfile::Embedded,
        name: "embedded",
        store: "the store inside `claviger demo`",
        shown_by: ShownBy::TheStore,
        metadata_bytes_max: S3_METADATA,
        conditions: Conditions::all(Condition::Kept),
        features: Features::NONE,
        sources: &["docs/decisions/002-embedded-provider.md"],
        ..GENERIC
    },
    GENERIC,
];
