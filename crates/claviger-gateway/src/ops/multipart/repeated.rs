//! Parts that were uploaded more than once with the same content. S3's part tags tell content, so that a client may name
//! the tag of any of these uploads in Complete; ours tell one sealing, of which only the last is at the store. What this
//! gateway has seen take the place of what, it remembers for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_format::ObjectId;
use claviger_format::token::PartTag;
use moka::sync::Cache;

/// Parts that are remembered, of some hundred bytes each.
const PARTS_MAX: u64 = 20_000;
/// Uploads of one part that are remembered.
const REPEATS_MAX: usize = 8;
/// An upload that nobody completes within this time is forgotten.
const IDLE: Duration = Duration::from_secs(24 * 3600);

/// The tags of an upload's parts, each part's in the order of their issue.
#[derive(Default)]
struct Noted(Mutex<HashMap<u16, Vec<String>>>);

/// What was noted of the uploads that go on.
pub(crate) struct RepeatedParts(Cache<ObjectId, Arc<Noted>>);

impl RepeatedParts {
    pub(crate) fn new() -> Self {
        let weigh = |_: &ObjectId, noted: &Arc<Noted>| u32::try_from(noted.len()).unwrap_or(u32::MAX);
        Self(Cache::builder().weigher(weigh).max_capacity(PARTS_MAX).time_to_idle(IDLE).build())
    }

    /// Notes that a part was stored, in the place of any before it.
    pub(crate) fn note(&self, object_id: ObjectId, number: u16, tag: &PartTag) {
        // Put back each time, so that the cache weighs it anew.
        self.0.entry(object_id).and_upsert_with(|before| {
            let noted = before.map(moka::Entry::into_value).unwrap_or_default();
            noted.add(number, tag.to_text());
            noted
        });
    }

    /// Forgets an upload that is over.
    pub(crate) fn forget(&self, object_id: ObjectId) {
        self.0.invalidate(&object_id);
    }

    /// The tag of the upload that took the place of the `named` one with the same content, by length and CRC64NVME.
    /// Nothing of it is verified here; the caller verifies the tag that it uses.
    pub(crate) fn in_place_of(&self, object_id: ObjectId, number: u16, named: &PartTag) -> Option<PartTag> {
        let tags = self.0.get(&object_id)?.of(number);
        let (last, before) = tags.split_last()?;
        if !before.contains(&named.to_text()) {
            return None;
        }
        let last = PartTag::parse(last).ok()?;
        let (was, is) = (named.claimed_state()?.part.entry(), last.claimed_state()?.part.entry());
        (was.length == is.length && was.crc64.is_some() && was.crc64 == is.crc64).then_some(last)
    }
}

impl Noted {
    fn add(&self, number: u16, tag: String) {
        let mut parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tags = parts.entry(number).or_default();
        if tags.len() == REPEATS_MAX {
            tags.remove(0);
        }
        tags.push(tag);
    }

    fn of(&self, number: u16) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned().unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use claviger_env::{OsRandom, SystemClock};
    use claviger_format::object::PartState;
    use claviger_format::token::PartTagState;
    use claviger_format::{EpochId, Salt, Wek};

    use super::*;

    fn tag(etag: &str, length: u64, crc64: u64) -> PartTag {
        let random = OsRandom::new(Arc::new(SystemClock)).unwrap();
        let dek =
            Wek::generate(&random, &[0; 32]).unwrap().dek(EpochId::new([1; 16]), ObjectId::new([1; 16]));
        let part = PartState { number: 3, length, salt: Salt::new([2; 16]), crc64 };
        let state = PartTagState { held: false, part, checksum: None };
        PartTag::issue(&dek.etag_key(), etag, state).unwrap()
    }

    #[test]
    fn the_last_upload_stands_in_for_one_before_it_with_the_same_content_only() {
        let (object, parts) = (ObjectId::new([1; 16]), RepeatedParts::new());
        let (first, other, last) = (tag("a", 10, 5), tag("b", 10, 6), tag("c", 10, 5));
        for tag in [&first, &other, &last] {
            parts.note(object, 3, tag);
        }
        let found = |named: &PartTag| parts.in_place_of(object, 3, named).map(|tag| tag.to_text());
        assert_eq!(found(&first), Some(last.to_text()));
        assert_eq!(found(&other), None, "its content was replaced");
        assert_eq!(found(&last), None, "it is the last");
        assert_eq!(found(&tag("elsewhere", 10, 5)), None, "another gateway's");
        assert!(parts.in_place_of(object, 4, &first).is_none(), "another part's");
        parts.forget(object);
        assert_eq!(found(&first), None, "the upload is over");
    }
}
