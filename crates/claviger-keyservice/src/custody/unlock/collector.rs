//! Unlock shares that operators have brought so far. They are wiped when the service unlocks, when it fails to, and when no
//! further one comes for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::quorum::QuorumWrap;
use crate::ServiceError;
use crate::custody::share::Share;

/// How long collected shares wait for the next one, on the boot-time clock.
pub const WAIT_MS: u64 = 15 * 60 * 1000;

/// The shares that are here.
#[derive(Default)]
pub(crate) struct Collector {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    shares: Vec<Share>,
    wipe_at_boot_ms: u64,
}

/// How far the collection is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Numbers of the shares that are here.
    pub(crate) here: Vec<u8>,
    /// Milliseconds until they are wiped; 0 if there are none.
    pub(crate) wiped_in_ms: u64,
}

impl Collector {
    fn at(&self, boot_ms: u64) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if boot_ms >= inner.wipe_at_boot_ms {
            inner.shares.clear();
        }
        inner
    }

    /// Takes a share. Once enough are here they are given out, and none stays.
    ///
    /// # Errors
    /// [`ServiceError::Share`] if it is not one of the wrap's, or is here already.
    pub(crate) fn add(
        &self,
        wrap: &QuorumWrap,
        share: Share,
        boot_ms: u64,
    ) -> Result<Option<Vec<Share>>, ServiceError> {
        wrap.check(&share)?;
        let mut inner = self.at(boot_ms);
        // Shares of another set than the wrap's can't be there: a wrap changes only while the service is unlocked.
        if inner.shares.iter().any(|known| known.index == share.index) {
            return Err(ServiceError::Share("this share is here already; another one is needed"));
        }
        inner.shares.push(share);
        inner.wipe_at_boot_ms = boot_ms.saturating_add(WAIT_MS);
        let complete = inner.shares.len() >= usize::from(wrap.threshold);
        Ok(complete.then(|| std::mem::take(&mut inner.shares)))
    }

    /// What is here, after anything that waited too long was wiped.
    pub(crate) fn progress(&self, boot_ms: u64) -> Progress {
        let inner = self.at(boot_ms);
        let wiped_in_ms =
            if inner.shares.is_empty() { 0 } else { inner.wipe_at_boot_ms.saturating_sub(boot_ms) };
        Progress { here: inner.shares.iter().map(|share| share.index).collect(), wiped_in_ms }
    }

    /// Wipes what is here.
    pub(crate) fn wipe(&self) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).shares.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::super::quorum;
    use super::*;
    use crate::testing::random;

    #[test]
    fn shares_gather_until_there_are_enough_and_then_none_stays() {
        let (wrap, mut shares) = quorum::wrap(&[9; 32], (2, 3), &*random()).unwrap();
        let collector = Collector::default();
        assert!(collector.add(&wrap, shares.remove(0), 0).unwrap().is_none());
        assert_eq!(collector.progress(60_000), Progress { here: vec![1], wiped_in_ms: WAIT_MS - 60_000 });
        let enough = collector.add(&wrap, shares.remove(0), 60_000).unwrap().unwrap();
        assert_eq!(*wrap.unwrap(&enough).unwrap(), [9; 32]);
        assert_eq!(collector.progress(60_000), Progress { here: vec![], wiped_in_ms: 0 });
    }

    #[test]
    fn a_share_twice_counts_once() {
        let (wrap, shares) = quorum::wrap(&[9; 32], (2, 2), &*random()).unwrap();
        let again = || Share::parse(&shares[0].to_line()).unwrap();
        let collector = Collector::default();
        assert!(collector.add(&wrap, again(), 0).unwrap().is_none());
        assert!(collector.add(&wrap, again(), 1).unwrap_err().to_string().contains("already"));
    }

    #[test]
    fn shares_that_wait_too_long_are_wiped() {
        let (wrap, mut shares) = quorum::wrap(&[9; 32], (2, 3), &*random()).unwrap();
        let collector = Collector::default();
        collector.add(&wrap, shares.remove(0), 1_000).unwrap();
        assert_eq!(collector.progress(1_000 + WAIT_MS).here, Vec::<u8>::new());
        assert!(
            collector.add(&wrap, shares.remove(0), 1_000 + WAIT_MS).unwrap().is_none(),
            "the first is gone"
        );
        collector.wipe();
        assert!(collector.add(&wrap, shares.remove(0), 2_000 + WAIT_MS).unwrap().is_none());
    }
}
