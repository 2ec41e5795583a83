//! What must hold when the audit log or the moment is against it.

use std::io;
use std::path::Path;

use claviger_env::SystemClock;
use claviger_keyapi::Role;
use claviger_keyapi::admin::RevokeRequest;
use claviger_keyapi::proposals::{Action, Collected, FreezeRequest, FreezeTarget, ProposeRequest};
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::wire::Blob;
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::Unlock;
use crate::audit_log::AuditSink;
use crate::custody::paper::Form;
use crate::custody::unlock::establish::Method;
use crate::files::read_secret;
use crate::identity::Peer;
use crate::ledger::log::newest_state;
use crate::store::location::{DATABASE_FILE, Location};
use crate::store::sqlite::SqliteStore;
use crate::testing::{Meddled, Meddler, random};
use crate::{InitOptions, Limits, NewOperator, init};

/// Keeps nothing, or keeps and then fails.
struct Broken {
    fails_at_append: bool,
}

impl AuditSink for Broken {
    fn append(&mut self, first_index: u64, _lines: &[u8]) -> io::Result<()> {
        // The first record, `unlock`, goes well.
        if self.fails_at_append && first_index > 0 { Err(io::Error::other("disk full")) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.fails_at_append { Ok(()) } else { Err(io::Error::other("I/O error")) }
    }
}

pub(crate) fn config_in(folder: &Path) -> Config {
    Config {
        state_dir: folder.join("state"),
        listen: ([127, 0, 0, 1], 0).into(),
        advertise: "127.0.0.1:1".into(),
        admin_listen: None,
        admin_socket: None,
        policy: None,
        unlock: Unlock::Operator,
        passphrase_file: Some(folder.join("passphrase")),
        checkpoint_file: folder.join("state.checkpoint"),
        store: Location::Sqlite,
        pkcs11: None,
        limits: Limits::default(),
    }
}

/// A locked service over the database of one that was made, with somebody before it.
pub(crate) fn meddled<M: Meddler + 'static>(
    config: Config,
    clock: Arc<dyn Clock>,
    meddler: M,
) -> (KeyService, Arc<Meddled<M>>) {
    let truth = SqliteStore::open(&config.state_dir.join(DATABASE_FILE)).unwrap();
    let store = Arc::new(Meddled { truth, meddler });
    let folder = config.audit_folder();
    let len_max = config.limits.audit_file_len_max;
    let (audit, _) = AuditLog::open(&folder, len_max, random(), Arc::clone(&clock)).unwrap();
    let log = Log { audit, newest: newest_state(&folder).unwrap() };
    let policy = Policy::parse_text(POLICY).unwrap();
    let shown = Arc::clone(&store) as Arc<dyn Store>;
    (KeyService::assemble(config, clock, random(), shown, log, policy, None).unwrap(), store)
}

pub(crate) fn made(folder: &Path) -> Config {
    let config = config_in(folder);
    let policy = folder.join("policy.toml");
    std::fs::write(&policy, POLICY).unwrap();
    let operator = |name: &str| {
        let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
        NewOperator { identity: name.parse().unwrap(), csr: csr.der().to_vec() }
    };
    let options = InitOptions {
        keyset: "default".into(),
        shares: 2,
        threshold: 2,
        shares_dir: folder.join("recovery"),
        share_forms: vec![Form::Text],
        unlock: Method::Passphrase { file: folder.join("passphrase") },
        policy,
        retention_days: 3650,
        operators: vec![operator("admin:first"), operator("admin:second")],
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    init(&config, &options, &clock, &random()).unwrap();
    config
}

fn with_sink(config: &Config, sink: Broken) -> KeyService {
    let store = Arc::new(SqliteStore::open(&config.state_dir.join("keyservice.db")).unwrap());
    let audit = AuditLog::with_sink(Box::new(sink), None, random(), Arc::new(SystemClock)).unwrap();
    let policy = Policy::parse_text(POLICY).unwrap();
    let log = Log { audit, newest: newest_state(&config.state_dir.join("audit")).unwrap() };
    KeyService::assemble(config.clone(), Arc::new(SystemClock), random(), store, log, policy, None).unwrap()
}

#[tokio::test]
async fn when_the_audit_log_fails_the_key_stays_and_health_is_red() {
    let folder = tempfile::tempdir().unwrap();
    let config = made(folder.path());
    let service = with_sink(&config, Broken { fails_at_append: true });
    service.unlock(&read_secret(&folder.path().join("passphrase")).unwrap()).unwrap();
    let core = &service.core;
    let work = || {
        let record = core.local_info().unwrap().record("lease", Outcome::Released);
        Work::new(Ok("key"), vec![record])
    };
    let refused = KeyServiceError::Unavailable { reason: UnavailableReason::Audit, retry_after_ms: 2_000 };
    assert_eq!(core.settle(work()).await.unwrap_err(), refused);
    assert_eq!(core.settle(work()).await.unwrap_err(), refused, "and stays refused");
    assert!(core.settle(Work::silent(Ok("key"))).await.is_err(), "with or without a record of its own");
    let (state, problems) = service.health();
    assert_eq!((state, problems.len()), (ServiceState::AuditFailed, 1));
}

#[test]
fn a_service_whose_unlock_can_not_be_written_down_stays_locked() {
    let folder = tempfile::tempdir().unwrap();
    let config = made(folder.path());
    let service = with_sink(&config, Broken { fails_at_append: false });
    let passphrase = read_secret(&folder.path().join("passphrase")).unwrap();
    assert!(matches!(service.unlock(&passphrase), Err(ServiceError::Audit(_))));
    assert_eq!(service.health().0, ServiceState::Locked);
}

#[test]
fn a_failed_call_is_never_recorded_as_a_release() {
    let folder = tempfile::tempdir().unwrap();
    let service = with_sink(&made(folder.path()), Broken { fails_at_append: true });
    let info = service.core.local_info().unwrap();
    let records = vec![info.record("lease", Outcome::Released), info.record("register-epoch", Outcome::Done)];
    let failed: Result<(), ServiceError> = Err(ServiceError::Damaged("x"));
    let written = to_write(&failed, records);
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].action(), "register-epoch");
}

/// A disk that stops, works or fails as the test says.
#[derive(Default)]
struct Disk {
    state: Mutex<&'static str>,
    changed: std::sync::Condvar,
}

impl Disk {
    fn now(&self, state: &'static str) {
        *self.state.lock().unwrap() = state;
        self.changed.notify_all();
    }
}

struct OnDisk(Arc<Disk>);

impl AuditSink for OnDisk {
    fn append(&mut self, _first_index: u64, _lines: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        let state = self.0.state.lock().unwrap();
        let state = self.0.changed.wait_while(state, |state| *state == "stops").unwrap();
        if *state == "fails" { Err(io::Error::other("I/O error")) } else { Ok(()) }
    }
}

pub(crate) const POLICY: &str = "[[operator]]\nidentity = \"admin:first\"\nverbs = [\"enrol\", \"policy\", \"unlock\", \"keyset\", \"disclose\"]\n\
    [[operator]]\nidentity = \"admin:second\"\nverbs = [\"enrol\", \"policy\", \"unlock\", \"keyset\", \"disclose\"]\n\
    [[grant]]\nidentity = \"gateway:full\"\nkeyset = \"default\"\nverbs = [\"lease\", \"read\", \"write\", \"bind\"]\n";

/// Enrols a gateway of the keyset `default`.
pub(crate) fn enrol_as(service: &KeyService, identity: &str) -> Result<(), ServiceError> {
    let identity: Identity = identity.parse().unwrap();
    let token = token_for(service, &identity)?;
    let secret = claviger_keyapi::enrol::EnrolToken::parse(token.expose()).unwrap().secret;
    let csr = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    let csr = Blob(csr.der().to_vec());
    let request = claviger_keyapi::enrol::EnrolRequest { identity, secret, csr };
    let info = service.core.local_info().unwrap();
    let work = service.core.enrol(&info, std::net::Ipv4Addr::LOCALHOST.into(), &request);
    service.core.settle_blocking(work).map(drop)
}

/// A token, by two operators.
pub(crate) fn token_for(service: &KeyService, identity: &Identity) -> Result<SecretText, ServiceError> {
    let (first, second) = (operator_of(service, "admin:first"), operator_of(service, "admin:second"));
    let core = &service.core;
    let action = Action::Enrol {
        identity: identity.clone(),
        keysets: vec!["default".into()],
        ttl_s: 60,
        replace: false,
    };
    let proposal = core.settle_blocking(core.propose(&first, ProposeRequest { action, ttl_s: None }))?;
    core.settle_blocking(core.approve(&second, &proposal.id))?;
    let collected = core.settle_blocking(core.collect(&first, &proposal.id))?;
    let Collected::EnrolToken(answer) = collected else { panic!("no token") };
    Ok(answer.token)
}

/// An operator as if he had shown his certificate.
pub(crate) fn operator_of(service: &KeyService, name: &str) -> Caller {
    let core = &service.core;
    let row = core.vault().unwrap().active(&name.parse().unwrap()).unwrap();
    let peer = Peer { identity: row.identity.clone(), spki: row.spki, not_after_ms: u64::MAX };
    core.caller(Some(&peer), Role::Admin, core.local_info().unwrap()).unwrap()
}

/// An unlocked service over such a disk, and a gateway that it enrolled.
async fn enrolled(folder: &Path, disk: &Arc<Disk>) -> (KeyService, Peer) {
    let config = made(folder);
    let store = Arc::new(SqliteStore::open(&config.state_dir.join("keyservice.db")).unwrap());
    let audit =
        AuditLog::with_sink(Box::new(OnDisk(Arc::clone(disk))), None, random(), Arc::new(SystemClock))
            .unwrap();
    let policy = Policy::parse_text(POLICY).unwrap();
    let clock = Arc::new(SystemClock);
    let log = Log { audit, newest: newest_state(&config.state_dir.join("audit")).unwrap() };
    let service = KeyService::assemble(config, clock, random(), store, log, policy, None).unwrap();
    service.unlock(&read_secret(&folder.join("passphrase")).unwrap()).unwrap();
    let identity: Identity = "gateway:full".parse().unwrap();
    let enrolling = service.clone();
    tokio::task::spawn_blocking(move || enrol_as(&enrolling, "gateway:full")).await.unwrap().unwrap();
    let spki = service.core.vault().unwrap().active(&identity).unwrap().spki;
    (service, Peer { identity, spki, not_after_ms: u64::MAX })
}

async fn ask(
    service: &KeyService,
    peer: &Peer,
    route: server::GatewayRoute,
    body: &str,
) -> Result<server::Body, KeyServiceError> {
    let info = service.core.local_info().unwrap();
    let caller = service.core.caller(Some(peer), Role::Gateway, info)?;
    let body = zeroize::Zeroizing::new(body.as_bytes().to_vec());
    let asked = server::AskedInTests::by(Arc::clone(&service.core), Some(peer.identity.clone()));
    server::gateway(asked, caller, route, body).await.map(server::Sent::into_body)
}

#[tokio::test]
async fn no_key_leaves_before_its_record_is_durable_nor_after_the_lock() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (service, peer) = enrolled(folder.path(), &disk).await;
    let session = || ask(&service, &peer, server::GatewayRoute::Session, "{}");
    assert!(String::from_utf8_lossy(&session().await.unwrap()).contains("psk"));
    disk.now("stops");
    let mut waiting = std::pin::pin!(session());
    let while_it_stops = tokio::time::timeout(std::time::Duration::from_millis(300), &mut waiting).await;
    assert!(while_it_stops.is_err(), "an answer before the record was durable");
    // Locked before the answer is ready; the lock's own record waits behind the other.
    let locking = tokio::task::spawn_blocking({
        let service = service.clone();
        move || service.lock()
    });
    while service.health().0 != ServiceState::Locked {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    disk.now("works");
    assert_eq!(waiting.await.unwrap_err(), KeyServiceError::Locked);
    locking.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_frozen_while_its_answer_waits_for_room_gets_no_keys() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (service, peer) = enrolled(folder.path(), &disk).await;
    // All that this gateway may leave unread.
    let unread = service.core.admission.body(Some(&peer.identity), usize::MAX).await.unwrap();
    let mut waiting = std::pin::pin!(ask(&service, &peer, server::GatewayRoute::Session, "{}"));
    let moment = std::time::Duration::from_millis(300);
    assert!(tokio::time::timeout(moment, &mut waiting).await.is_err(), "there is no room for it");
    let worker = service.clone();
    let frozen = tokio::task::spawn_blocking(move || {
        let first = operator_of(&worker, "admin:first");
        let request = FreezeRequest { target: FreezeTarget::Everything, reason: "theft".into() };
        worker.core.freeze(&first, request).result
    });
    frozen.await.unwrap().unwrap();
    // It is read on only then.
    drop(unread);
    let refused = waiting.await.unwrap_err();
    assert!(matches!(refused, KeyServiceError::Frozen { .. }), "{refused}");
}

/// Runs it where what blocks is done one after the other, in the order in which it was asked for.
fn one_at_a_time(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().max_blocking_threads(1).build().unwrap().block_on(test);
}

/// Polls it once. What it asks for is decided before anything that is asked for later, and it hears of it when it is polled again.
/// Only [`one_at_a_time`].
async fn begin(mut asking: std::pin::Pin<&mut impl Future>) {
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let before = tokio::task::spawn_blocking(move || gate.recv());
    let begun = std::future::poll_fn(|context| std::task::Poll::Ready(asking.as_mut().poll(context)));
    assert!(begun.await.is_pending(), "answered without having asked");
    open.send(()).unwrap();
    before.await.unwrap().unwrap();
}

#[test]
fn what_comes_into_quarantine_while_an_answer_is_on_its_way_stops_it_like_a_freeze() {
    one_at_a_time(quarantined_while_an_answer_is_on_its_way());
}

async fn quarantined_while_an_answer_is_on_its_way() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (service, peer) = enrolled(folder.path(), &disk).await;
    let enrolling = service.clone();
    tokio::task::spawn_blocking(move || enrol_as(&enrolling, "gateway:thief")).await.unwrap().unwrap();
    let mut waiting = std::pin::pin!(ask(&service, &peer, server::GatewayRoute::Session, "{}"));
    begin(waiting.as_mut()).await;
    let worker = service.clone();
    let held = tokio::task::spawn_blocking(move || {
        let first = operator_of(&worker, "admin:first");
        let identity = "gateway:thief".parse().unwrap();
        let request = RevokeRequest { identity, since_ms: Some(first.info.now_ms - 1), logs: Vec::new() };
        // It need not be able to read what this log's disk keeps to hold back what was sealed.
        let _ = worker.core.settle_blocking(worker.core.revoke_since(&first, &request));
    });
    held.await.unwrap();
    assert_eq!(waiting.await.unwrap_err(), crate::admission::busy(), "asked again, it is decided again");
}

#[test]
fn what_is_handed_out_once_is_not_lost_because_somebody_froze_something_meanwhile() {
    one_at_a_time(frozen_while_something_is_handed_out());
}

async fn frozen_while_something_is_handed_out() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (service, _) = enrolled(folder.path(), &disk).await;
    let of_first = |body: &str, route| {
        let body = zeroize::Zeroizing::new(body.as_bytes().to_vec());
        let caller = operator_of(&service, "admin:first");
        let by = Some(caller.row.identity.clone());
        let asked = server::AskedInTests::by(Arc::clone(&service.core), by);
        server::operator(asked, caller, route, body)
    };
    let worker = service.clone();
    let approved = tokio::task::spawn_blocking(move || {
        let (first, second) = (operator_of(&worker, "admin:first"), operator_of(&worker, "admin:second"));
        let identity = "gateway:other".parse().unwrap();
        let action = Action::Enrol { identity, keysets: vec!["default".into()], ttl_s: 60, replace: false };
        let request = ProposeRequest { action, ttl_s: None };
        let proposal = worker.core.settle_blocking(worker.core.propose(&first, request)).unwrap();
        worker.core.settle_blocking(worker.core.approve(&second, &proposal.id)).unwrap();
        proposal.id
    });
    let collect = format!("{{\"id\":\"{}\"}}", approved.await.unwrap());
    let create = "{\"name\":\"archive\",\"shares\":2,\"threshold\":2}";
    for (route, body, secret) in [
        (server::OperatorRoute::Collect, collect.as_str(), "token"),
        (server::OperatorRoute::KeysetCreate, create, "shares"),
    ] {
        // He has asked, and hears what came of it only after somebody else was told that his freeze is in force.
        let mut waiting = std::pin::pin!(of_first(body, route));
        begin(waiting.as_mut()).await;
        let worker = service.clone();
        let frozen = tokio::task::spawn_blocking(move || {
            let second = operator_of(&worker, "admin:second");
            let target = FreezeTarget::Identity("gateway:full".parse().unwrap());
            worker.core.freeze(&second, FreezeRequest { target, reason: "theft".into() }).result
        });
        frozen.await.unwrap().unwrap();
        let handed_out = waiting.await.unwrap().into_body();
        assert!(String::from_utf8_lossy(&handed_out).contains(secret));
    }
}

#[tokio::test]
async fn once_the_log_has_failed_no_key_leaves_and_nothing_changes() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (service, peer) = enrolled(folder.path(), &disk).await;
    disk.now("fails");
    let refused = |outcome: Result<server::Body, KeyServiceError>| {
        matches!(
            outcome.map(drop),
            Err(KeyServiceError::Unavailable { reason: UnavailableReason::Audit, .. })
        )
    };
    assert!(refused(ask(&service, &peer, server::GatewayRoute::Session, "{}").await));
    let bind = "{\"bucket\":\"photos\",\"keyset\":null}";
    assert!(refused(ask(&service, &peer, server::GatewayRoute::Bind, bind).await));
    let vault = service.core.vault().unwrap();
    assert!(vault.bindings.get("photos").is_none());
    let identity: Identity = "gateway:other".parse().unwrap();
    let worker = service.clone();
    let token = tokio::task::spawn_blocking(move || token_for(&worker, &identity)).await.unwrap();
    assert!(token.is_err() && vault.proposals().is_empty());
    assert!(vault.tokens().is_empty());
    drop(vault);
    assert!(service.lock().is_err(), "it can't be written down");
    assert_eq!(service.health().0, ServiceState::Locked, "and is done all the same");
}

#[tokio::test]
async fn no_keyset_takes_the_place_of_another_active_one() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (service, _) = enrolled(folder.path(), &disk).await;
    let vault = service.core.vault().unwrap();
    let before = vault.keyset("default").unwrap().public_id();
    let (row, _) = crate::keyset::prepare_keyset(&vault.master, "default", 2, 2, &*random()).unwrap();
    assert!(matches!(vault.put_keyset(row), Err(ServiceError::Tampered { kind: "keyset", .. })));
    assert_eq!(vault.keyset("default").unwrap().public_id(), before);
}

#[tokio::test]
async fn a_full_keyset_takes_no_more_buckets_and_still_gives_its_gateways_a_session() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), Arc::new(Disk::default()));
    let (service, peer) = enrolled(folder.path(), &disk).await;
    let vault = service.core.vault().unwrap();
    let keyset_id = vault.keyset("default").unwrap().public_id();
    for n in 0..10_000 {
        // As long as a name can be.
        let bucket = format!("{n:0>63}");
        let bucket_id = format!("{bucket}#{n:0>32x}");
        vault.bindings.bind(crate::bindings::BindingRow { bucket, bucket_id, keyset_id, created_ms: 0 });
    }
    let bind = "{\"bucket\":\"one-more\",\"keyset\":null}";
    let refused = ask(&service, &peer, server::GatewayRoute::Bind, bind).await.unwrap_err();
    assert!(matches!(refused, KeyServiceError::Conflict { .. }), "{refused}");
    let session = ask(&service, &peer, server::GatewayRoute::Session, "{}").await.unwrap();
    let session: claviger_keyapi::SessionInfo = serde_json::from_slice(&session).unwrap();
    assert!(session.keysets[0].record.0.len() < 1 << 20, "gateways read no longer record");
}
