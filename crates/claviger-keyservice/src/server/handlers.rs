//! What each route does with its body. The handlers take the proof of who asks ([`Caller`]), so one without authentication
//! can't be written by accident.

use std::ops::Deref;
use std::sync::Arc;

use claviger_keyapi::proposals::ProposalRequest;
use claviger_keyapi::routes::{
    self, ContinueAnswer, ContinueRequest, DeriveAnswer, DeriveRequest, Empty, FinishAnswer, FinishRequest,
    LeaseAnswer, LeaseRequest,
};
use claviger_keyapi::{BATCH_ITEMS_MAX, Identity, KeyServiceError, admin};
use serde::Serialize;

use super::admit::Admitted;
use super::routes::{AnswerRoom, GatewayRoute, OperatorRoute, Route, UnlockRoute};
use super::{Body, Client, Sent, encode, parse};
use crate::ServiceError;
use crate::admission::{Part, Use};
use crate::audit_record::RequestInfo;
use crate::service::{Addressee, Caller, Core, Work};

/// The service, asked by somebody: his share of its turns and of its memory is what the work takes.
pub(crate) struct Asked {
    core: Arc<Core>,
    by: Option<Identity>,
    /// His connection.
    used: Option<Arc<Use>>,
    /// What his body takes up.
    body: Option<Part>,
    answer: Room,
}

/// The room for an answer.
enum Room {
    NotNeeded,
    Taken(Part),
    Later,
}

impl Asked {
    /// `None` is a stranger.
    pub(crate) fn by(core: Arc<Core>, by: Option<Identity>) -> Self {
        Self { core, by, used: None, body: None, answer: Room::Later }
    }

    /// Over a connection that has to know when what was asked is begun.
    pub(super) fn over(mut self, used: Arc<Use>) -> Self {
        self.used = Some(used);
        self
    }

    /// With the room of his body, and with that of the answer if it is taken before anything is done.
    ///
    /// # Errors
    /// `unavailable` (`busy`): there is none, and nothing was done.
    pub(super) async fn with_room(mut self, wanted: AnswerRoom, body: Part) -> Result<Self, KeyServiceError> {
        self.body = Some(body);
        self.answer = match wanted {
            AnswerRoom::Urgent => Room::NotNeeded,
            AnswerRoom::Before(len) => Room::Taken(self.core.admission.body(self.by.as_ref(), len).await?),
            AnswerRoom::After => Room::Later,
        };
        Ok(self)
    }

    /// The answer, with its room. May take a second: what depends on the moment is asked after it.
    async fn send<T: Serialize>(self, answer: &T) -> Result<Sent, KeyServiceError> {
        let Self { core, by, body: read, answer: room, .. } = self;
        drop(read);
        let body = encode(answer)?;
        let room = match room {
            Room::NotNeeded => None,
            Room::Taken(mut room) => {
                room.keep(body.len());
                Some(room)
            }
            Room::Later => Some(core.admission.body(by.as_ref(), body.len()).await?),
        };
        Ok(Sent { body, _room: room })
    }
}

impl Deref for Asked {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

pub(super) async fn handle(
    core: Asked,
    client: &Client,
    info: RequestInfo,
    route: Route,
    admitted: Admitted,
    body: Body,
) -> Result<Sent, KeyServiceError> {
    match (route, admitted) {
        (Route::Enrol, _) => {
            let (source, request) = (client.source, parse(&body)?);
            blocking(core, move |core| core.enrol(&info, source, &request)).await
        }
        (Route::Recover, _) => {
            let (source, request) = (client.source, parse(&body)?);
            blocking(core, move |core| core.recover(&info, source, &request)).await
        }
        (Route::Status, _) => {
            let status = core.status();
            core.send(&status).await
        }
        (Route::Checkpoint, _) => {
            let request = parse(&body)?;
            blocking(core, move |core| core.show_checkpoint(&info, &request)).await
        }
        (Route::Unlock(UnlockRoute::AcceptRollback), _) => {
            parse::<Empty>(&body)?;
            let peer = client.peer.clone();
            blocking(core, move |core| core.accept_rollback(&info, peer.as_ref())).await
        }
        (Route::Unlock(route), _) => unlock(core, info, route, body).await,
        // Of a standby, which can't check rows; it wipes the master, and no more.
        (Route::Operator(OperatorRoute::Lock, _), Admitted::Without) => {
            always(core, move |core| core.lock_by_operator(&info)).await
        }
        (Route::OperatorStatus, _) => always(core, Core::operator_status).await,
        (Route::Renew, Admitted::Caller(caller)) => {
            let request = parse(&body)?;
            blocking(core, move |core| core.renew(&caller, &request)).await
        }
        (Route::Gateway(route), Admitted::Caller(caller)) => {
            let service = Arc::clone(&core.core);
            let answer = gateway(core, caller, route, body).await?;
            // Again: what was prepared, or room for it, may have taken longer than this one may speak for the service.
            service.check_serves()?;
            Ok(answer)
        }
        (Route::Operator(route, _), Admitted::Caller(caller)) => operator(core, caller, route, body).await,
        // The stream is begun by who knows the connection; the other routes were let in with a caller.
        (Route::Watch, _) | (_, Admitted::Without) => Err(KeyServiceError::Internal),
    }
}

async fn unlock(
    core: Asked,
    info: RequestInfo,
    route: UnlockRoute,
    body: Body,
) -> Result<Sent, KeyServiceError> {
    match route {
        UnlockRoute::Passphrase => {
            let request: admin::UnlockRequest = parse(&body)?;
            blocking(core, move |core| core.unlock_by_operator(&info, &request)).await
        }
        UnlockRoute::Share => {
            let request: admin::UnlockShareRequest = parse(&body)?;
            blocking(core, move |core| core.unlock_by_share(&info, &request)).await
        }
        // Needs to know the connection: taken before.
        UnlockRoute::AcceptRollback => Err(KeyServiceError::Internal),
        UnlockRoute::Hsm => {
            parse::<Empty>(&body)?;
            let run = move |core: &Core| {
                Work::silent(core.unlock_by_hsm(&info).and_then(|()| core.operator_status()))
            };
            blocking(core, run).await
        }
    }
}

pub(crate) async fn gateway(
    core: Asked,
    caller: Caller,
    route: GatewayRoute,
    body: Body,
) -> Result<Sent, KeyServiceError> {
    use GatewayRoute as G;
    match route {
        G::Session => {
            parse::<Empty>(&body)?;
            releasing(core, caller, Core::session).await
        }
        G::Binding => {
            let request: routes::BindingRequest = parse(&body)?;
            let binding = core.binding(&caller, &request.bucket);
            core.send(&binding).await
        }
        G::Bindings => {
            parse::<Empty>(&body)?;
            // There may be thousands.
            blocking(core, move |core| Work::silent(Ok(core.bindings(&caller)))).await
        }
        G::Bind => {
            let request = parse(&body)?;
            blocking(core, move |core| core.bind(&caller, &request)).await
        }
        G::Unbind => {
            let request: routes::UnbindRequest = parse(&body)?;
            blocking(core, move |core| empty(core.unbind(&caller, &request.bucket, &request.bucket_id))).await
        }
        G::Register => {
            let request: routes::RegisterRequest = parse(&body)?;
            blocking(core, move |core| empty(core.register(&caller, &request.record.0))).await
        }
        G::Epoch => {
            let request: routes::EpochRequest = parse(&body)?;
            blocking(core, move |core| Work::silent(core.epoch_record(&caller, request.epoch_id))).await
        }
        G::LogHead => {
            let request: routes::ConsistencyRequest = parse(&body)?;
            blocking(core, move |core| Work::silent(core.log_head(&caller, request.from))).await
        }
        G::Lease | G::Derive | G::Continue | G::Finish => keys(core, caller, route, body).await,
    }
}

/// The routes that release keys, or end an upload.
async fn keys(core: Asked, caller: Caller, route: GatewayRoute, body: Body) -> Result<Sent, KeyServiceError> {
    match route {
        GatewayRoute::Lease => {
            let items = batch(parse::<LeaseRequest>(&body)?.items)?;
            let run = |core: &Core, caller: &Caller| {
                core.with_release(caller, "lease", |r| Ok(LeaseAnswer { results: r.lease(items)? }))
            };
            releasing(core, caller, run).await
        }
        GatewayRoute::Derive => {
            let items = batch(parse::<DeriveRequest>(&body)?.items)?;
            let run = |core: &Core, caller: &Caller| {
                core.with_release(caller, "derive", |r| Ok(DeriveAnswer { results: r.derive(items)? }))
            };
            releasing(core, caller, run).await
        }
        GatewayRoute::Continue => {
            let items = batch(parse::<ContinueRequest>(&body)?.items)?;
            let run = |core: &Core, caller: &Caller| {
                core.with_release(caller, "continue", |r| {
                    Ok(ContinueAnswer { results: r.continue_upload(items)? })
                })
            };
            releasing(core, caller, run).await
        }
        _ => {
            let items = batch(parse::<FinishRequest>(&body)?.items)?;
            let run = move |core: &Core| {
                core.with_release(&caller, "finish-upload", |r| {
                    Ok(FinishAnswer { results: r.finish(items)? })
                })
            };
            blocking(core, run).await
        }
    }
}

pub(crate) async fn operator(
    core: Asked,
    caller: Caller,
    route: OperatorRoute,
    body: Body,
) -> Result<Sent, KeyServiceError> {
    use OperatorRoute as O;
    match route {
        O::Lock => always(core, move |core| core.lock_by_operator(&caller.info)).await,
        O::KeysetCreate => {
            let request = parse(&body)?;
            handing_out(core, caller, move |core, caller| core.create_keyset(caller, &request)).await
        }
        O::KeysetConfirm => {
            let request = parse(&body)?;
            blocking(core, move |core| core.confirm_keyset(&caller, &request)).await
        }
        O::Reseal => {
            let request = parse(&body)?;
            blocking(core, move |core| core.reseal(&caller, &request)).await
        }
        O::ShredPlan => {
            let request = parse(&body)?;
            blocking(core, move |core| Work::silent(core.shred_plan(&caller, &request))).await
        }
        O::ShredCancel => {
            let request = parse(&body)?;
            blocking(core, move |core| core.cancel_destruction(&caller, &request)).await
        }
        O::ShredCertificate => {
            let request = parse(&body)?;
            blocking(core, move |_| Work::silent(Core::certificate(&caller, &request))).await
        }
        O::KeysetRetire => {
            let request = parse(&body)?;
            blocking(core, move |core| core.retire_keyset(&caller, &request)).await
        }
        O::KeysetList => {
            let keysets = core.list_keysets(&caller);
            core.send(&keysets).await
        }
        O::Propose | O::Approve | O::Collect | O::Confirm | O::Withdraw | O::ProposalList => {
            four_eyes(core, caller, route, body).await
        }
        O::Freeze => {
            let request = parse(&body)?;
            blocking(core, move |core| empty(core.freeze(&caller, request))).await
        }
        O::Revoke => {
            let request: admin::RevokeRequest = parse(&body)?;
            blocking(core, move |core| core.revoke_since(&caller, &request)).await
        }
        O::IdentityList => core.send(&Core::list_identities(&caller)).await,
        O::EpochList => {
            let request = parse(&body)?;
            blocking(core, move |core| Work::silent(core.list_epochs(&caller, &request))).await
        }
        O::QuarantineList => blocking(core, move |core| Work::silent(core.list_quarantine(&caller))).await,
        O::BindingList => {
            let request = parse(&body)?;
            blocking(core, move |_| Work::silent(Core::list_bindings(&caller, &request))).await
        }
        O::PolicyShow => blocking(core, move |_| Work::silent(Core::show_policy(&caller))).await,
        O::ReplicaList => {
            let replicas = core.list_replicas(&caller);
            core.send(&replicas).await
        }
        O::BudgetList => {
            let budgets = core.list_budgets(&caller);
            core.send(&budgets).await
        }
        O::AuditTail => {
            let request = parse(&body)?;
            blocking(core, move |core| Work::silent(core.audit_tail(&request))).await
        }
        O::BackupBegin => {
            parse::<Empty>(&body)?;
            blocking(core, move |core| core.begin_backup(&caller)).await
        }
        O::BackupRead => {
            let request = parse(&body)?;
            blocking(core, move |core| Work::silent(core.read_backup(&request))).await
        }
    }
}

/// What takes two operators.
async fn four_eyes(
    core: Asked,
    caller: Caller,
    route: OperatorRoute,
    body: Body,
) -> Result<Sent, KeyServiceError> {
    use OperatorRoute as O;
    if route == O::Propose {
        let request = parse(&body)?;
        return blocking(core, move |core| core.propose(&caller, request)).await;
    }
    if route == O::Confirm {
        let request = parse(&body)?;
        return blocking(core, move |core| empty(core.confirm(&caller, &request))).await;
    }
    if route == O::ProposalList {
        let proposals = core.list_proposals(&caller);
        return core.send(&proposals).await;
    }
    let ProposalRequest { id } = parse(&body)?;
    match route {
        O::Approve => blocking(core, move |core| core.approve(&caller, &id)).await,
        O::Collect => handing_out(core, caller, move |core, caller| core.collect(caller, &id)).await,
        _ => blocking(core, move |core| empty(core.withdraw(&caller, &id))).await,
    }
}

fn empty(work: Work<()>) -> Work<Empty> {
    work.map(|()| Empty {})
}

fn batch<T>(items: Vec<T>) -> Result<Vec<T>, KeyServiceError> {
    let max = u32::try_from(BATCH_ITEMS_MAX).unwrap_or(u32::MAX);
    if items.len() > BATCH_ITEMS_MAX { Err(KeyServiceError::TooManyItems { max }) } else { Ok(items) }
}

/// Runs what blocks (database, cryptography) off the runtime, then waits for the audit log, then encodes the answer.
async fn blocking<T: Serialize + Send + 'static>(
    core: Asked,
    run: impl FnOnce(&Core) -> Work<T> + Send + 'static,
) -> Result<Sent, KeyServiceError> {
    let answer = settled(&core, run).await?;
    core.send(&answer).await
}

/// The same for answers that carry keys: they go out only if the service is still unlocked, the caller unrevoked and nothing of
/// it frozen. That is asked last, when nothing is left to wait for.
async fn releasing<T: Serialize + Send + 'static>(
    core: Asked,
    caller: Caller,
    run: impl FnOnce(&Core, &Caller) -> Work<T> + Send + 'static,
) -> Result<Sent, KeyServiceError> {
    if_still(core, caller, run, Core::may_have).await
}

/// The same for what is handed out once, to an operator: it was used up when it was committed, and nobody could ask for it again. So
/// it is refused only to whom nothing is told any more: while the service is locked, or to one who was revoked.
async fn handing_out<T: Serialize + Send + 'static>(
    core: Asked,
    caller: Caller,
    run: impl FnOnce(&Core, &Caller) -> Work<T> + Send + 'static,
) -> Result<Sent, KeyServiceError> {
    if_still(core, caller, run, |core, addressee| core.still_counts(addressee).map(drop)).await
}

/// The same with this as the last question. There may have been no room for a while, and whoever asks decides for how long.
async fn if_still<T: Serialize + Send + 'static>(
    core: Asked,
    caller: Caller,
    run: impl FnOnce(&Core, &Caller) -> Work<T> + Send + 'static,
    check: fn(&Core, &Addressee) -> Result<(), KeyServiceError>,
) -> Result<Sent, KeyServiceError> {
    let addressee = caller.addressee();
    let answer = settled(&core, move |core| run(core, &caller)).await?;
    // Only what is released to a gateway can have tripped its budget.
    if core.has_tripped(&addressee) {
        freeze_tripped(&core).await;
    }
    let service = Arc::clone(&core.core);
    let sent = core.send(&answer).await?;
    check(&service, &addressee)?;
    Ok(sent)
}

/// Freezes whoever has used up a budget with this answer: he still gets it, and it is the last. Others don't wait for that.
async fn freeze_tripped(core: &Asked) {
    let worker = Arc::clone(&core.core);
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || worker.freeze_tripped()).await {
        tracing::error!(%error, "a gateway that has used up its budget is stopped, but not frozen yet");
    }
}

async fn settled<T: Send + 'static>(
    core: &Asked,
    run: impl FnOnce(&Core) -> Work<T> + Send + 'static,
) -> Result<T, KeyServiceError> {
    // What can't be written down is not even begun.
    core.check_audit()?;
    let turn = core.admission.turn(core.by.as_ref()).await?;
    if core.used.as_ref().is_some_and(|used| !used.may_begin()) {
        // Nobody would hear of it.
        return Err(crate::admission::busy());
    }
    let worker = Arc::clone(&core.core);
    let run = move || {
        let _turn = turn;
        worker.covered(run(&worker))
    };
    let work = tokio::task::spawn_blocking(run).await.map_err(|_| KeyServiceError::Internal)?;
    core.settle(work).await
}

/// What has to work however busy the service is, and when its audit log has failed: the status and the brake. There are turns for
/// nothing else, a part of them for each operator.
async fn always<T: Serialize + Send + 'static>(
    core: Asked,
    run: impl FnOnce(&Core) -> Result<T, ServiceError> + Send + 'static,
) -> Result<Sent, KeyServiceError> {
    let turn = core.admission.urgent_turn(core.by.as_ref()).await?;
    let worker = Arc::clone(&core.core);
    let run = move || {
        let _turn = turn;
        run(&worker)
    };
    let done = tokio::task::spawn_blocking(run).await.map_err(|_| KeyServiceError::Internal)?;
    core.send(&done.map_err(|error| crate::service::tell(&error))?).await
}
