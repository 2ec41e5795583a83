//! What the service remembers. The store keeps rows and says nothing about their meaning; it is not believed either:
//! rows that authorise carry a MAC under the master (`custody`), and secrets lie in it only sealed.

pub mod location;
pub mod postgres;
pub mod snapshot;
pub mod sqlite;

use crate::ServiceError;
use snapshot::{Item, Snapshot};

/// Kinds of rows; the name is part of the MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Service-wide: CA certificate.
    Service,
    /// A keyset.
    Keyset,
    /// An enrolled identity.
    Identity,
    /// An enrolment token that was not used yet.
    Token,
    /// A bucket binding.
    Binding,
    /// A bucket that was unbound a moment ago.
    Closing,
    /// An audit log: its name and the key that signs its checkpoints.
    Log,
    /// A registered epoch; kept in a table of its own.
    Epoch,
    /// An upload that was reported finished; kept in a table of its own.
    FinishedUpload,
    /// The policy in force.
    Policy,
    /// What one operator proposes and another has to approve.
    Proposal,
    /// What no key is released for.
    Freeze,
    /// An epoch that is not released until it was accepted.
    Quarantine,
    /// A change that is decided and not made yet (`ledger`).
    Pending,
    /// Number and digest of the ledger's state.
    State,
    /// Written and taken back at once, to see whether that can be done.
    Probe,
}

impl Kind {
    /// Kinds whose rows authorise: what the ledger counts. Epochs, in their own table, belong to it too.
    pub(crate) const LEDGER: [Self; 11] = [
        Self::Service,
        Self::Keyset,
        Self::Identity,
        Self::Token,
        Self::Binding,
        Self::Closing,
        Self::Log,
        Self::Policy,
        Self::Proposal,
        Self::Freeze,
        Self::Quarantine,
    ];

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let others = [Self::Epoch, Self::FinishedUpload, Self::Pending, Self::State, Self::Probe];
        Self::LEDGER.into_iter().chain(others).find(|kind| kind.name() == name)
    }

    /// The name in the database and in the MAC.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Keyset => "keyset",
            Self::Identity => "identity",
            Self::Token => "token",
            Self::Binding => "binding",
            Self::Closing => "closing",
            Self::Log => "log",
            Self::Epoch => "epoch",
            Self::FinishedUpload => "finished-upload",
            Self::Policy => "policy",
            Self::Proposal => "proposal",
            Self::Freeze => "freeze",
            Self::Quarantine => "quarantine",
            Self::Pending => "pending",
            Self::State => "state",
            Self::Probe => "probe",
        }
    }
}

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Unique within its kind.
    pub id: String,
    /// JSON.
    pub body: Vec<u8>,
    /// MAC over kind, id and body.
    pub mac: Vec<u8>,
}

/// A change; several are applied together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Insert or replace.
    Put(Kind, Row),
    /// Remove, if it is there.
    Delete(Kind, String),
    /// Register an epoch. One that is there stays as it is.
    PutEpoch(EpochRow),
    /// Another record, with its MAC, for an epoch that is registered.
    ReplaceEpoch {
        /// The row as it is to be.
        row: EpochRow,
        /// The MAC that it has now.
        old_mac: Vec<u8>,
    },
}

/// One registered epoch (docs/format.md §2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochRow {
    /// Identity.
    pub epoch_id: [u8; 16],
    /// Who sealed it.
    pub gateway_id: [u8; 16],
    /// Keyset.
    pub keyset_id: [u8; 16],
    /// What the header says, Unix milliseconds.
    pub created_ms: u64,
    /// When it was registered, Unix milliseconds.
    pub first_seen_ms: u64,
    /// Commitment of its key.
    pub wek_commit: [u8; 32],
    /// The full record.
    pub record: Vec<u8>,
    /// MAC over everything above.
    pub mac: Vec<u8>,
}

/// A registered epoch as far as the ledger counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochMark {
    /// Identity.
    pub epoch_id: [u8; 16],
    /// The row's MAC.
    pub mac: Vec<u8>,
}

/// An upload that was reported finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedRow {
    /// When, Unix milliseconds.
    pub finished_ms: u64,
    /// MAC over object id and time.
    pub mac: Vec<u8>,
}

/// What one replica shows the others of a log. It is no row: nobody believes it for where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Id of the log.
    pub log: String,
    /// Id of the log of the replica that shows it.
    pub author: String,
    /// What it shows.
    pub body: Vec<u8>,
}

/// Which epochs to list.
#[derive(Debug, Clone, Copy)]
pub struct EpochPage {
    /// Only of this gateway.
    pub gateway_id: Option<[u8; 16]>,
    /// Only after this id.
    pub after: Option<[u8; 16]>,
    /// At most so many.
    pub limit: u32,
}

/// Whether this process is the one that works with the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// As far as it knows; [`Store::check_ours`] tells whether it is certain.
    Active,
    /// One of several replicas works with them, and this one is not it: it reads and waits.
    Standby,
    /// Another process took them over; this one never works with them again.
    Replaced,
}

/// A database. Every method returns only when its effect is durable. Methods block; the service calls them where that is
/// allowed.
///
/// An error of a method that writes means that it is **not known** whether its effect is there: the answer to a commit can be
/// lost. It is all there or not at all, and writing the same again does no harm.
pub trait Store: Send + Sync {
    /// A value that is not a row: wrapped master, CA key under the master.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, ServiceError>;

    /// Sets such a value.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), ServiceError>;

    /// All rows of a kind, by id.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn rows(&self, kind: Kind) -> Result<Vec<Row>, ServiceError>;

    /// Applies changes in one transaction.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`]; all of them or none was applied then.
    fn apply(&self, changes: &[Change]) -> Result<(), ServiceError>;

    /// One epoch.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn epoch(&self, epoch_id: &[u8; 16]) -> Result<Option<EpochRow>, ServiceError>;

    /// Ids and MACs of epochs after this id, at most so many, by id.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn epoch_marks(&self, after: Option<[u8; 16]>, limit: u32) -> Result<Vec<EpochMark>, ServiceError>;

    /// Epochs by id.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn epochs(&self, page: EpochPage) -> Result<Vec<EpochRow>, ServiceError>;

    /// How many epochs there are.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn epoch_count(&self) -> Result<u64, ServiceError>;

    /// Remembers that an upload ended; the first report stays.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn finish_upload(&self, object_id: &[u8; 16], row: &FinishedRow) -> Result<(), ServiceError>;

    /// The report that an upload ended, if there is one.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn finished_upload(&self, object_id: &[u8; 16]) -> Result<Option<FinishedRow>, ServiceError>;

    /// Begins to read everything as it is now; changes go on meanwhile and are not in it.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn snapshot(&self) -> Result<Snapshot, ServiceError>;

    /// Puts rows of a snapshot into a new store, in one transaction.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`].
    fn fill(&self, items: &[Item]) -> Result<(), ServiceError>;

    /// Sees to it that what was deleted or replaced can't be read from the database's own files any more.
    ///
    /// # Errors
    /// [`ServiceError::Store`], [`ServiceError::Database`]: it has to be asked for again.
    fn scrub(&self) -> Result<(), ServiceError>;

    /// Whether it is certain at this moment that no other process works with these rows. Asked before keys go out. Does not
    /// block.
    ///
    /// # Errors
    /// [`ServiceError::Database`], [`ServiceError::DatabaseSetUp`] if another may have taken them over.
    fn check_ours(&self) -> Result<(), ServiceError>;

    /// Whether this process works with the rows. Does not block.
    fn role(&self) -> Role {
        Role::Active
    }

    /// Tells a store that may stand by whether this process could serve. One that is ready takes the rows over when nobody works
    /// with them any more; one that took them over and is not ready gives them up. Does not block.
    fn stand_ready(&self, _ready: bool) {}

    /// What the replicas show each other. A store for one process alone holds nothing of the kind.
    ///
    /// # Errors
    /// [`ServiceError::Database`].
    fn notices(&self) -> Result<Vec<Notice>, ServiceError> {
        Ok(Vec::new())
    }

    /// Shows something to the other replicas, in place of what this author showed of this log before. A standby may do so too.
    ///
    /// # Errors
    /// [`ServiceError::Database`].
    fn put_notice(&self, _notice: &Notice) -> Result<(), ServiceError> {
        Ok(())
    }

    /// What is wrong with the database, for health checks. Does not block.
    fn problem(&self) -> Option<String>;
}
