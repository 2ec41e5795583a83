//! Who is asking, and whether he may: decided before the body is read, and again when it is there.

use std::sync::Arc;

use claviger_keyapi::{KeyServiceError, Role};

use super::Client;
use super::routes::{OperatorRoute, Route};
use crate::audit_record::{Outcome, RequestInfo};
use crate::identity::Peer;
use crate::policy::AdminVerb;
use crate::service::{Age, Caller, Core, UNRECORDED};

/// What is known of the one who asks.
pub(super) enum Admitted {
    /// Enough for the routes that take no [`Caller`].
    Without,
    Caller(Caller),
}

/// Everything that can be decided without the body. Refusals go to the audit log, unless a stranger could make them.
pub(super) async fn admit(
    core: &Arc<Core>,
    client: &Client,
    route: Route,
    info: &RequestInfo,
) -> Result<Admitted, KeyServiceError> {
    let peer = client.peer.as_ref();
    match route {
        Route::Enrol | Route::Recover => Ok(Admitted::Without),
        Route::Status if peer.is_none() => {
            Err(KeyServiceError::Unauthenticated { text: "no client certificate".to_owned() })
        }
        Route::Status => Ok(Admitted::Without),
        Route::Checkpoint => {
            enrolled(core, peer, info).await?;
            Ok(Admitted::Without)
        }
        Route::Renew => {
            let role = peer.map_or(Role::Gateway, |peer| peer.identity.role());
            Ok(Admitted::Caller(authenticated(core, peer, role, info).await?))
        }
        Route::Gateway(_) | Route::Watch => {
            Ok(Admitted::Caller(authenticated(core, peer, Role::Gateway, info).await?))
        }
        Route::Operator(OperatorRoute::Lock, Some(verb)) if core.stands_by() => {
            let identity = known(core, peer, (Role::Admin, Age::Any), info).await?;
            permit(core, &identity, verb, info).await?;
            Ok(Admitted::Without)
        }
        Route::Operator(_, verb) => {
            let caller = authenticated(core, peer, Role::Admin, info).await?;
            if let Some(verb) = verb {
                permit(core, &caller.row.identity, verb, info).await?;
            }
            Ok(Admitted::Caller(caller))
        }
        Route::Unlock(_) | Route::OperatorStatus => {
            let (verb, age) = match route {
                Route::OperatorStatus => (AdminVerb::Inspect, Age::Any),
                _ => (AdminVerb::Unlock, Age::Now),
            };
            let identity = known(core, peer, (Role::Admin, age), info).await?;
            permit(core, &identity, verb, info).await?;
            Ok(Admitted::Without)
        }
    }
}

/// Checks the caller; a refusal of one whose certificate is ours goes to the audit log.
async fn authenticated(
    core: &Core,
    peer: Option<&Peer>,
    role: Role,
    info: &RequestInfo,
) -> Result<Caller, KeyServiceError> {
    match core.caller(peer, role, info.clone()) {
        Ok(caller) => Ok(caller),
        Err(refusal) => Err(log_refusal(core, peer, info, refusal).await?),
    }
}

async fn enrolled(core: &Arc<Core>, peer: Option<&Peer>, info: &RequestInfo) -> Result<(), KeyServiceError> {
    let role = peer.map_or(Role::Gateway, |peer| peer.identity.role());
    known(core, peer, (role, Age::Now), info).await.map(drop)
}

/// Someone who is enrolled, as far as that is known while the service is locked.
async fn known(
    core: &Arc<Core>,
    peer: Option<&Peer>,
    (role, age): (Role, Age),
    info: &RequestInfo,
) -> Result<claviger_keyapi::Identity, KeyServiceError> {
    if core.vault().is_ok() {
        return Ok(authenticated(core, peer, role, info).await?.row.identity.clone());
    }
    match core.enrolled_of_locked(peer, role, info.now_ms, age).await {
        Ok(identity) => Ok(identity),
        Err(refusal) => Err(log_refusal(core, peer, info, refusal).await?),
    }
}

/// Whether policy gives the operator this verb; a refusal goes to the audit log.
async fn permit(
    core: &Core,
    identity: &claviger_keyapi::Identity,
    verb: AdminVerb,
    info: &RequestInfo,
) -> Result<(), KeyServiceError> {
    let Err(refusal) = core.permit_operator(identity, verb) else { return Ok(()) };
    let record = info.record("authorise", Outcome::Refused).refused_call(&refusal);
    if let Some(record) = core.unless_too_many(record) {
        core.audit.append(vec![record.to_bytes()]).await.map_err(|error| error.outward())?;
    }
    Err(refusal)
}

/// Writes down that someone with a certificate of ours was turned away, if that was because of him. Strangers without one fill no
/// log.
async fn log_refusal(
    core: &Core,
    peer: Option<&Peer>,
    info: &RequestInfo,
    refusal: KeyServiceError,
) -> Result<KeyServiceError, KeyServiceError> {
    let is_his = matches!(refusal, KeyServiceError::Unauthenticated { .. } | KeyServiceError::Denied { .. });
    if let Some(peer) = peer
        && is_his
        && let Some(before) = core.refusals.to_record(&peer.identity, info.now_ms)
    {
        let mut record = info.record("authenticate", Outcome::Refused).refused_call(&refusal);
        record.add_unrecorded(before, UNRECORDED);
        core.audit.append(vec![record.to_bytes()]).await.map_err(|error| error.outward())?;
    }
    Ok(refusal)
}
