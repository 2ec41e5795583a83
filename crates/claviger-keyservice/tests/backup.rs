//! Backups: whole while the service works, worthless to a thief, and a service again where they are restored.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;
#[path = "common/postgres.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod postgres_server;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_audit::verify::Remembered;
use claviger_audit::{SignedCheckpoint, VerifierKey};
use claviger_keyapi::admin::{
    self, BackupBegun, BackupPart, BackupReadRequest, UnlockShareRequest, UnlockState,
};
use claviger_keyapi::enrol::EnrolToken;
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{KeyService as _, KeyServiceError, LeaseItem};
use claviger_keyservice::audit_log::AuditFolder;
use claviger_keyservice::audit_log::offline::{OfflineError, Verified};
use claviger_keyservice::backup::restore::{RestoreOptions, RestoreReport, check, restore};
use claviger_keyservice::custody::shamir::{Share, combine};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Config, ServiceError, Unlock};
use common::{Epoch, Gateway, POLICY, World, ask};
use postgres_server::{Database, Server};
use sha2::{Digest as _, Sha256};

/// Takes a backup as an operator's program does.
async fn take(world: &World, file: &Path) {
    let operator = world.operator();
    let begun: BackupBegun = ask(&operator, admin::BACKUP_BEGIN, &Empty {}).await.unwrap();
    let mut bytes = Vec::new();
    for part in 0.. {
        let request = BackupReadRequest { backup_id: begun.backup_id, part };
        let answer: BackupPart = ask(&operator, admin::BACKUP_READ, &request).await.unwrap();
        bytes.extend(answer.bytes.0);
        if answer.last {
            break;
        }
    }
    std::fs::write(file, bytes).unwrap();
}

/// A service with something of everything in it.
struct Filled {
    world: World,
    full: Gateway,
    epoch: Epoch,
    bucket_id: String,
    file: PathBuf,
}

/// On the heap: it holds all that a world needs to begin.
fn filled(store: Location) -> Pin<Box<dyn Future<Output = Filled> + Send>> {
    Box::pin(async move {
        let world = World::on(store, POLICY, Unlock::PassphraseFile).await;
        let full = world.enrol("full").await;
        let bucket_id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
        let epoch = full.seal_epoch();
        full.keys.register_epoch(&epoch.record).await.unwrap();
        full.keys.lease(lease(&epoch)).await.unwrap();
        let item = claviger_keyapi::FinishedUpload {
            record: None,
            upload_token: full.begin_upload(&epoch, &bucket_id, "k"),
            bucket_id: bucket_id.clone(),
            key: "k".into(),
        };
        assert!(full.keys.finish_upload(vec![item]).await.unwrap()[0].is_ok());
        let file = world.path("backup");
        take(&world, &file).await;
        Filled { world, full, epoch, bucket_id, file }
    })
}

fn lease(epoch: &Epoch) -> Vec<LeaseItem> {
    vec![LeaseItem { epoch_id: epoch.id.into(), record: None }]
}

impl Filled {
    fn options(&self) -> RestoreOptions {
        RestoreOptions {
            file: self.file.clone(),
            share_files: self.shares([1, 3]),
            passphrase_file: Some(self.world.path("passphrase")),
        }
    }

    fn shares<const N: usize>(&self, numbers: [u8; N]) -> Vec<PathBuf> {
        numbers.map(|n| self.world.path(&format!("recovery/default-v1-share-{n}.txt"))).to_vec()
    }

    /// The configuration of another service, in a folder of this name.
    fn elsewhere(&self, name: &str, store: Location) -> Config {
        Config {
            state_dir: self.world.path(name),
            checkpoint_file: self.world.path(&format!("{name}.checkpoint")),
            store,
            ..self.world.config.clone()
        }
    }

    fn restore(&self, config: &Config, options: &RestoreOptions) -> Result<RestoreReport, ServiceError> {
        let clock: Arc<dyn claviger_env::Clock> = self.world.clock.clone();
        restore(config, options, &clock, &self.world.random)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Restores into `to`, starts that service in place of the first one, and looks whether all of it is there.
async fn comes_back(from: Location, to: Location) {
    let mut filled = filled(from).await;
    let config = filled.elsewhere("restored", to);
    let report = filled.restore(&config, &filled.options()).unwrap();
    // CA, keyset, identity of operator and gateway, binding, epoch, upload, state; CA key.
    assert!(report.rows >= 9, "{report:?}");
    let again = filled.restore(&config, &filled.options());
    assert!(matches!(again, Err(ServiceError::AlreadyInitialised(_))));
    // Gone from the backup, so not there afterwards.
    let later = filled.full.seal_epoch();
    filled.full.keys.register_epoch(&later.record).await.unwrap();
    // Its last checkpoint covers all of its records.
    filled.world.service().lock().unwrap();
    filled.world.stop().await;
    let before = verified(&filled.world.config, &[]);
    filled.world.config = config;
    let restored = verified(&filled.world.config, &[]);
    assert_eq!(restored.checkpoint.checkpoint().origin, before.checkpoint.checkpoint().origin);
    assert!(restored.report.signed > 0 && restored.report.records == restored.report.signed);
    filled.world.start().await.unwrap();
    let full = filled.world.gateway("full").await;
    let leased = full.keys.lease(lease(&filled.epoch)).await.unwrap().value;
    assert_eq!(leased[0].as_ref().unwrap().wek.expose(), filled.epoch.wek.expose());
    assert!(full.keys.lease(lease(&later)).await.unwrap().value[0].is_err());
    assert_eq!(full.keys.binding("photos").await.unwrap().value.unwrap().bucket_id, filled.bucket_id);
    full.keys.bind_bucket("since", None).await.unwrap();
    let audit = filled.world.audit();
    let actions: Vec<&str> = audit.iter().map(|record| record["action"].as_str().unwrap()).collect();
    assert_eq!(actions[0], "init", "the log goes on where it was");
    assert!(
        actions.iter().position(|a| *a == "restore") > actions.iter().position(|a| *a == "finish-upload")
    );
    filled.world.restart().await;
    filled.world.service().lock().unwrap();
    filled.world.stop().await;
    // It is the same log as far as the backup went, and another one than the one that was given up.
    let whole = verified(&filled.world.config, std::slice::from_ref(&restored.checkpoint));
    assert_eq!(whole.report.records, whole.report.signed);
    let key = log_key(&filled.world.config);
    let remembered = vec![Remembered { name: "of the lost one".into(), checkpoint: before.checkpoint }];
    let fork = AuditFolder::new(&filled.world.config.state_dir.join("audit")).verify(&key, remembered);
    assert!(matches!(fork, Err(OfflineError::Fault(_))), "{fork:?}");
}

/// `claviger audit verify` of the log of a service that is not running.
fn verified(config: &Config, remembered: &[SignedCheckpoint]) -> Verified {
    let folder = AuditFolder::new(&config.state_dir.join("audit"));
    let name =
        |checkpoint: &SignedCheckpoint| Remembered { name: "kept".into(), checkpoint: checkpoint.clone() };
    folder.verify(&log_key(config), remembered.iter().map(name).collect()).unwrap()
}

/// As the log's own record of it names it.
fn log_key(config: &Config) -> VerifierKey {
    let mut found = None;
    let folder = AuditFolder::new(&config.state_dir.join("audit"));
    let read = folder.for_each_record(0, |line| {
        let record: serde_json::Value = serde_json::from_str(line.record).unwrap();
        if record["action"] == "log-key" {
            found = Some(record["subject"].as_str().unwrap().parse().unwrap());
        }
        found.is_none()
    });
    read.unwrap();
    found.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_sqlite_comes_back_in_sqlite() {
    Box::pin(comes_back(Location::Sqlite, Location::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_sqlite_comes_back_in_postgresql() {
    let database = blocking(|| Database::new(&Server::shared())).await;
    Box::pin(comes_back(Location::Sqlite, Location::Postgres(database.config()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_postgresql_comes_back_in_sqlite_and_in_another_database() {
    let (first, second) = blocking(|| {
        let server = Server::shared();
        (Database::new(&server), Database::new(&server))
    })
    .await;
    Box::pin(comes_back(Location::Postgres(first.config()), Location::Postgres(second.config()))).await;
    let third = blocking(|| Database::new(&Server::shared())).await;
    Box::pin(comes_back(Location::Postgres(third.config()), Location::Sqlite)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_while_the_service_works_fits_together() {
    let filled = filled(Location::Sqlite).await;
    let ended = Arc::new(AtomicBool::new(false));
    let full = Arc::new(filled.world.gateway("full").await);
    let workers: Vec<_> = (0..3)
        .map(|worker| {
            let (full, ended) = (Arc::clone(&full), Arc::clone(&ended));
            tokio::spawn(async move {
                for n in 0.. {
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    full.keys.register_epoch(&full.seal_epoch().record).await.unwrap();
                    let bucket = format!("b-{worker}-{n}");
                    let bound = full.keys.bind_bucket(&bucket, None).await.unwrap().value.bucket_id;
                    full.keys.unbind_bucket(&bucket, &bound).await.unwrap();
                }
            })
        })
        .collect();
    for n in 0..4 {
        let file = filled.world.path(&format!("backup-{n}"));
        take(&filled.world, &file).await;
        let config = filled.elsewhere(&format!("restored-{n}"), Location::Sqlite);
        filled.restore(&config, &RestoreOptions { file, ..filled.options() }).unwrap();
    }
    ended.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
}

#[tokio::test]
async fn a_stolen_backup_holds_no_secret() {
    let filled = filled(Location::Sqlite).await;
    let (world, full) = (&filled.world, &filled.full);
    let shares: Vec<Share> = filled
        .shares([1, 2])
        .iter()
        .map(|path| Share::parse(&std::fs::read_to_string(path).unwrap()).unwrap())
        .collect();
    let root = combine(&shares).unwrap();
    let passphrase = std::fs::read_to_string(world.path("passphrase")).unwrap();
    let token = EnrolToken::parse(&world.token("gateway:second").await).unwrap();
    take(world, &world.path("second")).await;
    let locked: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(world.config.state_dir.join("locked-tls.json")).unwrap(),
    )
    .unwrap();
    let locked = STANDARD.decode(locked["key"].as_str().unwrap()).unwrap();
    let wrap: Vec<u8> = world
        .database()
        .query_row("SELECT value FROM meta WHERE name = 'master_wrap'", [], |row| row.get(0))
        .unwrap();
    let secrets: [&[u8]; 9] = [
        filled.epoch.wek.expose(),
        root.expose(),
        full.keyset().psk.as_ref().unwrap().expose(),
        full.keyset().name_key.as_ref().unwrap().expose(),
        full.session.seed.expose(),
        passphrase.trim().as_bytes(),
        token.secret.expose().as_bytes(),
        &locked,
        // Not a secret by itself; but the passphrase would open it.
        &wrap,
    ];
    let file = std::fs::read(world.path("second")).unwrap();
    // As it lies there, and every text of base64 in it decoded, and what is in those once more.
    let mut haystack = file.clone();
    haystack.extend(decoded(&file));
    haystack.extend(decoded(&decoded(&file)));
    let found = |needle: &[u8]| haystack.windows(needle.len()).any(|window| window == needle);
    for (at, secret) in secrets.into_iter().enumerate() {
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        assert!(!found(secret) && !found(hex.as_bytes()), "secret {at}");
    }
    assert!(found(b"photos") && found(b"gateway:full"), "the search finds what is there");
    assert!(found(&filled.epoch.record), "in base64 too");
}

/// Everything in quotes that is base64, decoded.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    bytes.split(|byte| *byte == b'"').filter_map(|text| STANDARD.decode(text).ok()).flatten().collect()
}

#[tokio::test]
async fn a_stolen_backup_opens_only_with_a_quorum_of_shares_and_the_passphrase() {
    let filled = filled(Location::Sqlite).await;
    let config = filled.elsewhere("restored", Location::Sqlite);
    let with = |options: RestoreOptions| filled.restore(&config, &options).map(drop);
    let few = RestoreOptions { share_files: filled.shares([2]), ..filled.options() };
    assert!(matches!(with(few), Err(ServiceError::Share(_))));
    let other = World::new().await;
    let foreign = (1..=2).map(|n| other.path(&format!("recovery/default-v1-share-{n}.txt"))).collect();
    let text = with(RestoreOptions { share_files: foreign, ..filled.options() }).unwrap_err().to_string();
    assert!(text.contains("these shares don't open it") && text.contains("default version 1"), "{text}");
    let passphrase_file = Some(other.path("passphrase"));
    let wrong = with(RestoreOptions { passphrase_file, ..filled.options() });
    assert!(matches!(wrong, Err(ServiceError::WrongPassphrase)));
    assert!(!config.state_dir.exists(), "nothing was made");
    // Any two of the three do.
    for (n, pair) in [[1, 2], [2, 3], [1, 3]].into_iter().enumerate() {
        let config = filled.elsewhere(&format!("restored-{n}"), Location::Sqlite);
        let options = RestoreOptions { share_files: filled.shares(pair), ..filled.options() };
        filled.restore(&config, &options).unwrap();
    }
}

#[tokio::test]
async fn a_service_with_a_quorum_comes_back_with_its_unlock_shares() {
    let mut world = World::with(POLICY, Unlock::Quorum).await;
    let mut shares: Vec<PathBuf> =
        std::fs::read_dir(world.path("unlock")).unwrap().map(|entry| entry.unwrap().path()).collect();
    shares.sort();
    bring(&world, &shares[..2]).await;
    let file = world.path("backup");
    take(&world, &file).await;
    world.stop().await;
    let config = Config {
        state_dir: world.path("restored"),
        checkpoint_file: world.path("restored.checkpoint"),
        ..world.config.clone()
    };
    let with = |share_files: &[PathBuf]| {
        let options =
            RestoreOptions { file: file.clone(), share_files: share_files.to_vec(), passphrase_file: None };
        let clock: Arc<dyn claviger_env::Clock> = world.clock.clone();
        restore(&config, &options, &clock, &world.random).map(drop)
    };
    let recovery = [1, 2].map(|n| world.path(&format!("recovery/default-v1-share-{n}.txt")));
    for wrong in [&shares[..1], &recovery, &[]] {
        assert!(matches!(with(wrong), Err(ServiceError::Share(_))));
    }
    with(&shares[1..]).unwrap();
    world.config = config;
    world.start().await.unwrap();
    bring(&world, &shares[..2]).await;
    world.stop().await;
}

/// Unlocks with shares, as their holders' programs do.
async fn bring(world: &World, shares: &[PathBuf]) {
    let operator = world.operator();
    let mut unlocked = false;
    for path in shares {
        let share = SecretText::new(std::fs::read_to_string(path).unwrap());
        let state: UnlockState =
            ask(&operator, admin::UNLOCK_SHARE, &UnlockShareRequest { share }).await.unwrap();
        unlocked = state.unlocked;
    }
    assert!(unlocked);
}

/// The lines of a backup with an end that fits them, as someone would write it who may change the file.
fn forged(lines: &[String]) -> String {
    let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let sha256: String = Sha256::digest(&text).iter().map(|b| format!("{b:02x}")).collect();
    text.push_str(&format!("{{\"end\":{{\"lines\":{},\"sha256\":\"{sha256}\"}}}}\n", lines.len()));
    text
}

#[tokio::test]
async fn every_damage_of_a_backup_is_noticed_and_nothing_is_made_of_it() {
    let filled = filled(Location::Sqlite).await;
    let config = filled.elsewhere("restored", Location::Sqlite);
    let text = std::fs::read_to_string(&filled.file).unwrap();
    let refused = |content: &[u8]| {
        let file = filled.world.path("damaged");
        std::fs::write(&file, content).unwrap();
        assert!(matches!(check(&file), Err(ServiceError::Backup(_))));
        let outcome = filled.restore(&config, &RestoreOptions { file, ..filled.options() });
        assert!(matches!(outcome, Err(ServiceError::Backup(_))), "{outcome:?}");
        assert!(!config.state_dir.exists());
    };
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    for end in [0].iter().chain(&ends[..ends.len() - 1]) {
        refused(&text.as_bytes()[..*end]);
    }
    refused(&text.as_bytes()[..text.len() - 1]);
    refused(format!("{text}{text}").as_bytes());
    let mut bytes = text.clone().into_bytes();
    for at in (0..bytes.len()).step_by(bytes.len() / 60) {
        bytes[at] ^= 1;
        refused(&bytes);
        bytes[at] ^= 1;
    }
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    let mut lines: Vec<String> = newer.lines().map(str::to_owned).collect();
    lines.pop();
    refused(forged(&lines).as_bytes());
}

#[tokio::test]
async fn a_backup_that_was_edited_with_care_gives_no_service() {
    let filled = filled(Location::Sqlite).await;
    let text = std::fs::read_to_string(&filled.file).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.pop();
    let at = |what: &str| lines.iter().position(|line| line.starts_with(what)).unwrap();
    let without = |what: &str| {
        let mut lines = lines.clone();
        lines.remove(at(what));
        lines
    };
    let mut altered = lines.clone();
    let line = &mut altered[at("{\"row\":{\"kind\":\"identity\"")];
    *line = line.replacen("\"body\":\"ey", "\"body\":\"fy", 1);
    let mut escaping = lines.clone();
    let line = &mut escaping[at("{\"audit\"")];
    *line = line.replacen("00000000000000000000.jsonl", "../00000000000000000.jsonl", 1);
    let cases = [
        ("a row that was altered", altered),
        ("a row that was left out", without("{\"row\":{\"kind\":\"binding\"")),
        ("an epoch that was left out", without("{\"epoch\"")),
        ("a log that was left out", without("{\"audit\"")),
        ("a file outside", escaping),
        ("the log's checkpoint that was left out", without("{\"audit\":{\"file\":\"checkpoint\"")),
    ];
    for (n, (what, lines)) in cases.into_iter().enumerate() {
        let file = filled.world.path("edited");
        std::fs::write(&file, forged(&lines)).unwrap();
        assert!(check(&file).is_ok(), "{what}: the forger was careful");
        let config = filled.elsewhere(&format!("restored-{n}"), Location::Sqlite);
        let outcome = filled.restore(&config, &RestoreOptions { file, ..filled.options() });
        assert!(outcome.is_err(), "{what}");
        assert!(!claviger_keyservice::KeyService::is_initialised(&config), "{what}");
    }
}

#[tokio::test]
async fn parts_come_in_order_and_once_more_and_only_to_who_may() {
    let filled = filled(Location::Sqlite).await;
    let world = &filled.world;
    let operator = world.operator();
    let begun: BackupBegun = ask(&operator, admin::BACKUP_BEGIN, &Empty {}).await.unwrap();
    let read = |part| BackupReadRequest { backup_id: begun.backup_id, part };
    let part = async |n| ask::<BackupPart>(&operator, admin::BACKUP_READ, &read(n)).await;
    let conflict = |outcome: Result<BackupPart, KeyServiceError>| {
        matches!(outcome, Err(KeyServiceError::Conflict { .. }))
    };
    assert!(conflict(part(1).await), "not the second before the first");
    let first = part(0).await.unwrap();
    assert_eq!(part(0).await.unwrap().bytes.0, first.bytes.0, "its answer may have been lost");
    let last = part(1).await.unwrap();
    assert!(last.last && part(1).await.unwrap().last);
    assert!(conflict(part(3).await));
    let next: BackupBegun = ask(&operator, admin::BACKUP_BEGIN, &Empty {}).await.unwrap();
    assert_ne!(next.backup_id, begun.backup_id);
    assert!(conflict(part(0).await), "the one before is over");
    assert_eq!(world.audit().iter().filter(|record| record["action"] == "backup").count(), 3);
    // A gateway is no operator.
    let refused: Result<BackupBegun, _> = ask(&filled.full.keys, admin::BACKUP_BEGIN, &Empty {}).await;
    assert!(matches!(refused, Err(KeyServiceError::Denied { .. })));
}

#[tokio::test]
async fn an_operator_without_the_verb_gets_no_backup() {
    let policy = POLICY.replace(", \"backup\"]", "]");
    let world = World::with(&policy, Unlock::PassphraseFile).await;
    let refused: Result<BackupBegun, _> = ask(&world.operator(), admin::BACKUP_BEGIN, &Empty {}).await;
    assert!(matches!(refused, Err(KeyServiceError::Denied { .. })), "{refused:?}");
    assert_eq!(world.last_audit()["action"], "authorise");
}
