//! Re-sealing, and that what was sealed anew outlives the version that it was sealed to first.

use super::*;

fn reseal(service: &KeyService) -> Result<claviger_keyapi::lifecycle::ResealAnswer, ServiceError> {
    let request =
        claviger_keyapi::lifecycle::ResealRequest { keyset: "default".into(), version: 1, after: None };
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
