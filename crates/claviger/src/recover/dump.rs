//! A dump of buckets on disk, as `rclone copy` and `aws s3 sync` write it: DIR/BUCKET/KEY, the system bucket among them.
//!
//! Such a copy has no metadata, hence no envelope: content opens, names stay unverified. `rclone copy --metadata` keeps user
//! metadata in extended attributes, the envelope in `user.claviger`: then names are verified too.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::failure::Failure;
use super::source::{Item, Mark};

/// Where `rclone --metadata` puts the metadata entry `claviger`.
const ENVELOPE_ATTRIBUTE: &str = "user.claviger";
/// No envelope is longer (docs/format.md §5.2).
const ENVELOPE_LEN_MAX: usize = 32 << 10;

/// A folder with one folder for each bucket.
pub(super) struct Dump {
    folder: PathBuf,
}

/// One file of it.
#[derive(Debug, Clone)]
pub(super) struct DumpedObject {
    path: PathBuf,
    /// Its bytes.
    pub(super) stored_len: u64,
    /// The envelope, if an extended attribute keeps it.
    pub(super) envelope: Option<String>,
}

impl Dump {
    /// A dump in `folder`.
    ///
    /// # Errors
    /// When it is no folder.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::read_dir(folder)?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Its buckets.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub(super) fn buckets(&self) -> Result<Vec<String>, Failure> {
        let mut buckets = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                buckets.push(entry.file_name().into_string().map_err(|_| Failure::NotText)?);
            }
        }
        buckets.sort_unstable();
        Ok(buckets)
    }

    /// All objects of a bucket under a prefix. Symbolic links are none.
    ///
    /// # Errors
    /// When a folder can't be read, or a name is no text.
    pub(super) fn list(&self, bucket: &str, prefix: &str) -> Result<Vec<Item>, Failure> {
        let root = self.folder.join(bucket);
        let mut items = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    let path = entry.path();
                    let below = path.strip_prefix(&root).map_err(|_| Failure::NotText)?;
                    let key = String::from_utf8(below.as_os_str().as_bytes().to_vec());
                    let key = key.map_err(|_| Failure::NotText)?;
                    if key.starts_with(prefix) {
                        let mark = mark(&entry.metadata()?);
                        items.push(Item { bucket: bucket.to_owned(), key, version: None, mark });
                    }
                }
            }
        }
        items.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(items)
    }

    /// The file of an object.
    ///
    /// # Errors
    /// When it is gone, or can't be read.
    pub(super) fn find(&self, bucket: &str, key: &str) -> io::Result<DumpedObject> {
        let path = self.folder.join(bucket).join(key);
        let stored_len = fs::metadata(&path)?.len();
        let envelope = envelope(&path)?;
        Ok(DumpedObject { path, stored_len, envelope })
    }
}

impl DumpedObject {
    /// The file, to be read from its beginning.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    /// `len` bytes from `start` on.
    ///
    /// # Errors
    /// The file system's; that the file is shorter.
    pub(super) fn bytes(&self, start: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut file = self.open()?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn mark(metadata: &fs::Metadata) -> Mark {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let modified_ms = modified.and_then(|time| u64::try_from(time.as_millis()).ok()).unwrap_or_default();
    Mark { stored_len: metadata.len(), etag: String::new(), modified_ms }
}

/// The envelope beside a file; a file system without extended attributes has none.
fn envelope(path: &Path) -> io::Result<Option<String>> {
    use rustix::io::Errno;
    let mut value = vec![0; ENVELOPE_LEN_MAX];
    match rustix::fs::getxattr(path, ENVELOPE_ATTRIBUTE, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            // What is no text is no envelope, and refused as one.
            Ok(Some(String::from_utf8_lossy(&value).into_owned()))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
