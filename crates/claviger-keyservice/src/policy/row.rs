//! The policy in force as a row of the ledger.

use claviger_keyapi::Identity;
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::custody::Master;
use crate::ledger::Rows;
use crate::store::{Change, Kind, Store};
use crate::vault::row;

const POLICY_ROW: &str = "policy";

/// The policy in force, as it stands in the database.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyRow {
    pub(crate) text: String,
    pub(crate) since_ms: u64,
    /// `None` for the one that the service was made or taken over with.
    pub(crate) proposer: Option<Identity>,
    pub(crate) approver: Option<Identity>,
}

impl PolicyRow {
    /// A policy that comes with the service.
    pub(crate) fn first(text: String, since_ms: u64) -> Self {
        Self { text, since_ms, proposer: None, approver: None }
    }

    /// The change that puts it in force.
    pub(crate) fn change(&self, master: &Master) -> Change {
        Change::Put(Kind::Policy, row(master, Kind::Policy, POLICY_ROW, self))
    }

    /// The one among these rows.
    pub(crate) fn of(rows: &Rows) -> Result<Option<Self>, ServiceError> {
        rows.value(Kind::Policy, POLICY_ROW)
    }

    /// The one in the database before unlock, when nothing can be checked.
    pub(crate) fn read_unchecked(store: &dyn Store) -> Result<Option<Self>, ServiceError> {
        let rows = store.rows(Kind::Policy)?;
        let row = rows.iter().find(|row| row.id == POLICY_ROW);
        row.map(|row| serde_json::from_slice(&row.body).map_err(|_| ServiceError::Damaged("policy")))
            .transpose()
    }
}
