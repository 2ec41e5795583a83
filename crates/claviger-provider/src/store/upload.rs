//! Multipart uploads: one folder each, so that they survive a restart.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use md5::{Digest as _, Md5};

use super::bucket::{Bucket, Condition, is_absent, remove_if_there};
use super::sidecar::{self, Attributes, PartRecord, Sidecar, UploadRecord};
use super::staging::Staged;
use crate::error::{Error, Reply};

/// Least size of a part that is not the last one.
const PART_LEN_MIN: u64 = 5 * 1024 * 1024;

/// A part as the client names it in CompleteMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompletedPart {
    pub(crate) number: u16,
    pub(crate) etag: String,
}

/// What a client asks of CompleteMultipartUpload.
#[derive(Debug, Clone)]
pub(crate) struct Completion {
    /// The parts, in ascending order of their numbers.
    pub(crate) wanted: Vec<CompletedPart>,
    /// Bytes that the object has to have.
    pub(crate) announced_size: Option<u64>,
    pub(crate) conditions: Vec<Condition>,
}

impl Bucket {
    /// Begins an upload; gives its id. Ids sort by the time of their making.
    pub(crate) fn create_upload(&self, key: &str, attributes: Attributes) -> Result<String, Error> {
        let record = UploadRecord { key: key.to_owned(), initiated_ms: self.staging.now_ms(), attributes };
        let staged = self.staging.fresh_path();
        fs::create_dir(&staged)?;
        sidecar::write(&self.staging.fresh_path(), &staged.join("upload.json"), &record)?;
        let _locked = self.lock()?;
        let id = self.staging.generation(|id| self.upload_folder(id).exists());
        fs::rename(&staged, self.upload_folder(&id))?;
        Ok(id)
    }

    /// The upload of that id, if it is one of `key`.
    pub(crate) fn upload(&self, id: &str, key: &str) -> Result<UploadRecord, Error> {
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
            return Err(Reply::NoSuchUpload.into());
        }
        let record: UploadRecord = match sidecar::read(&self.upload_folder(id).join("upload.json")) {
            Err(Error::Io(error)) if is_absent(&error) => return Err(Reply::NoSuchUpload.into()),
            other => other?,
        };
        if record.key != key { Err(Reply::NoSuchUpload.into()) } else { Ok(record) }
    }

    /// All uploads in progress with their ids, by key and then by time.
    pub(crate) fn uploads(&self) -> Result<Vec<(String, UploadRecord)>, Error> {
        let _locked = self.lock()?;
        let mut uploads = Vec::new();
        for entry in fs::read_dir(self.folder.join("uploads"))? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
            uploads.push((id, sidecar::read::<UploadRecord>(&entry.path().join("upload.json"))?));
        }
        uploads.sort_by(|(a, x), (b, y)| (&x.key, a).cmp(&(&y.key, b)));
        Ok(uploads)
    }

    /// Makes `staged` part `number` of the upload, in place of an earlier one of that number.
    pub(crate) fn commit_part(
        &self,
        id: &str,
        key: &str,
        staged: Staged,
        (number, size, etag): (u16, u64, String),
    ) -> Result<PartRecord, Error> {
        let _locked = self.lock()?;
        self.upload(id, key)?;
        let folder = self.upload_folder(id);
        let taken = |generation: &str| folder.join(format!("{number:05}@{generation}")).exists();
        let data = format!("{number:05}@{}", self.staging.generation(taken));
        let record = PartRecord { number, data, size, etag, last_modified_ms: self.staging.now_ms() };
        let path = folder.join(format!("{number:05}@part.json"));
        let replaced = if path.exists() { Some(sidecar::read::<PartRecord>(&path)?) } else { None };
        staged.move_to(&folder.join(&record.data))?;
        sidecar::write(&self.staging.fresh_path(), &path, &record)?;
        if let Some(replaced) = replaced {
            remove_if_there(&folder.join(replaced.data))?;
        }
        Ok(record)
    }

    /// The upload's parts by number.
    pub(crate) fn parts(&self, id: &str, key: &str) -> Result<Vec<PartRecord>, Error> {
        let _locked = self.lock()?;
        self.upload(id, key)?;
        let mut parts = Vec::new();
        for entry in fs::read_dir(self.upload_folder(id))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.ends_with("@part.json")) {
                parts.push(sidecar::read::<PartRecord>(&entry.path())?);
            }
        }
        parts.sort_by_key(|part| part.number);
        Ok(parts)
    }

    /// Joins the named parts into the object. `staged` takes the bytes.
    pub(crate) fn complete(
        &self,
        id: &str,
        key: &str,
        staged: Staged,
        completion: &Completion,
    ) -> Result<Sidecar, Error> {
        let upload = self.upload(id, key)?;
        let parts = self.chosen(id, key, &completion.wanted)?;
        let size = parts.iter().map(|part| part.size).sum();
        if completion.announced_size.is_some_and(|announced| announced != size) {
            return Err(Reply::InvalidRequest.into());
        }
        let mut joined = File::options().write(true).open(staged.path())?;
        let mut digests = Md5::new();
        for part in &parts {
            let mut file = match File::open(self.upload_folder(id).join(&part.data)) {
                // Replaced or aborted since it was chosen.
                Err(error) if is_absent(&error) => return Err(Reply::InvalidPart.into()),
                other => other?,
            };
            io::copy(&mut file, &mut joined)?;
            digests.update(unhex(&part.etag));
        }
        drop(joined);
        let object = Sidecar {
            key: key.to_owned(),
            data: String::new(),
            size,
            etag: format!("{}-{}", hex(&digests.finalize()), parts.len()),
            last_modified_ms: 0,
            attributes: upload.attributes,
            checksums: std::collections::BTreeMap::new(),
            part_sizes: parts.iter().map(|part| part.size).collect(),
        };
        let mut locked = self.lock()?;
        self.upload(id, key)?;
        let object = locked.commit(self, staged, object, &completion.conditions)?;
        self.remove_upload(id)?;
        Ok(object)
    }

    /// Ends an upload and removes its parts.
    pub(crate) fn abort(&self, id: &str, key: &str) -> Result<(), Error> {
        let _locked = self.lock()?;
        self.upload(id, key)?;
        self.remove_upload(id)
    }

    /// The parts that a client wants, checked against what is here.
    fn chosen(&self, id: &str, key: &str, wanted: &[CompletedPart]) -> Result<Vec<PartRecord>, Error> {
        if wanted.is_empty() {
            return Err(Reply::MalformedXml.into());
        }
        if !wanted.is_sorted_by(|a, b| a.number < b.number) {
            return Err(Reply::InvalidPartOrder.into());
        }
        let present = self.parts(id, key)?;
        let mut chosen = Vec::with_capacity(wanted.len());
        for want in wanted {
            let found = present
                .binary_search_by_key(&want.number, |part| part.number)
                .map_err(|_| Reply::InvalidPart)?;
            let part = present.get(found).filter(|part| part.etag == want.etag).ok_or(Reply::InvalidPart)?;
            chosen.push(part.clone());
        }
        match chosen.split_last() {
            Some((_, before)) if before.iter().any(|part| part.size < PART_LEN_MIN) => {
                Err(Reply::EntityTooSmall.into())
            }
            _ => Ok(chosen),
        }
    }

    /// Removes the folder by way of the staging folder, so that it is there whole or not at all.
    fn remove_upload(&self, id: &str) -> Result<(), Error> {
        let grave = self.staging.fresh_path();
        fs::rename(self.upload_folder(id), &grave)?;
        fs::remove_dir_all(grave)?;
        Ok(())
    }

    fn upload_folder(&self, id: &str) -> PathBuf {
        self.folder.join("uploads").join(id)
    }
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).filter_map(digit).collect()
}
