//! Claviger's own objects at the provider: epoch and keyset records, upload tokens, held parts (docs/format.md §2.5,
//! §4.5, §7.2). They lie in a bucket of their own, which clients never see. Nothing in it is believed: records
//! authenticate under the key service's root, tokens and parts under their upload's key.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use bytes::Bytes;
use claviger_format::layout::{HEADER_LEN, PARTS_MAX};
use claviger_format::{BucketId, EpochId, KeysetId, ObjectId};
use claviger_s3::error::ErrorCode;
use claviger_s3::xml::ObjectEntry;

use crate::error::GatewayError;
use crate::upstream::body::{Ciphertext, UpstreamBody};
use crate::upstream::list::ListWhat;
use crate::upstream::object::{Deletion, MakeAs, StoreAs, StoredHead, Wanted, Which};
use crate::upstream::transport::{StoreBody, Upstream, read_up_to};

/// Longest record that is read back: eight recipients of an epoch, or a keyset with dozens of versions.
const RECORD_LEN_MAX: usize = 1 << 20;

/// Leftovers that are looked at in one sweep.
const SWEPT_MAX: usize = 100_000;
const UPLOADS_PREFIX: &str = ".claviger/uploads/";
const HELD_PREFIX: &str = ".claviger/mpu/";

/// A held part, as the provider lists it.
#[derive(Debug, Clone)]
pub(crate) struct HeldPart {
    /// Part number.
    pub number: u16,
    /// Stored bytes.
    pub stored_len: u64,
    /// When it was stored.
    pub last_modified_ms: u64,
    /// The provider's entity tag, without quotes.
    pub etag: String,
}

/// The system bucket.
pub(crate) struct SystemArea {
    upstream: Upstream,
    bucket: String,
}

impl SystemArea {
    pub(crate) fn new(upstream: Upstream, bucket: String) -> Self {
        Self { upstream, bucket }
    }

    /// The bucket that clients must not see.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Makes sure that the bucket is there.
    ///
    /// # Errors
    /// When it can neither be found nor made.
    pub(crate) async fn prepare(&self) -> Result<(), GatewayError> {
        match self.upstream.head_bucket(&self.bucket).await {
            Err(error) if error.is_upstream_not_found() => {}
            other => return other.map_err(GatewayError::in_system_area),
        }
        match self.upstream.create_bucket(&self.bucket, MakeAs::default()).await {
            Err(error) if error.upstream_code() == Some(ErrorCode::BucketAlreadyOwnedByYou) => Ok(()),
            other => other.map_err(GatewayError::in_system_area),
        }
    }

    /// Stores an epoch record and reads it back: MUST be durable before the first object of the epoch is
    /// acknowledged (docs/format.md §2.5).
    ///
    /// # Errors
    /// When the provider fails or gives back anything else.
    pub(crate) async fn store_epoch(&self, epoch_id: EpochId, record: &[u8]) -> Result<(), GatewayError> {
        let key = epoch_id.storage_key();
        self.put(&key, Ciphertext::sealed(record.to_vec())).await?;
        if self.get(&key).await?.as_deref() != Some(record) {
            let error =
                GatewayError::UpstreamAnswer("an epoch record read back differs from what was stored");
            return Err(error.in_system_area());
        }
        Ok(())
    }

    /// An epoch record, if there is one; to be believed only by the key service.
    ///
    /// # Errors
    /// When the system area can't be read.
    pub(crate) async fn fetch_epoch(&self, epoch_id: EpochId) -> Result<Option<Vec<u8>>, GatewayError> {
        Ok(self.get(&epoch_id.storage_key()).await?.map(|record| record.to_vec()))
    }

    /// Stores the keyset record where it is missing or differs; it exists for offline recovery.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn refresh_keyset(
        &self,
        keyset_id: KeysetId,
        record: &[u8],
    ) -> Result<(), GatewayError> {
        let key = format!(".claviger/keyset/{keyset_id}");
        if self.get(&key).await?.as_deref() == Some(record) {
            return Ok(());
        }
        self.put(&key, Ciphertext::sealed(record.to_vec())).await
    }

    /// Keeps the token of an upload, so that listings of uploads can give it back (docs/format.md §7.2).
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn store_token(
        &self,
        bucket_id: &BucketId,
        store_upload_id: &str,
        token: &str,
    ) -> Result<(), GatewayError> {
        let key = token_key(bucket_id, store_upload_id);
        self.put(&key, Ciphertext::sealed(token.as_bytes().to_vec())).await
    }

    /// The token of an upload that the provider lists; `None` when there is none.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn fetch_token(
        &self,
        bucket_id: &BucketId,
        store_upload_id: &str,
    ) -> Result<Option<String>, GatewayError> {
        let token = self.get(&token_key(bucket_id, store_upload_id)).await?;
        Ok(token.and_then(|token| String::from_utf8(token.to_vec()).ok()))
    }

    /// Removes what an upload left here: its token and its held parts. Failures are logged; the leftovers hold
    /// nothing but ciphertext.
    pub(crate) async fn forget_upload(
        &self,
        bucket_id: &BucketId,
        store_upload_id: &str,
        object_id: ObjectId,
    ) {
        // First: whoever holds a part from now on finds no token and takes the part back.
        self.forget_token(bucket_id, store_upload_id).await;
        let mut keys = Vec::new();
        match self.held_parts(object_id).await {
            Ok(held) => keys.extend(held.iter().map(|part| held_key(object_id, part.number))),
            Err(error) => tracing::warn!(%error, "held parts of a finished upload could not be listed"),
        }
        for key in keys {
            self.remove(&key).await;
        }
    }

    /// Removes the token of an upload whose object id is not known.
    pub(crate) async fn forget_token(&self, bucket_id: &BucketId, store_upload_id: &str) {
        self.remove(&token_key(bucket_id, store_upload_id)).await;
    }

    /// Removes tokens and held parts that were stored before `before_ms`: their uploads can't be completed any more
    /// (docs/format.md §4.5). Gives how many there were.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn sweep(&self, before_ms: u64) -> Result<usize, GatewayError> {
        let mut removed = 0;
        for prefix in [UPLOADS_PREFIX, HELD_PREFIX] {
            for entry in self.list(prefix, SWEPT_MAX).await? {
                if entry.last_modified_ms < before_ms {
                    self.remove(&entry.key).await;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// What lies under a prefix of the system area, at most `entries_max`; what the provider lists beyond is its
    /// invention or waits for the next time.
    async fn list(
        &self,
        prefix: &str,
        entries_max: usize,
    ) -> Result<Vec<ObjectEntry<'static>>, GatewayError> {
        let what = ListWhat { prefix, delimiter: None, max_keys: 1000 };
        let mut entries: Vec<ObjectEntry<'static>> = Vec::new();
        let mut start_after: Option<String> = None;
        loop {
            let document =
                self.upstream.list_objects_v2(&self.bucket, what, start_after.as_deref(), None, false).await;
            let document = document.map_err(GatewayError::in_system_area)?;
            let page = document.page().map_err(GatewayError::in_system_area)?;
            let last = page.contents.last().map(|entry| entry.key.to_string());
            let under_prefix = page.contents.into_iter().filter(|entry| entry.key.starts_with(prefix));
            entries.extend(under_prefix.map(ObjectEntry::into_owned));
            // A page that brings nothing new would be asked for again for ever.
            if !page.is_truncated || last.is_none() || last <= start_after || entries.len() >= entries_max {
                entries.truncate(entries_max);
                return Ok(entries);
            }
            start_after = last;
        }
    }

    async fn remove(&self, key: &str) {
        match self.upstream.delete_object(&self.bucket, key, Deletion::default()).await {
            Ok(_) => {}
            Err(error) if error.is_upstream_not_found() => {}
            Err(error) => tracing::warn!(%error, key, "a leftover of a finished upload could not be removed"),
        }
    }

    /// Stores a part that may be the last (docs/format.md §4.5); gives the provider's entity tag.
    ///
    /// # Errors
    /// When the system area can't be written.
    pub(crate) async fn store_held(
        &self,
        object_id: ObjectId,
        number: u16,
        body: UpstreamBody,
    ) -> Result<String, GatewayError> {
        let key = held_key(object_id, number);
        let stored = self.upstream.put_object(&self.bucket, &key, StoreAs::default(), body).await;
        Ok(stored.map_err(GatewayError::in_system_area)?.etag.as_str().to_owned())
    }

    /// Removes a held part whose number has been uploaded again as one that is not held.
    pub(crate) async fn forget_held(&self, object_id: ObjectId, number: u16) {
        self.remove(&held_key(object_id, number)).await;
    }

    /// A held part, if there is one.
    ///
    /// # Errors
    /// When the system area can't be read.
    pub(crate) async fn fetch_held(
        &self,
        object_id: ObjectId,
        number: u16,
    ) -> Result<Option<(StoredHead, StoreBody)>, GatewayError> {
        self.open(&held_key(object_id, number), Wanted::Whole).await
    }

    /// The header of a held part, if there is one.
    ///
    /// # Errors
    /// When the system area can't be read.
    pub(crate) async fn fetch_held_header(
        &self,
        object_id: ObjectId,
        number: u16,
    ) -> Result<Option<Bytes>, GatewayError> {
        let wanted = Wanted::Bytes(0, Some(HEADER_LEN - 1));
        let Some((_, body)) = self.open(&held_key(object_id, number), wanted).await? else { return Ok(None) };
        let header = read_up_to(body, usize::try_from(HEADER_LEN).unwrap_or(usize::MAX)).await;
        header.map(Some).map_err(GatewayError::in_system_area)
    }

    /// The held parts of an upload in ascending order.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn held_parts(&self, object_id: ObjectId) -> Result<Vec<HeldPart>, GatewayError> {
        let prefix = held_prefix(object_id);
        let entries = self.list(&prefix, usize::from(PARTS_MAX)).await?;
        let held = entries.iter().filter_map(|entry| held_part(&prefix, entry));
        let by_number: BTreeMap<u16, HeldPart> = held.map(|part| (part.number, part)).collect();
        Ok(by_number.into_values().collect())
    }

    async fn put(&self, key: &str, content: Ciphertext) -> Result<(), GatewayError> {
        let attempt = || {
            let body = UpstreamBody::sealed(content.clone());
            self.upstream.put_object(&self.bucket, key, StoreAs::default(), body)
        };
        let stored = match attempt().await {
            // Not made yet (the first request may outrun the preparation), or removed behind our back.
            Err(error) if error.upstream_code() == Some(ErrorCode::NoSuchBucket) => {
                self.prepare().await?;
                attempt().await
            }
            other => other,
        };
        stored.map(drop).map_err(GatewayError::in_system_area)
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, GatewayError> {
        let Some((_, body)) = self.open(key, Wanted::Whole).await? else { return Ok(None) };
        read_up_to(body, RECORD_LEN_MAX).await.map(Some).map_err(GatewayError::in_system_area)
    }

    async fn open(&self, key: &str, wanted: Wanted) -> Result<Option<(StoredHead, StoreBody)>, GatewayError> {
        match self.upstream.get_object(&self.bucket, key, wanted, Which::default()).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_upstream_not_found() => Ok(None),
            Err(error) => Err(error.in_system_area()),
        }
    }
}

fn held_part(prefix: &str, entry: &ObjectEntry<'_>) -> Option<HeldPart> {
    let digits = entry.key.strip_prefix(prefix)?;
    let is_number = digits.len() == 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| is_number && (1..=PARTS_MAX).contains(number))?;
    Some(HeldPart {
        number,
        stored_len: entry.size,
        last_modified_ms: entry.last_modified_ms,
        etag: entry.etag.trim_matches('"').to_owned(),
    })
}

fn held_prefix(object_id: ObjectId) -> String {
    format!("{HELD_PREFIX}{object_id}/")
}

fn held_key(object_id: ObjectId, number: u16) -> String {
    format!("{}{number:05}", held_prefix(object_id))
}

fn token_key(bucket_id: &BucketId, store_upload_id: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(bucket_id.as_str().as_bytes());
    context.update(&[0]);
    context.update(store_upload_id.as_bytes());
    let hash: String = context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{UPLOADS_PREFIX}{hash}")
}
