//! The audit log: append-only files of JSON lines, and a Merkle tree over them. A record is durable before whatever it tells of
//! leaves the service.
//!
//! ```text
//! audit/00000000000000000000.jsonl      records; file name = index of its first record
//! audit/tile/…                          the tree, C2SP tlog-tiles; made of the records, and again whenever it is behind
//! audit/checkpoint                      size and root, signed; replaced at most once a second
//! ```
//! One thread writes records: it takes everything that waits, writes it in one go, calls `fdatasync` once and then lets all
//! waiting callers go. Another, behind it, keeps the tree. After any error of either nothing is released any more until the
//! service is restarted: what the disk holds after a failed sync is not known. One error passes by itself: where a write finds no
//! room, what was written of it is taken back before anyone is told, and once there is room the log goes on.
//!
//! Each record that an unlocked service writes ends in a seal (`seal`), so that nobody else can add one while it is down, or put
//! another one in the place of the one before it.
//!
//! `claviger_audit` says what a line, a tile and a checkpoint are.

mod backward;
mod blocks;
mod folder;
mod found;
mod head;
mod keeper;
pub mod offline;
mod own;
mod rebuild;
mod recovery;
mod seal;
pub mod sessions;
pub mod states;
mod tail;
mod tile_files;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use claviger_audit::{Hash, LogTree, SignedCheckpoint, SigningKey, VerifierKey};
use claviger_env::Clock;
use claviger_format::Random;
use claviger_keyapi::KeyServiceError;
use tokio::sync::oneshot;

use self::folder::read_end;
use self::found::Found;
use self::keeper::{Keeper, Message};
use self::rebuild::Mender;
use self::recovery::Recovered;
use self::seal::{Entry, NOTHING};
use self::writer::{FileSink, GROUP_MAX, Job, Writer};
use crate::ServiceError;
use crate::files::{open_regular, private_folder};

pub(crate) use self::folder::read_if_there as read_checkpoint;
pub(crate) use self::folder::{CHECKPOINT_FILE, COSIGNED_FOLDER};
pub(crate) use self::own::OwnLines;
pub(crate) use self::recovery::covered_records;
#[cfg(test)]
pub(crate) use self::seal::NOTHING as BEFORE_ALL;
pub(crate) use self::seal::{AS_A_STANDBY, SealKey, Uncovered, check_lines};

pub use self::folder::{AuditFolder, Lines, LogFile, Next};
pub use self::tail::Tail;

/// Longest record with its line, in bytes. Records are bounded where they are made (names, texts); a longer one is refused.
const LINE_LEN_MAX: usize = 64 << 10;
/// What a line has around its record, at most.
const FRAME_LEN_MAX: usize = 128;

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

    /// Takes back what an append left that failed, durably: afterwards all is as it was before.
    ///
    /// # Errors
    /// The system's; by default it can't be done.
    fn take_back(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The next lines begin a new file, if there are files.
    fn begin_file(&mut self) {}
}

/// The log. Dropping it waits until everything is in its files.
pub struct AuditLog {
    /// `None` only while it is dropped.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    folder: Option<AuditFolder>,
    found: Found,
    mender: Arc<Mender>,
}

struct Shared {
    failed: AtomicBool,
    /// The last records found no room, and nothing was written since.
    records_full: AtomicBool,
    /// The tree found no room: no record may be written until it has caught up.
    tree_full: AtomicBool,
    records: AtomicU64,
    group_max: AtomicUsize,
    /// The newest that was signed.
    checkpoint: ArcSwapOption<SignedCheckpoint>,
    /// The newest that is in the file: its tiles are there, and it can't be lost again.
    written: ArcSwapOption<SignedCheckpoint>,
    /// Of the key that signs.
    verifier: ArcSwapOption<VerifierKey>,
    copy: Copy,
}

/// Where the newest checkpoint is kept besides the log's folder.
#[derive(Default)]
struct Copy {
    path: ArcSwapOption<PathBuf>,
    /// Why it could not be written last time.
    problem: ArcSwapOption<String>,
}

/// What was cut off when the log was opened: the bytes of an unfinished last line. Its caller was never answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// Bytes cut off.
    pub len: u64,
}

impl AuditLog {
    /// Opens the log in a folder, cutting off an unfinished last line and making tiles that are missing. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log is damaged in any other way, was edited or cut off; [`ServiceError::Io`].
    pub fn open(
        folder: &Path,
        file_len_max: u64,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Option<TornTail>), ServiceError> {
        private_folder(folder)?;
        let folder = AuditFolder::new(folder);
        let recovered = recovery::recover(&folder)?;
        let sink = Box::new(FileSink::open(&folder, file_len_max)?);
        let torn_len = recovered.torn_len;
        let log = Self::start_with(sink, recovered, folder, random, clock)?;
        Ok((log, (torn_len > 0).then_some(TornTail { len: torn_len })))
    }

    /// A log whose lines go to any sink. With a folder it goes on where that log ends and keeps its tree there; without one it is
    /// a new log, and its tree lies nowhere.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn with_sink(
        sink: Box<dyn AuditSink>,
        folder: Option<&Path>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let Some(folder) = folder.map(AuditFolder::new) else {
            return Self::start(sink, (LogTree::new(), NOTHING), None, random, clock);
        };
        let recovered = recovery::recover(&folder)?;
        Self::start_with(sink, recovered, folder, random, clock)
    }

    fn start_with(
        sink: Box<dyn AuditSink>,
        recovered: Recovered,
        folder: AuditFolder,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let last = recovered.last;
        let (tree, found) = Found::of(recovered);
        let mut log = Self::start(sink, (tree, last), Some(folder), random, clock)?;
        log.found = found;
        Ok(log)
    }

    fn start(
        sink: Box<dyn AuditSink>,
        (tree, last): (LogTree, Entry),
        folder: Option<AuditFolder>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let next_index = tree.size();
        let shared = Arc::new(Shared {
            failed: AtomicBool::new(false),
            records_full: AtomicBool::new(false),
            tree_full: AtomicBool::new(false),
            records: AtomicU64::new(next_index),
            group_max: AtomicUsize::new(GROUP_MAX),
            checkpoint: ArcSwapOption::empty(),
            written: ArcSwapOption::empty(),
            verifier: ArcSwapOption::empty(),
            copy: Copy::default(),
        });
        let (tell_keeper, messages) = channel();
        let (jobs, waiting) = channel();
        let mut keeper = Keeper {
            tree,
            folder: folder.clone(),
            clock,
            shared: Arc::clone(&shared),
            key: None,
            full_tiles: VecDeque::new(),
            unwritten: None,
            written_ms: None,
        };
        let mut writer = Writer {
            sink,
            random,
            next_index,
            before: last,
            seal: None,
            is_of_a_service: false,
            shared: Arc::clone(&shared),
            keeper: tell_keeper,
        };
        let threads = vec![
            spawn("audit-tree", move || keeper.run(&messages))?,
            spawn("audit", move || writer.run(&waiting))?,
        ];
        Ok(Self {
            jobs: Some(jobs),
            threads,
            shared,
            folder,
            found: Found::default(),
            mender: Arc::default(),
        })
    }

    /// How many requests share one sync at most: at least 1, which is the design without group commit. For measurements; every
    /// record is durable before its caller goes on either way.
    pub fn group_at_most(&self, requests: usize) {
        self.shared.group_max.store(requests.max(1), Ordering::Relaxed);
    }

    /// Appends records (JSON objects) and returns once they are durable.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if they may not be: whatever they tell of must not leave.
    pub async fn append(&self, records: Vec<Vec<u8>>) -> Result<(), ServiceError> {
        let (tell, told) = oneshot::channel();
        // A caller that went away has nothing to be told.
        let done = Box::new(move |durable| {
            let _ = tell.send(durable);
        });
        self.submit(records, done)?;
        self.became(told.await.ok())
    }

    /// The same for callers that may block.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn append_blocking(&self, records: Vec<Vec<u8>>) -> Result<(), ServiceError> {
        let (tell, told) = channel();
        let done = Box::new(move |durable| {
            let _ = tell.send(durable);
        });
        self.submit(records, done)?;
        self.became(told.recv().ok())
    }

    /// What whoever waited is told; `None` if nobody was left to tell him.
    fn became(&self, done: Option<bool>) -> Result<(), ServiceError> {
        match done {
            Some(true) => Ok(()),
            Some(false) if !self.has_failed() && self.is_full() => Err(no_room()),
            // The key of the seals is gone: it was locked meanwhile.
            Some(false) if !self.has_failed() => Err(KeyServiceError::Locked.into()),
            _ => Err(failed()),
        }
    }

    fn submit(&self, records: Vec<Vec<u8>>, done: writer::Done) -> Result<(), ServiceError> {
        if self.has_failed() {
            return Err(failed());
        }
        if self.shared.tree_full.load(Ordering::Acquire) {
            return Err(no_room());
        }
        if records.iter().any(|record| record.len() + FRAME_LEN_MAX > LINE_LEN_MAX) {
            // Only this caller is refused: the log itself is sound.
            return Err(ServiceError::Audit("a record is longer than any may be".into()));
        }
        self.send(Job::Append { records, done })
    }

    fn send(&self, job: Job) -> Result<(), ServiceError> {
        self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or_else(failed)
    }

    /// How many records the newest checkpoint in the file covers, since the log was opened.
    pub(crate) fn covered(&self) -> u64 {
        self.shared.written.load().as_ref().map_or(0, |signed| signed.checkpoint().size)
    }

    /// From now on every record is sealed.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log has failed.
    pub(crate) fn seal_with(&self, key: SealKey) -> Result<(), ServiceError> {
        self.send(Job::Seal(Some(key)))
    }

    /// Without a key that seals, nothing is written any more but what the next unlock believes without one.
    pub(crate) fn is_of_a_service(&self) {
        // If the writer is gone it writes nothing.
        drop(self.send(Job::OfAService));
    }

    /// From now on none is. The key is wiped.
    pub(crate) fn stop_sealing(&self) {
        // If the writer is gone its key is, too.
        drop(self.send(Job::Seal(None)));
    }

    /// Checkpoints of this log that other replicas cosigned, and where each lies.
    ///
    /// # Errors
    /// [`ServiceError::Io`].
    pub(crate) fn cosigned(&self) -> Result<Vec<(String, Vec<u8>)>, ServiceError> {
        self.folder.as_ref().map_or(Ok(Vec::new()), AuditFolder::cosigned)
    }

    /// From now on checkpoints are signed, the first at once: it covers all records that were appended before, and is in the file
    /// when this returns. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log has failed.
    pub fn sign_with(&self, key: SigningKey) -> Result<(), ServiceError> {
        self.shared.verifier.store(Some(Arc::new(key.verifier().clone())));
        let (done, written) = sync_channel(1);
        self.send(Job::Pass(Message::Key(Box::new(key), done)))?;
        // If the keeper is gone the log has failed, of which whoever asks next is told.
        let _ = written.recv();
        Ok(())
    }

    /// From now on each checkpoint is written to this file too, after the one in the log's folder. The log goes on if that fails.
    pub(crate) fn copy_checkpoints_to(&self, path: &Path) {
        self.shared.copy.path.store(Some(Arc::new(path.to_owned())));
    }

    /// Why the copy of the newest checkpoint could not be written.
    pub(crate) fn copy_problem(&self) -> Option<Arc<String>> {
        self.shared.copy.problem.load_full()
    }

    /// The next record begins a new file.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log has failed.
    pub(crate) fn begin_file(&self) -> Result<(), ServiceError> {
        self.send(Job::BeginFile)
    }

    /// Has a checkpoint in the file that covers everything appended before. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] if the log has failed, or there is no key that signs.
    pub(crate) fn write_checkpoint(&self) -> Result<(), ServiceError> {
        let (tell, told) = sync_channel(1);
        self.send(Job::Pass(Message::Checkpoint(tell)))?;
        let not_written =
            || ServiceError::Audit("its checkpoint could not be written: look at its disk".into());
        told.recv().map_err(|_| not_written()).and_then(|done| self.became(Some(done)))
    }

    /// Writes the tiles of the tree as it is, and gives its size and root. Blocks.
    fn settled(&self) -> Result<(u64, Hash), ServiceError> {
        let (tell, told) = sync_channel(1);
        self.send(Job::Pass(Message::Settle(tell)))?;
        told.recv().map_err(|_| failed())?.ok_or_else(no_room)
    }

    /// Signs and writes a last checkpoint and wipes the keys; returns when that is done, or can't be done any more. Blocks.
    pub fn stop_signing(&self) {
        self.shared.verifier.store(None);
        self.stop_sealing();
        let (done, wiped) = sync_channel(1);
        // If either thread is gone its key is, too.
        if self.send(Job::Pass(Message::WipeKey(done))).is_ok() {
            let _ = wiped.recv();
        }
    }

    /// The newest checkpoint that was signed since the log was opened.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Arc<SignedCheckpoint>> {
        self.shared.checkpoint.load_full()
    }

    /// What its checkpoints are verified with: the log's name and public key, while there is a key that signs.
    #[must_use]
    pub fn verifier(&self) -> Option<Arc<VerifierKey>> {
        self.shared.verifier.load_full()
    }

    /// Whether the log failed since it was opened.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Acquire)
    }

    /// Whether the disk had no room for what was to be written last. It passes once there is.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.records_full.load(Ordering::Acquire) || self.shared.tree_full.load(Ordering::Acquire)
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
        for file in folder.files()?.into_iter().rev() {
            let text = read_last_lines(&file.path, count * LINE_LEN_MAX / 16)
                .map_err(|e| ServiceError::io(&file.path, e))?;
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

impl Drop for AuditLog {
    fn drop(&mut self) {
        // The writer ends, and with it the keeper; only then may another process have the folder.
        self.jobs = None;
        self.mender.stop();
        for thread in self.threads.drain(..).rev() {
            if thread.join().is_err() {
                tracing::error!("a thread of the audit log panicked");
            }
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, ServiceError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|e| ServiceError::Audit(e.to_string()))
}

fn failed() -> ServiceError {
    ServiceError::Audit(
        "can't be written; nothing is released until the disk is repaired and the service restarted".into(),
    )
}

fn no_room() -> ServiceError {
    ServiceError::Audit(
        "its disk is full; nothing is released until there is room, and then it goes on by itself".into(),
    )
}

/// Whether a write failed for want of room, which may pass.
fn found_no_room(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge)
}

fn read_last_lines(path: &Path, len_max: usize) -> io::Result<String> {
    let file = open_regular(path)?;
    let len = file.metadata()?.len();
    let bytes = read_end(&file, len, len_max)?;
    let cut = (bytes.len() as u64) < len;
    let start = if cut { bytes.iter().position(|&b| b == b'\n').map_or(0, |at| at + 1) } else { 0 };
    Ok(String::from_utf8_lossy(&bytes[start..]).into_owned())
}
