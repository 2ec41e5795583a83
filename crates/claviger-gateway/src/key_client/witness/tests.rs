use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use claviger_audit::note::KeyKind;
use claviger_audit::{SignedCheckpoint, SigningKey, leaf_hash};

use claviger_format::EpochId;
use claviger_keyapi::{
    Answer, Answered, Binding, ContinueItem, Continued, DeriveItem, Derived, FinishedUpload, Lease,
    LeaseItem, Line, ReleaseError, ServiceStatus, SessionInfo, Watch,
};
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::*;

mod logs;
mod states;

/// A clock that stands where it is put.
#[derive(Default)]
struct At(AtomicU64);

impl Clock for At {
    fn now_ms(&self) -> u64 {
        self.boot_ms()
    }

    fn boot_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A service that shows whatever log it is told to, and counts what else it is asked.
#[derive(Default)]
struct Show {
    head: Mutex<Option<LogHead>>,
    asked: Mutex<u32>,
    /// How often it was asked for its log.
    looked: AtomicU32,
    /// What it answers then, if not with the log.
    refuses: Mutex<Option<KeyServiceError>>,
    /// Whether it leases.
    leases: AtomicBool,
    /// The connection that is there, and the one to which it is held; 0 for none.
    line: AtomicU64,
    kept: AtomicU64,
    /// Checkpoints that the gateway showed it.
    seen: Mutex<Vec<String>>,
    /// The same for other addresses than the one that serves.
    elsewhere: Mutex<Vec<String>>,
}

impl KeyService for Show {
    fn keep_to(&self, line: Line) {
        self.kept.store(line, Ordering::Relaxed);
    }
    fn vouch_elsewhere<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        self.elsewhere.lock().unwrap().push(checkpoint.to_owned());
        async { Ok(()) }.boxed()
    }
    fn log_head(&self, _: u64) -> KeyFuture<'_, LogView> {
        let line = self.line.load(Ordering::Relaxed);
        let head = self.head.lock().unwrap();
        let head = head.as_ref().map(|head| LogHead {
            key: head.key.clone(),
            checkpoint: head.checkpoint.clone(),
            proof: head.proof.clone(),
            logs: head.logs.clone(),
            state: head.state.clone(),
        });
        self.looked.fetch_add(1, Ordering::Relaxed);
        let refusal = self.refuses.lock().unwrap().clone();
        async move {
            tokio::task::yield_now().await;
            refusal.map_or(Ok(()), Err)?;
            Ok(LogView { head: head.ok_or(KeyServiceError::Locked)?, line })
        }
        .boxed()
    }
    fn session(&self) -> Answered<'_, SessionInfo> {
        *self.asked.lock().unwrap() += 1;
        async { Err(KeyServiceError::Locked) }.boxed()
    }
    fn lease(&self, _: Vec<LeaseItem>) -> Answered<'_, Vec<Result<Lease, ReleaseError>>> {
        if self.kept.load(Ordering::Relaxed) != self.line.load(Ordering::Relaxed) {
            return async { Err(UNSEEN) }.boxed();
        }
        *self.asked.lock().unwrap() += 1;
        let answer = Answer { value: Vec::new(), sent_boot_ms: 0 };
        let answer =
            if self.leases.load(Ordering::Relaxed) { Ok(answer) } else { Err(KeyServiceError::Locked) };
        async { answer }.boxed()
    }
    fn show_checkpoint<'a>(&'a self, checkpoint: &'a str) -> KeyFuture<'a, ()> {
        self.seen.lock().unwrap().push(checkpoint.to_owned());
        async { Ok(()) }.boxed()
    }
    fn binding<'a>(&'a self, _: &'a str) -> Answered<'a, Option<Binding>> {
        unreachable!()
    }
    fn bindings(&self) -> Answered<'_, Vec<Binding>> {
        unreachable!()
    }
    fn bind_bucket<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> Answered<'a, Binding> {
        unreachable!()
    }
    fn unbind_bucket<'a>(&'a self, _: &'a str, _: &'a str) -> KeyFuture<'a, ()> {
        unreachable!()
    }
    fn register_epoch<'a>(&'a self, _: &'a [u8]) -> KeyFuture<'a, ()> {
        unreachable!()
    }
    fn epoch_record(&self, _: EpochId) -> KeyFuture<'_, Option<Vec<u8>>> {
        unreachable!()
    }
    fn derive(&self, _: Vec<DeriveItem>) -> Answered<'_, Vec<Result<Derived, ReleaseError>>> {
        unreachable!()
    }
    fn continue_upload(&self, _: Vec<ContinueItem>) -> Answered<'_, Vec<Result<Continued, ReleaseError>>> {
        unreachable!()
    }
    fn finish_upload(&self, _: Vec<FinishedUpload>) -> KeyFuture<'_, Vec<Result<(), ReleaseError>>> {
        unreachable!()
    }
    fn watch(&self) -> KeyFuture<'_, Watch> {
        unreachable!()
    }
    fn status(&self) -> KeyFuture<'_, ServiceStatus> {
        unreachable!()
    }
}

const LOG: &str = "claviger.invalid/log/00112233445566778899aabbccddeeff";

fn head(name: &str, seed: u8, size: u64, content: &[u8]) -> LogHead {
    let key = SigningKey::from_seed(name, KeyKind::Log, &[seed; 32]).unwrap();
    let signed = SignedCheckpoint::sign(size, leaf_hash(content), &key).unwrap();
    LogHead {
        key: key.verifier().to_string(),
        checkpoint: signed.note().to_string(),
        // What is asked from the size that is there needs no proof, anything else is refused without one.
        proof: Vec::new(),
        logs: vec![key.verifier().to_string()],
        state: None,
    }
}

struct World {
    folder: tempfile::TempDir,
    service: Arc<Show>,
    clock: Arc<At>,
    witness: Witness,
    /// What was told of each look.
    told: Arc<Mutex<Vec<Sight>>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let service = Arc::new(Show::default());
        let clock = Arc::new(At::default());
        let witness = Witness::new(service.clone(), folder.path(), clock.clone());
        let told = Arc::new(Mutex::default());
        let hears: Arc<Mutex<Vec<Sight>>> = Arc::clone(&told);
        witness.tell(move |sight| hears.lock().unwrap().push(sight.clone()));
        Self { folder, service, clock, witness, told }
    }

    fn last_told(&self) -> Sight {
        self.told.lock().unwrap().last().unwrap().clone()
    }

    /// The gateway's process ends and begins again.
    fn restart(&mut self) {
        self.witness = Witness::new(self.service.clone(), self.folder.path(), self.clock.clone());
    }

    async fn shown(&self, head: LogHead) -> Result<(), KeyServiceError> {
        *self.service.head.lock().unwrap() = Some(head);
        self.witness.look().await
    }

    fn log_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("logs/00112233445566778899aabbccddeeff")
    }

    async fn lease(&self) -> KeyServiceError {
        self.witness.lease(Vec::new()).await.unwrap_err()
    }
}

fn distrusts(outcome: &Result<(), KeyServiceError>, why: &str) -> bool {
    matches!(outcome, Err(KeyServiceError::Distrusted { text }) if text.contains(why) && text.contains("remove "))
}

#[tokio::test]
async fn what_a_log_shows_first_is_remembered_for_the_owner_only_and_across_restarts() {
    let mut world = World::new();
    assert_eq!(world.witness.look().await, Err(KeyServiceError::Locked));
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    for name in ["key", "checkpoint"] {
        let mode = fs::metadata(world.log_folder().join(name)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600, "{name}");
    }
    world.restart();
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    assert!(distrusts(&world.shown(head(LOG, 1, 5, b"b")).await, "two histories"));
}

#[tokio::test]
async fn a_cut_a_fork_and_another_key_stop_every_call_until_what_is_remembered_is_removed() {
    for (other, why) in [
        (head(LOG, 1, 4, b"a"), "cut off"),
        (head(LOG, 1, 6, b"a"), "two histories"),
        (head(LOG, 2, 5, b"a"), "is known"),
        (LogHead { checkpoint: "none".into(), ..head(LOG, 1, 5, b"a") }, "not its own"),
    ] {
        let mut world = World::new();
        world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
        assert_eq!(world.lease().await, KeyServiceError::Locked);
        assert!(distrusts(&world.shown(other).await, why), "{why}");

        // Neither the honest log nor a restart makes it good.
        assert!(distrusts(&world.shown(head(LOG, 1, 5, b"a")).await, why), "{why}");
        let asked = *world.service.asked.lock().unwrap();
        assert!(matches!(world.lease().await, KeyServiceError::Distrusted { .. }));
        world.restart();
        assert!(distrusts(&world.witness.session().await.map(drop), why), "{why}");
        assert!(matches!(world.lease().await, KeyServiceError::Distrusted { .. }));
        assert_eq!(*world.service.asked.lock().unwrap(), asked);

        fs::remove_dir_all(world.log_folder()).unwrap();
        world.shown(head(LOG, 1, 4, b"other")).await.unwrap();
        assert_eq!(world.lease().await, KeyServiceError::Locked);
    }
}

#[tokio::test]
async fn a_damaged_memory_stops_and_one_that_can_not_be_written_is_not_believed() {
    let world = World::new();
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    fs::write(world.log_folder().join("checkpoint"), "x").unwrap();
    assert!(distrusts(&world.shown(head(LOG, 1, 5, b"a")).await, "damaged"));

    let world = World::new();
    fs::write(world.folder.path().join("logs"), "a file where the folder should be").unwrap();
    assert_eq!(world.shown(head(LOG, 1, 5, b"a")).await, Err(KeyServiceError::Internal));
}

#[tokio::test]
async fn a_log_with_a_name_of_another_form_is_not_believed() {
    let world = World::new();
    for name in ["claviger.invalid/log/../../identity.json", "claviger.invalid/log/", "example.org/log"] {
        assert!(world.shown(head(name, 1, 5, b"a")).await.is_err(), "{name}");
        assert!(!world.folder.path().join("logs").exists());
    }
}

#[tokio::test]
async fn a_service_that_hides_its_log_is_asked_nothing_after_three_minutes_and_what_it_gave_is_over() {
    let world = World::new();
    world.service.leases.store(true, Ordering::Relaxed);
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    *world.service.refuses.lock().unwrap() = Some(KeyServiceError::Internal);
    assert_eq!(world.witness.look().await, Err(KeyServiceError::Internal));
    assert!(matches!(world.last_told(), Sight::Hidden(_)), "told at the first look that fails");
    world.clock.0.store(sight::COUNTS_MS - 1, Ordering::Relaxed);
    world.witness.lease(Vec::new()).await.unwrap();

    world.clock.0.store(sight::COUNTS_MS, Ordering::Relaxed);
    let asked = *world.service.asked.lock().unwrap();
    let refused = KeyServiceError::Unavailable { reason: UnavailableReason::Unseen, retry_after_ms: 2_000 };
    assert_eq!(world.lease().await, refused);
    assert_eq!(*world.service.asked.lock().unwrap(), asked);
    assert!(matches!(world.last_told(), Sight::Over(why) if why.contains("180 s")));

    *world.service.refuses.lock().unwrap() = None;
    world.witness.lease(Vec::new()).await.unwrap();
    assert_eq!(world.last_told(), Sight::Clear);
}

#[tokio::test]
async fn a_service_that_is_away_takes_nothing_with_it() {
    let world = World::new();
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    for (minute, away) in [
        KeyServiceError::Locked,
        KeyServiceError::Unavailable { reason: UnavailableReason::Connection, retry_after_ms: 1 },
        KeyServiceError::Unavailable { reason: UnavailableReason::Audit, retry_after_ms: 1 },
    ]
    .into_iter()
    .cycle()
    .take(9)
    .enumerate()
    {
        world.clock.0.store(minute as u64 * 60_000, Ordering::Relaxed);
        *world.service.refuses.lock().unwrap() = Some(away.clone());
        assert_eq!(world.witness.look().await, Err(away));
        world.lease().await;
        assert!(matches!(world.last_told(), Sight::Away(_)), "{minute}");
    }
}

#[tokio::test]
async fn nothing_is_asked_before_the_first_look_and_many_who_wait_for_one_share_it() {
    let world = World::new();
    world.service.leases.store(true, Ordering::Relaxed);
    *world.service.head.lock().unwrap() = Some(head(LOG, 1, 5, b"a"));
    *world.service.refuses.lock().unwrap() = Some(KeyServiceError::Internal);
    let refused = join_all((0..50).map(|_| world.witness.lease(Vec::new()))).await;
    assert!(refused.iter().all(Result::is_err));
    assert_eq!((world.service.looked.load(Ordering::Relaxed), *world.service.asked.lock().unwrap()), (1, 0));
    *world.service.refuses.lock().unwrap() = None;
    let leased = join_all((0..50).map(|_| world.witness.lease(Vec::new()))).await;
    assert!(leased.iter().all(Result::is_ok));
    assert_eq!((world.service.looked.load(Ordering::Relaxed), *world.service.asked.lock().unwrap()), (2, 50));
}

#[tokio::test]
async fn a_contradiction_that_can_not_be_written_down_stays_in_force_and_is_written_down_later() {
    let mut world = World::new();
    world.service.leases.store(true, Ordering::Relaxed);
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    // Where the file would be made there is a folder that is not empty.
    let obstacle = world.log_folder().join("contradiction.new");
    fs::create_dir_all(obstacle.join("x")).unwrap();
    assert!(distrusts(&world.shown(head(LOG, 1, 5, b"b")).await, "two histories"));
    for _ in 0..3 {
        let again = world.shown(head(LOG, 1, 5, b"a")).await;
        assert!(distrusts(&again, "two histories"), "the true history does not make it good: {again:?}");
        assert!(matches!(world.lease().await, KeyServiceError::Distrusted { .. }));
    }
    fs::remove_dir_all(&obstacle).unwrap();
    assert!(distrusts(&world.witness.look().await, "two histories"));
    assert!(world.log_folder().join("contradiction").exists());
    world.restart();
    assert!(distrusts(&world.witness.look().await, "two histories"));

    // Removed, it counts no more, and until something is seen again nothing is asked.
    fs::remove_dir_all(world.log_folder()).unwrap();
    *world.service.refuses.lock().unwrap() = Some(KeyServiceError::Locked);
    assert_eq!(world.witness.look().await, Err(KeyServiceError::Locked));
    assert!(matches!(world.lease().await, KeyServiceError::Distrusted { .. }));
    *world.service.refuses.lock().unwrap() = None;
    world.witness.look().await.unwrap();
    world.witness.lease(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn an_operator_ends_an_unwritten_contradiction_too() {
    let world = World::new();
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    fs::create_dir_all(world.log_folder().join("contradiction.new/x")).unwrap();
    assert!(world.shown(head(LOG, 1, 5, b"b")).await.is_err());
    fs::remove_dir_all(world.log_folder()).unwrap();
    world.witness.look().await.unwrap();
}

#[tokio::test]
async fn over_a_new_connection_the_log_is_looked_at_before_anything_is_asked() {
    let world = World::new();
    world.service.leases.store(true, Ordering::Relaxed);
    world.shown(head(LOG, 1, 5, b"a")).await.unwrap();
    world.witness.lease(Vec::new()).await.unwrap();
    let looked = || world.service.looked.load(Ordering::Relaxed);
    assert_eq!(looked(), 1);
    world.service.line.store(7, Ordering::Relaxed);
    world.witness.lease(Vec::new()).await.unwrap();
    world.witness.lease(Vec::new()).await.unwrap();
    assert_eq!(looked(), 2);

    // A copy of the service that was told another history since, or none.
    let asked = *world.service.asked.lock().unwrap();
    world.service.line.store(8, Ordering::Relaxed);
    *world.service.refuses.lock().unwrap() = Some(KeyServiceError::Internal);
    assert_eq!(world.lease().await, UNSEEN);
    *world.service.refuses.lock().unwrap() = None;
    *world.service.head.lock().unwrap() = Some(head(LOG, 1, 4, b"copy"));
    assert!(matches!(world.lease().await, KeyServiceError::Distrusted { .. }));
    assert_eq!(*world.service.asked.lock().unwrap(), asked);
}

#[tokio::test]
async fn a_service_that_can_not_be_reached_is_shown_what_is_remembered_too_and_now_and_then_who_stands_beside_it()
 {
    let world = World::new();
    let remembered = head(LOG, 1, 5, b"a");
    let note = remembered.checkpoint.clone();
    world.shown(remembered).await.unwrap();
    for reason in [UnavailableReason::Connection, UnavailableReason::Timeout, UnavailableReason::Standby] {
        *world.service.refuses.lock().unwrap() = None;
        world.witness.look().await.unwrap();
        let away = KeyServiceError::Unavailable { reason, retry_after_ms: 1 };
        *world.service.refuses.lock().unwrap() = Some(away);
        for _ in 0..VOUCH_EVERY {
            assert!(world.witness.look().await.is_err());
        }
        assert_eq!(std::mem::take(&mut *world.service.seen.lock().unwrap()), [note.as_str()], "{reason:?}");
    }
    assert!(world.service.elsewhere.lock().unwrap().is_empty());
    world.witness.vouch_elsewhere_now().await;
    assert_eq!(*world.service.elsewhere.lock().unwrap(), [note.as_str()]);
}
