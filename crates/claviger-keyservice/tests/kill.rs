//! `kill -9` of a key service under load, over each kind of database. This program runs itself as the service.
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

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use claviger_keyapi::KeyService as _;
use claviger_keyservice::Unlock;
use claviger_keyservice::store::location::Location;
use claviger_keyservice::store::postgres::Timing;
use common::{Gateway, POLICY, World};
use load::{Load, Process, Told, configuration, serve, under_load, work};
use postgres_server::{Database, Server};

const ROUNDS: u64 = 6;
const WORKERS: usize = 4;

fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("serve") {
        return serve(Path::new(&arguments.next().unwrap()), Timing::default());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(survives("sqlite", Location::Sqlite));
    let database = Database::new(&Server::shared());
    runtime.block_on(survives("postgresql", Location::Postgres(database.config())));
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
