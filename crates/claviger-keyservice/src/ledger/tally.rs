//! Rows that come one after the other, as a backup reads them, held against the state that is in force. A database can show one thing
//! to the service and another to a snapshot; a backup of that would be refused on the day when it is needed.

use super::sum::Sum;
use super::{Mark, STATE_ROW, StateRow, epoch_row_id};
use crate::ServiceError;
use crate::custody::Master;
use crate::registry;
use crate::store::Kind;
use crate::store::snapshot::Item;
use crate::vault::read_row;

/// What was read so far.
#[derive(Default)]
pub(crate) struct Tally {
    sum: Sum,
    state: Option<Mark>,
}

impl Tally {
    /// Counts a row in, if it is of those that authorise.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] for one that the service did not write.
    pub(crate) fn take(&mut self, master: &Master, item: &Item) -> Result<(), ServiceError> {
        match item {
            Item::Row { kind, row } => match Kind::from_name(kind) {
                Some(Kind::State) if row.id == STATE_ROW => {
                    self.state = Some(read_row::<StateRow>(master, Kind::State, row)?.mark());
                }
                Some(kind) if Kind::LEDGER.contains(&kind) => {
                    if !master.row_is_ours(kind.name(), &row.id, &row.body, &row.mac) {
                        return Err(ServiceError::Tampered { kind: kind.name(), id: row.id.clone() });
                    }
                    self.sum.add(master, kind, &row.id, &row.mac);
                }
                _ => {}
            },
            Item::Epoch(row) => {
                let id = epoch_row_id(&row.epoch_id);
                if !registry::is_ours(master, row) {
                    return Err(ServiceError::Tampered { kind: Kind::Epoch.name(), id });
                }
                self.sum.add(master, Kind::Epoch, &id, &row.mac);
            }
            Item::Meta { .. } | Item::Finished { .. } => {}
        }
        Ok(())
    }

    /// Whether these were all rows of this state, and no others.
    pub(crate) fn is_of(&self, master: &Master, mark: &Mark) -> bool {
        self.state.as_ref() == Some(mark) && self.sum.digest(master, mark.seq) == mark.state
    }
}
