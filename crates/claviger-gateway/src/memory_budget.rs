//! The memory for what passes through: one budget (`limits.buffered_bytes_max`) that all requests take shares of.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::GatewayError;

/// The budget is counted in units of this many bytes …
const UNIT_LEN: usize = 64 << 10;
/// … of which one transfer takes so many: two frames and what the sockets hold of each side.
const TRANSFER_UNITS: usize = 16;
/// Bytes that one transfer takes.
pub(crate) const TRANSFER_LEN: usize = UNIT_LEN * TRANSFER_UNITS;
/// What people who did not sign can have held in memory, besides their transfers: one part in so many.
const STRANGERS_SHARE: usize = 4;
/// How long a request waits for its share: a client that is held back for a while is not refused, and one that waits for
/// nothing hears of it.
const WAIT: Duration = Duration::from_secs(10);

/// One request's share, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    _permit: OwnedSemaphorePermit,
    _of_strangers: Option<OwnedSemaphorePermit>,
    len: u32,
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        crate::metrics::buffered(|gauge| gauge.decrement(self.len));
    }
}

/// A number of units.
#[derive(Debug)]
struct Pool {
    units: Arc<Semaphore>,
    units_max: usize,
}

impl Pool {
    fn new(units: usize) -> Self {
        let units_max = units.clamp(1, Semaphore::MAX_PERMITS);
        Self { units: Arc::new(Semaphore::new(units_max)), units_max }
    }

    /// Waits for so many units; all there are when there are fewer.
    async fn take(&self, units: usize) -> Result<(OwnedSemaphorePermit, u32), GatewayError> {
        let units = u32::try_from(units.min(self.units_max)).unwrap_or(u32::MAX);
        let permit = self.units.clone().acquire_many_owned(units).await;
        permit.map(|permit| (permit, units)).map_err(|_| GatewayError::Internal("a budget was closed"))
    }
}

/// The budget.
#[derive(Debug)]
pub(crate) struct MemoryBudget {
    all: Pool,
    /// Of what is held for people who did not sign.
    strangers: Pool,
}

impl MemoryBudget {
    /// A budget of so many bytes; at least one transfer can always go on.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let units = (bytes_max / UNIT_LEN).max(TRANSFER_UNITS);
        Self { all: Pool::new(units), strangers: Pool::new(units / STRANGERS_SHARE) }
    }

    /// A share for a transfer that holds `held_len` bytes of plaintext beyond what every transfer does. A budget that is
    /// smaller is taken whole. Waits a while for it.
    ///
    /// # Errors
    /// [`GatewayError::Busy`] when nothing became free.
    pub(crate) async fn transfer(
        &self,
        held_len: usize,
        is_stranger: bool,
    ) -> Result<MemoryShare, GatewayError> {
        self.share(TRANSFER_UNITS, held_len, is_stranger).await
    }

    /// A share for `held_len` bytes and nothing else.
    ///
    /// # Errors
    /// As [`Self::transfer`].
    pub(crate) async fn held(&self, held_len: usize, is_stranger: bool) -> Result<MemoryShare, GatewayError> {
        self.share(0, held_len, is_stranger).await
    }

    async fn share(
        &self,
        units: usize,
        held_len: usize,
        is_stranger: bool,
    ) -> Result<MemoryShare, GatewayError> {
        let held = held_len.div_ceil(UNIT_LEN);
        let taking = async {
            let of_strangers = match is_stranger && held > 0 {
                true => Some(self.strangers.take(held).await?.0),
                false => None,
            };
            let (permit, units) = self.all.take(units.saturating_add(held)).await?;
            Ok((permit, of_strangers, units))
        };
        let taken = tokio::time::timeout(WAIT, taking).await;
        let busy = |_| Err(GatewayError::Busy("no memory became free (limits.buffered_bytes_max)"));
        let (_permit, _of_strangers, units) = taken.unwrap_or_else(busy)?;
        let len = units.saturating_mul(65_536);
        crate::metrics::buffered(|gauge| gauge.increment(len));
        Ok(MemoryShare { _permit, _of_strangers, len })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_memory_waits_a_while_and_is_told_then() {
        let budget = MemoryBudget::new(2 * TRANSFER_LEN);
        let all = budget.transfer(TRANSFER_LEN, false).await.unwrap();
        let begun = tokio::time::Instant::now();
        assert!(matches!(budget.transfer(0, false).await, Err(GatewayError::Busy(_))));
        assert_eq!(begun.elapsed(), WAIT);
        let mut waiting = Box::pin(budget.transfer(0, false));
        assert!((&mut waiting).now_or_never().is_none());
        drop(all);
        assert!(waiting.now_or_never().unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_held_for_strangers_is_a_quarter_at_most() {
        let budget = MemoryBudget::new(64 * TRANSFER_LEN);
        let held: Vec<_> = (0..4).map(|_| budget.held(4 * TRANSFER_LEN, true).now_or_never()).collect();
        assert!(held.iter().flatten().all(Result::is_ok) && held.iter().all(Option::is_some));
        assert!(matches!(budget.transfer(UNIT_LEN, true).await, Err(GatewayError::Busy(_))));
        assert!(budget.transfer(0, true).await.is_ok(), "a transfer alone holds nothing");
        assert!(budget.transfer(40 * TRANSFER_LEN, false).await.is_ok(), "the rest is for the others");
    }

    #[tokio::test]
    async fn a_share_that_is_larger_than_the_budget_is_all_of_it() {
        let budget = MemoryBudget::new(0);
        let all = budget.transfer(usize::MAX, true).await.unwrap();
        assert_eq!(all.len as usize, TRANSFER_LEN);
        assert!(budget.held(1, false).now_or_never().is_none());
    }
}
