//! A clock that stands still until the test moves it.

use std::sync::atomic::{AtomicU64, Ordering};

use claviger_env::{Clock, SystemClock};

/// A clock under the test's control. The wall and the boot-time clock move separately, so that a test can set one back.
#[derive(Debug)]
pub struct FixedClock {
    now_ms: AtomicU64,
    boot_ms: AtomicU64,
}

impl FixedClock {
    /// Stands at `now_ms` (milliseconds since the Unix epoch); the boot-time clock stands at one hour.
    pub fn at(now_ms: u64) -> Self {
        Self { now_ms: AtomicU64::new(now_ms), boot_ms: AtomicU64::new(3_600_000) }
    }

    /// Stands at the present: for tests with the embedded provider, which compares signatures with the machine's clock.
    pub fn at_present() -> Self {
        Self::at(SystemClock.now_ms())
    }

    /// Moves both clocks on.
    pub fn advance_ms(&self, by_ms: u64) {
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
        self.boot_ms.fetch_add(by_ms, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, forwards or back, as an administrator or NTP does.
    pub fn set_wall_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for FixedClock {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn boot_ms(&self) -> u64 {
        self.boot_ms.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clocks_move_only_when_told() {
        let clock = FixedClock::at(1_000);
        let boot_ms = clock.boot_ms();
        clock.advance_ms(5);
        assert_eq!((clock.now_ms(), clock.boot_ms()), (1_005, boot_ms + 5));
        clock.set_wall_ms(10);
        assert_eq!((clock.now_ms(), clock.boot_ms()), (10, boot_ms + 5));
    }
}
