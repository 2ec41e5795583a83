//! Backups: one file with the rows of the database and the audit log, as they were together at one moment.
//!
//! ```text
//! {"backup":{"version":1,…}}        what it is, and the passphrase's wrap sealed to each keyset
//! {"meta":{…}} {"row":{…}} …         the database
//! {"audit":{"file":…,"bytes":…}}    the files of the log, in pieces, and its newest checkpoint; its tiles are made again
//! {"end":{"lines":…,"sha256":…}}    over all lines before
//! ```
//! Lines of JSON, the same for every kind of database, so that one made from SQLite goes back into PostgreSQL. There is no
//! secret in it that a root or the unlock method does not seal, but names of buckets and objects: keep it encrypted.

pub(crate) mod make;
pub mod restore;

use claviger_keyapi::Id16;
use claviger_keyapi::wire::Blob;
use serde::{Deserialize, Serialize};

use crate::ServiceError;
use crate::custody::backup_wrap::SealedWrap;
use crate::store::snapshot::Item;
use crate::store::{EpochRow, FinishedRow, Row};

const VERSION: u32 = 1;
/// Bytes of the audit log in one line.
const AUDIT_PIECE_LEN: usize = 192 << 10;
/// Longest line that is read back: a piece of the log, or an epoch's record, in base64.
const LINE_LEN_MAX: usize = 4 << 20;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    Backup { version: u32, service_version: String, made_ms: u64, wraps: Vec<SealedWrap> },
    Meta { name: String, value: Blob },
    Row { kind: String, id: String, body: Blob, mac: Blob },
    Epoch(EpochLine),
    Finished { object_id: Id16, finished_ms: u64, mac: Blob },
    Audit { file: String, bytes: Blob },
    End { lines: u64, sha256: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EpochLine {
    epoch_id: Id16,
    gateway_id: Id16,
    keyset_id: Id16,
    created_ms: u64,
    first_seen_ms: u64,
    wek_commit: Blob,
    record: Blob,
    mac: Blob,
}

impl Line {
    fn of(item: Item) -> Self {
        match item {
            Item::Meta { name, value } => Self::Meta { name, value: Blob(value) },
            Item::Row { kind, row } => {
                Self::Row { kind, id: row.id, body: Blob(row.body), mac: Blob(row.mac) }
            }
            Item::Epoch(row) => Self::Epoch(EpochLine {
                epoch_id: Id16(row.epoch_id),
                gateway_id: Id16(row.gateway_id),
                keyset_id: Id16(row.keyset_id),
                created_ms: row.created_ms,
                first_seen_ms: row.first_seen_ms,
                wek_commit: Blob(row.wek_commit.to_vec()),
                record: Blob(row.record),
                mac: Blob(row.mac),
            }),
            Item::Finished { object_id, row } => Self::Finished {
                object_id: Id16(object_id),
                finished_ms: row.finished_ms,
                mac: Blob(row.mac),
            },
        }
    }

    /// A row of the database; `None` for the other lines.
    fn into_item(self) -> Result<Option<Item>, ServiceError> {
        Ok(Some(match self {
            Self::Meta { name, value } => Item::Meta { name, value: value.0 },
            Self::Row { kind, id, body, mac } => {
                Item::Row { kind, row: Row { id, body: body.0, mac: mac.0 } }
            }
            Self::Epoch(line) => Item::Epoch(EpochRow {
                epoch_id: line.epoch_id.0,
                gateway_id: line.gateway_id.0,
                keyset_id: line.keyset_id.0,
                created_ms: line.created_ms,
                first_seen_ms: line.first_seen_ms,
                wek_commit: line.wek_commit.0.try_into().map_err(|_| ServiceError::Damaged("backup"))?,
                record: line.record.0,
                mac: line.mac.0,
            }),
            Self::Finished { object_id, finished_ms, mac } => {
                let row = FinishedRow { finished_ms, mac: mac.0 };
                Item::Finished { object_id: object_id.0, row }
            }
            Self::Backup { .. } | Self::Audit { .. } | Self::End { .. } => return Ok(None),
        }))
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("lines are plain structures of strings and numbers");
        bytes.push(b'\n');
        bytes
    }
}
