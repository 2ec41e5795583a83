//! Who is nobody yet: connections that have shown no certificate. However many there are, and wherever they come from, an operator gets
//! in.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::admin::{self, AdminStatus, RevokeAnswer, RevokeRequest};
use claviger_keyapi::proposals::{FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::{self, Empty};
use claviger_keyapi::{KeyService as _, KeyServiceError, ServiceState};
use common::{World, ask, raw};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

async fn freeze(operator: &KeyClient) {
    let request = FreezeRequest { target: FreezeTarget::Everything, reason: "a test".into() };
    ask::<Empty>(operator, admin::FREEZE, &request).await.unwrap();
}

async fn status(operator: &KeyClient) -> AdminStatus {
    ask(operator, admin::STATUS, &Empty {}).await.unwrap()
}

/// Connects from an address of this machine that nobody else comes from, and says nothing.
async fn dial(service: SocketAddr, number: u16) -> std::io::Result<TcpStream> {
    let [high, low] = number.to_be_bytes();
    let socket = TcpSocket::new_v4()?;
    socket.bind(([127, 9, high, low], 0).into())?;
    socket.connect(service).await
}

/// When the service has hung up.
async fn ended(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 1]).await;
}

/// So many addresses that hold a connection each, and come again a moment after it has ended. Ends when it is dropped.
async fn sitters(service: SocketAddr, count: u16) -> JoinSet<()> {
    let came = Arc::new(AtomicUsize::new(0));
    let mut sitting = JoinSet::new();
    for number in 0..count {
        let came = Arc::clone(&came);
        sitting.spawn(async move {
            for _ in 0..1_000 {
                if let Ok(mut stream) = dial(service, number).await {
                    came.fetch_add(1, Ordering::Relaxed);
                    ended(&mut stream).await;
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
    }
    let all_came = async {
        while came.load(Ordering::Relaxed) < usize::from(count) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_came).await.expect("they can't even connect");
    sitting
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_addresses_hold_connections_an_operator_gets_in_also_where_he_never_was() {
    let mut world = World::new().await;
    let gateway = world.enrol("full").await;
    // It knows nothing of where operators came from.
    world.restart().await;
    let _sitting = sitters(world.config.listen, 300).await;
    freeze(&world.operator()).await;
    for _ in 0..10 {
        assert_eq!(status(&world.operator()).await.state, ServiceState::Unlocked);
    }
    assert!(matches!(gateway.keys.session().await, Err(KeyServiceError::Frozen { .. })));
}

#[tokio::test]
async fn whose_handshakes_make_way_for_his_own_next_ones_has_wasted_them() {
    let world = World::new().await;
    let mut held = Vec::new();
    for _ in 0..600 {
        held.extend(dial(world.config.listen, 1).await);
    }
    let moment = Duration::from_millis(800);
    let is_turned_away = async |number| {
        let mut stream = dial(world.config.listen, number).await.unwrap();
        tokio::time::timeout(moment, ended(&mut stream)).await.is_ok()
    };
    assert!(is_turned_away(1).await, "300 that came to nothing are enough for a minute");
    assert!(!is_turned_away(2).await, "others are waited for");
    assert_eq!(status(&world.operator()).await.state, ServiceState::Unlocked);
    world.clock.advance(60_000);
    drop(held);
    assert!(!is_turned_away(1).await, "until the next minute");
}

#[tokio::test]
async fn a_stranger_who_asked_and_does_not_go_on_gets_no_time_to_take_his_leave() {
    let world = World::new().await;
    let config = raw::config(&world, None).await;
    let (mut held, mut asking) = (Vec::new(), Vec::new());
    for _ in 0..32 {
        let mut stranger = raw::connect_with(&world, &config).await.unwrap();
        asking.push(stranger.begin(routes::ENROL, "{"));
        held.push(stranger);
    }
    // They are busy, as far as the service can see.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(held.iter().all(raw::Raw::is_open), "an address has 32 places");
    held.push(raw::connect_with(&world, &config).await.unwrap());
    // Somebody else's place is free at once, and not only after the second that who is worked for has.
    let moment = Duration::from_millis(700);
    let one_is_gone = async {
        while held.iter().all(raw::Raw::is_open) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(moment, one_is_gone).await.expect("he took his leave");
    drop(asking);
}

#[tokio::test]
async fn who_says_nothing_has_his_place_for_three_seconds() {
    let world = World::new().await;
    let mut stream = dial(world.config.listen, 1).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), ended(&mut stream)).await.is_err());
    tokio::time::timeout(Duration::from_secs(5), ended(&mut stream)).await.unwrap();
}

#[tokio::test]
async fn over_the_socket_of_its_machine_an_operator_stops_what_he_wants_and_a_gateway_gets_nothing() {
    let mut world = World::new().await;
    let gateway = world.enrol("full").await;
    world.stop().await;
    let path = world.path("admin.sock");
    world.config.admin_socket = Some(path.clone());
    world.start().await.unwrap();
    let address = format!("unix:{}", path.display());
    let is_there = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), is_there).await.unwrap();
    // Who sits there silently keeps nobody out.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(tokio::net::UnixStream::connect(&path).await.unwrap());
    }
    let operator = world.operator_at(&address);
    assert_eq!(status(&operator).await.state, ServiceState::Unlocked);
    freeze(&operator).await;
    assert!(matches!(gateway.keys.session().await, Err(KeyServiceError::Frozen { .. })));
    let refused = KeyClient::open(&address, &world.path("full"), world.clock.clone()).unwrap();
    assert!(matches!(refused.session().await, Err(KeyServiceError::Unavailable { .. })), "operators alone");
    let thief = RevokeRequest { identity: "gateway:full".parse().unwrap(), since_ms: None, logs: Vec::new() };
    ask::<RevokeAnswer>(&operator, admin::REVOKE, &thief).await.unwrap();
    ask::<AdminStatus>(&operator, admin::LOCK, &Empty {}).await.unwrap();
    assert_eq!(status(&world.operator_at(&address)).await.state, ServiceState::Locked);
    world.stop().await;
    assert!(!path.exists());
}
