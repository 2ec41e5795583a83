//! Footers that have been verified, remembered (docs/format.md §3.7).

use std::sync::Arc;
use std::time::Duration;

use claviger_format::footer::Manifest;
use claviger_format::{EpochId, ObjectId};
use moka::sync::Cache;

use super::source::Object;

/// What nobody asks for any more is forgotten, so that a gateway's memory follows what is being read now and not all that
/// was ever read.
const IDLE: Duration = Duration::from_secs(600);
/// Bytes of manifests that are kept.
const CACHED_BYTES_MAX: u64 = 64 << 20;
const ENTRY_BYTES: u32 = 40;
const FIXED_BYTES: u32 = 512;

/// One stored object. The identity alone would do, since a footer is sealed under it; size and entity tag keep an
/// entry from serving another Complete of the same upload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ManifestKey {
    epoch_id: EpochId,
    object_id: ObjectId,
    etag: String,
    total_size: u64,
}

impl ManifestKey {
    /// The key of an object that was found.
    pub(crate) fn of(object: &Object) -> Self {
        Self {
            epoch_id: object.envelope.epoch_id,
            object_id: object.envelope.object_id,
            etag: object.head.etag.as_str().to_owned(),
            total_size: object.head.total_size,
        }
    }
}

/// The cache; only verified manifests get in. A clone is another handle on the same.
#[derive(Clone)]
pub(crate) struct Manifests(Cache<ManifestKey, Arc<Manifest>>);

impl Manifests {
    pub(crate) fn new() -> Self {
        let weigh = |_: &ManifestKey, manifest: &Arc<Manifest>| {
            let entries = u32::try_from(manifest.entries().len()).unwrap_or(u32::MAX);
            entries.saturating_mul(ENTRY_BYTES).saturating_add(FIXED_BYTES)
        };
        Self(Cache::builder().weigher(weigh).max_capacity(CACHED_BYTES_MAX).time_to_idle(IDLE).build())
    }

    pub(crate) fn get(&self, key: &ManifestKey) -> Option<Arc<Manifest>> {
        self.0.get(key)
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.0.invalidate_all();
    }

    pub(crate) fn insert(&self, key: ManifestKey, manifest: Arc<Manifest>) {
        self.0.insert(key, manifest);
    }
}
