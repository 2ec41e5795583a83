//! A gateway that knows several addresses of its key service.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use claviger_gateway::key_client::{KeyClient, Witness};
use claviger_keyapi::{KeyService as _, KeyServiceError, ServiceState, UnavailableReason};
use common::World;
use tokio::net::TcpListener;

async fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

/// Takes connections and says nothing that makes sense; and counts them.
async fn stranger() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(stream);
        }
    });
    (address, count)
}

#[tokio::test]
async fn a_gateway_finds_the_one_of_several_addresses_that_serves() {
    let mut world = World::new().await;
    let _enrolled = world.enrol("full").await;
    let list = [closed_port().await, stranger().await.0, world.config.listen.to_string()].join(",");
    let keys = KeyClient::open(&list, &world.path("full"), world.clock.clone()).unwrap();
    assert!(keys.session().await.is_ok());
    world.restart().await;
    assert!(keys.session().await.is_ok(), "after the connection broke, too");
    // Locked or gone, the one that serves is what the refusal is about only if all of them are.
    world.service().lock().unwrap();
    let alone = KeyClient::open("", &world.path("full"), world.clock.clone()).unwrap();
    assert_eq!(alone.session().await.unwrap_err(), KeyServiceError::Locked);
    let fresh = KeyClient::open(&list, &world.path("full"), world.clock.clone()).unwrap();
    let refused = fresh.session().await.unwrap_err();
    let expected =
        KeyServiceError::Unavailable { reason: UnavailableReason::Connection, retry_after_ms: 2_000 };
    assert_eq!(refused, expected);
    world.stop().await;
}

#[tokio::test]
async fn a_locked_service_is_vouched_for_although_another_address_can_not_be_reached() {
    let mut world = World::new().await;
    let _enrolled = world.enrol("full").await;
    let list = [closed_port().await, world.config.listen.to_string(), stranger().await.0].join(",");
    let keys = KeyClient::open(&list, &world.path("full"), world.clock.clone()).unwrap();
    let witness = Witness::new(keys.clone(), &world.path("memory"), world.clock.clone());
    witness.session().await.unwrap();
    let start_unvouched = async |world: &mut World| {
        world.stop().await;
        fs::remove_file(&world.config.checkpoint_file).unwrap();
        world.start().await.unwrap();
        assert_eq!(world.service().health().0, ServiceState::Locked);
    };
    start_unvouched(&mut world).await;
    let refused = witness.session().await.unwrap_err();
    assert!(matches!(refused, KeyServiceError::Unavailable { .. }), "{refused}");
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
    witness.session().await.unwrap();

    // And by who is served well at another one.
    let folder = world.remembered_log();
    let note = fs::read_to_string(folder.join("checkpoint")).unwrap();
    start_unvouched(&mut world).await;
    let elsewhere = keys.vouch_elsewhere(&note).await;
    assert!(elsewhere.is_err(), "two of the addresses are not there");
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
}

#[tokio::test]
async fn a_gateway_with_much_to_do_wears_out_nobody_who_does_not_serve() {
    let mut world = World::new().await;
    let _enrolled = world.enrol("full").await;
    let (address, count) = stranger().await;
    let keys = KeyClient::open(&address, &world.path("full"), world.clock.clone()).unwrap();
    let asking = async {
        loop {
            assert!(keys.session().await.is_err());
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(1_700), asking).await.is_err());
    let count = count.load(Ordering::Relaxed);
    assert!((2..=4).contains(&count), "{count} connections in 1.7 s");
    world.stop().await;
}
