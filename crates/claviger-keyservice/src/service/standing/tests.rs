//! A database that says nothing stops neither the brake nor anybody who does not need it.

use std::sync::Condvar;
use std::sync::atomic::AtomicU64;

use claviger_env::Clock;
use futures_util::future::join_all;

use super::*;
use crate::KeyService;
use crate::service::tests::{made, meddled};
use crate::store::sqlite::SqliteStore;
use crate::store::{Kind, Row, Store as _};
use crate::testing::{Meddled, Meddler};

/// A server that takes questions and answers none, for as long as a test likes.
struct Silent {
    is_silent: Mutex<bool>,
    changed: Condvar,
    asked: AtomicU64,
}

impl Silent {
    fn now(&self, is_silent: bool) {
        *self.is_silent.lock().unwrap() = is_silent;
        self.changed.notify_all();
    }

    fn wait(&self) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let is_silent = self.is_silent.lock().unwrap();
        drop(self.changed.wait_while(is_silent, |is_silent| *is_silent).unwrap());
    }
}

impl Meddler for Silent {
    fn rows(&self, truth: &SqliteStore, kind: Kind) -> Result<Vec<Row>, ServiceError> {
        self.wait();
        truth.rows(kind)
    }
    fn epoch_count(&self, truth: &SqliteStore) -> Result<u64, ServiceError> {
        self.wait();
        truth.epoch_count()
    }
}

#[derive(Default)]
struct At(AtomicU64);

impl Clock for At {
    fn now_ms(&self) -> u64 {
        1_780_000_000_000 + self.0.load(Ordering::Relaxed)
    }
    fn boot_ms(&self) -> u64 {
        50_000_000 + self.0.load(Ordering::Relaxed)
    }
}

/// A locked service over such a database, and one of its operators.
struct Scene {
    service: KeyService,
    store: Arc<Meddled<Silent>>,
    clock: Arc<At>,
    operator: Peer,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = made(folder.path());
        let clock = Arc::new(At::default());
        let silent =
            Silent { is_silent: Mutex::new(false), changed: Condvar::new(), asked: AtomicU64::new(0) };
        let (service, store) = meddled(config, Arc::clone(&clock) as _, silent);
        let rows = stored_identities(&store.truth).unwrap();
        let row = rows.iter().find(|row| row.identity.name() == "first").unwrap();
        let operator = Peer { identity: row.identity.clone(), spki: row.spki, not_after_ms: u64::MAX };
        Self { service, store, clock, operator, _folder: folder }
    }

    async fn admits(&self, age: Age) -> Result<Identity, KeyServiceError> {
        let core = &self.service.core;
        core.enrolled_of_locked(Some(&self.operator), Role::Admin, self.clock.now_ms(), age).await
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Whoever waits for it is let go.
        self.store.now(false);
    }
}

fn is_unavailable<T: std::fmt::Debug>(outcome: &Result<T, KeyServiceError>) -> bool {
    matches!(outcome, Err(KeyServiceError::Unavailable { reason: UnavailableReason::Store, .. }))
}

#[tokio::test]
async fn while_the_database_is_silent_an_operator_is_known_by_what_it_said_last_and_one_thread_waits() {
    let scene = Scene::new();
    assert_eq!(scene.admits(Age::Now).await.unwrap(), scene.operator.identity);
    scene.store.now(true);
    let before = scene.store.asked.load(Ordering::Relaxed);
    // On one thread: whoever blocked it would stop all others, and the clock of this test.
    let asking = join_all((0..50).map(|_| scene.admits(Age::Any)));
    let all = tokio::time::timeout(Duration::from_secs(10), asking).await.unwrap();
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(scene.store.asked.load(Ordering::Relaxed) - before, 1, "one waits for all");
    let status = scene.service.core.operator_status().unwrap();
    assert_eq!(status.epochs, 0);
    // What brings secrets, or vouches, is asked of a database that answers.
    scene.clock.0.fetch_add(ROLL_MS, Ordering::Relaxed);
    assert!(is_unavailable(&scene.admits(Age::Now).await));
    assert!(scene.admits(Age::Any).await.is_ok());
    let core = &scene.service.core;
    assert!(is_unavailable(&core.roll_for(Role::Gateway, Age::Any).await));
    scene.store.now(false);
    assert!(scene.admits(Age::Now).await.is_ok());
}

#[tokio::test]
async fn of_whom_nothing_was_ever_known_nobody_is_admitted() {
    let scene = Scene::new();
    scene.store.now(true);
    assert!(is_unavailable(&scene.admits(Age::Any).await));
    scene.store.now(false);
    assert!(scene.admits(Age::Any).await.is_ok());
}
