//! The end of a key version: what would become unreadable, the decision of two operators, the time in which one can take it
//! back, and the certificate.

use serde::{Deserialize, Serialize};

use crate::Identity;
use crate::admin::EarlierSetInfo;
use crate::wire::Id16;

/// [`ShredPlanRequest`] → [`ShredPlan`].
pub const SHRED_PLAN: &str = "/v1/admin/shred/plan";
/// [`VersionRequest`] → `{}`.
pub const SHRED_CANCEL: &str = "/v1/admin/shred/cancel";
/// [`VersionRequest`] → [`CertificateAnswer`].
pub const SHRED_CERTIFICATE: &str = "/v1/admin/shred/certificate";

/// [`ResealRequest`] → [`ResealAnswer`].
pub const RESEAL: &str = "/v1/admin/keyset/reseal";

/// Time between approval and destruction if the proposer does not say, in seconds: a week.
pub const DESTROY_WAIT_S: u32 = 7 * 24 * 3600;
/// Shortest such time, in seconds: three days, so that a weekend does not hide it.
pub const DESTROY_WAIT_S_MIN: u32 = 3 * 24 * 3600;
/// Longest such time, in seconds: 90 days.
pub const DESTROY_WAIT_S_MAX: u32 = 90 * 24 * 3600;

/// A version of a keyset that is meant.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionRequest {
    /// Name of the keyset.
    pub keyset: String,
    /// Number of the version.
    pub version: u32,
}

/// One step of sealing the epochs of a version to the newest one as well.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResealRequest {
    /// Name of the keyset.
    pub keyset: String,
    /// Number of the version.
    pub version: u32,
    /// The last epoch of the step before, as it was answered; none to begin, or to begin again. The service goes by its own place,
    /// which it forgets when it is locked.
    pub after: Option<Id16>,
}

/// What the step did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResealAnswer {
    /// Epochs of the registry that it looked at.
    pub seen: u32,
    /// How many of them were sealed to the newest version.
    pub resealed: u32,
    /// What the next step goes on after; none when this was the last.
    pub after: Option<Id16>,
}

/// Asks what the destruction of a version would take with it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShredPlanRequest {
    /// Name of the keyset.
    pub keyset: String,
    /// Number of the version.
    pub version: u32,
    /// How far back in the audit log to look for who used it, in days.
    pub days: u32,
}

/// What the destruction of a version would take with it, as far as the service knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShredPlan {
    /// Name of the keyset.
    pub keyset: String,
    /// Number of the version.
    pub version: u32,
    /// Its epochs in the registry.
    pub epochs: EpochSpan,
    /// The same by the gateway that sealed them, most first.
    pub gateways: Vec<GatewayEpochs>,
    /// Gateways of the keyset that have not asked for a session since the version was retired. They may have sealed to it what
    /// nobody has registered.
    #[serde(default)]
    pub unheard: Vec<UnheardGateway>,
    /// Who was given keys of these epochs since `since_ms`, most first.
    pub used: Vec<ShredUse>,
    /// Replicas that may have given keys of them since then, and whose logs are not those that were read: what they did is not in
    /// `used`, nor who asked them for a session in `unheard`.
    #[serde(default)]
    pub unread: Vec<String>,
    /// How far back the log was read, Unix milliseconds.
    pub since_ms: u64,
    /// Buckets that are bound to the keyset now.
    pub buckets: Vec<String>,
}

/// A gateway that perhaps does not know that a version is retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnheardGateway {
    /// Its name.
    pub identity: Identity,
    /// When it was given its last session, Unix milliseconds; `None` if the log tells of none.
    pub last_ms: Option<u64>,
}

/// Epochs of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSpan {
    /// Registered epochs that no other version opens: all that was sealed under them is lost with it.
    pub lost: u64,
    /// Registered epochs of it that another version opens as well.
    pub kept: u64,
    /// When the first that is lost began, as its gateway said, Unix milliseconds.
    pub first_ms: Option<u64>,
    /// When the last one did.
    pub last_ms: Option<u64>,
}

/// Epochs that one gateway sealed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayEpochs {
    /// The gateway in epoch records.
    pub gateway_id: Id16,
    /// Its name, if it is still known.
    pub identity: Option<Identity>,
    /// How many of its epochs are lost.
    pub lost: u64,
}

/// Releases of keys of epochs that would be lost.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShredUse {
    /// Who got them.
    pub identity: String,
    /// For which bucket; `None` for leases, which open every bucket of the keyset.
    pub bucket: Option<String>,
    /// How many.
    pub releases: u64,
    /// The newest, Unix milliseconds.
    pub last_ms: u64,
}

/// A version that is to be destroyed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoomInfo {
    /// Who proposed it.
    pub proposer: Identity,
    /// Who approved it.
    pub approver: Identity,
    /// When that was, Unix milliseconds. Since then it opens nothing.
    pub decided_ms: u64,
    /// When its root is erased, at the earliest, Unix milliseconds.
    pub due_ms: u64,
}

/// A certificate and what proves it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateAnswer {
    /// The certificate, JSON of a [`Certificate`]. The audit record of its `request_id` has the SHA-256 of exactly these bytes
    /// as `subject`.
    pub json: String,
    /// That SHA-256, hex.
    pub sha256: String,
}

/// What was destroyed, by whom, and what could still open it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Version of this form: 1.
    pub v: u8,
    /// Name of the keyset.
    pub keyset: String,
    /// Its id.
    pub keyset_id: Id16,
    /// The version whose root was erased.
    pub version: u32,
    /// Fingerprint of that root; it stands on its shares.
    pub root_fingerprint: String,
    /// Who proposed and approved it, and when it was decided.
    pub decision: DoomInfo,
    /// The proposal.
    pub proposal: String,
    /// When the root was erased, Unix milliseconds.
    pub destroyed_ms: u64,
    /// The request that the audit log tells it under.
    pub request_id: String,
    /// The version's epochs in the registry at that moment.
    pub epochs: EpochSpan,
    /// Its recovery shares: any `threshold` of one set give the root, until so many of it are destroyed that fewer remain.
    pub share_sets: Vec<ShareSet>,
    /// Backups that the service made and that hold the root under the master, until they are destroyed.
    pub backups: BackupsMade,
    /// What unwrapped the master when it was destroyed: `passphrase`, `quorum` or `pkcs11`.
    pub unlock_method: String,
    /// Where the rows lie: `sqlite` or `postgresql`.
    pub store: String,
    /// Keys of single epochs and objects that gateways had got before the decision ended by themselves at this moment at the
    /// latest, Unix milliseconds.
    pub keys_in_use_until_ms: u64,
    /// What the service can't know, in words.
    pub beyond: Vec<String>,
}

/// A set of recovery shares.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareSet {
    /// As it stands on the shares, if that is known.
    pub set: Option<String>,
    /// Shares made.
    pub shares: u8,
    /// Shares needed.
    pub threshold: u8,
    /// When another set took its place, Unix milliseconds; `None` for the last one.
    pub replaced_ms: Option<u64>,
}

impl From<&EarlierSetInfo> for ShareSet {
    fn from(earlier: &EarlierSetInfo) -> Self {
        let EarlierSetInfo { set, shares, threshold, replaced_ms } = earlier.clone();
        Self { set, shares, threshold, replaced_ms: Some(replaced_ms) }
    }
}

/// Backups that were taken through the service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupsMade {
    /// How many were begun since the service was made.
    pub begun: u64,
    /// When the first was, Unix milliseconds.
    pub first_ms: Option<u64>,
    /// When the newest ones were, oldest first, up to 1,000, Unix milliseconds.
    pub newest_ms: Vec<u64>,
}
