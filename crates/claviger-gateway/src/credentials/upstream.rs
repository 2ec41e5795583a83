//! The accounts at the store that requests go out with: the gateway's own, and those that clients' access keys are
//! mapped to.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::file::parse;
use super::{CredentialsError, SecretAccessKey};
use crate::config::line_at;
use crate::secret_file::read_secret_file;

/// What requests to the store are signed with.
pub struct UpstreamCredentials {
    access_key_id: String,
    secret: SecretAccessKey,
    session_token: Option<Zeroizing<String>>,
}

/// Everything in the file of accounts.
#[derive(Debug)]
pub struct UpstreamAccounts {
    /// The gateway's own account: of the system bucket, and of every client that no other is named for.
    pub own: UpstreamCredentials,
    /// The others, by their names.
    pub named: BTreeMap<String, UpstreamCredentials>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    #[serde(default)]
    account: Vec<AccountToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountToml {
    name: Spanned<String>,
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl UpstreamAccounts {
    /// Reads `access_key_id`, `secret_access_key` and optionally `session_token` of the gateway's own account, and the
    /// same with a `name` in each `[[account]]`, from a TOML file, mode 0600.
    ///
    /// # Errors
    /// [`CredentialsError`]: a loose mode, wrong TOML, a name that occurs twice or is none.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let text = read_secret_file(path)?;
        let file: FileToml = parse(path, &text)?;
        let own =
            UpstreamCredentials::new(path, file.access_key_id, &file.secret_access_key, file.session_token)?;
        let mut named = BTreeMap::new();
        for account in file.account {
            let refused = |message| CredentialsError::Account {
                path: path.to_path_buf(),
                line: line_at(&text, account.name.span().start),
                name: account.name.get_ref().clone(),
                message,
            };
            let name = account.name.get_ref();
            if !is_account_name(name) {
                return Err(refused("must be 1 to 64 letters, digits, `-`, `_` or `.`"));
            }
            if named.contains_key(name) {
                return Err(refused("occurs twice; give each [[account]] a name of its own"));
            }
            let AccountToml { access_key_id, secret_access_key, session_token, .. } = account;
            let credentials =
                UpstreamCredentials::new(path, access_key_id, &secret_access_key, session_token)?;
            named.insert(account.name.into_inner(), credentials);
        }
        Ok(Self { own, named })
    }

    /// The names that access keys may be mapped to.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.named.keys().cloned().collect()
    }
}

impl UpstreamCredentials {
    fn new(
        path: &Path,
        access_key_id: String,
        secret: &Zeroizing<String>,
        session_token: Option<Zeroizing<String>>,
    ) -> Result<Self, CredentialsError> {
        if access_key_id.is_empty() {
            return Err(CredentialsError::KeyId { path: path.to_path_buf(), access_key_id });
        }
        let secret = SecretAccessKey::new(secret.as_str());
        Ok(Self { access_key_id, secret, session_token })
    }

    /// The account's access key id.
    #[must_use]
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// The account's secret.
    #[must_use]
    pub fn secret(&self) -> &SecretAccessKey {
        &self.secret
    }

    /// The token of a temporary credential; goes out as `x-amz-security-token`.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref().map(String::as_str)
    }
}

fn is_account_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

impl std::fmt::Debug for UpstreamCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}
