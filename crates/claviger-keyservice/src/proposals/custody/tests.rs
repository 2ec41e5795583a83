//! Every step of a change of the unlock method fails once, in every way that it can.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use claviger_env::SystemClock;
use claviger_keyapi::proposals::{Collected, ConfirmRequest, ProposeRequest};

use super::*;
use crate::KeyService;
use crate::files::read_secret;
use crate::ledger::tests::{Fault, Plan, failing, folder_in_memory};
use crate::service::tests::{config_in, made, operator_of};
use crate::testing::random;

/// From one passphrase to another; the new one, if it was handed out, and whether the change was acknowledged.
fn change(service: &KeyService) -> (Option<SecretText>, bool) {
    let core = &service.core;
    let (first, second) = (operator_of(service, "admin:first"), operator_of(service, "admin:second"));
    let action = Action::ChangeUnlock { to: UnlockTo::Passphrase };
    let handed_out = || {
        let proposal = core.settle_blocking(core.propose(&first, ProposeRequest { action, ttl_s: None }))?;
        core.settle_blocking(core.approve(&second, &proposal.id))?;
        Ok((core.settle_blocking(core.collect(&first, &proposal.id))?, proposal.id))
    };
    let handed_out: Result<_, ServiceError> = handed_out();
    let Ok((Collected::UnlockSecrets(mut new), id)) = handed_out else { return (None, false) };
    let text = new.secrets.remove(0);
    let again = SecretText::new(text.expose().to_owned());
    let request = ConfirmRequest { id, secrets: vec![text] };
    let done = core.settle_blocking(core.confirm(&first, &request)).is_ok();
    (Some(again), done)
}

/// Whether this passphrase unlocks what is left, in the next process. A change that a crash cut short may be completed by the first
/// attempt, which says so.
fn unlocks(folder: &Path, text: &str) -> bool {
    let clock: Arc<dyn claviger_env::Clock> = Arc::new(SystemClock);
    let service = KeyService::open(config_in(folder), clock, random()).unwrap();
    service.unlock(text).is_ok()
}

fn check(folder: &Path, old: &str, new: Option<&SecretText>, done: bool, plan: Plan) -> bool {
    let old_does = unlocks(folder, old);
    let new_does = new.is_some_and(|new| unlocks(folder, new.expose()));
    assert!(old_does != new_does, "{plan:?}: exactly one: old {old_does}, new {new_does}");
    assert!(new_does || !done, "{plan:?}: it was acknowledged and does not count");
    let again = if new_does { unlocks(folder, old) } else { false };
    assert!(!again, "{plan:?}: both count");
    new_does
}

#[test]
fn wherever_a_step_fails_exactly_one_secret_unlocks_and_the_new_one_if_it_was_acknowledged() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    made(&template);
    let old = read_secret(&template.join("passphrase")).unwrap();
    let run = |name: &str, plan: Plan| {
        let folder = home.path().join(name);
        let (service, fate) = failing(&template, &folder, plan, Arc::new(SystemClock));
        let (new, done) = if service.unlock(&old).is_ok() { change(&service) } else { (None, false) };
        drop(service);
        let counts = check(&folder, &old, new.as_ref(), done, plan);
        std::fs::remove_dir_all(&folder).unwrap();
        (fate.steps.load(Ordering::Relaxed), counts, done)
    };
    let (steps, counts, done) = run("whole", Plan { step: None, fault: Fault::Lost, crash: false });
    assert!(counts && done && steps > 12, "{steps}");
    let mut outcomes = [0u32; 2];
    for step in 0..steps {
        for fault in [Fault::Lost, Fault::Kept] {
            for crash in [true, false] {
                let plan = Plan { step: Some(step), fault, crash };
                let (_, counts, _) = run(&format!("{step}-{fault:?}-{crash}"), plan);
                outcomes[usize::from(counts)] += 1;
            }
        }
    }
    assert!(outcomes.iter().all(|count| *count > 4), "faults before and after it counted: {outcomes:?}");
}
