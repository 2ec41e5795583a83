//! Refused certificates of ours (expired, revoked, replaced), and what is refused to those that count. Each is a record, up to a
//! bound: whoever asks for nothing but what he does not get could fill the disk with refusals otherwise, and so stop every release.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use claviger_keyapi::Identity;

const MINUTE_MS: u64 = 60_000;
/// Records of one name's refused certificates in a minute. What comes beyond is counted in the next one.
const CERTIFICATES_MAX: u32 = 10;
/// The same of what is refused to a name that counts: enough to see what a thief is after, and about a megabyte.
const REQUESTS_MAX: u32 = 600;
/// Names that are counted; beyond them nothing is written down but the number. Names come from certificates of ours.
const NAMES_MAX: usize = 4096;

/// The refusals of the present minute.
pub(crate) struct Refusals {
    records_max: u32,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    minute: u64,
    by_name: HashMap<Identity, u32>,
    unrecorded: u64,
}

impl Refusals {
    pub(crate) fn of_certificates() -> Self {
        Self { records_max: CERTIFICATES_MAX, inner: Mutex::default() }
    }

    pub(crate) fn of_requests() -> Self {
        Self { records_max: REQUESTS_MAX, inner: Mutex::default() }
    }

    /// Whether this one gets a record, and how many came before it without one.
    pub(crate) fn to_record(&self, identity: &Identity, now_ms: u64) -> Option<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.minute != now_ms / MINUTE_MS {
            inner.minute = now_ms / MINUTE_MS;
            inner.by_name.clear();
        }
        let is_counted = inner.by_name.len() < NAMES_MAX || inner.by_name.contains_key(identity);
        if is_counted && *inner.by_name.get(identity).unwrap_or(&0) < self.records_max {
            *inner.by_name.entry(identity.clone()).or_insert(0) += 1;
            return Some(std::mem::take(&mut inner.unrecorded));
        }
        inner.unrecorded += 1;
        None
    }

    /// Refusals of an earlier minute that no record tells of yet.
    pub(crate) fn left_over(&self, now_ms: u64) -> Option<u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = inner.unrecorded > 0 && inner.minute != now_ms / MINUTE_MS;
        is_due.then(|| std::mem::take(&mut inner.unrecorded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_bounded_for_each_name_and_none_is_lost() {
        let refusals = Refusals::of_certificates();
        let (one, other): (Identity, Identity) =
            ("gateway:one".parse().unwrap(), "gateway:other".parse().unwrap());
        let recorded = (0..100).filter_map(|n| refusals.to_record(&one, n)).count();
        assert_eq!(recorded, 10);
        assert_eq!(refusals.to_record(&other, 100), Some(90), "another name has records of its own");
        assert_eq!(refusals.to_record(&one, 59_999), None);
        assert_eq!(refusals.left_over(59_999), None);
        assert_eq!(refusals.left_over(60_000), Some(1));
        assert_eq!(refusals.to_record(&one, 60_001), Some(0));
    }

    #[test]
    fn many_names_take_no_more_memory_than_some() {
        let refusals = Refusals::of_certificates();
        for n in 0..2 * NAMES_MAX {
            refusals.to_record(&format!("gateway:g{n}").parse().unwrap(), 0);
        }
        assert_eq!(refusals.inner.lock().unwrap().by_name.len(), NAMES_MAX);
        assert_eq!(refusals.left_over(60_000), Some(NAMES_MAX as u64));
    }
}
