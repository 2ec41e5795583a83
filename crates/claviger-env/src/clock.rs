//! Two clocks: the wall for what people and S3 see, the boot-time clock for what must not be turned back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May jump when an administrator or NTP sets it.
    fn now_ms(&self) -> u64;

    /// Nanoseconds since the Unix epoch, as finely as the clock knows.
    fn now_ns(&self) -> u64 {
        self.now_ms().saturating_mul(1_000_000)
    }

    /// Milliseconds since an arbitrary start. Never goes back, and counts through suspension, so that a lease
    /// ends on time on a machine that slept (Linux `CLOCK_BOOTTIME`).
    fn boot_ms(&self) -> u64;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(since_epoch().as_nanos()).unwrap_or(u64::MAX)
    }

    fn boot_ms(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
        seconds * 1000 + nanoseconds / 1_000_000
    }
}

/// A clock before 1970 reads as 1970: every signature is then refused as skewed, which fails closed.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_never_goes_back() {
        let first = SystemClock.boot_ms();
        assert!(first > 0);
        for _ in 0..1000 {
            assert!(SystemClock.boot_ms() >= first);
        }
    }

    #[test]
    fn the_wall_clock_reads_a_time_after_this_code_was_written() {
        assert!(SystemClock.now_ms() > 1_750_000_000_000);
    }
}
