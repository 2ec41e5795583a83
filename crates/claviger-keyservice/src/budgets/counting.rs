//! When the log is read for budgets, and by whom: at an unlock its end, at a change of the policy all of it before anyone's turn, and
//! what was left out in the background.

use std::sync::atomic::Ordering;

use super::from_log::{Counted, Part};
use crate::ServiceError;
use crate::audit_log::OwnLines;
use crate::policy::Table;
use crate::service::Core;
use crate::vault::Vault;

/// Records that an unlock reads at most: a second's work. Until the rest is counted, which is begun right after, a gateway may be given
/// as much as it may anew.
const UNLOCK_RECORDS_MAX: u64 = 200_000;
/// Records that may be left to whoever has the turn.
const TURN_RECORDS_MAX: u64 = 20_000;
/// How often it is tried to come closer than that.
const ROUNDS_MAX: u32 = 10;

/// What the log tells of for a policy that is not in force yet.
pub(crate) struct Ahead(Counted);

impl Core {
    fn read_log(&self, vault: &Vault, table: &Table, records_max: u64) -> Result<Counted, ServiceError> {
        Counted::read(table, self.part(&self.own_lines(vault)?, records_max))
    }

    fn part<'a>(&self, log: &'a OwnLines, records_max: u64) -> Part<'a> {
        let (now_ms, boot_ms) = (self.clock.now_ms(), self.clock.boot_ms());
        Part { log, from_index: 0, records_max, now_ms, boot_ms }
    }

    fn catch_up(&self, counted: &mut Counted, table: &Table) -> Result<u64, ServiceError> {
        counted.catch_up(table, self.part(&self.own_lines(&*self.vault()?)?, u64::MAX))
    }

    /// What was released before this unlock counts on; of a long log what lies further back a little later.
    pub(crate) fn count_budgets(&self, vault: &Vault, table: &Table) -> Result<(), ServiceError> {
        self.count_newest(vault, table, UNLOCK_RECORDS_MAX)
    }

    fn count_newest(&self, vault: &Vault, table: &Table, records_max: u64) -> Result<(), ServiceError> {
        let counted = self.read_log(vault, table, records_max)?;
        vault.budgets.is_partial.store(!counted.is_all, Ordering::Release);
        counted.pour_into(&vault.budgets, table);
        Ok(())
    }

    /// Counts what the unlock left out. To be called now and then; blocks for as long as reading the log takes, and holds nobody up.
    ///
    /// # Errors
    /// Those of the log; it is tried again.
    pub(crate) fn count_the_rest(&self) -> Result<(), ServiceError> {
        let Ok(vault) = self.vault() else { return Ok(()) };
        if !vault.budgets.is_partial.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let counted = self.count_ahead(self.policy.load().budgets()).and_then(|Ahead(mut counted)| {
            // Whoever is unfrozen meanwhile begins anew: under the turn nobody is.
            let turn = self.change(&vault)?;
            let policy = self.policy.load_full();
            self.catch_up(&mut counted, policy.budgets())?;
            counted.pour_into(&vault.budgets, policy.budgets());
            drop(turn);
            Ok(())
        });
        if counted.is_err() {
            vault.budgets.is_partial.store(true, Ordering::Release);
        }
        counted
    }

    /// Whether what was released long ago is not counted yet.
    pub(crate) fn counts_still(&self) -> bool {
        self.vault().is_ok_and(|vault| vault.budgets.is_partial.load(Ordering::Acquire))
    }

    /// Counts for budgets that may come into force, without anybody's turn: almost everything that there is.
    pub(crate) fn count_ahead(&self, table: &Table) -> Result<Ahead, ServiceError> {
        let mut counted = self.read_log(&*self.vault()?, table, u64::MAX)?;
        for _ in 0..ROUNDS_MAX {
            if self.catch_up(&mut counted, table)? <= TURN_RECORDS_MAX {
                break;
            }
        }
        Ok(Ahead(counted))
    }

    /// The same with what was written since; for whoever has the turn.
    pub(crate) fn count_on(&self, Ahead(mut counted): Ahead, table: &Table) -> Result<Ahead, ServiceError> {
        self.catch_up(&mut counted, table)?;
        Ok(Ahead(counted))
    }

    /// The policy is in force for which this was counted: it counts, with what was released up to that moment.
    pub(crate) fn budgets_begin(&self, vault: &Vault, Ahead(mut counted): Ahead) {
        let policy = self.policy.load_full();
        if let Err(error) = self.catch_up(&mut counted, policy.budgets()) {
            tracing::error!(%error, "what was released in the moment of the change counts after the next unlock");
        }
        counted.pour_into(&vault.budgets, policy.budgets());
        self.drop_old_budgets(vault);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use claviger_env::SystemClock;
    use claviger_keyapi::Id16;

    use crate::KeyService;
    use crate::files::read_secret;
    use crate::policy::Policy;
    use crate::service::tests::made;
    use crate::testing::random;

    const POLICY: &str = "[[grant]]\nidentity = \"gateway:edge\"\nkeyset = \"default\"\nverbs = [\"lease\", \"read\"]\n\
        [[budget]]\nidentity = \"gateway:edge\"\nkeyset = \"default\"\nwindow_s = 86400\nepochs_max = 100\n";

    #[test]
    fn what_an_unlock_left_out_of_a_long_log_is_counted_right_after() {
        let folder = tempfile::tempdir().unwrap();
        let config = made(folder.path());
        let service = KeyService::open(config, Arc::new(SystemClock), random()).unwrap();
        service.unlock(&read_secret(&folder.path().join("passphrase")).unwrap()).unwrap();
        let core = &service.core;
        let release = |n: u8| {
            let (now_ms, epoch) = (core.clock.now_ms(), Id16([n; 16]));
            format!(
                "{{\"v\":1,\"time_ms\":{now_ms},\"action\":\"lease\",\"outcome\":\"released\",\"identity\":\"gateway:edge\",\
                 \"keyset\":\"default\",\"epoch_id\":\"{epoch}\"}}"
            )
        };
        core.audit.append_blocking((0..50).map(|n| release(n).into_bytes()).collect()).unwrap();
        let policy = Arc::new(Policy::parse_text(POLICY).unwrap());
        core.policy.store(Arc::clone(&policy));
        let vault = core.vault().unwrap();
        let (identity, budgets) = policy.budgets().iter().next().unwrap();
        let used = || vault.budgets.len(identity, "default", &budgets["default"], core.clock.boot_ms()).0;
        core.count_newest(&vault, policy.budgets(), 10).unwrap();
        assert_eq!((used(), core.counts_still()), (10, true));
        assert!(service.notes().iter().any(|note| note.contains("budgets count only the newest part")));
        core.count_the_rest().unwrap();
        assert_eq!((used(), core.counts_still()), (50, false));
        core.count_budgets(&vault, policy.budgets()).unwrap();
        assert_eq!((used(), core.counts_still()), (50, false));
    }
}
