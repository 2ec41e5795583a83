//! One connection: a stranger until his certificate is known to count, then one of those who are enrolled, until it does not count
//! any more or somebody else needs the place.

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use claviger_keyapi::Role;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::{answer, count_refused};
use crate::admission::{EnrolledPlace, Now, StrangersPlace, THIS_MACHINE, Use};
use crate::identity::{Peer, peer};
use crate::metrics::{CONNECTIONS_ENDED, HANDSHAKES_REFUSED};
use crate::service::{Core, Standing};

/// For the first message of a handshake, which comes as soon as the connection is there.
const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// For the handshake from then on.
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
    /// None came over the socket of this machine.
    pub(super) source: Option<IpAddr>,
    /// Says when the service goes down.
    pub(super) goes_down: watch::Receiver<bool>,
}

impl Guest {
    /// His connection came to nothing. Over the socket of this machine comes only whom its file mode lets.
    fn wasted(&self, core: &Core) {
        if let Some(source) = self.source {
            core.admission.wasted(source, core.clock.now_ms());
        }
    }
}

/// What bytes come over.
pub(super) trait Line: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl Line for TcpStream {}

impl Line for UnixStream {}

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

pub(super) async fn connection<L: Line>(core: Arc<Core>, stream: L, mut guest: Guest) {
    let Some(tls) = handshake(&core, stream, &mut guest).await else { return };
    let peer = tls.get_ref().1.peer_certificates().and_then(|chain| peer(chain.first()?));
    match peer {
        // The socket of this machine is for operators.
        Some(peer) if guest.source.is_none() && peer.identity.role() == Role::Gateway => count_refused(),
        Some(peer) if core.standing(&peer) == Standing::Counts => {
            let place = core.admission.enrolled(&peer, guest.source, core.clock.boot_ms());
            let Some(place) = place else { return count_refused() };
            enrolled(core, tls, peer, place, guest).await;
        }
        peer => {
            // Who can't be known now, because a locked service can't ask its database, wasted nothing.
            if peer.as_ref().is_none_or(|peer| core.standing(peer) == Standing::CountsNot) {
                guest.wasted(&core);
            }
            stranger(core, tls, peer, guest).await;
        }
    }
}

/// However it ends without a connection, it counts as wasted: also for who has to give way because the next one came from there.
async fn handshake<L: Line>(core: &Core, stream: L, guest: &mut Guest) -> Option<TlsStream<L>> {
    let config = core.current_tls()?;
    // Of the strangers those give way first who are done with it.
    let _under_way = guest.place.used().begin(core.clock.boot_ms());
    let accepting = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream);
        match tokio::time::timeout(HELLO_TIMEOUT, hello).await? {
            Ok(begun) => tokio::time::timeout(HANDSHAKE_TIMEOUT, begun.into_stream(config)).await,
            Err(error) => Ok(Err(error)),
        }
    };
    let accepted = tokio::select! {
        accepted = accepting => Some(accepted),
        () = guest.place.told_to_end() => None,
    };
    match accepted {
        Some(Ok(Ok(tls))) => return Some(tls),
        Some(Ok(Err(error))) => {
            metrics::counter!(HANDSHAKES_REFUSED).increment(1);
            tracing::info!(%error, "handshake refused");
        }
        Some(Err(_)) => {}
        None => count_refused(),
    }
    guest.wasted(core);
    None
}

/// All that he can do is enrol, or hear why his certificate does not count.
async fn stranger<L: Line>(core: Arc<Core>, tls: TlsStream<L>, peer: Option<Peer>, guest: Guest) {
    let Guest { mut place, source, goes_down } = guest;
    let source = source.unwrap_or(THIS_MACHINE);
    let client = Client { peer, source, is_enrolled: false, used: Arc::clone(place.used()) };
    let going = serve(core, tls, client, 1, ended(goes_down, &mut place));
    let _ = tokio::time::timeout(STRANGER_TIMEOUT, going).await;
}

async fn enrolled<L: Line>(
    core: Arc<Core>,
    tls: TlsStream<L>,
    peer: Peer,
    mut place: EnrolledPlace,
    guest: Guest,
) {
    let Guest { place: strangers_place, source: came_from, goes_down } = guest;
    drop(strangers_place);
    let began = Now::of(&*core.clock);
    let source = came_from.unwrap_or(THIS_MACHINE);
    let client = Client { peer: Some(peer), source, is_enrolled: true, used: Arc::clone(place.used()) };
    serve(Arc::clone(&core), tls, client, STREAMS_MAX, ended(goes_down, &mut place)).await;
    let now = Now::of(&*core.clock);
    if let Some(source) = came_from
        && now.boot_ms < began.boot_ms.saturating_add(WORTH_MS)
    {
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
async fn serve<L: Line>(
    core: Arc<Core>,
    tls: TlsStream<L>,
    client: Client,
    streams_max: u32,
    end: impl Future<Output = End>,
) {
    let client = Arc::new(client);
    let of = Arc::clone(&client);
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
    if matches!(end, End::Told) && !of.is_enrolled && of.used.ends_at_once() {
        // He loses nothing but the time, and there may be many of him, who keep others out for as long as they may take their leave.
        // Those for whom something is being done, an enrolment perhaps, which happens once, are no more than strangers have turns.
        return count_refused();
    }
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
