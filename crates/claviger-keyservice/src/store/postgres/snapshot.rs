//! A snapshot over a connection of its own, in one read-only transaction. It needs no lock: it changes nothing.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row as PgRow, Transaction};

use super::fault::Fault;
use super::session::open_connection;
use super::tls::Connector;
use super::{PostgresConfig, array, epoch_from_row, from_sql, schema};
use crate::ServiceError;
use crate::store::snapshot::{Item, PAGE_ROWS, Pages};
use crate::store::{FinishedRow, Row};

/// Reads all tables page by page. Blocks; runs on a thread of its own.
pub(super) fn read(
    config: &PostgresConfig,
    connector: Option<Connector>,
    pages: &Pages,
) -> Result<(), ServiceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| ServiceError::Database(e.to_string()))?;
    let (mut client, driver) =
        runtime.block_on(open_connection(config, connector)).map_err(Fault::into_error)?;
    let done = runtime.block_on(async {
        schema::prepare_session(&client, schema::SCHEMA).await?;
        // Whoever reads may be slow; the one who asked for the snapshot bounds that.
        client
            .batch_execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = '10min'")
            .await?;
        walk(&mut client, pages).await
    });
    driver.abort();
    done.map_err(Fault::into_error)
}

async fn walk(client: &mut Client, pages: &Pages) -> Result<(), Fault> {
    let transaction = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    // The first statement fixes the moment.
    let metas = transaction.query_typed("SELECT name, value FROM meta ORDER BY name", &[]).await?;
    pages.begun().map_err(Fault::Final)?;
    let meta = |row: &PgRow| Ok(Item::Meta { name: row.try_get(0)?, value: row.try_get(1)? });
    pages.page(all(&metas, meta)?).map_err(Fault::Final)?;
    rows(&transaction, pages).await?;
    epochs(&transaction, pages).await?;
    finished(&transaction, pages).await
}

fn all(
    rows: &[PgRow],
    item: impl Fn(&PgRow) -> Result<Item, tokio_postgres::Error>,
) -> Result<Vec<Item>, Fault> {
    Ok(rows.iter().map(item).collect::<Result<_, _>>()?)
}

async fn rows(transaction: &Transaction<'_>, pages: &Pages) -> Result<(), Fault> {
    let (mut kind, mut id) = (String::new(), String::new());
    loop {
        let page = transaction
            .query_typed(
                "SELECT kind, id, body, mac FROM authorising_row WHERE (kind, id) > ($1, $2) ORDER BY kind, id LIMIT $3",
                &[(&kind, Type::TEXT), (&id, Type::TEXT), (&i64::from(PAGE_ROWS), Type::INT8)],
            )
            .await?;
        let Some(last) = page.last() else { return Ok(()) };
        (kind, id) = (last.try_get(0)?, last.try_get(1)?);
        let item = |row: &PgRow| {
            let value = Row { id: row.try_get(1)?, body: row.try_get(2)?, mac: row.try_get(3)? };
            Ok(Item::Row { kind: row.try_get(0)?, row: value })
        };
        pages.page(all(&page, item)?).map_err(Fault::Final)?;
    }
}

async fn epochs(transaction: &Transaction<'_>, pages: &Pages) -> Result<(), Fault> {
    let select =
        format!("SELECT {} FROM epoch WHERE epoch_id > $1 ORDER BY epoch_id LIMIT $2", super::EPOCH_COLUMNS);
    by_id(transaction, pages, &select, |row| Ok(Item::Epoch(epoch_from_row(row)?))).await
}

async fn finished(transaction: &Transaction<'_>, pages: &Pages) -> Result<(), Fault> {
    let select = "SELECT object_id, finished_ms, mac FROM finished_upload WHERE object_id > $1 ORDER BY object_id LIMIT $2";
    let item = |row: &PgRow| {
        let value = FinishedRow { finished_ms: from_sql(row.try_get(1)?), mac: row.try_get(2)? };
        Ok(Item::Finished { object_id: array(row, 0)?, row: value })
    };
    by_id(transaction, pages, select, item).await
}

/// A table whose first column is an id of bytes.
async fn by_id(
    transaction: &Transaction<'_>,
    pages: &Pages,
    select: &str,
    item: impl Fn(&PgRow) -> Result<Item, tokio_postgres::Error>,
) -> Result<(), Fault> {
    let mut after = Vec::new();
    loop {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&after, Type::BYTEA), (&i64::from(PAGE_ROWS), Type::INT8)];
        let page = transaction.query_typed(select, &parameters).await?;
        let Some(last) = page.last() else { return Ok(()) };
        let last: Vec<u8> = last.try_get(0)?;
        pages.page(all(&page, &item)?).map_err(Fault::Final)?;
        after = last;
    }
}
