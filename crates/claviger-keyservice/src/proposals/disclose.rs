//! Two operators hand out the key of one object, for somebody who has neither a gateway nor an access key: a court, an auditor, a
//! patient. What decides over `derive` decides here too (`release`), except that the verb is the operators', and both need it.

use claviger_format::{Dek, Error as FormatError, ObjectId, UnitHeader, envelope};
use claviger_keyapi::disclosure::{ObjectKey, REASON_LEN_MAX, VERSION_LEN_MAX};
use claviger_keyapi::proposals::{Action, Collected};
use claviger_keyapi::{DekBytes, EnvelopeHeader, Id16, Identity, KeyServiceError, ReleaseError};

use super::custody::unknown;
use super::{ProposalRow, conflict, malformed};
use crate::ServiceError;
use crate::audit_record::{Outcome, Record};
use crate::bindings::BindingRow;
use crate::ledger::Turn;
use crate::registry::{OpenEpoch, OpenError, RegisteredEpochs};
use crate::release::checked_name;
use crate::service::Core;
use crate::vault::Vault;
use crate::wording::moment;

/// What is to be handed out, and why.
pub(super) struct Wanted<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) header: &'a EnvelopeHeader,
    pub(super) reason: &'a str,
}

/// An object whose name was proved by its own key, and that key.
struct Opened {
    epoch: OpenEpoch,
    binding: BindingRow,
    object_id: ObjectId,
    dek: Dek,
}

impl Core {
    /// Whether its key could be handed out as things stand.
    pub(super) fn check_disclosure(
        &self,
        turn: &Turn<'_>,
        wanted: &Wanted<'_>,
        operators: &[&Identity],
    ) -> Result<(), ServiceError> {
        check_reason(wanted.reason)?;
        self.object_key(turn, wanted, operators).map(drop)
    }

    /// Hands it out. The record is durable, and under a checkpoint, before this returns; with it the proposal ends.
    pub(super) fn disclose(
        &self,
        turn: &Turn<'_>,
        row: &ProposalRow,
        wanted: &Wanted<'_>,
        record: &Record,
    ) -> Result<Collected, ServiceError> {
        let approver = row.approver.as_ref().ok_or(ServiceError::Damaged("proposal"))?;
        let operators = [&row.proposer.identity, &approver.identity];
        let Opened { epoch, binding, object_id, dek } = self.object_key(turn, wanted, &operators)?;
        let mut released = record.same_request("disclose", Outcome::Released);
        released.keyset = Some(epoch.keyset.name.clone());
        released.epoch_id = Some(epoch.header.epoch_id.into());
        released.object_id = Some(object_id.into());
        released.bucket = Some(binding.bucket.clone());
        released.bucket_id = Some(binding.bucket_id.clone());
        released.key = Some(wanted.key.to_owned());
        released.name_verified = Some(true);
        released.subject = Some(approver.identity.to_string());
        released.proposal = Some(row.id.clone());
        released.what = Some(wanted.reason.to_owned());
        self.commit(turn, vec![row.delete()], &[record.clone(), released])?;
        turn.vault.proposals().remove(&row.id);
        Ok(Collected::ObjectKey(ObjectKey {
            bucket: binding.bucket,
            bucket_id: binding.bucket_id,
            key: wanted.key.to_owned(),
            keyset_id: epoch.keyset.public_id(),
            epoch_id: epoch.header.epoch_id.into(),
            epoch_created_ms: epoch.header.created_ms,
            sealer_id: epoch.header.gateway_id.into(),
            object_id: object_id.into(),
            dek: DekBytes::new(dek.expose()),
            proposal: row.id.clone(),
            disclosed_ms: record.time_ms(),
        }))
    }

    /// Which object version is meant, for the one who is to approve: by what the service knows, and by what the proposer says.
    pub(super) fn disclosed_version(&self, vault: &Vault, action: &Action) -> Vec<String> {
        let Action::Disclose { header, version, .. } = action else { return Vec::new() };
        let Ok(header) = UnitHeader::parse(header.as_bytes()) else { return Vec::new() };
        let epoch = self.registered_epoch(vault, &Id16::from(header.context.epoch_id).0);
        let sealed = match epoch.ok().flatten() {
            Some(row) => format!(
                "sealed in an epoch that was registered {} and began {} by its gateway's clock: not before. It may be an hour after it, of \
                 an upload in parts up to a week; a copy within the store can be made years later, in the epoch of its source",
                moment(row.first_seen_ms),
                moment(row.created_ms)
            ),
            None => "when it was sealed can't be told now: its epoch can't be read".to_owned(),
        };
        let said = match version {
            Some(version) => format!("said to be the version {version} at the store"),
            None => "said to be the newest version at the store".to_owned(),
        };
        vec![
            sealed,
            format!(
                "{said}; the service can't know that, and a store can show an older one: compare with when it was sealed"
            ),
        ]
    }

    /// The key, if nothing stands against it: the brakes, the quarantine, the end of a version, another name.
    fn object_key(
        &self,
        turn: &Turn<'_>,
        wanted: &Wanted<'_>,
        operators: &[&Identity],
    ) -> Result<Opened, ServiceError> {
        let vault = &turn.vault;
        let binding = vault.bindings.get(wanted.bucket).ok_or(KeyServiceError::UnknownBucket)?;
        let keyset =
            vault.keyset_by_id(binding.keyset_id).ok_or_else(|| unknown("there is no such keyset"))?;
        let brake = |operator: &&Identity| vault.freezes.stops(operator, Some(&keyset.name));
        if let Some(text) = operators.iter().find_map(brake) {
            return Err(KeyServiceError::Frozen { text }.into());
        }
        let name = checked_name(&binding.bucket_id, wanted.key).map_err(|refusal| told(refusal.into()))?;
        let header = UnitHeader::parse(wanted.header.as_bytes())
            .map_err(|_| malformed("the envelope's header is not one of this format"))?;
        let (epoch_id, object_id) = (header.context.epoch_id, header.context.object_id);
        let epoch = RegisteredEpochs { core: self, vault }.open(epoch_id).map_err(told)?;
        if epoch.keyset.public_id() != binding.keyset_id {
            return Err(told(ReleaseError::KeysetMismatch.into()));
        }
        if vault.quarantine.holds(&epoch.registered()) {
            return Err(told(ReleaseError::EpochQuarantined.into()));
        }
        let dek = epoch.wek.dek(epoch_id, object_id);
        // docs/format.md §2.7: the name is verified by the envelope's own commitment; any other kind of header is refused.
        match envelope::verify_binding(wanted.header.as_bytes(), &dek, &name) {
            Ok(_) => Ok(Opened { epoch, binding, object_id, dek }),
            Err(FormatError::BindingMismatch) => Err(told(ReleaseError::BindingMismatch.into())),
            Err(_) => Err(malformed("the header is not one of a metadata envelope")),
        }
    }
}

/// What a line on somebody's screen can't have: ends of lines, and what turns the text around.
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// It stands on the other operator's screen.
pub(super) fn check_version(version: Option<&str>) -> Result<(), ServiceError> {
    let is_one = |version: &str| (1..=VERSION_LEN_MAX).contains(&version.len()) && !version.contains(is_odd);
    if version.is_none_or(is_one) {
        return Ok(());
    }
    Err(malformed("the id of a version is one line of at most 1024 bytes, as the store shows it"))
}

/// It stands in the log for ever, and on the other operator's screen.
fn check_reason(reason: &str) -> Result<(), ServiceError> {
    if reason.trim().is_empty() {
        return Err(malformed("say why, and to whom it goes: the other operator and the log are told"));
    }
    if reason.len() > REASON_LEN_MAX || reason.contains(is_odd) {
        return Err(malformed("the reason is one line of at most 500 bytes"));
    }
    Ok(())
}

/// The refusal of an item, as one of the whole call.
fn told(error: OpenError) -> ServiceError {
    let refusal = match error {
        OpenError::Failed(error) => return error,
        OpenError::Refused(refusal) => refusal,
    };
    match refusal {
        ReleaseError::Frozen { text } => KeyServiceError::Frozen { text }.into(),
        ReleaseError::Malformed { text } => KeyServiceError::Malformed { text }.into(),
        ReleaseError::UnknownEpoch => conflict(
            "the object's epoch is not registered; a gateway that looks at the object (HEAD) registers it",
        ),
        ReleaseError::BindingMismatch => conflict(
            "this envelope is not the one of an object of this name: it was sealed under another bucket or key, or is damaged",
        ),
        other => conflict(&other.to_string()),
    }
}

#[cfg(test)]
mod tests;
