//! When the key service's audit log was seen last, and whether the service answers other questions while it does not show it.
//!
//! A service that is away is no reason to drop anything: what is held was given while its log was seen, and runs out by itself.
//! One that answers everything but this question may be another one than it was.

use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_keyapi::{KeyServiceError, UnavailableReason};

/// How long a look counts, on the boot-time clock from the moment it was asked for: three that fail, and not yet a fourth.
pub(super) const COUNTS_MS: u64 = 180_000;

/// Whether the key service shows its audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// At the last look it did, and the log was the one that is remembered.
    Clear,
    /// It could not be asked: it is away, locked or serves nobody.
    Away(String),
    /// It answers, and shows no log that can be believed. What else it says counts for a while yet.
    Hidden(String),
    /// That while is over, and it has answered other questions in it: what it gave is not to be used any more.
    Over(String),
}

/// The looks so far.
#[derive(Debug, Default)]
pub(super) struct Looks(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// When the last good one was asked for.
    good_boot_ms: Option<u64>,
    has_failed_since: bool,
    /// Whether the service has answered another question after a look had failed.
    was_answered: bool,
}

impl Looks {
    /// Whether the last good look counts still.
    pub(super) fn count(&self, now_boot_ms: u64) -> bool {
        self.inner().counts(now_boot_ms)
    }

    /// A look has ended; what is to be told of it.
    pub(super) fn ended(
        &self,
        asked_boot_ms: u64,
        now_boot_ms: u64,
        outcome: &Result<(), KeyServiceError>,
    ) -> Sight {
        let mut inner = self.inner();
        let Err(error) = outcome else {
            *inner = Inner { good_boot_ms: Some(asked_boot_ms), ..Inner::default() };
            return Sight::Clear;
        };
        inner.has_failed_since = true;
        let why = error.to_string();
        match inner.good_boot_ms {
            Some(good_boot_ms) if inner.was_answered && !inner.counts(now_boot_ms) => {
                let for_s = now_boot_ms.saturating_sub(good_boot_ms) / 1000;
                Sight::Over(format!(
                    "the key service has not shown its audit log for {for_s} s, and has answered other questions: {why}"
                ))
            }
            _ if is_away(error) => Sight::Away(why),
            _ => Sight::Hidden(why),
        }
    }

    /// Whether the last look failed.
    pub(super) fn have_failed(&self) -> bool {
        self.inner().has_failed_since
    }

    /// Another question that was asked after a look had failed has had this outcome.
    pub(super) fn heard<T>(&self, outcome: &Result<T, KeyServiceError>) {
        if outcome.as_ref().err().is_none_or(|error| !is_away(error)) {
            let mut inner = self.inner();
            inner.was_answered |= inner.has_failed_since;
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each writer leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn counts(&self, now_boot_ms: u64) -> bool {
        self.good_boot_ms.is_some_and(|good_boot_ms| now_boot_ms.saturating_sub(good_boot_ms) < COUNTS_MS)
    }
}

/// Whether this says that nothing is to be had from the service now, rather than that it answered.
pub(super) fn is_away(error: &KeyServiceError) -> bool {
    match error {
        KeyServiceError::Locked => true,
        // A log that can't be written releases nothing either.
        KeyServiceError::Unavailable { reason, .. } => *reason != UnavailableReason::Unseen,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWAY: Result<(), KeyServiceError> = Err(KeyServiceError::Locked);
    const REFUSED: Result<(), KeyServiceError> = Err(KeyServiceError::Internal);

    #[test]
    fn a_look_counts_for_three_minutes_from_its_question() {
        let looks = Looks::default();
        assert!(!looks.count(0), "none yet");
        assert_eq!(looks.ended(10, 4_000, &Ok(())), Sight::Clear);
        assert!(looks.count(10 + COUNTS_MS - 1));
        assert!(!looks.count(10 + COUNTS_MS));
        assert!(looks.count(5), "a clock that went back is no reason to stop");
    }

    #[test]
    fn what_is_over_is_what_was_answered_while_looks_failed() {
        let late = COUNTS_MS + 1;
        let looks = Looks::default();
        looks.ended(0, 0, &Ok(()));
        // Before the first look that fails: everybody's calls.
        looks.heard(&Ok(()));
        assert!(matches!(looks.ended(60_000, 60_000, &REFUSED), Sight::Hidden(_)));
        assert!(matches!(looks.ended(60_000, 60_000, &AWAY), Sight::Away(_)));
        looks.heard(&AWAY);
        assert!(matches!(looks.ended(late, late, &REFUSED), Sight::Hidden(_)), "it has given nothing since");
        looks.heard(&REFUSED);
        assert!(matches!(looks.ended(late, late, &AWAY), Sight::Over(_)), "a refusal is an answer");
        assert_eq!(looks.ended(late, late, &Ok(())), Sight::Clear);
        assert!(matches!(looks.ended(late, 2 * late, &AWAY), Sight::Away(_)), "it begins anew");
    }

    #[test]
    fn within_the_time_nothing_is_over() {
        let looks = Looks::default();
        looks.ended(0, 0, &Ok(()));
        looks.ended(1, 1, &REFUSED);
        looks.heard(&Ok(()));
        assert!(matches!(looks.ended(2, COUNTS_MS - 1, &REFUSED), Sight::Hidden(_)));
    }
}
