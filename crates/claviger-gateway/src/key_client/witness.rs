//! The gateway as a witness of the key service's audit log: it remembers the newest checkpoint that it saw, believes a newer one
//! only with the proof that it continues that one, and uses the service no more once it doesn't.
//!
//! The log is looked at before every session and every minute. A locked service is shown what is remembered: it unlocks only if its
//! log bears that out. A contradiction stops all calls at once, and stays until an
//! operator has removed what is remembered (`log_shelf`).

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_audit::memory::{Contradiction, Shown};
use claviger_audit::{Hash, LogMemory, VerifierKey};
use claviger_format::EpochId;
use claviger_keyapi::routes::LogHead;
use claviger_keyapi::{
    Answered, Binding, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload, KeyFuture, KeyService,
    KeyServiceError, Lease, LeaseItem, ReleaseError, ServiceStatus, SessionInfo, UnavailableReason, Watch,
};
use futures_util::FutureExt as _;

use super::log_shelf::{LogShelf, Remembered, log_id};
use crate::metrics::{KEY_SERVICE_CONTRADICTION, KEY_SERVICE_LOG_RECORDS};

/// Most logs of one service.
const LOGS_MAX: usize = 16;
/// How often the log is looked at when no session is asked for.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A locked service is shown what is remembered at the first look of so many: sessions are asked for every two seconds then.
const VOUCH_EVERY: u32 = 15;

/// A key service that is used as long as its audit log continues what is remembered of it.
pub struct Witness {
    inner: Arc<dyn KeyService>,
    shelf: LogShelf,
    /// One look at a time: each asks from where the one before ended.
    turn: tokio::sync::Mutex<()>,
    /// Why nothing is asked any more.
    stopped: ArcSwapOption<String>,
    /// Looks at a locked service in a row.
    vouched: AtomicU32,
    /// Key of the log that was shown last.
    last: ArcSwapOption<String>,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Witness({:?})", self.shelf)
    }
}

impl Witness {
    /// Stands before `inner`, and remembers in `state_dir`. Reads nothing yet.
    #[must_use]
    pub fn new(inner: Arc<dyn KeyService>, state_dir: &Path) -> Self {
        let (turn, stopped) = (tokio::sync::Mutex::new(()), ArcSwapOption::empty());
        let last = ArcSwapOption::empty();
        let vouched = AtomicU32::new(0);
        Self { inner, shelf: LogShelf::new(state_dir), turn, stopped, vouched, last }
    }

    /// Looks at the log every minute, for ever, and calls `alarm` at every contradiction; to be spawned.
    pub async fn keep_looking(self: Arc<Self>, alarm: impl Fn() + Send) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if let Err(KeyServiceError::Distrusted { .. }) = self.look().await {
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
        let _turn = self.turn.lock().await;
        let remembered = self.on_disk(|shelf| shelf.read()).await?;
        let logs = match remembered {
            Remembered::Stopped(text) => return Err(self.stop(text)),
            Remembered::Nothing => Vec::new(),
            Remembered::Logs(logs) => logs,
        };
        self.go_on();
        let (memory, shown) = match self.ask(&logs).await {
            Err(KeyServiceError::Locked) => return self.vouch(&logs).await,
            asked => asked?,
        };
        self.vouched.store(0, Ordering::Relaxed);
        match judge(memory.clone(), &shown) {
            Ok((newer, is_newer)) => {
                if is_newer {
                    ::metrics::gauge!(KEY_SERVICE_LOG_RECORDS).set(newer.size() as f64);
                    self.on_disk(move |shelf| shelf.keep(&newer)).await?;
                }
                self.keep_others(&logs, &shown).await
            }
            Err(contradiction) => Err(self.contradicted(memory, contradiction.to_string(), shown).await),
        }
    }

    /// A locked service needs somebody who remembers its log: it is shown what is remembered, now and then. It knows which of
    /// its logs it keeps.
    async fn vouch(&self, logs: &[LogMemory]) -> Result<(), KeyServiceError> {
        if self.vouched.fetch_add(1, Ordering::Relaxed).is_multiple_of(VOUCH_EVERY) {
            for newest in logs.iter().filter_map(LogMemory::newest) {
                if let Err(error) = self.inner.show_checkpoint(&newest.note().to_string()).await {
                    tracing::warn!(%error, "the locked key service does not take what is remembered of its audit log");
                }
            }
        }
        Err(KeyServiceError::Locked)
    }

    /// What the service shows, and what is remembered of that log. Which of its logs it will be is known only from the answer, and
    /// the proof has to be from what is remembered of that one.
    async fn ask(&self, logs: &[LogMemory]) -> Result<(Option<LogMemory>, LogHead), KeyServiceError> {
        let last = self.last.load();
        let guess = logs.iter().find(|log| last.as_deref() == Some(&log.key().to_string())).or(logs.first());
        let mut from = guess.map_or(0, LogMemory::size);
        // Once more if it is another one than the last; and again if another replica takes over in between.
        for _ in 0..3 {
            let shown = self.inner.log_head(from).await?;
            let known = logs.iter().find(|log| log.key().to_string() == shown.key);
            self.last.store(Some(Arc::new(shown.key.clone())));
            match known {
                Some(log) if log.size() != from => from = log.size(),
                Some(log) => return Ok((Some(log.clone()), shown)),
                // The first that is ever seen is believed; any later one has to be known.
                None => return Ok((logs.first().cloned(), shown)),
            }
        }
        Err(KeyServiceError::Unavailable { reason: UnavailableReason::Busy, retry_after_ms: 1_000 })
    }

    /// Remembers the keys of logs that may show themselves later. What a log says that is believed is believed.
    async fn keep_others(&self, logs: &[LogMemory], shown: &LogHead) -> Result<(), KeyServiceError> {
        let is_new = |key: &VerifierKey| {
            log_id(key.name()).is_some()
                && key.to_string() != shown.key
                && logs.iter().all(|log| log.key().name() != key.name())
        };
        let keys = shown.logs.iter().take(LOGS_MAX).filter_map(|key| key.parse::<VerifierKey>().ok());
        for key in keys.filter(is_new) {
            tracing::info!(log = key.name(), "the key service has another replica");
            self.on_disk(move |shelf| shelf.keep(&LogMemory::new(key))).await?;
        }
        Ok(())
    }

    /// Written down first: a restart must not forget it. If that fails it holds for this process.
    async fn contradicted(&self, memory: Option<LogMemory>, why: String, shown: LogHead) -> KeyServiceError {
        let told = why.clone();
        let kept = match memory {
            Some(memory) => {
                let keep = move |shelf: &LogShelf| shelf.keep_contradiction(memory.key(), &why, &shown);
                self.on_disk(keep).await
            }
            // It never showed a log that could be believed.
            None => Ok(why),
        };
        self.stop(kept.unwrap_or(told))
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
                "what was remembered of the key service's audit log was removed: it is asked again"
            );
        }
    }

    fn check(&self) -> Result<(), KeyServiceError> {
        let stopped = self.stopped.load();
        let text = stopped.as_ref().map(|text| text.to_string());
        text.map_or(Ok(()), |text| Err(KeyServiceError::Distrusted { text }))
    }

    /// `call`, unless nothing is to be asked.
    fn if_trusted<'a, T: Send + 'a>(&'a self, call: impl FnOnce() -> KeyFuture<'a, T>) -> KeyFuture<'a, T> {
        match self.check() {
            Ok(()) => call(),
            Err(error) => async { Err(error) }.boxed(),
        }
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

impl KeyService for Witness {
    fn session(&self) -> Answered<'_, SessionInfo> {
        async {
            self.look().await?;
            self.inner.session().await
        }
        .boxed()
    }

    fn binding<'a>(&'a self, bucket: &'a str) -> Answered<'a, Option<Binding>> {
        self.if_trusted(|| self.inner.binding(bucket))
    }

    fn bindings(&self) -> Answered<'_, Vec<Binding>> {
        self.if_trusted(|| self.inner.bindings())
    }

    fn bind_bucket<'a>(&'a self, bucket: &'a str, keyset: Option<&'a str>) -> Answered<'a, Binding> {
        self.if_trusted(|| self.inner.bind_bucket(bucket, keyset))
    }

    fn unbind_bucket<'a>(&'a self, bucket: &'a str, bucket_id: &'a str) -> KeyFuture<'a, ()> {
        self.if_trusted(|| self.inner.unbind_bucket(bucket, bucket_id))
    }

    fn register_epoch<'a>(&'a self, record: &'a [u8]) -> KeyFuture<'a, ()> {
        self.if_trusted(|| self.inner.register_epoch(record))
    }

    fn epoch_record(&self, epoch_id: EpochId) -> KeyFuture<'_, Option<Vec<u8>>> {
        self.if_trusted(|| self.inner.epoch_record(epoch_id))
    }

    fn lease(&self, items: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, ReleaseError>>> {
        self.if_trusted(|| self.inner.lease(items))
    }

    fn derive(&self, items: Vec<DeriveItem>) -> Answered<'_, Vec<Result<Derived, ReleaseError>>> {
        self.if_trusted(|| self.inner.derive(items))
    }

    fn continue_upload(
        &self,
        items: Vec<ContinueItem>,
    ) -> Answered<'_, Vec<Result<Continued, ReleaseError>>> {
        self.if_trusted(|| self.inner.continue_upload(items))
    }

    fn finish_upload(&self, items: Vec<FinishedUpload>) -> KeyFuture<'_, Vec<Result<(), ReleaseError>>> {
        self.if_trusted(|| self.inner.finish_upload(items))
    }

    fn watch(&self) -> KeyFuture<'_, Watch> {
        self.if_trusted(|| self.inner.watch())
    }

    fn log_head(&self, from: u64) -> KeyFuture<'_, LogHead> {
        self.if_trusted(|| self.inner.log_head(from))
    }

    fn show_checkpoint<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        self.if_trusted(|| self.inner.show_checkpoint(checkpoint))
    }

    fn status(&self) -> KeyFuture<'_, ServiceStatus> {
        self.if_trusted(|| self.inner.status())
    }
}

#[cfg(test)]
mod tests;
