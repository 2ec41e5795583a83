//! Four eyes: what one operator proposes another approves, and only then it is done.
//!
//! Proposals are rows of the ledger. The approver is another person as far as a service can tell: another enrolled identity
//! *and* another name, so that nobody approves with the certificate that he had before. Proposer and approver must still be in
//! office and still hold the verb when the thing is done.

mod carry_out;
mod custody;
mod destroy;
mod disclose;
mod rotation;
mod rules;
mod unbind;

use claviger_keyapi::proposals::{
    Action, ApproveAnswer, Collected, PROPOSAL_TTL_S, PROPOSAL_TTL_S_MAX, ProposalInfo, ProposalList,
    ProposeRequest,
};
use claviger_keyapi::{Id16, Identity, KeyServiceError};
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};
use crate::vault::Vault;
pub(crate) use custody::HandedOut;
pub(crate) use rules::{headline, rule, words};

/// Most proposals that stand at once.
const PROPOSALS_MAX: usize = 100;

/// A proposal; the id of its row is `id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProposalRow {
    pub(crate) id: String,
    pub(crate) action: Action,
    pub(crate) proposer: Person,
    pub(crate) proposed_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) approver: Option<Person>,
}

/// An operator as he was enrolled when he acted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Person {
    pub(crate) uid: Id16,
    pub(crate) identity: Identity,
}

impl Person {
    fn of(caller: &Caller) -> Self {
        Self { uid: caller.row.uid, identity: caller.row.identity.clone() }
    }

    fn is(&self, caller: &Caller) -> bool {
        self.uid == caller.row.uid
    }

    /// Not even the same name with another certificate.
    fn is_someone_else_than(&self, caller: &Caller) -> bool {
        self.uid != caller.row.uid && self.identity != caller.row.identity
    }
}

impl ProposalRow {
    /// Whether this identity made or approved it.
    pub(crate) fn involves(&self, uid: Id16) -> bool {
        self.proposer.uid == uid || self.approver.as_ref().is_some_and(|approver| approver.uid == uid)
    }

    fn delete(&self) -> Change {
        Change::Delete(Kind::Proposal, self.id.clone())
    }
}

impl Core {
    /// Someone wants something that takes two.
    pub(crate) fn propose(&self, caller: &Caller, request: ProposeRequest) -> Work<ProposalInfo> {
        let mut record = caller.info.record("propose", Outcome::Done);
        tell_of(&mut record, &request.action);
        Work::changing(record, |record| self.try_propose(caller, request, record))
    }

    fn try_propose(
        &self,
        caller: &Caller,
        request: ProposeRequest,
        record: &mut Record,
    ) -> Result<ProposalInfo, ServiceError> {
        let turn = self.change_as(caller)?;
        let vault = &turn.vault;
        self.check_action(&turn, &request.action, &[&caller.row.identity])?;
        let ttl_s = request.ttl_s.unwrap_or(PROPOSAL_TTL_S);
        if ttl_s == 0 || ttl_s > PROPOSAL_TTL_S_MAX {
            return Err(malformed("a proposal stands for 1 second to 7 days"));
        }
        if vault.proposals().len() >= PROPOSALS_MAX {
            return Err(conflict(&format!("{PROPOSALS_MAX} proposals stand already; withdraw some")));
        }
        let mut id = [0u8; 8];
        self.random.fill(&mut id)?;
        let row = ProposalRow {
            id: format!("{:016x}", u64::from_be_bytes(id)),
            action: request.action,
            proposer: Person::of(caller),
            proposed_ms: caller.info.now_ms,
            expires_ms: caller.info.now_ms.saturating_add(u64::from(ttl_s) * 1000),
            approver: None,
        };
        record.proposal = Some(row.id.clone());
        self.commit(&turn, vec![put(vault, &row)], std::slice::from_ref(record))?;
        let answer = self.proposal_info(vault, &row);
        vault.proposals().insert(row.id.clone(), row);
        Ok(answer)
    }

    /// Someone else agrees. What has no result to collect is done at once.
    pub(crate) fn approve(&self, caller: &Caller, id: &str) -> Work<ApproveAnswer> {
        let record = proposal_record(caller, "approve", id);
        Work::changing(record, |record| self.try_approve(caller, id, record))
    }

    fn try_approve(
        &self,
        caller: &Caller,
        id: &str,
        record: &mut Record,
    ) -> Result<ApproveAnswer, ServiceError> {
        let action = standing(&caller.vault, id, caller.info.now_ms)?.action;
        let ahead = self.count_for(&action)?;
        let turn = self.change_as(caller)?;
        let mut row = standing(&turn.vault, id, caller.info.now_ms)?;
        tell_of(record, &row.action);
        if let Some(approver) = &row.approver {
            return Err(conflict(&format!("{} approved it already", approver.identity)));
        }
        if !row.proposer.is_someone_else_than(caller) {
            let text = "a proposal is approved by another operator than the one who made it".to_owned();
            return Err(KeyServiceError::Denied { text }.into());
        }
        check_in_office(&turn.vault, &row.proposer)?;
        self.check_action(&turn, &row.action, &[&row.proposer.identity, &caller.row.identity])?;
        let proposal = self.proposal_info(&turn.vault, &row);
        row.approver = Some(Person::of(caller));
        if rule(&row.action).is_collected {
            self.commit(&turn, vec![put(&turn.vault, &row)], std::slice::from_ref(record))?;
            turn.vault.proposals().insert(row.id.clone(), row);
            return Ok(ApproveAnswer { proposal, done: false });
        }
        let mut deed = self.carry_out(&turn, &caller.info, &row, ahead)?;
        deed.changes.push(row.delete());
        self.commit(&turn, deed.changes, &[record.clone(), deed.record])?;
        (deed.after)(self, &turn.vault);
        turn.vault.proposals().remove(&row.id);
        Ok(ApproveAnswer { proposal, done: true })
    }

    /// Whoever proposed it takes the result, once.
    pub(crate) fn collect(&self, caller: &Caller, id: &str) -> Work<Collected> {
        let record = proposal_record(caller, "collect", id);
        Work::changing(record, |record| self.try_collect(caller, id, record))
    }

    fn try_collect(&self, caller: &Caller, id: &str, record: &mut Record) -> Result<Collected, ServiceError> {
        let turn = self.change_as(caller)?;
        let row = standing(&turn.vault, id, caller.info.now_ms)?;
        tell_of(record, &row.action);
        if !row.proposer.is(caller) {
            let text = format!("only {}, who proposed it, collects the result", row.proposer.identity);
            return Err(KeyServiceError::Denied { text }.into());
        }
        let Some(approver) = &row.approver else {
            return Err(conflict(&format!("not approved yet; another operator: claviger keys approve {id}")));
        };
        check_in_office(&turn.vault, approver)?;
        self.check_action(&turn, &row.action, &[&row.proposer.identity, &approver.identity])?;
        self.hand_out(&turn, caller, &row, record)
    }

    /// A brake: whoever might have proposed it can take it away.
    pub(crate) fn withdraw(&self, caller: &Caller, id: &str) -> Work<()> {
        let record = proposal_record(caller, "withdraw", id);
        Work::changing(record, |record| {
            let turn = self.change_as(caller)?;
            let row = standing(&turn.vault, id, caller.info.now_ms)?;
            tell_of(record, &row.action);
            if !row.proposer.is(caller) {
                self.permit_operator(&caller.row.identity, rule(&row.action).verb)?;
            }
            self.commit(&turn, vec![row.delete()], std::slice::from_ref(record))?;
            turn.vault.proposals().remove(&row.id);
            Ok(())
        })
    }

    /// What stands.
    pub(crate) fn list_proposals(&self, caller: &Caller) -> ProposalList {
        let now_ms = caller.info.now_ms;
        let mut rows: Vec<ProposalRow> =
            caller.vault.proposals().values().filter(|row| row.expires_ms > now_ms).cloned().collect();
        rows.sort_by(|a, b| (a.proposed_ms, &a.id).cmp(&(b.proposed_ms, &b.id)));
        ProposalList { proposals: rows.iter().map(|row| self.proposal_info(&caller.vault, row)).collect() }
    }

    /// Takes away what nobody approved or collected in time, and writes it down.
    pub(crate) fn expire_proposals(&self) -> Result<(), ServiceError> {
        let Ok(vault) = self.vault() else { return Ok(()) };
        let now_ms = self.clock.now_ms();
        if vault.proposals().values().all(|row| row.expires_ms > now_ms) {
            return Ok(());
        }
        let turn = self.change(&vault)?;
        let info = self.local_info()?;
        let over: Vec<ProposalRow> =
            vault.proposals().values().filter(|row| row.expires_ms <= now_ms).cloned().collect();
        for row in over {
            let mut record = info.record("expire", Outcome::Done);
            record.proposal = Some(row.id.clone());
            tell_of(&mut record, &row.action);
            self.commit(&turn, vec![row.delete()], &[record])?;
            vault.proposals().remove(&row.id);
        }
        Ok(())
    }

    fn proposal_info(&self, vault: &Vault, row: &ProposalRow) -> ProposalInfo {
        let mut words = words(&self.policy.load(), vault, &row.action);
        words.extend(self.disclosed_version(vault, &row.action));
        ProposalInfo {
            id: row.id.clone(),
            action: row.action.clone(),
            words,
            proposer: row.proposer.identity.clone(),
            proposed_ms: row.proposed_ms,
            expires_ms: row.expires_ms,
            approver: row.approver.as_ref().map(|approver| approver.identity.clone()),
        }
    }
}

/// Says in a record what it is about, and of which object where it is about one.
fn tell_of(record: &mut Record, action: &Action) {
    record.what = Some(bounded(&headline(action)));
    if let Action::Disclose { bucket, key, .. } = action {
        record.bucket = Some(bounded(bucket));
        record.key = Some(bounded(key));
    }
}

fn proposal_record(caller: &Caller, action: &'static str, id: &str) -> Record {
    let mut record = caller.info.record(action, Outcome::Done);
    record.proposal = Some(bounded(id));
    record
}

fn put(vault: &Vault, row: &ProposalRow) -> Change {
    Change::Put(Kind::Proposal, vault.row(Kind::Proposal, &row.id, row))
}

fn standing(vault: &Vault, id: &str, now_ms: u64) -> Result<ProposalRow, ServiceError> {
    let row = vault.proposals().get(id).filter(|row| row.expires_ms > now_ms).cloned();
    row.ok_or_else(|| {
        conflict(
            "no such proposal stands: it was done, withdrawn or expired; claviger keys proposals lists them",
        )
    })
}

/// The same enrolment, not revoked since.
pub(crate) fn check_in_office(vault: &Vault, person: &Person) -> Result<(), ServiceError> {
    if vault.identity(person.uid).is_some_and(|row| row.revoked_ms.is_none()) {
        return Ok(());
    }
    Err(KeyServiceError::Denied { text: format!("{} is revoked", person.identity) }.into())
}

fn conflict(text: &str) -> ServiceError {
    KeyServiceError::Conflict { text: text.to_owned() }.into()
}

fn malformed(text: &str) -> ServiceError {
    KeyServiceError::Malformed { text: text.to_owned() }.into()
}
