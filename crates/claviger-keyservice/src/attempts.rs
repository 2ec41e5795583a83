//! Failed attempts to enrol. Enrolment takes no certificate, so strangers make them: each source gets some a minute, and the
//! log gets one record a minute with their number, or anyone could fill the disk and so stop every release.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::admission::source;

const MINUTE_MS: u64 = 60_000;
/// Failed attempts to enrol of one source in a minute, after which it is told to wait.
const FAILURES_MAX: u32 = 30;
/// Sources that are counted; beyond them a source is let through, which costs a hash and a look-up.
const SOURCES_MAX: usize = 4096;

/// The failures of the present minute.
pub(crate) struct Attempts {
    /// Of one source, before it has to wait.
    failures_max: u32,
    inner: Mutex<Inner>,
}

impl Default for Attempts {
    fn default() -> Self {
        Self::up_to(FAILURES_MAX)
    }
}

#[derive(Default)]
struct Inner {
    minute: u64,
    by_source: HashMap<IpAddr, u32>,
    recorded_in: Option<u64>,
    unrecorded: u64,
}

impl Attempts {
    /// So many failures of one source in a minute.
    pub(crate) fn up_to(failures_max: u32) -> Self {
        Self { failures_max, inner: Mutex::default() }
    }

    fn at(&self, now_ms: u64) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.minute != now_ms / MINUTE_MS {
            inner.minute = now_ms / MINUTE_MS;
            inner.by_source.clear();
        }
        inner
    }

    /// Whether this source is listened to.
    pub(crate) fn admits(&self, address: IpAddr, now_ms: u64) -> bool {
        self.at(now_ms).by_source.get(&source(address)).is_none_or(|failures| *failures < self.failures_max)
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, address: IpAddr, now_ms: u64) {
        let mut inner = self.at(now_ms);
        let source = source(address);
        if inner.by_source.len() < SOURCES_MAX || inner.by_source.contains_key(&source) {
            *inner.by_source.entry(source).or_insert(0) += 1;
        }
    }

    /// Whether a failure with an unknown token gets a record now, and how many came before it without one.
    pub(crate) fn to_record(&self, now_ms: u64) -> Option<u64> {
        let mut inner = self.at(now_ms);
        if inner.recorded_in == Some(inner.minute) {
            inner.unrecorded += 1;
            return None;
        }
        inner.recorded_in = Some(inner.minute);
        Some(std::mem::take(&mut inner.unrecorded))
    }

    /// Failures of an earlier minute that no record tells of yet.
    pub(crate) fn left_over(&self, now_ms: u64) -> Option<u64> {
        let mut inner = self.at(now_ms);
        let due = inner.unrecorded > 0 && inner.recorded_in != Some(inner.minute);
        due.then(|| std::mem::take(&mut inner.unrecorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[test]
    fn a_source_that_keeps_failing_waits_and_others_do_not() {
        let attempts = Attempts::default();
        (0..FAILURES_MAX).for_each(|_| attempts.failed(ONE, 0));
        assert!(!attempts.admits(ONE, 59_999));
        assert!(attempts.admits(OTHER, 0));
        assert!(attempts.admits(ONE, 60_000));
    }

    #[test]
    fn a_minute_of_failures_is_one_record_and_none_is_lost() {
        let attempts = Attempts::default();
        assert_eq!(attempts.to_record(0), Some(0));
        assert_eq!((attempts.to_record(1), attempts.to_record(59_999)), (None, None));
        assert_eq!(attempts.left_over(59_999), None, "the minute is not over");
        assert_eq!(attempts.left_over(60_000), Some(2));
        assert_eq!(attempts.left_over(60_001), None);
        assert_eq!(attempts.to_record(60_002), Some(0));
        assert_eq!(attempts.to_record(60_003), None);
        assert_eq!(attempts.to_record(120_000), Some(1));
    }
}
