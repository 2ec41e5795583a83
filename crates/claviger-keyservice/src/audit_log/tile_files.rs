//! How tiles and checkpoints are written: under another name first, so that a reader sees all of a file or none of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use claviger_audit::{Note, TilePath};

use super::folder::AuditFolder;
use crate::ServiceError;
use crate::files::replace;

/// Writes a tile. It is not made durable: it can be made again from the records.
pub(super) fn write_tile(folder: &AuditFolder, path: &TilePath, bytes: &[u8]) -> Result<(), ServiceError> {
    write_through(folder, "tile.new", path, bytes)
}

/// The same while another thread may write tiles.
pub(super) fn mend_tile(folder: &AuditFolder, path: &TilePath, bytes: &[u8]) -> Result<(), ServiceError> {
    write_through(folder, "tile.mended", path, bytes)
}

fn write_through(
    folder: &AuditFolder,
    fresh: &str,
    path: &TilePath,
    bytes: &[u8],
) -> Result<(), ServiceError> {
    let file = folder.tile_path(path);
    let write = || {
        if let Some(parent) = file.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let fresh = folder.path().join(fresh);
        create(&fresh)?.write_all(bytes)?;
        fs::rename(&fresh, &file)
    };
    write().map_err(|e| ServiceError::io(&file, e))
}

/// Removes the partial tiles at the place of a full one.
pub(super) fn remove_partials(folder: &AuditFolder, full: &TilePath) -> Result<(), ServiceError> {
    let mut name = folder.tile_path(full).into_os_string();
    name.push(".p");
    let partials = Path::new(&name);
    match fs::remove_dir_all(partials) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ServiceError::io(partials, error)),
        _ => Ok(()),
    }
}

/// Replaces the checkpoint. Durable when this returns.
pub(super) fn write_checkpoint(folder: &AuditFolder, note: &Note) -> Result<(), ServiceError> {
    replace(&folder.checkpoint_path(), note.to_string().as_bytes())
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}
