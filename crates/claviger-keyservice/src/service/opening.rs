//! From a master to a service that releases: every row is checked, and written down that it was.

use std::sync::{Arc, MutexGuard, PoisonError};

use claviger_audit::SigningKey;
use claviger_keyapi::Id16;

use super::{Core, TlsState, policy_is_missing};
use crate::ServiceError;
use crate::audit_log::{OwnLines, SealKey};
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::custody::Master;
use crate::custody::unlock::Unwrapped;
use crate::custody::unlock::change::settle;
use crate::files::read_owned;
use crate::ledger::{Ledger, Mark, Opened, Rows, Turn, Witness, completing, is_settled};
use crate::log_key::{LogKey, log_id_of, log_key_record};
use crate::policy::{Policy, PolicyRow};
use crate::service::tls::replace_locked_tls;
use crate::store::{Kind, Role};
use crate::vault::{CA_ROW, OwnLog, Vault};

/// What an unlock opened, before anyone can use it.
struct Unlocked<'a> {
    turn: Turn<'a>,
    tls: TlsState,
    log_key: SigningKey,
}

impl Core {
    /// Unlocks with a master that was unwrapped, if it was, and unless the service was locked since `locks` were counted.
    pub(super) fn finish_unlock(
        &self,
        unwrapped: Result<Unwrapped, ServiceError>,
        locks: u64,
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        if self.store.role() == Role::Standby {
            return self.finish_standby(unwrapped, locks, info);
        }
        self.open_with(unwrapped, locks, info.record("unlock", Outcome::Done), info)
    }

    /// The same for the one that works with the rows; the record says why it opens.
    pub(super) fn open_with(
        &self,
        unwrapped: Result<Unwrapped, ServiceError>,
        locks: u64,
        mut record: Record,
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        let changes = self.changes();
        if self.vault().is_ok() {
            return Ok(());
        }
        let still =
            || if self.unlocking.locks() == locks { Ok(()) } else { Err(ServiceError::LockedMeanwhile) };
        let opened = still().and(unwrapped).and_then(|unwrapped| self.open_vault(&unwrapped, info, changes));
        if opened.is_err() {
            self.audit.stop_sealing();
        }
        match &opened {
            Ok(opened) => record.set_state(&opened.turn.mark()),
            Err(error) => record = record.refused_call(&error.outward()),
        }
        // Written before anyone can use what was opened.
        self.audit.append_blocking(vec![record.to_bytes()])?;
        self.outside.tried(&opened);
        let Unlocked { turn, tls, log_key } = opened?;
        self.remember_state(&turn.mark());
        self.audit.copy_checkpoints_to(&self.config.checkpoint_file);
        self.audit.sign_with(log_key)?;
        self.unlocking.collector.wipe();
        self.tls.store(Arc::new(tls));
        self.begins_to_serve(&turn.vault.master);
        *self.vault.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&turn.vault));
        tracing::info!("unlocked");
        Ok(())
    }

    fn open_vault<'a>(
        &'a self,
        unwrapped: &Unwrapped,
        info: &RequestInfo,
        changes: MutexGuard<'a, ()>,
    ) -> Result<Unlocked<'a>, ServiceError> {
        let master = Master::new(&unwrapped.secret);
        let log = LogKey::open_or_make(&master, &*self.store, self.log_id(), &*self.random)?;
        let (opened, accepted) = self.open_ledger(&master, &log, info)?;
        let (ledger, is_before) = match opened {
            Opened::Ledger(ledger) => (ledger, false),
            Opened::Before(ledger) => (ledger, true),
        };
        unwrapped.verify(ledger.rows(), &*self.store)?;
        // A change of method that was cut short: what does not count goes.
        if let Err(error) = settle(&*self.store) {
            tracing::error!(%error, "a wrap that does not count is removed at the next unlock");
        }
        let binding_ttl_ms = u64::from(self.config.limits.binding_ttl_s) * 1000;
        let vault = Vault::open(master, ledger, &*self.store, &*self.clock, binding_ttl_ms)?;
        if vault.ca() != &self.ca {
            // The file was edited between the start of this process and now: whoever connects is checked against the wrong CA.
            return Err(ServiceError::Tampered { kind: "service", id: CA_ROW.to_owned() });
        }
        vault.keeps(OwnLog { log_id: log.log_id, sealed_from: log.sealed_from });
        let turn = Turn { vault: Arc::new(vault), watchers: &self.watchers, _guard: changes };
        if is_before {
            let text = read_owned(self.config.policy.as_deref().ok_or_else(policy_is_missing)?)?;
            Policy::parse_text(&text)?;
            let policy = PolicyRow::first(text, info.now_ms).change(&turn.vault.master);
            self.take_over(&turn, vec![policy], info)?;
        }
        let policy = PolicyRow::of(turn.vault.ledger().rows())?.ok_or(ServiceError::Damaged("policy"))?;
        let policy = Policy::parse_text(&policy.text)?;
        self.count_budgets(&turn.vault, policy.budgets())?;
        self.policy.store(Arc::new(policy));
        self.name_log(&turn, &log, info)?;
        if !accepted.is_empty() {
            // What others remember of the history that was given up is behind them now.
            let known = self.largest_number_known(&turn.vault.master)?;
            self.begin_anew(&turn, known, &accepted)?;
        }
        self.register_witness_key(&turn, info)?;
        let tls = self.unlocked_tls(&turn.vault.authority, info.now_ms)?;
        replace_locked_tls(&self.config, &turn.vault.authority, info.now_ms, &*self.random)?;
        Ok(Unlocked { turn, tls, log_key: log.key })
    }

    /// The ledger, once it is certain that this is the log to go on with: its checkpoint is signed, the service wrote what lies
    /// behind it, somebody outside bears it out, and other replicas the rows, or operators accept it; then with the records of that.
    /// Nothing is written before all of it is known, and everything from here on is sealed.
    fn open_ledger(
        &self,
        master: &Master,
        log: &LogKey,
        info: &RequestInfo,
    ) -> Result<(Opened, Vec<Record>), ServiceError> {
        self.audit.check_found(log.verifier())?;
        let seal_key = log.seal_key(master);
        // Of a log from before there were seals what lies there is taken as it is, once.
        self.audit.check_tail(log.sealed_from, &seal_key)?;
        let folder = self.config.audit_folder();
        let witness = Witness {
            newest: self.log_state.lock().unwrap_or_else(PoisonError::into_inner).newest.clone(),
            folder: &folder,
            log: log.unstored.is_none().then_some(log.log_id),
            is_first: log.is_first,
            complete: &|mark, rows, is_anew| self.complete(mark, rows, is_anew, info),
        };
        let open = || {
            let opened = Ledger::open(master, &*self.store, &witness)?;
            // What was needed, and read, before there was a ledger.
            log.check_newest(opened.rows(), self.log_id())?;
            Ok::<_, ServiceError>(opened)
        };
        // Where nothing is pending, as nearly always, it only reads.
        let opened = if is_settled(&*self.store)? { Some(open()?) } else { None };
        let mut accepted = match &opened {
            Some(opened) => self.check_doubts(master, opened.rows(), log, info)?,
            // Once more below.
            None => {
                let rows = Rows::read(master, &*self.store, &Kind::LEDGER)?;
                self.check_doubts(master, &rows, log, info)?
            }
        };
        self.audit.seal_with(seal_key)?;
        let opened = match opened {
            Some(opened) => opened,
            None => {
                let opened = open()?;
                // What was pending may be about those who accepted, and only now it is known which rows count.
                accepted = self.check_doubts(master, opened.rows(), log, info)?;
                opened
            }
        };
        Ok((opened, accepted))
    }

    /// All that speaks against going on with this log and with these rows: whoever accepts it has been told all of it, and each has a
    /// record of its own.
    fn check_doubts(
        &self,
        master: &Master,
        rows: &Rows,
        log: &LogKey,
        info: &RequestInfo,
    ) -> Result<Vec<Record>, ServiceError> {
        let outside = self.check_outside(rows, log, info);
        let present = self.check_present(master, rows, info);
        match (outside, present) {
            (Err(first), Err(second)) => Err(both(first, second)),
            (outside, present) => Ok(outside?.into_iter().chain(present?).collect()),
        }
    }

    /// A log from before logs had keys gets one, and one from before there were seals says from where on there are.
    fn name_log(&self, turn: &Turn<'_>, log: &LogKey, info: &RequestInfo) -> Result<(), ServiceError> {
        if log.sealed_from.is_some() {
            return Ok(());
        }
        let action = if log.unstored.is_some() { "log-key" } else { "log-sealed" };
        let record = log_key_record(info.record(action, Outcome::Done), log.verifier());
        let sealed_from = self.audit.records();
        self.commit(turn, vec![log.sealed(&turn.vault.master, sealed_from)], &[record])?;
        turn.vault.keeps(OwnLog { log_id: log.log_id, sealed_from: Some(sealed_from) });
        Ok(())
    }

    /// This replica's log as it is now, as far as something may be concluded from it. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Damaged`] before it is known which one it is; [`ServiceError::Audit`] if the log has failed.
    pub(crate) fn own_lines(&self, vault: &Vault) -> Result<OwnLines, ServiceError> {
        let OwnLog { log_id, sealed_from } = vault.own_log().ok_or(ServiceError::Damaged("log key"))?;
        let key = SealKey::new(vault.master.lines_secret(&log_id.0));
        self.audit.own_lines(key, sealed_from)
    }

    /// Which log this is, as far as its folder says so.
    pub(crate) fn log_id(&self) -> Option<Id16> {
        log_id_of(&self.audit.origin()?)
    }

    /// Writes down a change that another replica left unfinished.
    fn complete(
        &self,
        mark: &Mark,
        rows: Vec<String>,
        is_anew: bool,
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        for record in completing(info, rows, mark, is_anew) {
            self.audit.append_blocking(vec![record.to_bytes()])?;
        }
        self.remember_state(mark);
        Ok(())
    }
}

/// Two doubts as one, if operators can accept both; else the first.
pub(super) fn both(first: ServiceError, second: ServiceError) -> ServiceError {
    match (first, second) {
        (ServiceError::Unvouched { problem, remedy }, ServiceError::Unvouched { problem: other, .. }) => {
            ServiceError::Unvouched { problem: format!("{problem}; besides, {other}"), remedy }
        }
        (first, _) => first,
    }
}
