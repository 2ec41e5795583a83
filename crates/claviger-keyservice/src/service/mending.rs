//! Faults that pass: what could not be written is tried again, so that the service goes on by itself once the fault is gone, and
//! says so for as long as it is there.

use std::sync::{Mutex, PoisonError};

use super::Core;
use crate::ServiceError;
use crate::audit_record::Outcome;
use crate::store::{Change, Kind, Row};

/// More than a database finds in the free space that it has already.
const PROBE_LEN: usize = 64 << 10;
const PROBE_ROW: &str = "probe";

/// Why the database did not take what was written last.
#[derive(Default)]
pub(crate) struct Writes {
    trouble: Mutex<Option<String>>,
}

impl Writes {
    fn note(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(super) fn forget(&self) {
        self.note(None);
    }

    /// Does not wait for the database.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Core {
    /// Remembers whether the database took something.
    pub(crate) fn noted<T>(&self, written: Result<T, ServiceError>) -> Result<T, ServiceError> {
        match &written {
            Ok(_) => self.writes.note(None),
            Err(error @ (ServiceError::Store(_) | ServiceError::Database(_))) => {
                self.writes.note(Some(error.to_string()));
            }
            Err(_) => {}
        }
        written
    }

    /// Tries again what failed for want of room or of a database. To be called every few seconds; blocks.
    ///
    /// # Errors
    /// The fault is still there.
    pub(crate) fn mend(&self) -> Result<(), ServiceError> {
        if self.audit.is_full() {
            // Tells, where it can be written, that there was a time in which nothing could be.
            let record = self.local_info()?.record("log-full", Outcome::Done);
            self.audit.append_blocking(vec![record.to_bytes()])?;
            tracing::info!("the audit log can be written again");
        }
        let Ok(vault) = self.vault() else { return Ok(()) };
        if vault.is_behind() || vault.has_leftover() {
            let turn = self.change(&vault)?;
            self.bring_up_to_date(&turn.vault)?;
        }
        self.outdate_refused(&vault)?;
        if self.writes.trouble().is_some() { self.probe() } else { Ok(()) }
    }

    /// Whether the database takes something that needs room.
    fn probe(&self) -> Result<(), ServiceError> {
        let mut body = vec![0; PROBE_LEN];
        self.random.fill(&mut body)?;
        let row = Row { id: PROBE_ROW.to_owned(), body, mac: Vec::new() };
        let written = self.store.apply(&[Change::Put(Kind::Probe, row)]);
        let removed =
            written.and_then(|()| self.store.apply(&[Change::Delete(Kind::Probe, PROBE_ROW.to_owned())]));
        self.noted(removed)
    }
}
