//! A standby's log in other hands: what it witnessed can't be cut off, and nobody else's lines count.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;
#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use claviger_env::Clock;
use claviger_gateway::key_client::{KeyClient, Witness};
use claviger_keyapi::ServiceState;
use claviger_keyapi::admin::{self, AdminStatus, RollbackAccepted};
use claviger_keyapi::proposals::{Action, FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::Empty;
use claviger_keyservice::audit_log::AuditFolder;
use claviger_keyservice::audit_log::states::{States, compare};
use claviger_keyservice::custody::unlock::hsm::make_key;
use claviger_keyservice::join::{JoinOptions, join};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::store::postgres::{PostgresConfig, Server as Reached, Timing};
use claviger_keyservice::{Config, KeyService, Limits, Unlock};
use common::{POLICY, SOFTHSM_CONF, TestClock, World, ask, softhsm};
use postgres_server::{Database, Server};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How old a word may be: replicas look every two seconds, and answers take two looks.
const WORD_MS: u64 = 12_000;

/// A service whose second replica stands by.
struct Pair {
    world: World,
    database: Database,
    /// The second replica's.
    config: Config,
    standby: Option<Running>,
}

struct Running {
    service: KeyService,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Pair {
    async fn new() -> Self {
        Self::unlocked_by(Unlock::PassphraseFile).await
    }

    async fn unlocked_by(unlock: Unlock) -> Self {
        let database = tokio::task::spawn_blocking(|| Database::new(&Server::shared())).await.unwrap();
        // The holder may be slow for a while on a busy machine, and is not to be replaced for it.
        let timing = Timing {
            hold_ms: 4_000,
            take_over_after: Duration::from_millis(5_200),
            heartbeat: Duration::from_millis(300),
            patience_ms: 1_000,
            join_wait_ms: 0,
            word_ms: WORD_MS,
        };
        let store = Location::Postgres(PostgresConfig { timing, ..database.config() });
        let clock = TestClock::running();
        let mut world = World::at(clock, Limits::default(), store, POLICY, unlock).await;
        if unlock == Unlock::Pkcs11 {
            serves(&world).await;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config {
            state_dir: world.path("second-state"),
            checkpoint_file: world.path("second.checkpoint"),
            listen: listener.local_addr().unwrap(),
            ..world.config.clone()
        };
        drop(listener);
        let options = JoinOptions {
            name: "second".to_owned(),
            share_files: Vec::new(),
            passphrase_file: (unlock == Unlock::PassphraseFile).then(|| world.path("passphrase")),
        };
        let clock: Arc<dyn Clock> = world.clock.clone();
        let (joining, random) = (config.clone(), Arc::clone(&world.random));
        let joined = tokio::task::spawn_blocking(move || join(&joining, &options, &clock, &random));
        let request = joined.await.unwrap().unwrap().request;
        assert!(world.by_two(Action::AddReplica { request }).await.unwrap().done);
        // It gets a key to cosign with at its first unlock among several.
        world.restart().await;
        serves(&world).await;
        Self { world, database, config, standby: None }
    }

    async fn start(&mut self) {
        let (config, clock) = (self.config.clone(), self.world.clock.clone());
        let random = Arc::clone(&self.world.random);
        let opened = tokio::task::spawn_blocking(move || KeyService::open(config, clock, random));
        let service = opened.await.unwrap().unwrap();
        let listener = TcpListener::bind(self.config.listen).await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let serving = service.clone();
        let served = tokio::spawn(async move {
            serving.serve(listener, async { drop(stopped.await) }).await.unwrap();
        });
        self.standby = Some(Running { service, stop, served });
    }

    async fn stop(&mut self) {
        let Running { service, stop, served } = self.standby.take().unwrap();
        drop(stop);
        served.await.unwrap();
        tokio::task::spawn_blocking(|| drop(service)).await.unwrap();
    }

    fn service(&self) -> &KeyService {
        &self.standby.as_ref().unwrap().service
    }

    /// Until the second replica is so and has this to say of itself, or nothing.
    async fn is(&self, wanted: ServiceState, says: &str) {
        for _ in 0..150 {
            let (state, problems) = self.service().health();
            if state == wanted && (says.is_empty() || problems.iter().any(|text| text.contains(says))) {
                return;
            }
            assert!(
                wanted == ServiceState::Unlocked || state != ServiceState::Unlocked,
                "it took over: {problems:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not {wanted:?} with \"{says}\" within 15 s: {:?}", self.service().health());
    }

    /// Until it would take over.
    async fn is_ready(&self) {
        for _ in 0..200 {
            if self.service().health() == (ServiceState::Standby, Vec::new()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("not ready to take over within 20 s: {:?}", self.service().health());
    }

    /// Until it is known that it does not take over, although nobody else serves.
    async fn stays_out(&self, says: &str) {
        // Longer than it waits for an active one that is gone.
        for _ in 0..30 {
            self.is(ServiceState::Standby, says).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn both_accept(&self) {
        let address = self.config.listen.to_string();
        for name in ["admin", "second-admin"] {
            let operator =
                KeyClient::open_operator(&address, &self.world.path(name), self.world.clock.clone()).unwrap();
            ask::<admin::RollbackAccepted>(&operator, admin::ACCEPT_ROLLBACK, &Empty {}).await.unwrap();
        }
    }

    /// States of which both logs tell, held against each other.
    fn states(&self) -> States {
        let folders = [self.world.config.state_dir.join("audit"), self.audit()];
        compare(&folders.map(|folder| AuditFolder::new(&folder))).unwrap()
    }

    fn audit(&self) -> PathBuf {
        self.config.state_dir.join("audit")
    }

    fn log_file(&self) -> PathBuf {
        self.audit().join(format!("{:020}.jsonl", 0))
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(self.log_file()).unwrap().lines().map(str::to_owned).collect()
    }

    /// How many of its records it has witnessed states in, once there are so many.
    async fn has_witnessed(&self, count: usize) -> usize {
        for _ in 0..200 {
            let at = |lines: &[String]| {
                let mut found = (0..lines.len()).filter(|n| lines[*n].contains("\"action\":\"witness\""));
                found.nth(count - 1)
            };
            if let Some(at) = at(&self.lines()) {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("no {count} states were witnessed within 20 s: {:?}", self.service().health());
    }

    /// The database's rows as they are now.
    fn keep_rows(&self) {
        self.database.sql("CREATE TABLE old_rows AS TABLE claviger.authorising_row");
        self.database.sql("CREATE TABLE old_epochs AS TABLE claviger.epoch");
    }

    /// Puts those rows back, and lets nothing lie there that replicas told each other.
    fn put_rows_back(&self) {
        for (table, old) in [("authorising_row", "old_rows"), ("epoch", "old_epochs")] {
            self.database.sql(&format!("DELETE FROM claviger.{table}"));
            self.database.sql(&format!("INSERT INTO claviger.{table} SELECT * FROM {old}"));
        }
        self.database.sql("DELETE FROM claviger.notice");
    }
}

/// Stays locked and shows all of this as one problem, until two operators accept it.
async fn serves_once_both_accept(world: &World, shown: &[&str]) {
    let is_it = |problem: &String| shown.iter().all(|part| problem.contains(part));
    for _ in 0..150 {
        if world.service().health().1.iter().any(is_it) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (state, problems) = world.service().health();
    assert!(state != ServiceState::Unlocked && problems.iter().any(is_it), "{state:?}: {problems:?}");
    for operator in [world.operator(), world.second_operator()] {
        ask::<admin::RollbackAccepted>(&operator, admin::ACCEPT_ROLLBACK, &Empty {}).await.unwrap();
    }
    serves(world).await;
}

/// Until the first replica works with the rows.
async fn serves(world: &World) {
    for _ in 0..150 {
        if world.service().health().0 == ServiceState::Unlocked {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the first replica does not serve within 15 s: {:?}", world.service().health());
}

/// What a replica remembers of the only other one; what is just being written has another name.
fn witnessed_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    entries.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_none())
}

fn covered(note: &Path) -> usize {
    fs::read_to_string(note).unwrap().lines().nth(1).unwrap().parse().unwrap()
}

async fn freeze(world: &World) {
    let request = FreezeRequest { target: FreezeTarget::Everything, reason: String::new() };
    ask::<Empty>(&world.operator(), admin::FREEZE, &request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_standby_witnessed_cannot_be_cut_off() {
    let mut pair = Pair::new().await;
    let joined = fs::read(pair.audit().join("checkpoint")).unwrap();
    let joined_len = covered(&pair.audit().join("checkpoint"));
    pair.start().await;
    pair.has_witnessed(1).await;
    pair.keep_rows();
    freeze(&pair.world).await;
    let witnessed = pair.has_witnessed(2).await;
    // Under checkpoints at once, here and outside; the other replica has seen them soon.
    let seen = pair.world.config.state_dir.join("witnessed");
    // A machine that does much else takes its time.
    for _ in 0..600 {
        let size = witnessed_in(&seen).map_or(0, |note| covered(&note));
        if size > witnessed && covered(&pair.config.checkpoint_file) > witnessed {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let by_the_other = witnessed_in(&seen).unwrap();
    for note in [pair.audit().join("checkpoint"), pair.config.checkpoint_file.clone(), by_the_other] {
        assert!(covered(&note) > witnessed, "{}: {witnessed}", note.display());
    }
    let cosigned = AuditFolder::new(&pair.audit()).cosigned().unwrap();
    assert!(cosigned.len() <= 1);
    pair.stop().await;
    assert_eq!(covered(&pair.config.checkpoint_file), pair.lines().len(), "an orderly stop covers all");
    pair.world.stop().await;

    // Whoever has database and the folder of its log cuts the log to what it was when it joined.
    let kept: String = pair.lines().iter().take(joined_len).map(|line| format!("{line}\n")).collect();
    fs::remove_dir_all(pair.audit().join("tile")).unwrap();
    fs::write(pair.log_file(), kept).unwrap();
    fs::write(pair.audit().join("checkpoint"), joined).unwrap();
    drop(fs::remove_dir_all(pair.audit().join("cosigned")));
    pair.put_rows_back();
    pair.start().await;
    pair.is(ServiceState::Standby, "remembers").await;
    // Longer than it waits for an active one that is gone.
    tokio::time::sleep(Duration::from_secs(3)).await;
    pair.is(ServiceState::Standby, "remembers").await;
    let remembered = covered(&pair.config.checkpoint_file);
    assert!(remembered > witnessed, "what contradicts is not overwritten");
    takes_over_once_two_operators_accept_it(&pair).await;
    pair.stop().await;
}

/// A standby that is contradicted, while nobody serves.
async fn takes_over_once_two_operators_accept_it(pair: &Pair) {
    let address = pair.config.listen.to_string();
    let (first, second) = (pair.world.operator_at(&address), pair.world.second_operator_at(&address));
    for _ in 0..2 {
        // Twice the same one is one.
        let accepted: RollbackAccepted = ask(&first, admin::ACCEPT_ROLLBACK, &Empty {}).await.unwrap();
        assert_eq!((accepted.by.len(), accepted.needed), (1, 2));
    }
    // Longer than it takes to take over.
    tokio::time::sleep(Duration::from_secs(3)).await;
    pair.is(ServiceState::Standby, "remembers").await;
    let accepted: RollbackAccepted = ask(&second, admin::ACCEPT_ROLLBACK, &Empty {}).await.unwrap();
    assert_eq!(accepted.by.len(), 2);
    serves_at_last(pair).await;
    let records: Vec<String> = pair.lines();
    let told = records.iter().filter(|line| line.contains("\"action\":\"rollback-accepted\""));
    let told: Vec<_> = told.collect();
    assert!(told.len() == 1 && told[0].contains("admin:first, admin:second"), "{told:?}");
    assert!(told[0].contains("remembers") && told[0].contains("\"seal\":\""), "{told:?}");
    let status: AdminStatus = ask(&first, admin::STATUS, &Empty {}).await.unwrap();
    assert!(status.frozen.is_empty(), "what the rollback undid has to be repeated");
}

/// Until the second replica serves, whatever it says before.
async fn serves_at_last(pair: &Pair) {
    for _ in 0..300 {
        if pair.service().health().0 == ServiceState::Unlocked {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it does not serve within 30 s: {:?}", pair.service().health());
}

/// A token with the key that wraps the master; the HSM's library finds it by the environment of this process.
fn softhsm_in(folder: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let tokens = folder.join("tokens");
    fs::create_dir(&tokens).unwrap();
    let conf = folder.join("softhsm2.conf");
    let text = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    fs::write(&conf, text).unwrap();
    let pin = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(folder.join("pin"));
    std::io::Write::write_all(&mut pin.unwrap(), b"4711\n").unwrap();
    let install = "which softhsm2-util || { root=; [ \"$(id -u)\" = 0 ] || root=sudo; $root apt-get update -q && \
                   DEBIAN_FRONTEND=noninteractive $root apt-get install -y -q --no-install-recommends softhsm2; }";
    assert!(Command::new("sh").args(["-c", install]).output().unwrap().status.success(), "softhsm2");
    let made = Command::new("softhsm2-util")
        .args("--init-token --free --so-pin 7777 --pin 4711 --label".split(' '))
        .arg("claviger test")
        .env(SOFTHSM_CONF, &conf)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The scenario runs in a process of its own, whose environment names the token.
#[test]
fn a_replica_joins_and_takes_over_with_an_hsm_and_without_it_it_waits() {
    if std::env::var_os(SOFTHSM_CONF).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(Box::pin(a_pair_with_an_hsm()));
    }
    let folder = tempfile::tempdir().unwrap();
    softhsm_in(folder.path());
    let itself = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_replica_joins_and_takes_over_with_an_hsm_and_without_it_it_waits",
            "--nocapture",
        ])
        .env(SOFTHSM_CONF, folder.path().join("softhsm2.conf"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&itself.stdout);
    let errors = String::from_utf8_lossy(&itself.stderr);
    assert!(itself.status.success() && said.contains("1 passed"), "{said}{errors}");
}

async fn a_pair_with_an_hsm() {
    make_key(&softhsm()).unwrap();
    let mut pair = Pair::unlocked_by(Unlock::Pkcs11).await;
    pair.start().await;
    pair.has_witnessed(1).await;
    pair.is_ready().await;
    // It was unlocked in advance: a token that is gone at the takeover keeps nobody out.
    let (tokens, away) =
        (softhsm().pin_file.with_file_name("tokens"), softhsm().pin_file.with_file_name("away"));
    fs::rename(&tokens, &away).unwrap();
    fs::create_dir(&tokens).unwrap();
    pair.world.stop().await;
    serves_at_last(&pair).await;
    let status: AdminStatus =
        ask(&pair.world.operator_at(&pair.config.listen.to_string()), admin::STATUS, &Empty {})
            .await
            .unwrap();
    assert_eq!(status.state, ServiceState::Unlocked);
    pair.stop().await;

    // One that starts without it stays locked, and takes over by itself when it is back.
    pair.start().await;
    for _ in 0..20 {
        assert_ne!(pair.service().health().0, ServiceState::Unlocked);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fs::remove_dir(&tokens).unwrap();
    fs::rename(&away, &tokens).unwrap();
    serves_at_last(&pair).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_believes_no_line_that_it_did_not_write() {
    let mut pair = Pair::new().await;
    pair.start().await;
    pair.has_witnessed(1).await;
    pair.stop().await;
    let text = fs::read_to_string(pair.log_file()).unwrap();
    let count = text.lines().count();
    let add = |record: &str| {
        let line = format!("{{\"index\":{count},\"salt\":\"{:032x}\",\"record\":{record}}}\n", 7);
        fs::write(pair.log_file(), text.clone() + &line).unwrap();
    };
    // It used to say that the database is older than that.
    add("{\"v\":1,\"time_ms\":1,\"request_id\":\"0\",\"action\":\"authenticate\",\"outcome\":\"refused\",\
         \"state_seq\":99999999,\"state\":\"00\"}");
    let covered_before = covered(&pair.config.checkpoint_file);
    pair.start().await;
    pair.is(ServiceState::Standby, &format!("record {count} of the audit log")).await;
    assert_eq!(covered(&pair.config.checkpoint_file), covered_before, "it signs nothing");
    pair.stop().await;
    fs::write(pair.log_file(), &text).unwrap();
    pair.start().await;
    // Its log is in order, so it takes over.
    pair.is_ready().await;
    pair.world.stop().await;
    pair.is(ServiceState::Unlocked, "").await;
    let operator = pair.world.operator_at(&pair.config.listen.to_string());
    let status: AdminStatus = ask(&operator, admin::STATUS, &Empty {}).await.unwrap();
    assert_eq!(status.state, ServiceState::Unlocked);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_replicas_one_whose_checkpoint_is_lost_goes_on_if_two_operators_accept_it() {
    let mut pair = Pair::new().await;
    let world = &mut pair.world;
    world.stop().await;
    let audit = world.config.state_dir.join("audit");
    fs::remove_file(audit.join("checkpoint")).unwrap();
    fs::remove_dir_all(audit.join("tile")).unwrap();
    // Which of the logs it is say its records.
    world.start().await.unwrap();
    serves_once_both_accept(world, &["has lost its checkpoint"]).await;
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_accept_no_more_than_what_they_were_told_of_and_all_of_it_is_written_down() {
    let mut pair = Pair::new().await;
    let world = &mut pair.world;
    world.stop().await;
    // Nobody vouches for its log, nor for the rows that it is shown.
    fs::remove_file(&world.config.checkpoint_file).unwrap();
    fs::remove_file(world.config.state_dir.join("served")).unwrap();
    world.start().await.unwrap();
    serves_once_both_accept(world, &["nobody outside has shown a checkpoint", "can't be certain"]).await;
    for (action, what) in [("rollback-accepted", "nobody outside"), ("present-accepted", "can't be certain")]
    {
        let records: Vec<_> = world.audit().into_iter().filter(|record| record["action"] == action).collect();
        assert_eq!(records.len(), 1, "{action}");
        assert!(records[0]["what"].as_str().unwrap().contains(what), "{action}");
        assert_eq!(records[0]["subject"], "admin:first, admin:second");
    }
    world.stop().await;
    let states = pair.states();
    assert!(states.anew.len() == 1 && states.is_one_history(), "{states:?}");
}

/// What the administrator of the database alone can do to a replica that is off, or locked, for a while: everything that was done
/// since is gone, and each row is one that the service wrote.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_was_off_takes_nothing_over_alone_and_two_operators_can_accept_it() {
    let mut pair = Pair::new().await;
    let enrolled = pair.world.enrol("full").await;
    let witness = |address: &str| {
        let keys = KeyClient::open(address, &pair.world.path("full"), pair.world.clock.clone()).unwrap();
        Witness::new(keys, &pair.world.path("memory"), pair.world.clock.clone())
    };
    drop(enrolled);
    let at_first = witness(&pair.world.config.listen.to_string());
    let at_second = witness(&pair.config.listen.to_string());
    pair.start().await;
    pair.has_witnessed(1).await;
    pair.is_ready().await;
    pair.stop().await;
    pair.keep_rows();
    freeze(&pair.world).await;
    at_first.look().await.unwrap();
    pair.world.stop().await;
    pair.put_rows_back();

    pair.start().await;
    pair.stays_out("can't be certain").await;
    pair.both_accept().await;
    pair.is(ServiceState::Unlocked, "").await;
    // It counts on above everything that the other one can have counted, so that gateways follow, and an auditor can tell.
    at_second.look().await.unwrap();
    let states = pair.states();
    assert_eq!(states.anew.len(), 1);
    assert!(states.anew[0] >= common::WALL_CLOCK_MS && states.is_one_history(), "{states:?}");
    let accepted = pair.lines().into_iter().find(|line| line.contains("\"present-accepted\"")).unwrap();
    assert!(accepted.contains("can't be certain") && accepted.contains("admin:second"), "{accepted}");
    pair.stop().await;
}

/// A second server, with a copy of the database as it is now, in which somebody else seems to serve.
struct Copy {
    server: Arc<Server>,
    socket: PathBuf,
    holder: std::process::Child,
}

impl Copy {
    fn of(pair: &Pair) -> Self {
        let (server, name) = (Server::start(), &pair.database.name);
        server.sql("postgres", &format!("CREATE DATABASE {name}"));
        let old = &pair.database.server.info;
        let psql = |command: &str, socket: &Path, port: u16| {
            format!("{command} -h {} -p {port} -d {name}", socket.display())
        };
        let pipe = format!(
            "set -e -o pipefail; {} | {} -X -q -v ON_ERROR_STOP=1 > /dev/null",
            psql("pg_dump", &old.socket, old.port),
            psql("psql", &server.info.socket, server.info.port),
        );
        assert!(std::process::Command::new("bash").args(["-c", &pipe]).status().unwrap().success());
        let lock = "SELECT pg_advisory_lock(x'636c617669676572'::bit(64)::bigint)";
        // It says something ever and again, so that nobody takes it for one that hangs.
        let hold = format!(
            "(echo \"{lock};\"; while echo 'SELECT 1;'; do sleep 0.3; done) | exec {} -X -q > /dev/null",
            psql("psql", &server.info.socket, server.info.port)
        );
        let holder = std::process::Command::new("bash").args(["-c", &hold]).spawn().unwrap();
        let socket = server.info.socket.join(format!(".s.PGSQL.{}", server.info.port));
        Self { server, socket, holder }
    }

    /// Nobody seems to serve any more.
    fn let_go(&mut self, name: &str) {
        self.holder.kill().unwrap();
        self.holder.wait().unwrap();
        let others = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'psql' \
                      AND datname = current_database() AND pid <> pg_backend_pid()";
        self.server.sql(name, others);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_is_shown_a_copy_of_the_database_does_not_take_over_when_the_true_one_is_gone() {
    let mut pair = Pair::new().await;
    // The way to the database leads over something that its administrator can turn elsewhere.
    let Location::Postgres(config) = pair.config.store.clone() else { panic!("no server") };
    let way = pair.world.path("way");
    fs::create_dir(&way).unwrap();
    let name = way.join(format!(".s.PGSQL.{}", config.port));
    let turn_to = |socket: &Path| {
        let fresh = way.join("fresh");
        std::os::unix::fs::symlink(socket, &fresh).unwrap();
        fs::rename(&fresh, &name).unwrap();
    };
    turn_to(&pair.database.server.info.socket.join(format!(".s.PGSQL.{}", config.port)));
    pair.config.store = Location::Postgres(PostgresConfig { server: Reached::Socket(way.clone()), ..config });
    pair.start().await;
    pair.is_ready().await;

    let mut copy = Copy::of(&pair);
    turn_to(&copy.socket);
    pair.database.sql(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE datname = current_database() \
         AND pid <> pg_backend_pid() AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted)",
    );
    freeze(&pair.world).await;
    // It says so while the other one still serves.
    tokio::time::sleep(Duration::from_millis(WORD_MS)).await;
    pair.is(ServiceState::Standby, "can't be certain").await;
    assert_eq!(pair.world.service().health().0, ServiceState::Unlocked);
    pair.world.stop().await;
    copy.let_go(&pair.database.name);
    pair.stays_out("can't be certain").await;

    // Shown the truth again, it knows of the freeze, and needs a person all the same.
    turn_to(&pair.database.server.info.socket.join(format!(".s.PGSQL.{}", pair.database.server.info.port)));
    copy.server.sql("postgres", "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name LIKE 'claviger%'");
    pair.both_accept().await;
    pair.is(ServiceState::Unlocked, "").await;
    let operator = pair.world.operator_at(&pair.config.listen.to_string());
    let status: AdminStatus = ask(&operator, admin::STATUS, &Empty {}).await.unwrap();
    assert_eq!(status.frozen.len(), 1);
    pair.stop().await;
}
