//! The epoch that this gateway writes with, one for each keyset.
//!
//! An epoch's key is handed out only after its sealed record has been stored and read back, and has been registered
//! with the key service or queued for it (docs/format.md §2.5): one lost record is every object of its epoch. The
//! key is dropped when the epoch ends, and never serves a read (§2.7).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use claviger_env::Clock;
use claviger_format::epoch::{EpochHeader, EpochRecord, SealTo};
use claviger_format::random::Random;
use claviger_format::{Dek, EpochId, KeysetId, ObjectId, Wek};
use claviger_keyapi::{KeyService, KeyServiceError, UnavailableReason};

use super::era::{Era, Moment, Term};
use super::session::{KeysetAccess, Session, SessionState};
use crate::error::GatewayError;
use crate::random::ForObject;
use crate::system_area::SystemArea;

/// An epoch ends after this time (docs/format.md §2.2) …
const EPOCH_AGE_MAX_MS: u64 = 3_600_000;
/// … this many objects …
const EPOCH_OBJECTS_MAX: u64 = 1 << 20;
/// … or this many plaintext bytes, whatever comes first.
const EPOCH_BYTES_MAX: u64 = 1 << 40;

/// No epoch begins under a session that was asked for longer ago: it may be sealed to a version that is retired meanwhile, and is
/// destroyed three days later at the earliest.
const SESSION_AGE_MAX_MS: u64 = 24 * 3_600_000;

/// What a new object is sealed with.
pub(crate) struct NewObject {
    /// Its key.
    pub dek: Dek,
    /// The epoch it belongs to.
    pub epoch_id: EpochId,
    /// Its identity, drawn afresh.
    pub object_id: ObjectId,
    /// For its salts.
    pub random: ForObject,
    /// The version of the keyset that the epoch is sealed to.
    pub version: u32,
}

struct WriteEpoch {
    epoch_id: EpochId,
    wek: Wek,
    version: u32,
    term: Term,
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl WriteEpoch {
    /// Of a record that is sealed to this version of the keyset; it begins now.
    fn new(epoch_id: EpochId, wek: Wek, version: u32, held: Moment, now_boot_ms: u64) -> Self {
        let term = held.until(now_boot_ms.saturating_add(EPOCH_AGE_MAX_MS));
        Self { epoch_id, wek, version, term, objects: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Counts one more object in, unless the epoch is over.
    fn admits(&self, now_boot_ms: u64, version: u32, plaintext_len: u64) -> bool {
        !self.term.is_over(now_boot_ms)
            && version == self.version
            && self.objects.fetch_add(1, Ordering::Relaxed) < EPOCH_OBJECTS_MAX
            && self.bytes.fetch_add(plaintext_len, Ordering::Relaxed) < EPOCH_BYTES_MAX
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Arc<WriteEpoch>>>>;

/// The epochs in use.
pub(crate) struct WriteEpochs {
    keys: Arc<dyn KeyService>,
    session: Arc<Session>,
    system: Arc<SystemArea>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    era: Era,
    slots: Mutex<HashMap<KeysetId, Slot>>,
    /// Records that the key service has not taken yet.
    unregistered: Mutex<Vec<(KeysetId, EpochId, Vec<u8>)>>,
}

impl WriteEpochs {
    pub(crate) fn new(
        keys: Arc<dyn KeyService>,
        session: Arc<Session>,
        system: Arc<SystemArea>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        era: Era,
    ) -> Self {
        let (slots, unregistered) = (Mutex::default(), Mutex::default());
        Self { keys, session, system, clock, random, era, slots, unregistered }
    }

    /// Identity and key of a new object of `plaintext_len` bytes (0 where it is not known yet).
    ///
    /// # Errors
    /// Denied without the verb `write`; the provider's or the key service's failure when a new epoch can't be made
    /// durable.
    pub(crate) async fn new_object(
        &self,
        keyset_id: KeysetId,
        plaintext_len: u64,
    ) -> Result<NewObject, GatewayError> {
        // Before the session is asked: what it grants counts only as long as it stands.
        let held = self.era.now();
        let keyset = self.session.keyset(keyset_id).await?;
        let epoch = self.epoch(&keyset, plaintext_len, held).await?;
        let no_randomness = |_| GatewayError::Internal("no randomness");
        let random = ForObject::draw(self.random.clone()).map_err(no_randomness)?;
        let object_id = ObjectId::draw(&random).map_err(|_| GatewayError::Internal("no randomness"))?;
        let WriteEpoch { epoch_id, version, .. } = *epoch;
        Ok(NewObject { dek: epoch.wek.dek(epoch_id, object_id), epoch_id, object_id, random, version })
    }

    async fn epoch(
        &self,
        keyset: &KeysetAccess,
        plaintext_len: u64,
        held: Moment,
    ) -> Result<Arc<WriteEpoch>, GatewayError> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(keyset.keyset_id).or_default().clone()
        };
        let mut current = slot.lock().await;
        if let Some(epoch) = &*current
            && epoch.admits(self.clock.boot_ms(), keyset.version, plaintext_len)
        {
            return Ok(epoch.clone());
        }
        *current = None;
        let epoch = Arc::new(Box::pin(self.begin(keyset, held)).await?);
        epoch.term.held.check()?;
        epoch.admits(self.clock.boot_ms(), keyset.version, plaintext_len);
        *current = Some(epoch.clone());
        Ok(epoch)
    }

    async fn begin(&self, keyset: &KeysetAccess, held: Moment) -> Result<WriteEpoch, GatewayError> {
        let state = self.session.state()?;
        self.check_age(&state)?;
        let Some(psk) = &keyset.psk else {
            let text =
                format!("this gateway may not write in keyset {}: it lacks the verb write", keyset.name);
            return Err(KeyServiceError::Denied { text }.into());
        };
        let no_randomness = |_| GatewayError::Internal("no randomness");
        let header = EpochHeader {
            created_ms: self.clock.now_ms(),
            epoch_id: EpochId::draw(&*self.random).map_err(no_randomness)?,
            gateway_id: state.gateway_id,
            keyset_id: keyset.keyset_id,
        };
        let wek = Wek::generate(&*self.random, &self.session.take_seed()).map_err(no_randomness)?;
        let to = SealTo {
            version: keyset.version,
            public_key: &keyset.public_key,
            sealer_id: state.gateway_id,
            psk,
        };
        let record = EpochRecord::seal(&header, &wek, &to, &*self.random)
            .map_err(GatewayError::integrity("sealing an epoch"))?
            .to_bytes();
        self.system.store_epoch(header.epoch_id, &record).await?;
        self.register(keyset.keyset_id, header.epoch_id, record).await?;
        ::metrics::counter!(crate::metrics::EPOCHS_BEGUN).increment(1);
        tracing::info!(epoch_id = %header.epoch_id, keyset = keyset.name, "a write epoch begins");
        Ok(WriteEpoch::new(header.epoch_id, wek, keyset.version, held, self.clock.boot_ms()))
    }

    fn check_age(&self, state: &SessionState) -> Result<(), KeyServiceError> {
        if self.clock.boot_ms().saturating_sub(state.asked_boot_ms) < SESSION_AGE_MAX_MS {
            return Ok(());
        }
        tracing::error!(
            "the key service was not heard for a day: no new epoch begins, so nothing is written"
        );
        Err(KeyServiceError::Unavailable { reason: UnavailableReason::Connection, retry_after_ms: 2_000 })
    }

    async fn register(
        &self,
        keyset_id: KeysetId,
        epoch_id: EpochId,
        record: Vec<u8>,
    ) -> Result<(), GatewayError> {
        match self.keys.register_epoch(&record).await {
            Ok(()) => Ok(()),
            Err(error @ (KeyServiceError::Unavailable { .. } | KeyServiceError::Locked)) => {
                tracing::warn!(%error, %epoch_id, "an epoch is stored but not registered yet; it is queued");
                self.queue(keyset_id, epoch_id, record);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn queue(&self, keyset_id: KeysetId, epoch_id: EpochId, record: Vec<u8>) {
        self.unregistered.lock().unwrap_or_else(PoisonError::into_inner).push((keyset_id, epoch_id, record));
    }

    /// Drops the keys of epochs that are over, so that an idle gateway holds none. Never waits: a slot that is in use is looked
    /// at by its user.
    pub(crate) fn wipe_ended(&self) {
        let now_boot_ms = self.clock.boot_ms();
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in slots.values() {
            if let Ok(mut current) = slot.try_lock()
                && current.as_ref().is_some_and(|epoch| epoch.term.is_over(now_boot_ms))
            {
                *current = None;
            }
        }
    }

    /// Registers what is queued. An epoch that the key service refuses is written with no longer: what it seals could
    /// not be opened. Its record stays queued and counted, since objects of it are stored already.
    pub(crate) async fn register_queued(&self) {
        let queued = std::mem::take(&mut *self.unregistered.lock().unwrap_or_else(PoisonError::into_inner));
        for (keyset_id, epoch_id, record) in queued {
            if let Err(error) = self.register(keyset_id, epoch_id, record.clone()).await {
                tracing::error!(%error, %epoch_id, "the key service refuses an epoch that objects were sealed with");
                self.end(keyset_id, epoch_id).await;
                self.queue(keyset_id, epoch_id, record);
            }
        }
        let waiting = self.unregistered.lock().unwrap_or_else(PoisonError::into_inner).len();
        ::metrics::gauge!(crate::metrics::EPOCHS_UNREGISTERED)
            .set(u32::try_from(waiting).unwrap_or(u32::MAX));
    }

    async fn end(&self, keyset_id: KeysetId, epoch_id: EpochId) {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(&keyset_id).cloned();
        if let Some(slot) = slot {
            let mut current = slot.lock().await;
            if current.as_ref().is_some_and(|epoch| epoch.epoch_id == epoch_id) {
                *current = None;
            }
        }
    }
}

#[cfg(test)]
impl WriteEpochs {
    /// Writes in this epoch from now on, as if it had begun now.
    pub(super) fn write_in(&self, keyset_id: KeysetId, epoch_id: EpochId, version: u32) {
        let wek = Wek::from_slice(&[6; 32]).unwrap();
        let epoch = WriteEpoch::new(epoch_id, wek, version, self.era.now(), self.clock.boot_ms());
        let slot = self.slots.lock().unwrap().entry(keyset_id).or_default().clone();
        *slot.try_lock().unwrap() = Some(Arc::new(epoch));
    }

    /// Whether the key of an epoch is in memory.
    pub(super) fn holds_a_key(&self) -> bool {
        self.slots.lock().unwrap().values().any(|slot| slot.try_lock().unwrap().is_some())
    }
}
