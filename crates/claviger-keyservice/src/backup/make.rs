//! Making a backup of a service that runs, and handing it to an operator part by part.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use claviger_audit::pruning::Pruning;
use claviger_audit::{Anchor, LogLine, LogTree, line};
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
use crate::files::open_regular;
use crate::ledger::{Mark, Tally};
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
        let source = Source {
            header,
            wrap,
            rows: SourceRows {
                vault: Arc::downgrade(&turn.vault),
                mark: turn.mark(),
                snapshot: self.store.snapshot()?,
            },
            // Before the files: what is written since is not in the backup.
            log: SourceLog { anchor: self.audit.anchor()?, files: open_log(&folder)? },
            checkpoint,
        };
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
    rows: SourceRows,
    log: SourceLog,
    checkpoint: Option<Vec<u8>>,
}

/// The rows, and the state that they have to add up to.
struct SourceRows {
    /// A service that is locked forgets what they are checked with; then the backup ends.
    vault: Weak<Vault>,
    mark: Mark,
    snapshot: Snapshot,
}

/// The log's files, and the tree of what they have to hold.
struct SourceLog {
    anchor: Anchor,
    files: Vec<LogFile>,
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
        let file = open_regular(&path).map_err(io)?;
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
        self.rows(source.rows)?;
        self.logs(source.log)?;
        if let Some(note) = source.checkpoint {
            self.line(&Line::Audit { file: CHECKPOINT_FILE.to_owned(), bytes: Blob(note) })?;
        }
        let sha256 = self.digest.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        self.line(&Line::End { lines: self.lines, sha256 })?;
        self.flush()
    }

    /// All rows, if they are the ones that are in force: nobody learns at the restore that others were shown here.
    fn rows(&mut self, SourceRows { vault, mark, mut snapshot }: SourceRows) -> Result<(), ServiceError> {
        let vault = || vault.upgrade().ok_or(ServiceError::LockedMeanwhile);
        let mut tally = Tally::default();
        while let Some(page) = snapshot.next_page()? {
            let vault = vault()?;
            for item in page.into_iter().filter(|item| !is_left_out(item)) {
                tally.take(&vault.master, &item)?;
                self.line(&Line::of(item))?;
            }
        }
        if tally.is_of(&vault()?.master, &mark) {
            return Ok(());
        }
        Err(unusable(
            "the database shows the backup other rows than those in force; look at who can change what it shows",
        ))
    }

    /// The log as it was when the backup began, if that is what lies in its folder.
    fn logs(&mut self, SourceLog { anchor, files }: SourceLog) -> Result<(), ServiceError> {
        let (mut tree, mut pruning) = (LogTree::new(), Pruning::new());
        for log in files {
            self.log(log, (&mut tree, &mut pruning), anchor.size())?;
        }
        // A line in the place of a record has the record's entry: the tree does not tell of what was taken out.
        if let Some(index) = pruning.not_allowed() {
            return Err(unusable(&format!(
                "record {index} was taken out of the audit log, and no record `prune` allows it; the log must not be edited"
            )));
        }
        if (tree.size(), tree.root()) == (anchor.size(), anchor.root()) {
            return Ok(());
        }
        Err(unusable(
            "the audit log's files are not those that the service wrote; the log must not be edited",
        ))
    }

    fn log(
        &mut self,
        log: LogFile,
        (tree, pruning): (&mut LogTree, &mut Pruning),
        size: u64,
    ) -> Result<(), ServiceError> {
        let mut rest = BufReader::new(log.file.take(log.len));
        let (mut piece, mut bytes) = (Vec::new(), Vec::new());
        while tree.size() < size {
            bytes.clear();
            let read = rest.by_ref().take(line::LINE_LEN_MAX as u64).read_until(b'\n', &mut bytes);
            if read.map_err(|e| ServiceError::io(Path::new(&log.name), e))? == 0 {
                break;
            }
            let found = bytes.strip_suffix(b"\n").and_then(|line| LogLine::parse(line).ok());
            let found = found.filter(|line| line.index() == tree.size());
            let found = found.ok_or(ServiceError::Damaged("line of the audit log"))?;
            // The service wrote all of it, or the tree is another one.
            pruning.take(&found, u64::MAX);
            tree.push(&found.entry(), &mut Vec::new());
            piece.extend_from_slice(&bytes);
            if piece.len() >= AUDIT_PIECE_LEN {
                let bytes = Blob(std::mem::take(&mut piece));
                self.line(&Line::Audit { file: log.name.clone(), bytes })?;
            }
        }
        if piece.is_empty() {
            return Ok(());
        }
        self.line(&Line::Audit { file: log.name, bytes: Blob(piece) })
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

/// Of a backup that nobody could restore. The one who asked is told why.
fn unusable(text: &str) -> ServiceError {
    KeyServiceError::Conflict { text: format!("this would be a backup that nobody can restore: {text}") }
        .into()
}

/// The wraps of the master, of which at most the one that counts is in a backup, and not a passphrase's; and what ties the rows
/// to one database server.
fn is_left_out(item: &Item) -> bool {
    matches!(item, Item::Meta { name, .. } if name == META_MASTER || name == META_INSTANCE)
}
