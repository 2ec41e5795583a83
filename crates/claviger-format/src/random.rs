//! Randomness as a value that is passed in.

/// The random source could not deliver. Whoever gets this must not seal anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("random source failed")]
pub struct RandomError;

/// What hedges a salt against a repeated random source (docs/format.md §2.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hedge {
    /// Drawn once when the process started.
    pub boot_nonce: [u8; 32],
    /// Different at every call within the process.
    pub counter: u64,
    /// Wall clock in nanoseconds.
    pub time_ns: u64,
}

/// A cryptographic random source: `getrandom(2)` in production, a seeded stream in tests.
pub trait Random: Send + Sync {
    /// Fills `out` with uniform bytes, all of it or fails.
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError>;

    /// The hedge of the next salt; `counter` MUST differ at every call (docs/format.md §2.9).
    fn hedge(&self) -> Hedge;
}

/// Gives `hpke`, which wants an infallible generator, a fallible one: a failure is remembered and MUST be asked for
/// with [`HpkeRandom::check`] before the result is used.
pub(crate) struct HpkeRandom<'a> {
    source: &'a dyn Random,
    failure: Option<RandomError>,
}

impl<'a> HpkeRandom<'a> {
    pub(crate) fn new(source: &'a dyn Random) -> Self {
        Self { source, failure: None }
    }

    pub(crate) fn check(&self) -> Result<(), RandomError> {
        self.failure.map_or(Ok(()), Err)
    }
}

impl hpke::rand_core::TryRng for HpkeRandom<'_> {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Self::Error> {
        if let Err(failure) = self.source.fill(dst) {
            dst.fill(0);
            self.failure = Some(failure);
        }
        Ok(())
    }
}

impl hpke::rand_core::TryCryptoRng for HpkeRandom<'_> {}
