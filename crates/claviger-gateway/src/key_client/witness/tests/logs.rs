//! Several logs of one service: which are believed, and that none is ever forgotten.

use super::*;
use crate::key_client::log_shelf::LOGS_MAX;

const OTHER_LOG: &str = "claviger.invalid/log/ffeeddccbbaa99887766554433221100";

#[tokio::test]
async fn the_log_of_another_replica_is_believed_if_the_one_before_named_it() {
    let mut world = World::new();
    let named = |head: LogHead| {
        let logs = vec![self::head(LOG, 1, 1, b"").key, self::head(OTHER_LOG, 9, 1, b"").key];
        LogHead { logs, ..head }
    };
    world.shown(named(head(LOG, 1, 300, b"a"))).await.unwrap();
    world.restart();
    // Known by its key alone, then by what it showed.
    world.shown(named(head(OTHER_LOG, 9, 5, b"other"))).await.unwrap();
    world.shown(named(head(LOG, 1, 300, b"a"))).await.unwrap();
    let shrunk = world.shown(named(head(OTHER_LOG, 9, 4, b"other"))).await;
    assert!(distrusts(&shrunk, "cut off"), "{shrunk:?}");
}

/// The service shows this log and names these.
fn naming(shown: LogHead, named: &[&LogHead]) -> LogHead {
    let logs = std::iter::once(&shown).chain(named.iter().copied()).map(|head| head.key.clone()).collect();
    LogHead { logs, ..shown }
}

fn mine() -> LogHead {
    head(LOG, 1, 300, b"a")
}

fn other() -> LogHead {
    head(OTHER_LOG, 9, 5, b"other")
}

/// A gateway that has seen both logs.
async fn both_seen() -> World {
    let world = World::new();
    world.service.leases.store(true, Ordering::Relaxed);
    world.shown(naming(mine(), &[&other()])).await.unwrap();
    world.shown(naming(other(), &[&mine()])).await.unwrap();
    world.shown(naming(mine(), &[&other()])).await.unwrap();
    world.witness.lease(Vec::new()).await.unwrap();
    world
}

/// Nothing is asked of it, and no contradiction is written down.
async fn refuses(world: &World, shown: LogHead, why: &str) {
    let asked = *world.service.asked.lock().unwrap();
    match world.shown(shown).await {
        Err(KeyServiceError::Distrusted { text }) => assert!(text.contains(why), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(world.lease().await, KeyServiceError::Distrusted { .. }));
    assert_eq!(*world.service.asked.lock().unwrap(), asked);
    assert!(!world.log_folder().join("contradiction").exists());
}

#[tokio::test]
async fn a_log_that_nobody_named_is_asked_nothing_until_a_known_one_names_it() {
    let mut world = World::new();
    world.service.leases.store(true, Ordering::Relaxed);
    world.shown(mine()).await.unwrap();
    // What it says of itself does not count, nor what it says of others.
    for _ in 0..2 {
        refuses(&world, naming(other(), &[&mine()]), "is not one of those that are known").await;
        assert!(!world.folder.path().join("logs/ffeeddccbbaa99887766554433221100").exists());
        world.restart();
    }
    // A replica joined while this gateway was off, and it met that one first.
    world.shown(naming(mine(), &[&other()])).await.unwrap();
    world.witness.lease(Vec::new()).await.unwrap();
    world.shown(naming(other(), &[&mine()])).await.unwrap();
    world.witness.lease(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_person_can_name_a_log() {
    let world = World::new();
    world.shown(mine()).await.unwrap();
    let stranger = world.shown(other()).await.unwrap_err();
    let place = world.folder.path().join("logs/ffeeddccbbaa99887766554433221100");
    let told = format!("write it to {}/key", place.display());
    assert!(matches!(stranger, KeyServiceError::Distrusted { text } if text.contains(&told)));
    fs::create_dir(&place).unwrap();
    fs::write(place.join("key"), other().key + "\n").unwrap();
    world.shown(naming(other(), &[&mine()])).await.unwrap();
}

#[tokio::test]
async fn a_known_name_with_another_key_is_a_contradiction_that_stays() {
    let world = World::new();
    world.shown(naming(mine(), &[&other()])).await.unwrap();
    let forged = world.shown(head(OTHER_LOG, 8, 5, b"other")).await;
    assert!(distrusts(&forged, "the one that is known"), "{forged:?}");
    assert!(distrusts(&world.shown(mine()).await, "the one that is known"));
}

#[tokio::test]
async fn the_log_of_a_replica_that_was_removed_is_believed_no_more_until_it_is_named_again() {
    let mut world = both_seen().await;
    world.shown(mine()).await.unwrap();
    refuses(&world, naming(other(), &[&mine()]), "did not name among its own any more").await;
    world.restart();
    refuses(&world, naming(other(), &[&mine()]), "/removed").await;
    // Neither does it name itself, nor another one with its name and another key.
    world.shown(naming(mine(), &[&head(OTHER_LOG, 8, 1, b"")])).await.unwrap();
    refuses(&world, other(), "did not name among its own any more").await;
    world.shown(naming(mine(), &[&other()])).await.unwrap();
    world.shown(naming(other(), &[&mine()])).await.unwrap();
}

#[tokio::test]
async fn a_log_that_is_left_out_and_named_again_is_held_against_what_it_showed_before() {
    for rewritten in [head(OTHER_LOG, 9, 5, b"rewritten"), head(OTHER_LOG, 9, 4, b"other")] {
        let mut world = both_seen().await;
        world.shown(mine()).await.unwrap();
        world.restart();
        world.shown(naming(mine(), &[&other()])).await.unwrap();
        let outcome = world.shown(naming(rewritten, &[&mine()])).await;
        assert!(matches!(outcome, Err(KeyServiceError::Distrusted { .. })), "{outcome:?}");
        world.restart();
        assert!(world.shown(mine()).await.is_err(), "it stays");
    }
    // Also if it shows the other history before it is named again.
    let world = both_seen().await;
    world.shown(mine()).await.unwrap();
    let outcome = world.shown(head(OTHER_LOG, 9, 5, b"rewritten")).await;
    assert!(distrusts(&outcome, "two histories"), "{outcome:?}");
}

#[tokio::test]
async fn what_a_removed_replica_showed_is_shown_to_who_unlocks() {
    let world = both_seen().await;
    world.shown(mine()).await.unwrap();
    *world.service.refuses.lock().unwrap() = Some(KeyServiceError::Locked);
    for _ in 0..VOUCH_EVERY {
        assert!(world.witness.look().await.is_err());
    }
    let seen = std::mem::take(&mut *world.service.seen.lock().unwrap());
    assert_eq!(seen, [mine().checkpoint, other().checkpoint]);
}

/// As many logs as one likes.
fn invented(n: usize) -> LogHead {
    head(&format!("claviger.invalid/log/{n:032x}"), 7, 1, b"")
}

#[tokio::test]
async fn however_many_logs_are_named_none_that_has_shown_something_is_forgotten() {
    let mut world = both_seen().await;
    let count = || fs::read_dir(world.folder.path().join("logs")).unwrap().count();
    // Names alone fill nothing: they give way to others.
    for first in (1000..1080).step_by(10) {
        let named: Vec<LogHead> = (first..first + 10).map(invented).collect();
        world.shown(naming(mine(), &named.iter().collect::<Vec<_>>())).await.unwrap();
        assert!(count() <= LOGS_MAX, "{}", count());
    }
    assert_eq!(count(), LOGS_MAX);
    // What has shown itself stays; then there is room for no other.
    for n in 0..LOGS_MAX {
        world.shown(naming(mine(), &[&invented(n)])).await.unwrap();
        let outcome =
            world.shown(naming(head(&format!("claviger.invalid/log/{n:032x}"), 7, 1, b""), &[&mine()])).await;
        assert_eq!(outcome.is_ok(), n < LOGS_MAX - 2, "{n}: {outcome:?}");
    }
    assert_eq!(count(), LOGS_MAX);
    world.restart();
    world.shown(naming(mine(), &[&other()])).await.unwrap();
    let outcome = world.shown(head(OTHER_LOG, 9, 5, b"rewritten")).await;
    assert!(distrusts(&outcome, "two histories"), "{outcome:?}");
}
