//! Reading what lies at the store, without a key service and without a gateway: for recovery (docs/format.md §8.1).
//! Everything that comes from here is the store's claim; nothing is opened and nothing is written.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use claviger_env::Clock;
use claviger_s3::xml::ListedVersion;
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

/// One version of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedEntry {
    /// The key, decoded.
    pub key: String,
    /// Its id; `null` in a bucket that never had versions.
    pub version: VersionId,
    /// What a read without an id finds.
    pub is_latest: bool,
    /// When it was stored, or the object deleted, milliseconds since 1970.
    pub modified_ms: u64,
    /// Stored bytes, and the store's entity tag without quotes; none of a delete marker.
    pub object: Option<(u64, String)>,
}

/// One page of a listing of versions.
#[derive(Debug)]
pub struct VersionsPage {
    /// What is there, delete markers too, in the store's order.
    pub entries: Vec<ListedEntry>,
    /// Key and version to ask for what comes behind; `None` at the end.
    pub next: Option<(String, VersionId)>,
}

/// What the store says of one object.
#[derive(Debug, Clone)]
pub struct StoredObject {
    /// Stored bytes.
    pub stored_len: u64,
    /// The metadata envelope, if there is one.
    pub envelope: Option<String>,
    etag: ETag,
    /// The version that was asked for.
    version: Option<VersionId>,
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
        let document = self.upstream.list_objects_v2(bucket, what, start_after, None, false).await?;
        let page = document.page()?;
        let last = page.contents.iter().map(|entry| entry.key.to_string()).max();
        if page.is_truncated && last.as_deref() <= start_after {
            return Err(GatewayError::UpstreamAnswer("a listing of objects without an end"));
        }
        let fresh = page.contents.into_iter().filter(|entry| entry.key.starts_with(prefix));
        let objects = fresh.map(|entry| ListedObject {
            key: entry.key.into_owned(),
            stored_len: entry.size,
            etag: entry.etag.into_owned(),
            modified_ms: entry.last_modified_ms,
        });
        Ok(ListedPage { objects: objects.collect(), next: last.filter(|_| page.is_truncated) })
    }

    /// Whether a version id means something to a store of this profile.
    #[must_use]
    pub fn has_versions(&self) -> bool {
        self.upstream.has_versions()
    }

    /// One page of all versions of the objects under a prefix, delete markers among them, from behind this version of this key.
    ///
    /// # Errors
    /// The store's error, or a listing that has no end.
    pub async fn list_versions(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<(&str, &VersionId)>,
    ) -> Result<VersionsPage, GatewayError> {
        let what = ListWhat { prefix, delimiter: None, max_keys: PAGE_ENTRIES };
        let (key, version) = after.unzip();
        let document = self.upstream.list_versions(bucket, what, key.unwrap_or_default(), version).await?;
        let page = document.page()?;
        // Stores differ in how they write their own markers; the last entry says the same (`ops::list_versions`).
        let last = page.entries.last().map(|entry| (entry.key.to_string(), entry.version.clone()));
        let goes_on = |(last_key, last_version): &(String, VersionId)| {
            after.is_none_or(|(key, version)| {
                key < last_key.as_str() || (key == last_key && version != last_version)
            })
        };
        if page.is_truncated && !last.as_ref().is_some_and(goes_on) {
            return Err(GatewayError::UpstreamAnswer("a listing of versions without an end"));
        }
        let fresh = page.entries.into_iter().filter(|entry| entry.key.starts_with(prefix));
        let entries = fresh.map(|entry| ListedEntry {
            key: entry.key.into_owned(),
            version: entry.version,
            is_latest: entry.is_latest,
            modified_ms: entry.last_modified_ms,
            object: match entry.what {
                ListedVersion::Object { etag, size, .. } => Some((size, etag.into_owned())),
                ListedVersion::DeleteMarker => None,
            },
        });
        Ok(VersionsPage { entries: entries.collect(), next: last.filter(|_| page.is_truncated) })
    }

    /// What the store says of an object, or of this version of it.
    ///
    /// # Errors
    /// The store's error; that it speaks of another version.
    pub async fn head(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&VersionId>,
    ) -> Result<StoredObject, GatewayError> {
        let head = self.upstream.head_object(bucket, key, Which { same_as: None, version }).await?;
        StoredObject::of(head, version)
    }

    /// A whole object, or this version of it.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub async fn get(
        &self,
        bucket: &str,
        key: &str,
        version: Option<&VersionId>,
    ) -> Result<(StoredObject, StoredBody), GatewayError> {
        let which = Which { same_as: None, version };
        let (head, body) = self.upstream.get_object(bucket, key, Wanted::Whole, which).await?;
        Ok((StoredObject::of(head, version)?, StoredBody(body)))
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
        let which = Which { same_as: Some(&object.etag), version: object.version.as_ref() };
        let (head, body) = self.upstream.get_object(bucket, key, wanted, which).await?;
        head.check_version(object.version.as_ref())?;
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
    fn of(head: StoredHead, asked: Option<&VersionId>) -> Result<Self, GatewayError> {
        head.check_version(asked)?;
        let StoredHead { total_size: stored_len, envelope, etag, .. } = head;
        Ok(Self { stored_len, envelope, etag, version: asked.cloned() })
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

#[cfg(test)]
mod tests {
    use claviger_s3::xml::{ListVersionsResult, VersionEntry};

    use super::*;
    use crate::upstream::double;

    fn id(text: &str) -> VersionId {
        VersionId::parse(text).unwrap()
    }

    /// A page of these keys and versions, as a store writes it; a version that begins with `m` is a delete marker.
    fn page(entries: &[(&str, &str)], is_truncated: bool) -> String {
        let entry = |(key, version): &(&str, &str)| VersionEntry {
            key: (*key).to_owned().into(),
            version: id(version),
            is_latest: false,
            last_modified_ms: 1_000,
            owner: None,
            what: match version.starts_with('m') {
                true => ListedVersion::DeleteMarker,
                false => ListedVersion::Object {
                    etag: "abc".into(),
                    etag_suffix: "",
                    size: 344,
                    storage_class: None,
                },
            },
        };
        let entries = entries.iter().map(entry).collect();
        let page = ListVersionsResult { entries, is_truncated, max_keys: 1000, ..Default::default() };
        double::answer(200, &[], std::str::from_utf8(&page.to_xml()).unwrap())
    }

    async fn reader(to: impl Fn(&str) -> String + Send + 'static) -> StoreReader {
        StoreReader { upstream: double::store("ceph-rgw", to).await.upstream }
    }

    #[tokio::test]
    async fn every_version_and_every_delete_marker_is_listed_page_after_page() {
        let store = reader(|request| match request.contains("version-id-marker=v2") {
            false => page(&[("a", "m3"), ("a", "v2")], true),
            true => page(&[("a", "v1"), ("b", "null")], false),
        })
        .await;
        let first = store.list_versions("b", "", None).await.unwrap();
        let (key, version) = first.next.clone().unwrap();
        let second = store.list_versions("b", "", Some((&key, &version))).await.unwrap();
        let listed = first.entries.iter().chain(&second.entries);
        let listed: Vec<_> = listed
            .map(|entry| (entry.key.as_str(), entry.version.as_str(), entry.object.is_some()))
            .collect();
        assert_eq!(listed, [("a", "m3", false), ("a", "v2", true), ("a", "v1", true), ("b", "null", true)]);
        assert_eq!(second.next, None);
    }

    #[tokio::test]
    async fn a_listing_of_versions_that_does_not_go_on_is_refused() {
        for (entries, ok) in [
            (&[("k", "v2"), ("k", "v1")][..], true),
            (&[("l", "v2")], true),
            (&[("k", "v2")], false),
            (&[("j", "v0")], false),
            (&[], false),
        ] {
            let answer = page(entries, true);
            let store = reader(move |_| answer.clone()).await;
            let listed = store.list_versions("b", "", Some(("k", &id("v2")))).await;
            assert_eq!(listed.is_ok(), ok, "{entries:?}");
        }
    }

    #[tokio::test]
    async fn a_store_that_shows_another_version_than_it_is_asked_for_is_not_believed() {
        for (shown, asked, ok) in [
            (Some("v1"), Some("v1"), true),
            (Some("v2"), Some("v1"), false),
            // It ignores the id, and shows the newest.
            (None, Some("v1"), false),
            (None, Some("null"), true),
            (Some("v2"), None, true),
        ] {
            let headers: Vec<_> = shown.map(|shown| ("x-amz-version-id", shown)).into_iter().collect();
            let answer = double::object(&headers);
            let store = reader(move |_| answer.clone()).await;
            let asked = asked.map(id);
            assert_eq!(store.head("b", "k", asked.as_ref()).await.is_ok(), ok, "{shown:?} {asked:?}");
            assert_eq!(store.get("b", "k", asked.as_ref()).await.is_ok(), ok, "{shown:?} {asked:?}");
        }
    }
}
