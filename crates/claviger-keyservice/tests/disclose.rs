//! The key of one object, handed out by two operators: to whom, of what, and what the log says.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use claviger_format::{Dek, Envelope};
use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::admin::{self, KeysetInfo, RevokeAnswer, RevokeRequest};
use claviger_keyapi::disclosure::ObjectKey;
use claviger_keyapi::lifecycle::{self, DESTROY_WAIT_S, VersionRequest};
use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, Collected, ConfirmRequest, FreezeRequest, FreezeTarget, ProposalInfo,
    ProposalRequest, ProposeRequest,
};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{EnvelopeHeader, KeyService as _, KeyServiceError};
use claviger_keyservice::Unlock;
use common::{Epoch, Gateway, Object, POLICY, World, ask};

const KEY: &str = "2026/a b.txt";
const REASON: &str = "court of X, file 12/26";

/// A service whose operators may hand out keys, and an object of bucket `photos`.
struct Site {
    world: World,
    full: Gateway,
    epoch: Epoch,
    bucket_id: String,
    object: Object,
}

async fn site() -> Site {
    let policy = POLICY.replace("\"backup\"]", "\"backup\", \"disclose\"]");
    let world = World::with(&policy, Unlock::PassphraseFile).await;
    let full = world.enrol("full").await;
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let object = full.seal_object(&epoch, &bucket_id, KEY);
    Site { world, full, epoch, bucket_id, object }
}

fn disclose(object: &Object) -> Action {
    disclose_as(&object.header, "photos", KEY, REASON)
}

fn disclose_as(header: &EnvelopeHeader, bucket: &str, key: &str, reason: &str) -> Action {
    let header = header.clone();
    Action::Disclose { bucket: bucket.into(), key: key.into(), header, version: None, reason: reason.into() }
}

async fn propose(operator: &KeyClient, action: Action) -> Result<ProposalInfo, KeyServiceError> {
    ask(operator, proposals::PROPOSE, &ProposeRequest { action, ttl_s: None }).await
}

async fn approve(operator: &KeyClient, id: &str) -> Result<ApproveAnswer, KeyServiceError> {
    ask(operator, proposals::APPROVE, &ProposalRequest { id: id.to_owned() }).await
}

async fn collect(operator: &KeyClient, id: &str) -> Result<ObjectKey, KeyServiceError> {
    match ask(operator, proposals::COLLECT, &ProposalRequest { id: id.to_owned() }).await? {
        Collected::ObjectKey(key) => Ok(key),
        other => panic!("{other:?}"),
    }
}

/// Proposed and approved.
async fn approved(site: &Site) -> String {
    let id = propose(&site.world.operator(), disclose(&site.object)).await.unwrap().id;
    assert!(!approve(&site.world.second_operator(), &id).await.unwrap().done);
    id
}

async fn freeze(world: &World, target: &FreezeTarget) {
    let request = FreezeRequest { target: target.clone(), reason: "a test".into() };
    ask::<Empty>(&world.operator(), admin::FREEZE, &request).await.unwrap();
}

fn conflict<T: std::fmt::Debug>(result: Result<T, KeyServiceError>) -> String {
    match result {
        Err(KeyServiceError::Conflict { text }) => text,
        other => panic!("{other:?}"),
    }
}

fn is_denied<T>(result: &Result<T, KeyServiceError>) -> bool {
    matches!(result, Err(KeyServiceError::Denied { .. }))
}

fn is_frozen<T>(result: &Result<T, KeyServiceError>) -> bool {
    matches!(result, Err(KeyServiceError::Frozen { .. }))
}

fn disclosures(world: &World) -> usize {
    world.audit().iter().filter(|record| record["action"] == "disclose").count()
}

#[tokio::test]
async fn two_operators_hand_out_one_key_once_and_the_log_had_it_before() {
    let site = site().await;
    let (first, second) = (site.world.operator(), site.world.second_operator());
    let proposal = propose(&first, disclose(&site.object)).await.unwrap();
    let (id, words) = (proposal.id, proposal.words.join("\n"));
    let sealed = "registered 2026-05-28T20:26:40Z";
    for told in
        [REASON, "object photos/2026/a b.txt", "keyset default", "stays handed out", sealed, "newest version"]
    {
        assert!(words.contains(told), "{told}: {words}");
    }
    assert!(conflict(collect(&first, &id).await).contains("not approved yet"));
    assert!(is_denied(&approve(&first, &id).await), "not by the one who proposed it");
    assert!(!approve(&second, &id).await.unwrap().done);
    assert!(is_denied(&collect(&second, &id).await), "not by the one who approved it");
    assert_eq!(disclosures(&site.world), 0);
    let key = collect(&first, &id).await.unwrap();

    assert_eq!(key.dek.expose(), site.object.dek.expose());
    assert_eq!((key.bucket_id.as_str(), key.key.as_str()), (site.bucket_id.as_str(), KEY));
    assert_eq!((key.object_id, key.sealer_id), (site.object.id.into(), site.full.session.gateway_id));
    let name = common::object_name(&key.bucket_id, &key.key);
    let dek = Dek::from_slice(key.dek.expose()).unwrap();
    Envelope::parse(&site.object.envelope).unwrap().open(&dek, &name).unwrap();

    let record = site.world.last_audit();
    for (field, value) in [
        ("action", "disclose"),
        ("outcome", "released"),
        ("identity", "admin:first"),
        ("subject", "admin:second"),
        ("what", REASON),
        ("proposal", id.as_str()),
        ("keyset", "default"),
        ("bucket", "photos"),
        ("bucket_id", site.bucket_id.as_str()),
        ("key", KEY),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    assert_eq!(record["object_id"], site.object.id.to_string());
    assert_eq!(record["epoch_id"], site.epoch.id.to_string());
    assert_eq!(record["name_verified"], true);
    // A signed checkpoint covers it: it can't be cut off the log's end.
    let checkpoint = std::fs::read_to_string(&site.world.config.checkpoint_file).unwrap();
    let covered: usize = checkpoint.lines().nth(1).unwrap().parse().unwrap();
    assert!(covered >= site.world.audit().len(), "{covered}");
    let told: Vec<_> = site.world.audit().into_iter().filter(|r| r["proposal"] == id.as_str()).collect();
    assert!(told.iter().all(|r| r["bucket"] == "photos" && r["key"] == KEY), "every step names the object");

    assert!(conflict(collect(&first, &id).await).contains("no such proposal"));
    assert_eq!(disclosures(&site.world), 1, "once");
}

#[tokio::test]
async fn of_an_object_of_another_name_nothing_is_even_proposed() {
    let site = site().await;
    let first = site.world.operator();
    site.full.keys.bind_bucket("other", None).await.unwrap();
    let header = &site.object.header;
    for (bucket, key) in [("photos", "harmless"), ("other", KEY)] {
        let refused = conflict(propose(&first, disclose_as(header, bucket, key, REASON)).await);
        assert!(refused.contains("another bucket or key"), "{refused}");
        let last = site.world.last_audit();
        assert_eq!((&last["action"], &last["outcome"]), (&"propose".into(), &"refused".into()));
        assert_eq!((&last["bucket"], &last["key"]), (&bucket.into(), &key.into()));
    }
    let unknown = propose(&first, disclose_as(header, "nowhere", KEY, REASON)).await;
    assert_eq!(unknown.unwrap_err(), KeyServiceError::UnknownBucket);
    let mut flipped = *header.as_bytes();
    flipped[95] ^= 1;
    let flipped = disclose_as(&EnvelopeHeader::new(&flipped), "photos", KEY, REASON);
    assert!(conflict(propose(&first, flipped).await).contains("damaged"));
    for kind in [1u8, 2, 3] {
        let mut other = *header.as_bytes();
        other[5] = kind;
        other[7] = 1;
        let other = disclose_as(&EnvelopeHeader::new(&other), "photos", KEY, REASON);
        let refused = propose(&first, other).await;
        assert!(matches!(refused, Err(KeyServiceError::Malformed { .. })), "kind {kind}");
    }
    let strange = site.full.seal_epoch();
    let strange = site.full.seal_object(&strange, &site.bucket_id, KEY);
    assert!(conflict(propose(&first, disclose(&strange)).await).contains("not registered"));
    for reason in ["", " ", "two\nlines", "\u{202e}turned", &"x".repeat(501)] {
        let refused = propose(&first, disclose_as(header, "photos", KEY, reason)).await;
        assert!(matches!(refused, Err(KeyServiceError::Malformed { .. })), "{reason:?}");
    }
    assert_eq!(disclosures(&site.world), 0);
}

#[tokio::test]
async fn both_operators_need_the_verb_and_no_other_verb_will_do() {
    let policy = POLICY.replacen("\"backup\"]", "\"backup\", \"disclose\"]", 1);
    let world = World::with(&policy, Unlock::PassphraseFile).await;
    let full = world.enrol("full").await;
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let epoch = full.seal_epoch();
    full.keys.register_epoch(&epoch.record).await.unwrap();
    let object = full.seal_object(&epoch, &bucket_id, KEY);
    assert!(is_denied(&propose(&world.second_operator(), disclose(&object)).await));
    let id = propose(&world.operator(), disclose(&object)).await.unwrap().id;
    assert!(is_denied(&approve(&world.second_operator(), &id).await));
    assert!(conflict(collect(&world.operator(), &id).await).contains("not approved"));
}

#[tokio::test]
async fn what_is_frozen_is_not_handed_out_at_any_step() {
    let site = site().await;
    let (first, second) = (site.world.operator(), site.world.second_operator());
    let (waiting, standing) =
        (propose(&first, disclose(&site.object)).await.unwrap().id, approved(&site).await);
    let operator = |name: &str| FreezeTarget::Identity(name.parse().unwrap());
    let keyset = FreezeTarget::Keyset("default".into());
    for target in [FreezeTarget::Everything, keyset, operator("admin:first"), operator("admin:second")] {
        freeze(&site.world, &target).await;
        assert!(is_frozen(&collect(&first, &standing).await), "{target}");
        assert!(is_frozen(&approve(&second, &waiting).await), "{target}");
        if target != operator("admin:second") {
            assert!(is_frozen(&propose(&first, disclose(&site.object)).await), "{target}");
        }
        assert_eq!(disclosures(&site.world), 0, "{target}");
        assert!(site.world.by_two(Action::Unfreeze { target }).await.unwrap().done);
    }
    collect(&first, &standing).await.unwrap();
}

#[tokio::test]
async fn it_ends_with_the_office_of_who_approved_it() {
    let mut site = site().await;
    let id = approved(&site).await;
    // An approval outlives a restart.
    site.world.restart().await;
    let revoke = RevokeRequest { identity: "admin:second".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&site.world.operator(), admin::REVOKE, &revoke).await.unwrap();
    assert!(conflict(collect(&site.world.operator(), &id).await).contains("no such proposal"));
    assert_eq!(disclosures(&site.world), 0);
}

#[tokio::test]
async fn a_retired_version_opens_and_one_that_is_to_be_destroyed_does_not() {
    let site = site().await;
    let first = site.world.operator();
    let rotate = Action::Rotate { keyset: "default".into(), shares: 3, threshold: 2 };
    let id = site.world.by_two(rotate).await.unwrap().proposal.id;
    let request = ProposalRequest { id: id.clone() };
    let Collected::Shares(shares) = ask(&first, proposals::COLLECT, &request).await.unwrap() else {
        panic!("no shares")
    };
    let confirm = ConfirmRequest { id, secrets: shares.shares };
    ask::<Empty>(&first, proposals::CONFIRM, &confirm).await.unwrap();
    let id = approved(&site).await;
    let destroy = Action::Destroy { keyset: "default".into(), version: 1, wait_s: DESTROY_WAIT_S };
    site.world.by_two(destroy).await.unwrap();
    assert!(conflict(collect(&first, &id).await).contains("opens nothing"));
    assert!(conflict(propose(&first, disclose(&site.object)).await).contains("opens nothing"));
    let back = VersionRequest { keyset: "default".into(), version: 1 };
    ask::<KeysetInfo>(&first, lifecycle::SHRED_CANCEL, &back).await.unwrap();
    collect(&first, &id).await.unwrap();
}

#[tokio::test]
async fn nothing_is_handed_out_that_a_stolen_gateway_could_have_forged_or_whose_bucket_is_gone() {
    let site = site().await;
    let first = site.world.operator();
    let id = approved(&site).await;
    site.full.keys.unbind_bucket("photos", &site.bucket_id).await.unwrap();
    assert_eq!(collect(&first, &id).await.unwrap_err(), KeyServiceError::UnknownBucket);
    // Another bucket of that name is another bucket.
    site.full.keys.bind_bucket("photos", None).await.unwrap();
    assert!(conflict(collect(&first, &id).await).contains("another bucket or key"));

    let bucket_id = site.full.keys.bind_bucket("stolen", None).await.unwrap().value.bucket_id;
    let object = site.full.seal_object(&site.epoch, &bucket_id, KEY);
    let of_stolen = || disclose_as(&object.header, "stolen", KEY, REASON);
    let id = propose(&first, of_stolen()).await.unwrap().id;
    let revoke = RevokeRequest { identity: "gateway:full".parse().unwrap(), since_ms: Some(1), logs: vec![] };
    ask::<RevokeAnswer>(&first, admin::REVOKE, &revoke).await.unwrap();
    assert!(conflict(approve(&site.world.second_operator(), &id).await).contains("quarantine"));
    assert!(conflict(propose(&first, of_stolen()).await).contains("quarantine"));
    assert_eq!(disclosures(&site.world), 0);
}
