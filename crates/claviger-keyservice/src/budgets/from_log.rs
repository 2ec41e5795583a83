//! What was released before this unlock, read from the end of the log as far back as the longest window.
//!
//! Only lines that the service sealed count, and only their times: whoever can write the log's folder can add some that have no
//! seal, of any year.
//!
//! The log has the wall clock's time, which can be set. How long ago something was is found on the way back: the time between
//! two records is what the clock says, and nothing where the clock was set back. So setting it back never makes what was
//! released older; it makes it younger, for once. A clock that was set forward can't be told from time that went by.
//!
//! A log of a month is long. So it is read apart from what counts, without anybody's turn ([`Counted`]); whoever has the turn reads only
//! what was written since.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

use claviger_keyapi::Id16;
use serde::Deserialize;

use super::{Budgets, Item};
use crate::ServiceError;
use crate::audit_log::OwnLines;
use crate::policy::{Budget, Table};

/// Records stand in the order in which they were written and have the time at which their requests came; a request takes less
/// than this. A record that is younger than the one behind it by more tells that the clock was set back.
const DISORDER_MS: i64 = 10 * 60 * 1000;

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

/// Records after which it is looked again whether more of them could change anything.
const LOOK_EVERY_RECORDS: u64 = 1_000;

/// What a part of the log tells of, apart from what counts: reading takes long, and nobody should wait for it.
pub(crate) struct Counted {
    budgets: Budgets,
    /// Identities that were unfrozen in this part: what was before counts no more.
    begun_anew: BTreeSet<String>,
    /// Index of the first record behind this part.
    next_index: u64,
    /// Whether what lies before this part could change nothing.
    pub(crate) is_all: bool,
}

/// Which part of the log.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) log: &'a OwnLines,
    /// No record before this one.
    pub(crate) from_index: u64,
    /// No more records than this, the newest.
    pub(crate) records_max: u64,
    pub(crate) now_ms: u64,
    pub(crate) boot_ms: u64,
}

impl Counted {
    /// Reads a part of the log, the newest records first, as far back as they can change what is left of a budget.
    ///
    /// # Errors
    /// Those of [`OwnLines::each_backward`].
    pub(crate) fn read(table: &Table, part: Part<'_>) -> Result<Self, ServiceError> {
        let mut counted = Self {
            budgets: Budgets::default(),
            begun_anew: BTreeSet::new(),
            next_index: part.from_index,
            is_all: true,
        };
        let longest_ms = table.values().flat_map(|budgets| budgets.values()).map(Budget::window_ms).max();
        let mut age = Age::new(part.now_ms);
        let mut records = 0;
        part.log.each_backward(|index, line| {
            counted.next_index = counted.next_index.max(index + 1);
            let Some(longest_ms) = longest_ms else { return Ok(ControlFlow::Break(())) };
            if index < part.from_index {
                return Ok(ControlFlow::Break(()));
            }
            if records >= part.records_max {
                counted.is_all = false;
                return Ok(ControlFlow::Break(()));
            }
            records += 1;
            let Some(line) = line else { return Ok(ControlFlow::Continue(())) };
            let record: Fields<'_> = serde_json::from_str(line.record)
                .map_err(|_| ServiceError::Audit(format!("record {index} is none of the service")))?;
            let age_ms = age.of(record.time_ms);
            let could_change = || !counted.budgets.are_full(table, age_ms.saturating_sub(DISORDER_MS));
            if age_ms > longest_ms.saturating_add(DISORDER_MS)
                || (records.is_multiple_of(LOOK_EVERY_RECORDS) && !could_change())
            {
                return Ok(ControlFlow::Break(()));
            }
            counted.take(table, record, (i64::try_from(part.boot_ms).unwrap_or(i64::MAX) - age_ms, age_ms));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(counted)
    }

    fn take(&mut self, table: &Table, record: Fields<'_>, when: (i64, i64)) {
        if record.action == "unfreeze" && record.outcome == "done" {
            self.begun_anew.extend(record.subject.map(Cow::into_owned));
            return;
        }
        let is_released = record.outcome == "released";
        let item = Item::of(&record.action, is_released, record.epoch_id, record.object_id);
        if let (Some(item), Some(identity), Some(keyset)) = (item, record.identity, record.keyset)
            && !self.begun_anew.contains(identity.as_ref())
        {
            self.budgets.remember(table, &identity, &keyset, &item, when);
        }
    }

    /// Reads what was written since, and how many records that were.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn catch_up(&mut self, table: &Table, part: Part<'_>) -> Result<u64, ServiceError> {
        let since = Self::read(table, Part { from_index: self.next_index, records_max: u64::MAX, ..part })?;
        let records = since.next_index - self.next_index;
        // What came later goes first: a window that is full has no room for what is older.
        let before = std::mem::take(&mut self.budgets);
        for identity in &since.begun_anew {
            before.forget(identity);
        }
        since.budgets.add(before, table);
        self.budgets = since.budgets;
        self.begun_anew.extend(since.begun_anew);
        self.next_index = since.next_index;
        Ok(records)
    }

    /// Adds all of it to what counts. May be done again: nothing counts twice.
    pub(crate) fn pour_into(self, budgets: &Budgets, table: &Table) {
        budgets.add(self.budgets, table);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::audit_log::{BEFORE_ALL, SealKey};
    use crate::policy::Policy;

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

    const EDGE: &str = "gateway:edge";

    fn table(objects_max: u32) -> Table {
        let text = format!(
            "[[grant]]\nidentity = \"{EDGE}\"\nkeyset = \"default\"\nverbs = [\"read\"]\n\
             [[budget]]\nidentity = \"{EDGE}\"\nkeyset = \"default\"\nwindow_s = 86400\nobjects_max = {objects_max}\n"
        );
        Policy::parse_text(&text).unwrap().budgets().clone()
    }

    /// A log of releases of these objects to one gateway, one a second, or of its unfreezing.
    fn log(objects: &[Option<u8>]) -> tempfile::TempDir {
        log_of(objects, false)
    }

    fn key() -> SealKey {
        SealKey::new(zeroize::Zeroizing::new([1; 32]))
    }

    fn line(index: u64, record: &str) -> String {
        let mut line = Vec::new();
        claviger_audit::Line { index, salt: [0; 16], record }.write(&mut line);
        String::from_utf8(line).unwrap()
    }

    fn log_of(objects: &[Option<u8>], is_sealed: bool) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let mut before = BEFORE_ALL;
        let lines: String = objects
            .iter()
            .enumerate()
            .map(|(index, object)| {
                let record = object.map_or_else(
                    || format!("\"action\":\"unfreeze\",\"outcome\":\"done\",\"subject\":\"{EDGE}\""),
                    |object| {
                        format!(
                            "\"action\":\"derive\",\"outcome\":\"released\",\"identity\":\"{EDGE}\",\"keyset\":\"default\",\
                             \"epoch_id\":\"{}\",\"object_id\":\"{}\"",
                            Id16([0; 16]),
                            Id16([object; 16])
                        )
                    },
                );
                let record = format!("{{\"time_ms\":{},{record}}}", 1_000 * index);
                let (index, salt) = (index as u64, [0; 16]);
                let sealed = is_sealed.then(|| key().seal((index, &before), &salt, &record).unwrap());
                let record = sealed.as_ref().unwrap_or(&record);
                before = claviger_audit::Line { index, salt, record }.entry();
                line(index, record)
            })
            .collect();
        std::fs::write(folder.path().join(format!("{:020}.jsonl", 0)), lines).unwrap();
        folder
    }

    fn own(folder: &Path) -> OwnLines {
        OwnLines::of_folder(folder, key(), None)
    }

    fn part(log: &OwnLines) -> Part<'_> {
        Part { log, from_index: 0, records_max: u64::MAX, now_ms: 100_000, boot_ms: 100_000 }
    }

    fn used(counted: &Counted, table: &Table) -> u64 {
        let (identity, budgets) = table.iter().next().unwrap();
        counted.budgets.len(identity, "default", &budgets["default"], 100_000).1
    }

    #[test]
    fn a_log_that_is_read_in_two_parts_counts_as_one_that_is_read_at_once() {
        // All lengths of the first part, with and without an unfreezing at any place.
        for unfrozen_at in 0..=12 {
            let mut objects: Vec<_> = [1, 2, 1, 3, 4, 2, 5, 5, 6, 1, 7, 8].map(Some).to_vec();
            objects.insert(unfrozen_at, None);
            let whole = log(&objects);
            for (objects_max, cut) in
                [3, 5, 100].into_iter().flat_map(|max| (0..=13).map(move |cut| (max, cut)))
            {
                let table = table(objects_max);
                let at_once = Counted::read(&table, part(&own(whole.path()))).unwrap();
                let first = log(&objects[..cut]);
                let mut counted = Counted::read(&table, part(&own(first.path()))).unwrap();
                assert_eq!(counted.catch_up(&table, part(&own(whole.path()))).unwrap(), 13 - cut as u64);
                assert_eq!(
                    used(&counted, &table),
                    used(&at_once, &table),
                    "{unfrozen_at} {objects_max} {cut}"
                );
                assert_eq!(counted.catch_up(&table, part(&own(whole.path()))).unwrap(), 0);
                let live = Budgets::default();
                counted.pour_into(&live, &table);
                let (identity, budgets) = table.iter().next().unwrap();
                assert_eq!(
                    live.len(identity, "default", &budgets["default"], 100_000).1,
                    used(&at_once, &table)
                );
            }
        }
    }

    #[test]
    fn no_more_is_read_than_was_allowed_or_can_change_anything() {
        let objects: Vec<_> = (0..5_000).map(|n| Some(u8::try_from(n % 200).unwrap())).collect();
        let folder = log(&objects);
        let own = own(folder.path());
        let some = Counted::read(&table(1_000), Part { records_max: 10, ..part(&own) }).unwrap();
        assert!(!some.is_all && used(&some, &table(1_000)) == 10 && some.next_index == 5_000);
        let all = Counted::read(&table(1_000), part(&own)).unwrap();
        assert!(all.is_all && used(&all, &table(1_000)) == 200);
        // Once the window is full, what is older has no room: the broken beginning of the file is not met.
        let path = folder.path().join(format!("{:020}.jsonl", 0));
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("broken\n{text}")).unwrap();
        let full = Counted::read(&table(50), part(&own)).unwrap();
        assert!(full.is_all && used(&full, &table(50)) == 50);
        assert!(Counted::read(&table(1_000), part(&own)).is_err());
    }

    #[test]
    fn a_line_that_anybody_can_add_makes_no_release_older_and_none_can_be_taken_away() {
        const DAY_MS: u64 = 86_400_000;
        let folder = log_of(&[Some(1), Some(2), Some(3)], true);
        let path = folder.path().join(format!("{:020}.jsonl", 0));
        let text = std::fs::read_to_string(&path).unwrap();
        let sealed = || OwnLines::of_folder(folder.path(), key(), Some(0));
        let known = sealed();
        let table = table(10);
        let start = |time_ms: u64| {
            line(3, &format!("{{\"time_ms\":{time_ms},\"action\":\"start\",\"outcome\":\"done\"}}"))
        };
        // Forty days from now on the clock, so that all that stands before it is as old as that.
        std::fs::write(&path, text.clone() + &start(40 * DAY_MS)).unwrap();
        let counted = Counted::read(&table, part(&sealed())).unwrap();
        assert_eq!(used(&counted, &table), 3);
        // The clock's word counts.
        std::fs::write(&path, &text).unwrap();
        let at = Part { now_ms: 41 * DAY_MS, boot_ms: 100_000, ..part(&known) };
        assert_eq!(used(&Counted::read(&table, at).unwrap(), &table), 0);
        for forged in [
            text.replace("derive", "derivE"),
            text.replace("released", "refused"),
            text.clone() + &line(3, "{\"time_ms\":0,\"action\":\"unfreeze\",\"outcome\":\"done\"}"),
        ] {
            std::fs::write(&path, &forged).unwrap();
            // While the service runs, and before it began.
            for log in [&known, &sealed()] {
                let counted = Counted::read(&table, part(log));
                assert!(counted.is_err() || used(&counted.unwrap(), &table) == 3, "{forged}");
            }
        }
        // The end of the log is hidden for a while, or its beginning.
        for shown in [0, 1, 2] {
            let lines: Vec<&str> = text.lines().collect();
            for part_of_it in [&lines[..shown], &lines[shown + 1..]] {
                std::fs::write(&path, part_of_it.iter().map(|line| format!("{line}\n")).collect::<String>())
                    .unwrap();
                assert!(
                    matches!(Counted::read(&table, part(&known)), Err(ServiceError::Audit(_))),
                    "{shown}"
                );
            }
        }
        // A gap that no pruning explains.
        let first = text.lines().next().unwrap();
        let parsed = claviger_audit::Line::parse(first.as_bytes()).unwrap();
        let mut gap = Vec::new();
        claviger_audit::Pruned { index: 0, entry: parsed.entry() }.write(&mut gap);
        let hidden = text.replace(&format!("{first}\n"), std::str::from_utf8(&gap).unwrap());
        std::fs::write(&path, hidden).unwrap();
        assert!(matches!(Counted::read(&table, part(&sealed())), Err(ServiceError::Audit(_))));
    }

    #[test]
    fn times_out_of_all_bounds_do_no_harm() {
        assert_eq!(ages(u64::MAX, &[u64::MAX, 0, u64::MAX]), [0, i64::MAX, i64::MAX]);
    }
}
