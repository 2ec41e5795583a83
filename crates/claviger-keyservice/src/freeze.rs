//! The brake: while something is frozen, no key is released for it. One operator freezes, or the service itself where a budget
//! is used up (`budgets`); unfreezing takes two.
//!
//! What it can't do: keys that were released stay released, until their lease ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use claviger_keyapi::proposals::{FreezeRequest, FreezeTarget};
use claviger_keyapi::{Identity, KeyServiceError};
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::ledger::Turn;
use crate::metrics::BUDGET_FREEZES;
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};
use crate::vault::Vault;

const REASON_LEN_MAX: usize = 200;

/// A freeze; the id of its row is what it stops.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FreezeRow {
    pub(crate) target: FreezeTarget,
    pub(crate) frozen_ms: u64,
    /// `None`: the service itself, because a budget was used up.
    pub(crate) by: Option<Identity>,
    pub(crate) reason: String,
}

/// The freezes in force.
#[derive(Default)]
pub(crate) struct Freezes {
    inner: RwLock<Inner>,
    /// Counts freezes, so that an answer on its way out notices one that came meanwhile.
    generation: AtomicU64,
    /// Whether somebody is writing down who was stopped.
    is_written: AtomicBool,
}

#[derive(Default)]
struct Inner {
    rows: BTreeMap<FreezeTarget, FreezeRow>,
    /// Gateways that have used up a budget, with the reason, until their freeze is a row.
    tripped: BTreeMap<Identity, String>,
}

impl Freezes {
    pub(crate) fn load(rows: Vec<FreezeRow>) -> Self {
        let rows = rows.into_iter().map(|row| (row.target.clone(), row)).collect();
        let inner = Inner { rows, tripped: BTreeMap::new() };
        Self { inner: RwLock::new(inner), ..Self::default() }
    }

    pub(crate) fn get(&self, target: &FreezeTarget) -> Option<FreezeRow> {
        self.read().rows.get(target).cloned()
    }

    pub(crate) fn all(&self) -> Vec<FreezeRow> {
        self.read().rows.values().cloned().collect()
    }

    /// Stops an identity at once, in memory; [`Core::freeze_tripped`] freezes it. Answers of it that are on their way out go
    /// out: they were within the budget. Returns what to tell it.
    pub(crate) fn trip(&self, identity: &Identity, reason: String) -> String {
        let target = FreezeTarget::Identity(identity.clone());
        let text = told(&target, Some(&reason));
        let mut inner = self.write();
        if !inner.rows.contains_key(&target) {
            inner.tripped.entry(identity.clone()).or_insert(reason);
        }
        text
    }

    /// Who was stopped and is not frozen yet.
    fn tripped(&self) -> Vec<(Identity, String)> {
        self.read().tripped.iter().map(|(identity, reason)| (identity.clone(), reason.clone())).collect()
    }

    /// Whether there is anyone of these.
    pub(crate) fn has_tripped(&self) -> bool {
        !self.read().tripped.is_empty()
    }

    /// Whether this one is among them.
    pub(crate) fn is_tripped(&self, identity: &Identity) -> bool {
        self.read().tripped.contains_key(identity)
    }

    /// The right to write them down; `None` while somebody else is at it.
    fn write_down(&self) -> Option<WritesDown<'_>> {
        (!self.is_written.swap(true, Ordering::AcqRel)).then_some(WritesDown(&self.is_written))
    }

    /// How often something was frozen or stopped otherwise since unlock.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What stops a release to this identity, in this keyset if one is named; in words.
    pub(crate) fn stops(&self, identity: &Identity, keyset: Option<&str>) -> Option<String> {
        let inner = self.read();
        let Inner { rows, tripped } = &*inner;
        if rows.is_empty() && tripped.is_empty() {
            return None;
        }
        if let Some(reason) = tripped.get(identity) {
            return Some(told(&FreezeTarget::Identity(identity.clone()), Some(reason)));
        }
        let everything = rows.get(&FreezeTarget::Everything);
        let own = || rows.get(&FreezeTarget::Identity(identity.clone()));
        let of_keyset = || rows.get(&FreezeTarget::Keyset(keyset?.to_owned()));
        let row = everything.or_else(own).or_else(of_keyset)?;
        // Why an operator froze something is for operators.
        Some(told(&row.target, row.by.is_none().then_some(row.reason.as_str())))
    }

    /// Something else was stopped: answers that are on their way have to be decided again.
    pub(crate) fn overtake(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    fn put(&self, row: FreezeRow) {
        let mut inner = self.write();
        if let FreezeTarget::Identity(identity) = &row.target {
            inner.tripped.remove(identity);
        }
        // What the service itself freezes it had stopped before.
        let is_new = row.by.is_some();
        inner.rows.insert(row.target.clone(), row);
        if is_new {
            self.overtake();
        }
    }

    pub(crate) fn remove(&self, target: &FreezeTarget) {
        self.write().rows.remove(target);
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Writers insert and remove whole rows.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Freezes::write_down`].
struct WritesDown<'a>(&'a AtomicBool);

impl Drop for WritesDown<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What can be frozen is there, or was: so there are never more freezes than what two operators made, and no number of them stands
/// in the way of another.
fn check_target(vault: &Vault, target: &FreezeTarget) -> Result<(), KeyServiceError> {
    match target {
        FreezeTarget::Everything => Ok(()),
        FreezeTarget::Keyset(name) if vault.keyset(name).is_some() => Ok(()),
        FreezeTarget::Keyset(name) => {
            Err(KeyServiceError::Keyset { text: format!("there is no keyset \"{name}\"") })
        }
        FreezeTarget::Identity(name) => {
            let is_known = vault.identities().iter().any(|row| row.identity == *name);
            let unknown = || KeyServiceError::Conflict { text: format!("{name} was never enrolled") };
            if is_known { Ok(()) } else { Err(unknown()) }
        }
    }
}

/// What whoever is refused is told.
fn told(target: &FreezeTarget, reason: Option<&str>) -> String {
    let because = reason.map(|reason| format!(", {reason}")).unwrap_or_default();
    format!("{target} is frozen{because}; two operators can unfreeze it")
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
        check_target(vault, &request.target)?;
        let row = FreezeRow {
            target: request.target,
            frozen_ms: caller.info.now_ms,
            by: Some(caller.row.identity.clone()),
            reason: request.reason,
        };
        self.put_freeze(&turn, row, record)
    }

    fn put_freeze(&self, turn: &Turn<'_>, row: FreezeRow, record: &Record) -> Result<(), ServiceError> {
        let vault = &turn.vault;
        let put = Change::Put(Kind::Freeze, vault.row(Kind::Freeze, &row_id(&row.target), &row));
        self.commit(turn, vec![put], std::slice::from_ref(record))?;
        vault.freezes.put(row);
        Ok(())
    }

    /// Freezes whoever has used up a budget. Blocks. Where it fails they stay stopped for as long as the service is unlocked,
    /// it is tried again every few seconds, and after a restart the next item too many stops them again. Does nothing while
    /// somebody else is at it: as long as the database is away, one waits for it and not all.
    pub(crate) fn freeze_tripped(&self) -> Result<(), ServiceError> {
        let Ok(vault) = self.vault() else { return Ok(()) };
        if !vault.freezes.has_tripped() {
            return Ok(());
        }
        let Some(_at_it) = vault.freezes.write_down() else { return Ok(()) };
        let turn = self.change(&vault)?;
        for (identity, reason) in vault.freezes.tripped() {
            let info = self.local_info()?;
            let mut record = info.record("freeze", Outcome::Done);
            record.subject = Some(identity.to_string());
            record.what = Some(reason.clone());
            tracing::warn!(%identity, %reason, "frozen");
            let target = FreezeTarget::Identity(identity);
            let row = FreezeRow { target, frozen_ms: info.now_ms, by: None, reason };
            self.put_freeze(&turn, row, &record)?;
            metrics::counter!(BUDGET_FREEZES).increment(1);
        }
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
                by: Some(identity("admin:first")),
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

    #[test]
    fn whoever_has_used_up_a_budget_is_stopped_before_he_is_frozen_and_once() {
        let edge: Identity = "gateway:edge".parse().unwrap();
        let target = FreezeTarget::Identity(edge.clone());
        let freezes = Freezes::default();
        let text = freezes.trip(&edge, "used up".into());
        assert_eq!(freezes.stops(&edge, None), Some(text.clone()));
        assert!(freezes.stops(&"gateway:other".parse().unwrap(), None).is_none());
        assert_eq!(freezes.generation(), 0, "what is on its way to it was within the budget");
        let row = |by| FreezeRow { target: target.clone(), frozen_ms: 0, by, reason: "used up".into() };
        freezes.put(row(None));
        assert_eq!(freezes.generation(), 0, "nor is it by the row that says so");
        assert!(!freezes.has_tripped());
        assert_eq!(freezes.stops(&edge, Some("default")), Some(text));
        freezes.trip(&edge, "used up".into());
        freezes.remove(&target);
        assert!(freezes.stops(&edge, None).is_none(), "a late item does not outlive the unfreezing");
        freezes.put(row(Some("admin:first".parse().unwrap())));
        assert_eq!(freezes.generation(), 1, "an operator means what is on its way, too");
    }
}
