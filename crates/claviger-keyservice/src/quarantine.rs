//! Epochs that a stolen gateway could have forged objects in.
//!
//! A gateway that was stolen at some moment holds the keys of the epoch that it sealed under then and of those that it had
//! leased, and until it is revoked it gets more. Whatever it writes under them authenticates. So revoking with a time puts
//! every epoch that it sealed or leased since into quarantine: none of them is released until two operators accept it.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use claviger_keyapi::admin::RevokeAnswer;
use claviger_keyapi::{Id16, Identity, KeyServiceError, Role};
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::audit_log::AuditFolder;
use crate::audit_record::Outcome;
use crate::config::LEASE_TTL_S_MAX;
use crate::service::{Caller, Core, Work};
use crate::store::{Change, EpochPage, Kind};
use crate::vault::IdentityRow;

/// A gateway goes on sealing under an epoch for an hour; it may have been registered that long before the theft, and a little
/// more for clocks.
const SEALING_MS: u64 = 3_600_000 + 600_000;
/// A lease that it got so long before the theft may still have been in its memory.
const LEASE_MS: u64 = (LEASE_TTL_S_MAX as u64) * 1000;
const PAGE: u32 = 1000;
const QUARANTINED_MAX: usize = 100_000;

/// An epoch in quarantine; the id of its row is the epoch's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuarantineRow {
    pub(crate) epoch_id: Id16,
    /// The gateway that was revoked, not always the one that sealed it.
    pub(crate) gateway_id: Id16,
    pub(crate) since_ms: u64,
}

/// The quarantine in memory.
#[derive(Default)]
pub(crate) struct Quarantine {
    rows: RwLock<HashMap<Id16, QuarantineRow>>,
    sum: AtomicU64,
}

impl Quarantine {
    pub(crate) fn load(rows: Vec<QuarantineRow>) -> Self {
        let quarantine = Self::default();
        quarantine.put(rows);
        quarantine
    }

    /// A number that is another one for other epochs.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Acquire)
    }

    pub(crate) fn holds(&self, epoch_id: Id16) -> bool {
        self.read().contains_key(&epoch_id)
    }

    pub(crate) fn all(&self) -> Vec<QuarantineRow> {
        let mut rows: Vec<_> = self.read().values().cloned().collect();
        rows.sort_by_key(|row| (row.gateway_id, row.epoch_id));
        rows
    }

    /// The epochs that an acceptance means: those named, or all of the gateway's.
    pub(crate) fn chosen(&self, gateway_id: Id16, named: &[Id16]) -> Result<Vec<Id16>, ServiceError> {
        let rows = self.read();
        let own: BTreeSet<Id16> =
            rows.values().filter(|row| row.gateway_id == gateway_id).map(|row| row.epoch_id).collect();
        let refuse = |text: String| Err(KeyServiceError::Conflict { text }.into());
        if own.is_empty() {
            return refuse(format!("no epoch of gateway {gateway_id} is in quarantine"));
        }
        if let Some(other) = named.iter().find(|epoch_id| !own.contains(epoch_id)) {
            return refuse(format!("epoch {other} is not in quarantine for gateway {gateway_id}"));
        }
        Ok(if named.is_empty() { own.into_iter().collect() } else { named.to_vec() })
    }

    fn put(&self, new: Vec<QuarantineRow>) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.extend(new.into_iter().map(|row| (row.epoch_id, row)));
        self.sum.store(sum_of(&rows), Ordering::Release);
    }

    pub(crate) fn remove(&self, epochs: &[Id16]) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|epoch_id, _| !epochs.contains(epoch_id));
        self.sum.store(sum_of(&rows), Ordering::Release);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Id16, QuarantineRow>> {
        // Writers insert and remove whole rows.
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn sum_of(rows: &HashMap<Id16, QuarantineRow>) -> u64 {
    let number = |id: &Id16| id.0.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
    rows.keys().map(number).fold(0, u64::wrapping_add)
}

/// The change that takes an epoch out of quarantine.
pub(crate) fn delete(epoch_id: &Id16) -> Change {
    Change::Delete(Kind::Quarantine, epoch_id.to_string())
}

impl Core {
    /// Revokes, and with a time puts into quarantine what could have been forged since. The brake comes first: if the rest
    /// fails the identity is revoked all the same, and asking again goes on where it failed.
    pub(crate) fn revoke_since(
        &self,
        caller: &Caller,
        identity: &Identity,
        since_ms: Option<u64>,
    ) -> Work<RevokeAnswer> {
        let Some(since_ms) = since_ms else {
            return self.revoke(caller, identity).map(|()| RevokeAnswer { quarantined: 0 });
        };
        if caller.vault.active(identity).is_some() {
            let Work { result, records, .. } = self.revoke(caller, identity);
            if let Err(error) = result {
                return Work::new(Err(error), records);
            }
        }
        let mut record = caller.info.record("quarantine", Outcome::Done);
        record.subject = Some(identity.to_string());
        record.what = Some(format!("since {since_ms}"));
        Work::changing(record, |record| {
            if identity.role() != Role::Gateway {
                let text = "only gateways seal and lease epochs: leave out the time".to_owned();
                return Err(KeyServiceError::Malformed { text }.into());
            }
            // Before the turn: other brakes must not wait until a log is read.
            let folder = self.config.audit_folder();
            let leased_since_ms = since_ms.saturating_sub(LEASE_MS);
            let mut leased = Leased { epochs: BTreeSet::new(), next_index: 0 };
            leased.read_on(&folder, identity, leased_since_ms)?;
            let turn = self.change_as(caller)?;
            leased.read_on(&folder, identity, leased_since_ms)?;
            let rows = turn.vault.identities();
            let gateways = rows.iter().filter(|row| row.identity == *identity);
            let mut found = Vec::new();
            for row in gateways {
                found.extend(self.suspicious(row, since_ms, &leased)?);
            }
            if found.is_empty() && !rows.iter().any(|row| row.identity == *identity) {
                let text = format!("{identity} was never enrolled");
                return Err(KeyServiceError::Conflict { text }.into());
            }
            found.retain(|row| !turn.vault.quarantine.holds(row.epoch_id));
            found.sort_by_key(|row| row.epoch_id);
            found.dedup_by_key(|row| row.epoch_id);
            if turn.vault.quarantine.read().len() + found.len() > QUARANTINED_MAX {
                let text = format!("more than {QUARANTINED_MAX} epochs in quarantine: freeze the keyset");
                return Err(KeyServiceError::Conflict { text }.into());
            }
            let put = |row: &QuarantineRow| {
                let id = row.epoch_id.to_string();
                Change::Put(Kind::Quarantine, turn.vault.row(Kind::Quarantine, &id, row))
            };
            self.commit(&turn, found.iter().map(put).collect(), std::slice::from_ref(record))?;
            let quarantined = u32::try_from(found.len()).unwrap_or(u32::MAX);
            turn.vault.quarantine.put(found);
            Ok(RevokeAnswer { quarantined })
        })
    }

    /// What this gateway sealed or leased since then.
    fn suspicious(
        &self,
        gateway: &IdentityRow,
        since_ms: u64,
        leased: &Leased,
    ) -> Result<Vec<QuarantineRow>, ServiceError> {
        let row = |epoch_id| QuarantineRow { epoch_id, gateway_id: gateway.uid, since_ms };
        let mut found = Vec::new();
        let mut page = EpochPage { gateway_id: Some(gateway.uid.0), after: None, limit: PAGE };
        loop {
            let epochs = self.store.epochs(page)?;
            let recent =
                epochs.iter().filter(|epoch| epoch.first_seen_ms >= since_ms.saturating_sub(SEALING_MS));
            found.extend(recent.map(|epoch| row(Id16(epoch.epoch_id))));
            match epochs.last() {
                Some(last) if epochs.len() == PAGE as usize => page.after = Some(last.epoch_id),
                _ => break,
            }
        }
        found.extend(leased.epochs.iter().copied().map(row));
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Line {
    record: Fields,
}

#[derive(Deserialize)]
struct Fields {
    time_ms: u64,
    action: String,
    outcome: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    epoch_id: Option<Id16>,
}

/// Epochs whose keys the log says this identity was given since some moment, as far as it was read.
struct Leased {
    epochs: BTreeSet<Id16>,
    next_index: u64,
}

impl Leased {
    /// Reads what was written since the last time; at first the whole log: clocks go back too, so no part of it can be left out by its
    /// time.
    fn read_on(&mut self, folder: &Path, identity: &Identity, since_ms: u64) -> Result<(), ServiceError> {
        let name = identity.to_string();
        let from_index = self.next_index;
        AuditFolder::new(folder).each_line_backward(|_, line| {
            let Some(index) = index_of(line) else { return Ok(ControlFlow::Continue(())) };
            if index < from_index {
                return Ok(ControlFlow::Break(()));
            }
            self.next_index = self.next_index.max(index + 1);
            if !line.windows(8).any(|window| window == b"\"lease\",") {
                return Ok(ControlFlow::Continue(()));
            }
            let Ok(Line { record }) = serde_json::from_slice::<Line>(line) else {
                return Ok(ControlFlow::Continue(()));
            };
            let is_his = record.action == "lease"
                && record.outcome == "released"
                && record.identity.as_deref() == Some(name.as_str());
            if is_his && record.time_ms >= since_ms {
                self.epochs.extend(record.epoch_id);
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// The index that stands at the beginning of each line.
fn index_of(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"index\":")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}
