//! Old records of releases leave the log by two operators, after the retention, and the log still verifies.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use claviger_audit::verify::{Fault, Remembered};
use claviger_audit::{SignedCheckpoint, VerifierKey};
use claviger_keyapi::admin::{self, AdminStatus};
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{KeyService as _, KeyServiceError};
use claviger_keyservice::audit_log::AuditFolder;
use claviger_keyservice::audit_log::offline::{OfflineError, Verified};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Limits, Unlock};
use common::{POLICY, TestClock, World, ask};

const DAY_MS: u64 = 86_400_000;

impl World {
    fn log(&self) -> AuditFolder {
        AuditFolder::new(&self.config.state_dir.join("audit"))
    }

    fn log_lines(&self) -> Vec<String> {
        let files = self.log().files().unwrap();
        let text: String = files.iter().map(|file| fs::read_to_string(&file.path).unwrap()).collect();
        text.lines().map(str::to_owned).collect()
    }

    fn pruned(&self) -> usize {
        self.log_lines().iter().filter(|line| line.contains("\"pruned\":\"")).count()
    }

    async fn key_and_checkpoint(&self) -> (VerifierKey, Remembered) {
        let status: AdminStatus = ask(&self.operator(), admin::STATUS, &Empty {}).await.unwrap();
        let key: VerifierKey = status.audit_key.unwrap().parse().unwrap();
        let note = status.audit_checkpoint.unwrap();
        let checkpoint = SignedCheckpoint::open(note.as_bytes(), &key).unwrap();
        (key, Remembered { name: "kept".into(), checkpoint })
    }

    /// The 90 days that tests' services keep records for. The operators' certificates last no longer.
    async fn wait_for_the_retention(&self) {
        self.clock.advance(60 * DAY_MS);
        self.operator().renew().await.unwrap();
        self.second_operator().renew().await.unwrap();
        self.clock.advance(32 * DAY_MS);
    }

    /// Until the service has done what was decided.
    async fn await_pruned(&self) -> usize {
        for _ in 0..300 {
            if !self.config.state_dir.join("audit/prune").exists() {
                return self.pruned();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nothing was pruned");
    }
}

fn verify(world: &World, key: &VerifierKey, kept: &Remembered) -> Result<Verified, OfflineError> {
    world.log().verify(key, vec![kept.clone()])
}

async fn prune(world: &World, before_ms: u64) -> Result<(), KeyServiceError> {
    world.by_two(Action::Prune { before_ms }).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_prune_what_is_older_than_the_retention_and_the_log_verifies_as_before() {
    let mut world = World::new().await;
    let client = world.enrol("full").await.keys;
    for _ in 0..5 {
        client.session().await.unwrap();
    }
    let (key, kept) = world.key_and_checkpoint().await;
    let sessions = world.log_lines().iter().filter(|line| line.contains("\"action\":\"session\"")).count();
    let others = world.log_lines().len() - sessions;

    // Not before the retention is over, whoever wants it.
    let now_ms = claviger_env::Clock::now_ms(&*world.clock);
    let refused = prune(&world, now_ms).await.unwrap_err();
    assert!(
        matches!(&refused, KeyServiceError::Malformed { text } if text.contains("90 days")),
        "{refused:?}"
    );

    world.wait_for_the_retention().await;
    prune(&world, now_ms + DAY_MS).await.unwrap();
    assert_eq!(world.await_pruned().await, sessions);
    let verified = verify(&world, &key, &kept).unwrap();
    assert_eq!(verified.report.pruned, sessions as u64);
    let all = world.log_lines();
    assert!(all.len() > others + sessions, "everything else is there");
    assert!(all.iter().any(|line| line.contains("\"action\":\"enrol\"")));
    let first = world.log().prove(0).unwrap();
    assert_eq!(first.index, 0);
    let gone = all.iter().position(|line| line.contains("\"pruned\":\"")).unwrap() as u64;
    assert!(world.log().prove(gone).unwrap_err().to_string().contains("pruned"));

    // A second time there is nothing left; and the log opens as it is.
    let refused = prune(&world, now_ms + DAY_MS).await.unwrap_err();
    assert!(
        matches!(&refused, KeyServiceError::Malformed { text } if text.contains("no record")),
        "{refused:?}"
    );
    world.restart().await;
    verify(&world, &key, &kept).unwrap();

    // Any other gap is found.
    let file = world.log().files().unwrap().pop().unwrap().path;
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|line| line.contains("\"action\":\"prune\"")).unwrap();
    let parsed = claviger_audit::Line::parse(line.as_bytes()).unwrap();
    let mut gap = Vec::new();
    claviger_audit::Pruned { index: parsed.index, entry: parsed.entry() }.write(&mut gap);
    fs::write(&file, text.replace(&format!("{line}\n"), std::str::from_utf8(&gap).unwrap())).unwrap();
    let fault = verify(&world, &key, &kept).unwrap_err();
    assert!(matches!(fault, OfflineError::Fault(Fault::Pruned(_))), "{fault}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_pruning_covers_for_younger_records_that_somebody_took_out() {
    let limits = Limits { audit_file_len_max: 2_000, ..Limits::default() };
    let world =
        World::at(TestClock::default(), limits, Location::Sqlite, POLICY, Unlock::PassphraseFile).await;
    world.enrol("full").await.keys.session().await.unwrap();
    let (key, kept) = world.key_and_checkpoint().await;
    let before_ms = claviger_env::Clock::now_ms(&*world.clock) + DAY_MS;
    world.wait_for_the_retention().await;
    let young = world.enrol("second").await.keys;
    for _ in 0..10 {
        young.session().await.unwrap();
    }
    let take_out = |path: &Path, is_gone: &dyn Fn(u64, &str) -> bool| {
        let mut out = Vec::new();
        for text in fs::read_to_string(path).unwrap().lines() {
            let line = claviger_audit::Line::parse(text.as_bytes()).unwrap();
            let record: serde_json::Value = serde_json::from_str(line.record).unwrap();
            if is_gone(record["time_ms"].as_u64().unwrap(), record["action"].as_str().unwrap()) {
                claviger_audit::Pruned { index: line.index, entry: line.entry() }.write(&mut out);
            } else {
                line.write(&mut out);
            }
        }
        fs::write(path, out).unwrap();
    };
    let files = world.log().files().unwrap();
    let finished: Vec<_> = files.iter().rev().skip(1).map(|file| file.path.clone()).collect();
    let whole: Vec<_> = finished.iter().map(|path| fs::read(path).unwrap()).collect();
    // Every young one; and an old one that nothing allows to remove yet.
    for is_young in [true, false] {
        let is_gone = |time_ms, action: &str| {
            if is_young { time_ms >= before_ms } else { time_ms < before_ms && action == "session" }
        };
        finished.iter().for_each(|path| take_out(path, &is_gone));
        assert!(world.pruned() > 0);
        let refused = prune(&world, before_ms).await;
        assert!(matches!(refused, Err(KeyServiceError::Unavailable { .. })), "{is_young}: {refused:?}");
        let fault = verify(&world, &key, &kept).unwrap_err();
        assert!(matches!(fault, OfflineError::Fault(Fault::Pruned(_))), "{is_young}: {fault}");
        for (path, text) in finished.iter().zip(&whole) {
            fs::write(path, text).unwrap();
        }
    }
    verify(&world, &key, &kept).unwrap();
    prune(&world, before_ms).await.unwrap();
    assert!(world.await_pruned().await > 0);
    verify(&world, &key, &kept).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pruning_that_a_crash_cut_short_is_finished_after_the_next_start() {
    let mut world = World::new().await;
    let client = world.enrol("full").await.keys;
    client.session().await.unwrap();
    let (key, kept) = world.key_and_checkpoint().await;
    let now_ms = claviger_env::Clock::now_ms(&*world.clock);
    world.wait_for_the_retention().await;
    let untouched = world.log().files().unwrap()[0].path.clone();
    let before = fs::read(&untouched).unwrap();
    prune(&world, now_ms + DAY_MS).await.unwrap();
    let task_file = world.config.state_dir.join("audit/prune");
    let task = fs::read(&task_file).ok();
    let pruned = world.await_pruned().await;
    assert!(pruned > 0);
    world.stop().await;

    // As it was after the decision, with half a file besides.
    let records = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
    let now = fs::read(&untouched).unwrap();
    assert!(records(&now) >= records(&before));
    let task = task.unwrap_or_else(|| {
        let text = world.log_lines().into_iter().find(|line| line.contains("\"action\":\"prune\"")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        let record = &record["record"];
        format!(
            "{{\"before_ms\":{},\"pruned_before\":{},\"recorded_from\":0}}",
            record["before_ms"], record["pruned_before"]
        )
        .into_bytes()
    });
    fs::write(&untouched, [&before[..], &now_tail(&before, &now)].concat()).unwrap();
    fs::write(&task_file, &task).unwrap();
    fs::write(untouched.with_extension("pruned"), b"{\"index\":0").unwrap();
    assert_eq!(world.pruned(), 0);
    verify(&world, &key, &kept).unwrap();
    world.start().await.unwrap();
    assert_eq!(world.await_pruned().await, pruned);
    verify(&world, &key, &kept).unwrap();

    // A task that the log does not tell of is not done.
    let forged = "{\"before_ms\":99999999999999,\"pruned_before\":9999,\"recorded_from\":0}";
    client_makes_records(&world).await;
    fs::write(&task_file, forged).unwrap();
    assert_eq!(world.await_pruned().await, pruned);
}

/// The lines of a file that came after what it was before, in whichever form the earlier ones are now.
fn now_tail(before: &[u8], now: &[u8]) -> Vec<u8> {
    let count = before.iter().filter(|byte| **byte == b'\n').count();
    now.split_inclusive(|byte| *byte == b'\n').skip(count).flatten().copied().collect()
}

async fn client_makes_records(world: &World) {
    let _: AdminStatus = ask(&world.operator(), admin::STATUS, &Empty {}).await.unwrap();
}
