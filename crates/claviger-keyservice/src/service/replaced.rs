//! A service whose rows another process has taken over. What it knows is out of date, and it will never release again: it keeps
//! no secret either.

use super::{Core, TlsState};
use crate::ServiceError;
use crate::audit_record::Outcome;
use crate::store::Role;

impl Core {
    /// Drops every secret if another process works with the rows now. To be called every few seconds; blocks.
    ///
    /// Gateways are told nothing: nobody took anything away from them, and the other process serves them. Their streams end,
    /// and they ask there.
    ///
    /// # Errors
    /// [`ServiceError::Audit`]; the secrets are gone all the same.
    pub(crate) fn step_down_if_replaced(&self) -> Result<(), ServiceError> {
        if self.store.role() == Role::Active {
            return Ok(());
        }
        let Some(first) = self.wipe() else { return Ok(()) };
        self.unlocking.locked();
        self.outside.locked();
        self.watchers.ring();
        let _changes = self.changes();
        // An unlock may have been under way.
        let old = self.wipe().unwrap_or(first);
        let info = self.local_info()?;
        let config = self.locked_tls(Some(&old), info.now_ms).ok();
        self.tls.store(std::sync::Arc::new(TlsState::for_ever(config)));
        let mut record = info.record("replaced", Outcome::Done);
        record.set_state(&old.mark());
        drop(old);
        tracing::error!("another process took the database over: every secret is dropped");
        let recorded = self.audit.append_blocking(vec![record.to_bytes()]);
        self.audit.stop_signing();
        recorded
    }
}
