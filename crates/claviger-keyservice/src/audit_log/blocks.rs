//! The log's lines, each held against the tree that the service has in memory, up to the last one that it wrote before it began to
//! read. Whoever can write the folder can edit files, exchange them for others while they are read, and put them back: he can keep
//! lines from being read, and can have none read that are not there.

use std::ops::ControlFlow;
use std::sync::Arc;

use claviger_audit::anchor::BLOCK_LEN;
use claviger_audit::line::SALT_LEN;
use claviger_audit::tile::TileError;
use claviger_audit::{Anchor, Line, LogLine, Pruned};

use super::Shared;
use super::folder::{AuditFolder, damaged};
use super::head::Known;
use super::rebuild::Mender;
use super::seal::Entry;
use crate::ServiceError;

/// A log as it was at one moment.
pub(super) struct Blocks {
    folder: AuditFolder,
    anchor: Anchor,
    mends: Option<Mends>,
}

/// Makes tiles anew that a reading found to be others.
pub(super) struct Mends {
    pub(super) mender: Arc<Mender>,
    pub(super) shared: Arc<Shared>,
}

/// A line that was read.
pub(super) struct Held {
    pub(super) index: u64,
    pub(super) entry: Entry,
    /// Salt and record; none of a pruned one.
    record: Option<([u8; SALT_LEN], String)>,
}

impl Held {
    fn new(line: &LogLine<'_>) -> Self {
        let record = match line {
            LogLine::Record(line) => Some((line.salt, line.record.to_owned())),
            LogLine::Pruned(_) => None,
        };
        Self { index: line.index(), entry: line.entry(), record }
    }

    /// The record with its place.
    pub(super) fn line(&self) -> Option<Line<'_>> {
        let (salt, record) = self.record.as_ref()?;
        Some(Line { index: self.index, salt: *salt, record })
    }

    /// The same, or the place of one that was pruned.
    pub(super) fn log_line(&self) -> LogLine<'_> {
        match self.line() {
            Some(line) => LogLine::Record(line),
            None => LogLine::Pruned(Pruned { index: self.index, entry: self.entry }),
        }
    }
}

impl Blocks {
    pub(super) fn new(folder: AuditFolder, anchor: Anchor, mends: Option<Mends>) -> Self {
        Self { folder, anchor, mends }
    }

    pub(super) fn damaged(&self, what: &str) -> ServiceError {
        damaged(self.folder.path(), what)
    }

    /// Whether these are all lines of a block, in order.
    fn check<'h>(&self, block: u64, lines: impl Iterator<Item = &'h Held>) -> Result<(), ServiceError> {
        let entries: Vec<Entry> = lines.map(|line| line.entry).collect();
        let holds = self.anchor.holds(&self.folder, block, &entries);
        if holds.map_err(|error| self.broken(error))? {
            return Ok(());
        }
        let first = block * BLOCK_LEN;
        let last = first + (entries.len() as u64).saturating_sub(1);
        Err(self.damaged(&format!("records {first} to {last} are not those that the service wrote there")))
    }

    fn broken(&self, error: TileError<ServiceError>) -> ServiceError {
        match error {
            TileError::Read(error) => error,
            other => {
                let error = self.damaged(&format!("its tree can't be read: {other}"));
                if let Some(Mends { mender, shared }) = &self.mends {
                    let here = Known { size: self.anchor.size(), root: self.anchor.root() };
                    mender.begin(&self.folder, here, &error, shared);
                }
                error
            }
        }
    }

    fn ends_early(&self, index: u64) -> ServiceError {
        let size = self.anchor.size();
        self.damaged(&format!("it has {index} records, and the service wrote {size}: its end was hidden"))
    }

    /// Hands over all lines, the newest first, a block at a time, until `take` breaks off.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if they are not the ones that the service wrote, or not all of them; [`ServiceError::Io`]; those of
    /// `take`.
    pub(super) fn each_backward(
        &self,
        mut take: impl FnMut(Vec<Held>) -> Result<ControlFlow<()>, ServiceError>,
    ) -> Result<(), ServiceError> {
        let size = self.anchor.size();
        if size == 0 {
            return Ok(());
        }
        let (mut rest, mut block, mut is_broken_off) = (size, Vec::new(), false);
        self.folder.each_line_backward(|path, bytes| {
            let line = LogLine::parse(bytes).map_err(|_| damaged(path, "a line is not a record"))?;
            let index = line.index();
            if index >= size && rest == size {
                // Written since.
                return Ok(ControlFlow::Continue(()));
            }
            if index + 1 != rest {
                return Err(if rest == size {
                    self.ends_early(index + 1)
                } else {
                    damaged(path, &format!("behind record {index} another one does not follow"))
                });
            }
            rest = index;
            block.push(Held::new(&line));
            if !index.is_multiple_of(BLOCK_LEN) {
                return Ok(ControlFlow::Continue(()));
            }
            self.check(index / BLOCK_LEN, block.iter().rev())?;
            let goes_on = take(std::mem::take(&mut block))?;
            is_broken_off = goes_on.is_break();
            Ok(goes_on)
        })?;
        if is_broken_off || rest == 0 {
            return Ok(());
        }
        if rest == size {
            return Err(self.ends_early(0));
        }
        Err(self.damaged(&format!("the records before record {rest} are missing")))
    }

    /// Hands over the lines from a block on, in order, a block at a time, until `take` returns `false`.
    ///
    /// # Errors
    /// As [`Self::each_backward`].
    pub(super) fn each(
        &self,
        first_block: u64,
        mut take: impl FnMut(Vec<Held>) -> Result<bool, ServiceError>,
    ) -> Result<(), ServiceError> {
        let size = self.anchor.size();
        let begin = first_block.saturating_mul(BLOCK_LEN);
        let (mut next, mut block) = (begin, Vec::new());
        if begin >= size {
            return Ok(());
        }
        let mut outcome = Ok(true);
        self.folder.for_each_line(begin, |line| {
            if line.index() != next {
                let what = format!("where record {next} should stand, record {} does", line.index());
                outcome = Err(self.damaged(&what));
                return false;
            }
            block.push(Held::new(line));
            next += 1;
            if !next.is_multiple_of(BLOCK_LEN) && next != size {
                return true;
            }
            let lines = std::mem::take(&mut block);
            let checked = self.check((next - 1) / BLOCK_LEN, lines.iter());
            outcome = checked.and_then(|()| take(lines));
            matches!(outcome, Ok(true)) && next != size
        })?;
        if outcome? && next < size { Err(self.ends_early(next)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use claviger_audit::LogTree;

    use super::*;

    fn line(index: u64) -> Vec<u8> {
        let mut line = Vec::new();
        Line { index, salt: [1; 16], record: &format!("{{\"n\":{index}}}") }.write(&mut line);
        line
    }

    fn text(range: std::ops::Range<u64>) -> Vec<u8> {
        range.flat_map(line).collect()
    }

    /// Of a log whose first records are these.
    fn blocks(folder: &Path, size: u64) -> Blocks {
        let mut tree = LogTree::new();
        for index in 0..size {
            let line = line(index);
            tree.push(&LogLine::parse(&line[..line.len() - 1]).unwrap().entry(), &mut Vec::new());
        }
        Blocks::new(AuditFolder::new(folder), Anchor::new(tree), None)
    }

    fn backward(blocks: &Blocks) -> Result<Vec<u64>, ServiceError> {
        let mut indexes = Vec::new();
        blocks.each_backward(|lines| {
            indexes.extend(lines.iter().map(|line| line.index));
            Ok(ControlFlow::Continue(()))
        })?;
        indexes.reverse();
        Ok(indexes)
    }

    fn forward(blocks: &Blocks, first_block: u64) -> Result<Vec<u64>, ServiceError> {
        let mut indexes = Vec::new();
        blocks.each(first_block, |lines| {
            indexes.extend(lines.iter().map(|line| line.index));
            Ok(true)
        })?;
        Ok(indexes)
    }

    #[test]
    fn all_lines_come_that_were_there_when_it_began_and_none_that_came_later() {
        for (size, since) in [(0, 0), (0, 3), (1, 0), (255, 2), (256, 0), (256, 300), (700, 1), (700, 400)] {
            let folder = tempfile::tempdir().unwrap();
            let all = size + since;
            let put = |first: u64, until: u64| {
                fs::write(folder.path().join(format!("{first:020}.jsonl")), text(first..until)).unwrap();
            };
            let cut = all / 3;
            put(0, cut);
            put(cut, all);
            let blocks = blocks(folder.path(), size);
            assert_eq!(backward(&blocks).unwrap(), (0..size).collect::<Vec<_>>(), "{size} {since}");
            for first in 0..4 {
                let expected: Vec<u64> = (first * 256..size).collect();
                assert_eq!(forward(&blocks, first).unwrap(), expected, "{size} {since} {first}");
            }
        }
    }

    #[test]
    fn a_log_whose_end_is_hidden_or_that_was_exchanged_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{:020}.jsonl", 0));
        let blocks = blocks(folder.path(), 600);
        let refuses = |bytes: Vec<u8>, why: &str| {
            fs::write(&file, bytes).unwrap();
            for outcome in [backward(&blocks), forward(&blocks, 0)] {
                let error = outcome.unwrap_err();
                assert!(matches!(error, ServiceError::Audit(_)), "{why}: {error}");
            }
        };
        for kept in [0, 1, 100, 256, 512, 599] {
            refuses(text(0..kept), &format!("{kept} are shown"));
        }
        refuses([text(0..599), line(600)].concat(), "the last one left out");
        refuses([text(0..10), text(11..600)].concat(), "one left out");
        refuses(text(1..600), "the first one left out");
        for at in [0, 255, 256, 511, 512, 599] {
            let mut other = Vec::new();
            Line { index: at, salt: [1; 16], record: "{\"n\":-1}" }.write(&mut other);
            refuses([text(0..at), other, text(at + 1..600)].concat(), &format!("{at} exchanged"));
        }
        let mut longer = text(0..600);
        longer.extend(line(600));
        fs::write(&file, longer).unwrap();
        assert_eq!((backward(&blocks).unwrap().len(), forward(&blocks, 1).unwrap().len()), (600, 344));
    }

    #[test]
    fn whoever_has_enough_reads_no_further() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{:020}.jsonl", 0));
        let blocks = blocks(folder.path(), 600);
        fs::write(&file, [b"broken\n".to_vec(), text(0..600)].concat()).unwrap();
        let mut count = 0;
        let newest = blocks.each_backward(|lines| {
            count += lines.len();
            Ok(ControlFlow::Break(()))
        });
        newest.unwrap();
        assert_eq!(count, 600 - 512);
        fs::write(&file, [text(0..300), b"broken\n".to_vec()].concat()).unwrap();
        blocks.each(0, |_| Ok(false)).unwrap();
        assert!(forward(&blocks, 0).is_err());
    }
}
