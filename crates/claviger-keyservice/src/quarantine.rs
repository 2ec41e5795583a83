//! Epochs that a stolen gateway could have forged objects in.
//!
//! A gateway that was stolen at some moment holds the keys of the epoch that it sealed under then and of those that it had
//! leased, and until it is revoked it gets more. Whatever it writes under them authenticates. So revoking with a time puts
//! every epoch that it sealed or leased since into quarantine: none of them is released until two operators accept it.
//!
//! What it sealed stands in the registry. What it leased stands in the log of the replica that served it; where one may have whose
//! log was not read, every epoch counts that it could have leased.
//!
//! How many that are is up to the thief. So what he sealed, and what he could have leased, is not named but described: by one row for
//! the gateway, which holds however many there are, and which is there before anything is read. Named are only epochs of others that
//! he did lease, and epochs that were accepted out of such a description.

mod rows;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use claviger_keyapi::admin::{HeldGateway, QuarantineList, QuarantinedEpoch, RevokeAnswer, RevokeRequest};
use claviger_keyapi::{Id16, Identity, KeyServiceError, Role};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::leases::{Coverage, Leases, Wanted};
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};
use crate::vault::{IdentityRow, Vault};
use rows::{AcceptedRow, EpochHeld, GatewayRow, Leasable};
pub(crate) use rows::{Quarantine, QuarantineRow, Registered, SEALING_MS};

/// What was registered so long after a revocation, by the clock of another replica perhaps, was not leased before it.
const AFTER_MS: u64 = 60_000;
/// Clocks of operators may be ahead by so much.
const AHEAD_MS: u64 = 60_000;
/// Most epochs that one revocation names. Who leased more of others' is held to have leased all that he could.
const NAMED_MAX: usize = 100_000;
/// Most epochs that are listed at once.
const LISTED_MAX: usize = 10_000;

/// What two operators let go.
pub(crate) struct Acceptance {
    gone: Vec<QuarantineRow>,
    new: Vec<QuarantineRow>,
}

impl Acceptance {
    /// As the database is told.
    pub(crate) fn changes(&self, vault: &Vault) -> Vec<Change> {
        let gone = self.gone.iter().map(|row| Change::Delete(Kind::Quarantine, row.id()));
        gone.chain(self.new.iter().map(|row| put(vault, row))).collect()
    }

    /// As memory follows.
    pub(crate) fn carry_out(self, vault: &Vault) {
        vault.quarantine.change(&self.gone, self.new);
    }
}

fn put(vault: &Vault, row: &QuarantineRow) -> Change {
    Change::Put(Kind::Quarantine, vault.row(Kind::Quarantine, &row.id(), row))
}

impl Core {
    /// Revokes, and with a time puts into quarantine what could have been forged since. The brakes come first: if the rest
    /// fails the identity is revoked and what it sealed is held back all the same, and asking again goes on where it failed.
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
        record.what = Some(format!("since {since_ms}, what it sealed"));
        let held =
            Work::changing(record.clone(), |record| self.hold_sealed(caller, identity, since_ms, record));
        if held.result.is_err() {
            return held.map(|_| RevokeAnswer::default());
        }
        let taken_back = held.result.unwrap_or_default();
        record.what = Some(format!("since {since_ms}"));
        Work::changing(record, |record| self.try_quarantine(caller, request, (since_ms, taken_back), record))
    }

    /// Holds back all that it sealed since then, without looking at it. How many acceptances were taken back with that.
    fn hold_sealed(
        &self,
        caller: &Caller,
        identity: &Identity,
        since_ms: u64,
        record: &Record,
    ) -> Result<u32, ServiceError> {
        if identity.role() != Role::Gateway {
            let text = "only gateways seal and lease epochs: leave out the time".to_owned();
            return Err(KeyServiceError::Malformed { text }.into());
        }
        check_since(identity, since_ms, caller.info.now_ms)?;
        let turn = self.change_as(caller)?;
        let quarantine = &turn.vault.quarantine;
        let mut new = Vec::new();
        let mut gone = Vec::new();
        for row in enrolments(&turn.vault, identity)? {
            let mut held = quarantine.gateway(row.uid).unwrap_or_else(|| GatewayRow::new(row.uid, since_ms));
            held.since_ms = held.since_ms.min(since_ms);
            new.push(QuarantineRow::Gateway(held));
            gone.extend(quarantine.accepted_of(row.uid));
        }
        let deleted = gone.iter().map(|row| Change::Delete(Kind::Quarantine, row.id()));
        let changes = deleted.chain(new.iter().map(|row| put(&turn.vault, row))).collect();
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        quarantine.change(&gone, new);
        turn.vault.freezes.overtake();
        Ok(u32::try_from(gone.len()).unwrap_or(u32::MAX))
    }

    fn try_quarantine(
        &self,
        caller: &Caller,
        request: &RevokeRequest,
        (since_ms, taken_back): (u64, u32),
        record: &mut Record,
    ) -> Result<RevokeAnswer, ServiceError> {
        let identity = &request.identity;
        let gateways: Vec<Id16> = enrolments(&caller.vault, identity)?.iter().map(|row| row.uid).collect();
        let wanted = Wanted::new(Some(identity), &gateways, since_ms);
        // Before the turn: other brakes must not wait until a log is read.
        let mut leases = Leases::default();
        leases.read_as_far_as_it_goes(&self.own_lines(&caller.vault)?, &wanted);
        let reach = self.reach(&caller.vault, identity)?;
        let turn = self.change_as(caller)?;
        leases.read_as_far_as_it_goes(&self.own_lines(&turn.vault)?, &wanted);
        let Coverage { read, unread } = self.coverage(&turn.vault, &mut leases, &request.logs, since_ms)?;
        if !unread.is_empty() {
            let text =
                format!("since {since_ms}, all that it could have leased; not read: {}", unread.join(", "));
            record.what = Some(bounded(&text));
        }
        let enrolments = enrolments(&turn.vault, identity)?;
        // What the log shows behind the theft by its order alone is of no time that a row could describe.
        let told = leases.epochs.iter().chain(&leases.sealed);
        let mut leased: BTreeSet<Id16> =
            told.filter(|epoch_id| !reach.sealed.contains(*epoch_id)).copied().collect();
        let holds_all = !unread.is_empty() || leased.len() > NAMED_MAX;
        let later = if holds_all { reach.later.clone() } else { BTreeSet::new() };
        leased.retain(|epoch_id| !later.contains(epoch_id));
        let held = reach.held(&turn.vault, &enrolments, holds_all);
        let first = enrolments.first().map_or(Id16([0; 16]), |row| row.uid);
        let is_named = |epoch_id: &Id16| {
            !turn.vault.quarantine.names(first, *epoch_id)
                && (!held.all || !reach.leasable.contains(epoch_id))
        };
        // What nothing else holds comes first.
        let named = later.into_iter().chain(leased).filter(is_named).take(NAMED_MAX);
        let named: Vec<_> = named
            .map(|epoch_id| QuarantineRow::Epoch(EpochHeld { epoch_id, gateway_id: first, since_ms }))
            .collect();
        let count = held.more.saturating_add(named.len() as u64).saturating_add(u64::from(taken_back));
        let new: Vec<QuarantineRow> =
            held.rows.into_iter().map(QuarantineRow::Gateway).chain(named).collect();
        let changes = new.iter().map(|row| put(&turn.vault, row)).collect();
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        turn.vault.quarantine.change(&[], new);
        turn.vault.freezes.overtake();
        Ok(RevokeAnswer { quarantined: u32::try_from(count).unwrap_or(u32::MAX), read, unread })
    }

    /// What this identity sealed and what it could have leased, counted as its rows would hold it. It is revoked: nothing more of it is
    /// registered, and nothing more leased to it.
    fn reach(&self, vault: &Vault, identity: &Identity) -> Result<Reach, ServiceError> {
        let mut rows: Vec<(GatewayRow, Leasable)> = Vec::new();
        for row in enrolments(vault, identity)? {
            let held =
                vault.quarantine.gateway(row.uid).unwrap_or_else(|| GatewayRow::new(row.uid, u64::MAX));
            let (now, before) = (leasable(vault, &row), held.leasable.clone());
            rows.push((held, before.map_or(now.clone(), |before| before.or(now))));
        }
        let mut reach = Reach::default();
        self.each_epoch(vault, |epoch| {
            let epoch = Registered::from(epoch);
            if let Some((row, _)) = rows.iter().find(|(row, _)| row.sealed(&epoch)) {
                reach.sealed.insert(epoch.epoch_id);
                reach.counts.entry(row.gateway_id).or_default().0 += 1;
            } else if let Some((row, _)) = rows.iter().find(|(_, leasable)| leasable.covers(&epoch)) {
                if reach.leasable.len() < NAMED_MAX {
                    reach.leasable.insert(epoch.epoch_id);
                }
                reach.counts.entry(row.gateway_id).or_default().1 += 1;
            } else if rows.iter().any(|(_, leasable)| leasable.keysets.contains(&epoch.keyset_id)) {
                reach.later(&epoch);
            }
        })?;
        Ok(reach)
    }

    /// What it means to accept these epochs of a gateway, or all of them if none is named.
    ///
    /// # Errors
    /// [`KeyServiceError::Conflict`]: nothing of it, or not one of these, is in quarantine.
    pub(crate) fn acceptance(
        &self,
        vault: &Vault,
        gateway_id: Id16,
        named: &[Id16],
    ) -> Result<Acceptance, ServiceError> {
        let quarantine = &vault.quarantine;
        let refuse = |text: String| Err(KeyServiceError::Conflict { text }.into());
        let mut accepted = Acceptance { gone: Vec::new(), new: Vec::new() };
        if named.is_empty() {
            accepted.gone = quarantine.all_of(gateway_id);
            if accepted.gone.is_empty() {
                return refuse(format!("no epoch of gateway {gateway_id} is in quarantine"));
            }
            return Ok(accepted);
        }
        for epoch_id in named.iter().collect::<BTreeSet<_>>() {
            let own = quarantine.epoch_of(gateway_id, *epoch_id);
            let is_described = match self.registered_epoch(vault, &epoch_id.0)? {
                Some(row) => quarantine.describes(gateway_id, &Registered::from(&row)),
                None => false,
            };
            if own.is_none() && !is_described {
                return refuse(format!("epoch {epoch_id} is not in quarantine for gateway {gateway_id}"));
            }
            accepted.gone.extend(own);
            if is_described {
                accepted.new.push(QuarantineRow::Accepted(AcceptedRow { accepted: *epoch_id, gateway_id }));
            }
        }
        Ok(accepted)
    }

    /// What lies in quarantine: the gateways, and their epochs as far as a list goes.
    pub(crate) fn list_quarantine(&self, caller: &Caller) -> Result<QuarantineList, ServiceError> {
        let vault = &caller.vault;
        let mut epochs: Vec<QuarantinedEpoch> = vault.quarantine.named();
        let gateways: Vec<HeldGateway> = vault
            .quarantine
            .gateways()
            .into_iter()
            .map(|row| HeldGateway {
                gateway_id: row.gateway_id,
                identity: vault.identity(row.gateway_id).map(|known| known.identity.clone()),
                since_ms: row.since_ms,
                epochs: row.epochs,
                leasable_until_ms: row.leasable.map(|leasable| leasable.until_ms),
            })
            .collect();
        let mut left_out = 0;
        if !gateways.is_empty() {
            self.each_epoch(vault, |row| {
                let Some(held) = vault.quarantine.described(&Registered::from(row)) else { return };
                if epochs.len() < LISTED_MAX { epochs.push(held) } else { left_out += 1 }
            })?;
        }
        left_out += u64::try_from(epochs.len().saturating_sub(LISTED_MAX)).unwrap_or(u64::MAX);
        epochs.sort_by_key(|epoch| (epoch.gateway_id, epoch.epoch_id));
        epochs.truncate(LISTED_MAX);
        Ok(QuarantineList { epochs, gateways, left_out })
    }
}

/// Every enrolment of a name, also those that were revoked before.
fn enrolments(vault: &Vault, identity: &Identity) -> Result<Vec<Arc<IdentityRow>>, ServiceError> {
    let mut rows: Vec<_> = vault.identities().into_iter().filter(|row| row.identity == *identity).collect();
    rows.sort_by_key(|row| (row.enrolled_ms, row.uid));
    if rows.is_empty() {
        let text = format!("{identity} was never enrolled");
        return Err(KeyServiceError::Conflict { text }.into());
    }
    Ok(rows)
}

/// All that this enrolment could have leased: every epoch of its keysets that was registered before it was revoked.
fn leasable(vault: &Vault, row: &IdentityRow) -> Leasable {
    let keysets = row.keysets.iter().filter_map(|name| vault.keyset(name));
    Leasable {
        keysets: keysets.map(|keyset| keyset.public_id()).collect(),
        until_ms: row.revoked_ms.map_or(u64::MAX, |revoked_ms| revoked_ms.saturating_add(AFTER_MS)),
    }
}

/// The time of a theft lies before now. One that does not says that a clock is wrong, and nothing would be found.
fn check_since(identity: &Identity, since_ms: u64, now_ms: u64) -> Result<(), ServiceError> {
    if since_ms <= now_ms.saturating_add(AHEAD_MS) {
        return Ok(());
    }
    let text = format!(
        "{identity} is revoked, and nothing is in quarantine: by this service's clock ({now_ms}, Unix milliseconds) the time that you \
         gave ({since_ms}) is still to come. Set right whose clock is wrong, and revoke again with the time"
    );
    Err(KeyServiceError::Conflict { text }.into())
}

/// Epochs in which a gateway could have forged objects.
#[derive(Default)]
struct Reach {
    /// What its rows hold because it sealed them.
    sealed: HashSet<Id16>,
    /// Others that it could have leased, up to [`NAMED_MAX`]; beyond that naming them is of no use.
    leasable: HashSet<Id16>,
    /// Of the same keysets, up to as many: registered by now, and later than the revocation by their times. One of the two clocks may
    /// have been wrong.
    later: BTreeSet<Id16>,
    /// That time at the latest, if there are more.
    later_until_ms: Option<u64>,
    /// How many there are of the first two for each enrolment.
    counts: BTreeMap<Id16, (u64, u64)>,
}

/// The rows of the gateway's enrolments as they are to be.
struct Held {
    rows: Vec<GatewayRow>,
    /// Whether one of them holds all that could have been leased.
    all: bool,
    /// Epochs that they hold and did not before.
    more: u64,
}

impl Reach {
    fn later(&mut self, epoch: &Registered) {
        if self.later.len() < NAMED_MAX {
            self.later.insert(epoch.epoch_id);
        } else {
            self.later_until_ms = self.later_until_ms.max(Some(epoch.first_seen_ms));
        }
    }

    fn held(&self, vault: &Vault, enrolments: &[Arc<IdentityRow>], holds_all: bool) -> Held {
        let mut held = Held { rows: Vec::new(), all: false, more: 0 };
        for row in enrolments {
            let Some(mut row_held) = vault.quarantine.gateway(row.uid) else { continue };
            if holds_all {
                let mut now = leasable(vault, row);
                // More than can be named: then also what is registered until that time.
                now.until_ms = now.until_ms.max(self.later_until_ms.unwrap_or(0));
                row_held.leasable =
                    Some(row_held.leasable.take().map_or(now.clone(), |before| before.or(now)));
            }
            held.all |= row_held.leasable.is_some();
            let (sealed, leasable) = self.counts.get(&row.uid).copied().unwrap_or_default();
            let epochs = if row_held.leasable.is_some() { sealed + leasable } else { sealed };
            held.more += epochs.saturating_sub(row_held.epochs);
            row_held.epochs = epochs;
            held.rows.push(row_held);
        }
        held
    }
}
