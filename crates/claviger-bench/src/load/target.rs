//! Whom to ask, as whom, and where in the store.

use std::sync::{Arc, Mutex, PoisonError};

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

impl Account {
    fn derive_key(&self, now_ms: u64) -> Arc<SigningKey> {
        let secret = SecretAccessKey::new(self.secret.clone());
        Arc::new(SigningKey::for_time(&secret, now_ms, &self.region))
    }
}

/// An endpoint, an account, and what of the store is this contender's.
pub(crate) struct Target {
    /// `host:port`, of connections and of requests.
    pub(crate) authority: String,
    /// Of certificates.
    pub(crate) host: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    account: Account,
    /// Today's; a run may go on over midnight.
    key: Mutex<Arc<SigningKey>>,
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
        Ok(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(default_port)),
            host,
            tls: is_tls.then(|| Arc::clone(tls)),
            account: account.clone(),
            key: Mutex::new(account.derive_key(SystemClock.now_ms())),
            bucket: place.bucket,
            owner: place.owner,
            prefix: place.prefix,
        })
    }

    /// The same endpoint and account, and another bucket.
    pub(crate) fn in_bucket(&self, bucket: &str) -> Self {
        Self {
            authority: self.authority.clone(),
            host: self.host.clone(),
            tls: self.tls.clone(),
            account: self.account.clone(),
            key: Mutex::new(self.signing_key(SystemClock.now_ms())),
            bucket: bucket.to_owned(),
            owner: self.owner.clone(),
            prefix: self.prefix.clone(),
        }
    }

    /// A key in an area (`get`, `put`, `limited`, `list`, `large`, `ends`, `epochs`).
    pub(crate) fn key(&self, area: &str, name: impl std::fmt::Display) -> String {
        format!("{}{area}/{}/{name}", self.prefix, self.owner)
    }

    /// The key of the day (UTC) of `now_ms`.
    fn signing_key(&self, now_ms: u64) -> Arc<SigningKey> {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if !key.covers(now_ms) {
            *key = self.account.derive_key(now_ms);
        }
        Arc::clone(&key)
    }

    /// Signs with an unsigned payload, as clients do over TLS.
    ///
    /// # Errors
    /// When a header can't be signed.
    pub(crate) fn sign(
        &self,
        method: &Method,
        path: &str,
        query: &str,
        headers: &mut HeaderMap,
    ) -> Result<()> {
        let now_ms = SystemClock.now_ms();
        let key = self.signing_key(now_ms);
        let signer = Signer { access_key_id: &self.account.access_key_id, key: &key, session_token: None };
        let payload = PayloadHash::Unsigned;
        sign(&signer, method, path, query, headers, payload, now_ms)
            .map_err(|error| anyhow!("a request can't be signed: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;

    use super::*;

    #[test]
    fn a_run_goes_on_over_midnight() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        let account =
            Account { access_key_id: "id".to_owned(), secret: "secret".to_owned(), region: "r".to_owned() };
        let place = Place { bucket: "b".to_owned(), owner: "o".to_owned(), prefix: String::new() };
        let tls =
            ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let target = Target::new("http://localhost", &Arc::new(tls), &account, place).unwrap();
        let evening = 20_000 * DAY_MS - 1;
        assert_eq!(target.signing_key(evening).date(), "20241003");
        assert_eq!(target.signing_key(evening + 1).date(), "20241004");
        assert!(Arc::ptr_eq(&target.signing_key(evening + 1), &target.signing_key(evening + DAY_MS)));
    }
}
