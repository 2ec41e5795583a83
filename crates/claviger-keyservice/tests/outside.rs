//! A service that was put back to an earlier day does not unlock on its own word.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::fs;
use std::sync::Arc;

use claviger_gateway::key_client::{ClientError, KeyClient, Witness};
use claviger_keyapi::admin::{self, AdminStatus, RollbackAccepted};
use claviger_keyapi::routes::{self, CheckpointRequest, Empty};
use claviger_keyapi::{KeyService as _, KeyServiceError, ServiceState};
use claviger_keyservice::Unlock;
use claviger_keyservice::files::read_secret;
use common::snapshot::Snapshot;
use common::{POLICY, World, ask};

impl World {
    fn is_unlocked(&self) -> bool {
        self.service().health().0 == ServiceState::Unlocked
    }

    fn locked_because(&self, why: &str) {
        let (state, problems) = self.service().health();
        assert_eq!(state, ServiceState::Locked);
        assert!(problems.iter().any(|problem| problem.contains(why)), "{why}: {problems:?}");
    }

    fn unlock(&self) -> Result<(), String> {
        let passphrase = read_secret(&self.path("passphrase")).unwrap();
        self.service().unlock(&passphrase).map_err(|error| error.to_string())
    }

    fn of_action(&self, action: &str) -> Vec<serde_json::Value> {
        self.audit().into_iter().filter(|record| record["action"] == action).collect()
    }
}

async fn show(client: &KeyClient, checkpoint: &str) -> Result<(), KeyServiceError> {
    client.show_checkpoint(checkpoint).await
}

async fn accept(operator: &KeyClient) -> RollbackAccepted {
    ask(operator, admin::ACCEPT_ROLLBACK, &Empty {}).await.unwrap()
}

/// A service with a gateway, and how it was before it wrote its last records.
async fn grown(unlock: Unlock) -> (World, Arc<KeyClient>, Snapshot) {
    let mut world = World::with(POLICY, unlock).await;
    if unlock == Unlock::Operator {
        world.unlock().unwrap();
    }
    let client = world.enrol("full").await.keys;
    world.stop().await;
    let earlier = Snapshot::take(&world);
    world.start().await.unwrap();
    if unlock == Unlock::Operator {
        world.unlock().unwrap();
    }
    for _ in 0..3 {
        client.session().await.unwrap();
    }
    world.stop().await;
    (world, client, earlier)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_put_back_stays_locked_until_two_operators_accept_it() {
    let (mut world, client, earlier) = grown(Unlock::PassphraseFile).await;
    earlier.put_back(&world);
    world.start().await.unwrap();
    world.locked_because("put back to an earlier state");
    assert_eq!(client.session().await.unwrap_err(), KeyServiceError::Locked);
    assert!(world.unlock().unwrap_err().contains("--accept-rollback"));

    // One operator, however often, is one.
    assert_eq!(accept(&world.operator()).await.by.len(), 1);
    assert_eq!(accept(&world.operator()).await.by.len(), 1);
    world.locked_because("put back");
    // And a quarter of an hour later he is nobody.
    world.clock.advance(15 * 60_000);
    assert_eq!(accept(&world.second_operator()).await.by.len(), 1);
    world.locked_because("put back");
    assert_eq!(accept(&world.operator()).await.by.len(), 2);
    assert!(world.is_unlocked());
    let accepted = world.of_action("rollback-accepted");
    assert_eq!(accepted.len(), 1);
    assert_eq!(accepted[0]["subject"], "admin:second, admin:first");
    assert!(accepted[0]["what"].as_str().unwrap().contains("remembers"));
    assert_eq!(world.of_action("rollback-accept").len(), 4);

    // What vouches from now on is the log that was accepted.
    client.session().await.unwrap();
    world.restart().await;
    assert!(world.is_unlocked());
    let refused: Result<RollbackAccepted, _> =
        ask(&world.operator(), admin::ACCEPT_ROLLBACK, &Empty {}).await;
    assert!(matches!(refused, Err(KeyServiceError::Conflict { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unattended_start_waits_until_someone_shows_a_checkpoint_of_its_log() {
    let (mut world, client, earlier) = grown(Unlock::PassphraseFile).await;
    let newest = fs::read_to_string(&world.config.checkpoint_file).unwrap();
    fs::remove_file(&world.config.checkpoint_file).unwrap();
    world.start().await.unwrap();
    world.locked_because("nobody outside has shown a checkpoint");

    // What this log's key did not sign changes nothing, whoever brings it.
    let garbage = newest.replacen("\n", "x\n", 1);
    for wrong in ["", "none", &garbage, &"x".repeat(5000)] {
        let refused = show(&client, wrong).await;
        assert!(matches!(refused, Err(KeyServiceError::Malformed { .. })), "{refused:?}");
    }
    world.locked_because("nobody outside");
    let other = World::new().await;
    let foreign = show(&other.enrol("full").await.keys, &newest).await;
    assert!(matches!(foreign, Err(KeyServiceError::Malformed { .. })), "another service's: {foreign:?}");

    // An earlier one of the same log will do.
    let early = fs::read_to_string(earlier.checkpoint()).unwrap();
    show(&client, &early).await.unwrap();
    assert!(world.is_unlocked());
    client.session().await.unwrap();
    assert!(fs::read_to_string(&world.config.checkpoint_file).unwrap().starts_with("claviger.invalid/log/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_puts_back_the_checkpoint_file_too_is_told_by_a_gateway() {
    let (mut world, client, earlier) = grown(Unlock::Operator).await;
    world.start().await.unwrap();
    world.unlock().unwrap();
    let witness = Witness::new(client.clone(), &world.path("memory"), world.clock.clone());
    witness.session().await.unwrap();
    world.stop().await;
    earlier.put_all_back(&world);
    world.start().await.unwrap();
    // It asks for its session, hears that the service is locked, and shows what it remembers.
    assert_eq!(witness.session().await.unwrap_err(), KeyServiceError::Locked);
    assert!(world.unlock().unwrap_err().contains("gateway:full remembers"));
    world.locked_because("gateway:full remembers");
    assert_eq!(world.of_action("unlock").last().unwrap()["outcome"], "refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_that_is_shown_to_an_unlocked_service_is_written_down() {
    let (mut world, client, earlier) = grown(Unlock::PassphraseFile).await;
    let newest = fs::read_to_string(&world.config.checkpoint_file).unwrap();
    earlier.put_all_back(&world);
    world.start().await.unwrap();
    assert!(world.is_unlocked(), "nobody who remembers more was asked");
    let operator = world.operator();
    let request = CheckpointRequest { checkpoint: newest };
    let refused: Result<Empty, ClientError> =
        operator.transport().call(routes::CHECKPOINT, &request).await.map(|answer| answer.value);
    assert!(matches!(refused, Err(ClientError::Service(KeyServiceError::Conflict { .. }))));
    let record = world.of_action("contradiction").pop().unwrap();
    assert_eq!((&record["identity"], &record["outcome"]), (&"admin:first".into(), &"refused".into()));
    client.session().await.unwrap();
    // However often it is said, it is written down once a minute.
    let contradict = async |client: &KeyClient| {
        let refused = show(client, &request.checkpoint).await;
        assert!(matches!(refused, Err(KeyServiceError::Conflict { .. })), "{refused:?}");
    };
    for _ in 0..5 {
        contradict(&operator).await;
    }
    contradict(&client).await;
    assert_eq!(world.of_action("contradiction").len(), 2, "one of each caller");
    world.clock.advance(60_000);
    contradict(&operator).await;
    let records = world.of_action("contradiction");
    let reason = records.last().unwrap()["reason"].as_str().unwrap();
    assert!(records.len() == 3 && reason.contains("5 more contradictions"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_brings_the_checkpoint_with_the_passphrase() {
    let (mut world, _client, _) = grown(Unlock::Operator).await;
    let newest = fs::read_to_string(&world.config.checkpoint_file).unwrap();
    fs::remove_file(&world.config.checkpoint_file).unwrap();
    world.start().await.unwrap();
    world.locked_because("--checkpoint FILE");
    assert!(world.unlock().unwrap_err().contains("nobody outside"));
    show(&world.operator(), &newest).await.unwrap();
    world.locked_because("nobody outside");
    world.unlock().unwrap();
    let status: AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    assert_eq!(status.state, ServiceState::Unlocked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_file_that_can_not_be_written_is_a_note_and_no_failure() {
    let mut world = World::new().await;
    let client = world.enrol("full").await.keys;
    world.stop().await;
    let content = fs::read(&world.config.checkpoint_file).unwrap();
    // A folder where the next file would be written first.
    let fresh = world.path("state.checkpoint.new");
    fs::create_dir(&fresh).unwrap();
    world.start().await.unwrap();
    client.session().await.unwrap();
    assert!(world.service().notes().iter().any(|note| note.contains("checkpoint_file")));
    assert_eq!(fs::read(&world.config.checkpoint_file).unwrap(), content);
    fs::remove_dir(&fresh).unwrap();
    world.restart().await;
    assert_eq!(world.service().notes(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_replica_cosigned_contradicts_a_log_that_was_put_back_and_vouches_for_none() {
    let (mut world, _client, earlier) = grown(Unlock::PassphraseFile).await;
    let newest = fs::read(&world.config.checkpoint_file).unwrap();
    earlier.put_all_back(&world);
    let cosigned = world.config.state_dir.join("audit/cosigned");
    fs::create_dir(&cosigned).unwrap();
    fs::write(cosigned.join("00112233445566778899aabbccddeeff"), &newest).unwrap();
    world.start().await.unwrap();
    world.locked_because("put back to an earlier state");
    world.stop().await;
    // One that fits says nothing against it, and nothing for it: who puts the log back puts that back too.
    let fits = fs::read(&world.config.checkpoint_file).unwrap();
    fs::write(cosigned.join("00112233445566778899aabbccddeeff"), fits).unwrap();
    fs::remove_file(&world.config.checkpoint_file).unwrap();
    world.start().await.unwrap();
    world.locked_because("nobody outside has shown a checkpoint");
    world.stop().await;
    earlier.put_all_back(&world);
    world.start().await.unwrap();
    assert!(world.is_unlocked());
    world.stop().await;
}
