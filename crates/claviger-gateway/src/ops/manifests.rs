//! Footers that have been verified, remembered (docs/format.md §3.7); and under which name each was seen last.

use std::sync::Arc;
use std::time::Duration;

use claviger_format::footer::Manifest;
use claviger_format::metadata::Layout;
use claviger_format::{EpochId, ObjectId, ObjectName, OpenedEnvelope};
use claviger_s3::VersionId;
use moka::sync::Cache;

use crate::upstream::object::StoredHead;

/// What nobody asks for any more is forgotten, so that a gateway's memory follows what is being read now and not all that
/// was ever read.
const IDLE: Duration = Duration::from_secs(600);
/// Bytes of manifests that are kept.
const CACHED_BYTES_MAX: u64 = 64 << 20;
const ENTRY_BYTES: u32 = 40;
const FIXED_BYTES: u32 = 512;
/// Bytes of names that are kept.
const NAMES_BYTES_MAX: u64 = 16 << 20;

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
    pub(crate) fn of(head: &StoredHead, envelope: &OpenedEnvelope) -> Self {
        Self {
            epoch_id: envelope.epoch_id,
            object_id: envelope.object_id,
            etag: head.etag.as_str().to_owned(),
            total_size: head.total_size,
        }
    }
}

/// A name, in one version; the newest if there is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Named {
    /// The name.
    pub name: ObjectName,
    /// The version that is asked for.
    pub version: Option<VersionId>,
}

impl Named {
    fn weight(&self) -> u32 {
        let version = self.version.as_ref().map_or(0, |version| version.as_str().len());
        let text = self.name.bucket_id().as_str().len() + self.name.key().len() + version;
        u32::try_from(text).unwrap_or(u32::MAX).saturating_add(FIXED_BYTES)
    }
}

/// What was found under a name when it was last asked for. By now it may be another object: nothing is taken for true by
/// it, it only says what is worth asking for.
#[derive(Debug)]
pub(crate) enum Seen {
    /// Nothing, or an object of one unit.
    Single,
    /// A multipart object, and where its parts lie.
    Parts(Arc<Manifest>),
    /// A multipart object whose footer is not known.
    PartsUnread,
}

/// The cache; only verified manifests get in. A clone is another handle on the same.
#[derive(Clone)]
pub(crate) struct Manifests {
    verified: Cache<ManifestKey, Arc<Manifest>>,
    /// Multipart objects only.
    seen: Cache<Named, ManifestKey>,
}

impl Manifests {
    pub(crate) fn new() -> Self {
        let weigh = |_: &ManifestKey, manifest: &Arc<Manifest>| {
            let entries = u32::try_from(manifest.entries().len()).unwrap_or(u32::MAX);
            entries.saturating_mul(ENTRY_BYTES).saturating_add(FIXED_BYTES)
        };
        let weigh_name = |named: &Named, _: &ManifestKey| named.weight();
        Self {
            verified: Cache::builder()
                .weigher(weigh)
                .max_capacity(CACHED_BYTES_MAX)
                .time_to_idle(IDLE)
                .build(),
            seen: Cache::builder()
                .weigher(weigh_name)
                .max_capacity(NAMES_BYTES_MAX)
                .time_to_idle(IDLE)
                .build(),
        }
    }

    pub(crate) fn get(&self, key: &ManifestKey) -> Option<Arc<Manifest>> {
        self.verified.get(key)
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.verified.invalidate_all();
        self.seen.invalidate_all();
    }

    pub(crate) fn insert(&self, key: ManifestKey, manifest: Arc<Manifest>) {
        self.verified.insert(key, manifest);
    }

    /// What was seen last under a name.
    pub(crate) fn seen(&self, named: &Named) -> Seen {
        match self.seen.get(named).map(|key| self.get(&key)) {
            None => Seen::Single,
            Some(Some(manifest)) => Seen::Parts(manifest),
            Some(None) => Seen::PartsUnread,
        }
    }

    /// Remembers what is under a name now.
    pub(crate) fn saw(&self, named: Named, head: &StoredHead, envelope: &OpenedEnvelope) {
        match envelope.layout {
            Layout::Single { .. } => self.seen.invalidate(&named),
            Layout::Multipart => {
                let key = ManifestKey::of(head, envelope);
                // Reading is cheaper than writing, and most of the time it is there.
                if self.seen.get(&named).as_ref() != Some(&key) {
                    self.seen.insert(named, key);
                }
            }
        }
    }
}
