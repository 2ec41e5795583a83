//! One of several replicas. One is active: it works with the database and releases keys. The others stand by, unlocked in advance
//! if they can be: they hold the master and nothing else, look at the state of the database every few seconds, and remember in
//! their own logs how far it was, under checkpoints that lie outside too (`checkpoint_file`) and that the others cosign. When the active one is gone one of them takes over: it loads the rows, holds them against
//! what it remembers, completes what the other one left unfinished, and begins to release.
//!
//! A replica that finds itself replaced drops every secret. Gateways are told nothing: nobody took anything away from them, and
//! the other replica serves them. Their streams end, and they ask there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::opening::both;
use super::{Core, TlsState};
use crate::ServiceError;
use crate::audit_log::{AS_A_STANDBY, SealKey};
use crate::audit_record::{Outcome, RequestInfo};
use crate::custody::Master;
use crate::custody::unlock::Unwrapped;
use crate::ledger::{Mark, Rows, not_behind, reached_mark};
use crate::log_key::{LogInfo, LogKey, registered};
use crate::store::{Kind, Role};
use crate::vault::load_authority;

/// Shortest time between two records of what a standby saw.
const WITNESS_EVERY_MS: u64 = 10_000;
/// Until a replica that took over and could not serve tries again.
const RETRY_AFTER_MS: u64 = 30_000;

/// What an unlocked standby holds.
pub(super) struct Standby {
    unwrapped: Unwrapped,
    /// Held for moments only: health asks too, and must not wait for a database.
    found: Mutex<Found>,
}

/// What it found when it looked.
#[derive(Default)]
struct Found {
    /// When it last wrote down what it saw, on the boot-time clock.
    written_boot_ms: Option<u64>,
    /// What it saw and did not write down yet.
    unwritten: Option<Mark>,
    /// It is certain that its log is the one to go on with, so that it writes and signs.
    signs: bool,
    /// Why it can't take over, and from when it tries again.
    problem: Option<String>,
    not_before_boot_ms: u64,
}

impl Found {
    /// What is to be written down now.
    fn due(&self, now_boot_ms: u64) -> Option<Mark> {
        let is_time =
            self.written_boot_ms.is_none_or(|at| now_boot_ms >= at.saturating_add(WITNESS_EVERY_MS));
        self.unwritten.clone().filter(|_| is_time)
    }
}

impl Standby {
    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    pub(super) fn standby(&self) -> MutexGuard<'_, Option<Arc<Standby>>> {
        self.standby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The master that an unlocked standby holds.
    pub(crate) fn standby_master(&self) -> Option<Master> {
        self.standby().as_ref().map(|standby| Master::new(&standby.unwrapped.secret))
    }

    /// Whether this is an unlocked standby.
    pub(crate) fn stands_by(&self) -> bool {
        self.standby().is_some()
    }

    /// Whether this is an unlocked standby, and what is wrong with it.
    pub(super) fn standby_state(&self) -> Option<Option<String>> {
        self.standby().as_ref().map(|standby| standby.found().problem.clone())
    }

    /// A standby that is locked forgets the master, and takes nothing over: it could not serve.
    pub(super) fn lock_standby(&self) {
        drop(self.standby().take());
        if self.store.role() == Role::Standby {
            self.store.stand_ready(false);
        }
    }

    /// Unlocks a standby: it keeps the master, once it is certain that it is the one.
    pub(super) fn finish_standby(
        &self,
        unwrapped: Result<Unwrapped, ServiceError>,
        locks: u64,
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        let _changes = self.changes();
        if self.standby().is_some() {
            return Ok(());
        }
        let checked = unwrapped.and_then(|unwrapped| {
            let master = Master::new(&unwrapped.secret);
            // No more than that the service wrote them: which rows count is known only to whoever works with them.
            let rows = Rows::read(&master, &*self.store, &[Kind::Service])?;
            unwrapped.verify(&rows, &*self.store)?;
            load_authority(&master, &rows, &*self.store)?;
            if self.unlocking.locks() == locks { Ok(unwrapped) } else { Err(ServiceError::LockedMeanwhile) }
        });
        let mut record = info.record("unlock", Outcome::Done);
        record.what = Some(AS_A_STANDBY.to_owned());
        if let Err(error) = &checked {
            record = record.refused_call(&error.outward());
        }
        self.audit.append_blocking(vec![record.to_bytes()])?;
        let unwrapped = checked?;
        self.unlocking.collector.wipe();
        // Nothing is in order that it did not look at.
        let problem = Some("it was unlocked a moment ago, and looks at the database now".to_owned());
        let found = Mutex::new(Found { problem, ..Found::default() });
        *self.standby() = Some(Arc::new(Standby { unwrapped, found }));
        tracing::info!("unlocked; another replica may serve: standing by");
        Ok(())
    }

    /// Follows what the store says of this replica's role. To be called every few seconds; blocks.
    ///
    /// # Errors
    /// What kept it from doing so; it is tried again.
    pub(crate) fn tend_role(&self) -> Result<(), ServiceError> {
        let is_open = self.vault.read().unwrap_or_else(PoisonError::into_inner).is_some();
        match (self.store.role(), is_open) {
            (Role::Standby | Role::Replaced, true) => self.step_down(),
            (Role::Standby, false) => self.stand_by(),
            (Role::Active, false) => self.activate(),
            (Role::Active, true) => {
                if self.check_serves().is_err() {
                    // Streams that look now end.
                    self.watchers.ring();
                }
                Ok(())
            }
            (Role::Replaced, false) => Ok(()),
        }
    }

    /// Drops every secret: another process works with the rows.
    fn step_down(&self) -> Result<(), ServiceError> {
        let Some(first) = self.wipe() else { return Ok(()) };
        self.unlocking.locked();
        self.outside.locked();
        self.watchers.ring();
        // What could not be written is another replica's concern now.
        self.writes.forget();
        let changes = self.changes();
        // An unlock may have been under way.
        let old = self.wipe().unwrap_or(first);
        let info = self.local_info()?;
        let config = self.locked_tls(Some(&old), info.now_ms).ok();
        self.tls.store(Arc::new(TlsState::for_ever(config)));
        let mut record = info.record("replaced", Outcome::Done);
        record.set_state(&old.mark());
        drop(old);
        tracing::error!("another process took the database over: every secret is dropped");
        let recorded = self.audit.append_blocking(vec![record.to_bytes()]);
        self.audit.stop_signing();
        drop(changes);
        recorded?;
        // As after a start; who is unlocked by people waits for them.
        if self.store.role() == Role::Standby { self.unlock_at_start() } else { Ok(()) }
    }

    /// One look of an unlocked standby at the database. It is ready for as long as nothing is wrong with what it sees.
    fn stand_by(&self) -> Result<(), ServiceError> {
        let info = self.local_info()?;
        let now_boot_ms = self.clock.boot_ms();
        let Some(standby) = self.standby().clone() else {
            self.store.stand_ready(false);
            return Ok(());
        };
        if now_boot_ms < standby.found().not_before_boot_ms {
            return Ok(());
        }
        let looked = self.look(&standby, &info, now_boot_ms);
        // It may have taken over while it looked.
        if self.store.role() == Role::Standby {
            self.store.stand_ready(looked.is_ok());
        }
        let problem = looked.err().map(|error| error.to_string());
        let mut found = standby.found();
        if let Some(problem) = problem.as_ref().filter(|problem| found.problem.as_ref() != Some(*problem)) {
            tracing::error!(problem, "this standby can't take over");
        }
        found.problem = problem;
        Ok(())
    }

    fn look(&self, standby: &Standby, info: &RequestInfo, now_boot_ms: u64) -> Result<(), ServiceError> {
        let master = Master::new(&standby.unwrapped.secret);
        let rows = Rows::read(&master, &*self.store, &[Kind::Service])?;
        standby.unwrapped.verify(&rows, &*self.store)?;
        let log = LogKey::open_or_make(&master, &*self.store, self.log_id(), &*self.random)?;
        let (is_first, since_ms, seal_key) = (log.is_first, log.since_ms, log.seal_key(&master));
        if !standby.found().signs {
            let signed = self.sign_as_a_standby(standby, &master, log, info);
            signed.map_err(|error| self.with_its_other_doubt(&master, error))?;
        }
        let signs = standby.found().signs;
        // First the words, then the rows: these may be newer, and nothing else.
        let known = self.newest_known();
        let exchanged = self.exchange_standing_by(&master);
        let seen = exchanged.and_then(|()| self.see(&master));
        let newest = self.newest_known();
        if known != newest {
            standby.found().unwritten = newest;
        }
        self.write_down_what_was_seen(standby, info, (now_boot_ms, signs), seal_key)?;
        seen?;
        let known_to_all_ms = since_ms.saturating_add(self.config.store.join_wait_ms());
        if !is_first && info.now_ms < known_to_all_ms {
            // Or they would take it for another service's.
            let text = "it joined a moment ago; gateways that hold no stream have yet to hear of its log";
            return Err(ServiceError::Question(text.to_owned()));
        }
        let logs = registered(&master, &Rows::read(&master, &*self.store, &[Kind::Log])?)?;
        self.check_certain(&master, &logs)
    }

    /// Sees to it that what was seen can't be taken for unseen again.
    fn write_down_what_was_seen(
        &self,
        standby: &Standby,
        info: &RequestInfo,
        (now_boot_ms, signs): (u64, bool),
        seal_key: SealKey,
    ) -> Result<(), ServiceError> {
        let Some(due) = standby.found().due(now_boot_ms).filter(|_| signs) else { return Ok(()) };
        let mut record = info.record("witness", Outcome::Done);
        record.set_state(&due);
        {
            // Whoever locks wipes the key of the seals under this lock, once the standby is gone.
            let _changes = self.changes();
            if self.standby().is_none() {
                return Ok(());
            }
            self.audit.seal_with(seal_key)?;
            self.audit.append_blocking(vec![record.to_bytes()])?;
            // What it saw counts only if it can't be cut off the log's end again.
            self.audit.write_checkpoint()?;
        }
        let mut found = standby.found();
        // What came meanwhile is written down the next time.
        if found.unwritten.as_ref() == Some(&due) {
            found.unwritten = None;
        }
        found.written_boot_ms = Some(now_boot_ms);
        Ok(())
    }

    /// Whoever accepts that nobody vouches for its log lets it take over, and so has to hear if it is not certain of the present either.
    fn with_its_other_doubt(&self, master: &Master, error: ServiceError) -> ServiceError {
        let logs = Rows::read(master, &*self.store, &[Kind::Log]).and_then(|rows| registered(master, &rows));
        match logs.and_then(|logs| self.check_certain(master, &logs)) {
            Ok(()) => error,
            Err(other) => both(error, other),
        }
    }

    /// Whether it may take over: it knows the present, or two operators say that this is it.
    fn check_certain(&self, master: &Master, logs: &[LogInfo]) -> Result<(), ServiceError> {
        let Some(word_ms) = self.config.store.word_ms() else { return Ok(()) };
        let Err(error) = self.bear_out(master, logs, word_ms) else { return Ok(()) };
        let rows = Rows::read(master, &*self.store, &[Kind::Identity, Kind::Policy])?;
        // Whose word counts is looked at again in the rows that it takes over.
        if self.is_accepted_by_two(&rows)? { Ok(()) } else { Err(error) }
    }

    /// A standby holds its log to what an unlock holds it to, before it adds to it or says anything of what it saw; then it signs, for
    /// as long as it stands by. Else what it wrote down could be cut off, down to its last checkpoint, and nobody would know.
    /// Where operators accept what contradicts it, it may take over, and signs nothing before: only then it is certain which rows
    /// count, and with them whose word.
    fn sign_as_a_standby(
        &self,
        standby: &Standby,
        master: &Master,
        log: LogKey,
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        if log.unstored.is_some() {
            return Err(ServiceError::NotRegistered);
        }
        // Every log has sealed lines since its replica served last. A row that says otherwise is an old one, or the log's next unlock
        // will tell from where on; until then it is not known which of its lines were forged.
        if log.sealed_from.is_none() {
            return Ok(());
        }
        self.audit.check_found(log.verifier())?;
        let seal_key = log.seal_key(master);
        self.audit.check_tail(log.sealed_from, &seal_key)?;
        let rows = Rows::read(master, &*self.store, &[Kind::Identity, Kind::Policy])?;
        if self.check_outside(&rows, &log, info)?.is_some() {
            return Ok(());
        }
        let _changes = self.changes();
        if self.standby().is_none() {
            return Ok(());
        }
        self.audit.seal_with(seal_key)?;
        self.audit.copy_checkpoints_to(&self.config.checkpoint_file);
        self.audit.sign_with(log.key)?;
        self.outside.borne_out();
        standby.found().signs = true;
        Ok(())
    }

    /// Remembers the state of the database. One that lies before one that was seen or heard of is not believed, unless a change that
    /// is to be completed leads from it to that one.
    fn see(&self, master: &Master) -> Result<(), ServiceError> {
        let reached = reached_mark(master, &*self.store)?.ok_or(ServiceError::Damaged("ledger"))?;
        let mut log = self.log_state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(newest) = log.newest.clone() else {
            log.newest = Some(reached.stored);
            return Ok(());
        };
        if reached.pending.as_ref() == Some(&newest) {
            return Ok(());
        }
        not_behind(&reached.stored, &newest)?;
        log.newest = Some(reached.stored);
        Ok(())
    }

    /// Remembers a state that another replica tells of, if it is newer than what this one knows; gives the newest.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if there are two of one number.
    pub(super) fn heard_of(&self, mark: &Mark) -> Result<Mark, ServiceError> {
        let mut log = self.log_state.lock().unwrap_or_else(PoisonError::into_inner);
        match &log.newest {
            Some(newest) if newest.seq > mark.seq => Ok(newest.clone()),
            Some(newest) => {
                not_behind(mark, newest)?;
                Ok(log.newest.insert(mark.clone()).clone())
            }
            None => Ok(log.newest.insert(mark.clone()).clone()),
        }
    }

    /// The newest state that this replica's log tells of, or that it saw or heard of since.
    pub(super) fn newest_known(&self) -> Option<Mark> {
        self.log_state.lock().unwrap_or_else(PoisonError::into_inner).newest.clone()
    }

    /// This replica works with the rows now: it loads them and serves.
    fn activate(&self) -> Result<(), ServiceError> {
        // Before the standby is taken: whoever locks meanwhile must find either of them.
        let locks = self.unlocking.locks();
        let is_time = |standby: &mut Arc<Standby>| standby.found().not_before_boot_ms <= self.clock.boot_ms();
        let Some(standby) = self.standby().take_if(is_time) else { return Ok(()) };
        let info = self.local_info()?;
        let record = info.record("activate", Outcome::Done);
        let opened = self.open_with(Ok(standby.unwrapped.copy()), locks, record, &info);
        if let Err(error) = &opened {
            // Perhaps only this one can't: another may.
            self.store.stand_ready(false);
            let mut found = standby.found();
            found.problem = Some(error.to_string());
            found.not_before_boot_ms = self.clock.boot_ms().saturating_add(RETRY_AFTER_MS);
            drop(found);
            let mut place = self.standby();
            if self.unlocking.locks() == locks {
                *place = Some(standby);
            }
        }
        opened
    }
}
