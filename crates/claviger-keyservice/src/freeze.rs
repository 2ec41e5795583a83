//! The brake: while something is frozen, no key is released for it. One operator freezes; unfreezing takes two.
//!
//! What it can't do: keys that were released stay released, until their lease ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use claviger_keyapi::proposals::{FreezeRequest, FreezeTarget};
use claviger_keyapi::{Identity, KeyServiceError};
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};

const REASON_LEN_MAX: usize = 200;
const FREEZES_MAX: usize = 10_000;

/// A freeze; the id of its row is what it stops.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FreezeRow {
    pub(crate) target: FreezeTarget,
    pub(crate) frozen_ms: u64,
    pub(crate) by: Identity,
    pub(crate) reason: String,
}

/// The freezes in force.
#[derive(Default)]
pub(crate) struct Freezes {
    rows: RwLock<BTreeMap<FreezeTarget, FreezeRow>>,
    /// Counts freezes, so that an answer on its way out notices one that came meanwhile.
    generation: AtomicU64,
}

impl Freezes {
    pub(crate) fn load(rows: Vec<FreezeRow>) -> Self {
        let rows = rows.into_iter().map(|row| (row.target.clone(), row)).collect();
        Self { rows: RwLock::new(rows), generation: AtomicU64::new(0) }
    }

    pub(crate) fn get(&self, target: &FreezeTarget) -> Option<FreezeRow> {
        self.read().get(target).cloned()
    }

    pub(crate) fn all(&self) -> Vec<FreezeRow> {
        self.read().values().cloned().collect()
    }

    /// How often something was frozen since unlock.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What stops a release to this identity, in this keyset if one is named; in words.
    pub(crate) fn stops(&self, identity: &Identity, keyset: Option<&str>) -> Option<String> {
        let rows = self.read();
        if rows.is_empty() {
            return None;
        }
        let everything = rows.get(&FreezeTarget::Everything);
        let own = || rows.get(&FreezeTarget::Identity(identity.clone()));
        let of_keyset = || rows.get(&FreezeTarget::Keyset(keyset?.to_owned()));
        let row = everything.or_else(own).or_else(of_keyset)?;
        Some(format!("{} is frozen; two operators can unfreeze it", row.target))
    }

    fn put(&self, row: FreezeRow) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.insert(row.target.clone(), row);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn remove(&self, target: &FreezeTarget) {
        self.rows.write().unwrap_or_else(PoisonError::into_inner).remove(target);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<FreezeTarget, FreezeRow>> {
        // Writers insert and remove whole rows.
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The change that ends a freeze.
pub(crate) fn delete(target: &FreezeTarget) -> Change {
    Change::Delete(Kind::Freeze, row_id(target))
}

fn row_id(target: &FreezeTarget) -> String {
    match target {
        FreezeTarget::Everything => "everything".to_owned(),
        FreezeTarget::Keyset(name) => format!("keyset/{name}"),
        FreezeTarget::Identity(identity) => format!("identity/{identity}"),
    }
}

impl Core {
    /// Stops releases. Freezing what is frozen changes who did it last and why.
    pub(crate) fn freeze(&self, caller: &Caller, request: FreezeRequest) -> Work<()> {
        let mut record = caller.info.record("freeze", Outcome::Done);
        record.subject = Some(bounded(&request.target.to_string()));
        record.what = Some(bounded(&request.reason));
        Work::changing(record, |record| self.try_freeze(caller, request, record))
    }

    fn try_freeze(
        &self,
        caller: &Caller,
        request: FreezeRequest,
        record: &Record,
    ) -> Result<(), ServiceError> {
        let turn = self.change_as(caller)?;
        let vault = &turn.vault;
        if request.reason.len() > REASON_LEN_MAX {
            let text = format!("the reason is longer than {REASON_LEN_MAX} bytes");
            return Err(KeyServiceError::Malformed { text }.into());
        }
        if let FreezeTarget::Keyset(name) = &request.target
            && vault.keyset(name).is_none()
        {
            return Err(KeyServiceError::Keyset { text: format!("there is no keyset \"{name}\"") }.into());
        }
        if vault.freezes.read().len() >= FREEZES_MAX {
            let text = "too much is frozen one by one; freeze everything".to_owned();
            return Err(KeyServiceError::Conflict { text }.into());
        }
        let row = FreezeRow {
            target: request.target,
            frozen_ms: caller.info.now_ms,
            by: caller.row.identity.clone(),
            reason: request.reason,
        };
        let put = Change::Put(Kind::Freeze, vault.row(Kind::Freeze, &row_id(&row.target), &row));
        self.commit(&turn, vec![put], std::slice::from_ref(record))?;
        vault.freezes.put(row);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_stops_what_it_names_and_nothing_else() {
        let identity = |name: &str| name.parse::<Identity>().unwrap();
        let (edge, other) = (identity("gateway:edge"), identity("gateway:other"));
        let stopped = |targets: &[FreezeTarget], who: &Identity, keyset: Option<&str>| {
            let row = |target: &FreezeTarget| FreezeRow {
                target: target.clone(),
                frozen_ms: 0,
                by: identity("admin:first"),
                reason: String::new(),
            };
            Freezes::load(targets.iter().map(row).collect()).stops(who, keyset).is_some()
        };
        let of_keyset = [FreezeTarget::Keyset("default".into())];
        let of_edge = [FreezeTarget::Identity(edge.clone())];
        assert!(!stopped(&[], &edge, Some("default")));
        assert!(stopped(&[FreezeTarget::Everything], &other, None));
        assert!(stopped(&of_keyset, &other, Some("default")));
        assert!(!stopped(&of_keyset, &other, Some("archive")) && !stopped(&of_keyset, &other, None));
        assert!(stopped(&of_edge, &edge, None) && !stopped(&of_edge, &other, Some("default")));
    }
}
