//! A PostgreSQL whose disk is full.

use std::os::unix::fs::{MetadataExt as _, chown};
use std::sync::Arc;

use claviger_keyapi::UnavailableReason;
use claviger_keyservice::Unlock;
use claviger_keyservice::store::location::Location;

use super::common::{POLICY, World};
use super::disk::SmallDisk;
use super::postgres_server::{Database, Server};
use super::{
    freeze, frozen, is_unavailable, lease, mends, shown, stops_with_a_log_that_verifies, with_an_epoch,
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
    let mut done = 0;
    let refused = loop {
        match freeze(&world, done).await {
            Ok(()) => done += 1,
            Err(error) => break error,
        }
        assert!(done < 400, "the disk is not full");
    };
    assert!(is_unavailable(&refused, UnavailableReason::Store), "{refused}");
    // Between two attempts the server answers well: that it takes nothing is said all the same.
    for _ in 0..30 {
        let (problems, kinds) = shown(world.service());
        assert!(kinds.contains(&"database".to_owned()), "{problems:?}");
        assert!(problems.iter().any(|problem| problem.contains("No space left")), "{problems:?}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    lease(&full, &epoch).await.unwrap();

    disk.make_room();
    mends(world.service()).await;
    freeze(&world, done).await.unwrap();
    assert_eq!(frozen(&world).await, done as usize + 1);
    assert_eq!(database.sql("SELECT count(*) FROM claviger.authorising_row WHERE kind = 'probe'"), "0");
    stops_with_a_log_that_verifies(&mut world).await;
    world.start().await.unwrap();
    assert_eq!(frozen(&world).await, done as usize + 1);
    world.stop().await;
}
