//! What operators ask: here the state of the service and what it lists, in the modules below what they change.

pub(crate) mod keysets;
mod policy;

use std::sync::Arc;

use claviger_keyapi::admin::{
    AdminStatus, AuditTail, AuditTailRequest, EpochInfo, EpochList, EpochListRequest, FreezeInfo,
    IdentityInfo, IdentityList, UnlockRequest,
};
use claviger_keyapi::{Id16, Role};

use crate::ServiceError;
use crate::audit_record::RequestInfo;
use crate::service::{Caller, Core, Work};
use crate::store::EpochRow;

const PAGE_MAX: u32 = 1000;

impl Core {
    pub(crate) fn unlock_by_operator(
        &self,
        info: &RequestInfo,
        request: &UnlockRequest,
    ) -> Work<AdminStatus> {
        // Unlocking writes its own record, before anything can use what it opened.
        Work::silent(self.unlock(request.passphrase.expose(), info).and_then(|()| self.operator_status()))
    }

    pub(crate) fn lock_by_operator(&self, info: &RequestInfo) -> Result<AdminStatus, ServiceError> {
        self.lock(info)?;
        self.operator_status()
    }

    pub(crate) fn operator_status(&self) -> Result<AdminStatus, ServiceError> {
        let (state, problems) = self.health();
        let vault = self.vault().ok();
        let is_gateway = |row: &Arc<crate::vault::IdentityRow>| {
            row.identity.role() == Role::Gateway && row.revoked_ms.is_none()
        };
        Ok(AdminStatus {
            state,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.clock.now_ms(),
            audit_records: self.audit.records(),
            audit_key: self.audit.verifier().map(|key| key.to_string()),
            audit_checkpoint: self.audit.checkpoint().map(|signed| signed.note().to_string()),
            problems,
            notes: self.notes(),
            unlock: self.unlock_state(),
            policy_sha256: self.policy.load().sha256().to_owned(),
            epochs: self.epochs_known(),
            gateways: vault
                .as_ref()
                .map_or(0, |v| v.identities().iter().filter(|row| is_gateway(row)).count() as u64),
            bindings: vault.as_ref().map_or(0, |v| v.bindings.all().len() as u64),
            frozen: vault
                .as_ref()
                .map_or_else(Vec::new, |v| v.freezes.all().into_iter().map(freeze_info).collect()),
            proposals: vault.as_ref().map_or(0, |v| v.proposals().len() as u64),
            quarantined: vault.as_ref().map_or(0, |v| v.quarantine.count()),
        })
    }

    pub(crate) fn list_identities(caller: &Caller) -> IdentityList {
        let mut identities: Vec<IdentityInfo> = caller
            .vault
            .identities()
            .iter()
            .map(|row| IdentityInfo {
                identity: row.identity.clone(),
                gateway_id: if row.identity.role() == Role::Gateway { row.uid } else { Id16([0; 16]) },
                keysets: row.keysets.clone(),
                enrolled_ms: row.enrolled_ms,
                certificate_until_ms: row.certificate_until_ms,
                revoked_ms: row.revoked_ms,
            })
            .collect();
        identities.sort_by(|a, b| (&a.identity, a.enrolled_ms).cmp(&(&b.identity, b.enrolled_ms)));
        IdentityList { identities }
    }

    pub(crate) fn list_epochs(
        &self,
        caller: &Caller,
        request: &EpochListRequest,
    ) -> Result<EpochList, ServiceError> {
        let limit = request.limit.clamp(1, PAGE_MAX) as usize;
        let (mut epochs, mut after) = (Vec::new(), request.after.map(|id| id.0));
        // Only from all of them can be told that none is missing.
        loop {
            let rows = self.registered_epochs(&caller.vault, after, PAGE_MAX)?;
            let is_asked = |row: &&EpochRow| request.gateway_id.is_none_or(|id| id.0 == row.gateway_id);
            epochs.extend(rows.iter().filter(is_asked).map(epoch_info));
            let last = rows.last().filter(|_| rows.len() == PAGE_MAX as usize);
            match last {
                Some(last) if epochs.len() <= limit => after = Some(last.epoch_id),
                _ => break,
            }
        }
        let more = epochs.len() > limit;
        epochs.truncate(limit);
        Ok(EpochList { epochs, more })
    }

    pub(crate) fn audit_tail(&self, request: &AuditTailRequest) -> Result<AuditTail, ServiceError> {
        let count = usize::try_from(request.count.clamp(1, PAGE_MAX)).unwrap_or(1);
        Ok(AuditTail { lines: self.audit.tail(count)? })
    }
}

fn freeze_info(row: crate::freeze::FreezeRow) -> FreezeInfo {
    FreezeInfo { target: row.target, frozen_ms: row.frozen_ms, by: row.by, reason: row.reason }
}

fn epoch_info(row: &EpochRow) -> EpochInfo {
    EpochInfo {
        epoch_id: Id16(row.epoch_id),
        gateway_id: Id16(row.gateway_id),
        keyset_id: Id16(row.keyset_id),
        created_ms: row.created_ms,
        first_seen_ms: row.first_seen_ms,
        wek_commit: row.wek_commit.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
