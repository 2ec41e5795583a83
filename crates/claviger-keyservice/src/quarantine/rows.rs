//! What lies in quarantine, as the database and memory hold it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use claviger_keyapi::Id16;
use claviger_keyapi::admin::QuarantinedEpoch;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::EpochRow;

/// A gateway goes on sealing under an epoch for an hour; it may have been registered that long before the theft, and a little
/// more for clocks.
pub(crate) const SEALING_MS: u64 = 3_600_000 + 600_000;

/// A row; all of them are of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum QuarantineRow {
    /// One epoch, by its name.
    Epoch(EpochHeld),
    /// What a gateway sealed, and perhaps what it could have leased.
    Gateway(GatewayRow),
    /// An epoch that is let go although a gateway's row holds it.
    Accepted(AcceptedRow),
}

/// An epoch that a gateway leased. Another thief of the same one has a row of his own: what is accepted for one is not accepted for the
/// other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EpochHeld {
    pub(crate) epoch_id: Id16,
    /// The gateway that was revoked, not always the one that sealed it.
    pub(crate) gateway_id: Id16,
    pub(crate) since_ms: u64,
}

/// Epochs that were never named: however many a gateway made, there is one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayRow {
    pub(crate) gateway_id: Id16,
    /// It was stolen then: what it sealed since is held.
    pub(crate) since_ms: u64,
    /// How many epochs that is, once they were counted.
    pub(crate) epochs: u64,
    /// All that it could have leased is held, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) leasable: Option<Leasable>,
}

/// Every epoch of some keysets that was registered until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leasable {
    pub(crate) keysets: BTreeSet<Id16>,
    pub(crate) until_ms: u64,
}

/// See [`QuarantineRow::Accepted`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AcceptedRow {
    /// The epoch.
    pub(crate) accepted: Id16,
    /// Whose row holds it.
    pub(crate) gateway_id: Id16,
}

/// What decides whether an epoch is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registered {
    pub(crate) epoch_id: Id16,
    /// Who sealed it.
    pub(crate) gateway_id: Id16,
    pub(crate) keyset_id: Id16,
    pub(crate) first_seen_ms: u64,
}

impl From<&EpochRow> for Registered {
    fn from(row: &EpochRow) -> Self {
        Self {
            epoch_id: Id16(row.epoch_id),
            gateway_id: Id16(row.gateway_id),
            keyset_id: Id16(row.keyset_id),
            first_seen_ms: row.first_seen_ms,
        }
    }
}

impl QuarantineRow {
    /// Its id in the database.
    pub(crate) fn id(&self) -> String {
        match self {
            Self::Epoch(row) => format!("epoch/{}/{}", row.gateway_id, row.epoch_id),
            Self::Gateway(row) => format!("gateway/{}", row.gateway_id),
            Self::Accepted(row) => format!("accepted/{}/{}", row.gateway_id, row.accepted),
        }
    }
}

impl GatewayRow {
    /// Holds what it sealed since then.
    pub(super) fn new(gateway_id: Id16, since_ms: u64) -> Self {
        Self { gateway_id, since_ms, epochs: 0, leasable: None }
    }

    /// Whether it holds this one because the gateway sealed it.
    pub(super) fn sealed(&self, epoch: &Registered) -> bool {
        epoch.gateway_id == self.gateway_id && epoch.first_seen_ms >= self.since_ms.saturating_sub(SEALING_MS)
    }

    fn holds(&self, epoch: &Registered) -> bool {
        self.sealed(epoch) || self.leasable.as_ref().is_some_and(|leasable| leasable.covers(epoch))
    }
}

impl Leasable {
    pub(super) fn covers(&self, epoch: &Registered) -> bool {
        self.keysets.contains(&epoch.keyset_id) && epoch.first_seen_ms <= self.until_ms
    }

    /// What either of them covers.
    pub(super) fn or(mut self, other: Self) -> Self {
        self.keysets.extend(other.keysets);
        self.until_ms = self.until_ms.max(other.until_ms);
        self
    }
}

/// The quarantine in memory.
#[derive(Default)]
pub(crate) struct Quarantine {
    inner: RwLock<Inner>,
    sum: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// By epoch and gateway.
    epochs: BTreeMap<(Id16, Id16), EpochHeld>,
    gateways: BTreeMap<Id16, GatewayRow>,
    /// By gateway and epoch.
    accepted: HashSet<(Id16, Id16)>,
}

impl Inner {
    fn put(&mut self, row: QuarantineRow) {
        match row {
            QuarantineRow::Epoch(row) => drop(self.epochs.insert((row.epoch_id, row.gateway_id), row)),
            QuarantineRow::Gateway(row) => drop(self.gateways.insert(row.gateway_id, row)),
            QuarantineRow::Accepted(row) => {
                self.accepted.insert((row.gateway_id, row.accepted));
            }
        }
    }

    fn remove(&mut self, row: &QuarantineRow) {
        match row {
            QuarantineRow::Epoch(row) => drop(self.epochs.remove(&(row.epoch_id, row.gateway_id))),
            QuarantineRow::Gateway(row) => drop(self.gateways.remove(&row.gateway_id)),
            QuarantineRow::Accepted(row) => {
                self.accepted.remove(&(row.gateway_id, row.accepted));
            }
        }
    }

    /// Whether a row names it, whoever's.
    fn is_named(&self, epoch_id: Id16) -> bool {
        let any = (epoch_id, Id16([0; 16]))..=(epoch_id, Id16([0xff; 16]));
        self.epochs.range(any).next().is_some()
    }

    /// The row that holds it without naming it.
    fn describing(&self, epoch: &Registered) -> Option<&GatewayRow> {
        let is_held = |row: &&GatewayRow| {
            row.holds(epoch) && !self.accepted.contains(&(row.gateway_id, epoch.epoch_id))
        };
        self.gateways.values().find(is_held)
    }

    /// Another number for other epochs, and the same for the same.
    fn sum(&self) -> u64 {
        let hashed = |text: String| {
            let digest = Sha256::digest(text);
            digest.iter().take(8).fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
        };
        let named = self.epochs.keys().map(|(epoch, gateway)| hashed(format!("epoch {epoch} {gateway}")));
        let described = self.gateways.values().map(|row| {
            let GatewayRow { gateway_id, since_ms, leasable, .. } = row;
            hashed(format!("{gateway_id} {since_ms} {leasable:?}"))
        });
        let accepted = self.accepted.iter().map(|(gateway, epoch)| hashed(format!("{gateway} {epoch}")));
        named.chain(described).chain(accepted).fold(0, u64::wrapping_add)
    }
}

impl Quarantine {
    pub(crate) fn load(rows: Vec<QuarantineRow>) -> Self {
        let quarantine = Self::default();
        quarantine.change(&[], rows);
        quarantine
    }

    /// A number that is another one for other epochs.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Acquire)
    }

    /// Whether an epoch is held back.
    pub(crate) fn holds(&self, epoch: &Registered) -> bool {
        let inner = self.read();
        inner.is_named(epoch.epoch_id) || inner.describing(epoch).is_some()
    }

    /// How many epochs are held back, about: what was accepted counts once for each gateway.
    pub(crate) fn count(&self) -> u64 {
        let inner = self.read();
        let described: u64 = inner.gateways.values().map(|row| row.epochs).sum();
        (inner.epochs.len() as u64).saturating_add(described).saturating_sub(inner.accepted.len() as u64)
    }

    /// Whether a row of this gateway names it.
    pub(super) fn names(&self, gateway_id: Id16, epoch_id: Id16) -> bool {
        self.read().epochs.contains_key(&(epoch_id, gateway_id))
    }

    /// The row that names it, if it does so for this gateway.
    pub(super) fn epoch_of(&self, gateway_id: Id16, epoch_id: Id16) -> Option<QuarantineRow> {
        let row = self.read().epochs.get(&(epoch_id, gateway_id)).cloned();
        row.map(QuarantineRow::Epoch)
    }

    /// Whether the gateway's row holds it.
    pub(super) fn describes(&self, gateway_id: Id16, epoch: &Registered) -> bool {
        let inner = self.read();
        let is_accepted = inner.accepted.contains(&(gateway_id, epoch.epoch_id));
        !is_accepted && inner.gateways.get(&gateway_id).is_some_and(|row| row.holds(epoch))
    }

    /// The same of any gateway, for a list; `None` if a row names it.
    pub(super) fn described(&self, epoch: &Registered) -> Option<QuarantinedEpoch> {
        let inner = self.read();
        let row = inner.describing(epoch).filter(|_| !inner.is_named(epoch.epoch_id))?;
        Some(QuarantinedEpoch {
            epoch_id: epoch.epoch_id,
            gateway_id: row.gateway_id,
            since_ms: row.since_ms,
        })
    }

    /// Epochs that rows name.
    pub(super) fn named(&self) -> Vec<QuarantinedEpoch> {
        let listed = |row: &EpochHeld| QuarantinedEpoch {
            epoch_id: row.epoch_id,
            gateway_id: row.gateway_id,
            since_ms: row.since_ms,
        };
        self.read().epochs.values().map(listed).collect()
    }

    /// The gateways' rows.
    pub(super) fn gateways(&self) -> Vec<GatewayRow> {
        self.read().gateways.values().cloned().collect()
    }

    /// That of one.
    pub(super) fn gateway(&self, gateway_id: Id16) -> Option<GatewayRow> {
        self.read().gateways.get(&gateway_id).cloned()
    }

    /// What was accepted out of a gateway's row.
    pub(super) fn accepted_of(&self, gateway_id: Id16) -> Vec<QuarantineRow> {
        let inner = self.read();
        let own = inner.accepted.iter().filter(|(gateway, _)| *gateway == gateway_id);
        own.map(|(_, epoch)| QuarantineRow::Accepted(AcceptedRow { accepted: *epoch, gateway_id })).collect()
    }

    /// Every row of a gateway.
    pub(super) fn all_of(&self, gateway_id: Id16) -> Vec<QuarantineRow> {
        let mut rows = self.accepted_of(gateway_id);
        let inner = self.read();
        rows.extend(inner.gateways.get(&gateway_id).cloned().map(QuarantineRow::Gateway));
        let named = inner.epochs.values().filter(|row| row.gateway_id == gateway_id);
        rows.extend(named.cloned().map(QuarantineRow::Epoch));
        rows
    }

    /// Memory follows what was written down.
    pub(super) fn change(&self, gone: &[QuarantineRow], new: Vec<QuarantineRow>) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        gone.iter().for_each(|row| inner.remove(row));
        new.into_iter().for_each(|row| inner.put(row));
        self.sum.store(inner.sum(), Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Writers insert and remove whole rows.
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THIEF: Id16 = Id16([1; 16]);
    const OTHER: Id16 = Id16([2; 16]);
    const KEYSET: Id16 = Id16([9; 16]);

    fn epoch(number: u8, gateway_id: Id16, first_seen_ms: u64) -> Registered {
        Registered { epoch_id: Id16([number; 16]), gateway_id, keyset_id: KEYSET, first_seen_ms }
    }

    #[test]
    fn one_row_holds_all_that_a_gateway_sealed_since_then_and_one_for_each_lets_them_go() {
        let since_ms = 10 * SEALING_MS;
        let quarantine = Quarantine::load(vec![QuarantineRow::Gateway(GatewayRow::new(THIEF, since_ms))]);
        let (old, running, late) = (
            epoch(3, THIEF, since_ms - SEALING_MS - 1),
            epoch(4, THIEF, since_ms - SEALING_MS),
            epoch(5, THIEF, u64::MAX),
        );
        assert!(!quarantine.holds(&old) && quarantine.holds(&running) && quarantine.holds(&late));
        assert!(!quarantine.holds(&epoch(6, OTHER, since_ms)));
        let sum = quarantine.sum();
        let accepted = QuarantineRow::Accepted(AcceptedRow { accepted: late.epoch_id, gateway_id: THIEF });
        quarantine.change(&[], vec![accepted]);
        assert!(quarantine.holds(&running) && !quarantine.holds(&late) && quarantine.sum() != sum);
        let all = quarantine.all_of(THIEF);
        assert_eq!(all.len(), 2);
        quarantine.change(&all, Vec::new());
        assert!(!quarantine.holds(&running) && quarantine.sum() == 0);
    }

    #[test]
    fn all_that_could_have_been_leased_is_what_the_keysets_had_until_then() {
        let leasable = Leasable { keysets: [KEYSET].into(), until_ms: 50 };
        let row = GatewayRow { leasable: Some(leasable), ..GatewayRow::new(THIEF, 40) };
        let quarantine = Quarantine::load(vec![QuarantineRow::Gateway(row)]);
        assert!(quarantine.holds(&epoch(3, OTHER, 50)) && !quarantine.holds(&epoch(3, OTHER, 51)));
        let of_another = Registered { keyset_id: OTHER, ..epoch(3, OTHER, 50) };
        assert!(!quarantine.holds(&of_another));
        // Who accepts it for one gateway accepts it for no other that could have forged it.
        quarantine.change(&[], vec![QuarantineRow::Gateway(GatewayRow::new(OTHER, 0))]);
        let accepted = QuarantineRow::Accepted(AcceptedRow { accepted: Id16([3; 16]), gateway_id: THIEF });
        quarantine.change(&[], vec![accepted]);
        assert!(quarantine.holds(&epoch(3, OTHER, 50)));
    }

    #[test]
    fn rows_are_read_as_what_they_were_written_as() {
        let id = |number| Id16([number; 16]);
        let leasable = Some(Leasable { keysets: [KEYSET].into(), until_ms: 7 });
        let rows = [
            QuarantineRow::Epoch(EpochHeld { epoch_id: id(3), gateway_id: THIEF, since_ms: 1 }),
            QuarantineRow::Gateway(GatewayRow::new(THIEF, 2)),
            QuarantineRow::Gateway(GatewayRow { leasable, ..GatewayRow::new(OTHER, 2) }),
            QuarantineRow::Accepted(AcceptedRow { accepted: id(4), gateway_id: THIEF }),
        ];
        for row in &rows {
            let text = serde_json::to_string(row).unwrap();
            assert_eq!(serde_json::from_str::<QuarantineRow>(&text).unwrap(), *row, "{text}");
        }
        let ids: BTreeSet<String> = rows.iter().map(QuarantineRow::id).collect();
        assert_eq!(ids.len(), rows.len());
        assert!(serde_json::from_str::<QuarantineRow>("{\"gateway_id\":1}").is_err());
    }
}
