//! The epoch registry (docs/format.md §2.6): which record belongs to which epoch id, and who may still add one.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use claviger_format::{EpochHeader, EpochId, EpochRecord, Wek};
use claviger_keyapi::{Id16, ReleaseError};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::custody::Master;
use crate::keyset::Keyset;
use crate::ledger::Turn;
use crate::quarantine::Registered;
use crate::service::{Caller, Core};
use crate::store::{Change, EpochRow, Kind};
use crate::vault::Vault;

/// Most opened epochs that are kept; opening one costs a KEM decapsulation.
const OPEN_EPOCHS_MAX: usize = 4096;

/// An epoch whose record authenticated and is registered.
pub(crate) struct OpenEpoch {
    pub(crate) header: EpochHeader,
    pub(crate) wek: Wek,
    /// What it was opened with.
    version: u32,
    /// The oldest version that its record names. Only the recipient that opened it is authentic; whatever others somebody put beside it,
    /// this is no younger than what it was sealed to.
    pub(crate) oldest_version: u32,
    pub(crate) keyset: Arc<Keyset>,
    /// When it was registered, Unix milliseconds.
    first_seen_ms: u64,
}

impl OpenEpoch {
    /// What the quarantine goes by.
    pub(crate) fn registered(&self) -> Registered {
        Registered {
            epoch_id: self.header.epoch_id.into(),
            gateway_id: self.header.gateway_id.into(),
            keyset_id: self.keyset.public_id(),
            first_seen_ms: self.first_seen_ms,
        }
    }
}

/// Epochs that were opened since unlock.
#[derive(Default)]
pub(crate) struct OpenEpochs {
    inner: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_id: HashMap<EpochId, Arc<OpenEpoch>>,
    oldest_first: VecDeque<EpochId>,
}

impl OpenEpochs {
    fn get(&self, epoch_id: EpochId) -> Option<Arc<OpenEpoch>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(&epoch_id).cloned()
    }

    /// Forgets all epochs of a keyset, and with them the roots that they hold on to.
    pub(crate) fn forget(&self, keyset_id: Id16) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.by_id.retain(|_, epoch| epoch.keyset.public_id() != keyset_id);
        let Kept { by_id, oldest_first } = &mut *inner;
        oldest_first.retain(|epoch_id| by_id.contains_key(epoch_id));
    }

    /// Keeps an epoch, unless what opened it was replaced meanwhile: a root that was destroyed must not come back with an answer
    /// that was on its way. Asked under the lock, so that [`Self::forget`] comes before or after.
    pub(crate) fn keep(&self, epoch: Arc<OpenEpoch>, still: impl FnOnce() -> bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !still() {
            return;
        }
        let epoch_id = epoch.header.epoch_id;
        if inner.by_id.insert(epoch_id, epoch).is_none() {
            inner.oldest_first.push_back(epoch_id);
        }
        while inner.oldest_first.len() > OPEN_EPOCHS_MAX
            && let Some(oldest) = inner.oldest_first.pop_front()
        {
            inner.by_id.remove(&oldest);
        }
    }
}

/// Why an epoch was not opened.
pub(crate) enum OpenError {
    /// The item is refused.
    Refused(ReleaseError),
    /// The whole call fails.
    Failed(ServiceError),
}

impl From<ReleaseError> for OpenError {
    fn from(error: ReleaseError) -> Self {
        Self::Refused(error)
    }
}

impl From<ServiceError> for OpenError {
    fn from(error: ServiceError) -> Self {
        Self::Failed(error)
    }
}

/// What opening and registering need besides the record.
pub(crate) struct Registry<'a> {
    pub(crate) core: &'a Core,
    pub(crate) caller: &'a Caller,
}

impl Registry<'_> {
    /// Opens an epoch that is registered, or registers it from `record` first. Whether the caller is enrolled for the keyset
    /// comes before everything else: no cryptography, no registration and no telling answer for epochs of others.
    pub(crate) fn open(&self, epoch_id: EpochId, record: Option<&[u8]>) -> Result<Arc<OpenEpoch>, OpenError> {
        if let Some(epoch) = self.vault().open_epochs.get(epoch_id)
            && self.check_enrolled(epoch.keyset.public_id())?.opens(epoch.version)
        {
            check_offered(epoch_id, record, |commit| {
                claviger_format::wek_commit(&epoch.wek, &epoch.header) == *commit
            })?;
            return Ok(epoch);
        }
        let epoch = match self.registered(epoch_id)? {
            Some(row) => {
                self.check_enrolled(Id16(row.keyset_id))?;
                check_offered(epoch_id, record, |commit| row.wek_commit == *commit)?;
                Arc::new(self.registered_epochs().open_row(&row, record)?)
            }
            None => self.register(epoch_id, record.ok_or(ReleaseError::UnknownEpoch)?)?,
        };
        self.vault().keep_open(&epoch);
        Ok(epoch)
    }

    fn vault(&self) -> &Arc<Vault> {
        &self.caller.vault
    }

    fn registered_epochs(&self) -> RegisteredEpochs<'_> {
        RegisteredEpochs { core: self.core, vault: self.vault() }
    }

    /// Says nothing about which keysets there are.
    fn check_enrolled(&self, keyset_id: Id16) -> Result<Arc<Keyset>, ReleaseError> {
        let keyset = self.vault().keyset_by_id(keyset_id);
        keyset.filter(|keyset| self.caller.row.keysets.contains(&keyset.name)).ok_or_else(|| {
            ReleaseError::Denied {
                text: format!("{} is not enrolled for this keyset", self.caller.row.identity),
            }
        })
    }

    /// The registry's row of an epoch, held against the ledger.
    pub(crate) fn registered(&self, epoch_id: EpochId) -> Result<Option<EpochRow>, ServiceError> {
        self.registered_epochs().row(epoch_id)
    }

    /// docs/format.md §2.6: an epoch that is not registered is taken only from a sealer that is enrolled and unrevoked.
    fn register(&self, epoch_id: EpochId, bytes: &[u8]) -> Result<Arc<OpenEpoch>, OpenError> {
        let record = EpochRecord::parse(bytes).map_err(|_| ReleaseError::EpochRejected)?;
        let header = record.header();
        if header.epoch_id != epoch_id {
            return Err(ReleaseError::EpochRejected.into());
        }
        let keyset = self.check_enrolled(header.keyset_id.into())?;
        self.check_sealer(&record, &keyset)?;
        self.check_thawed(&keyset)?;
        let epoch = self.registered_epochs().open_record(&record, self.caller.info.now_ms)?;
        // Again, and together with the insertion: what is not registered when its sealer is revoked never will be.
        let turn = self.core.change_as(self.caller).map_err(ServiceError::from)?;
        self.check_sealer(&record, &keyset)?;
        self.check_thawed(&keyset)?;
        let epoch = match self.registered(epoch_id)? {
            // Someone was faster.
            Some(row) if row.wek_commit == *record.wek_commit() => {
                OpenEpoch { first_seen_ms: row.first_seen_ms, ..epoch }
            }
            Some(_) => return Err(ReleaseError::EpochRejected.into()),
            None => {
                self.take_registration(&record)?;
                self.insert(&turn, &record, bytes, &registration(&self.caller.info, &epoch))?;
                epoch
            }
        };
        Ok(Arc::new(epoch))
    }

    /// What is frozen registers nothing: neither the gateway that asks, nor anything in this keyset.
    fn check_thawed(&self, keyset: &Keyset) -> Result<(), ReleaseError> {
        match self.vault().freezes.stops(&self.caller.row.identity, Some(&keyset.name)) {
            Some(text) => Err(ReleaseError::Frozen { text }),
            None => Ok(()),
        }
    }

    /// Counts for the one that sealed it, whoever brings the record: nobody's flood keeps another from registering his own.
    fn take_registration(&self, record: &EpochRecord) -> Result<(), ReleaseError> {
        let sealer = Id16::from(record.header().gateway_id);
        let taken = self.core.admission.registrations.take(sealer, self.core.clock.boot_ms());
        taken.map_err(|_| ReleaseError::TooManyEpochs)
    }

    fn check_sealer(&self, record: &EpochRecord, keyset: &Keyset) -> Result<(), ReleaseError> {
        let sealer = self.vault().identity(record.header().gateway_id.into());
        let sealer = sealer.ok_or(ReleaseError::EpochRejected)?;
        if !sealer.keysets.contains(&keyset.name) {
            return Err(ReleaseError::EpochRejected);
        }
        if sealer.revoked_ms.is_some() { Err(ReleaseError::EpochRevoked) } else { Ok(()) }
    }

    fn insert(
        &self,
        turn: &Turn<'_>,
        record: &EpochRecord,
        bytes: &[u8],
        written: &Record,
    ) -> Result<(), ServiceError> {
        let header = record.header();
        let mut row = EpochRow {
            epoch_id: *header.epoch_id.as_bytes(),
            gateway_id: *header.gateway_id.as_bytes(),
            keyset_id: *header.keyset_id.as_bytes(),
            created_ms: header.created_ms,
            first_seen_ms: self.caller.info.now_ms,
            wek_commit: *record.wek_commit(),
            record: bytes.to_vec(),
            mac: Vec::new(),
        };
        let id = header.epoch_id.to_string();
        row.mac = self.vault().master.row_mac(Kind::Epoch.name(), &id, &mac_body(&row)).to_vec();
        self.core.commit(turn, vec![Change::PutEpoch(row)], std::slice::from_ref(written))
    }
}

/// The epochs that are registered, for those who decide by themselves whose they are.
pub(crate) struct RegisteredEpochs<'a> {
    pub(crate) core: &'a Core,
    pub(crate) vault: &'a Vault,
}

impl RegisteredEpochs<'_> {
    /// Opens one, under a version that opens. What is not registered is [`ReleaseError::UnknownEpoch`].
    pub(crate) fn open(&self, epoch_id: EpochId) -> Result<OpenEpoch, OpenError> {
        let row = self.row(epoch_id)?.ok_or(ReleaseError::UnknownEpoch)?;
        Ok(self.open_row(&row, None)?)
    }

    /// Its row, held against the ledger.
    fn row(&self, epoch_id: EpochId) -> Result<Option<EpochRow>, ServiceError> {
        self.core.registered_epoch(self.vault, epoch_id.as_bytes())
    }

    /// The registry's own record first; if its recipients no longer fit, the one that the caller brought.
    fn open_row(&self, row: &EpochRow, offered: Option<&[u8]>) -> Result<OpenEpoch, ReleaseError> {
        let candidates = [Some(row.record.as_slice()), offered];
        let opened = candidates.into_iter().flatten().find_map(|bytes| {
            let record = EpochRecord::parse(bytes).ok()?;
            let epoch = self.open_record(&record, row.first_seen_ms).ok()?;
            (*record.wek_commit() == row.wek_commit).then_some(epoch)
        });
        opened.ok_or_else(|| self.why_not(row))
    }

    fn open_record(&self, record: &EpochRecord, first_seen_ms: u64) -> Result<OpenEpoch, ReleaseError> {
        let keyset = self.vault.keyset_by_id(Id16::from(record.header().keyset_id));
        let keyset = keyset.ok_or(ReleaseError::EpochRejected)?;
        let opened = keyset.open_roots().find_map(|root| Some((record.open(root).ok()?, root.version())));
        match opened {
            Some((wek, version)) => {
                let named = record.recipients().map(|(version, _)| version);
                let oldest_version = named.min().unwrap_or(version);
                Ok(OpenEpoch {
                    header: *record.header(),
                    wek,
                    version,
                    oldest_version,
                    keyset,
                    first_seen_ms,
                })
            }
            None => Err(rejection(&keyset, record)),
        }
    }

    /// Why the registry's own record of an epoch does not open.
    fn why_not(&self, row: &EpochRow) -> ReleaseError {
        let Ok(record) = EpochRecord::parse(&row.record) else { return ReleaseError::EpochRejected };
        self.open_record(&record, row.first_seen_ms).err().unwrap_or(ReleaseError::EpochRejected)
    }
}

/// A record that no root opens: because of what became of the versions that it names, or because it is not genuine.
fn rejection(keyset: &Keyset, record: &EpochRecord) -> ReleaseError {
    match keyset.end_of(record.recipients().map(|(version, _)| version)) {
        Some(text) => ReleaseError::Destroyed { text },
        None => ReleaseError::EpochRejected,
    }
}

/// A record that is brought for a known id must be the known one (docs/format.md §2.6); its recipients may differ.
fn check_offered(
    epoch_id: EpochId,
    offered: Option<&[u8]>,
    is_known: impl Fn(&[u8; 32]) -> bool,
) -> Result<(), ReleaseError> {
    let Some(bytes) = offered else { return Ok(()) };
    let record = EpochRecord::parse(bytes).map_err(|_| ReleaseError::EpochRejected)?;
    let same = record.header().epoch_id == epoch_id && is_known(record.wek_commit());
    if same { Ok(()) } else { Err(ReleaseError::EpochRejected) }
}

/// The record of a registration.
fn registration(info: &RequestInfo, epoch: &OpenEpoch) -> Record {
    let mut record = info.record("register-epoch", Outcome::Done);
    record.epoch_id = Some(epoch.header.epoch_id.into());
    record.keyset = Some(epoch.keyset.name.clone());
    record.subject = Some(epoch.header.gateway_id.to_string());
    record
}

/// Whether this service wrote the row.
pub(crate) fn is_ours(master: &Master, row: &EpochRow) -> bool {
    let id = Id16(row.epoch_id).to_string();
    master.row_is_ours(Kind::Epoch.name(), &id, &mac_body(row), &row.mac)
}

/// The row with another record of the same epoch.
pub(crate) fn with_record(master: &Master, row: &EpochRow, record: Vec<u8>) -> EpochRow {
    let mut row = EpochRow { record, ..row.clone() };
    let id = Id16(row.epoch_id).to_string();
    row.mac = master.row_mac(Kind::Epoch.name(), &id, &mac_body(&row)).to_vec();
    row
}

fn mac_body(row: &EpochRow) -> Vec<u8> {
    let mut body = Vec::with_capacity(96 + row.record.len());
    body.extend_from_slice(&row.gateway_id);
    body.extend_from_slice(&row.keyset_id);
    body.extend_from_slice(&row.created_ms.to_be_bytes());
    body.extend_from_slice(&row.first_seen_ms.to_be_bytes());
    body.extend_from_slice(&row.wek_commit);
    body.extend_from_slice(&row.record);
    body
}
