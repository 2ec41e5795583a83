//! What the audit log says of the ledger: its newest state, and which row was changed last when.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use claviger_audit::LogLine;
use serde::Deserialize;

use super::Mark;
use crate::ServiceError;
use crate::audit_log::{AuditFolder, LogFile, covered_records};
use crate::store::Kind;

/// A record with a state has this in it. Inside a JSON string it can't stand: the quotes would be escaped.
const STATE_FIELD: &str = "\"state\":\"";

#[derive(Deserialize)]
struct Line {
    record: Fields,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    state_seq: Option<u64>,
    #[serde(default)]
    state: Option<String>,
}

#[derive(Deserialize)]
struct Fields {
    action: String,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    rows: Vec<String>,
}

/// A row as a record names it: `kind/id` and the first eight digits of its MAC, or `-` once it is gone.
pub(super) fn row_text(kind: Kind, id: &str, mac: Option<&[u8]>) -> String {
    let short: String = match mac {
        Some(mac) => mac.iter().take(4).map(|byte| format!("{byte:02x}")).collect(),
        None => "-".to_owned(),
    };
    format!("{}/{id} {short}", kind.name())
}

/// The newest state that a log tells of, found while its lines are read, in order. Behind the checkpoint anybody who can write the
/// file may have added lines, with states of old; so there states may not go back.
#[derive(Debug)]
pub(crate) struct Newest {
    covered: u64,
    mark: Option<Mark>,
    /// The first pruned line since.
    gone: Option<u64>,
}

impl Newest {
    /// Of a log whose checkpoint covers so many records.
    pub(crate) fn new(covered: u64) -> Self {
        Self { covered, mark: None, gone: None }
    }

    /// Whether a state was told of.
    pub(crate) fn is_found(&self) -> bool {
        self.mark.is_some()
    }

    /// Takes the next line. What it can't read is named after `path`.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if states go back, or a state can't be read.
    pub(crate) fn take(&mut self, path: &Path, line: &LogLine<'_>) -> Result<(), ServiceError> {
        let line = match line {
            LogLine::Record(line) => line,
            LogLine::Pruned(pruned) => {
                self.gone.get_or_insert(pruned.index);
                return Ok(());
            }
        };
        let Some(mark) = state_of(path, line.record)? else { return Ok(()) };
        if let Some(last) =
            self.mark.as_ref().filter(|last| line.index >= self.covered && last.seq > mark.seq)
        {
            return Err(ServiceError::Audit(format!(
                "{}: record {} tells of state {}, and an earlier one of state {}: somebody wrote there to make an older database \
                 good again. Keep the folder as evidence, and put back a copy of both",
                path.display(),
                line.index,
                mark.seq,
                last.seq
            )));
        }
        (self.mark, self.gone) = (Some(mark), None);
        Ok(())
    }

    /// What was found once all lines are read.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if a record behind the newest state was removed. What is pruned lies before the record that allows
    /// it, which tells of a state itself: a gap behind the newest one can only be there to hide a newer one.
    pub(crate) fn end(&self, path: &Path) -> Result<Option<Mark>, ServiceError> {
        match self.gone {
            None => Ok(self.mark.clone()),
            Some(index) => Err(ServiceError::Audit(format!(
                "{}: record {index} was removed, and nothing is pruned there: somebody did that, perhaps to make an older database \
                 good again. Keep the folder as evidence, and put back a copy of it",
                path.display()
            ))),
        }
    }
}

/// The newest state that the log in this folder tells of; `None` if it tells of none. Reads all of it.
///
/// # Errors
/// [`ServiceError::Io`]; [`ServiceError::Audit`] if a line can't be read; those of [`Newest`].
pub(crate) fn newest_state(folder: &Path) -> Result<Option<Mark>, ServiceError> {
    let folder = AuditFolder::new(folder);
    let mut newest = Newest::new(covered_records(&folder)?);
    let mut outcome = Ok(());
    folder.for_each_line(0, |line| {
        outcome = newest.take(folder.path(), line);
        outcome.is_ok()
    })?;
    outcome?;
    newest.end(folder.path())
}

fn state_of(path: &Path, record: &str) -> Result<Option<Mark>, ServiceError> {
    if !record.contains(STATE_FIELD) {
        return Ok(None);
    }
    let State { state_seq, state } = serde_json::from_str(record).map_err(|_| not_a_record(path))?;
    Ok(state_seq.zip(state).map(|(seq, state)| Mark { seq, state }))
}

fn not_a_record(path: &Path) -> ServiceError {
    ServiceError::Audit(format!("{}: a line is not a record", path.display()))
}

fn parse(path: &Path, line: &[u8]) -> Result<Line, ServiceError> {
    serde_json::from_slice(line).map_err(|_| not_a_record(path))
}

/// The last word of the log on every row that it ever named: the short MAC, `None` for a row that is gone. Reads everything.
///
/// # Errors
/// As [`newest_state`].
pub(super) fn last_words(folder: &Path) -> Result<HashMap<String, Option<String>>, ServiceError> {
    let mut words = HashMap::new();
    // Rows of a change count once its last record, with the state, is there.
    let mut open = Vec::new();
    for LogFile { path, .. } in AuditFolder::new(folder).files()? {
        let file = File::open(&path).map_err(|e| ServiceError::io(&path, e))?;
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(|e| ServiceError::io(&path, e))?;
            // Pruned lines hold no record.
            let Ok(Line { record: fields, .. }) = parse(&path, &line) else { continue };
            if fields.action == "start" {
                open.clear();
            }
            open.extend(fields.rows);
            if fields.state.is_some() {
                words.extend(open.drain(..).filter_map(|text| {
                    let (row, mac) = text.rsplit_once(' ')?;
                    Some((row.to_owned(), (mac != "-").then(|| mac.to_owned())))
                }));
            }
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: usize, record: &str) -> String {
        format!("{{\"index\":{n},\"salt\":\"{:032x}\",\"record\":{record}}}\n", n)
    }

    fn plain(n: usize) -> String {
        // A caller's text that tries to look like a state.
        line(n, "{\"action\":\"derive\",\"key\":\"\\\"state\\\":\\\"00\\\"\",\"state_seq_like\":1}")
    }

    #[test]
    fn a_line_that_brings_back_a_state_of_old_is_no_newest_state() {
        let state =
            |n, seq| line(n, &format!("{{\"action\":\"start\",\"state_seq\":{seq},\"state\":\"s{seq}\"}}"));
        let read = |seqs: &[u64]| {
            let folder = tempfile::tempdir().unwrap();
            let both = |(n, seq): (usize, &u64)| state(2 * n, *seq) + &plain(2 * n + 1);
            let text: String = seqs.iter().enumerate().map(both).collect();
            std::fs::write(folder.path().join("00000000000000000000.jsonl"), text).unwrap();
            newest_state(folder.path()).map(|mark| mark.map(|mark| mark.seq))
        };
        assert_eq!(read(&[6, 7, 7]).unwrap(), Some(7));
        for forged in [&[7, 8, 7][..], &[7, 8, 7, 7, 7], &[8, 7, 6]] {
            let error = read(forged).unwrap_err().to_string();
            assert!(error.contains("an older database good again"), "{forged:?}: {error}");
        }
    }

    #[test]
    fn the_newest_state_is_found_however_far_back_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(newest_state(folder.path()).unwrap(), None);
        let state = |seq: usize| {
            line(seq - 1, &format!("{{\"action\":\"bind\",\"state_seq\":{seq},\"state\":\"s{seq}\"}}"))
        };
        let text: String = [state(1), state(2)].into_iter().chain((2..20_002).map(plain)).collect();
        assert!(text.len() > 2 << 20);
        std::fs::write(folder.path().join("00000000000000000000.jsonl"), text).unwrap();
        std::fs::write(folder.path().join("00000000000000020002.jsonl"), plain(20_002)).unwrap();
        let found = newest_state(folder.path()).unwrap().unwrap();
        assert_eq!((found.seq, found.state.as_str()), (2, "s2"));
    }

    #[test]
    fn a_gap_behind_the_newest_state_is_no_pruning() {
        let state =
            |n: usize| line(n, &format!("{{\"action\":\"bind\",\"state_seq\":{n},\"state\":\"s{n}\"}}"));
        let gap = |n: usize| format!("{{\"index\":{n},\"pruned\":\"{:064x}\"}}\n", n);
        let read = |text: String| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("00000000000000000000.jsonl"), text).unwrap();
            newest_state(folder.path()).map(|mark| mark.map(|mark| mark.seq))
        };
        assert_eq!(read([plain(0), gap(1), gap(2), state(3), plain(4)].concat()).unwrap(), Some(3));
        for hidden in [
            [plain(0), state(1), gap(2), plain(3)].concat(),
            [plain(0), state(1), plain(2), gap(3)].concat(),
            [gap(0), plain(1)].concat(),
        ] {
            let error = read(hidden.clone()).unwrap_err().to_string();
            assert!(error.contains("was removed"), "{hidden}: {error}");
        }
    }

    #[test]
    fn the_last_word_on_a_row_counts_and_only_with_its_state() {
        let folder = tempfile::tempdir().unwrap();
        let text = [
            line(
                0,
                "{\"action\":\"bind\",\"rows\":[\"binding/a 11\",\"binding/b 22\"],\"state_seq\":1,\"state\":\"x\"}",
            ),
            line(1, "{\"action\":\"rows\",\"rows\":[\"binding/a 99\"]}"),
            line(2, "{\"action\":\"start\"}"),
            line(3, "{\"action\":\"unbind\",\"rows\":[\"binding/b -\"],\"state_seq\":2,\"state\":\"y\"}"),
        ];
        std::fs::write(folder.path().join("00000000000000000000.jsonl"), text.concat()).unwrap();
        let words = last_words(folder.path()).unwrap();
        assert_eq!((words["binding/a"].as_deref(), words["binding/b"].as_deref()), (Some("11"), None));
    }
}
