//! The registry as the ledger knows it: which epochs there are, and which row of each is the newest. Their records stay in the
//! database; whatever is read of them there is held against this, and so is what is *not* there.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{Ledger, epoch_row_id};
use crate::ServiceError;
use crate::custody::Master;
use crate::registry::is_ours;
use crate::service::Core;
use crate::store::{Change, EpochPage, EpochRow, Kind};
use crate::vault::Vault;

/// Epochs that are read at once.
const PAGE: u32 = 1_000;

/// The beginning of each registered row's MAC. Nobody else makes one, so it only has to tell the few that the service made for one
/// epoch from each other.
#[derive(Default)]
pub(super) struct Epochs(BTreeMap<[u8; 16], [u8; 8]>);

/// As much of a MAC as is kept.
fn beginning(mac: &[u8]) -> [u8; 8] {
    let mut first = [0; 8];
    first.iter_mut().zip(mac).for_each(|(to, from)| *to = *from);
    first
}

fn tampered(epoch_id: &[u8; 16]) -> ServiceError {
    ServiceError::Tampered { kind: Kind::Epoch.name(), id: epoch_row_id(epoch_id) }
}

impl Epochs {
    pub(super) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn put(&mut self, epoch_id: [u8; 16], mac: &[u8]) {
        self.0.insert(epoch_id, beginning(mac));
    }

    /// Whether every row that these changes replace is the newest, and every one that they add is new.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if not.
    pub(super) fn check(&self, changes: &[Change]) -> Result<(), ServiceError> {
        for change in changes {
            let (id, before) = match change {
                Change::ReplaceEpoch { row, old_mac } => (&row.epoch_id, Some(beginning(old_mac))),
                Change::PutEpoch(row) => (&row.epoch_id, None),
                Change::Put(..) | Change::Delete(..) => continue,
            };
            if self.0.get(id).copied() != before {
                return Err(tampered(id));
            }
        }
        Ok(())
    }

    /// Whether this is what there is of an epoch.
    fn holds(
        &self,
        master: &Master,
        epoch_id: &[u8; 16],
        row: Option<&EpochRow>,
    ) -> Result<(), ServiceError> {
        let is_newest = self.0.get(epoch_id).copied() == row.map(|row| beginning(&row.mac));
        let is_it = row.is_none_or(|row| row.epoch_id == *epoch_id && is_ours(master, row));
        if is_newest && is_it { Ok(()) } else { Err(tampered(epoch_id)) }
    }

    /// Whether these are all epochs after that one, up to so many.
    fn hold_all(
        &self,
        master: &Master,
        (after, limit): (Option<[u8; 16]>, u32),
        rows: &[EpochRow],
    ) -> Result<(), ServiceError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut known = self.0.range((from, Bound::Unbounded)).take(limit as usize);
        for row in rows {
            let Some((id, _)) = known.next() else { return Err(tampered(&row.epoch_id)) };
            self.holds(master, id, Some(row))?;
        }
        known.next().map_or(Ok(()), |(id, _)| Err(tampered(id)))
    }
}

impl Core {
    /// The registered row of an epoch, or that there is none. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if the database shows anything else; those of the database.
    pub(crate) fn registered_epoch(
        &self,
        vault: &Vault,
        epoch_id: &[u8; 16],
    ) -> Result<Option<EpochRow>, ServiceError> {
        let read = || self.store.epoch(epoch_id);
        self.held(vault, read, |ledger, row| ledger.epochs.holds(&vault.master, epoch_id, row.as_ref()))
    }

    /// Registered epochs after this id, by id, at most so many. Blocks.
    ///
    /// # Errors
    /// As for [`Self::registered_epoch`]: none is missing, none is another one.
    pub(crate) fn registered_epochs(
        &self,
        vault: &Vault,
        after: Option<[u8; 16]>,
        limit: u32,
    ) -> Result<Vec<EpochRow>, ServiceError> {
        let read = || self.store.epochs(EpochPage { gateway_id: None, after, limit });
        let fits = |ledger: &Ledger, rows: &Vec<EpochRow>| {
            ledger.epochs.hold_all(&vault.master, (after, limit), rows)
        };
        self.held(vault, read, fits)
    }

    /// Every registered epoch. Blocks.
    ///
    /// # Errors
    /// As for [`Self::registered_epochs`].
    pub(crate) fn each_epoch(
        &self,
        vault: &Vault,
        mut take: impl FnMut(&EpochRow),
    ) -> Result<(), ServiceError> {
        let mut after = None;
        loop {
            let rows = self.registered_epochs(vault, after, PAGE)?;
            rows.iter().for_each(&mut take);
            match rows.last() {
                Some(last) if rows.len() == PAGE as usize => after = Some(last.epoch_id),
                _ => return Ok(()),
            }
        }
    }

    /// What the database shows, if it fits what the ledger knows. A change may come between reading and looking: then it is
    /// read again while none can.
    fn held<T>(
        &self,
        vault: &Vault,
        read: impl Fn() -> Result<T, ServiceError>,
        fits: impl Fn(&Ledger, &T) -> Result<(), ServiceError>,
    ) -> Result<T, ServiceError> {
        let value = read()?;
        if fits(&vault.ledger(), &value).is_ok() {
            return Ok(value);
        }
        let mut ledger = vault.ledger();
        ledger.catch_up(&*self.store)?;
        let value = read()?;
        fits(&ledger, &value)?;
        Ok(value)
    }
}
