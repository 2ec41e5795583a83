//! The thread that makes records durable, and the file that it writes.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};

use claviger_audit::Line;
use claviger_audit::line::SALT_LEN;
use claviger_format::Random;

use super::folder::AuditFolder;
use super::keeper::Message;
use super::seal::{Entry, SealKey, is_harmless};
use super::{AuditSink, Shared, found_no_room};
use crate::ServiceError;

/// Most requests that share one sync.
pub(super) const GROUP_MAX: usize = 4096;

/// Tells whoever waits whether his records are durable.
pub(super) type Done = Box<dyn FnOnce(bool) + Send>;

/// What the writer is asked for.
pub(super) enum Job {
    /// Records (JSON objects) to be made durable.
    Append { records: Vec<Vec<u8>>, done: Done },
    /// The next record begins a new file.
    BeginFile,
    /// Without a key nothing is written but what a locked service tells of.
    OfAService,
    /// The records from here on are sealed with this, or not any more.
    Seal(Option<SealKey>),
    /// Something for the keeper of the tree, after everything that was appended before.
    Pass(Message),
}

pub(super) struct Writer {
    pub(super) sink: Box<dyn AuditSink>,
    pub(super) random: Arc<dyn Random>,
    pub(super) next_index: u64,
    /// Entry of the last line.
    pub(super) before: Entry,
    pub(super) seal: Option<SealKey>,
    /// What decides something is not written without a key. Not said of a log that is no service's.
    pub(super) is_of_a_service: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) keeper: Sender<Message>,
}

/// What became of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Durable,
    /// There was no room, and the log is as it was before.
    NoRoom,
    /// What the disk holds is not known.
    Failed,
}

impl Writer {
    pub(super) fn run(&mut self, waiting: &Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut group = Vec::new();
            let (mut passed, mut begins_file, mut seal) = (None, false, None);
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Append { records, done } if self.may_write(&records) => group.push((records, done)),
                    // Of a caller who was let in before the service was locked, and what no locked service has to tell.
                    Job::Append { done, .. } => done(false),
                    Job::BeginFile => begins_file = true,
                    Job::OfAService => self.is_of_a_service = true,
                    Job::Seal(key) => seal = Some(key),
                    Job::Pass(message) => passed = Some(message),
                }
                if group.len() < self.shared.group_max.load(Ordering::Relaxed)
                    && passed.is_none()
                    && seal.is_none()
                    && !begins_file
                {
                    next = waiting.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.commit(group);
            }
            if begins_file {
                self.sink.begin_file();
            }
            if let Some(key) = seal {
                self.is_of_a_service |= key.is_some();
                self.seal = key;
            }
            if let Some(message) = passed {
                self.pass(message);
            }
        }
    }

    /// Without a seal the next unlock would take it for somebody else's.
    fn may_write(&self, records: &[Vec<u8>]) -> bool {
        let is_harmless = |record: &Vec<u8>| std::str::from_utf8(record).is_ok_and(is_harmless);
        self.seal.is_some() || !self.is_of_a_service || records.iter().all(is_harmless)
    }

    fn commit(&mut self, group: Vec<(Vec<Vec<u8>>, Done)>) {
        let mut lines = Vec::new();
        let has_failed = self.shared.failed.load(Ordering::Acquire);
        let written = if has_failed { Written::Failed } else { self.write(&group, &mut lines) };
        if written == Written::Failed {
            self.shared.failed.store(true, Ordering::Release);
        }
        self.shared.records_full.store(written == Written::NoRoom, Ordering::Release);
        let durable = written == Written::Durable;
        for (_, done) in group {
            done(durable);
        }
        // Only now: nobody waits for the tree.
        if durable {
            self.pass(Message::Lines(lines));
        }
    }

    fn write(&mut self, group: &[(Vec<Vec<u8>>, Done)], lines: &mut Vec<u8>) -> Written {
        let (first_index, before) = (self.next_index, self.before);
        for record in group.iter().flat_map(|(records, _)| records) {
            if let Err(error) = self.push_line(record, lines) {
                tracing::error!(%error, "a record can't be written: releases stop");
                return Written::Failed;
            }
        }
        if let Err(error) = self.sink.append(first_index, lines) {
            return self.not_appended(&error, (first_index, before));
        }
        match self.sink.sync() {
            Ok(()) => {
                self.shared.records.store(self.next_index, Ordering::Release);
                Written::Durable
            }
            Err(error) => {
                tracing::error!(%error, "the audit log can't be made durable: releases stop");
                Written::Failed
            }
        }
    }

    /// Only for want of room, and only if what was begun could be taken back, the log goes on.
    fn not_appended(&mut self, error: &io::Error, place: (u64, Entry)) -> Written {
        let taken_back =
            if found_no_room(error) { self.sink.take_back() } else { Err(io::ErrorKind::Other.into()) };
        if taken_back.is_err() {
            tracing::error!(%error, "the audit log can't be written: releases stop");
            return Written::Failed;
        }
        if !self.shared.records_full.load(Ordering::Acquire) {
            tracing::error!(%error, "the audit log's disk is full: releases stop until there is room");
        }
        (self.next_index, self.before) = place;
        Written::NoRoom
    }

    fn push_line(&mut self, record: &[u8], lines: &mut Vec<u8>) -> Result<(), ServiceError> {
        let mut salt = [0u8; SALT_LEN];
        self.random.fill(&mut salt)?;
        let record = std::str::from_utf8(record).map_err(|_| ServiceError::Damaged("audit record"))?;
        let sealed = match &self.seal {
            Some(key) => {
                let sealed = key.seal((self.next_index, &self.before), &salt, record);
                Some(sealed.ok_or(ServiceError::Damaged("audit record"))?)
            }
            None => None,
        };
        let line = Line { index: self.next_index, salt, record: sealed.as_deref().unwrap_or(record) };
        line.write(lines);
        (self.next_index, self.before) = (self.next_index + 1, line.entry());
        Ok(())
    }

    /// A keeper that is gone has failed: what is written on is covered by no checkpoint.
    fn pass(&self, message: Message) {
        if self.keeper.send(message).is_err() {
            self.shared.failed.store(true, Ordering::Release);
        }
    }
}

/// Files of a bounded length, one after the other.
pub(super) struct FileSink {
    folder: AuditFolder,
    file: File,
    len: u64,
    len_max: u64,
    /// The next lines begin a new file however long this one is.
    begins: bool,
}

impl FileSink {
    /// Goes on in the last file, or begins the first.
    pub(super) fn open(folder: &AuditFolder, len_max: u64) -> Result<Self, ServiceError> {
        let path = folder.files()?.pop().map_or_else(|| folder.file_path(0), |file| file.path);
        let open = || {
            let file = open_append(&path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        };
        let (file, len) = open().map_err(|e| ServiceError::io(&path, e))?;
        crate::files::sync_folder(folder.path())?;
        Ok(Self { folder: folder.clone(), file, len, len_max, begins: false })
    }
}

impl AuditSink for FileSink {
    fn append(&mut self, first_index: u64, lines: &[u8]) -> io::Result<()> {
        if self.begins || self.len >= self.len_max {
            let file = open_append(&self.folder.file_path(first_index))?;
            File::open(self.folder.path())?.sync_all()?;
            (self.file, self.len, self.begins) = (file, 0, false);
        }
        self.file.write_all(lines)?;
        self.len += lines.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        // Whoever deletes it deletes what is about to be acknowledged.
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "its file was deleted"));
        }
        Ok(())
    }

    fn take_back(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync_all()
    }

    fn begin_file(&mut self) {
        self.begins = self.len > 0;
    }
}

fn open_append(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
