//! What a gateway hears on the stream that it holds, how soon, and when the stream ends.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::time::Duration;

use claviger_env::Clock as _;
use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::admin::{self, AdminStatus, RevokeAnswer, RevokeRequest, UnlockRequest};
use claviger_keyapi::proposals::{Action, FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::{self, Empty};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{Id16, KeyService as _, KeyServiceError, Watch, WatchEvent};
use common::{Gateway, POLICY, World, ask};
use futures_util::StreamExt as _;

/// "Within seconds" is what is promised; this is what is asked for.
const SOON: Duration = Duration::from_secs(2);

/// The next event but for beats; `None` at the end of the stream.
async fn next(stream: &mut Watch) -> Option<WatchEvent> {
    loop {
        match tokio::time::timeout(SOON, stream.next()).await.expect("nothing is told") {
            Some(Ok(WatchEvent::Beat)) => {}
            told => return told.map(Result::unwrap),
        }
    }
}

/// Opens a stream and takes its first line.
async fn listen(gateway: &Gateway) -> (Watch, Id16) {
    let mut stream = gateway.keys.watch().await.unwrap();
    match next(&mut stream).await {
        Some(WatchEvent::Hello { state }) => (stream, state),
        other => panic!("{other:?}"),
    }
}

async fn is_silent(stream: &mut Watch) -> bool {
    tokio::time::timeout(Duration::from_millis(300), stream.next()).await.is_err()
}

async fn revoke(world: &World, identity: &str) {
    let request = RevokeRequest { identity: identity.parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &request).await.unwrap();
}

async fn change_policy(world: &World, policy: &str) {
    world.by_two(Action::Policy { text: policy.to_owned() }).await.unwrap();
}

#[tokio::test]
async fn a_gateway_hears_at_once_that_it_is_revoked_and_the_others_hear_nothing() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let (mut revoked, _) = listen(&full).await;
    let (mut other, _) = listen(&second).await;
    revoke(&world, "gateway:full").await;
    assert_eq!(next(&mut revoked).await, Some(WatchEvent::Revoked));
    assert_eq!(next(&mut revoked).await, None, "and the stream ends");
    assert!(is_silent(&mut other).await);
    assert!(matches!(full.keys.watch().await, Err(KeyServiceError::Unauthenticated { .. })));
}

#[tokio::test]
async fn everybody_hears_at_once_that_the_service_is_locked_even_if_it_is_unlocked_in_the_same_moment() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let operator = world.operator();
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    for _ in 0..2 {
        let (mut stream, _) = listen(&full).await;
        ask::<AdminStatus>(&operator, admin::LOCK, &Empty {}).await.unwrap();
        assert!(matches!(full.keys.watch().await, Err(KeyServiceError::Locked)));
        let unlock = UnlockRequest { passphrase: SecretText::new(passphrase.clone()) };
        ask::<AdminStatus>(&operator, admin::UNLOCK, &unlock).await.unwrap();
        assert_eq!(next(&mut stream).await, Some(WatchEvent::Locked));
        assert_eq!(next(&mut stream).await, None);
    }
}

#[tokio::test]
async fn a_change_of_policy_is_told_to_whom_it_concerns_with_what_it_does_to_him() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let (mut stream, at_first) = listen(&full).await;
    let (mut other, _) = listen(&second).await;

    let without_names = POLICY.replace(", \"names\"", "");
    change_policy(&world, &without_names).await;
    let Some(WatchEvent::Policy { state: less_state, less: true }) = next(&mut stream).await else {
        panic!("something was taken away")
    };
    assert_ne!(less_state, at_first);
    change_policy(&world, POLICY).await;
    assert_eq!(next(&mut stream).await, Some(WatchEvent::Policy { state: at_first, less: false }));
    // What names others, or only looks different, is nobody else's business.
    change_policy(&world, &POLICY.replace("\"write\", \"continue\"]", "\"write\"]")).await;
    change_policy(&world, &format!("# the same\n{POLICY}")).await;
    assert!(is_silent(&mut stream).await && is_silent(&mut other).await);
}

#[tokio::test]
async fn what_is_frozen_or_put_into_quarantine_is_told_to_all_whom_it_stops() {
    let world = World::new().await;
    world.add_keyset("other").await;
    let (full, second) = (world.enrol("full").await, world.enrol_for("second", &["other"]).await);
    full.keys.register_epoch(&full.seal_epoch().record).await.unwrap();
    let (mut stream, at_first) = listen(&full).await;
    let (mut other, _) = listen(&second).await;
    let target = FreezeTarget::Keyset("default".into());
    let freeze = FreezeRequest { target: target.clone(), reason: "to see".into() };
    ask::<Empty>(&world.operator(), admin::FREEZE, &freeze).await.unwrap();
    assert!(matches!(next(&mut stream).await, Some(WatchEvent::Frozen { state }) if state != at_first));
    assert!(is_silent(&mut other).await, "his keyset is another");
    world.by_two(Action::Unfreeze { target }).await.unwrap();
    assert_eq!(next(&mut stream).await, Some(WatchEvent::Policy { state: at_first, less: false }));

    let identity = "gateway:full".parse().unwrap();
    let since_ms = Some(world.clock.now_ms());
    let request = RevokeRequest { identity, since_ms, logs: vec![] };
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &request).await.unwrap();
    assert_eq!(next(&mut stream).await, Some(WatchEvent::Revoked));
    assert!(matches!(next(&mut other).await, Some(WatchEvent::Quarantined { .. })));
}

#[tokio::test]
async fn whoever_did_not_listen_learns_from_the_first_line_whether_he_missed_something_also_after_a_restart()
{
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let (stream, before) = listen(&full).await;
    drop(stream);
    world.restart().await;
    let full = world.gateway("full").await;
    let (stream, after_restart) = listen(&full).await;
    assert_eq!(after_restart, before);
    drop(stream);
    change_policy(&world, &POLICY.replace(", \"names\"", "")).await;
    assert_ne!(listen(&full).await.1, before);
}

#[tokio::test]
async fn buckets_that_come_and_go_are_named_to_those_who_may_see_them() {
    let world = World::new().await;
    world.add_keyset("other").await;
    let (full, narrow) = (world.enrol("full").await, world.enrol("narrow").await);
    let (mut wide, _) = listen(&full).await;
    let (mut few, _) = listen(&narrow).await;
    let bound = full.keys.bind_bucket("secret-project", None).await.unwrap().value;
    let named = |bucket: &str| Some(WatchEvent::Bindings { buckets: Some(vec![bucket.to_owned()]) });
    assert_eq!(next(&mut wide).await, named("secret-project"));
    full.keys.bind_bucket("photos", None).await.unwrap();
    assert_eq!(next(&mut few).await, named("photos"), "the other bucket's name is not for him");
    assert_eq!(next(&mut wide).await, named("photos"));
    full.keys.unbind_bucket("secret-project", &bound.bucket_id).await.unwrap();
    assert_eq!(next(&mut wide).await, named("secret-project"));
    assert!(is_silent(&mut few).await);
}

#[tokio::test]
async fn a_stream_ends_without_a_word_when_its_certificate_does() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let (mut stream, _) = listen(&full).await;
    world.clock.advance(25 * 3_600_000);
    // Something that makes the streams look; the beat would.
    change_policy(&world, &format!("# the same\n{POLICY}")).await;
    assert_eq!(next(&mut stream).await, None);
}

#[tokio::test]
async fn streams_of_one_gateway_are_few_and_do_not_keep_the_service_from_stopping() {
    let mut world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let (mut others, _) = listen(&second).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(listen(&full).await.0);
    }
    assert_eq!(next(&mut streams[0]).await, None, "the oldest gave way");
    assert!(is_silent(&mut streams[1]).await && is_silent(&mut others).await);
    tokio::time::timeout(SOON, world.stop()).await.expect("the streams keep the service from stopping");
    assert!(
        !matches!(streams[1].next().await, Some(Ok(_))),
        "and nothing is told: neither locked nor revoked"
    );
}

#[tokio::test]
async fn only_gateways_that_are_enrolled_get_a_stream() {
    let world = World::new().await;
    world.enrol("full").await;
    assert!(matches!(world.operator().watch().await, Err(KeyServiceError::Denied { .. })));
    revoke(&world, "gateway:full").await;
    let fresh = KeyClient::open("", &world.path("full"), world.clock.clone()).unwrap();
    assert!(matches!(fresh.watch().await, Err(KeyServiceError::Unauthenticated { .. })));
    assert_eq!(world.last_audit()["action"], "authenticate");
}

#[tokio::test]
async fn who_can_not_prove_that_he_is_the_one_answers_no_gateway_on_any_route() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let bound = full.keys.bind_bucket("photos", None).await.unwrap().value;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let (mut stream, _) = listen(&full).await;
    // Somebody else may have the database now; this one still reads what it had.
    let database = world.config.state_dir.join("keyservice.db");
    let away = world.path("away.db");
    std::fs::rename(&database, &away).unwrap();
    let none: [(); 0] = [];
    let items = serde_json::json!({ "items": none });
    let asked = [
        (routes::SESSION, serde_json::json!({})),
        (routes::BINDING, serde_json::json!({ "bucket": "photos" })),
        (routes::BINDINGS, serde_json::json!({})),
        (routes::BIND, serde_json::json!({ "bucket": "photos", "keyset": null })),
        (routes::UNBIND, serde_json::json!({ "bucket": "photos", "bucket_id": bound.bucket_id })),
        (routes::EPOCH, serde_json::json!({ "epoch_id": Id16::from(epoch.id) })),
        (routes::LEASE, items.clone()),
        (routes::DERIVE, items.clone()),
        (routes::CONTINUE, items.clone()),
        (routes::FINISH, items),
        (routes::WATCH, serde_json::json!({})),
        (routes::CONSISTENCY, serde_json::json!({ "from": 0 })),
        (routes::RENEW, serde_json::json!({ "csr": "" })),
    ];
    for (route, body) in &asked {
        let answer = ask::<serde_json::Value>(&full.keys, route, body).await;
        let is_it = matches!(
            answer,
            Err(KeyServiceError::Unavailable { reason: claviger_keyapi::UnavailableReason::Store, .. })
        );
        assert!(is_it, "{route}: {:?}", answer.err());
    }
    assert_eq!(next(&mut stream).await, None, "a stream that beats says that this is the one");
    // Nobody is accused, and operators are answered.
    assert_ne!(world.last_audit()["action"], "authenticate");
    ask::<AdminStatus>(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    std::fs::rename(&away, &database).unwrap();
    full.keys.session().await.unwrap();
}
