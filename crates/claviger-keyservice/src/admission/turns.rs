//! Room for bodies and turns for work: so much in all, and a part of it for one name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_keyapi::{Identity, KeyServiceError};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::busy;

/// How long a request waits for room before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something of which there is so much for all, and a share of it for each.
pub(super) struct Shared {
    all: Arc<Semaphore>,
    share: usize,
    /// By identity; `None` is every stranger. Names come from certificates that count, so there are not many.
    shares: Mutex<BTreeMap<Option<Identity>, Arc<Semaphore>>>,
}

/// A part that somebody has, given back when it is dropped.
pub(crate) struct Part {
    own: OwnedSemaphorePermit,
    of_all: OwnedSemaphorePermit,
}

impl Part {
    /// Gives back what is beyond so much.
    pub(crate) fn keep(&mut self, amount: usize) {
        for permit in [&mut self.own, &mut self.of_all] {
            let surplus = permit.num_permits().saturating_sub(amount);
            drop(permit.split(surplus));
        }
    }
}

impl Shared {
    pub(super) fn new(all: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), share, shares: Mutex::default() }
    }

    /// So much of it, or of a share if that is less. Who waits for his own share is in nobody's way.
    pub(super) async fn take(&self, who: Option<&Identity>, amount: usize) -> Result<Part, KeyServiceError> {
        let amount = u32::try_from(amount.clamp(1, self.share)).unwrap_or(u32::MAX);
        let taking = async {
            let own = self.share_of(who).acquire_many_owned(amount).await?;
            let of_all = Arc::clone(&self.all).acquire_many_owned(amount).await?;
            Ok::<_, AcquireError>(Part { own, of_all })
        };
        match tokio::time::timeout(PATIENCE, taking).await {
            Ok(Ok(part)) => Ok(part),
            _ => Err(busy()),
        }
    }

    fn share_of(&self, who: Option<&Identity>) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares.entry(who.cloned());
        Arc::clone(share.or_insert_with(|| Arc::new(Semaphore::new(self.share))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> Identity {
        format!("gateway:g{n}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_has_his_share_and_all_have_all_of_it() {
        let shared = Shared::new(8, 2);
        let take = async |n| shared.take(Some(&name(n)), 2).await;
        let mut held = vec![take(0).await.unwrap()];
        assert_eq!(take(0).await.err(), Some(busy()), "one has his share");
        for n in 1..4 {
            held.push(take(n).await.unwrap());
        }
        assert_eq!(take(9).await.err(), Some(busy()), "all have all of it");
        drop(held);
        assert!(take(0).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_needed_after_all_is_there_for_others() {
        let shared = Shared::new(4, 4);
        let mut part = shared.take(Some(&name(0)), 4).await.unwrap();
        part.keep(1);
        assert!(shared.take(Some(&name(0)), 3).await.is_ok());
        assert_eq!(shared.take(Some(&name(1)), 4).await.err(), Some(busy()), "it has one of them");
        drop(part);
        assert!(shared.take(Some(&name(1)), 4).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_his_own_share_takes_nothing_of_what_is_for_all() {
        let shared = Arc::new(Shared::new(3, 2));
        let held = shared.take(Some(&name(0)), 2).await.unwrap();
        let waiting: Vec<_> = (0..50)
            .map(|_| {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { shared.take(Some(&name(0)), 1).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(shared.take(Some(&name(1)), 1).await.is_ok());
        drop(held);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
    }
}
