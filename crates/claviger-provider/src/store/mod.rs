//! The store: buckets, objects and uploads as plain files.
//!
//! ```text
//! <root>/.staging/                     files that are still being written; emptied at start
//! <root>/<bucket>/bucket.json
//! <root>/<bucket>/objects/…            see `names`: `<name>@meta.json` and `<name>@<generation>`
//! <root>/<bucket>/uploads/<id>/        upload.json, `<number>@part.json`, `<number>@<generation>`
//! ```
//!
//! Bytes are complete under their final name before the sidecar that names them is renamed into place: that rename is
//! the commit point, so a reader sees the old object or the new one, and a crash of the process leaves nothing but
//! files that no sidecar names, which the next start removes. Nothing is fsynced: a power cut may lose recent writes.
//!
//! All of it is blocking; the S3 side calls it from the runtime's blocking threads.

mod bucket;
mod names;
mod sidecar;
mod staging;
mod upload;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use claviger_env::Clock;

pub(crate) use bucket::{Bucket, Condition, Listed, Opened};
pub(crate) use sidecar::{Attributes, PartRecord, Sidecar, UploadRecord};
pub(crate) use staging::{Staged, Staging};
pub(crate) use upload::{CompletedPart, Completion, hex};

use crate::error::{Error, Reply};

/// All buckets under one folder.
pub(crate) struct Store {
    root: PathBuf,
    staging: Arc<Staging>,
    buckets: RwLock<BTreeMap<String, Arc<Bucket>>>,
}

impl Store {
    /// Opens the store at `root`, making the folder if it is not there. Reads every sidecar.
    pub(crate) fn open(root: &Path, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        fs::create_dir_all(root)?;
        let staging = Arc::new(Staging::open(root.join(".staging"), clock)?);
        let mut buckets = BTreeMap::new();
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
            if name.starts_with('.') || !entry.path().join("bucket.json").is_file() {
                continue;
            }
            let bucket = Bucket::open(&entry.path(), Arc::clone(&staging))?;
            buckets.insert(name, Arc::new(bucket));
        }
        Ok(Self { root: root.to_owned(), staging, buckets: RwLock::new(buckets) })
    }

    /// A fresh file to write an object or a part into.
    pub(crate) fn stage(&self) -> Result<Staged, Error> {
        self.staging.file()
    }

    /// All buckets by name with the time they were made.
    pub(crate) fn buckets(&self) -> Vec<(String, u64)> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        buckets.iter().map(|(name, bucket)| (name.clone(), bucket.created_ms())).collect()
    }

    /// The bucket of that name.
    pub(crate) fn bucket(&self, name: &str) -> Result<Arc<Bucket>, Error> {
        let buckets = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(buckets.get(name).ok_or(Reply::NoSuchBucket)?))
    }

    /// Makes a bucket.
    pub(crate) fn create_bucket(&self, name: &str) -> Result<(), Error> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if buckets.contains_key(name) {
            return Err(Reply::BucketAlreadyOwnedByYou.into());
        }
        let bucket = Bucket::create(&self.root.join(name), Arc::clone(&self.staging))?;
        buckets.insert(name.to_owned(), Arc::new(bucket));
        Ok(())
    }

    /// Removes a bucket that holds no object; its uploads in progress go with it.
    pub(crate) fn delete_bucket(&self, name: &str) -> Result<(), Error> {
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        buckets.get(name).ok_or(Reply::NoSuchBucket)?.retire()?;
        buckets.remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
