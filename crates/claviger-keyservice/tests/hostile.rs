//! The service under someone who wants more than he was given: several processes, edited files, slow clients, the moment
//! between a decision and its answer.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use claviger_gateway::key_client::{self, ClientError, KeyClient};
use claviger_keyapi::admin::{
    self, AdminStatus, ConfirmKeysetRequest, CreateKeysetRequest, KeysetInfo, KeysetShares, PolicyInForce,
    RevokeAnswer, RevokeRequest,
};
use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, Collected, ProposalInfo, ProposalRequest, ProposeRequest,
};
use claviger_keyapi::routes::{self, Empty};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{KeyService as _, KeyServiceError, LeaseItem, Role, ServiceState};
use claviger_keyservice::{ServiceError, Unlock, init};
use common::{POLICY, World, ask, enrol, raw};
use futures_util::future::join_all;

async fn enrol_operator(world: &World, name: &str) -> std::sync::Arc<KeyClient> {
    let token = world.token_for(enrol(&format!("admin:{name}"), &[], false)).await.unwrap();
    let folder = world.path(name);
    key_client::enrol_as(Role::Admin, &token, &folder, world.clock.clone()).await.unwrap();
    KeyClient::open_operator("", &folder, world.clock.clone()).unwrap()
}

/// What an operator proposes.
async fn propose(operator: &KeyClient, action: Action) -> Result<ProposalInfo, KeyServiceError> {
    ask(operator, proposals::PROPOSE, &ProposeRequest { action, ttl_s: None }).await
}

fn revoke(identity: &str) -> RevokeRequest {
    RevokeRequest { identity: identity.parse().unwrap(), since_ms: None, logs: vec![] }
}

#[tokio::test]
async fn locking_works_without_the_file_that_a_locked_service_shows() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    std::fs::remove_file(world.config.state_dir.join("locked-tls.json")).unwrap();
    ask::<AdminStatus>(&world.operator(), admin::LOCK, &Empty {}).await.unwrap();
    assert_eq!(world.service().health().0, ServiceState::Locked);
    assert_eq!(full.keys.session().await.unwrap_err(), KeyServiceError::Locked);
    // What it shows was made anew: an operator reaches it and could unlock it.
    let status: AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    assert_eq!(status.state, ServiceState::Locked);
}

#[tokio::test]
async fn locking_works_even_if_nothing_can_be_shown_afterwards() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let file = world.config.state_dir.join("locked-tls.json");
    std::fs::remove_file(&file).unwrap();
    // A folder in the way: the file can't be made again.
    std::fs::create_dir_all(file.join("in the way")).unwrap();
    assert!(ask::<AdminStatus>(&world.operator(), admin::LOCK, &Empty {}).await.is_err());
    assert_eq!(world.service().health().0, ServiceState::Locked);
    assert!(full.keys.session().await.is_err());
    assert_eq!(world.last_audit()["action"], "lock");
}

#[tokio::test]
async fn who_is_revoked_while_his_body_arrives_gets_nothing() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let body = serde_json::json!({"items": [{"epoch_id": epoch.id.to_string(), "record": null}]}).to_string();
    let (most, last) = body.split_at(body.len() - 1);
    let mut client = raw::connect(&world, Some("full")).await;
    let (status, answer) = client.begin(routes::LEASE, most).end(last).await;
    assert!(status == 200 && answer.contains("wek"), "{answer}");
    let begun = client.begin(routes::LEASE, most);
    let other = client.begin(routes::BIND, "{\"bucket\":\"photos\",\"keyset\":null");
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &revoke("gateway:full")).await.unwrap();
    let (status, answer) = begun.end(last).await;
    assert!(status == 401 && !answer.contains("wek"), "{answer}");
    assert_eq!(other.end("}").await.0, 401, "nor does he change anything");
    let second = world.enrol("second").await;
    assert!(second.keys.binding("photos").await.unwrap().value.is_none());
}

#[tokio::test]
async fn whose_body_arrives_after_the_lock_gets_nothing() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let body = serde_json::json!({"items": [{"epoch_id": epoch.id.to_string(), "record": null}]}).to_string();
    let (most, last) = body.split_at(body.len() - 1);
    let begun = raw::connect(&world, Some("full")).await.begin(routes::LEASE, most);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    ask::<AdminStatus>(&world.operator(), admin::LOCK, &Empty {}).await.unwrap();
    assert_eq!(begun.end(last).await.0, 503);
}

/// Every path that the interface's crate names, from its source: a route that someone adds is among them.
fn every_route() -> Vec<&'static str> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../claviger-keyapi/src");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources =
        files.filter(|path| path.is_file()).map(|path| &*std::fs::read_to_string(path).unwrap().leak());
    let lines = sources.flat_map(str::lines).filter(|line| line.starts_with("pub const "));
    let paths = lines.filter_map(|line| line.split('"').nth(1)).filter(|path| path.starts_with("/v1/"));
    let paths: Vec<&str> = paths.collect();
    assert!(paths.len() >= 48 && paths.contains(&routes::LEASE) && paths.contains(&admin::BUDGET_LIST));
    paths
}

fn is_for_operators(path: &str) -> bool {
    path.starts_with("/v1/admin/")
}

#[tokio::test]
async fn without_a_certificate_every_route_but_enrolment_is_closed() {
    let world = World::new().await;
    let mut stranger = raw::connect(&world, None).await;
    let before = world.audit().len();
    let open = [routes::ENROL, routes::RECOVER];
    for path in every_route() {
        let wanted = if open.contains(&path) { 400 } else { 401 };
        assert_eq!(stranger.ask(path, "{}").await.0, wanted, "{path}");
    }
    assert_eq!(world.audit().len(), before, "strangers fill no log");
    // And each kind of certificate opens its own half only.
    world.enrol("full").await;
    let mut gateway = raw::connect(&world, Some("full")).await;
    let mut operator = raw::connect(&world, Some("admin")).await;
    let for_anyone = [routes::STATUS, routes::RENEW, routes::ENROL, routes::RECOVER, routes::CHECKPOINT];
    for path in every_route().into_iter().filter(|path| !for_anyone.contains(path)) {
        let other = if is_for_operators(path) { &mut gateway } else { &mut operator };
        assert_eq!(other.ask(path, "{}").await.0, 403, "{path}");
    }
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
}

/// A connection of someone who may use this route. One for each: HTTP/2 ends one over which 1,024 frames of bodies came after
/// they were refused, which bounds what such a client costs.
async fn connect_for(world: &World, path: &str) -> raw::Raw {
    raw::connect(world, Some(if is_for_operators(path) { "admin" } else { "full" })).await
}

#[tokio::test]
async fn every_route_bounds_what_it_reads_and_how_long_it_waits() {
    let mut world = World::new().await;
    world.enrol("full").await;
    let batches = [routes::LEASE, routes::DERIVE, routes::CONTINUE, routes::FINISH, admin::REVOKE];
    for path in every_route() {
        let len = if batches.contains(&path) { routes::REQUEST_LEN_MAX } else { 64 << 10 };
        let (status, answer) = connect_for(&world, path).await.ask(path, &" ".repeat(len + 1)).await;
        assert!(status == 400 && answer.contains("longer than"), "{path}: {status} {answer}");
    }
    // What is no request breaks nothing.
    let but = [routes::WATCH, admin::LOCK];
    for path in every_route().into_iter().filter(|path| !but.contains(path)) {
        let mut client = connect_for(&world, path).await;
        for junk in ["", "[]", "null", "{\"items\":[{}]}", "{\"identity\":7}", "\u{0}", &"[".repeat(10_000)] {
            let (status, answer) = client.ask(path, junk).await;
            assert!(status < 500, "{path} {junk:.20}: {status} {answer}");
        }
    }
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
    world.stop().await;
    world.config.limits.request_timeout_s = 1;
    world.start().await.unwrap();
    // Bodies that never end, many at once.
    let began = tokio::time::Instant::now();
    let mut begun = Vec::new();
    let (mut gateway, mut operator) =
        (connect_for(&world, routes::LEASE).await, connect_for(&world, admin::LOCK).await);
    for path in every_route() {
        let client = if is_for_operators(path) { &mut operator } else { &mut gateway };
        begun.push((path, client.begin(path, "{")));
    }
    for (path, request) in begun {
        let (status, answer) = request.wait().await;
        assert!(status == 503 && answer.contains("unavailable"), "{path}: {status} {answer}");
    }
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_certificate_that_counts_no_more_can_not_fill_the_log() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &revoke("gateway:full")).await.unwrap();
    let before = world.audit().len();
    for _ in 0..50 {
        assert!(matches!(full.keys.session().await, Err(KeyServiceError::Unauthenticated { .. })));
    }
    assert_eq!(world.audit().len() - before, 10);
    world.clock.advance(60_000);
    full.keys.session().await.unwrap_err();
    let last = world.last_audit();
    assert_eq!((&last["action"], &last["outcome"]), (&"authenticate".into(), &"refused".into()));
    // The service itself may have been faster, with a record of its own.
    let told: u32 = world.audit()[before..]
        .iter()
        .filter_map(|record| {
            record["reason"]
                .as_str()?
                .split("; ")
                .find_map(|part| part.split(" more were").next()?.parse::<u32>().ok())
        })
        .sum::<u32>();
    assert_eq!(told, 40, "none is lost");
}

#[tokio::test]
async fn a_second_process_touches_nothing() {
    let mut world = World::new().await;
    let log = world.config.state_dir.join("audit/00000000000000000000.jsonl");
    // The first process is in the middle of a line.
    let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
    file.write_all(b"{\"index\":2,\"salt\":\"00").unwrap();
    let before = std::fs::read(&log).unwrap();
    assert!(matches!(world.open(), Err(ServiceError::AlreadyRunning(_))));
    assert_eq!(std::fs::read(&log).unwrap(), before);
    std::fs::remove_file(world.config.state_dir.join("keyservice.db")).unwrap();
    let clock: std::sync::Arc<dyn claviger_env::Clock> = world.clock.clone();
    let options = common::init_options(world.folder.path(), &[&[], &[]]);
    let made = init(&world.config, &options, &clock, &world.random);
    assert!(matches!(made, Err(ServiceError::AlreadyRunning(_))), "{made:?}");
    world.stop().await;
    assert!(matches!(world.open(), Err(ServiceError::NotInitialised(_))), "the lock went with its holder");
}

#[tokio::test]
async fn a_keyset_row_that_was_edited_is_not_confirmed() {
    let world = World::new().await;
    let operator = world.operator();
    let create = CreateKeysetRequest { name: "archive".into(), shares: 3, threshold: 2 };
    let made: KeysetShares = ask(&operator, admin::KEYSET_CREATE, &create).await.unwrap();
    let edited = world
        .database()
        .execute(
            "UPDATE row SET body = CAST(replace(CAST(body AS TEXT), '\"archive\"', '\"default\"') AS BLOB) WHERE kind='keyset' AND id=?1",
            [made.keyset_id.to_string()],
        )
        .unwrap();
    assert_eq!(edited, 1);
    let full = world.enrol("full").await;
    let shares = made.shares.iter().map(|s| SecretText::new(s.expose().to_owned())).collect();
    let request = ConfirmKeysetRequest { keyset_id: made.keyset_id, shares };
    assert!(ask::<KeysetInfo>(&operator, admin::KEYSET_CONFIRM, &request).await.is_err());
    let now = full.keys.session().await.unwrap().value.keysets.remove(0).keyset_id;
    assert_eq!(now, full.keyset().keyset_id);
}

#[tokio::test]
async fn a_ca_that_was_swapped_before_the_start_keeps_the_service_locked() {
    let mut world = World::with(POLICY, Unlock::Operator).await;
    world.stop().await;
    let other = World::new().await;
    let get = |world: &World| {
        let query = "SELECT body FROM row WHERE kind='service' AND id='ca'";
        world.database().query_row(query, [], |row| row.get::<_, Vec<u8>>(0)).unwrap()
    };
    let put = |body: &[u8]| {
        let update = "UPDATE row SET body=?1 WHERE kind='service' AND id='ca'";
        assert_eq!(world.database().execute(update, [body]).unwrap(), 1);
    };
    let (ours, foreign) = (get(&world), get(&other));
    put(&foreign);
    let service = world.open().unwrap();
    put(&ours);
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    let unlocked = service.unlock(&passphrase);
    assert!(matches!(unlocked, Err(ServiceError::Tampered { kind: "service", .. })), "{unlocked:?}");
    assert_eq!(service.health().0, ServiceState::Locked);
}

#[tokio::test]
async fn strangers_who_sit_do_not_keep_the_enrolled_out() {
    let mut world = World::new().await;
    world.stop().await;
    world.config.limits.connections_max = 8;
    world.start().await.unwrap();
    let mut idle = Vec::new();
    for _ in 0..16 {
        idle.push(tokio::net::TcpStream::connect(world.config.listen).await.unwrap());
    }
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    let patience = std::time::Duration::from_secs(5);
    let operator = world.operator();
    let status = ask::<AdminStatus>(&operator, admin::STATUS, &Empty {});
    tokio::time::timeout(patience, status).await.unwrap().unwrap();
}

#[tokio::test]
async fn failed_attempts_to_enrol_neither_fill_the_log_nor_stop_who_has_a_token() {
    let world = World::new().await;
    let token = world.token("gateway:full").await;
    let before = world.audit().len();
    let mut stranger = raw::connect(&world, None).await;
    let forged = serde_json::json!({"identity": "gateway:full", "secret": "x", "csr": ""}).to_string();
    for _ in 0..25 {
        assert_eq!(stranger.ask(routes::ENROL, &forged).await.0, 401);
    }
    // Four for the token that `connect` ordered: proposed, approved, collected, made.
    assert_eq!(world.audit().len() - before, 5);
    key_client::enrol(&token, &world.path("full"), world.clock.clone()).await.unwrap();
    world.clock.advance(60_000);
    assert_eq!(stranger.ask(routes::ENROL, &forged).await.0, 401);
    assert!(world.last_audit()["reason"].as_str().unwrap().contains("24 more"), "{}", world.last_audit());
    for _ in 0..40 {
        stranger.ask(routes::ENROL, &forged).await;
    }
    assert_eq!(stranger.ask(routes::ENROL, &forged).await.0, 503, "this source waits");
}

#[tokio::test]
async fn the_one_that_unbound_is_waited_for_too_and_one_alone_waits_for_nothing() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let bind = async |gateway: &common::Gateway| gateway.keys.bind_bucket("photos", None).await;
    let id = bind(&full).await.unwrap().value.bucket_id;
    full.keys.unbind_bucket("photos", &id).await.unwrap();
    let id = bind(&full).await.unwrap().value.bucket_id;
    let second = world.enrol("second").await;
    world.clock.advance(60_000);
    full.keys.binding("photos").await.unwrap();
    full.keys.unbind_bucket("photos", &id).await.unwrap();
    assert_eq!(bind(&second).await.unwrap_err(), KeyServiceError::BucketClosing { retry_after_ms: 30_000 });
    world.clock.advance(30_000);
    bind(&second).await.unwrap();
}

#[tokio::test]
async fn an_operator_without_the_verb_is_written_down() {
    let world = World::new().await;
    let watcher = enrol_operator(&world, "watcher").await;
    let before = world.audit().len();
    let refused = propose(&watcher, enrol("admin:first", &[], true)).await;
    assert!(matches!(refused, Err(KeyServiceError::Denied { .. })));
    let last = world.last_audit();
    assert_eq!((&last["action"], &last["outcome"]), (&"propose".into(), &"refused".into()));
    let locked = ask::<AdminStatus>(&watcher, admin::LOCK, &Empty {}).await;
    assert!(matches!(locked, Err(KeyServiceError::Denied { .. })));
    assert_eq!(world.audit().len() - before, 2);
    let last = world.last_audit();
    assert_eq!((&last["action"], &last["identity"]), (&"authorise".into(), &"admin:watcher".into()));
}

#[tokio::test]
async fn nobody_makes_an_operator_who_may_do_more_than_himself() {
    let policy = POLICY.replace("verbs = [\"inspect\"]", "verbs = [\"enrol\"]");
    let world = World::with(&policy, Unlock::PassphraseFile).await;
    let watcher = enrol_operator(&world, "watcher").await;
    let refused = propose(&watcher, enrol("admin:first", &[], true)).await;
    assert!(matches!(refused, Err(KeyServiceError::Denied { .. })));
    // Nor does he approve one.
    let proposal = propose(&world.operator(), enrol("admin:first", &[], true)).await.unwrap();
    let request = ProposalRequest { id: proposal.id };
    let refused = ask::<ApproveAnswer>(&watcher, proposals::APPROVE, &request).await;
    assert!(matches!(refused, Err(KeyServiceError::Denied { .. })));
    propose(&watcher, enrol("gateway:full", &["default"], false)).await.unwrap();
}

#[tokio::test]
async fn with_an_identity_die_the_tokens_for_it_and_by_it() {
    let policy = POLICY.replace("verbs = [\"inspect\"]", "verbs = [\"enrol\"]");
    let world = World::with(&policy, Unlock::PassphraseFile).await;
    let (operator, watcher) = (world.operator(), enrol_operator(&world, "watcher").await);
    world.enrol("full").await;
    let collect = async |client: &KeyClient, id: String| {
        let collected: Collected = ask(client, proposals::COLLECT, &ProposalRequest { id }).await.unwrap();
        let Collected::EnrolToken(answer) = collected else { panic!("no token") };
        answer.token
    };
    let approve = async |client: &KeyClient, id: &str| {
        let request = ProposalRequest { id: id.to_owned() };
        ask::<ApproveAnswer>(client, proposals::APPROVE, &request).await.unwrap();
    };
    let mut tokens =
        vec![SecretText::new(world.token_for(enrol("gateway:full", &["default"], true)).await.unwrap())];
    let by_watcher = propose(&watcher, enrol("gateway:second", &["default"], false)).await.unwrap();
    approve(&operator, &by_watcher.id).await;
    tokens.push(collect(&watcher, by_watcher.id).await);
    let with_watcher = propose(&operator, enrol("gateway:narrow", &["default"], false)).await.unwrap();
    approve(&watcher, &with_watcher.id).await;
    tokens.push(collect(&operator, with_watcher.id).await);
    let waiting = propose(&watcher, enrol("gateway:late", &["default"], false)).await.unwrap();
    let kept = world.token("gateway:writer").await;
    ask::<RevokeAnswer>(&operator, admin::REVOKE, &revoke("gateway:full")).await.unwrap();
    ask::<RevokeAnswer>(&operator, admin::REVOKE, &revoke("admin:watcher")).await.unwrap();
    for (n, token) in tokens.iter().enumerate() {
        let folder = world.path(&format!("late-{n}"));
        let error = key_client::enrol(token.expose(), &folder, world.clock.clone()).await.unwrap_err();
        assert!(matches!(error, ClientError::Service(KeyServiceError::Unauthenticated { .. })), "{error}");
    }
    key_client::enrol(&kept, &world.path("writer"), world.clock.clone()).await.unwrap();
    let request = ProposalRequest { id: waiting.id };
    let gone = ask::<ApproveAnswer>(&operator, proposals::APPROVE, &request).await;
    assert!(matches!(gone, Err(KeyServiceError::Conflict { .. })), "his proposals die with him");
}

#[tokio::test]
async fn a_service_is_not_made_with_a_policy_that_others_can_write_and_names_its_policy_at_every_start() {
    let mut world = World::new().await;
    let policy: PolicyInForce = ask(&world.operator(), admin::POLICY_SHOW, &Empty {}).await.unwrap();
    world.restart().await;
    let start = world.audit().into_iter().rev().find(|record| record["action"] == "start").unwrap();
    assert_eq!(start["subject"], policy.sha256);
    std::fs::set_permissions(world.path("policy.toml"), std::fs::Permissions::from_mode(0o666)).unwrap();
    world.config.state_dir = world.path("another");
    world.config.checkpoint_file = world.path("another.checkpoint");
    let clock: std::sync::Arc<dyn claviger_env::Clock> = world.clock.clone();
    let options = common::init_options(world.folder.path(), &[&[], &[]]);
    let made = init(&world.config, &options, &clock, &world.random);
    assert!(matches!(made, Err(ServiceError::WritableByOthers { .. })), "{made:?}");
}

#[tokio::test]
async fn no_order_makes_a_record_that_the_next_start_can_not_read() {
    let mut world = World::new().await;
    let long = "a".repeat(65_400);
    assert!(propose(&world.operator(), enrol("gateway:a", &[&long], false)).await.is_err());
    world.restart().await;
    world.enrol("full").await;
}

#[tokio::test]
async fn requests_that_wait_for_the_same_failed_connection_fail_with_it() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    world.stop().await;
    // Takes connections and says nothing.
    let silent = tokio::net::TcpListener::bind(world.config.listen).await.unwrap();
    let began = tokio::time::Instant::now();
    let sessions = futures_util::future::join_all((0..6).map(|_| full.keys.session())).await;
    assert!(sessions.iter().all(Result::is_err));
    assert!(began.elapsed() < std::time::Duration::from_secs(9), "{:?}", began.elapsed());
    drop(silent);
    world.start().await.unwrap();
    full.keys.session().await.unwrap();
}

#[tokio::test]
async fn an_epoch_row_that_was_edited_opens_nothing() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    assert_eq!(
        world.database().execute("UPDATE epoch SET first_seen_ms = first_seen_ms - 1", []).unwrap(),
        1
    );
    // What was opened before is in memory.
    world.restart().await;
    let record = Some(claviger_keyapi::wire::Blob(epoch.record));
    let item = LeaseItem { epoch_id: epoch.id.into(), record };
    assert_eq!(full.keys.lease(vec![item]).await.unwrap_err(), KeyServiceError::Internal);
}

#[tokio::test]
async fn what_is_over_does_not_stay_in_the_database() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let rows = |kind: &str| -> u32 {
        world
            .database()
            .query_row("SELECT count(*) FROM row WHERE kind = ?1", [kind], |row| row.get(0))
            .unwrap()
    };
    for bucket in ["one", "two"] {
        let id = full.keys.bind_bucket(bucket, None).await.unwrap().value.bucket_id;
        full.keys.unbind_bucket(bucket, &id).await.unwrap();
        world.token("gateway:second").await;
        assert_eq!((rows("closing"), rows("token")), (1, 1), "{bucket}");
        world.clock.advance(3_601_000);
    }
}

#[tokio::test]
async fn an_epoch_that_is_not_registered_when_its_gateway_is_revoked_never_will_be() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let epoch = full.seal_epoch();
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &revoke("gateway:full")).await.unwrap();
    let item =
        LeaseItem { epoch_id: epoch.id.into(), record: Some(claviger_keyapi::wire::Blob(epoch.record)) };
    let lease = second.keys.lease(vec![item]).await.unwrap().value.remove(0);
    assert_eq!(lease.unwrap_err(), claviger_keyapi::ReleaseError::EpochRevoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_whole_bodies_keeps_his_connection_however_often_he_is_refused_before_they_are_read() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    for _ in 0..30 {
        let calls = (0..50).map(|_| full.keys.transport().call::<_, Empty>(admin::STATUS, &Empty {}));
        for outcome in join_all(calls).await {
            let outcome = outcome.unwrap_err();
            assert!(matches!(outcome, ClientError::Service(KeyServiceError::Denied { .. })), "{outcome}");
        }
        full.keys.session().await.unwrap();
    }
}
