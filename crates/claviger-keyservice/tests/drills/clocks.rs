//! Clocks that are set, forwards and back. What runs out counts on the time since the machine was started; certificates can't.

use std::sync::Arc;

use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::{KeyService as _, KeyServiceError};

use super::common::{Gateway, TestClock, World, stored};
use super::{lease, shown, stops_with_a_log_that_verifies, working_world};

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

/// Whether the service lets a gateway in over a new connection.
async fn lets_in(world: &World, name: &str) -> Result<(), KeyServiceError> {
    let address = world.config.listen.to_string();
    let keys = KeyClient::open(&address, &world.path(name), world.clock.clone()).unwrap();
    keys.session().await.map(drop)
}

/// The clock is set by this much, new connections come, and it is set right again.
async fn there_and_back(world: &World, gateway: &Gateway, name: &str, by_ms: i64) -> bool {
    world.clock.set_wall_by(by_ms);
    let was_let_in = lets_in(world, name).await.is_ok();
    // Over the connection that is there.
    let _ = gateway.keys.session().await;
    world.clock.set_wall_by(-by_ms);
    was_let_in
}

#[tokio::test]
async fn a_clock_that_was_set_forward_lets_nobody_in_with_a_certificate_that_is_over_and_all_in_when_it_is_right()
 {
    let (mut world, full, epoch) = working_world().await;
    assert!(there_and_back(&world, &full, "full", HOUR_MS).await);
    for by_ms in [25 * HOUR_MS, YEAR_MS, 5 * YEAR_MS, 50 * YEAR_MS] {
        assert!(!there_and_back(&world, &full, "full", by_ms).await, "{by_ms} ms: its certificate is over");
        // The service made a certificate of its own while the clock was wrong: it is good now too, and nobody did anything.
        lets_in(&world, "full").await.unwrap();
        lease(&full, &epoch).await.unwrap();
        assert_eq!(shown(world.service()).0, Vec::<String>::new());
    }
    stops_with_a_log_that_verifies(&mut world).await;
}

#[tokio::test]
async fn a_clock_that_was_set_back_refuses_no_certificate_and_makes_no_key_last_longer() {
    let (mut world, _full, epoch) = working_world().await;
    // Some time after the service was made; the gateway's certificate is of this moment.
    world.clock.advance(80 * 24 * HOUR_MS.unsigned_abs());
    world.restart().await;
    let second = world.enrol("second").await;
    for by_ms in [HOUR_MS, 72 * HOUR_MS, 79 * 24 * HOUR_MS] {
        world.clock.set_wall_by(-by_ms);
        lets_in(&world, "second").await.unwrap();
        lease(&second, &epoch).await.unwrap();
        world.clock.set_wall_by(by_ms);
        lets_in(&world, "second").await.unwrap();
    }
    // Before the service was made no certificate of it counts, and nothing is remembered of that afterwards.
    assert!(!there_and_back(&world, &second, "second", -YEAR_MS).await);
    lets_in(&world, "second").await.unwrap();
    // What runs out does so by the clock that nobody sets: a certificate of a day is over after a day.
    world.clock.set_wall_by(-2 * HOUR_MS);
    world.clock.advance(27 * HOUR_MS.unsigned_abs());
    assert!(lets_in(&world, "second").await.is_err());
    stops_with_a_log_that_verifies(&mut world).await;
}

#[tokio::test]
async fn a_gateway_whose_clock_was_set_back_renews_before_its_certificate_is_over() {
    let (mut world, _full, _epoch) = working_world().await;
    let own = Arc::new(TestClock::default());
    let some_weeks_ms = 20 * 24 * HOUR_MS.unsigned_abs();
    world.clock.advance(some_weeks_ms);
    own.advance(some_weeks_ms);
    world.restart().await;
    world.enrol("second").await;
    let address = world.config.listen.to_string();
    let keys = KeyClient::open(&address, &world.path("second"), own.clone()).unwrap();
    keys.session().await.unwrap();
    let until_ms = stored(&world, "second").certificate.not_after_ms;
    own.set_wall_by(-10 * 24 * HOUR_MS);
    for _ in 0..30 {
        own.advance(HOUR_MS.unsigned_abs());
        world.clock.advance(HOUR_MS.unsigned_abs());
        keys.renew_if_due().await.unwrap();
    }
    assert!(stored(&world, "second").certificate.not_after_ms >= until_ms + 24 * HOUR_MS.unsigned_abs());
    own.set_wall_by(10 * 24 * HOUR_MS);
    keys.session().await.unwrap();
    stops_with_a_log_that_verifies(&mut world).await;
}
