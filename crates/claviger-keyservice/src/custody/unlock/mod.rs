//! The master at rest. Exactly one unlock method wraps it; the database keeps the wrap, and a row that the master vouches for
//! says which wrap counts. So a wrap that was put back from an older copy opens nothing, and a change of method can be cut
//! short at any point: both wraps lie there until the row has changed.
//!
//! `master_wrap` in the database is a JSON list of wraps. Services made before there was a choice have the bare wrap of a
//! passphrase instead, 76 bytes, and no row.

pub(crate) mod change;
pub mod collector;
pub mod establish;
pub mod hsm;
pub(crate) mod passphrase;
pub(crate) mod quorum;

use claviger_format::Random;
use claviger_keyapi::wire::Blob;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use self::hsm::HsmWrap;
use self::quorum::QuorumWrap;
use super::Master;
use crate::ServiceError;
use crate::ledger::Rows;
use crate::store::{Change, Kind, Store};
use crate::vault::row;

/// Associated data of every wrap.
const MASTER: &str = "master";
/// Name of the wraps in the database.
pub(crate) const META_MASTER: &str = "master_wrap";
/// Row that says which wrap counts.
const UNLOCK_ROW: &str = "unlock";
/// Length of the wrap that older services have: salt, nonce, secret, tag.
const BARE_LEN: usize = 16 + 12 + 32 + 16;

/// The master, wrapped.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub(crate) enum Wrap {
    /// `salt(16) ‖ nonce(12) ‖ ct` under a generated passphrase.
    Passphrase {
        /// The wrap itself.
        wrapped: Blob,
    },
    /// Under a key that was split.
    Quorum(QuorumWrap),
    /// Under a key that does not leave its HSM.
    Pkcs11(HsmWrap),
}

/// The row that says which wrap counts.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnlockRow {
    method: String,
    /// SHA-256 of the wrap's JSON.
    wrap_sha256: String,
}

/// A master that was unwrapped, and from what.
pub(crate) struct Unwrapped {
    pub(crate) secret: Zeroizing<[u8; 32]>,
    /// `None`: the bare wrap of an older service.
    wrap_sha256: Option<String>,
}

/// The wrap that counts, as far as can be told before its master is known.
pub(crate) struct Stored {
    pub(crate) wrap: Wrap,
    wrap_sha256: Option<String>,
}

impl Wrap {
    /// Its name in records and answers.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Passphrase { .. } => "passphrase",
            Self::Quorum(_) => "quorum",
            Self::Pkcs11(_) => "pkcs11",
        }
    }

    fn sha256(&self) -> Result<String, ServiceError> {
        let json = serde_json::to_vec(self).map_err(|_| damaged())?;
        Ok(Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The row that makes this wrap the one that counts.
    pub(crate) fn change(&self, master: &Master) -> Result<Change, ServiceError> {
        let value = UnlockRow { method: self.method().to_owned(), wrap_sha256: self.sha256()? };
        Ok(Change::Put(Kind::Service, row(master, Kind::Service, UNLOCK_ROW, &value)))
    }
}

impl Stored {
    /// Reads what the database has.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if the row names no wrap that is there; [`ServiceError::Damaged`]; [`ServiceError::Store`].
    pub(crate) fn load(store: &dyn Store) -> Result<Self, ServiceError> {
        let bytes = store.meta(META_MASTER)?.ok_or_else(damaged)?;
        let wanted = stored_row(store)?;
        let wraps = parse_wraps(bytes)?;
        if wanted.is_none() {
            // A first change of an older service, cut short before its row: the passphrase still counts.
            let first = wraps.into_iter().next().filter(|wrap| matches!(wrap, Wrap::Passphrase { .. }));
            return Ok(Self { wrap: first.ok_or_else(tampered)?, wrap_sha256: None });
        }
        for wrap in wraps {
            let sha256 = wrap.sha256()?;
            if wanted.as_ref() == Some(&sha256) {
                return Ok(Self { wrap, wrap_sha256: Some(sha256) });
            }
        }
        Err(tampered())
    }

    /// Whether it is the one that counts, now that these rows are known to.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if not.
    pub(crate) fn check(&self, rows: &Rows) -> Result<(), ServiceError> {
        if named(rows)? == self.wrap_sha256 { Ok(()) } else { Err(tampered()) }
    }

    /// The one wrap that counts, as it lies in the database.
    pub(crate) fn value(&self) -> Result<Vec<u8>, ServiceError> {
        match (&self.wrap, &self.wrap_sha256) {
            (Wrap::Passphrase { wrapped }, None) => Ok(wrapped.0.clone()),
            (wrap, _) => serde_json::to_vec(&[wrap]).map_err(|_| damaged()),
        }
    }

    /// The same back from a backup. Whether it counts is [checked](Unwrapped::verify) once there is a database.
    pub(crate) fn from_value(value: &[u8]) -> Result<Self, ServiceError> {
        if value.len() == BARE_LEN {
            return Ok(Self { wrap: Wrap::Passphrase { wrapped: Blob(value.to_vec()) }, wrap_sha256: None });
        }
        let [wrap]: [Wrap; 1] = serde_json::from_slice(value).map_err(|_| damaged())?;
        Ok(Self { wrap_sha256: Some(wrap.sha256()?), wrap })
    }

    /// Says of a master that it came out of this wrap.
    pub(crate) fn opened(self, secret: Zeroizing<[u8; 32]>) -> Unwrapped {
        Unwrapped { secret, wrap_sha256: self.wrap_sha256 }
    }
}

impl Unwrapped {
    /// Another copy of the secret, for a standby that opens with it and may have to go on standing by.
    pub(crate) fn copy(&self) -> Self {
        Self { secret: Zeroizing::new(*self.secret), wrap_sha256: self.wrap_sha256.clone() }
    }

    /// Whether the wrap that this came out of is the one that the master's own row names, among these.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`] if not.
    pub(crate) fn verify(&self, rows: &Rows, store: &dyn Store) -> Result<(), ServiceError> {
        let named = named(rows)?;
        if named == self.wrap_sha256 {
            return Ok(());
        }
        // The ledger has just completed a change of method that a crash cut short.
        let others = parse_wraps(store.meta(META_MASTER)?.ok_or_else(damaged)?)?;
        for other in others.into_iter().skip(1) {
            if Some(other.sha256()?) == named {
                return Err(ServiceError::UnlockMethod {
                    actual: "another secret, by a change that is complete now",
                    asked: "the one before",
                    remedy: "unlock again, with the new one; claviger keys status says which way",
                });
            }
        }
        Err(tampered())
    }
}

/// Stores the one wrap of a new service, or leaves one where a change was cut short.
pub(crate) fn store_wraps(store: &dyn Store, wraps: &[&Wrap]) -> Result<(), ServiceError> {
    store.set_meta(META_MASTER, &serde_json::to_vec(wraps).map_err(|_| damaged())?)
}

fn parse_wraps(bytes: Vec<u8>) -> Result<Vec<Wrap>, ServiceError> {
    if bytes.len() == BARE_LEN {
        return Ok(vec![Wrap::Passphrase { wrapped: Blob(bytes) }]);
    }
    serde_json::from_slice(&bytes).map_err(|_| damaged())
}

/// How many wraps lie there: two while the method is being changed.
fn stored_count(store: &dyn Store) -> Result<usize, ServiceError> {
    Ok(parse_wraps(store.meta(META_MASTER)?.ok_or_else(damaged)?)?.len())
}

fn stored_row(store: &dyn Store) -> Result<Option<String>, ServiceError> {
    let rows = store.rows(Kind::Service)?;
    let Some(row) = rows.iter().find(|row| row.id == UNLOCK_ROW) else { return Ok(None) };
    let value: UnlockRow = serde_json::from_slice(&row.body).map_err(|_| tampered())?;
    Ok(Some(value.wrap_sha256))
}

/// The wrap that the row names; none of an older service.
fn named(rows: &Rows) -> Result<Option<String>, ServiceError> {
    Ok(rows.value::<UnlockRow>(Kind::Service, UNLOCK_ROW)?.map(|value| value.wrap_sha256))
}

/// 32 bytes, if it is that many.
fn secret(plain: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut secret = Zeroizing::new([0u8; 32]);
    (plain.len() == secret.len()).then(|| secret.copy_from_slice(plain))?;
    Some(secret)
}

fn damaged() -> ServiceError {
    ServiceError::Damaged("wrapped master")
}

fn tampered() -> ServiceError {
    ServiceError::Tampered { kind: Kind::Service.name(), id: UNLOCK_ROW.to_owned() }
}

/// A fresh master.
pub(crate) fn draw_master(random: &dyn Random) -> Result<Zeroizing<[u8; 32]>, ServiceError> {
    let mut secret = Zeroizing::new([0u8; 32]);
    random.fill(&mut secret[..])?;
    Ok(secret)
}
