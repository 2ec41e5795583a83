//! What this crate's unit tests share.

use std::ops::Deref;
use std::sync::Arc;

use claviger_env::{OsRandom, SystemClock};
use claviger_format::Random;

use crate::ServiceError;
use crate::store::snapshot::{Item, Snapshot};
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, EpochMark, EpochPage, EpochRow, FinishedRow, Kind, Row, Store};

pub(crate) fn random() -> Arc<dyn Random> {
    Arc::new(OsRandom::new(Arc::new(SystemClock)).unwrap())
}

/// Who stands between the service and its database, at what is read.
pub(crate) trait Meddler: Send + Sync {
    fn rows(&self, truth: &SqliteStore, kind: Kind) -> Result<Vec<Row>, ServiceError>;

    fn epoch_count(&self, truth: &SqliteStore) -> Result<u64, ServiceError> {
        truth.epoch_count()
    }

    /// Whether there seem to be no epochs.
    fn hides_epochs(&self) -> bool {
        false
    }
}

/// A database with somebody before it.
pub(crate) struct Meddled<M> {
    pub(crate) truth: SqliteStore,
    pub(crate) meddler: M,
}

impl<M> Deref for Meddled<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.meddler
    }
}

impl<M: Meddler> Store for Meddled<M> {
    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, ServiceError> {
        self.truth.meta(name)
    }
    fn set_meta(&self, name: &str, value: &[u8]) -> Result<(), ServiceError> {
        self.truth.set_meta(name, value)
    }
    fn rows(&self, kind: Kind) -> Result<Vec<Row>, ServiceError> {
        self.meddler.rows(&self.truth, kind)
    }
    fn apply(&self, changes: &[Change]) -> Result<(), ServiceError> {
        self.truth.apply(changes)
    }
    fn epoch(&self, epoch_id: &[u8; 16]) -> Result<Option<EpochRow>, ServiceError> {
        if self.meddler.hides_epochs() { Ok(None) } else { self.truth.epoch(epoch_id) }
    }
    fn epoch_marks(&self, after: Option<[u8; 16]>, limit: u32) -> Result<Vec<EpochMark>, ServiceError> {
        self.truth.epoch_marks(after, limit)
    }
    fn epochs(&self, page: EpochPage) -> Result<Vec<EpochRow>, ServiceError> {
        if self.meddler.hides_epochs() { Ok(Vec::new()) } else { self.truth.epochs(page) }
    }
    fn epoch_count(&self) -> Result<u64, ServiceError> {
        self.meddler.epoch_count(&self.truth)
    }
    fn finish_upload(&self, object_id: &[u8; 16], row: &FinishedRow) -> Result<(), ServiceError> {
        self.truth.finish_upload(object_id, row)
    }
    fn finished_upload(&self, object_id: &[u8; 16]) -> Result<Option<FinishedRow>, ServiceError> {
        self.truth.finished_upload(object_id)
    }
    fn snapshot(&self) -> Result<Snapshot, ServiceError> {
        self.truth.snapshot()
    }
    fn fill(&self, items: &[Item]) -> Result<(), ServiceError> {
        self.truth.fill(items)
    }
    fn scrub(&self) -> Result<(), ServiceError> {
        self.truth.scrub()
    }
    fn check_ours(&self) -> Result<(), ServiceError> {
        self.truth.check_ours()
    }
    fn problem(&self) -> Option<String> {
        self.truth.problem()
    }
}
