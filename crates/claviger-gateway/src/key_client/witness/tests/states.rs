//! A replica to which its database shows another past is asked nothing.

use claviger_keyapi::routes::LedgerState;

use super::*;

const OTHER_LOG: &str = "claviger.invalid/log/ffeeddccbbaa99887766554433221100";

/// What the replica with this log shows, in a state of this number.
fn in_state(name: &str, number: u64, digest: &str) -> LogHead {
    let (mine, other) = (head(LOG, 1, 5, b"a"), head(OTHER_LOG, 9, 5, b"other"));
    let logs = vec![mine.key.clone(), other.key.clone()];
    let state = Some(LedgerState { number, digest: digest.to_owned() });
    LogHead { logs, state, ..if name == LOG { mine } else { other } }
}

#[tokio::test]
async fn a_replica_in_an_older_state_or_in_another_one_of_that_number_is_asked_nothing_any_more() {
    for (number, digest, why) in [(5, "e", "was in state 8"), (8, "x", "two different states")] {
        let mut world = World::new();
        world.shown(in_state(LOG, 7, "g")).await.unwrap();
        world.shown(in_state(LOG, 8, "h")).await.unwrap();
        // Its log is in order, and was named; what it decides by is out of date.
        assert!(distrusts(&world.shown(in_state(OTHER_LOG, number, digest)).await, why), "{why}");
        assert!(matches!(world.lease().await, KeyServiceError::Distrusted { .. }));
        // Until an operator has looked into it: the true one must not be the next one that it is shown only for a while.
        world.restart();
        assert!(distrusts(&world.shown(in_state(LOG, 9, "i")).await, why), "{why}");
        for name in ["contradiction", "state"] {
            fs::remove_file(world.folder.path().join("logs").join(name)).unwrap();
        }
        world.shown(in_state(LOG, 9, "i")).await.unwrap();
        assert!(distrusts(&world.shown(in_state(LOG, 8, "h")).await, "was in state 9"));
    }
}

#[tokio::test]
async fn a_service_that_goes_on_is_believed_whichever_replica_shows_it_and_also_after_an_accepted_rollback() {
    let mut world = World::new();
    for (name, number) in [(LOG, 3), (OTHER_LOG, 3), (OTHER_LOG, 4), (LOG, 4), (OTHER_LOG, 1_780_000_000_000)]
    {
        world.shown(in_state(name, number, &format!("{number}"))).await.unwrap();
    }
    world.restart();
    let gone = world.shown(in_state(LOG, 5, "5")).await;
    assert!(distrusts(&gone, "was in state 1780000000000"), "the history that was given up: {gone:?}");
}

#[tokio::test]
async fn whoever_made_it_forget_all_logs_made_it_forget_the_state() {
    let world = World::new();
    world.shown(in_state(LOG, 8, "h")).await.unwrap();
    for entry in fs::read_dir(world.folder.path().join("logs")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    world.shown(in_state(LOG, 5, "e")).await.unwrap();
    assert!(distrusts(&world.shown(in_state(LOG, 4, "d")).await, "was in state 5"));
    // What can't be read is not taken for nothing.
    let world = World::new();
    world.shown(in_state(LOG, 8, "h")).await.unwrap();
    fs::write(world.folder.path().join("logs/state"), "x").unwrap();
    assert_eq!(world.shown(in_state(LOG, 8, "h")).await, Err(KeyServiceError::Internal));
}
