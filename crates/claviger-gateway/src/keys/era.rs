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
}
