//! What tests that run the program as another user share.

use std::path::Path;
use std::process::Command;

/// Nobody in particular. A test that runs as root would see through every wall, and as root libraries make calls that they don't
/// make otherwise (SQLite gives its files to their owner).
pub(crate) const NOBODY: u32 = 65_534;

/// Copies a program to a place that another user reaches, by a process of its own.
///
/// Were the copy written by this process, a child that another test starts meanwhile would inherit the file open for writing, and
/// until that child calls `exec` nobody could run the copy ("Text file busy").
pub(crate) fn copy_program(from: impl AsRef<Path>, to: impl AsRef<Path>) {
    let copied = Command::new("cp").arg(from.as_ref()).arg(to.as_ref()).output().unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
}
