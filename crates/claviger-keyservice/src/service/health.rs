//! What the service says of itself: to health checks, to whoever has a certificate.

use claviger_keyapi::{ServiceState, ServiceStatus};

use super::Core;
use crate::store::Role;

impl Core {
    pub(crate) fn health(&self) -> (ServiceState, Vec<String>) {
        let mut problems = Vec::new();
        if self.audit.has_failed() {
            problems.push(
                "the audit log can't be written: nothing is released; repair the disk and restart".to_owned(),
            );
        }
        problems.extend(self.store.problem());
        let vault = self.vault().ok();
        if vault.as_ref().is_some_and(|vault| vault.is_behind()) {
            problems.push(
                "the database lacks a change that was written down: is it there, is its disk full?"
                    .to_owned(),
            );
        }
        if vault.as_ref().is_some_and(|vault| vault.operators().len() < 2) {
            problems.push(
                "fewer than two operators are enrolled: nothing that takes two can be done; `claviger keys operator recover`"
                    .to_owned(),
            );
        }
        let locked = vault.is_none();
        if locked && self.store.role() == Role::Active {
            problems.push(self.why_locked());
        }
        let state = match (locked, self.audit.has_failed()) {
            (true, _) => ServiceState::Locked,
            (false, true) => ServiceState::AuditFailed,
            (false, false) => ServiceState::Unlocked,
        };
        (state, problems)
    }

    pub(crate) fn status(&self) -> ServiceStatus {
        ServiceStatus {
            state: self.health().0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.clock.now_ms(),
        }
    }
}
