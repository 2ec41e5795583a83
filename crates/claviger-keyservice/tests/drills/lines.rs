//! Connections that are half open: one side is gone and the other was never told. A relay stands between gateway and service and
//! swallows everything from some moment on, without closing anything.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::KeyService as _;

use super::common::{World, raw};
use super::{stops_with_a_log_that_verifies, working_world};

#[derive(Default)]
struct Line {
    /// Counts silences: connections from before the newest one carry nothing more.
    silences: AtomicUsize,
    /// The service closed a connection, or the gateway did.
    closed_by_service: AtomicBool,
    closed_by_gateway: AtomicBool,
}

struct Relay {
    address: SocketAddr,
    line: Arc<Line>,
}

impl Relay {
    fn before(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, line) = (listener.local_addr().unwrap(), Arc::new(Line::default()));
        let shared = Arc::clone(&line);
        thread::spawn(move || {
            for gateway in listener.incoming() {
                let (gateway, service) = (gateway.unwrap(), TcpStream::connect(service).unwrap());
                let age = shared.silences.load(Ordering::SeqCst);
                let carry = |from: &TcpStream, to: &TcpStream, is_gateways: bool| {
                    let ends = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let line = Arc::clone(&shared);
                    thread::spawn(move || pump(ends, &line, age, is_gateways));
                };
                carry(&gateway, &service, true);
                carry(&service, &gateway, false);
            }
        });
        Self { address, line }
    }

    fn fall_silent(&self) {
        self.line.silences.fetch_add(1, Ordering::SeqCst);
    }
}

fn pump((mut from, mut to): (TcpStream, TcpStream), line: &Line, age: usize, is_gateways: bool) {
    let mut bytes = vec![0; 1 << 16];
    let is_silent = || line.silences.load(Ordering::SeqCst) > age;
    while let Ok(len @ 1..) = from.read(&mut bytes) {
        if !is_silent() && to.write_all(&bytes[..len]).is_err() {
            break;
        }
    }
    let closed = if is_gateways { &line.closed_by_gateway } else { &line.closed_by_service };
    closed.store(true, Ordering::SeqCst);
    if !is_silent() {
        // It may be closed already.
        let _ = to.shutdown(Shutdown::Write);
    }
}

/// Lets time pass for every deadline of this process without waiting for it, until something has happened; in how many seconds.
async fn seconds_until(happened: &AtomicBool) -> u64 {
    tokio::time::pause();
    let mut seconds = 0;
    while !happened.load(Ordering::SeqCst) && seconds < 600 {
        tokio::time::advance(Duration::from_secs(1)).await;
        seconds += 1;
        // For the sockets and the relay's threads, whose time can't be moved.
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(1));
            tokio::task::yield_now().await;
        }
    }
    tokio::time::resume();
    seconds
}

#[tokio::test]
async fn a_gateway_that_vanished_without_a_word_holds_no_connection() {
    let (mut world, _full, _epoch) = working_world().await;
    let relay = Relay::before(world.config.listen);
    let listen = std::mem::replace(&mut world.config.listen, relay.address);
    let mut connection = raw::connect(&world, Some("full")).await;
    world.config.listen = listen;
    assert_eq!(connection.ask("/v1/session", "{}").await.0, 200);
    let begun = connection.begin("/v1/lease", "{\"items\":");
    relay.fall_silent();
    assert!(seconds_until(&relay.line.closed_by_service).await <= 60);
    drop(begun);
    stops_with_a_log_that_verifies(&mut world).await;
}

#[tokio::test]
async fn a_gateway_goes_on_over_a_new_connection_when_the_one_it_has_falls_silent() {
    let (mut world, _full, _epoch) = working_world().await;
    let relay = Relay::before(world.config.listen);
    let keys = open(&world, &relay);
    keys.session().await.unwrap();
    relay.fall_silent();
    let asked = Arc::clone(&keys);
    let asked = tokio::spawn(async move { asked.session().await.map(drop) });
    let seconds = seconds_until(&relay.line.closed_by_gateway).await;
    assert!(seconds <= 40, "{seconds} s");
    // The request that was under way is not repeated: whether it was done is not known.
    assert!(asked.await.unwrap().is_err());
    keys.session().await.unwrap();
    stops_with_a_log_that_verifies(&mut world).await;
}

fn open(world: &World, relay: &Relay) -> Arc<KeyClient> {
    KeyClient::open(&relay.address.to_string(), &world.path("full"), world.clock.clone()).unwrap()
}
