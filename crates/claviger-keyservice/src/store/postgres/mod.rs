//! PostgreSQL: the same rows as in SQLite, in a schema `claviger` of a database of its own. A commit that was acknowledged is
//! on the server's disk: `synchronous_commit`, `fsync` and `full_page_writes` are demanded.

mod config;
mod fault;
mod hold;
mod schema;
mod session;
mod snapshot;
mod standby;
mod tls;
mod worker;

use std::path::Path;
use std::sync::Arc;

use claviger_env::Clock;
use claviger_format::Random;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{Client, Error, GenericClient, Row as PgRow, Transaction};

pub(crate) use config::RawPostgres;
pub use config::{PostgresConfig, Server, Timing};
use hold::Claim;
use session::Purpose;
use tls::Connector;
use worker::Worker;

use super::snapshot::{Item, Snapshot};
use super::{Change, EpochMark, EpochPage, EpochRow, FinishedRow, Kind, Notice, Role, Row, Store};
use crate::ServiceError;

/// Name of the id that stands in the state folder as well.
pub(crate) const META_INSTANCE: &str = "instance";
const EPOCH_COLUMNS: &str =
    "epoch_id, gateway_id, keyset_id, created_ms, first_seen_ms, wek_commit, record, mac";

/// Most notices that are read, and the longest one, in bytes. Whatever else lies there was not written by a replica.
const NOTICES_MAX: i64 = 256;
const NOTICE_LEN_MAX: i32 = 64 << 10;

/// A key service's rows in a PostgreSQL database.
pub struct PostgresStore {
    worker: Worker,
    config: PostgresConfig,
    clock: Arc<dyn Clock>,
}

impl PostgresStore {
    /// Opens the database of the service in `state_dir`, whose lock the caller holds. `instance` stands in both. Blocks; up to
    /// 13 s longer if another process held the database elsewhere and never said that it ended.
    ///
    /// # Errors
    /// [`ServiceError::DatabaseSetUp`]: in use, another service's, not durable, written by another release;
    /// [`ServiceError::Database`]: no connection.
    pub fn open(
        config: &PostgresConfig,
        state_dir: &Path,
        instance: &str,
        clock: &Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let claim = Claim::of(state_dir, (instance.to_owned(), false), random)?;
        Self::start(config, Purpose::Serve(claim), clock)
    }

    /// The same for a replica that joined: it begins as a standby ([`Store::role`]).
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub fn open_joined(
        config: &PostgresConfig,
        state_dir: &Path,
        instance: &str,
        clock: &Arc<dyn Clock>,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let claim = Claim::of(state_dir, (instance.to_owned(), true), random)?;
        Self::start(config, Purpose::Serve(claim), clock)
    }

    /// For someone who only reads, beside whoever works with the database.
    ///
    /// # Errors
    /// As for [`Self::open`].
    pub(crate) fn look(config: &PostgresConfig, clock: &Arc<dyn Clock>) -> Result<Self, ServiceError> {
        Self::start(config, Purpose::Look, clock)
    }

    /// Begins a new service in the database; [`Self::open`] finds it only after [`Self::finish`]. Blocks.
    ///
    /// # Errors
    /// [`ServiceError::DatabaseSetUp`] if the database holds a service already; others as for [`Self::open`].
    pub fn begin(
        config: &PostgresConfig,
        instance: &str,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let store = Self::start(config, Purpose::Make, clock)?;
        store.set_meta(META_INSTANCE, instance.as_bytes())?;
        Ok(store)
    }

    fn start(
        config: &PostgresConfig,
        purpose: Purpose,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ServiceError> {
        let worker = Worker::start(config.clone(), purpose, Arc::clone(clock))?;
        Ok(Self { worker, config: config.clone(), clock: Arc::clone(clock) })
    }

    /// The service that was begun exists from now on.
    ///
    /// # Errors
    /// [`ServiceError::Database`].
    pub fn finish(self) -> Result<(), ServiceError> {
        self.worker.call(async |client: &mut Client| {
            let (from, to) = (schema::SCHEMA_UNFINISHED, schema::SCHEMA);
            client.batch_execute(&format!("ALTER SCHEMA {from} RENAME TO {to}")).await
        })
    }
}

impl std::fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PostgresStore")
    }
}

impl Store for PostgresStore {
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        let name = name.to_owned();
        self.worker.read(async move |client: &mut Client| {
            let row = client
                .query_typed_opt("SELECT value FROM meta WHERE name = $1", &[(&name, Type::TEXT)])
                .await;
            row?.map(|row| row.try_get(0)).transpose()
        })
    }

    fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), ServiceError> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.worker.call(async move |client: &mut Client| put_meta(client, &name, &value).await.map(drop))
    }

    fn rows(&self, kind: Kind) -> Result<Vec<Row>, ServiceError> {
        self.worker.read(async move |client: &mut Client| {
            let rows = client
                .query_typed(
                    "SELECT id, body, mac FROM authorising_row WHERE kind = $1 ORDER BY id",
                    &[(&kind.name(), Type::TEXT)],
                )
                .await;
            let row =
                |row: &PgRow| Ok(Row { id: row.try_get(0)?, body: row.try_get(1)?, mac: row.try_get(2)? });
            rows?.iter().map(row).collect()
        })
    }

    fn apply(&self, changes: &[Change]) -> Result<(), ServiceError> {
        let changes = changes.to_vec();
        self.worker.call(async move |client: &mut Client| apply(client, &changes).await)
    }

    fn epoch(&self, epoch_id: &[u8; 16]) -> Result<Option<EpochRow>, ServiceError> {
        let epoch_id = *epoch_id;
        self.worker.read(async move |client: &mut Client| read_epoch(client, &epoch_id).await)
    }

    fn epoch_marks(&self, after: Option<[u8; 16]>, limit: u32) -> Result<Vec<EpochMark>, ServiceError> {
        self.worker.read(async move |client: &mut Client| {
            let after = after.map_or(Vec::new(), |id| id.to_vec());
            let rows = client
                .query_typed(
                    "SELECT epoch_id, mac FROM epoch WHERE epoch_id > $1 ORDER BY epoch_id LIMIT $2",
                    &[(&after, Type::BYTEA), (&i64::from(limit), Type::INT8)],
                )
                .await?;
            rows.iter().map(|row| Ok(EpochMark { epoch_id: array(row, 0)?, mac: row.try_get(1)? })).collect()
        })
    }

    fn epochs(&self, page: EpochPage) -> Result<Vec<EpochRow>, ServiceError> {
        self.worker.read(async move |client: &mut Client| list_epochs(client, page).await)
    }

    fn epoch_count(&self) -> Result<u64, ServiceError> {
        self.worker.read(async |client: &mut Client| {
            let row = client.query_typed_one("SELECT count(*) FROM epoch", &[]).await?;
            row.try_get(0).map(from_sql)
        })
    }

    fn finish_upload(&self, object_id: &[u8; 16], row: &FinishedRow) -> Result<(), ServiceError> {
        let (object_id, row) = (*object_id, row.clone());
        self.worker
            .call(async move |client: &mut Client| put_finished(client, &object_id, &row).await.map(drop))
    }

    fn finished_upload(&self, object_id: &[u8; 16]) -> Result<Option<FinishedRow>, ServiceError> {
        let object_id = *object_id;
        self.worker.read(async move |client: &mut Client| {
            let row = client
                .query_typed_opt(
                    "SELECT finished_ms, mac FROM finished_upload WHERE object_id = $1",
                    &[(&object_id.as_slice(), Type::BYTEA)],
                )
                .await;
            let row = row?;
            let finished =
                |row: PgRow| Ok(FinishedRow { finished_ms: from_sql(row.try_get(0)?), mac: row.try_get(1)? });
            row.map(finished).transpose()
        })
    }

    fn snapshot(&self) -> Result<Snapshot, ServiceError> {
        let (config, connector) = (self.config.clone(), Connector::of(&self.config, &self.clock)?);
        Snapshot::start(move |pages| snapshot::read(&config, connector, pages))
    }

    fn fill(&self, items: &[Item]) -> Result<(), ServiceError> {
        let items = items.to_vec();
        self.worker.call(async move |client: &mut Client| {
            let transaction = client.transaction().await?;
            for item in &items {
                fill_item(&transaction, item).await?;
            }
            transaction.commit().await
        })
    }

    /// The table is written anew; its old file goes. What the server keeps besides (write-ahead log, archives, standbys) is its
    /// administrator's.
    fn scrub(&self) -> Result<(), ServiceError> {
        self.worker.call(async move |client: &mut Client| {
            client.batch_execute("VACUUM (FULL) authorising_row").await
        })
    }

    fn check_ours(&self) -> Result<(), ServiceError> {
        self.worker.shared.check_ours()
    }

    fn role(&self) -> Role {
        self.worker.shared.role()
    }

    fn notices(&self) -> Result<Vec<Notice>, ServiceError> {
        self.worker.read(async |client: &mut Client| {
            let query = "SELECT log, author, body FROM notice WHERE octet_length(body) <= $1 ORDER BY log, author LIMIT $2";
            let bounds: [(&(dyn ToSql + Sync), Type); 2] =
                [(&NOTICE_LEN_MAX, Type::INT4), (&NOTICES_MAX, Type::INT8)];
            let rows = client.query_typed(query, &bounds).await?;
            let notice = |row: &PgRow| {
                Ok(Notice { log: row.try_get(0)?, author: row.try_get(1)?, body: row.try_get(2)? })
            };
            rows.iter().map(notice).collect()
        })
    }

    fn put_notice(&self, notice: &Notice) -> Result<(), ServiceError> {
        let notice = notice.clone();
        self.worker.beside(async move |client: &mut Client| {
            let Notice { log, author, body } = &notice;
            let values: [(&(dyn ToSql + Sync), Type); 3] =
                [(log, Type::TEXT), (author, Type::TEXT), (body, Type::BYTEA)];
            let put = client.execute_typed(
                "INSERT INTO notice (log, author, body) VALUES ($1, $2, $3) \
                 ON CONFLICT (log, author) DO UPDATE SET body = excluded.body",
                &values,
            );
            put.await.map(drop)
        })
    }

    fn stand_ready(&self, ready: bool) {
        self.worker.shared.set_ready(ready);
    }

    fn problem(&self) -> Option<String> {
        self.worker.shared.problem()
    }
}

async fn apply(client: &mut Client, changes: &[Change]) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    for change in changes {
        match change {
            Change::Put(kind, row) => put_row(&transaction, kind.name(), row).await?,
            Change::PutEpoch(row) => put_epoch(&transaction, row).await?,
            Change::ReplaceEpoch { row, .. } => replace_epoch(&transaction, row).await?,
            Change::Delete(kind, id) => {
                let delete = transaction
                    .execute_typed(
                        "DELETE FROM authorising_row WHERE kind = $1 AND id = $2",
                        &[(&kind.name(), Type::TEXT), (id, Type::TEXT)],
                    )
                    .await;
                delete?
            }
        };
    }
    transaction.commit().await
}

async fn put_row(transaction: &Transaction<'_>, kind: &str, row: &Row) -> Result<u64, Error> {
    transaction
        .execute_typed(
            "INSERT INTO authorising_row (kind, id, body, mac) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body, mac = excluded.mac",
            &[(&kind, Type::TEXT), (&row.id, Type::TEXT), (&row.body, Type::BYTEA), (&row.mac, Type::BYTEA)],
        )
        .await
}

async fn put_finished(
    client: &impl GenericClient,
    object_id: &[u8; 16],
    row: &FinishedRow,
) -> Result<u64, Error> {
    client
        .execute_typed(
            "INSERT INTO finished_upload (object_id, finished_ms, mac) VALUES ($1, $2, $3) \
             ON CONFLICT (object_id) DO NOTHING",
            &[
                (&object_id.as_slice(), Type::BYTEA),
                (&to_sql(row.finished_ms), Type::INT8),
                (&row.mac, Type::BYTEA),
            ],
        )
        .await
}

async fn put_meta(client: &impl GenericClient, name: &str, value: &[u8]) -> Result<u64, Error> {
    client
        .execute_typed(
            "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            &[(&name, Type::TEXT), (&value, Type::BYTEA)],
        )
        .await
}

async fn fill_item(transaction: &Transaction<'_>, item: &Item) -> Result<u64, Error> {
    match item {
        Item::Meta { name, value } => put_meta(transaction, name, value).await,
        Item::Row { kind, row } => put_row(transaction, kind, row).await,
        Item::Epoch(row) => put_epoch(transaction, row).await,
        Item::Finished { object_id, row } => put_finished(transaction, object_id, row).await,
    }
}

async fn replace_epoch(transaction: &Transaction<'_>, row: &EpochRow) -> Result<u64, Error> {
    transaction
        .execute_typed(
            "UPDATE epoch SET record = $2, mac = $3 WHERE epoch_id = $1",
            &[(&row.epoch_id.as_slice(), Type::BYTEA), (&row.record, Type::BYTEA), (&row.mac, Type::BYTEA)],
        )
        .await
}

async fn put_epoch(transaction: &Transaction<'_>, row: &EpochRow) -> Result<u64, Error> {
    let insert = format!(
        "INSERT INTO epoch ({EPOCH_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (epoch_id) DO NOTHING"
    );
    let values: [(&(dyn ToSql + Sync), Type); 8] = [
        (&row.epoch_id.as_slice(), Type::BYTEA),
        (&row.gateway_id.as_slice(), Type::BYTEA),
        (&row.keyset_id.as_slice(), Type::BYTEA),
        (&to_sql(row.created_ms), Type::INT8),
        (&to_sql(row.first_seen_ms), Type::INT8),
        (&row.wek_commit.as_slice(), Type::BYTEA),
        (&row.record, Type::BYTEA),
        (&row.mac, Type::BYTEA),
    ];
    transaction.execute_typed(&insert, &values).await
}

async fn read_epoch(client: &Client, epoch_id: &[u8; 16]) -> Result<Option<EpochRow>, Error> {
    let select = format!("SELECT {EPOCH_COLUMNS} FROM epoch WHERE epoch_id = $1");
    let row = client.query_typed_opt(&select, &[(&epoch_id.as_slice(), Type::BYTEA)]).await?;
    row.as_ref().map(epoch_from_row).transpose()
}

async fn list_epochs(client: &Client, page: EpochPage) -> Result<Vec<EpochRow>, Error> {
    let filter = if page.gateway_id.is_some() { "gateway_id = $2" } else { "$2 = $2" };
    let select = format!(
        "SELECT {EPOCH_COLUMNS} FROM epoch WHERE {filter} AND epoch_id > $1 ORDER BY epoch_id LIMIT $3"
    );
    let after = page.after.map_or(Vec::new(), |id| id.to_vec());
    let gateway = page.gateway_id.unwrap_or_default();
    let rows = client
        .query_typed(
            &select,
            &[
                (&after, Type::BYTEA),
                (&gateway.as_slice(), Type::BYTEA),
                (&i64::from(page.limit), Type::INT8),
            ],
        )
        .await;
    rows?.iter().map(epoch_from_row).collect()
}

fn epoch_from_row(row: &PgRow) -> Result<EpochRow, Error> {
    Ok(EpochRow {
        epoch_id: array(row, 0)?,
        gateway_id: array(row, 1)?,
        keyset_id: array(row, 2)?,
        created_ms: from_sql(row.try_get(3)?),
        first_seen_ms: from_sql(row.try_get(4)?),
        wek_commit: array(row, 5)?,
        record: row.try_get(6)?,
        mac: row.try_get(7)?,
    })
}

fn array<const N: usize>(row: &PgRow, column: usize) -> Result<[u8; N], Error> {
    row.try_get::<_, Fixed<N>>(column).map(|fixed| fixed.0)
}

/// A column of fixed length; one of another length is an error.
struct Fixed<const N: usize>([u8; N]);

impl<'a, const N: usize> FromSql<'a> for Fixed<N> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(column: &Type) -> bool {
        *column == Type::BYTEA
    }
}

/// BIGINT is signed. Times fit; a header that claims the year 292 million is stored bit for bit all the same.
fn to_sql(value: u64) -> i64 {
    value.cast_signed()
}

fn from_sql(value: i64) -> u64 {
    value.cast_unsigned()
}
