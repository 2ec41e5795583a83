//! Sub-resources that hold a configuration document: one table says for each what becomes of it.
//!
//! The documents are the store's affair: the gateway checks that one is what it claims to be and passes it on as it was
//! written, in clear (docs/threat-model.md, declared leakage). Reading and removing is forwarded wherever that is
//! harmless; writing is not where the document would make the store serve or write something that is of no use or
//! not authentic.

use std::sync::LazyLock;

use super::OperationKind as Kind;
use super::acl::AclHeaders;
use super::classify::Names;
use super::fields::Fields;
use super::headers::{ACL, BODY};
use super::inputs::BodyHead;
use super::table::{OperationRow, Parameter, Selector, Target};
use super::values::body_head;
use crate::error::{ErrorCode, S3Error};
use crate::name::{BucketName, ObjectKey};
use crate::version::VersionId;
use crate::xml::DocumentForm;

use DocumentForm::{Json, Xml};
use Selector::Query;
use Target::{Bucket, Object};

/// Largest XML document of a configuration, in bytes: 1,000 lifecycle rules, each with a filter of 1 KiB.
const CONFIGURATION_LEN_MAX: usize = 2 << 20;
/// Largest bucket policy, in bytes. S3 takes 20 KiB.
const POLICY_LEN_MAX: usize = 64 << 10;
/// Longest id of a configuration, in characters. S3 takes 64.
const ID_LEN_MAX: usize = 64;
const TOKEN_LEN_MAX: usize = 1024;

/// What is done with a configuration document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// It is read.
    Get,
    /// It is written.
    Put,
    /// It is removed.
    Delete,
}

impl Verb {
    /// The method, here and at the store.
    pub const fn method(self) -> http::Method {
        match self {
            Self::Get => http::Method::GET,
            Self::Put => http::Method::PUT,
            Self::Delete => http::Method::DELETE,
        }
    }
}

/// A header with a choice of values that is passed on with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The header.
    pub header: &'static [Parameter],
    /// All values that it may have.
    pub values: &'static [&'static str],
}

/// One row of the table: a sub-resource and what of it is forwarded.
#[derive(Debug, PartialEq, Eq)]
pub struct Subresource {
    /// What it belongs to.
    pub target: Target,
    /// The query parameters that select it.
    pub selectors: &'static [Selector],
    /// The operations, by verb; a verb that is missing here is refused (see the table of operations).
    pub operations: &'static [(Verb, Kind)],
    /// Further query parameters.
    pub parameters: &'static [&'static str],
    /// `x-amz-*` headers of a PUT.
    pub put_headers: &'static [&'static [Parameter]],
    /// The one of them that is passed on, besides ACLs.
    pub choice: Option<Choice>,
    /// The form of the document.
    pub form: DocumentForm,
    /// Its greatest length in bytes.
    pub len_max: usize,
    /// The code of a document that is none.
    pub malformed: ErrorCode,
    /// What a store answers that knows the sub-resource but has no document.
    pub absent: Option<ErrorCode>,
    /// Some stores don't know it and take the request for one on the bucket itself, so that a DELETE would remove the
    /// bucket: it is asked for before it is changed.
    pub is_asked_first: bool,
    /// A remark for the documentation.
    pub note: &'static str,
}

const fn bucket(
    selectors: &'static [Selector],
    operations: &'static [(Verb, Kind)],
    form: DocumentForm,
) -> Subresource {
    Subresource {
        target: Bucket,
        selectors,
        operations,
        parameters: &[],
        put_headers: DOCUMENT,
        choice: None,
        form,
        len_max: CONFIGURATION_LEN_MAX,
        malformed: ErrorCode::MalformedXML,
        absent: None,
        is_asked_first: true,
        note: "",
    }
}

/// Most stores that have sub-resources at all know these.
const fn well_known(
    selectors: &'static [Selector],
    operations: &'static [(Verb, Kind)],
    form: DocumentForm,
) -> Subresource {
    Subresource { is_asked_first: false, ..bucket(selectors, operations, form) }
}

const BOOLEANS: &[&str] = &["true", "false", "True", "False", "TRUE", "FALSE"];

/// Every sub-resource of which something is forwarded.
pub static SUBRESOURCES: &[Subresource] = &[
    Subresource {
        put_headers: &[ACL, BODY],
        malformed: ErrorCode::MalformedACLError,
        note: "The body may be missing if the ACL is in headers.",
        ..well_known(
            &[Query("acl")],
            &[(Verb::Get, Kind::GetBucketAcl), (Verb::Put, Kind::PutBucketAcl)],
            Xml(&["AccessControlPolicy"]),
        )
    },
    Subresource {
        target: Object,
        parameters: &["versionId"],
        put_headers: &[ACL, BODY],
        malformed: ErrorCode::MalformedACLError,
        note: "The body may be missing if the ACL is in headers.",
        ..well_known(
            &[Query("acl")],
            &[(Verb::Get, Kind::GetObjectAcl), (Verb::Put, Kind::PutObjectAcl)],
            Xml(&["AccessControlPolicy"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::NoSuchCORSConfiguration),
        ..well_known(
            &[Query("cors")],
            &[
                (Verb::Get, Kind::GetBucketCors),
                (Verb::Put, Kind::PutBucketCors),
                (Verb::Delete, Kind::DeleteBucketCors),
            ],
            Xml(&["CORSConfiguration"]),
        )
    },
    Subresource {
        put_headers: &[BODY, LIFECYCLE],
        choice: Some(Choice {
            header: LIFECYCLE,
            values: &["all_storage_classes_128K", "varies_by_storage_class"],
        }),
        absent: Some(ErrorCode::NoSuchLifecycleConfiguration),
        note: "Size filters mean stored bytes.",
        ..well_known(
            &[Query("lifecycle")],
            &[
                (Verb::Get, Kind::GetBucketLifecycleConfiguration),
                (Verb::Put, Kind::PutBucketLifecycleConfiguration),
                (Verb::Delete, Kind::DeleteBucketLifecycle),
            ],
            Xml(&["LifecycleConfiguration"]),
        )
    },
    Subresource {
        put_headers: &[BODY, POLICY],
        choice: Some(Choice { header: POLICY, values: BOOLEANS }),
        len_max: POLICY_LEN_MAX,
        malformed: ErrorCode::MalformedPolicy,
        absent: Some(ErrorCode::NoSuchBucketPolicy),
        note: "Judged by the store, on the account that the gateway uses there.",
        ..well_known(
            &[Query("policy")],
            &[
                (Verb::Get, Kind::GetBucketPolicy),
                (Verb::Put, Kind::PutBucketPolicy),
                (Verb::Delete, Kind::DeleteBucketPolicy),
            ],
            Json,
        )
    },
    bucket(&[Query("policyStatus")], &[(Verb::Get, Kind::GetBucketPolicyStatus)], Xml(&["PolicyStatus"])),
    Subresource {
        absent: Some(ErrorCode::NoSuchPublicAccessBlockConfiguration),
        ..bucket(
            &[Query("publicAccessBlock")],
            &[
                (Verb::Get, Kind::GetPublicAccessBlock),
                (Verb::Put, Kind::PutPublicAccessBlock),
                (Verb::Delete, Kind::DeletePublicAccessBlock),
            ],
            // Ceph RGW 16 answers with the second.
            Xml(&["PublicAccessBlockConfiguration", "BlockPublicAccessBlockConfiguration"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::OwnershipControlsNotFoundError),
        ..bucket(
            &[Query("ownershipControls")],
            &[
                (Verb::Get, Kind::GetBucketOwnershipControls),
                (Verb::Put, Kind::PutBucketOwnershipControls),
                (Verb::Delete, Kind::DeleteBucketOwnershipControls),
            ],
            Xml(&["OwnershipControls"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::ServerSideEncryptionConfigurationNotFoundError),
        note: "Encrypts at the store what is sealed already.",
        ..bucket(
            &[Query("encryption")],
            &[
                (Verb::Get, Kind::GetBucketEncryption),
                (Verb::Put, Kind::PutBucketEncryption),
                (Verb::Delete, Kind::DeleteBucketEncryption),
            ],
            Xml(&["ServerSideEncryptionConfiguration"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::NoSuchTagSet),
        ..well_known(
            &[Query("tagging")],
            &[
                (Verb::Get, Kind::GetBucketTagging),
                (Verb::Put, Kind::PutBucketTagging),
                (Verb::Delete, Kind::DeleteBucketTagging),
            ],
            Xml(&["Tagging"]),
        )
    },
    well_known(
        &[Query("requestPayment")],
        &[(Verb::Get, Kind::GetBucketRequestPayment), (Verb::Put, Kind::PutBucketRequestPayment)],
        Xml(&["RequestPaymentConfiguration"]),
    ),
    Subresource {
        absent: Some(ErrorCode::ReplicationConfigurationNotFoundError),
        note: "A replica opens only under the bucket name and key of the original.",
        ..bucket(
            &[Query("replication")],
            &[
                (Verb::Get, Kind::GetBucketReplication),
                (Verb::Put, Kind::PutBucketReplication),
                (Verb::Delete, Kind::DeleteBucketReplication),
            ],
            Xml(&["ReplicationConfiguration"]),
        )
    },
    bucket(&[Query("logging")], &[(Verb::Get, Kind::GetBucketLogging)], Xml(&["BucketLoggingStatus"])),
    Subresource {
        put_headers: &[BODY, NOTIFICATION],
        choice: Some(Choice { header: NOTIFICATION, values: BOOLEANS }),
        note: "Events name keys, stored sizes and the store's entity tags.",
        ..bucket(
            &[Query("notification")],
            &[
                (Verb::Get, Kind::GetBucketNotificationConfiguration),
                (Verb::Put, Kind::PutBucketNotificationConfiguration),
            ],
            Xml(&["NotificationConfiguration"]),
        )
    },
    bucket(
        &[Query("accelerate")],
        &[
            (Verb::Get, Kind::GetBucketAccelerateConfiguration),
            (Verb::Put, Kind::PutBucketAccelerateConfiguration),
        ],
        Xml(&["AccelerateConfiguration"]),
    ),
    Subresource {
        absent: Some(ErrorCode::NoSuchConfiguration),
        ..bucket(
            &[Query("metrics"), Query("id")],
            &[
                (Verb::Get, Kind::GetBucketMetricsConfiguration),
                (Verb::Put, Kind::PutBucketMetricsConfiguration),
                (Verb::Delete, Kind::DeleteBucketMetricsConfiguration),
            ],
            Xml(&["MetricsConfiguration"]),
        )
    },
    Subresource {
        parameters: &["continuation-token"],
        ..bucket(
            &[Query("metrics")],
            &[(Verb::Get, Kind::ListBucketMetricsConfigurations)],
            Xml(&["ListMetricsConfigurationsResult"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::NoSuchConfiguration),
        ..bucket(
            &[Query("intelligent-tiering"), Query("id")],
            &[
                (Verb::Get, Kind::GetBucketIntelligentTieringConfiguration),
                (Verb::Put, Kind::PutBucketIntelligentTieringConfiguration),
                (Verb::Delete, Kind::DeleteBucketIntelligentTieringConfiguration),
            ],
            Xml(&["IntelligentTieringConfiguration"]),
        )
    },
    Subresource {
        parameters: &["continuation-token"],
        ..bucket(
            &[Query("intelligent-tiering")],
            &[(Verb::Get, Kind::ListBucketIntelligentTieringConfigurations)],
            Xml(&["ListBucketIntelligentTieringConfigurationsOutput"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::NoSuchWebsiteConfiguration),
        ..bucket(
            &[Query("website")],
            &[(Verb::Get, Kind::GetBucketWebsite), (Verb::Delete, Kind::DeleteBucketWebsite)],
            Xml(&["WebsiteConfiguration"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::NoSuchConfiguration),
        ..bucket(
            &[Query("inventory"), Query("id")],
            &[
                (Verb::Get, Kind::GetBucketInventoryConfiguration),
                (Verb::Delete, Kind::DeleteBucketInventoryConfiguration),
            ],
            Xml(&["InventoryConfiguration"]),
        )
    },
    Subresource {
        parameters: &["continuation-token"],
        ..bucket(
            &[Query("inventory")],
            &[(Verb::Get, Kind::ListBucketInventoryConfigurations)],
            Xml(&["ListInventoryConfigurationsResult"]),
        )
    },
    Subresource {
        absent: Some(ErrorCode::NoSuchConfiguration),
        ..bucket(
            &[Query("analytics"), Query("id")],
            &[
                (Verb::Get, Kind::GetBucketAnalyticsConfiguration),
                (Verb::Delete, Kind::DeleteBucketAnalyticsConfiguration),
            ],
            Xml(&["AnalyticsConfiguration"]),
        )
    },
    Subresource {
        parameters: &["continuation-token"],
        ..bucket(
            &[Query("analytics")],
            &[(Verb::Get, Kind::ListBucketAnalyticsConfigurations)],
            // AWS writes the first, its API reference the second.
            Xml(&["ListBucketAnalyticsConfigurationsResult", "ListBucketAnalyticsConfigurationResult"]),
        )
    },
];

const fn passed(name: &'static str) -> Parameter {
    Parameter { name, note: "passed on to the store" }
}

static DOCUMENT: &[&[Parameter]] = &[BODY];
static LIFECYCLE: &[Parameter] = &[passed("x-amz-transition-default-minimum-object-size")];
static POLICY: &[Parameter] = &[passed("x-amz-confirm-remove-self-bucket-access")];
static NOTIFICATION: &[Parameter] = &[passed("x-amz-skip-destination-validation")];

/// The rows of the table of operations that belong to [`SUBRESOURCES`].
pub(super) fn rows() -> &'static [OperationRow] {
    static ROWS: LazyLock<Vec<OperationRow>> =
        LazyLock::new(|| SUBRESOURCES.iter().flat_map(Subresource::rows).collect());
    &ROWS
}

impl Subresource {
    /// The row that an operation belongs to; `None` for operations that are about no configuration document.
    pub fn of(kind: Kind) -> Option<(&'static Self, Verb)> {
        SUBRESOURCES.iter().find_map(|row| {
            let (verb, _) = row.operations.iter().find(|(_, operation)| *operation == kind)?;
            Some((row, *verb))
        })
    }

    /// Whether the ACL may come in headers instead of a document.
    fn takes_acl_headers(&self) -> bool {
        self.selectors == [Query("acl")]
    }

    fn rows(&'static self) -> impl Iterator<Item = OperationRow> {
        self.operations.iter().map(|(verb, kind)| OperationRow {
            name: kind.as_str(),
            served: Some(*kind),
            method: match verb {
                Verb::Get => "GET",
                Verb::Put => "PUT",
                Verb::Delete => "DELETE",
            },
            target: self.target,
            selectors: self.selectors,
            parameters: self.parameters,
            headers: if *verb == Verb::Put { self.put_headers } else { &[] },
            note: self.note,
        })
    }
}

/// A request on a sub-resource that holds a configuration document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    /// The operation.
    pub kind: Kind,
    /// What is done.
    pub verb: Verb,
    /// Its row in the table.
    pub subresource: &'static Subresource,
    /// The bucket.
    pub bucket: BucketName,
    /// The key of an object's sub-resource.
    pub key: Option<ObjectKey>,
    /// `versionId`, for an object.
    pub version: Option<VersionId>,
    /// Which of several configurations, or where a listing of them goes on: name and value.
    pub parameters: Vec<(&'static str, String)>,
    /// The ACL, where it comes in headers.
    pub acl: AclHeaders,
    /// The header of [`Subresource::choice`], if it was sent.
    pub choice: Option<(&'static str, &'static str)>,
    /// Lengths and checksums of the document.
    pub body: BodyHead,
}

impl Configuration {
    /// Reads the request: `InvalidArgument` for values that can't be.
    pub(super) fn read(kind: Kind, names: Names, f: &Fields<'_>) -> Result<Self, S3Error> {
        let internal = || S3Error::new(ErrorCode::InternalError);
        let (subresource, verb) = Subresource::of(kind).ok_or_else(internal)?;
        let acl = if verb == Verb::Put && subresource.takes_acl_headers() {
            AclHeaders::read(f)?
        } else {
            AclHeaders::default()
        };
        Ok(Self {
            kind,
            verb,
            subresource,
            bucket: names.bucket.ok_or_else(internal)?,
            key: names.key,
            version: f.query("versionId").map(VersionId::parse).transpose()?,
            parameters: parameters(subresource, f)?,
            acl,
            choice: if verb == Verb::Put { choice(subresource, f)? } else { None },
            body: body_head(f)?,
        })
    }
}

fn parameters(subresource: &Subresource, f: &Fields<'_>) -> Result<Vec<(&'static str, String)>, S3Error> {
    let mut found = Vec::new();
    if subresource.selectors.contains(&Query("id")) {
        let id = f.query("id").unwrap_or_default();
        let is_id = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > ID_LEN_MAX || !id.bytes().all(is_id) {
            return Err(S3Error::invalid_argument("id", "", "The id of a configuration is not valid."));
        }
        found.push(("id", id.to_owned()));
    }
    if let Some(token) = f.query_non_empty("continuation-token") {
        if token.len() > TOKEN_LEN_MAX {
            let text = "The continuation token provided is incorrect";
            return Err(S3Error::invalid_argument("continuation-token", "", text));
        }
        found.push(("continuation-token", token));
    }
    Ok(found)
}

fn choice(
    subresource: &Subresource,
    f: &Fields<'_>,
) -> Result<Option<(&'static str, &'static str)>, S3Error> {
    let Some(Choice { header: [Parameter { name, .. }], values }) = subresource.choice else {
        return Ok(None);
    };
    let Some(sent) = f.header_non_empty(name)? else { return Ok(None) };
    match values.iter().find(|value| **value == sent) {
        Some(value) => Ok(Some((name, value))),
        None => Err(S3Error::invalid_argument(name, "", "The value of the header is not valid.")),
    }
}
