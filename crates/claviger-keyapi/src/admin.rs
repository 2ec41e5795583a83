//! Bodies of the operators' routes. All are POST and need an `admin:` certificate.

use serde::{Deserialize, Serialize};

use crate::Identity;
use crate::lifecycle::DoomInfo;
use crate::proposals::FreezeTarget;
use crate::secret::SecretText;
use crate::types::ServiceState;
use crate::wire::{Blob, Id16};

/// [`UnlockRequest`] → [`AdminStatus`].
pub const UNLOCK: &str = "/v1/admin/unlock";
/// [`UnlockShareRequest`] → [`UnlockState`].
pub const UNLOCK_SHARE: &str = "/v1/admin/unlock/share";
/// `{}` → [`AdminStatus`].
pub const UNLOCK_HSM: &str = "/v1/admin/unlock/hsm";
/// `{}` → [`RollbackAccepted`].
pub const ACCEPT_ROLLBACK: &str = "/v1/admin/unlock/accept-rollback";
/// `{}` → [`AdminStatus`].
pub const LOCK: &str = "/v1/admin/lock";
/// `{}` → [`AdminStatus`].
pub const STATUS: &str = "/v1/admin/status";
/// [`CreateKeysetRequest`] → [`KeysetShares`].
pub const KEYSET_CREATE: &str = "/v1/admin/keyset/create";
/// [`ConfirmKeysetRequest`] → [`KeysetInfo`].
pub const KEYSET_CONFIRM: &str = "/v1/admin/keyset/confirm";
/// `{}` → [`KeysetList`].
pub const KEYSET_LIST: &str = "/v1/admin/keyset/list";
/// [`RetireRequest`] → [`KeysetInfo`].
pub const KEYSET_RETIRE: &str = "/v1/admin/keyset/retire";
/// [`RevokeRequest`] → [`RevokeAnswer`].
pub const REVOKE: &str = "/v1/admin/identity/revoke";
/// `{}` → [`IdentityList`].
pub const IDENTITY_LIST: &str = "/v1/admin/identity/list";
/// [`EpochListRequest`] → [`EpochList`].
pub const EPOCH_LIST: &str = "/v1/admin/epochs";
/// `{}` → [`QuarantineList`].
pub const QUARANTINE_LIST: &str = "/v1/admin/epochs/quarantine";
/// [`BindingListRequest`] → [`BindingList`].
pub const BINDING_LIST: &str = "/v1/admin/bindings";
/// `{}` → [`PolicyInForce`].
pub const POLICY_SHOW: &str = "/v1/admin/policy/show";
/// `{}` → [`BudgetList`].
pub const BUDGET_LIST: &str = "/v1/admin/budgets";
/// `{}` → list of [`ReplicaInfo`].
pub const REPLICA_LIST: &str = "/v1/admin/replicas";
/// [`crate::proposals::FreezeRequest`] → `{}`.
pub const FREEZE: &str = "/v1/admin/freeze";
/// [`AuditTailRequest`] → [`AuditTail`].
pub const AUDIT_TAIL: &str = "/v1/admin/audit/tail";
/// `{}` → [`BackupBegun`].
pub const BACKUP_BEGIN: &str = "/v1/admin/backup/begin";
/// [`BackupReadRequest`] → [`BackupPart`].
pub const BACKUP_READ: &str = "/v1/admin/backup/read";

/// The passphrase that unwraps the service's master secret.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockRequest {
    /// Content of the passphrase file.
    pub passphrase: SecretText,
}

/// One unlock share.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockShareRequest {
    /// Its line or its words.
    pub share: SecretText,
}

/// How the service is unlocked, and how far that is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockState {
    /// Whether it is.
    pub unlocked: bool,
    /// `passphrase`, `quorum` or `pkcs11`.
    pub method: String,
    /// Numbers of the shares that were brought so far.
    pub shares_here: Vec<u8>,
    /// How many unlock; 0 if shares don't.
    pub shares_needed: u8,
    /// How many there are.
    pub shares_made: u8,
    /// The set that unlocks, as it stands on the shares.
    pub set: String,
    /// Milliseconds until those that are here are wiped; 0 if there are none.
    pub wiped_in_ms: u64,
    /// What was wrong with the HSM when it was last asked.
    pub hsm_problem: Option<String>,
}

/// Who says that the audit log as it is there is to be gone on with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollbackAccepted {
    /// Operators, each for 15 minutes.
    pub by: Vec<Identity>,
    /// How many it takes.
    pub needed: u8,
}

/// A replica of the service.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaInfo {
    /// Its name; none for the one that the service began with.
    pub name: Option<String>,
    /// Id of its log.
    pub log_id: Id16,
    /// Name and public key of its log.
    pub log_key: String,
    /// With which it cosigns checkpoints of the others, as C2SP signed-note writes it; none before its first unlock among several.
    pub witness_key: Option<String>,
    /// When it was registered, Unix milliseconds; 0 for the one that the service began with.
    pub since_ms: u64,
    /// It is the one that answers.
    pub is_active: bool,
}

/// State of the service for operators.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminStatus {
    /// Locked or unlocked.
    pub state: ServiceState,
    /// Version of the program.
    pub version: String,
    /// Wall clock of the service, Unix milliseconds.
    pub now_ms: u64,
    /// Records in the audit log.
    pub audit_records: u64,
    /// The audit log's name and public key, as C2SP signed-note writes them; known while unlocked.
    pub audit_key: Option<String>,
    /// The newest checkpoint of the audit log that was signed since the service started: a signed note.
    pub audit_checkpoint: Option<String>,
    /// What is wrong, if anything.
    pub problems: Vec<String>,
    /// What does no harm now and will later.
    #[serde(default)]
    pub notes: Vec<String>,
    /// How it is unlocked.
    pub unlock: UnlockState,
    /// SHA-256 of the policy file in force, hex.
    pub policy_sha256: String,
    /// Registered epochs.
    pub epochs: u64,
    /// Gateways that are enrolled and not revoked.
    pub gateways: u64,
    /// Bucket bindings.
    pub bindings: u64,
    /// What is frozen.
    #[serde(default)]
    pub frozen: Vec<FreezeInfo>,
    /// Proposals that wait for a second operator or for being collected.
    #[serde(default)]
    pub proposals: u64,
    /// Epochs in quarantine.
    #[serde(default)]
    pub quarantined: u64,
}

/// A freeze.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeInfo {
    /// What.
    pub target: FreezeTarget,
    /// Since when, Unix milliseconds.
    pub frozen_ms: u64,
    /// Who did it; `None`: the service itself, because a budget was used up.
    pub by: Option<Identity>,
    /// Why, in his words.
    pub reason: String,
}

/// A new keyset, first version.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateKeysetRequest {
    /// 1 to 63 of `a-z`, `0-9`, `-`.
    pub name: String,
    /// Recovery shares to make.
    pub shares: u8,
    /// How many of them open the root.
    pub threshold: u8,
}

/// The recovery shares of a keyset that is prepared. The keyset becomes active only when they come back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysetShares {
    /// The new keyset.
    pub keyset_id: Id16,
    /// One line for each share; secret.
    pub shares: Vec<SecretText>,
}

/// Proof that the shares were written down: enough of them, read back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmKeysetRequest {
    /// The keyset that is prepared.
    pub keyset_id: Id16,
    /// All shares as read back, each as its line or its words.
    pub shares: Vec<SecretText>,
}

/// One keyset.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysetInfo {
    /// Identity.
    pub keyset_id: Id16,
    /// Name.
    pub name: String,
    /// Newest active version, which new epochs are sealed to; `None` while the shares are not confirmed, and once every version is
    /// retired.
    pub version: Option<u32>,
    /// Fingerprint of the root of the last version; stands on its shares.
    pub root_fingerprint: String,
    /// Shares made and needed.
    pub shares: u8,
    /// Shares needed.
    pub threshold: u8,
    /// Their set, as it stands on them; `None` for keysets of a release that did not remember it.
    pub share_set: Option<String>,
    /// Sets of shares that were replaced. Until they are destroyed they open the root as before.
    pub earlier_sets: Vec<EarlierSetInfo>,
    /// Bucket names bound to it.
    pub buckets: Vec<String>,
    /// Its versions, oldest first.
    pub versions: Vec<VersionInfo>,
    /// Policy says that it is shredded by era: copies of what lies under an older version are encrypted anew.
    #[serde(default)]
    pub era_shred: bool,
}

/// One version of a keyset.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionInfo {
    /// Its number.
    pub number: u32,
    /// What it is good for.
    pub state: VersionState,
    /// Fingerprint of its root; stands on its shares.
    pub root_fingerprint: String,
    /// Shares made.
    pub shares: u8,
    /// Shares needed.
    pub threshold: u8,
    /// Their set; `None` for keysets of a release that did not remember it.
    pub share_set: Option<String>,
    /// Since when nothing new is sealed to it, Unix milliseconds.
    pub retired_ms: Option<u64>,
    /// Its destruction, while it is decided and not done.
    pub doom: Option<DoomInfo>,
    /// When its root was erased, Unix milliseconds.
    pub destroyed_ms: Option<u64>,
}

/// What a version of a keyset is good for (docs/format.md §2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// Nothing: its recovery shares did not come back yet.
    Prepared,
    /// It opens, and the newest such version seals.
    Active,
    /// It opens.
    Retired,
    /// It opens nothing, and its root will be erased unless that is cancelled.
    Doomed,
    /// Its root is gone.
    Destroyed,
}

/// Ends writing in a keyset without a new version. One operator suffices.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetireRequest {
    /// Name of the keyset.
    pub keyset: String,
}

/// A set of recovery shares that was replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlierSetInfo {
    /// As it stands on the shares, if that is known.
    pub set: Option<String>,
    /// Shares made.
    pub shares: u8,
    /// Shares needed.
    pub threshold: u8,
    /// When it was replaced, Unix milliseconds.
    pub replaced_ms: u64,
}

/// All keysets.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysetList {
    /// By name.
    pub keysets: Vec<KeysetInfo>,
}

/// The token.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolTokenAnswer {
    /// Text of the token; secret.
    pub token: SecretText,
    /// Unix milliseconds until which it is good.
    pub expires_ms: u64,
}

/// Someone to revoke.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeRequest {
    /// Who.
    pub identity: Identity,
    /// For a gateway that was stolen: since when, Unix milliseconds. Every epoch that it sealed or leased since then goes into
    /// quarantine. May be asked for again, also once it is revoked.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// What the logs of other replicas tell of what it leased, where others may have served since then. Without those of all of them
    /// every epoch goes into quarantine that it could have leased.
    #[serde(default)]
    pub logs: Vec<LogLeases>,
}

/// What the copy of another replica's audit log tells of what one gateway leased, and registered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLeases {
    /// The copy's own checkpoint, a signed note, under which all of the copy has verified.
    pub checkpoint: String,
    /// Epochs whose keys it was given since then.
    pub epochs: Vec<Id16>,
    /// Epochs of its own that were registered since then, by where the log has them: the registry has only the times that a clock
    /// showed.
    pub sealed: Vec<Id16>,
    /// Names of replicas that were removed since then, as the copy tells: what they released their own logs tell.
    #[serde(default)]
    pub removed: Vec<String>,
}

/// What revoking did.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokeAnswer {
    /// Epochs that went into quarantine.
    pub quarantined: u32,
    /// Replicas whose logs tell what it leased.
    #[serde(default)]
    pub read: Vec<String>,
    /// Replicas that may have released keys to it since then, and whose logs were not there to be read: because of them all that it
    /// could have leased is in quarantine.
    #[serde(default)]
    pub unread: Vec<String>,
}

/// Which bindings to list, by name.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingListRequest {
    /// Only of this keyset.
    #[serde(default)]
    pub keyset: Option<String>,
    /// Only after this name.
    #[serde(default)]
    pub after: Option<String>,
}

/// Bindings, by name, up to 1,000.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingList {
    /// These.
    pub bindings: Vec<BindingInfo>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// One bucket that is bound.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingInfo {
    /// Name.
    pub bucket: String,
    /// Its id.
    pub bucket_id: String,
    /// Name of its keyset.
    pub keyset: String,
    /// Since when, Unix milliseconds.
    pub created_ms: u64,
}

/// Epochs that are not released until two operators accept them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineList {
    /// By gateway and epoch, up to 10,000.
    pub epochs: Vec<QuarantinedEpoch>,
    /// Gateways that were revoked with a time: what each sealed since is held, however much that is.
    #[serde(default)]
    pub gateways: Vec<HeldGateway>,
    /// How many epochs more there are than are listed.
    #[serde(default)]
    pub left_out: u64,
}

/// A gateway that was revoked with a time.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldGateway {
    /// Which enrolment.
    pub gateway_id: Id16,
    /// Its name.
    pub identity: Option<Identity>,
    /// The time that was named, Unix milliseconds: what it sealed since (and up to 70 minutes before) is held.
    pub since_ms: u64,
    /// How many epochs are held for it without being named one by one, those that were accepted since among them; 0 until they were
    /// counted.
    pub epochs: u64,
    /// All of its keysets' epochs that were registered until then are held, Unix milliseconds: not every log was read.
    pub leasable_until_ms: Option<u64>,
}

/// One of them.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantinedEpoch {
    /// The epoch.
    pub epoch_id: Id16,
    /// The gateway that was revoked; it sealed the epoch or had leased it.
    pub gateway_id: Id16,
    /// The time that was named at the revocation, Unix milliseconds.
    pub since_ms: u64,
}

/// One enrolled identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityInfo {
    /// Name.
    pub identity: Identity,
    /// `sealer_id` of a gateway; zeros for an operator.
    pub gateway_id: Id16,
    /// Keysets it is enrolled for.
    pub keysets: Vec<String>,
    /// Unix milliseconds of the enrolment.
    pub enrolled_ms: u64,
    /// End of its newest certificate, Unix milliseconds.
    pub certificate_until_ms: u64,
    /// Unix milliseconds of the revocation.
    pub revoked_ms: Option<u64>,
}

/// All identities.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityList {
    /// By name.
    pub identities: Vec<IdentityInfo>,
}

/// A page of the registry.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochListRequest {
    /// Only epochs of this gateway.
    pub gateway_id: Option<Id16>,
    /// Start after this epoch.
    pub after: Option<Id16>,
    /// Most entries, up to 1,000.
    pub limit: u32,
}

/// One epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochInfo {
    /// Identity.
    pub epoch_id: Id16,
    /// Who sealed it.
    pub gateway_id: Id16,
    /// Keyset.
    pub keyset_id: Id16,
    /// When its gateway says it began, Unix milliseconds.
    pub created_ms: u64,
    /// When it was registered, Unix milliseconds.
    pub first_seen_ms: u64,
    /// The commitment of its key, hex.
    pub wek_commit: String,
}

/// A page of epochs, by id.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochList {
    /// The entries.
    pub epochs: Vec<EpochInfo>,
    /// Whether there are more.
    pub more: bool,
}

/// The policy in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyInForce {
    /// The whole file.
    pub text: String,
    /// Its SHA-256, hex.
    pub sha256: String,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Who proposed it; `None` for the one that the service was made with.
    pub proposer: Option<Identity>,
    /// Who approved it.
    pub approver: Option<Identity>,
    /// What looks like a mistake but isn't refused.
    pub warnings: Vec<String>,
}

/// How far the policy's budgets are used.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetList {
    /// By identity and keyset.
    pub budgets: Vec<BudgetInfo>,
}

/// One budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetInfo {
    /// Whose.
    pub identity: Identity,
    /// In which keyset.
    pub keyset: String,
    /// The window ends now and is so many seconds long.
    pub window_s: u32,
    /// Distinct epochs that it was given in the window; `None` where they are not limited.
    pub epochs: Option<u64>,
    /// Most of them.
    pub epochs_max: Option<u32>,
    /// Distinct objects that it was given in the window; `None` where they are not limited.
    pub objects: Option<u64>,
    /// Most of them.
    pub objects_max: Option<u32>,
    /// Why it gets nothing at all now, in words.
    pub stopped: Option<String>,
}

/// The last records of the audit log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditTailRequest {
    /// How many, up to 1,000.
    pub count: u32,
}

/// Lines of the audit file as they stand there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditTail {
    /// Oldest first.
    pub lines: Vec<String>,
}

/// A backup that began.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupBegun {
    /// What to ask its parts with.
    pub backup_id: Id16,
}

/// Asks for a part of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupReadRequest {
    /// Which backup.
    pub backup_id: Id16,
    /// Which part, counted from 0: the next one, or the one before once more.
    pub part: u64,
}

/// A part of a backup.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupPart {
    /// Bytes of the file, about a mebibyte.
    pub bytes: Blob,
    /// Nothing follows.
    pub last: bool,
}
