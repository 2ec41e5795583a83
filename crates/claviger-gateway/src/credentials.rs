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
//! Further fields of a `[[key]]`: `upstream_account`, the account at the store that its requests are made with (a `name` in
//! the file of accounts; default: the gateway's own), and `session_token`, which then has to come with every request. An
//! `[anonymous]` table lets requests without a signature in, as far as its `[[anonymous.allow]]` go; they go out without a
//! signature too, and the store's own ACLs and policies decide what everybody may do. Its `origins`, such as
//! `["https://app.example"]` or `["*"]`, are those whose pages may read such answers in a browser, if the store's CORS
//! rules say so too; by default there are none. Such requests are answered under the gateway's own names alone (see
//! `own_hosts.rs`); its `hosts` are further ones.
//!
//! The file is looked at every two seconds and on SIGHUP. A new version that is wrong in any way changes nothing:
//! the keys in hand stay, the log and a metric say so.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use claviger_s3::cors::{AllowedOrigins, CrossOrigin};
use claviger_s3::sigv4::SigningKey;
pub use claviger_s3::sigv4::{SecretAccessKey, SessionToken};

use crate::authz::Grant;

mod file;
mod reload;
mod upstream;

pub use file::CredentialsError;
pub use reload::Reload;
pub use upstream::{UpstreamAccounts, UpstreamCredentials};

/// The identity of requests without a signature; no access key can have this id.
pub const ANONYMOUS: &str = "anonymous";

/// The account at the store that requests are made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UpstreamAccount {
    /// The gateway's own.
    Own,
    /// One of the others.
    Named(String),
    /// None: requests go out without a signature.
    Anonymous,
}

/// Who signed a request: one access key, and what it may do (see [`crate::authz`]).
pub struct Identity {
    access_key_id: String,
    name: Option<String>,
    /// `None` for the anonymous one.
    secret: Option<SecretAccessKey>,
    session_token: Option<SessionToken>,
    upstream_account: UpstreamAccount,
    pub(crate) grants: Vec<Grant>,
    /// The pages that may be answered; `None` where a key proves that a page is trusted.
    origins: Option<AllowedOrigins>,
    /// Names of this gateway, beyond those of its configuration, under which it answers the anonymous identity.
    hosts: Vec<String>,
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

    /// The secret that its signatures are checked with; `None` for the anonymous identity.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretAccessKey> {
        self.secret.as_ref()
    }

    /// The token that has to come with its requests, if it has one.
    #[must_use]
    pub fn session_token(&self) -> Option<&SessionToken> {
        self.session_token.as_ref()
    }

    /// The account that its requests to the store are made with.
    pub(crate) fn upstream_account(&self) -> &UpstreamAccount {
        &self.upstream_account
    }

    /// Whether it is the one of requests without a signature.
    pub(crate) fn is_anonymous(&self) -> bool {
        matches!(self.upstream_account, UpstreamAccount::Anonymous)
    }

    /// The identity of requests without a signature.
    pub(crate) fn anonymous(grants: Vec<Grant>, origins: AllowedOrigins, hosts: Vec<String>) -> Self {
        Self {
            access_key_id: ANONYMOUS.to_owned(),
            name: None,
            secret: None,
            session_token: None,
            upstream_account: UpstreamAccount::Anonymous,
            grants,
            origins: Some(origins),
            hosts,
            signing_keys: std::sync::Mutex::default(),
        }
    }

    /// Names under which it is answered besides those of the configuration.
    pub(crate) fn hosts(&self) -> &[String] {
        &self.hosts
    }

    /// Whether what the store says of a page of another origin may reach its browser. Where nobody signs, the store's word
    /// alone would open what this gateway decrypts to any page that somebody on its network looks at.
    pub(crate) fn may_answer(&self, page: &CrossOrigin) -> bool {
        self.origins.as_ref().is_none_or(|origins| origins.include(page))
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

/// What one version of the file says.
struct Identities {
    keys: HashMap<String, Arc<Identity>>,
    anonymous: Option<Arc<Identity>>,
}

/// The access keys in force.
pub struct CredentialStore {
    path: PathBuf,
    accounts: Vec<String>,
    identities: ArcSwap<Identities>,
    seen: std::sync::Mutex<reload::Fingerprint>,
}

impl CredentialStore {
    /// Reads the file at `path`. `accounts` are the names that `upstream_account` may have, now and when the file is
    /// read again.
    ///
    /// # Errors
    /// [`CredentialsError`]: a loose mode, wrong TOML (with its line), a double or weak key, a grant that can't hold, an
    /// account that does not exist.
    pub fn load(path: &Path, accounts: Vec<String>) -> Result<Arc<Self>, CredentialsError> {
        let seen = reload::Fingerprint::of(path);
        let identities = file::load(path, &accounts)?;
        reload::report_keys(identities.keys.len());
        Ok(Arc::new(Self {
            path: path.to_path_buf(),
            accounts,
            identities: ArcSwap::from_pointee(identities),
            seen: std::sync::Mutex::new(seen),
        }))
    }

    /// The identity with this access key id, if there is one. A request keeps it to its end, whatever is reloaded.
    #[must_use]
    pub fn lookup(&self, access_key_id: &str) -> Option<Arc<Identity>> {
        self.identities.load().keys.get(access_key_id).cloned()
    }

    /// The identity of requests without a signature, if any are let in.
    #[must_use]
    pub fn anonymous(&self) -> Option<Arc<Identity>> {
        self.identities.load().anonymous.clone()
    }

    /// How many access keys are in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.identities.load().keys.len()
    }

    /// Whether there is none.
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
