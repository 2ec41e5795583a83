//! Footers that have been verified, remembered (docs/format.md §3.7); and under which name each was seen last.

use std::sync::Arc;
use std::time::Duration;

use claviger_format::footer::Manifest;
use claviger_format::metadata::Layout;
use claviger_format::{EpochId, ObjectId, ObjectName, OpenedEnvelope};
use claviger_s3::VersionId;
use moka::sync::Cache;

use crate::keys::era::Moment;
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

impl ManifestKey {
    fn weight(&self) -> u32 {
        weight(self.etag.len())
    }
}

/// Bytes that an entry with so much text takes, about.
fn weight(text_len: usize) -> u32 {
    u32::try_from(text_len).unwrap_or(u32::MAX).saturating_add(FIXED_BYTES)
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
        weight(self.name.bucket_id().as_str().len() + self.name.key().len() + version)
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
        let weigh = |key: &ManifestKey, manifest: &Arc<Manifest>| {
            let entries = u32::try_from(manifest.entries().len()).unwrap_or(u32::MAX);
            entries.saturating_mul(ENTRY_BYTES).saturating_add(key.weight())
        };
        let weigh_name = |named: &Named, key: &ManifestKey| named.weight().saturating_add(key.weight());
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

    /// Keeps what was verified by a key that was obtained at `held`.
    pub(crate) fn insert(&self, key: ManifestKey, manifest: Arc<Manifest>, held: &Moment) {
        self.verified.insert(key.clone(), manifest);
        if held.is_over() {
            // Everything was dropped while this came in.
            self.verified.invalidate(&key);
        }
    }

    /// Frees what is over by now, or was dropped. To be called every few seconds: by themselves the caches do so when they are used.
    pub(crate) fn tick(&self) {
        self.verified.run_pending_tasks();
        self.seen.run_pending_tasks();
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
            // Reading is cheaper than writing, and most of the time there is nothing to write.
            Layout::Single { .. } => {
                if self.seen.contains_key(&named) {
                    self.seen.invalidate(&named);
                }
            }
            Layout::Multipart => {
                let key = ManifestKey::of(head, envelope);
                if self.seen.get(&named).as_ref() != Some(&key) {
                    self.seen.insert(named, key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use claviger_env::{OsRandom, SystemClock};
    use claviger_format::footer::{self, FooterRead};
    use claviger_format::layout::g;
    use claviger_format::{BucketId, Entry, FooterInfo, Metadata, Salt, Wek};
    use claviger_s3::ETag;

    use super::*;
    use crate::keys::era::Era;
    use crate::upstream::passed::Passed;

    const EPOCH: EpochId = EpochId::new([1; 16]);
    const OBJECT: ObjectId = ObjectId::new([2; 16]);

    fn named(key: &str) -> Named {
        let bucket_id = BucketId::new(format!("photos#{}", "0".repeat(32))).unwrap();
        Named { name: ObjectName::new(bucket_id, key).unwrap(), version: None }
    }

    fn head(etag: &str) -> StoredHead {
        StoredHead {
            total_size: g(5).unwrap(),
            etag: ETag::parse(etag).unwrap(),
            last_modified_ms: 0,
            envelope: None,
            storage_class: None,
            range: None,
            passed: Passed::default(),
        }
    }

    fn envelope(layout: Layout) -> OpenedEnvelope {
        OpenedEnvelope { epoch_id: EPOCH, object_id: OBJECT, layout, metadata: Metadata::default() }
    }

    fn manifest() -> Arc<Manifest> {
        let dek = Wek::from_slice(&[3; 32]).unwrap().dek(EPOCH, OBJECT);
        let entries = [Entry { number: 1, length: 5, salt: Some(Salt::new([4; 16])), crc64: None }];
        let info = FooterInfo { created_ms: 0, crc64: None, checksum: None };
        let random = OsRandom::new(Arc::new(SystemClock)).unwrap();
        let sealed = footer::seal(&dek, EPOCH, OBJECT, &entries, &info, &random).unwrap();
        match footer::open(&dek, EPOCH, OBJECT, &sealed, g(5).unwrap()).unwrap() {
            FooterRead::Verified(manifest) => Arc::new(manifest),
            FooterRead::NeedMore { .. } => panic!("all of it was given"),
        }
    }

    fn is_read(manifests: &Manifests, key: &str) -> Option<bool> {
        match manifests.seen(&named(key)) {
            Seen::Single => None,
            Seen::Parts(_) => Some(true),
            Seen::PartsUnread => Some(false),
        }
    }

    #[test]
    fn a_name_tells_what_was_seen_under_it_last() {
        let (manifests, era) = (Manifests::new(), Era::default());
        let (parts, single) =
            (envelope(Layout::Multipart), envelope(Layout::Single { salt: Salt::new([4; 16]), length: 5 }));
        manifests.saw(named("a"), &head("one"), &parts);
        assert_eq!(is_read(&manifests, "a"), Some(false));
        manifests.insert(ManifestKey::of(&head("one"), &parts), manifest(), &era.now());
        assert_eq!(is_read(&manifests, "a"), Some(true));
        assert_eq!(is_read(&manifests, "b"), None);
        // Another one of the same upload, by its tag.
        manifests.saw(named("a"), &head("two"), &parts);
        assert_eq!(is_read(&manifests, "a"), Some(false));
        manifests.saw(named("a"), &head("three"), &single);
        assert_eq!(is_read(&manifests, "a"), None);
    }

    #[test]
    fn what_was_dropped_is_freed_though_nobody_asks_and_nothing_of_an_era_that_is_over_comes_in() {
        let (manifests, era) = (Manifests::new(), Era::default());
        let parts = envelope(Layout::Multipart);
        let key = || ManifestKey::of(&head("one"), &parts);
        let kept = manifest();
        manifests.insert(key(), kept.clone(), &era.now());
        manifests.saw(named("a"), &head("one"), &parts);
        manifests.tick();
        assert_eq!((Arc::strong_count(&kept), manifests.seen.entry_count()), (2, 1));
        let before = era.now();
        era.end();
        manifests.clear();
        manifests.tick();
        assert_eq!((Arc::strong_count(&kept), manifests.seen.entry_count()), (1, 0));
        manifests.insert(key(), kept.clone(), &before);
        assert!(manifests.get(&key()).is_none());
    }

    #[test]
    fn what_a_provider_writes_into_a_tag_counts() {
        let (manifests, parts) = (Manifests::new(), envelope(Layout::Multipart));
        let tag = "x".repeat(1000);
        for number in 0..40_000 {
            manifests.saw(named(&number.to_string()), &head(&tag), &parts);
        }
        manifests.tick();
        let kept = manifests.seen.entry_count();
        assert!(kept > 1000 && kept * 1000 < NAMES_BYTES_MAX, "{kept} entries");
    }
}
