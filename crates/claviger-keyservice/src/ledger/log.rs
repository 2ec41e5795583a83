//! What the audit log says of the ledger: its newest state, and which row was changed last when.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Deserialize;

use super::Mark;
use crate::ServiceError;
use crate::audit_log::{AuditFolder, LogFile, covered_records};
use crate::store::Kind;

/// A record with a state has this in it. Inside a JSON string it can't stand: the quotes would be escaped.
const STATE_FIELD: &[u8] = b"\"state\":\"";

#[derive(Deserialize)]
struct Line {
    index: u64,
    record: Fields,
}

#[derive(Deserialize)]
struct Fields {
    action: String,
    #[serde(default)]
    state_seq: Option<u64>,
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

/// The newest state that the log in this folder tells of; `None` if it tells of none. Reads from the end, to the newest state that
/// the log's checkpoint covers: behind it anybody who can write the file may have added lines, with states of old.
///
/// # Errors
/// [`ServiceError::Io`]; [`ServiceError::Audit`] if a line can't be read, or if states go back.
pub(crate) fn newest_state(folder: &Path) -> Result<Option<Mark>, ServiceError> {
    let folder = AuditFolder::new(folder);
    let covered = covered_records(&folder)?;
    let mut newest: Option<Mark> = None;
    folder.each_line_backward(|path, line| {
        let Some((index, mark)) = state_of(path, line)? else { return Ok(ControlFlow::Continue(())) };
        match &newest {
            None => newest = Some(mark),
            Some(last) if mark.seq > last.seq => {
                return Err(ServiceError::Audit(format!(
                    "{}: record {index} tells of state {}, and a later one of state {}: somebody wrote there to make an older \
                     database good again. Keep the folder as evidence, and put back a copy of both",
                    path.display(),
                    mark.seq,
                    last.seq
                )));
            }
            Some(_) => {}
        }
        Ok(if index < covered { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(newest)
}

fn state_of(path: &Path, line: &[u8]) -> Result<Option<(u64, Mark)>, ServiceError> {
    if !line.windows(STATE_FIELD.len()).any(|window| window == STATE_FIELD) {
        return Ok(None);
    }
    let Line { index, record } = parse(path, line)?;
    Ok(record.state_seq.zip(record.state).map(|(seq, state)| (index, Mark { seq, state })))
}

fn parse(path: &Path, line: &[u8]) -> Result<Line, ServiceError> {
    serde_json::from_slice(line)
        .map_err(|_| ServiceError::Audit(format!("{}: a line is not a record", path.display())))
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
            |seq| line(0, &format!("{{\"action\":\"start\",\"state_seq\":{seq},\"state\":\"s{seq}\"}}"));
        let read = |seqs: &[u64]| {
            let folder = tempfile::tempdir().unwrap();
            let text: String = seqs.iter().map(|seq| state(*seq) + &plain(0)).collect();
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
        let state =
            |seq| line(0, &format!("{{\"action\":\"bind\",\"state_seq\":{seq},\"state\":\"s{seq}\"}}"));
        let text: String = [state(1), state(2)].into_iter().chain((0..20_000).map(plain)).collect();
        assert!(text.len() > 2 << 20);
        std::fs::write(folder.path().join("00000000000000000000.jsonl"), text).unwrap();
        std::fs::write(folder.path().join("00000000000000020002.jsonl"), plain(20_002)).unwrap();
        let found = newest_state(folder.path()).unwrap().unwrap();
        assert_eq!((found.seq, found.state.as_str()), (2, "s2"));
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
