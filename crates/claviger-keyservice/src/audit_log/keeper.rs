//! The thread that keeps the Merkle tree over the records: it writes tiles, signs checkpoints while there is a key, and keeps
//! the newest in a file. It works behind the writer, on records that are durable and whose callers were let go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use claviger_audit::builder::Tile;
use claviger_audit::{Hash, Line, LogTree, Note, SignedCheckpoint, SigningKey};
use claviger_env::Clock;

use super::folder::AuditFolder;
use super::tile_files::{remove_partials, write_checkpoint, write_tile};
use super::{Shared, found_no_room};
use crate::ServiceError;
use crate::files::replace;

/// Shortest time between two checkpoints in the file.
const CHECKPOINT_INTERVAL_MS: u64 = 1_000;

/// How long after it found no room it tries again.
const FULL_INTERVAL_MS: u64 = 1_000;

/// What the keeper is told.
pub(super) enum Message {
    /// Whole lines that are durable.
    Lines(Vec<u8>),
    /// The log's key: from now on checkpoints are signed. Answers when the first is in the file.
    Key(Box<SigningKey>, SyncSender<()>),
    /// Signs and writes a checkpoint now, and answers whether that could be done.
    Checkpoint(SyncSender<bool>),
    /// Writes the partial tiles of the tree as it is, and answers with its size and root; with `None` if there is no room for them.
    Settle(SyncSender<Option<(u64, Hash)>>),
    /// Answers with the tree as it is.
    Tree(SyncSender<LogTree>),
    /// Signs and writes a last checkpoint, then wipes the key and answers.
    WipeKey(SyncSender<()>),
}

pub(super) struct Keeper {
    pub(super) tree: LogTree,
    /// `None` in tests of a log without files.
    pub(super) folder: Option<AuditFolder>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<Shared>,
    pub(super) key: Option<Box<SigningKey>>,
    /// Full tiles that are not in their files yet.
    pub(super) full_tiles: VecDeque<Tile>,
    /// The newest checkpoint, until it is in the file.
    pub(super) unwritten: Option<Arc<SignedCheckpoint>>,
    /// When the file was written, on the boot-time clock.
    pub(super) written_ms: Option<u64>,
}

impl Keeper {
    /// Ends when the writer is gone, with everything that was signed in the file.
    pub(super) fn run(&mut self, messages: &Receiver<Message>) {
        loop {
            let wait_ms = if self.is_full() { FULL_INTERVAL_MS } else { self.wait_ms() };
            let message = match &self.unwritten {
                None if !self.is_full() => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                _ => messages.recv_timeout(Duration::from_millis(wait_ms)),
            };
            let outcome = match message {
                Ok(message) => self.handle(message, messages),
                // What found no room may have kept a signature from being made.
                Err(RecvTimeoutError::Timeout) if self.is_full() => {
                    self.sign().and_then(|()| self.write_all())
                }
                Err(RecvTimeoutError::Timeout) => self.write_all(),
                Err(RecvTimeoutError::Disconnected) => {
                    let last = self.sign().and_then(|()| self.write_all());
                    self.settle(last);
                    return;
                }
            };
            self.settle(outcome);
        }
    }

    fn is_full(&self) -> bool {
        self.shared.tree_full.load(Ordering::Acquire)
    }

    /// A tree that can't be kept is as bad as a record that can't be written: nobody could check what comes after. Where there was
    /// no room nothing is lost: the tree is in memory, no record comes to it until it is in its files, and it is tried again.
    fn settle(&mut self, outcome: Result<(), ServiceError>) {
        let is_full = outcome.as_ref().is_err_and(is_want_of_room);
        match outcome {
            Err(error) if is_full => {
                if !self.is_full() {
                    tracing::error!(%error, "no room for the audit log's tree: releases stop until there is");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the audit log's tree can't be kept: releases stop");
                self.shared.failed.store(true, Ordering::Release);
                (self.key, self.unwritten) = (None, None);
                self.full_tiles.clear();
            }
            Ok(()) => {}
        }
        self.shared.tree_full.store(is_full || !self.full_tiles.is_empty(), Ordering::Release);
    }

    fn handle(&mut self, message: Message, messages: &Receiver<Message>) -> Result<(), ServiceError> {
        // Whatever waits already is covered by the same checkpoint.
        let mut next = Some(message);
        let (mut wipes, mut waiting) = (false, Vec::new());
        while let Some(message) = next.take() {
            match message {
                Message::Lines(lines) => self.grow(&lines)?,
                Message::Key(key, done) => {
                    self.key = Some(key);
                    waiting.push(done);
                }
                Message::Checkpoint(done) => {
                    self.sign().and_then(|()| self.write_all())?;
                    // Whoever asked may have given up.
                    let _ = done.send(self.key.is_some());
                }
                Message::Settle(done) => {
                    let written = self.write_partials();
                    if written.as_ref().is_err_and(is_want_of_room) {
                        // Whoever asked may have given up.
                        let _ = done.send(None);
                    }
                    written?;
                    let _ = done.send(Some((self.tree.size(), self.tree.root())));
                }
                Message::Tree(done) => {
                    // Whoever asked may have given up.
                    let _ = done.send(self.tree.clone());
                }
                Message::WipeKey(done) => {
                    wipes = true;
                    waiting.push(done);
                }
            }
            if !wipes {
                next = messages.try_recv().ok();
            }
        }
        let signed = self.sign().and_then(|()| {
            if !waiting.is_empty() || self.wait_ms() == 0 { self.write_all() } else { Ok(()) }
        });
        if wipes {
            self.key = None;
        }
        for done in waiting {
            // Whoever asked may have given up.
            let _ = done.send(());
        }
        signed
    }

    fn grow(&mut self, lines: &[u8]) -> Result<(), ServiceError> {
        let mut full = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\n").and_then(|line| Line::parse(line).ok());
            let line = line.filter(|line| line.index == self.tree.size());
            let line = line.ok_or(ServiceError::Damaged("line of the audit log"))?;
            self.tree.push(&line.entry(), &mut full);
        }
        self.full_tiles.extend(full);
        self.write_full_tiles()
    }

    fn write_full_tiles(&mut self) -> Result<(), ServiceError> {
        while let Some((path, bytes)) = self.full_tiles.front() {
            if let Some(folder) = &self.folder {
                write_tile(folder, path, bytes)?;
                remove_partials(folder, path)?;
            }
            self.full_tiles.pop_front();
        }
        Ok(())
    }

    fn sign(&mut self) -> Result<(), ServiceError> {
        let Some(key) = &self.key else { return Ok(()) };
        let signed = SignedCheckpoint::sign(self.tree.size(), self.tree.root(), key)
            .map_err(|error| ServiceError::Audit(error.to_string()))?;
        let signed = Arc::new(signed);
        self.shared.checkpoint.store(Some(Arc::clone(&signed)));
        self.unwritten = Some(signed);
        Ok(())
    }

    /// How long the file should stay as it is.
    fn wait_ms(&self) -> u64 {
        let since = self.written_ms.map(|written_ms| self.clock.boot_ms().saturating_sub(written_ms));
        since.map_or(0, |since_ms| CHECKPOINT_INTERVAL_MS.saturating_sub(since_ms))
    }

    /// First the tiles, then the checkpoint that needs them.
    fn write_all(&mut self) -> Result<(), ServiceError> {
        self.write_full_tiles()?;
        let (Some(signed), Some(folder)) = (self.unwritten.clone(), &self.folder) else { return Ok(()) };
        // What was signed last is the tree as it is: both change together, or nothing is unwritten.
        self.write_partials()?;
        write_checkpoint(folder, signed.note())?;
        self.write_copy(signed.note());
        self.shared.written.store(Some(signed));
        self.written_ms = Some(self.clock.boot_ms());
        self.unwritten = None;
        Ok(())
    }

    fn write_partials(&self) -> Result<(), ServiceError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        self.tree.partials().iter().try_for_each(|(path, bytes)| write_tile(folder, path, bytes))
    }

    /// A copy that can't be written is as good as the last one: older, and still of this log. So the log goes on, and health says
    /// it.
    fn write_copy(&self, note: &Note) {
        let Some(path) = self.shared.copy.path.load_full() else { return };
        let problem = replace(&path, note.to_string().as_bytes()).err().map(|error| error.to_string());
        if let Some(problem) = &problem
            && self.shared.copy.problem.load().is_none()
        {
            tracing::warn!(problem, "the newest checkpoint is not kept outside of the state folder");
        }
        self.shared.copy.problem.store(problem.map(Arc::new));
    }
}

/// Whether something was not written for want of room, which may pass.
fn is_want_of_room(error: &ServiceError) -> bool {
    matches!(error, ServiceError::Io { reason, .. } if found_no_room(reason))
}
