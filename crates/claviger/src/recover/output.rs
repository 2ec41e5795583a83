//! The folder that takes what was recovered.
//!
//! ```text
//! DIR/BUCKET/KEY                       verified content (names as in `place`)
//! DIR/_versions/BUCKET/KEY~ID          the same of versions that another one, or a deletion, took the place of
//! DIR/_name-unverified/BUCKET/KEY      content that is proved, under a name that is not
//! DIR/_index.jsonl                     a line for each object: name, metadata, file, who sealed it
//! DIR/_failed.jsonl                    a line for each object that failed in the last run
//! DIR/_deleted.jsonl                   a line for each delete marker that the last run saw
//! DIR/_summary.json                    counts of the last run, by gateway and epoch
//! DIR/_partial/                        what is being written
//! ```
//!
//! A file gets its name when everything of it has verified and is on disk. Its line in the index is written just before, so
//! that no file of ours is ever without one.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, anyhow};
use claviger_format::crc64::Crc64;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::entry::{Entry, Proof};
use super::place;
use super::source::{Deleted, Item, Mark};

const INDEX: &str = "_index.jsonl";
const FAILED: &str = "_failed.jsonl";
const DELETED: &str = "_deleted.jsonl";
const SUMMARY: &str = "_summary.json";
const PARTIAL: &str = "_partial";
const UNVERIFIED: &str = "_name-unverified";
/// Bytes that are read or compared at once.
const PIECE_LEN: usize = 256 << 10;

/// An open folder; no second process can open it meanwhile.
pub(super) struct Output {
    root: PathBuf,
    books: Mutex<Books>,
    next_part: AtomicU64,
    _lock: File,
}

struct Books {
    index: File,
    failed: File,
    deleted: File,
    known: HashMap<[u8; 16], Known>,
}

/// What the index says of an object, in few bytes: there may be millions.
#[derive(Clone, Copy)]
struct Known {
    path: [u8; 16],
    size: u64,
    crc64: u64,
    mark: [u8; 16],
}

/// A file that is being written. Dropped before it is placed, it is gone.
pub(super) struct PartFile {
    path: PathBuf,
    file: File,
}

#[derive(Serialize)]
struct FailedLine<'a> {
    bucket: &'a str,
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    why: &'a str,
}

#[derive(Serialize)]
struct DeletedLine<'a> {
    bucket: &'a str,
    key: &'a str,
    version: &'a str,
    is_latest: bool,
    deleted_ms: u64,
}

impl Output {
    /// Opens the folder, making it if it is not there, and reads the index of earlier runs.
    ///
    /// # Errors
    /// When another recovery writes there, something else lies there, or the index is damaged.
    pub(super) fn open(root: &Path) -> anyhow::Result<Self> {
        private_folder(root)?;
        let is_ours = root.join(INDEX).exists() || fs::read_dir(root)?.next().is_none();
        if !is_ours {
            return Err(anyhow!("{} holds other files; give --to a new folder", root.display()));
        }
        let lock = private(root.join("_lock"), OpenOptions::new().create(true).truncate(false).write(true))?;
        if lock.try_lock().is_err() {
            return Err(anyhow!("another recovery writes to {}", root.display()));
        }
        let partial = root.join(PARTIAL);
        if partial.exists() {
            fs::remove_dir_all(&partial).context("what an earlier run left can't be removed")?;
        }
        private_folder(&partial)?;
        let known = read_index(&root.join(INDEX))?;
        let index = private(root.join(INDEX), OpenOptions::new().create(true).append(true))?;
        let anew =
            |name| private(root.join(name), OpenOptions::new().create(true).write(true).truncate(true));
        let books = Mutex::new(Books { index, failed: anew(FAILED)?, deleted: anew(DELETED)?, known });
        Ok(Self { root: root.to_path_buf(), books, next_part: AtomicU64::new(0), _lock: lock })
    }

    /// Whether an earlier run recovered just this, and it is still there and whole.
    pub(super) fn is_there(&self, bucket: &str, item: &Item) -> bool {
        let known = self.books().known.get(&identity(bucket, &item.key, item.older())).copied();
        let Some(known) = known.filter(|known| known.mark == digest_of_mark(&item.mark)) else {
            return false;
        };
        candidates(bucket, &item.key, item.older()).into_iter().any(|path| {
            known.path == digest_of_path(&path)
                && crc64_of(&self.root.join(path)).is_ok_and(|found| found == (known.size, known.crc64))
        })
    }

    /// A file for content that is not verified yet.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn part(&self) -> io::Result<PartFile> {
        let number = self.next_part.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(PARTIAL).join(number.to_string());
        let file = OpenOptions::new().create_new(true).read(true).write(true).mode(0o600).open(&path)?;
        Ok(PartFile { path, file })
    }

    /// Gives verified content its name, and writes its line into the index. `entry.file` is filled in.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn place(&self, part: PartFile, mut entry: Entry, crc64: u64) -> io::Result<()> {
        let created = UNIX_EPOCH.checked_add(Duration::from_millis(entry.created_ms));
        if let Some(created) = created {
            // For people only: a file system that can't hold the time keeps another one.
            let _ = part.file.set_modified(created);
        }
        part.file.sync_data()?;
        let mut books = self.books();
        let object = identity(&entry.bucket, &entry.key, entry.older());
        let path = self.free_path(&books, &entry, object, &part)?;
        entry.file = path.to_string_lossy().into_owned();
        write_line(&mut books.index, &entry)?;
        fs::rename(&part.path, self.root.join(&path))?;
        let known = Known {
            path: digest_of_path(&path),
            size: entry.size,
            crc64,
            mark: digest_of_mark(&entry.store),
        };
        books.known.insert(object, known);
        Ok(())
    }

    /// The first path that can be written without touching what is another object's.
    fn free_path(
        &self,
        books: &Books,
        entry: &Entry,
        object: [u8; 16],
        part: &PartFile,
    ) -> io::Result<PathBuf> {
        let ours = books.known.get(&object).map(|known| known.path);
        let of_this_proof =
            |path: &PathBuf| path.starts_with(UNVERIFIED) == (entry.name == Proof::Unverified);
        let candidates = candidates(&entry.bucket, &entry.key, entry.older());
        for path in candidates.into_iter().filter(of_this_proof) {
            match place::make_parents(&self.root, &path) {
                Err(error) if error.kind() == ErrorKind::NotADirectory => continue,
                made => made?,
            }
            let there = self.root.join(&path);
            match fs::symlink_metadata(&there) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path),
                Err(error) => return Err(error),
                Ok(found) if !found.is_file() => {}
                // Of an earlier run; or one that ended between line and name.
                Ok(_) if ours == Some(digest_of_path(&path)) || is_same(&there, &part.path)? => {
                    return Ok(path);
                }
                Ok(_) => {}
            }
        }
        Err(io::Error::new(ErrorKind::AlreadyExists, "something else lies where this object belongs"))
    }

    /// Notes an object that failed.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn failed(&self, bucket: &str, item: &Item, why: &str) -> io::Result<()> {
        let version = item.version.as_ref().map(|version| version.id.as_str());
        write_line(&mut self.books().failed, &FailedLine { bucket, key: &item.key, version, why })
    }

    /// Notes a delete marker.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn deleted(&self, bucket: &str, marker: &Deleted) -> io::Result<()> {
        let Deleted { key, version, deleted_ms } = marker;
        let (id, is_latest) = (version.id.as_str(), version.is_latest);
        let line = DeletedLine { bucket, key, version: id, is_latest, deleted_ms: *deleted_ms };
        write_line(&mut self.books().deleted, &line)
    }

    /// Writes the summary, and makes the index durable.
    ///
    /// # Errors
    /// The file system's.
    pub(super) fn close(&self, summary: &impl Serialize) -> io::Result<()> {
        let mut file =
            private_io(self.root.join(SUMMARY), OpenOptions::new().create(true).write(true).truncate(true))?;
        serde_json::to_writer_pretty(&mut file, summary)?;
        file.write_all(b"\n")?;
        let books = self.books();
        books.index.sync_all()?;
        books.failed.sync_all()?;
        books.deleted.sync_all()?;
        drop(books);
        fs::remove_dir_all(self.root.join(PARTIAL))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // It has got its name, or is to go.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where an object may lie: under its name if a file system can hold it, under its hash; verified, and not.
fn candidates(bucket: &str, key: &str, older: Option<&str>) -> Vec<PathBuf> {
    let (natural, by_hash) = match older {
        None => (place::natural(bucket, key), place::by_hash(bucket, key)),
        Some(id) => (place::natural_version(bucket, key, id), place::version_by_hash(bucket, key, id)),
    };
    let mut paths: Vec<PathBuf> = natural.into_iter().collect();
    paths.push(by_hash);
    let unverified: Vec<PathBuf> = paths.iter().map(|path| Path::new(UNVERIFIED).join(path)).collect();
    paths.extend(unverified);
    paths
}

fn read_index(path: &Path) -> anyhow::Result<HashMap<[u8; 16], Known>> {
    let mut known = HashMap::new();
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(known),
        opened => opened.with_context(|| path.display().to_string())?,
    };
    let mut reader = BufReader::new(&file);
    let (mut line, mut whole_len) = (String::new(), 0u64);
    for number in 1.. {
        line.clear();
        let len = reader.read_line(&mut line).with_context(|| path.display().to_string())?;
        if !line.ends_with('\n') {
            break;
        }
        whole_len += len as u64;
        let damaged = || anyhow!("{}: line {number} is damaged; give --to a new folder", path.display());
        let entry: Entry = serde_json::from_str(&line).map_err(|_| damaged())?;
        let crc64 = u64::from_str_radix(&entry.crc64nvme, 16).map_err(|_| damaged())?;
        let object = identity(&entry.bucket, &entry.key, entry.older());
        let mark = digest_of_mark(&entry.store);
        known.insert(
            object,
            Known { path: digest_of_path(Path::new(&entry.file)), size: entry.size, crc64, mark },
        );
    }
    // A run that was ended in the middle of a line.
    file.set_len(whole_len)?;
    Ok(known)
}

fn write_line(file: &mut File, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    file.write_all(&text)
}

fn private(path: PathBuf, options: &mut OpenOptions) -> anyhow::Result<File> {
    let name = path.display().to_string();
    private_io(path, options).with_context(|| format!("can't write {name}"))
}

fn private_io(path: PathBuf, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).open(path)
}

fn private_folder(path: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.with_context(|| format!("can't make the folder {}", path.display()))
}

/// What the index knows an object by. The newest version of a key is the key's object, whatever its id: a run with all versions goes
/// on where one without them ended.
pub(super) fn identity(bucket: &str, key: &str, older: Option<&str>) -> [u8; 16] {
    match older {
        None => digest(&[bucket, key]),
        Some(id) => digest(&[bucket, key, id]),
    }
}

fn digest(fields: &[&str]) -> [u8; 16] {
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

fn digest_of_path(path: &Path) -> [u8; 16] {
    digest(&[&path.to_string_lossy()])
}

fn digest_of_mark(mark: &Mark) -> [u8; 16] {
    digest(&[&mark.etag, &mark.stored_len.to_string(), &mark.modified_ms.to_string()])
}

/// Length and CRC64NVME of a file; a symbolic link is none of ours.
fn crc64_of(path: &Path) -> io::Result<(u64, u64)> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let mut file = File::open(path)?;
    let (mut crc64, mut len, mut piece) = (Crc64::new(), 0, vec![0; PIECE_LEN]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((len, crc64.value()));
        }
        crc64.update(&piece[..read]);
        len += read as u64;
    }
}

fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    Ok(fs::metadata(one)?.len() == fs::metadata(other)?.len() && crc64_of(one)? == crc64_of(other)?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use claviger_s3::VersionId;

    use super::super::entry::Sealed;
    use super::super::source::Version;
    use super::*;

    fn item(key: &str, version: Option<(&str, bool)>) -> Item {
        let version = version.map(|(id, is_latest)| Version { id: VersionId::parse(id).unwrap(), is_latest });
        let mark = Mark { stored_len: 400, etag: format!("{version:?}"), modified_ms: 7 };
        Item { bucket: "bkt".to_owned(), key: key.to_owned(), version, mark }
    }

    /// Puts content under the name that the item has; gives where it lies.
    fn put(output: &Output, item: &Item, content: &[u8]) -> PathBuf {
        let none = || "0".repeat(32);
        let mut crc64 = Crc64::new();
        crc64.update(content);
        let entry = Entry {
            bucket: "bkt".to_owned(),
            key: item.key.clone(),
            version: item.version.as_ref().map(|version| version.id.to_string()),
            is_older: item.older().is_some(),
            file: String::new(),
            name: Proof::Verified,
            size: content.len() as u64,
            crc64nvme: format!("{:016x}", crc64.value()),
            headers: BTreeMap::new(),
            metadata: BTreeMap::new(),
            checksum: None,
            created_ms: 1,
            sealed: Sealed {
                gateway_id: none(),
                epoch_id: none(),
                keyset_id: none(),
                object_id: none(),
                bucket_id: None,
            },
            store: item.mark.clone(),
        };
        let mut part = output.part().unwrap();
        part.write_all(content).unwrap();
        output.place(part, entry, crc64.value()).unwrap();
        let index = fs::read_to_string(output.root.join(INDEX)).unwrap();
        let line: Entry = serde_json::from_str(index.lines().last().unwrap()).unwrap();
        output.root.join(line.file)
    }

    fn is_file(path: &Path, content: &[u8]) -> bool {
        fs::read(path).is_ok_and(|found| found == content)
    }

    #[test]
    fn versions_lie_beside_each_other_and_another_run_finds_each_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("back");
        let items = [
            (item("k", Some(("v3", true))), "third", "bkt/k"),
            (item("k", Some(("v2", false))), "second", "_versions/bkt/k~v2"),
            (item("k", Some(("null", false))), "first", "_versions/bkt/k~null"),
            // A key that looks like a version, and one below it.
            (item("k~v2", Some(("null", true))), "another", "bkt/k~v2"),
            (item("k~v2/x", Some(("v", false))), "below", "_versions/bkt/k~v2/x~v"),
        ];
        let output = Output::open(&root).unwrap();
        let mut paths = Vec::new();
        for (item, content, _) in &items {
            assert!(!output.is_there("bkt", item));
            paths.push(put(&output, item, content.as_bytes()));
        }
        output.close(&()).unwrap();
        drop(output);
        let output = Output::open(&root).unwrap();
        for ((item, content, wanted), path) in items.iter().zip(&paths) {
            assert!(output.is_there("bkt", item) && is_file(path, content.as_bytes()), "{item:?}");
            // What has no place under its name goes by its hash.
            let is_hashed = path.to_str().unwrap().contains("%sha256");
            assert!(is_hashed || *path == root.join(wanted), "{path:?}");
        }
        assert_eq!(paths.iter().filter(|path| path.to_str().unwrap().contains("%sha256")).count(), 1);
    }

    #[test]
    fn a_newer_version_takes_the_name_and_what_had_it_is_kept_as_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::open(&folder.path().join("back")).unwrap();
        // A run without versions, one with them, and another after a write.
        assert_eq!(put(&output, &item("k", None), b"one"), output.root.join("bkt/k"));
        assert_eq!(put(&output, &item("k", Some(("v1", true))), b"one"), output.root.join("bkt/k"));
        let (new, old) = (item("k", Some(("v2", true))), item("k", Some(("v1", false))));
        assert!(!output.is_there("bkt", &new) && !output.is_there("bkt", &old));
        let old_path = put(&output, &old, b"one");
        assert_eq!(put(&output, &new, b"two"), output.root.join("bkt/k"));
        assert!(is_file(&output.root.join("bkt/k"), b"two") && is_file(&old_path, b"one"));
        assert_eq!(old_path, output.root.join("_versions/bkt/k~v1"));
        assert!(output.is_there("bkt", &new) && output.is_there("bkt", &old));
    }

    #[test]
    fn delete_markers_and_failures_name_their_version() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::open(&folder.path().join("back")).unwrap();
        let version = Version { id: VersionId::parse("m1").unwrap(), is_latest: true };
        output.deleted("bkt", &Deleted { key: "gone".into(), version, deleted_ms: 9 }).unwrap();
        output.failed("bkt", &item("k", Some(("v1", false))), "damaged").unwrap();
        output.failed("bkt", &item("k", None), "damaged").unwrap();
        let text = |name| fs::read_to_string(output.root.join(name)).unwrap();
        let marker =
            "{\"bucket\":\"bkt\",\"key\":\"gone\",\"version\":\"m1\",\"is_latest\":true,\"deleted_ms\":9}\n";
        assert_eq!(text(DELETED), marker);
        let failed = text(FAILED);
        assert!(
            failed.lines().next().unwrap().contains("\"version\":\"v1\"")
                && failed.matches("version").count() == 1
        );
    }
}
