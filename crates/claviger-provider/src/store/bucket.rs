//! One bucket: its objects on disk and the index of them, in key order, that listings are made from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::names;
use super::sidecar::{self, BucketRecord, Sidecar};
use super::staging::{Staged, Staging};
use crate::error::{Error, Reply};

/// How often a read starts again because the object was replaced between its sidecar and its bytes.
const READ_ATTEMPTS_MAX: usize = 32;

/// One bucket.
pub(crate) struct Bucket {
    pub(super) folder: PathBuf,
    pub(super) staging: Arc<Staging>,
    created_ms: u64,
    /// Guards every change of the bucket's files; `None` once the bucket is deleted.
    index: Mutex<Option<BTreeMap<String, Listed>>>,
}

/// What a listing says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) size: u64,
    pub(crate) etag: String,
    pub(crate) last_modified_ms: u64,
    pub(crate) storage_class: Option<String>,
}

/// A condition that a change of an object depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `If-None-Match: *`: nothing is there.
    Absent,
    /// `If-Match: *`: something is there.
    Present,
    /// `If-Match: "etag"`: exactly this is there.
    Is(String),
}

/// An object opened for reading.
pub(crate) struct Opened {
    pub(crate) sidecar: Sidecar,
    pub(crate) file: File,
    /// Bytes in the file now; a file that somebody cut by hand is served as it is.
    pub(crate) size: u64,
}

/// The index, locked; nothing else changes the bucket's files meanwhile.
pub(super) struct Locked<'a>(MutexGuard<'a, Option<BTreeMap<String, Listed>>>);

impl Bucket {
    /// Makes the bucket's folders: complete, or not at all.
    pub(super) fn create(folder: &Path, staging: Arc<Staging>) -> Result<Self, Error> {
        let record = BucketRecord { created_ms: staging.now_ms() };
        let staged = staging.fresh_path();
        fs::create_dir(&staged)?;
        fs::create_dir(staged.join("objects"))?;
        fs::create_dir(staged.join("uploads"))?;
        sidecar::write(&staging.fresh_path(), &staged.join("bucket.json"), &record)?;
        fs::rename(&staged, folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            staging,
            created_ms: record.created_ms,
            index: Mutex::new(Some(BTreeMap::new())),
        })
    }

    /// Reads what an earlier process left.
    pub(super) fn open(folder: &Path, staging: Arc<Staging>) -> Result<Self, Error> {
        let record: BucketRecord = sidecar::read(&folder.join("bucket.json"))?;
        let mut index = BTreeMap::new();
        scan(&folder.join("objects"), Path::new(""), &mut index)?;
        Ok(Self {
            folder: folder.to_owned(),
            staging,
            created_ms: record.created_ms,
            index: Mutex::new(Some(index)),
        })
    }

    /// When the bucket was made, milliseconds since the Unix epoch.
    pub(crate) fn created_ms(&self) -> u64 {
        self.created_ms
    }

    /// Deletes the bucket if it is empty. Requests that still hold it then find no bucket.
    pub(super) fn retire(&self) -> Result<(), Error> {
        let mut index = self.lock()?;
        if !index.entries()?.is_empty() {
            return Err(Reply::BucketNotEmpty.into());
        }
        let grave = self.staging.fresh_path();
        fs::rename(&self.folder, &grave)?;
        *index.0 = None;
        fs::remove_dir_all(grave)?;
        Ok(())
    }

    /// Hands the index to `view`.
    pub(crate) fn listed<T>(&self, view: impl FnOnce(&BTreeMap<String, Listed>) -> T) -> Result<T, Error> {
        Ok(view(self.lock()?.entries()?))
    }

    /// Where the sidecar of `key` lies.
    pub(crate) fn sidecar_path(&self, key: &str) -> PathBuf {
        let (folder, stem) = names::place_of(key);
        self.folder.join("objects").join(folder).join(format!("{stem}{}", names::META_SUFFIX))
    }

    /// Opens an object. What the files say is what is served, so that bytes changed by hand show.
    pub(crate) fn read(&self, key: &str) -> Result<Opened, Error> {
        let path = self.sidecar_path(key);
        for _ in 0..READ_ATTEMPTS_MAX {
            let sidecar: Sidecar = match sidecar::read(&path) {
                Err(Error::Io(error)) if is_absent(&error) => return Err(Reply::NoSuchKey.into()),
                other => other?,
            };
            match File::open(path.with_file_name(&sidecar.data)) {
                Ok(file) => {
                    let size = file.metadata()?.len();
                    return Ok(Opened { sidecar, file, size });
                }
                Err(error) if is_absent(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(std::io::Error::from(ErrorKind::ResourceBusy).into())
    }

    /// Makes `staged` the object of `object.key`, if `conditions` hold at that moment. Gives the sidecar as stored.
    pub(crate) fn commit(
        &self,
        staged: Staged,
        object: Sidecar,
        conditions: &[Condition],
    ) -> Result<Sidecar, Error> {
        self.lock()?.commit(self, staged, object, conditions)
    }

    /// Removes an object; one that is not there is removed too. `NoSuchKey` only if a condition asks for it.
    pub(crate) fn delete(&self, key: &str, conditions: &[Condition]) -> Result<(), Error> {
        let mut index = self.lock()?;
        let entries = index.entries()?;
        if !entries.contains_key(key) {
            return if conditions.is_empty() { Ok(()) } else { Err(Reply::NoSuchKey.into()) };
        }
        check(entries.get(key), conditions)?;
        let path = self.sidecar_path(key);
        let data = sidecar::read::<Sidecar>(&path)?.data;
        fs::remove_file(&path)?;
        entries.remove(key);
        remove_if_there(&path.with_file_name(data))?;
        prune(&self.folder.join("objects"), path.parent());
        Ok(())
    }

    /// Locks the bucket against changes by others.
    pub(super) fn lock(&self) -> Result<Locked<'_>, Error> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if index.is_none() {
            return Err(Reply::NoSuchBucket.into());
        }
        Ok(Locked(index))
    }
}

impl Locked<'_> {
    fn entries(&mut self) -> Result<&mut BTreeMap<String, Listed>, Error> {
        self.0.as_mut().ok_or_else(|| Reply::NoSuchBucket.into())
    }

    /// See [`Bucket::commit`].
    pub(super) fn commit(
        &mut self,
        bucket: &Bucket,
        staged: Staged,
        mut object: Sidecar,
        conditions: &[Condition],
    ) -> Result<Sidecar, Error> {
        let entries = self.entries()?;
        check(entries.get(&object.key), conditions)?;
        let (folder, stem) = names::place_of(&object.key);
        let folder = bucket.folder.join("objects").join(folder);
        fs::create_dir_all(&folder)?;
        let taken = |generation: &str| folder.join(format!("{stem}@{generation}")).exists();
        object.data = format!("{stem}@{}", bucket.staging.generation(taken));
        object.last_modified_ms = bucket.staging.now_ms();
        let path = folder.join(format!("{stem}{}", names::META_SUFFIX));
        let replaced =
            if entries.contains_key(&object.key) { sidecar::read::<Sidecar>(&path).ok() } else { None };
        staged.move_to(&folder.join(&object.data))?;
        sidecar::write(&bucket.staging.fresh_path(), &path, &object)?;
        entries.insert(object.key.clone(), Listed::of(&object, object.size));
        if let Some(replaced) = replaced {
            remove_if_there(&folder.join(replaced.data))?;
        }
        Ok(object)
    }
}

impl Listed {
    fn of(object: &Sidecar, size: u64) -> Self {
        Self {
            size,
            etag: object.etag.clone(),
            last_modified_ms: object.last_modified_ms,
            storage_class: object.attributes.storage_class.clone(),
        }
    }
}

fn check(present: Option<&Listed>, conditions: &[Condition]) -> Result<(), Error> {
    for condition in conditions {
        match (condition, present) {
            (Condition::Absent, None) | (Condition::Present, Some(_)) => {}
            (Condition::Is(etag), Some(listed)) if *etag == listed.etag => {}
            (Condition::Present | Condition::Is(_), None) => return Err(Reply::NoSuchKey.into()),
            _ => return Err(Reply::PreconditionFailed.into()),
        }
    }
    Ok(())
}

/// Fills `index` from the sidecars under `root`/`folder`, and removes what a crash left there without one.
fn scan(root: &Path, folder: &Path, index: &mut BTreeMap<String, Listed>) -> Result<(), Error> {
    let (mut data, mut named) = (Vec::new(), BTreeSet::new());
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
        let relative = folder.join(&name);
        if entry.file_type()?.is_dir() {
            scan(root, &relative, index)?;
        } else if let Some(key) = names::key_of(&relative) {
            let object: Sidecar = sidecar::read(&entry.path())?;
            match entry.path().with_file_name(&object.data).metadata() {
                Ok(metadata) => {
                    index.insert(key, Listed::of(&object, metadata.len()));
                }
                Err(error) => tracing::warn!(%key, %error, "an object's bytes are gone; it is not listed"),
            }
            named.insert(object.data);
        } else if name.contains('@') {
            data.push(name);
        }
    }
    for name in data.iter().filter(|name| !named.contains(*name)) {
        fs::remove_file(root.join(folder).join(name))?;
    }
    Ok(())
}

/// Removes `folder` and the folders above it, as far up as they are empty, but never `root`.
fn prune(root: &Path, mut folder: Option<&Path>) {
    while let Some(path) = folder.filter(|path| *path != root) {
        // Not empty is the ordinary end; any other failure leaves an empty folder, which harms nobody.
        if fs::remove_dir(path).is_err() {
            return;
        }
        folder = path.parent();
    }
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether the error says that there is no such file: also when a part of the path is a file, not a folder.
pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
