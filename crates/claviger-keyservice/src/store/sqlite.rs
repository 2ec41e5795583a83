//! SQLite: one file, write-ahead log, `synchronous = FULL`, so that what was acknowledged survives a power cut.

use std::fs::{Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row as SqlRow, Transaction, params};

use super::snapshot::{Item, PAGE_ROWS, Pages, Snapshot};
use super::{Change, EpochMark, EpochPage, EpochRow, FinishedRow, Kind, Row, Store};
use crate::ServiceError;

const SCHEMA_VERSION: u32 = 3;

const SCHEMA: &str = "
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE row (kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, mac BLOB NOT NULL, PRIMARY KEY (kind, id)) STRICT;
CREATE TABLE epoch (
  epoch_id BLOB PRIMARY KEY, gateway_id BLOB NOT NULL, keyset_id BLOB NOT NULL, created_ms INTEGER NOT NULL,
  first_seen_ms INTEGER NOT NULL, wek_commit BLOB NOT NULL, record BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE INDEX epoch_by_gateway ON epoch (gateway_id, epoch_id);
CREATE TABLE finished_upload (object_id BLOB PRIMARY KEY, finished_ms INTEGER NOT NULL, mac BLOB NOT NULL) STRICT;
";

/// Rows from before have an empty MAC: they still refuse, as damaged.
const FROM_1: &str = "ALTER TABLE finished_upload ADD COLUMN mac BLOB NOT NULL DEFAULT x''";

const EPOCH_COLUMNS: &str =
    "epoch_id, gateway_id, keyset_id, created_ms, first_seen_ms, wek_commit, record, mac";

/// The embedded database.
#[derive(Debug)]
pub struct SqliteStore {
    // One connection: writes are few (registrations, uploads that end), and reads hit memory first.
    connection: Mutex<Connection>,
    path: PathBuf,
    /// The files as they were opened, database and write-ahead log.
    files: Vec<(PathBuf, FileId)>,
}

/// Device and inode.
type FileId = (u64, u64);

fn file_id(metadata: &Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

impl SqliteStore {
    /// Opens a database, creating it if there is none.
    ///
    /// # Errors
    /// [`ServiceError::Store`]; [`ServiceError::Damaged`] if it was written by a newer version.
    pub fn open(path: &Path) -> Result<Self, ServiceError> {
        // SQLite gives its log files the mode of the database; object names in it are nobody else's business.
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        drop(file.map_err(|e| ServiceError::io(path, e))?);
        let mut connection = Connection::open(path)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", "ON")?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        match version {
            SCHEMA_VERSION => {}
            0..SCHEMA_VERSION => {
                let transaction = connection.transaction()?;
                match version {
                    0 => transaction.execute_batch(SCHEMA)?,
                    1 => transaction.execute_batch(FROM_1)?,
                    // The tables of version 2 serve; what version 3 adds are rows, made at the first unlock.
                    _ => {}
                }
                transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
                transaction.commit()?;
                // A release before deleted without overwriting.
                connection.execute_batch("VACUUM")?;
            }
            _ => return Err(ServiceError::Damaged("database (written by a newer version)")),
        }
        let files = opened_files(path)?;
        Ok(Self { connection: Mutex::new(connection), path: path.to_owned(), files })
    }

    /// What is written to a file that has no name any more is gone when this process ends.
    fn check_files(&self) -> Result<(), ServiceError> {
        for (path, id) in &self.files {
            if std::fs::metadata(path).map(|metadata| file_id(&metadata)).ok() != Some(*id) {
                let path = path.display();
                return Err(ServiceError::Database(format!(
                    "{path} was deleted or replaced while the service runs; nothing is released. Stop it, and put the file back or \
                     restore a backup"
                )));
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves no half transaction behind: SQLite rolls it back when it is dropped.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for SqliteStore {
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
        Ok(statement.query_row([name], |row| row.get(0)).optional()?)
    }

    fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), ServiceError> {
        self.lock()
            .execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, value])?;
        self.check_files()
    }

    fn rows(&self, kind: Kind) -> Result<Vec<Row>, ServiceError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT id, body, mac FROM row WHERE kind = ?1 ORDER BY id")?;
        let rows = statement.query_map([kind.name()], |row| {
            Ok(Row { id: row.get(0)?, body: row.get(1)?, mac: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn apply(&self, changes: &[Change]) -> Result<(), ServiceError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for change in changes {
            match change {
                Change::Put(kind, row) => transaction.execute(
                    "INSERT OR REPLACE INTO row (kind, id, body, mac) VALUES (?1, ?2, ?3, ?4)",
                    params![kind.name(), row.id, row.body, row.mac],
                )?,
                Change::Delete(kind, id) => transaction
                    .execute("DELETE FROM row WHERE kind = ?1 AND id = ?2", params![kind.name(), id])?,
                Change::PutEpoch(row) => put_epoch(&transaction, row)?,
                Change::ReplaceEpoch { row, .. } => transaction.execute(
                    "UPDATE epoch SET record = ?2, mac = ?3 WHERE epoch_id = ?1",
                    params![row.epoch_id, row.record, row.mac],
                )?,
            };
        }
        transaction.commit()?;
        self.check_files()
    }

    fn epoch(&self, epoch_id: &[u8; 16]) -> Result<Option<EpochRow>, ServiceError> {
        read_epoch(&self.lock(), epoch_id)
    }

    fn epoch_marks(&self, after: Option<[u8; 16]>, limit: u32) -> Result<Vec<EpochMark>, ServiceError> {
        let connection = self.lock();
        let after = after.map_or(Vec::new(), |id| id.to_vec());
        let mut statement = connection.prepare_cached(
            "SELECT epoch_id, mac FROM epoch WHERE epoch_id > ?1 ORDER BY epoch_id LIMIT ?2",
        )?;
        let rows = statement.query_map(params![after, limit], |row| {
            Ok(EpochMark { epoch_id: row.get(0)?, mac: row.get(1)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn epochs(&self, page: EpochPage) -> Result<Vec<EpochRow>, ServiceError> {
        let connection = self.lock();
        let after = page.after.map_or(Vec::new(), |id| id.to_vec());
        let filter = if page.gateway_id.is_some() { "gateway_id = ?2 AND" } else { "?2 = ?2 AND" };
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {EPOCH_COLUMNS} FROM epoch WHERE {filter} epoch_id > ?1 ORDER BY epoch_id LIMIT ?3"
        ))?;
        let rows = statement
            .query_map(params![after, page.gateway_id.unwrap_or_default(), page.limit], epoch_from_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn epoch_count(&self) -> Result<u64, ServiceError> {
        let count: i64 = self.lock().query_row("SELECT count(*) FROM epoch", [], |row| row.get(0))?;
        Ok(from_sql(count))
    }

    fn finish_upload(&self, object_id: &[u8; 16], row: &FinishedRow) -> Result<(), ServiceError> {
        self.lock().execute(
            "INSERT OR IGNORE INTO finished_upload (object_id, finished_ms, mac) VALUES (?1, ?2, ?3)",
            params![object_id, to_sql(row.finished_ms), row.mac],
        )?;
        self.check_files()
    }

    fn finished_upload(&self, object_id: &[u8; 16]) -> Result<Option<FinishedRow>, ServiceError> {
        let connection = self.lock();
        let mut statement =
            connection.prepare_cached("SELECT finished_ms, mac FROM finished_upload WHERE object_id = ?1")?;
        let row = statement.query_row([object_id], |row| {
            Ok(FinishedRow { finished_ms: from_sql(row.get(0)?), mac: row.get(1)? })
        });
        Ok(row.optional()?)
    }

    fn snapshot(&self) -> Result<Snapshot, ServiceError> {
        let path = self.path.clone();
        // A connection of its own, so that the service goes on writing beside it.
        Snapshot::start(move |pages| read_all(&path, pages))
    }

    fn fill(&self, items: &[Item]) -> Result<(), ServiceError> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        for item in items {
            fill_item(&transaction, item)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// What is deleted is overwritten where it lay (`secure_delete`); here what waits in the write-ahead log.
    fn scrub(&self) -> Result<(), ServiceError> {
        let busy: i64 = self.lock().query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if busy == 0 {
            return Ok(());
        }
        Err(ServiceError::Database("a reader holds the write-ahead log, perhaps a backup".to_owned()))
    }

    /// The lock on the state folder sees to it that nobody else works with the files, as long as they are the ones that lie there.
    fn check_ours(&self) -> Result<(), ServiceError> {
        self.check_files()
    }

    /// Other errors of the disk come out where they happen.
    fn problem(&self) -> Option<String> {
        self.check_files().err().map(|error| error.to_string())
    }
}

fn opened_files(path: &Path) -> Result<Vec<(PathBuf, FileId)>, ServiceError> {
    // SQLite puts its log beside the file itself, not beside a link to it.
    let path = path.canonicalize().map_err(|e| ServiceError::io(path, e))?;
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let id = |path: PathBuf| {
        let metadata = std::fs::metadata(&path).map_err(|e| ServiceError::io(&path, e))?;
        Ok((path, file_id(&metadata)))
    };
    [path, PathBuf::from(wal)].into_iter().map(id).collect()
}

fn read_all(path: &Path, pages: &Pages) -> Result<(), ServiceError> {
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    let transaction = connection.transaction()?;
    // The first read fixes the moment.
    transaction.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
    pages.begun()?;
    read_table(&transaction, pages, "SELECT name, value FROM meta", |row| {
        Ok(Item::Meta { name: row.get(0)?, value: row.get(1)? })
    })?;
    read_table(&transaction, pages, "SELECT kind, id, body, mac FROM row", |row| {
        let value = Row { id: row.get(1)?, body: row.get(2)?, mac: row.get(3)? };
        Ok(Item::Row { kind: row.get(0)?, row: value })
    })?;
    read_table(&transaction, pages, &format!("SELECT {EPOCH_COLUMNS} FROM epoch"), |row| {
        Ok(Item::Epoch(epoch_from_row(row)?))
    })?;
    read_table(&transaction, pages, "SELECT object_id, finished_ms, mac FROM finished_upload", |row| {
        let value = FinishedRow { finished_ms: from_sql(row.get(1)?), mac: row.get(2)? };
        Ok(Item::Finished { object_id: row.get(0)?, row: value })
    })
}

fn read_table(
    transaction: &Transaction<'_>,
    pages: &Pages,
    select: &str,
    item: impl Fn(&SqlRow<'_>) -> rusqlite::Result<Item>,
) -> Result<(), ServiceError> {
    let mut statement = transaction.prepare(select)?;
    let mut page = Vec::new();
    for item in statement.query_map([], item)? {
        page.push(item?);
        if page.len() == PAGE_ROWS as usize {
            pages.page(std::mem::take(&mut page))?;
        }
    }
    pages.page(page)
}

fn fill_item(transaction: &Transaction<'_>, item: &Item) -> rusqlite::Result<usize> {
    match item {
        Item::Meta { name, value } => transaction
            .execute("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)", params![name, value]),
        Item::Row { kind, row } => transaction.execute(
            "INSERT OR REPLACE INTO row (kind, id, body, mac) VALUES (?1, ?2, ?3, ?4)",
            params![kind, row.id, row.body, row.mac],
        ),
        Item::Epoch(row) => put_epoch(transaction, row),
        Item::Finished { object_id, row } => transaction.execute(
            "INSERT OR IGNORE INTO finished_upload (object_id, finished_ms, mac) VALUES (?1, ?2, ?3)",
            params![object_id, to_sql(row.finished_ms), row.mac],
        ),
    }
}

fn put_epoch(connection: &Connection, row: &EpochRow) -> rusqlite::Result<usize> {
    connection.execute(
        &format!("INSERT OR IGNORE INTO epoch ({EPOCH_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"),
        params![
            row.epoch_id,
            row.gateway_id,
            row.keyset_id,
            to_sql(row.created_ms),
            to_sql(row.first_seen_ms),
            row.wek_commit,
            row.record,
            row.mac
        ],
    )
}

fn read_epoch(connection: &Connection, epoch_id: &[u8; 16]) -> Result<Option<EpochRow>, ServiceError> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {EPOCH_COLUMNS} FROM epoch WHERE epoch_id = ?1"))?;
    Ok(statement.query_row([epoch_id], epoch_from_row).optional()?)
}

fn epoch_from_row(row: &SqlRow<'_>) -> rusqlite::Result<EpochRow> {
    Ok(EpochRow {
        epoch_id: row.get(0)?,
        gateway_id: row.get(1)?,
        keyset_id: row.get(2)?,
        created_ms: from_sql(row.get(3)?),
        first_seen_ms: from_sql(row.get(4)?),
        wek_commit: row.get(5)?,
        record: row.get(6)?,
        mac: row.get(7)?,
    })
}

/// SQLite's integers are signed. Times fit; a header that claims the year 292 million is stored bit for bit all the same.
fn to_sql(value: u64) -> i64 {
    value.cast_signed()
}

fn from_sql(value: i64) -> u64 {
    value.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("db")).unwrap();
        (folder, store)
    }

    fn finished(finished_ms: u64) -> FinishedRow {
        FinishedRow { finished_ms, mac: vec![2] }
    }

    #[test]
    fn a_database_of_the_version_before_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let old = Connection::open(&path).unwrap();
        let schema = SCHEMA
            .replace("finished_ms INTEGER NOT NULL, mac BLOB NOT NULL)", "finished_ms INTEGER NOT NULL)");
        old.execute_batch(&schema).unwrap();
        old.execute("INSERT INTO finished_upload (object_id, finished_ms) VALUES (?1, 7)", [[1u8; 16]])
            .unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let store = SqliteStore::open(&path).unwrap();
        store.finish_upload(&[2; 16], &finished(8)).unwrap();
        assert_eq!(store.finished_upload(&[1; 16]).unwrap().unwrap().mac, Vec::<u8>::new());
        assert_eq!(store.finished_upload(&[2; 16]).unwrap(), Some(finished(8)));
    }

    fn epoch(id: u8, gateway: u8) -> EpochRow {
        EpochRow {
            epoch_id: [id; 16],
            gateway_id: [gateway; 16],
            keyset_id: [3; 16],
            created_ms: u64::MAX,
            first_seen_ms: 5,
            wek_commit: [id; 32],
            record: vec![id],
            mac: vec![1],
        }
    }

    #[test]
    fn the_first_registration_of_an_epoch_stays() {
        let (folder, store) = store();
        store.apply(&[Change::PutEpoch(epoch(1, 1))]).unwrap();
        let other = EpochRow { wek_commit: [9; 32], ..epoch(1, 1) };
        store.apply(&[Change::PutEpoch(other)]).unwrap();
        drop(store);
        let store = SqliteStore::open(&folder.path().join("db")).unwrap();
        assert_eq!(store.epoch(&[1; 16]).unwrap(), Some(epoch(1, 1)));
        assert_eq!(store.epoch(&[2; 16]).unwrap(), None);
    }

    #[test]
    fn epochs_are_listed_in_pages_and_by_gateway() {
        let (_folder, store) = store();
        for (id, gateway) in [(1, 1), (2, 2), (3, 1), (4, 1)] {
            store.apply(&[Change::PutEpoch(epoch(id, gateway))]).unwrap();
        }
        let list = |gateway_id, after, limit| -> Vec<u8> {
            let page = EpochPage { gateway_id, after, limit };
            store.epochs(page).unwrap().iter().map(|e| e.epoch_id[0]).collect()
        };
        assert_eq!(list(None, None, 10), [1, 2, 3, 4]);
        assert_eq!(list(Some([1; 16]), None, 2), [1, 3]);
        assert_eq!(list(Some([1; 16]), Some([3; 16]), 2), [4]);
        assert_eq!(store.epoch_count().unwrap(), 4);
        let marks = |after, limit| -> Vec<u8> {
            store.epoch_marks(after, limit).unwrap().iter().map(|mark| mark.epoch_id[0]).collect()
        };
        assert_eq!((marks(None, 3), marks(Some([3; 16]), 3)), (vec![1, 2, 3], vec![4]));
    }

    #[test]
    fn changes_apply_together() {
        let (_folder, store) = store();
        let row = |id: &str| Row { id: id.into(), body: b"{}".to_vec(), mac: vec![] };
        store.apply(&[Change::Put(Kind::Token, row("a")), Change::Put(Kind::Binding, row("b"))]).unwrap();
        store.apply(&[Change::Delete(Kind::Token, "a".into()), Change::Put(Kind::Token, row("c"))]).unwrap();
        assert_eq!(store.rows(Kind::Token).unwrap(), [row("c")]);
        assert_eq!(store.rows(Kind::Binding).unwrap(), [row("b")]);
    }

    #[test]
    fn a_database_of_a_newer_version_is_refused() {
        let (folder, store) = store();
        store.lock().pragma_update(None, "user_version", 99).unwrap();
        drop(store);
        assert!(matches!(SqliteStore::open(&folder.path().join("db")), Err(ServiceError::Damaged(_))));
    }

    #[test]
    fn the_database_is_its_owners_only() {
        use std::os::unix::fs::MetadataExt as _;
        let (folder, store) = store();
        store.finish_upload(&[1; 16], &finished(7)).unwrap();
        for name in ["db", "db-wal"] {
            assert_eq!(std::fs::metadata(folder.path().join(name)).unwrap().mode() & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn ended_uploads_are_remembered() {
        let (_folder, store) = store();
        store.finish_upload(&[1; 16], &finished(7)).unwrap();
        store.finish_upload(&[1; 16], &finished(8)).unwrap();
        assert_eq!(store.finished_upload(&[1; 16]).unwrap(), Some(finished(7)));
        assert_eq!(store.finished_upload(&[2; 16]).unwrap(), None);
    }
}
