//! What takes something away from somebody is acknowledged only under a checkpoint: whoever can write the log's folder while the
//! service is down could cut off its end else, and make the service forget it without a trace.

use std::sync::atomic::Ordering;

use super::{Core, Work};
use crate::ServiceError;

impl Core {
    /// All that was written down so far is to be covered before the next change is acknowledged.
    pub(crate) fn must_cover(&self) {
        self.uncovered.fetch_max(self.audit.records(), Ordering::AcqRel);
    }

    /// The work once a checkpoint covers what it changed, as far as it has to. The change counts in any case; where the checkpoint
    /// can't be written whoever asked is told so. Blocks.
    pub(crate) fn covered<T>(&self, mut work: Work<T>) -> Work<T> {
        if work.is_change
            && work.result.is_ok()
            && let Err(error) = self.cover()
        {
            work.result = Err(error);
        }
        work
    }

    fn cover(&self) -> Result<(), ServiceError> {
        let is_covered = self.audit.covered() >= self.uncovered.load(Ordering::Acquire);
        // Who locked meanwhile had a last one written.
        if is_covered || self.audit.verifier().is_none() { Ok(()) } else { self.audit.write_checkpoint() }
    }
}
