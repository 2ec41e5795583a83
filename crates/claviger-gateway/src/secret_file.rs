//! Files that hold secrets: only the owner may read them, and their content is wiped from memory.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Bytes of a secret file at most: far above any list of access keys.
const SECRET_FILE_LEN_MAX: u64 = 16 << 20;

/// Why a file of secrets is refused. Never quotes the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file isn't there or can't be read.
    #[error("{path}: can't be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Others than the owner may read or write it.
    #[error(
        "{path}: mode {mode:04o} lets others than its owner at the secrets in it; run: chmod 600 {path}",
        path = path.display()
    )]
    LooseMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file, not text, or absurdly long.
    #[error("{path}: not a text file of at most 16 MiB", path = path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a file of secrets. The mode is checked on the open file, so that it can't change in between.
///
/// # Errors
/// [`SecretFileError`]; group and others must have no permission at all (0600 or 0400).
pub fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let io = |source| SecretFileError::Io { path: path.to_path_buf(), source };
    let not_text = || SecretFileError::NotText { path: path.to_path_buf() };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() || metadata.len() > SECRET_FILE_LEN_MAX {
        return Err(not_text());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::LooseMode { path: path.to_path_buf(), mode });
    }
    // One allocation of the full size: a buffer that grows leaves copies of its content behind.
    let capacity = usize::try_from(metadata.len()).map_err(|_| not_text())? + 1;
    let mut content = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(SECRET_FILE_LEN_MAX).read_to_end(&mut content).map_err(io)?;
    let text = std::str::from_utf8(&content).map_err(|_| not_text())?;
    Ok(Zeroizing::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file_with_mode(mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret").unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn only_modes_that_shut_everyone_else_out_are_read() {
        for mode in [0o600, 0o400, 0o700] {
            assert_eq!(read_secret_file(file_with_mode(mode).path()).unwrap().as_str(), "secret");
        }
        for mode in [0o640, 0o604, 0o660, 0o610, 0o601] {
            let error = read_secret_file(file_with_mode(mode).path()).unwrap_err();
            assert!(matches!(error, SecretFileError::LooseMode { mode: found, .. } if found == mode));
            assert!(error.to_string().contains("chmod 600"));
            assert!(!error.to_string().contains("secret\""));
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(read_secret_file(&folder.path().join("no")), Err(SecretFileError::Io { .. })));
        assert!(read_secret_file(folder.path()).is_err());
    }
}
