//! What is peculiar to PostgreSQL: who may hold the database, servers that are not fit, connections that break.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;
#[path = "common/relay.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod relay;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_keyservice::ServiceError;
use claviger_keyservice::store::postgres::{PostgresConfig, PostgresStore, Server as Reached, Timing};
use claviger_keyservice::store::{Change, Kind, Role, Row, Store as _};
use postgres_server::{Database, Server};
use relay::{Loss, Relay};

const INSTANCE: &str = "00112233445566778899aabbccddeeff";

/// The system's clock, put forward by hand.
#[derive(Default)]
struct Later(AtomicU64);

impl Clock for Later {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.0.load(Ordering::Relaxed)
    }
    fn boot_ms(&self) -> u64 {
        SystemClock.boot_ms() + self.0.load(Ordering::Relaxed)
    }
}

fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn open_as(
    config: &PostgresConfig,
    state_dir: &Path,
    instance: &str,
    clock: &Arc<dyn Clock>,
) -> Result<PostgresStore, ServiceError> {
    let random = OsRandom::new(Arc::clone(clock)).unwrap();
    PostgresStore::open(config, state_dir, instance, clock, &random)
}

/// A database with a service in it, and the folder of that service.
struct Service {
    database: Database,
    folder: tempfile::TempDir,
}

impl Service {
    fn on(server: &Arc<Server>) -> Self {
        let database = Database::new(server);
        PostgresStore::begin(&database.config(), INSTANCE, &system()).unwrap().finish().unwrap();
        Self { database, folder: tempfile::tempdir().unwrap() }
    }

    fn new() -> Self {
        Self::on(&Server::shared())
    }

    fn open(&self) -> Result<PostgresStore, ServiceError> {
        open_as(&self.database.config(), self.folder.path(), INSTANCE, &system())
    }
}

fn put(id: &str) -> [Change; 1] {
    [Change::Put(Kind::Binding, Row { id: id.into(), body: b"{}".to_vec(), mac: vec![1; 32] })]
}

fn ids(store: &PostgresStore) -> Vec<String> {
    store.rows(Kind::Binding).unwrap().into_iter().map(|row| row.id).collect()
}

/// Waits for what happens by itself within seconds.
fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    for _ in 0..150 {
        if happened() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{what} did not happen within 15 s");
}

fn refusal(outcome: Result<PostgresStore, ServiceError>) -> String {
    match outcome {
        Err(error @ ServiceError::DatabaseSetUp { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("it opened"),
    }
}

#[test]
fn one_database_serves_one_process_at_a_time() {
    let service = Service::new();
    let first = service.open().unwrap();
    let text = refusal(service.open());
    assert!(text.contains("another key service works with it") && text.contains("remedy: "), "{text}");
    first.apply(&put("a")).unwrap();
    drop(first);
    assert_eq!(ids(&service.open().unwrap()), ["a"], "and is free when that one ended");
}

#[test]
fn what_was_begun_and_not_finished_is_no_service_and_what_exists_is_never_overwritten() {
    let database = Database::new(&Server::shared());
    let folder = tempfile::tempdir().unwrap();
    let begin = || PostgresStore::begin(&database.config(), INSTANCE, &system());
    drop(begin().unwrap());
    let open = || open_as(&database.config(), folder.path(), INSTANCE, &system());
    assert!(refusal(open()).contains("holds no key service"));
    begin().unwrap().finish().unwrap();
    open().unwrap().apply(&put("a")).unwrap();
    assert!(refusal(begin()).contains("never overwritten"));
    assert_eq!(ids(&open().unwrap()), ["a"]);
}

#[test]
fn a_database_opens_only_with_its_own_state_folder() {
    let service = Service::new();
    let other = "ff112233445566778899aabbccddeeff";
    let text = refusal(open_as(&service.database.config(), service.folder.path(), other, &system()));
    assert!(text.contains("another state folder"), "{text}");
}

#[test]
fn a_session_that_ends_is_replaced_and_nothing_acknowledged_is_lost() {
    let service = Service::new();
    let store = service.open().unwrap();
    for n in 0..4 {
        store.apply(&put(&n.to_string())).unwrap();
        service.database.break_sessions();
    }
    assert_eq!(ids(&store), ["0", "1", "2", "3"]);
    assert_eq!(store.problem(), None);
}

#[test]
fn a_commit_whose_answer_is_lost_is_repeated_and_counts_once() {
    let service = Service::new();
    let (relay, config) = Relay::before(&service.database.config());
    let store = open_as(&config, service.folder.path(), INSTANCE, &system()).unwrap();
    for loss in [Loss::CommitOnce, Loss::AnswerOfCommitOnce] {
        relay.lose(loss);
        store.apply(&put(&format!("{loss:?}"))).unwrap();
    }
    assert_eq!(ids(&store), ["AnswerOfCommitOnce", "CommitOnce"]);
}

#[test]
fn what_fails_for_good_may_be_there_and_is_said_to_have_failed() {
    let service = Service::new();
    let (relay, config) = Relay::before(&service.database.config());
    let clock = Arc::new(Later::default());
    let shared: Arc<dyn Clock> = clock.clone();
    let store = Arc::new(open_as(&config, service.folder.path(), INSTANCE, &shared).unwrap());
    relay.lose(Loss::AnswerOfCommitAndAllAfter);
    let writer = std::thread::spawn({
        let store = Arc::clone(&store);
        move || store.apply(&put("unknown"))
    });
    eventually("the commit", || service.database.sql("SELECT id FROM claviger.authorising_row") == "unknown");
    // Past every deadline.
    clock.0.store(60_000, Ordering::Relaxed);
    assert!(matches!(writer.join().unwrap(), Err(ServiceError::Database(_))));
    assert!(store.check_ours().is_err(), "nor is anything released");
    assert!(store.problem().unwrap().contains("no answer for"), "{:?}", store.problem());
    relay.lose(Loss::Nothing);
    eventually("the next session", || store.check_ours().is_ok());
    assert_eq!(ids(&store), ["unknown"]);
    assert_eq!(store.problem(), None);
}

#[test]
fn a_connection_that_falls_silent_is_replaced_within_seconds() {
    let service = Service::new();
    let (relay, config) = Relay::before(&service.database.config());
    let store = open_as(&config, service.folder.path(), INSTANCE, &system()).unwrap();
    let backend = "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database \
                   WHERE locktype = 'advisory' AND datname = current_database()";
    let first = service.database.sql(backend);
    // The server hears nothing of it: its side of the old connection stays open, and holds the lock.
    relay.lose(Loss::SilenceOfTheOld);
    eventually("another session", || ![first.as_str(), ""].contains(&service.database.sql(backend).as_str()));
    store.apply(&put("a")).unwrap();
    assert_eq!(ids(&store), ["a"]);
}

#[test]
fn a_server_that_is_killed_and_comes_back_is_used_again_without_hand_work() {
    let server = Server::start();
    let service = Service::on(&server);
    let clock = Arc::new(Later::default());
    let shared: Arc<dyn Clock> = clock.clone();
    let store = open_as(&service.database.config(), service.folder.path(), INSTANCE, &shared).unwrap();
    store.apply(&put("before")).unwrap();
    server.kill();
    eventually("a red health", || store.problem().is_some());
    assert!(store.check_ours().is_ok(), "for ten seconds nobody else can have it");
    clock.0.store(11_000, Ordering::Relaxed);
    assert!(matches!(store.check_ours(), Err(ServiceError::Database(_))));
    server.again();
    eventually("the next session", || store.check_ours().is_ok());
    store.apply(&put("since")).unwrap();
    assert_eq!(ids(&store), ["before", "since"]);
    assert_eq!(store.problem(), None);
}

#[test]
fn who_was_replaced_while_he_was_away_never_works_again() {
    let service = Service::new();
    let database = &service.database;
    let (relay, config) = Relay::before(&database.config());
    let first = open_as(&config, service.folder.path(), INSTANCE, &system()).unwrap();
    first.apply(&put("of the first")).unwrap();
    relay.lose(Loss::Everything);
    database.break_sessions();
    // The same place: that folder's lock says that the first is dead. (Here it lies, to have both.)
    let second = service.open().unwrap();
    second.apply(&put("of the second")).unwrap();
    drop(second);
    relay.lose(Loss::Nothing);
    eventually(
        "the discovery",
        || matches!(first.check_ours(), Err(ServiceError::DatabaseSetUp { text, .. }) if text.contains("took the database over")),
    );
    assert!(first.apply(&put("too late")).is_err());
    drop(first);
    assert_eq!(ids(&service.open().unwrap()), ["of the first", "of the second"]);
}

#[test]
fn a_process_elsewhere_waits_until_the_one_that_vanished_can_release_nothing() {
    let service = Service::new();
    let (relay, config) = Relay::before(&service.database.config());
    let first = open_as(&config, service.folder.path(), INSTANCE, &system()).unwrap();
    relay.lose(Loss::Everything);
    service.database.break_sessions();
    let elsewhere = tempfile::tempdir().unwrap();
    let second = open_as(&service.database.config(), elsewhere.path(), INSTANCE, &system()).unwrap();
    assert!(first.check_ours().is_err(), "the first still released when the second was open");
    second.apply(&put("a")).unwrap();
    drop(second);
    let begun_ms = SystemClock.boot_ms();
    drop(service.open().unwrap());
    assert!(SystemClock.boot_ms() - begun_ms < 5_000, "nobody waits for one that said that it ended");
}

#[test]
fn a_server_that_loses_what_it_acknowledged_is_refused() {
    let server = Server::start();
    let service = Service::on(&server);
    let store = service.open().unwrap();
    for setting in ["fsync", "full_page_writes"] {
        server.sql("postgres", &format!("ALTER SYSTEM SET {setting} = off"));
        server.sql("postgres", "SELECT pg_reload_conf()");
        eventually("a red health", || store.problem().is_some_and(|text| text.contains("power fails")));
        server.sql("postgres", &format!("ALTER SYSTEM RESET {setting}"));
        server.sql("postgres", "SELECT pg_reload_conf()");
        eventually("a green health", || store.problem().is_none());
    }
    drop(store);
    server.sql("postgres", "ALTER SYSTEM SET fsync = off");
    server.sql("postgres", "SELECT pg_reload_conf()");
    eventually("a refusal", || service.open().is_err());
    assert!(refusal(service.open()).contains("power fails"));
}

#[test]
fn a_setting_of_the_role_does_not_make_commits_weaker() {
    let service = Service::new();
    let name = &service.database.name;
    service.database.sql(&format!("ALTER DATABASE {name} SET synchronous_commit = off"));
    let store = service.open().unwrap();
    store.apply(&put("a")).unwrap();
    assert_eq!(service.database.sql("SHOW synchronous_commit"), "off", "for everybody else it is");
}

#[test]
fn a_read_only_database_and_one_of_another_encoding_are_refused_with_a_remedy() {
    let service = Service::new();
    let name = &service.database.name;
    service.database.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    assert!(refusal(service.open()).contains("read-only"));
    let server = Server::shared();
    server.sql("postgres", "CREATE DATABASE ascii ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    let config = PostgresConfig { database: "ascii".into(), ..service.database.config() };
    assert!(refusal(PostgresStore::begin(&config, INSTANCE, &system())).contains("not UTF8"));
    let config = PostgresConfig { database: "never_made".into(), ..service.database.config() };
    assert!(refusal(PostgresStore::begin(&config, INSTANCE, &system())).contains("CREATE DATABASE"));
}

#[test]
fn tables_of_another_release_are_refused() {
    let service = Service::new();
    service.database.sql("UPDATE claviger.schema_version SET version = 99");
    assert!(refusal(service.open()).contains("another release"));
}

/// A role with a password, which owns the database, over TCP.
fn over_tls(service: &Service, password: &str) -> (tempfile::TempDir, PostgresConfig) {
    let database = &service.database;
    let role = format!("{}_role", database.name);
    database.sql(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'right'; ALTER DATABASE {} OWNER TO {role}; \
         ALTER SCHEMA claviger OWNER TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA claviger TO {role}",
        database.name
    ));
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    claviger_keyservice::files::write_secret_new(&password_file, format!("{password}\n").as_bytes()).unwrap();
    let info = &database.server.info;
    let server = Reached::Tls { host: "127.0.0.1".into(), ca_file: info.ca_file.clone() };
    let config =
        PostgresConfig { server, user: role, password_file: Some(password_file), ..database.config() };
    (folder, config)
}

#[test]
fn over_a_network_there_is_tls_and_a_password() {
    let service = Service::new();
    let (_files, config) = over_tls(&service, "right");
    let store = open_as(&config, service.folder.path(), INSTANCE, &system()).unwrap();
    store.apply(&put("a")).unwrap();
    let seen = "SELECT version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename LIKE '%_role' \
                AND datname = current_database()";
    assert_eq!(service.database.sql(seen), "TLSv1.3");
}

#[test]
fn a_wrong_password_is_refused_with_a_remedy_and_stands_in_no_message() {
    let service = Service::new();
    let (_files, config) = over_tls(&service, "wrong-secret");
    let text = refusal(open_as(&config, service.folder.path(), INSTANCE, &system()));
    assert!(text.contains("password_file") && !text.contains("wrong-secret"), "{text}");
}

fn other_ca(folder: &Path) -> PathBuf {
    let path = folder.join("other-ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    std::fs::write(&path, certificate.pem()).unwrap();
    path
}

#[test]
fn a_server_that_the_named_ca_did_not_sign_gets_nothing() {
    let service = Service::new();
    let (files, mut config) = over_tls(&service, "right");
    let server = |ca_file| Reached::Tls { host: "127.0.0.1".into(), ca_file };
    config.server = server(other_ca(files.path()));
    let error = open_as(&config, service.folder.path(), INSTANCE, &system()).unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
    let empty = files.path().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    config.server = server(empty);
    assert!(refusal(open_as(&config, service.folder.path(), INSTANCE, &system())).contains("no certificate"));
}

#[test]
fn a_server_without_tls_hears_neither_name_nor_password() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut first = [0u8; 8];
        client.read_exact(&mut first).unwrap();
        client.write_all(b"N").unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        (first, rest)
    });
    let service = Service::new();
    let (_files, config) = over_tls(&service, "right");
    let outcome = open_as(&PostgresConfig { port, ..config }, service.folder.path(), INSTANCE, &system());
    assert!(outcome.unwrap_err().to_string().contains("TLS"));
    let (first, rest) = heard.join().unwrap();
    assert_eq!(first, [0, 0, 0, 8, 4, 210, 22, 47], "the question whether there is TLS");
    assert!(rest.is_empty(), "{rest:?}");
}

/// Ready to take over, with its folder.
fn standby(service: &Service, timing: Timing) -> (PostgresStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let random = OsRandom::new(system()).unwrap();
    let config = PostgresConfig { timing, ..service.database.config() };
    let store = PostgresStore::open_joined(&config, folder.path(), INSTANCE, &system(), &random).unwrap();
    store.stand_ready(true);
    (store, folder)
}

/// A second of releasing, and a successor that waits three.
fn long_wait() -> Timing {
    Timing { take_over_after: Duration::from_secs(3), ..Timing::tenth() }
}

/// The first holds the database, and vanishes without a word.
fn vanished(service: &Service) -> PostgresStore {
    let (relay, config) = Relay::before(&service.database.config());
    let config = PostgresConfig { timing: long_wait(), ..config };
    let first = open_as(&config, service.folder.path(), INSTANCE, &system()).unwrap();
    relay.lose(Loss::Everything);
    service.database.break_sessions();
    first
}

fn holder(service: &Service) -> String {
    service.database.sql("SELECT encode(process, 'hex') FROM claviger.holder").trim().to_owned()
}

#[test]
fn a_takeover_whose_answer_is_lost_is_waited_for_all_the_same() {
    let service = Service::new();
    let _first = vanished(&service);
    let former = holder(&service);
    let (second, _folder) = standby(&service, long_wait());
    eventually("the takeover's beginning", || holder(&service) != former);
    let written_ms = SystemClock.boot_ms();
    // It has written its name, and does not get to hear that.
    service.database.break_sessions();
    eventually("the takeover", || second.role() == Role::Active);
    let waited_ms = SystemClock.boot_ms() - written_ms;
    assert!(waited_ms > 2_000, "it found its own name and waited for {waited_ms} ms only");
    assert!(waited_ms < 10_000, "and not anew from the beginning: {waited_ms} ms");
    second.apply(&put("a")).unwrap();
}

#[test]
fn a_server_whose_clock_is_set_forward_in_the_middle_of_a_takeover_shortens_no_wait() {
    let service = Service::new();
    let _first = vanished(&service);
    let former = holder(&service);
    let (second, _folder) = standby(&service, long_wait());
    eventually("the takeover's beginning", || holder(&service) != former);
    let written_ms = SystemClock.boot_ms();
    // By the server's clock the wait is over, and the second attempt finds it so.
    service.database.sql("UPDATE claviger.holder SET quiet_at = clock_timestamp() - interval '1 hour'");
    service.database.break_sessions();
    eventually("the takeover", || second.role() == Role::Active);
    let waited_ms = SystemClock.boot_ms() - written_ms;
    assert!(waited_ms > 2_000, "it went by the server's clock alone, and waited for {waited_ms} ms only");
    assert!(waited_ms < 10_000, "{waited_ms} ms");
}

#[test]
fn a_replica_that_waits_at_its_takeover_is_not_taken_for_one_that_hangs() {
    let service = Service::new();
    let _first = vanished(&service);
    let former = holder(&service);
    let replicas = [standby(&service, long_wait()), standby(&service, long_wait())];
    let mut holders = BTreeSet::new();
    eventually("a takeover", || {
        holders.insert(holder(&service));
        replicas.iter().any(|(store, _)| store.role() == Role::Active)
    });
    holders.remove(&former);
    assert_eq!(holders.len(), 1, "one ended the session of the other, which waited");
}

#[test]
fn a_server_that_does_not_say_who_is_silent_is_refused() {
    let service = Service::new();
    let name = &service.database.name;
    service.database.sql(&format!("ALTER DATABASE {name} SET track_activities = off"));
    let refused = refusal(service.open());
    assert!(refused.contains("track_activities"), "{refused}");
}
