//! Freezing, and the quarantine of what a stolen gateway could have forged.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use claviger_env::{Clock as _, SystemClock};
use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::admin::{self, AdminStatus, QuarantineList, RevokeAnswer, RevokeRequest};
use claviger_keyapi::proposals::{
    self, Action, FreezeRequest, FreezeTarget, ProposalInfo, ProposalRequest, ProposeRequest,
};
use claviger_keyapi::routes::{self, Empty};
use claviger_keyapi::{
    Answer, BATCH_ITEMS_MAX, DeriveItem, DerivePurpose, EnvelopeHeader, FinishedUpload, Id16,
    KeyService as _, KeyServiceError, LeaseItem, ReleaseError, ServiceState,
};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Limits, Unlock};
use common::{Epoch, Gateway, POLICY, TestClock, World, ask, raw};

async fn freeze(world: &World, target: FreezeTarget) {
    let request = FreezeRequest { target, reason: "a test".into() };
    ask::<Empty>(&world.operator(), admin::FREEZE, &request).await.unwrap();
}

async fn unfreeze(world: &World, target: FreezeTarget) {
    assert!(world.by_two(Action::Unfreeze { target }).await.unwrap().done);
}

async fn lease(gateway: &Gateway, epoch: &Epoch) -> Result<(), ReleaseError> {
    let items = vec![LeaseItem { epoch_id: epoch.id.into(), record: None }];
    only(gateway.keys.lease(items).await)
}

/// What became of the only item of a call; to whom everything is frozen the call is refused as a whole.
fn only<T>(
    answer: Result<Answer<Vec<Result<T, ReleaseError>>>, KeyServiceError>,
) -> Result<(), ReleaseError> {
    match answer {
        Ok(mut answer) => answer.value.remove(0).map(drop),
        Err(KeyServiceError::Frozen { text }) => Err(ReleaseError::Frozen { text }),
        Err(error) => panic!("{error}"),
    }
}

fn is_frozen<T>(result: &Result<T, ReleaseError>) -> bool {
    matches!(result, Err(ReleaseError::Frozen { .. }))
}

async fn registered(gateway: &Gateway) -> Epoch {
    let epoch = gateway.seal_epoch();
    gateway.keys.register_epoch(&epoch.record).await.unwrap();
    epoch
}

fn keyset() -> FreezeTarget {
    FreezeTarget::Keyset("default".into())
}

fn identity(name: &str) -> FreezeTarget {
    FreezeTarget::Identity(format!("gateway:{name}").parse().unwrap())
}

#[tokio::test]
async fn what_is_frozen_releases_nothing_on_any_route_and_only_two_thaw_it() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let epoch = registered(&full).await;
    let object = full.seal_object(&epoch, &bucket_id, "k");
    let token = full.begin_upload(&epoch, &bucket_id, "m");
    let item = || DeriveItem {
        record: None,
        header: object.header.clone(),
        bucket_id: bucket_id.clone(),
        key: "k".into(),
        purpose: DerivePurpose::Read,
        on_behalf_of: None,
    };
    let go_on = || claviger_keyapi::ContinueItem {
        record: None,
        upload_token: token.clone(),
        bucket_id: bucket_id.clone(),
        key: "m".into(),
        unit: claviger_keyapi::ContinueUnit::Part { number: 1, length: 5 },
        on_behalf_of: None,
    };
    for target in [FreezeTarget::Everything, keyset(), identity("full")] {
        freeze(&world, target.clone()).await;
        // A restart thaws nothing.
        world.restart().await;
        assert!(is_frozen(&lease(&full, &epoch).await), "{target}");
        assert!(is_frozen(&only(full.keys.derive(vec![item()]).await)), "{target}");
        assert!(is_frozen(&only(full.keys.continue_upload(vec![go_on()]).await)), "{target}");
        match full.keys.session().await {
            Ok(session) => assert!(target == keyset() && session.value.keysets.is_empty(), "{target}"),
            Err(error) => assert!(matches!(error, KeyServiceError::Frozen { .. }), "{target}: {error}"),
        }
        assert_eq!(world.service().health().0, ServiceState::Unlocked);
        let status: AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
        assert_eq!((&status.frozen[0].target, status.frozen[0].reason.as_str()), (&target, "a test"));
        let alone = ProposeRequest { action: Action::Unfreeze { target: target.clone() }, ttl_s: None };
        ask::<ProposalInfo>(&world.operator(), proposals::PROPOSE, &alone).await.unwrap();
        assert!(is_frozen(&lease(&full, &epoch).await), "one operator alone thaws nothing");
        unfreeze(&world, target).await;
        lease(&full, &epoch).await.unwrap();
        full.keys.derive(vec![item()]).await.unwrap().value.remove(0).unwrap();
        full.keys.continue_upload(vec![go_on()]).await.unwrap().value.remove(0).unwrap();
        assert_eq!(full.keys.session().await.unwrap().value.keysets.len(), 1);
    }
}

#[tokio::test]
async fn a_freeze_spares_others_and_unknown_things_can_not_be_frozen() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let epoch = registered(&full).await;
    freeze(&world, identity("full")).await;
    assert!(is_frozen(&lease(&full, &epoch).await));
    lease(&second, &epoch).await.unwrap();
    let late = full.seal_epoch();
    assert!(matches!(full.keys.register_epoch(&late.record).await, Err(KeyServiceError::Frozen { .. })));
    let request = FreezeRequest { target: FreezeTarget::Keyset("nothing".into()), reason: String::new() };
    let refused = ask::<Empty>(&world.operator(), admin::FREEZE, &request).await;
    assert!(matches!(refused, Err(KeyServiceError::Keyset { .. })));
    let thaw = world.by_two(Action::Unfreeze { target: keyset() }).await;
    assert!(matches!(thaw, Err(KeyServiceError::Conflict { .. })), "it is not frozen");
}

#[tokio::test]
async fn in_a_frozen_keyset_no_epoch_is_registered_in_any_way() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    freeze(&world, keyset()).await;
    let epoch = full.seal_epoch();
    assert!(matches!(full.keys.register_epoch(&epoch.record).await, Err(KeyServiceError::Frozen { .. })));
    let item = LeaseItem {
        epoch_id: epoch.id.into(),
        record: Some(claviger_keyapi::wire::Blob(epoch.record.clone())),
    };
    let leased = full.keys.lease(vec![item]).await.unwrap().value.remove(0);
    assert!(is_frozen(&leased));
    let is_registration =
        |record: &serde_json::Value| record["action"] == "register-epoch" && record["outcome"] == "done";
    assert_eq!(count(&world, is_registration), 0);
    unfreeze(&world, keyset()).await;
    full.keys.register_epoch(&epoch.record).await.unwrap();
    assert_eq!(count(&world, is_registration), 1);
}

#[tokio::test]
async fn nobody_freezes_names_that_never_were_and_what_is_frozen_may_be_frozen_again() {
    let world = World::new().await;
    world.enrol("full").await;
    let before = world.audit().len();
    for n in 0..20 {
        let request = FreezeRequest { target: identity(&format!("nobody-{n}")), reason: String::new() };
        let refused = ask::<Empty>(&world.operator(), admin::FREEZE, &request).await;
        assert!(matches!(refused, Err(KeyServiceError::Conflict { .. })), "{refused:?}");
    }
    let targets = [identity("full"), keyset(), FreezeTarget::Everything];
    for target in targets.iter().chain(&targets) {
        freeze(&world, target.clone()).await;
    }
    let revoked = RevokeRequest { identity: "gateway:full".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &revoked).await.unwrap();
    freeze(&world, identity("full")).await;
    let status: AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    assert_eq!(status.frozen.len(), 3);
    assert_eq!(world.audit().len() - before, 20 + 6 + 1 + 1);
}

#[tokio::test]
async fn what_is_frozen_binds_and_unbinds_nothing() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    for target in [FreezeTarget::Everything, keyset(), identity("full")] {
        freeze(&world, target.clone()).await;
        let before = world.audit().len();
        let unbound = full.keys.unbind_bucket("photos", &bucket_id).await;
        assert!(matches!(unbound, Err(KeyServiceError::Frozen { .. })), "{target}: {unbound:?}");
        for bucket in ["photos", "another"] {
            let bound = full.keys.bind_bucket(bucket, None).await;
            assert!(matches!(bound, Err(KeyServiceError::Frozen { .. })), "{target}: {bound:?}");
        }
        let records = world.audit().split_off(before);
        let said: Vec<_> = records.iter().map(|r| (r["action"].as_str(), r["outcome"].as_str())).collect();
        assert_eq!(
            said,
            [("unbind", "refused"), ("bind", "refused"), ("bind", "refused")]
                .map(|(action, outcome)| (Some(action), Some(outcome))),
            "{target}"
        );
        let others = second.keys.bind_bucket("photos", None).await;
        assert_eq!(others.is_ok(), target == identity("full"), "{target}");
        unfreeze(&world, target).await;
    }
    assert_eq!(full.keys.binding("photos").await.unwrap().value.unwrap().bucket_id, bucket_id);
    full.keys.unbind_bucket("photos", &bucket_id).await.unwrap();
}

#[tokio::test]
async fn what_is_frozen_while_a_request_is_under_way_keeps_its_keys() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = registered(&full).await;
    let body = serde_json::json!({"items": [{"epoch_id": epoch.id.to_string(), "record": null}]}).to_string();
    let (most, last) = body.split_at(body.len() - 1);
    let mut client = raw::connect(&world, Some("full")).await;
    let begun = client.begin(routes::LEASE, most);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    freeze(&world, keyset()).await;
    let (status, answer) = begun.end(last).await;
    assert!(status == 200 && answer.contains("frozen") && !answer.contains("wek\""), "{answer}");
}

fn revoke_since(since_ms: u64) -> RevokeRequest {
    RevokeRequest { identity: "gateway:full".parse().unwrap(), since_ms: Some(since_ms), logs: vec![] }
}

async fn quarantine(operator: &Arc<KeyClient>) -> Vec<Id16> {
    let list: QuarantineList = ask(operator, admin::QUARANTINE_LIST, &Empty {}).await.unwrap();
    list.epochs.iter().map(|epoch| epoch.epoch_id).collect()
}

#[tokio::test]
async fn revoking_with_a_time_keeps_back_what_was_sealed_or_leased_since_until_two_accept_it() {
    let mut world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let operator = world.operator();
    let (old, others_old, others_leased) =
        (registered(&full).await, registered(&second).await, registered(&second).await);
    world.clock.advance(3 * 3_600_000);
    // The theft. What the gateway sealed under at that moment, the thief has too.
    let running = registered(&full).await;
    world.clock.advance(1_200_000);
    let stolen_ms = world.clock.now_ms();
    lease(&full, &others_leased).await.unwrap();
    let forged = registered(&full).await;
    let answer: RevokeAnswer = ask(&operator, admin::REVOKE, &revoke_since(stolen_ms)).await.unwrap();
    assert_eq!(answer.quarantined, 3);
    let again: RevokeAnswer = ask(&operator, admin::REVOKE, &revoke_since(stolen_ms)).await.unwrap();
    assert_eq!(again.quarantined, 0, "asking again is harmless");
    world.restart().await;
    for epoch in [&running, &forged, &others_leased] {
        assert_eq!(lease(&second, epoch).await, Err(ReleaseError::EpochQuarantined));
    }
    for epoch in [&old, &others_old] {
        lease(&second, epoch).await.unwrap();
    }
    assert_eq!(quarantine(&operator).await.len(), 3);
    let gateway_id = full.session.gateway_id;
    let accept = |epochs: Vec<Id16>| Action::AcceptEpochs { gateway_id, epochs };
    assert!(world.by_two(accept(vec![old.id.into()])).await.is_err(), "it is not in quarantine");
    assert!(world.by_two(accept(vec![others_leased.id.into()])).await.unwrap().done);
    lease(&second, &others_leased).await.unwrap();
    assert_eq!(lease(&second, &forged).await, Err(ReleaseError::EpochQuarantined));
    assert!(world.by_two(accept(vec![])).await.unwrap().done);
    lease(&second, &forged).await.unwrap();
    assert!(quarantine(&operator).await.is_empty());
}

#[tokio::test]
async fn what_is_accepted_for_one_thief_is_held_back_for_another() {
    let third =
        "[[grant]]\nidentity = \"gateway:third\"\nkeyset = \"default\"\nverbs = [\"lease\", \"read\"]\n";
    let mut world = World::with(&format!("{POLICY}{third}"), Unlock::PassphraseFile).await;
    let thieves = [world.enrol("full").await, world.enrol("third").await];
    let (second, operator) = (world.enrol("second").await, world.operator());
    let epoch = registered(&second).await;
    world.clock.advance(3 * 3_600_000);
    let since_ms = Some(world.clock.now_ms());
    for thief in &thieves {
        lease(thief, &epoch).await.unwrap();
    }
    for name in ["gateway:full", "gateway:third"] {
        let request = RevokeRequest { identity: name.parse().unwrap(), since_ms, logs: vec![] };
        let answer: RevokeAnswer = ask(&operator, admin::REVOKE, &request).await.unwrap();
        assert_eq!(answer.quarantined, 1, "{name}");
    }
    assert_eq!(quarantine(&operator).await, vec![Id16::from(epoch.id); 2], "for each of them");
    for (thief, is_held) in thieves.iter().zip([true, false]) {
        let accept = Action::AcceptEpochs { gateway_id: thief.session.gateway_id, epochs: vec![] };
        assert!(world.by_two(accept).await.unwrap().done);
        for _ in 0..2 {
            assert_eq!(lease(&second, &epoch).await == Err(ReleaseError::EpochQuarantined), is_held);
            world.restart().await;
        }
    }
}

#[tokio::test]
async fn a_freeze_or_a_quarantine_that_is_deleted_from_the_database_keeps_the_service_locked() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    registered(&full).await;
    freeze(&world, FreezeTarget::Everything).await;
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &revoke_since(0)).await.unwrap();
    let request =
        ProposeRequest { action: Action::Unfreeze { target: FreezeTarget::Everything }, ttl_s: None };
    ask::<ProposalInfo>(&world.operator(), proposals::PROPOSE, &request).await.unwrap();
    world.stop().await;
    world.database().execute("CREATE TABLE kept AS SELECT * FROM row", []).unwrap();
    for kind in ["freeze", "quarantine", "proposal", "policy"] {
        assert_eq!(world.database().execute("DELETE FROM row WHERE kind = ?1", [kind]).unwrap(), 1, "{kind}");
        let error = world.open().err().unwrap();
        let named =
            matches!(&error, claviger_keyservice::ServiceError::Stale { kind: found, .. } if *found == kind);
        // Without a policy it does not even start.
        assert!(named || kind == "policy", "{kind}: {error}");
        world.database().execute("INSERT INTO row SELECT * FROM kept WHERE kind = ?1", [kind]).unwrap();
    }
    world.start().await.unwrap();
}

/// A file of the log that is read for as long as a test likes, and holds nothing: one line that never ends.
struct SlowFile {
    file: std::fs::File,
}

impl SlowFile {
    const SAMPLE_LEN: u64 = 16 << 20;

    fn at(path: &std::path::Path) -> Self {
        Self { file: std::fs::File::create_new(path).unwrap() }
    }

    /// What `read` does takes this time and more, on this machine as it is now.
    async fn takes(&self, time: Duration, read: impl AsyncFn()) {
        let measured = async |len| {
            self.file.set_len(len).unwrap();
            let begun_ms = SystemClock.boot_ms();
            read().await;
            Duration::from_millis(SystemClock.boot_ms() - begun_ms)
        };
        measured(0).await;
        let rest = measured(0).await;
        let sample = measured(Self::SAMPLE_LEN).await.saturating_sub(rest).max(Duration::from_millis(1));
        let times = time.as_millis() / sample.as_millis().max(1);
        self.file.set_len(Self::SAMPLE_LEN * u64::try_from(times).unwrap().clamp(1, 2_000)).unwrap();
    }
}

#[tokio::test]
async fn no_brake_waits_until_somebody_has_read_a_long_log() {
    let limits = Limits { audit_file_len_max: 2_000, ..Limits::default() };
    let clock = TestClock::default();
    let mut world = World::at(clock, limits, Location::Sqlite, POLICY, Unlock::PassphraseFile).await;
    let full = world.enrol("full").await;
    world.enrol("second").await;
    let epoch = registered(&full).await;
    for _ in 0..10 {
        lease(&full, &epoch).await.unwrap();
    }
    // Before the second file, so that no record is missing.
    let slow = SlowFile::at(&world.config.state_dir.join("audit/00000000000000000001.jsonl"));
    slow.takes(Duration::from_secs(4), async || {
        let request = RevokeRequest { identity: "gateway:second".parse().unwrap(), ..revoke_since(0) };
        ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &request).await.unwrap();
    })
    .await;

    let budget =
        "[[budget]]\nidentity = \"gateway:full\"\nkeyset = \"default\"\nepochs_max = 50\nwindow_s = 3600\n";
    let text = format!("{POLICY}\n{budget}");
    let request = ProposeRequest { action: Action::Policy { text }, ttl_s: None };
    let proposal: ProposalInfo = ask(&world.operator(), proposals::PROPOSE, &request).await.unwrap();
    let second = world.second_operator();
    let approved = tokio::spawn(async move {
        ask::<proposals::ApproveAnswer>(&second, proposals::APPROVE, &ProposalRequest { id: proposal.id })
            .await
    });
    let operator = world.operator();
    let revoked = tokio::spawn(async move {
        let identity = "gateway:second".parse().unwrap();
        ask::<RevokeAnswer>(
            &operator,
            admin::REVOKE,
            &RevokeRequest { identity, since_ms: Some(0), logs: vec![] },
        )
        .await
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!approved.is_finished() && !revoked.is_finished(), "both read the log");

    let soon = Duration::from_secs(5);
    tokio::time::timeout(soon, freeze(&world, identity("second"))).await.expect("the brake waits");
    let another = full.seal_epoch();
    tokio::time::timeout(soon, full.keys.register_epoch(&another.record))
        .await
        .expect("a registration waits")
        .unwrap();
    lease(&full, &another).await.unwrap();

    assert!(!approved.is_finished() && !revoked.is_finished(), "all of that while they read");

    assert!(approved.await.unwrap().unwrap().done);
    revoked.await.unwrap().unwrap();
    // What was released while the log was read counts too.
    let budgets: admin::BudgetList = ask(&world.operator(), admin::BUDGET_LIST, &Empty {}).await.unwrap();
    assert_eq!(budgets.budgets[0].epochs, Some(2));
    world.stop().await;
}

/// In the file as it lies there: nothing but a verifier reads it again, and who looks what was leased.
fn hide_leases(world: &World) {
    let file = world.config.state_dir.join("audit/00000000000000000000.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let hidden = |line: &str| match line.contains("\"action\":\"lease\"") {
        true => line.replace("gateway:second", "gateway:narrow"),
        false => line.to_owned(),
    };
    let edited: String = text.lines().map(|line| hidden(line) + "\n").collect();
    assert!(edited.len() == text.len() && edited != text);
    std::fs::write(&file, edited).unwrap();
}

#[tokio::test]
async fn a_log_that_somebody_edited_hides_no_lease_from_a_quarantine() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let thief = world.enrol("second").await;
    let epoch = registered(&full).await;
    lease(&thief, &epoch).await.unwrap();
    hide_leases(&world);
    let request = RevokeRequest { identity: "gateway:second".parse().unwrap(), ..revoke_since(0) };
    let answer: RevokeAnswer = ask(&world.operator(), admin::REVOKE, &request).await.unwrap();
    assert_eq!(answer.quarantined, 1, "{answer:?}");
    assert!(
        answer.unread.iter().any(|log| log.contains("not those that the service wrote there")),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_clock_that_was_wrong_when_a_thief_was_revoked_hides_nothing_that_he_could_have_leased() {
    const DAY_MS: i64 = 86_400_000;
    let world = World::new().await;
    world.clock.advance(20 * DAY_MS.unsigned_abs());
    let (full, thief) = (world.enrol("full").await, world.enrol("second").await);
    let epoch = registered(&full).await;
    world.clock.advance(3 * 3_600_000);
    let stolen_ms = world.clock.now_ms();
    lease(&thief, &epoch).await.unwrap();
    let request = RevokeRequest { identity: "gateway:second".parse().unwrap(), ..revoke_since(stolen_ms) };
    world.clock.set_wall_by(-10 * DAY_MS);
    let refused: Result<RevokeAnswer, _> = ask(&world.operator(), admin::REVOKE, &request).await;
    assert!(matches!(refused, Err(KeyServiceError::Conflict { .. })), "{refused:?}");
    world.clock.set_wall_by(10 * DAY_MS);
    // He is revoked ten days before he stole anything, and who leased what can't be read.
    hide_leases(&world);
    let answer: RevokeAnswer = ask(&world.operator(), admin::REVOKE, &request).await.unwrap();
    assert_eq!((answer.quarantined, answer.unread.len()), (1, 1), "{answer:?}");
    assert_eq!(lease(&full, &epoch).await, Err(ReleaseError::EpochQuarantined));
    // What is sealed from now on nobody could have leased.
    let later = registered(&full).await;
    lease(&full, &later).await.unwrap();
    // Whoever asks again has it all held back that is there by then.
    let answer: RevokeAnswer = ask(&world.operator(), admin::REVOKE, &request).await.unwrap();
    assert_eq!(answer.quarantined, 1, "{answer:?}");
    assert_eq!(lease(&full, &later).await, Err(ReleaseError::EpochQuarantined));
}

fn count(world: &World, what: impl Fn(&serde_json::Value) -> bool) -> usize {
    world.audit().iter().filter(|record| what(record)).count()
}

#[tokio::test]
async fn a_frozen_gateway_that_goes_on_asking_leaves_one_record_for_each_call() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = registered(&full).await;
    freeze(&world, identity("full")).await;
    let before = world.audit().len();
    for _ in 0..20 {
        let items = vec![LeaseItem { epoch_id: epoch.id.into(), record: None }; BATCH_ITEMS_MAX];
        assert!(matches!(full.keys.lease(items).await, Err(KeyServiceError::Frozen { .. })));
    }
    let finished =
        FinishedUpload { record: None, upload_token: "x".into(), bucket_id: "x".into(), key: "x".into() };
    let refused = full.keys.finish_upload(vec![finished]).await;
    assert!(matches!(refused, Err(KeyServiceError::Frozen { .. })));
    assert_eq!(world.audit().len() - before, 21);
    assert_eq!(count(&world, |record| record["action"] == "lease" && record["outcome"] == "refused"), 20);
}

#[tokio::test]
async fn what_is_refused_to_one_gateway_is_written_down_up_to_a_number_a_minute_and_counted_beyond() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    // It knows of no such bucket.
    let item = DeriveItem {
        record: None,
        header: EnvelopeHeader::new(&[0; 96]),
        bucket_id: format!("photos#{}", "0".repeat(32)),
        key: "k".into(),
        purpose: DerivePurpose::Read,
        on_behalf_of: None,
    };
    let before = world.audit().len();
    for _ in 0..4 {
        let results = full.keys.derive(vec![item.clone(); BATCH_ITEMS_MAX]).await.unwrap().value;
        assert!(results.iter().all(Result::is_err));
    }
    let written = world.audit().split_off(before);
    assert!(written.iter().all(|record| record["action"] == "derive" && record["outcome"] == "refused"));
    assert_eq!(written.len(), 600);

    // Others have their own; what is released is always written down.
    let epoch = registered(&full).await;
    lease(&full, &epoch).await.unwrap();
    assert_eq!(count(&world, |record| record["action"] == "lease" && record["outcome"] == "released"), 1);
    world.clock.advance(60_000);
    let told = async {
        while count(&world, |record| record["reason"] == "424 more were refused since the last such record")
            != 1
        {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), told).await.expect("nobody tells of the others");
    assert_eq!(world.last_audit()["action"], "refused");
}
