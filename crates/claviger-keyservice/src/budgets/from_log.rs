//! What was released before this unlock, read from the end of the log as far back as the longest window.
//!
//! The log has the wall clock's time, which can be set. How long ago something was is found on the way back: the time between
//! two records is what the clock says, and nothing where the clock was set back. So setting it back never makes what was
//! released older; it makes it younger, for once. A clock that was set forward can't be told from time that went by.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use claviger_keyapi::Id16;
use serde::Deserialize;

use super::{Budgets, Item};
use crate::ServiceError;
use crate::audit_log::AuditFolder;
use crate::policy::{Budget, Table};

/// Records stand in the order in which they were written and have the time at which their requests came; a request takes less
/// than this. A record that is younger than the one behind it by more tells that the clock was set back.
const DISORDER_MS: i64 = 10 * 60 * 1000;

#[derive(Deserialize)]
struct Line<'a> {
    /// Pruned lines have none.
    #[serde(borrow, default)]
    record: Option<Fields<'a>>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    time_ms: u64,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(default)]
    identity: Option<Cow<'a, str>>,
    #[serde(default)]
    keyset: Option<Cow<'a, str>>,
    #[serde(default)]
    epoch_id: Option<Id16>,
    #[serde(default)]
    object_id: Option<Id16>,
    #[serde(default)]
    subject: Option<Cow<'a, str>>,
}

/// How long ago, on the way back from now.
struct Age {
    /// The earliest time on this side of the last step of the clock.
    floor_ms: i64,
    age_ms: i64,
}

impl Age {
    fn new(now_ms: u64) -> Self {
        Self { floor_ms: i64::try_from(now_ms).unwrap_or(i64::MAX), age_ms: 0 }
    }

    /// The age of the next older record; never more than it is.
    fn of(&mut self, time_ms: u64) -> i64 {
        let time_ms = i64::try_from(time_ms).unwrap_or(i64::MAX);
        let above = time_ms.saturating_sub(self.floor_ms);
        if above > DISORDER_MS {
            self.floor_ms = time_ms;
            return self.age_ms;
        }
        if above > 0 {
            return (self.age_ms - above).max(0);
        }
        self.floor_ms = time_ms;
        self.age_ms = self.age_ms.saturating_sub(above);
        self.age_ms
    }
}

impl Budgets {
    /// Adds what the log in this folder tells of. May be done again: nothing counts twice.
    ///
    /// # Errors
    /// [`ServiceError::Io`]; [`ServiceError::Audit`] if a line can't be read.
    pub(crate) fn count_from_log(
        &self,
        table: &Table,
        folder: &Path,
        now_ms: u64,
        boot_ms: u64,
    ) -> Result<(), ServiceError> {
        let all = || table.values().flat_map(|budgets| budgets.values());
        let Some(longest_ms) = all().map(Budget::window_ms).max() else { return Ok(()) };
        let mut age = Age::new(now_ms);
        // Identities that were unfrozen: what was before counts no more.
        let mut begun_anew = BTreeSet::new();
        AuditFolder::new(folder).each_line_backward(|path, line| {
            let line: Line<'_> = serde_json::from_slice(line)
                .map_err(|_| ServiceError::Audit(format!("{}: a line is not a record", path.display())))?;
            let Some(record) = line.record else { return Ok(ControlFlow::Continue(())) };
            let age_ms = age.of(record.time_ms);
            if age_ms > longest_ms.saturating_add(DISORDER_MS) {
                return Ok(ControlFlow::Break(()));
            }
            if record.action == "unfreeze" && record.outcome == "done" {
                begun_anew.extend(record.subject.map(Cow::into_owned));
                return Ok(ControlFlow::Continue(()));
            }
            let is_released = record.outcome == "released";
            let item = Item::of(&record.action, is_released, record.epoch_id, record.object_id);
            if let (Some(item), Some(identity), Some(keyset)) = (item, record.identity, record.keyset)
                && !begun_anew.contains(identity.as_ref())
            {
                let time = i64::try_from(boot_ms).unwrap_or(i64::MAX) - age_ms;
                self.remember(table, &identity, &keyset, &item, (time, age_ms));
            }
            Ok(ControlFlow::Continue(()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ages(now_ms: u64, newest_first: &[u64]) -> Vec<i64> {
        let mut age = Age::new(now_ms);
        newest_first.iter().map(|time| age.of(*time)).collect()
    }

    #[test]
    fn ages_are_those_of_a_clock_that_nobody_sets() {
        assert_eq!(ages(1_000, &[990, 900, 100, 0]), [10, 100, 900, 1_000]);
    }

    #[test]
    fn records_that_overtook_others_are_not_made_older() {
        // Two requests that take long and one that is quick, again and again.
        assert_eq!(ages(1_000, &[900, 950, 890, 960, 880]), [100, 50, 110, 40, 120]);
    }

    #[test]
    fn a_clock_that_is_set_back_makes_nothing_older() {
        const HOUR: u64 = 3_600_000;
        // An hour of work, then the clock goes back by 50 hours, then half an hour of work.
        let after = [1_000_000 + HOUR / 2, 1_000_000];
        let before = [1_000_000 + 50 * HOUR, 1_000_000 + 49 * HOUR];
        let seen = ages(1_000_000 + HOUR / 2, &[after, before].concat());
        let half = i64::try_from(HOUR / 2).unwrap();
        assert_eq!(seen, [0, half, half, 3 * half]);
        // The same while the service was down: now is before every record.
        assert_eq!(ages(5, &[50 * HOUR, 49 * HOUR]), [0, 2 * half]);
    }

    #[test]
    fn times_out_of_all_bounds_do_no_harm() {
        assert_eq!(ages(u64::MAX, &[u64::MAX, 0, u64::MAX]), [0, i64::MAX, i64::MAX]);
    }
}
