//! A PostgreSQL whose disk is full, or that is gone while somebody waits for it.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::sync::Arc;
use std::time::Duration;

use claviger_keyapi::proposals::{FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{UnavailableReason, admin};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Limits, Unlock};

use super::common::{POLICY, TestClock, World, ask};
use super::disk::SmallDisk;
use super::postgres_server::{Database, Server};
use super::{
    bind, bound, enrol_who_gets_frozen, freeze, frozen, is_unavailable, lease, mends, shown, shows,
    stops_with_a_log_that_verifies, until_refused, with_an_epoch,
};

/// A database that lies on a disk of its own.
fn database_on(disk: &SmallDisk, server: &Arc<Server>) -> Database {
    let place = disk.path().join("tablespace");
    std::fs::create_dir(&place).unwrap();
    let owner = server.info.socket.metadata().unwrap();
    chown(&place, Some(owner.uid()), Some(owner.gid())).unwrap();
    server.sql("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", place.display()));
    server.sql("postgres", "CREATE DATABASE small TABLESPACE small");
    Database { server: Arc::clone(server), name: "small".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_servers_disk_is_full_nothing_is_changed_and_all_goes_on_when_there_is_room() {
    let disk = SmallDisk::of_mib(32);
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let database = database_on(&disk, &server);
    let world = World::on(Location::Postgres(database.config()), POLICY, Unlock::PassphraseFile).await;
    let (mut world, full, epoch) = with_an_epoch(world).await;
    disk.fill();
    let (done, refused) = until_refused(400, async |number| bind(&world, &full, number).await).await;
    assert!(is_unavailable(&refused, UnavailableReason::Store), "{refused}");
    // Between two attempts the server answers well: that it takes nothing is said all the same.
    for _ in 0..30 {
        let (problems, kinds) = shown(world.service());
        assert!(kinds.contains(&"database".to_owned()), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("No space left")), "{problems:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lease(&full, &epoch).await.unwrap();

    disk.make_room();
    mends(world.service()).await;
    bind(&world, &full, done).await.unwrap();
    assert_eq!(bound(&world).await, u64::from(done) + 1);
    assert_eq!(database.sql("SELECT count(*) FROM claviger.authorising_row WHERE kind = 'probe'"), "0");
    stops_with_a_log_that_verifies(&mut world).await;
    world.start().await.unwrap();
    assert_eq!(bound(&world).await, u64::from(done) + 1);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_answer_while_a_change_waits_for_a_server_that_is_gone() {
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let database = Database::new(&server);
    let clock = TestClock::running();
    let location = Location::Postgres(database.config());
    let mut world = World::at(clock, Limits::default(), location, POLICY, Unlock::PassphraseFile).await;
    enrol_who_gets_frozen(&world).await;
    freeze(&world, 1).await.unwrap();
    let gone = Arc::clone(&server);
    tokio::task::spawn_blocking(move || gone.kill()).await.unwrap();
    let target = FreezeTarget::Identity("gateway:g2".parse().unwrap());
    let (operator, request) = (world.operator(), FreezeRequest { target, reason: String::new() });
    let waits = tokio::spawn(async move { ask::<Empty>(&operator, admin::FREEZE, &request).await });
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let service = world.service().clone();
        let asked = tokio::task::spawn_blocking(move || shown(&service));
        let (problems, kinds) =
            tokio::time::timeout(Duration::from_secs(1), asked).await.expect("health waits").unwrap();
        assert!(kinds.iter().all(|kind| kind == "database"), "{problems:?}");
    }
    assert!(!waits.is_finished(), "the change did not wait");
    shows(world.service(), "database", "database");
    let back = Arc::clone(&server);
    tokio::task::spawn_blocking(move || back.again()).await.unwrap();
    waits.await.unwrap().unwrap();
    mends(world.service()).await;
    assert_eq!(frozen(&world).await, 2);
    stops_with_a_log_that_verifies(&mut world).await;
}
