//! Where the ciphertext comes from: a store that can be reached, or a dump of its buckets on disk.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claviger_gateway::GatewayError;
use claviger_gateway::store_reader::{ListedEntry, ListedObject, StoreReader, StoredBody, StoredObject};
use claviger_s3::VersionId;
use serde::{Deserialize, Serialize};

use super::dump::{Dump, DumpedObject};
use super::failure::Failure;

/// Bytes of a file that are read at once.
const PIECE_LEN: usize = 256 << 10;
/// Something that fails on the way is tried again after each of these.
pub(super) const WAITS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];
/// No epoch or keyset record is longer.
const RECORD_LEN_MAX: u64 = 1 << 20;

/// A place with ciphertext.
pub(super) enum Source {
    /// A store that answers.
    Store(StoreReader),
    /// Folders on disk.
    Dump(Dump),
}

/// One object to be opened.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The bucket where it lies.
    pub(super) bucket: String,
    /// The key under which it lies.
    pub(super) key: String,
    /// Which of the key's versions it is; `None` if only the newest ones are asked for.
    pub(super) version: Option<Version>,
    /// What tells this state of the object from a later one.
    pub(super) mark: Mark,
}

/// One of a key's versions, as the store calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) id: VersionId,
    /// What a read without an id finds.
    pub(super) is_latest: bool,
}

/// A delete marker: the object was deleted then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deleted {
    pub(super) key: String,
    pub(super) version: Version,
    /// Milliseconds since 1970.
    pub(super) deleted_ms: u64,
}

/// A place in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct After {
    key: String,
    version: Option<VersionId>,
}

/// A page of a listing.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Item>,
    pub(super) deleted: Vec<Deleted>,
    /// What to ask for next.
    pub(super) next: Option<After>,
}

impl Item {
    /// The id, if it is a version that a newer one or a delete marker took the place of.
    pub(super) fn older(&self) -> Option<&str> {
        self.version.as_ref().filter(|version| !version.is_latest).map(|version| version.id.as_str())
    }

    fn version_id(&self) -> Option<&VersionId> {
        self.version.as_ref().map(|version| &version.id)
    }
}

/// What a listing says of an object: a hint that it is the one of an earlier run, and nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Stored bytes.
    pub(super) stored_len: u64,
    /// The store's entity tag; empty for a file.
    pub(super) etag: String,
    /// When it was stored, milliseconds since 1970.
    pub(super) modified_ms: u64,
}

/// What an object is there, before anything of it is believed.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Stored bytes.
    pub(super) stored_len: u64,
    /// The envelope, if one is there.
    pub(super) envelope: Option<String>,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Store(StoredObject),
    Dump(Arc<DumpedObject>),
}

/// Stored bytes as they come.
pub(super) enum Body {
    /// From the store.
    Store(StoredBody),
    /// From a file.
    File(std::fs::File),
}

impl Source {
    /// All buckets but the system bucket.
    ///
    /// # Errors
    /// When they can't be listed.
    pub(super) async fn buckets(&self, system_bucket: &str) -> Result<Vec<String>, Failure> {
        let mut buckets = match self {
            Self::Store(store) => store.buckets().await?,
            Self::Dump(dump) => dump.buckets()?,
        };
        buckets.retain(|bucket| bucket != system_bucket);
        Ok(buckets)
    }

    /// Some objects of a bucket, from behind the key `after`, and what to ask for next.
    ///
    /// # Errors
    /// When they can't be listed.
    pub(super) async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<(Vec<Item>, Option<String>), Failure> {
        match self {
            Self::Store(store) => {
                let page = store.list(bucket, prefix, after).await?;
                let item = |object: ListedObject| Item {
                    bucket: bucket.to_owned(),
                    key: object.key,
                    version: None,
                    mark: Mark {
                        stored_len: object.stored_len,
                        etag: object.etag,
                        modified_ms: object.modified_ms,
                    },
                };
                Ok((page.objects.into_iter().map(item).collect(), page.next))
            }
            Self::Dump(dump) => Ok((dump.list(bucket, prefix)?, None)),
        }
    }

    /// One page of a bucket: of its newest objects, or of all versions of them.
    ///
    /// # Errors
    /// When they can't be listed.
    pub(super) async fn page(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&After>,
        all_versions: bool,
    ) -> Result<Page, Failure> {
        match self {
            Self::Store(store) if all_versions => {
                let after = after.and_then(|after| Some((after.key.as_str(), after.version.as_ref()?)));
                let page = store.list_versions(bucket, prefix, after).await?;
                let next = page.next.map(|(key, version)| After { key, version: Some(version) });
                Ok(Page::of_versions(bucket, page.entries, next))
            }
            _ => {
                let after = after.map(|after| after.key.as_str());
                let (items, next) = self.list(bucket, prefix, after).await?;
                let next = next.map(|key| After { key, version: None });
                Ok(Page { items, deleted: Vec::new(), next })
            }
        }
    }

    /// What is there, without its content.
    ///
    /// # Errors
    /// When it is gone or can't be read.
    pub(super) async fn find(&self, item: &Item) -> Result<Found, Failure> {
        match self {
            Self::Store(store) => {
                Ok(Found::stored(store.head(&item.bucket, &item.key, item.version_id()).await?))
            }
            Self::Dump(dump) => Ok(Found::dumped(dump.find(&item.bucket, &item.key)?)),
        }
    }

    /// What is there, and all of its bytes.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) async fn open(&self, item: &Item) -> Result<(Found, Body), Failure> {
        match self {
            Self::Store(store) => {
                let (object, body) = store.get(&item.bucket, &item.key, item.version_id()).await?;
                Ok((Found::stored(object), Body::Store(body)))
            }
            Self::Dump(dump) => {
                let object = dump.find(&item.bucket, &item.key)?;
                let file = object.open()?;
                Ok((Found::dumped(object), Body::File(file)))
            }
        }
    }

    /// The last `len` bytes of what was found.
    ///
    /// # Errors
    /// As [`Self::find`]; that it has changed meanwhile.
    pub(super) async fn end(&self, item: &Item, found: &Found, len: u64) -> Result<Bytes, Failure> {
        match (self, &found.place) {
            (Self::Store(store), Place::Store(object)) => {
                Ok(store.end(&item.bucket, &item.key, object, len).await?)
            }
            (_, Place::Dump(object)) => Ok(object.bytes(object.stored_len.saturating_sub(len), len)?.into()),
            (Self::Dump(_), Place::Store(_)) => {
                Err(GatewayError::Internal("an object of the store was looked for in a dump").into())
            }
        }
    }

    /// The first `len` bytes of what was found, by a request of its own.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) async fn beginning(&self, item: &Item, len: usize) -> Result<Vec<u8>, Failure> {
        let (_, mut body) = self.open(item).await?;
        let mut beginning = Vec::new();
        while beginning.len() < len
            && let Some(piece) = body.next().await?
        {
            beginning.extend_from_slice(&piece);
        }
        beginning.truncate(len);
        Ok(beginning)
    }

    /// A record of the system area; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read, or is longer than any record.
    pub(super) async fn record(&self, system_bucket: &str, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        retried(async || self.record_once(system_bucket, key).await).await
    }

    async fn record_once(&self, system_bucket: &str, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let mark = Mark { stored_len: 0, etag: String::new(), modified_ms: 0 };
        let item = Item { bucket: system_bucket.to_owned(), key: key.to_owned(), version: None, mark };
        let (found, mut body) = match self.open(&item).await {
            Err(Failure::Store(error)) if error.is_upstream_not_found() => return Ok(None),
            Err(Failure::File(error)) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut record = Vec::new();
        while let Some(piece) = body.next().await? {
            if found.stored_len.max((record.len() + piece.len()) as u64) > RECORD_LEN_MAX {
                return Err(claviger_format::Error::TooLarge.into());
            }
            record.extend_from_slice(&piece);
        }
        Ok(Some(record))
    }
}

/// Does something again after each of [`WAITS`], while what fails may pass.
///
/// # Errors
/// The last failure.
pub(super) async fn retried<T>(attempt: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
    for wait in WAITS {
        match attempt().await {
            Err(failure) if failure.is_passing() => tokio::time::sleep(wait).await,
            done => return done,
        }
    }
    attempt().await
}

impl Page {
    fn of_versions(bucket: &str, entries: Vec<ListedEntry>, next: Option<After>) -> Self {
        let mut page = Self { items: Vec::new(), deleted: Vec::new(), next };
        for ListedEntry { key, version, is_latest, modified_ms, object } in entries {
            let version = Version { id: version, is_latest };
            match object {
                Some((stored_len, etag)) => page.items.push(Item {
                    bucket: bucket.to_owned(),
                    key,
                    version: Some(version),
                    mark: Mark { stored_len, etag, modified_ms },
                }),
                None => page.deleted.push(Deleted { key, version, deleted_ms: modified_ms }),
            }
        }
        page
    }
}

impl Found {
    fn stored(object: StoredObject) -> Self {
        let (stored_len, envelope) = (object.stored_len, object.envelope.clone());
        Self { stored_len, envelope, place: Place::Store(object) }
    }

    fn dumped(object: DumpedObject) -> Self {
        let (stored_len, envelope) = (object.stored_len, object.envelope.clone());
        Self { stored_len, envelope, place: Place::Dump(Arc::new(object)) }
    }
}

impl Body {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Store(body) => Ok(body.next().await?),
            Self::File(file) => {
                let mut piece = vec![0; PIECE_LEN];
                let len = file.read(&mut piece)?;
                piece.truncate(len);
                Ok((len > 0).then(|| piece.into()))
            }
        }
    }
}
