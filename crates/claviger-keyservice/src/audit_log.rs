//! The audit log: append-only files of JSON lines. A record is durable before whatever it tells of leaves the service.
//!
//! ```text
//! audit/00000000000000000000.jsonl      file name = index of its first record
//! {"index":7,"salt":"<32 hex>","record":{…}}\n
//! ```
//! `SHA-256(salt ‖ record)`, over the record's exact bytes as they stand in the line, is the leaf of the Merkle tree that
//! will be built over these files; the salt lets a record be pruned later without giving away what it said.
//!
//! One thread writes. It takes everything that waits, writes it in one go, calls `fdatasync` once and then lets all waiting
//! callers go. After any error nothing is released any more until the service is restarted: what the disk holds after a
//! failed sync is not known.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use claviger_format::Random;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::ServiceError;
use crate::files::{private_folder, sync_folder};

const SALT_LEN: usize = 16;
/// Longest line, in bytes. Records are bounded where they are made (names, texts); a longer one is refused.
const LINE_LEN_MAX: u64 = 64 << 10;
/// What a line has around its record, at most.
const FRAME_LEN_MAX: usize = 128;
/// Most requests that share one sync.
const GROUP_MAX: usize = 4096;

/// Where lines go. Production writes files; tests make this fail.
pub trait AuditSink: Send {
    /// Appends whole lines; the first of them has this index.
    ///
    /// # Errors
    /// The system's. Some of the bytes may have been written.
    fn append(&mut self, first_index: u64, lines: &[u8]) -> io::Result<()>;

    /// Returns once everything appended is durable.
    ///
    /// # Errors
    /// The system's. Some of the bytes may be durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// Handle to the log; cheap to share.
pub struct AuditLog {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    folder: Option<PathBuf>,
}

struct Shared {
    failed: AtomicBool,
    records: AtomicU64,
}

struct Job {
    records: Vec<Vec<u8>>,
    done: Done,
}

/// Tells whoever waits whether his records are durable.
type Done = Box<dyn FnOnce(bool) + Send>;

/// What was cut off when the log was opened: the bytes of an unfinished last line. Its caller was never answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// Bytes cut off.
    pub len: u64,
}

impl AuditLog {
    /// Opens the log in a folder, cutting off an unfinished last line.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the last file is damaged in any other way; [`ServiceError::Io`].
    pub fn open(
        folder: &Path,
        file_len_max: u64,
        random: Arc<dyn Random>,
    ) -> Result<(Self, Option<TornTail>), ServiceError> {
        private_folder(folder)?;
        let (sink, next_index, torn) = FileSink::open(folder, file_len_max)?;
        let mut log = Self::with_sink(Box::new(sink), next_index, random)?;
        log.folder = Some(folder.to_owned());
        Ok((log, torn))
    }

    /// A log over any sink whose next record has this index.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the writer thread can't be started.
    pub fn with_sink(
        sink: Box<dyn AuditSink>,
        next_index: u64,
        random: Arc<dyn Random>,
    ) -> Result<Self, ServiceError> {
        let shared = Arc::new(Shared { failed: AtomicBool::new(false), records: AtomicU64::new(next_index) });
        let (jobs, waiting) = channel();
        let mut writer = Writer { sink, random, next_index, shared: Arc::clone(&shared), lines: Vec::new() };
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || writer.run(&waiting))
            .map_err(|e| ServiceError::Audit(e.to_string()))?;
        Ok(Self { jobs, shared, folder: None })
    }

    /// Appends records (JSON objects) and returns once they are durable.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if they may not be: whatever they tell of must not leave.
    pub async fn append(&self, records: Vec<Vec<u8>>) -> Result<(), ServiceError> {
        let (tell, told) = oneshot::channel();
        // A caller that went away has nothing to be told.
        self.submit(
            records,
            Box::new(move |durable| {
                let _ = tell.send(durable);
            }),
        )?;
        if told.await.unwrap_or(false) { Ok(()) } else { Err(failed()) }
    }

    /// The same for callers that may block.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_blocking(&self, records: Vec<Vec<u8>>) -> Result<(), ServiceError> {
        let (tell, told) = channel();
        self.submit(
            records,
            Box::new(move |durable| {
                let _ = tell.send(durable);
            }),
        )?;
        if told.recv().unwrap_or(false) { Ok(()) } else { Err(failed()) }
    }

    fn submit(&self, records: Vec<Vec<u8>>, done: Done) -> Result<(), ServiceError> {
        if self.has_failed() {
            return Err(failed());
        }
        if records.iter().any(|record| (record.len() + FRAME_LEN_MAX) as u64 > LINE_LEN_MAX) {
            // Only this caller is refused: the log itself is sound.
            return Err(ServiceError::Audit("a record is longer than any may be".into()));
        }
        self.jobs.send(Job { records, done }).map_err(|_| failed())
    }

    /// Whether the log failed since it was opened.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Records written so far.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Acquire)
    }

    /// The last lines, oldest first.
    ///
    /// # Errors
    /// [`ServiceError::Io`].
    pub fn tail(&self, count: usize) -> Result<Vec<String>, ServiceError> {
        let Some(folder) = &self.folder else { return Ok(Vec::new()) };
        let mut lines = Vec::new();
        for path in log_files(folder)?.into_iter().rev() {
            let text = read_end(&path, count as u64 * LINE_LEN_MAX / 16)?;
            let mut older: Vec<String> = text.lines().map(str::to_owned).collect();
            older.append(&mut lines);
            lines = older;
            if lines.len() >= count {
                break;
            }
        }
        Ok(lines.split_off(lines.len().saturating_sub(count)))
    }
}

fn failed() -> ServiceError {
    ServiceError::Audit(
        "can't be written; nothing is released until the disk is repaired and the service restarted".into(),
    )
}

struct Writer {
    sink: Box<dyn AuditSink>,
    random: Arc<dyn Random>,
    next_index: u64,
    shared: Arc<Shared>,
    lines: Vec<u8>,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Job>) {
        while let Ok(first) = waiting.recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(job) = waiting.try_recv()
            {
                group.push(job);
            }
            let durable = !self.shared.failed.load(Ordering::Acquire) && self.write(&group);
            if !durable {
                self.shared.failed.store(true, Ordering::Release);
            }
            for job in group {
                (job.done)(durable);
            }
        }
    }

    fn write(&mut self, group: &[Job]) -> bool {
        self.lines.clear();
        let first_index = self.next_index;
        for record in group.iter().flat_map(|job| &job.records) {
            if self.push_line(record).is_err() {
                tracing::error!("no randomness for the audit log's salts: releases stop");
                return false;
            }
        }
        let written = self.sink.append(first_index, &self.lines).and_then(|()| self.sink.sync());
        match written {
            Ok(()) => {
                self.shared.records.store(self.next_index, Ordering::Release);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the audit log can't be written: releases stop");
                false
            }
        }
    }

    fn push_line(&mut self, record: &[u8]) -> Result<(), ServiceError> {
        let mut salt = [0u8; SALT_LEN];
        self.random.fill(&mut salt)?;
        // Writing to a Vec has no way to fail.
        let _ = write!(self.lines, "{{\"index\":{},\"salt\":\"", self.next_index);
        for byte in salt {
            let _ = write!(self.lines, "{byte:02x}");
        }
        self.lines.extend_from_slice(b"\",\"record\":");
        self.lines.extend_from_slice(record);
        self.lines.extend_from_slice(b"}\n");
        self.next_index += 1;
        Ok(())
    }
}

/// A line as it is read back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line<'a> {
    /// Position in the log.
    pub index: u64,
    /// 32 hex digits.
    pub salt: &'a str,
    /// Exact bytes of the record.
    #[serde(borrow)]
    pub record: &'a RawValue,
}

struct FileSink {
    folder: PathBuf,
    file: File,
    len: u64,
    len_max: u64,
}

impl FileSink {
    fn open(folder: &Path, len_max: u64) -> Result<(Self, u64, Option<TornTail>), ServiceError> {
        let path = log_files(folder)?.pop().unwrap_or_else(|| file_path(folder, 0));
        let file = open_append(&path).map_err(|e| ServiceError::io(&path, e))?;
        sync_folder(folder)?;
        let (len, next_index, torn) = mend(&path, &file)?;
        Ok((Self { folder: folder.to_owned(), file, len, len_max }, next_index, torn))
    }
}

impl AuditSink for FileSink {
    fn append(&mut self, first_index: u64, lines: &[u8]) -> io::Result<()> {
        if self.len >= self.len_max {
            self.file = open_append(&file_path(&self.folder, first_index))?;
            File::open(&self.folder)?.sync_all()?;
            self.len = 0;
        }
        self.file.write_all(lines)?;
        self.len += lines.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Finds the end of the last whole line; anything after it was never acknowledged and is cut off.
fn mend(path: &Path, file: &File) -> Result<(u64, u64, Option<TornTail>), ServiceError> {
    let io = |e| ServiceError::io(path, e);
    let damaged =
        |what: &str| ServiceError::Audit(format!("{}: {what}; the log must not be edited", path.display()));
    let len = file.metadata().map_err(io)?.len();
    let (end, whole) = last_lines(file, len).map_err(io)?;
    let torn = (end.len() - whole) as u64;
    let first_index = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok());
    let first_index: u64 = first_index.ok_or_else(|| damaged("the file's name is not an index"))?;
    let next_index = next_index(&end[..whole], first_index).map_err(damaged)?;
    if torn > 0 {
        OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|f| f.set_len(len - torn).and_then(|()| f.sync_all()))
            .map_err(io)?;
    }
    Ok((len - torn, next_index, (torn > 0).then_some(TornTail { len: torn })))
}

/// The end of the file, from a line's beginning: the last two whole lines at least (as far as there are), and what comes after
/// them. Also the length of the whole lines.
fn last_lines(file: &File, len: u64) -> io::Result<(Vec<u8>, usize)> {
    let mut wanted = 2 * LINE_LEN_MAX;
    loop {
        let mut end = read_end_bytes(file, len, wanted)?;
        let all = end.len() as u64 == len;
        // Three ends of lines hold two whole lines between them.
        if all || end.iter().filter(|b| **b == b'\n').count() >= 3 {
            if !all {
                let first = end.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
                end.drain(..first);
            }
            let whole = end.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            return Ok((end, whole));
        }
        wanted *= 2;
    }
}

/// The index after the last line's; the line before must have the one before, or two processes wrote here.
fn next_index(lines: &[u8], first_index: u64) -> Result<u64, &'static str> {
    let mut backwards = lines.split(|b| *b == b'\n').rev().filter(|line| !line.is_empty());
    let mut index = || {
        let line = backwards.next()?;
        Some(serde_json::from_slice::<Line<'_>>(line).map(|line| line.index))
    };
    let Some(last) = index() else { return Ok(first_index) };
    let last = last.map_err(|_| "the last line is not a record")?;
    if last < first_index {
        return Err("the last index is lower than the file's name");
    }
    match index() {
        None => {}
        Some(Ok(before)) if before.checked_add(1) == Some(last) => {}
        Some(_) => return Err("the last two lines don't follow one another"),
    }
    Ok(last + 1)
}

fn file_path(folder: &Path, first_index: u64) -> PathBuf {
    folder.join(format!("{first_index:020}.jsonl"))
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// The log's files, oldest first.
pub(crate) fn log_files(folder: &Path) -> Result<Vec<PathBuf>, ServiceError> {
    let entries = fs::read_dir(folder).map_err(|e| ServiceError::io(folder, e))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| ServiceError::io(folder, e))?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_end(path: &Path, len_max: u64) -> Result<String, ServiceError> {
    let read = || {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let bytes = read_end_bytes(&file, len, len_max)?;
        let start = if (bytes.len() as u64) < len {
            bytes.iter().position(|&b| b == b'\n').map_or(0, |at| at + 1)
        } else {
            0
        };
        Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
    };
    read().map_err(|e| ServiceError::io(path, e))
}

fn read_end_bytes(file: &File, len: u64, len_max: u64) -> io::Result<Vec<u8>> {
    let wanted = len.min(len_max);
    let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, len - wanted)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use std::sync::Mutex;

    fn open(folder: &Path) -> (AuditLog, Option<TornTail>) {
        AuditLog::open(&folder.join("audit"), 1 << 20, random()).unwrap()
    }

    fn record(n: u32) -> Vec<u8> {
        format!("{{\"n\":{n}}}").into_bytes()
    }

    fn indexes(lines: &[String]) -> Vec<u64> {
        lines.iter().map(|l| serde_json::from_str::<Line<'_>>(l).unwrap().index).collect()
    }

    #[test]
    fn a_record_that_is_too_long_is_refused_and_the_log_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path()).0;
        let long = format!("{{\"n\":\"{}\"}}", "a".repeat(64 << 10)).into_bytes();
        assert!(log.append_blocking(vec![long]).is_err());
        assert!(!log.has_failed());
        log.append_blocking(vec![record(1)]).unwrap();
    }

    #[test]
    fn a_last_line_of_any_length_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()));
        let line = |index: u64, len: usize| {
            format!("{{\"index\":{index},\"salt\":\"00\",\"record\":\"{}\"}}\n", "a".repeat(len))
        };
        let path = file_path(&folder.path().join("audit"), 0);
        fs::write(&path, [line(0, 1), line(1, 300_000), line(2, 300_000)].concat() + "{\"index\":3").unwrap();
        let (log, torn) = open(folder.path());
        assert_eq!(torn, Some(TornTail { len: 10 }));
        assert_eq!(log.records(), 3);
    }

    #[test]
    fn a_log_that_two_processes_wrote_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path()).0;
        log.append_blocking(vec![record(0), record(1)]).unwrap();
        drop(log);
        let path = file_path(&folder.path().join("audit"), 0);
        let text = fs::read_to_string(&path).unwrap();
        let second = text.lines().nth(1).unwrap();
        for wrong in [format!("{text}{second}\n"), text.replace("{\"index\":0", "garbage{\"index\":0")] {
            fs::write(&path, &wrong).unwrap();
            let opened = AuditLog::open(&folder.path().join("audit"), 1 << 20, random());
            assert!(matches!(opened, Err(ServiceError::Audit(_))));
            assert_eq!(fs::read_to_string(&path).unwrap(), wrong, "what is not understood is not mended");
        }
    }

    #[test]
    fn records_are_in_the_file_when_append_returns_and_go_on_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let (log, torn) = open(folder.path());
        assert_eq!(torn, None);
        log.append_blocking(vec![record(0), record(1)]).unwrap();
        let text = fs::read_to_string(folder.path().join("audit/00000000000000000000.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2);
        let line: Line<'_> = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
        assert_eq!((line.index, line.record.get()), (1, "{\"n\":1}"));
        assert_eq!(line.salt.len(), 32);
        drop(log);
        let (log, _) = open(folder.path());
        log.append_blocking(vec![record(2)]).unwrap();
        assert_eq!(indexes(&log.tail(10).unwrap()), [0, 1, 2]);
        assert_eq!(indexes(&log.tail(1).unwrap()), [2]);
        assert_eq!(log.records(), 3);
    }

    #[test]
    fn an_unfinished_last_line_is_cut_off_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit/00000000000000000000.jsonl");
        open(folder.path()).0.append_blocking(vec![record(0), record(1)]).unwrap();
        let whole = fs::read(&path).unwrap();
        let first_len = whole.iter().position(|&b| b == b'\n').unwrap() + 1;
        for cut in first_len + 1..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (log, torn) = open(folder.path());
            assert_eq!(torn, Some(TornTail { len: (cut - first_len) as u64 }));
            log.append_blocking(vec![record(9)]).unwrap();
            assert_eq!(indexes(&log.tail(10).unwrap()), [0, 1]);
        }
    }

    #[test]
    fn a_damaged_whole_line_at_the_end_is_not_mended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit/00000000000000000000.jsonl");
        open(folder.path()).0.append_blocking(vec![record(0)]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[3] = 0;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(
            AuditLog::open(&folder.path().join("audit"), 1 << 20, random()),
            Err(ServiceError::Audit(_))
        ));
    }

    #[test]
    fn a_full_file_is_followed_by_another_that_goes_on_counting() {
        let folder = tempfile::tempdir().unwrap();
        let audit = folder.path().join("audit");
        let (log, _) = AuditLog::open(&audit, 100, random()).unwrap();
        for n in 0..5 {
            log.append_blocking(vec![record(n)]).unwrap();
        }
        assert!(log_files(&audit).unwrap().len() > 1);
        assert_eq!(indexes(&log.tail(10).unwrap()), [0, 1, 2, 3, 4]);
        drop(log);
        let (log, _) = AuditLog::open(&audit, 100, random()).unwrap();
        log.append_blocking(vec![record(5)]).unwrap();
        assert_eq!(indexes(&log.tail(2).unwrap()), [4, 5]);
    }

    /// Fails on demand, before or after the bytes are kept.
    struct Faulty {
        kept: Arc<Mutex<Vec<u8>>>,
        fail_append: bool,
        fail_sync: Arc<AtomicBool>,
    }

    impl AuditSink for Faulty {
        fn append(&mut self, _first_index: u64, lines: &[u8]) -> io::Result<()> {
            if self.fail_append {
                return Err(io::Error::other("disk full"));
            }
            self.kept.lock().unwrap().extend_from_slice(lines);
            Ok(())
        }
        fn sync(&mut self) -> io::Result<()> {
            if self.fail_sync.load(Ordering::Relaxed) { Err(io::Error::other("I/O error")) } else { Ok(()) }
        }
    }

    #[test]
    fn after_a_failed_write_nothing_is_acknowledged_any_more() {
        let sink = Faulty { kept: Arc::default(), fail_append: true, fail_sync: Arc::default() };
        let log = AuditLog::with_sink(Box::new(sink), 0, random()).unwrap();
        assert!(log.append_blocking(vec![record(0)]).is_err());
        assert!(log.has_failed());
        assert!(log.append_blocking(vec![record(1)]).is_err());
    }

    #[test]
    fn after_a_failed_sync_nothing_is_acknowledged_any_more_even_if_the_bytes_are_there() {
        let (kept, fail_sync) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(AtomicBool::new(true)));
        let sink = Faulty { kept: Arc::clone(&kept), fail_append: false, fail_sync: Arc::clone(&fail_sync) };
        let log = AuditLog::with_sink(Box::new(sink), 0, random()).unwrap();
        assert!(log.append_blocking(vec![record(0)]).is_err());
        assert!(!kept.lock().unwrap().is_empty());
        fail_sync.store(false, Ordering::Relaxed);
        assert!(
            log.append_blocking(vec![record(1)]).is_err(),
            "a sync that works again proves nothing about the first"
        );
    }

    #[test]
    fn many_callers_share_a_sync_and_each_record_has_its_own_index() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(open(folder.path()).0);
        let threads: Vec<_> = (0..16)
            .map(|n| {
                let log = Arc::clone(&log);
                std::thread::spawn(move || {
                    (0..20).for_each(|_| log.append_blocking(vec![record(n)]).unwrap())
                })
            })
            .collect();
        threads.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(indexes(&log.tail(1000).unwrap()), (0..320).collect::<Vec<_>>());
    }
}
