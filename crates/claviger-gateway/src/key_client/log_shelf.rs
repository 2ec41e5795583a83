//! What is remembered of the key service's audit log, as files beside the identity:
//!
//! ```text
//! logs/<32 hex digits of the log's name>/key              its name and public key
//! logs/<…>/checkpoint                                     its newest checkpoint that was believed, a signed note
//! logs/<…>/removed                                        only while the service does not name that log among its own
//! logs/<…>/contradiction                                  only after one: what was shown instead, and why it is none
//! logs/state                                              the newest state that the service said it is in, whichever replica it was
//! logs/contradiction                                      only after it showed an older one, or another one of that number
//! ```
//! A service with several replicas has several logs. Of those that did not show themselves yet only the key lies there: a log that
//! one of them named is known when it comes, any other one is another service's.
//!
//! What a log has shown is never forgotten. Nobody signs the list of a service's logs: whoever could have one forgotten by leaving it
//! out could then show another history of it as if it were new. A log that is named no more is believed no more as the one that
//! serves; named again it is held against what it showed before. So what lies here only grows, up to [`LOGS_MAX`].
//!
//! They hold no secret. Mode 0600 all the same: who can write them makes this gateway forget.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use claviger_audit::{LogMemory, VerifierKey};
use claviger_keyapi::routes::{LedgerState, LogHead};

use super::durable;

const KEY: &str = "key";
const CHECKPOINT: &str = "checkpoint";
const REMOVED: &str = "removed";
const CONTRADICTION: &str = "contradiction";
const STATE: &str = "state";
/// Most logs that are remembered, with those of replicas that are gone.
pub(super) const LOGS_MAX: usize = 64;
/// What the names of our logs begin with (docs/key-service-api.md, "Audit log").
const NAME_PREFIX: &str = "claviger.invalid/log/";

/// The folder of all logs that are remembered.
#[derive(Debug, Clone)]
pub(super) struct LogShelf {
    folder: PathBuf,
}

/// One log as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) memory: LogMemory,
    /// The service names it no more.
    pub(super) is_removed: bool,
}

impl Kept {
    /// Whether nothing is lost with it: it is named no more, and never showed anything.
    pub(super) fn is_empty(&self) -> bool {
        self.is_removed && self.memory.newest().is_none()
    }
}

/// What lies there.
#[derive(Debug)]
pub(super) enum Remembered {
    /// Nothing yet.
    Nothing,
    /// Logs as they were last believed, one for each replica, also of those that are gone; of some perhaps only the key.
    Logs(Vec<Kept>),
    /// A contradiction, or files that are not what was written: nothing is believed until an operator has removed them.
    Stopped(String),
}

impl LogShelf {
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join("logs") }
    }

    /// Reads it anew, so that what an operator removed is forgotten. Blocks.
    pub(super) fn read(&self) -> io::Result<Remembered> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Remembered::Nothing),
            entries => entries?,
        };
        if let Some(bytes) = read(&self.folder.join(CONTRADICTION))? {
            let text = String::from_utf8_lossy(&bytes);
            return Ok(Remembered::Stopped(self.with_remedy_for_state(text.trim_end())));
        }
        let mut logs = Vec::new();
        for entry in entries {
            let folder = entry?.path();
            // Beside the folders lies the state.
            if !folder.is_dir() || holds_nothing(&folder)? {
                continue;
            }
            match read_log(&folder)? {
                Ok(memory) => {
                    let is_removed = read(&folder.join(REMOVED))?.is_some();
                    logs.push(Kept { memory, is_removed });
                }
                Err(stopped) => return Ok(Remembered::Stopped(stopped)),
            }
        }
        // Whatever order the file system has them in.
        logs.sort_by(|a, b| {
            (a.is_removed, a.memory.key().name()).cmp(&(b.is_removed, b.memory.key().name()))
        });
        if logs.is_empty() { Ok(Remembered::Nothing) } else { Ok(Remembered::Logs(logs)) }
    }

    /// Remembers a log's newest checkpoint. Durable when this returns. Blocks.
    pub(super) fn keep(&self, memory: &LogMemory) -> io::Result<()> {
        let folder = self.folder_of(memory.key())?;
        durable::make_private(&folder)?;
        if !folder.join(KEY).exists() {
            durable::replace(&folder, KEY, format!("{}\n", memory.key()).as_bytes())?;
        }
        let Some(newest) = memory.newest() else { return Ok(()) };
        durable::replace(&folder, CHECKPOINT, newest.note().to_string().as_bytes())
    }

    /// From now on the log counts as one that serves, or does not; what it showed stays remembered. Durable when this returns. Blocks.
    pub(super) fn mark(&self, log: &VerifierKey, is_removed: bool) -> io::Result<()> {
        let folder = self.folder_of(log)?;
        if is_removed {
            return durable::replace(&folder, REMOVED, b"the service did not name this log any more\n");
        }
        durable::remove(&folder, REMOVED)
    }

    /// Makes room: a log that never showed anything is not remembered any more. Blocks.
    ///
    /// # Errors
    /// The file system's; also if there is more than its key.
    pub(super) fn forget_empty(&self, log: &VerifierKey) -> io::Result<()> {
        let folder = self.folder_of(log)?;
        if folder.join(CHECKPOINT).exists() || folder.join(CONTRADICTION).exists() {
            return Err(io::Error::other("a log that has shown something is not forgotten"));
        }
        // Without its key it is none, whatever else is left of it.
        durable::remove(&folder, KEY)?;
        durable::remove(&folder, REMOVED)?;
        // What is left, if anything, holds nothing of a log.
        fs::remove_dir(&folder).or(Ok(()))
    }

    /// The newest state that the service said it is in. Blocks.
    pub(super) fn state(&self) -> io::Result<Option<LedgerState>> {
        let Some(bytes) = read(&self.folder.join(STATE))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let parsed = text.trim_end().split_once(' ').and_then(|(number, digest)| {
            Some(LedgerState { number: number.parse().ok()?, digest: digest.to_owned() })
        });
        let damaged = || io::Error::new(ErrorKind::InvalidData, "the file `state` is not what was written");
        parsed.map(Some).ok_or_else(damaged)
    }

    /// Remembers it. Durable when this returns. Blocks.
    pub(super) fn keep_state(&self, state: &LedgerState) -> io::Result<()> {
        durable::make_private(&self.folder)?;
        durable::replace(&self.folder, STATE, format!("{} {}\n", state.number, state.digest).as_bytes())
    }

    /// Remembers that the service contradicted it. Blocks.
    pub(super) fn keep_contradicted_state(&self, why: &str) -> io::Result<()> {
        durable::replace(&self.folder, CONTRADICTION, format!("{why}\n").as_bytes())
    }

    /// What to tell the operator of that.
    pub(super) fn with_remedy_for_state(&self, why: &str) -> String {
        let folder = self.folder.display();
        format!(
            "{why}; nothing is asked of it any more. Hold the logs of its replicas against each other (claviger audit replicas; \
             docs/operations.md, \"A gateway that no longer trusts its key service\"); when that is settled remove \
             {folder}/{CONTRADICTION} and {folder}/{STATE}"
        )
    }

    /// The folder, for messages.
    pub(super) fn folder(&self) -> std::path::Display<'_> {
        self.folder.display()
    }

    /// Where a log is remembered, or would be, for messages.
    pub(super) fn place(&self, log: &VerifierKey) -> String {
        self.folder_of(log)
            .map_or_else(|_| format!("{}/ID", self.folder.display()), |it| it.display().to_string())
    }

    /// Keeps what contradicts a log that is remembered, and gives what to tell the operator. Blocks.
    pub(super) fn keep_contradiction(
        &self,
        log: &VerifierKey,
        why: &str,
        shown: &LogHead,
    ) -> io::Result<String> {
        let folder = self.folder_of(log)?;
        let text = format!("{why}\n\n{}\n\n{}", shown.key, shown.checkpoint);
        durable::replace(&folder, CONTRADICTION, text.as_bytes())?;
        Ok(with_remedy(why, &folder))
    }

    /// The same text where it could not be kept.
    pub(super) fn told(&self, log: &VerifierKey, why: &str) -> String {
        self.folder_of(log).map_or_else(|_| why.to_owned(), |folder| with_remedy(why, &folder))
    }

    fn folder_of(&self, key: &VerifierKey) -> io::Result<PathBuf> {
        let id = log_id(key.name()).ok_or_else(|| io::Error::other("not the name of a key service's log"))?;
        Ok(self.folder.join(id))
    }
}

/// The 32 hex digits at the end of a log's name.
pub(super) fn log_id(name: &str) -> Option<&str> {
    let id = name.strip_prefix(NAME_PREFIX)?;
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_id.then_some(id)
}

/// Whether a log's folder was only made: a process that ended at its first sight of the log leaves it so.
fn holds_nothing(folder: &Path) -> io::Result<bool> {
    for name in [KEY, CHECKPOINT, CONTRADICTION] {
        if read(&folder.join(name))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The log of a folder; or why nothing is believed any more.
fn read_log(folder: &Path) -> io::Result<Result<LogMemory, String>> {
    if let Some(bytes) = read(&folder.join(CONTRADICTION))? {
        let text = String::from_utf8_lossy(&bytes);
        return Ok(Err(with_remedy(text.lines().next().unwrap_or_default(), folder)));
    }
    let damaged = || Ok(Err(with_remedy("what was remembered of its audit log is damaged", folder)));
    let Some(key) = read(&folder.join(KEY))? else { return damaged() };
    let Ok(key) = String::from_utf8_lossy(&key).trim_end().parse::<VerifierKey>() else { return damaged() };
    match read(&folder.join(CHECKPOINT))? {
        None => Ok(Ok(LogMemory::new(key))),
        Some(note) => LogMemory::restore(key, &note).map_or_else(|_| damaged(), |log| Ok(Ok(log))),
    }
}

fn with_remedy(why: &str, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "{why}; nothing is asked of it any more. Find out which history is the true one (docs/operations.md, \"A gateway that no \
         longer trusts its key service\"); when that is settled remove {folder}"
    )
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}
