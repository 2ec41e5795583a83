//! Somebody who takes all that he can get of the service: connections, turns, changes. Others get what they need all the same, and
//! operators stop him.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use claviger_gateway::key_client::{self, ClientError, KeyClient};
use claviger_keyapi::admin::{self, AdminStatus, RevokeAnswer, RevokeRequest};
use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, Collected, FreezeRequest, FreezeTarget, ProposalInfo, ProposalRequest,
    ProposeRequest,
};
use claviger_keyapi::routes::{self, Empty};
use claviger_keyapi::{
    KeyService as _, KeyServiceError, LeaseItem, ReleaseError, ServiceState, UnavailableReason,
};
use claviger_keyservice::{Limits, Unlock};
use common::raw::{self, Raw};
use common::{Epoch, Gateway, POLICY, World, ask, enrol};

/// Connections of one identity.
const SHARE: usize = 16;
/// Connections of strangers from one address.
const STRANGERS: usize = 32;

async fn revoke(operator: &KeyClient, name: &str) -> Result<RevokeAnswer, KeyServiceError> {
    let request =
        RevokeRequest { identity: format!("gateway:{name}").parse().unwrap(), since_ms: None, logs: vec![] };
    ask(operator, admin::REVOKE, &request).await
}

async fn freeze(operator: &KeyClient, target: FreezeTarget) -> Result<Empty, KeyServiceError> {
    ask(operator, admin::FREEZE, &FreezeRequest { target, reason: "a test".into() }).await
}

async fn status(operator: &KeyClient) -> AdminStatus {
    ask(operator, admin::STATUS, &Empty {}).await.unwrap()
}

/// As many connections as he gets, and keeps.
async fn fill(world: &World, folder: &str, count: usize) -> Vec<Raw> {
    let config = raw::config(world, Some(folder)).await;
    let mut held = Vec::new();
    for _ in 0..count {
        held.extend(raw::connect_with(world, &config).await.ok());
    }
    held
}

/// How many are open, once no more of them end.
async fn open(held: &[Raw], at_most: usize) -> usize {
    let count = || held.iter().filter(|one| one.is_open()).count();
    for _ in 0..100 {
        if count() <= at_most {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    count()
}

async fn world(connections_max: usize) -> World {
    let mut world = World::new().await;
    world.stop().await;
    world.config.limits = Limits { connections_max, ..Limits::default() };
    world.start().await.unwrap();
    world
}

#[tokio::test]
async fn one_gateway_takes_no_place_from_others_however_many_connections_it_makes() {
    let world = world(24).await;
    let full = world.enrol("full").await;
    let mut held = fill(&world, "full", 3 * SHARE).await;
    assert_eq!(open(&held, SHARE - 1).await, SHARE - 1, "with the one that was in use before");
    full.keys.session().await.unwrap();
    assert!(held.last().unwrap().is_open(), "it is the oldest that end");
    assert_eq!(held.last_mut().unwrap().try_ask(routes::STATUS, "{}").await, Some(200));
    let second = world.enrol("second").await;
    second.keys.session().await.unwrap();
    // With two of that kind all places of gateways are taken. Operators have others, and a third gateway gets one of theirs.
    let others = fill(&world, "second", 3 * SHARE).await;
    let counts = (open(&held, SHARE - 5).await, open(&others, SHARE - 5).await);
    assert_eq!(counts, (11, 11), "and one each that was in use before");
    assert_eq!(status(&world.operator()).await.state, ServiceState::Unlocked);
    let third = world.enrol("writer").await;
    third.keys.session().await.unwrap();
}

#[tokio::test]
async fn who_is_revoked_loses_his_connections_and_keeps_nobody_out() {
    let world = world(64).await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let held = fill(&world, "full", SHARE).await;
    let mut others = fill(&world, "second", 1).await;
    let operator = world.operator();
    status(&operator).await;
    revoke(&operator, "full").await.unwrap();
    assert_eq!(open(&held, 0).await, 0, "within seconds");
    // He comes again, more often than a minute allows to strangers, and stays.
    let again = fill(&world, "full", 310).await;
    assert!(open(&again, STRANGERS).await <= STRANGERS);
    let refused = full.keys.session().await.unwrap_err();
    assert!(matches!(refused, KeyServiceError::Unauthenticated { .. }), "he is told why: {refused}");
    let fresh = world.operator();
    assert_eq!(status(&fresh).await.state, ServiceState::Unlocked);
    freeze(&fresh, FreezeTarget::Everything).await.unwrap();
    assert_eq!(others[0].try_ask(routes::STATUS, "{}").await, Some(200), "others keep theirs");
    assert!(matches!(second.keys.session().await, Err(KeyServiceError::Frozen { .. })));
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let world = World::new().await;
    world.enrol("full").await;
    let (held, operators) = (fill(&world, "full", 3).await, fill(&world, "admin", 3).await);
    world.clock.advance(24 * 3_600_000 + 1);
    assert_eq!(open(&held, 0).await, 0);
    assert_eq!(open(&operators, 0).await, 3, "theirs last longer");
    world.clock.advance(90 * 24 * 3_600_000);
    assert_eq!(open(&operators, 0).await, 0);
}

#[tokio::test]
async fn a_locked_service_takes_gateways_as_its_database_says_and_operators_also_without_it() {
    let mut world = World::with(POLICY, Unlock::Operator).await;
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    let request = admin::UnlockRequest { passphrase: claviger_keyapi::secret::SecretText::new(passphrase) };
    let unlock = async |world: &World| {
        ask::<AdminStatus>(&world.operator(), admin::UNLOCK, &request).await.unwrap();
    };
    unlock(&world).await;
    world.enrol("full").await;
    world.enrol("second").await;
    revoke(&world.operator(), "second").await.unwrap();
    world.restart().await;
    // Until the database has been asked for the first time, gateways are strangers.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let held = fill(&world, "full", SHARE + 4).await;
    assert_eq!(open(&held, SHARE).await, SHARE);
    let mut revoked = fill(&world, "second", 1).await;
    let mut operators = fill(&world, "admin", 1).await;
    assert_eq!(revoked[0].try_ask(routes::CHECKPOINT, "{}").await, Some(401));
    // The database does not answer.
    world.database().execute("ALTER TABLE row RENAME TO row_away", []).unwrap();
    world.clock.advance(5_000);
    assert_eq!(open(&held, 0).await, 0, "whether they count is not known any more");
    assert_eq!(open(&operators, 0).await, 1);
    let mut late = fill(&world, "admin", 1).await;
    assert!(late[0].try_ask(admin::STATUS, "{}").await.is_some());
    let mut stranger = fill(&world, "full", 1).await;
    assert!(stranger[0].try_ask(routes::STATUS, "{}").await.is_some(), "as a stranger, who gets an answer");
    world.database().execute("ALTER TABLE row_away RENAME TO row", []).unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let again = fill(&world, "full", 2).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(open(&again, 0).await, 2);
    assert_eq!(operators[0].try_ask(admin::STATUS, "{}").await, Some(200));
    unlock(&world).await;
    world.gateway("full").await.keys.session().await.unwrap();
}

fn identity(name: &str) -> FreezeTarget {
    FreezeTarget::Identity(format!("gateway:{name}").parse().unwrap())
}

/// Records of this action with this outcome.
fn count(world: &World, action: &str, outcome: &str) -> usize {
    world.audit().iter().filter(|record| record["action"] == action && record["outcome"] == outcome).count()
}

/// When it may come again.
fn busy_for<T: std::fmt::Debug>(outcome: Result<T, KeyServiceError>) -> u64 {
    match outcome {
        Err(KeyServiceError::Unavailable { reason: UnavailableReason::Busy, retry_after_ms }) => {
            retry_after_ms
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_renews_once_a_minute_and_who_is_frozen_can_be_thawed_days_later() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let renew = async |keys: &KeyClient| match keys.renew().await {
        Ok(()) => Ok(()),
        Err(ClientError::Service(refusal)) => Err(refusal),
        Err(other) => panic!("{other}"),
    };
    renew(&full.keys).await.unwrap();
    world.clock.advance(15_000);
    let before = world.audit().len();
    for _ in 0..20 {
        assert_eq!(busy_for(renew(&full.keys).await), 45_000);
    }
    assert_eq!(world.audit().len(), before, "and that fills no log");
    renew(&second.keys).await.unwrap();
    freeze(&world.operator(), identity("full")).await.unwrap();
    for _ in 0..5 {
        world.clock.advance(11 * 3_600_000);
        renew(&full.keys).await.unwrap();
        busy_for(renew(&full.keys).await);
    }
    assert!(world.by_two(Action::Unfreeze { target: identity("full") }).await.unwrap().done);
    full.keys.session().await.unwrap();
}

#[tokio::test]
async fn a_gateway_binds_and_unbinds_so_often_in_a_minute_and_others_do_not_wait_for_it() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    for n in 0..150 {
        let id = full.keys.bind_bucket(&format!("b-{n}"), None).await.unwrap().value.bucket_id;
        full.keys.unbind_bucket(&format!("b-{n}"), &id).await.unwrap();
    }
    assert_eq!(busy_for(full.keys.bind_bucket("one-more", None).await), 60_000);
    let id = second.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    full.keys.bind_bucket("photos", None).await.expect("what is bound already changes nothing");
    assert_eq!(busy_for(full.keys.unbind_bucket("photos", &id).await), 60_000);
    world.clock.advance(60_000);
    full.keys.unbind_bucket("photos", &id).await.unwrap();
    assert_eq!(count(&world, "bind", "done") + count(&world, "unbind", "done"), 302);
}

/// Somebody who asks for everything over many connections, without a pause, and comes again when he is turned away.
struct Flood {
    asked: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

const CONNECTIONS: usize = 24;
const ASKED_AT_ONCE: usize = 4;

impl Flood {
    async fn begin(world: &Arc<World>, folder: &'static str, epoch: &Epoch) -> Self {
        let flood = Self { asked: Arc::default(), is_over: Arc::default() };
        let lease =
            serde_json::json!({"items": [{"epoch_id": epoch.id.to_string(), "record": null}]}).to_string();
        let (_, csr) = key_client::new_request().unwrap();
        let bodies = Arc::new([
            (routes::SESSION, "{}".to_owned()),
            (routes::LEASE, lease),
            (routes::RENEW, serde_json::to_string(&csr).unwrap()),
            (routes::BINDINGS, "{}".to_owned()),
            (routes::BIND, "{\"bucket\":\"flood\",\"keyset\":null}".to_owned()),
            (routes::UNBIND, "{\"bucket\":\"flood\",\"bucket_id\":\"flood#1\"}".to_owned()),
            (routes::REGISTER, "{\"record\":\"AAAA\"}".to_owned()),
            (routes::DERIVE, "{\"items\":[]}".to_owned()),
            (routes::CONSISTENCY, "{\"from\":0}".to_owned()),
            (routes::CHECKPOINT, "{\"checkpoint\":\"x\"}".to_owned()),
            (routes::WATCH, "{}".to_owned()),
            (routes::ENROL, "{}".to_owned()),
            (admin::FREEZE, "{}".to_owned()),
            (routes::STATUS, "{}".to_owned()),
        ]);
        let config = raw::config(world, Some(folder)).await;
        for number in 0..CONNECTIONS {
            let (world, config, bodies) = (Arc::clone(world), Arc::clone(&config), Arc::clone(&bodies));
            let (asked, is_over) = (Arc::clone(&flood.asked), Arc::clone(&flood.is_over));
            tokio::spawn(async move {
                let mut at = number;
                while !is_over.load(Ordering::Relaxed) {
                    let Ok(mut line) = raw::connect_with(&world, &config).await else {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        continue;
                    };
                    while !is_over.load(Ordering::Relaxed) && line.is_open() {
                        let some = (at..at + ASKED_AT_ONCE).map(|at| {
                            let (path, body) = &bodies[at % bodies.len()];
                            let asking = line.ask_once(path, body);
                            // A stream's answer is there once it begins.
                            async { tokio::time::timeout(Duration::from_secs(5), asking).await }
                        });
                        let answers = futures_util::future::join_all(some.collect::<Vec<_>>()).await;
                        asked.fetch_add(answers.iter().flatten().flatten().count(), Ordering::Relaxed);
                        at += ASKED_AT_ONCE;
                    }
                }
            });
        }
        flood
    }

    /// Until it was answered so often again.
    async fn goes_on(&self, count: usize) {
        let before = self.asked.load(Ordering::Relaxed);
        let went_on = async {
            while self.asked.load(Ordering::Relaxed) < before + count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), went_on).await.expect("the flood is no flood");
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// What others want meanwhile, each at the first try.
async fn others_are_served(world: &World, gateway: &Gateway, epoch: &Epoch) {
    for _ in 0..10 {
        let items = vec![LeaseItem { epoch_id: epoch.id.into(), record: None }];
        gateway.keys.lease(items).await.unwrap().value.remove(0).unwrap();
        assert_eq!(status(&world.operator()).await.state, ServiceState::Unlocked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_one_gateway_floods_every_route_another_gets_its_keys_and_an_operator_stops_what_he_wants() {
    let world = Arc::new(World::new().await);
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let epoch = second.seal_epoch();
    second.keys.register_epoch(&epoch.record).await.unwrap();
    let operator = world.operator();
    status(&operator).await;

    let flood = Flood::begin(&world, "full", &epoch).await;
    flood.goes_on(200).await;
    others_are_served(&world, &second, &epoch).await;
    freeze(&operator, identity("full")).await.unwrap();
    flood.goes_on(200).await;
    others_are_served(&world, &second, &epoch).await;
    assert!(matches!(full.keys.session().await, Err(KeyServiceError::Frozen { .. })));
    freeze(&operator, FreezeTarget::Keyset("default".into())).await.unwrap();
    assert!(
        world.by_two(Action::Unfreeze { target: FreezeTarget::Keyset("default".into()) }).await.unwrap().done
    );
    revoke(&operator, "full").await.unwrap();
    // As a stranger he is let in three hundred times a minute, which this clock does not end.
    flood.goes_on(50).await;
    others_are_served(&world, &second, &epoch).await;
    ask::<AdminStatus>(&operator, admin::LOCK, &Empty {}).await.unwrap();
    assert_eq!(status(&world.operator()).await.state, ServiceState::Locked);
    drop(flood);

    let by_full = |record: &&serde_json::Value| record["identity"] == "gateway:full";
    let audit = world.audit();
    let refused = audit.iter().filter(by_full).filter(|record| record["outcome"] == "refused").count();
    assert!(refused <= 600 + 10, "{refused} in the minute that this clock shows");
    assert_eq!(count(&world, "renew", "done"), 1);
    assert_eq!(count(&world, "bind", "done"), 1);
    assert_eq!(count(&world, "authenticate", "refused"), 10);
}

#[tokio::test]
async fn who_asks_and_does_not_read_fills_his_share_of_the_memory_and_no_more() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let long = "b".repeat(50);
    for n in 0..300 {
        full.keys.bind_bucket(&format!("{long}-{n}"), None).await.unwrap();
    }
    let mut held = Vec::new();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let mut line = raw::connect_deaf(&world, "full").await;
        for _ in 0..120 {
            let answer = line.ask_and_leave(routes::BINDINGS, "{}").await.unwrap();
            statuses.push(answer.status().as_u16());
            held.push(answer);
            if statuses.last() == Some(&503) {
                break;
            }
        }
        if statuses.last() == Some(&503) {
            break;
        }
    }
    assert_eq!(statuses.last(), Some(&503), "{} answers of that size wait in memory", statuses.len());
    assert!(statuses.len() > 100, "{}", statuses.len());
    let asked = full.keys.bindings().await;
    assert!(matches!(asked, Err(KeyServiceError::Unavailable { reason: UnavailableReason::Busy, .. })));
    assert_eq!(second.keys.bindings().await.unwrap().value.len(), 300);
    status(&world.operator()).await;
    // Once they are given up there is room again.
    drop(held);
    let has_room = async {
        while full.keys.bindings().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), has_room).await.expect("the room is not given back");
}

#[tokio::test]
async fn an_operator_who_reads_no_answers_can_still_stop_what_he_wants_and_loses_nothing_that_was_done() {
    let world = World::new().await;
    let text = format!("{POLICY}#{}\n", "x".repeat(40_000));
    assert!(world.by_two(Action::Policy { text }).await.unwrap().done);
    let (first, second) = (world.operator(), world.second_operator());
    let request = ProposeRequest { action: enrol("gateway:second", &["default"], false), ttl_s: None };
    let proposal: ProposalInfo = ask(&first, proposals::PROPOSE, &request).await.unwrap();
    let request = ProposalRequest { id: proposal.id };
    ask::<ApproveAnswer>(&second, proposals::APPROVE, &request).await.unwrap();

    let mut held = Vec::new();
    let mut is_full = false;
    while !is_full {
        let mut line = raw::connect_deaf(&world, "admin").await;
        for _ in 0..100 {
            let answer = line.ask_and_leave(admin::POLICY_SHOW, "{}").await.unwrap();
            is_full = answer.status().as_u16() == 503;
            held.push(answer);
            if is_full {
                break;
            }
        }
        assert!(held.len() < 500, "there is no end of it");
    }
    // Before it is done, not afterwards.
    busy_for(ask::<Collected>(&first, proposals::COLLECT, &request).await);
    let mut line = raw::connect(&world, Some("admin")).await;
    let freeze = FreezeRequest { target: FreezeTarget::Everything, reason: "theft".into() };
    let freeze = serde_json::to_string(&freeze).unwrap();
    assert_eq!(line.try_ask(admin::FREEZE, &freeze).await, Some(200));
    assert_eq!(line.try_ask(admin::STATUS, "{}").await, Some(200));
    assert_eq!(count(&world, "freeze", "done"), 1);
    drop((held, line));
    let collected = async {
        loop {
            match ask::<Collected>(&first, proposals::COLLECT, &request).await {
                Ok(collected) => return collected,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let collected = tokio::time::timeout(Duration::from_secs(10), collected).await.expect("it is lost");
    assert!(matches!(collected, Collected::EnrolToken(_)));
}

#[tokio::test]
async fn a_gateway_registers_so_many_epochs_in_a_minute_and_nobody_else_pays_for_it() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    for _ in 0..300 {
        full.keys.register_epoch(&full.seal_epoch().record).await.unwrap();
    }
    let (late, own) = (full.seal_epoch(), second.seal_epoch());
    assert_eq!(busy_for(full.keys.register_epoch(&late.record).await), 60_000);
    let item = |epoch: &Epoch| LeaseItem {
        epoch_id: epoch.id.into(),
        record: Some(claviger_keyapi::wire::Blob(epoch.record.clone())),
    };
    let mut both = second.keys.lease(vec![item(&late), item(&own)]).await.unwrap().value;
    assert!(both.pop().unwrap().is_ok(), "what it registers itself");
    assert_eq!(both.pop().unwrap().err(), Some(ReleaseError::TooManyEpochs), "whoever brings it");
    // However many there are, one row holds them all.
    let request = RevokeRequest {
        identity: "gateway:full".parse().unwrap(),
        since_ms: Some(claviger_env::Clock::now_ms(&*world.clock)),
        logs: vec![],
    };
    let answer: RevokeAnswer = ask(&world.operator(), admin::REVOKE, &request).await.unwrap();
    assert_eq!(answer.quarantined, 300);
    let rows = "SELECT count(*) FROM row WHERE kind = 'quarantine'";
    let rows: u32 = world.database().query_row(rows, [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1);
    assert_eq!(status(&world.operator()).await.quarantined, 300);
}
