//! Which records may be missing: the log itself says so.
//!
//! The first record fixes for how long records are kept (`retention_s`; ten years where it says nothing). A record of the action
//! `prune` names `before_ms`, a moment that is older than that when the record is written, and `pruned_before`, the index
//! of the first record that is not older than that moment. A pruned line is in order if such a record, under the log's
//! own checkpoint, covers it, and if the last record before it that is still there, and whose time counts, is older than `before_ms`
//! too.
//!
//! Only a record of what was `done`, by a proposal, that ends in a seal is one. Anybody who can write the folder while the service
//! is down can add what a locked service writes, and the next unlock signs that; it has no seal. So its time does not count either,
//! wherever seals have begun. A verifier can't check a seal. It need not: the service signs no checkpoint over a seal that it did
//! not make.

use serde::Deserialize;

use crate::line::Line;
use crate::pruned::LogLine;

/// How long records are kept if the log's first record does not say, in seconds: ten years.
pub const RETENTION_S_DEFAULT: u64 = 10 * 365 * 86_400;

/// What matters here of a record.
#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(default)]
    time_ms: u64,
    #[serde(default)]
    action: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    proposal: Option<String>,
    #[serde(default)]
    retention_s: Option<u64>,
    #[serde(default)]
    before_ms: Option<u64>,
    #[serde(default)]
    pruned_before: Option<u64>,
}

/// For how long a log keeps its records, in seconds, by its first record.
#[must_use]
pub fn retention_s(first: &Line<'_>) -> u64 {
    let fields = serde_json::from_str::<Fields>(first.record).ok();
    fields.and_then(|fields| fields.retention_s).unwrap_or(RETENTION_S_DEFAULT)
}

/// What a sealed record ends in, apart from the seal's 32 hex digits.
const SEAL: (&str, &str) = (",\"seal\":\"", "\"}");
const SEAL_DIGITS: usize = 32;

/// Whether a record ends in something that has the form of a seal.
#[must_use]
pub fn has_seal(record: &str) -> bool {
    let rest = record.strip_suffix(SEAL.1);
    let parts = rest.and_then(|rest| rest.split_at_checked(rest.len().checked_sub(SEAL_DIGITS)?));
    parts.is_some_and(|(open, digits)| {
        open.ends_with(SEAL.0) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// Whether these fields are those of a pruning that was decided and done.
fn is_licence(fields: &Fields) -> bool {
    fields.action == "prune" && fields.outcome == "done" && fields.proposal.is_some()
}

/// Before which index a record allows others to be missing, if it does: one that the caller knows the service to have written.
#[must_use]
pub fn allowed_before(record: &str) -> Option<u64> {
    serde_json::from_str::<Fields>(record).ok().filter(is_licence)?.pruned_before
}

/// Counts the pruned lines of a log and finds those that nothing allows. The verifier's rule; the service asks it before it prunes.
#[derive(Debug)]
pub struct Pruning {
    retention_ms: u64,
    count: u64,
    next_index: u64,
    /// Of pruned lines that no record covers yet: the first and the last.
    open: Option<(u64, u64)>,
    /// The newest record that stands right before one of them, Unix milliseconds.
    neighbour_ms: u64,
    last_kept_ms: u64,
    /// There was a record with a seal: from here on the times of others don't count.
    is_sealed: bool,
}

impl Default for Pruning {
    fn default() -> Self {
        Self::new()
    }
}

impl Pruning {
    /// Begins with a log's first line.
    #[must_use]
    pub fn new() -> Self {
        Self {
            retention_ms: RETENTION_S_DEFAULT.saturating_mul(1000),
            count: 0,
            next_index: 0,
            open: None,
            neighbour_ms: 0,
            last_kept_ms: 0,
            is_sealed: false,
        }
    }

    /// Takes the next line. Those from `signed` on are covered by no checkpoint: they allow nothing.
    pub fn take(&mut self, line: &LogLine<'_>, signed: u64) {
        self.next_index = line.index() + 1;
        let line = match line {
            LogLine::Pruned(pruned) => {
                self.count += 1;
                self.neighbour_ms = self.neighbour_ms.max(self.last_kept_ms);
                let first = self.open.map_or(pruned.index, |(first, _)| first);
                self.open = Some((first, pruned.index));
                return;
            }
            LogLine::Record(line) => line,
        };
        let Ok(fields) = serde_json::from_str::<Fields>(line.record) else { return };
        let has_seal = has_seal(line.record);
        self.is_sealed |= has_seal;
        if has_seal || !self.is_sealed {
            self.last_kept_ms = fields.time_ms;
        }
        if line.index == 0
            && let Some(retention_s) = fields.retention_s
        {
            self.retention_ms = retention_s.saturating_mul(1000);
        }
        if is_licence(&fields) && has_seal && line.index < signed {
            self.allow(&fields, line.index);
        }
    }

    /// Whether nothing is missing without a reason once this record comes next, sealed and under a checkpoint.
    #[must_use]
    pub fn ends_well_with(mut self, record: &str) -> bool {
        if let Ok(fields) = serde_json::from_str::<Fields>(record)
            && is_licence(&fields)
        {
            self.allow(&fields, self.next_index);
        }
        self.open.is_none()
    }

    fn allow(&mut self, fields: &Fields, index: u64) {
        let (Some(before_ms), Some(end)) = (fields.before_ms, fields.pruned_before) else { return };
        let is_old = before_ms.saturating_add(self.retention_ms) <= fields.time_ms;
        let covers = self.open.is_some_and(|(_, last)| last < end) && self.neighbour_ms < before_ms;
        if is_old && end <= index && covers {
            (self.open, self.neighbour_ms) = (None, 0);
        }
    }

    /// The first pruned line that nothing allows.
    #[must_use]
    pub fn not_allowed(&self) -> Option<u64> {
        self.open.map(|(first, _)| first)
    }

    /// How many lines are pruned.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pruned::Pruned;

    #[test]
    fn only_what_ends_in_a_seal_has_one() {
        let digits = "0123456789abcdef".repeat(2);
        assert!(has_seal(&format!("{{\"a\":1,\"seal\":\"{digits}\"}}")));
        for none in [
            String::new(),
            "{\"a\":1}".into(),
            format!("{{\"a\":1,\"seal\":\"{digits}\" }}"),
            format!("{{\"seal\":\"{digits}\",\"a\":1}}"),
            format!("{{\"a\":1,\"seal\":\"{}\"}}", &digits[1..]),
            format!("{{\"a\":1,\"seal\":\"{}\"}}", digits.to_uppercase()),
            format!("{{\"a\":1,\"seal\":\"{}é\"}}", &digits[2..]),
        ] {
            assert!(!has_seal(&none), "{none}");
        }
    }

    #[test]
    fn only_a_pruning_that_was_done_allows_anything() {
        let record = |action: &str, outcome: &str, rest: &str| {
            format!("{{\"action\":\"{action}\",\"outcome\":\"{outcome}\",\"pruned_before\":7{rest}}}")
        };
        assert_eq!(allowed_before(&record("prune", "done", ",\"proposal\":\"1\"")), Some(7));
        for none in [
            record("prune", "refused", ",\"proposal\":\"1\""),
            record("prune", "done", ""),
            record("start", "done", ",\"proposal\":\"1\""),
        ] {
            assert_eq!(allowed_before(&none), None, "{none}");
        }
    }

    const DAY_MS: u64 = 86_400_000;

    /// What a verifier makes of these: records, with a seal or in square brackets without, and numbers of pruned lines in a row.
    fn verdict(lines: &[&str]) -> Option<u64> {
        let mut pruning = Pruning::new();
        let mut index = 0;
        for line in lines {
            if let Ok(count) = line.parse::<u64>() {
                for at in index..index + count {
                    pruning.take(&LogLine::Pruned(Pruned { index: at, entry: [0; 32] }), u64::MAX);
                }
                index += count;
                continue;
            }
            let bare = line.strip_prefix('[').and_then(|line| line.strip_suffix(']'));
            let seal =
                if bare.is_some() { String::new() } else { format!(",\"seal\":\"{}\"", "0f".repeat(16)) };
            let record = format!("{{{}{seal}}}", bare.unwrap_or(line));
            pruning.take(&LogLine::Record(Line { index, salt: [0; 16], record: &record }), u64::MAX);
            index += 1;
        }
        pruning.not_allowed()
    }

    fn at(day: u64, rest: &str) -> String {
        format!("\"time_ms\":{}{rest}", day * DAY_MS)
    }

    #[test]
    fn the_time_of_a_record_without_a_seal_keeps_no_pruning_from_being_in_order() {
        let init = at(1, &format!(",\"action\":\"init\",\"retention_s\":{}", 90 * 86_400));
        let start = |day: u64| format!("[{}]", at(day, ",\"action\":\"start\",\"outcome\":\"done\""));
        let prune = |end: u64| {
            let rest = format!(",\"before_ms\":{},\"pruned_before\":{end}", 100 * DAY_MS);
            at(200, &format!(",\"action\":\"prune\",\"outcome\":\"done\",\"proposal\":\"1\"{rest}"))
        };
        for day in [5, 100, 90_000] {
            let open = verdict(&[&init, "9", &start(day), "9", &at(150, ""), &prune(20)]);
            assert_eq!(open, None, "day {day}");
        }
        // One with a seal counts, and so do all of a log in which there are none before the first.
        assert_eq!(verdict(&[&init, "9", &at(100, ""), "9", &prune(20)]), Some(1));
        let unsealed = format!("[{init}]");
        assert_eq!(verdict(&[&unsealed, "9", &start(100), "9", &prune(20)]), Some(1));
        assert_eq!(verdict(&[&unsealed, "9", &start(99), "9", &prune(20)]), None);
        assert_eq!(verdict(&[&unsealed, "9", &at(5, ""), &start(100), "9", &prune(21)]), None);
    }

    #[test]
    fn whoever_is_about_to_prune_is_told_what_a_verifier_would_say() {
        fn line(index: u64, record: &str) -> LogLine<'_> {
            LogLine::Record(Line { index, salt: [0; 16], record })
        }
        let ask = |neighbour_day: u64, record: &str| {
            let sealed = |text: String| format!("{{{text},\"seal\":\"{}\"}}", "0f".repeat(16));
            let init = sealed(at(1, &format!(",\"retention_s\":{}", 90 * 86_400)));
            let neighbour = sealed(at(neighbour_day, ""));
            let mut pruning = Pruning::new();
            pruning.take(&line(0, &init), u64::MAX);
            pruning.take(&line(1, &neighbour), u64::MAX);
            pruning.take(&LogLine::Pruned(Pruned { index: 2, entry: [0; 32] }), u64::MAX);
            pruning.ends_well_with(record)
        };
        let prune = |day: u64, end: u64| {
            let rest = format!(",\"before_ms\":{},\"pruned_before\":{end}", 100 * DAY_MS);
            let fields = ",\"action\":\"prune\",\"outcome\":\"done\",\"proposal\":\"1\"";
            format!("{{{}}}", at(day, &format!("{fields}{rest}")))
        };
        assert!(ask(99, &prune(200, 3)));
        assert!(!ask(100, &prune(200, 3)), "its neighbour is too young");
        assert!(!ask(99, &prune(189, 3)), "the retention is not over");
        assert!(!ask(99, &prune(200, 2)) && !ask(99, &prune(200, 4)) && !ask(99, "{}"));
    }
}
