//! One CreateBucket or DeleteBucket of a name at a time: binding and bucket are changed by several requests, which must
//! not come between one another's. This holds within one gateway; docs/decisions/003 says what holds between several.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_s3::error::{ErrorCode, S3Error};
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

use crate::error::GatewayError;

/// So many requests are at one name, the one that goes on included. More would only take the places of requests that
/// have nothing to do with it.
const AT_A_NAME_MAX: usize = 9;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// The names that are being changed.
#[derive(Default)]
pub(crate) struct BucketLocks {
    names: Names,
}

type Names = Arc<Mutex<HashMap<String, At>>>;

/// Those who are at one name.
#[derive(Default)]
struct At {
    turn: Arc<Turn<()>>,
    count: usize,
}

/// The right to change a bucket's name, until it is dropped.
pub(crate) struct BucketLock {
    // Given up in this order: whoever comes when the place is gone finds nobody at it.
    _turn: OwnedMutexGuard<()>,
    _place: Place,
}

/// One who is at a name: has his turn, or waits for it.
struct Place {
    names: Names,
    bucket: String,
}

impl BucketLocks {
    /// Waits until no other request changes this bucket.
    ///
    /// # Errors
    /// `OperationAborted` when too many are at it, or one for too long.
    pub(crate) async fn lock(&self, bucket: &str) -> Result<BucketLock, GatewayError> {
        let (turn, place) = Place::take(&self.names, bucket).ok_or_else(aborted)?;
        let turn = tokio::time::timeout(PATIENCE, turn.lock_owned()).await.map_err(|_| aborted())?;
        Ok(BucketLock { _turn: turn, _place: place })
    }
}

impl Place {
    fn take(names: &Names, bucket: &str) -> Option<(Arc<Turn<()>>, Self)> {
        let mut all = names.lock().unwrap_or_else(PoisonError::into_inner);
        let at = all.entry(bucket.to_owned()).or_default();
        if at.count == AT_A_NAME_MAX {
            return None;
        }
        at.count += 1;
        Some((at.turn.clone(), Self { names: names.clone(), bucket: bucket.to_owned() }))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.get_mut(&self.bucket) {
            at.count = at.count.saturating_sub(1);
            if at.count == 0 {
                all.remove(&self.bucket);
            }
        }
    }
}

fn aborted() -> GatewayError {
    S3Error::new(ErrorCode::OperationAborted).into()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn code(refused: Result<BucketLock, GatewayError>) -> Option<ErrorCode> {
        refused.err().map(|error| error.to_s3("/bucket").code())
    }

    #[tokio::test]
    async fn a_name_is_changed_by_one_request_at_a_time() {
        let locks = BucketLocks::default();
        let held = locks.lock("bucket").await.unwrap();
        assert!(locks.lock("bucket").now_or_never().is_none());
        drop(held);
        assert!(locks.lock("bucket").now_or_never().is_some());
        assert!(locks.names.lock().unwrap().is_empty(), "nobody is at it any more");
    }

    #[tokio::test]
    async fn no_name_waits_for_another() {
        let locks = BucketLocks::default();
        let mut held = Vec::new();
        for number in 0..100 {
            held.push(locks.lock(&format!("bucket-{number}")).now_or_never().unwrap().unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_wait_for_a_name_and_not_for_long() {
        let locks = BucketLocks::default();
        let held = locks.lock("bucket").await.unwrap();
        let mut waiting: Vec<_> = (1..AT_A_NAME_MAX).map(|_| Box::pin(locks.lock("bucket"))).collect();
        for one in &mut waiting {
            assert!(one.now_or_never().is_none());
        }
        assert_eq!(code(locks.lock("bucket").now_or_never().unwrap()), Some(ErrorCode::OperationAborted));
        for one in waiting {
            assert_eq!(code(one.await), Some(ErrorCode::OperationAborted));
        }
        drop(held);
        assert_eq!(code(locks.lock("bucket").await), None);
    }
}
