//! The time in which keys that were obtained may be used.
//!
//! When the key service takes something away, the era ends: what was obtained in it is used no more, by nobody who still
//! holds a copy, also where the answer with the key was on its way at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::GatewayError;

/// The present era. A clone is another handle on the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Era(Arc<AtomicU64>);

/// A moment in an era: that of asking for a key.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    era: Era,
    number: u64,
}

impl Era {
    /// To be taken before a key is asked for.
    pub(crate) fn now(&self) -> Moment {
        Moment { era: self.clone(), number: self.0.load(Ordering::Acquire) }
    }

    /// Ends the era; the next one begins.
    pub(crate) fn end(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Moment {
    /// Whether its era has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.era.0.load(Ordering::Acquire) != self.number
    }

    /// Nothing, while the era lasts.
    ///
    /// # Errors
    /// [`GatewayError::TakenBack`] once it has ended: whoever asks again is told how things stand.
    pub(crate) fn check(&self) -> Result<(), GatewayError> {
        if self.is_over() { Err(GatewayError::TakenBack) } else { Ok(()) }
    }

    /// From this moment to one on the boot-time clock.
    pub(crate) fn until(self, ends_boot_ms: u64) -> Term {
        Term { held: self, ends_boot_ms }
    }
}

/// How long a key that was obtained may be used: its time, and no longer than its era.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    /// When it was asked for.
    pub held: Moment,
    ends_boot_ms: u64,
}

impl Term {
    /// Whether time or era have ended.
    pub(crate) fn is_over(&self, now_boot_ms: u64) -> bool {
        now_boot_ms >= self.ends_boot_ms || self.held.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_obtained_before_the_end_of_an_era_is_over_and_what_comes_after_is_not() {
        let era = Era::default();
        let before = era.now();
        assert!(!before.is_over() && before.check().is_ok());
        era.clone().end();
        let after = era.now();
        assert!(before.is_over() && !after.is_over());
        assert_eq!(before.check().unwrap_err().retry_after_s(), Some(1));
    }

    #[test]
    fn a_term_ends_with_its_time_and_with_its_era() {
        let era = Era::default();
        let term = era.now().until(1_000);
        assert!(!term.is_over(999) && term.is_over(1_000));
        era.end();
        assert!(term.is_over(0));
    }
}
