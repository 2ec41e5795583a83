//! The service's own errors. What callers see is `claviger_keyapi`'s.

use std::io;
use std::path::{Path, PathBuf};

use claviger_format::RandomError;
use claviger_keyapi::{KeyServiceError, UnavailableReason};

use crate::custody::unlock::hsm::HsmProblem;

/// Anything that can go wrong inside the service.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file can't be read or written.
    #[error("{path}: {reason}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: io::Error,
    },
    /// A mistake in a file that a person wrote.
    #[error("{path}:{line}: {text}\n  remedy: {remedy}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong.
        text: String,
        /// What to write instead.
        remedy: String,
    },
    /// A secret lies where others can read it.
    #[error("{path} has mode {mode:04o}: it holds a secret\n  remedy: chmod {wanted:04o} {path}")]
    LooseMode {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The loosest that is accepted.
        wanted: u32,
    },
    /// The state folder holds no service yet.
    #[error("{0} holds no key service\n  remedy: claviger keys init --config FILE …")]
    NotInitialised(PathBuf),
    /// The state folder holds one already.
    #[error("{0} holds a key service already; it is never overwritten")]
    AlreadyInitialised(PathBuf),
    /// Another process works in the state folder.
    #[error(
        "{0} is in use: a key service runs there already\n  remedy: stop that one first; two would ruin the audit log"
    )]
    AlreadyRunning(PathBuf),
    /// A file that decides over rights can be changed by others.
    #[error(
        "{path} has mode {mode:04o}: others may write it, and so give themselves rights\n  remedy: chmod go-w {path}"
    )]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A question to a policy makes no sense.
    #[error("{0}")]
    Question(String),
    /// The passphrase does not open the service's master secret.
    #[error("the passphrase does not open this service's master secret")]
    WrongPassphrase,
    /// A recovery share is not one, or the shares don't belong together.
    #[error("shares: {0}")]
    Share(&'static str),
    /// A word of a share is not in the list.
    #[error("shares: word {number} is not one of the list: mistyped, or from something else")]
    ShareWord {
        /// Its place, counted from 1.
        number: usize,
    },
    /// The HSM does not do what it should.
    #[error("HSM: {problem} ({detail})")]
    Hsm {
        /// What is wrong, and what to do.
        problem: HsmProblem,
        /// Which call or name it is about.
        detail: String,
    },
    /// The service is unlocked another way.
    #[error("this service is unlocked by {actual}, not by {asked}\n  remedy: {remedy}")]
    UnlockMethod {
        /// How its master is wrapped.
        actual: &'static str,
        /// What was tried.
        asked: &'static str,
        /// What to run instead.
        remedy: &'static str,
    },
    /// Nobody outside vouches for the audit log, or someone remembers another.
    #[error("{problem}; it stays locked\n  remedy: {remedy}")]
    Unvouched {
        /// Who remembers what.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It was locked while it was being unlocked.
    #[error("the service was locked meanwhile; it stays locked")]
    LockedMeanwhile,
    /// The database failed.
    #[error("database: {0}")]
    Store(#[from] rusqlite::Error),
    /// The database server failed, or does not answer. What was to be written may have been.
    #[error("database: {0}")]
    Database(String),
    /// The database server can't be used before someone has done something about it.
    #[error("database: {text}\n  remedy: {remedy}")]
    DatabaseSetUp {
        /// What is wrong.
        text: String,
        /// What to do.
        remedy: String,
    },
    /// Another replica works with the database.
    #[error("another replica serves; this one stands by")]
    Standby,
    /// The log in this state folder is not one of the service's.
    #[error(
        "the log in this state folder is not registered: two operators have to accept this replica\n  remedy: claviger keys \
         replica add REQUEST, with the file that `claviger keyservice join` wrote"
    )]
    NotRegistered,
    /// A file is no backup, or not all of one.
    #[error("backup: {0}")]
    Backup(String),
    /// A row of the database is not what this service wrote.
    #[error("the database row {kind}/{id} was altered outside of this service; it stays locked")]
    Tampered {
        /// Kind of row.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// A row is not the newest that this service wrote, or it is gone.
    #[error(
        "the database row {kind}/{id} is not as this service last wrote it: an older one was put back, or it was deleted; it \
         stays locked\n  remedy: put the newest database back; claviger keys audit tail and the log tell of later changes"
    )]
    Stale {
        /// Kind of row.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The database as a whole is older than the audit log.
    #[error(
        "the database is older than the audit log: it is at state {database}, the log tells of state {log}; it stays \
         locked\n  remedy: put the newest database back; one that was restored from a backup knows nothing of what came after"
    )]
    OlderDatabase {
        /// Number of the database's state.
        database: u64,
        /// Number of the newest state in the log.
        log: u64,
    },
    /// The audit log ends before the database does.
    #[error(
        "the audit log is older than the database: it ends at state {log}, the database is at state {database}; it stays \
         locked\n  remedy: put the whole audit folder back; records were removed from its end"
    )]
    OlderLog {
        /// Number of the database's state.
        database: u64,
        /// Number of the newest state in the log.
        log: u64,
    },
    /// Somebody else added a record behind the log's newest checkpoint.
    #[error(
        "record {index} of the audit log was not written by this service: somebody added or altered it; it stays \
         locked\n  remedy: keep a copy of the whole audit folder as evidence, then put it back as it was, or cut off this record \
         and all that follow it: no checkpoint covers them"
    )]
    Forged {
        /// Which one, counted from 0.
        index: u64,
    },
    /// The audit log failed: nothing is released until that is repaired and the service restarted.
    #[error("audit log: {0}")]
    Audit(String),
    /// A certificate could not be made or read.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS could not be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The format refused something.
    #[error("format: {0}")]
    Format(#[from] claviger_format::Error),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Something that was sealed here does not open, or can't be read back.
    #[error("stored {0} is damaged")]
    Damaged(&'static str),
    /// The caller gets this as it is.
    #[error(transparent)]
    Refused(#[from] KeyServiceError),
}

impl ServiceError {
    pub(crate) fn io(path: &Path, reason: io::Error) -> Self {
        Self::Io { path: path.to_owned(), reason }
    }

    /// What a caller is told.
    pub(crate) fn outward(&self) -> KeyServiceError {
        let unavailable = |reason| KeyServiceError::Unavailable { reason, retry_after_ms: 2_000 };
        match self {
            Self::Refused(refused) => refused.clone(),
            Self::Store(_) | Self::Database(_) | Self::DatabaseSetUp { .. } => {
                unavailable(UnavailableReason::Store)
            }
            Self::Standby => {
                KeyServiceError::Unavailable { reason: UnavailableReason::Standby, retry_after_ms: 1_000 }
            }
            Self::Audit(_) => unavailable(UnavailableReason::Audit),
            Self::Stale { .. }
            | Self::OlderDatabase { .. }
            | Self::OlderLog { .. }
            | Self::Forged { .. }
            | Self::NotRegistered
            | Self::Hsm { .. }
            | Self::UnlockMethod { .. }
            | Self::Unvouched { .. }
            | Self::LockedMeanwhile => KeyServiceError::Conflict { text: self.to_string() },
            Self::WrongPassphrase => KeyServiceError::Denied { text: self.to_string() },
            Self::Config { .. }
            | Self::Share(_)
            | Self::ShareWord { .. }
            | Self::WritableByOthers { .. }
            | Self::Question(_) => KeyServiceError::Malformed { text: self.to_string() },
            _ => KeyServiceError::Internal,
        }
    }
}
