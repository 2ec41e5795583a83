//! The log when it is opened: what a crash left is mended from the records, anything else keeps the service down.
//!
//! Tiles are derived. Those that are missing or torn are made again from the records. What is not derived is not mended: records
//! that don't follow one another, that are not the ones that the checkpoint was signed for, or that differ from a tile although
//! no checkpoint vouches for them. Nothing is written before all of that is known, so that evidence stays as it is.
//!
//! Only the last file is read as a whole, and those before it as far back as the newest state of the ledger; everything before it
//! stands in full tiles, from which the tree is resumed. If these
//! don't lead to the checkpoint, or one is missing, everything is read.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};

use claviger_audit::builder::Tile;
use claviger_audit::line::LINE_LEN_MAX;
use claviger_audit::tile::{TILE_WIDTH, TileError, TileKind};
use claviger_audit::{Checkpoint, LogLine, LogTree, Note, TilePath, TileTree, Tiles as _};
use sha2::{Digest as _, Sha256};

use super::folder::{AuditFolder, Lines, LogFile, Next, damaged, read_end};
use super::seal::{Entry, NOTHING};
use super::tile_files::{remove_partials, write_tile};
use crate::ServiceError;
use crate::ledger::Mark;
use crate::ledger::log::Newest;

/// A log that is ready to go on.
pub(super) struct Recovered {
    /// Holds every record.
    pub(super) tree: LogTree,
    /// The checkpoint that lay there. It fits the records; whether it is signed is found out when the key is there.
    pub(super) found: Option<Note>,
    /// Bytes of an unfinished last record, which were cut off.
    pub(super) torn_len: u64,
    /// If there is no checkpoint: the log's name, as the last record tells it that does.
    pub(super) name: Option<String>,
    /// The entry of the last line.
    pub(super) last: Entry,
    /// A digest of the lines behind the checkpoint, as the tree holds them.
    pub(super) tail: [u8; 32],
    /// The newest state of the ledger that the records tell of.
    pub(super) state: Option<Mark>,
}

/// Reads and mends a folder.
///
/// # Errors
/// [`ServiceError::Audit`] if the log was edited, cut off or damaged; [`ServiceError::Io`].
pub(super) fn recover(folder: &AuditFolder) -> Result<Recovered, ServiceError> {
    let files = folder.files()?;
    let torn_len = cut_unfinished(files.last())?;
    let found = found_checkpoint(folder)?;
    let (note, head) = found.unzip();
    let reading = Reading { folder, files: &files, head: head.as_ref() };
    let (read, begin) = reading.read_to_a_state().map_err(Stop::into_error)?;
    let state = read.newest.end(folder.path())?;
    reading.mend(&read, begin)?;
    let Read { tree, name, tail, last, .. } = read;
    Ok(Recovered { tree, found: note, torn_len, name, last, tail: tail.finalize().into(), state })
}

/// What reading found.
struct Read {
    tree: LogTree,
    /// Full tiles that have to be made again; their content may be too much to be kept.
    torn: BTreeSet<TilePath>,
    /// Partial tiles that have to be made again.
    torn_partials: Vec<Tile>,
    /// Of the entries behind the checkpoint.
    tail: Sha256,
    /// The last entry. There is a line unless the log is empty: a state was found behind where the reading began.
    last: Entry,
    name: Option<String>,
    newest: Newest,
}

/// Why a reading ended early.
enum Stop {
    /// The tiles that it began with are incomplete, or don't lead to the checkpoint.
    Tiles(String),
    Error(ServiceError),
}

impl Stop {
    fn into_error(self) -> ServiceError {
        match self {
            Self::Tiles(why) => ServiceError::Audit(why),
            Self::Error(error) => error,
        }
    }
}

impl From<ServiceError> for Stop {
    fn from(error: ServiceError) -> Self {
        Self::Error(error)
    }
}

struct Reading<'a> {
    folder: &'a AuditFolder,
    files: &'a [LogFile],
    head: Option<&'a Checkpoint>,
}

impl Reading<'_> {
    /// Reads so many files that the newest state of the ledger is among what was held against the checkpoint, nearly always the last
    /// one; and where that began. Files that are not read may have been edited by anyone.
    fn read_to_a_state(&self) -> Result<(Read, u64), Stop> {
        let mut files = 1;
        loop {
            let mut begin = self.beginning(files)?;
            let read = match self.read(begin) {
                Err(Stop::Tiles(why)) => {
                    tracing::warn!(%why, "the audit log's tree is made anew from all of its records");
                    begin = 0;
                    self.read(0)?
                }
                outcome => outcome?,
            };
            if begin == 0 || read.newest.is_found() {
                return Ok((read, begin));
            }
            files *= 2;
        }
    }

    /// The index from which records have to be read: between two tiles, not after the beginning of the last files, nor after the
    /// checkpoint. Without a checkpoint nothing vouches for the tiles.
    fn beginning(&self, files: usize) -> Result<u64, ServiceError> {
        let last = self.files.iter().rev().nth(files - 1).map_or(0, |file| file.first_index);
        let begin = self.head.map_or(0, |head| last.min(head.size));
        let begin = begin - begin % TILE_WIDTH;
        let whole = TilePath::fulls(begin).all(|path| {
            let file = self.folder.tile_path(&path);
            fs::metadata(file).is_ok_and(|metadata| metadata.len() == path.file_len() as u64)
        });
        Ok(if whole { begin } else { 0 })
    }

    /// Reads and checks everything from `begin` on; writes nothing.
    fn read(&self, begin: u64) -> Result<Read, Stop> {
        let tree =
            LogTree::resume(&TileTree::new(self.folder, begin), begin).map_err(|error| match error {
                TileError::Read(error) => Stop::Error(error),
                other => Stop::Tiles(other.to_string()),
            })?;
        let covered = self.head.map_or(0, |head| head.size);
        let (tail, newest) = (Sha256::new(), Newest::new(covered));
        let mut read = Read {
            tree,
            torn: BTreeSet::new(),
            torn_partials: Vec::new(),
            tail,
            last: NOTHING,
            name: None,
            newest,
        };
        self.compare_with_head(&read.tree, begin)?;
        let mut full = Vec::new();
        self.each_line(begin, |line| {
            let entry = line.entry();
            read.last = entry;
            if line.index() >= covered {
                read.tail.update(entry);
            }
            if self.head.is_none() {
                read.name = name_in(line).or(read.name.take());
            }
            read.newest.take(self.folder.path(), line)?;
            read.tree.push(&entry, &mut full);
            for tile in full.drain(..) {
                if self.is_torn(&tile)? {
                    read.torn.insert(tile.0);
                }
            }
            self.compare_with_head(&read.tree, begin)
        })?;
        self.check_end(&read.tree)?;
        read.torn_partials = self.torn_partials(&read.tree)?;
        Ok(read)
    }

    /// Makes again what is torn.
    fn mend(&self, read: &Read, begin: u64) -> Result<(), ServiceError> {
        let torn = read.torn.iter().chain(read.torn_partials.iter().map(|(path, _)| path));
        torn.for_each(|tile| tracing::warn!(%tile, "a tile of the audit log is made anew"));
        let (mut tree, mut full) = (LogTree::new(), Vec::new());
        if !read.torn.is_empty() {
            let written = self.each_line(0, |line| {
                tree.push(&line.entry(), &mut full);
                let mut torn = full.drain(..).filter(|(path, _)| read.torn.contains(path));
                Ok(torn.try_for_each(|(path, bytes)| write_tile(self.folder, &path, &bytes))?)
            });
            written.map_err(Stop::into_error)?;
        }
        read.torn_partials.iter().try_for_each(|(path, bytes)| write_tile(self.folder, path, bytes))?;
        let mut read_now = TilePath::fulls(read.tree.size()).filter(|path| path.end_index() > begin);
        read_now.try_for_each(|path| remove_partials(self.folder, &path))
    }

    /// Hands over every record from `begin` on; all have to follow one another.
    fn each_line(
        &self,
        begin: u64,
        mut take: impl FnMut(&LogLine<'_>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let first = self.files.partition_point(|file| file.first_index <= begin).saturating_sub(1);
        let files = self.files.get(first..).unwrap_or_default();
        let mut index = files.first().map_or(0, |file| file.first_index.min(begin));
        for file in files {
            if file.first_index != index {
                let what = format!("record {index} should follow the files before it");
                return Err(Stop::Error(damaged(&file.path, &what)));
            }
            let mut lines = Lines::open(file)?;
            loop {
                let bytes = match lines.read()? {
                    Next::Line(bytes) => bytes,
                    Next::End => break,
                    Next::Unfinished(_) => {
                        return Err(Stop::Error(damaged(
                            &file.path,
                            "its last line has no end, and other files follow",
                        )));
                    }
                };
                let line = LogLine::parse(bytes).ok().filter(|line| line.index() == index);
                let wrong = || {
                    damaged(
                        &file.path,
                        &format!("what stands where record {index} should is not record {index}"),
                    )
                };
                let line = line.ok_or_else(wrong)?;
                if index >= begin {
                    take(&line)?;
                }
                index += 1;
            }
        }
        Ok(())
    }

    /// Whether a tile has to be made again. One that differs in content, not only in length, is that only if the checkpoint vouches
    /// for the records instead.
    fn is_torn(&self, (path, bytes): &Tile) -> Result<bool, ServiceError> {
        match self.folder.tile(path)? {
            None => Ok(true),
            Some(there) if there.len() != bytes.len() => Ok(true),
            Some(there) if there == *bytes => Ok(false),
            Some(_) if self.head.is_some_and(|head| path.end_index() <= head.size) => Ok(true),
            Some(_) => {
                let what = "it is not the tile of the records that lie there: one of the two was edited";
                Err(damaged(&self.folder.tile_path(path), what))
            }
        }
    }

    /// At the size of the checkpoint, the root has to be the one that was signed.
    fn compare_with_head(&self, tree: &LogTree, begin: u64) -> Result<(), Stop> {
        match self.head {
            Some(head) if head.size == tree.size() && head.root != tree.root() => {
                let why = format!(
                    "{}: its first {} records are not the ones that its checkpoint was signed for: records, tiles or checkpoint \
                     were edited, or files of different logs were put together",
                    self.folder.path().display(),
                    head.size
                );
                Err(if begin > 0 { Stop::Tiles(why) } else { Stop::Error(ServiceError::Audit(why)) })
            }
            _ => Ok(()),
        }
    }

    /// Nothing may tell of records that are not there: tiles and checkpoints are made of durable records only.
    fn check_end(&self, tree: &LogTree) -> Result<(), ServiceError> {
        let size = tree.size();
        if let Some(head) = self.head.filter(|head| head.size > size) {
            return Err(self.cut_off(&format!("the checkpoint was signed for {}", head.size), size));
        }
        let next = TilePath { kind: TileKind::Hashes { level: 0 }, index: size / TILE_WIDTH, width: 256 };
        if self.folder.tile(&next)?.is_some() {
            return Err(self.cut_off(&format!("{next} is there"), size));
        }
        Ok(())
    }

    /// Partial tiles are kept for sizes that were signed. Those that are torn, and missing ones of the checkpoint's size.
    fn torn_partials(&self, tree: &LogTree) -> Result<Vec<Tile>, ServiceError> {
        let needed = TilePath::partials(self.head.map_or(0, |head| head.size));
        let mut torn = Vec::new();
        for (widest, bytes) in tree.partials() {
            for width in 1..256 {
                let path = TilePath { width, ..widest };
                let is_there = fs::exists(self.folder.tile_path(&path))
                    .map_err(|e| ServiceError::io(self.folder.path(), e))?;
                if width > widest.width && is_there {
                    return Err(self.cut_off(&format!("{path} is there"), tree.size()));
                }
                if width <= widest.width && (is_there || needed.contains(&path)) {
                    let tile = (path, bytes[..path.file_len()].to_vec());
                    if self.is_torn(&tile)? {
                        torn.push(tile);
                    }
                }
            }
        }
        Ok(torn)
    }

    fn cut_off(&self, what: &str, size: u64) -> ServiceError {
        let folder = self.folder.path().display();
        ServiceError::Audit(format!("{folder}: {what}, and there are {size} records: the log was cut off"))
    }
}

/// The log's name, if this is the record that tells with which key it is signed.
fn name_in(line: &LogLine<'_>) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Fields {
        action: String,
        subject: String,
    }
    let LogLine::Record(line) = line else { return None };
    if !line.record.contains("\"log-key\"") {
        return None;
    }
    let fields: Fields = serde_json::from_str(line.record).ok().filter(|f: &Fields| f.action == "log-key")?;
    Some(fields.subject.split_once('+')?.0.to_owned())
}

/// How many records the checkpoint in a log's folder covers; 0 without one. Whether it is signed is not looked at.
///
/// # Errors
/// As [`recover`].
pub(crate) fn covered_records(folder: &AuditFolder) -> Result<u64, ServiceError> {
    Ok(found_checkpoint(folder)?.map_or(0, |(_, checkpoint)| checkpoint.size))
}

fn found_checkpoint(folder: &AuditFolder) -> Result<Option<(Note, Checkpoint)>, ServiceError> {
    let Some(bytes) = folder.checkpoint()? else { return Ok(None) };
    let parse = || {
        let note = Note::parse(&bytes).ok()?;
        let checkpoint = Checkpoint::parse(note.text()).ok()?;
        Some((note, checkpoint))
    };
    parse().map(Some).ok_or_else(|| damaged(&folder.checkpoint_path(), "this is no checkpoint"))
}

/// Cuts off what follows the last end of a line, and makes all that stays durable: nothing that is signed from now on may be
/// lost again.
fn cut_unfinished(last: Option<&LogFile>) -> Result<u64, ServiceError> {
    let Some(last) = last else { return Ok(0) };
    let cut = || {
        let file = OpenOptions::new().read(true).write(true).open(&last.path)?;
        let len = file.metadata()?.len();
        let end = read_end(&file, len, LINE_LEN_MAX)?;
        let whole = end.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let torn_len = (end.len() - whole) as u64;
        if whole == 0 && torn_len < len {
            return Ok(None);
        }
        if torn_len > 0 {
            file.set_len(len - torn_len)?;
        }
        file.sync_all()?;
        Ok(Some(torn_len))
    };
    let torn_len = cut().map_err(|e| ServiceError::io(&last.path, e))?;
    torn_len.ok_or_else(|| damaged(&last.path, "its end is not a record"))
}
