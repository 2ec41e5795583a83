//! The demonstration's folder: what is kept from one start to the next, and what is written for the user.
//!
//! ```text
//! DIR/credentials.env     what a shell sources to use the endpoint (0600)
//! DIR/demo.json           keys of the user and of the provider's account, and where both listen now (0600)
//! DIR/gateway/            the gateway's access keys, upstream account and identity
//! DIR/keyservice/         the key service's state
//! DIR/recovery/           the recovery shares; belongs on paper, in different safes
//! DIR/provider/           what the provider has: plain files
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_format::random::Random;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Random bytes behind a secret access key.
const SECRET_LEN: usize = 30;

/// An open folder; no second process can open it meanwhile.
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// `demo.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// What S3 clients sign with.
    pub(crate) user: KeyPair,
    /// What the gateway signs with at the embedded provider.
    pub(crate) provider: KeyPair,
    /// Where things were at the last start.
    pub(crate) run: Option<Run>,
}

#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyPair {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// The gateway.
    pub(crate) endpoint: String,
    /// The store behind it.
    pub(crate) upstream: String,
    /// The region that clients are told.
    pub(crate) region: String,
    /// The store's region.
    pub(crate) upstream_region: String,
    /// The account at the store.
    pub(crate) upstream_key: KeyPair,
    /// Whether the store is the embedded one.
    pub(crate) embedded: bool,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Folder {
    /// Opens the folder, making it if it is not there.
    ///
    /// # Errors
    /// When it can't be written, or another demonstration runs in it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        private_folder(path)?;
        let lock_path = path.join("demo.lock");
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path)?;
        if lock.try_lock().is_err() {
            bail!("another demo runs in {}; stop it, or give this one another --dir", path.display());
        }
        let path = fs::canonicalize(path)?;
        for name in ["gateway", "keyservice", "recovery", "provider"] {
            private_folder(&path.join(name))?;
        }
        Ok(Self { path, _lock: lock })
    }

    /// A path in the folder, absolute.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The state of earlier starts, or a new one.
    ///
    /// # Errors
    /// When it can't be read, or no random bytes are to be had.
    pub(crate) fn state(&self, random: &dyn Random) -> Result<State> {
        match load_state(&self.path)? {
            Some(state) => Ok(state),
            None => {
                let user = KeyPair::draw("CLAVIGERDEMO", random)?;
                let state = State { user, provider: KeyPair::draw("PROVIDERDEMO", random)?, run: None };
                self.save(&state)?;
                Ok(state)
            }
        }
    }

    /// Keeps the state.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn save(&self, state: &State) -> Result<()> {
        write_private(&self.join("demo.json"), &serde_json::to_string_pretty(state)?)
    }
}

/// The state in `folder`, if a demonstration ever ran there.
///
/// # Errors
/// When it can't be read.
pub(crate) fn load_state(folder: &Path) -> Result<Option<State>> {
    let path = folder.join("demo.json");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let state = serde_json::from_str(&text);
            Ok(Some(state.with_context(|| format!("{} is not of this version of Claviger", path.display()))?))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

impl KeyPair {
    fn draw(access_key_id: &str, random: &dyn Random) -> Result<Self> {
        let mut bytes = [0; SECRET_LEN];
        random.fill(&mut bytes)?;
        let secret_access_key = URL_SAFE_NO_PAD.encode(bytes);
        bytes.zeroize();
        Ok(Self { access_key_id: access_key_id.to_owned(), secret_access_key, session_token: None })
    }
}

fn private_folder(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("can't make the folder {}", path.display()))
}

/// Writes a file that only its owner may read, in one step: whoever reads sees the old content or the new.
///
/// # Errors
/// When it can't be written.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        // A left-over of a crash may have another mode; a new file surely has this one.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use claviger_env::{OsRandom, SystemClock};

    use super::*;

    #[test]
    fn keys_survive_a_restart_and_only_the_owner_may_read_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/demo");
        let random = OsRandom::new(std::sync::Arc::new(SystemClock)).unwrap();
        let first = Folder::open(&path).unwrap().state(&random).unwrap();
        let second = Folder::open(&path).unwrap().state(&random).unwrap();
        assert_eq!(first.user.secret_access_key, second.user.secret_access_key);
        assert_ne!(first.user.secret_access_key, first.provider.secret_access_key);
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("demo.json"), mode(""), mode("recovery")), (0o600, 0o700, 0o700));
        assert!(!format!("{:?}", first.user).contains(&first.user.secret_access_key));
    }

    #[test]
    fn one_folder_holds_one_running_demo() {
        let folder = tempfile::tempdir().unwrap();
        let held = Folder::open(folder.path()).unwrap();
        assert!(Folder::open(folder.path()).is_err());
        drop(held);
        assert!(Folder::open(folder.path()).is_ok());
    }

    #[test]
    fn a_private_file_gets_its_mode_even_over_a_loose_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        write_private(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
