//! What an unlocked service does by itself, every few seconds.

use super::Core;
use crate::ServiceError;

impl Core {
    /// Does each of its tasks, whatever became of the others: a freeze that can't be written must not keep a root from being erased.
    /// Blocks. What failed is tried again the next time.
    pub(crate) fn keep_house(&self) {
        // Needs nothing that could fail.
        self.forget_unconfirmed();
        // First: it waits for no database, and others may have to hear of it.
        let role = self.tend_role();
        // Before the rest: that may need it. Health tells of it for as long as it fails.
        if let Err(error) = self.mend() {
            tracing::debug!(%error, "a fault is still there");
        }
        let tasks: [(&str, Result<(), ServiceError>); 7] = [
            ("to follow its role", role),
            ("to freeze", self.freeze_tripped()),
            ("to end proposals", self.expire_proposals()),
            ("to repeat the ledger's state", self.repeat_state()),
            ("to destroy key versions", self.destroy_due()),
            ("to prune the audit log", self.prune_if_decided()),
            ("to count for budgets", self.count_the_rest()),
        ];
        for (task, outcome) in tasks {
            if let Err(error) = outcome {
                tracing::error!(%error, task, "what the service does by itself was not done or not written down");
            }
        }
        self.tend_cosigning();
    }
}
