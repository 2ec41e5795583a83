//! Files that are still being written, and the names that they get when they are done.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use claviger_env::Clock;

use crate::error::Error;

/// The staging folder, with the clock and the counter that name what leaves it.
pub(crate) struct Staging {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
    serial: AtomicU64,
}

/// A staged file; removed on drop unless it was moved to its place.
pub(crate) struct Staged {
    path: Option<PathBuf>,
}

impl Staging {
    /// Takes `folder`, which is emptied: what lies there is of a process that died.
    pub(crate) fn open(folder: PathBuf, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, clock, serial: AtomicU64::new(0) })
    }

    /// A fresh, empty file.
    pub(crate) fn file(&self) -> Result<Staged, Error> {
        let path = self.fresh_path();
        fs::File::create_new(&path)?;
        Ok(Staged { path: Some(path) })
    }

    /// A name in the staging folder that nothing has.
    pub(crate) fn fresh_path(&self) -> PathBuf {
        self.folder.join(format!("{:08x}", self.serial.fetch_add(1, Ordering::Relaxed)))
    }

    /// A name for what is stored now: unlike all others of this process, and, because `taken` is asked, of earlier ones.
    pub(crate) fn generation(&self, taken: impl Fn(&str) -> bool) -> String {
        loop {
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            let generation = format!("{:011x}-{serial:x}", self.now_ms());
            if !taken(&generation) {
                return generation;
            }
        }
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}

impl Staged {
    /// Where the file lies until it is moved.
    pub(crate) fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(""))
    }

    /// Moves the file to its final place.
    pub(crate) fn move_to(mut self, target: &Path) -> Result<(), Error> {
        fs::rename(self.path(), target)?;
        self.path = None;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // Nothing to tell anyone: the next start empties the folder.
            let _ = fs::remove_file(path);
        }
    }
}
