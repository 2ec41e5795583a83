//! The policy in force, shown. Changing it takes two operators: `proposals`.

use std::collections::BTreeSet;

use claviger_keyapi::admin::PolicyInForce;

use crate::ServiceError;
use crate::policy::{Policy, PolicyRow};
use crate::service::{Caller, Core};

impl Core {
    pub(crate) fn show_policy(caller: &Caller) -> Result<PolicyInForce, ServiceError> {
        let row = PolicyRow::of(caller.vault.ledger().rows())?.ok_or(ServiceError::Damaged("policy"))?;
        let policy = Policy::parse_text(&row.text)?;
        let keysets: BTreeSet<String> = caller.vault.keysets().iter().map(|k| k.name.clone()).collect();
        Ok(PolicyInForce {
            sha256: policy.sha256().to_owned(),
            since_ms: row.since_ms,
            proposer: row.proposer,
            approver: row.approver,
            warnings: policy.warnings(&keysets),
            text: row.text,
        })
    }
}
