//! The end of the audit log in other hands: lines added behind the newest checkpoint, or the checkpoint taken away.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::fs;
use std::path::PathBuf;

use claviger_keyapi::admin::{self, RetireRequest, RevokeAnswer, RevokeRequest};
use claviger_keyapi::proposals::{
    self, Action, FreezeRequest, FreezeTarget, ProposalInfo, ProposalRequest, ProposeRequest,
};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{KeyService as _, LeaseItem, ServiceState};
use claviger_keyservice::ServiceError;
use common::snapshot::Snapshot;
use common::{Gateway, World, ask};

impl World {
    fn log_file(&self) -> PathBuf {
        self.config.state_dir.join("audit/00000000000000000000.jsonl")
    }

    /// The records as they stand in their lines.
    fn raw_records(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log_file()).unwrap();
        let record = |line: &str| {
            let (_, rest) = line.split_once("\"record\":").unwrap();
            rest.strip_suffix('}').unwrap().to_owned()
        };
        text.lines().map(record).collect()
    }

    /// Adds a line with the next index, as whoever can write the file would.
    fn add(&self, record: &str) {
        let mut text = fs::read_to_string(self.log_file()).unwrap();
        let line =
            format!("{{\"index\":{},\"salt\":\"{:032x}\",\"record\":{record}}}\n", text.lines().count(), 7);
        text.push_str(&line);
        fs::write(self.log_file(), text).unwrap();
    }

    /// How many records a checkpoint in a file covers.
    fn covered(&self, path: &std::path::Path) -> usize {
        fs::read_to_string(path).unwrap().lines().nth(1).unwrap().parse().unwrap()
    }
}

async fn freeze(world: &World, target: FreezeTarget) {
    let request = FreezeRequest { target, reason: "lunch!".into() };
    ask::<Empty>(&world.operator(), admin::FREEZE, &request).await.unwrap();
}

fn without_seal(record: &str) -> String {
    let at = record.find(",\"seal\":\"").unwrap();
    format!("{}}}", &record[..at])
}

/// A service with a gateway that was given a key and is frozen, stopped.
async fn frozen() -> (World, Gateway) {
    let mut world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = full.seal_epoch();
    let item = LeaseItem { epoch_id: epoch.id.into(), record: Some(Blob(epoch.record)) };
    full.keys.lease(vec![item]).await.unwrap().value.remove(0).unwrap();
    freeze(&world, FreezeTarget::Identity("gateway:full".parse().unwrap())).await;
    world.stop().await;
    (world, full)
}

#[tokio::test]
async fn a_record_that_somebody_added_while_the_service_was_down_is_not_signed() {
    let (mut world, full) = frozen().await;
    let as_it_was = Snapshot::take(&world);
    let records = world.raw_records();
    let of = |action: &str| {
        let text = format!("\"action\":\"{action}\"");
        records.iter().rfind(|record| record.contains(&text)).unwrap().clone()
    };
    let leased = of("lease");
    let added = [
        // Genuine records of another place, with the state of the ledger as it is, and as it was.
        leased.clone(),
        of("freeze"),
        // What nobody did.
        without_seal(&leased),
        without_seal(&of("freeze")),
        without_seal(&of("freeze")).replace("\"freeze\"", "\"unfreeze\""),
        "{\"v\":1,\"time_ms\":1,\"request_id\":\"0\",\"action\":\"unfreeze\",\"outcome\":\"done\",\"subject\":\"gateway:full\"}"
            .to_owned(),
    ];
    for (n, record) in added.iter().enumerate() {
        world.add(record);
        match world.open() {
            Err(ServiceError::Forged { index }) => assert_eq!(index, records.len() as u64, "{n}"),
            Err(other) => panic!("{n}: {other}"),
            Ok(_) => panic!("{n}: opened"),
        }
        as_it_was.put_back(&world);
    }
    // What a locked service writes has no seal, and decides nothing.
    world.add("{\"v\":1,\"time_ms\":1,\"request_id\":\"0\",\"action\":\"start\",\"outcome\":\"done\"}");
    world.start().await.unwrap();
    assert!(full.keys.session().await.is_err(), "it stays frozen");
}

/// The line of a record that was removed, as a pruned log has it.
fn gap(line: &str) -> String {
    let parsed = claviger_audit::Line::parse(line.as_bytes()).unwrap();
    let mut gap = Vec::new();
    claviger_audit::Pruned { index: parsed.index, entry: parsed.entry() }.write(&mut gap);
    gap.pop();
    String::from_utf8(gap).unwrap()
}

#[tokio::test]
async fn nothing_that_somebody_adds_lets_a_record_go() {
    let (world, _full) = frozen().await;
    let as_it_was = Snapshot::take(&world);
    let count = world.raw_records().len() as u64;
    let licence = |fields: &str| {
        format!(
            "{{\"v\":1,\"time_ms\":9000000000000000,\"request_id\":\"0\",{fields},\"before_ms\":8000000000000000,\
             \"pruned_before\":{count}}}"
        )
    };
    for fields in [
        "\"action\":\"prune\",\"outcome\":\"refused\"",
        "\"action\":\"prune\",\"outcome\":\"done\",\"proposal\":\"1\"",
        "\"action\":\"authenticate\",\"outcome\":\"refused\"",
        "\"action\":\"start\",\"outcome\":\"done\"",
    ] {
        world.add(&licence(fields));
        let error = world.open().err().unwrap();
        assert!(matches!(error, ServiceError::Forged { index } if index == count), "{fields}: {error}");
        as_it_was.put_back(&world);
    }
    // A place without a record, of one that was there and of one that never was.
    world.add("{\"v\":1,\"time_ms\":1,\"request_id\":\"0\",\"action\":\"start\",\"outcome\":\"done\"}");
    let text = fs::read_to_string(world.log_file()).unwrap();
    let last = text.lines().last().unwrap();
    fs::write(world.log_file(), text.replace(last, &gap(last))).unwrap();
    let error = world.open().err().unwrap();
    assert!(error.to_string().contains(&format!("record {count} was removed")), "{error}");
}

#[tokio::test]
async fn no_record_is_exchanged_for_one_that_anybody_can_write() {
    let (world, _full) = frozen().await;
    let audit = world.config.state_dir.join("audit");
    fs::remove_file(audit.join("checkpoint")).unwrap();
    fs::remove_dir_all(audit.join("tile")).unwrap();
    // The release, among what no checkpoint covers: a refusal in its place needs no seal.
    let records = world.raw_records();
    let at = records.iter().position(|record| record.contains("\"action\":\"lease\"")).unwrap();
    let text = fs::read_to_string(world.log_file()).unwrap();
    let line = text.lines().nth(at).unwrap();
    let refused =
        "{\"v\":1,\"time_ms\":1,\"request_id\":\"0\",\"action\":\"authenticate\",\"outcome\":\"refused\"}";
    fs::write(world.log_file(), text.replace(line, &line.replace(&records[at], refused))).unwrap();
    let error = world.open().err().unwrap();
    assert!(matches!(error, ServiceError::Forged { index } if index == at as u64 + 1), "{error}");
}

#[tokio::test]
async fn an_old_database_is_not_made_good_by_gaps_where_newer_states_stood() {
    let mut world = World::new().await;
    world.enrol("full").await;
    world.stop().await;
    let database = world.config.state_dir.join("keyservice.db");
    let (old, records) = (fs::read(&database).unwrap(), world.raw_records().len());
    world.start().await.unwrap();
    freeze(&world, FreezeTarget::Everything).await;
    world.stop().await;
    let as_it_was = Snapshot::take(&world);
    // Entries, tiles and checkpoints stay as they are: the tree is the same.
    let text = fs::read_to_string(world.log_file()).unwrap();
    let states = |line: &str| line.contains("\"state\":\"");
    let hide =
        |(n, line): (usize, &str)| if n >= records && states(line) { gap(line) } else { line.to_owned() };
    let hidden: Vec<String> = text.lines().enumerate().map(hide).collect();
    assert!(hidden.iter().filter(|line| line.contains("\"pruned\":\"")).count() >= 2);
    fs::write(world.log_file(), hidden.join("\n") + "\n").unwrap();
    fs::write(&database, old).unwrap();
    let error = world.open().err().unwrap();
    assert!(error.to_string().contains("was removed, and nothing is pruned there"), "{error}");
    as_it_was.put_back(&world);
    world.start().await.unwrap();
}

#[tokio::test]
async fn an_altered_record_is_found_without_its_checkpoint_too() {
    let (mut world, full) = frozen().await;
    let as_it_was = Snapshot::take(&world);
    let audit = world.config.state_dir.join("audit");
    let remove = || {
        fs::remove_file(audit.join("checkpoint")).unwrap();
        fs::remove_dir_all(audit.join("tile")).unwrap();
    };
    let text = fs::read_to_string(world.log_file()).unwrap();
    fs::write(world.log_file(), text.replace("lunch!", "dinner")).unwrap();
    remove();
    let error = world.open().err().unwrap();
    assert!(matches!(error, ServiceError::Forged { .. }), "{error}");

    // As it was, but for the checkpoint: as if the log had never been signed.
    as_it_was.put_back(&world);
    remove();
    world.start().await.unwrap();
    let (state, problems) = world.service().health();
    assert_eq!(state, ServiceState::Locked);
    assert!(problems.iter().any(|problem| problem.contains("has lost its checkpoint")), "{problems:?}");
    for operator in [world.operator(), world.second_operator()] {
        ask::<admin::RollbackAccepted>(&operator, admin::ACCEPT_ROLLBACK, &Empty {}).await.unwrap();
    }
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
    assert!(full.keys.session().await.is_err(), "it stays frozen");
    world.restart().await;
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
}

#[tokio::test]
async fn what_takes_something_away_is_under_a_checkpoint_when_it_is_acknowledged() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    world.enrol("second").await;
    let id = full.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
    let checked = |action: &str| {
        let at = world.audit().iter().rposition(|record| record["action"] == action).unwrap();
        for path in [world.config.checkpoint_file.clone(), world.config.state_dir.join("audit/checkpoint")] {
            let covered = world.covered(&path);
            assert!(covered > at, "{action}: record {at}, {covered} in {}", path.display());
        }
    };
    full.keys.unbind_bucket("photos", &id).await.unwrap();
    checked("unbind");
    freeze(&world, FreezeTarget::Keyset("default".into())).await;
    checked("freeze");
    let request = RevokeRequest { identity: "gateway:second".parse().unwrap(), since_ms: None, logs: vec![] };
    ask::<RevokeAnswer>(&world.operator(), admin::REVOKE, &request).await.unwrap();
    checked("revoke");
    world.by_two(Action::Policy { text: format!("{}\n# narrower\n", common::POLICY) }).await.unwrap();
    checked("policy");
    let action = Action::Unfreeze { target: FreezeTarget::Keyset("default".into()) };
    let proposed: ProposalInfo =
        ask(&world.operator(), proposals::PROPOSE, &ProposeRequest { action, ttl_s: None }).await.unwrap();
    ask::<Empty>(&world.operator(), proposals::WITHDRAW, &ProposalRequest { id: proposed.id }).await.unwrap();
    checked("withdraw");
    ask::<admin::KeysetInfo>(
        &world.operator(),
        admin::KEYSET_RETIRE,
        &RetireRequest { keyset: "default".into() },
    )
    .await
    .unwrap();
    checked("retire");
    world.service().lock().unwrap();
    checked("lock");
}
