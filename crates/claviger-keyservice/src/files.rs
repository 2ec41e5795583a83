//! Files that hold secrets: read only if nobody else can, written so that nobody else could at any moment.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::ServiceError;

const SECRET_FILE_LEN_MAX: usize = 64 << 10;

/// Reads a secret text file of at most 64 KiB.
///
/// # Errors
/// [`ServiceError::LooseMode`] if group or others have any right on it; [`ServiceError::Io`].
pub fn read_secret(path: &Path) -> Result<Zeroizing<String>, ServiceError> {
    let bytes = read_secret_bytes(path, SECRET_FILE_LEN_MAX)?;
    let no_text = || ServiceError::io(path, std::io::ErrorKind::InvalidData.into());
    let text = std::str::from_utf8(&bytes).map_err(|_| no_text())?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Reads a secret file of at most `len_max` bytes.
///
/// # Errors
/// [`ServiceError::LooseMode`] if group or others have any right on it; [`ServiceError::Io`], also if it is longer.
pub fn read_secret_bytes(path: &Path, len_max: usize) -> Result<Zeroizing<Vec<u8>>, ServiceError> {
    let file = File::open(path).map_err(|e| ServiceError::io(path, e))?;
    let metadata = file.metadata().map_err(|e| ServiceError::io(path, e))?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ServiceError::LooseMode { path: path.to_owned(), mode, wanted: 0o600 });
    }
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(len_max);
    // Reserved at once, so that no reallocation leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(len.saturating_add(1)));
    file.take(len_max as u64 + 1).read_to_end(&mut bytes).map_err(|e| ServiceError::io(path, e))?;
    if bytes.len() > len_max {
        return Err(ServiceError::io(path, std::io::ErrorKind::FileTooLarge.into()));
    }
    Ok(bytes)
}

/// Opens a file to be read, and nothing else that may lie there: whoever reads a pipe waits for whoever put it there.
///
/// # Errors
/// The kind is `InvalidInput` for what is not a file.
pub(crate) fn open_regular(path: &Path) -> std::io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "this is not a file"))
}

/// Reads a text file that nobody but its owner can change. A group of the owner alone (same number) is the owner.
///
/// # Errors
/// [`ServiceError::WritableByOthers`]; [`ServiceError::Io`].
pub(crate) fn read_owned(path: &Path) -> Result<String, ServiceError> {
    let mut file = File::open(path).map_err(|e| ServiceError::io(path, e))?;
    let metadata = file.metadata().map_err(|e| ServiceError::io(path, e))?;
    let by_group = metadata.mode() & 0o020 != 0 && metadata.gid() != metadata.uid();
    if metadata.mode() & 0o002 != 0 || by_group {
        return Err(ServiceError::WritableByOthers { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|e| ServiceError::io(path, e))?;
    Ok(text)
}

/// Creates a new file with mode 0600, writes it and makes it durable. Never overwrites.
///
/// # Errors
/// [`ServiceError::Io`], also if the file exists.
pub fn write_secret_new(path: &Path, content: &[u8]) -> Result<(), ServiceError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|e| ServiceError::io(path, e))?;
    sync_folder(parent(path))
}

/// Replaces a file, or makes it, in one step; mode 0600. A folder that is missing is made with mode 0700. Durable when it
/// returns.
///
/// # Errors
/// [`ServiceError::Io`].
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), ServiceError> {
    let folder = parent(path);
    let write = || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|e| ServiceError::io(path, e))?;
    sync_folder(folder)
}

/// The folder of a path; a bare file name lies in the current one.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder's entries durable.
///
/// # Errors
/// [`ServiceError::Io`].
pub fn sync_folder(path: &Path) -> Result<(), ServiceError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|e| ServiceError::io(path, e))
}

/// Creates a folder with mode 0700 if it isn't there; one that is there must not be open to others.
///
/// # Errors
/// [`ServiceError::LooseMode`] if group or others may enter or write it; [`ServiceError::Io`].
pub fn private_folder(path: &Path) -> Result<(), ServiceError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path).map_err(|e| ServiceError::io(path, e))?;
    let mode = fs::metadata(path).map_err(|e| ServiceError::io(path, e))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(ServiceError::LooseMode { path: path.to_owned(), mode, wanted: 0o700 });
    }
    Ok(())
}

/// How often a state folder's lock is tried.
const ATTEMPTS: u32 = 20;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);

/// The right to work in a state folder; held by one process at a time, given back when it ends, however it ends.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

impl StateLock {
    /// Takes it. One that is just being given back is waited for, a second at most: by a process that ends, or by a child of
    /// this one that has inherited the file and not begun its own program yet.
    ///
    /// # Errors
    /// [`ServiceError::AlreadyRunning`] if another holds it; [`ServiceError::Io`].
    pub fn take(state_dir: &Path) -> Result<Self, ServiceError> {
        let path = state_dir.join("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|e| ServiceError::io(&path, e))?;
        for attempt in 1.. {
            match file.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if attempt < ATTEMPTS => {
                    std::thread::sleep(BETWEEN_ATTEMPTS)
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(ServiceError::AlreadyRunning(state_dir.to_owned()));
                }
                Err(fs::TryLockError::Error(error)) => return Err(ServiceError::io(&path, error)),
            }
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_secret_new(&path, b"s").unwrap();
        assert_eq!(read_secret(&path).unwrap().as_str(), "s");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let text = read_secret(&path).unwrap_err().to_string();
        assert!(text.contains("chmod 0600"), "{text}");
    }

    #[test]
    fn a_bare_file_name_lies_in_the_current_folder() {
        assert_eq!(parent(Path::new("passphrase")), Path::new("."));
        assert_eq!(parent(Path::new("/etc/passphrase")), Path::new("/etc"));
    }

    #[test]
    fn a_secret_is_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write_secret_new(&path, b"first").unwrap();
        assert!(write_secret_new(&path, b"second").is_err());
        assert_eq!(read_secret(&path).unwrap().as_str(), "first");
    }

    #[test]
    fn a_folder_that_is_being_given_back_is_waited_for_and_one_that_is_not_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateLock::take(folder.path()).unwrap();
        let leaves = std::thread::spawn(move || {
            std::thread::sleep(2 * BETWEEN_ATTEMPTS);
            drop(first);
        });
        let second = StateLock::take(folder.path()).unwrap();
        leaves.join().unwrap();
        assert!(matches!(StateLock::take(folder.path()), Err(ServiceError::AlreadyRunning(_))));
        drop(second);
    }

    #[test]
    fn an_open_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        private_folder(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(private_folder(&path), Err(ServiceError::LooseMode { mode: 0o755, .. })));
    }
}
