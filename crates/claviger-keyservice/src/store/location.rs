//! Where a service's rows lie: a file in the state folder, or a database server that the configuration names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_env::Clock;
use claviger_format::Random;
use serde::{Deserialize, Serialize};

use super::Store;
use super::postgres::{META_INSTANCE, PostgresConfig, PostgresStore};
use super::sqlite::SqliteStore;
use crate::files::{sync_folder, write_secret_new};
use crate::{Config, ServiceError};

/// Name of the embedded database in the state folder.
pub(crate) const DATABASE_FILE: &str = "keyservice.db";
/// Stands in the state folder of a service whose rows lie on a server.
const INSTANCE_FILE: &str = "store.json";

/// Where the rows are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Location {
    /// In the state folder.
    #[default]
    Sqlite,
    /// On a server.
    Postgres(PostgresConfig),
}

impl Location {
    /// What kind of database it is.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres(_) => "postgresql",
        }
    }

    /// How long a replica that joined waits before it may take over, in milliseconds: every gateway looks at the log in that time,
    /// and hears of the new one.
    pub(crate) fn join_wait_ms(&self) -> u64 {
        match self {
            Self::Sqlite => 0,
            Self::Postgres(config) => config.timing.join_wait_ms,
        }
    }

    /// How old the word of another replica may be that bears out what this one sees, in milliseconds; `None` where there are none.
    pub(crate) fn word_ms(&self) -> Option<u64> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(config) => Some(config.timing.word_ms),
        }
    }

    /// How long a takeover waits for the former one, in milliseconds.
    pub(crate) fn take_over_ms(&self) -> u64 {
        match self {
            Self::Sqlite => 0,
            Self::Postgres(config) => {
                u64::try_from(config.timing.take_over_after.as_millis()).unwrap_or(u64::MAX)
            }
        }
    }

    /// How often replicas look at each other's logs, in milliseconds; `None` where there are none.
    pub(crate) fn cosign_every_ms(&self) -> Option<u64> {
        match self {
            Self::Sqlite => None,
            Self::Postgres(config) => Some(config.timing.hold_ms),
        }
    }
}

/// Which database belongs to a state folder.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Instance {
    /// Random; stands in the database as well.
    postgres: String,
    /// The folder joined a service that was there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    joined: bool,
}

/// Whether a service lies in `state_dir`.
pub(crate) fn exists(state_dir: &Path) -> bool {
    [DATABASE_FILE, INSTANCE_FILE].iter().any(|name| state_dir.join(name).exists())
}

/// Opens the rows of the service in `config.state_dir`, whose lock the caller holds. Blocks.
///
/// # Errors
/// [`ServiceError::NotInitialised`]; [`ServiceError::DatabaseSetUp`] if the service's rows lie elsewhere than configured;
/// those of the database.
pub(crate) fn open(
    config: &Config,
    clock: &Arc<dyn Clock>,
    random: &dyn Random,
) -> Result<Arc<dyn Store>, ServiceError> {
    let (file, instance) = (config.state_dir.join(DATABASE_FILE), config.state_dir.join(INSTANCE_FILE));
    let elsewhere = |text: &str, remedy: &str| ServiceError::DatabaseSetUp {
        text: format!("{}: {text}", config.state_dir.display()),
        remedy: remedy.to_owned(),
    };
    match &config.store {
        Location::Sqlite if file.exists() => Ok(Arc::new(SqliteStore::open(&file)?)),
        Location::Sqlite if instance.exists() => Err(elsewhere(
            "this service's rows lie in PostgreSQL, which the configuration does not name",
            "add the table [store.postgres] with which it was made",
        )),
        Location::Postgres(_) if file.exists() => Err(elsewhere(
            "this service's rows lie in the folder, in keyservice.db; the configuration names PostgreSQL",
            "remove [store.postgres]; or back up, and restore the backup into a new folder with [store.postgres]",
        )),
        Location::Postgres(server) if instance.exists() => {
            let text = fs::read_to_string(&instance).map_err(|e| ServiceError::io(&instance, e))?;
            let instance: Instance =
                serde_json::from_str(&text).map_err(|_| ServiceError::Damaged(INSTANCE_FILE))?;
            let folder = &config.state_dir;
            let open = if instance.joined { PostgresStore::open_joined } else { PostgresStore::open };
            Ok(Arc::new(open(server, folder, &instance.postgres, clock, random)?))
        }
        _ => Err(ServiceError::NotInitialised(config.state_dir.clone())),
    }
}

/// The rows of a service that is being made. It exists only once they are finished.
pub(crate) struct NewStore {
    store: Making,
    state_dir: PathBuf,
}

enum Making {
    /// Beside its final name.
    Sqlite { store: SqliteStore, path: PathBuf },
    /// In a schema that gets its final name at the end.
    Postgres { store: PostgresStore, instance: Instance },
}

impl NewStore {
    /// Begins; what an attempt that failed left behind goes. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::AlreadyInitialised`]; those of the database.
    pub(crate) fn begin(
        config: &Config,
        clock: &Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let state_dir = config.state_dir.clone();
        if exists(&state_dir) {
            return Err(ServiceError::AlreadyInitialised(state_dir));
        }
        let store = match &config.store {
            Location::Sqlite => {
                let path = state_dir.join("keyservice.db.unfinished");
                remove_leftovers(&path)?;
                Making::Sqlite { store: SqliteStore::open(&path)?, path }
            }
            Location::Postgres(server) => {
                let mut id = [0u8; 16];
                random.fill(&mut id)?;
                let postgres = id.iter().map(|b| format!("{b:02x}")).collect();
                let instance = Instance { postgres, joined: false };
                Making::Postgres { store: PostgresStore::begin(server, &instance.postgres, clock)?, instance }
            }
        };
        Ok(Self { store, state_dir })
    }

    pub(crate) fn store(&self) -> &dyn Store {
        match &self.store {
            Making::Sqlite { store, .. } => store,
            Making::Postgres { store, .. } => store,
        }
    }

    /// From now on the service exists.
    ///
    /// # Errors
    /// [`ServiceError::Io`]; those of the database.
    pub(crate) fn finish(self) -> Result<(), ServiceError> {
        match self.store {
            Making::Sqlite { store, path } => {
                drop(store);
                let database = self.state_dir.join(DATABASE_FILE);
                fs::rename(path, &database).map_err(|e| ServiceError::io(&database, e))?;
                sync_folder(&self.state_dir)
            }
            Making::Postgres { store, instance } => {
                let unfinished = write_instance(&self.state_dir, &instance)?;
                store.finish()?;
                name_instance(&self.state_dir, &unfinished)
            }
        }
    }
}

/// The rows of a service that is there already, for a folder that is to join it. Nobody else's work is disturbed.
///
/// # Errors
/// [`ServiceError::Question`] if the configuration names no server; those of the database.
pub(crate) fn look(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Store>, ServiceError> {
    let Location::Postgres(server) = &config.store else {
        let text = "replicas work with one PostgreSQL database: the configuration has no [store.postgres]";
        return Err(ServiceError::Question(text.to_owned()));
    };
    Ok(Arc::new(PostgresStore::look(server, clock)?))
}

/// From now on the folder belongs to the service that `store` reads.
///
/// # Errors
/// [`ServiceError::Io`]; those of the database.
pub(crate) fn join(state_dir: &Path, store: &dyn Store) -> Result<(), ServiceError> {
    let instance = store.meta(META_INSTANCE)?.and_then(|bytes| String::from_utf8(bytes).ok());
    let postgres = instance.ok_or(ServiceError::Damaged("the database's id"))?;
    let unfinished = write_instance(state_dir, &Instance { postgres, joined: true })?;
    name_instance(state_dir, &unfinished)
}

fn write_instance(state_dir: &Path, instance: &Instance) -> Result<PathBuf, ServiceError> {
    let unfinished = state_dir.join("store.json.unfinished");
    remove(&unfinished)?;
    let text = serde_json::to_vec(instance).map_err(|_| ServiceError::Damaged(INSTANCE_FILE))?;
    write_secret_new(&unfinished, &text)?;
    Ok(unfinished)
}

fn name_instance(state_dir: &Path, unfinished: &Path) -> Result<(), ServiceError> {
    let path = state_dir.join(INSTANCE_FILE);
    fs::rename(unfinished, &path).map_err(|e| ServiceError::io(&path, e))?;
    sync_folder(state_dir)
}

fn remove_leftovers(unfinished: &Path) -> Result<(), ServiceError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = unfinished.as_os_str().to_owned();
        name.push(suffix);
        remove(Path::new(&name))?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), ServiceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(ServiceError::io(path, error)),
        _ => Ok(()),
    }
}
