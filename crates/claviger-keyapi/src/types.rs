//! Requests and answers of the gateway's routes.

use serde::{Deserialize, Serialize};

use crate::Identity;
use crate::secret::{
    DekBytes, EtagKeyBytes, NameKeyBytes, PskBytes, Seed32, UnitOutput, UploadKeyBytes, WekBytes,
};
use crate::wire::{Blob, EnvelopeHeader, Id16, PublicKey};

/// What policy can grant to a gateway. `docs/key-service-api.md` says what each releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Get the WEK of any epoch of the keyset for a while. Whole keyset only.
    Lease,
    /// Get the public key and PSK to seal epochs with. Whole keyset only.
    Write,
    /// Get the DEK of an object whose name was verified.
    Read,
    /// Get the unit keys of a metadata envelope.
    Head,
    /// Get the unit keys to re-bind an object under a new name.
    CopySource,
    /// Go on with an upload that another gateway began.
    Continue,
    /// Bind and unbind buckets.
    Bind,
    /// Get the key that object names are sealed with. Whole keyset only.
    Names,
}

/// Everything a gateway needs after enrolment, asked again every `session_ttl_s` at the latest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionInfo {
    /// The caller's own name.
    pub identity: Identity,
    /// The caller's `sealer_id` in epoch records (docs/format.md §2.3).
    pub gateway_id: Id16,
    /// Fresh in every answer; goes into the next WEK (docs/format.md §2.2).
    pub seed: Seed32,
    /// The keysets that the caller is enrolled for and policy grants something on.
    pub keysets: Vec<SessionKeyset>,
    /// How long an answer of `binding` or `bindings` may be used, counted from the sending of the request.
    pub binding_ttl_s: u32,
    /// How long a lease is good for; each lease carries its own number too.
    pub lease_ttl_s: u32,
    /// How long a DEK or unit key from `derive` or `continue` may be cached.
    pub derive_ttl_s: u32,
    /// When to ask for the session again.
    pub session_ttl_s: u32,
}

/// One keyset as a gateway sees it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionKeyset {
    /// Identity of the keyset.
    pub keyset_id: Id16,
    /// The operators' name for it.
    pub name: String,
    /// The newest active version: what new epochs are sealed to.
    pub version: u32,
    /// `pk_v` of that version. Never taken from anywhere else (docs/format.md §2.5).
    pub public_key: PublicKey,
    /// `PSK_{v,s}` of this gateway for that version; only with [`Verb::Write`].
    pub psk: Option<PskBytes>,
    /// NK; only with [`Verb::Names`].
    pub name_key: Option<NameKeyBytes>,
    /// Verbs granted on the whole keyset.
    pub verbs: Vec<Verb>,
    /// Verbs granted on some buckets or prefixes of it only.
    pub narrow_verbs: Vec<Verb>,
    /// It is shredded by era: a copy of what lies under an older version MUST be encrypted anew (docs/format.md §2.1). Sent only where
    /// it is so: a gateway that does not know of it refuses the answer, rather than make copies that are lost with their source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub era_shred: bool,
    /// The current keyset record (docs/format.md §2.5), for the gateway to store in the system area under
    /// `.claviger/keyset/<hex keyset_id>` when what lies there differs. It holds nothing secret in the clear.
    pub record: Blob,
}

/// A bucket's name, the id its objects are bound to, and the keyset whose epochs seal them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The name that clients use.
    pub bucket: String,
    /// `name#` and 32 hex digits, fresh at each binding, never used again (docs/format.md §5.1).
    pub bucket_id: String,
    /// The keyset.
    pub keyset_id: Id16,
    /// `false` in the answer to `bind_bucket` if the bucket was bound before the call; `true` if this call bound it.
    /// Always `false` in other answers.
    #[serde(default)]
    pub created: bool,
}

/// One epoch to be leased.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseItem {
    /// The epoch.
    pub epoch_id: Id16,
    /// Its record as stored; needed only if the registry doesn't have it ([`crate::ReleaseError::UnknownEpoch`]).
    pub record: Option<Blob>,
}

/// A WEK for a while.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// The epoch's key.
    pub wek: WekBytes,
    /// The gateway that sealed the epoch; for logs.
    pub sealer_id: Id16,
    /// The keyset of the epoch. The reader MUST refuse it for a bucket of another (docs/format.md §5.1).
    pub keyset_id: Id16,
    /// Milliseconds from the sending of the request, on the boot-time clock, until the key must be wiped.
    pub ttl_ms: u64,
    /// The oldest version that the epoch is sealed to, in a keyset that is shredded by era; none in others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// What a derived key is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DerivePurpose {
    /// Read the object: returns its DEK.
    Read,
    /// Read its metadata: returns the unit keys of this envelope.
    Head,
    /// Re-bind it to another name without reading it: returns the unit keys of this envelope and of new ones. Refused with
    /// [`crate::ReleaseError::SealAnew`] where the copy has to be encrypted anew.
    CopySource {
        /// Bucket id of the destination; same keyset as the source.
        dest_bucket_id: String,
        /// Key of the destination.
        dest_key: String,
        /// TLV lengths to prepare a new envelope for, 1 to 4 of them. The length stands in the new header and therefore
        /// in its key, but whether the layout TLV is the single or the multipart one is known only once the old
        /// envelope is open: with COPY metadata the length is the old one (bytes 8..16 of its header); with REPLACE ask
        /// for both and use the one that fits. What is not used is wiped: it can seal nothing but an envelope for
        /// exactly that destination.
        tlv_lengths: Vec<u32>,
    },
}

/// Most TLV lengths in one [`DerivePurpose::CopySource`].
pub const COPY_LENGTHS_MAX: usize = 4;

/// One object to be opened. The epoch stands in the header.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeriveItem {
    /// The epoch record as stored; needed only if the registry doesn't have it.
    pub record: Option<Blob>,
    /// The first 96 bytes of the metadata envelope.
    pub header: EnvelopeHeader,
    /// The bucket id the object is asked under.
    pub bucket_id: String,
    /// The key it is asked under: the client's UTF-8 after URL decoding.
    pub key: String,
    /// What for.
    pub purpose: DerivePurpose,
    /// For whom, e.g. the access key id of the client; goes to the audit log as claimed, up to 256 bytes.
    pub on_behalf_of: Option<String>,
}

/// What `derive` releases.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Derived {
    /// For [`DerivePurpose::Read`].
    Read {
        /// The object's key.
        dek: DekBytes,
        /// Milliseconds from the sending of the request until it must be wiped.
        ttl_ms: u64,
    },
    /// For [`DerivePurpose::Head`].
    Head {
        /// The envelope's unit keys.
        unit: UnitOutput,
        /// Milliseconds from the sending of the request until they must be wiped.
        ttl_ms: u64,
    },
    /// For [`DerivePurpose::CopySource`].
    CopySource {
        /// The old envelope's unit keys.
        unit: UnitOutput,
        /// One new envelope for each length asked, in that order: kind 4, number 0, same epoch and object id.
        new_units: Vec<NewUnit>,
    },
}

/// The right to seal one unit once. The salt was drawn by the service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUnit {
    /// Plaintext length that stands in the header.
    pub length: u64,
    /// Salt that stands in the header.
    pub salt: Id16,
    /// Key, commitment and base nonce.
    pub unit: UnitOutput,
}

/// Which unit an upload is to be continued with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ContinueUnit {
    /// A part (kind 2).
    Part {
        /// Part number, 1 to 10,000.
        number: u16,
        /// Its plaintext length, up to 2^40.
        length: u64,
    },
    /// The footer (kind 3).
    Footer {
        /// Number of parts m, 1 to 10,000.
        parts: u16,
        /// Plaintext length n of the object.
        length: u64,
    },
    /// None: only the keys that check the token and part ETags, for ListParts and Abort. An expired token is accepted.
    Check,
}

/// One upload to go on with. Epoch and object stand in the token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContinueItem {
    /// The epoch record as stored; needed only if the registry doesn't have it.
    pub record: Option<Blob>,
    /// The upload token as the client sent it (docs/format.md §7.2).
    pub upload_token: String,
    /// The bucket id of the upload.
    pub bucket_id: String,
    /// Its key.
    pub key: String,
    /// What is to be sealed.
    pub unit: ContinueUnit,
    /// For whom; goes to the audit log as claimed, up to 256 bytes.
    pub on_behalf_of: Option<String>,
}

/// What `continue_upload` releases; never the DEK.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Continued {
    /// The unit; `None` for [`ContinueUnit::Check`].
    pub unit: Option<NewUnit>,
    /// MAC key of the upload token, only together with a unit: who holds it can issue tokens of any expiry.
    pub upload_key: Option<UploadKeyBytes>,
    /// MAC key of part ETags.
    pub etag_key: EtagKeyBytes,
    /// Milliseconds from the sending of the request until all of it must be wiped.
    pub ttl_ms: u64,
    /// As [`Lease::version`], of the upload's epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
}

/// An upload that was completed or aborted. The service checks the token before it believes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinishedUpload {
    /// The epoch record as stored; needed only if the registry doesn't have it.
    pub record: Option<Blob>,
    /// The upload token.
    pub upload_token: String,
    /// The bucket id of the upload.
    pub bucket_id: String,
    /// Its key.
    pub key: String,
}

/// Whether the service can release anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// The root is not in memory: nothing is released.
    Locked,
    /// Ready.
    Unlocked,
    /// Unlocked, but the audit file failed: nothing is released.
    AuditFailed,
    /// Unlocked; another replica serves, and this one would take over.
    Standby,
}

/// What anyone with a certificate may know about the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceStatus {
    /// Locked or unlocked.
    pub state: ServiceState,
    /// Version of the program.
    pub version: String,
    /// The service's wall clock, Unix milliseconds.
    pub now_ms: u64,
}
