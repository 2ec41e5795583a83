//! The rows that authorise, read once. What the ledger summed is what everything is built from: a database that shows other rows
//! when it is asked a second time is not asked a second time.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::ServiceError;
use crate::custody::Master;
use crate::store::{Kind, Row, Store};

/// Rows whose MACs were checked, by kind and id. Of a [ledger](super::Ledger) they are the ones that count, all of them.
#[derive(Default)]
pub(crate) struct Rows(BTreeMap<Kind, BTreeMap<String, Row>>);

impl Rows {
    /// Reads what the database has of these kinds. That the service wrote each of them, some time, is all that is known then.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`]; those of the database.
    pub(crate) fn read(master: &Master, store: &dyn Store, kinds: &[Kind]) -> Result<Self, ServiceError> {
        let mut rows = Self::default();
        for kind in kinds {
            rows.read_kind(master, store, *kind, |_| {})?;
        }
        Ok(rows)
    }

    /// Adds all of a kind; `each` hears of every row that is there, also of one that stands there twice.
    pub(super) fn read_kind(
        &mut self,
        master: &Master,
        store: &dyn Store,
        kind: Kind,
        mut each: impl FnMut(&Row),
    ) -> Result<(), ServiceError> {
        for row in store.rows(kind)? {
            if !master.row_is_ours(kind.name(), &row.id, &row.body, &row.mac) {
                return Err(ServiceError::Tampered { kind: kind.name(), id: row.id });
            }
            each(&row);
            self.put(kind, row);
        }
        Ok(())
    }

    pub(super) fn put(&mut self, kind: Kind, row: Row) {
        self.0.entry(kind).or_default().insert(row.id.clone(), row);
    }

    pub(super) fn remove(&mut self, kind: Kind, id: &str) {
        if let Some(rows) = self.0.get_mut(&kind) {
            rows.remove(id);
        }
    }

    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<&Row> {
        self.0.get(&kind)?.get(id)
    }

    /// All rows of a kind, by id.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &Row> {
        self.0.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// What they say.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if one can't be read.
    pub(crate) fn values<T: DeserializeOwned>(&self, kind: Kind) -> Result<Vec<T>, ServiceError> {
        self.of(kind).map(|row| parse(kind, row)).collect()
    }

    /// What one says, if it is there.
    ///
    /// # Errors
    /// As for [`Self::values`].
    pub(crate) fn value<T: DeserializeOwned>(&self, kind: Kind, id: &str) -> Result<Option<T>, ServiceError> {
        self.get(kind, id).map(|row| parse(kind, row)).transpose()
    }

    /// All of every kind.
    pub(super) fn each(&self) -> impl Iterator<Item = (Kind, &Row)> {
        self.0.iter().flat_map(|(kind, rows)| rows.values().map(|row| (*kind, row)))
    }
}

fn parse<T: DeserializeOwned>(kind: Kind, row: &Row) -> Result<T, ServiceError> {
    serde_json::from_slice(&row.body)
        .map_err(|_| ServiceError::Tampered { kind: kind.name(), id: row.id.clone() })
}
