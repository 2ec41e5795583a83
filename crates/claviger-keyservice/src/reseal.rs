//! Re-sealing: epochs of an older version are sealed to the newest one as well, so that the older one can be destroyed and what it
//! opened lives on.
//!
//! It is hygiene. Whoever had the older root, and the records as they were, opens what he opened: the keys of objects do not change
//! (docs/format.md §2.1). Two operators permit it, since it undoes a forgetting that others may count on; then one of them runs it,
//! step by step, as often as it takes.

use claviger_format::{EpochRecord, KeyVersionState, Root, SealTo, SealerId};
use claviger_keyapi::lifecycle::{ResealAnswer, ResealRequest};
use claviger_keyapi::{Id16, KeyServiceError};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::keyset::{Keyset, Permit, keyset_change};
use crate::proposals::check_in_office;
use crate::registry;
use crate::service::{Caller, Core, Work};
use crate::store::{Change, EpochRow, Kind};
use crate::vault::Vault;

/// Epochs that one step looks at.
const STEP: u32 = 200;

impl Core {
    /// One step: the epochs after those of the step before, up to a number. The permission ends with the last step.
    pub(crate) fn reseal(&self, caller: &Caller, request: &ResealRequest) -> Work<ResealAnswer> {
        let mut record = caller.info.record("reseal", Outcome::Done);
        record.keyset = Some(bounded(&request.keyset));
        Work::changing(record, |record| self.try_reseal(caller, request, record))
    }

    fn try_reseal(
        &self,
        caller: &Caller,
        request: &ResealRequest,
        record: &mut Record,
    ) -> Result<ResealAnswer, ServiceError> {
        let turn = self.change_as(caller)?;
        let vault = &turn.vault;
        let keyset = vault.keyset(&request.keyset).ok_or_else(|| conflict("there is no such keyset"))?;
        let mut row = self.stored_keyset(vault, &keyset)?;
        let stored = row.versions.iter_mut().find(|stored| stored.number == request.version);
        let permit = stored.as_ref().and_then(|stored| stored.reseal.as_ref());
        check_permit(vault, permit, caller.info.now_ms)?;
        let (from, to) = roots(&keyset, request.version)?;
        let place = (keyset.public_id(), request.version);
        // Only the service's own place counts: it ends where all epochs were seen, whatever the caller says.
        let after = match (request.after, vault.reseals().get(&place).copied()) {
            (None, _) => None,
            (Some(asked), Some(own)) if asked == own => Some(own),
            _ => return Err(conflict("the service is not at this epoch, or began anew since: begin again")),
        };
        let rows = self.registered_epochs(vault, after.map(|id| id.0), STEP)?;
        let mut changes = Vec::new();
        for epoch in rows.iter().filter(|epoch| Id16(epoch.keyset_id) == keyset.public_id()) {
            changes.extend(self.resealed(vault, epoch, from, to)?);
        }
        let resealed = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let last = rows.last().filter(|_| rows.len() == STEP as usize).map(|epoch| Id16(epoch.epoch_id));
        let mut what =
            format!("{resealed} epochs of version {} to version {} as well", from.version(), to.version());
        let ends = last.is_none();
        if ends {
            stored.into_iter().for_each(|stored| stored.reseal = None);
            what.push_str("; that was all");
            changes.push(keyset_change(&vault.master, &row));
        }
        record.what = Some(what);
        if !changes.is_empty() {
            self.commit(&turn, changes, std::slice::from_ref(record))?;
        }
        match last {
            Some(last) => drop(vault.reseals().insert(place, last)),
            None => drop(vault.reseals().remove(&place)),
        }
        if ends {
            vault.put_keyset(row)?;
        }
        Ok(ResealAnswer { seen: u32::try_from(rows.len()).unwrap_or(u32::MAX), resealed, after: last })
    }

    /// The epoch with a further recipient, unless it has it or is of another version.
    fn resealed(
        &self,
        vault: &Vault,
        epoch: &EpochRow,
        from: &Root,
        to: &Root,
    ) -> Result<Option<Change>, ServiceError> {
        let damaged =
            || ServiceError::Tampered { kind: Kind::Epoch.name(), id: Id16(epoch.epoch_id).to_string() };
        let mut record = EpochRecord::parse(&epoch.record).map_err(|_| damaged())?;
        let has = |version: u32| record.recipients().any(|(of, _)| of == version);
        if !has(from.version()) || has(to.version()) {
            return Ok(None);
        }
        let wek = record.open(from).map_err(|_| damaged())?;
        let (public_key, psk) = (to.public_key()?, to.psk(SealerId::KEY_SERVICE));
        let seal_to = SealTo {
            version: to.version(),
            public_key: &public_key,
            sealer_id: SealerId::KEY_SERVICE,
            psk: &psk,
        };
        record.add_recipient(&wek, &seal_to, &*self.random)?;
        let row = registry::with_record(&vault.master, epoch, record.to_bytes());
        Ok(Some(Change::ReplaceEpoch { row, old_mac: epoch.mac.clone() }))
    }
}

/// Whether what two operators permitted still holds.
fn check_permit(vault: &Vault, permit: Option<&Permit>, now_ms: u64) -> Result<(), ServiceError> {
    let permit = permit.filter(|permit| now_ms < permit.until_ms).ok_or_else(|| {
        conflict(
            "re-sealing this version is not permitted, or done, or no more: claviger keys keyset reseal proposes it",
        )
    })?;
    [&permit.proposer, &permit.approver].into_iter().try_for_each(|person| check_in_office(vault, person))
}

/// What is opened and what is sealed to. Not in a keyset that ended writing, and not from a version that opens nothing.
pub(crate) fn roots(keyset: &Keyset, version: u32) -> Result<(&Root, &Root), ServiceError> {
    let from = keyset.version(version).filter(|from| from.state == KeyVersionState::Retired);
    let from = from.and_then(crate::keyset::Version::opens);
    let to = keyset.newest().and_then(crate::keyset::Version::opens);
    match (from, to) {
        (Some(from), Some(to)) => Ok((from, to)),
        (None, _) => {
            Err(conflict("only epochs of a version that is retired and still opens are sealed anew"))
        }
        (_, None) => Err(conflict("the keyset has no active version to seal to")),
    }
}

fn conflict(text: &str) -> ServiceError {
    KeyServiceError::Conflict { text: text.to_owned() }.into()
}
