//! Clock and randomness as values that are passed in.
//!
//! Nothing else in the workspace asks the operating system for the time or for random bytes: every component
//! takes an `Arc<dyn Clock>` and a `claviger_format::Random`, so that a test decides both. The lint
//! `clippy::disallowed_methods` holds the line; the two `allow`s in this crate are the only ones.

mod clock;
mod random;

pub use clock::{Clock, SystemClock};
pub use random::OsRandom;
