//! The service's own log as it may conclude something from it: which releases count for a budget, what a thief was given, whether a
//! pruning was decided. Whoever can write the folder can add what a locked service writes, edit files that nothing else reads any
//! more, and put a gap where a record was. None of that comes out here.

use std::ops::ControlFlow;
use std::path::Path;

use claviger_audit::line::SALT_LEN;
use claviger_audit::pruning::allowed_before;
use claviger_audit::{Line, LogLine};

use super::folder::{AuditFolder, damaged};
use super::seal::{Entry, NOTHING, SealKey};
use crate::ServiceError;

/// A record with this in it may allow others to be missing.
const PRUNE: &str = "\"prune\"";

/// A log, and what its lines are sealed with.
pub(crate) struct OwnLines {
    folder: AuditFolder,
    key: SealKey,
    sealed_from: Option<u64>,
}

impl OwnLines {
    /// Lines from the index `sealed_from` on are sealed with this key. Those before are of a log from before there were seals, and
    /// taken as they are; without an index that is all of them.
    pub(crate) fn new(folder: &Path, key: SealKey, sealed_from: Option<u64>) -> Self {
        Self { folder: AuditFolder::new(folder), key, sealed_from }
    }

    /// The record, if something may be concluded from it. `before` is the entry of the line before.
    fn believed<'l>(
        &self,
        line: Option<&'l Line<'l>>,
        before: &Entry,
    ) -> Result<Option<&'l Line<'l>>, ServiceError> {
        let Some(line) = line else { return Ok(None) };
        let is_before = self.sealed_from.is_none_or(|from| line.index < from);
        Ok((is_before || self.decides(line, before)?).then_some(line))
    }

    /// It may be covered by a checkpoint: then it can't be cut off, as one behind it can.
    fn decides(&self, line: &Line<'_>, before: &Entry) -> Result<bool, ServiceError> {
        self.key.decides(line, before).map_err(|_| {
            let what = format!("record {} is not the one that the service wrote there", line.index);
            damaged(self.folder.path(), &what)
        })
    }

    /// Hands over every index, the newest first, with the record there if something may be concluded from it, until `take` breaks
    /// off.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for a record that the service did not write, for what is not a record, if one is missing, was exchanged
    /// for another, or was removed without a record that allows it; [`ServiceError::Io`]; those of `take`.
    pub(crate) fn each_backward(
        &self,
        mut take: impl FnMut(u64, Option<&Line<'_>>) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let mut allowed = 0;
        let mut judge = |held: &Held, before: &Entry| {
            let line = held.line();
            if line.is_none() && held.index >= allowed {
                let what = "was removed, and the service did not write that it might be";
                return Err(damaged(self.folder.path(), &format!("record {} {what}", held.index)));
            }
            let record = self.believed(line.as_ref(), before)?;
            let end = record.filter(|line| line.record.contains(PRUNE));
            let end = end.and_then(|line| allowed_before(line.record));
            allowed = allowed.max(end.unwrap_or(0).min(held.index));
            take(held.index, record)
        };
        // The line that waits for the one before it.
        let mut held: Option<Held> = None;
        let mut is_broken_off = false;
        self.folder.each_line_backward(|path, bytes| {
            let line = LogLine::parse(bytes).map_err(|_| damaged(path, "a line is not a record"))?;
            let index = line.index();
            let Some(newer) = held.replace(Held::new(&line)) else { return Ok(ControlFlow::Continue(())) };
            if newer.index != index + 1 {
                return Err(damaged(path, &format!("behind record {index} another one does not follow")));
            }
            let goes_on = judge(&newer, &line.entry())?;
            is_broken_off = goes_on.is_break();
            Ok(goes_on)
        })?;
        match held.filter(|_| !is_broken_off) {
            Some(first) if first.index > 0 => {
                let what = format!("the records before record {} are missing", first.index);
                Err(damaged(self.folder.path(), &what))
            }
            Some(first) => judge(&first, &NOTHING).map(drop),
            None => Ok(()),
        }
    }

    /// The same from this index on, in order, until `take` returns `false`. What was pruned is handed over as any other place
    /// without a record.
    ///
    /// # Errors
    /// As [`Self::each_backward`].
    pub(crate) fn each(
        &self,
        from_index: u64,
        mut take: impl FnMut(u64, Option<&Line<'_>>) -> bool,
    ) -> Result<(), ServiceError> {
        let (mut outcome, mut before) = (Ok(()), NOTHING);
        self.folder.for_each_line(from_index.saturating_sub(1), |line| {
            let before = std::mem::replace(&mut before, line.entry());
            if line.index() < from_index {
                return true;
            }
            let record = match line {
                LogLine::Record(line) => Some(line),
                LogLine::Pruned(_) => None,
            };
            match self.believed(record, &before) {
                Ok(record) => take(line.index(), record),
                Err(error) => {
                    outcome = Err(error);
                    false
                }
            }
        })?;
        outcome
    }
}

/// A line that was read, until the one before it is.
struct Held {
    index: u64,
    /// Salt and record; none of a pruned one.
    record: Option<([u8; SALT_LEN], String)>,
}

impl Held {
    fn new(line: &LogLine<'_>) -> Self {
        let record = match line {
            LogLine::Record(line) => Some((line.salt, line.record.to_owned())),
            LogLine::Pruned(_) => None,
        };
        Self { index: line.index(), record }
    }

    fn line(&self) -> Option<Line<'_>> {
        let (salt, record) = self.record.as_ref()?;
        Some(Line { index: self.index, salt: *salt, record })
    }
}
