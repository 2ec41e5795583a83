//! What a stolen gateway leased from the replica that served before: nothing of it is given to anybody after a takeover.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;
#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use claviger_audit::VerifierKey;
use claviger_env::Clock;
use claviger_keyapi::admin::{self, LogLeases, ReplicaInfo, RevokeAnswer, RevokeRequest};
use claviger_keyapi::lifecycle::{self, ShredPlan, ShredPlanRequest};
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{Id16, KeyService as _, KeyServiceError, LeaseItem, ReleaseError, ServiceState};
use claviger_keyservice::join::{JoinOptions, join};
use claviger_keyservice::leases::read_copy;
use claviger_keyservice::store::location::Location;
use claviger_keyservice::store::postgres::{PostgresConfig, Timing};
use claviger_keyservice::{Config, Limits, Unlock};
use common::{Epoch, Gateway, POLICY, TestClock, World, ask};
use postgres_server::{Database, Server};

const FIRST: &str = "the first replica";

/// Two replicas of which the second has taken over.
struct Site {
    world: World,
    /// The first one's state folder.
    first: PathBuf,
    /// Its log as it was before the theft.
    earlier: PathBuf,
    stolen_ms: u64,
    second: Gateway,
    /// The thief leased it.
    leased: Epoch,
    untouched: Epoch,
    /// The thief sealed it, after he had set the clock back.
    forged: Option<Epoch>,
    _database: Arc<Database>,
}

async fn registered(gateway: &Gateway) -> Epoch {
    let epoch = gateway.seal_epoch();
    once_proved(async || gateway.keys.register_epoch(&epoch.record).await).await;
    epoch
}

async fn lease(gateway: &Gateway, epoch: &Epoch) -> Result<(), ReleaseError> {
    let item = LeaseItem { epoch_id: epoch.id.into(), record: None };
    once_proved(async || gateway.keys.lease(vec![item.clone()]).await).await.value.remove(0).map(drop)
}

/// Asks until the service has proved that it is the one, as it has to after a clock has jumped.
async fn once_proved<T>(ask: impl AsyncFn() -> Result<T, KeyServiceError>) -> T {
    for _ in 0..100 {
        match ask().await {
            Err(KeyServiceError::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
            answer => return answer.unwrap(),
        }
    }
    panic!("it proves nothing")
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

async fn serves(world: &World) {
    let mut attempts = 0..200;
    while world.service().health().0 != ServiceState::Unlocked {
        assert!(attempts.next().is_some(), "{:?}", world.service().health());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn site() -> Site {
    site_of(false).await
}

/// `sets_back`: the thief sets the clock back for a moment and registers an epoch of his own.
async fn site_of(sets_back: bool) -> Site {
    let database = tokio::task::spawn_blocking(|| Database::new(&Server::shared())).await.unwrap();
    let server = || Location::Postgres(PostgresConfig { timing: Timing::tenth(), ..database.config() });
    let clock = TestClock::running();
    let mut world = World::at(clock, Limits::default(), server(), POLICY, Unlock::PassphraseFile).await;
    let first = world.config.state_dir.clone();
    let second = world.enrol("second").await;
    world.enrol("full").await;
    let (leased, untouched) = (registered(&second).await, registered(&second).await);
    let stood_by = Config {
        state_dir: world.path("two"),
        checkpoint_file: world.path("two.checkpoint"),
        store: server(),
        ..world.config.clone()
    };
    let passphrase_file = Some(world.path("passphrase"));
    let options = JoinOptions { name: "two".to_owned(), share_files: Vec::new(), passphrase_file };
    let shared: Arc<dyn Clock> = world.clock.clone();
    let (config, random) = (stood_by.clone(), Arc::clone(&world.random));
    let joined = tokio::task::spawn_blocking(move || join(&config, &options, &shared, &random));
    let request = joined.await.unwrap().unwrap().request;
    assert!(world.by_two(Action::AddReplica { request }).await.unwrap().done);
    // From its next start on it is one of several.
    world.restart().await;
    serves(&world).await;
    let thief = world.gateway("full").await;
    let earlier = world.path("earlier");
    copy(&first.join("audit"), &earlier);
    world.clock.set_wall_by(3 * 3_600_000);
    let stolen_ms = world.clock.now_ms();
    world.clock.set_wall_by(60_000);
    lease(&thief, &leased).await.unwrap();
    let mut forged = None;
    if sets_back {
        world.clock.set_wall_by(-2 * 3_600_000);
        forged = Some(registered(&thief).await);
        world.clock.set_wall_by(2 * 3_600_000);
    }
    world.stop().await;
    // It comes up at the same address.
    world.config = stood_by;
    world.start().await.unwrap();
    // It never heard of the one that served.
    for operator in [world.operator(), world.second_operator()] {
        ask::<admin::RollbackAccepted>(&operator, admin::ACCEPT_ROLLBACK, &Empty {}).await.unwrap();
    }
    serves(&world).await;
    let second = world.gateway("second").await;
    Site {
        world,
        first,
        earlier,
        stolen_ms,
        second,
        leased,
        untouched,
        forged,
        _database: Arc::new(database),
    }
}

impl Site {
    async fn revoke(&self, since_ms: u64, logs: Vec<LogLeases>) -> Result<RevokeAnswer, KeyServiceError> {
        let identity = "gateway:full".parse().unwrap();
        let request = RevokeRequest { identity, since_ms: Some(since_ms), logs };
        ask(&self.world.operator(), admin::REVOKE, &request).await
    }

    async fn keys(&self) -> Vec<VerifierKey> {
        let replicas: Vec<ReplicaInfo> =
            ask(&self.world.operator(), admin::REPLICA_LIST, &Empty {}).await.unwrap();
        replicas.iter().map(|replica| replica.log_key.parse().unwrap()).collect()
    }

    async fn read(&self, folder: &Path) -> LogLeases {
        let thief = "gateway:full".parse().unwrap();
        let ids = [self.thief_id().await];
        read_copy(folder, &self.keys().await, (&thief, &ids), self.stolen_ms).unwrap().0
    }

    async fn thief_id(&self) -> Id16 {
        let rows: admin::IdentityList =
            ask(&self.world.operator(), admin::IDENTITY_LIST, &Empty {}).await.unwrap();
        rows.identities.iter().find(|row| row.identity.name() == "full").unwrap().gateway_id
    }

    async fn accept_all(&self) {
        let accept = Action::AcceptEpochs { gateway_id: self.thief_id().await, epochs: vec![] };
        assert!(self.world.by_two(accept).await.unwrap().done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_takeover_all_that_a_thief_could_have_leased_is_kept_back_or_what_the_other_log_tells() {
    let site = site().await;
    let answer = site.revoke(site.stolen_ms, vec![]).await.unwrap();
    assert_eq!((answer.quarantined, &*answer.unread), (2, &[FIRST.to_owned()][..]));
    assert_eq!(answer.read, ["two"]);
    for epoch in [&site.leased, &site.untouched] {
        assert_eq!(lease(&site.second, epoch).await, Err(ReleaseError::EpochQuarantined));
    }
    let record = site.world.audit().into_iter().rev().find(|record| record["action"] == "quarantine");
    let what = record.unwrap()["what"].as_str().unwrap().to_owned();
    assert!(what.contains("not read: the first replica"), "{what}");
    // What is sealed since nobody has leased.
    let since = registered(&site.second).await;
    site.world.clock.set_wall_by(120_000);
    let later = registered(&site.second).await;
    assert_eq!(
        lease(&site.second, &since).await,
        Err(ReleaseError::EpochQuarantined),
        "the margin for clocks"
    );
    lease(&site.second, &later).await.unwrap();
    // By no clock it is known when he was revoked: who asks again has all held back that is there by then.
    assert_eq!(site.revoke(site.stolen_ms, vec![]).await.unwrap().quarantined, 2);
    assert_eq!(lease(&site.second, &later).await, Err(ReleaseError::EpochQuarantined));

    // With the log of the one that served then only what it tells.
    site.accept_all().await;
    let told = site.read(&site.first.join("audit")).await;
    assert_eq!(told.epochs, [site.leased.id.into()]);
    let answer = site.revoke(site.stolen_ms, vec![told]).await.unwrap();
    assert_eq!((answer.quarantined, answer.unread.len()), (1, 0));
    assert_eq!(answer.read, ["two", FIRST]);
    assert_eq!(lease(&site.second, &site.leased).await, Err(ReleaseError::EpochQuarantined));
    lease(&site.second, &site.untouched).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_thief_registered_elsewhere_after_he_had_set_the_clock_back_the_copy_of_that_log_tells() {
    let site = site_of(true).await;
    let forged = site.forged.as_ref().unwrap();
    let told = site.read(&site.first.join("audit")).await;
    assert_eq!(told.sealed, [forged.id.into()]);
    let answer = site.revoke(site.stolen_ms, vec![told]).await.unwrap();
    assert_eq!((answer.quarantined, answer.unread.len()), (2, 0), "{answer:?}");
    assert_eq!(lease(&site.second, forged).await, Err(ReleaseError::EpochQuarantined));
    lease(&site.second, &site.untouched).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_only_if_it_is_of_another_replicas_log_and_reaches_as_far_as_that_was_seen() {
    let site = site().await;
    let told = site.read(&site.first.join("audit")).await;
    let own = site.read(&site.world.config.state_dir.join("audit")).await;
    let nonsense = LogLeases { checkpoint: told.checkpoint.replace('\n', "\n\n"), ..told.clone() };
    let size = told.checkpoint.lines().nth(1).unwrap();
    let larger = told.checkpoint.replacen(&format!("\n{size}\n"), "\n9999\n", 1);
    let flipped = LogLeases { checkpoint: larger, ..told.clone() };
    for other in [own, nonsense, flipped] {
        let refused = site.revoke(site.stolen_ms, vec![other]).await;
        assert!(matches!(refused, Err(KeyServiceError::Malformed { .. })), "{refused:?}");
    }
    // This replica saw more of that log than the copy has.
    let earlier = site.read(&site.earlier).await;
    assert!(earlier.epochs.is_empty(), "it is from before the theft");
    let id = told.checkpoint.lines().next().unwrap().rsplit('/').next().unwrap().to_owned();
    let seen = site.world.config.state_dir.join("witnessed");
    std::fs::create_dir_all(&seen).unwrap();
    std::fs::write(seen.join(id), &told.checkpoint).unwrap();
    let refused = site.revoke(site.stolen_ms, vec![earlier]).await;
    assert!(matches!(&refused, Err(KeyServiceError::Conflict { text }) if text.contains("newer copy")));
    // A copy that tells of a replica that was removed since does not tell what that one released.
    let removed = LogLeases { removed: vec!["three".to_owned()], ..told.clone() };
    let answer = site.revoke(site.stolen_ms, vec![removed]).await.unwrap();
    assert_eq!((answer.quarantined, &*answer.unread), (2, &["three (removed since)".to_owned()][..]));

    // On the operator's side: a copy that somebody edited, another service's, none.
    let thief = "gateway:full".parse().unwrap();
    let edited = site.world.path("edited");
    copy(&site.first.join("audit"), &edited);
    let file = edited.join("00000000000000000000.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("gateway:full", "gateway:fulL", 1)).unwrap();
    let keys = site.keys().await;
    for (folder, keys) in [(&edited, &keys[..]), (&site.first.join("audit"), &[]), (&site.first, &keys)] {
        assert!(read_copy(folder, keys, (&thief, &[]), site.stolen_ms).is_err(), "{}", folder.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_served_without_a_break_since_needs_no_other_log() {
    let site = site().await;
    let plan = async |days| -> ShredPlan {
        let request = ShredPlanRequest { keyset: "default".into(), version: 1, days };
        ask(&site.world.operator(), lifecycle::SHRED_PLAN, &request).await.unwrap()
    };
    assert_eq!(plan(0).await.unread, [FIRST], "who used a version another log tells");
    // A clock that somebody sets is not time that went by.
    site.world.clock.set_wall_by(16 * 60_000);
    assert_eq!(plan(0).await.unread, [FIRST]);
    site.world.clock.set_wall_by(-16 * 60_000);
    site.world.clock.advance(16 * 60_000);
    let now_ms = site.world.clock.now_ms();
    let answer = once_proved(async || site.revoke(now_ms, vec![]).await).await;
    assert_eq!((answer.quarantined, answer.unread.len()), (0, 0));
    assert_eq!(plan(1).await.unread, [FIRST]);
    assert!(plan(0).await.unread.is_empty());
}
