//! The end of a version, with a clock that the test moves: what opens when, what is left, and what a failed step leaves.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use claviger_env::Clock;
use claviger_keyapi::lifecycle::{DESTROY_WAIT_S, DESTROY_WAIT_S_MAX, DESTROY_WAIT_S_MIN, ShredPlanRequest};
use claviger_keyapi::proposals::{Action, Collected, ConfirmRequest, ProposeRequest};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{LeaseItem, ReleaseError, Role};

use super::*;
use crate::KeyService;
use crate::custody::shamir::{Share, ShareOf, combine, split};
use crate::files::read_secret;
use crate::identity::Peer;
use crate::ledger::tests::{EPOCH, Fault, Plan, failing, folder_in_memory, register};
use crate::service::tests::enrol_as;
use crate::service::tests::{config_in, made, operator_of};
use crate::testing::random;

mod reseal;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Wall and boot clock, each moved by hand.
struct Hands {
    wall_ms: AtomicU64,
    boot_ms: AtomicU64,
}

impl Hands {
    fn new() -> Arc<Self> {
        let wall_ms = claviger_env::SystemClock.now_ms();
        Arc::new(Self { wall_ms: AtomicU64::new(wall_ms), boot_ms: AtomicU64::new(1) })
    }

    fn pass(&self, ms: u64) {
        self.jump(ms);
        self.boot_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// The wall clock alone is set forward.
    fn jump(&self, ms: u64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.wall_ms.load(Ordering::Relaxed)
    }
    fn boot_ms(&self) -> u64 {
        self.boot_ms.load(Ordering::Relaxed)
    }
}

fn opened(folder: &Path, clock: &Arc<Hands>) -> KeyService {
    let service = KeyService::open(config_in(folder), Arc::clone(clock) as Arc<dyn Clock>, random()).unwrap();
    service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).unwrap();
    service
}

fn by_two(service: &KeyService, action: Action) -> Result<String, ServiceError> {
    let (core, first) = (&service.core, operator_of(service, "admin:first"));
    let proposal = core.settle_blocking(core.propose(&first, ProposeRequest { action, ttl_s: None }))?;
    let second = operator_of(service, "admin:second");
    core.settle_blocking(core.approve(&second, &proposal.id))?;
    Ok(proposal.id)
}

/// Proposed, approved and collected.
fn new_shares(service: &KeyService, shares: u8) -> Result<(String, Vec<SecretText>), ServiceError> {
    let id = by_two(service, Action::Rotate { keyset: "default".into(), shares, threshold: 2 })?;
    let (core, first) = (&service.core, operator_of(service, "admin:first"));
    let Collected::Shares(shares) = core.settle_blocking(core.collect(&first, &id))? else {
        panic!("no shares")
    };
    Ok((id, shares.shares))
}

fn confirm(service: &KeyService, id: &str, secrets: Vec<SecretText>) -> Result<(), ServiceError> {
    let (core, first) = (&service.core, operator_of(service, "admin:first"));
    core.settle_blocking(core.confirm(&first, &ConfirmRequest { id: id.to_owned(), secrets }))
}

fn rotate(service: &KeyService) -> Result<(), ServiceError> {
    let (id, shares) = new_shares(service, 2)?;
    confirm(service, &id, shares)
}

fn destroy(version: u32, wait_s: u32) -> Action {
    Action::Destroy { keyset: "default".into(), version, wait_s }
}

fn gateway(service: &KeyService) -> Caller {
    gateway_named(service, "gateway:full")
}

fn gateway_named(service: &KeyService, name: &str) -> Caller {
    let row = service.core.vault().unwrap().active(&name.parse().unwrap()).unwrap();
    let peer = Peer { identity: row.identity.clone(), spki: row.spki, not_after_ms: u64::MAX };
    service.core.caller(Some(&peer), Role::Gateway, service.core.local_info().unwrap()).unwrap()
}

/// Asks for the key of the one epoch that there is.
fn lease(service: &KeyService) -> Result<(), ReleaseError> {
    let item = LeaseItem { epoch_id: Id16(EPOCH), record: None };
    let work = service.core.with_release(&gateway(service), "lease", |release| release.lease(vec![item]));
    service.core.settle_blocking(work).unwrap().remove(0).map(drop)
}

fn is_destroyed(result: &Result<(), ReleaseError>, words: &str) -> bool {
    matches!(result, Err(ReleaseError::Destroyed { text }) if text.contains(words))
}

fn request(version: u32) -> VersionRequest {
    VersionRequest { keyset: "default".into(), version }
}

fn sealed_root(service: &KeyService, number: u32) -> Vec<u8> {
    let rows = service.core.store.rows(Kind::Keyset).unwrap();
    let row: crate::keyset::KeysetRow = serde_json::from_slice(&rows[0].body).unwrap();
    row.versions.into_iter().find(|version| version.number == number).unwrap().root.0
}

/// A service with an epoch under version 1, which a gateway was given, and a version 2.
fn rotated(folder: &Path, clock: &Arc<Hands>) -> KeyService {
    made(folder);
    let service = opened(folder, clock);
    enrol_as(&service, "gateway:full").unwrap();
    register(&gateway(&service), &service.core).unwrap();
    lease(&service).unwrap();
    rotate(&service).unwrap();
    service
}

fn cancel(service: &KeyService) -> Result<KeysetInfo, ServiceError> {
    let core = &service.core;
    core.settle_blocking(core.cancel_destruction(&operator_of(service, "admin:second"), &request(1)))
}

fn files_hold(folder: &Path, needle: &[u8]) -> bool {
    let encoded = serde_json::to_string(&Blob(needle.to_vec())).unwrap();
    let encoded = encoded.trim_matches('"').as_bytes();
    ["keyservice.db", "keyservice.db-wal"].iter().any(|name| {
        let bytes = std::fs::read(folder.join("state").join(name)).unwrap_or_default();
        bytes.windows(encoded.len()).any(|window| window == encoded)
    })
}

#[test]
fn a_version_that_is_to_be_destroyed_opens_nothing_at_once_and_as_before_once_that_is_cancelled() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    lease(&service).unwrap();
    for (version, wait_s) in
        [(2, DESTROY_WAIT_S), (3, DESTROY_WAIT_S), (1, DESTROY_WAIT_S_MIN - 1), (1, DESTROY_WAIT_S_MAX + 1)]
    {
        assert!(by_two(&service, destroy(version, wait_s)).is_err(), "{version} {wait_s}");
    }
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    assert!(is_destroyed(&lease(&service), "can cancel that"));
    assert!(by_two(&service, destroy(1, DESTROY_WAIT_S)).is_err(), "once");
    assert!(
        service.notes().iter().any(|note| note.contains("claviger keys shred cancel default --version 1"))
    );
    drop(service);
    let service = opened(folder.path(), &clock);
    assert!(is_destroyed(&lease(&service), "can cancel that"), "also after a restart");
    cancel(&service).unwrap();
    lease(&service).unwrap();
    assert!(service.notes().is_empty() && cancel(&service).is_err());
    clock.pass(30 * DAY_MS);
    service.core.destroy_due().unwrap();
    clock.pass(2 * DAY_MS);
    service.core.destroy_due().unwrap();
    lease(&service).unwrap();
}

#[test]
fn when_its_time_is_over_the_root_is_gone_from_the_database_and_a_certificate_says_what_could_still_open_it()
{
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    let operator = operator_of(&service, "admin:first");
    service.core.settle_blocking(service.core.begin_backup(&operator)).unwrap();
    let plan = ShredPlanRequest { keyset: "default".into(), version: 1, days: 30 };
    let plan = service.core.shred_plan(&operator, &plan).unwrap();
    assert_eq!((plan.epochs.lost, plan.epochs.kept, plan.gateways[0].lost), (1, 0, 1));
    assert_eq!((plan.used[0].identity.as_str(), plan.used[0].releases), ("gateway:full", 1));
    let root = sealed_root(&service, 1);
    assert!(files_hold(folder.path(), &root), "or the test looks for the wrong thing");
    assert!(Core::certificate(&operator, &request(1)).is_err());

    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    service.core.destroy_due().unwrap();
    clock.pass(u64::from(DESTROY_WAIT_S) * 1000 - 1);
    service.core.destroy_due().unwrap();
    assert_eq!(sealed_root(&service, 1), root, "not a moment before");
    clock.pass(1);
    // The backup that nobody read any further still holds the file open.
    while service.core.destroy_due().is_err() {
        clock.pass(60_000);
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(sealed_root(&service, 1).is_empty() && !files_hold(folder.path(), &root));
    assert!(is_destroyed(&lease(&service), "was destroyed"));
    assert!(cancel(&service).is_err());

    let operator = operator_of(&service, "admin:first");
    let answer = Core::certificate(&operator, &request(1)).unwrap();
    let certificate: Certificate = serde_json::from_str(&answer.json).unwrap();
    assert_eq!((certificate.version, certificate.epochs.lost, certificate.backups.begun), (1, 1, 1));
    assert_eq!(certificate.decision.approver.name(), "second");
    assert_eq!((certificate.share_sets.len(), certificate.share_sets[0].threshold), (1, 2));
    assert!(certificate.share_sets[0].set.is_some());
    assert_eq!((certificate.unlock_method.as_str(), certificate.store.as_str()), ("passphrase", "sqlite"));
    let log = std::fs::read_to_string(folder.path().join("state/audit/00000000000000000000.jsonl")).unwrap();
    let told = log.lines().find(|line| line.contains("\"action\":\"destroy\"")).unwrap();
    assert!(told.contains(&answer.sha256) && told.contains(&certificate.request_id));
    assert_eq!(answer.sha256, sha256(&answer.json));
    drop(service);
    let service = opened(folder.path(), &clock);
    assert!(is_destroyed(&lease(&service), "was destroyed"));
    let session = service.core.settle_blocking(service.core.session(&gateway(&service))).unwrap();
    let record = claviger_format::KeysetRecord::parse(&session.keysets[0].record.0).unwrap();
    assert_eq!(record.versions()[0].state, claviger_format::KeyVersionState::Destroyed);
    assert_eq!(record.recipients().collect::<Vec<_>>(), [2]);
}

#[test]
fn a_wall_clock_that_is_set_forward_destroys_nothing_before_a_day_of_notice() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    service.core.destroy_due().unwrap();
    clock.jump(365 * DAY_MS);
    clock.pass(DAY_MS - 1);
    service.core.destroy_due().unwrap();
    assert!(!sealed_root(&service, 1).is_empty());
    drop(service);
    // Another process begins anew: nobody may have seen the notes of the one before.
    let service = opened(folder.path(), &clock);
    service.core.destroy_due().unwrap();
    clock.pass(DAY_MS - 1);
    service.core.destroy_due().unwrap();
    assert!(!sealed_root(&service, 1).is_empty());
    clock.pass(1);
    service.core.destroy_due().unwrap();
    assert!(sealed_root(&service, 1).is_empty());
}

#[test]
fn a_tenant_can_be_forgotten_whole_once_its_keyset_is_retired() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    made(folder.path());
    let service = opened(folder.path(), &clock);
    enrol_as(&service, "gateway:full").unwrap();
    register(&gateway(&service), &service.core).unwrap();
    let retire = claviger_keyapi::admin::RetireRequest { keyset: "default".into() };
    let core = &service.core;
    core.settle_blocking(core.retire_keyset(&operator_of(&service, "admin:first"), &retire)).unwrap();
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    assert!(is_destroyed(&lease(&service), "can cancel that"));
    let session = core.settle_blocking(core.session(&gateway(&service))).unwrap();
    assert!(session.keysets.is_empty(), "there is nothing that it could do in it");
    service.core.destroy_due().unwrap();
    clock.pass(8 * DAY_MS);
    service.core.destroy_due().unwrap();
    drop(service);
    let service = opened(folder.path(), &clock);
    assert!(is_destroyed(&lease(&service), "was destroyed"));
    rotate(&service).unwrap();
    let session = service.core.settle_blocking(service.core.session(&gateway(&service))).unwrap();
    assert_eq!(session.keysets[0].version, 2, "and the name can be used again");
}

#[test]
fn a_decision_that_is_taken_back_and_made_again_has_a_day_of_its_own() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    service.core.destroy_due().unwrap();
    clock.pass(2 * DAY_MS);
    // Between two looks of the service.
    cancel(&service).unwrap();
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    clock.jump(365 * DAY_MS);
    service.core.destroy_due().unwrap();
    assert!(!sealed_root(&service, 1).is_empty());
    clock.pass(DAY_MS);
    service.core.destroy_due().unwrap();
    assert!(sealed_root(&service, 1).is_empty());
}

#[test]
fn an_answer_that_is_on_its_way_while_a_root_is_erased_does_not_bring_it_back() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    let caller = gateway(&service);
    let registry = crate::registry::Registry { core: &service.core, caller: &caller };
    let Ok(epoch) = registry.open(Id16(EPOCH).into(), None) else { panic!("it opens") };
    assert_eq!(Arc::strong_count(&epoch), 2, "here, and among those that are kept");
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    service.core.destroy_due().unwrap();
    clock.pass(8 * DAY_MS);
    service.core.destroy_due().unwrap();
    assert!(sealed_root(&service, 1).is_empty());
    service.core.vault().unwrap().keep_open(&epoch);
    assert_eq!(Arc::strong_count(&epoch), 1);
}

#[test]
fn a_version_counts_with_the_very_shares_that_were_handed_out() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    made(folder.path());
    let service = opened(folder.path(), &clock);
    let (id, lines) = new_shares(&service, 3).unwrap();
    let shares: Vec<Share> = lines.iter().map(|line| Share::parse(line.expose()).unwrap()).collect();
    let ShareOf::Root { keyset_id, version } = shares[0].of else { panic!("of a root") };
    let root = combine(&shares).unwrap();
    // Whoever collected them has the root, and gives it to others than two operators agreed on.
    for threshold in [3, 2] {
        let mut others = split(&root, keyset_id, version, threshold, 3, &*random()).unwrap();
        for own_set in [false, true] {
            if own_set {
                others.iter_mut().for_each(|share| share.set = shares[0].set);
            }
            if own_set && threshold == 2 {
                continue;
            }
            let texts = others.iter().map(|share| SecretText::new(share.to_line().to_string())).collect();
            let refused = confirm(&service, &id, texts).unwrap_err().to_string();
            assert!(
                refused.contains("not the ones that were handed out"),
                "{threshold} {own_set}: {refused}"
            );
        }
    }
    confirm(&service, &id, lines).unwrap();
}

#[test]
fn a_root_that_was_handed_out_and_does_not_come_back_is_forgotten_after_an_hour() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    made(folder.path());
    let service = opened(folder.path(), &clock);
    let (id, lines) = new_shares(&service, 2).unwrap();
    let waiting = || service.core.vault().unwrap().handed_out().len();
    clock.pass(60 * 60 * 1000 - 1);
    service.core.keep_house();
    assert_eq!(waiting(), 1);
    clock.pass(1);
    service.core.keep_house();
    assert_eq!(waiting(), 0);
    assert!(confirm(&service, &id, lines).is_err());
}

#[test]
fn what_one_task_of_the_house_can_not_do_keeps_no_other_from_its_own() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    made(&template);
    let run = |name: &str, step: Option<u32>| {
        let clock = Hands::new();
        let plan = Plan { step, fault: Fault::Lost, crash: false };
        let folder = home.path().join(name);
        let (service, fate) = failing(&template, &folder, plan, Arc::clone(&clock) as Arc<dyn Clock>);
        service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).unwrap();
        let action = Action::Rotate { keyset: "default".into(), shares: 2, threshold: 2 };
        let first = operator_of(&service, "admin:first");
        let request = ProposeRequest { action, ttl_s: Some(1) };
        service.core.settle_blocking(service.core.propose(&first, request)).unwrap();
        let vault = service.core.vault().unwrap();
        vault.freezes.trip(&"gateway:full".parse().unwrap(), "used up".into());
        clock.pass(1_000);
        let before = fate.steps.load(Ordering::Relaxed);
        service.core.keep_house();
        (before, vault.freezes.has_tripped(), vault.proposals().len())
    };
    let (before, still, proposals) = run("whole", None);
    assert_eq!((still, proposals), (false, 0));
    // The freeze is the first that is written.
    let (_, still, proposals) = run("failing", Some(before));
    assert_eq!((still, proposals), (true, 0));
}

/// Whatever step fails, a version is either as it was or gone with a certificate, and what was deleted is scrubbed in the end.
#[test]
fn wherever_a_step_of_the_destruction_fails_the_next_process_finishes_it() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    let clock = Hands::new();
    let service = rotated(&template, &clock);
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    let root = sealed_root(&service, 1);
    drop(service);
    let run = |name: &str, plan: Plan| {
        let folder = home.path().join(name);
        let late = Hands::new();
        late.jump(8 * DAY_MS);
        let (service, fate) = failing(&template, &folder, plan, Arc::clone(&late) as Arc<dyn Clock>);
        if service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).is_ok() {
            drop(service.core.destroy_due());
            late.pass(DAY_MS);
            drop(service.core.destroy_due());
        }
        drop(service);
        let service = opened(&folder, &late);
        service.core.destroy_due().unwrap();
        late.pass(DAY_MS);
        service.core.destroy_due().unwrap();
        let operator = operator_of(&service, "admin:first");
        assert!(sealed_root(&service, 1).is_empty() && !files_hold(&folder, &root), "{plan:?}");
        assert!(Core::certificate(&operator, &request(1)).is_ok(), "{plan:?}");
        drop(service);
        std::fs::remove_dir_all(&folder).unwrap();
        fate.steps.load(Ordering::Relaxed)
    };
    let steps = run("whole", Plan { step: None, fault: Fault::Lost, crash: false });
    assert!(steps >= 6, "{steps}");
    for step in 0..steps {
        for fault in [Fault::Lost, Fault::Kept] {
            for crash in [true, false] {
                run(&format!("{step}-{fault:?}-{crash}"), Plan { step: Some(step), fault, crash });
            }
        }
    }
}

#[test]
fn the_plan_names_gateways_that_may_not_have_heard_that_the_version_is_retired() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    made(folder.path());
    let service = opened(folder.path(), &clock);
    let session = |service: &KeyService, name: &str| {
        let caller = gateway_named(service, name);
        service.core.settle_blocking(service.core.session(&caller)).unwrap();
    };
    for name in ["gateway:full", "gateway:second", "gateway:narrow", "gateway:writer"] {
        enrol_as(&service, name).unwrap();
    }
    let before_ms = service.core.clock.now_ms();
    session(&service, "gateway:full");
    session(&service, "gateway:second");
    let operator = operator_of(&service, "admin:first");
    let unheard = |service: &KeyService, version| {
        let plan = ShredPlanRequest { keyset: "default".into(), version, days: 30 };
        service.core.shred_plan(&operator, &plan).unwrap().unheard
    };
    assert_eq!(unheard(&service, 1), [], "as long as it is in use everybody may seal to it");
    clock.pass(1_000);
    rotate(&service).unwrap();
    session(&service, "gateway:full");
    service.core.settle_blocking(service.core.revoke(&operator, &"gateway:writer".parse().unwrap())).unwrap();
    let mut told = unheard(&service, 1);
    told.sort_by_key(|gateway| gateway.identity.to_string());
    let told: Vec<_> = told.iter().map(|gateway| (gateway.identity.to_string(), gateway.last_ms)).collect();
    let expected = [("gateway:narrow".to_owned(), None), ("gateway:second".to_owned(), Some(before_ms))];
    assert_eq!(told, expected);
}
