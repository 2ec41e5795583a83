//! Drills: what the key service does when something fails that it stands on. Real faults of real parts: a disk that is full, a
//! disk that does not keep what it acknowledges, files that are deleted, clocks that are set, connections that fall silent.
//!
//! Each shows the same four things: nothing is released or acknowledged that is not written down; health and metrics say why;
//! the service goes on by itself once the fault is gone, where that is safe; nothing that was acknowledged is lost.
//! "When something fails" in docs/operations.md is the same for those who are called at night.
//!
//! Elsewhere: `kill -9` (`kill.rs`), a PostgreSQL that is gone or falls silent (`postgres.rs`, `postgres_service.rs`), an HSM that is
//! gone (`claviger/tests/custody.rs`).
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod clocks;
#[path = "../common/mod.rs"]
mod common;
mod disk;
mod faults;
mod lines;
#[path = "../common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;
mod server;
mod syncs;

use std::path::Path;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use claviger_keyapi::proposals::{FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{KeyService as _, KeyServiceError, LeaseItem, UnavailableReason, admin};
use claviger_keyservice::KeyService;
use claviger_keyservice::audit_log::AuditFolder;
use common::{Epoch, Gateway, World, ask};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// A gateway `full` with an epoch that the service knows, in a world.
async fn working_world() -> (World, Gateway, Epoch) {
    with_an_epoch(World::new().await).await
}

async fn with_an_epoch(world: World) -> (World, Gateway, Epoch) {
    enrol_who_gets_frozen(&world).await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    (world, full, epoch)
}

/// Takes the key of an epoch once more: a release, for which a record has to be written.
async fn lease(gateway: &Gateway, epoch: &Epoch) -> Result<(), KeyServiceError> {
    let item = LeaseItem { epoch_id: epoch.id.into(), record: None };
    let leased = gateway.keys.lease(vec![item]).await?.value;
    assert_eq!(leased[0].as_ref().unwrap().wek.expose(), epoch.wek.expose());
    Ok(())
}

/// Those whom [`freeze`] names.
async fn enrol_who_gets_frozen(world: &World) {
    for name in ["g1", "g2"] {
        world.enrol(name).await;
    }
}

/// A change of rows: one of the database and of the log. There are two of them.
async fn freeze(world: &World, number: u32) -> Result<(), KeyServiceError> {
    let target = FreezeTarget::Identity(format!("gateway:g{number}").parse().unwrap());
    ask::<Empty>(&world.operator(), admin::FREEZE, &FreezeRequest { target, reason: String::new() })
        .await
        .map(drop)
}

/// The same, as often as one likes.
async fn bind(world: &World, gateway: &Gateway, number: u32) -> Result<(), KeyServiceError> {
    // A gateway binds some hundreds in a minute.
    world.clock.advance(1_000);
    gateway.keys.bind_bucket(&format!("bucket-{number}"), None).await.map(drop)
}

/// Does something again and again until it is refused: how often it was done, and why it ended.
async fn until_refused(
    times_max: u32,
    mut work: impl AsyncFnMut(u32) -> Result<(), KeyServiceError>,
) -> (u32, KeyServiceError) {
    let mut done = 0;
    loop {
        match work(done).await {
            Ok(()) => done += 1,
            Err(error) => return (done, error),
        }
        assert!(done < times_max, "the disk is not full");
    }
}

/// How many freezes there are of those that [`freeze`] makes.
async fn frozen(world: &World) -> usize {
    let status: admin::AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    status.frozen.len()
}

/// How many buckets are bound.
async fn bound(world: &World) -> u64 {
    let status: admin::AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    status.bindings
}

fn is_unavailable(error: &KeyServiceError, why: UnavailableReason) -> bool {
    matches!(error, KeyServiceError::Unavailable { reason, .. } if *reason == why)
}

/// What `/ready` and `/metrics` say at this moment: the problems in words, and those that the metric has at 1.
fn shown(service: &KeyService) -> (Vec<String>, Vec<String>) {
    static METRICS: OnceLock<Mutex<PrometheusHandle>> = OnceLock::new();
    let metrics = METRICS.get_or_init(|| Mutex::new(PrometheusBuilder::new().install_recorder().unwrap()));
    let metrics = metrics.lock().unwrap();
    service.show_health();
    let text = metrics.render();
    let mut kinds: Vec<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("claviger_keyservice_problem{problem=\"")?.strip_suffix("\"} 1"))
        .map(str::to_owned)
        .collect();
    kinds.sort();
    let is_ready = text.lines().any(|line| line == "claviger_keyservice_ready 1");
    assert_eq!(is_ready, kinds.is_empty(), "{text}");
    (service.health().1, kinds)
}

/// Asserts that exactly this is wrong, on health and on metrics.
fn shows(service: &KeyService, kind: &str, words: &str) {
    let (problems, kinds) = shown(service);
    assert_eq!(kinds, [kind], "{problems:?}");
    assert!(problems.len() == 1 && problems[0].contains(words), "{problems:?}");
}

/// Waits until nothing is wrong any more, which has to come by itself.
async fn mends(service: &KeyService) {
    for _ in 0..150 {
        if shown(service).0.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("still wrong after 15 s: {:?}", shown(service));
}

/// Stops the service and verifies its log as an auditor does.
async fn stops_with_a_log_that_verifies(world: &mut World) {
    let key = world.service().audit_log().verifier().unwrap();
    world.stop().await;
    verifies(&world.config.state_dir.join("audit"), &key);
}

fn verifies(folder: &Path, key: &claviger_audit::VerifierKey) {
    AuditFolder::new(folder).verify(key, Vec::new()).unwrap();
}

/// Releases that the log tells of.
fn recorded_leases(world: &World) -> usize {
    let is_lease =
        |record: &&serde_json::Value| record["action"] == "lease" && record["outcome"] == "released";
    world.audit().iter().filter(is_lease).count()
}
