//! What the key service says about this gateway: who it is, which keysets it may use and how. Asked at start and
//! again well before it runs out; with the service away the last answer stays in force for writing, because sealing
//! needs nothing that the service could take back (docs/format.md §2.8).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use claviger_format::epoch::KemPublicKey;
use claviger_format::{KeysetId, Psk, SealerId};
use claviger_keyapi::{KeyService, KeyServiceError, SessionInfo, SessionKeyset, UnavailableReason, Verb};
use zeroize::Zeroizing;

use crate::error::GatewayError;

/// Used until the service has said otherwise.
const BINDING_TTL_S_DEFAULT: u32 = 30;
/// How soon to ask again after a failure.
const RETRY: Duration = Duration::from_secs(2);

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
    /// The keyset record, for the system area.
    pub record: Vec<u8>,
}

impl KeysetAccess {
    /// Whether the whole keyset is granted for `verb`.
    pub(crate) fn grants(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
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
            record: keyset.record.0,
        })
    }
}

/// One answer of the key service.
pub(crate) struct SessionState {
    /// This gateway in epoch records.
    pub gateway_id: SealerId,
    keysets: HashMap<KeysetId, Arc<KeysetAccess>>,
    binding_ttl_ms: u64,
    ttl: Duration,
}

/// The session, refreshed in the background.
pub(crate) struct Session {
    keys: Arc<dyn KeyService>,
    state: ArcSwapOption<SessionState>,
    seed: Mutex<Zeroizing<[u8; 32]>>,
}

impl Session {
    pub(crate) fn new(keys: Arc<dyn KeyService>) -> Self {
        Self { keys, state: ArcSwapOption::empty(), seed: Mutex::new(Zeroizing::new([0; 32])) }
    }

    /// Asks the service and keeps the answer.
    ///
    /// # Errors
    /// When the service can't answer; what was known before stays in force.
    pub(crate) async fn refresh(&self) -> Result<Arc<SessionState>, GatewayError> {
        let info = self.keys.session().await?.value;
        self.seed.lock().unwrap_or_else(PoisonError::into_inner).copy_from_slice(info.seed.expose());
        let state = Arc::new(SessionState::from_wire(info)?);
        self.state.store(Some(state.clone()));
        Ok(state)
    }

    /// Refreshes for ever; to be spawned. `report` hears of every success and failure.
    pub(crate) async fn keep_fresh(self: Arc<Self>, report: impl Fn(Result<(), &GatewayError>) + Send) {
        loop {
            let wait = match self.refresh().await {
                Ok(state) => {
                    report(Ok(()));
                    state.ttl / 2
                }
                Err(error) => {
                    report(Err(&error));
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
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

    /// The service's randomness for the next WEK; zeros once it is used up (docs/format.md §2.2).
    pub(crate) fn take_seed(&self) -> Zeroizing<[u8; 32]> {
        let mut seed = self.seed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seed, Zeroizing::new([0; 32]))
    }
}

impl SessionState {
    fn from_wire(info: SessionInfo) -> Result<Self, GatewayError> {
        let mut keysets = HashMap::new();
        for keyset in info.keysets {
            let access = KeysetAccess::from_wire(keyset)?;
            keysets.insert(access.keyset_id, Arc::new(access));
        }
        Ok(Self {
            gateway_id: SealerId::new(info.gateway_id.0),
            keysets,
            binding_ttl_ms: u64::from(info.binding_ttl_s) * 1000,
            ttl: Duration::from_secs(u64::from(info.session_ttl_s).max(2)),
        })
    }
}
