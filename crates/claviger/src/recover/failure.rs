//! Why one object does not open.

use claviger_format::EpochId;
use claviger_gateway::GatewayError;

/// What is wrong with one object; the others go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// What the cryptography or the structure says.
    #[error("damaged: {0}")]
    Damaged(#[from] claviger_format::Error),
    /// No header of ours, or none of a body.
    #[error("no object of Claviger")]
    NotOurs,
    /// The system area has no record of the epoch.
    #[error(
        "the record of its epoch {0} is not in the system area; the key service and its backups keep copies"
    )]
    NoEpoch(EpochId),
    /// There is a record, but no given root opens it.
    #[error("its epoch {0} does not open with these shares: {1}")]
    EpochShut(EpochId, String),
    /// The keyset record names no bucket of this name.
    #[error(
        "the keyset record names no bucket {0:?}; if that is its name at the store only, say --bucket {0}=NAME, or --bucket-id ID"
    )]
    NoBucket(String),
    /// The commitment is not that of this name.
    #[error("sealed under another bucket or key than it lies under, or its envelope is damaged")]
    OtherName,
    /// As before, and it is known whose it is.
    #[error("sealed for another bucket: {0}")]
    OtherBucket(String),
    /// The key at hand is that of another object version.
    #[error(
        "sealed as another object version than the one that this key is of; ask for the version that was disclosed"
    )]
    OtherObject,
    /// The store or the dump changed, or can't be read.
    #[error("{0}")]
    Store(#[from] GatewayError),
    /// A file of a dump can't be read.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The folder that takes what was recovered can't be written. Nothing goes on then.
    #[error("can't write what was recovered: {0}")]
    Output(std::io::Error),
    /// A name in a dump that can't be the key of an object.
    #[error("its name in the dump is not UTF-8")]
    NotText,
}

impl Failure {
    /// Whether it may be otherwise another time: the way to the store failed, not what came over it.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Store(GatewayError::UpstreamUnreachable(_) | GatewayError::Replaced) => true,
            Self::Store(GatewayError::Upstream(error)) => {
                error.status.is_server_error() || error.status.as_u16() == 429
            }
            _ => false,
        }
    }
}
