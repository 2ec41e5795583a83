//! The policy file, read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use claviger_keyapi::admin::PolicyReport;

use crate::ServiceError;
use crate::audit_record::Outcome;
use crate::policy::Policy;
use crate::service::{Caller, Core, Work};

impl Core {
    /// Reads the policy file again; a file with a mistake changes nothing.
    pub(crate) fn reload_policy(&self, caller: &Caller) -> Work<PolicyReport> {
        let mut record = caller.info.record("policy-reload", Outcome::Done);
        let loaded = Policy::load(&self.config.policy);
        record.subject = loaded.as_ref().ok().map(|policy| policy.sha256().to_owned());
        let policy = match loaded {
            Ok(policy) => policy,
            Err(error) => return Work::new(Err(error), vec![record]).refused_if_failed(),
        };
        // Durable before it counts: what can't be written down must not be in force.
        Work::silent(self.change_as(caller).map_err(ServiceError::from).and_then(|_changes| {
            self.audit.append_blocking(vec![record.to_bytes()])?;
            let keysets: BTreeSet<String> = caller.vault.keysets().iter().map(|k| k.name.clone()).collect();
            let report = PolicyReport {
                sha256: policy.sha256().to_owned(),
                grants: u32::try_from(policy.grants()).unwrap_or(u32::MAX),
                warnings: policy.warnings(&keysets),
            };
            self.policy.store(Arc::new(policy));
            Ok(report)
        }))
    }
}
