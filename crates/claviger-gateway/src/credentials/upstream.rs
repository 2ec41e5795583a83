//! The gateway's own credentials at the store.

use std::path::Path;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::file::parse;
use super::{CredentialsError, SecretAccessKey};
use crate::secret_file::read_secret_file;

/// What requests to the store are signed with.
pub struct UpstreamCredentials {
    access_key_id: String,
    secret: SecretAccessKey,
    session_token: Option<Zeroizing<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamToml {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
}

impl UpstreamCredentials {
    /// Reads `access_key_id`, `secret_access_key` and optionally `session_token` from a TOML file, mode 0600.
    ///
    /// # Errors
    /// [`CredentialsError`]: a loose mode, wrong TOML.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let text = read_secret_file(path)?;
        let file: UpstreamToml = parse(path, &text)?;
        if file.access_key_id.is_empty() {
            return Err(CredentialsError::KeyId {
                path: path.to_path_buf(),
                access_key_id: file.access_key_id,
            });
        }
        Ok(Self {
            access_key_id: file.access_key_id,
            secret: SecretAccessKey::new(file.secret_access_key.as_str()),
            session_token: file.session_token,
        })
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

impl std::fmt::Debug for UpstreamCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpstreamCredentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}
