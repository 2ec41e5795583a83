//! What a gateway remembers of the audit log holds the key service to it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use claviger_gateway::key_client::Witness;
use claviger_keyapi::{KeyService as _, KeyServiceError};
use common::World;
use common::snapshot::{Snapshot, copy};

fn distrusts<T>(outcome: Result<T, KeyServiceError>, why: &str) {
    match outcome {
        Err(KeyServiceError::Distrusted { text }) => assert!(text.contains(why), "{text}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("trusted"),
    }
}

#[tokio::test]
async fn a_gateway_notices_that_the_whole_service_was_put_back_to_an_earlier_day() {
    let mut world = World::new().await;
    let gateway = world.enrol("full").await;
    let client = gateway.keys.clone();
    let memory = |name: &str| {
        Arc::new(Witness::new(client.clone(), &world.folder.path().join(name), world.clock.clone()))
    };
    let witness = memory("memory");
    witness.session().await.unwrap();
    world.stop().await;
    let earlier = Snapshot::take(&world);

    world.start().await.unwrap();
    for _ in 0..5 {
        witness.session().await.unwrap();
    }
    copy(&world.path("memory"), &world.path("second-memory"));
    world.restart().await;
    witness.session().await.unwrap();
    world.stop().await;
    let newest = Snapshot::take(&world);

    // Shorter than what is remembered.
    earlier.put_all_back(&world);
    world.start().await.unwrap();
    distrusts(witness.session().await, "cut off");
    distrusts(witness.bindings().await, "cut off");

    // Longer, and not the same.
    let careless = world.gateway("full").await.keys;
    for _ in 0..20 {
        careless.session().await.unwrap();
    }
    world.restart().await;
    let second = Arc::new(Witness::new(client.clone(), &world.path("second-memory"), world.clock.clone()));
    distrusts(second.session().await, "two histories");

    // The true log comes back: only an operator decides that it is.
    world.stop().await;
    newest.put_all_back(&world);
    world.start().await.unwrap();
    let witness = Witness::new(client.clone(), &world.path("memory"), world.clock.clone());
    distrusts(witness.session().await, "cut off");
    fs::remove_dir_all(world.path("memory/logs")).unwrap();
    witness.session().await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_killed_and_goes_on_is_believed_at_every_size() {
    let mut world = World::new().await;
    let gateway = world.enrol("full").await;
    let witness = Witness::new(gateway.keys.clone(), &world.path("memory"), world.clock.clone());
    for round in 0..6 {
        for _ in 0..(1 << round) {
            witness.session().await.unwrap();
        }
        world.restart().await;
    }
    witness.session().await.unwrap();
    let folder = world.remembered_log();
    let note = fs::read_to_string(folder.join("checkpoint")).unwrap();
    let size: u64 = note.lines().nth(1).unwrap().parse().unwrap();
    assert!(size > 60, "{size}");
}

#[tokio::test]
async fn a_copy_of_the_service_at_the_end_of_a_new_connection_is_asked_nothing() {
    let mut world = World::new().await;
    let gateway = world.enrol("full").await;
    let witness = Witness::new(gateway.keys.clone(), &world.path("memory"), world.clock.clone());
    witness.session().await.unwrap();
    world.stop().await;
    let earlier = Snapshot::take(&world);
    world.start().await.unwrap();
    // The connection is a new one, and the service the same.
    witness.bind_bucket("photos", None).await.unwrap();
    world.restart().await;
    witness.look().await.unwrap();
    world.stop().await;

    earlier.put_all_back(&world);
    world.start().await.unwrap();
    let before = world.audit().len();
    distrusts(witness.bind_bucket("other", None).await, "cut off");
    let bound = world.audit().into_iter().skip(before).find(|record| record["action"] == "bind");
    assert_eq!(bound, None);
}

#[tokio::test]
async fn a_certificate_is_renewed_by_who_has_shown_the_log_unless_it_ends_within_the_hour() {
    const HOUR_MS: u64 = 3_600_000;
    let world = World::new().await;
    let client = world.enrol("full").await.keys;
    let witness = Witness::new(client.clone(), &world.path("memory"), world.clock.clone());
    let until_ms = || common::stored(&world, "full").certificate.not_after_ms;
    let renewal = async || {
        // Its first attempt is at once, and it goes on for ever.
        let attempt = tokio::time::timeout(Duration::from_millis(700), Arc::clone(&client).renewal());
        assert!(attempt.await.is_err());
        until_ms()
    };
    let first_ms = until_ms();
    world.clock.advance(13 * HOUR_MS);
    assert_eq!(renewal().await, first_ms, "nobody has shown anything yet");
    witness.look().await.unwrap();
    let second_ms = renewal().await;
    assert!(second_ms > first_ms);
    // It has made a new connection with it, over which nothing was seen.
    world.clock.advance(13 * HOUR_MS);
    assert_eq!(renewal().await, second_ms);
    world.clock.advance(10 * HOUR_MS);
    assert!(renewal().await > second_ms, "better a certificate of anybody's than none");
}
