//! A disk that fails to make durable what it took.

use claviger_keyapi::{KeyService as _, UnavailableReason};

use super::faults::Faults;
use super::{
    freeze, frozen, is_unavailable, lease, mends, recorded_leases, shown, shows,
    stops_with_a_log_that_verifies, working_world,
};

#[tokio::test]
async fn after_a_failed_sync_of_the_log_nothing_is_released_until_a_restart_and_nothing_is_lost() {
    let name =
        "syncs::after_a_failed_sync_of_the_log_nothing_is_released_until_a_restart_and_nothing_is_lost";
    let Some(faults) = Faults::begin(name) else { return };
    for is_kept in [true, false] {
        let (mut world, full, epoch) = working_world().await;
        freeze(&world, 1).await.unwrap();
        lease(&full, &epoch).await.unwrap();
        faults.fail(".jsonl", is_kept);
        let refused = lease(&full, &epoch).await.unwrap_err();
        assert!(is_unavailable(&refused, UnavailableReason::Audit), "{refused}");
        shows(world.service(), "audit_log", "the audit log can't be written");
        faults.end();
        // A sync that works again says nothing about the one that failed.
        let refused = lease(&full, &epoch).await.unwrap_err();
        assert!(is_unavailable(&refused, UnavailableReason::Audit), "{refused}");
        assert!(freeze(&world, 2).await.is_err() && full.keys.register_epoch(&epoch.record).await.is_err());
        world.restart().await;
        mends(world.service()).await;
        lease(&full, &epoch).await.unwrap();
        assert_eq!(frozen(&world).await, 1);
        assert!(recorded_leases(&world) >= 2);
        stops_with_a_log_that_verifies(&mut world).await;
    }
}

#[tokio::test]
async fn a_change_whose_record_could_not_be_synced_is_made_or_not_made_as_a_whole() {
    let name = "syncs::a_change_whose_record_could_not_be_synced_is_made_or_not_made_as_a_whole";
    let Some(faults) = Faults::begin(name) else { return };
    let (mut world, _full, _epoch) = working_world().await;
    freeze(&world, 1).await.unwrap();
    faults.fail(".jsonl", true);
    // Its record is in the file: what the next start finds there decides.
    assert!(freeze(&world, 2).await.is_err());
    faults.end();
    world.restart().await;
    let records = world.audit();
    let is_written =
        records.iter().any(|record| record["action"] == "freeze" && record["subject"] == "gateway:g2");
    assert_eq!(frozen(&world).await, 1 + usize::from(is_written));
    stops_with_a_log_that_verifies(&mut world).await;
}

#[tokio::test]
async fn a_database_that_can_not_sync_acknowledges_nothing_and_goes_on_when_it_can() {
    let name = "syncs::a_database_that_can_not_sync_acknowledges_nothing_and_goes_on_when_it_can";
    let Some(faults) = Faults::begin(name) else { return };
    for is_kept in [true, false] {
        let (mut world, full, epoch) = working_world().await;
        faults.fail("keyservice.db", is_kept);
        let another = full.seal_epoch();
        let refused = full.keys.register_epoch(&another.record).await.unwrap_err();
        assert!(is_unavailable(&refused, UnavailableReason::Store), "{refused}");
        let (problems, kinds) = shown(world.service());
        assert_eq!(kinds, ["database"], "{problems:?}");
        // What needs no row goes on.
        lease(&full, &epoch).await.unwrap();
        faults.end();
        mends(world.service()).await;
        full.keys.register_epoch(&another.record).await.unwrap();
        freeze(&world, 1).await.unwrap();
        stops_with_a_log_that_verifies(&mut world).await;
        world.start().await.unwrap();
        lease(&full, &another).await.unwrap();
        assert_eq!(frozen(&world).await, 1);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_checkpoint_that_can_not_be_synced_stops_the_log() {
    let name = "syncs::a_checkpoint_that_can_not_be_synced_stops_the_log";
    let Some(faults) = Faults::begin(name) else { return };
    let (mut world, full, epoch) = working_world().await;
    faults.fail("audit/checkpoint", false);
    for _ in 0..100 {
        // One checkpoint a second reaches the file.
        world.clock.advance(1_000);
        if lease(&full, &epoch).await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    shows(world.service(), "audit_log", "the audit log can't be written");
    faults.end();
    world.restart().await;
    lease(&full, &epoch).await.unwrap();
    stops_with_a_log_that_verifies(&mut world).await;
}
