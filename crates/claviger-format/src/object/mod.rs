//! Bodies: writers that take plaintext pieces of any size, and a reader that takes ciphertext pieces of any size.
//!
//! Writers draw their own salt, are not Clone, and are consumed: a unit is never sealed twice (docs/format.md §8).

mod reader;
mod writer;

pub use reader::ObjectReader;
pub use writer::{BodySummary, BodyWriter, PartState, PartWriter};
