//! Removing old records of releases from the log, by two operators, once the retention is over that was fixed when the service was
//! made.
//!
//! First the record `prune` is in the log and under a checkpoint, then files are rewritten one by one; so at no moment anything is
//! missing that the log does not account for. What is left to do stands in a file, so that a crash only delays it. Lines
//! keep their entries: tree, tiles and checkpoints stay as they are (`claviger_audit::pruning` says what a verifier accepts).

use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use claviger_audit::pruned::{LogLine, Pruned};
use claviger_audit::pruning::Pruning;
use claviger_audit::{Line, pruning};
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::audit_log::{AuditFolder, Lines, LogFile, Next, OwnLines};
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::files::{replace, sync_folder};
use crate::service::Core;
use crate::vault::Vault;

/// What is still to be pruned, in the log's folder.
const TASK_FILE: &str = "prune";
/// Records that tell of keys that were released, or not: what accumulates. Everything else is kept for ever.
const RELEASES: [&str; 6] = ["session", "lease", "derive", "continue", "finish-upload", "register-epoch"];

/// Whether a task is being done.
#[derive(Default)]
pub(crate) struct Pruner(AtomicBool);

/// A pruning that was decided.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Task {
    /// Records before this moment, Unix milliseconds …
    before_ms: u64,
    /// … and before this index.
    pruned_before: u64,
    /// The record `prune` stands at this index or after it.
    recorded_from: u64,
}

#[derive(Deserialize)]
struct Fields {
    time_ms: u64,
    action: String,
    #[serde(default)]
    state: Option<String>,
    #[serde(default)]
    rows: Vec<String>,
    #[serde(default)]
    before_ms: Option<u64>,
}

impl Core {
    fn audit_folder(&self) -> AuditFolder {
        AuditFolder::new(&self.config.audit_folder())
    }

    fn task_file(&self) -> PathBuf {
        self.config.audit_folder().join(TASK_FILE)
    }

    /// Whether records before this moment may be pruned.
    ///
    /// # Errors
    /// [`ServiceError::Question`] if the retention is not over.
    pub(crate) fn check_pruning(&self, vault: &Vault, before_ms: u64) -> Result<(), ServiceError> {
        let mut retention_s = None;
        self.own_lines(vault)?.each(0, |_, first| {
            retention_s = first.map(pruning::retention_s);
            false
        })?;
        let retention_s = retention_s.ok_or(ServiceError::Damaged("first record of the audit log"))?;
        let newest_ms = self.clock.now_ms().saturating_sub(retention_s.saturating_mul(1000));
        if before_ms <= newest_ms {
            return Ok(());
        }
        let days = retention_s / 86_400;
        Err(ServiceError::Question(format!(
            "records are kept for {days} days, as was fixed when the service was made: nothing after {newest_ms} (Unix \
             milliseconds) can be pruned now"
        )))
    }

    /// The record that tells of the pruning. From here on the log writes a new file, so that all before it can be rewritten. Reads
    /// the whole log: what is missing from it must be so already by what it tells, since this record would allow it from now on.
    ///
    /// # Errors
    /// [`ServiceError::Question`] if there is nothing to prune.
    pub(crate) fn prune_record(
        &self,
        vault: &Vault,
        info: &RequestInfo,
        before_ms: u64,
    ) -> Result<Record, ServiceError> {
        self.check_pruning(vault, before_ms)?;
        let lines = self.own_lines(vault)?;
        let pruned_before = first_since(&lines, before_ms)?;
        let task = Task { before_ms, pruned_before, recorded_from: self.audit.records() };
        // What every verifier will make of it.
        let (mut verifier, mut some) = (Pruning::new(), false);
        lines.each(0, |line, record| {
            if line.index() >= task.pruned_before {
                return false;
            }
            let fields = record.and_then(|record| serde_json::from_str::<Fields>(record.record).ok());
            some |= fields.is_some_and(|fields| is_release(&fields));
            match line {
                LogLine::Record(record) if is_to_go(record, &task) => {
                    let gone = Pruned { index: record.index, entry: record.entry() };
                    verifier.take(&LogLine::Pruned(gone), u64::MAX);
                }
                line => verifier.take(line, u64::MAX),
            }
            true
        })?;
        if !some {
            let text = "there is no record of a release before that moment".to_owned();
            return Err(ServiceError::Question(text));
        }
        let mut record = info.record("prune", Outcome::Done);
        record.before_ms = Some(before_ms);
        record.pruned_before = Some(task.pruned_before);
        check_verdict(verifier, &record)?;
        self.audit.begin_file()?;
        Ok(record)
    }

    /// The record is in the log: what is to be done is written down, and done soon.
    pub(crate) fn begin_pruning(&self, record: &Record, recorded_from: u64) {
        let (Some(before_ms), Some(pruned_before)) = (record.before_ms, record.pruned_before) else { return };
        let task = Task { before_ms, pruned_before, recorded_from };
        // Plain numbers: there is nothing that could fail.
        let text = serde_json::to_vec(&task).unwrap_or_default();
        if let Err(error) = replace(&self.task_file(), &text) {
            tracing::error!(%error, "nothing is pruned: propose it again");
        }
    }

    /// Does what is left to be done, if anything; to be called now and then. Blocks, for as long as reading the log takes.
    ///
    /// # Errors
    /// [`ServiceError`]; it is tried again.
    pub(crate) fn prune_if_decided(&self) -> Result<(), ServiceError> {
        let Ok(vault) = self.vault() else { return Ok(()) };
        if self.pruner.0.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let done = self.try_prune(&vault);
        self.pruner.0.store(false, Ordering::SeqCst);
        done
    }

    fn try_prune(&self, vault: &Vault) -> Result<(), ServiceError> {
        let path = self.task_file();
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            text => text.map_err(|e| ServiceError::io(&path, e))?,
        };
        let task: Task = serde_json::from_slice(&text).map_err(|_| ServiceError::Damaged("pruning"))?;
        let folder = self.audit_folder();
        if is_recorded(&self.own_lines(vault)?, &task)? {
            // Under a checkpoint before the first record goes: no verifier may find a gap that nothing explains.
            self.audit.write_checkpoint()?;
            let files = folder.files()?;
            let finished = files.windows(2).map(|pair| &pair[0]);
            for file in finished.filter(|file| file.first_index < task.pruned_before) {
                prune_file(file, &task)?;
            }
            tracing::info!(before = task.pruned_before, "old records of releases are pruned");
        } else {
            tracing::error!("a pruning that the log does not tell of is not done");
        }
        fs::remove_file(&path).map_err(|e| ServiceError::io(&path, e))?;
        sync_folder(folder.path())
    }
}

/// Index of the first record of this moment or later, or the one behind the last. Nothing is missing from the log that it does not
/// account for: whoever took out younger records finds no pruning that would cover them.
fn first_since(lines: &OwnLines, time_ms: u64) -> Result<u64, ServiceError> {
    let mut first = None;
    lines.each_backward(|index, record| {
        let fields = record.map(|record| serde_json::from_str::<Fields>(record.record));
        let is_old = |fields: Result<Fields, _>| fields.is_ok_and(|fields| fields.time_ms < time_ms);
        if fields.is_some_and(|fields| !is_old(fields)) {
            first = Some(index);
        }
        first.get_or_insert(index + 1);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(first.unwrap_or(0))
}

/// A log that is signed and does not verify can't be mended any more: what a verifier would not allow is not begun.
fn check_verdict(verifier: Pruning, record: &Record) -> Result<(), ServiceError> {
    let mut record = record.clone();
    record.proposal.get_or_insert_default();
    let bytes = record.to_bytes();
    let record = std::str::from_utf8(&bytes).map_err(|_| ServiceError::Damaged("audit record"))?;
    if verifier.ends_well_with(record) {
        return Ok(());
    }
    Err(ServiceError::Question(
        "nothing is pruned: whoever verifies the log would not find it allowed, by the times in its records"
            .to_owned(),
    ))
}

/// Whether the service wrote down the same as done, by a proposal: the task's file is not believed.
fn is_recorded(log: &OwnLines, task: &Task) -> Result<bool, ServiceError> {
    let mut found = false;
    log.each(task.recorded_from, |_, line| {
        found = line.is_some_and(|line| {
            pruning::allowed_before(line.record) == Some(task.pruned_before)
                && serde_json::from_str::<Fields>(line.record)
                    .is_ok_and(|fields| fields.before_ms == Some(task.before_ms))
        });
        !found
    })?;
    Ok(found)
}

fn is_release(fields: &Fields) -> bool {
    RELEASES.contains(&fields.action.as_str()) && fields.state.is_none() && fields.rows.is_empty()
}

fn is_to_go(line: &Line<'_>, task: &Task) -> bool {
    let fields = serde_json::from_str::<Fields>(line.record);
    line.index < task.pruned_before
        && fields.is_ok_and(|fields| is_release(&fields) && fields.time_ms < task.before_ms)
}

/// Replaces a finished file by one without the records that go. A crash leaves the one or the other.
fn prune_file(file: &LogFile, task: &Task) -> Result<(), ServiceError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let io = |e| ServiceError::io(&file.path, e);
    let fresh = file.path.with_extension("pruned");
    let new = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh);
    let mut new = std::io::BufWriter::new(new.map_err(io)?);
    let mut lines = Lines::open(file)?;
    let mut gone = 0u64;
    loop {
        let bytes = match lines.read()? {
            Next::Line(bytes) => bytes,
            Next::End => break,
            Next::Unfinished(_) => return Err(ServiceError::Damaged("file of the audit log")),
        };
        let line = LogLine::parse(bytes).map_err(|_| ServiceError::Damaged("line of the audit log"))?;
        let mut out = Vec::new();
        match line {
            LogLine::Record(line) if is_to_go(&line, task) => {
                gone += 1;
                Pruned { index: line.index, entry: line.entry() }.write(&mut out);
            }
            LogLine::Record(line) => line.write(&mut out),
            LogLine::Pruned(pruned) => pruned.write(&mut out),
        }
        new.write_all(&out).map_err(io)?;
    }
    let new = new.into_inner().map_err(|error| io(error.into_error()))?;
    if gone == 0 {
        return fs::remove_file(&fresh).map_err(io);
    }
    new.sync_all().map_err(io)?;
    fs::rename(&fresh, &file.path).map_err(io)?;
    sync_folder(crate::files::parent(&file.path))
}
