//! Paths of the HTTP interface, and the bodies that have no other home. All are POST with a JSON body and a JSON answer.

use serde::{Deserialize, Serialize};

use crate::error::{KeyServiceError, ReleaseError};
use crate::types::{Binding, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload, Lease, LeaseItem};
use crate::wire::{Blob, Id16};

/// Largest request body, in bytes: 256 items with an epoch record of 8 recipients and a key of 1,024 bytes each.
pub const REQUEST_LEN_MAX: usize = 8 << 20;
/// Largest answer that a client reads, in bytes.
pub const ANSWER_LEN_MAX: usize = 16 << 20;

/// `POST`, body `{}`: [`crate::SessionInfo`].
pub const SESSION: &str = "/v1/session";
/// [`BindingRequest`] → [`BindingAnswer`].
pub const BINDING: &str = "/v1/binding";
/// `{}` → [`BindingsAnswer`].
pub const BINDINGS: &str = "/v1/bindings";
/// [`BindRequest`] → [`Binding`].
pub const BIND: &str = "/v1/bind";
/// [`UnbindRequest`] → `{}`.
pub const UNBIND: &str = "/v1/unbind";
/// [`RegisterRequest`] → `{}`.
pub const REGISTER: &str = "/v1/register";
/// [`EpochRequest`] → [`EpochAnswer`].
pub const EPOCH: &str = "/v1/epoch";
/// [`LeaseRequest`] → [`LeaseAnswer`].
pub const LEASE: &str = "/v1/lease";
/// [`DeriveRequest`] → [`DeriveAnswer`].
pub const DERIVE: &str = "/v1/derive";
/// [`ContinueRequest`] → [`ContinueAnswer`].
pub const CONTINUE: &str = "/v1/continue";
/// [`FinishRequest`] → [`FinishAnswer`].
pub const FINISH: &str = "/v1/finish";
/// `{}` → a stream of lines, each a [`crate::WatchEvent`], until the service ends it.
pub const WATCH: &str = "/v1/watch";
/// [`ConsistencyRequest`] → [`LogHead`].
pub const CONSISTENCY: &str = "/v1/audit/consistency";
/// [`CheckpointRequest`] → `{}`; also while locked.
pub const CHECKPOINT: &str = "/v1/checkpoint";
/// `{}` → [`crate::ServiceStatus`].
pub const STATUS: &str = "/v1/status";
/// [`crate::enrol::EnrolRequest`] → [`crate::enrol::Certificate`]; without a client certificate, the token decides.
pub const ENROL: &str = "/v1/enrol";
/// [`crate::enrol::RecoverRequest`] → [`crate::enrol::Certificate`]; without a client certificate, the shares decide.
pub const RECOVER: &str = "/v1/recover";
/// [`crate::enrol::RenewRequest`] → [`crate::enrol::Certificate`].
pub const RENEW: &str = "/v1/renew";

macro_rules! body {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $ty,)*
        }
    };
}

body!(
    /// Nothing.
    Empty {}
);
body!(
    /// The binding to end.
    UnbindRequest {
        /// Name that clients use.
        bucket: String,
        /// The binding that is meant; a successor of the same name stays.
        bucket_id: String,
    }
);
body!(
    /// One bucket.
    BindingRequest {
        /// Name that clients use.
        bucket: String,
    }
);
body!(
    /// Its binding.
    BindingAnswer {
        /// `None` if there is none that the caller may see.
        binding: Option<Binding>,
    }
);
body!(
    /// All bindings.
    BindingsAnswer {
        /// Ordered by name.
        bindings: Vec<Binding>,
    }
);
body!(
    /// A bucket to bind.
    BindRequest {
        /// Name that clients use.
        bucket: String,
        /// Operators' name of the keyset; may be left out if there is only one choice.
        keyset: Option<String>,
    }
);
body!(
    /// An epoch to register.
    RegisterRequest {
        /// The record as stored.
        record: Blob,
    }
);
body!(
    /// An epoch to look up.
    EpochRequest {
        /// Its id.
        epoch_id: Id16,
    }
);
body!(
    /// Its record.
    EpochAnswer {
        /// `None` if it is not registered in a keyset of the caller.
        record: Option<Blob>,
    }
);
body!(
    /// Epochs to lease.
    LeaseRequest {
        /// Up to 256.
        items: Vec<LeaseItem>,
    }
);
body!(
    /// Leases.
    LeaseAnswer {
        /// One for each item, in order.
        results: Vec<Result<Lease, ReleaseError>>,
    }
);
body!(
    /// Objects to open.
    DeriveRequest {
        /// Up to 256.
        items: Vec<DeriveItem>,
    }
);
body!(
    /// Their keys.
    DeriveAnswer {
        /// One for each item, in order.
        results: Vec<Result<Derived, ReleaseError>>,
    }
);
body!(
    /// Uploads to go on with.
    ContinueRequest {
        /// Up to 256.
        items: Vec<ContinueItem>,
    }
);
body!(
    /// Their keys.
    ContinueAnswer {
        /// One for each item, in order.
        results: Vec<Result<Continued, ReleaseError>>,
    }
);
body!(
    /// Uploads that ended.
    FinishRequest {
        /// Up to 256.
        items: Vec<FinishedUpload>,
    }
);
body!(
    /// Whether they were taken.
    FinishAnswer {
        /// One for each item, in order.
        results: Vec<Result<(), ReleaseError>>,
    }
);
body!(
    /// What the caller remembers of the audit log.
    ConsistencyRequest {
        /// Size of the newest checkpoint that it believed; 0 for none.
        from: u64,
    }
);
body!(
    /// The newest checkpoint of the audit log that the caller believed.
    CheckpointRequest {
        /// A signed note.
        checkpoint: String,
    }
);
body!(
    /// The audit log as it is now, and that it continues what the caller remembers.
    LogHead {
        /// The log's name and public key, as C2SP signed-note writes them.
        key: String,
        /// Its newest checkpoint: a signed note.
        checkpoint: String,
        /// Consistency proof (RFC 6962 §2.1.2) from the size that was asked about, each hash in base64. Empty if the log is
        /// smaller than that.
        proof: Vec<String>,
        /// Name and public key of every log of the service, one for each replica: this log, and those that may show themselves
        /// here once another replica serves.
        #[serde(default)]
        logs: Vec<String>,
        /// The state that the service is in: one sequence for all of its replicas. None from one that tells of none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<LedgerState>,
    }
);
body!(
    /// A state of all that the service decides by: identities, policy, freezes, epochs.
    #[derive(Clone, PartialEq, Eq)]
    LedgerState {
        /// Counts changes; only grows.
        number: u64,
        /// Digest of that state, 64 hex digits.
        digest: String,
    }
);
body!(
    /// The body of every answer whose status is not 200.
    ErrorAnswer {
        /// What went wrong.
        error: KeyServiceError,
        /// Stands in the service's log and audit file too.
        request_id: String,
    }
);
