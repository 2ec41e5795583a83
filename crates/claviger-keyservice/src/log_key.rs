//! The audit log's identity: a name that was drawn once, and the Ed25519 key that signs its checkpoints. The key's seed lies in
//! the database only under the master, in a row with a MAC that holds the public half too.

use claviger_audit::note::KeyKind;
use claviger_audit::{SigningKey, VerifierKey};
use claviger_format::Random;
use claviger_keyapi::Id16;
use claviger_keyapi::proposals::ReplicaRequest;
use claviger_keyapi::wire::Blob;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::audit_log::SealKey;
use crate::audit_record::Record;
use crate::custody::Master;
use crate::ledger::Rows;
use crate::store::{Change, Kind, Store};
use crate::vault::row;

/// What the name of a log begins with. No such host exists: the log is served to nobody who has no business with it.
const ORIGIN: &str = "claviger.invalid/log/";

/// What the MAC of a request says that it is; no kind of rows has this name.
const REQUEST: &str = "replica request";

/// What the name of a replica as a witness begins with.
const WITNESS: &str = "claviger.invalid/witness/";

/// The log as it stands in the database; the id of its row is `log_id`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogRow {
    log_id: Id16,
    /// Ed25519, 32 bytes.
    public_key: Blob,
    /// The seed (RFC 8032 §5.1.5) under the master.
    seed: Blob,
    /// Name of the replica that keeps the log; none for the one that the service began with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replica: Option<String>,
    /// When it was registered, Unix milliseconds; 0 for that one.
    #[serde(default)]
    since_ms: u64,
    /// Index from which on what an unlocked service writes is sealed; none of a log from before there were seals, until the next
    /// unlock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed_from: Option<u64>,
    /// Ed25519 public key with which the replica cosigns what others show; the seed lies on its machine only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    witness: Option<Blob>,
}

/// A registered log as far as everybody may know it.
#[derive(Debug, Clone)]
pub(crate) struct LogInfo {
    pub(crate) log_id: Id16,
    pub(crate) key: VerifierKey,
    /// With which its replica cosigns.
    pub(crate) witness: Option<VerifierKey>,
    pub(crate) replica: Option<String>,
    pub(crate) since_ms: u64,
}

impl LogInfo {
    fn of(master: &Master, row: &LogRow) -> Result<Self, ServiceError> {
        let witness = row.witness.as_ref().map(|key| witness_verifier(row.log_id, key)).transpose()?;
        Ok(Self {
            log_id: row.log_id,
            key: open(master, row)?.verifier().clone(),
            witness,
            replica: row.replica.clone(),
            since_ms: row.since_ms,
        })
    }

    /// What to call it in messages.
    pub(crate) fn title(&self) -> String {
        self.replica.clone().unwrap_or_else(|| "the first replica".to_owned())
    }
}

/// A log's key, and what has to be stored if it was made just now.
pub(crate) struct LogKey {
    pub(crate) key: SigningKey,
    pub(crate) log_id: Id16,
    /// It is the log that the service began with.
    pub(crate) is_first: bool,
    /// When it was registered, Unix milliseconds.
    pub(crate) since_ms: u64,
    /// From which record on its lines are sealed, if they are.
    pub(crate) sealed_from: Option<u64>,
    /// `None`: it came out of the database.
    pub(crate) unstored: Option<Change>,
    row: LogRow,
}

impl LogKey {
    /// The key of the log of this id from the database. Without an id, the key of the only log there is, or a fresh one for a
    /// database that has none, as those from before logs had keys. It is needed before there is a ledger; once there is one,
    /// [`Self::check_newest`] has to be asked.
    ///
    /// # Errors
    /// [`ServiceError::NotRegistered`] if the database knows no log of this id; [`ServiceError::Tampered`] if the row is not what
    /// this service wrote; [`ServiceError::Damaged`].
    pub(crate) fn open_or_make(
        master: &Master,
        store: &dyn Store,
        log: Option<Id16>,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        match choose(&Rows::read(master, store, &[Kind::Log])?, log)? {
            Some(row) => Self::of(master, &row),
            None => Self::make_from(master, None, random),
        }
    }

    /// Whether the row that was found before there was a ledger is the one that counts.
    ///
    /// # Errors
    /// [`ServiceError::Stale`] if not.
    pub(crate) fn check_newest(&self, rows: &Rows, log: Option<Id16>) -> Result<(), ServiceError> {
        let found = self.unstored.is_none().then_some(&self.row);
        if choose(rows, log)?.as_ref() == found {
            return Ok(());
        }
        Err(ServiceError::Stale { kind: Kind::Log.name(), id: self.log_id.to_string() })
    }

    fn of(master: &Master, row: &LogRow) -> Result<Self, ServiceError> {
        let key = open(master, row)?;
        Ok(Self {
            key,
            log_id: row.log_id,
            is_first: row.replica.is_none(),
            since_ms: row.since_ms,
            sealed_from: row.sealed_from,
            unstored: None,
            row: row.clone(),
        })
    }

    /// A fresh log's, the service's first.
    pub(crate) fn make(master: &Master, random: &dyn Random) -> Result<Self, ServiceError> {
        Self::make_from(master, Some(0), random)
    }

    fn make_from(
        master: &Master,
        sealed_from: Option<u64>,
        random: &dyn Random,
    ) -> Result<Self, ServiceError> {
        let (key, row) = LogRow::make(master, None, random)?;
        let row = LogRow { sealed_from, ..row };
        Ok(Self { key, unstored: Some(row.change(master)), ..Self::of(master, &row)? })
    }

    /// What its lines are sealed with.
    pub(crate) fn seal_key(&self, master: &Master) -> SealKey {
        SealKey::new(master.lines_secret(&self.log_id.0))
    }

    /// The row as releases wrote it that sealed nothing.
    #[cfg(test)]
    pub(crate) fn unsealed(&self, master: &Master) -> Change {
        LogRow { sealed_from: None, ..self.row.clone() }.change(master)
    }

    /// The change that says from which record on they are.
    pub(crate) fn sealed(&self, master: &Master, from: u64) -> Change {
        LogRow { sealed_from: Some(from), ..self.row.clone() }.change(master)
    }

    /// What an auditor needs to verify the log: its name and public key in one line.
    pub(crate) fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }
}

/// The row of a log among these, or of the only one.
fn choose(rows: &Rows, log: Option<Id16>) -> Result<Option<LogRow>, ServiceError> {
    if let Some(log) = log {
        let row = rows.value(Kind::Log, &log.to_string())?;
        return row.map(Some).ok_or(ServiceError::NotRegistered);
    }
    let mut rows = rows.values(Kind::Log)?;
    match (rows.pop(), rows.is_empty()) {
        (row, true) => Ok(row),
        (_, false) => Err(ServiceError::Damaged("log key (there are several)")),
    }
}

/// The log's name and public key as the database says, its MAC unchecked: before unlock nothing more is known.
///
/// # Errors
/// [`ServiceError::Damaged`]; those of the store.
pub(crate) fn stored_verifier(
    store: &dyn Store,
    log: Option<Id16>,
) -> Result<Option<VerifierKey>, ServiceError> {
    let damaged = || ServiceError::Damaged("log key");
    let rows = store.rows(Kind::Log)?;
    let is_meant = |row: &&crate::store::Row| log.is_none_or(|log| row.id == log.to_string());
    let Some(row) = rows.iter().find(is_meant) else { return Ok(None) };
    let row: LogRow = serde_json::from_slice(&row.body).map_err(|_| damaged())?;
    let key = row.public_key.0.as_slice().try_into().map_err(|_| damaged())?;
    VerifierKey::new(&origin(row.log_id), KeyKind::Log, key).map(Some).map_err(|_| damaged())
}

impl LogRow {
    fn make(
        master: &Master,
        replica: Option<String>,
        random: &dyn Random,
    ) -> Result<(SigningKey, Self), ServiceError> {
        let mut log_id = [0; 16];
        random.fill(&mut log_id)?;
        let log_id = Id16(log_id);
        let mut seed = Zeroizing::new([0; 32]);
        random.fill(&mut seed[..])?;
        let key = signing_key(log_id, &seed)?;
        let row = Self {
            log_id,
            public_key: Blob(key.public_key().to_vec()),
            seed: Blob(master.seal(&seal_name(log_id), &seed[..], random)?),
            replica,
            since_ms: 0,
            sealed_from: Some(0),
            witness: None,
        };
        Ok((key, row))
    }

    fn change(&self, master: &Master) -> Change {
        Change::Put(Kind::Log, row(master, Kind::Log, &self.log_id.to_string(), self))
    }
}

/// A replica's log that is to be registered: its key, and the request that takes two operators.
pub(crate) fn make_request(
    master: &Master,
    name: &str,
    witness: impl FnOnce(Id16) -> Result<SigningKey, ServiceError>,
    random: &dyn Random,
) -> Result<(SigningKey, ReplicaRequest), ServiceError> {
    let (key, row) = LogRow::make(master, Some(name.to_owned()), random)?;
    let LogRow { log_id, public_key, seed, .. } = row;
    let witness_key = Blob(witness(log_id)?.public_key().to_vec());
    let mac = Blob(Vec::new());
    let mut request = ReplicaRequest { name: name.to_owned(), log_id, public_key, seed, witness_key, mac };
    request.mac = Blob(master.row_mac(REQUEST, &log_id.to_string(), &request_body(&request)).to_vec());
    Ok((key, request))
}

/// What the MAC of a request is over, besides the log's id.
fn request_body(request: &ReplicaRequest) -> Vec<u8> {
    let ReplicaRequest { name, log_id: _, public_key, seed, witness_key, mac: _ } = request;
    // Texts: there is nothing that could fail.
    serde_json::to_vec(&(name, public_key, seed, witness_key)).expect("plain fields serialise")
}

/// The keys that a request names, for people to compare: the log's, and the one that cosigns.
///
/// # Errors
/// [`ServiceError::Damaged`] if one of them is none.
pub(crate) fn keys_of(request: &ReplicaRequest) -> Result<[VerifierKey; 2], ServiceError> {
    let damaged = || ServiceError::Damaged("log key");
    let key = request.public_key.0.as_slice().try_into().map_err(|_| damaged())?;
    let log = VerifierKey::new(&origin(request.log_id), KeyKind::Log, key).map_err(|_| damaged())?;
    Ok([log, witness_verifier(request.log_id, &request.witness_key)?])
}

/// The log of a request, if its key is one that this service's master sealed. Returns it with the change that registers it.
///
/// # Errors
/// [`ServiceError::Damaged`] if it was not made by this service's master; a refusal if its name or id is taken.
pub(crate) fn check_request(
    master: &Master,
    rows: &Rows,
    request: &ReplicaRequest,
    now_ms: u64,
) -> Result<(LogInfo, Change), ServiceError> {
    let refused = || ServiceError::Question("the request was not made with this service's master".to_owned());
    if !master.row_is_ours(REQUEST, &request.log_id.to_string(), &request_body(request), &request.mac.0) {
        return Err(refused());
    }
    let ReplicaRequest { name, log_id, public_key, seed, witness_key, mac: _ } = request.clone();
    let (replica, witness) = (Some(name), Some(witness_key));
    let sealed_from = Some(0);
    let row = LogRow { log_id, public_key, seed, replica, since_ms: now_ms, sealed_from, witness };
    let info = LogInfo::of(master, &row).map_err(|_| refused())?;
    let taken = rows
        .values::<LogRow>(Kind::Log)?
        .into_iter()
        .any(|other| other.log_id == row.log_id || other.replica == row.replica);
    if taken {
        let text = format!("a replica {} is registered already", request.name);
        return Err(claviger_keyapi::KeyServiceError::Conflict { text }.into());
    }
    Ok((info, row.change(master)))
}

/// All logs that are registered.
///
/// # Errors
/// [`ServiceError::Tampered`]; [`ServiceError::Damaged`].
pub(crate) fn registered(master: &Master, rows: &Rows) -> Result<Vec<LogInfo>, ServiceError> {
    let rows = rows.values::<LogRow>(Kind::Log)?;
    rows.iter().map(|row| LogInfo::of(master, row)).collect()
}

/// What registers the key with which the replica of this log cosigns, in place of any other.
///
/// # Errors
/// [`ServiceError::NotRegistered`]; [`ServiceError::Tampered`]; [`ServiceError::Damaged`].
pub(crate) fn register_witness(
    master: &Master,
    rows: &Rows,
    log: Id16,
    witness: &SigningKey,
) -> Result<(LogInfo, Change), ServiceError> {
    let mut row: LogRow = rows.value(Kind::Log, &log.to_string())?.ok_or(ServiceError::NotRegistered)?;
    row.witness = Some(Blob(witness.public_key().to_vec()));
    Ok((LogInfo::of(master, &row)?, row.change(master)))
}

/// What a log's row is removed with.
pub(crate) fn unregister(log: Id16) -> Change {
    Change::Delete(Kind::Log, log.to_string())
}

/// The key of the replica that keeps this log, for what it cosigns.
///
/// # Errors
/// [`ServiceError::Damaged`] if the seed makes no key.
pub(crate) fn witness_key(log: Id16, seed: &[u8; 32]) -> Result<SigningKey, ServiceError> {
    SigningKey::from_seed(&witness_name(log), KeyKind::Witness, seed)
        .map_err(|_| ServiceError::Damaged("witness key"))
}

fn witness_verifier(log: Id16, key: &Blob) -> Result<VerifierKey, ServiceError> {
    let damaged = || ServiceError::Damaged("witness key");
    let key = key.0.as_slice().try_into().map_err(|_| damaged())?;
    VerifierKey::new(&witness_name(log), KeyKind::Witness, key).map_err(|_| damaged())
}

/// The name under which the replica of this log cosigns.
fn witness_name(log: Id16) -> String {
    format!("{WITNESS}{log}")
}

/// The id in the name of a log.
pub(crate) fn log_id_of(origin: &str) -> Option<Id16> {
    Id16::from_hex(origin.strip_prefix(ORIGIN)?)
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

/// The log's name in checkpoints.
fn origin(log_id: Id16) -> String {
    format!("{ORIGIN}{log_id}")
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
        let made = LogKey::open_or_make(&master, &store, None, &*random()).unwrap();
        let Some(Change::Put(Kind::Log, row)) = &made.unstored else { panic!("nothing to store") };
        store.apply(&[made.unstored.clone().unwrap()]).unwrap();
        let opened = LogKey::open_or_make(&master, &store, None, &*random()).unwrap();
        assert_eq!(opened.verifier(), made.verifier());
        assert!(opened.unstored.is_none());
        assert!(made.verifier().to_string().starts_with(&format!("claviger.invalid/log/{}+", row.id)));
        assert!(LogKey::open_or_make(&Master::new(&[2; 32]), &store, None, &*random()).is_err());
    }

    #[test]
    fn nothing_of_a_request_can_be_exchanged_on_the_way() {
        let (master, rows) = (Master::new(&[1; 32]), Rows::default());
        let make = |name: &str, seed: u8| {
            make_request(&master, name, |log| witness_key(log, &[seed; 32]), &*random()).unwrap().1
        };
        let (request, other) = (make("b", 2), make("c", 3));
        let (info, _) = check_request(&master, &rows, &request, 0).unwrap();
        assert_eq!(
            info.witness.unwrap().to_string().split_once('+').unwrap().0,
            witness_name(request.log_id)
        );
        let mut exchanged = vec![ReplicaRequest { mac: Blob(Vec::new()), ..request.clone() }];
        exchanged.push(ReplicaRequest { witness_key: other.witness_key.clone(), ..request.clone() });
        exchanged.push(ReplicaRequest { name: "d".into(), ..request.clone() });
        exchanged.push(ReplicaRequest { mac: other.mac.clone(), ..request.clone() });
        exchanged.push(ReplicaRequest { log_id: other.log_id, ..request.clone() });
        exchanged.push(ReplicaRequest { seed: other.seed, public_key: other.public_key, ..request });
        for request in exchanged {
            assert!(check_request(&master, &rows, &request, 0).is_err(), "{request:?}");
        }
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
            let opened = LogKey::open_or_make(&master, &store, None, &*random());
            assert!(matches!(opened.map(drop), Err(ServiceError::Tampered { .. })), "byte {at}");
        }
        store.apply(&[Change::Put(Kind::Log, row)]).unwrap();
        store.apply(&[LogKey::make(&master, &*random()).unwrap().unstored.unwrap()]).unwrap();
        assert!(matches!(
            LogKey::open_or_make(&master, &store, None, &*random()).map(drop),
            Err(ServiceError::Damaged(_))
        ));
    }
}
