//! Every step of handing out a key fails once, in every way that it can.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use claviger_env::SystemClock;
use claviger_format::{EpochId, Layout, Metadata, Salt};
use claviger_keyapi::proposals::{Action, ProposeRequest};
use claviger_keyapi::routes::BindRequest;
use claviger_keyapi::{Id16, Role};

use super::*;
use crate::KeyService;
use crate::files::read_secret;
use crate::identity::Peer;
use crate::ledger::tests::{EPOCH, Fault, Plan, failing, folder_in_memory, register};
use crate::service::tests::{config_in, enrol_as, made, operator_of};
use crate::testing::random;

fn open(folder: &Path) -> KeyService {
    let clock: Arc<dyn claviger_env::Clock> = Arc::new(SystemClock);
    let service = KeyService::open(config_in(folder), clock, random()).unwrap();
    service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).unwrap();
    service
}

/// An object `photos/k` of a service that is made in `folder`: its header, and its key.
fn prepare(folder: &Path) -> (EnvelopeHeader, Dek) {
    made(folder);
    let service = open(folder);
    let core = &service.core;
    enrol_as(&service, "gateway:full").unwrap();
    let vault = core.vault().unwrap();
    let row = vault.active(&"gateway:full".parse().unwrap()).unwrap();
    let peer = Peer { identity: row.identity.clone(), spki: row.spki, not_after_ms: u64::MAX };
    let gateway = core.caller(Some(&peer), Role::Gateway, core.local_info().unwrap()).unwrap();
    let request = BindRequest { bucket: "photos".into(), keyset: None };
    let binding = core.settle_blocking(core.bind(&gateway, &request)).unwrap();
    register(&gateway, core).unwrap();
    let epoch_id = EpochId::from(Id16(EPOCH));
    let Ok(epoch) = (RegisteredEpochs { core, vault: &vault }).open(epoch_id) else { panic!("no epoch") };
    let object_id = ObjectId::draw(&*random()).unwrap();
    let dek = epoch.wek.dek(epoch_id, object_id);
    let Ok(name) = checked_name(&binding.bucket_id, "k") else { panic!("no name") };
    let layout = Layout::Single { salt: Salt::draw(&*random()).unwrap(), length: 5 };
    let text =
        envelope::seal(&dek, epoch_id, object_id, &name, &layout, &Metadata::default(), 1418, &*random());
    let header = envelope::Envelope::parse(&text.unwrap()).unwrap().header_bytes();
    (EnvelopeHeader::new(&header), dek)
}

/// What the proposer got.
fn hand_out(service: &KeyService, header: &EnvelopeHeader) -> Result<ObjectKey, ServiceError> {
    let core = &service.core;
    let (first, second) = (operator_of(service, "admin:first"), operator_of(service, "admin:second"));
    let action = Action::Disclose {
        bucket: "photos".into(),
        key: "k".into(),
        header: header.clone(),
        version: None,
        reason: "a test".into(),
    };
    let proposal = core.settle_blocking(core.propose(&first, ProposeRequest { action, ttl_s: None }))?;
    core.settle_blocking(core.approve(&second, &proposal.id))?;
    match core.settle_blocking(core.collect(&first, &proposal.id))? {
        Collected::ObjectKey(key) => Ok(key),
        other => panic!("{other:?}"),
    }
}

#[test]
fn wherever_a_step_fails_no_key_is_out_that_the_log_does_not_tell_of() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    let (header, dek) = prepare(&template);
    let run = |name: &str, plan: Plan| {
        let folder = home.path().join(name);
        let (service, fate) = failing(&template, &folder, plan, Arc::new(SystemClock));
        let unlocked = service.unlock(&read_secret(&folder.join("passphrase")).unwrap());
        let got = unlocked.and_then(|()| hand_out(&service, &header));
        let log = std::fs::read_to_string(folder.join("state/audit/00000000000000000000.jsonl")).unwrap();
        let is_told = log.lines().any(|line| {
            line.ends_with('}') && line.contains("\"action\":\"disclose\",\"outcome\":\"released\"")
        });
        if let Ok(key) = &got {
            assert!(is_told, "{plan:?}: a key is out without a record");
            assert_eq!(key.dek.expose(), dek.expose());
        }
        drop(service);
        // The next process agrees with both: what was handed out can't be collected again.
        let stands = !open(&folder).core.vault().unwrap().proposals().is_empty();
        assert!(!(stands && is_told), "{plan:?}: it is written down and stands");
        std::fs::remove_dir_all(&folder).unwrap();
        (fate.steps.load(Ordering::Relaxed), got.is_ok(), is_told)
    };
    let (steps, is_out, _) = run("whole", Plan { step: None, fault: Fault::Lost, crash: false });
    assert!(is_out && steps > 8, "{steps}");
    let (mut kept_back, mut lost_on_the_way) = (0u32, 0u32);
    for step in 0..steps {
        for fault in [Fault::Lost, Fault::Kept, Fault::Torn] {
            for crash in [true, false] {
                let plan = Plan { step: Some(step), fault, crash };
                let (_, is_out, is_told) = run(&format!("{step}-{fault:?}-{crash}"), plan);
                kept_back += u32::from(!is_out && !is_told);
                lost_on_the_way += u32::from(!is_out && is_told);
            }
        }
    }
    assert!(kept_back > steps && lost_on_the_way > 0, "the faults were felt: {kept_back} {lost_on_the_way}");
}
