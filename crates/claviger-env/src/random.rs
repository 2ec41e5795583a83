//! Randomness of the operating system, hedged as docs/format.md §2.9 asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use claviger_format::random::{Hedge, Random, RandomError};

use crate::Clock;

/// `getrandom(2)` for every draw, with no generator in user space; the hedge adds a nonce of this process's
/// start, a counter and the time, so that a cloned machine whose random source repeats still draws other salts.
pub struct OsRandom {
    boot_nonce: [u8; 32],
    counter: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl OsRandom {
    /// Takes the clock that the hedge reads.
    ///
    /// # Errors
    /// [`RandomError`] when the operating system gives no random bytes.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, RandomError> {
        let mut boot_nonce = [0; 32];
        fill_from_os(&mut boot_nonce)?;
        Ok(Self { boot_nonce, counter: AtomicU64::new(0), clock })
    }
}

impl Random for OsRandom {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        fill_from_os(out)
    }

    fn hedge(&self) -> Hedge {
        Hedge {
            boot_nonce: self.boot_nonce,
            counter: self.counter.fetch_add(1, Ordering::Relaxed),
            time_ns: self.clock.now_ns(),
        }
    }
}

impl std::fmt::Debug for OsRandom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OsRandom")
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the one place that asks the system for random bytes")]
fn fill_from_os(out: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(out).map_err(|_| RandomError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemClock;

    #[test]
    fn two_draws_and_two_hedges_differ() {
        let random = OsRandom::new(Arc::new(SystemClock)).unwrap();
        let (mut a, mut b) = ([0; 32], [0; 32]);
        random.fill(&mut a).unwrap();
        random.fill(&mut b).unwrap();
        assert_ne!(a, b);
        assert_ne!(random.hedge().counter, random.hedge().counter);
    }
}
