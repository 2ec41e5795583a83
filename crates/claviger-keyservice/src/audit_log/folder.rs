//! The log's folder as it is read: by the service when it starts, by `claviger audit` on a copy. Nothing here writes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use claviger_audit::line::LINE_LEN_MAX;
use claviger_audit::note::NOTE_LEN_MAX;
use claviger_audit::{LogLine, TilePath, Tiles};

use crate::ServiceError;
use crate::files::open_regular;

/// Name of the file that holds the newest checkpoint.
pub(crate) const CHECKPOINT_FILE: &str = "checkpoint";
/// Name of the folder with checkpoints that other replicas cosigned.
pub(crate) const COSIGNED_FOLDER: &str = "cosigned";
const READ_BUFFER_LEN: usize = 256 << 10;

/// A folder with an audit log in it.
#[derive(Debug, Clone)]
pub struct AuditFolder {
    path: PathBuf,
}

/// One file of records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Index of its first record, after which it is named.
    pub first_index: u64,
    /// Where it lies.
    pub path: PathBuf,
}

impl AuditFolder {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The files of records, oldest first.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for a file `*.jsonl` with another name than the service gives; [`ServiceError::Io`].
    pub fn files(&self) -> Result<Vec<LogFile>, ServiceError> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(|e| ServiceError::io(&self.path, e))? {
            let path = entry.map_err(|e| ServiceError::io(&self.path, e))?.path();
            if path.extension().is_some_and(|e| e == "jsonl") {
                let first_index =
                    path.file_stem().and_then(|stem| stem.to_str()).and_then(|s| s.parse().ok());
                let first_index = first_index
                    .filter(|index| path == self.file_path(*index))
                    .ok_or_else(|| damaged(&path, "the file's name is not an index"))?;
                files.push(LogFile { first_index, path });
            }
        }
        files.sort_by_key(|file| file.first_index);
        Ok(files)
    }

    pub(super) fn file_path(&self, first_index: u64) -> PathBuf {
        self.path.join(format!("{first_index:020}.jsonl"))
    }

    pub(super) fn tile_path(&self, path: &TilePath) -> PathBuf {
        self.path.join(path.to_string())
    }

    pub(super) fn checkpoint_path(&self) -> PathBuf {
        self.path.join(CHECKPOINT_FILE)
    }

    /// Checkpoints that other replicas cosigned, and where each lies; unverified.
    ///
    /// # Errors
    /// [`ServiceError::Io`].
    pub fn cosigned(&self) -> Result<Vec<(String, Vec<u8>)>, ServiceError> {
        let folder = self.path.join(COSIGNED_FOLDER);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|e| ServiceError::io(&folder, e))?,
        };
        let mut notes = Vec::new();
        for entry in entries {
            let path = entry.map_err(|e| ServiceError::io(&folder, e))?.path();
            // What was being written when the machine stopped has another name.
            if path.extension().is_none()
                && let Some(note) = read_if_there(&path, NOTE_LEN_MAX)?
            {
                notes.push((path.display().to_string(), note));
            }
        }
        notes.sort();
        Ok(notes)
    }

    /// The bytes of the newest checkpoint, if there is one.
    ///
    /// # Errors
    /// [`ServiceError::Io`].
    pub fn checkpoint(&self) -> Result<Option<Vec<u8>>, ServiceError> {
        read_if_there(&self.checkpoint_path(), NOTE_LEN_MAX)
    }

    /// All tiles that lie there.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for a file among them that is none; [`ServiceError::Io`].
    pub fn tiles(&self) -> Result<BTreeSet<TilePath>, ServiceError> {
        let mut tiles = BTreeSet::new();
        self.list_tiles("tile", &mut tiles)?;
        Ok(tiles)
    }

    fn list_tiles(&self, name: &str, tiles: &mut BTreeSet<TilePath>) -> Result<(), ServiceError> {
        let folder = self.path.join(name);
        let io = |e| ServiceError::io(&folder, e);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(io)?,
        };
        for entry in entries {
            let entry = entry.map_err(io)?;
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            if entry.file_type().map_err(io)?.is_dir() {
                self.list_tiles(&name, tiles)?;
            } else {
                let path = name.parse().map_err(|_| damaged(&entry.path(), "this is no tile"))?;
                tiles.insert(path);
            }
        }
        Ok(())
    }
}

impl Tiles for AuditFolder {
    type Error = ServiceError;

    fn tile(&self, path: &TilePath) -> Result<Option<Vec<u8>>, ServiceError> {
        // One byte more than it may have, so that a longer file is not taken for a good one.
        read_if_there(&self.tile_path(path), path.file_len() + 1)
    }
}

/// The beginning of a file, up to this many bytes; nothing if it is not there.
///
/// # Errors
/// [`ServiceError::Io`].
pub(crate) fn read_if_there(path: &Path, len_max: usize) -> Result<Option<Vec<u8>>, ServiceError> {
    let file = match open_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| ServiceError::io(path, e))?,
    };
    let mut bytes = Vec::new();
    file.take(len_max as u64).read_to_end(&mut bytes).map_err(|e| ServiceError::io(path, e))?;
    Ok(Some(bytes))
}

/// The end of a file of this length, up to so many bytes.
pub(super) fn read_end(file: &File, len: u64, len_max: usize) -> io::Result<Vec<u8>> {
    let wanted = len.min(len_max as u64);
    let mut bytes = vec![0; usize::try_from(wanted).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, len - wanted)?;
    Ok(bytes)
}

pub(super) fn damaged(path: &Path, what: &str) -> ServiceError {
    ServiceError::Audit(format!("{}: {what}; the log must not be edited", path.display()))
}

/// The record, or the place of one that was pruned, that has to stand in a line.
///
/// # Errors
/// [`ServiceError::Audit`] if anything else does; it names `path`.
pub(super) fn line_at<'a>(path: &Path, bytes: &'a [u8], index: u64) -> Result<LogLine<'a>, ServiceError> {
    let line = LogLine::parse(bytes).ok().filter(|line| line.index() == index);
    line.ok_or_else(|| damaged(path, &format!("record {index} is not one")))
}

/// The lines of a file, one after the other.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: Vec<u8>,
    /// Whether `line` goes on.
    is_unfinished: bool,
    is_empty: bool,
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A line without its end.
    Line(&'a [u8]),
    /// Bytes without an end of line: a record that was being written. Nobody was told that it is durable.
    Unfinished(usize),
    /// Nothing.
    End,
}

impl Lines {
    /// Begins with the first.
    ///
    /// # Errors
    /// [`ServiceError::Io`].
    pub fn open(file: &LogFile) -> Result<Self, ServiceError> {
        let opened = open_regular(&file.path).map_err(|e| ServiceError::io(&file.path, e))?;
        let reader = BufReader::with_capacity(READ_BUFFER_LEN, opened);
        Ok(Self { path: file.path.clone(), reader, line: Vec::new(), is_unfinished: false, is_empty: true })
    }

    /// Whether nothing was read from it yet.
    pub(super) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Reads on; also behind an end, where something may have been written since. What was unfinished comes again, as far as it is
    /// there then.
    ///
    /// # Errors
    /// [`ServiceError::Audit`] for a line that is longer than any may be; [`ServiceError::Io`].
    pub fn read(&mut self) -> Result<Next<'_>, ServiceError> {
        if !std::mem::take(&mut self.is_unfinished) {
            self.line.clear();
        }
        let mut limited = (&mut self.reader).take((LINE_LEN_MAX + 1 - self.line.len()) as u64);
        limited.read_until(b'\n', &mut self.line).map_err(|e| ServiceError::io(&self.path, e))?;
        let len = self.line.len();
        self.is_empty &= len == 0;
        match self.line.last() {
            None => Ok(Next::End),
            Some(b'\n') => Ok(Next::Line(&self.line[..len - 1])),
            Some(_) if len > LINE_LEN_MAX => Err(damaged(&self.path, "a line is longer than any record is")),
            Some(_) => {
                self.is_unfinished = true;
                Ok(Next::Unfinished(len))
            }
        }
    }
}
