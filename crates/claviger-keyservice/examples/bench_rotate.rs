//! How long it takes to rotate a keyset, and what it touches, by the number of epochs in the registry:
//!
//! ```text
//! TMPDIR=/dev/shm cargo run --release -p claviger-keyservice --example bench_rotate -- 1000 10000 100000
//! ```
//!
//! A real service on a real socket; two operators propose, approve, collect and confirm. Filling the registry is what takes the time:
//! with TMPDIR in memory an epoch costs about a millisecond. Beside the times it prints how many epochs differ afterwards, which has to
//! be none. Objects don't appear: the service has no way to the object store (`cargo xtask ci --only borders`), and what a gateway does
//! is the same as at any hour's end: one new epoch.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that can't go on should stop where it stands"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use claviger_env::{Clock as _, SystemClock};
use claviger_keyapi::proposals::{self, Action, Collected, ConfirmRequest, ProposalRequest};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{KeyService as _, LeaseItem};
use common::{Gateway, World, ask};
use sha2::{Digest as _, Sha256};

/// Rotations that are measured at each size; the median counts.
const ROTATIONS: usize = 9;

#[tokio::main]
async fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).map(|size| size.parse().unwrap()).collect();
    assert!(!sizes.is_empty() && sizes.is_sorted(), "sizes, ascending: 1000 10000 100000");
    println!("{:>9} {:>12} {:>12} {:>12} {:>9}", "epochs", "rotation", "confirm", "first lease", "changed");
    let mut medians = Vec::new();
    for size in sizes {
        // Each size has a service of its own: versions add up too, and each costs a key pair when the keyset is opened.
        let world = World::new().await;
        let gateway = world.enrol("full").await;
        for number in 0..size {
            if number % 250 == 0 {
                // So many are registered in a minute.
                world.clock.advance(60_000);
            }
            gateway.keys.register_epoch(&gateway.seal_epoch().record).await.unwrap();
        }
        medians.push((size, measure(&world, &gateway).await));
    }
    if let [(few, first), .., (many, last)] = medians.as_slice() {
        let ratio = last.as_secs_f64() / first.as_secs_f64();
        println!("{} times the epochs: {ratio:.2} times the time", many / few);
    }
}

async fn measure(world: &World, gateway: &Gateway) -> Duration {
    let mut whole = Vec::new();
    let mut confirming = Vec::new();
    let (before, epochs) = digest(world);
    for _ in 0..ROTATIONS {
        let begun = SystemClock.boot_ms();
        confirming.push(rotate(world).await);
        whole.push(Duration::from_millis(SystemClock.boot_ms() - begun));
    }
    let (after, _) = digest(world);
    let old = gateway.seal_epoch();
    gateway.keys.register_epoch(&old.record).await.unwrap();
    let item = LeaseItem { epoch_id: old.id.into(), record: None };
    let begun = SystemClock.boot_ms();
    gateway.keys.lease(vec![item]).await.unwrap().value.remove(0).unwrap();
    let lease = Duration::from_millis(SystemClock.boot_ms() - begun);
    let changed = if before == after { "none" } else { "SOME" };
    let (whole, confirming) = (median(whole), median(confirming));
    println!("{epochs:>9} {whole:>12?} {confirming:>12?} {lease:>12?} {changed:>9}");
    whole
}

/// By two operators; how long the last step took, in which the version comes to be.
async fn rotate(world: &World) -> Duration {
    let action = Action::Rotate { keyset: "default".into(), shares: 5, threshold: 3 };
    let id = world.by_two(action).await.unwrap().proposal.id;
    let request = ProposalRequest { id: id.clone() };
    let collected = ask::<Collected>(&world.operator(), proposals::COLLECT, &request).await.unwrap();
    let Collected::Shares(shares) = collected else { panic!("no shares") };
    let begun = SystemClock.boot_ms();
    let confirm = ConfirmRequest { id, secrets: shares.shares };
    ask::<Empty>(&world.operator(), proposals::CONFIRM, &confirm).await.unwrap();
    Duration::from_millis(SystemClock.boot_ms() - begun)
}

/// What the registry holds, and how many epochs.
fn digest(world: &World) -> (Vec<u8>, u64) {
    let database = world.database();
    let mut statement = database.prepare("SELECT record, mac FROM epoch ORDER BY epoch_id").unwrap();
    let mut rows = statement.query([]).unwrap();
    let (mut digest, mut epochs) = (Sha256::new(), 0);
    while let Some(row) = rows.next().unwrap() {
        digest.update(row.get::<_, Vec<u8>>(0).unwrap());
        digest.update(row.get::<_, Vec<u8>>(1).unwrap());
        epochs += 1;
    }
    (digest.finalize().to_vec(), epochs)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
