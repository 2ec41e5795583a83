//! One CreateBucket or DeleteBucket of a name at a time: binding and bucket are changed by several requests, which must
//! not come between one another's. This holds within one gateway; docs/decisions/003 says what holds between several.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// Names share locks; more would only let more of them go on at once.
const LOCKS: usize = 64;

/// The locks.
pub(crate) struct BucketLocks {
    hasher: RandomState,
    locks: [Mutex<()>; LOCKS],
}

impl BucketLocks {
    pub(crate) fn new() -> Self {
        Self { hasher: RandomState::new(), locks: std::array::from_fn(|_| Mutex::new(())) }
    }

    /// Waits until no other request changes this bucket.
    pub(crate) async fn lock(&self, bucket: &str) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one(bucket);
        let index = usize::try_from(hash % LOCKS as u64).unwrap_or_default();
        self.locks[index].lock().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_name_is_changed_by_one_request_at_a_time() {
        let locks = BucketLocks::new();
        let held = locks.lock("bucket").await;
        assert!(locks.lock("bucket").now_or_never().is_none());
        drop(held);
        assert!(locks.lock("bucket").now_or_never().is_some());
    }
}
