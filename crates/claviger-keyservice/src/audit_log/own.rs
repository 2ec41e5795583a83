//! The service's own log as it may conclude something from it: which releases count for a budget, what a thief was given, whether a
//! pruning was decided. Every line is one that the service has in its tree (`blocks`); of these, anybody who can write the folder can
//! have added what a locked service writes, and so only sealed ones say anything.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use claviger_audit::anchor::BLOCK_LEN;
use claviger_audit::pruning::allowed_before;
use claviger_audit::{Anchor, Line, LogLine, LogTree};

use super::blocks::{Blocks, Held, Mends};
use super::folder::AuditFolder;
use super::keeper::Message;
use super::seal::{Entry, NOTHING, SealKey};
use super::writer::Job;
use super::{AuditLog, failed};
use crate::ServiceError;

/// A record with this in it may allow others to be missing.
const PRUNE: &str = "\"prune\"";

/// A log as it was at one moment, and what its lines are sealed with.
pub(crate) struct OwnLines {
    blocks: Blocks,
    key: SealKey,
    sealed_from: Option<u64>,
}

impl AuditLog {
    /// The tree over everything that was appended before: what the files have to hold, whoever can write them. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log has failed.
    pub(crate) fn anchor(&self) -> Result<Anchor, ServiceError> {
        if self.has_failed() {
            return Err(failed());
        }
        let (tell, told) = sync_channel(1);
        self.send(Job::Pass(Message::Tree(tell)))?;
        told.recv().map(Anchor::new).map_err(|_| failed())
    }

    /// What was appended before, as far as something may be concluded from it. Lines from the index `sealed_from` on are sealed with
    /// this key. Those before are of a log from before there were seals, and taken as they are; without an index that is all of them.
    ///
    /// # Errors
    /// As [`Self::anchor`].
    pub(crate) fn own_lines(&self, key: SealKey, sealed_from: Option<u64>) -> Result<OwnLines, ServiceError> {
        let mends = Mends { mender: Arc::clone(&self.mender), shared: Arc::clone(&self.shared) };
        let blocks = match &self.folder {
            Some(folder) => Blocks::new(folder.clone(), self.anchor()?, Some(mends)),
            // A log without files is one of a test.
            None => Blocks::new(AuditFolder::new(Path::new("")), Anchor::new(LogTree::new()), None),
        };
        Ok(OwnLines::new(blocks, key, sealed_from))
    }
}

impl OwnLines {
    /// Seals as for [`super::AuditLog::own_lines`].
    pub(super) fn new(blocks: Blocks, key: SealKey, sealed_from: Option<u64>) -> Self {
        Self { blocks, key, sealed_from }
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

    fn decides(&self, line: &Line<'_>, before: &Entry) -> Result<bool, ServiceError> {
        self.key.decides(line, before).map_err(|_| {
            let what = format!("record {} is not the one that the service wrote there", line.index);
            self.blocks.damaged(&what)
        })
    }

    /// Hands over every index, the newest first, with the record there if something may be concluded from it, until `take` breaks
    /// off.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for a record that the service did not write, for what is not a record, if one is missing, also at the
    /// end, was exchanged for another, or was removed without a record that allows it; [`ServiceError::Io`]; those of `take`.
    pub(crate) fn each_backward(
        &self,
        mut take: impl FnMut(u64, Option<&Line<'_>>) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let mut allowed = 0;
        let mut judge = |held: &Held, before: &Entry| {
            let line = held.line();
            if line.is_none() && held.index >= allowed {
                let what = "was removed, and the service did not write that it might be";
                return Err(self.blocks.damaged(&format!("record {} {what}", held.index)));
            }
            let record = self.believed(line.as_ref(), before)?;
            let end = record.filter(|line| line.record.contains(PRUNE));
            let end = end.and_then(|line| allowed_before(line.record));
            allowed = allowed.max(end.unwrap_or(0).min(held.index));
            take(held.index, record)
        };
        // The line that waits for the one before it.
        let mut waiting: Option<Held> = None;
        let mut is_broken_off = false;
        self.blocks.each_backward(|lines| {
            for line in lines {
                let before = line.entry;
                let Some(newer) = waiting.replace(line) else { continue };
                if judge(&newer, &before)?.is_break() {
                    is_broken_off = true;
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        match waiting.filter(|_| !is_broken_off) {
            Some(first) => judge(&first, &NOTHING).map(drop),
            None => Ok(()),
        }
    }

    /// The same from this index on, in order, until `take` returns `false`: each line, and its record if something may be concluded
    /// from it. What was pruned is handed over too, whether or not something allows it.
    ///
    /// # Errors
    /// As [`Self::each_backward`].
    pub(crate) fn each(
        &self,
        from_index: u64,
        mut take: impl FnMut(&LogLine<'_>, Option<&Line<'_>>) -> bool,
    ) -> Result<(), ServiceError> {
        let mut before = NOTHING;
        self.blocks.each(from_index.saturating_sub(1) / BLOCK_LEN, |lines| {
            for held in lines {
                let before = std::mem::replace(&mut before, held.entry);
                if held.index < from_index {
                    continue;
                }
                let line = held.line();
                let record = self.believed(line.as_ref(), &before)?;
                if !take(&held.log_line(), record) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    impl OwnLines {
        /// Of a service that knows just what lies in a folder now.
        pub(crate) fn of_folder(folder: &Path, key: SealKey, sealed_from: Option<u64>) -> Self {
            let (folder, mut tree) = (AuditFolder::new(folder), LogTree::new());
            let read = folder.for_each_line(0, |line| {
                tree.push(&line.entry(), &mut Vec::new());
                true
            });
            read.unwrap();
            Self::new(Blocks::new(folder, Anchor::new(tree), None), key, sealed_from)
        }
    }
}
