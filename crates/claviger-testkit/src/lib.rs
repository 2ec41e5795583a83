//! Parts for tests only: a lying provider, doubles of providers, fault plans, fixed clock, seeded randomness, canaries.
//!
//! Nothing here may be a dependency of anything but tests.

pub mod canary;
mod clock;
pub mod liar;
mod random;
pub mod store_double;

pub use clock::FixedClock;
pub use random::SeededRandom;
