//! Four eyes: what one operator proposes and another approves. Bodies of the operators' routes for it.

use serde::{Deserialize, Serialize};

use crate::Identity;
use crate::admin::{EnrolTokenAnswer, KeysetShares};
use crate::disclosure::ObjectKey;
use crate::secret::SecretText;
use crate::wire::{Blob, EnvelopeHeader, Id16};

/// [`ProposeRequest`] → [`ProposalInfo`].
pub const PROPOSE: &str = "/v1/admin/propose";
/// [`ProposalRequest`] → [`ApproveAnswer`].
pub const APPROVE: &str = "/v1/admin/approve";
/// [`ProposalRequest`] → `{}`.
pub const WITHDRAW: &str = "/v1/admin/withdraw";
/// [`ProposalRequest`] → [`Collected`].
pub const COLLECT: &str = "/v1/admin/collect";
/// [`ConfirmRequest`] → `{}`.
pub const CONFIRM: &str = "/v1/admin/confirm";
/// `{}` → [`ProposalList`].
pub const PROPOSAL_LIST: &str = "/v1/admin/proposals";

/// How long a proposal stands if its maker does not say, in seconds.
pub const PROPOSAL_TTL_S: u32 = 24 * 3600;
/// Longest life of a proposal, in seconds.
pub const PROPOSAL_TTL_S_MAX: u32 = 7 * 24 * 3600;

/// Most buckets of one [`Action::Unbind`].
pub const UNBIND_MAX: usize = 200;

/// A bucket as it is bound now: what is bound under its name later is not meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundBucket {
    /// Name.
    pub bucket: String,
    /// Its id.
    pub bucket_id: String,
}

/// What takes two operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// A token for a gateway or an operator to enrol with. Collected: the token is made when its maker asks for it.
    Enrol {
        /// Who.
        identity: Identity,
        /// Names of keysets; empty for an operator.
        keysets: Vec<String>,
        /// Life of the token from its making, in seconds, at most 3,600.
        ttl_s: u32,
        /// Replace an identity of this name that is enrolled: the old one is revoked when the token is used.
        replace: bool,
    },
    /// Another policy.
    Policy {
        /// The whole file.
        text: String,
    },
    /// Releases go on.
    Unfreeze {
        /// What was frozen.
        target: FreezeTarget,
    },
    /// Epochs of a gateway that was revoked with a time are released again.
    AcceptEpochs {
        /// The gateway.
        gateway_id: Id16,
        /// Which of its quarantined epochs; empty for all of them.
        epochs: Vec<Id16>,
    },
    /// Old records of releases leave the audit log.
    Prune {
        /// Those before this moment, Unix milliseconds; older than the retention that was fixed when the service was made.
        before_ms: u64,
    },
    /// Another unlock method, or a new secret for the same. Collected and confirmed, except for an HSM.
    ChangeUnlock {
        /// Which.
        to: UnlockTo,
    },
    /// New recovery shares of a root. Collected and confirmed.
    Reshare {
        /// Name of the keyset.
        keyset: String,
        /// Version of its root.
        version: u32,
        /// Shares to make.
        shares: u8,
        /// How many of them open the root.
        threshold: u8,
    },
    /// A new version of a keyset, with a root and recovery shares of its own. Collected and confirmed; then new epochs are sealed
    /// to it, and the versions before it only open.
    Rotate {
        /// Name of the keyset.
        keyset: String,
        /// Shares to make.
        shares: u8,
        /// How many of them open the root.
        threshold: u8,
    },
    /// The epochs of a version that is retired may be sealed to the newest one as well; [`crate::lifecycle::RESEAL`] does it.
    Reseal {
        /// Name of the keyset.
        keyset: String,
        /// Number of the version.
        version: u32,
    },
    /// The end of a version that is retired: from the approval on it opens nothing, and after a time its root is erased.
    Destroy {
        /// Name of the keyset.
        keyset: String,
        /// Number of the version.
        version: u32,
        /// That time, in seconds: [`crate::lifecycle::DESTROY_WAIT_S_MIN`] to [`crate::lifecycle::DESTROY_WAIT_S_MAX`].
        wait_s: u32,
    },
    /// The key of one object leaves the service, for somebody who has no gateway. Collected.
    Disclose {
        /// Name of the bucket.
        bucket: String,
        /// The object's key, as clients write it.
        key: String,
        /// The header of its envelope, as stored: which object version it is, and the proof of its name.
        header: EnvelopeHeader,
        /// The store's id of that version, as the one who proposes it says; none if he says that it is the newest one. The service can
        /// check neither. Up to [`crate::disclosure::VERSION_LEN_MAX`] bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<String>,
        /// Why and to whom, for the other operator and the log; up to [`crate::disclosure::REASON_LEN_MAX`] bytes, not empty.
        reason: String,
    },
    /// The end of buckets' bindings, where no gateway is there to do it. What lies in the buckets is not opened any more under these
    /// names, and a name that is bound again gets another id.
    Unbind {
        /// Which, at most [`UNBIND_MAX`].
        buckets: Vec<BoundBucket>,
    },
    /// Another replica, whose log releases nothing before.
    AddReplica {
        /// What it asked for.
        request: ReplicaRequest,
    },
    /// A replica that is gone for good: its log counts no more.
    RemoveReplica {
        /// Id of its log.
        log_id: Id16,
    },
}

/// The log of a replica that wants to join, as `claviger keyservice join` wrote it. Nothing in it is secret: the seed is sealed
/// under the service's master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaRequest {
    /// The replica's name.
    pub name: String,
    /// Id of its log.
    pub log_id: Id16,
    /// Ed25519 public key of its log, 32 bytes.
    pub public_key: Blob,
    /// The key's seed under the master.
    pub seed: Blob,
    /// Ed25519 public key with which it cosigns the checkpoints of other replicas, 32 bytes. Its seed stays on its machine.
    pub witness_key: Blob,
    /// Over all of the above, under the service's master: nobody on the way exchanges anything. 32 bytes.
    pub mac: Blob,
}

/// How a service is to be unlocked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UnlockTo {
    /// By a passphrase, from a file or from an operator.
    Passphrase,
    /// By the holders of shares.
    Quorum {
        /// Shares to make.
        shares: u8,
        /// How many of them unlock.
        threshold: u8,
    },
    /// By the HSM that the service's configuration names.
    Pkcs11,
}

/// What a freeze stops.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FreezeTarget {
    /// Every release of the service.
    Everything,
    /// Every release of a keyset, by its name.
    Keyset(String),
    /// Every release to an identity.
    Identity(Identity),
}

impl std::fmt::Display for FreezeTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Everything => f.write_str("everything"),
            Self::Keyset(name) => write!(f, "keyset {name}"),
            Self::Identity(identity) => write!(f, "{identity}"),
        }
    }
}

/// A proposal to make.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposeRequest {
    /// What.
    pub action: Action,
    /// How long it stands, in seconds, up to [`PROPOSAL_TTL_S_MAX`]; [`PROPOSAL_TTL_S`] if left out.
    pub ttl_s: Option<u32>,
}

/// A proposal that is meant.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalRequest {
    /// Its id, 16 lower-case hex digits.
    pub id: String,
}

/// A proposal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalInfo {
    /// Id, 16 lower-case hex digits.
    pub id: String,
    /// What it would do.
    pub action: Action,
    /// The same in words, a line each.
    pub words: Vec<String>,
    /// Who made it.
    pub proposer: Identity,
    /// When, Unix milliseconds.
    pub proposed_ms: u64,
    /// Until when it stands, Unix milliseconds.
    pub expires_ms: u64,
    /// Who approved it; it waits to be collected then.
    pub approver: Option<Identity>,
}

/// All proposals that stand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposalList {
    /// By the time they were made.
    pub proposals: Vec<ProposalInfo>,
}

/// What became of an approved proposal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveAnswer {
    /// As it was approved.
    pub proposal: ProposalInfo,
    /// It is done. Otherwise its maker collects the result, once.
    pub done: bool,
}

/// The result of a proposal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Collected {
    /// The token of [`Action::Enrol`]; secret.
    EnrolToken(EnrolTokenAnswer),
    /// What will unlock the service once it was confirmed; secret.
    UnlockSecrets(UnlockSecrets),
    /// Recovery shares that count once they were confirmed; secret.
    Shares(KeysetShares),
    /// The key of [`Action::Disclose`]; secret.
    ObjectKey(ObjectKey),
}

/// What will unlock a service.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnlockSecrets {
    /// The service's address, to stand on the shares.
    pub service: String,
    /// The passphrase, or the line of each share.
    pub secrets: Vec<SecretText>,
}

/// The proof that what was collected was written down. Until then the old secret counts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// The proposal's id.
    pub id: String,
    /// All of it as read back.
    pub secrets: Vec<SecretText>,
}

/// What to freeze. One operator suffices.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// What.
    pub target: FreezeTarget,
    /// Why, for the log and whoever asks; up to 200 bytes.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_have_one_spelling() {
        let freeze = Action::Unfreeze { target: FreezeTarget::Identity("gateway:edge".parse().unwrap()) };
        let text = r#"{"unfreeze":{"target":{"identity":"gateway:edge"}}}"#;
        assert_eq!(serde_json::to_string(&freeze).unwrap(), text);
        assert_eq!(serde_json::from_str::<Action>(text).unwrap(), freeze);
        let more = r#"{"unfreeze":{"target":"everything","also":1}}"#;
        assert!(serde_json::from_str::<Action>(more).is_err());
    }
}
