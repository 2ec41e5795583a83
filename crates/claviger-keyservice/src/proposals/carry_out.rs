//! Whether an action can be done now, and doing it.

use std::sync::Arc;

use claviger_keyapi::proposals::{Action, Collected, FreezeTarget, UnlockTo};
use claviger_keyapi::{Id16, Identity};

use super::destroy::check_reseal;
use super::disclose::{Wanted, check_version};
use super::unbind::check_unbind;
use super::{ProposalRow, conflict, rule};
use crate::ServiceError;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::budgets::Ahead;
use crate::enrolment::TokenOrder;
use crate::join::check_name;
use crate::ledger::Turn;
use crate::log_key::{LogInfo, check_request, unregister};
use crate::policy::{Policy, PolicyRow};
use crate::service::{Caller, Core};
use crate::store::Change;
use crate::vault::Vault;

/// How memory follows what was committed.
type After = Box<dyn FnOnce(&Core, &Vault)>;

/// An approved action, ready to be committed.
pub(super) struct Deed {
    pub(super) changes: Vec<Change>,
    pub(super) record: Record,
    pub(super) after: After,
}

impl Core {
    /// Whether these operators may do this, and whether it can be done as things stand. Asked when it is proposed, approved
    /// and collected: things change meanwhile.
    pub(super) fn check_action(
        &self,
        turn: &Turn<'_>,
        action: &Action,
        operators: &[&Identity],
    ) -> Result<(), ServiceError> {
        for operator in operators {
            self.permit_operator(operator, rule(action).verb)?;
        }
        match action {
            Action::Enrol { identity, keysets, ttl_s, replace } => {
                let order = order(identity, keysets, *ttl_s, *replace);
                self.check_order(&turn.vault, &order, operators)?;
            }
            Action::Disclose { bucket, key, header, version, reason } => {
                check_version(version.as_deref())?;
                self.check_disclosure(turn, &Wanted { bucket, key, header, reason }, operators)?;
            }
            Action::Policy { text } => drop(self.checked_policy(turn, text)?),
            Action::Reseal { keyset, version } => drop(check_reseal(turn, keyset, *version)?),
            Action::Destroy { keyset, version, wait_s } => {
                self.check_destroy(turn, keyset, *version, *wait_s).map(drop)?;
            }
            Action::ChangeUnlock { .. } | Action::Reshare { .. } | Action::Rotate { .. } => {
                self.check_custody(turn, action)?;
            }
            Action::Prune { before_ms } => self.check_pruning(&turn.vault, *before_ms)?,
            Action::AddReplica { request } => {
                check_name(&request.name)?;
                check_request(&turn.vault.master, turn.vault.ledger().rows(), request, 0)?;
            }
            Action::RemoveReplica { log_id } => drop(self.removable(turn, *log_id)?),
            Action::Unbind { buckets } => drop(check_unbind(&turn.vault, buckets)?),
            Action::Unfreeze { target } => {
                if turn.vault.freezes.get(target).is_none() {
                    return Err(conflict(&format!("{target} is not frozen")));
                }
            }
            Action::AcceptEpochs { gateway_id, epochs } => {
                drop(self.acceptance(&turn.vault, *gateway_id, epochs)?);
            }
        }
        Ok(())
    }

    /// For a policy with other budgets: what was released up to now. It may take minutes, so it is not done in anybody's turn.
    pub(super) fn count_for(&self, action: &Action) -> Result<Option<Ahead>, ServiceError> {
        let Action::Policy { text } = action else { return Ok(None) };
        let policy = Policy::parse_text(text)?;
        if policy.budgets() == self.policy.load().budgets() {
            return Ok(None);
        }
        self.count_ahead(policy.budgets()).map(Some)
    }

    /// A registered log that is not this one's.
    fn removable(&self, turn: &Turn<'_>, log_id: Id16) -> Result<LogInfo, ServiceError> {
        let log = turn.vault.logs().into_iter().find(|log| log.log_id == log_id);
        let log = log.ok_or_else(|| conflict("no replica has this log"))?;
        if self.audit.verifier().is_some_and(|mine| *mine == log.key) {
            return Err(conflict("this is the replica that serves: another one has to take over first"));
        }
        Ok(log)
    }

    /// A policy that can be put in force: without mistakes, and one that two operators in office could change again.
    fn checked_policy(&self, turn: &Turn<'_>, text: &str) -> Result<Policy, ServiceError> {
        let policy = Policy::parse_text(text)?;
        policy.check_changeable(&turn.vault.operators())?;
        Ok(policy)
    }

    pub(super) fn carry_out(
        &self,
        turn: &Turn<'_>,
        info: &RequestInfo,
        row: &ProposalRow,
        ahead: Option<Ahead>,
    ) -> Result<Deed, ServiceError> {
        let mut deed = match &row.action {
            Action::Policy { text } => self.change_policy(turn, info, row, (text, ahead))?,
            Action::Reseal { keyset, version } => self.permit_reseal(turn, info, row, (keyset, *version))?,
            Action::Destroy { keyset, version, wait_s } => {
                self.doom(turn, info, row, (keyset, *version, *wait_s))?
            }
            Action::Unfreeze { target } => unfreeze(info, target),
            Action::Unbind { buckets } => self.unbind_by_operators(turn, info, row, buckets)?,
            Action::Prune { before_ms } => {
                let record = self.prune_record(&turn.vault, info, *before_ms)?;
                let (decided, recorded_from) = (record.clone(), self.audit.records());
                let after: After = Box::new(move |core, _| core.begin_pruning(&decided, recorded_from));
                Deed { changes: Vec::new(), record, after }
            }
            Action::AddReplica { request } => {
                let (log, change) =
                    check_request(&turn.vault.master, turn.vault.ledger().rows(), request, info.now_ms)?;
                let mut record = info.record("replica-joined", Outcome::Done);
                record.subject = Some(log.key.to_string());
                record.what = Some(request.name.clone());
                Deed { changes: vec![change], record, after: Box::new(|_, vault| vault.put_log(log)) }
            }
            Action::RemoveReplica { log_id } => {
                let log = self.removable(turn, *log_id)?;
                let mut record = info.record("replica-removed", Outcome::Done);
                record.subject = Some(log.key.to_string());
                record.what = Some(log.title());
                let after: After = Box::new(move |_, vault| vault.remove_log(log.log_id));
                Deed { changes: vec![unregister(*log_id)], record, after }
            }
            Action::AcceptEpochs { gateway_id, epochs } => {
                let accepted = self.acceptance(&turn.vault, *gateway_id, epochs)?;
                let mut record = info.record("epochs-accept", Outcome::Done);
                record.subject = Some(gateway_id.to_string());
                Deed {
                    changes: accepted.changes(&turn.vault),
                    record,
                    after: Box::new(move |_, vault| accepted.carry_out(vault)),
                }
            }
            Action::ChangeUnlock { to: UnlockTo::Pkcs11 } => self.change_to_hsm(turn, info)?,
            Action::Enrol { .. }
            | Action::Disclose { .. }
            | Action::ChangeUnlock { .. }
            | Action::Reshare { .. }
            | Action::Rotate { .. } => {
                return Err(ServiceError::Damaged("proposal (it is collected)"));
            }
        };
        deed.record.proposal = Some(row.id.clone());
        Ok(deed)
    }

    fn change_policy(
        &self,
        turn: &Turn<'_>,
        info: &RequestInfo,
        row: &ProposalRow,
        (text, ahead): (&str, Option<Ahead>),
    ) -> Result<Deed, ServiceError> {
        let policy = self.checked_policy(turn, text)?;
        // A budget that is new counts what was released before it, as it will after the next unlock.
        let counted = match ahead {
            Some(ahead) => Some(self.count_on(ahead, policy.budgets())?),
            None if policy.budgets() == self.policy.load().budgets() => None,
            None => return Err(conflict("the policy was changed in this moment: approve it again")),
        };
        let mut record = info.record("policy", Outcome::Done);
        record.subject = Some(policy.sha256().to_owned());
        let stored = PolicyRow {
            text: text.to_owned(),
            since_ms: info.now_ms,
            proposer: Some(row.proposer.identity.clone()),
            approver: row.approver.as_ref().map(|approver| approver.identity.clone()),
        };
        Ok(Deed {
            changes: vec![stored.change(&turn.vault.master)],
            record,
            after: Box::new(move |core, vault| {
                core.policy.store(Arc::new(policy));
                if let Some(counted) = counted {
                    core.budgets_begin(vault, counted);
                }
            }),
        })
    }

    /// The result of a proposal that is collected; with it the proposal ends.
    pub(super) fn hand_out(
        &self,
        turn: &Turn<'_>,
        caller: &Caller,
        row: &ProposalRow,
        record: &mut Record,
    ) -> Result<Collected, ServiceError> {
        let vault = &turn.vault;
        if let Action::Disclose { bucket, key, header, reason, .. } = &row.action {
            return self.disclose(turn, row, &Wanted { bucket, key, header, reason }, record);
        }
        let Action::Enrol { identity, keysets, ttl_s, replace } = &row.action else {
            return self.hand_out_custody(turn, row, record);
        };
        let mut order = order(identity, keysets, *ttl_s, *replace);
        order.ordered_by = Some(row.proposer.identity.clone());
        order.approved_by = row.approver.as_ref().map(|approver| approver.identity.clone());
        let mut token = self.prepare_token(vault, &caller.info, order)?;
        token.changes.push(row.delete());
        let mut made = record.same_request("enrol-token", Outcome::Done);
        made.proposal = Some(row.id.clone());
        made.subject = Some(identity.to_string());
        made.keyset = (!keysets.is_empty()).then(|| keysets.join(","));
        self.commit(turn, std::mem::take(&mut token.changes), &[record.clone(), made])?;
        vault.proposals().remove(&row.id);
        Ok(Collected::EnrolToken(token.remember(vault)))
    }
}

fn order(identity: &Identity, keysets: &[String], ttl_s: u32, replace: bool) -> TokenOrder {
    TokenOrder {
        identity: identity.clone(),
        keysets: keysets.to_vec(),
        ttl_s,
        replace,
        ordered_by: None,
        approved_by: None,
    }
}

fn unfreeze(info: &RequestInfo, target: &FreezeTarget) -> Deed {
    let mut record = info.record("unfreeze", Outcome::Done);
    record.subject = Some(target.to_string());
    let target = target.clone();
    Deed {
        changes: vec![crate::freeze::delete(&target)],
        record,
        after: Box::new(move |_, vault| {
            // Before the brake is off: what comes then counts.
            vault.budgets.begin_anew(&target);
            vault.freezes.remove(&target);
        }),
    }
}
