//! Who holds a database: one process, which the advisory lock of its session shows, and which the row `holder` names.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::fault::Fault;
use super::schema;
use crate::ServiceError;

/// How long after its last proof a process may still release.
pub(super) const HOLD_MS: u64 = 10_000;
/// How long a newcomer waits for one that did not say that it ended; longer than [`HOLD_MS`] on any clock that is not broken.
const TAKE_OVER_AFTER: Duration = Duration::from_secs(13);
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Which service works with the database, and where.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    /// Random; also in the state folder and in the database, so that neither is used with another.
    pub(super) instance: String,
    /// This machine's boot and the state folder on it: a process of the same place is dead if the folder's lock is ours.
    pub(super) place: String,
    /// Random, of this process.
    pub(super) process: [u8; 16],
}

impl Claim {
    /// # Errors
    /// [`ServiceError::Io`]; no randomness.
    pub(super) fn of(
        state_dir: &Path,
        instance: String,
        random: &dyn claviger_format::Random,
    ) -> Result<Self, ServiceError> {
        use std::os::unix::fs::MetadataExt as _;
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let boot = std::fs::read_to_string(BOOT_ID).map_err(|e| ServiceError::io(Path::new(BOOT_ID), e))?;
        let folder = std::fs::metadata(state_dir).map_err(|e| ServiceError::io(state_dir, e))?;
        let mut process = [0u8; 16];
        random.fill(&mut process)?;
        Ok(Self { instance, place: format!("{} {}:{}", boot.trim(), folder.dev(), folder.ino()), process })
    }
}

/// Process id of the session's server process and when it began, which tells it from a later one of the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backend {
    pid: i32,
    began: String,
}

pub(super) async fn backend(client: &Client) -> Result<Backend, Error> {
    let row = client
        .query_typed_one(
            "SELECT pid, backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()",
            &[],
        )
        .await;
    let row = row?;
    Ok(Backend { pid: row.try_get(0)?, began: row.try_get(1)? })
}

/// Takes the advisory lock. If our own former session holds it, of which the server has not noticed that it is dead, that
/// one is ended.
pub(super) async fn lock(
    client: &Client,
    former: Option<&Backend>,
    may_wait: impl Fn() -> bool,
) -> Result<(), Fault> {
    let key = [(&schema::LOCK_KEY as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT8)];
    for attempt in 0.. {
        let row = client.query_typed_one("SELECT pg_try_advisory_lock($1)", &key).await?;
        if row.try_get(0)? {
            return Ok(());
        }
        if attempt == 0
            && let Some(Backend { pid, began }) = former
        {
            let end = client
                .query_typed_opt(
                    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity \
                 WHERE pid = $1 AND backend_start::text = $2",
                    &[(pid, Type::INT4), (began, Type::TEXT)],
                )
                .await;
            if end?.is_some() {
                continue;
            }
        }
        if !may_wait() {
            break;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Err(Fault::set_up(
        "the database is in use: another key service works with it",
        "stop that one first. One database serves one process; after a power cut the server may need half a minute to \
         notice that the former one is gone",
    ))
}

/// Database and state folder belong together: the log in one tells of the rows in the other.
pub(super) async fn check_instance(client: &Client, claim: &Claim) -> Result<(), Fault> {
    if !schema::schema_exists(client, schema::SCHEMA).await? {
        return Err(Fault::set_up(
            "the database holds no key service",
            "look at store.postgres: database, and at the server; or restore a backup",
        ));
    }
    let row = client.query_typed_opt("SELECT value FROM meta WHERE name = 'instance'", &[]).await?;
    let instance: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
    if instance.as_deref() == Some(claim.instance.as_bytes()) {
        return Ok(());
    }
    Err(Fault::set_up(
        "the database belongs to a key service with another state folder",
        "use the state_dir that was made with this database; its audit log tells of these rows",
    ))
}

/// Writes down that this process holds the database. If another one did elsewhere and never said that it ended, waits until
/// it can't release anything any more.
pub(super) async fn take_over(client: &Client, claim: &Claim) -> Result<(), Fault> {
    let before = client.query_typed_opt("SELECT place, ended FROM holder", &[]).await?;
    client
        .execute_typed(
            "INSERT INTO holder (one, process, place, ended) VALUES (true, $1, $2, false) \
             ON CONFLICT (one) DO UPDATE SET process = excluded.process, place = excluded.place, ended = false",
            &[(&claim.process.as_slice(), Type::BYTEA), (&claim.place, Type::TEXT)],
        )
        .await?;
    let Some(before) = before else { return Ok(()) };
    if before.try_get(1)? || before.try_get::<_, String>(0)? == claim.place {
        return Ok(());
    }
    tracing::warn!("a key service elsewhere held the database and did not say that it ended: waiting for it");
    tokio::time::sleep(TAKE_OVER_AFTER).await;
    Ok(())
}

pub(super) async fn still_holds(client: &Client, claim: &Claim) -> Result<bool, Fault> {
    let row = client.query_typed_opt("SELECT process FROM holder", &[]).await?;
    let process: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(process.as_deref() == Some(claim.process.as_slice()))
}
