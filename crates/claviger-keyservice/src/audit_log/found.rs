//! What lay in the folder when the log was opened, as one reading found it, and whether it is to be gone on with.

use std::sync::{Mutex, PoisonError};

use claviger_audit::{Checkpoint, LogTree, Note, SignedCheckpoint, VerifierKey};

use super::recovery::Recovered;
use super::{AuditLog, SealKey, Uncovered, check_lines};
use crate::ServiceError;
use crate::ledger::Mark;

/// The index from which on lines are sealed, if they are.
type SealedFrom = Option<u64>;

#[derive(Default)]
pub(super) struct Found {
    /// The checkpoint.
    note: Option<Note>,
    /// How many records there were.
    records: u64,
    /// If there was no checkpoint: the log's name, as a record tells it.
    name: Option<String>,
    /// A digest of the records behind the checkpoint.
    tail: [u8; 32],
    /// They were written by the service, if lines are sealed from there on: what passes in a log without seals need not pass in one that has
    /// them.
    checked: Mutex<Option<SealedFrom>>,
    /// The newest state of the ledger that the records tell of.
    state: Option<Mark>,
}

impl Found {
    /// The tree of the records, and what else is to be remembered of them.
    pub(super) fn of(recovered: Recovered) -> (LogTree, Self) {
        let Recovered { tree, found: note, name, tail, state, torn_len: _, last: _ } = recovered;
        let records = tree.size();
        (tree, Self { note, records, name, tail, checked: Mutex::default(), state })
    }
}

impl AuditLog {
    /// Whether the checkpoint that lay there when the log was opened is signed with this key. That it fits the records was
    /// checked already.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if not.
    pub(crate) fn check_found(&self, key: &VerifierKey) -> Result<(), ServiceError> {
        let Some(note) = &self.found.note else { return Ok(()) };
        SignedCheckpoint::of_note(note.clone(), key).map(drop).map_err(|error| {
            ServiceError::Audit(format!(
                "the checkpoint in its folder is not this log's: {error}; the log must not be edited"
            ))
        })
    }

    /// The name of the log as the checkpoint in its folder says it, or if that is lost a record; nobody has verified it yet.
    pub(crate) fn origin(&self) -> Option<String> {
        let Some(note) = &self.found.note else { return self.found.name.clone() };
        Some(Checkpoint::parse(note.text()).ok()?.origin)
    }

    /// The newest state of the ledger that the log told of when it was opened. It stands in a record that was held against the
    /// checkpoint, or lies behind it.
    pub(crate) fn found_state(&self) -> Option<&Mark> {
        self.found.state.as_ref()
    }

    /// Whether the service wrote all that lay behind that checkpoint, and that the tree was made of just these lines: the file may be
    /// another one by now. `sealed_from` is the index from which on lines are sealed, if they are.
    ///
    /// # Errors
    /// [`ServiceError::Forged`] if not; [`ServiceError::Audit`] if they were exchanged; [`ServiceError::Io`].
    pub(crate) fn check_tail(&self, sealed_from: Option<u64>, key: &SealKey) -> Result<(), ServiceError> {
        // A log without files is one of a test. What was found is in the tree: checked once, it may be pruned.
        // Where nothing of it is sealed it is the same whether anything is to be.
        let sealed_from = sealed_from.filter(|from| *from < self.found.records);
        let mut checked = self.found.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(folder) = self.folder.as_ref().filter(|_| *checked != Some(sealed_from)) else {
            return Ok(());
        };
        let covered = self.found.note.as_ref().and_then(|note| Checkpoint::parse(note.text()).ok());
        let from = covered.map_or(0, |checkpoint| checkpoint.size);
        let digest = check_lines(folder, Uncovered { from, end: self.found.records, sealed_from }, key)?;
        if digest == self.found.tail {
            *checked = Some(sealed_from);
            return Ok(());
        }
        let text = "the lines behind its checkpoint are not those that the service found when it started; the log must not be edited";
        Err(ServiceError::Audit(text.into()))
    }

    /// Whether the log lies there without a checkpoint.
    pub(crate) fn lacks_checkpoint(&self) -> bool {
        self.folder.is_some() && self.found.note.is_none() && self.shared.written.load().is_none()
    }
}
