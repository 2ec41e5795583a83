//! One connection: a stranger until his certificate is known to count, then one of those who are enrolled, until it does not count
//! any more or somebody else needs the place.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{answer, count_refused};
use crate::admission::{EnrolledPlace, Now, StrangersPlace, Use};
use crate::identity::{Peer, peer};
use crate::metrics::{CONNECTIONS_ENDED, HANDSHAKES_REFUSED};
use crate::service::{Core, Standing};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Life of a connection without a certificate that counts.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection that has to end may go on with what is under way.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that lasted less than this was not worth its handshake, whoever ended it.
const WORTH_MS: u64 = 10_000;
const STREAMS_MAX: u32 = 128;
const HEADERS_LEN_MAX: u32 = 16 << 10;

/// Someone who connected and is a stranger until he shows a certificate that counts.
pub(super) struct Guest {
    pub(super) place: StrangersPlace,
    pub(super) source: IpAddr,
    /// Says when the service goes down.
    pub(super) goes_down: watch::Receiver<bool>,
}

/// At the other end of a connection. The TLS layer has checked that the certificate is one of ours; whether it counts is
/// asked at every request.
pub(super) struct Client {
    pub(super) peer: Option<Peer>,
    pub(super) source: IpAddr,
    /// Whether he has a place among the enrolled.
    pub(super) is_enrolled: bool,
    pub(super) used: Arc<Use>,
}

/// Why a connection is ended from this side.
enum End {
    Told,
    GoesDown,
}

pub(super) async fn connection(core: Arc<Core>, stream: TcpStream, mut guest: Guest) {
    // Best effort: without it small answers wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let Some(tls) = handshake(&core, stream, &mut guest).await else { return };
    let peer = tls.get_ref().1.peer_certificates().and_then(|chain| peer(chain.first()?));
    match peer {
        Some(peer) if core.standing(&peer) == Standing::Counts => {
            let place = core.admission.enrolled(&peer, guest.source, core.clock.boot_ms());
            let Some(place) = place else { return count_refused() };
            enrolled(core, tls, peer, place, guest).await;
        }
        peer => {
            // Who can't be known now, because a locked service can't ask its database, wasted nothing.
            if peer.as_ref().is_none_or(|peer| core.standing(peer) == Standing::CountsNot) {
                core.admission.wasted(guest.source, core.clock.now_ms());
            }
            stranger(core, tls, peer, guest).await;
        }
    }
}

async fn handshake(core: &Core, stream: TcpStream, guest: &mut Guest) -> Option<TlsStream<TcpStream>> {
    let config = core.current_tls()?;
    // Of the strangers those give way first who are done with it.
    let _under_way = guest.place.used().begin(core.clock.boot_ms());
    let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream));
    let accepted = tokio::select! {
        accepted = accepting => accepted,
        () = guest.place.told_to_end() => {
            count_refused();
            return None;
        }
    };
    match accepted {
        Ok(Ok(tls)) => return Some(tls),
        Ok(Err(error)) => {
            metrics::counter!(HANDSHAKES_REFUSED).increment(1);
            tracing::info!(%error, "handshake refused");
        }
        Err(_) => {}
    }
    core.admission.wasted(guest.source, core.clock.now_ms());
    None
}

/// All that he can do is enrol, or hear why his certificate does not count.
async fn stranger(core: Arc<Core>, tls: TlsStream<TcpStream>, peer: Option<Peer>, guest: Guest) {
    let Guest { mut place, source, goes_down } = guest;
    let client = Client { peer, source, is_enrolled: false, used: Arc::clone(place.used()) };
    let going = serve(core, tls, client, 1, ended(goes_down, &mut place));
    let _ = tokio::time::timeout(STRANGER_TIMEOUT, going).await;
}

async fn enrolled(
    core: Arc<Core>,
    tls: TlsStream<TcpStream>,
    peer: Peer,
    mut place: EnrolledPlace,
    guest: Guest,
) {
    let Guest { place: strangers_place, source, goes_down } = guest;
    drop(strangers_place);
    let began = Now::of(&*core.clock);
    let client = Client { peer: Some(peer), source, is_enrolled: true, used: Arc::clone(place.used()) };
    serve(Arc::clone(&core), tls, client, STREAMS_MAX, ended(goes_down, &mut place)).await;
    let now = Now::of(&*core.clock);
    if now.boot_ms < began.boot_ms.saturating_add(WORTH_MS) {
        core.admission.wasted(source, now.ms);
    }
}

async fn ended<K: Eq + std::hash::Hash + Clone, T>(
    mut goes_down: watch::Receiver<bool>,
    place: &mut crate::admission::Place<K, T>,
) -> End {
    tokio::select! {
        () = place.told_to_end() => End::Told,
        // An error says that nobody is left to say it.
        _ = goes_down.wait_for(|is_going| *is_going) => End::GoesDown,
    }
}

/// Answers what is asked over a connection.
async fn serve(
    core: Arc<Core>,
    tls: TlsStream<TcpStream>,
    client: Client,
    streams_max: u32,
    end: impl Future<Output = End>,
) {
    let client = Arc::new(client);
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_header_list_size(HEADERS_LEN_MAX)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    let service = service_fn(move |request| answer(Arc::clone(&core), Arc::clone(&client), request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(tls), service));
    let end = tokio::select! {
        outcome = connection.as_mut() => {
            return outcome.unwrap_or_else(|error| tracing::debug!(%error, "connection ended"));
        }
        end = end => end,
    };
    connection.as_mut().graceful_shutdown();
    match end {
        End::Told => {
            metrics::counter!(CONNECTIONS_ENDED).increment(1);
            // What is not done by then the other end hears nothing of.
            let _ = tokio::time::timeout(LEAVING_TIMEOUT, connection).await;
        }
        // Whoever says so waits no longer than he wants to.
        End::GoesDown => {
            let _ = connection.await;
        }
    }
}
