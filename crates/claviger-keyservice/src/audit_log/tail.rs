//! A log that is read on while it is written.

use claviger_audit::LogLine;

use super::folder::{AuditFolder, Lines, Next, line_at};
use crate::ServiceError;

/// A place in a log, from which it is read on.
#[derive(Debug)]
pub struct Tail {
    folder: AuditFolder,
    lines: Option<Lines>,
    next_index: u64,
}

impl Tail {
    /// Begins at the first record.
    #[must_use]
    pub fn new(folder: AuditFolder) -> Self {
        Self { folder, lines: None, next_index: 0 }
    }

    /// The index of what comes next.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Goes to a record, which need not be there yet.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn seek(&mut self, index: u64) -> Result<(), ServiceError> {
        let first_of_file =
            self.folder.files()?.iter().rev().map(|file| file.first_index).find(|n| *n <= index);
        (self.lines, self.next_index) = (None, first_of_file.unwrap_or(0));
        while self.next_index < index && self.read(|_| false)? {}
        Ok(())
    }

    /// Hands over what follows, in order, until `take` returns `false` or nothing is there (yet). Whether it was `take` that ended it.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for what is not a record; [`ServiceError::Io`].
    pub fn read(&mut self, mut take: impl FnMut(&LogLine<'_>) -> bool) -> Result<bool, ServiceError> {
        loop {
            let Some(lines) = &mut self.lines else {
                // The next file is there as soon as its first record is.
                let index = self.next_index;
                let Some(file) = self.folder.files()?.into_iter().find(|file| file.first_index == index)
                else {
                    return Ok(false);
                };
                self.lines = Some(Lines::open(&file)?);
                continue;
            };
            let index = self.next_index;
            match lines.read()? {
                Next::Line(bytes) => {
                    let goes_on = take(&line_at(self.folder.path(), bytes, index)?);
                    self.next_index += 1;
                    if !goes_on {
                        return Ok(true);
                    }
                }
                Next::Unfinished(_) => return Ok(false),
                Next::End => {
                    let has_successor = self.folder.files()?.iter().any(|file| file.first_index == index);
                    // A file in which nothing stands yet is its own.
                    if !has_successor || lines.is_empty() {
                        return Ok(false);
                    }
                    self.lines = None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    use claviger_audit::Line;

    use super::*;

    fn line(index: u64) -> Vec<u8> {
        let mut line = Vec::new();
        Line { index, salt: [1; 16], record: "{\"v\":1}" }.write(&mut line);
        line
    }

    fn read(tail: &mut Tail) -> Vec<u64> {
        let mut indexes = Vec::new();
        tail.read(|line| {
            indexes.push(line.index());
            true
        })
        .unwrap();
        indexes
    }

    #[test]
    fn a_log_is_read_on_through_half_lines_and_new_files() {
        let folder = tempfile::tempdir().unwrap();
        let mut tail = Tail::new(AuditFolder::new(folder.path()));
        let file = |first: u64| folder.path().join(format!("{first:020}.jsonl"));
        let append = |first: u64, bytes: &[u8]| {
            let open = OpenOptions::new().append(true).create(true).open(file(first));
            open.unwrap().write_all(bytes).unwrap();
        };
        assert_eq!(read(&mut tail), Vec::<u64>::new());
        append(0, b"");
        assert_eq!(read(&mut tail), Vec::<u64>::new());
        append(0, &line(0));
        append(0, &line(1)[..20]);
        assert_eq!(read(&mut tail), [0]);
        assert_eq!(read(&mut tail), Vec::<u64>::new());
        append(0, &line(1)[20..]);
        append(0, &line(2));
        assert_eq!(read(&mut tail), [1, 2]);
        append(3, &line(3));
        append(3, &line(4));
        assert_eq!(read(&mut tail), [3, 4]);
        for from in 0..=5 {
            let mut tail = Tail::new(AuditFolder::new(folder.path()));
            tail.seek(from).unwrap();
            assert_eq!(read(&mut tail), (from..5).collect::<Vec<_>>());
        }
        fs::write(file(5), line(6)).unwrap();
        assert!(tail.read(|_| true).is_err());
    }
}
