//! A backup becomes a service again, in an empty state folder. Whoever restores brings what opens the master: recovery shares of
//! one keyset and the passphrase, or the unlock shares, or the HSM. With it every row is checked against the log before
//! the service exists.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_audit::{Checkpoint, Note};
use claviger_env::Clock;
use claviger_format::{Random, RootSecret};
use claviger_keyapi::Id16;
use sha2::{Digest as _, Sha256};

use super::{LINE_LEN_MAX, Line, VERSION};
use crate::audit_log::{AuditFolder, AuditLog, CHECKPOINT_FILE, Uncovered, check_lines, covered_records};
use crate::audit_record::{Outcome, RequestInfo};
use crate::custody::backup_wrap::SealedWrap;
use crate::custody::shamir::{Share, combine};
use crate::custody::unlock::{META_MASTER, Stored, Unwrapped, Wrap, hsm, passphrase};
use crate::custody::{Master, paper};
use crate::files::{StateLock, private_folder, read_secret, sync_folder};
use crate::ledger::log::newest_state;
use crate::ledger::{Ledger, Mark, Witness};
use crate::log_key::{LogKey, log_id_of};
use crate::service::tls::replace_locked_tls;
use crate::store::Store;
use crate::store::location::{self, NewStore};
use crate::vault::load_authority;
use crate::{Config, ServiceError};

const ITEMS_PER_TRANSACTION: usize = 1000;

/// What a restore needs besides the configuration of the service that is to be.
#[derive(Debug)]
pub struct RestoreOptions {
    /// The backup.
    pub file: PathBuf,
    /// Files of shares, in any form: of a service with a passphrase as many recovery shares as open one of its keysets, of one
    /// with a quorum that many unlock shares, of one with an HSM none.
    pub share_files: Vec<PathBuf>,
    /// The passphrase that was valid when the backup was made, if the service has one.
    pub passphrase_file: Option<PathBuf>,
}

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub struct RestoreReport {
    /// When the backup was begun, Unix milliseconds.
    pub made_ms: u64,
    /// Rows of the database.
    pub rows: u64,
    /// Records of the audit log, with the one that tells of this.
    pub audit_records: u64,
}

/// Makes the service of a backup in `config.state_dir`, and in the database that `config` names. It is locked, and knows
/// nothing of what happened after the backup.
///
/// # Errors
/// [`ServiceError::AlreadyInitialised`]; [`ServiceError::Backup`] if the file is damaged or cut short; [`ServiceError::Share`],
/// [`ServiceError::WrongPassphrase`]; [`ServiceError::Tampered`] and relatives if rows and log don't agree.
pub fn restore(
    config: &Config,
    options: &RestoreOptions,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<RestoreReport, ServiceError> {
    let audit = config.audit_folder();
    if location::exists(&config.state_dir) {
        return Err(ServiceError::AlreadyInitialised(config.state_dir.clone()));
    }
    if audit.exists() {
        let text = format!("{} is there: restore into an empty state_dir", audit.display());
        return Err(damaged(text));
    }
    // All of it is looked at before anything is made.
    let header = verify(&options.file)?;
    let (wrap, unwrapped) = open_master(&header, config, options)?;
    let master = Master::new(&unwrapped.secret);
    private_folder(&config.state_dir)?;
    let _alone = StateLock::take(&config.state_dir)?;
    let rows = NewStore::begin(config, clock, &**random)?;
    let unfinished = config.state_dir.join("audit.unfinished");
    let count = fill(&options.file, rows.store(), &unfinished)?;
    rows.store().set_meta(META_MASTER, &wrap)?;
    let newest = newest_state(&unfinished)?;
    // Every row's MAC, all rows together, and what the log says of them.
    let log = AuditFolder::new(&unfinished).checkpoint()?.and_then(|note| log_id(&note));
    // A backup without a key is of a release before: the service makes one at its first unlock.
    let log_key = LogKey::open_or_make(&master, rows.store(), log, &**random)?;
    let log_key = log_key.unstored.is_none().then_some(log_key);
    log_key.iter().try_for_each(|key| check_log(&unfinished, key, &master))?;
    let witness = Witness {
        newest: newest.clone(),
        folder: &unfinished,
        log: log_key.as_ref().map(|key| key.log_id),
        is_first: log_key.as_ref().is_none_or(|key| key.is_first),
        complete: &|_, _, _| Err(damaged("it holds a change that another replica left unfinished")),
    };
    let opened = Ledger::open(&master, rows.store(), &witness)?;
    log_key.iter().try_for_each(|key| key.check_newest(opened.rows(), log))?;
    unwrapped.verify(opened.rows(), rows.store())?;
    let authority = load_authority(&master, opened.rows(), rows.store())?;
    replace_locked_tls(config, &authority, clock.now_ms(), &**random)?;
    fs::rename(&unfinished, &audit).map_err(|e| ServiceError::io(&audit, e))?;
    sync_folder(&config.state_dir)?;
    let audit_records = write_record(config, (&header, newest.as_ref()), log_key, &master, (clock, random))?;
    rows.finish()?;
    Ok(RestoreReport { made_ms: header.made_ms, rows: count, audit_records })
}

/// Reads a backup and tells whether it is whole; returns when it was begun, Unix milliseconds.
///
/// # Errors
/// [`ServiceError::Backup`]; [`ServiceError::Io`].
pub fn check(file: &Path) -> Result<u64, ServiceError> {
    verify(file).map(|header| header.made_ms)
}

fn log_id(note: &[u8]) -> Option<Id16> {
    let note = Note::parse(note).ok()?;
    log_id_of(&Checkpoint::parse(note.text()).ok()?.origin)
}

struct Header {
    made_ms: u64,
    /// The master's wrap, if it is in the backup as it is.
    wrap: Option<Vec<u8>>,
    wraps: Vec<SealedWrap>,
    sha256: String,
}

fn damaged(text: impl Into<String>) -> ServiceError {
    ServiceError::Backup(text.into())
}

/// Lines of a backup.
struct Lines {
    path: PathBuf,
    file: BufReader<File>,
    line: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> Result<Self, ServiceError> {
        let file = File::open(path).map_err(|e| ServiceError::io(path, e))?;
        Ok(Self { path: path.to_owned(), file: BufReader::new(file), line: Vec::new() })
    }

    /// The next line with its bytes; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<(Line, &[u8])>, ServiceError> {
        use std::io::Read as _;
        self.line.clear();
        let read = self.file.by_ref().take(LINE_LEN_MAX as u64).read_until(b'\n', &mut self.line);
        read.map_err(|e| ServiceError::io(&self.path, e))?;
        if self.line.is_empty() {
            return Ok(None);
        }
        if self.line.last() != Some(&b'\n') {
            return Err(damaged("it ends in the middle of a line"));
        }
        let line =
            serde_json::from_slice(&self.line).map_err(|_| damaged("a line is not what a backup holds"))?;
        Ok(Some((line, &self.line)))
    }
}

/// Reads all of it: nothing is missing and nothing altered, as far as the file itself can say.
fn verify(path: &Path) -> Result<Header, ServiceError> {
    let mut lines = Lines::open(path)?;
    let (mut header, mut digest, mut count) = (None, Sha256::new(), 0u64);
    while let Some((line, bytes)) = lines.next()? {
        match line {
            Line::Backup { version: VERSION, made_ms, wraps, .. } if count == 0 => {
                header = Some(Header { made_ms, wrap: None, wraps, sha256: String::new() });
            }
            Line::Backup { .. } if count == 0 => {
                return Err(damaged("it was made by a newer release; restore it with that one"));
            }
            Line::Backup { .. } => return Err(damaged("two backups in one file")),
            Line::End { lines: said, sha256 } => {
                let found: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                if said != count || sha256 != found {
                    return Err(damaged("it was altered, or lines are missing"));
                }
                if lines.next()?.is_some() {
                    return Err(damaged("there is something behind its end"));
                }
                let header = header.ok_or_else(|| damaged("its first line is missing"))?;
                return Ok(Header { sha256, ..header });
            }
            _ if count == 0 => return Err(damaged("it does not begin like a backup")),
            Line::Meta { name, value } if name == META_MASTER => {
                header.iter_mut().for_each(|header| header.wrap = Some(value.0.clone()));
            }
            _ => {}
        }
        digest.update(bytes);
        count += 1;
    }
    Err(damaged("it has no end: it was cut short"))
}

/// The master, and its wrap as it goes into the database.
fn open_master(
    header: &Header,
    config: &Config,
    options: &RestoreOptions,
) -> Result<(Vec<u8>, Unwrapped), ServiceError> {
    let shares = options.share_files.iter().map(|path| paper::load(path)).collect::<Result<Vec<_>, _>>()?;
    let value = match &header.wrap {
        Some(value) => value.clone(),
        None => open_wrap(header, &shares)?,
    };
    let unwrapped = unwrap(Stored::from_value(&value)?, &shares, options.passphrase_file.as_deref(), config)?;
    Ok((value, unwrapped))
}

/// The master out of its wrap, with what opens it here.
pub(crate) fn unwrap(
    stored: Stored,
    shares: &[Share],
    passphrase_file: Option<&Path>,
    config: &Config,
) -> Result<Unwrapped, ServiceError> {
    let missing = |what: &str| ServiceError::Question(format!("the service is unlocked by {what}"));
    let secret = match (&stored.wrap, passphrase_file, &config.pkcs11) {
        (Wrap::Passphrase { wrapped }, Some(file), _) => passphrase::unwrap(&wrapped.0, &read_secret(file)?)?,
        (Wrap::Passphrase { .. }, None, _) => return Err(missing("a passphrase: name its file")),
        (Wrap::Quorum(wrap), ..) => {
            shares.iter().try_for_each(|share| wrap.check(share))?;
            wrap.unwrap(shares)?
        }
        (Wrap::Pkcs11(wrap), _, Some(config)) => hsm::unwrap(config, wrap)?,
        (Wrap::Pkcs11(_), _, None) => return Err(missing("an HSM: add [pkcs11] to the configuration")),
    };
    Ok(stored.opened(secret))
}

/// The passphrase's wrap, by a quorum of one keyset's recovery shares.
fn open_wrap(header: &Header, shares: &[Share]) -> Result<Vec<u8>, ServiceError> {
    let root: RootSecret = combine(shares)?;
    let opened = header.wraps.iter().find_map(|sealed| sealed.open(&root));
    opened.ok_or_else(|| {
        let names: Vec<String> = header
            .wraps
            .iter()
            .map(|sealed| format!("{} version {}", sealed.keyset, sealed.version))
            .collect();
        damaged(format!("these shares don't open it; it needs those of one of: {}", names.join(", ")))
    })
}

/// Rows into the database, pieces of the log into files of a new folder. Returns how many rows there were.
fn fill(path: &Path, store: &dyn Store, audit: &Path) -> Result<u64, ServiceError> {
    if audit.exists() {
        // Of an attempt that did not end: there is no service, as was just seen.
        fs::remove_dir_all(audit).map_err(|e| ServiceError::io(audit, e))?;
    }
    private_folder(audit)?;
    let mut lines = Lines::open(path)?;
    let (mut items, mut count) = (Vec::new(), 0);
    let mut log = LogWriter { folder: audit, current: None };
    while let Some((line, _)) = lines.next()? {
        if let Line::Audit { file, bytes } = line {
            log.append(&file, &bytes.0)?;
            continue;
        }
        let Some(item) = line.into_item()? else { continue };
        items.push(item);
        count += 1;
        if items.len() == ITEMS_PER_TRANSACTION {
            store.fill(&items)?;
            items.clear();
        }
    }
    store.fill(&items)?;
    log.finish()?;
    sync_folder(audit)?;
    Ok(count)
}

struct LogWriter<'a> {
    folder: &'a Path,
    current: Option<(String, PathBuf, File)>,
}

impl LogWriter<'_> {
    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<(), ServiceError> {
        if self.current.as_ref().is_none_or(|(current, ..)| current != name) {
            self.finish()?;
            let digits = name.strip_suffix(".jsonl").unwrap_or_default();
            let holds_records = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !holds_records && name != CHECKPOINT_FILE {
                return Err(damaged("a file of the log has a name that no such file has"));
            }
            let path = self.folder.join(name);
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
            let file = file.map_err(|e| ServiceError::io(&path, e))?;
            self.current = Some((name.to_owned(), path, file));
        }
        let Some((_, path, file)) = &mut self.current else { return Ok(()) };
        file.write_all(bytes).map_err(|e| ServiceError::io(path, e))
    }

    fn finish(&mut self) -> Result<(), ServiceError> {
        let Some((_, path, file)) = self.current.take() else { return Ok(()) };
        file.sync_all().map_err(|e| ServiceError::io(&path, e))
    }
}

/// Whether the log of a backup is the one that was there: it has a checkpoint since it has a key, and the service wrote what lies
/// behind it. That the checkpoint is signed and fits is found out when the log is opened.
fn check_log(folder: &Path, key: &LogKey, master: &Master) -> Result<(), ServiceError> {
    let folder = AuditFolder::new(folder);
    if folder.checkpoint()?.is_none() {
        return Err(damaged("it holds an audit log that was signed, without its checkpoint: it was altered"));
    }
    let lines = Uncovered { from: covered_records(&folder)?, end: u64::MAX, sealed_from: key.sealed_from };
    check_lines(&folder, lines, &key.seal_key(master)).map(drop)
}

/// Writes down in the log that it goes on from a backup. Returns how many records there are.
fn write_record(
    config: &Config,
    (header, newest): (&Header, Option<&Mark>),
    log_key: Option<LogKey>,
    master: &Master,
    (clock, random): (&Arc<dyn Clock>, &Arc<dyn Random>),
) -> Result<u64, ServiceError> {
    let folder = config.audit_folder();
    let len_max = config.limits.audit_file_len_max;
    let (log, _) = AuditLog::open(&folder, len_max, Arc::clone(random), Arc::clone(clock))?;
    if let Some(key) = &log_key {
        log.check_found(key.verifier())?;
        log.seal_with(key.seal_key(master))?;
    }
    let mut id = [0u8; 8];
    random.fill(&mut id)?;
    let request_id = format!("{:016x}", u64::from_be_bytes(id));
    let info = RequestInfo { request_id, identity: None, now_ms: clock.now_ms() };
    let mut record = info.record("restore", Outcome::Done);
    record.subject = Some(header.sha256.clone());
    record.reason = Some(format!("from a backup that was begun at {} ms", header.made_ms));
    newest.iter().for_each(|newest| record.set_state(newest));
    log.append_blocking(vec![record.to_bytes()])?;
    if let Some(log_key) = log_key {
        vouch(config, &log, log_key)?;
    }
    Ok(log.records())
}

/// Whoever restores has what opens the master, and says by it that this is the log to go on with. What vouched for a later one is
/// kept beside it.
fn vouch(config: &Config, log: &AuditLog, log_key: LogKey) -> Result<(), ServiceError> {
    let file = &config.checkpoint_file;
    if file.exists() {
        let mut aside = file.as_os_str().to_owned();
        aside.push(".before-restore");
        fs::rename(file, aside).map_err(|e| ServiceError::io(file, e))?;
    }
    log.copy_checkpoints_to(file);
    log.sign_with(log_key.key)?;
    log.stop_signing();
    let problem = log.copy_problem();
    problem.map_or(Ok(()), |problem| {
        Err(ServiceError::Question(format!("{problem}\n  remedy: another checkpoint_file")))
    })
}
