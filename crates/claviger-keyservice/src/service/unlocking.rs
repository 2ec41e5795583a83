//! From locked to unlocked: where the master comes from, and what happens while it does not come. The rest of opening is the
//! same for every method (`Core::open_vault`).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_keyapi::KeyServiceError;
use claviger_keyapi::admin::{UnlockShareRequest, UnlockState};

use super::Core;
use crate::ServiceError;
use crate::audit_record::{Outcome, RequestInfo};
use crate::config::Unlock;
use crate::custody::shamir::Share;
use crate::custody::unlock::collector::Collector;
use crate::custody::unlock::quorum::QuorumWrap;
use crate::custody::unlock::{Stored, Unwrapped, Wrap, hsm, passphrase};
use crate::service::Work;

/// How often an unlocked service looks whether its HSM is still there.
const LOOK_EVERY_MS: u64 = 60_000;

/// What the service knows about being unlocked.
#[derive(Default)]
pub(crate) struct Unlocking {
    pub(crate) collector: Collector,
    hsm: Mutex<HsmState>,
    /// One visit to the HSM by the service itself at a time: one may hang.
    visiting: AtomicBool,
    /// The wrap that was read last, as far as it may be told: health must not wait for a database.
    known: Mutex<Known>,
    /// Counts locks, so that an unlock that was under way then comes to nothing.
    locks: AtomicU64,
}

#[derive(Default, Clone)]
struct Known {
    method: &'static str,
    threshold: u8,
    count: u8,
    set: String,
}

#[derive(Default)]
struct HsmState {
    /// The service asks by itself: from a start until it was unlocked, locked by someone, or told something that will not pass.
    keeps_trying: bool,
    /// What was wrong with the HSM last time.
    problem: Option<String>,
    /// Why the service's own last attempt failed, whatever it was.
    failure: Option<String>,
    looked_boot_ms: u64,
}

impl Unlocking {
    fn hsm(&self) -> MutexGuard<'_, HsmState> {
        self.hsm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was wrong with the HSM when it was last asked.
    pub(crate) fn hsm_problem(&self) -> Option<String> {
        self.hsm().problem.clone()
    }

    /// Someone locked the service: nothing that was collected or is under way unlocks it again.
    pub(crate) fn locked(&self) {
        self.locks.fetch_add(1, Ordering::SeqCst);
        self.collector.wipe();
        self.hsm().keeps_trying = false;
    }

    /// To be compared before an unlock takes effect.
    pub(crate) fn locks(&self) -> u64 {
        self.locks.load(Ordering::SeqCst)
    }
}

impl Core {
    /// The wrap that counts.
    fn stored(&self) -> Result<Stored, ServiceError> {
        let stored = Stored::load(&*self.store)?;
        let (threshold, count, set) = match &stored.wrap {
            Wrap::Quorum(QuorumWrap { threshold, count, set, .. }) => (*threshold, *count, set.clone()),
            _ => (0, 0, String::new()),
        };
        *self.unlocking.known() = Known { method: stored.wrap.method(), threshold, count, set };
        Ok(stored)
    }

    /// Reads anew how the service is unlocked.
    pub(crate) fn read_unlock_method(&self) -> Result<(), ServiceError> {
        self.stored().map(drop)
    }

    /// What a start does by itself.
    pub(crate) fn unlock_at_start(&self) -> Result<(), ServiceError> {
        self.stored()?;
        match self.config.unlock {
            Unlock::PassphraseFile => self.unlock_by_file_itself(),
            Unlock::Pkcs11 => {
                self.unlocking.hsm().keeps_trying = true;
                self.unlock_by_hsm_itself();
                Ok(())
            }
            Unlock::Operator | Unlock::Quorum => Ok(()),
        }
    }

    /// With the passphrase's file, because the service wants to. If nobody vouches for the audit log it waits for that.
    pub(crate) fn unlock_by_file_itself(&self) -> Result<(), ServiceError> {
        let Some(path) = &self.config.passphrase_file else { return Ok(()) };
        let text = crate::files::read_secret(path)?;
        self.or_wait(self.unlock(&text, &self.local_info()?))
    }

    /// An attempt of the service's own that nobody vouched for is repeated when something else is shown.
    fn or_wait(&self, outcome: Result<(), ServiceError>) -> Result<(), ServiceError> {
        match outcome {
            Err(error @ ServiceError::Unvouched { .. }) => {
                tracing::error!(%error, "the service waits");
                self.wait_for_voucher();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// With the passphrase.
    pub(crate) fn unlock(&self, text: &str, info: &RequestInfo) -> Result<(), ServiceError> {
        let locks = self.unlocking.locks();
        let opened = self.stored().and_then(|stored| match &stored.wrap {
            Wrap::Passphrase { wrapped } => {
                let secret = passphrase::unwrap(&wrapped.0, text)?;
                Ok(stored.opened(secret))
            }
            other => Err(wrong_method(other, "a passphrase")),
        });
        self.finish_unlock(opened, locks, info)
    }

    /// Takes one share of an operator; with the last that is needed the service unlocks.
    pub(crate) fn unlock_by_share(
        &self,
        info: &RequestInfo,
        request: &UnlockShareRequest,
    ) -> Work<UnlockState> {
        if self.vault().is_ok() {
            return Work::silent(Ok(self.unlock_state()));
        }
        let mut record = info.record("unlock-share", Outcome::Done);
        let taken = self.take_share(request.share.expose(), &mut record.subject);
        match taken {
            Ok(None) => Work::new(Ok(self.unlock_state()), vec![record]),
            Err(error) => Work::new(Err(error), vec![record]).refused_if_failed(),
            Ok(Some((stored, shares))) => {
                let done = self
                    .audit
                    .append_blocking(vec![record.to_bytes()])
                    .and_then(|()| self.unlock_with_shares(stored, &shares, info))
                    .map(|()| self.unlock_state());
                // The unlock wrote its own record.
                Work::silent(done)
            }
        }
    }

    fn take_share(
        &self,
        text: &str,
        subject: &mut Option<String>,
    ) -> Result<Option<(Stored, Vec<Share>)>, ServiceError> {
        let stored = self.stored()?;
        let Wrap::Quorum(wrap) = &stored.wrap else { return Err(wrong_method(&stored.wrap, "shares")) };
        let share = Share::parse(text)?;
        *subject = Some(format!("share {} of {}, set {}", share.index, share.count, share.set_text()));
        let enough = self.unlocking.collector.add(wrap, share, self.clock.boot_ms())?;
        Ok(enough.map(|shares| (stored, shares)))
    }

    fn unlock_with_shares(
        &self,
        stored: Stored,
        shares: &[Share],
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        let locks = self.unlocking.locks();
        let secret = match &stored.wrap {
            Wrap::Quorum(wrap) => wrap.unwrap(shares),
            other => Err(wrong_method(other, "shares")),
        };
        self.finish_unlock(secret.map(|secret| stored.opened(secret)), locks, info)
    }

    /// With the HSM, because someone asks.
    pub(crate) fn unlock_by_hsm(&self, info: &RequestInfo) -> Result<(), ServiceError> {
        let locks = self.unlocking.locks();
        let opened = self.ask_hsm();
        self.unlocking.hsm().problem = problem_of(&opened);
        self.finish_unlock(opened, locks, info)
    }

    fn ask_hsm(&self) -> Result<Unwrapped, ServiceError> {
        let stored = self.stored()?;
        match (&stored.wrap, &self.config.pkcs11) {
            (Wrap::Pkcs11(wrap), Some(config)) => {
                let secret = hsm::unwrap(config, wrap)?;
                Ok(stored.opened(secret))
            }
            (Wrap::Pkcs11(_), None) => Err(wrong_method(&stored.wrap, "a configuration without [pkcs11]")),
            (other, _) => Err(wrong_method(other, "an HSM")),
        }
    }

    /// The same because the service wants to: the first failure is written down, and each that is different from the one before.
    pub(crate) fn unlock_by_hsm_itself(&self) {
        let Ok(info) = self.local_info() else { return };
        let locks = self.unlocking.locks();
        let opened = self.ask_hsm();
        let failure = opened.as_ref().err().map(ToString::to_string);
        let mut state = self.unlocking.hsm();
        state.problem = problem_of(&opened);
        state.keeps_trying &= match &opened {
            Err(ServiceError::Hsm { problem, .. }) => problem.may_pass(),
            Err(error) => matches!(error.outward(), KeyServiceError::Unavailable { .. }),
            Ok(_) => false,
        };
        let known = failure.is_some() && failure == state.failure;
        state.failure = failure;
        drop(state);
        if known {
            return;
        }
        if let Err(error) = self.or_wait(self.finish_unlock(opened, locks, &info)) {
            tracing::error!(%error, "the service stays locked");
        }
    }

    /// What has to be looked after now and then. May take as long as the HSM takes.
    pub(crate) fn tend_unlocking(&self) {
        // Wipes what has waited too long.
        self.unlocking.collector.progress(self.clock.boot_ms());
        let Some(_visit) = Visit::begin(&self.unlocking.visiting) else { return };
        if self.vault().is_err() {
            if self.unlocking.hsm().keeps_trying {
                self.unlock_by_hsm_itself();
            }
            self.unlock_if_vouched();
        } else if let (Unlock::Pkcs11, Some(config)) = (self.config.unlock, &self.config.pkcs11) {
            self.look_at_hsm(config);
        }
    }

    /// An unlocked service does not need its HSM, but its next start will.
    fn look_at_hsm(&self, config: &hsm::HsmConfig) {
        let now = self.clock.boot_ms();
        let mut state = self.unlocking.hsm();
        if now < state.looked_boot_ms.saturating_add(LOOK_EVERY_MS) {
            return;
        }
        state.looked_boot_ms = now;
        drop(state);
        let found = hsm::is_there(config);
        metrics::gauge!("claviger_keyservice_hsm_present").set(if found.is_ok() { 1.0 } else { 0.0 });
        let problem = problem_of(&found);
        if let Some(problem) = &problem {
            tracing::warn!(
                problem,
                "the HSM is not there; the service goes on until it is locked or stopped"
            );
        }
        self.unlocking.hsm().problem = problem;
    }

    /// How the service is unlocked, and how far that is.
    /// What does no harm now and will later.
    pub(crate) fn notes(&self) -> Vec<String> {
        let problem = self.unlocking.hsm_problem().filter(|_| self.vault().is_ok());
        let hsm = problem
            .map(|problem| format!("{problem}; until it is back, this service can't be unlocked again"));
        let copy = self.audit.copy_problem().map(|problem| {
            format!("{problem}; until checkpoint_file can be written, an unlock may be refused or show less than it could")
        });
        let counting = self.counts_still().then(|| {
            "budgets count only the newest part of the log so far; the rest is being read".to_owned()
        });
        let notes = hsm
            .into_iter()
            .chain(copy)
            .chain(counting)
            .chain(self.cosigning.notes())
            .chain(self.words.problem());
        notes.chain(self.doom_notes()).collect()
    }

    /// How it is unlocked, and how far that is.
    pub(crate) fn unlock_state(&self) -> UnlockState {
        let progress = self.unlocking.collector.progress(self.clock.boot_ms());
        let Known { method, threshold, count, set } = self.unlocking.known().clone();
        UnlockState {
            unlocked: self.vault().is_ok() || self.standby_state().is_some(),
            method: method.to_owned(),
            shares_here: progress.here,
            shares_needed: threshold,
            shares_made: count,
            set,
            wiped_in_ms: progress.wiped_in_ms,
            hsm_problem: self.unlocking.hsm_problem(),
        }
    }

    /// Why the service is locked and what to do, in one line.
    pub(crate) fn why_locked(&self) -> String {
        if let Some(problem) = self.outside.problem() {
            return format!("locked: {problem}");
        }
        let mut text = locked_text(&self.unlock_state());
        if self.is_unvouched() {
            text.push_str("; before that, someone has to show a checkpoint of its audit log: claviger keys unlock --checkpoint FILE");
        }
        text
    }
}

/// Held during a visit to the HSM.
struct Visit<'a>(&'a AtomicBool);

impl<'a> Visit<'a> {
    fn begin(visiting: &'a AtomicBool) -> Option<Self> {
        (!visiting.swap(true, Ordering::SeqCst)).then_some(Self(visiting))
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// What the HSM said, if it is to blame.
fn problem_of<T>(opened: &Result<T, ServiceError>) -> Option<String> {
    match opened {
        Err(error @ ServiceError::Hsm { .. }) => Some(error.to_string()),
        _ => None,
    }
}

fn locked_text(state: &UnlockState) -> String {
    match (state.method.as_str(), &state.hsm_problem) {
        ("quorum", _) => format!(
            "locked: {} of {} shares are here; each holder runs `claviger keys unlock --share FILE`",
            state.shares_here.len(),
            state.shares_needed
        ),
        ("pkcs11", Some(problem)) => format!("locked: {problem}"),
        ("pkcs11", None) => "locked: run `claviger keys unlock --hsm`".to_owned(),
        _ => "locked: run `claviger keys unlock --passphrase-file FILE`".to_owned(),
    }
}

fn wrong_method(wrap: &Wrap, asked: &'static str) -> ServiceError {
    let (actual, remedy) = match wrap {
        Wrap::Passphrase { .. } => ("a passphrase", "claviger keys unlock --passphrase-file FILE"),
        Wrap::Quorum(_) => ("shares", "claviger keys unlock --share FILE, once for each share"),
        Wrap::Pkcs11(_) => {
            ("an HSM", "unlock = \"pkcs11\" and [pkcs11] in its configuration; claviger keys unlock --hsm")
        }
    };
    ServiceError::UnlockMethod { actual, asked, remedy }
}
