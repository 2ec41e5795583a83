//! The turn of a change: written down, then made.

use std::sync::{Arc, MutexGuard};

use super::pending::{PENDING_ROW, PendingRow};
use super::{Ledger, Mark, StateRow, Turn, with_state};
use crate::ServiceError;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::service::Core;
use crate::store::{Change, Kind};
use crate::vault::{IdentityRow, Vault, row};

/// Most rows that one record names; a longer change has several records.
const ROWS_PER_RECORD_MAX: usize = 400;
/// Records between two states in the log, at most about.
const STATE_EVERY_RECORDS: u64 = 10_000;

impl Ledger {
    /// The pending row of a change that nobody wrote down has to go before anything else is written. With it the state row says that this
    /// attempt is over: a copy of the pending row that somebody puts back is not completed.
    fn drop_pending(&mut self, vault: &Vault) {
        let state = StateRow::new(&self.mark, self.state_log, self.attempt).dropped(self.attempt);
        self.unapplied = Some(with_state(&vault.master, Vec::new(), &state));
        vault.set_leftover(true);
        vault.set_refused(true);
    }
}

impl Core {
    /// Makes a change of rows that authorise, in the order that stands above, and writes down `records` with it. Blocks.
    /// What it returns with `Ok` is durable; whoever called then brings memory up to date, before he gives up the turn. If it takes
    /// something away from somebody, a signed checkpoint covers it by then: it can't be cut off the log's end any more.
    ///
    /// # Errors
    /// [`ServiceError::Store`]: nothing was changed, or with several replicas perhaps by one that takes over before this one reaches the
    /// database again. [`ServiceError::Audit`]: nothing was changed if the log's disk is full; if the log has failed, what the next start finds in the log decides,
    /// and until then nothing is released or changed.
    pub(crate) fn commit(
        &self,
        turn: &Turn<'_>,
        changes: Vec<Change>,
        records: &[Record],
    ) -> Result<(), ServiceError> {
        self.commit_from(turn, 0, changes, records)
    }

    /// Begins to count anew above every number that a history which was given up can have reached: from the time, in milliseconds
    /// since 1970, or above every number that this replica knows of, `known`, if a clock was ahead. Nobody makes a thousand changes a second
    /// for years. So whoever remembers a state of that history can go on with this one without being told, and with no other.
    ///
    /// # Errors
    /// Those of [`Self::commit`].
    pub(crate) fn begin_anew(
        &self,
        turn: &Turn<'_>,
        known: u64,
        records: &[Record],
    ) -> Result<(), ServiceError> {
        let seq_min = self.clock.now_ms().max(known.saturating_add(1));
        self.commit_from(turn, seq_min, Vec::new(), records)
    }

    /// The state that a change leads to has at least this number.
    fn commit_from(
        &self,
        turn: &Turn<'_>,
        seq_min: u64,
        changes: Vec<Change>,
        records: &[Record],
    ) -> Result<(), ServiceError> {
        let master = &turn.vault.master;
        let is_urgent = seq_min > 0 || changes.iter().any(takes_away);
        self.bring_up_to_date(&turn.vault)?;
        let mut ledger = turn.vault.ledger();
        ledger.epochs.check(&changes)?;
        let (sum, rows) = ledger.after(master, &changes);
        let seq = seq_min.max(ledger.mark.seq + 1);
        let mark = Mark { seq, state: sum.digest(master, seq) };
        ledger.attempt += 1;
        let pending = PendingRow::new(mark.clone(), ledger.log, ledger.attempt, &changes);
        let pending = row(master, Kind::Pending, PENDING_ROW, &pending.after(ledger.mark.seq));
        if let Err(error) = self.noted(self.store.apply(&[Change::Put(Kind::Pending, pending)])) {
            // It may be there all the same.
            ledger.drop_pending(&turn.vault);
            return Err(error);
        }
        let records = records_of(records, rows, &mark);
        if let Err(error) = self.audit.append_blocking(records.iter().map(Record::to_bytes).collect()) {
            return Err(self.take_back(&turn.vault, ledger, error));
        }
        // From here on it counts, whatever happens to the database.
        self.remember_state(&mark);
        ledger.accept(mark.clone(), sum, &changes);
        let state = StateRow::new(&mark, ledger.log, ledger.attempt);
        ledger.unapplied = Some(with_state(master, changes, &state));
        drop(ledger);
        turn.vault.set_behind(true);
        turn.vault.set_refused(false);
        if let Err(error) = self.bring_up_to_date(&turn.vault) {
            tracing::error!(%error, "a change was written down; the database takes it later");
        }
        if is_urgent {
            self.must_cover();
        }
        Ok(())
    }

    /// A change that was not written down is not made later either, by nobody: its pending row goes, at once or before anything else is
    /// written. Returns what to tell. Where it can't be known whether it was written down, the log decides at the next start.
    fn take_back(
        &self,
        vault: &Vault,
        mut ledger: MutexGuard<'_, Ledger>,
        error: ServiceError,
    ) -> ServiceError {
        if self.audit.has_failed() {
            return error;
        }
        ledger.drop_pending(vault);
        drop(ledger);
        // Until that is done a replica that takes over may still complete it: then "nothing was done" would be untrue.
        self.bring_up_to_date(vault).err().unwrap_or(error)
    }

    /// Tries again, if there is need, to make the change that counts already. For whoever has the turn.
    pub(crate) fn bring_up_to_date(&self, vault: &Vault) -> Result<(), ServiceError> {
        if !vault.is_behind() && !vault.has_leftover() {
            return Ok(());
        }
        self.noted(vault.ledger().catch_up(&*self.store))?;
        vault.set_behind(false);
        vault.set_leftover(false);
        Ok(())
    }

    /// A change was refused for want of room, and whoever works at the database may have kept its pending row, and the state row of that
    /// time. Another state after this one makes both worthless to a replica that takes over.
    pub(crate) fn outdate_refused(&self, vault: &Arc<Vault>) -> Result<(), ServiceError> {
        // Of one's own changes the log decides.
        if !vault.was_refused() || vault.logs().len() < 2 {
            return Ok(());
        }
        let turn = self.change(vault)?;
        let record = self.local_info()?.record("dropped", Outcome::Done);
        self.commit(&turn, Vec::new(), &[record])
    }

    /// Rows of a release that had no ledger become one: each stands in the log from now on.
    pub(crate) fn take_over(
        &self,
        turn: &Turn<'_>,
        changes: Vec<Change>,
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        let rows = turn.vault.ledger().names();
        for chunk in rows.chunks(ROWS_PER_RECORD_MAX) {
            let mut record = info.record("rows", Outcome::Done);
            record.rows = chunk.to_vec();
            self.audit.append_blocking(vec![record.to_bytes()])?;
        }
        self.commit(turn, changes, &[info.record("take-over", Outcome::Done)])
    }

    /// Repeats the state if it lies far back in the log, so that the next start finds it near the end.
    pub(crate) fn repeat_state(&self) -> Result<(), ServiceError> {
        if self.audit.records().saturating_sub(self.state_written_at()) < STATE_EVERY_RECORDS {
            return Ok(());
        }
        let Ok(vault) = self.vault() else { return Ok(()) };
        let turn = self.change(&vault)?;
        let mark = turn.mark();
        let mut record = self.local_info()?.record("state", Outcome::Done);
        record.set_state(&mark);
        self.audit.append_blocking(vec![record.to_bytes()])?;
        self.remember_state(&mark);
        drop(turn);
        Ok(())
    }
}

/// Whether somebody could want this change forgotten. What only adds is not worth the wait for a checkpoint.
pub(super) fn takes_away(change: &Change) -> bool {
    match change {
        // Who is enrolled or renews his certificate loses nothing.
        Change::Put(Kind::Identity, row) => {
            serde_json::from_slice::<IdentityRow>(&row.body).map_or(true, |row| row.revoked_ms.is_some())
        }
        Change::Put(kind, _) => !matches!(kind, Kind::Binding | Kind::Token | Kind::Proposal),
        // That a name is closed no more.
        Change::Delete(Kind::Closing, _) => false,
        Change::Delete(..) => true,
        Change::PutEpoch(_) | Change::ReplaceEpoch { .. } => false,
    }
}

/// The records of a change that another replica left unfinished, also of one with which numbers begin anew.
pub(crate) fn completing(info: &RequestInfo, rows: Vec<String>, mark: &Mark, is_anew: bool) -> Vec<Record> {
    let action = if is_anew { "complete-anew" } else { "complete" };
    records_of(&[info.record(action, Outcome::Done)], rows, mark)
}

/// The records of a change, and between them as many as it takes to name all rows. The last one has the state.
fn records_of(given: &[Record], mut rows: Vec<String>, mark: &Mark) -> Vec<Record> {
    let Some((last, first)) = given.split_last() else { return Vec::new() };
    let mut records = first.to_vec();
    while rows.len() > ROWS_PER_RECORD_MAX {
        let more = rows.split_off(ROWS_PER_RECORD_MAX);
        let mut part = last.same_request("rows", Outcome::Done);
        part.rows = rows;
        records.push(part);
        rows = more;
    }
    let mut last = last.clone();
    last.rows = rows;
    last.set_state(mark);
    records.push(last);
    records
}
