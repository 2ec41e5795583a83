//! Two operators decide that a version of a keyset is to be destroyed, or that its epochs may be sealed anew (`reseal`). One that is to be
//! destroyed opens nothing from then on; its root is erased when the time is over (`destruction`).

use std::sync::Arc;

use claviger_format::KeyVersionState;
use claviger_keyapi::lifecycle::{DESTROY_WAIT_S_MAX, DESTROY_WAIT_S_MIN, DoomInfo};

use super::carry_out::Deed;
use super::custody::unknown;
use super::{ProposalRow, conflict, malformed};
use crate::ServiceError;
use crate::audit_record::{Outcome, RequestInfo};
use crate::keyset::{Doom, Keyset, KeysetRow, Permit, keyset_change};
use crate::ledger::Turn;
use crate::reseal::roots;
use crate::service::Core;
use crate::vault::Vault;
use crate::wording::moment;

impl Core {
    /// Only a version that nothing is sealed to any more: else what gateways write at this moment would be lost with it.
    pub(super) fn check_destroy(
        &self,
        turn: &Turn<'_>,
        keyset: &str,
        version: u32,
        wait_s: u32,
    ) -> Result<Arc<Keyset>, ServiceError> {
        if !(DESTROY_WAIT_S_MIN..=DESTROY_WAIT_S_MAX).contains(&wait_s) {
            return Err(malformed("a version is destroyed 3 to 90 days after that is approved"));
        }
        let keyset = turn.vault.keyset(keyset).ok_or_else(|| unknown("there is no such keyset"))?;
        let found = keyset.version(version).ok_or_else(|| unknown("the keyset has no such version"))?;
        match found.state {
            KeyVersionState::Active => Err(conflict(&format!(
                "version {version} is active: claviger keys keyset rotate {0} first, or claviger keys keyset retire {0}",
                keyset.name
            ))),
            KeyVersionState::Retired if found.doom.is_none() => Ok(keyset),
            KeyVersionState::Retired => Err(conflict("that is decided already")),
            KeyVersionState::Prepared | KeyVersionState::Destroyed => {
                Err(conflict("this version has no root that could be destroyed"))
            }
        }
    }

    /// From now on an operator may run it.
    pub(super) fn permit_reseal(
        &self,
        turn: &Turn<'_>,
        info: &RequestInfo,
        row: &ProposalRow,
        (keyset, version): (&str, u32),
    ) -> Result<Deed, ServiceError> {
        let keyset = check_reseal(turn, keyset, version)?;
        let mut stored = self.stored_keyset(&turn.vault, &keyset)?;
        let found = stored.versions.iter_mut().find(|stored| stored.number == version);
        let approver = row.approver.clone().ok_or(ServiceError::Damaged("proposal"))?;
        found.ok_or(ServiceError::Damaged("keyset"))?.reseal = Some(Permit {
            proposal: row.id.clone(),
            proposer: row.proposer.clone(),
            approver,
            until_ms: row.expires_ms,
        });
        let mut record = info.record("reseal-permitted", Outcome::Done);
        record.keyset = Some(keyset.name.clone());
        record.what = Some(format!("version {version}"));
        Ok(Deed {
            changes: vec![keyset_change(&turn.vault.master, &stored)],
            record,
            after: Box::new(move |_, vault| put(vault, stored)),
        })
    }

    pub(super) fn doom(
        &self,
        turn: &Turn<'_>,
        info: &RequestInfo,
        row: &ProposalRow,
        (keyset, version, wait_s): (&str, u32, u32),
    ) -> Result<Deed, ServiceError> {
        let keyset = self.check_destroy(turn, keyset, version, wait_s)?;
        let mut stored = self.stored_keyset(&turn.vault, &keyset)?;
        let found = stored.versions.iter_mut().find(|stored| stored.number == version);
        let approver = row.approver.as_ref().ok_or(ServiceError::Damaged("proposal"))?;
        let due_ms = info.now_ms.saturating_add(u64::from(wait_s) * 1000);
        let found = found.ok_or(ServiceError::Damaged("keyset"))?;
        // It would undo what was just decided.
        found.reseal = None;
        found.doom = Some(Doom {
            proposal: row.id.clone(),
            info: DoomInfo {
                proposer: row.proposer.identity.clone(),
                approver: approver.identity.clone(),
                decided_ms: info.now_ms,
                due_ms,
            },
        });
        let mut record = info.record("destroy-decided", Outcome::Done);
        record.keyset = Some(keyset.name.clone());
        record.what =
            Some(format!("version {version} opens nothing now, and is destroyed {}", moment(due_ms)));
        Ok(Deed {
            changes: vec![keyset_change(&turn.vault.master, &stored)],
            record,
            after: Box::new(move |_, vault| {
                let keyset_id = stored.keyset_id;
                put(vault, stored);
                vault.closed(keyset_id);
            }),
        })
    }
}

/// A version that can be sealed to the newest one as well.
pub(super) fn check_reseal(turn: &Turn<'_>, keyset: &str, version: u32) -> Result<Arc<Keyset>, ServiceError> {
    let keyset = turn.vault.keyset(keyset).ok_or_else(|| unknown("there is no such keyset"))?;
    roots(&keyset, version)?;
    Ok(keyset)
}

fn put(vault: &Vault, stored: KeysetRow) {
    if let Err(error) = vault.put_keyset(stored) {
        // It opened a moment ago under this master.
        tracing::error!(%error, "a keyset that was changed does not open");
    }
}
