//! Three replicas over one PostgreSQL, under load: the active one is killed, cut off, frozen, and comes back. This program runs
//! itself as each of them.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on should stop where it stands"
)]

mod common;
#[path = "common/load.rs"]
mod load;
#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;
#[path = "common/relay.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod relay;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claviger_audit::verify::Remembered;
use claviger_audit::{SignedCheckpoint, VerifierKey, cosignature};
use claviger_gateway::key_client::{KeyClient, Witness};
use claviger_keyapi::admin::{self, AdminStatus, ReplicaInfo};
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{KeyService as _, KeyServiceError, ServiceState};
use claviger_keyservice::audit_log::AuditFolder;
use claviger_keyservice::audit_log::states::compare;
use claviger_keyservice::join::{JoinOptions, join};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::store::postgres::{PostgresConfig, Timing};
use claviger_keyservice::{Config, ServiceError, Unlock};
use common::{Gateway, POLICY, World};
use load::{Load, Process, Told, serve, work, works, write_configuration};
use postgres_server::{Database, Server};
use relay::{Loss, Relay};

const WORKERS: usize = 3;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("serve") {
        return serve(Path::new(&arguments.next().unwrap()), Timing::tenth());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Box::pin(replicas_lose_nothing_and_contradict_nobody()));
}

/// One of the three.
struct Replica {
    config: Config,
    file: PathBuf,
    relay: Relay,
    process: Option<Process>,
}

impl Replica {
    fn new(world: &World, name: &str, config: Config, relay: Relay) -> Self {
        let file = write_configuration(&world.path(&format!("{name}.toml")), &config);
        Self { config, file, relay, process: None }
    }

    fn start(&mut self) {
        self.process = Some(Process::start(&self.file));
    }

    fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    fn signal(&self, what: &str) {
        let pid = self.process.as_ref().unwrap().0.id().to_string();
        assert!(Command::new("kill").args([what, &pid]).status().unwrap().success());
    }

    fn audit(&self) -> AuditFolder {
        AuditFolder::new(&self.config.state_dir.join("audit"))
    }

    /// What an operator hears there, if he hears anything soon.
    /// One that does not reach the database says that it is unlocked, and what is wrong.
    async fn serves(&self, world: &World) -> bool {
        let status = self.status(world).await;
        status.is_some_and(|status| status.state == ServiceState::Unlocked && status.problems.is_empty())
    }

    async fn status(&self, world: &World) -> Option<AdminStatus> {
        let address = self.config.listen.to_string();
        let operator = KeyClient::open_operator(&address, &world.path("admin"), world.clock.clone()).unwrap();
        let asked = operator.transport().call::<_, AdminStatus>(admin::STATUS, &Empty {});
        let answer = tokio::time::timeout(Duration::from_secs(1), asked).await;
        answer.ok()?.ok().map(|answer| answer.value)
    }
}

fn replica_config(world: &World, name: &str, server: PostgresConfig) -> Config {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = ([127, 0, 0, 1], port).into();
    Config {
        state_dir: world.path(name),
        checkpoint_file: world.path(&format!("{name}.checkpoint")),
        listen,
        store: Location::Postgres(server),
        ..world.config.clone()
    }
}

/// A service with one replica that has run, and two that joined.
async fn three(world: &mut World, database: &Database, first: Relay) -> Vec<Replica> {
    let mut replicas = vec![Replica::new(world, "first", world.config.clone(), first)];
    let clock: Arc<dyn claviger_env::Clock> = world.clock.clone();
    for name in ["second", "third"] {
        let (relay, server) = Relay::before(&database.config());
        let config = replica_config(world, name, server);
        let options = JoinOptions {
            name: name.to_owned(),
            share_files: Vec::new(),
            passphrase_file: Some(world.path("passphrase")),
        };
        let request = join(&config, &options, &clock, &world.random).unwrap().request;
        let again = join(&config, &options, &clock, &world.random);
        assert!(matches!(again, Err(ServiceError::AlreadyInitialised(_))));
        let action = || Action::AddReplica { request: request.clone() };
        assert!(world.by_two(action()).await.unwrap().done);
        assert!(matches!(world.by_two(action()).await, Err(KeyServiceError::Conflict { .. })));
        replicas.push(Replica::new(world, name, config, relay));
    }
    world.stop().await;
    replicas
}

/// The one that serves, once there is one.
async fn active(world: &World, replicas: &[Replica]) -> usize {
    for _ in 0..200 {
        for (n, replica) in replicas.iter().enumerate() {
            if replica.process.is_some() && replica.serves(world).await {
                return n;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("no replica serves within 20 s");
}

async fn replicas_lose_nothing_and_contradict_nobody() {
    let database = Database::new(&Server::shared());
    let (relay, server) = Relay::before(&PostgresConfig { timing: Timing::tenth(), ..database.config() });
    let mut world = World::on(Location::Postgres(server), POLICY, Unlock::PassphraseFile).await;
    let _enrolled = world.enrol("full").await;
    let mut replicas = three(&mut world, &database, relay).await;
    replicas.iter_mut().for_each(Replica::start);
    let gateway = Arc::new(gateway(&world, &replicas).await);
    // What a gateway remembers of the logs goes along, over connections of its own: it holds its client to what it has seen.
    let keys: Arc<dyn claviger_keyapi::KeyService> = self::gateway(&world, &replicas).await.keys;
    let witness = Witness::new(keys, &world.path("remembered"), world.clock.clone());
    witness.look().await.unwrap();
    let load = Arc::new(Load { rest: Duration::from_millis(650), ..Load::default() });
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(work(Arc::clone(&gateway), worker, Arc::clone(&load))))
        .collect();
    goes_on(&world, &replicas, &load, "at first").await;
    let mut served = Vec::new();
    for fault in ["killed", "cut off", "frozen", "killed"] {
        let n = active(&world, &replicas).await;
        served.push(n);
        others_stand_by(&world, &replicas, n, fault).await;
        strike(&mut replicas[n], fault);
        // Another one serves.
        goes_on(&world, &replicas, &load, fault).await;
        assert_ne!(active(&world, &replicas).await, n, "{fault}");
        believes(&witness, fault).await;
        come_back(&mut replicas[n], fault);
        stands_by(&world, &replicas[n], fault).await;
    }
    a_locked_standby_takes_nothing_over(&world, &mut replicas, &load).await;
    goes_on(&world, &replicas, &load, "at last").await;
    cosign_each_other(&world, &replicas).await;
    load.ended.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for worker in workers {
        let one = worker.await.unwrap();
        told.registered.extend(one.registered);
        told.released.extend(one.released);
        told.bound.extend(one.bound);
    }
    for id in &told.registered {
        assert!(gateway.keys.epoch_record(*id).await.unwrap().is_some(), "{id} was acknowledged");
    }
    for (bucket, bucket_id) in &told.bound {
        assert_eq!(gateway.keys.binding(bucket).await.unwrap().value.unwrap().bucket_id, *bucket_id);
    }
    replicas.iter_mut().for_each(Replica::kill);
    let counts = check_logs(&replicas, &told);
    println!(
        "test replicas_lose_nothing_and_contradict_nobody ... ok ({served:?} served; {} registered, {} released, {} bound; records {counts:?})",
        told.registered.len(),
        told.released.len(),
        told.bound.len(),
    );
}

/// Of two standbys, the one that an operator locked leaves it to the other one.
async fn a_locked_standby_takes_nothing_over(world: &World, replicas: &mut [Replica], load: &Load) {
    let first = active(world, replicas).await;
    let locked = (first + 1) % replicas.len();
    others_stand_by(world, replicas, first, "before a lock").await;
    let address = replicas[locked].config.listen.to_string();
    let operator = KeyClient::open_operator(&address, &world.path("admin"), world.clock.clone()).unwrap();
    let answer = operator.transport().call::<_, AdminStatus>(admin::LOCK, &Empty {}).await.unwrap();
    assert_eq!(answer.value.state, ServiceState::Locked);
    replicas[first].kill();
    goes_on(world, replicas, load, "the active one killed, one standby locked").await;
    assert_eq!(active(world, replicas).await, (first + 2) % replicas.len());
    assert_eq!(replicas[locked].status(world).await.map(|status| status.state), Some(ServiceState::Locked));
    replicas[locked].kill();
    for n in [first, locked] {
        replicas[n].start();
        stands_by(world, &replicas[n], "after a lock").await;
    }
}

/// Both standbys vouch for the log of the one that serves, and an auditor can tell.
async fn cosign_each_other(world: &World, replicas: &[Replica]) {
    let n = active(world, replicas).await;
    let listed = world.operator_at(&replicas[n].config.listen.to_string());
    let listed =
        listed.transport().call::<_, Vec<ReplicaInfo>>(admin::REPLICA_LIST, &Empty {}).await.unwrap();
    let mine = listed.value.iter().find(|replica| replica.is_active).unwrap();
    let log: VerifierKey = mine.log_key.parse().unwrap();
    let others = listed.value.iter().filter(|replica| !replica.is_active);
    // The first one has a key of this kind only if it served since there were others.
    let witnesses: Vec<VerifierKey> =
        others.filter_map(|replica| replica.witness_key.as_ref()?.parse().ok()).collect();
    assert!(!witnesses.is_empty());
    let begun = replicas[n].audit().checkpoint().unwrap().unwrap();
    let begun = SignedCheckpoint::open(&begun, &log).unwrap().checkpoint().size;
    for witness in witnesses {
        let mut seen = 0;
        for _ in 0..100 {
            let newest = replicas[n].audit().cosigned().unwrap().into_iter().filter_map(|(_, note)| {
                let checkpoint = SignedCheckpoint::open(&note, &log).unwrap();
                cosignature::verify(checkpoint.note(), &witness).ok()?;
                Some(checkpoint.checkpoint().size)
            });
            seen = newest.max().unwrap_or(0);
            if seen >= begun {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(seen >= begun, "{} saw {seen} of {begun} records", witness.name());
    }
}

/// Keys are released; if not, what there is to be seen.
async fn goes_on(world: &World, replicas: &[Replica], load: &Load, when: &str) {
    if works(load).await {
        return;
    }
    for replica in replicas {
        println!(
            "{}: {:?}",
            replica.file.display(),
            replica.status(world).await.map(|status| (status.state, status.problems))
        );
        let mut tail = Vec::new();
        let read = replica.audit().for_each_record(0, |line| {
            tail.push(line.record.to_owned());
            true
        });
        read.unwrap();
        tail.iter().rev().take(6).for_each(|record| println!("    {record}"));
    }
    panic!("{when}: nothing is released within 30 s");
}

/// The log of the one that serves now is believed, once it is reached.
async fn believes(witness: &Witness, fault: &str) {
    for _ in 0..50 {
        match witness.look().await {
            Ok(()) => return,
            Err(KeyServiceError::Unavailable { .. } | KeyServiceError::Locked) => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(other) => panic!("{fault}: {other}"),
        }
    }
    panic!("{fault}: no log is shown within 10 s");
}

async fn gateway(world: &World, replicas: &[Replica]) -> Gateway {
    let addresses: Vec<String> = replicas.iter().map(|replica| replica.config.listen.to_string()).collect();
    active(world, replicas).await;
    world.gateway_at("full", &addresses.join(",")).await
}

fn strike(replica: &mut Replica, fault: &str) {
    match fault {
        "killed" => replica.kill(),
        "cut off" => replica.relay.lose(Loss::Partition),
        _ => replica.signal("-STOP"),
    }
}

fn come_back(replica: &mut Replica, fault: &str) {
    match fault {
        "killed" => replica.start(),
        "cut off" => replica.relay.lose(Loss::Nothing),
        _ => replica.signal("-CONT"),
    }
}

/// All but the one that serves.
async fn others_stand_by(world: &World, replicas: &[Replica], active: usize, when: &str) {
    for replica in replicas.iter().enumerate().filter(|(n, _)| *n != active).map(|(_, replica)| replica) {
        stands_by(world, replica, when).await;
    }
}

/// Whoever comes back serves nothing, unlocks itself as a standby, and hears from the others: it would take over.
async fn stands_by(world: &World, replica: &Replica, fault: &str) {
    let mut last = None;
    for _ in 0..300 {
        last = replica.status(world).await.map(|status| (status.state, status.problems));
        if matches!(&last, Some((ServiceState::Standby, problems)) if problems.is_empty()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{fault}: it does not stand by within 30 s: {last:?}");
}

/// All logs verify, no two of them tell of different states under one number, none is missing, and every key that was released
/// has its record in exactly one of them.
fn check_logs(replicas: &[Replica], told: &Told) -> Vec<u64> {
    let mut released: HashMap<String, usize> = HashMap::new();
    let mut counts = Vec::new();
    for replica in replicas {
        let folder = replica.audit();
        let mut key: Option<VerifierKey> = None;
        let read = folder.for_each_record(0, |line| {
            let record: serde_json::Value = serde_json::from_str(line.record).unwrap();
            if record["action"] == "log-key" {
                key = Some(record["subject"].as_str().unwrap().parse().unwrap());
            }
            if record["action"] == "lease" && record["outcome"] == "released" {
                *released.entry(record["epoch_id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            true
        });
        read.unwrap();
        let key = key.unwrap();
        let cosigned = folder.cosigned().unwrap().into_iter();
        let cosigned = cosigned.map(|(name, note)| Remembered {
            name,
            checkpoint: SignedCheckpoint::open(&note, &key).unwrap(),
        });
        counts.push(folder.verify(&key, cosigned.collect()).unwrap().report.records);
    }
    let states = compare(&replicas.iter().map(Replica::audit).collect::<Vec<_>>()).unwrap();
    assert!(states.forks.is_empty() && states.missing.is_empty(), "{states:?}");
    assert!(states.newest >= (told.registered.len() + told.bound.len()) as u64);
    for id in &told.released {
        assert_eq!(released.get(&id.to_string()), Some(&1), "{id} was released");
    }
    counts
}
