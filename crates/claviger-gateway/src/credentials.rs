//! Clients' access keys and what each may do.
//!
//! A TOML file (mode 0600) lists them; what no grant allows is denied:
//!
//! ```toml
//! [[key]]
//! access_key_id = "BACKUP"
//! secret_access_key = "…"                      # at least 16 characters
//! name = "nightly backup"                     # optional, for the log
//!
//! [[key.allow]]
//! buckets = ["backup-*"]                      # `*` stands for any run of characters, `?` for one
//! prefix = "db/"                              # optional: only keys that start so
//! actions = ["read", "write", "delete", "list"]   # and "manage": create and delete the bucket
//! ```
//!
//! The file is looked at every two seconds and on SIGHUP. A new version that is wrong in any way changes nothing:
//! the keys in hand stay, the log and a metric say so.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
pub use claviger_s3::sigv4::SecretAccessKey;
use claviger_s3::sigv4::SigningKey;

use crate::authz::Grant;

mod file;
mod reload;
mod upstream;

pub use file::CredentialsError;
pub use reload::Reload;
pub use upstream::UpstreamCredentials;

/// Who signed a request: one access key, and what it may do (see [`crate::authz`]).
pub struct Identity {
    access_key_id: String,
    name: Option<String>,
    secret: SecretAccessKey,
    pub(crate) grants: Vec<Grant>,
    /// Derived from the secret, and gone with it when the file is read again.
    signing_keys: std::sync::Mutex<Vec<Arc<SigningKey>>>,
}

/// Days and regions for which an identity's signing key is kept.
const SIGNING_KEYS_MAX: usize = 8;

impl Identity {
    /// The access key id that requests name.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The operator's name for it, if there is one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The secret that its signatures are checked with.
    #[must_use]
    pub fn secret(&self) -> &SecretAccessKey {
        &self.secret
    }

    pub(crate) fn new(id: String, name: Option<String>, secret: SecretAccessKey, grants: Vec<Grant>) -> Self {
        Self { access_key_id: id, name, secret, grants, signing_keys: std::sync::Mutex::default() }
    }

    /// The signing key of a day and region, if a signature made with it was right before.
    pub(crate) fn known_signing_key(&self, date: &str, region: &str) -> Option<Arc<SigningKey>> {
        let keys = self.signing_keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        keys.iter().find(|key| key.date() == date && key.region() == region).cloned()
    }

    /// Keeps a signing key with which a signature was right: date and region are the client's choice, so none is
    /// kept before.
    pub(crate) fn keep_signing_key(&self, key: Arc<SigningKey>) {
        let mut keys = self.signing_keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if keys.len() >= SIGNING_KEYS_MAX {
            keys.remove(0);
        }
        keys.push(key);
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

type Identities = HashMap<String, Arc<Identity>>;

/// The access keys in force.
pub struct CredentialStore {
    path: PathBuf,
    identities: ArcSwap<Identities>,
    seen: std::sync::Mutex<reload::Fingerprint>,
}

impl CredentialStore {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`CredentialsError`]: a loose mode, wrong TOML (with its line), a double or weak key, a grant that can't hold.
    pub fn load(path: &Path) -> Result<Arc<Self>, CredentialsError> {
        let seen = reload::Fingerprint::of(path);
        let identities = file::load(path)?;
        reload::report_keys(identities.len());
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            identities: ArcSwap::from_pointee(identities),
            seen: std::sync::Mutex::new(seen),
        }))
    }

    /// The identity with this access key id, if there is one. A request keeps it to its end, whatever is reloaded.
    #[must_use]
    pub fn lookup(&self, access_key_id: &str) -> Option<Arc<Identity>> {
        self.identities.load().get(access_key_id).cloned()
    }

    /// How many access keys are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.load().len()
    }

    /// Whether there is none, so that every request is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for CredentialStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialStore").field("path", &self.path).field("keys", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests;
