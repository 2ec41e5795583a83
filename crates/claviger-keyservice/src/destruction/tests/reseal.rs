//! Re-sealing, and that what was sealed anew outlives the version that it was sealed to first.

use claviger_keyapi::lifecycle::{ResealAnswer, ResealRequest};
use claviger_keyapi::proposals::PROPOSAL_TTL_S;

use super::*;

fn reseal(service: &KeyService) -> Result<ResealAnswer, ServiceError> {
    reseal_after(service, None)
}

fn reseal_after(service: &KeyService, after: Option<Id16>) -> Result<ResealAnswer, ServiceError> {
    let request = ResealRequest { keyset: "default".into(), version: 1, after };
    let core = &service.core;
    core.settle_blocking(core.reseal(&operator_of(service, "admin:first"), &request))
}

fn permit_reseal(version: u32) -> Action {
    Action::Reseal { keyset: "default".into(), version }
}

#[test]
fn what_two_operators_let_be_sealed_to_a_newer_version_as_well_outlives_the_older_one() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    assert!(reseal(&service).is_err(), "not without permission");
    assert!(by_two(&service, permit_reseal(2)).is_err(), "not of the version that is sealed to");
    by_two(&service, permit_reseal(1)).unwrap();
    let done = reseal(&service).unwrap();
    assert_eq!((done.seen, done.resealed, done.after), (1, 1, None));
    assert!(reseal(&service).is_err(), "the permission ended with it");
    by_two(&service, permit_reseal(1)).unwrap();
    assert_eq!(reseal(&service).unwrap().resealed, 0, "nothing is sealed twice");
    let operator = operator_of(&service, "admin:first");
    let plan = ShredPlanRequest { keyset: "default".into(), version: 1, days: 30 };
    let plan = service.core.shred_plan(&operator, &plan).unwrap();
    assert_eq!((plan.epochs.lost, plan.epochs.kept), (0, 1));
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    lease(&service).unwrap();
    assert!(
        by_two(&service, permit_reseal(1)).is_err(),
        "a version that opens nothing opens nothing for this either"
    );
    service.core.destroy_due().unwrap();
    clock.pass(8 * DAY_MS);
    service.core.destroy_due().unwrap();
    lease(&service).unwrap();
    drop(service);
    let service = opened(folder.path(), &clock);
    assert!(sealed_root(&service, 1).is_empty());
    lease(&service).unwrap();
}

#[test]
fn one_operator_does_not_end_a_re_sealing_that_has_seen_no_epoch() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    by_two(&service, permit_reseal(1)).unwrap();
    for after in [Id16([0xff; 16]), Id16(EPOCH), Id16([0; 16])] {
        assert!(reseal_after(&service, Some(after)).is_err(), "{after}");
    }
    assert_eq!(reseal(&service).unwrap().resealed, 1);
}

#[test]
fn a_permission_to_re_seal_ends_like_a_proposal() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    by_two(&service, permit_reseal(1)).unwrap();
    clock.pass(u64::from(PROPOSAL_TTL_S) * 1000);
    assert!(reseal(&service).is_err(), "with its time");

    by_two(&service, permit_reseal(1)).unwrap();
    by_two(&service, destroy(1, DESTROY_WAIT_S)).unwrap();
    cancel(&service).unwrap();
    assert!(reseal(&service).is_err(), "with the decision to destroy the version");

    by_two(&service, permit_reseal(1)).unwrap();
    let (core, first) = (&service.core, operator_of(&service, "admin:first"));
    core.settle_blocking(core.revoke(&first, &"admin:second".parse().unwrap())).unwrap();
    assert!(reseal(&service).is_err(), "with the office of who approved it");
}

#[test]
fn an_older_row_of_an_epoch_that_is_put_back_under_the_running_service_does_not_get_into_the_sum() {
    let folder = folder_in_memory();
    let clock = Hands::new();
    let service = rotated(folder.path(), &clock);
    let row = || service.core.store.epoch(&EPOCH).unwrap().unwrap();
    let older = row();
    by_two(&service, permit_reseal(1)).unwrap();
    assert_eq!(reseal(&service).unwrap().resealed, 1);
    let newest = row();
    let put = |row: &EpochRow| {
        let database = rusqlite::Connection::open(folder.path().join("state/keyservice.db")).unwrap();
        let put = "UPDATE epoch SET record = ?1, mac = ?2 WHERE epoch_id = ?3";
        assert_eq!(database.execute(put, (&row.record, &row.mac, &EPOCH)).unwrap(), 1);
    };
    put(&older);
    by_two(&service, permit_reseal(1)).unwrap();
    let refused = reseal(&service).unwrap_err();
    assert!(matches!(refused, ServiceError::Tampered { kind: "epoch", .. }), "{refused}");
    put(&newest);
    assert_eq!(reseal(&service).unwrap().resealed, 0);
    drop(service);
    lease(&opened(folder.path(), &clock)).unwrap();
}

#[test]
fn wherever_a_step_of_re_sealing_fails_everything_opens_and_it_can_be_finished() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    let clock = Hands::new();
    let service = rotated(&template, &clock);
    by_two(&service, permit_reseal(1)).unwrap();
    drop(service);
    let run = |name: &str, plan: Plan| {
        let folder = home.path().join(name);
        let (service, fate) = failing(&template, &folder, plan, Arc::clone(&clock) as Arc<dyn Clock>);
        let unlocked = service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).is_ok();
        let done = unlocked && reseal(&service).is_ok();
        drop(service);
        let service = opened(&folder, &clock);
        lease(&service).unwrap();
        // Refused if the step before counted after all: then the permission ended with it.
        assert!(reseal(&service).is_ok() != done || !done, "{plan:?}: what was acknowledged is done");
        let operator = operator_of(&service, "admin:first");
        let request = ShredPlanRequest { keyset: "default".into(), version: 1, days: 30 };
        assert_eq!(service.core.shred_plan(&operator, &request).unwrap().epochs.kept, 1, "{plan:?}");
        drop(service);
        std::fs::remove_dir_all(&folder).unwrap();
        fate.steps.load(Ordering::Relaxed)
    };
    let steps = run("whole", Plan { step: None, fault: Fault::Lost, crash: false });
    assert!(steps >= 4, "{steps}");
    for step in 0..steps {
        for fault in [Fault::Lost, Fault::Kept] {
            for crash in [true, false] {
                run(&format!("{step}-{fault:?}-{crash}"), Plan { step: Some(step), fault, crash });
            }
        }
    }
}
