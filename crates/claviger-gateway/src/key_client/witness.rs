//! The gateway as a witness of the key service's audit log: it remembers the newest checkpoint that it saw, believes a newer one
//! only with the proof that it continues that one, and uses the service no more once it doesn't.
//!
//! The log is looked at before every session and every minute, and a look counts for three minutes (`sight`), and for the
//! connection that it came over: then nothing is asked before the next good one. A locked service is shown what is remembered: it
//! unlocks only if its log bears that out. A contradiction stops all calls at once, and stays until an
//! operator has removed what is remembered (`log_shelf`). A log that no known one has named, or names no more, stops them for as long as
//! it is what is shown.

mod logs;
mod service;
mod sight;
mod states;

use std::mem::{Discriminant, discriminant};
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_audit::memory::{Contradiction, Shown};
use claviger_audit::{Hash, LogMemory, VerifierKey};
use claviger_env::Clock;
use claviger_keyapi::routes::LogHead;
use claviger_keyapi::{KeyFuture, KeyService, KeyServiceError, LogView, UnavailableReason};

use super::log_shelf::{Kept, LogShelf, Remembered, log_id};
use crate::metrics::{KEY_SERVICE_CONTRADICTION, KEY_SERVICE_LOG_RECORDS, KEY_SERVICE_LOOKS};
use logs::Whose;
pub use sight::Sight;
use sight::{Looks, is_away};

/// How often the log is looked at when no session is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How soon after a look that failed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// A service that can't be asked is shown what is remembered at the first look of so many, since it may be locked: sessions are
/// asked for every two seconds then.
const VOUCH_EVERY: u32 = 15;
/// What is behind the other addresses of a service that can be asked, at the first of so many.
const VOUCH_ELSEWHERE_EVERY: u32 = 5;
/// How long that may take.
const VOUCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often something is asked anew because its connection is a new one.
const LINES_MAX: u32 = 4;

/// Nothing was asked.
pub(super) const UNSEEN: KeyServiceError =
    KeyServiceError::Unavailable { reason: UnavailableReason::Unseen, retry_after_ms: 2_000 };

/// A key service that is used as long as its audit log continues what is remembered of it.
pub struct Witness {
    inner: Arc<dyn KeyService>,
    shelf: LogShelf,
    clock: Arc<dyn Clock>,
    /// One look at a time: each asks from where the one before ended.
    turn: tokio::sync::Mutex<Turn>,
    /// Looks that have ended.
    ended: AtomicU64,
    looks: Looks,
    listener: OnceLock<Listener>,
    /// Why nothing is asked any more.
    stopped: ArcSwapOption<String>,
    /// Looks in a row at a service that could not be asked.
    vouched: AtomicU32,
    /// Key of the log that was shown last.
    last: ArcSwapOption<String>,
}

type Listener = Box<dyn Fn(&Sight) + Send + Sync>;

/// What one look leaves to the next.
#[derive(Default)]
struct Turn {
    failure: Option<KeyServiceError>,
    /// What kind of sight was told of last.
    sight: Option<Discriminant<Sight>>,
    unwritten: Option<Arc<Unwritten>>,
}

/// A contradiction that could not be written down.
struct Unwritten {
    memory: LogMemory,
    why: String,
    shown: LogHead,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Witness({:?})", self.shelf)
    }
}

impl Witness {
    /// Stands before `inner`, and remembers in `state_dir`. Reads nothing yet.
    #[must_use]
    pub fn new(inner: Arc<dyn KeyService>, state_dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            shelf: LogShelf::new(state_dir),
            clock,
            turn: tokio::sync::Mutex::default(),
            ended: AtomicU64::new(0),
            looks: Looks::default(),
            listener: OnceLock::new(),
            stopped: ArcSwapOption::empty(),
            vouched: AtomicU32::new(0),
            last: ArcSwapOption::empty(),
        }
    }

    /// From now on `listener` hears at once how each look has ended. Only the first one counts.
    pub fn tell(&self, listener: impl Fn(&Sight) + Send + Sync + 'static) {
        // There is one gateway to a witness.
        drop(self.listener.set(Box::new(listener)));
    }

    /// Looks at the log every minute, for ever, and calls `alarm` at every contradiction; to be spawned.
    pub async fn keep_looking(self: Arc<Self>, alarm: impl Fn() + Send) {
        let mut wait = LOOK_EVERY;
        for n in 0_u32.. {
            tokio::time::sleep(wait).await;
            let looked = self.look().await;
            wait = if looked.is_ok() { LOOK_EVERY } else { LOOK_AGAIN };
            if looked.is_ok() && n.is_multiple_of(VOUCH_ELSEWHERE_EVERY) {
                self.vouch_elsewhere_now().await;
            }
            if let Err(KeyServiceError::Distrusted { .. }) = looked {
                alarm();
            }
        }
    }

    /// Looks at the service's log and remembers what it shows.
    ///
    /// # Errors
    /// [`KeyServiceError::Distrusted`] if it contradicts what is remembered, now or before; [`KeyServiceError::Internal`] if it
    /// can't be remembered: then it is not believed either; others if the service can't be asked.
    pub async fn look(&self) -> Result<(), KeyServiceError> {
        let mut turn = self.turn.lock().await;
        self.look_in(&mut turn).await
    }

    /// The same for those who are many: whoever waited for a look shares its outcome.
    async fn look_together(&self) -> Result<(), KeyServiceError> {
        let ended = self.ended.load(Ordering::Acquire);
        let mut turn = self.turn.lock().await;
        if self.ended.load(Ordering::Acquire) == ended {
            return self.look_in(&mut turn).await;
        }
        turn.failure.clone().map_or(Ok(()), Err)
    }

    async fn look_in(&self, turn: &mut Turn) -> Result<(), KeyServiceError> {
        let asked_boot_ms = self.clock.boot_ms();
        let outcome = self.look_once(turn).await;
        turn.failure = outcome.clone().err();
        let sight = self.looks.ended(asked_boot_ms, self.clock.boot_ms(), &outcome);
        self.ended.fetch_add(1, Ordering::AcqRel);
        ::metrics::counter!(KEY_SERVICE_LOOKS, "outcome" => outcome_name(&outcome)).increment(1);
        let is_news = turn.sight.replace(discriminant(&sight)) != Some(discriminant(&sight));
        match &sight {
            Sight::Hidden(why) if is_news => {
                tracing::warn!(why, "the key service does not show its audit log");
            }
            Sight::Over(why) if is_news => {
                tracing::error!(why, "nothing that the key service gave meanwhile is used");
            }
            _ => {}
        }
        if let Some(tell) = self.listener.get() {
            tell(&sight);
        }
        outcome
    }

    async fn look_once(&self, turn: &mut Turn) -> Result<(), KeyServiceError> {
        let remembered = self.on_disk(|shelf| shelf.read()).await?;
        let logs = match remembered {
            Remembered::Stopped(text) => return Err(self.stop(text)),
            Remembered::Nothing => Vec::new(),
            Remembered::Logs(logs) => logs,
        };
        if let Some(unwritten) = turn.unwritten.clone() {
            if logs.iter().any(|log| log.memory.key() == unwritten.memory.key()) {
                // No operator has removed that log: its contradiction stands, and is perhaps written down this time.
                return Err(self.write_down(turn, unwritten).await);
            }
            turn.unwritten = None;
        }
        let LogView { head: shown, line } = match self.ask(&logs).await {
            Err(error) if is_away(&error) => {
                self.vouch(&logs).await;
                return Err(error);
            }
            asked => asked?,
        };
        self.vouched.store(0, Ordering::Relaxed);
        let (memory, is_removed) = match logs::whose(&logs, &shown) {
            // Whoever forgot all logs forgets the state as well.
            Whose::First => (None, false),
            Whose::Known(kept) => (Some(kept.memory), kept.is_removed),
            Whose::Strangers(key) => return Err(self.stop(self.shelf.strange(key.as_ref(), &shown.key))),
        };
        match judge(memory.clone(), &shown) {
            // What it shows is not remembered either: nobody says that it is the service's.
            Ok((same, _)) if is_removed => Err(self.stop(self.shelf.removed(same.key()))),
            Ok((newer, is_newer)) => {
                self.believe_state(logs.is_empty(), &shown).await?;
                if is_newer {
                    ::metrics::gauge!(KEY_SERVICE_LOG_RECORDS).set(newer.size() as f64);
                    self.on_disk(move |shelf| shelf.keep(&newer)).await?;
                }
                self.keep_others(&logs, &shown).await?;
                self.inner.keep_to(line);
                self.go_on();
                Ok(())
            }
            Err(contradiction) => {
                Err(self.contradicted(turn, memory, contradiction.to_string(), shown).await)
            }
        }
    }

    /// A locked service needs somebody who remembers its log: it is shown what is remembered, now and then. It knows which of
    /// its logs it keeps. Of several addresses, one that is locked is hidden behind another one that can't be reached.
    async fn vouch(&self, logs: &[Kept]) {
        if !self.vouched.fetch_add(1, Ordering::Relaxed).is_multiple_of(VOUCH_EVERY) {
            return;
        }
        for newest in logs.iter().filter_map(|log| log.memory.newest()) {
            let note = newest.note().to_string();
            let shown = tokio::time::timeout(VOUCH_TIMEOUT, self.inner.show_checkpoint(&note)).await;
            if let Ok(Err(error)) = shown {
                tracing::warn!(%error, "the key service does not take what is remembered of its audit log");
            }
        }
    }

    /// The same for who is locked beside one that serves.
    async fn vouch_elsewhere_now(&self) {
        let Ok(Remembered::Logs(logs)) = self.on_disk(|shelf| shelf.read()).await else { return };
        for newest in logs.iter().filter_map(|log| log.memory.newest()) {
            let note = newest.note().to_string();
            let shown = tokio::time::timeout(VOUCH_TIMEOUT, self.inner.vouch_elsewhere(&note)).await;
            if let Ok(Err(error)) = shown {
                tracing::debug!(%error, "nobody was vouched for at the key service's other addresses");
            }
        }
    }

    /// What the service shows. Which of its logs it will be is known only from the answer, and the proof has to be from what is
    /// remembered of that one.
    async fn ask(&self, logs: &[Kept]) -> Result<LogView, KeyServiceError> {
        let last = self.last.load();
        let is_last = |log: &&Kept| last.as_deref() == Some(&log.memory.key().to_string());
        let guess = logs.iter().find(is_last).or(logs.first());
        let mut from = guess.map_or(0, |log| log.memory.size());
        // Once more if it is another one than the last; and again if another replica takes over in between.
        for _ in 0..3 {
            let shown = self.inner.log_head(from).await?;
            let known = logs.iter().find(|log| log.memory.key().to_string() == shown.head.key);
            self.last.store(Some(Arc::new(shown.head.key.clone())));
            match known {
                Some(log) if log.memory.size() != from => from = log.memory.size(),
                _ => return Ok(shown),
            }
        }
        Err(KeyServiceError::Unavailable { reason: UnavailableReason::Busy, retry_after_ms: 1_000 })
    }

    async fn contradicted(
        &self,
        turn: &mut Turn,
        memory: Option<LogMemory>,
        why: String,
        shown: LogHead,
    ) -> KeyServiceError {
        match memory {
            Some(memory) => self.write_down(turn, Arc::new(Unwritten { memory, why, shown })).await,
            // It never showed a log that could be believed.
            None => self.stop(why),
        }
    }

    /// A restart must not forget it. Where that fails it holds for this process, and is tried again at the next look.
    async fn write_down(&self, turn: &mut Turn, contradiction: Arc<Unwritten>) -> KeyServiceError {
        // First, since whoever waits here may go away.
        turn.unwritten = Some(Arc::clone(&contradiction));
        let stopped = self.stop(self.shelf.told(contradiction.memory.key(), &contradiction.why));
        let keep = move |shelf: &LogShelf| {
            shelf.keep_contradiction(contradiction.memory.key(), &contradiction.why, &contradiction.shown)
        };
        match self.on_disk(keep).await {
            Ok(text) => {
                turn.unwritten = None;
                self.stop(text)
            }
            Err(_) => stopped,
        }
    }

    fn stop(&self, text: String) -> KeyServiceError {
        if self.stopped.load().as_deref() != Some(&text) {
            tracing::error!(%text, "the key service is not used any more");
            ::metrics::gauge!(KEY_SERVICE_CONTRADICTION).set(1.0);
            self.stopped.store(Some(Arc::new(text.clone())));
        }
        KeyServiceError::Distrusted { text }
    }

    fn go_on(&self) {
        ::metrics::gauge!(KEY_SERVICE_CONTRADICTION).set(0.0);
        if self.stopped.swap(None).is_some() {
            tracing::warn!(
                "the key service shows an audit log that continues what is remembered: it is asked again"
            );
        }
    }

    fn check(&self) -> Result<(), KeyServiceError> {
        let stopped = self.stopped.load();
        let text = stopped.as_ref().map(|text| text.to_string());
        text.map_or(Ok(()), |text| Err(KeyServiceError::Distrusted { text }))
    }

    /// Asks by `call`, unless nothing is to be asked; after a look, if the last good one counts no more or came over another
    /// connection.
    async fn asked<'a, T>(&self, call: impl Fn() -> KeyFuture<'a, T>) -> Result<T, KeyServiceError> {
        self.check()?;
        if !self.looks.count(self.clock.boot_ms()) {
            self.look_together().await.map_err(|error| unseen_unless_told(&error))?;
        }
        for _ in 0..LINES_MAX {
            let after_a_failure = self.looks.have_failed();
            let outcome = call().await;
            if outcome.as_ref().err() != Some(&UNSEEN) {
                if after_a_failure {
                    self.looks.heard(&outcome);
                }
                return outcome;
            }
            // Nothing was sent yet.
            self.look_together().await.map_err(|error| unseen_unless_told(&error))?;
        }
        Err(UNSEEN)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LogShelf) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, KeyServiceError> {
        let shelf = self.shelf.clone();
        let done = tokio::task::spawn_blocking(move || work(&shelf)).await;
        let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        done.map_err(|error| {
            let folder = &self.shelf;
            tracing::error!(%error, ?folder, "what the key service's audit log shows can't be remembered");
            KeyServiceError::Internal
        })
    }
}

/// Why something is not asked after a look that failed: callers go on without the service, for as long as they can, unless it is
/// for them to know better.
fn unseen_unless_told(error: &KeyServiceError) -> KeyServiceError {
    match error {
        KeyServiceError::Distrusted { .. } | KeyServiceError::Unauthenticated { .. } => error.clone(),
        error if is_away(error) => error.clone(),
        _ => UNSEEN,
    }
}

fn outcome_name(outcome: &Result<(), KeyServiceError>) -> &'static str {
    match outcome {
        Ok(()) => "ok",
        Err(KeyServiceError::Distrusted { .. }) => "contradiction",
        Err(error) if is_away(error) => "away",
        Err(_) => "failed",
    }
}

/// What is remembered after this was shown, and whether that is more than before.
fn judge(memory: Option<LogMemory>, shown: &LogHead) -> Result<(LogMemory, bool), Contradiction> {
    use claviger_audit::checkpoint::CheckpointError;
    let key = shown.key.parse::<VerifierKey>().map_err(CheckpointError::from)?;
    if log_id(key.name()).is_none() {
        return Err(CheckpointError::Origin.into());
    }
    let proof: Option<Vec<Hash>> = shown.proof.iter().map(|hash| Hash::from_base64(hash)).collect();
    let mut memory = memory.unwrap_or_else(|| LogMemory::new(key.clone()));
    // What is no proof proves nothing.
    let proof = proof.unwrap_or_default();
    let is_newer =
        memory.believe(&Shown { key: &key, checkpoint: shown.checkpoint.as_bytes(), proof: &proof })?;
    Ok((memory, is_newer))
}

#[cfg(test)]
mod tests;
