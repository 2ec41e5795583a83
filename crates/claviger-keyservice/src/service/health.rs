//! What the service says of itself: to health checks, to whoever has a certificate.

use claviger_keyapi::{ServiceState, ServiceStatus};

use super::Core;
use crate::metrics::{PROBLEM, READY};
use crate::store::Role;

/// Kinds of problems, as the metric names them.
const PROBLEMS: [&str; 7] =
    ["audit_log", "audit_log_full", "database", "database_behind", "operators", "locked", "standby"];

/// One of [`PROBLEMS`], and what it is in words.
type Problem = (&'static str, String);

impl Core {
    pub(crate) fn health(&self) -> (ServiceState, Vec<String>) {
        let locked = self.vault().is_err();
        let state = match (locked, self.check_audit().is_err()) {
            (true, false) if self.stands_by() => ServiceState::Standby,
            (true, _) => ServiceState::Locked,
            (false, true) => ServiceState::AuditFailed,
            (false, false) => ServiceState::Unlocked,
        };
        (state, self.problems().into_iter().map(|(_, text)| text).collect())
    }

    /// Waits for nothing: neither for the database nor for whoever waits for it.
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut add = |kind, text: &str| problems.push((kind, text.to_owned()));
        if self.audit.has_failed() {
            add(
                "audit_log",
                "the audit log can't be written: nothing is released; repair the disk and restart",
            );
        } else if self.audit.is_full() {
            add(
                "audit_log_full",
                "the audit log's disk is full: nothing is released; make room, and it goes on by itself",
            );
        }
        self.store.problem().or_else(|| self.writes.trouble()).iter().for_each(|text| add("database", text));
        let vault = self.vault().ok();
        if vault.as_ref().is_some_and(|vault| vault.is_behind()) {
            let text = "the database lacks a change that was written down: is it there, is its disk full?";
            add("database_behind", text);
        }
        if vault.as_ref().is_some_and(|vault| vault.operators().len() < 2) {
            add(
                "operators",
                "fewer than two operators are enrolled: nothing that takes two can be done; `claviger keys operator recover`",
            );
        }
        match (self.standby_state(), self.store.role()) {
            (Some(Some(problem)), _) => add("standby", &format!("standby, and can't take over: {problem}")),
            (None, Role::Standby) if vault.is_none() => {
                add("locked", &format!("standby, {}", self.why_locked()));
            }
            (None, Role::Active) if vault.is_none() => add("locked", &self.why_locked()),
            _ => {}
        }
        problems
    }

    pub(super) fn show_health(&self) {
        let (state, found) = (self.health().0, self.problems());
        let is_ready = state == ServiceState::Unlocked && found.is_empty();
        metrics::gauge!(READY).set(if is_ready { 1.0 } else { 0.0 });
        for kind in PROBLEMS {
            let is_there = found.iter().any(|(there, _)| *there == kind);
            metrics::gauge!(PROBLEM, "problem" => kind).set(if is_there { 1.0 } else { 0.0 });
        }
    }

    pub(crate) fn status(&self) -> ServiceStatus {
        ServiceStatus {
            state: self.health().0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.clock.now_ms(),
        }
    }
}
