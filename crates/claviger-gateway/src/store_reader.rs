//! Reading what lies at the store, without a key service and without a gateway: for recovery (docs/format.md §8.1).
//! Everything that comes from here is the store's claim; nothing is opened and nothing is written.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use claviger_env::Clock;
use claviger_s3::{ETag, VersionId};
use http_body_util::BodyExt as _;
use serde::Deserialize;

use crate::config::{ConfigError, SystemAreaConfig, UpstreamConfig, resolve};
use crate::credentials::UpstreamAccounts;
use crate::error::GatewayError;
use crate::gateway::StartError;
use crate::upstream::Upstream;
use crate::upstream::account::Account;
use crate::upstream::list::ListWhat;
use crate::upstream::object::{StoredHead, Wanted, Which};
use crate::upstream::tls::client_config;
use crate::upstream::transport::{StoreBody, read_up_to};

/// Entries of one page of a listing.
const PAGE_ENTRIES: u32 = 1000;

/// Where a store is: the tables `upstream` and `system_area` of a gateway's configuration. What else stands in the file is
/// not looked at, so that a gateway's own file serves.
#[derive(Debug, Clone, Deserialize)]
pub struct StoreConfig {
    /// How to reach and sign for the store.
    pub upstream: UpstreamConfig,
    /// Where epoch and keyset records lie.
    #[serde(default)]
    pub system_area: SystemAreaConfig,
}

impl StoreConfig {
    /// Reads the file at `path`; relative paths in it count from its folder.
    ///
    /// # Errors
    /// When it can't be read or is wrong, with the line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| ConfigError::unreadable(path, &error))?;
        let mut config: Self =
            toml::from_str(&text).map_err(|error| ConfigError::syntax(path, &text, &error))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let upstream = &mut config.upstream;
        upstream.credentials_file = resolve(&upstream.credentials_file, folder);
        upstream.ca_file = upstream.ca_file.as_deref().map(|file| resolve(file, folder));
        Ok(config)
    }
}

/// A store that is only read.
pub struct StoreReader {
    upstream: Upstream,
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The key, decoded.
    pub key: String,
    /// Stored bytes.
    pub stored_len: u64,
    /// The store's entity tag, without quotes.
    pub etag: String,
    /// When it was stored, milliseconds since 1970.
    pub modified_ms: u64,
}

/// One page of a listing.
#[derive(Debug)]
pub struct ListedPage {
    /// What is there, in the store's order.
    pub objects: Vec<ListedObject>,
    /// What to ask for next; `None` at the end.
    pub next: Option<String>,
}

/// What the store says of one object.
#[derive(Debug, Clone)]
pub struct StoredObject {
    /// Stored bytes.
    pub stored_len: u64,
    /// The metadata envelope, if there is one.
    pub envelope: Option<String>,
    etag: ETag,
}

/// The bytes of an object as they come.
pub struct StoredBody(StoreBody);

impl StoreReader {
    /// Reads the credentials and prepares connections; nothing is sent yet.
    ///
    /// # Errors
    /// What an operator has to mend in files.
    pub fn open(config: &UpstreamConfig, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        let account = UpstreamAccounts::load(&config.credentials_file)?.own;
        let tls = client_config(config.ca_file.as_deref())?;
        let upstream = Upstream::new(config, Arc::new(Account::keyed(account)), tls, clock);
        Ok(Self { upstream: upstream.map_err(StartError::Config)? })
    }

    /// Names of all buckets of the account.
    ///
    /// # Errors
    /// The store's error.
    pub async fn buckets(&self) -> Result<Vec<String>, GatewayError> {
        let listed = self.upstream.list_buckets().await?;
        Ok(listed.buckets.into_iter().map(|bucket| bucket.name).collect())
    }

    /// One page of the objects under a prefix, from behind the key `start_after`.
    ///
    /// # Errors
    /// The store's error, or a listing that has no end.
    pub async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        start_after: Option<&str>,
    ) -> Result<ListedPage, GatewayError> {
        let what = ListWhat { prefix, delimiter: None, max_keys: PAGE_ENTRIES };
        let page = self.upstream.list_objects_v2(bucket, what, start_after, None, false).await?;
        let last = page.contents.iter().map(|entry| entry.key.clone()).max();
        if page.is_truncated && last.as_deref() <= start_after {
            return Err(GatewayError::UpstreamAnswer("a listing of objects without an end"));
        }
        let fresh = page.contents.into_iter().filter(|entry| entry.key.starts_with(prefix));
        let objects = fresh.map(|entry| ListedObject {
            key: entry.key,
            stored_len: entry.size,
            etag: entry.etag,
            modified_ms: entry.last_modified_ms,
        });
        Ok(ListedPage { objects: objects.collect(), next: last.filter(|_| page.is_truncated) })
    }

    /// What the store says of an object.
    ///
    /// # Errors
    /// The store's error.
    pub async fn head(&self, bucket: &str, key: &str) -> Result<StoredObject, GatewayError> {
        Ok(StoredObject::of(self.upstream.head_object(bucket, key, Which::default()).await?))
    }

    /// What the store says of one version of an object.
    ///
    /// # Errors
    /// The store's error.
    pub async fn head_version(
        &self,
        bucket: &str,
        key: &str,
        version: &VersionId,
    ) -> Result<StoredObject, GatewayError> {
        let which = Which { version: Some(version), ..Which::default() };
        Ok(StoredObject::of(self.upstream.head_object(bucket, key, which).await?))
    }

    /// A whole object.
    ///
    /// # Errors
    /// The store's error.
    pub async fn get(&self, bucket: &str, key: &str) -> Result<(StoredObject, StoredBody), GatewayError> {
        let (head, body) = self.upstream.get_object(bucket, key, Wanted::Whole, Which::default()).await?;
        Ok((StoredObject::of(head), StoredBody(body)))
    }

    /// The last `len` bytes of an object that was found before.
    ///
    /// # Errors
    /// The store's error, among them that the object was replaced; an answer of another length.
    pub async fn end(
        &self,
        bucket: &str,
        key: &str,
        object: &StoredObject,
        len: u64,
    ) -> Result<Bytes, GatewayError> {
        let short = GatewayError::UpstreamAnswer("another end of an object than was asked for");
        let len_max = usize::try_from(len).map_err(|_| GatewayError::Internal("an end beyond memory"))?;
        let wanted = Wanted::Bytes(object.stored_len.saturating_sub(len), None);
        let which = Which { same_as: Some(&object.etag), version: None };
        let (head, body) = self.upstream.get_object(bucket, key, wanted, which).await?;
        if head.total_size != object.stored_len {
            return Err(short);
        }
        let bytes = read_up_to(body, len_max).await?;
        if bytes.len() == len_max { Ok(bytes) } else { Err(short) }
    }
}

impl std::fmt::Debug for StoreReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreReader").field("account", self.upstream.account()).finish_non_exhaustive()
    }
}

impl StoredObject {
    fn of(head: StoredHead) -> Self {
        Self { stored_len: head.total_size, envelope: head.envelope, etag: head.etag }
    }
}

impl StoredBody {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, GatewayError> {
        while let Some(frame) = self.0.frame().await {
            let frame = frame.map_err(|error| GatewayError::UpstreamUnreachable(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl std::fmt::Debug for StoredBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredBody")
    }
}
