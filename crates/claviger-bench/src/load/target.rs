//! Whom to ask, as whom, and where in the store.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use claviger_env::{Clock as _, SystemClock};
use claviger_s3::sigv4::{PayloadHash, SecretAccessKey, Signer, SigningKey, sign};
use http::{HeaderMap, Method, Uri};
use rustls::ClientConfig;

/// An account.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) access_key_id: String,
    pub(crate) secret: String,
    pub(crate) region: String,
}

/// An endpoint, an account, and what of the store is this contender's.
pub(crate) struct Target {
    /// `host:port`, of connections and of requests.
    pub(crate) authority: String,
    /// Of certificates.
    pub(crate) host: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    account: Account,
    key: SigningKey,
    pub(crate) bucket: String,
    /// Behind every area of keys.
    pub(crate) owner: String,
    /// In front of every key.
    pub(crate) prefix: String,
}

/// Where a target's objects lie.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) bucket: String,
    pub(crate) owner: String,
    pub(crate) prefix: String,
}

impl Target {
    /// # Errors
    /// When the endpoint is not `http(s)://host[:port]`.
    pub(crate) fn new(
        endpoint: &str,
        tls: &Arc<ClientConfig>,
        account: &Account,
        place: Place,
    ) -> Result<Self> {
        let uri: Uri = endpoint.parse().with_context(|| format!("{endpoint} is no URL"))?;
        let host = uri.host().with_context(|| format!("{endpoint} names no host"))?.to_owned();
        let (is_tls, default_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => bail!("{endpoint} is neither http:// nor https://"),
        };
        let secret = SecretAccessKey::new(account.secret.clone());
        Ok(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(default_port)),
            host,
            tls: is_tls.then(|| Arc::clone(tls)),
            account: account.clone(),
            key: SigningKey::for_time(&secret, SystemClock.now_ms(), &account.region),
            bucket: place.bucket,
            owner: place.owner,
            prefix: place.prefix,
        })
    }

    /// The same endpoint and account, and another bucket.
    pub(crate) fn in_bucket(&self, bucket: &str) -> Self {
        let secret = SecretAccessKey::new(self.account.secret.clone());
        Self {
            authority: self.authority.clone(),
            host: self.host.clone(),
            tls: self.tls.clone(),
            account: self.account.clone(),
            key: SigningKey::for_time(&secret, SystemClock.now_ms(), &self.account.region),
            bucket: bucket.to_owned(),
            owner: self.owner.clone(),
            prefix: self.prefix.clone(),
        }
    }

    /// A key in an area (`get`, `put`, `limited`, `list`, `large`, `ends`, `epochs`).
    pub(crate) fn key(&self, area: &str, name: impl std::fmt::Display) -> String {
        format!("{}{area}/{}/{name}", self.prefix, self.owner)
    }

    /// Signs with an unsigned payload, as clients do over TLS.
    ///
    /// # Errors
    /// When a run goes on over midnight (UTC): the signing key is one day's.
    pub(crate) fn sign(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &mut HeaderMap,
    ) -> Result<()> {
        let signer =
            Signer { access_key_id: &self.account.access_key_id, key: &self.key, session_token: None };
        let payload = PayloadHash::Unsigned;
        sign(&signer, method, path, query, headers, payload, SystemClock.now_ms()).map_err(|error| {
            anyhow!("a request can't be signed (a run can't go on over midnight UTC): {error}")
        })
    }
}
