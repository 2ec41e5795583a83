//! What the key service says about this gateway: who it is, which keysets it may use and how. Asked at start and
//! again well before it runs out; with the service away the last answer stays in force for writing, because sealing
//! needs nothing that the service could take back (docs/format.md §2.8). Not for ever: after a day no new epoch begins under it
//! (`write`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_format::epoch::KemPublicKey;
use claviger_format::{KeysetId, Psk, SealerId};
use claviger_keyapi::{
    Answer, KeyService, KeyServiceError, SessionInfo, SessionKeyset, UnavailableReason, Verb,
};
use tokio::sync::Notify;
use zeroize::Zeroizing;

use super::era::Era;
use crate::error::GatewayError;

/// Used until the service has said otherwise.
const BINDING_TTL_S_DEFAULT: u32 = 30;
/// How soon to ask again after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// The same after so many refusals in a row …
const REFUSALS_MAX: u32 = 2;
/// … each of which the service writes down.
const RETRY_REFUSED: Duration = Duration::from_secs(30);
/// An answer that an end of an era overtook is asked for again so often.
const ATTEMPTS_MAX: u32 = 3;

/// One keyset as this gateway may use it.
pub(crate) struct KeysetAccess {
    /// The keyset.
    pub keyset_id: KeysetId,
    /// The operators' name for it, for error texts.
    pub name: String,
    /// What new epochs are sealed to.
    pub version: u32,
    /// `pk_v` of that version.
    pub public_key: KemPublicKey,
    /// `PSK_{v,s}`; absent without the verb `write`.
    pub psk: Option<Psk>,
    verbs: Vec<Verb>,
    narrow_verbs: Vec<Verb>,
    /// Copies have to lie under the newest version (docs/format.md §2.1).
    pub era_shred: bool,
    /// The keyset record, for the system area.
    pub record: Vec<u8>,
}

impl KeysetAccess {
    /// Whether the whole keyset is granted for `verb`.
    pub(crate) fn grants(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether a copy may lie in an epoch of which the service says that this is its oldest version. Only a keyset that is shredded by era
    /// draws a line; what is not known is older there.
    pub(crate) fn is_of_this_era(&self, version: Option<u32>) -> bool {
        !self.era_shred || version.is_some_and(|version| version >= self.version)
    }

    /// Whether `verb` is granted at least somewhere in the keyset.
    pub(crate) fn grants_somewhere(&self, verb: Verb) -> bool {
        self.grants(verb) || self.narrow_verbs.contains(&verb)
    }

    fn from_wire(keyset: SessionKeyset) -> Result<Self, GatewayError> {
        let malformed = |_| GatewayError::Internal("the key service sent a malformed keyset");
        Ok(Self {
            keyset_id: KeysetId::new(keyset.keyset_id.0),
            name: keyset.name,
            version: keyset.version,
            public_key: KemPublicKey::from_slice(keyset.public_key.as_bytes()).map_err(malformed)?,
            psk: keyset.psk.map(|psk| Psk::from_slice(psk.expose())).transpose().map_err(malformed)?,
            verbs: keyset.verbs,
            narrow_verbs: keyset.narrow_verbs,
            era_shred: keyset.era_shred,
            record: keyset.record.0,
        })
    }
}

/// One answer of the key service.
pub(crate) struct SessionState {
    /// This gateway in epoch records.
    pub gateway_id: SealerId,
    /// When it was asked for, on the boot-time clock.
    pub asked_boot_ms: u64,
    keysets: HashMap<KeysetId, Arc<KeysetAccess>>,
    binding_ttl_ms: u64,
    ttl: Duration,
}

/// The session, refreshed in the background.
pub(crate) struct Session {
    keys: Arc<dyn KeyService>,
    era: Era,
    state: ArcSwapOption<SessionState>,
    seed: Mutex<Zeroizing<[u8; 32]>>,
    /// Ends the wait between two refreshes.
    wake: Notify,
}

impl Session {
    pub(crate) fn new(keys: Arc<dyn KeyService>, era: Era) -> Self {
        let seed = Mutex::new(Zeroizing::new([0; 32]));
        Self { keys, era, state: ArcSwapOption::empty(), seed, wake: Notify::new() }
    }

    /// Asks the service and keeps the answer.
    ///
    /// # Errors
    /// When the service can't answer; what was known before stays in force.
    pub(crate) async fn refresh(&self) -> Result<Arc<SessionState>, GatewayError> {
        for _ in 0..ATTEMPTS_MAX {
            let held = self.era.now();
            let Answer { value: info, sent_boot_ms } = self.keys.session().await?;
            if held.is_over() {
                continue;
            }
            self.seed().copy_from_slice(info.seed.expose());
            let state = Arc::new(SessionState::from_wire(info, sent_boot_ms)?);
            self.state.store(Some(state.clone()));
            if held.is_over() {
                // Forgotten while it was stored: it must not come back by this.
                self.forget();
                continue;
            }
            return Ok(state);
        }
        Err(GatewayError::TakenBack)
    }

    /// Drops what the service said, and asks again at once and for as long as it takes. To be called when an era has ended.
    pub(crate) fn forget(&self) {
        self.state.store(None);
        self.seed().fill(0);
        self.ask_soon();
    }

    /// Asks again at once, in the background; what is known stays in force.
    pub(crate) fn ask_soon(&self) {
        self.wake.notify_one();
    }

    /// Refreshes for ever; to be spawned. `report` hears of every success and failure, `parted` once when the service says,
    /// and says again, that it does not know this gateway (any more): `unknown`; and once when this gateway does not trust the
    /// service any more: `distrusted`.
    pub(crate) async fn keep_fresh(
        self: Arc<Self>,
        report: impl Fn(Result<(), &GatewayError>) + Send,
        parted: impl Fn(&'static str) + Send,
    ) {
        let mut refusals = 0;
        let mut is_distrusted = false;
        loop {
            let wait = match self.refresh().await {
                Ok(state) => {
                    (refusals, is_distrusted) = (0, false);
                    report(Ok(()));
                    state.ttl / 2
                }
                Err(error @ GatewayError::KeyService(KeyServiceError::Unauthenticated { .. })) => {
                    refusals += 1;
                    report(Err(&error));
                    // Once may be the connection, which can outlive its certificate.
                    if refusals == REFUSALS_MAX {
                        parted("unknown");
                    }
                    if refusals < REFUSALS_MAX { RETRY } else { RETRY_REFUSED }
                }
                Err(error @ GatewayError::KeyService(KeyServiceError::Distrusted { .. })) => {
                    report(Err(&error));
                    if !std::mem::replace(&mut is_distrusted, true) {
                        parted("distrusted");
                    }
                    RETRY
                }
                // The stream tells when it is over.
                Err(error @ GatewayError::KeyService(KeyServiceError::Frozen { .. })) => {
                    report(Err(&error));
                    RETRY_REFUSED
                }
                Err(error) => {
                    report(Err(&error));
                    RETRY
                }
            };
            // Time over or called: both are a reason to ask.
            drop(tokio::time::timeout(wait, self.wake.notified()).await);
        }
    }

    /// The state in force.
    ///
    /// # Errors
    /// Unavailable while the service has never answered.
    pub(crate) fn state(&self) -> Result<Arc<SessionState>, GatewayError> {
        self.state.load_full().ok_or_else(|| {
            KeyServiceError::Unavailable { reason: UnavailableReason::Connection, retry_after_ms: 2_000 }
                .into()
        })
    }

    /// A keyset of this gateway; asks once more when it is not known yet (it may be new).
    ///
    /// # Errors
    /// Denied when this gateway has no access to the keyset.
    pub(crate) async fn keyset(&self, keyset_id: KeysetId) -> Result<Arc<KeysetAccess>, GatewayError> {
        if let Some(keyset) = self.state()?.keysets.get(&keyset_id) {
            return Ok(keyset.clone());
        }
        self.refresh().await?.keysets.get(&keyset_id).cloned().ok_or_else(|| {
            let text = format!("this gateway is granted nothing on keyset {keyset_id}");
            KeyServiceError::Denied { text }.into()
        })
    }

    /// All keysets of this gateway.
    pub(crate) fn keysets(&self) -> Vec<Arc<KeysetAccess>> {
        self.state.load().as_ref().map(|state| state.keysets.values().cloned().collect()).unwrap_or_default()
    }

    /// How long a binding may be used without asking, in milliseconds.
    pub(crate) fn binding_ttl_ms(&self) -> u64 {
        self.state
            .load()
            .as_ref()
            .map_or(u64::from(BINDING_TTL_S_DEFAULT) * 1000, |state| state.binding_ttl_ms)
    }

    fn seed(&self) -> MutexGuard<'_, Zeroizing<[u8; 32]>> {
        self.seed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service's randomness for the next WEK; zeros once it is used up (docs/format.md §2.2).
    pub(crate) fn take_seed(&self) -> Zeroizing<[u8; 32]> {
        std::mem::replace(&mut *self.seed(), Zeroizing::new([0; 32]))
    }
}

impl SessionState {
    fn from_wire(info: SessionInfo, asked_boot_ms: u64) -> Result<Self, GatewayError> {
        let mut keysets = HashMap::new();
        for keyset in info.keysets {
            let access = KeysetAccess::from_wire(keyset)?;
            keysets.insert(access.keyset_id, Arc::new(access));
        }
        Ok(Self {
            gateway_id: SealerId::new(info.gateway_id.0),
            asked_boot_ms,
            keysets,
            binding_ttl_ms: u64::from(info.binding_ttl_s) * 1000,
            ttl: Duration::from_secs(u64::from(info.session_ttl_s).max(2)),
        })
    }
}
