//! What is in memory while the service is unlocked. Built from the database at unlock, every row checked against its MAC;
//! dropped, and with it every secret, at lock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};

use claviger_env::Clock;
use claviger_format::Random;
use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Id16, Identity, Role};
use rustls_pki_types::CertificateDer;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::bindings::{BindingRow, Bindings, ClosingRow};
use crate::budgets::Budgets;
use crate::custody::Master;
use crate::destruction::scrub_was_left;
use crate::freeze::Freezes;
use crate::identity::{Authority, Issued};
use crate::keyset::{Keyset, KeysetRow, open_keyset};
use crate::ledger::{Ledger, Mark, Rows};
use crate::log_key::{LogInfo, registered};
use crate::proposals::{HandedOut, ProposalRow};
use crate::quarantine::Quarantine;
use crate::registry::{OpenEpoch, OpenEpochs};
use crate::store::{Kind, Row, Store};

/// Name of the sealed CA key in the database.
pub(crate) const META_CA_KEY: &str = "ca_key";
/// Row of the CA certificate.
pub(crate) const CA_ROW: &str = "ca";

/// Everything that exists only while unlocked.
pub(crate) struct Vault {
    pub(crate) master: Master,
    pub(crate) authority: Authority,
    /// Since when it is open, on the boot-time clock.
    opened_boot_ms: u64,
    keysets: RwLock<BTreeMap<String, Arc<Keyset>>>,
    identities: RwLock<HashMap<Id16, Arc<IdentityRow>>>,
    tokens: Mutex<HashMap<String, TokenRow>>,
    proposals: Mutex<BTreeMap<String, ProposalRow>>,
    handed_out: Mutex<BTreeMap<String, HandedOut>>,
    pub(crate) freezes: Freezes,
    pub(crate) budgets: Budgets,
    pub(crate) quarantine: Quarantine,
    pub(crate) bindings: Bindings,
    pub(crate) open_epochs: OpenEpochs,
    /// Since when, on the boot-time clock, this process has known of each decision to destroy a version, by its proposal.
    dooms_seen: Mutex<BTreeMap<String, u64>>,
    /// How far the re-sealing of each version has come: the last epoch of the last step.
    reseals: Mutex<BTreeMap<(Id16, u32), Id16>>,
    /// Whether what was deleted may still lie in the database's files.
    scrub_due: AtomicBool,
    /// All logs of the service.
    logs: RwLock<Vec<LogInfo>>,
    own_log: Mutex<Option<OwnLog>>,
    /// Changed only by whoever has the turn.
    ledger: Mutex<Ledger>,
    /// Whether the ledger has a change that the database lacks; apart from it, because who holds that may be waiting for the database.
    behind: AtomicBool,
    /// Whether it may have the pending row of a change that counts for nobody.
    leftover: AtomicBool,
    /// Whether a change was refused since the newest state.
    refused: AtomicBool,
}

/// The log that this replica writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnLog {
    pub(crate) log_id: Id16,
    /// From which record on its lines are sealed, if they are.
    pub(crate) sealed_from: Option<u64>,
}

/// An enrolled identity. The id of its row is `uid`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityRow {
    /// `sealer_id` of a gateway; for an operator only the row's id.
    pub(crate) uid: Id16,
    pub(crate) identity: Identity,
    pub(crate) keysets: Vec<String>,
    pub(crate) enrolled_ms: u64,
    /// Key of the newest certificate.
    pub(crate) spki: SpkiHash,
    /// Key of the one before, good until its certificate ends: a renewal whose answer was lost must not lock anyone out.
    pub(crate) previous_spki: Option<SpkiHash>,
    pub(crate) certificate_until_ms: u64,
    pub(crate) revoked_ms: Option<u64>,
}

impl IdentityRow {
    /// Someone who was just given a certificate.
    pub(crate) fn new(
        identity: Identity,
        keysets: Vec<String>,
        issued: &Issued,
        now_ms: u64,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let mut uid = [0u8; 16];
        random.fill(&mut uid)?;
        Ok(Self {
            uid: Id16(uid),
            identity,
            keysets,
            enrolled_ms: now_ms,
            spki: issued.spki,
            previous_spki: None,
            certificate_until_ms: issued.not_after_ms,
            revoked_ms: None,
        })
    }
}

/// An enrolment token that was not used yet. The id of its row is the hex SHA-256 of its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenRow {
    pub(crate) identity: Identity,
    pub(crate) keysets: Vec<String>,
    pub(crate) expires_ms: u64,
    pub(crate) replace: bool,
    /// Which operator proposed it; `None` only from a release that needed none.
    #[serde(default)]
    pub(crate) ordered_by: Option<Identity>,
    /// Which one approved it.
    #[serde(default)]
    pub(crate) approved_by: Option<Identity>,
}

impl Vault {
    /// Opens everything with the master, from the ledger's rows. The store is asked for nothing but the CA's key, which is sealed,
    /// and for what is left to clean up.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if a row is not what this service wrote.
    pub(crate) fn open(
        master: Master,
        ledger: Ledger,
        store: &dyn Store,
        clock: &dyn Clock,
        binding_ttl_ms: u64,
    ) -> Result<Self, ServiceError> {
        let rows = ledger.rows();
        let authority = load_authority(&master, rows, store)?;
        let mut keysets = BTreeMap::new();
        for row in rows.values::<KeysetRow>(Kind::Keyset)? {
            let keyset = open_keyset(&master, row)?;
            keysets.insert(keyset.name.clone(), Arc::new(keyset));
        }
        let identities = rows.values::<IdentityRow>(Kind::Identity)?;
        let identities: HashMap<_, _> = identities.into_iter().map(|row| (row.uid, Arc::new(row))).collect();
        let tokens = rows.of(Kind::Token).map(|row| row.id.clone()).zip(rows.values(Kind::Token)?).collect();
        let proposals = rows.values::<ProposalRow>(Kind::Proposal)?;
        let freezes = rows.values(Kind::Freeze)?;
        let quarantine = rows.values(Kind::Quarantine)?;
        let gateways =
            identities.values().filter(|i| is_active_gateway(i)).map(|i| i.uid).collect::<HashSet<_>>();
        let logs = registered(&master, rows)?;
        let bindings = Bindings::load(
            rows.values::<BindingRow>(Kind::Binding)?,
            &rows.values::<ClosingRow>(Kind::Closing)?,
            &gateways,
            clock,
            binding_ttl_ms,
        );
        let refused = AtomicBool::new(ledger.was_refused());
        Ok(Self {
            master,
            authority,
            opened_boot_ms: clock.boot_ms(),
            keysets: RwLock::new(keysets),
            identities: RwLock::new(identities),
            tokens: Mutex::new(tokens),
            handed_out: Mutex::default(),
            proposals: Mutex::new(proposals.into_iter().map(|row| (row.id.clone(), row)).collect()),
            freezes: Freezes::load(freezes),
            budgets: Budgets::default(),
            quarantine: Quarantine::load(quarantine),
            bindings,
            open_epochs: OpenEpochs::default(),
            dooms_seen: Mutex::default(),
            reseals: Mutex::default(),
            scrub_due: AtomicBool::new(scrub_was_left(store)?),
            logs: RwLock::new(logs),
            own_log: Mutex::default(),
            ledger: Mutex::new(ledger),
            behind: AtomicBool::new(false),
            leftover: AtomicBool::new(false),
            refused,
        })
    }

    /// Which log this replica writes.
    pub(crate) fn keeps(&self, log: OwnLog) {
        *self.own_log.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    /// The same, once it is known.
    pub(crate) fn own_log(&self) -> Option<OwnLog> {
        *self.own_log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All logs of the service.
    pub(crate) fn logs(&self) -> Vec<LogInfo> {
        read(&self.logs).clone()
    }

    /// A log is registered, or registered anew.
    pub(crate) fn put_log(&self, log: LogInfo) {
        self.remove_log(log.log_id);
        self.logs.write().unwrap_or_else(PoisonError::into_inner).push(log);
    }

    /// A log is registered no more.
    pub(crate) fn remove_log(&self, log: Id16) {
        self.logs.write().unwrap_or_else(PoisonError::into_inner).retain(|known| known.log_id != log);
    }

    /// The ledger's state.
    pub(crate) fn mark(&self) -> Mark {
        self.ledger().mark().clone()
    }

    /// Whether the database lacks a change that was written down.
    pub(crate) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    pub(crate) fn set_behind(&self, is_behind: bool) {
        self.behind.store(is_behind, Ordering::Release);
    }

    /// Whether the database may have the pending row of a change that was refused.
    pub(crate) fn has_leftover(&self) -> bool {
        self.leftover.load(Ordering::Acquire)
    }

    pub(crate) fn set_leftover(&self, has_leftover: bool) {
        self.leftover.store(has_leftover, Ordering::Release);
    }

    /// Whether a change that was to follow the newest state was refused.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    pub(crate) fn set_refused(&self, was_refused: bool) {
        self.refused.store(was_refused, Ordering::Release);
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Its changes are a few map operations that don't panic half way.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many epochs are registered; `None` while a change is being made.
    pub(crate) fn epoch_count(&self) -> Option<u64> {
        let ledger = match self.ledger.try_lock() {
            Ok(ledger) => ledger,
            Err(TryLockError::Poisoned(ledger)) => ledger.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(ledger.epoch_count())
    }

    /// A row with its MAC, ready to be stored.
    pub(crate) fn row<T: Serialize>(&self, kind: Kind, id: &str, value: &T) -> Row {
        row(&self.master, kind, id, value)
    }

    /// For how long it has been open without a break: no other replica has released anything meanwhile.
    pub(crate) fn open_for_ms(&self, now_boot_ms: u64) -> u64 {
        now_boot_ms.saturating_sub(self.opened_boot_ms)
    }

    pub(crate) fn keyset(&self, name: &str) -> Option<Arc<Keyset>> {
        read(&self.keysets).get(name).cloned()
    }

    pub(crate) fn keyset_by_id(&self, id: Id16) -> Option<Arc<Keyset>> {
        read(&self.keysets).values().find(|keyset| keyset.public_id() == id).cloned()
    }

    pub(crate) fn keysets(&self) -> Vec<Arc<Keyset>> {
        read(&self.keysets).values().cloned().collect()
    }

    /// The CA as it was verified at unlock.
    pub(crate) fn ca(&self) -> &CertificateDer<'static> {
        self.authority.certificate()
    }

    /// Puts a keyset in place of the one with its id, or of one that was never proved; never of another that was.
    pub(crate) fn put_keyset(&self, row: KeysetRow) -> Result<(), ServiceError> {
        let keyset = open_keyset(&self.master, row)?;
        let mut keysets = self.keysets.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = keysets.get(&keyset.name)
            && there.id != keyset.id
            && there.is_proved()
        {
            let id = keyset.public_id().to_string();
            return Err(ServiceError::Tampered { kind: Kind::Keyset.name(), id });
        }
        keysets.insert(keyset.name.clone(), Arc::new(keyset));
        Ok(())
    }

    /// A keyset opens less than before: what was opened goes, and so do answers that are on their way.
    pub(crate) fn closed(&self, keyset_id: Id16) {
        self.open_epochs.forget(keyset_id);
        self.freezes.overtake();
    }

    /// Keeps an epoch that was opened, for as long as its keyset is what it was.
    pub(crate) fn keep_open(&self, epoch: &Arc<OpenEpoch>) {
        let still = || {
            let keyset = self.keyset_by_id(epoch.keyset.public_id());
            keyset.is_some_and(|keyset| Arc::ptr_eq(&keyset, &epoch.keyset))
        };
        self.open_epochs.keep(Arc::clone(epoch), still);
    }

    pub(crate) fn dooms_seen(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.dooms_seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reseals(&self) -> MutexGuard<'_, BTreeMap<(Id16, u32), Id16>> {
        self.reseals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn scrub_is_due(&self) -> bool {
        self.scrub_due.load(Ordering::Acquire)
    }

    pub(crate) fn set_scrub_due(&self, is_due: bool) {
        self.scrub_due.store(is_due, Ordering::Release);
    }

    pub(crate) fn identity(&self, uid: Id16) -> Option<Arc<IdentityRow>> {
        read(&self.identities).get(&uid).cloned()
    }

    /// The enrolled and unrevoked identity of this name.
    pub(crate) fn active(&self, identity: &Identity) -> Option<Arc<IdentityRow>> {
        read(&self.identities)
            .values()
            .find(|row| row.revoked_ms.is_none() && row.identity == *identity)
            .cloned()
    }

    pub(crate) fn identities(&self) -> Vec<Arc<IdentityRow>> {
        read(&self.identities).values().cloned().collect()
    }

    pub(crate) fn put_identity(&self, row: IdentityRow) {
        self.identities.write().unwrap_or_else(PoisonError::into_inner).insert(row.uid, Arc::new(row));
    }

    /// Secrets that wait to be confirmed, by the id of their proposal.
    pub(crate) fn handed_out(&self) -> MutexGuard<'_, BTreeMap<String, HandedOut>> {
        self.handed_out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Proposals by id.
    pub(crate) fn proposals(&self) -> MutexGuard<'_, BTreeMap<String, ProposalRow>> {
        self.proposals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operators in office.
    pub(crate) fn operators(&self) -> Vec<Identity> {
        let rows = read(&self.identities);
        let in_office =
            rows.values().filter(|row| row.identity.role() == Role::Admin && row.revoked_ms.is_none());
        let mut names: Vec<Identity> = in_office.map(|row| row.identity.clone()).collect();
        names.sort();
        names
    }

    /// Every gateway that is enrolled and not revoked.
    pub(crate) fn gateways(&self) -> Vec<Id16> {
        read(&self.identities).values().filter(|row| is_active_gateway(row)).map(|row| row.uid).collect()
    }

    pub(crate) fn tokens(&self) -> MutexGuard<'_, HashMap<String, TokenRow>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_active_gateway(row: &IdentityRow) -> bool {
    row.identity.role() == Role::Gateway && row.revoked_ms.is_none()
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    // Writers only insert whole values: a panic leaves nothing half done.
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// The CA with its key. There is one for as long as there is the service: an older one does not exist.
pub(crate) fn load_authority(
    master: &Master,
    rows: &Rows,
    store: &dyn Store,
) -> Result<Authority, ServiceError> {
    let certificate: Blob =
        rows.value(Kind::Service, CA_ROW)?.ok_or(ServiceError::Damaged("CA certificate"))?;
    let sealed = store.meta(META_CA_KEY)?.ok_or(ServiceError::Damaged("CA key"))?;
    let key = master.open(META_CA_KEY, &sealed).ok_or(ServiceError::Damaged("CA key"))?;
    Authority::load(CertificateDer::from(certificate.0), &key)
}

/// The CA certificate as it lies in the database; before unlock its MAC can't be checked.
pub(crate) fn stored_ca(store: &dyn Store) -> Result<CertificateDer<'static>, ServiceError> {
    let rows = store.rows(Kind::Service)?;
    let row = rows.iter().find(|row| row.id == CA_ROW).ok_or(ServiceError::Damaged("CA certificate"))?;
    let der: Blob = serde_json::from_slice(&row.body).map_err(|_| ServiceError::Damaged("CA certificate"))?;
    Ok(CertificateDer::from(der.0))
}

/// Identities as they lie in the database; before unlock their MACs can't be checked.
pub(crate) fn stored_identities(store: &dyn Store) -> Result<Vec<IdentityRow>, ServiceError> {
    let rows = store.rows(Kind::Identity)?;
    rows.iter()
        .map(|row| serde_json::from_slice(&row.body).map_err(|_| ServiceError::Damaged("identity row")))
        .collect()
}

/// A row with its MAC.
pub(crate) fn row<T: Serialize>(master: &Master, kind: Kind, id: &str, value: &T) -> Row {
    let body = serde_json::to_vec(value).expect("rows are plain structures of strings and numbers");
    let mac = master.row_mac(kind.name(), id, &body).to_vec();
    Row { id: id.to_owned(), body, mac }
}

/// A row, once its MAC was checked.
pub(crate) fn read_row<T: DeserializeOwned>(
    master: &Master,
    kind: Kind,
    row: &Row,
) -> Result<T, ServiceError> {
    let tampered = || ServiceError::Tampered { kind: kind.name(), id: row.id.clone() };
    if !master.row_is_ours(kind.name(), &row.id, &row.body, &row.mac) {
        return Err(tampered());
    }
    serde_json::from_slice(&row.body).map_err(|_| tampered())
}
