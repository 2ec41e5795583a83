//! The audit log's identity: a name that was drawn once, and the Ed25519 key that signs its checkpoints. The key's seed lies in
//! the database only under the master, in a row with a MAC that holds the public half too.

use claviger_audit::note::KeyKind;
use claviger_audit::{SigningKey, VerifierKey};
use claviger_format::Random;
use claviger_keyapi::Id16;
use claviger_keyapi::wire::Blob;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::audit_record::Record;
use crate::custody::Master;
use crate::store::{Change, Kind, Store};
use crate::vault::{read_rows, row};

/// The log as it stands in the database; the id of its row is `log_id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogRow {
    log_id: Id16,
    /// Ed25519, 32 bytes.
    public_key: Blob,
    /// The seed (RFC 8032 §5.1.5) under the master.
    seed: Blob,
}

/// A log's key, and what has to be stored if it was made just now.
pub(crate) struct LogKey {
    pub(crate) key: SigningKey,
    /// `None`: it came out of the database.
    pub(crate) unstored: Option<Change>,
}

impl LogKey {
    /// The log's key from the database; a fresh one for a database that has none, as those from before logs had keys.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if the row is not what this service wrote; [`ServiceError::Damaged`].
    pub(crate) fn open_or_make(
        master: &Master,
        store: &dyn Store,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let mut rows = read_rows::<LogRow>(master, store, Kind::Log)?;
        match (rows.pop(), rows.is_empty()) {
            (None, _) => Self::make(master, random),
            (Some(row), true) => open(master, &row).map(|key| Self { key, unstored: None }),
            (Some(_), false) => Err(ServiceError::Damaged("log key (there are several)")),
        }
    }

    /// A fresh log's.
    pub(crate) fn make(master: &Master, random: &dyn Random) -> Result<Self, ServiceError> {
        let mut log_id = [0; 16];
        random.fill(&mut log_id)?;
        let log_id = Id16(log_id);
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(&mut seed[..])?;
        let key = signing_key(log_id, &seed)?;
        let stored = LogRow {
            log_id,
            public_key: Blob(key.public_key().to_vec()),
            seed: Blob(master.seal(&seal_name(log_id), &seed[..], random)?),
        };
        let change = Change::Put(Kind::Log, row(master, Kind::Log, &log_id.to_string(), &stored));
        Ok(Self { key, unstored: Some(change) })
    }

    /// What an auditor needs to verify the log: its name and public key in one line.
    pub(crate) fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }
}

/// The log's name and public key as the database says, its MAC unchecked: before unlock nothing more is known.
///
/// # Errors
/// [`ServiceError::Damaged`]; those of the store.
pub(crate) fn stored_verifier(store: &dyn Store) -> Result<Option<VerifierKey>, ServiceError> {
    let damaged = || ServiceError::Damaged("log key");
    let rows = store.rows(Kind::Log)?;
    let Some(row) = rows.first() else { return Ok(None) };
    let row: LogRow = serde_json::from_slice(&row.body).map_err(|_| damaged())?;
    let key = row.public_key.0.as_slice().try_into().map_err(|_| damaged())?;
    VerifierKey::new(&origin(row.log_id), KeyKind::Log, key).map(Some).map_err(|_| damaged())
}

/// Tells with which key the log is signed from here on.
pub(crate) fn log_key_record(mut record: Record, key: &VerifierKey) -> Record {
    record.subject = Some(key.to_string());
    record
}

fn open(master: &Master, row: &LogRow) -> Result<SigningKey, ServiceError> {
    let damaged = || ServiceError::Damaged("log key");
    let opened = master.open(&seal_name(row.log_id), &row.seed.0).ok_or_else(damaged)?;
    let mut seed = Zeroizing::new([0; 32]);
    if opened.len() != seed.len() {
        return Err(damaged());
    }
    seed.copy_from_slice(&opened);
    let key = signing_key(row.log_id, &seed)?;
    if key.public_key()[..] == row.public_key.0[..] { Ok(key) } else { Err(damaged()) }
}

fn signing_key(log_id: Id16, seed: &[u8; 32]) -> Result<SigningKey, ServiceError> {
    SigningKey::from_seed(&origin(log_id), KeyKind::Log, seed).map_err(|_| ServiceError::Damaged("log key"))
}

/// The log's name in checkpoints. No host of this name exists: the log is served to nobody who has no business with it.
fn origin(log_id: Id16) -> String {
    format!("claviger.invalid/log/{log_id}")
}

fn seal_name(log_id: Id16) -> String {
    format!("log/{log_id}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Row;
    use crate::store::sqlite::SqliteStore;
    use crate::testing::random;

    fn store() -> (tempfile::TempDir, SqliteStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("db")).unwrap();
        (folder, store)
    }

    #[test]
    fn a_log_keeps_its_key_and_the_database_shows_it_to_nobody() {
        let (_folder, store) = store();
        let master = Master::new(&[1; 32]);
        let made = LogKey::open_or_make(&master, &store, &*random()).unwrap();
        let Some(Change::Put(Kind::Log, row)) = &made.unstored else { panic!("nothing to store") };
        store.apply(&[made.unstored.clone().unwrap()]).unwrap();
        let opened = LogKey::open_or_make(&master, &store, &*random()).unwrap();
        assert_eq!(opened.verifier(), made.verifier());
        assert!(opened.unstored.is_none());
        assert!(made.verifier().to_string().starts_with(&format!("claviger.invalid/log/{}+", row.id)));
        assert!(LogKey::open_or_make(&Master::new(&[2; 32]), &store, &*random()).is_err());
    }

    #[test]
    fn an_edited_or_second_log_key_is_refused() {
        let (_folder, store) = store();
        let master = Master::new(&[1; 32]);
        let Some(Change::Put(_, row)) = LogKey::make(&master, &*random()).unwrap().unstored else { panic!() };
        for at in 0..row.body.len() {
            let mut body = row.body.clone();
            body[at] ^= 1;
            store.apply(&[Change::Put(Kind::Log, Row { body, ..row.clone() })]).unwrap();
            let opened = LogKey::open_or_make(&master, &store, &*random());
            assert!(matches!(opened.map(drop), Err(ServiceError::Tampered { .. })), "byte {at}");
        }
        store.apply(&[Change::Put(Kind::Log, row)]).unwrap();
        store.apply(&[LogKey::make(&master, &*random()).unwrap().unstored.unwrap()]).unwrap();
        assert!(matches!(
            LogKey::open_or_make(&master, &store, &*random()).map(drop),
            Err(ServiceError::Damaged(_))
        ));
    }
}
