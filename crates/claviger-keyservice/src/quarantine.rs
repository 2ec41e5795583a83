//! Epochs that a stolen gateway could have forged objects in.
//!
//! A gateway that was stolen at some moment holds the keys of the epoch that it sealed under then and of those that it had
//! leased, and until it is revoked it gets more. Whatever it writes under them authenticates. So revoking with a time puts
//! every epoch that it sealed or leased since into quarantine: none of them is released until two operators accept it.
//!
//! What it sealed stands in the registry. What it leased stands in the log of the replica that served it; where one may have whose
//! log was not read, every epoch counts that it could have leased.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use claviger_keyapi::admin::{RevokeAnswer, RevokeRequest};
use claviger_keyapi::{Id16, Identity, KeyServiceError, Role};
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::leases::{Coverage, Leases, Wanted};
use crate::ledger::Turn;
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};
use crate::vault::{IdentityRow, Vault};

/// A gateway goes on sealing under an epoch for an hour; it may have been registered that long before the theft, and a little
/// more for clocks.
pub(crate) const SEALING_MS: u64 = 3_600_000 + 600_000;
/// What was registered so long after a revocation, by the clock of another replica perhaps, was not leased before it.
const AFTER_MS: u64 = 60_000;
/// Clocks of operators may be ahead by so much.
const AHEAD_MS: u64 = 60_000;
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
    pub(crate) fn revoke_since(&self, caller: &Caller, request: &RevokeRequest) -> Work<RevokeAnswer> {
        let identity = &request.identity;
        let Some(since_ms) = request.since_ms else {
            return self.revoke(caller, identity).map(|()| RevokeAnswer::default());
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
        Work::changing(record, |record| self.try_quarantine(caller, request, since_ms, record))
    }

    fn try_quarantine(
        &self,
        caller: &Caller,
        request: &RevokeRequest,
        since_ms: u64,
        record: &mut Record,
    ) -> Result<RevokeAnswer, ServiceError> {
        let identity = &request.identity;
        if identity.role() != Role::Gateway {
            let text = "only gateways seal and lease epochs: leave out the time".to_owned();
            return Err(KeyServiceError::Malformed { text }.into());
        }
        check_since(identity, since_ms, caller.info.now_ms)?;
        let of_identity: Vec<Id16> = caller
            .vault
            .identities()
            .iter()
            .filter(|row| row.identity == *identity)
            .map(|row| row.uid)
            .collect();
        let wanted = Wanted::new(Some(identity), &of_identity, since_ms);
        // Before the turn: other brakes must not wait until a log is read.
        let mut leases = Leases::default();
        leases.read_as_far_as_it_goes(&self.own_lines(&caller.vault)?, &wanted)?;
        let Reach { sealed, leasable } = self.reach(&caller.vault, (identity, since_ms), &leases.sealed)?;
        let turn = self.change_as(caller)?;
        leases.read_as_far_as_it_goes(&self.own_lines(&turn.vault)?, &wanted)?;
        let Coverage { read, unread } = self.coverage(&turn.vault, &mut leases, &request.logs, since_ms)?;
        if !unread.is_empty() {
            let text =
                format!("since {since_ms}, all that it could have leased; not read: {}", unread.join(", "));
            record.what = Some(bounded(&text));
        }
        let rows = turn.vault.identities();
        let gateways: Vec<_> = rows.iter().filter(|row| row.identity == *identity).collect();
        if gateways.is_empty() {
            let text = format!("{identity} was never enrolled");
            return Err(KeyServiceError::Conflict { text }.into());
        }
        let mut found = sealed;
        for row in gateways {
            let leased = leases.epochs.iter().copied();
            found.extend(leased.map(|epoch_id| QuarantineRow { epoch_id, gateway_id: row.uid, since_ms }));
        }
        if !unread.is_empty() {
            found.extend(leasable);
        }
        let quarantined = self.put_in_quarantine(&turn, found, record)?;
        Ok(RevokeAnswer { quarantined, read, unread })
    }

    fn put_in_quarantine(
        &self,
        turn: &Turn<'_>,
        mut found: Vec<QuarantineRow>,
        record: &Record,
    ) -> Result<u32, ServiceError> {
        found.retain(|row| !turn.vault.quarantine.holds(row.epoch_id));
        found.sort_by_key(|row| row.epoch_id);
        found.dedup_by_key(|row| row.epoch_id);
        if turn.vault.quarantine.read().len() + found.len() > QUARANTINED_MAX {
            let text = format!(
                "the identity is revoked, and nothing is in quarantine: it would be more than {QUARANTINED_MAX} epochs. Freeze the keyset, \
                 and bring the logs of all replicas, which tell what was leased"
            );
            return Err(KeyServiceError::Conflict { text }.into());
        }
        let put = |row: &QuarantineRow| {
            let id = row.epoch_id.to_string();
            Change::Put(Kind::Quarantine, turn.vault.row(Kind::Quarantine, &id, row))
        };
        self.commit(turn, found.iter().map(put).collect(), std::slice::from_ref(record))?;
        let quarantined = u32::try_from(found.len()).unwrap_or(u32::MAX);
        turn.vault.quarantine.put(found);
        Ok(quarantined)
    }

    /// What this identity sealed since then, by the registry's times or by the log's order, and what it could have leased: every epoch
    /// of its keysets that was registered before it was revoked, or when the clock showed a time that is still to come. It is revoked: nothing more of it is registered, and nothing more leased to it.
    fn reach(
        &self,
        vault: &Vault,
        (identity, since_ms): (&Identity, u64),
        registered: &BTreeSet<Id16>,
    ) -> Result<Reach, ServiceError> {
        let gateways = vault.identities();
        let gateways: Vec<_> = gateways.iter().filter(|row| row.identity == *identity).collect();
        let keysets_of = |row: &IdentityRow| -> BTreeSet<Id16> {
            row.keysets
                .iter()
                .filter_map(|name| vault.keyset(name))
                .map(|keyset| keyset.public_id())
                .collect()
        };
        let keysets: Vec<BTreeSet<Id16>> = gateways.iter().map(|row| keysets_of(row)).collect();
        let now_ms = self.clock.now_ms();
        let mut reach = Reach { sealed: Vec::new(), leasable: Vec::new() };
        self.each_epoch(vault, |epoch| {
            for (row, keysets) in gateways.iter().zip(&keysets) {
                let until_ms =
                    row.revoked_ms.map_or(u64::MAX, |revoked_ms| revoked_ms.saturating_add(AFTER_MS));
                let entry = QuarantineRow { epoch_id: Id16(epoch.epoch_id), gateway_id: row.uid, since_ms };
                let is_sealed = Id16(epoch.gateway_id) == row.uid;
                let is_of_then = epoch.first_seen_ms <= until_ms || epoch.first_seen_ms > now_ms;
                let is_leasable = keysets.contains(&Id16(epoch.keyset_id)) && is_of_then;
                let is_since = epoch.first_seen_ms >= since_ms.saturating_sub(SEALING_MS)
                    || registered.contains(&Id16(epoch.epoch_id));
                if is_sealed && is_since {
                    reach.sealed.push(entry);
                } else if is_leasable && reach.leasable.len() <= QUARANTINED_MAX {
                    // One more than there is room for is as good as all of them.
                    reach.leasable.push(entry);
                }
            }
        })?;
        Ok(reach)
    }
}

/// The time of a theft lies before now. One that does not says that a clock is wrong, and nothing would be found.
fn check_since(identity: &Identity, since_ms: u64, now_ms: u64) -> Result<(), ServiceError> {
    if since_ms <= now_ms.saturating_add(AHEAD_MS) {
        return Ok(());
    }
    let text = format!(
        "{identity} is revoked, and nothing is in quarantine: by this service's clock ({now_ms}, Unix milliseconds) the time that you          gave ({since_ms}) is still to come. Set right whose clock is wrong, and revoke again with the time"
    );
    Err(KeyServiceError::Conflict { text }.into())
}

/// Epochs in which a gateway could have forged objects.
struct Reach {
    sealed: Vec<QuarantineRow>,
    leasable: Vec<QuarantineRow>,
}
