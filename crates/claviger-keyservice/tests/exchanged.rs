//! Somebody exchanges the files of the audit log while the service runs, and puts them back: nothing is concluded from them meanwhile.
#![allow(clippy::unwrap_used, reason = "a test that can't go on should stop where it stands")]

mod common;

use std::path::PathBuf;

use claviger_audit::{LogLine, Pruned};
use claviger_keyapi::admin::{
    self, AdminStatus, BackupBegun, BackupPart, BackupReadRequest, BudgetList, RevokeAnswer, RevokeRequest,
    UnlockRequest,
};
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{KeyService as _, KeyServiceError, LeaseItem, ReleaseError, ServiceState};
use claviger_keyservice::Unlock;
use claviger_keyservice::files::read_secret;
use common::{Epoch, Gateway, POLICY, World, ask};

/// Whoever can write the log's folder.
struct Hand {
    file: PathBuf,
    aside: PathBuf,
}

impl Hand {
    fn on(world: &World) -> Self {
        let file = world.config.state_dir.join("audit/00000000000000000000.jsonl");
        Self { file, aside: world.path("aside") }
    }

    /// The service writes on into the file that it has open; another one lies where it is read.
    fn shows(&self, edit: impl Fn(Vec<&str>) -> Vec<String>) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        std::fs::rename(&self.file, &self.aside).unwrap();
        let shown: String = edit(text.lines().collect()).iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&self.file, shown).unwrap();
    }

    fn hides_all_but(&self, count: usize) {
        self.shows(|lines| lines[..count].iter().map(|line| (*line).to_owned()).collect());
    }

    fn puts_back(&self) {
        std::fs::rename(&self.aside, &self.file).unwrap();
    }
}

async fn registered(gateway: &Gateway) -> Epoch {
    let epoch = gateway.seal_epoch();
    gateway.keys.register_epoch(&epoch.record).await.unwrap();
    epoch
}

async fn lease(gateway: &Gateway, epoch: &Epoch) -> Result<(), ReleaseError> {
    let item = LeaseItem { epoch_id: epoch.id.into(), record: None };
    gateway.keys.lease(vec![item]).await.unwrap().value.remove(0).map(drop)
}

async fn revoke(world: &World, name: &str, since_ms: u64) -> Result<RevokeAnswer, KeyServiceError> {
    let identity = format!("gateway:{name}").parse().unwrap();
    ask(&world.operator(), admin::REVOKE, &RevokeRequest { identity, since_ms: Some(since_ms), logs: vec![] })
        .await
}

#[tokio::test]
async fn a_log_whose_end_is_hidden_while_a_thief_is_revoked_hides_none_of_his_leases() {
    let mut world = World::new().await;
    let (full, thief) = (world.enrol("full").await, world.enrol("second").await);
    let (leased, other) = (registered(&full).await, registered(&full).await);
    let before = world.audit().len();
    lease(&thief, &leased).await.unwrap();
    let hand = Hand::on(&world);
    hand.hides_all_but(before);
    let answer = revoke(&world, "second", 1).await.unwrap();
    hand.puts_back();
    // All that he could have leased, since the log can't be read.
    assert_eq!(answer.quarantined, 2, "{answer:?}");
    assert!(answer.unread[0].contains("its end was hidden"), "{answer:?}");
    for epoch in [&leased, &other] {
        assert_eq!(lease(&full, epoch).await, Err(ReleaseError::EpochQuarantined));
    }
    world.restart().await;
    assert_eq!(world.service().health().0, ServiceState::Unlocked);
    assert_eq!(lease(&full, &leased).await, Err(ReleaseError::EpochQuarantined));
}

#[tokio::test]
async fn what_anybody_can_write_in_place_of_a_session_hides_none_of_it() {
    let mut world = World::new().await;
    let (full, thief) = (world.enrol("full").await, world.enrol("second").await);
    let epoch = registered(&full).await;
    let before = world.audit().len();
    lease(&thief, &epoch).await.unwrap();
    // What a restart writes before it unlocks has no seal, so none behind the lease covers it.
    world.restart().await;
    let hand = Hand::on(&world);
    hand.shows(|lines| {
        let start = lines.iter().rposition(|line| line.contains("\"action\":\"start\"")).unwrap();
        let forged = |index: usize, line: &str| match (before..start).contains(&index) {
            true => format!(
                "{{\"index\":{index},\"salt\":\"{:032x}\",\"record\":{{\"v\":1,\"time_ms\":1,\"request_id\":\"0\",\"action\":\"start\",\
                 \"outcome\":\"done\"}}}}",
                index
            ),
            false => line.to_owned(),
        };
        lines.iter().enumerate().map(|(index, line)| forged(index, line)).collect()
    });
    let answer = revoke(&world, "second", 1).await.unwrap();
    hand.puts_back();
    assert_eq!((answer.quarantined, answer.unread.len()), (1, 1), "{answer:?}");
    assert_eq!(lease(&full, &epoch).await, Err(ReleaseError::EpochQuarantined));
}

#[tokio::test]
async fn a_log_whose_end_is_hidden_at_an_unlock_gives_nobody_his_budget_once_more() {
    let budget =
        "[[budget]]\nidentity = \"gateway:full\"\nkeyset = \"default\"\nwindow_s = 2678400\nepochs_max = 3\n";
    let mut world = World::with(&format!("{POLICY}\n{budget}"), Unlock::PassphraseFile).await;
    let full = world.enrol("full").await;
    let mut epochs = Vec::new();
    for _ in 0..4 {
        epochs.push(registered(&full).await);
    }
    let before = world.audit().len();
    for epoch in &epochs[..3] {
        lease(&full, epoch).await.unwrap();
    }
    let passphrase = read_secret(&world.path("passphrase")).unwrap();
    world.config.unlock = Unlock::Operator;
    world.restart().await;
    let unlock = async || {
        let request = UnlockRequest { passphrase: SecretText::new(passphrase.to_string()) };
        ask::<AdminStatus>(&world.operator(), admin::UNLOCK, &request).await.map(|status| status.state)
    };
    let hand = Hand::on(&world);
    hand.hides_all_but(before);
    let refused = unlock().await;
    hand.puts_back();
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(world.service().health().0, ServiceState::Locked);
    assert_eq!(unlock().await.unwrap(), ServiceState::Unlocked);
    let list: BudgetList = ask(&world.operator(), admin::BUDGET_LIST, &Empty {}).await.unwrap();
    assert_eq!(list.budgets[0].epochs, Some(3));
    assert!(matches!(lease(&full, &epochs[3]).await, Err(ReleaseError::Frozen { .. })));
}

#[tokio::test]
async fn a_policy_with_budgets_does_not_come_into_force_over_a_log_whose_end_is_hidden() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = registered(&full).await;
    let before = world.audit().len();
    lease(&full, &epoch).await.unwrap();
    let hand = Hand::on(&world);
    hand.hides_all_but(before);
    let budget =
        "[[budget]]\nidentity = \"gateway:full\"\nkeyset = \"default\"\nwindow_s = 3600\nepochs_max = 1\n";
    let action = || Action::Policy { text: format!("{POLICY}\n{budget}") };
    let refused = world.by_two(action()).await;
    hand.puts_back();
    assert!(refused.is_err(), "{refused:?}");
    world.by_two(action()).await.unwrap();
    let list: BudgetList = ask(&world.operator(), admin::BUDGET_LIST, &Empty {}).await.unwrap();
    assert_eq!(list.budgets[0].epochs, Some(1));
}

#[tokio::test]
async fn a_time_that_is_still_to_come_says_that_a_clock_is_wrong_and_put_right_it_hides_no_lease() {
    const HOUR_MS: i64 = 3_600_000;
    let world = World::new().await;
    let (full, thief) = (world.enrol("full").await, world.enrol("second").await);
    world.clock.advance(3 * 3_600_000);
    let epoch = registered(&full).await;
    let stolen_ms = claviger_env::Clock::now_ms(&*world.clock) + 1_000;
    // Somebody sets the service's clock back before the theft.
    world.clock.set_wall_by(-2 * HOUR_MS);
    lease(&thief, &epoch).await.unwrap();
    let refused = revoke(&world, "second", stolen_ms).await.unwrap_err();
    assert!(matches!(&refused, KeyServiceError::Conflict { text } if text.contains("clock")), "{refused:?}");
    let item = LeaseItem { epoch_id: epoch.id.into(), record: None };
    assert!(thief.keys.lease(vec![item]).await.is_err(), "it is revoked all the same");
    // Put right: the record of the lease looks older than the theft, and stands behind one that is younger.
    world.clock.set_wall_by(2 * HOUR_MS + 60_000);
    let answer = revoke(&world, "second", stolen_ms).await.unwrap();
    assert_eq!((answer.quarantined, answer.unread.len()), (1, 0), "{answer:?}");
    assert_eq!(lease(&full, &epoch).await, Err(ReleaseError::EpochQuarantined));
}

/// All of a backup, or why there is none.
async fn backup(world: &World) -> Result<Vec<u8>, KeyServiceError> {
    let operator = world.operator();
    let begun: BackupBegun = ask(&operator, admin::BACKUP_BEGIN, &Empty {}).await?;
    let mut bytes = Vec::new();
    for part in 0.. {
        let request = BackupReadRequest { backup_id: begun.backup_id, part };
        let part: BackupPart = ask(&operator, admin::BACKUP_READ, &request).await?;
        bytes.extend_from_slice(&part.bytes.0);
        if part.last {
            break;
        }
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_backup_of_a_log_that_was_exchanged_ends_with_an_error() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let before = world.audit().len();
    registered(&full).await;
    let hand = Hand::on(&world);
    hand.hides_all_but(before);
    let refused = backup(&world).await;
    hand.puts_back();
    assert!(refused.is_err());
    assert!(!backup(&world).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_database_that_shows_a_backup_other_rows_makes_no_backup() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    full.keys.bind_bucket("photos", None).await.unwrap();
    registered(&full).await;
    assert!(!backup(&world).await.unwrap().is_empty());
    // What the service has in memory it does not read again; a snapshot does.
    for change in [
        "DELETE FROM row WHERE kind = 'binding'",
        "DELETE FROM epoch",
        "DELETE FROM row WHERE kind = 'policy'",
    ] {
        let database = world.database();
        database.execute_batch("CREATE TEMP TABLE rows_then AS SELECT * FROM row; CREATE TEMP TABLE epochs_then AS SELECT * FROM epoch").unwrap();
        assert_eq!(database.execute(change, []).unwrap(), 1, "{change}");
        let refused = backup(&world).await.map(drop).unwrap_err();
        assert!(
            matches!(&refused, KeyServiceError::Conflict { text } if text.contains("other rows")),
            "{refused:?}"
        );
        database
            .execute_batch("DELETE FROM row; INSERT INTO row SELECT * FROM rows_then; DROP TABLE rows_then")
            .unwrap();
        database
            .execute_batch(
                "DELETE FROM epoch; INSERT INTO epoch SELECT * FROM epochs_then; DROP TABLE epochs_then",
            )
            .unwrap();
        drop(database);
        assert!(!backup(&world).await.unwrap().is_empty(), "{change}");
    }
}

#[tokio::test]
async fn a_log_out_of_which_somebody_took_a_record_makes_no_backup() {
    let world = World::new().await;
    let full = world.enrol("full").await;
    let epoch = registered(&full).await;
    lease(&full, &epoch).await.unwrap();
    // What stands in the place of a pruned record has its entry, and the tree is the same.
    let without_the_lease = |line: &str| match LogLine::parse(line.as_bytes()).unwrap() {
        LogLine::Record(record) if record.record.contains("\"action\":\"lease\"") => {
            let mut bytes = Vec::new();
            Pruned { index: record.index, entry: record.entry() }.write(&mut bytes);
            String::from_utf8(bytes).unwrap().trim_end().to_owned()
        }
        _ => line.to_owned(),
    };
    let hand = Hand::on(&world);
    hand.shows(|lines| lines.into_iter().map(without_the_lease).collect());
    let refused = backup(&world).await;
    hand.puts_back();
    let is_told = |text: &str| text.contains("was taken out of the audit log");
    assert!(matches!(&refused, Err(KeyServiceError::Conflict { text }) if is_told(text)), "{refused:?}");
    assert!(!backup(&world).await.unwrap().is_empty());
}

#[tokio::test]
async fn whatever_lies_in_the_place_of_the_log_a_revocation_neither_fails_nor_waits() {
    let world = World::new().await;
    let (full, _) = (world.enrol("full").await, world.enrol("second").await);
    let epoch = registered(&full).await;
    let hand = Hand::on(&world);
    let (file, aside) = (hand.file.clone(), hand.aside.clone());
    let mut quarantined = 0;
    for (command, arguments) in [("mkdir", &[][..]), ("ln", &["-s", "/nonexistent"][..]), ("mkfifo", &[][..])]
    {
        std::fs::rename(&file, &aside).unwrap();
        assert!(std::process::Command::new(command).args(arguments).arg(&file).status().unwrap().success());
        let answer = revoke(&world, "second", 1);
        let answer = tokio::time::timeout(std::time::Duration::from_secs(20), answer).await;
        // Or whoever reads it waits with the test.
        drop(std::fs::OpenOptions::new().read(true).write(true).open(&file));
        if command == "mkdir" { std::fs::remove_dir(&file) } else { std::fs::remove_file(&file) }.unwrap();
        hand.puts_back();
        let answer = answer.unwrap_or_else(|_| panic!("it waits: {command}")).unwrap();
        assert_eq!(answer.unread.len(), 1, "{command}: {answer:?}");
        quarantined += answer.quarantined;
    }
    assert_eq!(quarantined, 1, "all that it could have leased, once");
    assert_eq!(lease(&full, &epoch).await, Err(ReleaseError::EpochQuarantined));
}
