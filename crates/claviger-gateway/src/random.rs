//! Randomness for one object, in one call of the system's source.

use std::sync::{Arc, Mutex, PoisonError};

use claviger_format::random::{Hedge, Random, RandomError};
use zeroize::Zeroizing;

/// An object's id and the salts of its body, its footer and its envelope (docs/format.md §3).
const OBJECT_LEN: usize = 16 + 3 * 32;

/// Gives out what was drawn at once, each byte once; beyond that it asks the source. To be drawn where it is used, and nothing
/// waited for between: a copy of the machine that was made meanwhile would have the same (docs/format.md §2.9).
pub(crate) struct ForObject {
    source: Arc<dyn Random>,
    drawn: Mutex<Drawn>,
}

struct Drawn {
    bytes: Zeroizing<[u8; OBJECT_LEN]>,
    used: usize,
}

impl ForObject {
    /// Draws.
    ///
    /// # Errors
    /// The source's.
    pub(crate) fn draw(source: Arc<dyn Random>) -> Result<Self, RandomError> {
        let mut bytes = Zeroizing::new([0; OBJECT_LEN]);
        source.fill(&mut bytes[..])?;
        Ok(Self { source, drawn: Mutex::new(Drawn { bytes, used: 0 }) })
    }
}

impl Random for ForObject {
    fn fill(&self, out: &mut [u8]) -> Result<(), RandomError> {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = drawn.used.checked_add(out.len()).filter(|end| *end <= OBJECT_LEN) else {
            return self.source.fill(out);
        };
        out.copy_from_slice(&drawn.bytes[drawn.used..end]);
        drawn.used = end;
        Ok(())
    }

    fn hedge(&self) -> Hedge {
        self.source.hedge()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use claviger_env::{OsRandom, SystemClock};

    use super::*;

    #[test]
    fn no_bytes_are_given_twice_whether_drawn_early_or_late() {
        let random = ForObject::draw(Arc::new(OsRandom::new(Arc::new(SystemClock)).unwrap())).unwrap();
        let mut seen = HashSet::new();
        for len in [16, 32, 32, 32, 32, 16, 16, 64, 208] {
            let mut out = vec![0; len];
            random.fill(&mut out).unwrap();
            assert!(out.chunks(16).all(|piece| seen.insert(piece.to_vec())), "{len}");
        }
    }

    #[test]
    fn a_source_that_fails_is_a_failure() {
        struct Broken;
        impl Random for Broken {
            fn fill(&self, _: &mut [u8]) -> Result<(), RandomError> {
                Err(RandomError)
            }
            fn hedge(&self) -> Hedge {
                Hedge { boot_nonce: [0; 32], counter: 0, time_ns: 0 }
            }
        }
        assert!(ForObject::draw(Arc::new(Broken)).is_err());
    }
}
