//! The file of access keys: from TOML to identities.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use claviger_s3::cors::AllowedOrigins;
use serde::Deserialize;
use toml::Spanned;
use zeroize::Zeroizing;

use super::{ANONYMOUS, Identities, Identity, SecretAccessKey, SessionToken, UpstreamAccount};
use crate::authz::{Actions, Glob, Grant};
use crate::config::{is_host, line_at};
use crate::secret_file::{SecretFileError, read_secret_file};

/// Characters of a secret at least: 16 of base64 are 96 bits.
const SECRET_LEN_MIN: usize = 16;

/// Why a file of credentials is refused. Names the place, never the secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file can't be read, or others may read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// Not the TOML that is expected.
    #[error("{path}:{line}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser said about it.
        message: String,
    },
    /// Two entries have the same access key id.
    #[error("{path}: the access key id {access_key_id:?} occurs twice; remove one", path = path.display())]
    DoubleKey {
        /// The file.
        path: PathBuf,
        /// The id.
        access_key_id: String,
    },
    /// The id is empty, too long, or has characters that a signature's scope can't hold.
    #[error(
        "{path}: the access key id {access_key_id:?} must be 3 to 128 letters, digits, `-`, `_`, `.` or `:`",
        path = path.display()
    )]
    KeyId {
        /// The file.
        path: PathBuf,
        /// The id.
        access_key_id: String,
    },
    /// The secret could be guessed.
    #[error(
        "{path}: the secret of {access_key_id:?} is shorter than 16 characters; make one with: openssl rand -base64 30",
        path = path.display()
    )]
    WeakSecret {
        /// The file.
        path: PathBuf,
        /// The id whose secret it is.
        access_key_id: String,
    },
    /// No key can have the id that stands for requests without a signature.
    #[error("{path}: {ANONYMOUS:?} is no access key; [anonymous] lets requests without a signature in", path = path.display())]
    AnonymousKey {
        /// The file.
        path: PathBuf,
    },
    /// A session token that no request could carry.
    #[error(
        "{path}: the session_token of {access_key_id:?} is empty or not printable ASCII; leave it out for a key without one",
        path = path.display()
    )]
    SessionToken {
        /// The file.
        path: PathBuf,
        /// The id whose token it is.
        access_key_id: String,
    },
    /// A key of an account that isn't there.
    #[error(
        "{path}:{line}: there is no upstream account {name:?}; add an [[account]] with this name to the file that \
         upstream.credentials_file names, and restart",
        path = path.display()
    )]
    UnknownAccount {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The name.
        name: String,
    },
    /// An account whose name can't stand.
    #[error("{path}:{line}: the account name {name:?} {message}", path = path.display())]
    Account {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The name.
        name: String,
        /// What is wrong with it, and the remedy.
        message: &'static str,
    },
    /// An entry of `anonymous.origins` that no browser would send.
    #[error(
        "{path}: entry {number} of anonymous.origins is no origin; write scheme://host[:port] in lower case, or \"*\"",
        path = path.display()
    )]
    Origin {
        /// The file.
        path: PathBuf,
        /// Which entry, from 1.
        number: usize,
    },
    /// An entry of `anonymous.hosts` that no request would name.
    #[error(
        "{path}: entry {number} of anonymous.hosts is no host name; write it in lower case, without scheme and port",
        path = path.display()
    )]
    Host {
        /// The file.
        path: PathBuf,
        /// Which entry, from 1.
        number: usize,
    },
    /// A grant that says something that can't be held to.
    #[error("{path}: a grant of {access_key_id:?} {message}", path = path.display())]
    Grant {
        /// The file.
        path: PathBuf,
        /// The id whose grant it is.
        access_key_id: String,
        /// What is wrong with it, and the remedy.
        message: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    #[serde(default)]
    key: Vec<KeyToml>,
    anonymous: Option<AnonymousToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousToml {
    #[serde(default)]
    origins: Vec<String>,
    #[serde(default)]
    hosts: Vec<String>,
    #[serde(default)]
    allow: Vec<AllowToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyToml {
    access_key_id: String,
    secret_access_key: Zeroizing<String>,
    session_token: Option<Zeroizing<String>>,
    upstream_account: Option<Spanned<String>>,
    name: Option<String>,
    #[serde(default)]
    allow: Vec<AllowToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowToml {
    buckets: Vec<String>,
    #[serde(default)]
    prefix: String,
    actions: Vec<ActionToml>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum ActionToml {
    Read,
    Write,
    Delete,
    List,
    Manage,
}

pub(super) fn load(path: &Path, accounts: &[String]) -> Result<Identities, CredentialsError> {
    let text = read_secret_file(path)?;
    let file: FileToml = parse(path, &text)?;
    let mut keys = HashMap::new();
    for key in file.key {
        let account = upstream_account(path, &text, key.upstream_account.as_ref(), accounts)?;
        let identity = identity(path, key, account)?;
        let access_key_id = identity.access_key_id.clone();
        if keys.insert(access_key_id.clone(), Arc::new(identity)).is_some() {
            return Err(CredentialsError::DoubleKey { path: path.to_path_buf(), access_key_id });
        }
    }
    let anonymous = file.anonymous.map(|anonymous| anonymous_identity(path, anonymous)).transpose()?;
    Ok(Identities { keys, anonymous: anonymous.map(Arc::new) })
}

/// TOML into `T`. Of the parser's message only what holds no value of the file is kept.
pub(super) fn parse<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, CredentialsError> {
    toml::from_str(text).map_err(|error| CredentialsError::Syntax {
        path: path.to_path_buf(),
        line: error.span().map_or(1, |span| line_at(text, span.start)),
        message: harmless_message(error.message()),
    })
}

/// `toml` and `serde` quote the offending value in some messages, and here a value may be a secret.
fn harmless_message(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let quotes_a_name_only = first.starts_with("missing field") || first.starts_with("unknown field");
    if quotes_a_name_only {
        return first.to_owned();
    }
    let kind = first.split([':', '`', '"']).next().unwrap_or_default().trim();
    format!("not as expected here ({kind}); deploy/credentials.toml shows the form")
}

fn upstream_account(
    path: &Path,
    text: &str,
    name: Option<&Spanned<String>>,
    accounts: &[String],
) -> Result<UpstreamAccount, CredentialsError> {
    let Some(name) = name else { return Ok(UpstreamAccount::Own) };
    if accounts.contains(name.get_ref()) {
        return Ok(UpstreamAccount::Named(name.get_ref().clone()));
    }
    let (line, name) = (line_at(text, name.span().start), name.get_ref().clone());
    Err(CredentialsError::UnknownAccount { path: path.to_path_buf(), line, name })
}

fn anonymous_identity(path: &Path, anonymous: AnonymousToml) -> Result<Identity, CredentialsError> {
    let grants = grants(path, ANONYMOUS, anonymous.allow)?;
    if grants.iter().any(|grant| grant.actions.manage) {
        return Err(CredentialsError::Grant {
            path: path.to_path_buf(),
            access_key_id: ANONYMOUS.to_owned(),
            message: "allows `manage`; buckets belong to accounts, so give `manage` to an access key",
        });
    }
    let origins = AllowedOrigins::parse(anonymous.origins.iter().map(String::as_str));
    let origins = origins.map_err(|number| CredentialsError::Origin { path: path.to_path_buf(), number })?;
    if let Some(index) = anonymous.hosts.iter().position(|host| host != "*" && !is_host(host)) {
        return Err(CredentialsError::Host { path: path.to_path_buf(), number: index + 1 });
    }
    Ok(Identity::anonymous(grants, origins, anonymous.hosts))
}

fn grants(path: &Path, id: &str, allow: Vec<AllowToml>) -> Result<Vec<Grant>, CredentialsError> {
    let grants = allow.into_iter().map(grant).collect::<Result<_, _>>();
    grants.map_err(|message| CredentialsError::Grant {
        path: path.to_path_buf(),
        access_key_id: id.to_owned(),
        message,
    })
}

fn identity(path: &Path, key: KeyToml, account: UpstreamAccount) -> Result<Identity, CredentialsError> {
    let id = key.access_key_id;
    if !is_access_key_id(&id) {
        return Err(CredentialsError::KeyId { path: path.to_path_buf(), access_key_id: id });
    }
    if key.secret_access_key.len() < SECRET_LEN_MIN {
        return Err(CredentialsError::WeakSecret { path: path.to_path_buf(), access_key_id: id });
    }
    if id == ANONYMOUS {
        return Err(CredentialsError::AnonymousKey { path: path.to_path_buf() });
    }
    let fits =
        |token: &Zeroizing<String>| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    if key.session_token.as_ref().is_some_and(|token| !fits(token)) {
        return Err(CredentialsError::SessionToken { path: path.to_path_buf(), access_key_id: id });
    }
    Ok(Identity {
        grants: grants(path, &id, key.allow)?,
        access_key_id: id,
        name: key.name,
        secret: Some(SecretAccessKey::new(key.secret_access_key.as_str())),
        session_token: key.session_token.as_ref().map(|token| SessionToken::new(token.as_str())),
        upstream_account: account,
        origins: None,
        hosts: Vec::new(),
        signing_keys: Mutex::default(),
    })
}

fn grant(allow: AllowToml) -> Result<Grant, &'static str> {
    if allow.buckets.is_empty() || allow.buckets.iter().any(String::is_empty) {
        return Err("names no bucket; list at least one, for example buckets = [\"*\"]");
    }
    if allow.actions.is_empty() {
        return Err("allows no action; list some of read, write, delete, list, manage");
    }
    let mut actions = Actions::default();
    for action in allow.actions {
        match action {
            ActionToml::Read => actions.read = true,
            ActionToml::Write => actions.write = true,
            ActionToml::Delete => actions.delete = true,
            ActionToml::List => actions.list = true,
            ActionToml::Manage => actions.manage = true,
        }
    }
    if actions.manage && !allow.prefix.is_empty() {
        return Err(
            "has a prefix and allows `manage`, which acts on the whole bucket; give `manage` a grant of its own",
        );
    }
    Ok(Grant {
        buckets: allow.buckets.iter().map(|glob| Glob::new(glob)).collect(),
        prefix: allow.prefix,
        actions,
    })
}

fn is_access_key_id(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    (3..=128).contains(&id.len()) && id.bytes().all(allowed)
}
