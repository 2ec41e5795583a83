//! Which bucket name stands for which binding id and keyset (docs/format.md §5.1), cached for as long as the key
//! service allows.
//!
//! A binding that is too old is dangerous: objects written under the id of a deleted bucket could never be read in
//! its successor. So an entry is used without asking for at most `binding_ttl_s`, counted from the sending of the
//! question; the service binds a name anew only when every other gateway's entry has run out. Only when the service
//! can't be reached does an older entry serve, since then nobody can bind anew through it either.

use std::sync::Arc;
use std::time::Duration;

use claviger_env::Clock;
use claviger_format::{BucketId, KeysetId, ObjectName};
use claviger_keyapi::{Answer, Binding, KeyService, KeyServiceError};
use claviger_s3::error::{ErrorCode, S3Error};
use moka::sync::Cache;

use crate::error::GatewayError;
use crate::keys::session::Session;

/// How many bucket names are remembered.
const ENTRIES_MAX: u64 = 100_000;
/// An entry that nobody used for this long is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// A bucket as the format knows it.
#[derive(Debug, Clone)]
pub(crate) struct BoundBucket {
    /// What objects are bound to.
    pub bucket_id: BucketId,
    /// Whose epochs seal and open it.
    pub keyset_id: KeysetId,
}

impl BoundBucket {
    /// The name that an object of this bucket is bound to.
    ///
    /// # Errors
    /// `KeyTooLongError` when the key doesn't fit the format.
    pub(crate) fn name(&self, key: &str) -> Result<ObjectName, GatewayError> {
        ObjectName::new(self.bucket_id.clone(), key)
            .map_err(|_| S3Error::new(ErrorCode::KeyTooLongError).into())
    }

    fn from_wire(binding: &Binding) -> Result<Self, GatewayError> {
        Ok(Self {
            bucket_id: BucketId::new(binding.bucket_id.clone())
                .map_err(|_| GatewayError::Internal("the key service sent a malformed bucket id"))?,
            keyset_id: KeysetId::new(binding.keyset_id.0),
        })
    }
}

/// The cache.
pub(crate) struct Bindings {
    keys: Arc<dyn KeyService>,
    clock: Arc<dyn Clock>,
    session: Arc<Session>,
    cache: Cache<String, (Arc<BoundBucket>, u64)>,
}

impl Bindings {
    pub(crate) fn new(keys: Arc<dyn KeyService>, clock: Arc<dyn Clock>, session: Arc<Session>) -> Self {
        let cache = Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(IDLE).build();
        Self { keys, clock, session, cache }
    }

    /// The binding of a bucket.
    ///
    /// # Errors
    /// `NoSuchBucket` when it is not bound: what lies at the provider under that name is nobody's here.
    pub(crate) async fn resolve(&self, bucket: &str) -> Result<Arc<BoundBucket>, GatewayError> {
        let asked_ms = self.clock.boot_ms();
        let cached = self.cache.get(bucket);
        if let Some((bound, until_ms)) = &cached
            && asked_ms < *until_ms
        {
            return Ok(bound.clone());
        }
        match self.keys.binding(bucket).await {
            Ok(Answer { value: Some(binding), sent_boot_ms }) => self.remember(&binding, sent_boot_ms),
            Ok(Answer { value: None, .. }) => {
                self.cache.invalidate(bucket);
                Err(S3Error::new(ErrorCode::NoSuchBucket).with_extra("BucketName", bucket).into())
            }
            Err(KeyServiceError::Unavailable { .. } | KeyServiceError::Locked) if cached.is_some() => {
                cached.map(|(bound, _)| bound).ok_or(GatewayError::Internal("unreachable: just checked"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All bindings that this gateway's identity may see.
    ///
    /// # Errors
    /// When the key service can't answer.
    pub(crate) async fn all(&self) -> Result<Vec<Binding>, GatewayError> {
        Ok(self.keys.bindings().await?.value)
    }

    /// Binds a name; gives the binding that it had if it was bound already, and whether this call made it.
    ///
    /// # Errors
    /// When policy or a binding that is still closing forbids it.
    pub(crate) async fn bind(&self, bucket: &str) -> Result<bool, GatewayError> {
        let answer = self.keys.bind_bucket(bucket, None).await?;
        self.remember(&answer.value, answer.sent_boot_ms)?;
        Ok(answer.value.created)
    }

    /// Ends a binding; its id is never used again.
    ///
    /// # Errors
    /// When the key service refuses or can't answer.
    pub(crate) async fn unbind(&self, bucket: &str) -> Result<(), GatewayError> {
        self.cache.invalidate(bucket);
        match self.keys.unbind_bucket(bucket).await {
            Ok(()) | Err(KeyServiceError::UnknownBucket) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn remember(&self, binding: &Binding, sent_boot_ms: u64) -> Result<Arc<BoundBucket>, GatewayError> {
        let bound = Arc::new(BoundBucket::from_wire(binding)?);
        let until_ms = sent_boot_ms.saturating_add(self.session.binding_ttl_ms());
        self.cache.insert(binding.bucket.clone(), (bound.clone(), until_ms));
        Ok(bound)
    }
}
