//! Two operators change how the service is unlocked and who holds recovery shares.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use claviger_keyapi::admin::{self, AdminStatus, KeysetList, UnlockRequest, UnlockShareRequest, UnlockState};
use claviger_keyapi::proposals::{
    self, Action, Collected, ConfirmRequest, ProposalInfo, ProposalRequest, ProposeRequest, UnlockTo,
};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{KeyServiceError, ServiceState};
use claviger_keyservice::Unlock;
use claviger_keyservice::custody::shamir::{Share, combine};
use common::{POLICY, World, ask};

fn copies(texts: &[SecretText]) -> Vec<SecretText> {
    texts.iter().map(|text| SecretText::new(text.expose().to_owned())).collect()
}

/// Proposed, approved and collected; not confirmed yet.
async fn collected(world: &World, action: Action) -> (String, Vec<SecretText>) {
    let id = world.by_two(action).await.unwrap().proposal.id;
    let request = ProposalRequest { id: id.clone() };
    match ask::<Collected>(&world.operator(), proposals::COLLECT, &request).await.unwrap() {
        Collected::UnlockSecrets(secrets) => (id, secrets.secrets),
        Collected::Shares(shares) => (id, shares.shares),
        other => panic!("{other:?}"),
    }
}

async fn confirm(world: &World, id: &str, secrets: Vec<SecretText>) -> Result<(), KeyServiceError> {
    let request = ConfirmRequest { id: id.to_owned(), secrets };
    ask::<Empty>(&world.operator(), proposals::CONFIRM, &request).await.map(drop)
}

async fn bring(world: &World, share: &SecretText) -> Result<UnlockState, KeyServiceError> {
    let request = UnlockShareRequest { share: SecretText::new(share.expose().to_owned()) };
    ask(&world.operator(), admin::UNLOCK_SHARE, &request).await
}

async fn with_passphrase(world: &World, text: &str) -> Result<AdminStatus, KeyServiceError> {
    let request = UnlockRequest { passphrase: SecretText::new(text.trim().to_owned()) };
    ask(&world.operator(), admin::UNLOCK, &request).await
}

#[tokio::test]
async fn a_new_unlock_method_counts_only_once_its_secret_came_back_and_then_alone() {
    let mut world = World::with(POLICY, Unlock::Operator).await;
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    with_passphrase(&world, &passphrase).await.unwrap();
    let to = UnlockTo::Quorum { shares: 3, threshold: 2 };
    let (id, shares) = collected(&world, Action::ChangeUnlock { to }).await;
    let few = confirm(&world, &id, copies(&shares[..2])).await.unwrap_err();
    assert!(few.to_string().contains("all of them"), "{few}");
    world.restart().await;
    with_passphrase(&world, &passphrase).await.unwrap();
    let late = confirm(&world, &id, copies(&shares)).await.unwrap_err();
    assert!(late.to_string().contains("propose it again"), "what was not confirmed is forgotten: {late}");

    let to = UnlockTo::Quorum { shares: 3, threshold: 2 };
    let (id, shares) = collected(&world, Action::ChangeUnlock { to }).await;
    confirm(&world, &id, copies(&shares)).await.unwrap();
    assert_eq!(world.last_audit()["action"], "unlock-change");
    world.restart().await;
    let old = with_passphrase(&world, &passphrase).await.unwrap_err();
    assert!(old.to_string().contains("unlocked by shares"), "{old}");
    assert!(!bring(&world, &shares[0]).await.unwrap().unlocked);
    assert!(bring(&world, &shares[2]).await.unwrap().unlocked);

    // New shares of the same kind: the old set is of no use any more.
    let to = UnlockTo::Quorum { shares: 2, threshold: 2 };
    let (id, newer) = collected(&world, Action::ChangeUnlock { to }).await;
    confirm(&world, &id, copies(&newer)).await.unwrap();
    world.restart().await;
    let old = bring(&world, &shares[0]).await.unwrap_err();
    assert!(old.to_string().contains("another set"), "{old}");
    bring(&world, &newer[0]).await.unwrap();
    assert!(bring(&world, &newer[1]).await.unwrap().unlocked);
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
}

#[tokio::test]
async fn a_new_passphrase_takes_the_place_of_the_old_one() {
    let mut world = World::with(POLICY, Unlock::Operator).await;
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    with_passphrase(&world, &passphrase).await.unwrap();
    let (id, texts) = collected(&world, Action::ChangeUnlock { to: UnlockTo::Passphrase }).await;
    confirm(&world, &id, copies(&texts)).await.unwrap();
    world.restart().await;
    assert!(matches!(with_passphrase(&world, &passphrase).await, Err(KeyServiceError::Denied { .. })));
    with_passphrase(&world, texts[0].expose()).await.unwrap();
}

#[tokio::test]
async fn shares_that_wait_are_wiped_after_a_while_and_by_a_lock() {
    let mut world = World::with(POLICY, Unlock::Operator).await;
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    with_passphrase(&world, &passphrase).await.unwrap();
    let to = UnlockTo::Quorum { shares: 3, threshold: 2 };
    let (id, shares) = collected(&world, Action::ChangeUnlock { to }).await;
    confirm(&world, &id, copies(&shares)).await.unwrap();
    world.restart().await;
    bring(&world, &shares[0]).await.unwrap();
    world.clock.advance(15 * 60 * 1000);
    assert_eq!(bring(&world, &shares[1]).await.unwrap().shares_here, [2]);
    world.service().lock().unwrap();
    assert_eq!(bring(&world, &shares[2]).await.unwrap().shares_here, [3]);
    let refused = world.audit().iter().filter(|record| record["action"] == "unlock-share").count();
    assert_eq!(refused, 3, "each is written down");
}

#[tokio::test]
async fn new_recovery_shares_give_the_same_root_and_the_old_ones_are_named() {
    let world = World::new().await;
    let reshare = || Action::Reshare { keyset: "default".into(), version: 1, shares: 4, threshold: 3 };
    let (id, mut lines) = collected(&world, reshare()).await;
    let before: KeysetList = ask(&world.operator(), admin::KEYSET_LIST, &Empty {}).await.unwrap();
    assert_eq!((before.keysets[0].shares, before.keysets[0].earlier_sets.len()), (3, 0), "not yet");
    let old: Vec<Share> = (1..=3)
        .map(|n| world.path(&format!("recovery/default-v1-share-{n}.txt")))
        .map(|path| Share::parse(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect();
    let wrong = old.iter().map(|share| SecretText::new(share.to_line().to_string())).collect();
    assert!(confirm(&world, &id, wrong).await.unwrap_err().to_string().contains("not the ones"));
    confirm(&world, &id, copies(&lines)).await.unwrap();
    let after: KeysetList = ask(&world.operator(), admin::KEYSET_LIST, &Empty {}).await.unwrap();
    let (before, after) = (&before.keysets[0], &after.keysets[0]);
    assert_eq!((after.shares, after.threshold), (4, 3));
    assert_eq!(after.root_fingerprint, before.root_fingerprint);
    assert_eq!((&after.earlier_sets[0].set, after.earlier_sets[0].threshold), (&before.share_set, 2));
    let text = world.last_audit()["what"].as_str().unwrap().to_owned();
    assert!(text.contains("still open it until they are destroyed"), "{text}");
    let new: Vec<Share> = lines.drain(..3).map(|line| Share::parse(line.expose()).unwrap()).collect();
    assert_eq!(combine(&new).unwrap().expose(), combine(&old).unwrap().expose());
    assert!(combine(&[old.into_iter().next().unwrap(), new.into_iter().next().unwrap()]).is_err());
    let unknown = Action::Reshare { keyset: "default".into(), version: 2, shares: 4, threshold: 3 };
    assert!(matches!(world.by_two(unknown).await, Err(KeyServiceError::Keyset { .. })));
}

#[tokio::test]
async fn nobody_changes_custody_alone_or_confirms_for_another() {
    let world = World::new().await;
    let action = Action::ChangeUnlock { to: UnlockTo::Passphrase };
    let request = ProposeRequest { action, ttl_s: None };
    let proposal: ProposalInfo = ask(&world.operator(), proposals::PROPOSE, &request).await.unwrap();
    let request = ProposalRequest { id: proposal.id.clone() };
    let early = ask::<Collected>(&world.operator(), proposals::COLLECT, &request).await.unwrap_err();
    assert!(early.to_string().contains("not approved"), "{early}");
    assert!(ask::<Empty>(&world.operator(), proposals::APPROVE, &request).await.is_err());
    let (id, texts) = collected(&world, Action::ChangeUnlock { to: UnlockTo::Passphrase }).await;
    let request = ConfirmRequest { id: id.clone(), secrets: copies(&texts) };
    let other = ask::<Empty>(&world.second_operator(), proposals::CONFIRM, &request).await.unwrap_err();
    assert!(matches!(other, KeyServiceError::Denied { .. }), "{other}");
    world.clock.advance(60 * 60 * 1000);
    assert!(confirm(&world, &id, texts).await.unwrap_err().to_string().contains("propose it again"));
    let no_hsm = Action::ChangeUnlock { to: UnlockTo::Pkcs11 };
    assert!(world.by_two(no_hsm).await.unwrap_err().to_string().contains("[pkcs11]"));
}
