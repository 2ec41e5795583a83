//! The gateway as a whole: what it is made of, how it starts, and what runs beside the requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_env::Clock;
use claviger_format::random::Random;
use claviger_keyapi::{KeyService, Verb};
use claviger_s3::VirtualHosts;
use tokio::task::JoinSet;

use crate::admin::{Component, Readiness};
use crate::bindings::Bindings;
use crate::body::form_heads::FormHeads;
use crate::bucket_locks::BucketLocks;
use crate::config::Config;
use crate::credentials::{CredentialStore, CredentialsError, Identity, UpstreamAccounts};
use crate::errands::Errands;
use crate::error::GatewayError;
use crate::key_client::Witness;
use crate::keys::era::Era;
use crate::keys::holdings::Holdings;
use crate::keys::metered::Metered;
use crate::keys::read::ReadKeys;
use crate::keys::seen::seen;
use crate::keys::session::Session;
use crate::keys::uploads::{UPLOAD_LIFE, Uploads};
use crate::keys::watch::Watcher;
use crate::keys::write::WriteEpochs;
use crate::memory_budget::{MemoryBudget, MemoryShare};
use crate::ops::manifests::Manifests;
use crate::ops::multipart::RepeatedParts;
use crate::ops::preflight::StrangerPreflights;
use crate::strangers::Strangers;
use crate::system_area::SystemArea;
use crate::upstream::Upstream;
use crate::upstream::account::Account;
use crate::upstream::tls::{UpstreamTlsError, client_config};

/// How often expired keys are wiped and queued reports sent.
const TICK: Duration = Duration::from_secs(5);
/// How often what dead uploads left behind is looked for, and for the first time after a start.
const SWEEP: Duration = Duration::from_secs(6 * 3600);
const FIRST_SWEEP: Duration = Duration::from_secs(60);
/// Beyond an upload's life, for clocks that differ.
const SWEEP_MARGIN: Duration = Duration::from_secs(24 * 3600);
/// How soon a failed preparation is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// How long a stop waits for what goes on without its request.
const SETTLE: Duration = Duration::from_secs(10);

/// Why a gateway can't start. What may heal by itself (a provider or key service that is away) is not an error here:
/// the gateway starts and is not ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A credentials file is missing, readable by others, or malformed.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The upstream's CA file or the system's own can't be used.
    #[error(transparent)]
    UpstreamTls(#[from] UpstreamTlsError),
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(GatewayError),
}

/// A running gateway. Dropping it ends its background work.
pub struct Gateway {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) credentials: Arc<CredentialStore>,
    pub(crate) hosts: VirtualHosts,
    /// With the gateway's own account: for the system area and for what is nobody's call.
    pub(crate) upstream: Upstream,
    /// Further accounts, by the names that access keys are mapped to.
    pub(crate) accounts: BTreeMap<String, Arc<Account>>,
    pub(crate) system: Arc<SystemArea>,
    pub(crate) bindings: Arc<Bindings>,
    pub(crate) bucket_locks: BucketLocks,
    pub(crate) write_epochs: Arc<WriteEpochs>,
    pub(crate) read_keys: Arc<ReadKeys>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) manifests: Manifests,
    pub(crate) repeated_parts: RepeatedParts,
    pub(crate) stranger_preflights: StrangerPreflights,
    /// What goes on without the request that began it.
    pub(crate) errands: Errands,
    pub(crate) form_heads: FormHeads,
    pub(crate) strangers: Strangers,
    pub(crate) memory: MemoryBudget,
    readiness: Readiness,
    tasks: Mutex<JoinSet<()>>,
}

impl Gateway {
    /// Builds the gateway and starts what runs beside it. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`] for what an operator has to mend in files.
    pub async fn start(
        config: Config,
        keys: Arc<dyn KeyService>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Arc<Self>, StartError> {
        let keys: Arc<dyn KeyService> = Arc::new(Metered::new(keys, clock.clone()));
        let witness = Arc::new(Witness::new(keys, &config.key_service.state_dir, clock.clone()));
        let keys: Arc<dyn KeyService> = witness.clone();
        let accounts = UpstreamAccounts::load(&config.upstream.credentials_file)?;
        let credentials = CredentialStore::load(&config.credentials_file, accounts.names())?;
        let account = Arc::new(Account::keyed(accounts.own));
        let accounts = accounts.named.into_iter();
        let accounts = accounts.map(|(name, keyed)| (name, Arc::new(Account::keyed(keyed)))).collect();
        let tls = client_config(config.upstream.ca_file.as_deref())?;
        let upstream =
            Upstream::new(&config.upstream, account, tls, clock.clone()).map_err(StartError::Config)?;
        let system = Arc::new(SystemArea::new(upstream.clone(), config.system_area.bucket.clone()));
        let era = Era::default();
        let session = Arc::new(Session::new(keys.clone(), era.clone()));
        let gateway = Self {
            hosts: VirtualHosts::new(&config.virtual_hosts),
            bucket_locks: BucketLocks::default(),
            bindings: Arc::new(Bindings::new(keys.clone(), clock.clone(), session.clone())),
            write_epochs: Arc::new(WriteEpochs::new(
                keys.clone(),
                session.clone(),
                system.clone(),
                clock.clone(),
                random.clone(),
                era.clone(),
            )),
            read_keys: Arc::new(ReadKeys::new(
                keys.clone(),
                session.clone(),
                system.clone(),
                clock.clone(),
                era.clone(),
            )),
            uploads: Arc::new(Uploads::new(keys.clone(), system.clone(), clock.clone(), random.clone())),
            manifests: Manifests::new(),
            repeated_parts: RepeatedParts::new(),
            stranger_preflights: StrangerPreflights::new(config.limits.concurrent_requests_max),
            errands: Errands::new(),
            form_heads: FormHeads::new(
                config.limits.concurrent_requests_max,
                Duration::from_secs(config.limits.header_read_timeout_s),
            ),
            strangers: Strangers::new(&config.limits),
            memory: MemoryBudget::new(config.limits.buffered_bytes_max),
            readiness: Readiness::new(),
            tasks: Mutex::default(),
            config,
            clock,
            random,
            credentials,
            upstream,
            accounts,
            system,
        };
        gateway.spawn_background(session.clone());
        gateway.spawn_listeners(witness, session, era);
        Ok(Arc::new(gateway))
    }

    /// What the health page reports.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Waits for what goes on without its request: uploads that are being completed or aborted. To be called when the
    /// server has stopped. Gives how much was still running when patience ended.
    pub async fn settle(&self) -> usize {
        // Whether it ended in time is what the count tells.
        drop(tokio::time::timeout(SETTLE, self.errands.settled()).await);
        self.errands.count()
    }

    /// The region that clients are told.
    pub(crate) fn region(&self) -> &str {
        self.config.region()
    }

    /// A share of the memory for object data, see [`MemoryBudget::transfer`].
    ///
    /// # Errors
    /// [`GatewayError::Busy`] when none became free in time.
    pub(crate) async fn stream_share(&self) -> Result<MemoryShare, GatewayError> {
        self.memory.transfer(0, false).await
    }

    /// A share for a transfer that holds `held_len` bytes of plaintext beyond what every transfer does.
    ///
    /// # Errors
    /// As [`Self::stream_share`].
    pub(crate) async fn stream_share_holding(
        &self,
        whose: &Identity,
        held_len: usize,
    ) -> Result<MemoryShare, GatewayError> {
        self.memory.transfer(held_len, whose.is_anonymous()).await
    }

    /// How long a client may stand still while it sends.
    pub(crate) fn client_idle_timeout(&self) -> Duration {
        Duration::from_secs(self.config.limits.body_idle_timeout_s)
    }

    /// How long somebody may take in all for a body that is held in memory until it is whole; no bound for who signed.
    pub(crate) fn held_body_timeout(&self, whose: &Identity) -> Option<Duration> {
        let timeout = Duration::from_secs(self.config.limits.header_read_timeout_s);
        whose.is_anonymous().then_some(timeout)
    }

    /// Keeps the session fresh, looks at the key service's audit log, and listens for what it takes back.
    fn spawn_listeners(&self, witness: Arc<Witness>, session: Arc<Session>, era: Era) {
        let holdings = Arc::new(Holdings {
            era,
            session: session.clone(),
            write_epochs: self.write_epochs.clone(),
            read_keys: self.read_keys.clone(),
            uploads: self.uploads.clone(),
            manifests: self.manifests.clone(),
        });
        // Before anybody looks.
        witness.tell(seen(&self.readiness, &holdings));
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let (key_service, dropped) = (self.readiness.register("key_service"), holdings.clone());
        let report = move |result: Result<(), &GatewayError>| match result {
            Ok(()) => key_service.ready(),
            Err(error) => key_service.not_ready(error.to_string()),
        };
        tasks.spawn(session.clone().keep_fresh(report, move |cause| {
            tracing::error!(cause, "this gateway and its key service have parted: every key is dropped");
            dropped.drop_all(cause);
        }));
        let stream = "key_service_stream";
        let (begun, warning) = (self.readiness.register(stream), self.readiness.warning(stream));
        let keys = witness.clone();
        let watcher =
            Watcher::new(keys, holdings, self.bindings.clone(), self.random.clone(), begun, warning);
        tasks.spawn(watcher.run());
        tasks.spawn(witness.keep_looking(move || session.ask_soon()));
    }

    fn spawn_background(&self, session: Arc<Session>) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let store = self.readiness.register("store");
        tasks.spawn(prepare_system_area(self.system.clone(), session, store));
        let (write_epochs, read_keys, uploads) =
            (self.write_epochs.clone(), self.read_keys.clone(), self.uploads.clone());
        let (upstream, manifests) = (self.upstream.clone(), self.manifests.clone());
        // One task each: what waits for the provider or the key service must not keep the wiping of keys from its time.
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                write_epochs.wipe_ended();
                upstream.close_idle();
                manifests.tick();
                read_keys.tick().await;
            }
        });
        let write_epochs = self.write_epochs.clone();
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                write_epochs.register_queued().await;
                uploads.tick().await;
            }
        });
        tasks.spawn(sweep_system_area(self.system.clone(), self.clock.clone()));
        let credentials = self.credentials.clone();
        tasks.spawn(async move {
            if let Err(error) = credentials.watch().await {
                tracing::error!(%error, "the credentials file is no longer watched; restart to read it again");
            }
        });
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("upstream", &self.config.upstream.endpoint).finish_non_exhaustive()
    }
}

/// Makes the system bucket and keeps the keyset records in it current; reports to the health page.
async fn prepare_system_area(system: Arc<SystemArea>, session: Arc<Session>, component: Component) {
    const EVERY: Duration = Duration::from_secs(60);
    loop {
        let wait = match prepare_once(&system, &session).await {
            Ok(()) => {
                component.ready();
                // Before the key service has answered there is no record to store.
                if session.keysets().is_empty() { RETRY } else { EVERY }
            }
            Err(error) => {
                component.not_ready(error.to_string());
                RETRY
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Removes what dead uploads left in the system area.
async fn sweep_system_area(system: Arc<SystemArea>, clock: Arc<dyn Clock>) {
    tokio::time::sleep(FIRST_SWEEP).await;
    loop {
        let age_ms = u64::try_from((UPLOAD_LIFE + SWEEP_MARGIN).as_millis()).unwrap_or(u64::MAX);
        match system.sweep(clock.now_ms().saturating_sub(age_ms)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed what dead uploads had left in the system area"),
            Err(error) => tracing::warn!(%error, "the system area could not be swept"),
        }
        tokio::time::sleep(SWEEP).await;
    }
}

async fn prepare_once(system: &SystemArea, session: &Session) -> Result<(), GatewayError> {
    system.prepare().await?;
    // A gateway that only reads may have no right to write at the provider either.
    for keyset in session.keysets().iter().filter(|keyset| keyset.grants(Verb::Write)) {
        system.refresh_keyset(keyset.keyset_id, &keyset.record).await?;
    }
    Ok(())
}
