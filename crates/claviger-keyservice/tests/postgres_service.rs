//! A key service whose rows lie in PostgreSQL: all that it does over SQLite, and what it does when the database goes away.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;
#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;
#[path = "common/relay.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod relay;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use claviger_keyapi::admin::{self, AdminStatus, RevokeAnswer, RevokeRequest};
use claviger_keyapi::proposals::{FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{
    KeyService as _, KeyServiceError, LeaseItem, ServiceState, UnavailableReason, WatchEvent,
};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::store::postgres::{PostgresConfig, Timing};
use claviger_keyservice::{Config, KeyService, ServiceError, Unlock, init};
use common::{POLICY, TestClock, World, ask};
use futures_util::StreamExt as _;
use postgres_server::{Database, Server};
use relay::{Loss, Relay};
use tokio::net::TcpListener;

async fn world(server: &Arc<Server>) -> World {
    let database = Database::new(server);
    World::on(Location::Postgres(database.config()), POLICY, Unlock::PassphraseFile).await
}

/// Lets the world's clock go on as fast as the real one, for deadlines that count on it.
struct Ticking(Arc<AtomicBool>);

impl Ticking {
    fn start(clock: &Arc<TestClock>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let (clock, until) = (Arc::clone(clock), Arc::clone(&ended));
        std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
                clock.advance(50);
            }
        });
        Self(ended)
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn lease(epoch: &common::Epoch) -> Vec<LeaseItem> {
    vec![LeaseItem { epoch_id: epoch.id.into(), record: None }]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_knows_outlives_it_on_the_server() {
    let server = blocking(Server::shared).await;
    let mut world = world(&server).await;
    let full = world.enrol("full").await;
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let token = full.begin_upload(&epoch, &bucket_id, "k");
    let item = claviger_keyapi::FinishedUpload {
        record: None,
        upload_token: token.clone(),
        bucket_id: bucket_id.clone(),
        key: "k".into(),
    };
    assert!(full.keys.finish_upload(vec![item]).await.unwrap()[0].is_ok());
    let unused = world.token("gateway:second").await;
    world.restart().await;
    assert!(!world.config.state_dir.join("keyservice.db").exists());
    let full = world.gateway("full").await;
    assert_eq!(full.keys.binding("photos").await.unwrap().value.unwrap().bucket_id, bucket_id);
    let leased = full.keys.lease(lease(&epoch)).await.unwrap().value;
    assert_eq!(leased[0].as_ref().unwrap().wek.expose(), epoch.wek.expose());
    claviger_gateway::key_client::enrol(&unused, &world.path("second"), world.clock.clone()).await.unwrap();
    let operator = world.operator();
    let status: AdminStatus = ask(&operator, admin::STATUS, &Empty {}).await.unwrap();
    assert_eq!((status.epochs, status.gateways, status.bindings), (1, 2, 1));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_edited_on_the_server_keeps_the_service_locked() {
    let database = blocking(|| Database::new(&Server::shared())).await;
    let location = Location::Postgres(database.config());
    let mut world = World::on(location, POLICY, Unlock::PassphraseFile).await;
    let _full = world.enrol("full").await;
    world.stop().await;
    database.sql(
        "UPDATE claviger.authorising_row SET body = convert_to(replace(convert_from(body, 'UTF8'), 'gateway:full', \
         'gateway:evil'), 'UTF8') WHERE kind = 'identity' AND convert_from(body, 'UTF8') LIKE '%gateway:full%'",
    );
    assert!(matches!(world.open(), Err(ServiceError::Tampered { kind: "identity", .. })));
}

/// Shows the rows as they are to whoever asks first, and from then on the identities of before and no freeze.
const TWO_FACES: &str = "\
CREATE SEQUENCE public.freezes; CREATE SEQUENCE public.identities; \
ALTER TABLE claviger.authorising_row RENAME TO truth; \
CREATE VIEW claviger.authorising_row AS \
  SELECT t.kind, t.id, coalesce(o.body, t.body) AS body, coalesce(o.mac, t.mac) AS mac \
  FROM (SELECT r.*, CASE r.kind WHEN 'freeze' THEN nextval('public.freezes') WHEN 'identity' THEN nextval('public.identities') \
        ELSE 0 END AS n FROM claviger.truth r) t \
  LEFT JOIN public.old o ON o.kind = t.kind AND o.id = t.id \
    AND t.n > (SELECT count(*) FROM claviger.truth WHERE kind = 'identity') \
  WHERE NOT (t.kind = 'freeze' AND t.n > 1)";

#[tokio::test(flavor = "multi_thread")]
async fn a_view_in_a_tables_place_that_shows_the_truth_once_undoes_nothing() {
    let database = blocking(|| Database::new(&Server::shared())).await;
    let mut world = World::on(Location::Postgres(database.config()), POLICY, Unlock::PassphraseFile).await;
    let full = world.enrol("full").await;
    database.sql("CREATE TABLE public.old AS SELECT * FROM claviger.authorising_row WHERE kind = 'identity'");
    let stolen =
        RevokeRequest { identity: "gateway:full".parse().unwrap(), since_ms: None, logs: Vec::new() };
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &stolen).await.unwrap();
    let everything = FreezeRequest { target: FreezeTarget::Everything, reason: "incident".into() };
    ask::<Empty>(&world.operator(), admin::FREEZE, &everything).await.unwrap();
    world.stop().await;
    database.sql(TWO_FACES);
    world.start().await.unwrap();
    let seen = "SELECT count(*) FROM claviger.authorising_row WHERE kind = 'freeze'";
    assert_eq!(database.sql(seen).trim(), "0", "who reads again sees no freeze");
    let status = ask::<AdminStatus>(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    assert_eq!((status.state, status.frozen.len()), (ServiceState::Unlocked, 1));
    let refused = full.keys.session().await.map(drop).unwrap_err();
    assert!(matches!(refused, KeyServiceError::Unauthenticated { .. }), "{refused}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_state_folder_and_one_database_make_one_service() {
    let server = blocking(Server::shared).await;
    let mut world = world(&server).await;
    // A copy of the folder has a lock of its own; the database has one as well.
    let mut copy = world.config.clone();
    copy.state_dir = world.path("copy");
    copy_folder(&world.config.state_dir, &copy.state_dir);
    let (clock, random) = (world.clock.clone(), Arc::clone(&world.random));
    let _ticking = Ticking::start(&world.clock);
    let opened = blocking(move || KeyService::open(copy, clock, random).map(drop)).await;
    assert!(
        matches!(&opened, Err(ServiceError::DatabaseSetUp { text, .. }) if text.contains("in use")),
        "{opened:?}"
    );
    world.stop().await;
    // The configuration may not change its mind about where the rows are.
    let mut sqlite = world.config.clone();
    sqlite.store = Location::Sqlite;
    let (clock, random) = (world.clock.clone(), Arc::clone(&world.random));
    let opened = KeyService::open(sqlite.clone(), clock, random).map(drop);
    assert!(
        matches!(&opened, Err(ServiceError::DatabaseSetUp { text, .. }) if text.contains("in PostgreSQL")),
        "{opened:?}"
    );
    let clock: Arc<dyn claviger_env::Clock> = world.clock.clone();
    let options = common::init_options(world.folder.path(), &[]);
    for config in [&sqlite, &world.config] {
        let again = init(config, &options, &clock, &world.random);
        assert!(matches!(again, Err(ServiceError::AlreadyInitialised(_))));
    }
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    claviger_keyservice::files::private_folder(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let path = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &path);
        } else {
            match std::fs::copy(entry.path(), path) {
                // A running service replaces files; what goes by another name meanwhile is not part of it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_silent_no_key_leaves_and_all_goes_on_when_it_is_back() {
    let server = blocking(Server::start).await;
    let mut world = world(&server).await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    full.keys.lease(lease(&epoch)).await.unwrap();
    let killed = Arc::clone(&server);
    blocking(move || killed.kill()).await;
    world.clock.advance(11_000);
    // The epoch is open in memory; the database would not be asked.
    let refused = full.keys.lease(lease(&epoch)).await;
    let store = |error: &KeyServiceError| {
        matches!(error, KeyServiceError::Unavailable { reason: UnavailableReason::Store, .. })
    };
    assert!(matches!(&refused, Err(error) if store(error)), "{refused:?}");
    let (state, problems) = world.service().health();
    assert_eq!(state, ServiceState::Unlocked);
    assert!(problems.iter().any(|problem| problem.contains("no answer for")), "{problems:?}");
    let back = Arc::clone(&server);
    blocking(move || back.again()).await;
    let _ticking = Ticking::start(&world.clock);
    for attempt in 0.. {
        match full.keys.lease(lease(&epoch)).await {
            Ok(_) => break,
            Err(error) => assert!(attempt < 100, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(world.service().health().1.is_empty());
    full.keys.register_epoch(&full.seal_epoch().record).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_killed_under_load_loses_nothing_that_was_acknowledged() {
    let server = blocking(Server::start).await;
    let mut world = world(&server).await;
    let full = Arc::new(world.enrol("full").await);
    let _ticking = Ticking::start(&world.clock);
    let ended = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for _ in 0..4 {
        let (full, ended) = (Arc::clone(&full), Arc::clone(&ended));
        writers.push(tokio::spawn(async move {
            let (mut acknowledged, mut released) = (Vec::new(), Vec::new());
            while !ended.load(Ordering::Relaxed) {
                let epoch = full.seal_epoch();
                if full.keys.register_epoch(&epoch.record).await.is_ok() {
                    acknowledged.push(epoch.id);
                    if full.keys.lease(lease(&epoch)).await.is_ok() {
                        released.push(epoch.id);
                    }
                }
            }
            (acknowledged, released)
        }));
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let server = Arc::clone(&server);
        blocking(move || {
            server.kill();
            server.again();
        })
        .await;
    }
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    ended.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut released) = (Vec::new(), Vec::new());
    for writer in writers {
        let (a, r) = writer.await.unwrap();
        acknowledged.extend(a);
        released.extend(r);
    }
    assert!(acknowledged.len() > 20 && released.len() > 20, "{} {}", acknowledged.len(), released.len());
    world.restart().await;
    let full = world.gateway("full").await;
    for id in &acknowledged {
        assert!(full.keys.epoch_record(*id).await.unwrap().is_some(), "{id} was acknowledged");
    }
    let recorded: HashSet<String> = world
        .audit()
        .iter()
        .filter(|record| record["action"] == "lease" && record["outcome"] == "released")
        .map(|record| record["epoch_id"].as_str().unwrap().to_owned())
        .collect();
    for id in &released {
        assert!(recorded.contains(&id.to_string()), "{id} was released");
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_replaced_drops_every_secret_and_locks_no_gateway() {
    let database = blocking(|| Database::new(&Server::shared())).await;
    let location = Location::Postgres(database.config());
    let mut world = World::on(location, POLICY, Unlock::PassphraseFile).await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let mut stream = full.keys.watch().await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Ok(WatchEvent::Hello { .. })));
    let _ticking = Ticking::start(&world.clock);
    database
        .sql("UPDATE claviger.holder SET process = decode('00', 'hex'), place = 'elsewhere', ended = false");
    database.break_sessions();
    let mut attempts = 0..100;
    while world.service().health().0 != ServiceState::Locked {
        assert!(attempts.next().is_some(), "it noticed nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let refused = full.keys.lease(lease(&epoch)).await;
    assert_eq!(refused.unwrap_err(), standby());
    while let Some(Ok(event)) = stream.next().await {
        assert!(!matches!(event, WatchEvent::Locked | WatchEvent::Revoked), "{event:?}");
    }
    let last: Vec<_> =
        world.audit().iter().map(|record| record["action"].as_str().unwrap().to_owned()).collect();
    assert!(last.contains(&"replaced".to_owned()), "{last:?}");
    let problems = world.service().health().1;
    assert!(problems.iter().any(|problem| problem.contains("took the database over")), "{problems:?}");
    // Nobody unlocks it again.
    let service = world.service().clone();
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    let unlocked = blocking(move || service.unlock(&passphrase)).await;
    assert!(matches!(unlocked, Err(ServiceError::DatabaseSetUp { .. })), "{unlocked:?}");
    world.stop().await;
}

fn standby() -> KeyServiceError {
    KeyServiceError::Unavailable { reason: UnavailableReason::Standby, retry_after_ms: 1_000 }
}

/// A copy of the world's folder on "another machine", with the same rows.
fn moved(world: &World, server: PostgresConfig, listener: &TcpListener) -> Config {
    let state_dir = world.path("moved");
    copy_folder(&world.config.state_dir, &state_dir);
    let checkpoint_file = world.path("moved.checkpoint");
    std::fs::copy(&world.config.checkpoint_file, &checkpoint_file).unwrap();
    let listen = listener.local_addr().unwrap();
    Config { state_dir, checkpoint_file, listen, store: Location::Postgres(server), ..world.config.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_leaves_a_service_that_was_replaced_for_the_one_that_replaced_it() {
    let database = blocking(|| Database::new(&Server::shared())).await;
    let server = PostgresConfig { timing: Timing::tenth(), ..database.config() };
    let (relay, through) = Relay::before(&server);
    let mut world = World::on(Location::Postgres(through), POLICY, Unlock::PassphraseFile).await;
    let enrolled = world.enrol("full").await;
    let epoch = enrolled.seal_epoch();
    enrolled.keys.register_epoch(&epoch.record).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let both = format!("{},{}", world.config.listen, listener.local_addr().unwrap());
    // Its connection and its stream are with the first, and stay there.
    let full = world.gateway_at("full", &both).await;
    let mut stream = full.keys.watch().await.unwrap();
    assert!(matches!(stream.next().await.unwrap(), Ok(WatchEvent::Hello { .. })));
    let _ticking = Ticking::start(&world.clock);
    relay.lose(Loss::Partition);
    database.break_sessions();
    let config = moved(&world, server, &listener);
    let (clock, random) = (world.clock.clone(), Arc::clone(&world.random));
    let second = blocking(move || KeyService::open(config, clock, random)).await.unwrap();
    assert_eq!(second.health().0, ServiceState::Unlocked);
    tokio::spawn(async move { second.serve(listener, std::future::pending()).await });
    relay.lose(Loss::Nothing);
    let mut attempts = 0..100;
    while world.service().health().0 != ServiceState::Locked {
        assert!(attempts.next().is_some(), "it noticed nothing");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(enrolled.keys.lease(lease(&epoch)).await.unwrap_err(), standby());
    let leased = full.keys.lease(lease(&epoch)).await.unwrap().value;
    assert_eq!(leased[0].as_ref().unwrap().wek.expose(), epoch.wek.expose());
    while let Some(Ok(event)) = stream.next().await {
        assert!(!matches!(event, WatchEvent::Locked | WatchEvent::Revoked), "{event:?}");
    }
    world.stop().await;
}
