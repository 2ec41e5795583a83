//! `--upstream-credentials`: TOML as the gateway reads it, or a file of `export AWS_…=…` lines.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use claviger_gateway::secret_file::read_secret_file;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::folder::KeyPair;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Toml {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// Reads the account of a real store.
///
/// # Errors
/// When the file can be read by others, or holds neither form.
pub(crate) fn load(path: &Path) -> Result<KeyPair> {
    let text = read_secret_file(path)?;
    let toml: Result<Toml, _> = toml::from_str(&text);
    if let Ok(toml) = toml {
        let Toml { access_key_id, secret_access_key, session_token } = toml;
        return Ok(KeyPair { access_key_id, secret_access_key, session_token });
    }
    // The parser's own message could quote the secret.
    from_environment_lines(&text).with_context(|| {
        format!(
            "{}: neither TOML with access_key_id and secret_access_key, nor lines with AWS_ACCESS_KEY_ID=… and \
             AWS_SECRET_ACCESS_KEY=…",
            path.display()
        )
    })
}

fn from_environment_lines(text: &Zeroizing<String>) -> Result<KeyPair> {
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let line = line.trim().trim_start_matches("export ").trim_start();
            let value = line.strip_prefix(name)?.strip_prefix('=')?.trim();
            Some(value.trim_matches(['"', '\'']).to_owned())
        })
    };
    let missing = |name: &str| anyhow!("{name} is missing");
    Ok(KeyPair {
        access_key_id: value("AWS_ACCESS_KEY_ID").ok_or_else(|| missing("AWS_ACCESS_KEY_ID"))?,
        secret_access_key: value("AWS_SECRET_ACCESS_KEY").ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?,
        session_token: value("AWS_SESSION_TOKEN"),
    })
}

#[cfg(test)]
mod tests {
    use super::super::folder::write_private;
    use super::*;

    fn read(text: &str) -> Result<KeyPair> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        write_private(&path, text).unwrap();
        load(&path)
    }

    #[test]
    fn both_forms_are_read() {
        for text in [
            "access_key_id = \"AK\"\nsecret_access_key = \"s/1+=\"\n",
            "export AWS_ACCESS_KEY_ID=AK\nexport AWS_SECRET_ACCESS_KEY=s/1+=\nexport AWS_REGION=x\n",
            "AWS_ACCESS_KEY_ID='AK'\nAWS_SECRET_ACCESS_KEY=\"s/1+=\"\n",
        ] {
            let pair = read(text).unwrap();
            assert_eq!((pair.access_key_id.as_str(), pair.secret_access_key.as_str()), ("AK", "s/1+="));
        }
    }

    #[test]
    fn other_files_are_refused_without_quoting_them() {
        for text in ["", "secret_access_key = s3cr3t", "AWS_SECRET_ACCESS_KEY=s3cr3t"] {
            let error = format!("{:?}", read(text).unwrap_err());
            assert!(error.contains("neither") && !error.contains("s3cr3t"), "{error}");
        }
    }
}
