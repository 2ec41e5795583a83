//! Tables, and what is demanded of a server before anything is entrusted to it.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::fault::Fault;

/// The finished service's schema.
pub(super) const SCHEMA: &str = "claviger";
/// A service that is being made; renamed when it is whole.
pub(super) const SCHEMA_UNFINISHED: &str = "claviger_unfinished";
/// Advisory lock of the one process that works with the database: "claviger" in ASCII.
pub(super) const LOCK_KEY: i64 = 0x636c_6176_6967_6572;

/// Oldest server that is supported by its makers and known to behave.
const SERVER_VERSION_MIN: i32 = 140_000;
/// The same numbers as SQLite's (`store/sqlite.rs`).
const SCHEMA_VERSION: i32 = 3;

/// Texts are compared byte by byte, as SQLite does, whatever the database's locale.
const TABLES: &str = r#"
CREATE TABLE schema_version (version INTEGER NOT NULL);
CREATE TABLE holder (one BOOLEAN PRIMARY KEY CHECK (one), process BYTEA NOT NULL, place TEXT NOT NULL, ended BOOLEAN NOT NULL,
  quiet_at TIMESTAMPTZ NOT NULL);
CREATE TABLE meta (name TEXT COLLATE "C" PRIMARY KEY, value BYTEA NOT NULL);
CREATE TABLE authorising_row (
  kind TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body BYTEA NOT NULL, mac BYTEA NOT NULL,
  PRIMARY KEY (kind, id));
CREATE TABLE epoch (
  epoch_id BYTEA PRIMARY KEY, gateway_id BYTEA NOT NULL, keyset_id BYTEA NOT NULL, created_ms BIGINT NOT NULL,
  first_seen_ms BIGINT NOT NULL, wek_commit BYTEA NOT NULL, record BYTEA NOT NULL, mac BYTEA NOT NULL);
CREATE INDEX epoch_by_gateway ON epoch (gateway_id, epoch_id);
CREATE TABLE notice (
  log TEXT COLLATE "C" NOT NULL, author TEXT COLLATE "C" NOT NULL, body BYTEA NOT NULL, PRIMARY KEY (log, author));
CREATE TABLE finished_upload (object_id BYTEA PRIMARY KEY, finished_ms BIGINT NOT NULL, mac BYTEA NOT NULL);
"#;

/// Settings of our own session: an acknowledged commit is on disk, no statement and no dead peer holds anything for long.
const SESSION: &str = "
SET synchronous_commit = on;
SET statement_timeout = '5s';
SET lock_timeout = '4s';
SET idle_in_transaction_session_timeout = '10s';
SET tcp_keepalives_idle = 3;
SET tcp_keepalives_interval = 2;
SET tcp_keepalives_count = 3;
SET client_min_messages = warning;
";

/// Prepares a session and looks whether the server keeps what it acknowledges.
pub(super) async fn prepare_session(client: &Client, schema: &str) -> Result<(), Fault> {
    client.batch_execute(SESSION).await?;
    client.batch_execute(&format!("SET search_path = {schema}")).await?;
    let row = client
        .query_typed_one(
            "SELECT current_setting('server_version_num')::int, current_setting('fsync'), \
             current_setting('full_page_writes'), current_setting('synchronous_commit'), \
             current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only'), \
             current_setting('track_activities')",
            &[],
        )
        .await?;
    let setting = |at: usize| row.try_get::<_, String>(at);
    let standby: bool = row.try_get(5)?;
    if row.try_get::<_, i32>(0)? < SERVER_VERSION_MIN {
        return Err(Fault::set_up("the PostgreSQL server is older than version 14", "use a newer server"));
    }
    if setting(1)? != "on" || setting(2)? != "on" || setting(3)? != "on" {
        return Err(durability_fault());
    }
    if setting(7)? != "on" {
        return Err(activities_fault());
    }
    if setting(4)? != "UTF8" {
        return Err(Fault::set_up(
            "the database's encoding is not UTF8",
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        ));
    }
    if standby || setting(6)? != "off" {
        return Err(Fault::set_up(
            "the PostgreSQL server is a standby, or read-only",
            "name the primary server in store.postgres",
        ));
    }
    Ok(())
}

fn durability_fault() -> Fault {
    Fault::set_up(
        "the PostgreSQL server loses what it acknowledged when power fails: fsync, full_page_writes and \
         synchronous_commit have to be on",
        "remove these settings from postgresql.conf and reload the server",
    )
}

/// Without it nobody can tell a replica that hangs from one that works.
fn activities_fault() -> Fault {
    Fault::set_up(
        "the PostgreSQL server does not say since when a session is silent: track_activities has to be on",
        "remove the setting from postgresql.conf, and from the role and the database (ALTER ROLE … RESET track_activities)",
    )
}

/// Answers only on a live session, and notices a server that was reconfigured.
pub(super) async fn prove(client: &Client) -> Result<(), Fault> {
    let row =
        client.query_typed_one(
            "SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('track_activities')",
            &[],
        );
    let row = row.await?;
    let on = |at: usize| row.try_get::<_, String>(at).map(|value| value == "on");
    if !on(2)? {
        return Err(activities_fault());
    }
    if on(0)? && on(1)? { Ok(()) } else { Err(durability_fault()) }
}

pub(super) async fn schema_exists(client: &Client, schema: &str) -> Result<bool, Error> {
    let found = client
        .query_typed_opt("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1", &[(&schema, Type::TEXT)])
        .await;
    Ok(found?.is_some())
}

/// Makes the tables of a new service; what an earlier attempt left behind goes.
pub(super) async fn create(client: &mut Client) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    transaction
        .batch_execute(&format!(
            "DROP SCHEMA IF EXISTS {SCHEMA_UNFINISHED} CASCADE; CREATE SCHEMA {SCHEMA_UNFINISHED}; {TABLES} \
             INSERT INTO schema_version (version) VALUES ({SCHEMA_VERSION});"
        ))
        .await?;
    transaction.commit().await
}

/// Brings the tables to this release's form.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Fault> {
    let row = client.query_typed_one("SELECT version FROM schema_version", &[]).await?;
    match row.try_get::<_, i32>(0)? {
        SCHEMA_VERSION => Ok(()),
        _ => Err(Fault::set_up(
            "the database was written by another release",
            "use that release, or restore a backup that it made",
        )),
    }
}
