//! How often one identity may do what makes the log grow and others wait.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use claviger_keyapi::{Id16, KeyServiceError, UnavailableReason};

const MINUTE_MS: u64 = 60_000;
/// Beyond so many, those whose minute is over are forgotten.
const KEPT_MAX: usize = 1024;

/// So many times in a minute, counted for each enrolment.
pub(crate) struct Rate {
    per_minute: u32,
    begun: Mutex<HashMap<Id16, Minute>>,
}

struct Minute {
    since_boot_ms: u64,
    count: u32,
}

impl Rate {
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_minute, begun: Mutex::default() }
    }

    /// Counts one. The minute begins with the first.
    ///
    /// # Errors
    /// `unavailable` (`busy`) if there were enough, with the time until the next minute.
    pub(crate) fn take(&self, uid: Id16, now_boot_ms: u64) -> Result<(), KeyServiceError> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |minute: &Minute| now_boot_ms >= minute.since_boot_ms.saturating_add(MINUTE_MS);
        if begun.len() >= KEPT_MAX {
            begun.retain(|_, minute| !is_over(minute));
        }
        let minute = begun.entry(uid).or_insert(Minute { since_boot_ms: now_boot_ms, count: 0 });
        if is_over(minute) {
            *minute = Minute { since_boot_ms: now_boot_ms, count: 0 };
        }
        if minute.count >= self.per_minute {
            let retry_after_ms =
                minute.since_boot_ms.saturating_add(MINUTE_MS).saturating_sub(now_boot_ms).max(1);
            return Err(KeyServiceError::Unavailable { reason: UnavailableReason::Busy, retry_after_ms });
        }
        minute.count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_it_often_enough_is_told_when_to_come_again_and_others_are_not() {
        let rate = Rate::new(2);
        let (one, other) = (Id16([1; 16]), Id16([2; 16]));
        rate.take(one, 1_000).unwrap();
        rate.take(one, 31_000).unwrap();
        let refused = rate.take(one, 41_000).unwrap_err();
        assert_eq!(refused.retry_after_ms(), Some(20_000));
        rate.take(other, 41_000).unwrap();
        rate.take(one, 61_000).unwrap();
    }

    #[test]
    fn those_whose_minute_is_over_are_forgotten() {
        let rate = Rate::new(1);
        for n in 0..KEPT_MAX as u128 {
            rate.take(Id16(n.to_be_bytes()), 0).unwrap();
        }
        rate.take(Id16([0xff; 16]), MINUTE_MS).unwrap();
        assert_eq!(rate.begun.lock().unwrap().len(), 1);
    }
}
