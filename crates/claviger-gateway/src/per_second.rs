//! A bound on how often something is done.

use std::sync::{Mutex, PoisonError};

/// Admits up to a number of times in each second of the boot clock.
#[derive(Debug)]
pub(crate) struct PerSecond {
    times_max: u32,
    /// The running second, and how often it was admitted in it.
    used: Mutex<(u64, u32)>,
}

impl PerSecond {
    /// Up to `times_max` times in a second.
    pub(crate) fn new(times_max: u32) -> Self {
        Self { times_max, used: Mutex::new((0, 0)) }
    }

    /// Whether it may be done once more at `boot_ms`; counts as done if so.
    pub(crate) fn admits(&self, boot_ms: u64) -> bool {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let second = boot_ms / 1000;
        if used.0 != second {
            *used = (second, 0);
        }
        let admitted = used.1 < self.times_max;
        used.1 += u32::from(admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_admits_so_many_and_the_next_one_again() {
        let bound = PerSecond::new(2);
        assert!(bound.admits(5_000) && bound.admits(5_999));
        assert!(!bound.admits(5_999));
        assert!(bound.admits(6_000));
    }
}
