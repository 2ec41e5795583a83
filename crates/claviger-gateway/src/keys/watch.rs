//! Listens to what the key service says by itself, and acts on it.
//!
//! The stream makes things quick. Nothing hangs on it: without it the lifetimes of what is held bind, and health says so.

use std::sync::Arc;
use std::time::Duration;

use claviger_format::random::Random;
use claviger_keyapi::watch::WATCH_BEAT_S;
use claviger_keyapi::{Id16, KeyService, Watch, WatchEvent};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::holdings::Holdings;
use crate::admin::{Component, Warning};
use crate::bindings::Bindings;
use crate::metrics::{KEY_SERVICE_EVENTS, KEY_SERVICE_STREAM};

/// A stream that says nothing for so long is dead: two beats and a half.
const SILENCE: Duration = Duration::from_millis(WATCH_BEAT_S * 2_500);
/// Between two attempts at first …
const BACK_OFF: Duration = Duration::from_secs(1);
/// … and at last, each attempt that fails doubling it.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// What listens.
pub(crate) struct Watcher {
    keys: Arc<dyn KeyService>,
    holdings: Arc<Holdings>,
    bindings: Arc<Bindings>,
    random: Arc<dyn Random>,
    /// Ready once the service was heard, or can't be: what was obtained before it is first heard has to be asked for again.
    begun: Component,
    warning: Warning,
    /// Digest of what this gateway may do, as it heard last.
    state: Option<Id16>,
}

/// How a stream ended.
#[derive(Debug)]
struct Ended {
    /// Whether it ever said anything.
    was_heard: bool,
    why: String,
}

impl Watcher {
    pub(crate) fn new(
        keys: Arc<dyn KeyService>,
        holdings: Arc<Holdings>,
        bindings: Arc<Bindings>,
        random: Arc<dyn Random>,
        begun: Component,
        warning: Warning,
    ) -> Self {
        warning.raise("not held yet");
        Self { keys, holdings, bindings, random, begun, warning, state: None }
    }

    /// Listens for ever; to be spawned.
    pub(crate) async fn run(mut self) {
        let mut failures = 0;
        loop {
            let ended = match self.keys.watch().await {
                Ok(stream) => self.listen(stream).await,
                Err(error) => Ended { was_heard: false, why: error.to_string() },
            };
            self.not_held(&ended.why);
            failures = if ended.was_heard { 0 } else { failures + 1 };
            tokio::time::sleep(self.back_off(failures)).await;
        }
    }

    async fn listen(&mut self, mut stream: Watch) -> Ended {
        let mut was_heard = false;
        let why = loop {
            match timeout(SILENCE, stream.next()).await {
                Err(_) => break "nothing was heard for too long".to_owned(),
                Ok(None) => break "the key service ended it".to_owned(),
                Ok(Some(Err(error))) => break error.to_string(),
                Ok(Some(Ok(event))) => {
                    was_heard = true;
                    self.hear(event).await;
                }
            }
        };
        Ended { was_heard, why }
    }

    async fn hear(&mut self, event: WatchEvent) {
        ::metrics::counter!(KEY_SERVICE_EVENTS, "event" => event.name()).increment(1);
        match event {
            WatchEvent::Hello { state } => {
                if self.state != Some(state) {
                    // Something may have been taken away while nobody listened.
                    self.less().await;
                }
                self.state = Some(state);
                self.held();
            }
            WatchEvent::Policy { state, less } => {
                tracing::info!(less, "what this gateway may do has changed");
                if less {
                    self.less().await
                } else {
                    self.holdings.session.ask_soon()
                }
                self.state = Some(state);
            }
            WatchEvent::Frozen { state } | WatchEvent::Quarantined { state } => {
                tracing::warn!("keys are held back by a freeze or a quarantine; all are asked for again");
                self.less().await;
                self.state = Some(state);
            }
            WatchEvent::Bindings { buckets } => self.bindings.ask_again(buckets.as_deref()),
            WatchEvent::Locked => {
                tracing::warn!("an operator locked the key service: every key is dropped");
                self.all("locked");
            }
            WatchEvent::Revoked => {
                tracing::error!("this gateway was revoked: every key is dropped");
                self.all("revoked");
            }
            WatchEvent::Beat => return,
            WatchEvent::Unknown => {
                tracing::warn!(
                    "the key service says something that this version does not know; all keys are asked for again"
                );
                self.less().await;
            }
        }
        self.holdings.wipe().await;
    }

    async fn less(&self) {
        if let Err(error) = self.holdings.drop_less().await {
            tracing::warn!(%error, "keys were dropped, and what is left can't be asked for yet");
        }
    }

    fn all(&mut self, cause: &'static str) {
        self.state = None;
        self.holdings.drop_all(cause);
    }

    fn held(&self) {
        ::metrics::gauge!(KEY_SERVICE_STREAM).set(1.0);
        self.warning.clear();
        self.begun.ready();
    }

    fn not_held(&self, why: &str) {
        ::metrics::gauge!(KEY_SERVICE_STREAM).set(0.0);
        tracing::warn!(why, "the key service's stream is not held");
        self.warning.raise(format!(
            "{why}; until it is held again a revocation or a lock takes effect here as keys run out"
        ));
        // Requests are served without it.
        self.begun.ready();
    }

    /// Drawn between half of it and all: a thousand gateways that lose one service must not come back in one moment.
    fn back_off(&self, failures: u32) -> Duration {
        let longest = BACK_OFF.saturating_mul(1 << failures.min(5)).min(BACK_OFF_MAX);
        let mut drawn = [0; 2];
        // Without randomness it waits the longest.
        let share = self.random.fill(&mut drawn).map_or(u16::MAX, |()| u16::from_be_bytes(drawn));
        longest.mul_f64((1.0 + f64::from(share) / f64::from(u16::MAX)) / 2.0)
    }
}
