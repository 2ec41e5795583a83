//! Envelopes that were opened, with the keys of their objects: an object that is asked for again, as after a HEAD or range by
//! range, needs no key derived and nothing decrypted to say what it is.
//!
//! One slot for each value of some bits of the envelope, and the newest wins it: a look costs a comparison, forgetting nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claviger_format::envelope::Envelope;
use claviger_format::{KeysetId, ObjectName};

use super::era::Term;
use super::read::{Asked, Mode, OpenedObject};

/// A power of two.
const SLOTS: usize = 4096;
/// Sealed bytes of an envelope that is kept. Usually it has some 150, and all slots together some 4 MiB; with as many fields as
/// fit this, which takes somebody who has the epoch's key, 70 MiB.
const SEALED_LEN_MAX: usize = 1024;

struct Entry {
    keyset_id: KeysetId,
    mode: Mode,
    name: ObjectName,
    envelope: Envelope,
    object: OpenedObject,
    term: Term,
}

impl Entry {
    /// Whether this very envelope was opened, under this name, with a key of this keyset that was obtained in this way: what was
    /// opened by a lease says nothing of what the service would release one by one, and writes down.
    fn is_of(&self, asked: Asked<'_>, mode: Mode) -> bool {
        self.keyset_id == asked.bound.keyset_id
            && self.mode == mode
            && self.envelope == *asked.envelope
            && self.name == *asked.name
    }
}

/// The cache.
pub(super) struct OpenedEnvelopes(Box<[Mutex<Option<Arc<Entry>>>]>);

impl OpenedEnvelopes {
    pub(super) fn new() -> Self {
        Self((0..SLOTS).map(|_| Mutex::default()).collect())
    }

    /// What came of opening exactly this before, if its key may still be used.
    pub(super) fn get(&self, asked: Asked<'_>, mode: Mode, now_boot_ms: u64) -> Option<OpenedObject> {
        let entry = self.slot(asked.envelope).clone()?;
        (entry.is_of(asked, mode) && !entry.term.is_over(now_boot_ms)).then(|| entry.object.clone())
    }

    /// Keeps what came of it, until its key is over.
    pub(super) fn insert(&self, asked: Asked<'_>, mode: Mode, object: OpenedObject, term: Term) {
        if asked.envelope.sealed_len() > SEALED_LEN_MAX {
            return;
        }
        let (keyset_id, name, envelope) = (asked.bound.keyset_id, asked.name.clone(), asked.envelope.clone());
        let entry = Arc::new(Entry { keyset_id, mode, name, envelope, object, term });
        let before = self.slot(asked.envelope).replace(entry.clone());
        drop(before);
        if entry.term.held.is_over() {
            // Everything was dropped while this came in.
            *self.slot(asked.envelope) = None;
        }
    }

    /// Drops everything whose key is over.
    pub(super) fn drop_over(&self, now_boot_ms: u64) {
        self.drop_where(|entry| entry.term.is_over(now_boot_ms));
    }

    /// Drops everything.
    pub(super) fn forget(&self) {
        self.drop_where(|_| true);
    }

    fn drop_where(&self, is_dropped: impl Fn(&Entry) -> bool) {
        for slot in &self.0 {
            let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            if slot.as_deref().is_some_and(&is_dropped) {
                *slot = None;
            }
        }
    }

    /// By its commitment, which is as good as random; whoever makes it up shares a slot with whom he likes, and has nothing of it.
    fn slot(&self, envelope: &Envelope) -> MutexGuard<'_, Option<Arc<Entry>>> {
        let [first, second, ..] = *envelope.commitment();
        let index = usize::from(u16::from_be_bytes([first, second])) % SLOTS;
        self.0[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
