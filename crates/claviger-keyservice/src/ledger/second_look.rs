//! A database that shows one thing and then another. Whoever administers it can put a view in a table's place that does that.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use claviger_env::SystemClock;
use claviger_format::Random;
use claviger_keyapi::admin::{EpochListRequest, RetireRequest, RevokeRequest};
use claviger_keyapi::proposals::{Action, FreezeRequest, FreezeTarget, ProposeRequest};
use claviger_keyapi::routes::BindRequest;
use claviger_keyapi::{Id16, Identity, Role};

use super::tests::{EPOCH, folder_in_memory, register};
use crate::audit_record::Outcome;
use crate::custody::unlock::change::Prepared;
use crate::custody::unlock::{Stored, Wrap, passphrase};
use crate::files::read_secret;
use crate::identity::Peer;
use crate::log_key::LogKey;
use crate::service::tests::{POLICY, config_in, enrol_as, made, meddled, operator_of, token_for};
use crate::service::{Caller, Core};
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, Kind, Row, Store};
use crate::testing::{Meddled, Meddler, random};
use crate::{KeyService, ServiceError};

/// Whether the reading of this number shows what was before.
type IsOld = fn(u32) -> bool;

/// Shows rows of some kinds as they were once, at some readings.
#[derive(Default)]
struct TwoFaced {
    before: HashMap<Kind, Vec<Row>>,
    lies: Mutex<HashMap<Kind, IsOld>>,
    readings: Mutex<HashMap<Kind, u32>>,
    hides_epochs: AtomicBool,
}

impl TwoFaced {
    fn lie_about(&self, kind: Kind, is_old: IsOld) {
        self.lies.lock().unwrap().insert(kind, is_old);
    }
}

impl Meddler for TwoFaced {
    fn rows(&self, truth: &SqliteStore, kind: Kind) -> Result<Vec<Row>, ServiceError> {
        let mut readings = self.readings.lock().unwrap();
        let number = readings.entry(kind).or_default();
        *number += 1;
        match self.lies.lock().unwrap().get(&kind) {
            Some(is_old) if is_old(*number) => Ok(self.before[&kind].clone()),
            _ => truth.rows(kind),
        }
    }

    fn hides_epochs(&self) -> bool {
        self.hides_epochs.load(Ordering::Relaxed)
    }
}

/// A locked service over such a database.
fn over(folder: &Path, before: &HashMap<Kind, Vec<Row>>) -> (KeyService, Arc<Meddled<TwoFaced>>) {
    let two_faced = TwoFaced { before: before.clone(), ..TwoFaced::default() };
    meddled(config_in(folder), Arc::new(SystemClock), two_faced)
}

fn rows_of(store: &dyn Store) -> HashMap<Kind, Vec<Row>> {
    Kind::LEDGER.into_iter().map(|kind| (kind, store.rows(kind).unwrap())).collect()
}

fn gateway_of(core: &Core) -> Caller {
    let row = core.vault().unwrap().active(&gateway()).unwrap();
    let peer = Peer { identity: row.identity.clone(), spki: row.spki, not_after_ms: u64::MAX };
    core.caller(Some(&peer), Role::Gateway, core.local_info().unwrap()).unwrap()
}

fn gateway() -> Identity {
    "gateway:full".parse().unwrap()
}

fn stolen() -> RevokeRequest {
    RevokeRequest { identity: gateway(), since_ms: Some(1), logs: Vec::new() }
}

fn propose(service: &KeyService, action: Action) -> String {
    let (core, first) = (&service.core, operator_of(service, "admin:first"));
    core.settle_blocking(core.propose(&first, ProposeRequest { action, ttl_s: None })).unwrap().id
}

/// Another passphrase counts from here on; the old wrap lies there too, as its administrator can see to.
fn change_passphrase(core: &Core, old: &str) -> String {
    let stored = Stored::load(&*core.store).unwrap();
    let Wrap::Passphrase { wrapped } = &stored.wrap else { panic!("no passphrase") };
    let secret = passphrase::unwrap(&wrapped.0, old).unwrap();
    let (prepared, texts) = Prepared::passphrase(&secret, &*random() as &dyn Random).unwrap();
    prepared.stage(&*core.store).unwrap();
    let vault = core.vault().unwrap();
    let record = core.local_info().unwrap().record("test", Outcome::Done);
    let change = prepared.wrap().change(&vault.master).unwrap();
    core.commit(&core.change(&vault).unwrap(), vec![change], &[record]).unwrap();
    texts[0].expose().to_owned()
}

/// What was once, and what operators made of it; the new passphrase.
fn history(folder: &Path) -> (HashMap<Kind, Vec<Row>>, String) {
    made(folder);
    let (service, store) = over(folder, &HashMap::new());
    let old = read_secret(&folder.join("passphrase")).unwrap();
    service.unlock(&old).unwrap();
    let core = &service.core;
    let vault = core.vault().unwrap();
    let record = |action| core.local_info().unwrap().record(action, Outcome::Done);
    enrol_as(&service, "gateway:full").unwrap();
    let full = gateway_of(core);
    register(&full, core).unwrap();
    let request = BindRequest { bucket: "photos".into(), keyset: None };
    let bound = core.settle_blocking(core.bind(&full, &request)).unwrap();
    drop(token_for(&service, &"gateway:second".parse().unwrap()).unwrap());
    let proposal = propose(&service, Action::Policy { text: format!("{POLICY}\n") });
    let log = LogKey::open_or_make(&vault.master, &*core.store, core.log_id(), &*random()).unwrap();
    let commit =
        |change| core.commit(&core.change(&vault).unwrap(), vec![change], &[record("test")]).unwrap();
    commit(log.unsealed(&vault.master));
    let before = rows_of(&store.truth);
    commit(log.sealed(&vault.master, core.audit.records()));
    let second = operator_of(&service, "admin:second");
    core.settle_blocking(core.approve(&second, &proposal)).unwrap();
    core.settle_blocking(core.unbind(&full, "photos", &bound.bucket_id)).unwrap();
    let tokens: Vec<String> = vault.tokens().keys().cloned().collect();
    tokens.into_iter().for_each(|id| {
        commit(Change::Delete(Kind::Token, id));
    });
    core.settle_blocking(core.revoke_since(&second, &stolen())).unwrap();
    core.settle_blocking(core.retire_keyset(&second, &RetireRequest { keyset: "default".into() })).unwrap();
    let everything = FreezeRequest { target: FreezeTarget::Everything, reason: "incident".into() };
    core.settle_blocking(core.freeze(&second, everything)).unwrap();
    let new = change_passphrase(core, &old);
    let after = rows_of(&store.truth);
    for kind in Kind::LEDGER {
        assert_ne!(before[&kind], after[&kind], "{}: nothing to lie about", kind.name());
    }
    (before, new)
}

/// What counts is what was written down last.
fn check(service: &KeyService, store: &Meddled<TwoFaced>) {
    let core = &service.core;
    let vault = core.vault().unwrap();
    for kind in Kind::LEDGER {
        let counted: Vec<Row> = vault.ledger().rows().of(kind).cloned().collect();
        assert_eq!(counted, store.truth.rows(kind).unwrap(), "{}", kind.name());
    }
    assert!(vault.active(&gateway()).is_none(), "revoked");
    assert!(vault.freezes.stops(&gateway(), None).is_some(), "frozen");
    assert!(vault.tokens().is_empty() && vault.proposals().is_empty(), "used up");
    assert!(vault.bindings.get("photos").is_none(), "unbound");
    let epoch = core.registered_epoch(&vault, &EPOCH).unwrap().unwrap();
    assert!(vault.quarantine.holds(&(&epoch).into()), "in quarantine");
    assert!(vault.keyset("default").unwrap().newest().is_none(), "retired");
    let policy = Core::show_policy(&operator_of(service, "admin:first")).unwrap();
    assert!(policy.text.ends_with("\n\n") && core.policy.load().sha256() == policy.sha256, "changed");
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.unwrap().success());
}

#[test]
fn what_is_shown_at_another_reading_never_counts_at_an_unlock() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    let (before, new) = history(&template);
    let old = read_secret(&template.join("passphrase")).unwrap();
    let lies: [IsOld; 9] = [
        |_| true,
        |n| n > 1,
        |n| n > 2,
        |n| n > 3,
        |n| n < 2,
        |n| n < 3,
        |n| n < 4,
        |n| n % 2 == 0,
        |n| n % 2 == 1,
    ];
    let mut opened = 0;
    for kind in Kind::LEDGER {
        for (number, is_old) in lies.into_iter().enumerate() {
            let folder = home.path().join("run");
            copy(&template, &folder);
            let (service, store) = over(&folder, &before);
            store.lie_about(kind, is_old);
            assert!(service.unlock(&old).is_err(), "the passphrase of before: {} {number}", kind.name());
            store.readings.lock().unwrap().clear();
            match service.unlock(&new) {
                Ok(()) => check(&service, &store),
                Err(_) => assert!(service.core.vault().is_err(), "{} {number}", kind.name()),
            }
            opened += u32::from(service.core.vault().is_ok());
            drop((service, store));
            std::fs::remove_dir_all(&folder).unwrap();
        }
    }
    assert!((11..99).contains(&opened), "some readings are not believed, some not even asked for: {opened}");
}

#[test]
fn what_is_shown_while_the_service_runs_never_counts() {
    let home = folder_in_memory();
    let (before, new) = history(home.path());
    let (service, store) = over(home.path(), &before);
    service.unlock(&new).unwrap();
    let core = &service.core;
    let vault = core.vault().unwrap();
    let keyset = vault.keyset("default").unwrap();
    assert!(core.stored_keyset(&vault, &keyset).is_ok());
    Kind::LEDGER.into_iter().for_each(|kind| store.lie_about(kind, |_| true));
    check(&service, &store);
    let refused = core.stored_keyset(&vault, &keyset).err();
    assert!(matches!(refused, Some(ServiceError::Tampered { kind: "keyset", .. })), "{refused:?}");
    // A change of something else writes nothing of what it shows.
    let everything = FreezeRequest { target: FreezeTarget::Keyset("default".into()), reason: "too".into() };
    core.settle_blocking(core.freeze(&operator_of(&service, "admin:first"), everything)).unwrap();
    check(&service, &store);
    drop((vault, keyset, store));
    drop(service);
    let (service, store) = over(home.path(), &before);
    service.unlock(&new).unwrap();
    check(&service, &store);
}

#[test]
fn an_epoch_that_the_database_hides_is_not_unknown() {
    let home = folder_in_memory();
    made(home.path());
    let (service, store) = over(home.path(), &HashMap::new());
    service.unlock(&read_secret(&home.path().join("passphrase")).unwrap()).unwrap();
    enrol_as(&service, "gateway:full").unwrap();
    let core = &service.core;
    let full = gateway_of(core);
    register(&full, core).unwrap();
    let keyset = full.vault.keyset("default").unwrap();
    full.vault.open_epochs.forget(keyset.public_id());
    let first = operator_of(&service, "admin:first");
    let list = || {
        let gateway_id = Some(full.row.uid);
        core.list_epochs(&first, &EpochListRequest { gateway_id, after: None, limit: 10 })
    };
    let is_hidden = |error: Option<ServiceError>| {
        assert!(matches!(error, Some(ServiceError::Tampered { kind: "epoch", .. })), "{error:?}");
    };
    assert_eq!(list().unwrap().epochs.len(), 1);
    store.hides_epochs.store(true, Ordering::Relaxed);
    is_hidden(register(&full, core).err());
    is_hidden(core.epoch_record(&full, Id16(EPOCH)).err());
    is_hidden(list().err());
    is_hidden(core.epochs_of(&full.vault, &keyset, 1, |_| {}).err());
    let revoked = || core.settle_blocking(core.revoke_since(&first, &stolen()));
    is_hidden(revoked().err());
    assert!(full.vault.active(&gateway()).is_none(), "revoked all the same");
    let epoch = store.truth.epoch(&EPOCH).unwrap().unwrap();
    assert!(full.vault.quarantine.holds(&(&epoch).into()), "and held back before anything is read");
    store.hides_epochs.store(false, Ordering::Relaxed);
    assert_eq!(revoked().unwrap().quarantined, 1);
    // One that is not registered is not hidden.
    assert!(core.registered_epoch(&full.vault, &[8; 16]).unwrap().is_none());
}

#[test]
fn lines_that_were_checked_by_a_row_that_does_not_count_are_checked_again() {
    let home = folder_in_memory();
    made(home.path());
    let pass = read_secret(&home.path().join("passphrase")).unwrap();
    let before = {
        let (service, store) = over(home.path(), &HashMap::new());
        service.unlock(&pass).unwrap();
        let core = &service.core;
        let vault = core.vault().unwrap();
        let log = LogKey::open_or_make(&vault.master, &*core.store, core.log_id(), &*random()).unwrap();
        let record = core.local_info().unwrap().record("test", Outcome::Done);
        let commit = |change| {
            core.commit(&core.change(&vault).unwrap(), vec![change], std::slice::from_ref(&record)).unwrap();
        };
        commit(log.unsealed(&vault.master));
        let before = rows_of(&store.truth);
        commit(log.sealed(&vault.master, core.audit.records()));
        before
    };
    let file = config_in(home.path()).audit_folder().join("00000000000000000000.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let (index, salt, epoch) = (text.lines().count(), "00".repeat(16), "11".repeat(16));
    let record = format!(
        "{{\"v\":1,\"time_ms\":1,\"request_id\":\"0\",\"action\":\"lease\",\"outcome\":\"released\",\"epoch_id\":\"{epoch}\"}}"
    );
    let forged = format!("{{\"index\":{index},\"salt\":\"{salt}\",\"record\":{record}}}\n");
    std::fs::write(&file, text + &forged).unwrap();
    let (service, store) = over(home.path(), &before);
    // The row of the log as it was before its lines were sealed lets them pass, and is not the one that counts.
    store.lie_about(Kind::Log, |_| true);
    assert!(matches!(service.unlock(&pass), Err(ServiceError::Stale { kind: "log", .. })));
    store.lies.lock().unwrap().clear();
    for _ in 0..2 {
        let refused = service.unlock(&pass);
        assert!(matches!(refused, Err(ServiceError::Forged { .. })), "{refused:?}");
    }
}
