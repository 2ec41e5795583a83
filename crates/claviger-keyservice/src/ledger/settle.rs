//! What a crash left between decision and database.

use super::pending::{PENDING_ROW, PendingRow};
use super::{Ledger, Mark, STATE_ROW, StateRow, Witness, not_behind, with_state};
use crate::ServiceError;
use crate::custody::Master;
use crate::store::{Change, Kind, Store};
use crate::vault::{read_row, row};

/// The state row, its MAC checked.
pub(super) fn stored_state(master: &Master, store: &dyn Store) -> Result<Option<StateRow>, ServiceError> {
    let rows = store.rows(Kind::State)?;
    let stored = rows.iter().find(|row| row.id == STATE_ROW);
    stored.map(|row| read_row::<StateRow>(master, Kind::State, row)).transpose()
}

/// The change that was decided and not made, its MAC checked.
pub(super) fn stored_pending(master: &Master, store: &dyn Store) -> Result<Option<PendingRow>, ServiceError> {
    let rows = store.rows(Kind::Pending)?;
    let found = rows.iter().find(|row| row.id == PENDING_ROW);
    found.map(|row| read_row::<PendingRow>(master, Kind::Pending, row)).transpose()
}

/// Whether the database holds no change that was cut short.
///
/// # Errors
/// Those of the database.
pub(crate) fn is_settled(store: &dyn Store) -> Result<bool, ServiceError> {
    Ok(store.rows(Kind::Pending)?.is_empty())
}

/// What the database holds once nothing is pending any more.
pub(super) struct Settled {
    pub(super) stored: Option<StateRow>,
    /// The newest state that this replica's log tells of, or that it saw.
    pub(super) newest: Option<Mark>,
}

/// Makes or drops the pending change.
///
/// One of this log's own is made if the log tells of it, else it is dropped: nobody was told that it was done. Of one that another
/// replica left it can't be known here whether that one wrote it down and acknowledged it before it died. To drop it could
/// undo a revocation that somebody relies on. To make it does no more than somebody with the right to it asked for: the row
/// is there only after everything was checked, and its MAC says so. One that the other had taken back, of which the number of the
/// attempt tells, was put back by somebody else, and is dropped.
pub(super) fn settle_pending(
    master: &Master,
    store: &dyn Store,
    witness: &Witness<'_>,
) -> Result<Settled, ServiceError> {
    let (stored, newest) = (stored_state(master, store)?, witness.newest.clone());
    let Some(pending) = stored_pending(master, store)? else { return Ok(Settled { stored, newest }) };
    let follows = pending.follows(stored.as_ref().map_or(0, |stored| stored.seq));
    let is_open = pending.is_open(stored.as_ref());
    let mark = pending.mark.clone();
    let is_written = newest.as_ref() == Some(&mark);
    match (follows, witness.is_mine(pending.log)) {
        (true, true) if is_written => {
            let stored = Some(apply(master, store, pending, witness)?);
            Ok(Settled { stored, newest })
        }
        (true, false) if is_open => {
            let stored = Some(complete(master, store, pending, stored.as_ref(), witness)?);
            Ok(Settled { stored, newest: Some(mark) })
        }
        (true, true) if is_open => {
            // Whoever kept its row and puts it back is to have no use of it.
            let stored = stored.map(|stored| stored.dropped(pending.attempt()));
            let gone = || vec![Change::Delete(Kind::Pending, PENDING_ROW.to_owned())];
            let changes = stored.as_ref().map_or_else(gone, |stored| with_state(master, Vec::new(), stored));
            store.apply(&changes)?;
            Ok(Settled { stored, newest })
        }
        _ => {
            store.apply(&[Change::Delete(Kind::Pending, PENDING_ROW.to_owned())])?;
            Ok(Settled { stored, newest })
        }
    }
}

/// Another replica's change becomes one of this log.
fn complete(
    master: &Master,
    store: &dyn Store,
    pending: PendingRow,
    stored: Option<&StateRow>,
    witness: &Witness<'_>,
) -> Result<StateRow, ServiceError> {
    if let (Some(stored), Some(newest)) = (stored, &witness.newest)
        && *newest != pending.mark
    {
        // An old database with an old pending change in it.
        not_behind(&stored.mark(), newest)?;
    }
    let ledger = Ledger::read(master, store)?;
    let mut mine = pending;
    mine.log = witness.log;
    // First: should this replica die after it wrote the change down, only its own log may decide.
    store.apply(&[Change::Put(Kind::Pending, row(master, Kind::Pending, PENDING_ROW, &mine))])?;
    // Also if this replica has heard of that state already: its log has to tell of the rows.
    let rows = ledger.after(master, &mine.peek()?).1;
    (witness.complete)(&mine.mark, rows, mine.is_anew())?;
    apply(master, store, mine, witness)
}

fn apply(
    master: &Master,
    store: &dyn Store,
    pending: PendingRow,
    witness: &Witness<'_>,
) -> Result<StateRow, ServiceError> {
    let state = StateRow::new(&pending.mark, witness.log, pending.attempt());
    store.apply(&with_state(master, pending.changes()?, &state))?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::path::Path;

    use claviger_keyapi::Id16;

    use super::super::{Opened, found, stored_mark};
    use super::*;
    use crate::audit_record::{Outcome, RequestInfo};
    use crate::store::Row;
    use crate::store::sqlite::SqliteStore;

    const ME: Id16 = Id16([1; 16]);
    const OTHER: Id16 = Id16([7; 16]);

    fn binding(master: &Master, id: &str) -> Change {
        let mac = master.row_mac(Kind::Binding.name(), id, b"{}").to_vec();
        Change::Put(Kind::Binding, Row { id: id.into(), body: b"{}".to_vec(), mac })
    }

    /// A database at state 1, with a change to state 2 that another replica left, and the marks of both.
    fn left_unfinished(master: &Master, folder: &Path) -> (SqliteStore, Mark, Mark) {
        let store = SqliteStore::open(&folder.join("db")).unwrap();
        let info = RequestInfo { request_id: "0".into(), identity: None, now_ms: 0 };
        let mut record = info.record("init", Outcome::Done);
        store.apply(&found(master, vec![binding(master, "a")], &mut record)).unwrap();
        let first = stored_mark(master, &store).unwrap().unwrap();
        let changes = [binding(master, "b")];
        let sum = Ledger::read(master, &store).unwrap().after(master, &changes).0;
        let second = Mark { seq: 2, state: sum.digest(master, 2) };
        let pending = PendingRow::new(second.clone(), Some(OTHER), 1, &changes);
        store
            .apply(&[Change::Put(Kind::Pending, row(master, Kind::Pending, PENDING_ROW, &pending))])
            .unwrap();
        (store, first, second)
    }

    /// Opens the ledger as the replica that takes over; gives the newest state, and what it wrote down.
    fn open(
        master: &Master,
        store: &SqliteStore,
        newest: &Mark,
        can_write: bool,
    ) -> (Result<u64, ServiceError>, Vec<Mark>) {
        let written = RefCell::new(Vec::new());
        let complete = |mark: &Mark, rows: Vec<String>, _| {
            assert_eq!(rows.len(), 1);
            written.borrow_mut().push(mark.clone());
            if can_write { Ok(()) } else { Err(ServiceError::Audit("disk".into())) }
        };
        let witness = Witness {
            newest: Some(newest.clone()),
            folder: Path::new("/nonexistent"),
            log: Some(ME),
            is_first: true,
            complete: &complete,
        };
        let opened = Ledger::open(master, store, &witness).map(|opened| match opened {
            Opened::Ledger(ledger) => ledger.mark().seq,
            Opened::Before(_) => 0,
        });
        (opened, written.into_inner())
    }

    #[test]
    fn what_another_replica_left_is_written_down_and_made() {
        let (folder, master) = (tempfile::tempdir().unwrap(), Master::new(&[1; 32]));
        let (store, first, second) = left_unfinished(&master, folder.path());
        let (opened, written) = open(&master, &store, &first, true);
        assert_eq!((opened.unwrap(), written), (2, vec![second.clone()]));
        assert!(store.rows(Kind::Pending).unwrap().is_empty());
        assert_eq!(store.rows(Kind::Binding).unwrap().len(), 2);
        // From now on this log has to end there.
        let (opened, _) = open(&master, &store, &first, true);
        assert!(matches!(opened, Err(ServiceError::OlderLog { database: 2, log: 1 })));
        assert_eq!(open(&master, &store, &second, true).0.unwrap(), 2);
    }

    #[test]
    fn what_another_replica_took_back_is_completed_by_nobody_who_finds_it_put_back() {
        let (folder, master) = (tempfile::tempdir().unwrap(), Master::new(&[1; 32]));
        let (store, first, _) = left_unfinished(&master, folder.path());
        let state = StateRow::new(&first, None, 1);
        let pending = store.rows(Kind::Pending).unwrap();
        store.apply(&with_state(&master, Vec::new(), &state)).unwrap();
        assert!(store.rows(Kind::Pending).unwrap().is_empty());
        store.apply(&[Change::Put(Kind::Pending, pending[0].clone())]).unwrap();
        let (opened, written) = open(&master, &store, &first, true);
        assert_eq!((opened.unwrap(), written.len()), (1, 0));
        assert!(store.rows(Kind::Pending).unwrap().is_empty());
        assert_eq!(store.rows(Kind::Binding).unwrap().len(), 1);
        // The next attempt is another one.
        assert_eq!(stored_state(&master, &store).unwrap().unwrap().attempt, 1);
    }

    #[test]
    fn what_this_replica_did_not_write_down_is_completed_by_nobody_who_finds_it_put_back() {
        let (folder, master) = (tempfile::tempdir().unwrap(), Master::new(&[1; 32]));
        let (store, first, _) = left_unfinished(&master, folder.path());
        let mut mine = stored_pending(&master, &store).unwrap().unwrap();
        mine.log = Some(ME);
        let put = |pending: &PendingRow| {
            let row = row(&master, Kind::Pending, PENDING_ROW, pending);
            store.apply(&[Change::Put(Kind::Pending, row)]).unwrap();
        };
        put(&mine);
        // It died before it wrote that down.
        assert_eq!(open(&master, &store, &first, true).0.unwrap(), 1);
        let stored = stored_state(&master, &store).unwrap().unwrap();
        assert_eq!((stored.mark(), stored.attempt, stored.dropped), (first.clone(), 1, true));
        // Another replica finds the row of before.
        mine.log = Some(OTHER);
        put(&mine);
        let (opened, written) = open(&master, &store, &first, true);
        assert_eq!((opened.unwrap(), written), (1, Vec::new()));
        assert_eq!(store.rows(Kind::Binding).unwrap().len(), 1);
    }

    #[test]
    fn what_a_replica_of_the_release_before_left_is_completed() {
        let (folder, master) = (tempfile::tempdir().unwrap(), Master::new(&[1; 32]));
        let (store, first, second) = left_unfinished(&master, folder.path());
        // It did not number its attempts.
        let pending = stored_pending(&master, &store).unwrap().unwrap();
        let unnumbered = PendingRow::new(second.clone(), Some(OTHER), 0, &pending.peek().unwrap());
        store
            .apply(&[Change::Put(Kind::Pending, row(&master, Kind::Pending, PENDING_ROW, &unnumbered))])
            .unwrap();
        let (opened, written) = open(&master, &store, &first, true);
        assert_eq!((opened.unwrap(), written), (2, vec![second]));
        assert_eq!(store.rows(Kind::Binding).unwrap().len(), 2);
    }

    #[test]
    fn a_replica_that_dies_while_it_completes_decides_by_its_own_log() {
        for (is_written, state) in [(false, 1), (true, 2)] {
            let (folder, master) = (tempfile::tempdir().unwrap(), Master::new(&[1; 32]));
            let (store, first, second) = left_unfinished(&master, folder.path());
            assert!(matches!(open(&master, &store, &first, false).0, Err(ServiceError::Audit(_))));
            let newest = if is_written { &second } else { &first };
            // The state is still the one that another log wrote, before this one's name was there.
            let (opened, written) = open(&master, &store, newest, true);
            assert_eq!((opened.unwrap(), written.len()), (state, 0), "written: {is_written}");
        }
    }

    #[test]
    fn a_database_behind_what_was_seen_is_refused_and_left_as_it_is() {
        let (folder, master) = (tempfile::tempdir().unwrap(), Master::new(&[1; 32]));
        let (store, first, _) = left_unfinished(&master, folder.path());
        let later = Mark { seq: 5, state: "00".repeat(32) };
        let (opened, written) = open(&master, &store, &later, true);
        assert!(matches!(opened, Err(ServiceError::OlderDatabase { database: 1, log: 5 })), "{opened:?}");
        let other = Mark { seq: 1, ..later };
        assert!(matches!(open(&master, &store, &other, true).0, Err(ServiceError::Tampered { .. })));
        assert!(written.is_empty());
        assert_eq!(stored_mark(&master, &store).unwrap(), Some(first));
        assert_eq!(store.rows(Kind::Pending).unwrap().len(), 1);
    }
}
