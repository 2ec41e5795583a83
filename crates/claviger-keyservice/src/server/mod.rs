//! HTTP/2 over mutual TLS: connections, bodies, time limits, answers. `routes` names every route with what it needs, `admit`
//! decides who comes in, `handlers` do the work.

mod admit;
mod connection;
mod handlers;
mod local;
mod routes;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use claviger_keyapi::routes::{Empty, ErrorAnswer};
use claviger_keyapi::wiping::{self, WipingBuffer};
use claviger_keyapi::{Identity, KeyServiceError, UnavailableReason};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body as _, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::admission::{Now, Part};
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::metrics::{CONNECTIONS_REFUSED, REQUESTS};
use crate::refusals::Refusals;
use crate::service::{Core, UNRECORDED};
use crate::watch::{self, WatchBody};
use admit::{Admitted, admit};
use connection::{Client, Guest, connection};
use handlers::{Asked, handle};
use local::LocalSocket;
use routes::{Route, route};

#[cfg(test)]
pub(crate) use handlers::{Asked as AskedInTests, gateway, operator};
#[cfg(test)]
pub(crate) use routes::{GatewayRoute, OperatorRoute};

/// How often connections are ended that have to be.
const LOOK: Duration = Duration::from_secs(1);
/// How often the service looks whether it has something to write down by itself.
const TICK: Duration = Duration::from_secs(2);
/// How often it looks after what unlocks it.
const TEND: Duration = Duration::from_secs(5);
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts until `shutdown` is ready, then lets requests under way finish for a while. Returns when no connection is left.
pub(crate) async fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), ServiceError> {
    crate::metrics::describe();
    let local = match &core.config.admin_socket {
        Some(path) => Some(LocalSocket::bind(path).await?),
        None => None,
    };
    let (going_down, goes_down) = tokio::sync::watch::channel(false);
    let mut connections = JoinSet::new();
    let mut look = tokio::time::interval(LOOK);
    let mut tick = tokio::time::interval(TICK);
    let mut tend = tokio::time::interval(TEND);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let came = tokio::select! {
            () = &mut shutdown => break,
            came = next(&listener, local.as_ref()) => came,
            Some(_) = connections.join_next() => continue,
            _ = look.tick() => {
                if core.end_connections() {
                    let locked = Arc::clone(&core);
                    tokio::task::spawn_blocking(move || locked.look_up_roll());
                }
                continue;
            }
            _ = tick.tick() => {
                // With the connections, so that nothing of the service is left when this returns.
                connections.spawn(record_attempts(Arc::clone(&core)));
                connections.spawn(housekeeping(Arc::clone(&core)));
                connections.spawn(exchanging_words(Arc::clone(&core)));
                continue;
            }
            _ = tend.tick() => {
                let tended = Arc::clone(&core);
                // Not waited for: it may ask an HSM.
                tokio::task::spawn_blocking(move || tended.tend_unlocking());
                continue;
            }
        };
        match came {
            Ok(came) => came.let_in(&core, &mut connections, &goes_down),
            Err(error) => {
                // Out of descriptors or a connection that vanished: waiting a little is all that helps.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(local);
    // They would not end by themselves.
    core.watchers.close();
    going_down.send_replace(true);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(SHUTDOWN_TIMEOUT, finish).await.is_err() {
        tracing::warn!("some connections did not finish in time");
    }
    Ok(())
}

/// Somebody who has connected.
enum Came {
    From(TcpStream, IpAddr),
    OfThisMachine(UnixStream),
}

/// The next connection. Neither listener has to wait for the other, however much comes there.
async fn next(listener: &TcpListener, local: Option<&LocalSocket>) -> io::Result<Came> {
    let of_this_machine = async {
        match local {
            Some(local) => local.accept().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        came = listener.accept() => came.map(|(stream, address)| Came::From(stream, address.ip())),
        came = of_this_machine => came.map(Came::OfThisMachine),
    }
}

impl Came {
    /// Gives him a place, if there is one.
    fn let_in(
        self,
        core: &Arc<Core>,
        connections: &mut JoinSet<()>,
        goes_down: &tokio::sync::watch::Receiver<bool>,
    ) {
        let source = match &self {
            Self::From(_, address) => Some(*address),
            Self::OfThisMachine(_) => None,
        };
        let Some(place) = core.admission.stranger(source, Now::of(&*core.clock)) else {
            return count_refused();
        };
        let guest = Guest { place, source, goes_down: goes_down.clone() };
        let core = Arc::clone(core);
        match self {
            Self::From(stream, _) => {
                // Best effort: without it small answers wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                connections.spawn(connection(core, stream, guest));
            }
            Self::OfThisMachine(stream) => {
                connections.spawn(connection(core, stream, guest));
            }
        }
    }
}

fn count_refused() {
    metrics::counter!(CONNECTIONS_REFUSED).increment(1);
}

async fn record_attempts(core: Arc<Core>) {
    let refusals = [
        unrecorded_refusals(&core, "authenticate", &core.refusals),
        unrecorded_refusals(&core, "refused", &core.refused),
    ];
    for record in refusals.into_iter().chain([core.unrecorded_attempts()]).flatten() {
        if let Err(error) = core.audit.append(vec![record.to_bytes()]).await {
            tracing::error!(%error, "failed attempts to enrol or to authenticate, or refusals, were not written down");
        }
    }
}

/// The record of refusals that got none when they came.
fn unrecorded_refusals(core: &Core, action: &'static str, refusals: &Refusals) -> Option<Record> {
    let info = core.local_info().ok()?;
    let count = refusals.left_over(info.now_ms)?;
    let mut record = info.record(action, Outcome::Refused);
    record.add_unrecorded(count, UNRECORDED);
    Some(record)
}

/// What blocks and comes by itself.
async fn housekeeping(core: Arc<Core>) {
    // If it panicked it is tried again in a few seconds, like everything that failed.
    let _ = tokio::task::spawn_blocking(move || core.keep_house()).await;
}

/// Apart from the rest, which may take long: the other replicas rely on it.
async fn exchanging_words(core: Arc<Core>) {
    // If it panicked it is tried again in a few seconds.
    let _ = tokio::task::spawn_blocking(move || core.exchange_words()).await;
}

type Reply = Response<Either<Full<Bytes>, WatchBody>>;

/// What a route answers with if it does not refuse.
enum Answer {
    Json(Sent),
    Stream(WatchBody),
}

/// An answer, and the room that it takes up until it is sent: who asks and does not read fills his share of it and no more. What is
/// urgent takes up none.
pub(crate) struct Sent {
    body: Body,
    _room: Option<Part>,
}

#[cfg(test)]
impl Sent {
    pub(crate) fn into_body(self) -> Body {
        self.body
    }
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

async fn answer(
    core: Arc<Core>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Reply, std::convert::Infallible> {
    let _under_way = client.used.begin(core.clock.boot_ms());
    let path = request.uri().path().to_owned();
    let info = match core.request_info(client.peer.as_ref().map(|peer| peer.identity.clone())) {
        Ok(info) => info,
        Err(_) => return Ok(error_reply(&KeyServiceError::Internal, "")),
    };
    let request_id = info.request_id.clone();
    let outcome = respond(core, client, info, request).await;
    let status = outcome.as_ref().err().map_or(200, KeyServiceError::status);
    let label = route(&path).map_or_else(|| "unknown".to_owned(), |_| path);
    metrics::counter!(REQUESTS, "route" => label, "status" => status.to_string()).increment(1);
    Ok(match outcome {
        Ok(Answer::Json(sent)) => json_reply(StatusCode::OK, Bytes::from_owner(sent), &request_id),
        Ok(Answer::Stream(lines)) => stream_reply(lines, &request_id),
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
) -> Result<Answer, KeyServiceError> {
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
        let admitted = admit(&core, &client, route, &info).await?;
        match (route, &client.peer, &admitted) {
            (Route::Watch, Some(peer), Admitted::Caller(caller)) => {
                parse::<Empty>(&body)?;
                Ok(Answer::Stream(watch::begin(core, peer.clone(), caller)))
            }
            _ => {
                let asked = Asked::by(core, asker(&client, route).cloned()).over(Arc::clone(&client.used));
                let asked = asked.with_room(route.answer_room(), room).await?;
                handle(asked, &client, info, route, admitted, body).await.map(Answer::Json)
            }
        }
    });
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(KeyServiceError::Internal),
        Err(_) => Err(timed_out()),
    }
}

/// Whose share of the service a request takes; `None` for strangers, also those who show a certificate that opens nothing here.
fn asker(client: &Client, route: Route) -> Option<&Identity> {
    let is_for_anyone = matches!(route, Route::Enrol | Route::Recover);
    let peer = client.peer.as_ref().filter(|_| client.is_enrolled && !is_for_anyone)?;
    Some(&peer.identity)
}

fn timed_out() -> KeyServiceError {
    KeyServiceError::Unavailable { reason: UnavailableReason::Timeout, retry_after_ms: 1_000 }
}

/// Reads the body into one buffer that is wiped; with it comes the room that it takes up.
async fn read_body(
    core: &Core,
    client: &Client,
    request: Request<Incoming>,
    route: Route,
) -> Result<(Part, Body), KeyServiceError> {
    let len_max = route.body_len_max();
    let too_long = || KeyServiceError::Malformed { text: format!("the body is longer than {len_max} bytes") };
    let mut body = request.into_body();
    let declared = body.size_hint().upper().and_then(|len| usize::try_from(len).ok());
    if declared.is_some_and(|len| len > len_max) {
        return Err(too_long());
    }
    let (by, len) = (asker(client, route), declared.unwrap_or(len_max));
    let room = if route.is_urgent(len) {
        core.admission.urgent_body(by, len).await?
    } else {
        core.admission.body(by, len).await?
    };
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

fn json_reply(status: StatusCode, body: Bytes, request_id: &str) -> Reply {
    let mut reply = reply(Either::Left(Full::new(body)), "application/json", request_id);
    *reply.status_mut() = status;
    reply
}

fn stream_reply(lines: WatchBody, request_id: &str) -> Reply {
    reply(Either::Right(lines), "application/x-ndjson", request_id)
}

fn reply(body: Either<Full<Bytes>, WatchBody>, content_type: &'static str, request_id: &str) -> Reply {
    let mut reply = Response::new(body);
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    if let Ok(id) = header::HeaderValue::from_str(request_id) {
        reply.headers_mut().insert("x-request-id", id);
    }
    reply
}

fn error_reply(error: &KeyServiceError, request_id: &str) -> Reply {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let answer = ErrorAnswer { error: error.clone(), request_id: request_id.to_owned() };
    let body = encode(&answer).unwrap_or_else(|_| Zeroizing::new(Vec::new()));
    json_reply(status, Bytes::from_owner(body), request_id)
}
