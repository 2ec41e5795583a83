//! What a registry costs that grows: start, memory, leases, and revoking a gateway with a time, by the number of epochs.
//!
//! ```text
//! TMPDIR=/dev/shm cargo run --release -p claviger-keyservice --example bench_epochs -- 1000 10000 100000 1000000
//! ```
//!
//! One service (SQLite, passphrase file) on a real socket, whose registry is filled further and further by sixteen gateways; the
//! service takes 300 epochs of each in a minute, and the clock is moved accordingly. At each size the service is stopped and opened
//! again. Times on a busy machine say little; beside some stands the processor time of this process, with the gateways in it.
//! So is memory: the most while the service was opened, and what stays. A lease is the first of its epoch (the service opens the
//! record), or another one of the same. What is revoked is a gateway that leased 100 epochs, since before the first of all of them: the
//! service reads its whole log and looks at every epoch.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that can't go on should stop where it stands"
)]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger_format::EpochId;
use claviger_gateway::key_client;
use claviger_keyapi::admin::{self, RevokeAnswer, RevokeRequest};
use claviger_keyapi::{KeyService as _, LeaseItem};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Limits, Unlock};
use common::{Gateway, POLICY, TestClock, WALL_CLOCK_MS, World, enrol};

/// Gateways that register.
const SEALERS: usize = 16;
/// Of each in a minute; 300 are taken.
const IN_A_MINUTE: usize = 250;
/// Epochs that the one who is revoked leased: the first ones.
const LEASED: usize = 100;
/// Leases that are timed.
const TIMED: usize = 400;

/// A service and those who fill it.
struct Site {
    world: World,
    sealers: Vec<Arc<Gateway>>,
    epochs: Vec<EpochId>,
}

#[tokio::main]
async fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|size| size.parse().unwrap()).collect();
    let is_usable = sizes.is_sorted() && sizes.first().is_some_and(|size| *size >= LEASED + TIMED);
    assert!(is_usable, "sizes, ascending, from 500 on: 1000 10000 100000 1000000");
    let mut site = Site::new().await;
    println!(
        "{:>9} {:>9} {:>9} {:>9} {:>10} {:>10} {:>11} {:>11} {:>11} {:>11} {:>9} {:>10} {:>9}",
        "epochs",
        "filled",
        "opened",
        "of it CPU",
        "peak RSS",
        "RSS",
        "first p50",
        "first p99",
        "again p50",
        "revoked",
        "of it CPU",
        "database",
        "log"
    );
    for size in sizes {
        let begun = Instant::now();
        site.fill(size).await;
        site.measure(begun.elapsed()).await;
    }
}

impl Site {
    async fn new() -> Self {
        let names: Vec<String> = (0..SEALERS).map(|number| format!("\"gateway:sealer-{number}\"")).collect();
        let policy = format!(
            "{POLICY}[[grant]]\nidentities = [{}]\nkeyset = \"default\"\nverbs = [\"lease\", \"write\", \"read\"]\n",
            names.join(", ")
        );
        let clock = TestClock::default();
        let limits = Limits::default();
        let world = World::at(clock, limits, Location::Sqlite, &policy, Unlock::PassphraseFile).await;
        let mut sealers = Vec::new();
        for number in 0..SEALERS {
            sealers.push(Arc::new(world.enrol(&format!("sealer-{number}")).await));
        }
        Self { world, sealers, epochs: Vec::new() }
    }

    async fn fill(&mut self, size: usize) {
        while self.epochs.len() < size {
            self.world.clock.advance(60_000);
            let missing = (size - self.epochs.len()).min(SEALERS * IN_A_MINUTE);
            let mut tasks = Vec::new();
            for (number, sealer) in self.sealers.iter().enumerate() {
                let count = missing / SEALERS + usize::from(number < missing % SEALERS);
                tasks.push(tokio::spawn(register(Arc::clone(sealer), count)));
            }
            for task in tasks {
                self.epochs.extend(task.await.unwrap());
            }
        }
    }

    async fn measure(&mut self, filled: Duration) {
        self.world.stop().await;
        // The peak counts from here on (proc(5)).
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let (begun, used) = (Instant::now(), cpu());
        self.world.start().await.unwrap();
        let sealer = Arc::clone(&self.sealers[0]);
        // Its line went down with the service.
        while sealer.keys.session().await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (opened, opening) = (begun.elapsed(), cpu() - used);
        let (peak, stays) = (memory_mib("VmHWM:"), memory_mib("VmRSS:"));
        let first = self.lease(&sealer).await;
        let again = self.lease(&sealer).await;
        let (revoked, revoking) = self.revoke().await;
        let state_dir = &self.world.config.state_dir;
        println!(
            "{:>9} {filled:>9.1?} {opened:>9.1?} {opening:>9.1?} {peak:>6.0} MiB {stays:>6.0} MiB {:>11.1?} {:>11.1?} {:>11.1?} {revoked:>11} {revoking:>9.1?} {:>6} MiB {:>5} MiB",
            self.epochs.len(),
            first[TIMED / 2],
            first[TIMED * 99 / 100],
            again[TIMED / 2],
            len(&state_dir.join("keyservice.db")) >> 20,
            len(&state_dir.join("audit")) >> 20,
        );
    }

    /// Some epochs from all of the registry, one by one: how long each took, ascending.
    async fn lease(&self, sealer: &Gateway) -> Vec<Duration> {
        let step = (self.epochs.len() - LEASED) / TIMED;
        let mut times = Vec::new();
        for epoch_id in self.epochs[LEASED..].iter().step_by(step.max(1)).take(TIMED) {
            let item = LeaseItem { epoch_id: (*epoch_id).into(), record: None };
            let begun = Instant::now();
            sealer.keys.lease(vec![item]).await.unwrap().value.remove(0).unwrap();
            times.push(begun.elapsed());
        }
        times.sort();
        times
    }

    /// Enrols a gateway, lets it lease, and revokes it since before the first epoch; how long the last took.
    async fn revoke(&self) -> (String, Duration) {
        let world = &self.world;
        let name = format!("second-{}", self.epochs.len());
        let token = world.token_for(enrol("gateway:second", &["default"], true)).await.unwrap();
        key_client::enrol(&token, &world.path(&name), world.clock.clone()).await.unwrap();
        let stolen = world.gateway(&name).await;
        let mut leased = 0;
        for epoch_id in &self.epochs[..LEASED] {
            let item = LeaseItem { epoch_id: (*epoch_id).into(), record: None };
            leased += usize::from(stolen.keys.lease(vec![item]).await.unwrap().value.remove(0).is_ok());
        }
        let identity = "gateway:second".parse().unwrap();
        let request = RevokeRequest { identity, since_ms: Some(WALL_CLOCK_MS), logs: Vec::new() };
        let operator = world.operator();
        let (begun, used) = (Instant::now(), cpu());
        let answer = operator.transport().call::<_, RevokeAnswer>(admin::REVOKE, &request).await;
        let (took, used) = (begun.elapsed(), cpu() - used);
        let told = match answer {
            Ok(answer) => {
                // In quarantine are those that were not there already, from a smaller size.
                assert!(answer.value.quarantined as usize <= leased + 1 && answer.value.unread.is_empty());
                format!("{took:.1?}")
            }
            Err(error) => format!("{took:.1?}: {error}"),
        };
        (told, used)
    }
}

async fn register(gateway: Arc<Gateway>, count: usize) -> Vec<EpochId> {
    let mut registered = Vec::new();
    for _ in 0..count {
        let epoch = gateway.seal_epoch();
        gateway.keys.register_epoch(&epoch.record).await.unwrap();
        registered.push(epoch.id);
    }
    registered
}

/// What this process has used, user and system (proc(5)); the kernel counts in hundredths of a second for everybody who asks.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
    let ticks: u64 = fields[11..=12].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}

fn memory_mib(figure: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1024.0
}

/// Bytes of a file, or of all in a folder.
fn len(path: &std::path::Path) -> u64 {
    let metadata = std::fs::metadata(path).unwrap();
    if metadata.is_file() {
        return metadata.len();
    }
    std::fs::read_dir(path).unwrap().map(|entry| len(&entry.unwrap().path())).sum()
}
