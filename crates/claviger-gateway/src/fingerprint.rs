//! Seeing that a file was written or replaced.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Enough of a file's metadata to tell its versions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint {
    inode: u64,
    len: u64,
    modified_s: i64,
    modified_ns: i64,
    changed_s: i64,
    changed_ns: i64,
}

impl Fingerprint {
    /// Of the file at `path`; all zero while there is none.
    pub(crate) fn of(path: &Path) -> Self {
        std::fs::metadata(path).map_or_else(
            |_| Self::default(),
            |m| Self {
                inode: m.ino(),
                len: m.len(),
                modified_s: m.mtime(),
                modified_ns: m.mtime_nsec(),
                changed_s: m.ctime(),
                changed_ns: m.ctime_nsec(),
            },
        )
    }
}
