//! Whether a certificate counts, asked of a connection and not of a request: for as long as it is open, and also while the service
//! is locked or stands by and has to ask its database.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_keyapi::{Identity, KeyServiceError, Role, UnavailableReason};
use tokio::sync::Notify;

use super::Core;
use crate::ServiceError;
use crate::identity::Peer;
use crate::vault::{IdentityRow, stored_identities};

/// For how long a locked service goes by what its database said of gateways.
const ROLL_MS: u64 = 5_000;
/// How long a request to a locked service waits for what its database says now.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a locked service counts its epochs anew, for its status.
const COUNT_EVERY_MS: u64 = 60_000;

/// What is known of a certificate of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Its key is the enrolled one, its identity not revoked, its time not over.
    Counts,
    CountsNot,
    /// A gateway's, and the service is locked and can't ask its database.
    Unknown,
}

/// Who is enrolled, as it was known last. A locked service can't check the rows' MACs.
#[derive(Default)]
pub(crate) struct Roll {
    inner: Mutex<Known>,
    /// Whether the database is being asked.
    is_read: AtomicBool,
    /// Told each time that it was.
    was_read: Notify,
    /// How many epochs are registered, and when they were counted, on the boot-time clock.
    epochs: Mutex<Option<(u64, u64)>>,
}

/// How old what is known of those who are enrolled may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Age {
    /// A few seconds.
    Now,
    /// Any: for operators who look, or lock. It has to go on while the database says nothing.
    Any,
}

#[derive(Clone, Default)]
struct Known {
    rows: Arc<Vec<Arc<IdentityRow>>>,
    /// On the boot-time clock; `None` before there was anything.
    at_boot_ms: Option<u64>,
}

impl Roll {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Its values are replaced as a whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, rows: Vec<Arc<IdentityRow>>, at_boot_ms: u64) {
        *self.lock() = Known { rows: Arc::new(rows), at_boot_ms: Some(at_boot_ms) };
    }

    fn epochs(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_new(&self, now_boot_ms: u64) -> bool {
        self.at_boot_ms.is_some_and(|at| now_boot_ms < at.saturating_add(ROLL_MS))
    }
}

impl Core {
    /// Whether this certificate counts. Waits for nothing.
    pub(crate) fn standing(&self, peer: &Peer) -> Standing {
        let now_ms = self.clock.now_ms();
        match self.vault() {
            Ok(vault) => by_rows(vault.identities().iter().map(Arc::as_ref), peer, now_ms),
            Err(_) => {
                let known = self.roll.lock().clone();
                let rows = known.rows.iter().map(Arc::as_ref);
                self.standing_at_locked(&known, rows, peer, now_ms)
            }
        }
    }

    /// Ends the connections of those who were revoked, whose certificate has expired or whose key was renewed away. To be called every
    /// second; waits for nothing. Gives whether the database should be asked who is enrolled ([`Self::look_up_roll`]).
    pub(crate) fn end_connections(&self) -> bool {
        let (now_ms, vault) = (self.clock.now_ms(), self.vault().ok());
        if let Some(vault) = &vault {
            self.roll.put(vault.identities(), self.clock.boot_ms());
        }
        let known = self.roll.lock().clone();
        let mut by_name: HashMap<&Identity, Vec<&IdentityRow>> = HashMap::new();
        for row in known.rows.iter() {
            by_name.entry(&row.identity).or_default().push(row);
        }
        self.admission.end_where(|peer| {
            let rows = by_name.get(&peer.identity).into_iter().flatten().copied();
            let standing = match &vault {
                Some(_) => by_rows(rows, peer, now_ms),
                None => self.standing_at_locked(&known, rows, peer, now_ms),
            };
            standing != Standing::Counts
        });
        vault.is_none()
    }

    /// Who is enrolled in a locked service, for a request: what its database says now, or what it said last if it does not answer within a
    /// second. However many ask and however long it is silent, one thread waits for it, and none of the runtime's.
    ///
    /// # Errors
    /// `unavailable` (`store`): nothing is known that is as new as it has to be.
    pub(super) async fn roll_for(
        self: &Arc<Self>,
        role: Role,
        age: Age,
    ) -> Result<Arc<Vec<Arc<IdentityRow>>>, KeyServiceError> {
        // What there is when it does not answer counts if it is new enough.
        let _ = tokio::time::timeout(PATIENCE, self.ask_roll()).await;
        let known = self.roll.lock().clone();
        let is_usable = known.is_new(self.clock.boot_ms())
            || (age == Age::Any && role == Role::Admin && known.at_boot_ms.is_some());
        if is_usable {
            return Ok(known.rows);
        }
        Err(KeyServiceError::Unavailable { reason: UnavailableReason::Store, retry_after_ms: 1_000 })
    }

    /// Returns once the database was asked; twice if what came then was asked for long ago.
    async fn ask_roll(self: &Arc<Self>) {
        for _ in 0..2 {
            // Before it is asked: so the answer is not missed.
            let was_read = self.roll.was_read.notified();
            if !self.roll.is_read.load(Ordering::Acquire) {
                let asking = Arc::clone(self);
                tokio::task::spawn_blocking(move || asking.look_up_roll());
            }
            was_read.await;
            if self.roll.lock().is_new(self.clock.boot_ms()) {
                return;
            }
        }
    }

    /// How many epochs are registered, as far as that is known without waiting for anything.
    pub(crate) fn epochs_known(&self) -> u64 {
        if let Some(count) = self.vault().ok().and_then(|vault| vault.epoch_count()) {
            *self.roll.epochs() = Some((count, self.clock.boot_ms()));
            return count;
        }
        self.roll.epochs().map_or(0, |(count, _)| count)
    }

    /// For the status of a locked service. Blocks.
    fn count_epochs(&self, now_boot_ms: u64) -> Result<(), ServiceError> {
        let is_new = |(_, at): &(u64, u64)| now_boot_ms < at.saturating_add(COUNT_EVERY_MS);
        if self.vault().is_ok() || self.roll.epochs().as_ref().is_some_and(is_new) {
            return Ok(());
        }
        let count = self.store.epoch_count()?;
        *self.roll.epochs() = Some((count, now_boot_ms));
        Ok(())
    }

    /// Asks the database of a locked service who is enrolled. Blocks; does nothing while somebody else is at it.
    pub(crate) fn look_up_roll(&self) {
        if self.roll.is_read.swap(true, Ordering::AcqRel) {
            return;
        }
        let asked_boot_ms = self.clock.boot_ms();
        match stored_identities(&*self.store) {
            Ok(rows) => self.roll.put(rows.into_iter().map(Arc::new).collect(), asked_boot_ms),
            Err(error) => tracing::debug!(%error, "who is enrolled is not known"),
        }
        if let Err(error) = self.count_epochs(asked_boot_ms) {
            tracing::debug!(%error, "how many epochs there are is not known");
        }
        self.roll.is_read.store(false, Ordering::Release);
        self.roll.was_read.notify_waiters();
    }

    /// Of gateways only what the database says now counts. An operator is let in unless it is known that he is not one: it may be
    /// he who mends the database, or who unlocks the service.
    fn standing_at_locked<'a>(
        &self,
        known: &Known,
        rows: impl Iterator<Item = &'a IdentityRow> + Clone,
        peer: &Peer,
        now_ms: u64,
    ) -> Standing {
        if known.is_new(self.clock.boot_ms()) {
            return by_rows(rows, peer, now_ms);
        }
        match peer.identity.role() {
            Role::Gateway => Standing::Unknown,
            Role::Admin if peer.not_after_ms <= now_ms => Standing::CountsNot,
            Role::Admin => {
                let is_known = rows.clone().any(|row| is_his(row, peer));
                if is_known { by_rows(rows, peer, now_ms) } else { Standing::Counts }
            }
        }
    }
}

fn by_rows<'a>(mut rows: impl Iterator<Item = &'a IdentityRow>, peer: &Peer, now_ms: u64) -> Standing {
    let is_in_time = peer.not_after_ms > now_ms;
    if is_in_time && rows.any(|row| row.revoked_ms.is_none() && is_his(row, peer)) {
        Standing::Counts
    } else {
        Standing::CountsNot
    }
}

fn is_his(row: &IdentityRow, peer: &Peer) -> bool {
    row.identity == peer.identity && (row.spki == peer.spki || row.previous_spki == Some(peer.spki))
}

#[cfg(test)]
mod tests;
