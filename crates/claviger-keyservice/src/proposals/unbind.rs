//! Buckets that no gateway unbinds: a thief bound them, and he is revoked; or whose gateway is gone.
//!
//! Two operators, because it loses data: an id that is gone is never used again, so what lies in the bucket is not opened any more.

use claviger_keyapi::KeyServiceError;
use claviger_keyapi::admin::{BindingInfo, BindingList, BindingListRequest};
use claviger_keyapi::proposals::{BoundBucket, UNBIND_MAX};

use super::carry_out::Deed;
use super::{ProposalRow, conflict, malformed};
use crate::ServiceError;
use crate::audit_record::{Outcome, RequestInfo, bounded};
use crate::bindings::{BindingRow, ClosingRow};
use crate::ledger::Turn;
use crate::service::{Caller, Core};
use crate::store::{Change, Kind};
use crate::vault::Vault;

/// Bindings that are listed at once.
const LISTED_MAX: usize = 1_000;

/// The bindings that are meant, if they are still the ones.
pub(super) fn check_unbind(vault: &Vault, buckets: &[BoundBucket]) -> Result<Vec<BindingRow>, ServiceError> {
    if buckets.is_empty() || buckets.len() > UNBIND_MAX {
        return Err(malformed("1 to 200 buckets at once"));
    }
    let mut rows = Vec::with_capacity(buckets.len());
    for BoundBucket { bucket, bucket_id } in buckets {
        let row = vault.bindings.get(bucket).filter(|row| row.bucket_id == *bucket_id);
        rows.push(row.ok_or_else(|| conflict(&format!("bucket {bucket} is not bound under this id")))?);
    }
    rows.sort_by(|a, b| a.bucket.cmp(&b.bucket));
    rows.dedup_by(|a, b| a.bucket == b.bucket);
    Ok(rows)
}

/// What the end of these bindings means, for the one who is to approve.
pub(super) fn unbound(vault: &Vault, buckets: &[BoundBucket]) -> Vec<String> {
    let mut words: Vec<String> = buckets
        .iter()
        .map(|bound| match vault.bindings.get(&bound.bucket) {
            Some(row) if row.bucket_id == bound.bucket_id => {
                let keyset = vault.keyset_by_id(row.keyset_id);
                let keyset = keyset.map_or_else(String::new, |keyset| format!(", keyset {}", keyset.name));
                format!("bucket {}{keyset}", bound.bucket)
            }
            _ => format!("bucket {}, which is not bound under this id any more", bound.bucket),
        })
        .collect();
    words.push(
        "what lies there is not opened any more under this name, for good: a bucket that is bound again has another id".to_owned(),
    );
    words
}

impl Core {
    /// Ends the bindings. Their names stay closed for as long as after a gateway's unbinding.
    pub(super) fn unbind_by_operators(
        &self,
        turn: &Turn<'_>,
        info: &RequestInfo,
        row: &ProposalRow,
        buckets: &[BoundBucket],
    ) -> Result<Deed, ServiceError> {
        let rows = check_unbind(&turn.vault, buckets)?;
        let names: Vec<String> = rows.into_iter().map(|row| row.bucket).collect();
        let mut record = info.record("unbind", Outcome::Done);
        record.what = Some(bounded(&names.join(", ")));
        let mut changes = Vec::with_capacity(2 * names.len());
        for bucket in &names {
            let closing =
                ClosingRow { bucket: bucket.clone(), unbound_ms: info.now_ms, by: row.proposer.uid };
            changes.push(Change::Delete(Kind::Binding, bucket.clone()));
            changes.push(Change::Put(Kind::Closing, turn.vault.row(Kind::Closing, bucket, &closing)));
        }
        let after = Box::new(move |core: &Core, vault: &Vault| {
            let (gateways, now_boot_ms) = (vault.gateways(), core.clock.boot_ms());
            names.iter().for_each(|bucket| vault.bindings.unbind(bucket, &gateways, now_boot_ms));
        });
        Ok(Deed { changes, record, after })
    }

    /// Which buckets are bound, and since when.
    pub(crate) fn list_bindings(
        caller: &Caller,
        request: &BindingListRequest,
    ) -> Result<BindingList, ServiceError> {
        let vault = &caller.vault;
        let keyset_id = match &request.keyset {
            Some(name) => {
                let unknown = || KeyServiceError::Keyset { text: format!("there is no keyset \"{name}\"") };
                Some(vault.keyset(name).ok_or_else(unknown)?.public_id())
            }
            None => None,
        };
        let is_asked = |row: &BindingRow| {
            keyset_id.is_none_or(|id| id == row.keyset_id)
                && request.after.as_ref().is_none_or(|after| row.bucket > *after)
        };
        let mut rows = vault.bindings.all();
        rows.retain(is_asked);
        let more = rows.len() > LISTED_MAX;
        rows.truncate(LISTED_MAX);
        let info = |row: BindingRow| BindingInfo {
            keyset: vault.keyset_by_id(row.keyset_id).map(|keyset| keyset.name.clone()).unwrap_or_default(),
            bucket: row.bucket,
            bucket_id: row.bucket_id,
            created_ms: row.created_ms,
        };
        Ok(BindingList { bindings: rows.into_iter().map(info).collect(), more })
    }
}
