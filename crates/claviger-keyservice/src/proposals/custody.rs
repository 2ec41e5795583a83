//! Two operators change how the service is unlocked, or who holds the recovery shares of a root. The new secret is handed to the
//! one who proposed it, and counts only once all of it came back from where it was written.

use claviger_format::Root;
use claviger_keyapi::admin::KeysetShares;
use claviger_keyapi::proposals::{Action, Collected, ConfirmRequest, UnlockSecrets, UnlockTo};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{Id16, KeyServiceError};

use super::carry_out::Deed;
use super::rotation::next_version;
use super::{Person, ProposalRow, check_in_office, conflict, headline, proposal_record};
use crate::ServiceError;
use crate::admin::keysets::check_shares;
use crate::audit_record::{Outcome, Record, RequestInfo, bounded};
use crate::custody::shamir::{self, Share};
use crate::custody::unlock::change::{Prepared, settle};
use crate::keyset::{EarlierSet, Keyset, Version, keyset_change};
use crate::ledger::Turn;
use crate::service::{Caller, Core, Work};
use crate::vault::Vault;

/// How long a secret that was handed out may take to come back, on the boot-time clock.
const CONFIRM_WITHIN_MS: u64 = 60 * 60 * 1000;

/// A secret that was handed out and does not count yet. It is kept in memory only: a service that was locked meanwhile knows
/// nothing of it, and the old one counts.
pub(crate) struct HandedOut {
    proposal: ProposalRow,
    what: What,
    until_boot_ms: u64,
}

pub(super) enum What {
    Unlock(Prepared),
    Shares { keyset_id: Id16, set: String },
    Version { root: Root, set: String },
}

impl Core {
    /// Whether it could be done as things stand.
    pub(super) fn check_custody(&self, turn: &Turn<'_>, action: &Action) -> Result<(), ServiceError> {
        match action {
            Action::ChangeUnlock { to: UnlockTo::Pkcs11 } if self.config.pkcs11.is_none() => {
                Err(conflict("the service's configuration has no [pkcs11]"))
            }
            Action::ChangeUnlock { to: UnlockTo::Quorum { shares, threshold } } => {
                Ok(shamir::check_counts(*threshold, *shares)?)
            }
            Action::Reshare { keyset, version, shares, threshold } => {
                shamir::check_counts(*threshold, *shares)?;
                let keyset = turn.vault.keyset(keyset).ok_or_else(|| unknown("there is no such keyset"))?;
                version_of(&keyset, *version).map(drop)
            }
            Action::Rotate { keyset, shares, threshold } => {
                shamir::check_counts(*threshold, *shares)?;
                next_version(turn, keyset).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// From now on by the HSM: nothing has to be handed out for that.
    pub(super) fn change_to_hsm(&self, turn: &Turn<'_>, info: &RequestInfo) -> Result<Deed, ServiceError> {
        let config =
            self.config.pkcs11.as_ref().ok_or_else(|| conflict("the configuration has no [pkcs11]"))?;
        let master = &turn.vault.master;
        let prepared = Prepared::pkcs11(master.secret(), config, &*self.random)?;
        prepared.stage(&*self.store)?;
        let mut record = info.record("unlock-change", Outcome::Done);
        record.what = Some("to pkcs11".to_owned());
        Ok(Deed {
            changes: vec![prepared.wrap().change(master)?],
            record,
            after: Box::new(|core, vault| core.unlock_changed(vault)),
        })
    }

    /// Hands out what was approved; with that the proposal ends.
    pub(super) fn hand_out_custody(
        &self,
        turn: &Turn<'_>,
        row: &ProposalRow,
        record: &Record,
    ) -> Result<Collected, ServiceError> {
        let (what, collected) = match &row.action {
            Action::Reshare { keyset, version, shares, threshold } => {
                self.new_shares(turn, keyset, *version, (*threshold, *shares))?
            }
            Action::Rotate { keyset, shares, threshold } => {
                self.new_version(turn, keyset, (*threshold, *shares))?
            }
            Action::ChangeUnlock { to } => {
                let master = turn.vault.master.secret();
                let (prepared, secrets) = match to {
                    UnlockTo::Passphrase => Prepared::passphrase(master, &*self.random)?,
                    UnlockTo::Quorum { shares, threshold } => {
                        Prepared::quorum(master, (*threshold, *shares), &*self.random)?
                    }
                    UnlockTo::Pkcs11 => return Err(conflict("it has no result to collect")),
                };
                let service = self.config.advertise.clone();
                (What::Unlock(prepared), Collected::UnlockSecrets(UnlockSecrets { service, secrets }))
            }
            _ => return Err(conflict("it has no result to collect")),
        };
        self.commit(turn, vec![row.delete()], std::slice::from_ref(record))?;
        turn.vault.proposals().remove(&row.id);
        let until_boot_ms = self.clock.boot_ms().saturating_add(CONFIRM_WITHIN_MS);
        let handed_out = HandedOut { proposal: row.clone(), what, until_boot_ms };
        turn.vault.handed_out().insert(row.id.clone(), handed_out);
        Ok(collected)
    }

    fn new_shares(
        &self,
        turn: &Turn<'_>,
        keyset: &str,
        version: u32,
        (threshold, count): (u8, u8),
    ) -> Result<(What, Collected), ServiceError> {
        let keyset = turn.vault.keyset(keyset).ok_or_else(|| unknown("there is no such keyset"))?;
        let root = version_of(&keyset, version)?.secret();
        let shares = shamir::split(root, keyset.id, version, threshold, count, &*self.random)?;
        let set = shares.first().map(Share::set_text).unwrap_or_default();
        let keyset_id = keyset.public_id();
        let lines = shares.iter().map(|share| SecretText::new(share.to_line().to_string())).collect();
        let collected = Collected::Shares(KeysetShares { keyset_id, shares: lines });
        Ok((What::Shares { keyset_id, set }, collected))
    }

    /// The secret as it was read back. Only now it counts, and the one before does not any more.
    pub(crate) fn confirm(&self, caller: &Caller, request: &ConfirmRequest) -> Work<()> {
        let record = proposal_record(caller, "confirm", &request.id);
        Work::changing(record, |record| {
            let turn = self.change_as(caller)?;
            let gone = || conflict("nothing waits to be confirmed under this id; propose it again");
            let handed_out = turn.vault.handed_out().remove(&request.id).ok_or_else(gone)?;
            record.what = Some(bounded(&headline(&handed_out.proposal.action)));
            if handed_out.until_boot_ms <= self.clock.boot_ms() {
                return Err(gone());
            }
            let done = self.try_confirm(&turn, caller, &handed_out, &request.secrets, record);
            if done.is_err() {
                // Mistyped or misread: it may be tried again.
                turn.vault.handed_out().insert(request.id.clone(), handed_out);
            }
            done
        })
    }

    fn try_confirm(
        &self,
        turn: &Turn<'_>,
        caller: &Caller,
        handed_out: &HandedOut,
        secrets: &[SecretText],
        record: &Record,
    ) -> Result<(), ServiceError> {
        let HandedOut { proposal, what, .. } = handed_out;
        self.check_still_approved(turn, caller, proposal)?;
        let master = &turn.vault.master;
        match (what, &proposal.action) {
            (What::Unlock(prepared), _) => {
                prepared.prove(master.secret(), secrets)?;
                prepared.stage(&*self.store)?;
                let mut changed = record.same_request("unlock-change", Outcome::Done);
                changed.what = Some(format!("to {}", prepared.wrap().method()));
                self.commit(turn, vec![prepared.wrap().change(master)?], &[record.clone(), changed])?;
                self.unlock_changed(&turn.vault);
                Ok(())
            }
            (What::Shares { keyset_id, set }, Action::Reshare { version, shares, threshold, .. }) => {
                let asked = (*version, *shares, *threshold);
                self.replace_shares(turn, caller, (*keyset_id, set, asked), secrets, record)
            }
            (What::Version { root, set }, Action::Rotate { shares, threshold, .. }) => {
                self.add_version(turn, (root, set), (*threshold, *shares), secrets, record)
            }
            _ => Err(ServiceError::Damaged("proposal")),
        }
    }

    fn check_still_approved(
        &self,
        turn: &Turn<'_>,
        caller: &Caller,
        proposal: &ProposalRow,
    ) -> Result<(), ServiceError> {
        if !proposal.proposer.is(caller) {
            let text = format!("only {}, who proposed it, confirms it", proposal.proposer.identity);
            return Err(KeyServiceError::Denied { text }.into());
        }
        let Person { identity, .. } = proposal.approver.as_ref().ok_or(ServiceError::Damaged("proposal"))?;
        proposal.approver.iter().try_for_each(|approver| check_in_office(&turn.vault, approver))?;
        self.check_action(turn, &proposal.action, &[&proposal.proposer.identity, identity])
    }

    fn replace_shares(
        &self,
        turn: &Turn<'_>,
        caller: &Caller,
        (keyset_id, set, (version, count, threshold)): (Id16, &str, (u32, u8, u8)),
        secrets: &[SecretText],
        record: &Record,
    ) -> Result<(), ServiceError> {
        let keyset = turn.vault.keyset_by_id(keyset_id).ok_or_else(|| unknown("there is no such keyset"))?;
        let shares = secrets.iter().map(|text| Share::parse(text.expose())).collect::<Result<Vec<_>, _>>()?;
        check_handed_out(&shares, set, threshold)?;
        check_shares(version_of(&keyset, version)?, count, &shares, &*self.random)?;
        let mut row = self.stored_keyset(&turn.vault, &keyset)?;
        let stored = row.versions.iter_mut().find(|stored| stored.number == version);
        let stored = stored.ok_or(ServiceError::Damaged("keyset"))?;
        let earlier = EarlierSet {
            set: stored.set.replace(set.to_owned()),
            shares: std::mem::replace(&mut stored.shares, count),
            threshold: std::mem::replace(&mut stored.threshold, threshold),
            replaced_ms: caller.info.now_ms,
        };
        let mut reshared = record.same_request("reshare", Outcome::Done);
        reshared.keyset = Some(keyset.name.clone());
        reshared.what = Some(format!(
            "version {version}: set {set} in place of {}, any {} of whose {} shares still open it until they are destroyed",
            earlier.set.as_deref().unwrap_or("the one it was made with"),
            earlier.threshold,
            earlier.shares
        ));
        stored.earlier_sets.push(earlier);
        self.commit(turn, vec![keyset_change(&turn.vault.master, &row)], &[record.clone(), reshared])?;
        turn.vault.put_keyset(row)
    }

    /// Forgets what was handed out and did not come back in time.
    pub(crate) fn forget_unconfirmed(&self) {
        let Ok(vault) = self.vault() else { return };
        let now_boot_ms = self.clock.boot_ms();
        vault.handed_out().retain(|_, handed_out| handed_out.until_boot_ms > now_boot_ms);
    }

    /// The row names the new wrap: the old one goes, and the status tells of the new one. Not while the database lacks the row:
    /// there the old one still looks like the one that counts.
    fn unlock_changed(&self, vault: &Vault) {
        if vault.is_behind() {
            return;
        }
        if let Err(error) = settle(&*self.store).and_then(|()| self.read_unlock_method()) {
            tracing::error!(%error, "the wrap that does not count any more is removed at the next unlock");
        }
    }
}

/// Whoever collects shares holds the secret for a while, and could make others of it: with another threshold, for one.
///
/// # Errors
/// [`ServiceError::Share`] if these are not the ones that were handed out.
pub(super) fn check_handed_out(shares: &[Share], set: &str, threshold: u8) -> Result<(), ServiceError> {
    let is_one = |share: &Share| share.set_text() == set && share.threshold == threshold;
    if shares.iter().all(is_one) {
        Ok(())
    } else {
        Err(ServiceError::Share("they are not the ones that were handed out"))
    }
}

fn version_of(keyset: &Keyset, number: u32) -> Result<&Root, ServiceError> {
    let found = keyset.version(number).and_then(Version::opens);
    found.ok_or_else(|| unknown("the keyset has no such version, or one that opens nothing"))
}

pub(super) fn unknown(text: &str) -> ServiceError {
    KeyServiceError::Keyset { text: text.to_owned() }.into()
}

#[cfg(test)]
mod tests;
