//! Errors: one for a whole call, one for an item of a batch; each says whose fault it is and whether to try again.

use serde::{Deserialize, Serialize};

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The one who asked: the request can't be granted or makes no sense.
    Caller,
    /// What the provider stored does not authenticate.
    Stored,
    /// The key service or the way to it.
    KeyService,
}

/// Why the service can't answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnavailableReason {
    /// No connection, or it broke before the answer came.
    Connection,
    /// The answer took too long.
    Timeout,
    /// The audit file can't be written: nothing is released until that is repaired.
    Audit,
    /// The database failed.
    Store,
    /// Too many requests at once.
    Busy,
    /// The service is going down.
    Shutdown,
    /// Another replica serves; this one did nothing with the request.
    Standby,
    /// The caller could not look at the service's audit log, lately or over this connection, and asked nothing else. Made by the
    /// caller itself, never sent.
    Unseen,
}

/// A whole call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeyServiceError {
    /// The service is locked: an operator has to unlock it.
    #[error("the key service is locked")]
    Locked,
    /// The certificate is missing, unknown, expired or revoked.
    #[error("not authenticated to the key service: {text}")]
    Unauthenticated {
        /// For the log.
        text: String,
    },
    /// Policy does not grant it.
    #[error("denied by the key service's policy: {text}")]
    Denied {
        /// What was asked and what would be needed; may be shown to the client.
        text: String,
    },
    /// An operator froze it.
    #[error("frozen: {text}")]
    Frozen {
        /// What is frozen; may be shown to the client.
        text: String,
    },
    /// The caller does not use the service: its audit log contradicts what the caller remembers of it. Made by the caller itself,
    /// never sent.
    #[error("the key service is not used: {text}")]
    Distrusted {
        /// What contradicts what, and what to do: for the log and the health page.
        text: String,
    },
    /// No such keyset, or the identity must say which of several.
    #[error("keyset: {text}")]
    Keyset {
        /// What is wrong and what to say instead.
        text: String,
    },
    /// The bucket name was unbound a moment ago and another gateway may still know it by its old binding.
    #[error("the bucket was deleted a moment ago; try again in {retry_after_ms} ms")]
    BucketClosing {
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The bucket name is not bound.
    #[error("no such bucket binding")]
    UnknownBucket,
    /// More items than one call may have.
    #[error("more than {max} items in one call")]
    TooManyItems {
        /// How many are allowed.
        max: u32,
    },
    /// The request can't be understood.
    #[error("malformed request: {text}")]
    Malformed {
        /// What is wrong with it.
        text: String,
    },
    /// It contradicts what is already there.
    #[error("conflict: {text}")]
    Conflict {
        /// What is there.
        text: String,
    },
    /// Not now.
    #[error("the key service is unavailable ({reason:?}); try again in {retry_after_ms} ms")]
    Unavailable {
        /// Why.
        reason: UnavailableReason,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// A mistake inside the service; its log has more.
    #[error("internal error of the key service")]
    Internal,
}

impl KeyServiceError {
    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Denied { .. }
            | Self::Keyset { .. }
            | Self::BucketClosing { .. }
            | Self::UnknownBucket
            | Self::TooManyItems { .. }
            | Self::Malformed { .. }
            | Self::Conflict { .. } => Blame::Caller,
            Self::Locked
            | Self::Unauthenticated { .. }
            | Self::Frozen { .. }
            | Self::Distrusted { .. }
            | Self::Unavailable { .. }
            | Self::Internal => Blame::KeyService,
        }
    }

    /// When the same call may succeed, in milliseconds; `None` if it won't by itself.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::BucketClosing { retry_after_ms } | Self::Unavailable { retry_after_ms, .. } => {
                Some(*retry_after_ms)
            }
            Self::Locked => Some(5_000),
            _ => None,
        }
    }

    /// The HTTP status that carries it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed { .. } | Self::TooManyItems { .. } => 400,
            Self::Unauthenticated { .. } => 401,
            Self::Denied { .. } | Self::Frozen { .. } => 403,
            Self::UnknownBucket | Self::Keyset { .. } => 404,
            Self::BucketClosing { .. } | Self::Conflict { .. } => 409,
            Self::Internal => 500,
            Self::Locked | Self::Distrusted { .. } | Self::Unavailable { .. } => 503,
        }
    }
}

/// One item of a batch was refused. Every refusal is in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ReleaseError {
    /// The registry doesn't have this epoch: fetch the record from the provider and ask again with it.
    #[error("unknown epoch; its record is needed")]
    UnknownEpoch,
    /// The record doesn't parse, doesn't authenticate, or isn't the one that was registered under this id.
    #[error("the epoch record does not authenticate")]
    EpochRejected,
    /// The epoch's gateway was revoked before the epoch was registered.
    #[error("the epoch's gateway is revoked and the epoch was never registered")]
    EpochRevoked,
    /// Policy does not grant it.
    #[error("denied by the key service's policy: {text}")]
    Denied {
        /// What was asked and what would be needed; may be shown to the client.
        text: String,
    },
    /// An operator froze it.
    #[error("frozen: {text}")]
    Frozen {
        /// What is frozen; may be shown to the client.
        text: String,
    },
    /// A stolen gateway could have forged objects in this epoch; two operators have to accept it first.
    #[error("the epoch is in quarantine: a gateway that was revoked could have forged objects in it")]
    EpochQuarantined,
    /// Its gateway registers too many epochs at once. Another time it is taken.
    #[error("the epoch's gateway registers too many epochs; ask again in a minute")]
    TooManyEpochs,
    /// The key version that the epoch was sealed under is destroyed, or about to be.
    #[error("{text}")]
    Destroyed {
        /// Which, since when, and whether it can still be taken back; may be shown to the client.
        text: String,
    },
    /// The source of a copy lies under an older version of a keyset that is shredded by era (docs/format.md §2.1): the copy has to be
    /// encrypted anew, by whoever may read the source.
    #[error("{text}")]
    SealAnew {
        /// Which versions, and what it takes; may be shown to the client.
        text: String,
    },
    /// No bucket is bound under this id now.
    #[error("no bucket is bound under this id")]
    UnknownBucket,
    /// The epoch belongs to another keyset than the bucket (docs/format.md §5.1).
    #[error("the epoch belongs to another keyset than the bucket")]
    KeysetMismatch,
    /// The envelope or the token was not made for this bucket and key (docs/format.md §5.1, §7.2).
    #[error("binding mismatch")]
    BindingMismatch,
    /// The header is not one of a metadata envelope, or a field of the item is out of range.
    #[error("malformed item: {text}")]
    Malformed {
        /// What is wrong with it.
        text: String,
    },
    /// The upload token has expired. It still serves to abort.
    #[error("the upload token has expired")]
    UploadExpired,
    /// Complete or Abort was already reported for this upload (docs/format.md §2.8).
    #[error("the upload was already completed or aborted")]
    UploadFinished,
}

impl ReleaseError {
    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::EpochRejected | Self::EpochRevoked | Self::KeysetMismatch | Self::BindingMismatch => {
                Blame::Stored
            }
            Self::Frozen { .. } | Self::EpochQuarantined | Self::TooManyEpochs | Self::Destroyed { .. } => {
                Blame::KeyService
            }
            Self::UnknownEpoch
            | Self::Denied { .. }
            | Self::SealAnew { .. }
            | Self::UnknownBucket
            | Self::Malformed { .. }
            | Self::UploadExpired
            | Self::UploadFinished => Blame::Caller,
        }
    }

    /// Whether the same item may succeed with its record. A missing one can be supplied; other refusals stand.
    #[must_use]
    pub fn wants_record(&self) -> bool {
        matches!(self, Self::UnknownEpoch)
    }
}
