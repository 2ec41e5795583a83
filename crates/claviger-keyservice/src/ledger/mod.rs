//! The ledger: what the database must hold, no more, no less and nothing older.
//!
//! A row's MAC says that this service wrote it, not that it is the newest. So all rows that authorise, and all registered
//! epochs, are one set with a number (`seq`) and a digest (`state`), and every record of the audit log that tells of a change
//! carries both. At unlock the rows, the database's own state row and the newest state in the log must agree; an older row, a
//! deleted row or an older database keep the service locked.
//!
//! A change goes in this order:
//!
//! 1. the *pending* row, with all that is needed to make the change, is durable in the database;
//! 2. the audit records, with the new state, are durable;
//! 3. one transaction makes the change, sets the state row and deletes the pending one;
//! 4. memory follows.
//!
//! With several replicas, state and pending row name the log in which they are written down. A pending change of another replica
//! is completed, in the log of the one that completes it (`settle`), unless that one had taken it back: attempts have numbers, and the
//! state row names the newest that is done with.
//!
//! Step 2 decides. After a crash a pending change whose state stands in the log is made, any other is dropped. So nothing
//! counts that was not written down, and nothing that was acknowledged is lost.

mod commit;
mod epochs;
pub(crate) mod log;
mod pending;
mod rows;
mod settle;
mod sum;
mod tally;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::audit_record::Record;
use crate::custody::Master;
use crate::store::{Change, Kind, Store};
use crate::vault::{Vault, row};
use crate::watch::Watchers;
use claviger_keyapi::Id16;
pub(crate) use commit::completing;
use epochs::Epochs;
use log::{last_words, row_text};
use pending::PENDING_ROW;
pub(crate) use rows::Rows;
use settle::Settled;
pub(crate) use settle::is_settled;
use sum::Sum;
pub(crate) use tally::Tally;

const STATE_ROW: &str = "ledger";
const EPOCHS_PER_PAGE: u32 = 10_000;

/// A state of the ledger, as database and log name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    /// Counts changes, from 1.
    pub(crate) seq: u64,
    /// Digest of all rows, 64 hex digits.
    pub(crate) state: String,
}

/// The row with the newest state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateRow {
    seq: u64,
    state: String,
    /// The log in which that state was written down; none from releases that had one log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Id16>,
    /// Number of the newest attempt at a change of which it is known what became of it.
    #[serde(default)]
    attempt: u64,
    /// Attempts that were to follow this state came to nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dropped: bool,
}

impl StateRow {
    fn new(mark: &Mark, log: Option<Id16>, attempt: u64) -> Self {
        Self { seq: mark.seq, state: mark.state.clone(), log, attempt, dropped: false }
    }

    /// The same once it is known that all attempts up to this one came to nothing.
    fn dropped(self, attempt: u64) -> Self {
        Self { attempt: self.attempt.max(attempt), dropped: true, ..self }
    }

    fn mark(&self) -> Mark {
        Mark { seq: self.seq, state: self.state.clone() }
    }
}

/// Takes a state and the rows that changed with it, as records name them, and whether the numbers begin anew with it.
pub(crate) type Complete<'a> = dyn Fn(&Mark, Vec<String>, bool) -> Result<(), ServiceError> + 'a;

/// What a replica's own log says, and which one it is.
pub(crate) struct Witness<'a> {
    /// The newest state that it tells of, or that was seen since.
    pub(crate) newest: Option<Mark>,
    pub(crate) folder: &'a Path,
    /// Its id; none if it has no key yet.
    pub(crate) log: Option<Id16>,
    /// It is the one that the service began with.
    pub(crate) is_first: bool,
    /// Writes down a change that another replica left unfinished.
    pub(crate) complete: &'a Complete<'a>,
}

impl Witness<'_> {
    /// Whether this log is the one that a row names.
    fn is_mine(&self, log: Option<Id16>) -> bool {
        log.map_or(self.is_first, |log| self.log == Some(log))
    }
}

/// The rows that count. They were read once; everything in memory is built from these and not from another look at the database.
pub(crate) struct Ledger {
    mark: Mark,
    /// The log in which changes are written down.
    log: Option<Id16>,
    /// The one in which this state was.
    state_log: Option<Id16>,
    /// Number of the newest attempt at a change.
    attempt: u64,
    /// Whether the database was opened with a state after which attempts came to nothing.
    dropped: bool,
    sum: Sum,
    rows: Rows,
    epochs: Epochs,
    /// A change that was written down and that the database did not take yet; or that the pending row of one that was not has to go.
    unapplied: Option<Vec<Change>>,
}

/// What the database holds when the service is unlocked.
pub(crate) enum Opened {
    /// A ledger, and it agrees with the log.
    Ledger(Ledger),
    /// Rows of a release that had no ledger.
    Before(Ledger),
}

impl Opened {
    /// The rows that it was opened with.
    pub(crate) fn rows(&self) -> &Rows {
        match self {
            Self::Ledger(ledger) | Self::Before(ledger) => &ledger.rows,
        }
    }
}

/// The turn of whoever changes rows: there is one at a time.
pub(crate) struct Turn<'a> {
    pub(crate) vault: Arc<Vault>,
    pub(crate) watchers: &'a Watchers,
    pub(crate) _guard: MutexGuard<'a, ()>,
}

impl Drop for Turn<'_> {
    /// Those who hold a stream look whether what was changed concerns them.
    fn drop(&mut self) {
        self.watchers.ring();
    }
}

impl Turn<'_> {
    /// The ledger's state.
    pub(crate) fn mark(&self) -> Mark {
        self.vault.mark()
    }
}

impl Ledger {
    /// Makes or drops what was pending, then checks every row's MAC, the state row and the log against each other.
    ///
    /// Of the replica that wrote the state row last, the log has to end at that state exactly. Another's log tells only of a state
    /// that the database must not be behind.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`], [`ServiceError::Stale`], [`ServiceError::OlderDatabase`], [`ServiceError::OlderLog`].
    pub(crate) fn open(
        master: &Master,
        store: &dyn Store,
        witness: &Witness<'_>,
    ) -> Result<Opened, ServiceError> {
        let Settled { stored, newest } = settle::settle_pending(master, store, witness)?;
        let mut ledger = Self::read(master, store)?;
        ledger.log = witness.log;
        let is_mine = stored.as_ref().is_none_or(|stored| witness.is_mine(stored.log));
        if let Some(stored) = &stored {
            (ledger.state_log, ledger.attempt, ledger.dropped) = (stored.log, stored.attempt, stored.dropped);
        }
        match (stored.map(|stored| stored.mark()), &newest) {
            (None, None) => return Ok(Opened::Before(ledger)),
            (Some(stored), Some(log)) => {
                agree(&stored, log, is_mine)?;
                ledger.mark = stored;
            }
            (None, Some(log)) => return Err(ServiceError::OlderDatabase { database: 0, log: log.seq }),
            (Some(stored), None) if is_mine => {
                return Err(ServiceError::OlderLog { database: stored.seq, log: 0 });
            }
            (Some(stored), None) => ledger.mark = stored,
        }
        if ledger.sum.digest(master, ledger.mark.seq) == ledger.mark.state {
            return Ok(Opened::Ledger(ledger));
        }
        if is_mine {
            return Err(ledger.culprit(store, witness.folder)?);
        }
        // The log that could name the row is another replica's.
        Err(ServiceError::Tampered { kind: Kind::State.name(), id: STATE_ROW.to_owned() })
    }

    /// Of no rows.
    fn empty() -> Self {
        Self {
            mark: Mark { seq: 0, state: String::new() },
            log: None,
            state_log: None,
            attempt: 0,
            dropped: false,
            sum: Sum::default(),
            rows: Rows::default(),
            epochs: Epochs::default(),
            unapplied: None,
        }
    }

    /// Every row as it lies there, its MAC checked; the epochs' are checked when they are read again, for their records.
    fn read(master: &Master, store: &dyn Store) -> Result<Self, ServiceError> {
        let mut ledger = Self::empty();
        let Self { sum, rows, .. } = &mut ledger;
        for kind in Kind::LEDGER {
            rows.read_kind(master, store, kind, |row| sum.add(master, kind, &row.id, &row.mac))?;
        }
        let mut after = None;
        loop {
            let page = store.epoch_marks(after, EPOCHS_PER_PAGE)?;
            for epoch in &page {
                ledger.sum.add(master, Kind::Epoch, &epoch_row_id(&epoch.epoch_id), &epoch.mac);
                ledger.epochs.put(epoch.epoch_id, &epoch.mac);
            }
            match page.last() {
                Some(last) if page.len() == EPOCHS_PER_PAGE as usize => after = Some(last.epoch_id),
                _ => return Ok(ledger),
            }
        }
    }

    /// The rows don't add up: looks in the log for one that is not as it was last written.
    fn culprit(&self, store: &dyn Store, log_folder: &Path) -> Result<ServiceError, ServiceError> {
        let unknown = ServiceError::Tampered { kind: Kind::State.name(), id: STATE_ROW.to_owned() };
        let mut words: Vec<_> = last_words(log_folder)?.into_iter().collect();
        words.sort();
        for (row, wanted) in words {
            let Some((kind, id)) = row.split_once('/') else { continue };
            let Some(kind) = Kind::from_name(kind) else { continue };
            let found = self.short_mac(store, kind, id)?;
            if found != wanted {
                return Ok(ServiceError::Stale { kind: kind.name(), id: id.to_owned() });
            }
        }
        Ok(unknown)
    }

    fn short_mac(&self, store: &dyn Store, kind: Kind, id: &str) -> Result<Option<String>, ServiceError> {
        let mac = if kind == Kind::Epoch {
            let id =
                claviger_keyapi::Id16::from_hex(id).ok_or(ServiceError::Damaged("record of an epoch"))?;
            store.epoch(&id.0)?.map(|row| row.mac)
        } else {
            self.rows.get(kind, id).map(|row| row.mac.clone())
        };
        Ok(mac.map(|mac| mac.iter().take(4).map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The state that records repeat.
    pub(crate) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Whether it was opened behind attempts that came to nothing: another state has to follow.
    pub(crate) fn was_refused(&self) -> bool {
        self.dropped
    }

    /// How many epochs are registered.
    pub(crate) fn epoch_count(&self) -> u64 {
        self.epochs.count()
    }

    /// The rows that count, all of them and nothing else.
    pub(crate) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Every row as records name it, ordered.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.rows.each().map(|(kind, row)| row_text(kind, &row.id, Some(&row.mac))).collect();
        names.sort();
        names
    }

    /// Tries again to bring the database up to date.
    fn catch_up(&mut self, store: &dyn Store) -> Result<(), ServiceError> {
        if let Some(changes) = &self.unapplied {
            store.apply(changes)?;
            self.unapplied = None;
        }
        Ok(())
    }

    /// The sum after these changes, and the rows as records name them.
    fn after(&self, master: &Master, changes: &[Change]) -> (Sum, Vec<String>) {
        let mut sum = self.sum;
        let mut seen: HashMap<(Kind, &str), Option<&[u8]>> = HashMap::new();
        let mut rows = Vec::new();
        for change in changes {
            let (kind, id, mac) = match change {
                Change::Put(kind, row) => (*kind, row.id.as_str(), Some(row.mac.as_slice())),
                Change::Delete(kind, id) => (*kind, id.as_str(), None),
                Change::ReplaceEpoch { row: epoch, old_mac } => {
                    let id = epoch_row_id(&epoch.epoch_id);
                    sum.remove(master, Kind::Epoch, &id, old_mac);
                    sum.add(master, Kind::Epoch, &id, &epoch.mac);
                    rows.push(row_text(Kind::Epoch, &id, Some(&epoch.mac)));
                    continue;
                }
                Change::PutEpoch(epoch) => {
                    let id = epoch_row_id(&epoch.epoch_id);
                    sum.add(master, Kind::Epoch, &id, &epoch.mac);
                    rows.push(row_text(Kind::Epoch, &id, Some(&epoch.mac)));
                    continue;
                }
            };
            let before = match seen.get(&(kind, id)) {
                Some(before) => *before,
                None => self.rows.get(kind, id).map(|row| row.mac.as_slice()),
            };
            if before.is_none() && mac.is_none() {
                continue;
            }
            before.iter().for_each(|old| sum.remove(master, kind, id, old));
            mac.iter().for_each(|new| sum.add(master, kind, id, new));
            seen.insert((kind, id), mac);
            rows.push(row_text(kind, id, mac));
        }
        (sum, rows)
    }

    /// Memory follows what was written down.
    fn accept(&mut self, mark: Mark, sum: Sum, changes: &[Change]) {
        self.mark = mark;
        self.state_log = self.log;
        self.sum = sum;
        for change in changes {
            match change {
                Change::Put(kind, row) => self.rows.put(*kind, row.clone()),
                Change::Delete(kind, id) => self.rows.remove(*kind, id),
                Change::PutEpoch(row) | Change::ReplaceEpoch { row, .. } => {
                    self.epochs.put(row.epoch_id, &row.mac);
                }
            }
        }
    }
}

/// Database and log name the same state; another replica may have brought the database further than this one's log knows.
fn agree(stored: &Mark, log: &Mark, is_mine: bool) -> Result<(), ServiceError> {
    match stored.seq.cmp(&log.seq) {
        std::cmp::Ordering::Less => Err(ServiceError::OlderDatabase { database: stored.seq, log: log.seq }),
        std::cmp::Ordering::Greater if is_mine => {
            Err(ServiceError::OlderLog { database: stored.seq, log: log.seq })
        }
        std::cmp::Ordering::Equal if stored.state != log.state => {
            Err(ServiceError::Tampered { kind: Kind::State.name(), id: STATE_ROW.to_owned() })
        }
        _ => Ok(()),
    }
}

/// The state that the database is in, as far as its row's MAC vouches for it; `None` before there was a ledger.
///
/// # Errors
/// [`ServiceError::Tampered`]; those of the database.
pub(crate) fn stored_mark(master: &Master, store: &dyn Store) -> Result<Option<Mark>, ServiceError> {
    Ok(settle::stored_state(master, store)?.map(|row| row.mark()))
}

/// Where a database stands.
pub(crate) struct Reached {
    pub(crate) stored: Mark,
    /// Where a change leads that is decided and follows from there.
    pub(crate) pending: Option<Mark>,
}

/// The state that the database is in, and the one to which it will be brought, as far as their rows' MACs vouch for them; `None` before
/// there was a ledger.
///
/// # Errors
/// [`ServiceError::Tampered`]; those of the database.
pub(crate) fn reached_mark(master: &Master, store: &dyn Store) -> Result<Option<Reached>, ServiceError> {
    // In this order: what is pending first may be made meanwhile.
    let pending = settle::stored_pending(master, store)?;
    let Some(stored) = settle::stored_state(master, store)? else { return Ok(None) };
    let pending = pending.filter(|pending| pending.follows(stored.seq) && pending.is_open(Some(&stored)));
    Ok(Some(Reached { stored: stored.mark(), pending: pending.map(|pending| pending.mark) }))
}

/// Whether the database is at a state that was seen before, or beyond it.
///
/// # Errors
/// [`ServiceError::OlderDatabase`], [`ServiceError::Tampered`].
pub(crate) fn not_behind(stored: &Mark, seen: &Mark) -> Result<(), ServiceError> {
    agree(stored, seen, false)
}

/// The transaction that makes a change, or takes back an attempt at one: with it goes the pending row, and the state row follows.
fn with_state(master: &Master, mut changes: Vec<Change>, state: &StateRow) -> Vec<Change> {
    changes.push(Change::Put(Kind::State, row(master, Kind::State, STATE_ROW, state)));
    changes.push(Change::Delete(Kind::Pending, PENDING_ROW.to_owned()));
    changes
}

fn epoch_row_id(epoch_id: &[u8; 16]) -> String {
    claviger_keyapi::Id16(*epoch_id).to_string()
}

/// The state of a database that is being made, and all of its changes. The first record carries the state.
pub(crate) fn found(master: &Master, changes: Vec<Change>, record: &mut Record) -> Vec<Change> {
    let (sum, rows) = Ledger::empty().after(master, &changes);
    let mark = Mark { seq: 1, state: sum.digest(master, 1) };
    record.rows = rows;
    record.set_state(&mark);
    with_state(master, changes, &StateRow::new(&mark, None, 0))
}

#[cfg(test)]
mod second_look;
#[cfg(test)]
pub(crate) mod tests;
