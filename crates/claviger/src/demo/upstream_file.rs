//! `--upstream-credentials`: the accounts of a real store, in any of the forms in which people have them.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use claviger_gateway::secret_file::read_secret_file;
use serde::Deserialize;

use super::folder::KeyPair;

/// The accounts of a file.
#[derive(Debug)]
pub(crate) struct Accounts {
    /// The gateway's own: the top level of TOML, the profile `default` or else the first one.
    pub(crate) own: KeyPair,
    /// The others.
    pub(crate) others: Vec<KeyPair>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    #[serde(default)]
    account: Vec<AccountToml>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountToml {
    #[serde(rename = "name")]
    _name: String,
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// Reads the accounts of a real store: TOML as the gateway reads it, AWS's shared credentials file, or a file of
/// `export AWS_…=…` lines.
///
/// # Errors
/// When the file can be read by others, or has none of these forms.
pub(crate) fn load(path: &Path) -> Result<Accounts> {
    let text = read_secret_file(path)?;
    if let Ok(toml) = toml::from_str(&text) {
        return Ok(from_toml(toml));
    }
    let is_ini = text.lines().any(|line| line.trim_start().starts_with('['));
    // The TOML parser's own message could quote the secret.
    let accounts = if is_ini { from_profiles(&text) } else { from_environment_lines(&text) };
    accounts.with_context(|| {
        format!(
            "{}: neither TOML with access_key_id and secret_access_key, nor profiles with aws_access_key_id and \
             aws_secret_access_key, nor lines with AWS_ACCESS_KEY_ID=… and AWS_SECRET_ACCESS_KEY=…",
            path.display()
        )
    })
}

fn from_toml(toml: Toml) -> Accounts {
    let Toml { access_key_id, secret_access_key, session_token, account } = toml;
    let other = |account: AccountToml| {
        let AccountToml { access_key_id, secret_access_key, session_token, .. } = account;
        KeyPair { access_key_id, secret_access_key, session_token }
    };
    Accounts {
        own: KeyPair { access_key_id, secret_access_key, session_token },
        others: account.into_iter().map(other).collect(),
    }
}

/// One `[section]` of a shared credentials file, as far as it concerns keys.
#[derive(Default)]
struct Profile {
    name: String,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
}

/// Source: "Configuration and credential file settings in the AWS CLI". Other settings of a profile are none of ours.
fn from_profiles(text: &str) -> Result<Accounts> {
    let mut profiles: Vec<Profile> = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            profiles.push(Profile { name: name.trim().to_owned(), ..Profile::default() });
        } else if let (Some((name, value)), Some(profile)) = (line.split_once('='), profiles.last_mut()) {
            let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
            match name.trim() {
                "aws_access_key_id" => profile.access_key_id = value,
                "aws_secret_access_key" => profile.secret_access_key = value,
                "aws_session_token" => profile.session_token = value,
                _ => {}
            }
        }
    }
    profiles.sort_by_key(|profile| profile.name != "default");
    let mut pairs = Vec::new();
    for Profile { name, access_key_id, secret_access_key, session_token } in profiles {
        match (access_key_id, secret_access_key) {
            (Some(access_key_id), Some(secret_access_key)) => {
                pairs.push(KeyPair { access_key_id, secret_access_key, session_token });
            }
            // A profile that takes its keys from elsewhere.
            (None, None) => {}
            _ => bail!("the profile [{name}] has one of aws_access_key_id and aws_secret_access_key only"),
        }
    }
    if pairs.is_empty() {
        bail!("no profile has keys");
    }
    let own = pairs.remove(0);
    Ok(Accounts { own, others: pairs })
}

fn from_environment_lines(text: &str) -> Result<Accounts> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let line = line.trim().trim_start_matches("export ").trim_start();
            let value = line.strip_prefix(name)?.strip_prefix('=')?.trim();
            Some(value.trim_matches(['"', '\'']).to_owned())
        })
    };
    let missing = |name: &str| anyhow!("{name} is missing");
    let own = KeyPair {
        access_key_id: value("AWS_ACCESS_KEY_ID").ok_or_else(|| missing("AWS_ACCESS_KEY_ID"))?,
        secret_access_key: value("AWS_SECRET_ACCESS_KEY").ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?,
        session_token: value("AWS_SESSION_TOKEN"),
    };
    Ok(Accounts { own, others: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::super::folder::write_private;
    use super::*;

    fn read(text: &str) -> Result<Accounts> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        write_private(&path, text).unwrap();
        load(&path)
    }

    fn pair(pair: &KeyPair) -> (&str, &str, Option<&str>) {
        (&pair.access_key_id, &pair.secret_access_key, pair.session_token.as_deref())
    }

    #[test]
    fn a_single_account_is_read_in_every_form() {
        for text in [
            "access_key_id = \"AK\"\nsecret_access_key = \"s/1+=\"\n",
            "export AWS_ACCESS_KEY_ID=AK\nexport AWS_SECRET_ACCESS_KEY=s/1+=\nexport AWS_REGION=x\n",
            "AWS_ACCESS_KEY_ID='AK'\nAWS_SECRET_ACCESS_KEY=\"s/1+=\"\n",
            "[default]\naws_access_key_id=AK\naws_secret_access_key = s/1+=\nregion = x\n",
        ] {
            let accounts = read(text).unwrap();
            assert_eq!(pair(&accounts.own), ("AK", "s/1+=", None));
            assert!(accounts.others.is_empty());
        }
    }

    #[test]
    fn further_accounts_are_read_and_the_default_profile_is_the_gateways_own() {
        let ini = "# mine\n[alice]\naws_access_key_id = A\naws_secret_access_key = a\naws_session_token = t=\n\n\
                   [sso]\nsso_session = x\n[default]\naws_access_key_id = D\naws_secret_access_key = d\n";
        let toml = "access_key_id = \"D\"\nsecret_access_key = \"d\"\n[[account]]\nname = \"alice\"\n\
                    access_key_id = \"A\"\nsecret_access_key = \"a\"\nsession_token = \"t=\"\n";
        for text in [ini, toml] {
            let accounts = read(text).unwrap();
            assert_eq!(pair(&accounts.own), ("D", "d", None));
            let others: Vec<_> = accounts.others.iter().map(pair).collect();
            assert_eq!(others, [("A", "a", Some("t="))]);
        }
        let first = read("[bob]\naws_access_key_id = B\naws_secret_access_key = b\n").unwrap();
        assert_eq!(pair(&first.own), ("B", "b", None));
    }

    #[test]
    fn other_files_are_refused_without_quoting_them() {
        for text in [
            "",
            "secret_access_key = s3cr3t",
            "AWS_SECRET_ACCESS_KEY=s3cr3t",
            "[default]\naws_secret_access_key = s3cr3t\n",
            "[default]\nregion = x\n",
        ] {
            let error = format!("{:?}", read(text).unwrap_err());
            assert!(error.contains("neither") && !error.contains("s3cr3t"), "{error}");
        }
    }
}
