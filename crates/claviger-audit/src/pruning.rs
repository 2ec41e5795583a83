//! Which records may be missing: the log itself says so.
//!
//! The first record fixes for how long records are kept (`retention_s`; ten years where it says nothing). A record of the action
//! `prune` names `before_ms`, a moment that is older than that when the record is written, and `pruned_before`, the index
//! of the first record that is not older than that moment. A pruned line is in order if such a record, under the log's
//! own checkpoint, covers it, and if the last record before it that is still there is older than `before_ms` too.
//!
//! Only a record of what was `done`, by a proposal, that ends in a seal is one. Anybody who can write the folder while the service
//! is down can add what a locked service writes, and the next unlock signs that; it has no seal. A verifier can't check a
//! seal. It need not: the service signs no checkpoint over a seal that it did not make.

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

/// Counts the pruned lines of a log and finds those that nothing allows.
#[derive(Debug)]
pub(crate) struct Pruning {
    retention_ms: u64,
    count: u64,
    /// Of pruned lines that no record covers yet: the first and the last.
    open: Option<(u64, u64)>,
    /// The newest record that stands right before one of them, Unix milliseconds.
    neighbour_ms: u64,
    last_kept_ms: u64,
}

impl Pruning {
    pub(crate) fn new() -> Self {
        Self {
            retention_ms: RETENTION_S_DEFAULT.saturating_mul(1000),
            count: 0,
            open: None,
            neighbour_ms: 0,
            last_kept_ms: 0,
        }
    }

    /// Takes the next line. Those from `signed` on are covered by no checkpoint: they allow nothing.
    pub(crate) fn take(&mut self, line: &LogLine<'_>, signed: u64) {
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
        self.last_kept_ms = fields.time_ms;
        if line.index == 0
            && let Some(retention_s) = fields.retention_s
        {
            self.retention_ms = retention_s.saturating_mul(1000);
        }
        if is_licence(&fields) && has_seal(line.record) && line.index < signed {
            self.allow(&fields, line.index);
        }
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
    pub(crate) fn not_allowed(&self) -> Option<u64> {
        self.open.map(|(first, _)| first)
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
