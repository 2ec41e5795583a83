//! Sums over parts of the registry. A row of an epoch that is replaced is counted out as it lies there; its MAC says that the service
//! wrote it, not that it is the newest. So the part of the registry that it belongs to is added up first and held against what it
//! was: whoever puts an older row back while the service runs does not get it into the sum.

use std::collections::{BTreeMap, BTreeSet};

use super::sum::Sum;
use crate::ServiceError;
use crate::custody::Master;
use crate::store::{Change, Kind, Store};

/// Parts; an epoch's id, which is drawn, begins with the number of its part.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 12;
const PAGE: u32 = 1_000;

/// One sum for each part.
pub(super) struct Parts(Vec<Sum>);

impl Default for Parts {
    fn default() -> Self {
        Self(vec![Sum::default(); PARTS])
    }
}

fn part_of(epoch_id: &[u8; 16]) -> usize {
    let [first, second, ..] = *epoch_id;
    usize::from(u16::from_be_bytes([first, second]) >> (16 - PART_BITS))
}

/// The id before the first of a part.
fn before(part: usize) -> Option<[u8; 16]> {
    let first = (part as u128) << (128 - PART_BITS);
    first.checked_sub(1).map(u128::to_be_bytes)
}

impl Parts {
    pub(super) fn of(&mut self, epoch_id: &[u8; 16]) -> &mut Sum {
        // Below PARTS by what it is made of.
        &mut self.0[part_of(epoch_id)]
    }

    /// Whether every row that these changes replace is the newest.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if not; those of the database.
    pub(super) fn check(
        &self,
        master: &Master,
        store: &dyn Store,
        changes: &[Change],
    ) -> Result<(), ServiceError> {
        let replaced: BTreeMap<[u8; 16], &[u8]> = changes
            .iter()
            .filter_map(|change| match change {
                Change::ReplaceEpoch { row, old_mac } => Some((row.epoch_id, old_mac.as_slice())),
                _ => None,
            })
            .collect();
        let parts: BTreeSet<usize> = replaced.keys().map(part_of).collect();
        let mut found = BTreeSet::new();
        for part in parts {
            let mut sum = Sum::default();
            each_mark(store, part, |id, mac| {
                sum.add(master, Kind::Epoch, &super::epoch_row_id(id), mac);
                if replaced.get(id) == Some(&mac) {
                    found.insert(*id);
                }
            })?;
            if sum != self.0[part] {
                let id = replaced.keys().find(|id| part_of(id) == part);
                let id = id.map(super::epoch_row_id).unwrap_or_default();
                return Err(ServiceError::Tampered { kind: Kind::Epoch.name(), id });
            }
        }
        // Another one was put there between two looks.
        match replaced.keys().find(|id| !found.contains(*id)) {
            Some(id) => Err(ServiceError::Tampered { kind: Kind::Epoch.name(), id: super::epoch_row_id(id) }),
            None => Ok(()),
        }
    }
}

fn each_mark(
    store: &dyn Store,
    part: usize,
    mut take: impl FnMut(&[u8; 16], &[u8]),
) -> Result<(), ServiceError> {
    let mut after = before(part);
    loop {
        let page = store.epoch_marks(after, PAGE)?;
        for mark in &page {
            if part_of(&mark.epoch_id) != part {
                return Ok(());
            }
            take(&mark.epoch_id, &mark.mac);
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.epoch_id),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_belongs_to_the_part_that_begins_before_it() {
        for (first, part) in [(0u16, 0), (0x000f, 0), (0x0010, 1), (0xffff, PARTS - 1)] {
            let mut id = [0x5a; 16];
            id[..2].copy_from_slice(&first.to_be_bytes());
            assert_eq!(part_of(&id), part);
            let before = before(part);
            assert!(before.is_none_or(|before| before < id && part_of(&before) == part - 1));
            assert_eq!(before.is_none(), part == 0);
        }
    }
}
