//! HTTP/2 over mutual TLS. One table names every route with what it needs; the handlers take the proof (`Caller`), so a
//! route without authentication can't be written by accident.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claviger_keyapi::routes::{
    self, ContinueAnswer, ContinueRequest, DeriveAnswer, DeriveRequest, Empty, ErrorAnswer, FinishAnswer,
    FinishRequest, LeaseAnswer, LeaseRequest,
};
use claviger_keyapi::wiping::{self, WipingBuffer};
use claviger_keyapi::{BATCH_ITEMS_MAX, KeyServiceError, Role, UnavailableReason, admin};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::admission::{Room, StrangersPlace};
use crate::audit_record::{Outcome, RequestInfo};
use crate::identity::{Peer, peer};
use crate::policy::AdminVerb;
use crate::service::{Caller, Core, Work};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Life of a connection without a certificate.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the service looks whether it has something to write down by itself.
const TICK: Duration = Duration::from_secs(20);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
const STREAMS_MAX: u32 = 128;
const HEADERS_LEN_MAX: u32 = 16 << 10;
/// Requests without keys in them are short.
const SMALL_BODY_LEN_MAX: usize = 64 << 10;

/// What a route does and whom it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Anyone; the token in the body decides.
    Enrol,
    /// Anyone enrolled.
    Status,
    /// A gateway or an operator, unlocked.
    Renew,
    /// A gateway, unlocked.
    Gateway(GatewayRoute),
    /// An operator with this verb, unlocked.
    Operator(OperatorRoute, AdminVerb),
    /// An operator, also while locked.
    Unlock,
    /// An operator, also while locked.
    OperatorStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayRoute {
    Session,
    Binding,
    Bindings,
    Bind,
    Unbind,
    Register,
    Epoch,
    Lease,
    Derive,
    Continue,
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OperatorRoute {
    Lock,
    KeysetCreate,
    KeysetConfirm,
    KeysetList,
    EnrolToken,
    Revoke,
    IdentityList,
    EpochList,
    PolicyReload,
    AuditTail,
}

fn route(path: &str) -> Option<Route> {
    use GatewayRoute as G;
    use OperatorRoute as O;
    Some(match path {
        routes::ENROL => Route::Enrol,
        routes::STATUS => Route::Status,
        routes::RENEW => Route::Renew,
        routes::SESSION => Route::Gateway(G::Session),
        routes::BINDING => Route::Gateway(G::Binding),
        routes::BINDINGS => Route::Gateway(G::Bindings),
        routes::BIND => Route::Gateway(G::Bind),
        routes::UNBIND => Route::Gateway(G::Unbind),
        routes::REGISTER => Route::Gateway(G::Register),
        routes::EPOCH => Route::Gateway(G::Epoch),
        routes::LEASE => Route::Gateway(G::Lease),
        routes::DERIVE => Route::Gateway(G::Derive),
        routes::CONTINUE => Route::Gateway(G::Continue),
        routes::FINISH => Route::Gateway(G::Finish),
        admin::UNLOCK => Route::Unlock,
        admin::STATUS => Route::OperatorStatus,
        admin::LOCK => Route::Operator(O::Lock, AdminVerb::Unlock),
        admin::KEYSET_CREATE => Route::Operator(O::KeysetCreate, AdminVerb::Keyset),
        admin::KEYSET_CONFIRM => Route::Operator(O::KeysetConfirm, AdminVerb::Keyset),
        admin::KEYSET_LIST => Route::Operator(O::KeysetList, AdminVerb::Inspect),
        admin::ENROL_TOKEN => Route::Operator(O::EnrolToken, AdminVerb::Enrol),
        admin::REVOKE => Route::Operator(O::Revoke, AdminVerb::Enrol),
        admin::IDENTITY_LIST => Route::Operator(O::IdentityList, AdminVerb::Inspect),
        admin::EPOCH_LIST => Route::Operator(O::EpochList, AdminVerb::Inspect),
        admin::POLICY_RELOAD => Route::Operator(O::PolicyReload, AdminVerb::Policy),
        admin::AUDIT_TAIL => Route::Operator(O::AuditTail, AdminVerb::Inspect),
        _ => return None,
    })
}

impl Route {
    fn body_len_max(self) -> usize {
        use GatewayRoute as G;
        match self {
            Self::Gateway(G::Lease | G::Derive | G::Continue | G::Finish) => routes::REQUEST_LEN_MAX,
            _ => SMALL_BODY_LEN_MAX,
        }
    }
}

/// Accepts until `shutdown` is ready, then lets requests under way finish for a while. Returns when no connection is left.
pub(crate) async fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServiceError> {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = tick.tick() => {
                record_attempts(&core).await;
                continue;
            }
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors or a connection that vanished: waiting a little is all that helps.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match core.admission.stranger(address.ip()) {
            Some(place) => {
                let guest = Guest { place, source: address.ip() };
                connections.spawn(connection(Arc::clone(&core), stream, guest, graceful.watcher()));
            }
            None => count_refused(),
        }
    }
    let finish = async {
        graceful.shutdown().await;
        while connections.join_next().await.is_some() {}
    };
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, finish).await.is_err() {
        tracing::warn!("some connections did not finish in time");
    }
    Ok(())
}

fn count_refused() {
    metrics::counter!("claviger_keyservice_connections_refused_total").increment(1);
}

async fn record_attempts(core: &Core) {
    if let Some(record) = core.unrecorded_attempts()
        && let Err(error) = core.audit.append(vec![record.to_bytes()]).await
    {
        tracing::error!(%error, "failed attempts to enrol were not written down");
    }
}

/// Someone who connected and is a stranger until he shows a certificate.
struct Guest {
    place: StrangersPlace,
    source: IpAddr,
}

/// At the other end of a connection. The TLS layer has checked that the certificate is one of ours; whether it counts is
/// asked at every request.
struct Client {
    peer: Option<Peer>,
    source: IpAddr,
}

async fn connection(
    core: Arc<Core>,
    stream: TcpStream,
    guest: Guest,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // Best effort: without it small answers wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(config) = core.current_tls() else { return };
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            metrics::counter!("claviger_keyservice_handshakes_refused_total").increment(1);
            tracing::info!(%error, "handshake refused");
            return;
        }
        Err(_) => return,
    };
    let peer = tls.get_ref().1.peer_certificates().and_then(|chain| peer(chain.first()?));
    let is_stranger = peer.is_none();
    let client = Arc::new(Client { peer, source: guest.source });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(if is_stranger { 1 } else { STREAMS_MAX })
        .max_header_list_size(HEADERS_LEN_MAX)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let bounds = Arc::clone(&core);
    let service = service_fn(move |request| answer(Arc::clone(&core), Arc::clone(&client), request));
    let connection = watcher.watch(builder.serve_connection(TokioIo::new(tls), service));
    let ended = if is_stranger {
        // All that he can do is enrol.
        let _place = guest.place;
        tokio::time::timeout(STRANGER_TIMEOUT, connection).await.unwrap_or(Ok(()))
    } else {
        let Some(_place) = bounds.admission.enrolled() else { return count_refused() };
        drop(guest.place);
        connection.await
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

type Reply = Response<Full<Bytes>>;

async fn answer(
    core: Arc<Core>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Reply, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let info = match core.request_info(client.peer.as_ref().map(|peer| peer.identity.clone())) {
        Ok(info) => info,
        Err(_) => return Ok(error_reply(&KeyServiceError::Internal, "")),
    };
    let request_id = info.request_id.clone();
    let outcome = respond(core, client, info, request).await;
    let status = outcome.as_ref().err().map_or(200, KeyServiceError::status);
    let label = route(&path).map_or_else(|| "unknown".to_owned(), |_| path);
    metrics::counter!("claviger_keyservice_requests_total", "route" => label, "status" => status.to_string())
        .increment(1);
    Ok(match outcome {
        Ok(body) => json_reply(StatusCode::OK, body, &request_id),
        Err(error) => error_reply(&error, &request_id),
    })
}

/// A JSON body that is wiped once it was sent.
pub(crate) type Body = Zeroizing<Vec<u8>>;

/// Who is asking comes before what: strangers' bodies are not even read, except to enrol. It is asked again once the body is
/// there, however long that took, and only what was found then counts.
async fn respond(
    core: Arc<Core>,
    client: Arc<Client>,
    info: RequestInfo,
    request: Request<Incoming>,
) -> Result<Body, KeyServiceError> {
    let Some(route) = route(request.uri().path()) else {
        return Err(KeyServiceError::Malformed { text: "no such route".to_owned() });
    };
    if request.method() != Method::POST {
        return Err(KeyServiceError::Malformed { text: "every route is POST".to_owned() });
    }
    admit(&core, &client, route, &info).await?;
    let limit = Duration::from_secs(u64::from(core.config.limits.request_timeout_s));
    let (room, body) = tokio::time::timeout(limit, read_body(&core, &client, request, route))
        .await
        .map_err(|_| timed_out())??;
    // A task of its own: a client that hangs up can't stop work half way between the database and the audit log.
    let work = tokio::spawn(async move {
        let _room = room;
        let admitted = admit(&core, &client, route, &info).await?;
        handle(core, &client, info, route, admitted, body).await
    });
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(KeyServiceError::Internal),
        Err(_) => Err(timed_out()),
    }
}

fn timed_out() -> KeyServiceError {
    KeyServiceError::Unavailable { reason: UnavailableReason::Timeout, retry_after_ms: 1_000 }
}

/// What is known of the one who asks.
enum Admitted {
    /// Enough for the routes that take no [`Caller`].
    Without,
    Caller(Caller),
}

/// Everything that can be decided without the body. Refusals go to the audit log, unless a stranger could make them.
async fn admit(
    core: &Core,
    client: &Client,
    route: Route,
    info: &RequestInfo,
) -> Result<Admitted, KeyServiceError> {
    let peer = client.peer.as_ref();
    match route {
        Route::Enrol => Ok(Admitted::Without),
        Route::Status if peer.is_none() => {
            Err(KeyServiceError::Unauthenticated { text: "no client certificate".to_owned() })
        }
        Route::Status => Ok(Admitted::Without),
        Route::Renew => {
            let role = peer.map_or(Role::Gateway, |peer| peer.identity.role());
            Ok(Admitted::Caller(authenticated(core, peer, role, info).await?))
        }
        Route::Gateway(_) => Ok(Admitted::Caller(authenticated(core, peer, Role::Gateway, info).await?)),
        Route::Operator(_, verb) => {
            let caller = authenticated(core, peer, Role::Admin, info).await?;
            permit(core, &caller.row.identity, verb, info).await?;
            Ok(Admitted::Caller(caller))
        }
        Route::Unlock | Route::OperatorStatus => {
            let verb = if route == Route::Unlock { AdminVerb::Unlock } else { AdminVerb::Inspect };
            let identity = locked_operator(core, peer, info).await?;
            permit(core, &identity, verb, info).await?;
            Ok(Admitted::Without)
        }
    }
}

async fn handle(
    core: Arc<Core>,
    client: &Client,
    info: RequestInfo,
    route: Route,
    admitted: Admitted,
    body: Body,
) -> Result<Body, KeyServiceError> {
    match (route, admitted) {
        (Route::Enrol, _) => {
            let (source, request) = (client.source, parse(&body)?);
            blocking(core, move |core| core.enrol(&info, source, &request)).await
        }
        (Route::Status, _) => encode(&core.status()),
        (Route::Unlock, _) => {
            let request: admin::UnlockRequest = parse(&body)?;
            blocking(core, move |core| core.unlock_by_operator(&info, &request)).await
        }
        (Route::OperatorStatus, _) => always(core, Core::operator_status).await,
        (Route::Renew, Admitted::Caller(caller)) => {
            let request = parse(&body)?;
            blocking(core, move |core| core.renew(&caller, &request)).await
        }
        (Route::Gateway(route), Admitted::Caller(caller)) => gateway(core, caller, route, body).await,
        (Route::Operator(route, _), Admitted::Caller(caller)) => operator(core, caller, route, body).await,
        (_, Admitted::Without) => Err(KeyServiceError::Internal),
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

async fn locked_operator(
    core: &Core,
    peer: Option<&Peer>,
    info: &RequestInfo,
) -> Result<claviger_keyapi::Identity, KeyServiceError> {
    if core.vault().is_ok() {
        return Ok(authenticated(core, peer, Role::Admin, info).await?.row.identity.clone());
    }
    match core.operator_of_locked(peer, info.now_ms).map_err(|error| error.outward()) {
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
    core.audit.append(vec![record.to_bytes()]).await.map_err(|error| error.outward())?;
    Err(refusal)
}

/// Writes down that someone with a certificate of ours was turned away. Strangers without one fill no log.
async fn log_refusal(
    core: &Core,
    peer: Option<&Peer>,
    info: &RequestInfo,
    refusal: KeyServiceError,
) -> Result<KeyServiceError, KeyServiceError> {
    if peer.is_some() && refusal != KeyServiceError::Locked {
        let record = info.record("authenticate", Outcome::Refused).refused_call(&refusal);
        core.audit.append(vec![record.to_bytes()]).await.map_err(|error| error.outward())?;
    }
    Ok(refusal)
}

pub(crate) async fn gateway(
    core: Arc<Core>,
    caller: Caller,
    route: GatewayRoute,
    body: Body,
) -> Result<Body, KeyServiceError> {
    use GatewayRoute as G;
    match route {
        G::Session => {
            parse::<Empty>(&body)?;
            releasing(core, caller, Core::session).await
        }
        G::Binding => {
            let request: routes::BindingRequest = parse(&body)?;
            encode(&core.binding(&caller, &request.bucket))
        }
        G::Bindings => {
            parse::<Empty>(&body)?;
            encode(&core.bindings(&caller))
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
        G::Lease | G::Derive | G::Continue | G::Finish => keys(core, caller, route, body).await,
    }
}

/// The routes that release keys, or end an upload.
async fn keys(
    core: Arc<Core>,
    caller: Caller,
    route: GatewayRoute,
    body: Body,
) -> Result<Body, KeyServiceError> {
    match route {
        GatewayRoute::Lease => {
            let items = batch(parse::<LeaseRequest>(&body)?.items)?;
            let run = |core: &Core, caller: &Caller| {
                core.with_release(caller, |r| Ok(LeaseAnswer { results: r.lease(items)? }))
            };
            releasing(core, caller, run).await
        }
        GatewayRoute::Derive => {
            let items = batch(parse::<DeriveRequest>(&body)?.items)?;
            let run = |core: &Core, caller: &Caller| {
                core.with_release(caller, |r| Ok(DeriveAnswer { results: r.derive(items)? }))
            };
            releasing(core, caller, run).await
        }
        GatewayRoute::Continue => {
            let items = batch(parse::<ContinueRequest>(&body)?.items)?;
            let run = |core: &Core, caller: &Caller| {
                core.with_release(caller, |r| Ok(ContinueAnswer { results: r.continue_upload(items)? }))
            };
            releasing(core, caller, run).await
        }
        _ => {
            let items = batch(parse::<FinishRequest>(&body)?.items)?;
            let run = move |core: &Core| {
                core.with_release(&caller, |r| Ok(FinishAnswer { results: r.finish(items)? }))
            };
            blocking(core, run).await
        }
    }
}

async fn operator(
    core: Arc<Core>,
    caller: Caller,
    route: OperatorRoute,
    body: Body,
) -> Result<Body, KeyServiceError> {
    use OperatorRoute as O;
    match route {
        O::Lock => always(core, move |core| core.lock_by_operator(&caller)).await,
        O::KeysetCreate => {
            let request = parse(&body)?;
            releasing(core, caller, move |core, caller| core.create_keyset(caller, &request)).await
        }
        O::KeysetConfirm => {
            let request = parse(&body)?;
            blocking(core, move |core| core.confirm_keyset(&caller, &request)).await
        }
        O::KeysetList => encode(&Core::list_keysets(&caller)),
        O::EnrolToken => {
            let request = parse(&body)?;
            releasing(core, caller, move |core, caller| core.order_token(caller, request)).await
        }
        O::Revoke => {
            let request: admin::RevokeRequest = parse(&body)?;
            blocking(core, move |core| empty(core.revoke(&caller, &request.identity))).await
        }
        O::IdentityList => encode(&Core::list_identities(&caller)),
        O::EpochList => {
            let request = parse(&body)?;
            blocking(core, move |core| Work::silent(core.list_epochs(&request))).await
        }
        O::PolicyReload => blocking(core, move |core| core.reload_policy(&caller)).await,
        O::AuditTail => {
            let request = parse(&body)?;
            blocking(core, move |core| Work::silent(core.audit_tail(&request))).await
        }
    }
}

fn empty(work: Work<()>) -> Work<Empty> {
    Work::new(work.result.map(|()| Empty {}), work.records)
}

fn batch<T>(items: Vec<T>) -> Result<Vec<T>, KeyServiceError> {
    let max = u32::try_from(BATCH_ITEMS_MAX).unwrap_or(u32::MAX);
    if items.len() > BATCH_ITEMS_MAX { Err(KeyServiceError::TooManyItems { max }) } else { Ok(items) }
}

/// Runs what blocks (database, cryptography) off the runtime, then waits for the audit log, then encodes the answer.
async fn blocking<T: Serialize + Send + 'static>(
    core: Arc<Core>,
    run: impl FnOnce(&Core) -> Work<T> + Send + 'static,
) -> Result<Body, KeyServiceError> {
    encode(&settled(&core, run).await?)
}

/// The same for answers that carry keys: they go out only if the service is still unlocked and the caller unrevoked.
async fn releasing<T: Serialize + Send + 'static>(
    core: Arc<Core>,
    caller: Caller,
    run: impl FnOnce(&Core, &Caller) -> Work<T> + Send + 'static,
) -> Result<Body, KeyServiceError> {
    let addressee = caller.addressee();
    let answer = settled(&core, move |core| run(core, &caller)).await?;
    core.may_have(&addressee)?;
    encode(&answer)
}

async fn settled<T: Send + 'static>(
    core: &Arc<Core>,
    run: impl FnOnce(&Core) -> Work<T> + Send + 'static,
) -> Result<T, KeyServiceError> {
    // What can't be written down is not even begun.
    core.check_audit()?;
    let turn = core.admission.work().await?;
    let worker = Arc::clone(core);
    let run = move || {
        let _turn = turn;
        run(&worker)
    };
    let work = tokio::task::spawn_blocking(run).await.map_err(|_| KeyServiceError::Internal)?;
    core.settle(work).await
}

/// What has to work however busy the service is, and when its audit log has failed: the status and the brake.
async fn always<T: Serialize + Send + 'static>(
    core: Arc<Core>,
    run: impl FnOnce(&Core) -> Result<T, ServiceError> + Send + 'static,
) -> Result<Body, KeyServiceError> {
    let done =
        tokio::task::spawn_blocking(move || run(&core)).await.map_err(|_| KeyServiceError::Internal)?;
    encode(&done.map_err(|error| crate::service::tell(&error))?)
}

/// Reads the body into one buffer that is wiped; with it comes the room that it takes up.
async fn read_body(
    core: &Core,
    client: &Client,
    request: Request<Incoming>,
    route: Route,
) -> Result<(Room, Body), KeyServiceError> {
    let len_max = route.body_len_max();
    let too_long = || KeyServiceError::Malformed { text: format!("the body is longer than {len_max} bytes") };
    let mut body = request.into_body();
    let declared = body.size_hint().upper().and_then(|len| usize::try_from(len).ok());
    if declared.is_some_and(|len| len > len_max) {
        return Err(too_long());
    }
    let identity = client.peer.as_ref().map(|peer| &peer.identity);
    let room = core.admission.body(identity, declared.unwrap_or(len_max)).await?;
    let mut out = WipingBuffer::with_capacity(declared.unwrap_or(4096));
    while let Some(frame) = body.frame().await {
        let broken = || KeyServiceError::Malformed { text: "the body broke off".to_owned() };
        let Ok(data) = frame.map_err(|_| broken())?.into_data() else { continue };
        if out.len() + data.len() > len_max {
            return Err(too_long());
        }
        out.push(&data);
    }
    Ok((room, out.into_bytes()))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, KeyServiceError> {
    // The position helps; the message might repeat what was sent.
    serde_json::from_slice(body).map_err(|error| KeyServiceError::Malformed {
        text: format!(
            "the body is not what this route takes (line {}, column {})",
            error.line(),
            error.column()
        ),
    })
}

fn encode<T: Serialize>(value: &T) -> Result<Body, KeyServiceError> {
    wiping::to_json(value).map_err(|_| KeyServiceError::Internal)
}

fn json_reply(status: StatusCode, body: Body, request_id: &str) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from_owner(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Ok(id) = header::HeaderValue::from_str(request_id) {
        reply.headers_mut().insert("x-request-id", id);
    }
    reply
}

fn error_reply(error: &KeyServiceError, request_id: &str) -> Reply {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let answer = ErrorAnswer { error: error.clone(), request_id: request_id.to_owned() };
    let body = encode(&answer).unwrap_or_else(|_| Zeroizing::new(Vec::new()));
    json_reply(status, body, request_id)
}
