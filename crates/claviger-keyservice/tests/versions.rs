//! Versions of a keyset: rotated, retired, about to be destroyed.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::time::Duration;

use claviger_format::{KeyVersionState, KeysetRecord, Root};
use claviger_gateway::key_client::{self, ClientError, Recovery};
use claviger_keyapi::admin::{self, AdminStatus, KeysetInfo, KeysetList, RetireRequest, VersionState};
use claviger_keyapi::lifecycle::{
    self, CertificateAnswer, DESTROY_WAIT_S, ResealAnswer, ResealRequest, VersionRequest,
};
use claviger_keyapi::proposals::{self, Action, Collected, ConfirmRequest, ProposalRequest};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{
    ContinueItem, ContinueUnit, DeriveItem, DerivePurpose, KeyService as _, KeyServiceError, LeaseItem,
    ReleaseError, SessionInfo, Verb, Watch, WatchEvent,
};
use claviger_keyservice::Unlock;
use claviger_keyservice::custody::shamir::{Share, combine};
use common::{Epoch, Gateway, Object, POLICY, World, ask};
use futures_util::StreamExt as _;

fn rotate() -> Action {
    Action::Rotate { keyset: "default".into(), shares: 3, threshold: 2 }
}

/// Proposed, approved and collected; not confirmed yet.
async fn collected(world: &World) -> (String, Vec<SecretText>) {
    let id = world.by_two(rotate()).await.unwrap().proposal.id;
    let request = ProposalRequest { id: id.clone() };
    match ask::<Collected>(&world.operator(), proposals::COLLECT, &request).await.unwrap() {
        Collected::Shares(shares) => (id, shares.shares),
        other => panic!("{other:?}"),
    }
}

async fn confirm(world: &World, id: &str, lines: &[SecretText]) -> Result<(), KeyServiceError> {
    let secrets = lines.iter().map(|line| SecretText::new(line.expose().to_owned())).collect();
    let request = ConfirmRequest { id: id.to_owned(), secrets };
    ask::<Empty>(&world.operator(), proposals::CONFIRM, &request).await.map(drop)
}

async fn rotated(world: &World) -> Vec<SecretText> {
    let (id, lines) = collected(world).await;
    confirm(world, &id, &lines).await.unwrap();
    lines
}

async fn keyset(world: &World) -> KeysetInfo {
    let list: KeysetList = ask(&world.operator(), admin::KEYSET_LIST, &Empty {}).await.unwrap();
    list.keysets.into_iter().find(|keyset| keyset.name == "default").unwrap()
}

async fn lease(gateway: &Gateway, epoch: &Epoch) -> Result<(), ReleaseError> {
    let item = LeaseItem { epoch_id: epoch.id.into(), record: Some(Blob(epoch.record.clone())) };
    gateway.keys.lease(vec![item]).await.unwrap().value.remove(0).map(drop)
}

async fn session(gateway: &Gateway) -> SessionInfo {
    gateway.keys.session().await.unwrap().value
}

/// The next event but for beats, within what is asked for where "at once" is promised.
async fn next(stream: &mut Watch) -> WatchEvent {
    loop {
        match tokio::time::timeout(Duration::from_secs(2), stream.next()).await.expect("nothing is told") {
            Some(Ok(WatchEvent::Beat)) => {}
            told => return told.unwrap().unwrap(),
        }
    }
}

fn root_of(lines: &[SecretText], keyset: &KeysetInfo, version: u32) -> Root {
    let shares: Vec<Share> = lines.iter().map(|line| Share::parse(line.expose()).unwrap()).collect();
    Root::new(combine(&shares[..2]).unwrap(), keyset.keyset_id.into(), version)
}

#[tokio::test]
async fn a_new_version_counts_once_all_of_its_shares_came_back_and_what_was_sealed_before_still_opens() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let old = full.seal_epoch();
    full.keys.register_epoch(&old.record).await.unwrap();
    let mut stream = full.keys.watch().await.unwrap();
    next(&mut stream).await;

    let (id, lines) = collected(&world).await;
    let few = confirm(&world, &id, &lines[..2]).await.unwrap_err();
    assert!(few.to_string().contains("all of them"), "{few}");
    assert_eq!((session(&full).await.keysets[0].version, keyset(&world).await.versions.len()), (1, 1));
    confirm(&world, &id, &lines).await.unwrap();

    let told = next(&mut stream).await;
    assert!(matches!(told, WatchEvent::Policy { less: false, .. }), "{told:?}");
    let after = world.gateway("full").await;
    assert_eq!(after.keyset().version, 2);
    let info = keyset(&world).await;
    let states: Vec<_> = info.versions.iter().map(|version| (version.number, version.state)).collect();
    assert_eq!(states, [(1, VersionState::Retired), (2, VersionState::Active)]);
    assert_ne!(info.versions[0].root_fingerprint, info.versions[1].root_fingerprint);
    let new = after.seal_epoch();
    after.keys.register_epoch(&new.record).await.unwrap();
    let root = root_of(&lines, &info, 2);
    let open = |epoch: &Epoch| claviger_format::EpochRecord::parse(&epoch.record).unwrap().open(&root);
    assert_eq!(open(&new).unwrap().expose(), new.wek.expose(), "the shares open what is sealed now");
    assert!(open(&old).is_err());
    // What a gateway that has not heard yet seals to the version before opens as well: it may have written objects already.
    let late = full.seal_epoch();
    world.restart().await;
    let after = world.gateway("full").await;
    for epoch in [&old, &new, &late] {
        lease(&after, epoch).await.unwrap();
    }
    let record = world.audit().into_iter().find(|record| record["action"] == "rotate").unwrap();
    let what = record["what"].as_str().unwrap();
    assert!(what.starts_with("version 2, root ") && what.ends_with("retired: [1]"), "{what}");
    assert!(!what.contains(lines[0].expose()));
}

#[tokio::test]
async fn the_keyset_record_opens_with_the_shares_of_any_version_and_tells_which_are_retired() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let lines = rotated(&world).await;
    let bytes = session(&full).await.keysets.remove(0).record.0;
    let record = KeysetRecord::parse(&bytes).unwrap();
    let states: Vec<_> = record.versions().iter().map(|version| (version.version, version.state)).collect();
    assert_eq!(states, [(1, KeyVersionState::Retired), (2, KeyVersionState::Active)]);
    let info = keyset(&world).await;
    let from_new = record.open(&root_of(&lines, &info, 2)).unwrap();
    let first: Vec<SecretText> = (1..=2)
        .map(|n| world.path(&format!("recovery/default-v1-share-{n}.txt")))
        .map(|path| SecretText::new(std::fs::read_to_string(path).unwrap()))
        .collect();
    assert_eq!(record.open(&root_of(&first, &info, 1)).unwrap().expose(), from_new.expose());
}

#[tokio::test]
async fn of_two_versions_that_were_collected_at_once_only_one_is_added() {
    let world = World::new().await;
    let (first, second) = (collected(&world).await, collected(&world).await);
    confirm(&world, &first.0, &first.1).await.unwrap();
    let refused = confirm(&world, &second.0, &second.1).await.unwrap_err();
    assert!(refused.to_string().contains("propose it again"), "{refused}");
    let (late, lines) = collected(&world).await;
    world.service().lock().unwrap();
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    world.service().unlock(passphrase.trim()).unwrap();
    assert!(confirm(&world, &late, &lines).await.is_err(), "a lock forgets what was not confirmed");
    assert_eq!(keyset(&world).await.versions.len(), 2);
}

#[tokio::test]
async fn a_new_version_takes_two_operators_and_a_keyset_that_is_there() {
    let world = World::new().await;
    let request = proposals::ProposeRequest { action: rotate(), ttl_s: None };
    let proposal: proposals::ProposalInfo =
        ask(&world.operator(), proposals::PROPOSE, &request).await.unwrap();
    assert!(proposal.words.iter().any(|line| line.contains("no object is touched")), "{:?}", proposal.words);
    let request = ProposalRequest { id: proposal.id };
    assert!(ask::<Empty>(&world.operator(), proposals::APPROVE, &request).await.is_err());
    assert!(ask::<Collected>(&world.operator(), proposals::COLLECT, &request).await.is_err());
    for (keyset, shares, threshold) in [("other", 3, 2), ("default", 3, 1), ("default", 2, 3)] {
        let action = Action::Rotate { keyset: keyset.into(), shares, threshold };
        assert!(world.by_two(action).await.is_err(), "{keyset} {threshold} of {shares}");
    }
}

#[tokio::test]
async fn a_keyset_that_is_retired_is_read_only_until_it_gets_a_new_version() {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let old = full.seal_epoch();
    full.keys.register_epoch(&old.record).await.unwrap();
    let mut stream = full.keys.watch().await.unwrap();
    next(&mut stream).await;
    let retire = RetireRequest { keyset: "default".into() };
    let info: KeysetInfo = ask(&world.operator(), admin::KEYSET_RETIRE, &retire).await.unwrap();
    assert_eq!((info.version, info.versions[0].state), (None, VersionState::Retired));
    let told = next(&mut stream).await;
    assert!(matches!(told, WatchEvent::Policy { less: true, .. }), "{told:?}");
    let again = ask::<KeysetInfo>(&world.operator(), admin::KEYSET_RETIRE, &retire).await;
    assert!(matches!(again, Err(KeyServiceError::Conflict { .. })));
    world.restart().await;
    let full = world.gateway("full").await;
    let keyset = full.keyset();
    assert!(
        keyset.psk.is_none() && !keyset.verbs.contains(&Verb::Write) && keyset.verbs.contains(&Verb::Lease)
    );
    lease(&full, &old).await.unwrap();
    let bound = full.keys.bind_bucket("new", Some("default")).await;
    assert!(matches!(bound, Err(KeyServiceError::Denied { .. })), "{bound:?}");
    rotated(&world).await;
    assert!(session(&full).await.keysets[0].psk.is_some());
    full.keys.bind_bucket("new", Some("default")).await.unwrap();
}

#[tokio::test]
async fn gateways_hear_at_once_that_a_version_is_to_be_destroyed_and_one_operator_takes_it_back() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let old = full.seal_epoch();
    full.keys.register_epoch(&old.record).await.unwrap();
    rotated(&world).await;
    let mut stream = full.keys.watch().await.unwrap();
    next(&mut stream).await;
    let destroy = Action::Destroy { keyset: "default".into(), version: 1, wait_s: DESTROY_WAIT_S };
    let answer = world.by_two(destroy).await.unwrap();
    assert!(
        answer.done
            && answer.proposal.words[0] == "destroy version 1 of keyset default, 7 days after it is approved"
    );
    let told = next(&mut stream).await;
    assert!(matches!(told, WatchEvent::Policy { less: true, .. }), "{told:?}");
    let refused = lease(&full, &old).await.unwrap_err();
    assert!(
        matches!(&refused, ReleaseError::Destroyed { text } if text.contains("will be destroyed")),
        "{refused}"
    );
    let late = full.seal_epoch();
    assert!(matches!(full.keys.register_epoch(&late.record).await, Err(KeyServiceError::Denied { .. })));
    let info = keyset(&world).await;
    assert_eq!(info.versions[0].state, VersionState::Doomed);
    let status: AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
    assert!(status.notes.iter().any(|note| note.contains("shred cancel")), "{:?}", status.notes);

    let which = VersionRequest { keyset: "default".into(), version: 1 };
    let none = ask::<CertificateAnswer>(&world.operator(), lifecycle::SHRED_CERTIFICATE, &which).await;
    assert!(matches!(none, Err(KeyServiceError::Conflict { .. })));
    let info: KeysetInfo = ask(&world.second_operator(), lifecycle::SHRED_CANCEL, &which).await.unwrap();
    assert_eq!(info.versions[0].state, VersionState::Retired);
    let told = next(&mut stream).await;
    assert!(matches!(told, WatchEvent::Policy { less: false, .. }), "{told:?}");
    lease(&full, &old).await.unwrap();
    full.keys.register_epoch(&late.record).await.unwrap();
    let acts: Vec<String> =
        world.audit().iter().map(|record| record["action"].as_str().unwrap().to_owned()).collect();
    let decided = acts.iter().position(|action| action == "destroy-decided").unwrap();
    assert!(acts[decided..].contains(&"destroy-cancelled".to_owned()));
}

/// Recovers the second operator with these shares.
async fn recovered(world: &World, shares: Vec<SecretText>, folder: &str) -> Result<(), ClientError> {
    let ca = common::stored(world, "admin").certificate.ca;
    let recovery = Recovery {
        address: world.config.listen.to_string(),
        ca: SpkiHash::of_certificate(&ca.0.into()).unwrap(),
        identity: "admin:second".parse().unwrap(),
        shares,
    };
    key_client::recover(recovery, &world.path(folder), world.clock.clone()).await.map(drop)
}

#[tokio::test]
async fn shares_from_before_a_rotation_make_no_operator() {
    let world = World::new().await;
    let old = |number| {
        let path = world.path(&format!("recovery/default-v1-share-{number}.txt"));
        SecretText::new(std::fs::read_to_string(path).unwrap())
    };
    let new = rotated(&world).await;
    assert!(recovered(&world, vec![old(1), old(2)], "thief").await.is_err());
    recovered(&world, new, "second-again").await.unwrap();
    // Of a keyset that is only read, those of its newest version count.
    let retire = RetireRequest { keyset: "default".into() };
    ask::<KeysetInfo>(&world.operator(), admin::KEYSET_RETIRE, &retire).await.unwrap();
    assert!(recovered(&world, vec![old(1), old(2)], "thief").await.is_err());
}

const ERA: &str = "[[keyset]]\nname = \"default\"\nera_shred = true\n";

/// What a gateway without lease is told when it asks to re-bind this object.
async fn rebind(gateway: &Gateway, object: &Object) -> Result<(), ReleaseError> {
    let bucket_id = object.name.bucket_id().as_str().to_owned();
    let tlv_len = u32::from_be_bytes(object.header.as_bytes()[12..16].try_into().unwrap());
    let purpose = DerivePurpose::CopySource {
        dest_bucket_id: bucket_id.clone(),
        dest_key: "copy".into(),
        tlv_lengths: vec![tlv_len],
    };
    let (header, key) = (object.header.clone(), object.name.key().to_owned());
    let item = DeriveItem { record: None, header, bucket_id, key, purpose, on_behalf_of: None };
    gateway.keys.derive(vec![item]).await.unwrap().value.remove(0).map(drop)
}

/// The version that is told with a lease of the epoch.
async fn told(gateway: &Gateway, epoch: &Epoch) -> Option<u32> {
    let item = LeaseItem { epoch_id: epoch.id.into(), record: None };
    gateway.keys.lease(vec![item]).await.unwrap().value.remove(0).unwrap().version
}

#[tokio::test]
async fn in_a_keyset_that_is_shredded_by_era_nothing_older_than_the_newest_version_is_bound_to_another_name()
{
    let world = World::with(&format!("{POLICY}{ERA}"), Unlock::PassphraseFile).await;
    let full = world.enrol("full").await;
    assert!(full.keyset().era_shred && keyset(&world).await.era_shred);
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let old = full.seal_epoch();
    full.keys.register_epoch(&old.record).await.unwrap();
    let before = full.seal_object(&old, &bucket_id, "2024");
    rebind(&full, &before).await.unwrap();
    assert_eq!(told(&full, &old).await, Some(1));

    rotated(&world).await;
    let refused = rebind(&full, &before).await.unwrap_err();
    assert!(
        matches!(&refused, ReleaseError::SealAnew { text } if text.contains("version 1") && text.contains("newest is 2")),
        "{refused}"
    );
    let last = world.last_audit();
    assert_eq!(
        (last["outcome"].as_str(), last["reason"].as_str()),
        (Some("refused"), Some(&*refused.to_string()))
    );
    assert_eq!(told(&full, &old).await, Some(1));
    let after = world.gateway("full").await;
    let new = after.seal_epoch();
    after.keys.register_epoch(&new.record).await.unwrap();
    let now = after.seal_object(&new, &bucket_id, "2026");
    rebind(&after, &now).await.unwrap();
    assert_eq!(told(&after, &new).await, Some(2));
    let token = after.begin_upload(&old, &bucket_id, "in parts");
    let item = ContinueItem {
        record: None,
        upload_token: token,
        bucket_id: bucket_id.clone(),
        key: "in parts".into(),
        unit: ContinueUnit::Check,
        on_behalf_of: None,
    };
    let continued = after.keys.continue_upload(vec![item]).await.unwrap().value.remove(0).unwrap();
    assert_eq!(continued.version, Some(1));

    // A recipient that somebody put beside the one that opens makes no epoch younger.
    let late = full.seal_epoch();
    let mut forged = late.record.clone();
    let mut recipient = forged[97..].to_vec();
    recipient[..4].copy_from_slice(&2u32.to_be_bytes());
    forged[96] = 2;
    forged.extend(recipient);
    let item = LeaseItem { epoch_id: late.id.into(), record: Some(Blob(forged)) };
    let lease = after.keys.lease(vec![item]).await.unwrap().value.remove(0).unwrap();
    assert_eq!(lease.version, Some(1));

    // Sealed anew to the newest version the epoch opens under that one; for whoever has the old record and shares it does not.
    world.by_two(Action::Reseal { keyset: "default".into(), version: 1 }).await.unwrap();
    let step = ResealRequest { keyset: "default".into(), version: 1, after: None };
    let done: ResealAnswer = ask(&world.operator(), lifecycle::RESEAL, &step).await.unwrap();
    assert!(done.resealed >= 1, "{done:?}");
    assert!(matches!(rebind(&after, &before).await, Err(ReleaseError::SealAnew { .. })));

    // With nothing that writes, nothing is bound either: not even what lies under the last version.
    let retire = RetireRequest { keyset: "default".into() };
    ask::<KeysetInfo>(&world.operator(), admin::KEYSET_RETIRE, &retire).await.unwrap();
    let refused = rebind(&after, &now).await.unwrap_err();
    assert!(
        matches!(&refused, ReleaseError::SealAnew { text } if text.contains("none is active")),
        "{refused}"
    );
}

#[tokio::test]
async fn that_a_keyset_is_shredded_by_era_is_told_at_once_takes_nothing_away_and_holds_from_then_on() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let old = full.seal_epoch();
    full.keys.register_epoch(&old.record).await.unwrap();
    let before = full.seal_object(&old, &bucket_id, "2024");
    rotated(&world).await;
    rebind(&full, &before).await.unwrap();
    assert_eq!(told(&full, &old).await, None);
    assert!(!session(&full).await.keysets[0].era_shred);
    let mut stream = full.keys.watch().await.unwrap();
    next(&mut stream).await;

    world.by_two(Action::Policy { text: format!("{POLICY}{ERA}") }).await.unwrap();
    let heard = next(&mut stream).await;
    assert!(matches!(heard, WatchEvent::Policy { less: false, .. }), "{heard:?}");
    assert!(session(&full).await.keysets[0].era_shred);
    assert!(matches!(rebind(&full, &before).await, Err(ReleaseError::SealAnew { .. })));

    world.by_two(Action::Policy { text: POLICY.into() }).await.unwrap();
    let heard = next(&mut stream).await;
    assert!(matches!(heard, WatchEvent::Policy { less: false, .. }), "{heard:?}");
    rebind(&full, &before).await.unwrap();
}
