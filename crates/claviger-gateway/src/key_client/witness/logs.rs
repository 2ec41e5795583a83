//! Which log that is that a service shows, and which logs its replicas keep.
//!
//! The first log that is ever seen is believed. Later ones are those that a believed one has named: nobody signs that list, so it may
//! add logs, of which nothing is known yet, and never take back what a log has shown (`log_shelf`).

use claviger_audit::{LogMemory, VerifierKey};
use claviger_keyapi::KeyServiceError;
use claviger_keyapi::routes::LogHead;

use super::Witness;
use crate::key_client::log_shelf::{Kept, LOGS_MAX, LogShelf, log_id};

/// Most logs that are taken from one answer.
const NAMED_MAX: usize = 16;

/// Whose log is shown.
pub(super) enum Whose {
    /// Nothing is remembered: it is believed.
    First,
    /// Known by its name; perhaps it is shown with another key.
    Known(Kept),
    /// No log that was believed has named it. Its key, if it has one.
    Strangers(Option<VerifierKey>),
}

/// Which of the logs that are remembered is shown.
pub(super) fn whose(logs: &[Kept], shown: &LogHead) -> Whose {
    if logs.is_empty() {
        return Whose::First;
    }
    let key = shown.key.parse::<VerifierKey>().ok().filter(|key| log_id(key.name()).is_some());
    let known = key.as_ref().and_then(|key| logs.iter().find(|log| log.memory.key().name() == key.name()));
    known.map_or(Whose::Strangers(key), |kept| Whose::Known(kept.clone()))
}

/// What has to change on the shelf after a log was believed that named these.
#[derive(Default)]
struct Changes {
    new: Vec<VerifierKey>,
    /// Logs that are named again.
    back: Vec<VerifierKey>,
    gone: Vec<VerifierKey>,
}

impl Changes {
    fn between(logs: &[Kept], shown: &LogHead) -> Self {
        let mut changes = Self::default();
        for key in shown.logs.iter().take(NAMED_MAX).filter_map(|key| key.parse::<VerifierKey>().ok()) {
            if log_id(key.name()).is_none() || key.to_string() == shown.key {
                continue;
            }
            match logs.iter().find(|log| log.memory.key().name() == key.name()) {
                None if changes.new.iter().any(|new| new.name() == key.name()) => {}
                None => changes.new.push(key),
                // Under the key that is remembered; another one is none of it.
                Some(log) if log.is_removed && *log.memory.key() == key => changes.back.push(key),
                Some(_) => {}
            }
        }
        if !shown.logs.is_empty() {
            let is_named = |key: String| key == shown.key || shown.logs.contains(&key);
            let gone = logs.iter().filter(|log| !log.is_removed && !is_named(log.memory.key().to_string()));
            changes.gone.extend(gone.map(|log| log.memory.key().clone()));
        }
        changes
    }
}

impl Witness {
    /// Remembers the keys of logs that may show themselves later, and that those of replicas that were removed are not to. What a log
    /// says that is believed is believed so far.
    pub(super) async fn keep_others(&self, logs: &[Kept], shown: &LogHead) -> Result<(), KeyServiceError> {
        let Changes { new, back, gone } = Changes::between(logs, shown);
        for key in gone {
            tracing::warn!(log = key.name(), "the key service has a replica less");
            self.on_disk(move |shelf| shelf.mark(&key, true)).await?;
        }
        for key in back {
            tracing::warn!(
                log = key.name(),
                "the key service names a log again that it did not name any more"
            );
            self.on_disk(move |shelf| shelf.mark(&key, false)).await?;
        }
        // The shown one is remembered by now, perhaps as the first.
        let mut count = logs.len().max(1);
        let mut empty = logs.iter().filter(|log| log.is_empty()).map(|log| log.memory.key().clone());
        for key in new {
            if count >= LOGS_MAX {
                let Some(room) = empty.next() else {
                    tracing::error!(log = key.name(), "{}", self.shelf.full());
                    continue;
                };
                self.on_disk(move |shelf| shelf.forget_empty(&room)).await?;
                count -= 1;
            }
            tracing::info!(log = key.name(), "the key service has another replica");
            self.on_disk(move |shelf| shelf.keep(&LogMemory::new(key))).await?;
            count += 1;
        }
        Ok(())
    }
}

impl LogShelf {
    /// Why nothing is asked of a service that shows a log which none that was believed has named.
    pub(super) fn strange(&self, key: Option<&VerifierKey>, shown: &str) -> String {
        let Some(key) = key else { return "it shows an audit log whose key is none".to_owned() };
        let place = self.place(key);
        format!(
            "it shows the log {shown}, which is not one of those that are known, and none of them has named it: perhaps it is another \
             service's; nothing is asked of it. A replica that joined while this gateway was off is known as soon as one that is known serves \
             again. If that will never be, compare this key with what `claviger keys replica list` shows on the replica's own machine, and \
             write it to {place}/key (docs/operations.md, \"A gateway that no longer trusts its key service\")"
        )
    }

    /// Why nothing is asked of a service that shows a log which was named no more.
    pub(super) fn removed(&self, key: &VerifierKey) -> String {
        let place = self.place(key);
        format!(
            "it shows the log {}, which it did not name among its own any more: its replica was removed, or somebody said so; nothing is \
             asked of it until another replica that is known names it again. If it was not two operators who removed it, take it for an \
             attack; when that is settled, and it serves rightly, remove {place}/removed",
            key.name()
        )
    }

    fn full(&self) -> String {
        let place = self.folder();
        format!(
            "{LOGS_MAX} logs of key services are remembered in {place}, and there is no room for another: its replica will not be believed \
             when it serves. Remove the folders of replicas that are gone for good (those with a file `removed`)"
        )
    }
}
