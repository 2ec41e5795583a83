//! A key service on a real socket, with a clock that the test moves.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod raw;
pub(crate) mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::{
    Dek, EpochHeader, EpochId, EpochRecord, KemPublicKey, Layout, Metadata, ObjectId, ObjectName, Psk,
    Random, Salt, SealTo, UploadFields, UploadToken, Wek, envelope,
};
use claviger_gateway::key_client::{self, ClientError, KeyClient, StoredIdentity, UnsignedIdentity};
use claviger_keyapi::admin::{self, ConfirmKeysetRequest, CreateKeysetRequest, KeysetInfo, KeysetShares};
use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, Collected, ProposalInfo, ProposalRequest, ProposeRequest,
};
use claviger_keyapi::{EnvelopeHeader, KeyService as _, KeyServiceError, SessionInfo, SessionKeyset};
use claviger_keyservice::custody::paper::Form;
use claviger_keyservice::custody::unlock::establish::Method;
use claviger_keyservice::custody::unlock::hsm::{HsmConfig, WrapMechanism};
use claviger_keyservice::store::location::Location;
use claviger_keyservice::{Config, InitOptions, KeyService, Limits, NewOperator, ServiceError, Unlock, init};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What the wall clock shows when a test begins.
pub(crate) const WALL_CLOCK_MS: u64 = 1_780_000_000_000;

/// Wall and boot clock, moved by hand; from where they stand, or beside the machine's.
#[derive(Debug, Default)]
pub(crate) struct TestClock {
    passed_ms: AtomicU64,
    /// What someone set the wall clock forward or back by.
    set_ms: AtomicI64,
    is_running: bool,
}

impl TestClock {
    pub(crate) fn running() -> Self {
        Self { is_running: true, ..Self::default() }
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.passed_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Someone sets the wall clock; no time passes.
    pub(crate) fn set_wall_by(&self, ms: i64) {
        self.set_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        let base_ms = if self.is_running { SystemClock.now_ms() } else { WALL_CLOCK_MS };
        let shown = base_ms + self.passed_ms.load(Ordering::Relaxed);
        shown.saturating_add_signed(self.set_ms.load(Ordering::Relaxed))
    }
    fn boot_ms(&self) -> u64 {
        let base_ms = if self.is_running { SystemClock.boot_ms() } else { 50_000_000 };
        base_ms + self.passed_ms.load(Ordering::Relaxed)
    }
}

/// One call on a route; what the service refuses is the error, anything else that goes wrong fails the test.
pub(crate) async fn ask<A: DeserializeOwned>(
    client: &KeyClient,
    path: &str,
    request: &(impl Serialize + Sync),
) -> Result<A, KeyServiceError> {
    match client.transport().call(path, request).await {
        Ok(answer) => Ok(answer.value),
        Err(ClientError::Service(refusal)) => Err(refusal),
        Err(other) => panic!("{path}: {other}"),
    }
}

pub(crate) const POLICY: &str = r#"
[[operator]]
identity = "admin:first"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze", "backup"]
[[operator]]
identity = "admin:second"
verbs = ["inspect", "unlock", "keyset", "enrol", "policy", "freeze", "backup"]
[[operator]]
identity = "admin:watcher"
verbs = ["inspect"]
[[grant]]
identity = "gateway:full"
keyset = "default"
verbs = ["lease", "write", "read", "head", "copy-source", "continue", "bind", "names"]
[[grant]]
identity = "gateway:second"
keyset = "default"
verbs = ["lease", "write", "read", "bind", "continue"]
[[grant]]
identity = "gateway:writer"
keyset = "default"
verbs = ["write", "continue"]
[[grant]]
identity = "gateway:narrow"
keyset = "default"
verbs = ["read", "head"]
buckets = ["photos"]
prefix = "2026/"
"#;

pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) config: Config,
    service: Option<KeyService>,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(POLICY, Unlock::PassphraseFile).await
    }

    pub(crate) async fn with(policy: &str, unlock: Unlock) -> Self {
        Self::on(Location::Sqlite, policy, unlock).await
    }

    pub(crate) async fn on(store: Location, policy: &str, unlock: Unlock) -> Self {
        Self::at(TestClock::default(), Limits::default(), store, policy, unlock).await
    }

    pub(crate) async fn at(
        clock: TestClock,
        limits: Limits,
        store: Location,
        policy: &str,
        unlock: Unlock,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(clock);
        let shared: Arc<dyn Clock> = clock.clone();
        let random: Arc<dyn Random> = Arc::new(OsRandom::new(Arc::clone(&shared)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        std::fs::write(folder.path().join("policy.toml"), policy).unwrap();
        let pkcs11 = (unlock == Unlock::Pkcs11).then(softhsm);
        let config = Config { store, limits, pkcs11, ..config(folder.path(), address, unlock) };
        let operators = [UnsignedIdentity::generate().unwrap(), UnsignedIdentity::generate().unwrap()];
        let mut options = init_options(folder.path(), &[operators[0].csr(), operators[1].csr()]);
        if unlock == Unlock::Quorum {
            let (dir, forms) = (folder.path().join("unlock"), vec![Form::Text]);
            options.unlock = Method::Quorum { shares: 3, threshold: 2, dir, forms };
        }
        if let Some(hsm) = &config.pkcs11 {
            options.unlock = Method::Pkcs11(hsm.clone());
        }
        let report = init(&config, &options, &shared, &random).unwrap();
        let names = [("admin:first", "admin"), ("admin:second", "second-admin")];
        for ((unsigned, certificate), (name, to)) in operators.into_iter().zip(report.operators).zip(names) {
            let identity = unsigned.signed(address.to_string(), name.parse().unwrap(), certificate);
            identity.save(&folder.path().join(to)).unwrap();
        }
        let service = KeyService::open(config.clone(), shared, Arc::clone(&random)).unwrap();
        let mut world = Self { folder, clock, random, config, service: Some(service), running: None };
        world.run(listener);
        world
    }

    /// A service whose folder `prepare` fills, at this time (Unix milliseconds).
    pub(crate) async fn in_folder(prepare: impl FnOnce(&Path), now_ms: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let clock = Arc::new(TestClock::default());
        clock.advance(now_ms - WALL_CLOCK_MS);
        let shared: Arc<dyn Clock> = clock.clone();
        let random: Arc<dyn Random> = Arc::new(OsRandom::new(Arc::clone(&shared)).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = config(folder.path(), listener.local_addr().unwrap(), Unlock::PassphraseFile);
        config.policy = Some(folder.path().join("policy.toml"));
        let service = KeyService::open(config.clone(), shared, Arc::clone(&random)).unwrap();
        let mut world = Self { folder, clock, random, config, service: Some(service), running: None };
        world.run(listener);
        world
    }

    fn run(&mut self, listener: TcpListener) {
        let (stop, stopped) = oneshot::channel::<()>();
        let service = self.service().clone();
        let running = tokio::spawn(async move {
            service.serve(listener, async { drop(stopped.await) }).await.unwrap();
        });
        self.running = Some((stop, running));
    }

    /// Ends the process in all that matters: the service is dropped and opened again from its folder.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await.unwrap();
    }

    /// Opens and serves what was stopped.
    pub(crate) async fn start(&mut self) -> Result<(), ServiceError> {
        self.service = Some(self.open()?);
        let listener = TcpListener::bind(self.config.listen).await.unwrap();
        self.run(listener);
        Ok(())
    }

    /// Opens it from its folder, beside whatever is open already.
    pub(crate) fn open(&self) -> Result<KeyService, ServiceError> {
        KeyService::open(self.config.clone(), self.clock.clone(), Arc::clone(&self.random))
    }

    pub(crate) fn service(&self) -> &KeyService {
        self.service.as_ref().unwrap()
    }

    pub(crate) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.config.state_dir.join("keyservice.db")).unwrap()
    }

    pub(crate) async fn stop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        drop(stop);
        running.await.unwrap();
        self.service = None;
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where a gateway that keeps its memory in `memory` remembers the only log that it has seen.
    pub(crate) fn remembered_log(&self) -> PathBuf {
        let mut entries =
            std::fs::read_dir(self.path("memory/logs")).unwrap().map(|entry| entry.unwrap().path());
        entries.find(|path| path.is_dir()).unwrap()
    }

    /// A token for a gateway of the keyset `default`.
    pub(crate) async fn token(&self, identity: &str) -> String {
        self.token_for(enrol(identity, &["default"], false)).await.unwrap()
    }

    /// A token that the first operator proposes, the second approves and the first collects.
    pub(crate) async fn token_for(&self, action: Action) -> Result<String, KeyServiceError> {
        let proposal = self.by_two(action).await?.proposal;
        let request = ProposalRequest { id: proposal.id };
        let collected = ask(&self.operator(), proposals::COLLECT, &request).await?;
        let Collected::EnrolToken(answer) = collected else { panic!("no token: {collected:?}") };
        Ok(answer.token.expose().to_owned())
    }

    /// Something that the first operator proposes and the second approves.
    pub(crate) async fn by_two(&self, action: Action) -> Result<ApproveAnswer, KeyServiceError> {
        let request = ProposeRequest { action, ttl_s: None };
        let proposal: ProposalInfo = ask(&self.operator(), proposals::PROPOSE, &request).await?;
        ask(&self.second_operator(), proposals::APPROVE, &ProposalRequest { id: proposal.id }).await
    }

    /// A second keyset, its shares read back.
    pub(crate) async fn add_keyset(&self, name: &str) {
        let operator = self.operator();
        let create = CreateKeysetRequest { name: name.into(), shares: 2, threshold: 2 };
        let made = operator.transport().call::<_, KeysetShares>(admin::KEYSET_CREATE, &create).await.unwrap();
        let confirm = ConfirmKeysetRequest { keyset_id: made.value.keyset_id, shares: made.value.shares };
        operator.transport().call::<_, KeysetInfo>(admin::KEYSET_CONFIRM, &confirm).await.unwrap();
    }

    pub(crate) async fn enrol(&self, name: &str) -> Gateway {
        self.enrol_for(name, &["default"]).await
    }

    pub(crate) async fn enrol_for(&self, name: &str, keysets: &[&str]) -> Gateway {
        let token = self.token_for(enrol(&format!("gateway:{name}"), keysets, false)).await.unwrap();
        let folder = self.path(name);
        key_client::enrol(&token, &folder, self.clock.clone()).await.unwrap();
        self.gateway(name).await
    }

    /// A client for an identity that is enrolled already.
    pub(crate) async fn gateway(&self, name: &str) -> Gateway {
        self.gateway_at(name, &self.config.listen.to_string()).await
    }

    /// The same, at another address or several.
    pub(crate) async fn gateway_at(&self, name: &str, address: &str) -> Gateway {
        let keys = KeyClient::open(address, &self.path(name), self.clock.clone()).unwrap();
        let session = keys.session().await.unwrap().value;
        Gateway { keys, session, random: Arc::clone(&self.random), now_ms: self.clock.now_ms() }
    }

    pub(crate) fn operator(&self) -> Arc<KeyClient> {
        KeyClient::open_operator("", &self.path("admin"), self.clock.clone()).unwrap()
    }

    /// The first operator, at another address.
    pub(crate) fn operator_at(&self, address: &str) -> Arc<KeyClient> {
        KeyClient::open_operator(address, &self.path("admin"), self.clock.clone()).unwrap()
    }

    pub(crate) fn second_operator(&self) -> Arc<KeyClient> {
        self.second_operator_at("")
    }

    pub(crate) fn second_operator_at(&self, address: &str) -> Arc<KeyClient> {
        KeyClient::open_operator(address, &self.path("second-admin"), self.clock.clone()).unwrap()
    }

    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let path = self.config.state_dir.join("audit/00000000000000000000.jsonl");
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["record"].clone())
            .collect()
    }

    pub(crate) fn last_audit(&self) -> serde_json::Value {
        self.audit().pop().unwrap()
    }
}

fn config(folder: &Path, listen: std::net::SocketAddr, unlock: Unlock) -> Config {
    Config {
        state_dir: folder.join("state"),
        listen,
        advertise: listen.to_string(),
        admin_listen: None,
        admin_socket: None,
        policy: None,
        unlock,
        passphrase_file: Some(folder.join("passphrase")),
        checkpoint_file: folder.join("state.checkpoint"),
        store: Location::Sqlite,
        pkcs11: None,
        limits: Limits::default(),
    }
}

/// Where SoftHSM's configuration lies, which it finds by the environment of the whole process; its PIN lies beside it.
pub(crate) const SOFTHSM_CONF: &str = "SOFTHSM2_CONF";

/// The key `master` in the HSM of this process.
pub(crate) fn softhsm() -> HsmConfig {
    let conf = PathBuf::from(std::env::var_os(SOFTHSM_CONF).expect("an HSM"));
    HsmConfig {
        module: "/usr/lib/softhsm/libsofthsm2.so".into(),
        token: "claviger test".to_owned(),
        serial: None,
        key: "master".to_owned(),
        pin_file: conf.with_file_name("pin"),
        mechanism: WrapMechanism::AesGcm,
    }
}

/// The order of a token.
pub(crate) fn enrol(identity: &str, keysets: &[&str], replace: bool) -> Action {
    let keysets = keysets.iter().map(|name| (*name).to_owned()).collect();
    Action::Enrol { identity: identity.parse().unwrap(), keysets, ttl_s: 600, replace }
}

pub(crate) fn init_options(folder: &Path, csrs: &[&[u8]]) -> InitOptions {
    InitOptions {
        keyset: "default".into(),
        shares: 3,
        threshold: 2,
        shares_dir: folder.join("recovery"),
        share_forms: vec![Form::Text],
        unlock: Method::Passphrase { file: folder.join("passphrase") },
        policy: folder.join("policy.toml"),
        retention_days: 90,
        operators: ["admin:first", "admin:second"]
            .iter()
            .zip(csrs)
            .map(|(name, csr)| NewOperator { identity: name.parse().unwrap(), csr: csr.to_vec() })
            .collect(),
    }
}

/// A gateway as far as keys go: it seals epochs and envelopes with what its session gave it.
pub(crate) struct Gateway {
    pub(crate) keys: Arc<KeyClient>,
    pub(crate) session: SessionInfo,
    random: Arc<dyn Random>,
    now_ms: u64,
}

pub(crate) struct Epoch {
    pub(crate) id: EpochId,
    pub(crate) wek: Wek,
    pub(crate) record: Vec<u8>,
}

pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) dek: Dek,
    pub(crate) name: ObjectName,
    pub(crate) envelope: String,
    pub(crate) header: EnvelopeHeader,
}

impl Gateway {
    pub(crate) fn keyset(&self) -> &SessionKeyset {
        &self.session.keysets[0]
    }

    pub(crate) fn seal_epoch(&self) -> Epoch {
        self.seal_epoch_for(self.session.gateway_id)
    }

    /// With this gateway's PSK, but naming any sealer.
    pub(crate) fn seal_epoch_for(&self, gateway_id: claviger_keyapi::Id16) -> Epoch {
        let keyset = self.keyset();
        let id = EpochId::draw(&*self.random).unwrap();
        let wek = Wek::generate(&*self.random, self.session.seed.expose()).unwrap();
        let header = EpochHeader {
            created_ms: self.now_ms,
            epoch_id: id,
            gateway_id: gateway_id.into(),
            keyset_id: keyset.keyset_id.into(),
        };
        let public_key = KemPublicKey::from_slice(keyset.public_key.as_bytes()).unwrap();
        let psk = Psk::from_slice(keyset.psk.as_ref().unwrap().expose()).unwrap();
        let to = SealTo {
            version: keyset.version,
            public_key: &public_key,
            sealer_id: gateway_id.into(),
            psk: &psk,
        };
        let record = EpochRecord::seal(&header, &wek, &to, &*self.random).unwrap().to_bytes();
        Epoch { id, wek, record }
    }

    /// An upload that this gateway began.
    pub(crate) fn begin_upload(&self, epoch: &Epoch, bucket_id: &str, key: &str) -> String {
        let object = self.seal_object(epoch, bucket_id, key);
        let fields = UploadFields {
            epoch_id: epoch.id,
            object_id: object.id,
            expires_ms: u64::MAX,
            checksum: None,
            upstream_upload_id: "upstream-1".into(),
        };
        UploadToken::issue(&object.dek.upload_key(), fields, &object.name).unwrap().to_text()
    }

    /// An object of one body of 5 bytes, as far as its envelope goes.
    pub(crate) fn seal_object(&self, epoch: &Epoch, bucket_id: &str, key: &str) -> Object {
        let id = ObjectId::draw(&*self.random).unwrap();
        let dek = epoch.wek.dek(epoch.id, id);
        let name = object_name(bucket_id, key);
        let layout = Layout::Single { salt: Salt::draw(&*self.random).unwrap(), length: 5 };
        let envelope =
            envelope::seal(&dek, epoch.id, id, &name, &layout, &Metadata::default(), 1418, &*self.random)
                .unwrap();
        let header = EnvelopeHeader::new(&envelope::Envelope::parse(&envelope).unwrap().header_bytes());
        Object { id, dek, name, envelope, header }
    }
}

pub(crate) fn object_name(bucket_id: &str, key: &str) -> ObjectName {
    ObjectName::new(claviger_format::BucketId::new(bucket_id).unwrap(), key).unwrap()
}

pub(crate) fn stored(world: &World, name: &str) -> StoredIdentity {
    StoredIdentity::load(&world.path(name)).unwrap()
}
