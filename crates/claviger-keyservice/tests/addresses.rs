//! A gateway that knows several addresses of its key service.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::{KeyService as _, KeyServiceError, UnavailableReason};
use common::World;
use tokio::net::TcpListener;

async fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

/// Takes connections and says nothing that makes sense.
async fn stranger() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(stream);
        }
    });
    address
}

#[tokio::test]
async fn a_gateway_finds_the_one_of_several_addresses_that_serves() {
    let mut world = World::new().await;
    let _enrolled = world.enrol("full").await;
    let list = [closed_port().await, stranger().await, world.config.listen.to_string()].join(",");
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
