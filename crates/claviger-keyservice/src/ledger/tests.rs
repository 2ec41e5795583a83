//! Every step of every change fails once, in every way that it can.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use claviger_env::SystemClock;
use claviger_format::{EpochHeader, EpochId, EpochRecord, SealTo, Wek};
use claviger_keyapi::proposals::{FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::BindRequest;
use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::{Id16, Role};

use super::commit::takes_away;
use super::log::newest_state;
use super::stored_mark;
use crate::audit_log::{AuditLog, AuditSink};
use crate::audit_record::Outcome;
use crate::files::read_secret;
use crate::identity::Peer;
use crate::log_key::LogKey;
use crate::policy::Policy;
use crate::registry::Registry;
use crate::service::tests::{POLICY, config_in, enrol_as, made, operator_of};
use crate::service::{Caller, Log};
use crate::store::snapshot::{Item, Snapshot};
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, EpochMark, EpochPage, EpochRow, FinishedRow, Kind, Row, Store};
use crate::testing::random;
use crate::vault::IdentityRow;
use crate::{KeyService, ServiceError};

/// How a step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing of it is kept.
    Lost,
    /// All of it is kept, and nobody is told.
    Kept,
    /// The beginning of it is kept; only files do that.
    Torn,
    /// The disk of a file is full; what was begun can be taken back.
    Full,
    /// The same, and the step after it is lost too.
    FullThenLost,
}

/// Which step fails, and how. `None`: none does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) step: Option<u32>,
    pub(crate) fault: Fault,
    /// Whether the process dies there, or goes on.
    pub(crate) crash: bool,
}

/// Counts steps and says what happens to each.
#[derive(Debug)]
pub(crate) struct Fate {
    plan: Plan,
    pub(crate) steps: AtomicU32,
    /// Steps that write a file, which a crash can leave half written.
    writes: Mutex<Vec<u32>>,
    dead: Mutex<bool>,
}

impl Fate {
    fn next(&self) -> Result<Option<Fault>, ()> {
        let mut dead = self.dead.lock().unwrap();
        if *dead {
            return Err(());
        }
        let step = self.steps.fetch_add(1, Ordering::Relaxed);
        if self.plan.fault == Fault::FullThenLost && self.plan.step.map(|step| step + 1) == Some(step) {
            return Ok(Some(Fault::Lost));
        }
        if self.plan.step != Some(step) {
            return Ok(None);
        }
        *dead = self.plan.crash;
        Ok(Some(self.plan.fault))
    }
}

struct FailingStore(SqliteStore, Arc<Fate>);

fn failed() -> ServiceError {
    ServiceError::Store(rusqlite::Error::InvalidQuery)
}

impl Store for FailingStore {
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        self.0.meta(name)
    }
    fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), ServiceError> {
        match self.1.next().map_err(|()| failed())? {
            None => self.0.set_meta(name, value),
            Some(Fault::Kept) => self.0.set_meta(name, value).and(Err(failed())),
            Some(_) => Err(failed()),
        }
    }
    fn rows(&self, kind: Kind) -> Result<Vec<Row>, ServiceError> {
        self.0.rows(kind)
    }
    fn apply(&self, changes: &[Change]) -> Result<(), ServiceError> {
        match self.1.next().map_err(|()| failed())? {
            None => self.0.apply(changes),
            Some(Fault::Kept) => self.0.apply(changes).and(Err(failed())),
            Some(_) => Err(failed()),
        }
    }
    fn epoch(&self, epoch_id: &[u8; 16]) -> Result<Option<EpochRow>, ServiceError> {
        self.0.epoch(epoch_id)
    }
    fn epoch_marks(&self, after: Option<[u8; 16]>, limit: u32) -> Result<Vec<EpochMark>, ServiceError> {
        self.0.epoch_marks(after, limit)
    }
    fn epochs(&self, page: EpochPage) -> Result<Vec<EpochRow>, ServiceError> {
        self.0.epochs(page)
    }
    fn epoch_count(&self) -> Result<u64, ServiceError> {
        self.0.epoch_count()
    }
    fn finish_upload(&self, object_id: &[u8; 16], row: &FinishedRow) -> Result<(), ServiceError> {
        self.0.finish_upload(object_id, row)
    }
    fn finished_upload(&self, object_id: &[u8; 16]) -> Result<Option<FinishedRow>, ServiceError> {
        self.0.finished_upload(object_id)
    }
    fn snapshot(&self) -> Result<Snapshot, ServiceError> {
        self.0.snapshot()
    }
    fn fill(&self, items: &[Item]) -> Result<(), ServiceError> {
        self.0.fill(items)
    }
    fn scrub(&self) -> Result<(), ServiceError> {
        match self.1.next().map_err(|()| failed())? {
            None => self.0.scrub(),
            Some(_) => Err(failed()),
        }
    }
    fn check_ours(&self) -> Result<(), ServiceError> {
        self.0.check_ours()
    }
    fn problem(&self) -> Option<String> {
        self.0.problem()
    }
}

struct FailingSink(PathBuf, Arc<Fate>);

impl AuditSink for FailingSink {
    fn append(&mut self, _first_index: u64, lines: &[u8]) -> io::Result<()> {
        self.1.writes.lock().unwrap().push(self.1.steps.load(Ordering::Relaxed));
        let fate = self.1.next().map_err(|()| io::Error::other("dead"))?;
        let kept = match fate {
            None | Some(Fault::Kept) => lines,
            Some(Fault::Full | Fault::FullThenLost) => return Err(io::ErrorKind::StorageFull.into()),
            Some(Fault::Lost) => &[],
            Some(Fault::Torn) => &lines[..lines.len() / 2],
        };
        OpenOptions::new().append(true).open(&self.0)?.write_all(kept)?;
        if fate.is_some() { Err(io::Error::other("I/O error")) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// Nothing was begun.
    fn take_back(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a script did, and whether it was told that it is done.
type Done = Vec<(&'static str, bool)>;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    let mode = std::fs::metadata(from).unwrap().permissions();
    std::fs::set_permissions(to, mode).unwrap();
}

/// Syncing costs nothing there, and the test syncs a thousand times.
pub(crate) fn folder_in_memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// A locked service over a copy of `template` in which one step fails.
pub(crate) fn failing(
    template: &Path,
    folder: &Path,
    plan: Plan,
    clock: Arc<dyn claviger_env::Clock>,
) -> (KeyService, Arc<Fate>) {
    copy(template, folder);
    let config = config_in(folder);
    let fate =
        Arc::new(Fate { plan, steps: AtomicU32::new(0), writes: Mutex::default(), dead: Mutex::new(false) });
    let store = SqliteStore::open(&config.state_dir.join(crate::store::location::DATABASE_FILE)).unwrap();
    let store = Arc::new(FailingStore(store, Arc::clone(&fate)));
    let audit = config.state_dir.join("audit");
    let sink = FailingSink(audit.join("00000000000000000000.jsonl"), Arc::clone(&fate));
    let newest = newest_state(&audit).unwrap();
    let audit = AuditLog::with_sink(Box::new(sink), Some(&audit), random(), clock.clone()).unwrap();
    let policy = Policy::parse_text(POLICY).unwrap();
    let log = Log { audit, newest };
    (KeyService::assemble(config, clock, random(), store, log, policy, None).unwrap(), fate)
}

/// Runs the script over it.
fn run(template: &Path, folder: &Path, plan: Plan) -> (Done, Arc<Fate>) {
    let (service, fate) = failing(template, folder, plan, Arc::new(SystemClock));
    let mut done = Vec::new();
    if service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).is_ok() {
        script(&service, &mut done);
    }
    (done, fate)
}

fn script(service: &KeyService, done: &mut Done) {
    let core = &service.core;
    let vault = core.vault().unwrap();
    done.push(("enrol", enrol_as(service, "gateway:full").is_ok()));
    let Some(row) = vault.active(&"gateway:full".parse().unwrap()) else { return };
    let peer = Peer { identity: row.identity.clone(), spki: row.spki, not_after_ms: u64::MAX };
    let gateway = core.caller(Some(&peer), Role::Gateway, core.local_info().unwrap()).unwrap();
    let bind = |bucket: &str| {
        let request = BindRequest { bucket: bucket.into(), keyset: None };
        core.settle_blocking(core.bind(&gateway, &request))
    };
    done.push(("bind one", bind("one").is_ok()));
    done.push(("bind two", bind("two").is_ok()));
    if let Some(two) = vault.bindings.get("two") {
        let unbound = core.settle_blocking(core.unbind(&gateway, "two", &two.bucket_id));
        done.push(("unbind two", unbound.is_ok()));
    }
    done.push(("register", register(&gateway, core).is_ok()));
    let operator = operator_of(service, "admin:first");
    let revoked = core.settle_blocking(core.revoke(&operator, &row.identity));
    done.push(("revoke", revoked.is_ok()));
}

pub(crate) const EPOCH: [u8; 16] = [7; 16];

/// Seals an epoch as this gateway and registers it.
pub(crate) fn register(gateway: &Caller, core: &crate::service::Core) -> Result<(), ServiceError> {
    let keyset = gateway.vault.keyset("default").unwrap();
    let version = keyset.newest().unwrap();
    let wek = Wek::generate(&*random(), &[0; 32]).unwrap();
    let sealer_id = gateway.row.uid.into();
    let header = EpochHeader {
        created_ms: 1,
        epoch_id: EpochId::from(claviger_keyapi::Id16(EPOCH)),
        gateway_id: sealer_id,
        keyset_id: keyset.id,
    };
    let psk = version.root().unwrap().psk(sealer_id);
    let to = SealTo { version: version.number, public_key: &version.public_key, sealer_id, psk: &psk };
    let record = EpochRecord::seal(&header, &wek, &to, &*random()).unwrap().to_bytes();
    let registry = Registry { core, caller: gateway };
    match registry.open(header.epoch_id, Some(&record)) {
        Ok(_) => Ok(()),
        Err(crate::registry::OpenError::Failed(error)) => Err(error),
        Err(crate::registry::OpenError::Refused(refusal)) => panic!("{refusal}"),
    }
}

/// Opens what is left as the next process would, and compares database, log and what the script was told.
fn check(folder: &Path, done: &Done, plan: Plan) {
    let config = config_in(folder);
    let clock: Arc<dyn claviger_env::Clock> = Arc::new(SystemClock);
    let service = KeyService::open(config.clone(), clock, random()).unwrap();
    service
        .unlock(&read_secret(&folder.join("passphrase")).unwrap())
        .unwrap_or_else(|e| panic!("{plan:?}: {e}"));
    let vault = service.core.vault().unwrap();
    let log = std::fs::read_to_string(config.state_dir.join("audit/00000000000000000000.jsonl")).unwrap();
    let written = |texts: &[&str]| {
        log.lines()
            .any(|line| line.contains("\"outcome\":\"done\"") && texts.iter().all(|text| line.contains(text)))
    };
    let enrolled = vault.identities().into_iter().find(|row| row.identity.role() == Role::Gateway);
    let revoked = enrolled.as_ref().is_some_and(|row| row.revoked_ms.is_some());
    let epoch = service.core.store.epoch(&EPOCH).unwrap().is_some();
    let unbound = written(&["\"unbind\"", "two"]);
    let facts = [
        ("enrol", enrolled.is_some(), written(&["\"enrol\"", "gateway:full"])),
        ("bind one", vault.bindings.get("one").is_some(), written(&["\"bind\"", "\"one\""])),
        ("bind two", vault.bindings.get("two").is_some() || unbound, written(&["\"bind\"", "\"two\""])),
        ("unbind two", unbound && vault.bindings.get("two").is_none(), unbound),
        ("register", epoch, written(&["\"register-epoch\""])),
        ("revoke", revoked, written(&["\"revoke\"", "gateway:full"])),
    ];
    for (what, is, is_written) in facts {
        assert_eq!(is, is_written, "{plan:?}: {what} is in force or it is not in the log");
        let told = done.iter().any(|(act, told)| *act == what && *told);
        assert!(is || !told, "{plan:?}: {what} was acknowledged and is gone");
    }
    assert!(service.core.store.rows(Kind::Pending).unwrap().is_empty(), "{plan:?}");
}

#[test]
fn wherever_a_step_fails_what_was_acknowledged_is_there_and_what_is_there_was_written_down() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    made(&template);
    let folder = home.path().join("whole");
    let (done, fate) = run(&template, &folder, Plan { step: None, fault: Fault::Lost, crash: false });
    assert!(done.len() == 6 && done.iter().all(|(_, told)| *told), "{done:?}");
    let (steps, writes) = (fate.steps.load(Ordering::Relaxed), fate.writes.lock().unwrap().clone());
    assert!(steps > 20 && writes.len() > 6, "{steps} {writes:?}");
    let whole = Plan { step: None, fault: Fault::Lost, crash: false };
    check(&folder, &done, whole);
    let mut failures = 0u32;
    for step in 0..steps {
        for fault in [Fault::Lost, Fault::Kept, Fault::Torn, Fault::Full, Fault::FullThenLost] {
            let is_of_files = !matches!(fault, Fault::Lost | Fault::Kept);
            if is_of_files && !writes.contains(&step) {
                // A transaction is there or it is not.
                continue;
            }
            for crash in [true, false] {
                let plan = Plan { step: Some(step), fault, crash };
                let folder = home.path().join(format!("{step}-{fault:?}-{crash}"));
                let (done, _) = run(&template, &folder, plan);
                failures += u32::from(done.len() < 6 || done.iter().any(|(_, told)| !told));
                check(&folder, &done, plan);
                std::fs::remove_dir_all(&folder).unwrap();
            }
        }
    }
    assert!(failures > steps * 2, "the faults were felt: {failures}");
}

#[test]
fn a_change_that_the_database_did_not_take_counts_and_is_made_before_the_next() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    made(&template);
    // Unlock writes one record; a proposal is a pending row, a record, a transaction: the last of these fails.
    let folder = home.path().join("run");
    let plan = Plan { step: Some(3), fault: Fault::Lost, crash: false };
    let (done, _) = run(&template, &folder, plan);
    assert!(done.iter().all(|(_, told)| *told), "{done:?}");
    check(&folder, &done, plan);
}

/// A service whose first change finds no room, the freeze of everything; and why it was refused.
fn refused_for_want_of_room(template: &Path, folder: &Path, fault: Fault) -> (KeyService, ServiceError) {
    let plan = Plan { step: Some(2), fault, crash: false };
    let (service, _) = failing(template, folder, plan, Arc::new(SystemClock));
    service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).unwrap();
    let everything = FreezeRequest { target: FreezeTarget::Everything, reason: "x".into() };
    let refused = service.core.freeze(&operator_of(&service, "admin:first"), everything).result.unwrap_err();
    (service, refused)
}

#[test]
fn a_change_that_was_refused_for_want_of_room_is_completed_by_nobody() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    made(&template);
    // The record of the first change finds no room; then the database does not take the deletion of the pending row either.
    for fault in [Fault::Full, Fault::FullThenLost] {
        let folder = home.path().join(format!("{fault:?}"));
        let (service, refused) = refused_for_want_of_room(&template, &folder, fault);
        let core = &service.core;
        let is_pending = || !core.store.rows(Kind::Pending).unwrap().is_empty();
        match fault {
            Fault::Full => assert!(matches!(refused, ServiceError::Audit(_)), "{refused}"),
            _ => assert!(matches!(refused, ServiceError::Store(_)), "perhaps: {refused}"),
        }
        assert_eq!(is_pending(), fault == Fault::FullThenLost);
        let (vault, before) = (core.vault().unwrap(), core.vault().unwrap().mark());
        core.mend().unwrap();
        assert!(!is_pending(), "{fault:?}");
        assert!(vault.freezes.all().is_empty());
        assert_eq!(vault.mark(), before, "of one's own changes the log decides");
        // Where others can take over, there is another state as soon as there is room: the state row of before is an older one.
        let mut other = vault.logs().pop().unwrap();
        other.log_id = Id16([9; 16]);
        vault.put_log(other);
        core.mend().unwrap();
        assert_eq!(vault.mark().seq, before.seq + 1, "{fault:?}");
        assert!(core.audit.tail(1).unwrap()[0].contains("\"action\":\"dropped\""));
        assert_eq!(stored_mark(&vault.master, &*core.store).unwrap(), Some(vault.mark()));
        core.mend().unwrap();
        assert_eq!(vault.mark().seq, before.seq + 1, "once");
    }
}

#[test]
fn after_a_restart_another_state_still_follows_a_change_that_was_refused_for_want_of_room() {
    let home = folder_in_memory();
    let template = home.path().join("template");
    std::fs::create_dir(&template).unwrap();
    made(&template);
    // Taken back at once; or the database does not take that either before the process ends.
    for fault in [Fault::Full, Fault::FullThenLost] {
        let folder = home.path().join(format!("{fault:?}"));
        drop(refused_for_want_of_room(&template, &folder, fault));

        let service = unlocked(&folder).unwrap();
        let (core, vault) = (&service.core, service.core.vault().unwrap());
        let before = vault.mark();
        assert!(vault.freezes.all().is_empty() && core.store.rows(Kind::Pending).unwrap().is_empty());
        let mut other = vault.logs().pop().unwrap();
        other.log_id = Id16([9; 16]);
        vault.put_log(other);
        core.mend().unwrap();
        assert_eq!(vault.mark().seq, before.seq + 1, "{fault:?}");
        assert!(core.audit.tail(1).unwrap()[0].contains("\"action\":\"dropped\""));
        core.mend().unwrap();
        assert_eq!(vault.mark().seq, before.seq + 1, "once");
        drop((vault, service));
        let service = unlocked(&folder).unwrap();
        assert!(!service.core.vault().unwrap().was_refused(), "nor after the next one");
    }
}

fn unlocked(folder: &Path) -> Result<KeyService, ServiceError> {
    let clock: Arc<dyn claviger_env::Clock> = Arc::new(SystemClock);
    let service = KeyService::open(config_in(folder), clock, random())?;
    service.unlock(&read_secret(&folder.join("passphrase"))?)?;
    Ok(service)
}

#[test]
fn the_end_of_a_log_from_before_there_were_seals_is_taken_as_it_is_and_only_once() {
    let home = folder_in_memory();
    made(home.path());
    let service = unlocked(home.path()).unwrap();
    let (core, vault) = (&service.core, service.core.vault().unwrap());
    let log = LogKey::open_or_make(&vault.master, &*core.store, core.log_id(), &*random()).unwrap();
    let record = core.local_info().unwrap().record("test", Outcome::Done);
    core.commit(&core.change(&vault).unwrap(), vec![log.unsealed(&vault.master)], &[record]).unwrap();
    let mark = vault.mark();
    drop((log, vault));
    drop(service);
    // What it wrote in the last second before a crash.
    let file = home.path().join("state/audit/00000000000000000000.jsonl");
    let add = |record: &str| {
        let index = std::fs::read_to_string(&file).unwrap().lines().count();
        let line = format!("{{\"index\":{index},\"salt\":\"{index:032x}\",\"record\":{record}}}\n");
        OpenOptions::new().append(true).open(&file).unwrap().write_all(line.as_bytes()).unwrap();
    };
    let state = format!(
        "{{\"action\":\"state\",\"outcome\":\"done\",\"state_seq\":{},\"state\":\"{}\"}}",
        mark.seq, mark.state
    );
    add("{\"action\":\"derive\",\"outcome\":\"released\"}");
    add(&state);
    let service = unlocked(home.path()).unwrap();
    let told = std::fs::read_to_string(&file).unwrap();
    assert_eq!(told.matches("\"log-sealed\"").count(), 1);
    drop(service);
    drop(unlocked(home.path()).unwrap());
    add("{\"action\":\"derive\",\"outcome\":\"released\"}");
    assert!(matches!(unlocked(home.path()).err(), Some(ServiceError::Forged { .. })));
}

#[test]
fn the_state_is_repeated_so_that_it_never_lies_far_from_the_end() {
    let home = folder_in_memory();
    made(home.path());
    let config = config_in(home.path());
    let clock: Arc<dyn claviger_env::Clock> = Arc::new(SystemClock);
    let service = KeyService::open(config.clone(), clock, random()).unwrap();
    service.unlock(&read_secret(&home.path().join("passphrase")).unwrap()).unwrap();
    let core = &service.core;
    core.audit.append_blocking(vec![b"{\"action\":\"lease\"}".to_vec(); 9_000]).unwrap();
    let repeated = || {
        core.repeat_state().unwrap();
        core.audit.tail(1).unwrap()[0].contains("\"action\":\"state\"")
    };
    assert!(!repeated(), "not yet");
    core.audit.append_blocking(vec![b"{\"action\":\"lease\"}".to_vec(); 1_000]).unwrap();
    assert!(repeated() && core.audit.tail(1).unwrap()[0].contains(&core.vault().unwrap().mark().state));
    core.audit.append_blocking(vec![b"{\"action\":\"lease\"}".to_vec()]).unwrap();
    assert!(!repeated(), "only once");
}

#[test]
fn only_what_takes_something_away_is_urgent() {
    let row = |revoked_ms| {
        let row = IdentityRow {
            uid: Id16([1; 16]),
            identity: "gateway:full".parse().unwrap(),
            keysets: vec!["default".to_owned()],
            enrolled_ms: 0,
            spki: SpkiHash([0; 32]),
            previous_spki: None,
            certificate_until_ms: 0,
            revoked_ms,
        };
        Row { id: row.uid.to_string(), body: serde_json::to_vec(&row).unwrap(), mac: Vec::new() }
    };
    assert!(!takes_away(&Change::Put(Kind::Identity, row(None))), "a renewal");
    assert!(takes_away(&Change::Put(Kind::Identity, row(Some(1)))), "a revocation");
    let unreadable = Row { body: b"{}".to_vec(), ..row(None) };
    assert!(takes_away(&Change::Put(Kind::Identity, unreadable)), "who knows");
    assert!(takes_away(&Change::Put(Kind::Freeze, row(None))));
    assert!(takes_away(&Change::Delete(Kind::Binding, "photos".into())));
    assert!(!takes_away(&Change::Delete(Kind::Closing, "photos".into())));
}
