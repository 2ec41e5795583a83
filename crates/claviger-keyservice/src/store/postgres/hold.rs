//! Who holds a database: one process, which the advisory lock of its session shows, and which the row `holder` names.

use std::path::Path;
use std::time::Duration;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error};

use super::fault::Fault;
use super::schema;
use super::session::{CONNECT_TIMEOUT, late};
use super::worker::Shared;
use crate::ServiceError;

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
    /// The folder joined a service that exists: it begins as a standby, whoever else is there.
    pub(super) joined: bool,
}

impl Claim {
    /// # Errors
    /// [`ServiceError::Io`]; no randomness.
    pub(super) fn of(
        state_dir: &Path,
        (instance, joined): (String, bool),
        random: &dyn claviger_format::Random,
    ) -> Result<Self, ServiceError> {
        use std::os::unix::fs::MetadataExt as _;
        const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
        let boot = std::fs::read_to_string(BOOT_ID).map_err(|e| ServiceError::io(Path::new(BOOT_ID), e))?;
        let folder = std::fs::metadata(state_dir).map_err(|e| ServiceError::io(state_dir, e))?;
        let mut process = [0u8; 16];
        random.fill(&mut process)?;
        let place = format!("{} {}:{}", boot.trim(), folder.dev(), folder.ino());
        Ok(Self { instance, place, process, joined })
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

/// Takes the advisory lock, if it can be had. If our own former session holds it, of which the server has not noticed that it is
/// dead, that one is ended.
pub(super) async fn lock(
    client: &Client,
    former: Option<&Backend>,
    may_wait: impl Fn() -> bool,
) -> Result<bool, Fault> {
    let key = [(&schema::LOCK_KEY as &(dyn ToSql + Sync), Type::INT8)];
    for attempt in 0.. {
        let row = client.query_typed_one("SELECT pg_try_advisory_lock($1)", &key).await?;
        if row.try_get(0)? {
            return Ok(true);
        }
        if attempt == 0
            && let Some(former) = former
            && end(client, former).await?
        {
            continue;
        }
        if !may_wait() {
            break;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Ok(false)
}

/// Ends a session, if it is still there.
pub(super) async fn end(client: &Client, Backend { pid, began }: &Backend) -> Result<bool, Fault> {
    let ended = client
        .query_typed_opt(
            "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE pid = $1 AND backend_start::text = $2",
            &[(pid, Type::INT4), (began, Type::TEXT)],
        )
        .await;
    Ok(ended?.is_some())
}

pub(super) fn in_use() -> Fault {
    Fault::set_up(
        "the database is in use: another key service works with it",
        "stop that one first. One database serves one process, unless others joined it as replicas; after a power cut the \
         server may need half a minute to notice that the former one is gone",
    )
}

/// What a standby sees of the one who works with the database.
pub(super) struct Sight {
    /// The session that holds the lock, and for how long it has said nothing.
    pub(super) holder: Option<(Backend, u64)>,
    /// The last one said that it ended, or there never was one.
    pub(super) ended: bool,
}

/// Looks who works with the database.
pub(super) async fn look(client: &Client) -> Result<Sight, Fault> {
    let (high, low) = (schema::LOCK_KEY >> 32, schema::LOCK_KEY & 0xffff_ffff);
    let row = client
        .query_typed_opt(
            "SELECT a.pid, a.backend_start::text, \
             coalesce(extract(epoch FROM clock_timestamp() - a.state_change) * 1000, 0)::int8 \
             FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid::int8 = $1 AND l.objid::int8 = $2 \
             AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[(&high, Type::INT8), (&low, Type::INT8)],
        )
        .await?;
    let holder = row.map(|row| {
        let silent_ms = u64::try_from(row.try_get::<_, i64>(2)?).unwrap_or(0);
        Ok::<_, Error>((Backend { pid: row.try_get(0)?, began: row.try_get(1)? }, silent_ms))
    });
    let ended = client.query_typed_opt("SELECT ended FROM holder", &[]).await?;
    let ended = ended.map_or(Ok(true), |row| row.try_get(0))?;
    Ok(Sight { holder: holder.transpose()?, ended })
}

/// Whether several logs are registered, so that a process that finds the database in use has a place beside the one that uses
/// it. What it finds is not believed: each checks the rows before it releases anything.
pub(super) async fn is_replicated(client: &Client) -> Result<bool, Fault> {
    let row = client.query_typed_one("SELECT count(*) > 1 FROM authorising_row WHERE kind = 'log'", &[]);
    Ok(row.await?.try_get(0)?)
}

/// There is a service in it.
pub(super) async fn check_service(client: &Client) -> Result<(), Fault> {
    if schema::schema_exists(client, schema::SCHEMA).await? {
        return Ok(());
    }
    Err(Fault::set_up(
        "the database holds no key service",
        "look at store.postgres: database, and at the server; or restore a backup",
    ))
}

/// Database and state folder belong together: the log in one tells of the rows in the other.
pub(super) async fn check_instance(client: &Client, claim: &Claim) -> Result<(), Fault> {
    check_service(client).await?;
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

/// Writes down that this process holds the database, and waits until nobody who held it before can release anything any more.
///
/// The row says when that is, by the server's clock, for all of them: who vanished without a word may release until then, whoever
/// came after him, whether that one has waited, and whether it is this very process that tries again because an answer was lost.
/// Only one that ran in the same place is dead for certain, and one that said that it ended releases nothing; neither puts the moment
/// off. What this process knows of the moment by its own clock counts as well: the server's may be set forward meanwhile.
///
/// While it waits it says something as often as one that works: a third replica must not take it for one that hangs.
pub(super) async fn take_over(client: &Client, claim: &Claim, shared: &Shared) -> Result<(), Fault> {
    let timing = &shared.timing;
    let wait = timing.take_over_after;
    let known_ms = shared.quiet_from();
    // Should the answer be lost.
    shared.set_quiet_from(known_ms.max(shared.after(wait)));
    let wait_ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
    let mine: [(&(dyn ToSql + Sync), Type); 3] =
        [(&claim.process.as_slice(), Type::BYTEA), (&claim.place, Type::TEXT), (&wait_ms, Type::INT8)];
    let written = client.query_typed_one(
        "INSERT INTO holder AS before (one, process, place, ended, quiet_at) VALUES (true, $1, $2, false, clock_timestamp()) \
         ON CONFLICT (one) DO UPDATE SET process = excluded.process, place = excluded.place, ended = false, \
         quiet_at = CASE WHEN before.ended OR before.place = excluded.place THEN before.quiet_at \
         ELSE clock_timestamp() + $3 * interval '1 millisecond' END \
         RETURNING (extract(epoch FROM quiet_at - clock_timestamp()) * 1000)::int8",
        &mine,
    );
    let rest_ms: i64 = in_time(written).await?.try_get(0)?;
    // A server whose clock was set back says more than that.
    let rest = Duration::from_millis(u64::try_from(rest_ms).unwrap_or(0)).min(wait);
    let quiet_ms = known_ms.max(shared.after(rest));
    shared.set_quiet_from(quiet_ms);
    let mut rest = Duration::from_millis(quiet_ms.saturating_sub(shared.clock.boot_ms()));
    if !rest.is_zero() {
        tracing::warn!(
            "a key service elsewhere held the database and did not say that it ended: waiting for it"
        );
    }
    while !rest.is_zero() {
        let pause = rest.min(timing.heartbeat);
        tokio::time::sleep(pause).await;
        rest -= pause;
        if !still_holds(client, claim).await? {
            return Err(in_use());
        }
    }
    Ok(())
}

async fn in_time<T>(answer: impl Future<Output = Result<T, Error>>) -> Result<T, Fault> {
    let answer = tokio::time::timeout(CONNECT_TIMEOUT, answer).await;
    Ok(answer.map_err(|_| late())??)
}

pub(super) async fn still_holds(client: &Client, claim: &Claim) -> Result<bool, Fault> {
    let row = in_time(client.query_typed_opt("SELECT process FROM holder", &[])).await?;
    let process: Option<Vec<u8>> = row.map(|row| row.try_get(0)).transpose()?;
    Ok(process.as_deref() == Some(claim.process.as_slice()))
}
