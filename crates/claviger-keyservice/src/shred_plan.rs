//! What the destruction of a version would take with it: from the registry which epochs, from the audit log who used them lately,
//! and who may not have heard that it is retired. The audit log is this replica's: whose log may tell more is named.
//!
//! The service knows no objects: which buckets hold something of these epochs it knows only where single keys were asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use claviger_keyapi::lifecycle::{GatewayEpochs, ShredPlan, ShredPlanRequest, ShredUse, UnheardGateway};
use claviger_keyapi::{Id16, KeyServiceError, Role};
use serde::Deserialize;

use crate::ServiceError;
use crate::audit_log::OwnLines;
use crate::leases::{Leases, Wanted};
use crate::service::{Caller, Core};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Most entries of each list of an answer.
const ENTRIES_MAX: usize = 1000;

impl Core {
    /// Reads the registry, and the log as far back as asked.
    pub(crate) fn shred_plan(
        &self,
        caller: &Caller,
        request: &ShredPlanRequest,
    ) -> Result<ShredPlan, ServiceError> {
        let unknown = |text: &str| KeyServiceError::Keyset { text: text.to_owned() };
        let keyset =
            caller.vault.keyset(&request.keyset).ok_or_else(|| unknown("there is no such keyset"))?;
        let version =
            keyset.version(request.version).ok_or_else(|| unknown("the keyset has no such version"))?;
        let mut lost = HashSet::new();
        let mut sealers: HashMap<Id16, u64> = HashMap::new();
        let epochs = self.epochs_of(&caller.vault, &keyset, request.version, |row| {
            lost.insert(Id16(row.epoch_id));
            *sealers.entry(Id16(row.gateway_id)).or_default() += 1;
        })?;
        let since_ms = caller.info.now_ms.saturating_sub(u64::from(request.days).saturating_mul(DAY_MS));
        let log = self.own_lines(&caller.vault)?;
        let Told { used, sessions } = read_log(&log, &lost, since_ms)?;
        let mut leases = Leases::default();
        leases.read_on(&log, &Wanted::new(None, &[], since_ms))?;
        let unread = self.coverage(&caller.vault, &mut leases, &[], since_ms)?.unread;
        let mut gateways: Vec<GatewayEpochs> = sealers
            .into_iter()
            .map(|(gateway_id, lost)| {
                let identity = caller.vault.identity(gateway_id).map(|row| row.identity.clone());
                GatewayEpochs { gateway_id, identity, lost }
            })
            .collect();
        gateways.sort_by_key(|gateway| (u64::MAX - gateway.lost, gateway.gateway_id));
        gateways.truncate(ENTRIES_MAX);
        let bindings = caller.vault.bindings.all().into_iter();
        let buckets = bindings.filter(|row| row.keyset_id == keyset.public_id()).map(|row| row.bucket);
        Ok(ShredPlan {
            keyset: keyset.name.clone(),
            version: request.version,
            epochs,
            gateways,
            unheard: version
                .retired_ms
                .map_or_else(Vec::new, |retired_ms| unheard(caller, &keyset.name, &sessions, retired_ms)),
            used,
            unread,
            since_ms,
            buckets: buckets.take(ENTRIES_MAX).collect(),
        })
    }
}

/// The keyset's gateways whose last session is older than that.
fn unheard(
    caller: &Caller,
    keyset: &str,
    sessions: &HashMap<String, u64>,
    retired_ms: u64,
) -> Vec<UnheardGateway> {
    let rows = caller.vault.identities();
    let of_keyset = rows.iter().filter(|row| {
        row.revoked_ms.is_none()
            && row.identity.role() == Role::Gateway
            && row.keysets.iter().any(|name| name == keyset)
    });
    let last = of_keyset.map(|row| UnheardGateway {
        identity: row.identity.clone(),
        last_ms: sessions.get(&row.identity.to_string()).copied(),
    });
    last.filter(|gateway| gateway.last_ms.is_none_or(|last_ms| last_ms < retired_ms))
        .take(ENTRIES_MAX)
        .collect()
}

#[derive(Deserialize)]
struct Fields {
    time_ms: u64,
    action: String,
    outcome: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    epoch_id: Option<Id16>,
    #[serde(default)]
    bucket: Option<String>,
}

/// What the log tells.
struct Told {
    /// Who was given keys of these epochs since then, most first.
    used: Vec<ShredUse>,
    /// When each gateway was given its last session.
    sessions: HashMap<String, u64>,
}

/// Reads the whole log, since clocks go back too; what in it the service wrote itself.
fn read_log(log: &OwnLines, epochs: &HashSet<Id16>, since_ms: u64) -> Result<Told, ServiceError> {
    let mut sessions: HashMap<String, u64> = HashMap::new();
    let mut found: BTreeMap<(String, Option<String>), (u64, u64)> = BTreeMap::new();
    let mut take = |record: Fields| {
        if record.action == "session" {
            let last_ms = sessions.entry(record.identity.unwrap_or_default()).or_default();
            *last_ms = record.time_ms.max(*last_ms);
            return;
        }
        let of_these = record.epoch_id.is_some_and(|epoch_id| epochs.contains(&epoch_id));
        if record.time_ms < since_ms || !of_these {
            return;
        }
        let (releases, last_ms) =
            found.entry((record.identity.unwrap_or_default(), record.bucket)).or_default();
        *releases += 1;
        *last_ms = record.time_ms.max(*last_ms);
    };
    log.each_backward(|_, line| {
        let line = line.filter(|line| line.record.contains("\"released\""));
        let record = line.and_then(|line| serde_json::from_str::<Fields>(line.record).ok());
        record.filter(|record| record.outcome == "released").map(&mut take);
        Ok(ControlFlow::Continue(()))
    })?;
    let mut used: Vec<ShredUse> = found
        .into_iter()
        .map(|((identity, bucket), (releases, last_ms))| ShredUse { identity, bucket, releases, last_ms })
        .collect();
    used.sort_by_key(|used| u64::MAX - used.releases);
    used.truncate(ENTRIES_MAX);
    Ok(Told { used, sessions })
}
