//! A key service as a process, and workers that ask it again and again. The test program runs itself as the service.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::EpochId;
use claviger_keyapi::{KeyService as _, LeaseItem};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::store::postgres::Timing;
use claviger_keyservice::{Config, KeyService};
use tokio::net::TcpListener;

use super::common::{Gateway, WALL_CLOCK_MS, World};

/// So much has to work before the next fault.
const RELEASED_PER_ROUND: usize = 8;

/// The wall clock of the tests' certificates, going on as the real one does.
pub(crate) struct TestTime(pub(crate) u64);

impl Clock for TestTime {
    fn now_ms(&self) -> u64 {
        WALL_CLOCK_MS + SystemClock.boot_ms() - self.0
    }
    fn boot_ms(&self) -> u64 {
        SystemClock.boot_ms()
    }
}

pub(crate) fn serve(file: &Path, timing: Timing) {
    let clock: Arc<dyn Clock> = Arc::new(TestTime(SystemClock.boot_ms()));
    let random = Arc::new(OsRandom::new(Arc::clone(&clock)).unwrap());
    let mut config = Config::load(file).unwrap();
    if let Location::Postgres(server) = &mut config.store {
        server.timing = timing;
    }
    let service = KeyService::open(config.clone(), clock, random).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(config.listen).await.unwrap();
        service.serve(listener, std::future::pending()).await.unwrap();
    });
}

/// The service as a process; gone with this value.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn start(file: &Path) -> Self {
        Self(Command::new(std::env::current_exe().unwrap()).arg("serve").arg(file).spawn().unwrap())
    }

    pub(crate) fn kill(&mut self) {
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
pub(crate) struct Told {
    pub(crate) registered: Vec<EpochId>,
    pub(crate) released: Vec<EpochId>,
    pub(crate) bound: Vec<(String, String)>,
}

/// What the workers and the one who kills have in common.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) ended: AtomicBool,
    /// Keys that were released so far.
    pub(crate) released: AtomicUsize,
    /// A worker rests so long between its rounds. A service that runs for minutes takes 300 epochs a minute of a gateway.
    pub(crate) rest: Duration,
}

pub(crate) async fn work(gateway: Arc<Gateway>, worker: usize, load: Arc<Load>) -> Told {
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
        tokio::time::sleep(load.rest).await;
    }
    told
}

/// Waits until the service that was started last releases.
pub(crate) async fn under_load(load: &Load) {
    assert!(works(load).await, "the service does not work within 30 s of its start");
}

/// Whether keys are released again within 30 s.
pub(crate) async fn works(load: &Load) -> bool {
    let before = load.released.load(Ordering::Relaxed);
    for _ in 0..3_000 {
        if load.released.load(Ordering::Relaxed) >= before + RELEASED_PER_ROUND {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// The world's configuration as a file.
pub(crate) fn configuration(world: &World) -> std::path::PathBuf {
    write_configuration(&world.path("keyservice.toml"), &world.config)
}

/// Any configuration with a passphrase as a file.
pub(crate) fn write_configuration(path: &Path, config: &Config) -> std::path::PathBuf {
    let mut text = format!(
        "state_dir = \"{}\"\nlisten = \"{}\"\nunlock = \"passphrase-file\"\n\
         passphrase_file = \"passphrase\"\n",
        config.state_dir.display(),
        config.listen
    );
    if let Location::Postgres(config) = &config.store {
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
    std::fs::write(path, text).unwrap();
    path.to_owned()
}
