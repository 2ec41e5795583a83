//! The service's own log as it may conclude something from it: which releases count for a budget, what a thief was given, whether a
//! pruning was decided. Whoever can write the folder can add what a locked service writes, edit files that nothing else reads any
//! more, and put a gap where a record was. None of that comes out here.

use std::ops::ControlFlow;
use std::path::Path;

use claviger_audit::pruning::allowed_before;
use claviger_audit::{Line, LogLine};

use super::folder::{AuditFolder, damaged};
use super::seal::SealKey;
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

    /// The record, if something may be concluded from it.
    fn believed<'l>(&self, line: &'l LogLine<'_>) -> Result<Option<&'l Line<'l>>, ServiceError> {
        let LogLine::Record(line) = line else { return Ok(None) };
        let decides = self.sealed_from.is_none_or(|from| line.index < from) || self.decides(line)?;
        Ok(decides.then_some(line))
    }

    /// It may be covered by a checkpoint: then it can't be cut off, as one behind it can.
    fn decides(&self, line: &Line<'_>) -> Result<bool, ServiceError> {
        self.key.decides(line).map_err(|_| {
            let what = format!("record {} is not the one that the service wrote there", line.index);
            damaged(self.folder.path(), &what)
        })
    }

    /// Hands over every index, the newest first, with the record there if something may be concluded from it, until `take` breaks
    /// off.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for a record that the service did not write, for what is not a record, if one is missing or was removed
    /// without a record that allows it; [`ServiceError::Io`]; those of `take`.
    pub(crate) fn each_backward(
        &self,
        mut take: impl FnMut(u64, Option<&Line<'_>>) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let (mut before, mut allowed, mut is_broken_off) = (None, 0, false);
        self.folder.each_line_backward(|path, bytes| {
            let line = LogLine::parse(bytes).map_err(|_| damaged(path, "a line is not a record"))?;
            let index = line.index();
            if before.is_some_and(|before| before != index + 1) {
                return Err(damaged(path, &format!("behind record {index} another one does not follow")));
            }
            before = Some(index);
            if matches!(line, LogLine::Pruned(_)) && index >= allowed {
                let what =
                    format!("record {index} was removed, and the service did not write that it might be");
                return Err(damaged(path, &what));
            }
            let record = self.believed(&line)?;
            let end = record.filter(|line| line.record.contains(PRUNE));
            let end = end.and_then(|line| allowed_before(line.record));
            allowed = allowed.max(end.unwrap_or(0).min(index));
            let goes_on = take(index, record)?;
            is_broken_off = goes_on.is_break();
            Ok(goes_on)
        })?;
        match before {
            Some(first) if first > 0 && !is_broken_off => {
                Err(damaged(self.folder.path(), &format!("the records before record {first} are missing")))
            }
            _ => Ok(()),
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
        let mut outcome = Ok(());
        self.folder.for_each_line(from_index, |line| {
            let record = self.believed(line);
            match record {
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
