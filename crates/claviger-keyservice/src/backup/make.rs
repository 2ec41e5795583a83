//! Making a backup of a service that runs, and handing it to an operator part by part.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use claviger_env::Clock;
use claviger_keyapi::admin::{BackupBegun, BackupPart, BackupReadRequest};
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Id16, KeyServiceError, UnavailableReason};
use sha2::{Digest as _, Sha256};

use super::{AUDIT_PIECE_LEN, LINE_LEN_MAX, Line, VERSION};
use crate::ServiceError;
use crate::audit_log::{AuditFolder, CHECKPOINT_FILE};
use crate::audit_record::{Outcome, Record};
use crate::custody::backup_wrap::SealedWrap;
use crate::custody::unlock::{META_MASTER, Stored, Wrap};
use crate::service::{Caller, Core, Work};
use crate::store::postgres::META_INSTANCE;
use crate::store::snapshot::{Item, Snapshot};
use crate::vault::Vault;

/// Bytes that go out in one answer, about.
const PART_LEN: usize = 1 << 20;
/// Who asks for no further part for so long gets no more.
const IDLE_MS: u64 = 60_000;
/// How long an answer waits for the next part before it says that there is none yet.
const WAIT: Duration = Duration::from_secs(5);

/// The backup that is under way; there is one at a time.
#[derive(Default)]
pub(crate) struct Backups(Mutex<Option<Running>>);

struct Running {
    id: Id16,
    parts: Receiver<Result<Vec<u8>, ServiceError>>,
    /// Number of the part in `newest`; it goes out again if its answer was lost.
    number: u64,
    newest: Option<BackupPart>,
}

impl Backups {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Begins a backup of what is there now. One that was under way ends.
    pub(crate) fn begin_backup(&self, caller: &Caller) -> Work<BackupBegun> {
        let record = caller.info.record("backup", Outcome::Done);
        Work::changing(record, |record| self.try_begin_backup(caller, record))
    }

    fn try_begin_backup(&self, caller: &Caller, record: &Record) -> Result<BackupBegun, ServiceError> {
        let mut id = [0u8; 16];
        self.random.fill(&mut id)?;
        // While nobody changes rows, so that database and log tell of the same state.
        let turn = self.change_as(caller)?;
        if turn.vault.is_behind() {
            let unavailable =
                KeyServiceError::Unavailable { reason: UnavailableReason::Store, retry_after_ms: 5_000 };
            return Err(unavailable.into());
        }
        self.note_backup(&turn, record)?;
        let (header, wrap) = self.backup_header(&turn.vault)?;
        let folder = self.config.audit_folder();
        // Before the records, so that it covers none that are not in the backup.
        let checkpoint = self.newest_checkpoint(&folder)?;
        let source =
            Source { header, wrap, snapshot: self.store.snapshot()?, log: open_log(&folder)?, checkpoint };
        drop(turn);
        let (to, parts) = sync_channel(1);
        let writer =
            Writer { to, clock: Arc::clone(&self.clock), part: Vec::new(), digest: Sha256::new(), lines: 0 };
        let thread = std::thread::Builder::new().name("backup".into()).spawn(move || writer.run(source));
        thread.map_err(|e| ServiceError::Audit(e.to_string()))?;
        *self.backups.lock() = Some(Running { id: Id16(id), parts, number: 0, newest: None });
        Ok(BackupBegun { backup_id: Id16(id) })
    }

    fn newest_checkpoint(&self, folder: &Path) -> Result<Option<Vec<u8>>, ServiceError> {
        match self.audit.checkpoint() {
            Some(checkpoint) => Ok(Some(checkpoint.note().to_string().into_bytes())),
            None => AuditFolder::new(folder).checkpoint(),
        }
    }

    /// The first line; and the wrap of the master, if it may stand in a backup as it is.
    fn backup_header(&self, vault: &Vault) -> Result<(Line, Option<Vec<u8>>), ServiceError> {
        let now_ms = self.clock.now_ms();
        let stored = Stored::load(&*self.store)?;
        // Or nobody could restore it.
        stored.check(vault.ledger().rows())?;
        let wrap = stored.value()?;
        if !matches!(stored.wrap, Wrap::Passphrase { .. }) {
            // Shares of their own, or the HSM, stand before the master.
            return Ok((wraps_header(Vec::new(), now_ms), Some(wrap)));
        }
        let mut wraps = Vec::new();
        for keyset in vault.keysets() {
            let Some((version, root)) = keyset.newest_open() else { continue };
            let to = (keyset.public_id(), version.number, root.secret());
            wraps.push(SealedWrap::new(&keyset.name, to, &wrap, &*self.random)?);
        }
        Ok((wraps_header(wraps, now_ms), None))
    }

    /// The part of this number: the next one, or the newest once more. Blocks for up to 5 s.
    pub(crate) fn read_backup(&self, request: &BackupReadRequest) -> Result<BackupPart, ServiceError> {
        let mut running = self.backups.lock();
        let conflict = |text: &str| KeyServiceError::Conflict { text: text.to_owned() };
        let current = running
            .as_mut()
            .filter(|current| current.id == request.backup_id)
            .ok_or_else(|| conflict("this backup is not under way any more; begin again"))?;
        if let Some(newest) = &current.newest
            && request.part + 1 == current.number
        {
            return Ok(newest.clone());
        }
        if request.part != current.number {
            return Err(conflict("parts are read in order").into());
        }
        let bytes = match current.parts.recv_timeout(WAIT) {
            Ok(part) => part?,
            Err(RecvTimeoutError::Timeout) => {
                let busy =
                    KeyServiceError::Unavailable { reason: UnavailableReason::Busy, retry_after_ms: 500 };
                return Err(busy.into());
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(conflict("it waited too long for you; begin again").into());
            }
        };
        // The last part ends in the line that says so.
        let part = BackupPart { last: bytes.is_empty(), bytes: Blob(bytes) };
        current.number += 1;
        current.newest = Some(part.clone());
        Ok(part)
    }
}

fn wraps_header(wraps: Vec<SealedWrap>, made_ms: u64) -> Line {
    let service_version = env!("CARGO_PKG_VERSION").to_owned();
    Line::Backup { version: VERSION, service_version, made_ms, wraps }
}

/// What a backup is made of.
struct Source {
    header: Line,
    wrap: Option<Vec<u8>>,
    snapshot: Snapshot,
    log: Vec<LogFile>,
    checkpoint: Option<Vec<u8>>,
}

/// A file of the log as far as it went when the backup began.
struct LogFile {
    name: String,
    file: File,
    len: u64,
}

fn open_log(folder: &Path) -> Result<Vec<LogFile>, ServiceError> {
    let mut files = Vec::new();
    for path in AuditFolder::new(folder).files()?.into_iter().map(|file| file.path) {
        let io = |e| ServiceError::io(&path, e);
        let file = File::open(&path).map_err(io)?;
        let len = whole_lines(&file).map_err(io)?;
        let name =
            path.file_name().and_then(|name| name.to_str()).ok_or(ServiceError::Damaged("audit log"))?;
        files.push(LogFile { name: name.to_owned(), file, len });
    }
    Ok(files)
}

/// Bytes up to the end of the last whole line: behind it a group may be in the middle of being written.
fn whole_lines(file: &File) -> std::io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut bytes = vec![0u8; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(bytes.len() as u64);
        let window = &mut bytes[..usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(window, start)?;
        if let Some(at) = window.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// The thread that writes.
struct Writer {
    to: SyncSender<Result<Vec<u8>, ServiceError>>,
    clock: Arc<dyn Clock>,
    part: Vec<u8>,
    digest: Sha256,
    lines: u64,
}

impl Writer {
    fn run(mut self, source: Source) {
        match self.write(source) {
            // An empty part is the end.
            Ok(()) => {
                self.send(Ok(Vec::new()));
            }
            Err(error) => {
                tracing::warn!(%error, "a backup ended early");
                self.send(Err(error));
            }
        }
    }

    fn write(&mut self, source: Source) -> Result<(), ServiceError> {
        self.line(&source.header)?;
        if let Some(value) = source.wrap {
            self.line(&Line::Meta { name: META_MASTER.to_owned(), value: Blob(value) })?;
        }
        let mut snapshot = source.snapshot;
        while let Some(page) = snapshot.next_page()? {
            for item in page.into_iter().filter(|item| !is_left_out(item)) {
                self.line(&Line::of(item))?;
            }
        }
        for log in source.log {
            self.log(log)?;
        }
        if let Some(note) = source.checkpoint {
            self.line(&Line::Audit { file: CHECKPOINT_FILE.to_owned(), bytes: Blob(note) })?;
        }
        let sha256 = self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.line(&Line::End { lines: self.lines, sha256 })?;
        self.flush()
    }

    fn log(&mut self, log: LogFile) -> Result<(), ServiceError> {
        let mut rest = log.file.take(log.len);
        loop {
            let mut bytes = Vec::new();
            let piece = rest.by_ref().take(AUDIT_PIECE_LEN as u64).read_to_end(&mut bytes);
            piece.map_err(|e| ServiceError::io(Path::new(&log.name), e))?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.line(&Line::Audit { file: log.name.clone(), bytes: Blob(bytes) })?;
        }
    }

    fn line(&mut self, line: &Line) -> Result<(), ServiceError> {
        let bytes = line.to_bytes();
        if bytes.len() > LINE_LEN_MAX {
            return Err(ServiceError::Backup("a row is longer than a backup takes".to_owned()));
        }
        self.digest.update(&bytes);
        self.lines += 1;
        self.part.extend_from_slice(&bytes);
        if self.part.len() >= PART_LEN { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ServiceError> {
        let part = std::mem::take(&mut self.part);
        if part.is_empty() || self.send(Ok(part)) {
            return Ok(());
        }
        Err(ServiceError::Audit("nobody reads the backup any more".to_owned()))
    }

    /// Whether someone took it in time.
    fn send(&self, part: Result<Vec<u8>, ServiceError>) -> bool {
        let until_ms = self.clock.boot_ms().saturating_add(IDLE_MS);
        let mut part = part;
        while self.clock.boot_ms() < until_ms {
            part = match self.to.try_send(part) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(part)) => part,
            };
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

/// The wraps of the master, of which at most the one that counts is in a backup, and not a passphrase's; and what ties the rows
/// to one database server.
fn is_left_out(item: &Item) -> bool {
    matches!(item, Item::Meta { name, .. } if name == META_MASTER || name == META_INSTANCE)
}
