//! The session of a standby: it looks whether the replica that works with the database is still there, and takes over when it
//! is gone and this one is [ready](super::worker::Shared::is_ready).
//!
//! The one that works proves itself to the server every heartbeat, so the server can tell how long ago that was. Is the lock held
//! by a session that has said nothing for longer than anyone may release after it, the process behind it hangs or is cut off: its
//! session is ended. Is the lock free, a standby waits a moment (the other one may only have lost its connection), takes it,
//! writes down that it did, and then waits until no former holder can release anything any more (`hold`).

use std::sync::Arc;

use tokio_postgres::types::{ToSql, Type};

use super::fault::Fault;
use super::hold;
use super::session::{CONNECT_TIMEOUT, Purpose, Session, late};
use crate::store::Role;

impl Session {
    /// One look.
    pub(super) fn stand_by(&mut self) -> Result<(), Fault> {
        let sight = self.attempt(CONNECT_TIMEOUT, async |client| hold::look(client).await)?;
        let timing = self.shared.timing;
        if let Some((backend, silent_ms)) = sight.holder {
            self.free_since_ms = None;
            if silent_ms > timing.hold_ms && self.shared.is_ready() {
                tracing::warn!(
                    silent_ms,
                    "the replica that works with the database says nothing: its session is ended"
                );
                self.attempt(CONNECT_TIMEOUT, async |client| hold::end(client, &backend).await)?;
            }
            return Ok(());
        }
        let now_ms = self.now_ms();
        let since_ms = *self.free_since_ms.get_or_insert(now_ms);
        let is_time = sight.ended || now_ms.saturating_sub(since_ms) >= timing.patience_ms;
        if is_time && self.shared.is_ready() { self.take_over() } else { Ok(()) }
    }

    fn take_over(&mut self) -> Result<(), Fault> {
        let (Some(live), Purpose::Serve(claim)) = (self.live.take(), self.purpose.clone()) else {
            return Ok(());
        };
        let shared = Arc::clone(&self.shared);
        let taken = self.runtime.block_on(async {
            let lock = hold::lock(&live.client, None, || false);
            if !tokio::time::timeout(CONNECT_TIMEOUT, lock).await.unwrap_or_else(|_| Err(late()))? {
                return Ok(false);
            }
            hold::take_over(&live.client, &claim, &shared).await?;
            Ok(true)
        });
        // Whatever comes of it, the next attempt begins with another look.
        self.free_since_ms = None;
        // On the session that has held the lock all the time, or not at all.
        let taken = taken.and_then(|taken| if taken { self.prove(&live).map(|()| true) } else { Ok(false) });
        match taken {
            Ok(taken) => {
                self.live = Some(live);
                if taken {
                    tracing::warn!("this replica works with the database from now on");
                    self.shared.set_role(Role::Active);
                }
                Ok(())
            }
            Err(fault) => {
                self.drop_session(Some(live));
                Err(fault)
            }
        }
    }

    /// Another one took over.
    pub(super) fn become_standby(&mut self) {
        tracing::warn!("another replica works with the database: this one stands by");
        // In this order: nobody may find it ready for what it did not look at yet.
        self.shared.set_ready(false);
        self.shared.set_role(Role::Standby);
        self.free_since_ms = None;
    }

    /// This replica took over, and found that it can't serve: another one may.
    pub(super) fn step_back(&mut self) -> Result<(), Fault> {
        let Purpose::Serve(claim) = self.purpose.clone() else { return Ok(()) };
        self.become_standby();
        let ended = self.attempt(CONNECT_TIMEOUT, async |client| {
            let process = [(&claim.process.as_slice() as &(dyn ToSql + Sync), Type::BYTEA)];
            let end = client.execute_typed("UPDATE holder SET ended = true WHERE process = $1", &process);
            Ok(end.await?)
        });
        // With it goes the lock.
        let live = self.live.take();
        self.drop_session(live);
        ended.map(drop)
    }
}
