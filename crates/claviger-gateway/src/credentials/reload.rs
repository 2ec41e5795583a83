//! Taking up a changed file of access keys while requests run.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{CredentialStore, file};
pub(super) use crate::fingerprint::Fingerprint;
use crate::metrics;

const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// What a look at the file came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The file is the one already read.
    Unchanged,
    /// Its new content is in force.
    Applied,
    /// Its new content is wrong: the old keys stay in force.
    Refused,
}

impl CredentialStore {
    /// Reads the file again if it changed since the last look, or if `force`d.
    pub fn reload(&self, force: bool) -> Reload {
        let now = Fingerprint::of(&self.path);
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == now && !force {
                return Reload::Unchanged;
            }
            *seen = now;
        }
        match file::load(&self.path, &self.accounts) {
            Ok(identities) => {
                report_keys(identities.keys.len());
                tracing::info!(keys = identities.keys.len(), "access keys reloaded");
                self.identities.store(Arc::new(identities));
                metrics::credentials_reloaded(true);
                Reload::Applied
            }
            Err(error) => {
                tracing::error!(%error, "the new access keys are not used, the old ones stay in force");
                metrics::credentials_reloaded(false);
                Reload::Refused
            }
        }
    }

    /// Follows the file for ever: every two seconds, and at once on SIGHUP. Ends only by being dropped.
    ///
    /// # Errors
    /// When the signal handler can't be installed.
    pub async fn watch(self: Arc<Self>) -> std::io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let force = tokio::select! {
                _ = tick.tick() => false,
                _ = hangup.recv() => true,
            };
            let store = Arc::clone(&self);
            // A panic while parsing must not end the watching; the old keys stay in force.
            if let Err(error) = tokio::task::spawn_blocking(move || store.reload(force)).await {
                tracing::error!(%error, "reloading the access keys failed");
                metrics::credentials_reloaded(false);
            }
        }
    }
}

pub(super) fn report_keys(keys: usize) {
    metrics::credentials_in_force(keys);
}
