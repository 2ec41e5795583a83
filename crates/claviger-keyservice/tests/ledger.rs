//! The database in other hands: rows put back, deleted, or all of it from another day.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use claviger_keyapi::admin::{self, RevokeAnswer, RevokeRequest};
use claviger_keyapi::{KeyService as _, LeaseItem, ServiceState};
use claviger_keyservice::ServiceError;
use claviger_keyservice::audit_log::AuditFolder;
use common::{World, ask};

type Row = (String, String, Vec<u8>, Vec<u8>);

fn rows(world: &World, kind: &str) -> Vec<Row> {
    let database = world.database();
    let mut query =
        database.prepare("SELECT kind, id, body, mac FROM row WHERE kind = ?1 ORDER BY id").unwrap();
    let rows = query.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn put(world: &World, row: &Row) {
    let put = "INSERT OR REPLACE INTO row (kind, id, body, mac) VALUES (?1, ?2, ?3, ?4)";
    world.database().execute(put, (&row.0, &row.1, &row.2, &row.3)).unwrap();
}

fn delete(world: &World, row: &Row) {
    let delete = "DELETE FROM row WHERE kind = ?1 AND id = ?2";
    assert_eq!(world.database().execute(delete, (&row.0, &row.1)).unwrap(), 1);
}

/// Opening fails and names this row as not the newest.
fn names(world: &World, row: &Row) {
    match world.open() {
        Err(ServiceError::Stale { kind, id }) => {
            assert_eq!((kind, id.as_str()), (row.0.as_str(), row.1.as_str()))
        }
        Err(other) => panic!("{}/{}: {other}", row.0, row.1),
        Ok(_) => panic!("{}/{}: opened", row.0, row.1),
    }
}

async fn revoke(world: &World, identity: &str) {
    let request = RevokeRequest { identity: identity.parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &request).await.unwrap();
}

/// A service with a row of every kind, stopped.
async fn full() -> World {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    full.keys.bind_bucket("photos", None).await.unwrap();
    let id = full.keys.bind_bucket("gone", None).await.unwrap().value.bucket_id;
    full.keys.unbind_bucket("gone", &id).await.unwrap();
    full.keys.register_epoch(&full.seal_epoch().record).await.unwrap();
    world.token("gateway:second").await;
    world.stop().await;
    world
}

#[tokio::test]
async fn an_older_row_put_back_keeps_the_service_locked_and_is_named() {
    let mut world = World::new().await;
    world.enrol("full").await;
    let before = rows(&world, "identity");
    let token = world.token("gateway:second").await;
    let tokens = rows(&world, "token");
    let folder = world.path("second");
    claviger_gateway::key_client::enrol(&token, &folder, world.clock.clone()).await.unwrap();
    revoke(&world, "gateway:full").await;
    world.stop().await;
    let revoked = rows(&world, "identity");
    let changed: Vec<&Row> = before.iter().filter(|row| !revoked.contains(row)).collect();
    assert_eq!(changed.len(), 1);
    put(&world, changed[0]);
    names(&world, changed[0]);
    let newest = revoked.iter().find(|row| row.1 == changed[0].1).unwrap();
    put(&world, newest);
    // A token that was used.
    put(&world, &tokens[0]);
    names(&world, &tokens[0]);
    delete(&world, &tokens[0]);
    world.start().await.unwrap();
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
}

#[tokio::test]
async fn a_deleted_row_of_any_kind_keeps_the_service_locked_and_is_named() {
    let mut world = full().await;
    for kind in ["binding", "closing", "token", "keyset", "identity"] {
        for row in rows(&world, kind) {
            delete(&world, &row);
            names(&world, &row);
            put(&world, &row);
        }
    }
    for row in rows(&world, "service").iter().chain(&rows(&world, "state")) {
        delete(&world, row);
        assert!(world.open().is_err(), "{}/{}", row.0, row.1);
        put(&world, row);
    }
    let epoch: (Vec<u8>,) =
        world.database().query_row("SELECT epoch_id FROM epoch", [], |row| Ok((row.get(0)?,))).unwrap();
    world.database().execute("CREATE TABLE kept AS SELECT * FROM epoch", []).unwrap();
    world.database().execute("DELETE FROM epoch", []).unwrap();
    match world.open() {
        Err(ServiceError::Stale { kind: "epoch", id }) => {
            let hex: String = epoch.0.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(id, hex);
        }
        other => panic!("{:?}", other.err()),
    }
    world.database().execute("INSERT INTO epoch SELECT * FROM kept", []).unwrap();
    world.start().await.unwrap();
}

/// A folder with all that is in it.
struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    fn of(folder: &Path) -> Self {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.append(&mut Self::of(&path).0);
            } else {
                files.push((path.clone(), std::fs::read(path).unwrap()));
            }
        }
        Self(files)
    }

    fn put_back(&self, folder: &Path) {
        std::fs::remove_dir_all(folder).unwrap();
        for (path, content) in &self.0 {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[tokio::test]
async fn an_older_database_or_a_shorter_log_keeps_the_service_locked() {
    let mut world = full().await;
    let database = world.config.state_dir.join("keyservice.db");
    let audit = world.config.state_dir.join("audit");
    let log = audit.join("00000000000000000000.jsonl");
    let older = std::fs::read(&database).unwrap();
    let shorter = std::fs::read(&log).unwrap();
    let older_log = Files::of(&audit);
    world.start().await.unwrap();
    revoke(&world, "gateway:full").await;
    world.stop().await;
    let (newest, longest) = (std::fs::read(&database).unwrap(), std::fs::read(&log).unwrap());
    std::fs::write(&database, &older).unwrap();
    let error = world.open().err().unwrap();
    assert!(matches!(error, ServiceError::OlderDatabase { .. }), "{error}");
    std::fs::write(&database, &newest).unwrap();
    std::fs::write(&log, &shorter).unwrap();
    let error = world.open().err().unwrap();
    assert!(matches!(&error, ServiceError::Audit(text) if text.contains("cut off")), "{error}");
    std::fs::write(&log, &longest).unwrap();
    // All of the log as it was then, checkpoint and tiles included.
    let newest_log = Files::of(&audit);
    older_log.put_back(&audit);
    let error = world.open().err().unwrap();
    assert!(matches!(error, ServiceError::OlderLog { .. }), "{error}");
    newest_log.put_back(&audit);
    world.start().await.unwrap();
    let gone = claviger_gateway::key_client::KeyClient::open("", &world.path("full"), world.clock.clone());
    assert!(gone.unwrap().session().await.is_err(), "revoked it stays");
}

#[tokio::test]
async fn no_row_of_another_service_and_no_second_copy_of_a_row_passes() {
    let (world, other) = (full().await, full().await);
    for kind in ["binding", "identity"] {
        let (ours, foreign) = (rows(&world, kind), rows(&other, kind));
        put(&world, &foreign[0]);
        assert!(matches!(world.open(), Err(ServiceError::Tampered { .. })), "{kind}");
        if !ours.iter().any(|row| row.1 == foreign[0].1) {
            delete(&world, &foreign[0]);
        }
        ours.iter().for_each(|row| put(&world, row));
    }
    // A table that takes the same row twice.
    let twice = "CREATE TABLE copy AS SELECT * FROM row; DROP TABLE row; ALTER TABLE copy RENAME TO row;
        INSERT INTO row SELECT * FROM row WHERE kind = 'binding'";
    world.database().execute_batch(twice).unwrap();
    assert!(world.open().is_err());
}

/// A state folder that the release before made: see fixtures/README.md.
fn fixture(to: &Path) {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
            if from.is_dir() {
                copy(&from, &to);
            } else {
                std::fs::copy(&from, &to).unwrap();
                std::fs::set_permissions(&to, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schema-2"), to);
}

/// When the fixture was made, Unix milliseconds, and a little later.
const FIXTURE_MS: u64 = 1_795_313_340_000;
const FIXTURE_EPOCH: &str = "2e8738fc7f5cdccdd18d6b3ff23492af";

#[tokio::test]
async fn a_state_folder_of_the_release_before_is_taken_over_whole_and_guarded_from_then_on() {
    let mut world = World::in_folder(fixture, FIXTURE_MS).await;
    let taken = world.audit().iter().filter(|record| record["action"] == "take-over").count();
    assert_eq!(taken, 1);
    let photos = async |world: &World| {
        let full = world.gateway("full").await;
        let binding = full.keys.binding("photos").await.unwrap().value.unwrap();
        let epoch_id = claviger_keyapi::Id16::from_hex(FIXTURE_EPOCH).unwrap();
        let lease =
            full.keys.lease(vec![LeaseItem { epoch_id, record: None }]).await.unwrap().value.remove(0);
        assert_eq!(lease.unwrap().keyset_id, full.keyset().keyset_id);
        binding.bucket_id
    };
    let bucket_id = photos(&world).await;
    assert_eq!(bucket_id.len(), "photos#".len() + 32);
    world.restart().await;
    assert_eq!(photos(&world).await, bucket_id);
    let taken_again = world.audit().iter().filter(|record| record["action"] == "take-over").count();
    assert_eq!(taken_again, 1);
    let gone = claviger_gateway::key_client::KeyClient::open(
        &world.config.listen.to_string(),
        &world.path("gone"),
        world.clock.clone(),
    );
    assert!(gone.unwrap().session().await.is_err(), "who was revoked stays so");
    world.stop().await;
    // Rows that were never touched since count as well.
    for row in rows(&world, "binding").iter().chain(&rows(&world, "closing")) {
        delete(&world, row);
        names(&world, row);
        put(&world, row);
    }
}

#[tokio::test]
async fn a_service_that_was_just_taken_over_reads_its_own_log_for_what_was_leased() {
    let world = World::in_folder(fixture, FIXTURE_MS).await;
    let full = world.gateway("full").await;
    let epoch_id = claviger_keyapi::Id16::from_hex(FIXTURE_EPOCH).unwrap();
    full.keys.lease(vec![LeaseItem { epoch_id, record: None }]).await.unwrap().value.remove(0).unwrap();
    let identity = "gateway:full".parse().unwrap();
    let request = RevokeRequest { identity, since_ms: Some(FIXTURE_MS), logs: vec![] };
    let address = world.config.listen.to_string();
    let operator = claviger_gateway::key_client::KeyClient::open_operator(
        &address,
        &world.path("operator"),
        world.clock.clone(),
    );
    let answer: RevokeAnswer = ask(&operator.unwrap(), admin::REVOKE, &request).await.unwrap();
    assert!(answer.unread.is_empty() && answer.quarantined > 0, "{answer:?}");
}

#[tokio::test]
async fn a_database_from_before_its_log_had_a_key_is_not_taken_over_when_somebody_remembers_one() {
    let mut other = World::new().await;
    other.stop().await;
    let remembered = std::fs::read(&other.config.checkpoint_file).unwrap();
    let prepare = |folder: &Path| {
        fixture(folder);
        std::fs::write(folder.join("state.checkpoint"), &remembered).unwrap();
    };
    let mut world = World::in_folder(prepare, FIXTURE_MS).await;
    let (state, problems) = world.service().health();
    assert_eq!(state, ServiceState::Locked);
    assert!(
        problems.iter().any(|problem| problem.contains("remembers an audit log with a key")),
        "{problems:?}"
    );
    assert!(rows(&world, "state").is_empty() && rows(&world, "policy").is_empty(), "nothing was written");
    world.stop().await;
    std::fs::remove_file(&world.config.checkpoint_file).unwrap();
    world.start().await.unwrap();
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
}

#[tokio::test]
async fn nobody_passes_a_ledger_off_as_a_database_of_the_release_before() {
    let world = full().await;
    let state = rows(&world, "state");
    delete(&world, &state[0]);
    world.database().pragma_update(None, "user_version", 2).unwrap();
    assert!(matches!(world.open(), Err(ServiceError::OlderDatabase { .. })));
}

/// The key that the log names, and what verifying the whole log with it says: records, and how many are signed for.
fn verify_log(world: &World) -> (String, u64, u64) {
    let named: Vec<_> = world.audit().into_iter().filter(|record| record["action"] == "log-key").collect();
    assert_eq!(named.len(), 1, "one key for ever");
    let key = named[0]["subject"].as_str().unwrap().to_owned();
    let folder = AuditFolder::new(&world.config.state_dir.join("audit"));
    let report = folder.verify(&key.parse().unwrap(), Vec::new()).unwrap().report;
    (key, report.records, report.signed)
}

#[tokio::test]
async fn a_log_of_the_release_before_gets_its_key_and_verifies_from_its_first_record() {
    let mut world = World::in_folder(fixture, FIXTURE_MS).await;
    world.stop().await;
    let (key, records, signed) = verify_log(&world);
    assert_eq!(records, signed, "the last checkpoint is written when the process ends");
    world.start().await.unwrap();
    world.stop().await;
    let (again, more, signed) = verify_log(&world);
    assert_eq!((again, more), (key, signed));
    assert!(more > records);
}

#[tokio::test]
async fn a_locked_service_signs_nothing_and_the_next_unlock_covers_what_came_between() {
    let mut world = World::new().await;
    world.service().lock().unwrap();
    let (_, records, signed) = verify_log(&world);
    assert_eq!(records, signed, "the record of the lock included");
    assert!(world.service().unlock("wrong").is_err());
    let (_, more, still) = verify_log(&world);
    assert!(more > records && still == signed);
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    world.service().unlock(passphrase.trim()).unwrap();
    world.stop().await;
    let (_, all, signed) = verify_log(&world);
    assert!(all > more && all == signed);
}
