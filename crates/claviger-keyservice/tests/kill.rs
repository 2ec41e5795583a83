//! `kill -9` of a key service under load, over each kind of database. This program runs itself as the service.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on should stop where it stands"
)]

mod common;
#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::EpochId;
use claviger_keyapi::{KeyService as _, LeaseItem};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Config, KeyService, Unlock};
use common::{Gateway, POLICY, WALL_CLOCK_MS, World};
use postgres_server::{Database, Server};
use tokio::net::TcpListener;

const ROUNDS: u64 = 6;
const WORKERS: usize = 4;
/// So much has to work before the next kill.
const RELEASED_PER_ROUND: usize = 8;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("serve") {
        return serve(Path::new(&arguments.next().unwrap()));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(survives("sqlite", Location::Sqlite));
    let database = Database::new(&Server::shared());
    runtime.block_on(survives("postgresql", Location::Postgres(database.config())));
}

/// The wall clock of the tests' certificates, going on as the real one does.
struct TestTime(u64);

impl Clock for TestTime {
    fn now_ms(&self) -> u64 {
        WALL_CLOCK_MS + SystemClock.boot_ms() - self.0
    }
    fn boot_ms(&self) -> u64 {
        SystemClock.boot_ms()
    }
}

fn serve(file: &Path) {
    let clock: Arc<dyn Clock> = Arc::new(TestTime(SystemClock.boot_ms()));
    let random = Arc::new(OsRandom::new(Arc::clone(&clock)).unwrap());
    let config = Config::load(file).unwrap();
    let service = KeyService::open(config.clone(), clock, random).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        service.serve(listener, std::future::pending()).await.unwrap();
    });
}

/// The service as a process; gone with this value.
struct Process(Child);

impl Process {
    fn start(file: &Path) -> Self {
        Self(Command::new(std::env::current_exe().unwrap()).arg("serve").arg(file).spawn().unwrap())
    }

    fn kill(&mut self) {
        assert!(self.0.try_wait().unwrap().is_none(), "the service ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a worker was told.
#[derive(Default)]
struct Told {
    registered: Vec<EpochId>,
    released: Vec<EpochId>,
    bound: Vec<(String, String)>,
}

/// What the workers and the one who kills have in common.
#[derive(Default)]
struct Load {
    ended: AtomicBool,
    /// Keys that were released so far.
    released: AtomicUsize,
}

async fn work(gateway: Arc<Gateway>, worker: usize, load: Arc<Load>) -> Told {
    let mut told = Told::default();
    for n in 0.. {
        if load.ended.load(Ordering::Relaxed) {
            break;
        }
        let epoch = gateway.seal_epoch();
        if gateway.keys.register_epoch(&epoch.record).await.is_ok() {
            told.registered.push(epoch.id);
        }
        let item =
            LeaseItem { epoch_id: epoch.id.into(), record: Some(claviger_keyapi::wire::Blob(epoch.record)) };
        if matches!(gateway.keys.lease(vec![item]).await.map(|answer| answer.value), Ok(leases) if leases[0].is_ok())
        {
            told.released.push(epoch.id);
            load.released.fetch_add(1, Ordering::Relaxed);
        }
        if n % 4 == 0 {
            let bucket = format!("b-{worker}-{n}");
            if let Ok(binding) = gateway.keys.bind_bucket(&bucket, None).await {
                told.bound.push((bucket, binding.value.bucket_id));
            }
        }
    }
    told
}

async fn survives(name: &str, store: Location) {
    let mut world = World::on(store, POLICY, Unlock::PassphraseFile).await;
    let gateway = Arc::new(world.enrol("full").await);
    world.stop().await;
    let file = configuration(&world);
    let mut service = Process::start(&file);
    let load = Arc::new(Load::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| tokio::spawn(work(Arc::clone(&gateway), worker, Arc::clone(&load))))
        .collect();
    for round in 0..ROUNDS {
        under_load(&load).await;
        // At another point of what goes on each time.
        tokio::time::sleep(Duration::from_millis(7 * round)).await;
        service.kill();
        service = Process::start(&file);
    }
    under_load(&load).await;
    load.ended.store(true, Ordering::Relaxed);
    let mut told = Told::default();
    for worker in workers {
        let one = worker.await.unwrap();
        told.registered.extend(one.registered);
        told.released.extend(one.released);
        told.bound.extend(one.bound);
    }
    service.kill();
    drop(service);
    // Unlocking holds rows and log against each other.
    world.start().await.unwrap();
    check(&world, &gateway, &told).await;
    println!(
        "test what_was_acknowledged_survives_kill_9_over_{name} ... ok ({} registered, {} released, {} bound)",
        told.registered.len(),
        told.released.len(),
        told.bound.len()
    );
    world.stop().await;
}

async fn check(world: &World, gateway: &Gateway, told: &Told) {
    for id in &told.registered {
        assert!(gateway.keys.epoch_record(*id).await.unwrap().is_some(), "{id} was acknowledged");
    }
    for (bucket, bucket_id) in &told.bound {
        let binding = gateway.keys.binding(bucket).await.unwrap().value.unwrap();
        assert_eq!(binding.bucket_id, *bucket_id);
    }
    let recorded: HashSet<String> = world
        .audit()
        .iter()
        .filter(|record| record["action"] == "lease" && record["outcome"] == "released")
        .map(|record| record["epoch_id"].as_str().unwrap().to_owned())
        .collect();
    for id in &told.released {
        assert!(recorded.contains(&id.to_string()), "{id} was released");
    }
}

/// Waits until the service that was started last releases.
async fn under_load(load: &Load) {
    let before = load.released.load(Ordering::Relaxed);
    for _ in 0..3_000 {
        if load.released.load(Ordering::Relaxed) >= before + RELEASED_PER_ROUND {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the service does not work within 30 s of its start");
}

/// The world's configuration as a file.
fn configuration(world: &World) -> std::path::PathBuf {
    let mut text = format!(
        "state_dir = \"state\"\nlisten = \"{}\"\nunlock = \"passphrase-file\"\n\
         passphrase_file = \"passphrase\"\n",
        world.config.listen
    );
    if let Location::Postgres(config) = &world.config.store {
        let claviger_keyservice::store::postgres::Server::Socket(socket) = &config.server else {
            panic!("by socket")
        };
        text.push_str(&format!(
            "[store.postgres]\nsocket = \"{}\"\nport = {}\ndatabase = \"{}\"\nuser = \"{}\"\n",
            socket.display(),
            config.port,
            config.database,
            config.user
        ));
    }
    let path = world.path("keyservice.toml");
    std::fs::write(&path, text).unwrap();
    path
}
