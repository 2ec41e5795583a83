//! What the service shows to those who connect: unlocked a key that lives in memory, locked one from its disk.

use std::sync::{Arc, TryLockError};

use claviger_env::Clock;
use claviger_format::Random;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::tls::{self, LOCKED_NAME, SERVICE_NAME, TlsIdentity};
use claviger_keyapi::wire::Blob;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::{Deserialize, Serialize};

use super::{Core, TlsState};
use crate::ServiceError;
use crate::config::Config;
use crate::files::{read_secret, write_secret_new};
use crate::identity::{Authority, LOCKED_TTL_MS, SERVICE_TTL_MS};
use crate::vault::Vault;

const LOCKED_TLS_FILE: &str = "locked-tls.json";

/// A clock that is set back by less is nobody's mistake.
const SET_BACK_MS: u64 = 60_000;

impl TlsState {
    /// A state that never has to be made anew.
    pub(super) fn for_ever(config: Option<Arc<ServerConfig>>) -> Self {
        Self { config, renew_at_ms: u64::MAX, made_ms: 0 }
    }

    /// In time before it ends; and when it turns out that it was made in what is the future now.
    fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.renew_at_ms || now_ms.saturating_add(SET_BACK_MS) < self.made_ms
    }
}

impl Core {
    /// What a locked service shows. If its file is gone or damaged, the authority that is being dropped makes another.
    pub(super) fn locked_tls(
        &self,
        old: Option<&Vault>,
        now_ms: u64,
    ) -> Result<Arc<ServerConfig>, ServiceError> {
        let identity = match (read_locked_tls(&self.config), old) {
            (Err(error), Some(old)) => {
                tracing::error!(%error, "the locked service's own certificate is made anew");
                replace_locked_tls(&self.config, &old.authority, now_ms, &*self.random)?;
                read_locked_tls(&self.config)?
            }
            (read, _) => read?,
        };
        server_config(identity, self.ca.clone(), &self.clock)
    }

    pub(super) fn unlocked_tls(&self, authority: &Authority, now_ms: u64) -> Result<TlsState, ServiceError> {
        let identity = authority.issue_service(SERVICE_NAME, now_ms, SERVICE_TTL_MS, &*self.random)?;
        Ok(TlsState {
            config: Some(server_config(identity, authority.certificate().clone(), &self.clock)?),
            renew_at_ms: now_ms.saturating_add(SERVICE_TTL_MS / 2),
            made_ms: now_ms,
        })
    }

    /// What the next connection is answered with; makes a new certificate in time. `None` if there is nothing to show.
    pub(crate) fn current_tls(&self) -> Option<Arc<ServerConfig>> {
        let now_ms = self.clock.now_ms();
        if self.tls.load().is_due(now_ms)
            && let Err(error) = self.renew_tls(now_ms)
        {
            tracing::error!(%error, "no new certificate for the service itself");
        }
        self.tls.load().config.clone()
    }

    /// Under the lock of changes: a service that was locked meanwhile must not show the unlocked one's name again. Nobody who connects
    /// waits for it: the certificate is good for half its life yet, and the next one tries again.
    fn renew_tls(&self, now_ms: u64) -> Result<(), ServiceError> {
        let _changes = match self.changes.try_lock() {
            Ok(changes) => changes,
            Err(TryLockError::Poisoned(changes)) => changes.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        if let Ok(vault) = self.vault()
            && self.tls.load().is_due(now_ms)
        {
            self.tls.store(Arc::new(self.unlocked_tls(&vault.authority, now_ms)?));
        }
        Ok(())
    }
}

pub(super) fn server_config(
    identity: TlsIdentity,
    ca: CertificateDer<'static>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, ServiceError> {
    Ok(Arc::new(tls::server_config(identity, ca, Arc::new(ClockTime(Arc::clone(clock))))?))
}

/// Our clock in rustls's shape.
pub(crate) struct ClockTime(pub(crate) Arc<dyn Clock>);

impl std::fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClockTime")
    }
}

impl rustls::time_provider::TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_millis(self.0.now_ms())))
    }
}

/// What a locked service shows: certificate chain and key, base64 of DER.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedTls {
    chain: Vec<Blob>,
    key: SecretText,
}

pub(super) fn read_locked_tls(config: &Config) -> Result<TlsIdentity, ServiceError> {
    use base64::Engine as _;
    let damaged = || ServiceError::Damaged("locked-tls.json");
    let text = read_secret(&config.state_dir.join(LOCKED_TLS_FILE))?;
    let stored: LockedTls = serde_json::from_str(&text).map_err(|_| damaged())?;
    let key = base64::engine::general_purpose::STANDARD.decode(stored.key.expose()).map_err(|_| damaged())?;
    Ok(TlsIdentity {
        chain: stored.chain.into_iter().map(|der| CertificateDer::from(der.0)).collect(),
        key: PrivateKeyDer::Pkcs8(key.into()),
    })
}

/// Writes a fresh certificate and key for the locked state; the old ones are gone afterwards.
pub(crate) fn replace_locked_tls(
    config: &Config,
    authority: &Authority,
    now_ms: u64,
    random: &dyn Random,
) -> Result<(), ServiceError> {
    use base64::Engine as _;
    let identity = authority.issue_service(LOCKED_NAME, now_ms, LOCKED_TTL_MS, random)?;
    let key = base64::engine::general_purpose::STANDARD.encode(identity.key.secret_der());
    let stored = LockedTls {
        chain: identity.chain.iter().map(|der| Blob(der.to_vec())).collect(),
        key: SecretText::new(key),
    };
    let text = zeroize::Zeroizing::new(
        serde_json::to_vec(&stored).map_err(|_| ServiceError::Damaged("locked-tls.json"))?,
    );
    let path = config.state_dir.join(LOCKED_TLS_FILE);
    let fresh = path.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(ServiceError::io(&fresh, error));
        }
        _ => {}
    }
    write_secret_new(&fresh, &text)?;
    std::fs::rename(&fresh, &path).map_err(|e| ServiceError::io(&path, e))?;
    crate::files::sync_folder(&config.state_dir)
}
