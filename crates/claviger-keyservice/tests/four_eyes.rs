//! What takes two operators, and who the second may be.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use claviger_gateway::key_client::{self, KeyClient, Recovery, StoredIdentity};
use claviger_keyapi::admin::{
    self, AdminStatus, BindingList, BindingListRequest, PolicyInForce, RevokeAnswer, RevokeRequest,
};
use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, BoundBucket, Collected, ProposalInfo, ProposalList, ProposalRequest,
    ProposeRequest,
};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::{KeyService as _, KeyServiceError, Role, ServiceState};
use claviger_keyservice::{ServiceError, init};
use common::{POLICY, World, ask, enrol, stored};

async fn propose(operator: &KeyClient, action: Action) -> Result<String, KeyServiceError> {
    let request = ProposeRequest { action, ttl_s: None };
    ask::<ProposalInfo>(operator, proposals::PROPOSE, &request).await.map(|proposal| proposal.id)
}

async fn approve(operator: &KeyClient, id: &str) -> Result<ApproveAnswer, KeyServiceError> {
    ask(operator, proposals::APPROVE, &ProposalRequest { id: id.to_owned() }).await
}

async fn collect(operator: &KeyClient, id: &str) -> Result<Collected, KeyServiceError> {
    ask(operator, proposals::COLLECT, &ProposalRequest { id: id.to_owned() }).await
}

fn is_denied<T>(result: &Result<T, KeyServiceError>) -> bool {
    matches!(result, Err(KeyServiceError::Denied { .. }))
}

fn is_conflict<T>(result: &Result<T, KeyServiceError>) -> bool {
    matches!(result, Err(KeyServiceError::Conflict { .. }))
}

fn policy(text: &str) -> Action {
    Action::Policy { text: text.to_owned() }
}

#[tokio::test]
async fn nothing_happens_before_another_operator_agrees_and_then_it_happens_once() {
    let world = World::new().await;
    let (first, second) = (world.operator(), world.second_operator());
    let before: PolicyInForce = ask(&first, admin::POLICY_SHOW, &Empty {}).await.unwrap();
    let other = POLICY.replace("[\"read\", \"head\"]", "[\"read\"]");
    let id = propose(&first, policy(&other)).await.unwrap();
    let now: PolicyInForce = ask(&first, admin::POLICY_SHOW, &Empty {}).await.unwrap();
    assert_eq!(now.sha256, before.sha256);
    assert!(is_denied(&approve(&first, &id).await), "not by the one who proposed it");
    let answer = approve(&second, &id).await.unwrap();
    assert!(
        answer.done
            && answer.proposal.words.iter().any(|line| line.starts_with("- gateway:narrow may read, head"))
    );
    let now: PolicyInForce = ask(&first, admin::POLICY_SHOW, &Empty {}).await.unwrap();
    assert_eq!(
        (now.text.as_str(), now.proposer.unwrap().name(), now.approver.unwrap().name()),
        (other.as_str(), "first", "second")
    );
    assert!(is_conflict(&approve(&second, &id).await), "once");
    let acts: Vec<_> = world.audit().iter().filter(|r| r["proposal"] == id.as_str()).cloned().collect();
    let told: Vec<_> =
        acts.iter().map(|r| (r["action"].as_str().unwrap(), r["outcome"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            ("propose", "done"),
            ("approve", "refused"),
            ("approve", "done"),
            ("policy", "done"),
            ("approve", "refused")
        ]
    );
}

#[tokio::test]
async fn a_token_is_made_only_for_the_proposer_after_approval_and_once() {
    let world = World::new().await;
    let (first, second) = (world.operator(), world.second_operator());
    let id = propose(&first, enrol("gateway:full", &["default"], false)).await.unwrap();
    assert!(is_conflict(&collect(&first, &id).await), "before approval");
    assert!(!approve(&second, &id).await.unwrap().done);
    assert!(is_denied(&collect(&second, &id).await), "not by the one who approved");
    let Collected::EnrolToken(answer) = collect(&first, &id).await.unwrap() else { panic!("no token") };
    assert!(is_conflict(&collect(&first, &id).await), "once");
    key_client::enrol(answer.token.expose(), &world.path("full"), world.clock.clone()).await.unwrap();
}

#[tokio::test]
async fn nobody_approves_himself_under_a_renewed_certificate_or_a_new_enrolment_of_his_name() {
    let world = World::new().await;
    let (first, second) = (world.operator(), world.second_operator());
    let id = propose(&first, enrol("gateway:full", &["default"], false)).await.unwrap();
    first.renew().await.unwrap();
    assert!(is_denied(&approve(&world.operator(), &id).await));
    // Enrolled anew under his name: his first proposal died with his first enrolment.
    let again = propose(&second, enrol("admin:first", &[], true)).await.unwrap();
    approve(&first, &again).await.unwrap();
    let Collected::EnrolToken(token) = collect(&second, &again).await.unwrap() else { panic!("no token") };
    let folder = world.path("first-again");
    key_client::enrol_as(Role::Admin, token.token.expose(), &folder, world.clock.clone()).await.unwrap();
    let renamed = KeyClient::open_operator("", &folder, world.clock.clone()).unwrap();
    assert!(approve(&renamed, &id).await.is_err());
    let fresh = propose(&renamed, enrol("gateway:full", &["default"], false)).await.unwrap();
    assert!(approve(&second, &fresh).await.is_ok(), "a new enrolment proposes as ever");
}

#[tokio::test]
async fn the_second_operator_needs_the_verb_too_and_so_does_the_proposer_when_it_is_done() {
    let without = POLICY.replacen(
        "verbs = [\"inspect\"]",
        "verbs = [\"inspect\"]\n[[operator]]\nidentity = \"admin:third\"\nverbs = [\"enrol\", \"policy\"]",
        1,
    );
    let world = World::with(&without, claviger_keyservice::Unlock::PassphraseFile).await;
    let (first, second) = (world.operator(), world.second_operator());
    let token = world.token_for(enrol("admin:watcher", &[], false)).await.unwrap();
    key_client::enrol_as(Role::Admin, &token, &world.path("watcher"), world.clock.clone()).await.unwrap();
    let watcher = KeyClient::open_operator("", &world.path("watcher"), world.clock.clone()).unwrap();
    let id = propose(&first, enrol("gateway:full", &["default"], false)).await.unwrap();
    assert!(is_denied(&approve(&watcher, &id).await));
    // The first loses the verb before anyone approves.
    let less = without.replacen("\"enrol\", \"policy\", \"freeze\"", "\"policy\", \"freeze\"", 1);
    let change = propose(&second, policy(&less)).await.unwrap();
    approve(&first, &change).await.unwrap();
    assert!(is_denied(&approve(&second, &id).await), "his proposal went with his verb");
}

#[tokio::test]
async fn proposals_expire_are_withdrawn_and_listed_in_words() {
    let world = World::new().await;
    let (first, second) = (world.operator(), world.second_operator());
    let kept = propose(&first, enrol("gateway:full", &["default"], false)).await.unwrap();
    let gone = propose(&first, enrol("gateway:second", &["default"], false)).await.unwrap();
    ask::<Empty>(&second, proposals::WITHDRAW, &ProposalRequest { id: gone.clone() }).await.unwrap();
    assert!(is_conflict(&approve(&second, &gone).await));
    let list: ProposalList = ask(&second, proposals::PROPOSAL_LIST, &Empty {}).await.unwrap();
    let ids: Vec<_> = list.proposals.iter().map(|proposal| proposal.id.clone()).collect();
    assert_eq!(ids, std::slice::from_ref(&kept));
    let words = &list.proposals[0].words;
    assert!(words[0] == "enrol gateway:full for default" && words[1].contains("lease, write"), "{words:?}");
    world.clock.advance(24 * 3_600_000);
    assert!(is_conflict(&approve(&second, &kept).await), "nobody came in time");
    for _ in 0..100 {
        if world.last_audit()["action"] == "expire" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(world.last_audit()["proposal"], kept.as_str());
    for ttl_s in [0, 8 * 24 * 3600] {
        let request = ProposeRequest { action: enrol("gateway:x", &["default"], false), ttl_s: Some(ttl_s) };
        let refused = ask::<ProposalInfo>(&first, proposals::PROPOSE, &request).await;
        assert!(matches!(refused, Err(KeyServiceError::Malformed { .. })), "{ttl_s}");
    }
}

#[tokio::test]
async fn proposals_and_approvals_survive_a_restart() {
    let mut world = World::new().await;
    let id = propose(&world.operator(), enrol("gateway:full", &["default"], false)).await.unwrap();
    world.restart().await;
    approve(&world.second_operator(), &id).await.unwrap();
    world.restart().await;
    let Collected::EnrolToken(token) = collect(&world.operator(), &id).await.unwrap() else {
        panic!("no token")
    };
    key_client::enrol(token.token.expose(), &world.path("full"), world.clock.clone()).await.unwrap();
}

#[tokio::test]
async fn a_policy_that_two_could_never_change_again_is_refused_at_init_and_later() {
    let world = World::new().await;
    let alone = POLICY.replacen("\"policy\", \"freeze\"", "\"freeze\"", 1);
    let refused = propose(&world.operator(), policy(&alone)).await;
    assert!(
        matches!(&refused, Err(KeyServiceError::Malformed { text }) if text.contains("remedy")),
        "{refused:?}"
    );
    let clock: std::sync::Arc<dyn claviger_env::Clock> = world.clock.clone();
    let mut config = world.config.clone();
    config.state_dir = world.path("another");
    config.checkpoint_file = world.path("another.checkpoint");
    std::fs::write(world.path("policy.toml"), alone).unwrap();
    let csrs: [&[u8]; 2] = [&[], &[]];
    let options = common::init_options(world.folder.path(), &csrs);
    let made = init(&config, &options, &clock, &world.random);
    assert!(matches!(made, Err(ServiceError::Question(_))), "{made:?}");
    let options = common::init_options(world.folder.path(), &csrs[..1]);
    let made = init(&config, &options, &clock, &world.random);
    assert!(matches!(&made, Err(ServiceError::Question(text)) if text.contains("two operators")), "{made:?}");
}

#[tokio::test]
async fn two_operators_unbind_what_no_gateway_unbinds_and_only_what_they_saw() {
    let world = World::new().await;
    let (full, second) = (world.enrol("full").await, world.enrol("second").await);
    let mut buckets = Vec::new();
    for bucket in ["photos", "scans"] {
        let bucket_id = full.keys.bind_bucket(bucket, None).await.unwrap().value.bucket_id;
        buckets.push(BoundBucket { bucket: bucket.into(), bucket_id });
    }
    let list: BindingList =
        ask(&world.operator(), admin::BINDING_LIST, &BindingListRequest::default()).await.unwrap();
    let listed: Vec<_> = list.bindings.iter().map(|bound| (&*bound.bucket, &*bound.bucket_id)).collect();
    assert_eq!(listed, buckets.iter().map(|bound| (&*bound.bucket, &*bound.bucket_id)).collect::<Vec<_>>());
    let first = world.operator();
    let id = propose(&first, Action::Unbind { buckets: buckets.clone() }).await.unwrap();
    assert!(is_denied(&approve(&first, &id).await), "not by himself");
    // One of them is another bucket by now: nothing is done.
    full.keys.unbind_bucket("scans", &buckets[1].bucket_id).await.unwrap();
    assert!(is_conflict(&approve(&world.second_operator(), &id).await));
    assert!(second.keys.binding("photos").await.unwrap().value.is_some());
    let none = Action::Unbind { buckets: Vec::new() };
    assert!(propose(&first, none).await.is_err());
    let one = Action::Unbind { buckets: buckets[..1].to_vec() };
    assert!(world.by_two(one.clone()).await.unwrap().done);
    assert_eq!(second.keys.binding("photos").await.unwrap().value, None);
    let record = world.audit().into_iter().rev().find(|record| record["action"] == "unbind").unwrap();
    assert_eq!((&record["what"], &record["outcome"]), (&"photos".into(), &"done".into()));
    assert!(is_conflict(&world.by_two(one).await));
    // The name is closed for as long as others may know what it was bound to.
    world.clock.advance(60_000);
    let again = full.keys.bind_bucket("photos", None).await.unwrap().value;
    assert_ne!(again.bucket_id, buckets[0].bucket_id);
}

#[tokio::test]
async fn one_operator_keeps_the_brakes() {
    let world = World::new().await;
    let first = world.operator();
    world.enrol("full").await;
    let revoke = RevokeRequest { identity: "admin:second".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&first, admin::REVOKE, &revoke).await.unwrap();
    let status: AdminStatus = ask(&first, admin::STATUS, &Empty {}).await.unwrap();
    assert!(status.problems.iter().any(|problem| problem.contains("fewer than two operators")), "{status:?}");
    let revoke = RevokeRequest { identity: "gateway:full".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&first, admin::REVOKE, &revoke).await.unwrap();
    let id = propose(&first, enrol("gateway:full", &["default"], false)).await.unwrap();
    ask::<Empty>(&first, proposals::WITHDRAW, &ProposalRequest { id }).await.unwrap();
    assert_eq!(ask::<AdminStatus>(&first, admin::LOCK, &Empty {}).await.unwrap().state, ServiceState::Locked);
}

fn recovery(world: &World, name: &str, shares: &[u8]) -> Recovery {
    let ca = stored(world, "admin").certificate.ca;
    let read = |n: &u8| {
        let path = world.path(&format!("recovery/default-v1-share-{n}.txt"));
        SecretText::new(std::fs::read_to_string(path).unwrap())
    };
    Recovery {
        address: world.config.listen.to_string(),
        ca: SpkiHash::of_certificate(&ca.0.into()).unwrap(),
        identity: name.parse().unwrap(),
        shares: shares.iter().map(read).collect(),
    }
}

#[tokio::test]
async fn recovery_shares_bring_back_operators_and_nothing_less_does() {
    let world = World::new().await;
    let first = world.operator();
    let revoke = RevokeRequest { identity: "admin:second".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&first, admin::REVOKE, &revoke).await.unwrap();
    let folder = world.path("recovered");
    let few = key_client::recover(recovery(&world, "admin:second", &[1]), &folder, world.clock.clone()).await;
    assert!(few.is_err() && !StoredIdentity::exists(&folder));
    let other = World::new().await;
    let mut foreign = recovery(&other, "admin:second", &[1, 2]);
    foreign.address = world.config.listen.to_string();
    foreign.ca = recovery(&world, "admin:second", &[]).ca;
    assert!(key_client::recover(foreign, &folder, world.clock.clone()).await.is_err(), "of another service");
    let gateway = recovery(&world, "gateway:full", &[1, 2]);
    assert!(key_client::recover(gateway, &folder, world.clock.clone()).await.is_err(), "operators only");
    key_client::recover(recovery(&world, "admin:second", &[3, 1]), &folder, world.clock.clone())
        .await
        .unwrap();
    let written = world.last_audit();
    assert_eq!(
        (&written["action"], &written["subject"]),
        (&"recover-operator".into(), &"admin:second".into())
    );
    let second = KeyClient::open_operator("", &folder, world.clock.clone()).unwrap();
    let id = propose(&first, enrol("gateway:full", &["default"], false)).await.unwrap();
    approve(&second, &id).await.unwrap();
    let unknown = recovery(&world, "admin:nobody", &[1, 2]);
    let folder = world.path("nobody");
    key_client::recover(unknown, &folder, world.clock.clone()).await.unwrap();
    let nobody = KeyClient::open_operator("", &folder, world.clock.clone()).unwrap();
    assert!(
        is_denied(&ask::<ProposalList>(&nobody, proposals::PROPOSAL_LIST, &Empty {}).await),
        "policy decides"
    );
}
