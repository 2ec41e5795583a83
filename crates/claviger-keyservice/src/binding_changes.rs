//! The last changes of bindings, for those who hold a stream and want to hear which buckets were meant.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_keyapi::Id16;
use claviger_keyapi::watch::WATCH_BUCKETS_MAX;

/// One bucket that was bound or unbound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindingChange {
    pub(crate) keyset_id: Id16,
    pub(crate) bucket: String,
}

/// The last [`WATCH_BUCKETS_MAX`] of them, numbered from 1.
#[derive(Default)]
pub(crate) struct BindingChanges(Mutex<Recent>);

#[derive(Default)]
struct Recent {
    newest: u64,
    last: VecDeque<BindingChange>,
}

impl BindingChanges {
    pub(crate) fn note(&self, keyset_id: Id16, bucket: &str) {
        let mut recent = self.lock();
        recent.newest += 1;
        if recent.last.len() == WATCH_BUCKETS_MAX {
            recent.last.pop_front();
        }
        recent.last.push_back(BindingChange { keyset_id, bucket: bucket.to_owned() });
    }

    /// Number of the newest change; 0 if there was none.
    pub(crate) fn newest(&self) -> u64 {
        self.lock().newest
    }

    /// What came after number `seen`; `None` if part of it is forgotten.
    pub(crate) fn since(&self, seen: u64) -> Option<Vec<BindingChange>> {
        let recent = self.lock();
        let count = usize::try_from(recent.newest.saturating_sub(seen)).ok()?;
        let known = recent.last.len();
        (count <= known).then(|| recent.last.iter().skip(known - count).cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Recent> {
        // A change that was counted and not kept would be told as forgotten.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_fallen_behind_is_told_that_any_bucket_may_be_meant() {
        let changes = BindingChanges::default();
        let keyset = Id16([1; 16]);
        assert_eq!(changes.since(0), Some(vec![]));
        changes.note(keyset, "first");
        for n in 2..=WATCH_BUCKETS_MAX {
            changes.note(keyset, &format!("b{n}"));
        }
        assert_eq!(changes.since(0).unwrap()[0].bucket, "first");
        assert_eq!(changes.since(255).unwrap().len(), 1);
        changes.note(keyset, "one more");
        assert_eq!(changes.since(0), None);
        assert_eq!(changes.since(1).unwrap().len(), WATCH_BUCKETS_MAX);
        assert_eq!(changes.since(changes.newest()), Some(vec![]));
    }
}
