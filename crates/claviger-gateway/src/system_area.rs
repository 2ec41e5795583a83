//! Claviger's own objects at the provider: epoch and keyset records, upload tokens, held parts (docs/format.md §2.5,
//! §4.5, §7.2). They lie in a bucket of their own, which clients never see. Nothing in it is believed: records
//! authenticate under the key service's root, tokens and parts under their upload's key.

use std::sync::Arc;

use aws_lc_rs::digest;
use bytes::Bytes;
use claviger_format::layout::HEADER_LEN;
use claviger_format::{BucketId, EpochId, KeysetId, ObjectId};
use claviger_s3::conditions::ReadConditions;
use claviger_s3::error::ErrorCode;
use claviger_s3::xml::ObjectEntry;

use crate::error::GatewayError;
use crate::upstream::body::{Ciphertext, UpstreamBody};
use crate::upstream::list::ListWhat;
use crate::upstream::object::{OnlyIf, StoreAs, StoredHead, Wanted};
use crate::upstream::transport::{StoreBody, Upstream, read_up_to};

/// Longest record that is read back: eight recipients of an epoch, or a keyset with dozens of versions.
const RECORD_LEN_MAX: usize = 1 << 20;

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
    upstream: Arc<Upstream>,
    bucket: String,
}

impl SystemArea {
    pub(crate) fn new(upstream: Arc<Upstream>, bucket: String) -> Self {
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
            other => return other,
        }
        match self.upstream.create_bucket(&self.bucket).await {
            Err(error) if error.upstream_code() == Some(ErrorCode::BucketAlreadyOwnedByYou) => Ok(()),
            other => other,
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
        if self.get(&key).await? != record {
            return Err(GatewayError::UpstreamAnswer(
                "an epoch record read back differs from what was stored",
            ));
        }
        Ok(())
    }

    /// An epoch record; to be believed only by the key service.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn fetch_epoch(&self, epoch_id: EpochId) -> Result<Vec<u8>, GatewayError> {
        Ok(self.get(&epoch_id.storage_key()).await?.to_vec())
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
        match self.get(&key).await {
            Ok(stored) if stored == record => return Ok(()),
            Ok(_) => {}
            Err(error) if error.is_upstream_not_found() => {}
            Err(error) => return Err(error),
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
        match self.get(&token_key(bucket_id, store_upload_id)).await {
            Ok(token) => Ok(String::from_utf8(token.to_vec()).ok()),
            Err(error) if error.is_upstream_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes what an upload left here: its token and its held parts. Failures are logged; the leftovers hold
    /// nothing but ciphertext.
    pub(crate) async fn forget_upload(
        &self,
        bucket_id: &BucketId,
        store_upload_id: &str,
        object_id: ObjectId,
    ) {
        let mut keys = vec![token_key(bucket_id, store_upload_id)];
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
            for entry in self.list(prefix).await? {
                if entry.last_modified_ms < before_ms {
                    self.remove(&entry.key).await;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Everything under a prefix of the system area.
    async fn list(&self, prefix: &str) -> Result<Vec<ObjectEntry>, GatewayError> {
        let what = ListWhat { prefix, delimiter: None, max_keys: 1000 };
        let mut entries = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page =
                self.upstream.list_objects_v2(&self.bucket, what, None, token.as_deref(), false).await?;
            entries.extend(page.contents);
            token = page.next_continuation_token.filter(|_| page.is_truncated);
            if token.is_none() {
                return Ok(entries);
            }
        }
    }

    async fn remove(&self, key: &str) {
        match self.upstream.delete_object(&self.bucket, key, None).await {
            Ok(()) => {}
            Err(error) if error.is_upstream_not_found() => {}
            Err(error) => tracing::warn!(%error, key, "a leftover of a finished upload could not be removed"),
        }
    }

    /// Stores a part that may be the last (docs/format.md §4.5); gives the provider's entity tag.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn store_held(
        &self,
        object_id: ObjectId,
        number: u16,
        body: UpstreamBody,
    ) -> Result<String, GatewayError> {
        let key = held_key(object_id, number);
        let stored = self.upstream.put_object(&self.bucket, &key, StoreAs::default(), body).await?;
        Ok(stored.etag.as_str().to_owned())
    }

    /// A held part.
    ///
    /// # Errors
    /// The provider's error, 404 when there is none.
    pub(crate) async fn fetch_held(
        &self,
        object_id: ObjectId,
        number: u16,
    ) -> Result<(StoredHead, StoreBody), GatewayError> {
        let any = ReadConditions::default();
        let key = held_key(object_id, number);
        self.upstream.get_object(&self.bucket, &key, Wanted::Whole, OnlyIf::Client(&any)).await
    }

    /// The header of a held part.
    ///
    /// # Errors
    /// The provider's error, 404 when there is none.
    pub(crate) async fn fetch_held_header(
        &self,
        object_id: ObjectId,
        number: u16,
    ) -> Result<Bytes, GatewayError> {
        let any = ReadConditions::default();
        let (key, wanted) = (held_key(object_id, number), Wanted::Bytes(0, Some(HEADER_LEN - 1)));
        let (_, body) = self.upstream.get_object(&self.bucket, &key, wanted, OnlyIf::Client(&any)).await?;
        read_up_to(body, usize::try_from(HEADER_LEN).unwrap_or(usize::MAX)).await
    }

    /// The held parts of an upload in ascending order.
    ///
    /// # Errors
    /// The provider's error.
    pub(crate) async fn held_parts(&self, object_id: ObjectId) -> Result<Vec<HeldPart>, GatewayError> {
        let prefix = held_prefix(object_id);
        let entries = self.list(&prefix).await?;
        Ok(entries.iter().filter_map(|entry| held_part(&prefix, entry)).collect())
    }

    async fn put(&self, key: &str, content: Ciphertext) -> Result<(), GatewayError> {
        let attempt = || {
            let body = UpstreamBody::sealed(content.clone());
            self.upstream.put_object(&self.bucket, key, StoreAs::default(), body)
        };
        match attempt().await {
            // Not made yet (the first request may outrun the preparation), or removed behind our back.
            Err(error) if error.upstream_code() == Some(ErrorCode::NoSuchBucket) => {
                self.prepare().await?;
                attempt().await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn get(&self, key: &str) -> Result<Bytes, GatewayError> {
        let any = ReadConditions::default();
        let (_, body) =
            self.upstream.get_object(&self.bucket, key, Wanted::Whole, OnlyIf::Client(&any)).await?;
        read_up_to(body, RECORD_LEN_MAX).await
    }
}

fn held_part(prefix: &str, entry: &ObjectEntry) -> Option<HeldPart> {
    Some(HeldPart {
        number: entry.key.strip_prefix(prefix)?.parse().ok()?,
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
