//! Budgets over real sockets: what a gateway gets, what it gets no more, and what does not refill it.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use claviger_keyapi::admin::{self, AdminStatus, BudgetInfo, BudgetList, UnlockRequest};
use claviger_keyapi::proposals::{Action, FreezeTarget};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{
    ContinueItem, ContinueUnit, DeriveItem, DerivePurpose, Derived, KeyService as _, KeyServiceError,
    LeaseItem, ReleaseError,
};
use claviger_keyservice::Unlock;
use common::{Epoch, Gateway, Object, POLICY, World, ask};
use tokio::time::timeout;

const WINDOW_MS: u64 = 600_000;

fn policy(maxima: &str) -> String {
    format!(
        "{POLICY}[[budget]]\nidentity = \"gateway:full\"\nkeyset = \"default\"\nwindow_s = {}\n{maxima}",
        WINDOW_MS / 1000
    )
}

/// A service, its gateway `full`, and an epoch with objects in a bucket.
struct Scene {
    world: World,
    full: Gateway,
    bucket_id: String,
    epoch: Epoch,
    objects: Vec<Object>,
}

impl Scene {
    async fn new(maxima: &str) -> Self {
        let world = World::with(&policy(maxima), Unlock::PassphraseFile).await;
        let full = world.enrol("full").await;
        let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
        let epoch = full.seal_epoch();
        full.keys.register_epoch(&epoch.record).await.unwrap();
        let objects = (0..40).map(|n| full.seal_object(&epoch, &bucket_id, &format!("k{n}"))).collect();
        Self { world, full, bucket_id, epoch, objects }
    }

    fn item(&self, n: usize) -> DeriveItem {
        DeriveItem {
            record: None,
            header: self.objects[n].header.clone(),
            bucket_id: self.bucket_id.clone(),
            key: format!("k{n}"),
            purpose: if n.is_multiple_of(2) { DerivePurpose::Read } else { DerivePurpose::Head },
            on_behalf_of: None,
        }
    }

    async fn derive(&self, numbers: impl IntoIterator<Item = usize>) -> Vec<Result<Derived, ReleaseError>> {
        let items: Vec<DeriveItem> = numbers.into_iter().map(|n| self.item(n)).collect();
        let count = items.len();
        match self.full.keys.derive(items).await {
            Ok(answer) => answer.value,
            // Refused as a whole: nothing of it was looked at.
            Err(KeyServiceError::Frozen { text }) => {
                (0..count).map(|_| Err(ReleaseError::Frozen { text: text.clone() })).collect()
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn used(&self) -> BudgetInfo {
        let list: BudgetList = ask(&self.world.operator(), admin::BUDGET_LIST, &Empty {}).await.unwrap();
        list.budgets.into_iter().next().unwrap()
    }

    async fn frozen(&self) -> Vec<FreezeTarget> {
        let status: AdminStatus = ask(&self.world.operator(), admin::STATUS, &Empty {}).await.unwrap();
        assert!(status.frozen.iter().all(|freeze| freeze.by.is_none() && freeze.reason.contains("budget")));
        status.frozen.into_iter().map(|freeze| freeze.target).collect()
    }
}

fn full() -> FreezeTarget {
    FreezeTarget::Identity("gateway:full".parse().unwrap())
}

fn ok(results: &[Result<Derived, ReleaseError>]) -> Vec<bool> {
    results.iter().map(Result::is_ok).collect()
}

#[tokio::test]
async fn a_batch_that_crosses_the_budget_gets_what_was_within_it_and_freezes_its_gateway() {
    let scene = Scene::new("objects_max = 5\n").await;
    let second = scene.world.enrol("second").await;
    assert_eq!(ok(&scene.derive([0, 1, 0, 0, 1, 2]).await), [true; 6], "one object counts once");
    let crossing = scene.derive([0, 3, 4, 5, 6, 1]).await;
    assert_eq!(ok(&crossing), [true, true, true, false, false, false], "even what it had before is over");
    let Err(ReleaseError::Frozen { text }) = &crossing[3] else { panic!("{crossing:?}") };
    let told = "gateway:full is frozen, its budget is used up: 5 objects in 600 s, keyset default; two operators can \
                unfreeze it";
    assert_eq!(text, told);
    assert_eq!(scene.frozen().await, [full()]);
    assert!(matches!(scene.full.keys.session().await, Err(KeyServiceError::Frozen { text }) if text == told));
    let audit = scene.world.audit();
    let freeze = audit.iter().find(|record| record["action"] == "freeze").unwrap();
    assert!(freeze["identity"].is_null() && freeze["subject"] == "gateway:full", "{freeze}");
    assert_eq!(freeze["what"], "its budget is used up: 5 objects in 600 s, keyset default");
    let lease = LeaseItem { epoch_id: scene.epoch.id.into(), record: None };
    assert!(second.keys.lease(vec![lease]).await.unwrap().value[0].is_ok(), "nobody else is frozen");
    // Time alone does not thaw it.
    scene.world.clock.advance(WINDOW_MS);
    assert_eq!(ok(&scene.derive([0]).await), [false]);
    scene.world.by_two(Action::Unfreeze { target: full() }).await.unwrap();
    assert_eq!(scene.used().await.objects, Some(0), "unfreezing begins a new window");
    assert_eq!(ok(&scene.derive(10..15).await), [true; 5]);
}

#[tokio::test]
async fn the_window_moves_on_with_the_time() {
    let scene = Scene::new("objects_max = 3\n").await;
    for n in 0..20 {
        assert_eq!(ok(&scene.derive([n]).await), [true]);
        scene.world.clock.advance(WINDOW_MS / 3);
    }
    assert!(scene.frozen().await.is_empty());
    let used = scene.used().await;
    assert_eq!((used.objects, used.objects_max, used.epochs, used.stopped), (Some(2), Some(3), None, None));
}

#[tokio::test]
async fn leases_count_epochs_and_uploads_that_go_on_count_objects() {
    let scene = Scene::new("epochs_max = 2\nobjects_max = 2\n").await;
    let go_on = |token: String| ContinueItem {
        record: None,
        upload_token: token,
        bucket_id: scene.bucket_id.clone(),
        key: "m".into(),
        unit: ContinueUnit::Part { number: 1, length: 5 },
        on_behalf_of: None,
    };
    let tokens: Vec<String> =
        (0..3).map(|_| scene.full.begin_upload(&scene.epoch, &scene.bucket_id, "m")).collect();
    let both = vec![go_on(tokens[0].clone()), go_on(tokens[0].clone()), go_on(tokens[1].clone())];
    assert!(scene.full.keys.continue_upload(both).await.unwrap().value.iter().all(Result::is_ok));
    let mut epochs = vec![LeaseItem { epoch_id: scene.epoch.id.into(), record: None }];
    for _ in 0..2 {
        let epoch = scene.full.seal_epoch();
        scene.full.keys.register_epoch(&epoch.record).await.unwrap();
        epochs.push(LeaseItem { epoch_id: epoch.id.into(), record: None });
    }
    let two = scene.full.keys.lease(epochs[..2].to_vec()).await.unwrap().value;
    assert!(two.iter().all(Result::is_ok));
    let used = scene.used().await;
    assert_eq!((used.epochs, used.objects), (Some(2), Some(2)));
    let third = scene.full.keys.lease(epochs).await.unwrap().value;
    assert_eq!(third.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(scene.frozen().await, [full()]);
    scene.world.by_two(Action::Unfreeze { target: full() }).await.unwrap();
    let three = tokens.into_iter().map(go_on).collect();
    let three = scene.full.keys.continue_upload(three).await.unwrap().value;
    assert_eq!(three.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, true, false]);
}

#[tokio::test]
async fn neither_a_restart_nor_a_lock_nor_the_wall_clock_refills_a_budget() {
    let mut scene = Scene::new("objects_max = 5\n").await;
    assert_eq!(ok(&scene.derive(0..2).await), [true; 2]);
    scene.world.clock.advance(WINDOW_MS / 2);
    assert_eq!(ok(&scene.derive(2..4).await), [true; 2]);
    scene.world.restart().await;
    assert_eq!(scene.used().await.objects, Some(4));
    let passphrase = std::fs::read_to_string(scene.world.path("passphrase")).unwrap();
    scene.world.service().lock().unwrap();
    let unlock = UnlockRequest { passphrase: SecretText::new(passphrase) };
    ask::<AdminStatus>(&scene.world.operator(), admin::UNLOCK, &unlock).await.unwrap();
    assert_eq!(scene.used().await.objects, Some(4));
    // Back while it is down, and forward while it runs: neither is time.
    scene.world.stop().await;
    scene.world.clock.set_wall_by(-120_000);
    scene.world.start().await.unwrap();
    assert_eq!(scene.used().await.objects, Some(4));
    scene.world.clock.set_wall_by(3_600_000);
    assert_eq!(scene.used().await.objects, Some(4));
    // What is old enough is not counted by a restart either.
    scene.world.clock.set_wall_by(-3_600_000 + 120_000);
    scene.world.clock.advance(WINDOW_MS / 2);
    assert_eq!(scene.used().await.objects, Some(4), "what the clock was set back by, it counts longer");
    scene.world.clock.advance(120_000);
    assert_eq!(scene.used().await.objects, Some(2));
    scene.world.restart().await;
    assert_eq!(scene.used().await.objects, Some(2));
    assert_eq!(ok(&scene.derive(10..14).await), [true, true, true, false]);
    scene.world.restart().await;
    assert_eq!(scene.frozen().await, [full()], "frozen it stays");
    scene.world.by_two(Action::Unfreeze { target: full() }).await.unwrap();
    assert_eq!(ok(&scene.derive([20]).await), [true]);
    scene.world.restart().await;
    assert_eq!(scene.used().await.objects, Some(1), "a new window is new after a restart as well");
}

#[tokio::test]
async fn requests_side_by_side_get_no_more_than_one_after_the_other() {
    for round in 0..4 {
        let scene = Scene::new("objects_max = 13\n").await;
        let asked: Vec<Vec<usize>> =
            (0..8).map(|n| (0..5).map(|k| (n * 5 + k * (round + 1)) % 40).collect()).collect();
        let calls = asked.iter().map(|numbers| {
            let items = numbers.iter().map(|n| scene.item(*n)).collect();
            let keys = scene.full.keys.clone();
            tokio::spawn(async move { keys.derive(items).await })
        });
        let mut given = BTreeSet::new();
        for (call, numbers) in calls.collect::<Vec<_>>().into_iter().zip(&asked) {
            match call.await.unwrap() {
                Ok(answer) => given.extend(
                    numbers.iter().zip(&answer.value).filter(|(_, result)| result.is_ok()).map(|(n, _)| *n),
                ),
                Err(error) => assert!(matches!(error, KeyServiceError::Frozen { .. }), "{error}"),
            }
        }
        let audit = scene.world.audit();
        let released =
            audit.iter().filter(|record| record["action"] == "derive" && record["outcome"] == "released");
        let released: BTreeSet<String> = released.map(|record| record["object_id"].to_string()).collect();
        assert_eq!(released.len(), 13, "exactly what the budget has, in whatever order they came");
        assert!(given.len() <= 13);
        assert_eq!(scene.frozen().await, [full()]);
        let freezes = audit.iter().filter(|record| record["action"] == "freeze").count();
        assert_eq!(freezes, 1);
    }
}

#[tokio::test]
async fn a_new_budget_counts_what_was_released_before_it_and_another_policy_refills_none() {
    let scene = Scene::new("epochs_max = 9\n").await;
    assert_eq!(ok(&scene.derive(0..4).await), [true; 4]);
    let propose = async |maxima: &str| {
        let action = Action::Policy { text: policy(maxima) };
        scene.world.by_two(action).await.unwrap();
    };
    propose("epochs_max = 9\nobjects_max = 6\n").await;
    assert_eq!(scene.used().await.objects, Some(4));
    assert_eq!(ok(&scene.derive([4]).await), [true]);
    propose("objects_max = 7\n# raised").await;
    assert_eq!(scene.used().await.objects, Some(5));
    propose("objects_max = 3\n").await;
    assert_eq!(ok(&scene.derive([0]).await), [true], "what it has is not one more");
    assert_eq!(ok(&scene.derive([9]).await), [false]);
    assert_eq!(scene.frozen().await, [full()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_that_can_not_be_written_holds_up_nobody_else_and_is_written_as_soon_as_it_can() {
    const SOON: Duration = Duration::from_secs(2);
    let mut scene = Scene::new("objects_max = 1\n").await;
    let second = scene.world.enrol("second").await;
    let lease = async || {
        let items = vec![LeaseItem { epoch_id: scene.epoch.id.into(), record: None }];
        second.keys.lease(items).await.unwrap().value.remove(0).unwrap();
    };
    lease().await;

    // Somebody holds the database; nobody writes there for as long as he does.
    let database = scene.world.database();
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (keys, items) = (scene.full.keys.clone(), vec![scene.item(0), scene.item(1)]);
    let crossing = tokio::spawn(async move { keys.derive(items).await });
    // A session that is on its way while the budget is used up may be the one that waits for the database: then it is asked for
    // again.
    let is_stopped = async || {
        let session = timeout(SOON / 10, scene.full.keys.session()).await;
        matches!(session, Ok(Err(KeyServiceError::Frozen { .. })))
    };
    let stopped = async {
        while !is_stopped().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, stopped).await.unwrap();
    for _ in 0..3 {
        timeout(SOON, lease()).await.expect("another gateway waits for the freeze of this one");
    }
    let crossing = timeout(5 * SOON, crossing).await.unwrap().unwrap().unwrap();
    assert_eq!(ok(&crossing.value), [true, false], "what was within the budget goes out all the same");
    assert_eq!(scene.frozen().await, []);
    assert_eq!(ok(&scene.derive([0]).await), [false], "stopped it is");

    database.execute_batch("ROLLBACK").unwrap();
    let written = async {
        while scene.frozen().await != [full()] {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(6 * SOON, written).await.expect("it is not tried again");
    scene.world.restart().await;
    assert_eq!(scene.frozen().await, [full()]);
    assert_eq!(scene.world.audit().iter().filter(|record| record["action"] == "freeze").count(), 1);
}
