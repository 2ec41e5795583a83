//! How far an export went, in a file: written before records are sent and when they were.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use claviger_audit::LogLine;
use claviger_keyservice::files::parent;
use serde::{Deserialize, Serialize};

/// Where the log goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Index of the next record.
    pub(super) next: u64,
    /// Entry of the one before, hex: by it the log is known again.
    pub(super) entry: Option<String>,
}

impl Place {
    /// After this line.
    pub(super) fn after(line: &LogLine<'_>) -> Self {
        let entry = line.entry().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { next: line.index() + 1, entry: Some(entry) }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    next: u64,
    entry: Option<String>,
    /// Records before this index were about to be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sending: Option<u64>,
}

/// A place that may be remembered in a file.
pub(super) struct Cursor {
    file: Option<PathBuf>,
    place: Place,
    unsure: Option<u64>,
}

impl Cursor {
    /// What the file says; a file that is not there yet begins with record `from`.
    ///
    /// # Errors
    /// When it can't be read, or is no cursor.
    pub(super) fn open(file: Option<PathBuf>, from: u64) -> Result<Self> {
        let begin = Place { next: from, entry: None };
        let Some(path) = &file else { return Ok(Self { file, place: begin, unsure: None }) };
        let text = match fs::read(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { file, place: begin, unsure: None });
            }
            text => text.with_context(|| path.display().to_string())?,
        };
        let stored: Stored = serde_json::from_slice(&text)
            .with_context(|| format!("{} was not written by `audit export --cursor`", path.display()))?;
        let place = Place { next: stored.next, entry: stored.entry };
        Ok(Self { file, place, unsure: stored.sending })
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Up to which record the last export did not know whether it was sent.
    pub(super) fn unsure(&self) -> Option<u64> {
        self.unsure
    }

    /// Records before `end` are about to be sent.
    ///
    /// # Errors
    /// When that can't be written: then they must not be.
    pub(super) fn begin(&self, end: u64) -> Result<()> {
        self.write(Some(end))
    }

    /// They were.
    ///
    /// # Errors
    /// When that can't be written: they will be sent again.
    pub(super) fn done(&mut self, place: Place) -> Result<()> {
        self.place = place;
        self.write(None)
    }

    fn write(&self, sending: Option<u64>) -> Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let Place { next, entry } = self.place.clone();
        let stored = serde_json::to_vec(&Stored { next, entry, sending })?;
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let fresh = Path::new(&name);
        let write = || -> std::io::Result<()> {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
            file.write_all(&stored)?;
            file.sync_all()?;
            fs::rename(fresh, path)?;
            File::open(parent(path))?.sync_all()
        };
        write().with_context(|| path.display().to_string())
    }
}
