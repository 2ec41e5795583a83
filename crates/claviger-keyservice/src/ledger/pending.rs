//! A change between the decision and the database: everything that is needed to apply it, in one row.

use claviger_keyapi::wire::{Blob, Id16};
use serde::{Deserialize, Serialize};

use super::{Mark, StateRow};
use crate::ServiceError;
use crate::store::{Change, EpochRow, Kind, Row};

/// The only id of a pending change: there is one at a time.
pub(super) const PENDING_ROW: &str = "change";

/// The row. It carries a MAC like every other.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingRow {
    /// The state that it leads to.
    pub(super) mark: Mark,
    /// The log in which it is being written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<Id16>,
    /// Number of the attempt.
    #[serde(default)]
    attempt: u64,
    /// Number of the state that it follows, if it is not the one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<u64>,
    changes: Vec<StoredChange>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StoredChange {
    Put { kind: String, id: String, body: Blob, mac: Blob },
    Delete { kind: String, id: String },
    Epoch(StoredEpoch),
    Replaced { epoch: StoredEpoch, old_mac: Blob },
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEpoch {
    epoch_id: Id16,
    gateway_id: Id16,
    keyset_id: Id16,
    created_ms: u64,
    first_seen_ms: u64,
    wek_commit: Blob,
    record: Blob,
    mac: Blob,
}

impl PendingRow {
    pub(super) fn new(mark: Mark, log: Option<Id16>, attempt: u64, changes: &[Change]) -> Self {
        Self { mark, log, attempt, after: None, changes: changes.iter().map(StoredChange::from).collect() }
    }

    /// The same, where the states in between are left out.
    pub(super) fn after(self, seq: u64) -> Self {
        let is_next = seq.checked_add(1) == Some(self.mark.seq);
        Self { after: (!is_next).then_some(seq), ..self }
    }

    /// Number of the attempt.
    pub(super) const fn attempt(&self) -> u64 {
        self.attempt
    }

    /// Whether numbers begin anew with it, as operators accepted at the replica that wrote it.
    pub(super) const fn is_anew(&self) -> bool {
        self.after.is_some()
    }

    /// Whether it leads on from the state of this number.
    pub(super) fn follows(&self, seq: u64) -> bool {
        self.after.or_else(|| self.mark.seq.checked_sub(1)) == Some(seq)
    }

    /// Whether it is not known yet what became of this attempt. A release before this one did not number them.
    pub(super) fn is_open(&self, stored: Option<&StateRow>) -> bool {
        let over = stored.map_or(0, |stored| stored.attempt);
        self.attempt > over || (self.attempt, over) == (0, 0)
    }

    /// A copy of the changes.
    pub(super) fn peek(&self) -> Result<Vec<Change>, ServiceError> {
        self.changes.iter().cloned().map(StoredChange::into_change).collect()
    }

    /// The changes as the store takes them.
    pub(super) fn changes(self) -> Result<Vec<Change>, ServiceError> {
        self.changes.into_iter().map(StoredChange::into_change).collect()
    }
}

impl From<&Change> for StoredChange {
    fn from(change: &Change) -> Self {
        match change {
            Change::Put(kind, row) => Self::Put {
                kind: kind.name().to_owned(),
                id: row.id.clone(),
                body: Blob(row.body.clone()),
                mac: Blob(row.mac.clone()),
            },
            Change::Delete(kind, id) => Self::Delete { kind: kind.name().to_owned(), id: id.clone() },
            Change::PutEpoch(row) => Self::Epoch(StoredEpoch::from(row)),
            Change::ReplaceEpoch { row, old_mac } => {
                Self::Replaced { epoch: StoredEpoch::from(row), old_mac: Blob(old_mac.clone()) }
            }
        }
    }
}

impl From<&EpochRow> for StoredEpoch {
    fn from(row: &EpochRow) -> Self {
        Self {
            epoch_id: Id16(row.epoch_id),
            gateway_id: Id16(row.gateway_id),
            keyset_id: Id16(row.keyset_id),
            created_ms: row.created_ms,
            first_seen_ms: row.first_seen_ms,
            wek_commit: Blob(row.wek_commit.to_vec()),
            record: Blob(row.record.clone()),
            mac: Blob(row.mac.clone()),
        }
    }
}

impl StoredEpoch {
    fn into_row(self) -> Result<EpochRow, ServiceError> {
        Ok(EpochRow {
            epoch_id: self.epoch_id.0,
            gateway_id: self.gateway_id.0,
            keyset_id: self.keyset_id.0,
            created_ms: self.created_ms,
            first_seen_ms: self.first_seen_ms,
            wek_commit: self.wek_commit.0.try_into().map_err(|_| damaged())?,
            record: self.record.0,
            mac: self.mac.0,
        })
    }
}

fn damaged() -> ServiceError {
    ServiceError::Damaged("pending change")
}

impl StoredChange {
    fn into_change(self) -> Result<Change, ServiceError> {
        let kind = |name: &str| Kind::from_name(name).ok_or_else(damaged);
        Ok(match self {
            Self::Put { kind: name, id, body, mac } => {
                Change::Put(kind(&name)?, Row { id, body: body.0, mac: mac.0 })
            }
            Self::Delete { kind: name, id } => Change::Delete(kind(&name)?, id),
            Self::Epoch(epoch) => Change::PutEpoch(epoch.into_row()?),
            Self::Replaced { epoch, old_mac } => {
                Change::ReplaceEpoch { row: epoch.into_row()?, old_mac: old_mac.0 }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_survive_the_row() {
        let row = Row { id: "a".into(), body: b"{}".to_vec(), mac: vec![1; 32] };
        let epoch = EpochRow {
            epoch_id: [1; 16],
            gateway_id: [2; 16],
            keyset_id: [3; 16],
            created_ms: u64::MAX,
            first_seen_ms: 5,
            wek_commit: [6; 32],
            record: vec![7; 9],
            mac: vec![8; 32],
        };
        let changes = [
            Change::Put(Kind::Token, row),
            Change::Delete(Kind::Closing, "b".into()),
            Change::PutEpoch(epoch.clone()),
            Change::ReplaceEpoch { row: epoch, old_mac: vec![9; 32] },
        ];
        let mark = Mark { seq: 7, state: "00".into() };
        let stored = serde_json::to_vec(&PendingRow::new(mark, Some(Id16([9; 16])), 3, &changes)).unwrap();
        let back: PendingRow = serde_json::from_slice(&stored).unwrap();
        assert_eq!(back.changes().unwrap(), changes);
    }
}
