//! The service as a value: opened from its folder, unlocked, locked, served.

mod callers;
mod covering;
mod health;
mod housekeeping;
mod mending;
mod opening;
mod replicas;
mod standing;
pub(crate) mod tls;
pub(crate) mod unlocking;
mod words;

use std::future::Future;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use arc_swap::ArcSwap;
use claviger_env::Clock;
use claviger_format::Random;
use claviger_keyapi::{Identity, KeyServiceError, ServiceState, UnavailableReason};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpListener;

use crate::admission::Admission;
use crate::attempts::Attempts;
use crate::audit_log::AuditLog;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::backup::make::Backups;
use crate::config::Config;
use crate::cosigning::Cosigning;
use crate::files::{StateLock, private_folder};
use crate::ledger::{Mark, Turn};
use crate::outside::Outside;
use crate::policy::{Policy, PolicyRow};
use crate::pruning::Pruner;
use crate::refusals::Refusals;
use crate::store::{Role, Store, location};
use crate::vault::{Vault, stored_ca};
use crate::watch::Watchers;
use crate::{ServiceError, server};
use callers::check_unrevoked;
pub(crate) use callers::{Addressee, Caller};
use mending::Writes;
use replicas::Standby;
use standing::Roll;
pub(crate) use standing::{Age, Standing};
use tls::{read_locked_tls, server_config};
use unlocking::Unlocking;
use words::Words;

/// A key service.
#[derive(Clone)]
pub struct KeyService {
    pub(crate) core: Arc<Core>,
}

pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) audit: AuditLog,
    writes: Writes,
    pub(crate) policy: ArcSwap<Policy>,
    /// The CA as the database said before anything could be verified; an unlocked service uses its vault's.
    ca: CertificateDer<'static>,
    /// Held by whoever changes rows that authorise: see `ledger`.
    changes: Mutex<()>,
    /// The newest state of the ledger that the log tells of, and how many records there were then.
    log_state: Mutex<LogState>,
    /// How many records a checkpoint has to cover before a change is acknowledged.
    uncovered: AtomicU64,
    pub(crate) attempts: Attempts,
    /// Certificates that were refused.
    pub(crate) refusals: Refusals,
    /// What was refused to certificates that count.
    pub(crate) refused: Refusals,
    pub(crate) backups: Backups,
    pub(crate) admission: Admission,
    roll: Roll,
    pub(crate) unlocking: Unlocking,
    pub(crate) outside: Outside,
    pub(crate) cosigning: Cosigning,
    words: Words,
    pub(crate) pruner: Pruner,
    pub(crate) watchers: Watchers,
    vault: RwLock<Option<Arc<Vault>>>,
    /// What an unlocked standby holds. There is either this or a vault.
    standby: Mutex<Option<Arc<Standby>>>,
    tls: ArcSwap<TlsState>,
    /// No other process works in the folder for as long as this one does.
    _alone: Option<StateLock>,
}

#[derive(Default)]
struct LogState {
    newest: Option<Mark>,
    written_at: u64,
}

struct TlsState {
    /// `None`: every handshake is refused.
    config: Option<Arc<ServerConfig>>,
    /// Wall clock after which an unlocked service makes itself a new certificate.
    renew_at_ms: u64,
    /// What the wall clock showed when it made this one.
    made_ms: u64,
}

/// The audit log, and the newest state of the ledger in it.
pub(crate) struct Log {
    pub(crate) audit: AuditLog,
    pub(crate) newest: Option<Mark>,
}

/// What a record of refusals stands for besides itself.
pub(crate) const UNRECORDED: &str = "were refused";

/// What a handler decided, and what must be durable in the audit log before anyone hears of it.
pub(crate) struct Work<T> {
    pub(crate) result: Result<T, ServiceError>,
    pub(crate) records: Vec<Record>,
    /// It changed rows.
    is_change: bool,
}

impl<T> Work<T> {
    pub(crate) fn new(result: Result<T, ServiceError>, records: Vec<Record>) -> Self {
        Self { result, records, is_change: false }
    }

    /// The same work with another answer.
    pub(crate) fn map<U>(self, answer: impl FnOnce(T) -> U) -> Work<U> {
        Work { result: self.result.map(answer), records: self.records, is_change: self.is_change }
    }

    /// Work that changes rows. `run` gets the record and writes it with the change ([`Core::commit`]); if it is refused, the
    /// record tells of that.
    pub(crate) fn changing(
        mut record: Record,
        run: impl FnOnce(&mut Record) -> Result<T, ServiceError>,
    ) -> Self {
        match run(&mut record) {
            Ok(value) => Self { is_change: true, ..Self::silent(Ok(value)) },
            Err(error) => {
                let refusal = record.refused_call(&error.outward());
                Self::new(Err(error), vec![refusal])
            }
        }
    }

    pub(crate) fn silent(result: Result<T, ServiceError>) -> Self {
        Self { result, records: Vec::new(), is_change: false }
    }
}

impl KeyService {
    /// Its audit log.
    pub fn audit_log(&self) -> &AuditLog {
        &self.core.audit
    }

    /// Opens the service that lies in `config.state_dir`; with `unlock = "passphrase-file"` it is unlocked afterwards, with
    /// `"pkcs11"` if its HSM is there. Blocks: reads files and the database, asks the HSM.
    ///
    /// # Errors
    /// [`ServiceError`]: not initialised, loose modes, damaged log or database, wrong passphrase, policy with a mistake.
    pub fn open(
        config: Config,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, ServiceError> {
        if !Self::is_initialised(&config) {
            return Err(ServiceError::NotInitialised(config.state_dir.clone()));
        }
        private_folder(&config.state_dir)?;
        // Before anything else: opening the log mends it, and a running service may be in the middle of a line.
        let alone = StateLock::take(&config.state_dir)?;
        let store = location::open(&config, &clock, &*random)?;
        let policy = first_policy(&*store, &config)?;
        let (audit, torn) = AuditLog::open(
            &config.audit_folder(),
            config.limits.audit_file_len_max,
            Arc::clone(&random),
            Arc::clone(&clock),
        )?;
        let newest = audit.found_state().cloned();
        let service =
            Self::assemble(config, clock, random, store, Log { audit, newest }, policy, Some(alone))?;
        let mut start = service.core.local_info()?.record("start", Outcome::Done);
        start.subject = Some(service.core.policy.load().sha256().to_owned());
        start.reason = torn.map(|torn| format!("{} bytes of an unfinished record were cut off", torn.len));
        service.core.audit.append_blocking(vec![start.to_bytes()])?;
        service.core.unlock_at_start()?;
        Ok(service)
    }

    /// Whether a service lies in `config.state_dir`.
    #[must_use]
    pub fn is_initialised(config: &Config) -> bool {
        location::exists(&config.state_dir)
    }

    pub(crate) fn assemble(
        config: Config,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        store: Arc<dyn Store>,
        log: Log,
        policy: Policy,
        alone: Option<StateLock>,
    ) -> Result<Self, ServiceError> {
        let ca = stored_ca(&*store)?;
        let identity = read_locked_tls(&config)?;
        let admission = Admission::new(config.limits.connections_max);
        let tls = TlsState::for_ever(Some(server_config(identity, ca.clone(), &clock)?));
        log.audit.is_of_a_service();
        Ok(Self {
            core: Arc::new(Core {
                config,
                clock,
                random,
                store,
                log_state: Mutex::new(LogState { newest: log.newest, written_at: log.audit.records() }),
                audit: log.audit,
                uncovered: AtomicU64::new(0),
                writes: Writes::default(),
                policy: ArcSwap::from_pointee(policy),
                ca,
                changes: Mutex::new(()),
                attempts: Attempts::default(),
                refusals: Refusals::of_certificates(),
                refused: Refusals::of_requests(),
                backups: Backups::default(),
                admission,
                roll: Roll::default(),
                unlocking: Unlocking::default(),
                outside: Outside::default(),
                cosigning: Cosigning::default(),
                words: Words::default(),
                pruner: Pruner::default(),
                watchers: Watchers::new(),
                vault: RwLock::new(None),
                standby: Mutex::new(None),
                tls: ArcSwap::from_pointee(tls),
                _alone: alone,
            }),
        })
    }

    /// Unlocks with the passphrase; fine if it is unlocked already. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::WrongPassphrase`]; [`ServiceError::Tampered`] if the database was edited.
    pub fn unlock(&self, passphrase: &str) -> Result<(), ServiceError> {
        let info = self.core.local_info()?;
        self.core.unlock(passphrase, &info)
    }

    /// Locks: wipes every secret from memory. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::Audit`]; it is locked all the same.
    pub fn lock(&self) -> Result<(), ServiceError> {
        let info = self.core.local_info()?;
        self.core.lock(&info)
    }

    /// Serves gateways and operators until `shutdown` is ready, then finishes what is under way.
    ///
    /// # Errors
    /// [`ServiceError::Io`] if the listener fails for good.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServiceError> {
        server::serve(Arc::clone(&self.core), listener, shutdown).await
    }

    /// State and problems, for health checks.
    #[must_use]
    pub fn health(&self) -> (ServiceState, Vec<String>) {
        self.core.health()
    }

    /// Sets the gauges that say what [`Self::health`] says.
    pub fn show_health(&self) {
        self.core.show_health();
    }

    /// What does no harm now and will later: an unlocked service whose HSM is away, a newest checkpoint that is kept nowhere
    /// else, a key version that is to be destroyed.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.core.notes()
    }

    /// The configuration it was opened with.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.core.config
    }
}

impl Core {
    /// For acts of the process itself.
    pub(crate) fn local_info(&self) -> Result<RequestInfo, ServiceError> {
        self.request_info(None)
    }

    pub(crate) fn request_info(&self, identity: Option<Identity>) -> Result<RequestInfo, ServiceError> {
        let mut id = [0u8; 8];
        self.random.fill(&mut id)?;
        Ok(RequestInfo {
            request_id: format!("{:016x}", u64::from_be_bytes(id)),
            identity,
            now_ms: self.clock.now_ms(),
        })
    }

    pub(crate) fn vault(&self) -> Result<Arc<Vault>, KeyServiceError> {
        let vault = self.vault.read().unwrap_or_else(PoisonError::into_inner).clone();
        vault.ok_or_else(|| match self.store.role() {
            Role::Active => KeyServiceError::Locked,
            Role::Standby | Role::Replaced => ServiceError::Standby.outward(),
        })
    }

    fn changes(&self) -> MutexGuard<'_, ()> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to change keysets, identities, tokens or bindings. Refused once the vault that the caller was checked
    /// against is gone (a change would reach the database but not the memory that the next unlock built), and once nothing
    /// can be written down any more.
    pub(crate) fn change(&self, vault: &Arc<Vault>) -> Result<Turn<'_>, KeyServiceError> {
        let guard = self.changes();
        self.check_audit()?;
        if Arc::ptr_eq(&self.vault()?, vault) {
            Ok(Turn { vault: Arc::clone(vault), watchers: &self.watchers, _guard: guard })
        } else {
            Err(KeyServiceError::Locked)
        }
    }

    /// Remembers what the log tells of now.
    pub(crate) fn remember_state(&self, mark: &Mark) {
        let mut log = self.log_state.lock().unwrap_or_else(PoisonError::into_inner);
        *log = LogState { newest: Some(mark.clone()), written_at: self.audit.records() };
    }

    /// Records that were in the log when a state was written last.
    pub(crate) fn state_written_at(&self) -> u64 {
        self.log_state.lock().unwrap_or_else(PoisonError::into_inner).written_at
    }

    pub(crate) fn check_audit(&self) -> Result<(), KeyServiceError> {
        if !self.audit.has_failed() && !self.audit.is_full() {
            return Ok(());
        }
        Err(KeyServiceError::Unavailable { reason: UnavailableReason::Audit, retry_after_ms: 5_000 })
    }

    /// The same on behalf of someone, who may have been revoked since he was let in.
    pub(crate) fn change_as(&self, caller: &Caller) -> Result<Turn<'_>, KeyServiceError> {
        let turn = self.change(&caller.vault)?;
        check_unrevoked(&caller.vault, caller.row.uid)?;
        Ok(turn)
    }

    /// The emergency brake: the vault goes first, whatever fails afterwards.
    pub(crate) fn lock(&self, info: &RequestInfo) -> Result<(), ServiceError> {
        let first = self.wipe();
        self.unlocking.locked();
        self.lock_standby();
        self.outside.locked();
        self.watchers.ring();
        let _changes = self.changes();
        // An unlock may have been under way.
        let old = self.wipe().or(first);
        self.lock_standby();
        let tls = self.locked_tls(old.as_deref(), info.now_ms);
        let config = tls.as_ref().ok().map(Arc::clone);
        self.tls.store(Arc::new(TlsState::for_ever(config)));
        let mut record = info.record("lock", Outcome::Done);
        old.iter().for_each(|vault| record.set_state(&vault.mark()));
        drop(old);
        tracing::info!("locked");
        let recorded = self.audit.append_blocking(vec![record.to_bytes()]);
        // The last checkpoint covers this record too.
        self.audit.stop_signing();
        recorded?;
        tls.map(drop)
    }

    fn wipe(&self) -> Option<Arc<Vault>> {
        self.vault.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes the records durable, then lets the result out.
    pub(crate) async fn settle<T>(&self, work: Work<T>) -> Result<T, KeyServiceError> {
        let Work { result, records, .. } = work;
        let records = self.bounded(to_write(&result, records));
        if !records.is_empty() {
            self.audit.append(records).await.map_err(|error| error.outward())?;
        } else {
            self.check_audit()?;
        }
        result.map_err(|error| tell(&error))
    }

    fn bounded(&self, records: Vec<Record>) -> Vec<Vec<u8>> {
        let records = records.into_iter().filter_map(|record| self.unless_too_many(record));
        records.map(|record| record.to_bytes()).collect()
    }

    /// A record as it is, but a refusal of somebody of whom there are too many in this minute.
    pub(crate) fn unless_too_many(&self, mut record: Record) -> Option<Record> {
        if let Some(identity) = record.identity().filter(|_| record.outcome == Outcome::Refused) {
            let before = self.refused.to_record(identity, record.time_ms())?;
            record.add_unrecorded(before, UNRECORDED);
        }
        Some(record)
    }

    pub(crate) fn settle_blocking<T>(&self, work: Work<T>) -> Result<T, ServiceError> {
        let Work { result, records, .. } = self.covered(work);
        let records = self.bounded(to_write(&result, records));
        if !records.is_empty() {
            self.audit.append_blocking(records)?;
        }
        result
    }
}

/// The policy as far as it is known before unlock: from the database unchecked, or the file that a state folder of a release
/// before is taken over with.
fn first_policy(store: &dyn Store, config: &Config) -> Result<Policy, ServiceError> {
    if let Some(row) = PolicyRow::read_unchecked(store)? {
        if config.policy.is_some() {
            tracing::warn!(
                "`policy` in the configuration is not read any more: take it out; `claviger keys policy --help`"
            );
        }
        return Policy::parse_text(&row.text);
    }
    Policy::load(config.policy.as_deref().ok_or_else(policy_is_missing)?)
}

fn policy_is_missing() -> ServiceError {
    ServiceError::Question(
        "the database comes from a release that had the policy in a file\n  remedy: policy = \"FILE\" in the configuration, for \
         the first start and unlock; it is taken over into the database"
            .to_owned(),
    )
}

/// When the call failed as a whole no key leaves, so "released" would be untrue.
fn to_write<T>(result: &Result<T, ServiceError>, mut records: Vec<Record>) -> Vec<Record> {
    let failed = result.is_err();
    records.retain(|record| !(failed && record.outcome == Outcome::Released));
    records
}

/// The log gets everything, the caller what he can use.
pub(crate) fn tell(error: &ServiceError) -> KeyServiceError {
    let outward = error.outward();
    if outward == KeyServiceError::Internal || matches!(outward, KeyServiceError::Unavailable { .. }) {
        tracing::error!(%error, "request failed");
    }
    outward
}

#[cfg(test)]
pub(crate) mod tests;
