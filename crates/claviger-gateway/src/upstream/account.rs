//! In whose name requests go to the provider. Owners, ACLs and policies of the store mean through the gateway what they
//! mean directly when each caller's requests are signed with the account that is the caller's own.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use claviger_s3::sigv4::{PayloadHash, Signer, SigningKey, sign};
use http::{HeaderMap, Method};

use crate::credentials::UpstreamCredentials;
use crate::error::GatewayError;

/// Whose requests they are at the provider.
pub(crate) enum Account {
    /// Signed with an account's own key.
    Keyed(KeyedAccount),
    /// Sent without a signature: the provider's ACLs and policies decide what everybody may do.
    Anonymous,
}

/// An account's key, and what was derived from it for today.
pub(crate) struct KeyedAccount {
    credentials: UpstreamCredentials,
    signing_key: ArcSwapOption<SigningKey>,
}

/// What of a request a signature covers, beside its headers.
pub(super) struct ToSign<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path as it goes out, encoded.
    pub path: &'a str,
    /// The query as it goes out, encoded, without `?`.
    pub query: &'a str,
    /// The body's part in it.
    pub payload: PayloadHash<'a>,
    /// The region to sign for.
    pub region: &'a str,
    /// Now, milliseconds since the epoch.
    pub now_ms: u64,
}

impl Account {
    /// An account with a key.
    pub(crate) fn keyed(credentials: UpstreamCredentials) -> Self {
        Self::Keyed(KeyedAccount { credentials, signing_key: ArcSwapOption::empty() })
    }

    /// Adds to the headers of a request what proves whose it is.
    ///
    /// # Errors
    /// When a header can't be signed.
    pub(super) fn sign(&self, what: ToSign<'_>, headers: &mut HeaderMap) -> Result<(), GatewayError> {
        let Self::Keyed(account) = self else { return Ok(()) };
        let key = account.signing_key(what.now_ms, what.region);
        let signer = Signer {
            access_key_id: account.credentials.access_key_id(),
            key: &key,
            session_token: account.credentials.session_token(),
        };
        sign(&signer, what.method, what.path, what.query, headers, what.payload, what.now_ms)?;
        Ok(())
    }
}

impl KeyedAccount {
    fn signing_key(&self, now_ms: u64, region: &str) -> Arc<SigningKey> {
        if let Some(key) = self.signing_key.load_full()
            && key.covers(now_ms)
        {
            return key;
        }
        let key = Arc::new(SigningKey::for_time(self.credentials.secret(), now_ms, region));
        self.signing_key.store(Some(key.clone()));
        key
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Keyed(account) => {
                f.debug_tuple("Keyed").field(&account.credentials.access_key_id()).finish()
            }
            Self::Anonymous => f.write_str("Anonymous"),
        }
    }
}
