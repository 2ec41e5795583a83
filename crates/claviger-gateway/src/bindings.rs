//! Which bucket name stands for which binding id and keyset (docs/format.md §5.1), cached for as long as the key
//! service allows.
//!
//! A binding that is too old is dangerous: objects written under the id of a deleted bucket could never be read in
//! its successor. So an entry is used without asking for at most `binding_ttl_s`, counted from the sending of the
//! question; the service binds a name anew only when every gateway's entry has run out; an answer never replaces a
//! younger one; and a write that took longer than an entry lives is confirmed before the client hears of success. Only
//! when the service can't be reached does an older entry serve: docs/decisions/003 says what that risks.

use std::sync::Arc;
use std::time::Duration;

use claviger_env::Clock;
use claviger_format::{BucketId, KeysetId, ObjectName};
use claviger_keyapi::{Answer, Binding, KeyService, KeyServiceError};
use claviger_s3::error::{ErrorCode, S3Error};
use moka::sync::Cache;

use crate::error::GatewayError;
use crate::keys::session::Session;
use crate::per_second::PerSecond;

/// How many bucket names are remembered.
const ENTRIES_MAX: u64 = 100_000;
/// An entry that nobody used for this long is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// How often a question is put for one request, when the binding changes again and again while an answer is under way.
const QUESTIONS_MAX: u32 = 5;

/// So many questions about buckets go to the key service in a second on behalf of people who did not sign.
const STRANGERS_PER_SECOND_MAX: u32 = 20;

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
    cache: Cache<String, Entry>,
    strangers: PerSecond,
}

#[derive(Clone)]
struct Entry {
    /// `None` for a name that was not bound when the question left, or whose binding this gateway has ended: it keeps an
    /// older answer from coming back.
    bound: Option<Arc<BoundBucket>>,
    /// When the question left to which this is the answer.
    sent_boot_ms: u64,
    until_boot_ms: u64,
    /// Not an answer: something changed, and whoever wants to know what has to ask.
    is_news: bool,
}

/// What is in the cache after an answer came.
enum Kept {
    /// That answer.
    Answer,
    /// What came since its question left.
    Younger(Entry),
}

impl Bindings {
    pub(crate) fn new(keys: Arc<dyn KeyService>, clock: Arc<dyn Clock>, session: Arc<Session>) -> Self {
        let cache = Cache::builder().max_capacity(ENTRIES_MAX).time_to_idle(IDLE).build();
        Self { keys, clock, session, cache, strangers: PerSecond::new(STRANGERS_PER_SECOND_MAX) }
    }

    /// The binding of a bucket.
    ///
    /// # Errors
    /// `NoSuchBucket` when it is not bound: what lies at the provider under that name is nobody's here.
    /// `OperationAborted` when it changed with every answer.
    pub(crate) async fn resolve(&self, bucket: &str) -> Result<Arc<BoundBucket>, GatewayError> {
        for _ in 0..QUESTIONS_MAX {
            if let Some(bound) = self.look_up(bucket).await? {
                return Ok(bound);
            }
        }
        Err(S3Error::new(ErrorCode::OperationAborted).into())
    }

    /// The binding from the cache or from the key service; `None` when the answer was overtaken by news of a change.
    async fn look_up(&self, bucket: &str) -> Result<Option<Arc<BoundBucket>>, GatewayError> {
        let cached = self.cache.get(bucket);
        if let Some(entry) = &cached
            && let Some(bound) = &entry.bound
            && self.clock.boot_ms() < entry.until_boot_ms
        {
            return Ok(Some(bound.clone()));
        }
        match self.keys.binding(bucket).await {
            Ok(Answer { value, sent_boot_ms }) => {
                let bound = value.as_ref().map(BoundBucket::from_wire).transpose()?.map(Arc::new);
                match self.remember(bucket, bound.clone(), sent_boot_ms) {
                    Kept::Answer => bound.ok_or_else(|| no_such_bucket(bucket)).map(Some),
                    Kept::Younger(entry) if entry.is_news => Ok(None),
                    // Another request asked later, and was answered sooner.
                    Kept::Younger(Entry { bound: None, .. }) => Err(no_such_bucket(bucket)),
                    Kept::Younger(entry) => {
                        Ok(entry.bound.filter(|_| self.clock.boot_ms() < entry.until_boot_ms))
                    }
                }
            }
            Err(error @ (KeyServiceError::Unavailable { .. } | KeyServiceError::Locked)) => {
                match cached.and_then(|entry| entry.bound) {
                    Some(bound) => {
                        ::metrics::counter!(crate::metrics::STALE_BINDINGS).increment(1);
                        Ok(Some(bound))
                    }
                    None => Err(error.into()),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a bucket is bound that somebody without any proof of who he is names. Only so many such questions go to the
    /// key service in a second. A name that was bound when this gateway last heard of it costs none, so that strangers can't
    /// take the place of those who use it: nothing is sealed or opened by this answer, and whoever does asks [`Self::resolve`].
    ///
    /// # Errors
    /// As [`Self::resolve`], and [`GatewayError::Busy`] beyond that.
    pub(crate) async fn known_to_anyone(&self, bucket: &str) -> Result<(), GatewayError> {
        if self.cache.get(bucket).is_some_and(|entry| entry.bound.is_some()) {
            return Ok(());
        }
        for _ in 0..QUESTIONS_MAX {
            if !self.strangers.admits(self.clock.boot_ms()) {
                return Err(GatewayError::Busy(
                    "too many ask without a signature about buckets that are not in use here",
                ));
            }
            if self.look_up(bucket).await?.is_some() {
                return Ok(());
            }
        }
        Err(S3Error::new(ErrorCode::OperationAborted).into())
    }

    /// Whether a name still stands for `used`: a write that took long may have outlived its bucket. Costs nothing while
    /// the entry is fresh. `false` only when the key service says that the name stands for another id.
    ///
    /// # Errors
    /// When it can't be told.
    pub(crate) async fn still_bound(&self, bucket: &str, used: &BoundBucket) -> Result<bool, GatewayError> {
        Ok(self.resolve(bucket).await?.bucket_id == used.bucket_id)
    }

    /// Whether a name is bound, as the key service knows it now.
    ///
    /// # Errors
    /// When it can't answer.
    pub(crate) async fn is_bound(&self, bucket: &str) -> Result<bool, GatewayError> {
        Ok(self.keys.binding(bucket).await?.value.is_some())
    }

    /// All bindings that this gateway's identity may see.
    ///
    /// # Errors
    /// When the key service can't answer.
    pub(crate) async fn all(&self) -> Result<Vec<Binding>, GatewayError> {
        Ok(self.keys.bindings().await?.value)
    }

    /// Whether a name stands for `made`, as the key service knows it now.
    ///
    /// # Errors
    /// When it can't answer.
    pub(crate) async fn stands_for(&self, bucket: &str, made: &BoundBucket) -> Result<bool, GatewayError> {
        let binding = self.keys.binding(bucket).await?.value;
        Ok(binding.is_some_and(|binding| binding.bucket_id == made.bucket_id.as_str()))
    }

    /// Binds a name; gives the binding, and whether this call made it. Whether the name still stands for it after what the
    /// caller did next, [`Self::stands_for`] tells.
    ///
    /// # Errors
    /// When policy or a binding that is still closing forbids it.
    pub(crate) async fn bind(&self, bucket: &str) -> Result<(Arc<BoundBucket>, bool), GatewayError> {
        let answer = self.keys.bind_bucket(bucket, None).await?;
        let bound = Arc::new(BoundBucket::from_wire(&answer.value)?);
        // What was heard since, of this very binding or of one before it, says nothing of what is bound now.
        if let Kept::Younger(_) = self.remember(bucket, Some(bound.clone()), answer.sent_boot_ms) {
            self.ask_about(bucket);
        }
        Ok((bound, answer.value.created))
    }

    /// Ends a binding; its id is never used again.
    ///
    /// # Errors
    /// When the key service refuses or can't answer.
    pub(crate) async fn unbind(&self, bucket: &str, bound: &BoundBucket) -> Result<(), GatewayError> {
        let ended = self.keys.unbind_bucket(bucket, bound.bucket_id.as_str()).await;
        // Whatever was asked before this moment may still be answered with the old binding.
        let now = self.clock.boot_ms();
        self.keep(
            bucket,
            Entry { bound: None, sent_boot_ms: now, until_boot_ms: now, is_news: ended.is_err() },
        );
        match ended {
            Ok(()) | Err(KeyServiceError::UnknownBucket) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Asks again before any of these is used once more: the key service says that they changed. `None` means all of them.
    pub(crate) fn ask_again(&self, buckets: Option<&[String]>) {
        match buckets {
            Some(buckets) => buckets.iter().for_each(|bucket| self.ask_about(bucket)),
            None => self.cache.iter().for_each(|(bucket, _)| self.ask_about(&bucket)),
        }
    }

    /// Asks again before this one is used once more, and believes no answer to a question that has left already.
    fn ask_about(&self, bucket: &str) {
        let now = self.clock.boot_ms();
        self.cache.entry(bucket.to_owned()).and_upsert_with(|known| Entry {
            bound: known.and_then(|known| known.into_value().bound),
            sent_boot_ms: now,
            until_boot_ms: now,
            is_news: true,
        });
    }

    /// Keeps an answer, unless the one to a later question is there already.
    fn remember(&self, bucket: &str, bound: Option<Arc<BoundBucket>>, sent_boot_ms: u64) -> Kept {
        let ttl_ms = if bound.is_some() { self.session.binding_ttl_ms() } else { 0 };
        let until_boot_ms = sent_boot_ms.saturating_add(ttl_ms);
        self.keep(bucket, Entry { bound, sent_boot_ms, until_boot_ms, is_news: false })
    }

    /// Keeps an entry, unless a younger one is there.
    fn keep(&self, bucket: &str, new: Entry) -> Kept {
        let mut is_kept = true;
        let kept = self.cache.entry(bucket.to_owned()).and_upsert_with(|old| match old {
            Some(old) if old.value().sent_boot_ms > new.sent_boot_ms => {
                is_kept = false;
                old.into_value()
            }
            _ => new,
        });
        if is_kept { Kept::Answer } else { Kept::Younger(kept.into_value()) }
    }
}

fn no_such_bucket(bucket: &str) -> GatewayError {
    S3Error::new(ErrorCode::NoSuchBucket).with_extra("BucketName", bucket).into()
}

#[cfg(test)]
mod tests;
