//! What a stream sees when it looks, and what it tells of the difference.

use std::sync::{Arc, Weak};

use claviger_format::Root;
use claviger_keyapi::watch::WATCH_BUCKETS_MAX;
use claviger_keyapi::{Id16, KeyServiceError, Role, WatchEvent};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::Rights;
use crate::identity::Peer;
use crate::keyset::Keyset;
use crate::service::{Caller, Core};
use crate::vault::Vault;

/// Everything of which a change has to be told, but for the bindings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Seen {
    rights: Rights,
    /// Keysets of the caller with the version that each seals to and those that open.
    versions: Vec<Versions>,
    /// Keysets of which the caller gets nothing because it, they or everything is frozen.
    frozen: Vec<String>,
    /// Which epochs are in quarantine.
    quarantined: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Versions {
    keyset_id: Id16,
    seals: Option<u32>,
    open: Vec<u32>,
    /// Left out where it is not so: what was told before this was known stays the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    era_shred: bool,
}

impl Versions {
    fn of(keyset: &Keyset, era_shred: bool) -> Self {
        Self {
            keyset_id: keyset.public_id(),
            seals: keyset.newest().map(|version| version.number),
            open: keyset.open_roots().map(Root::version).collect(),
            era_shred,
        }
    }

    /// Whether what was sealed before opens as before, and there is still something to seal to.
    fn keeps_all_of(&self, before: &Self) -> bool {
        self.keyset_id == before.keyset_id
            && (self.seals.is_some() || before.seals.is_none())
            && before.open.iter().all(|version| self.open.contains(version))
    }
}

/// Why a stream ends, and what is said last.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Locked,
    Revoked,
    /// The certificate ran out, its key is not the enrolled one any more, or nothing can be told: whoever still may comes
    /// again.
    Silent,
}

impl End {
    pub(super) fn event(&self) -> Option<WatchEvent> {
        match self {
            Self::Locked => Some(WatchEvent::Locked),
            Self::Revoked => Some(WatchEvent::Revoked),
            Self::Silent => None,
        }
    }
}

/// The eyes of one stream. They hold nothing secret: a service that locks must not be kept from wiping.
pub(super) struct Eyes {
    peer: Peer,
    uid: Id16,
    vault: Weak<Vault>,
    seen: Seen,
    bindings_seen: u64,
}

impl Eyes {
    /// Takes a first look; gives the line to begin with.
    pub(super) fn open(core: &Core, peer: Peer, caller: &Caller) -> (Self, WatchEvent) {
        let bindings_seen = caller.vault.bindings.changes().newest();
        let seen = Seen::now(core, caller);
        let hello = WatchEvent::Hello { state: seen.digest() };
        let (uid, vault) = (caller.row.uid, Arc::downgrade(&caller.vault));
        (Self { peer, uid, vault, seen, bindings_seen }, hello)
    }

    pub(super) fn uid(&self) -> Id16 {
        self.uid
    }

    /// What has to be told now. The caller is checked as at any request.
    pub(super) fn look(&mut self, core: &Core) -> Result<Vec<WatchEvent>, End> {
        let caller = self.caller(core)?;
        let mut events = Vec::new();
        let now = Seen::now(core, &caller);
        if now != self.seen {
            events.push(now.event_after(&self.seen));
            self.seen = now;
        }
        events.extend(self.bindings(core, &caller));
        Ok(events)
    }

    fn caller(&self, core: &Core) -> Result<Caller, End> {
        let info = core.request_info(Some(self.peer.identity.clone())).map_err(|_| End::Silent)?;
        let caller = match core.caller(Some(&self.peer), Role::Gateway, info) {
            Ok(caller) => caller,
            Err(KeyServiceError::Locked) => return Err(End::Locked),
            Err(_) => return Err(self.why_not(core)),
        };
        // Locked and unlocked again between two looks is a lock all the same.
        if !std::ptr::eq(Arc::as_ptr(&caller.vault), self.vault.as_ptr()) {
            return Err(End::Locked);
        }
        Ok(caller)
    }

    fn why_not(&self, core: &Core) -> End {
        let row = core.vault().ok().and_then(|vault| vault.identity(self.uid));
        if row.is_some_and(|row| row.revoked_ms.is_some()) { End::Revoked } else { End::Silent }
    }

    fn bindings(&mut self, core: &Core, caller: &Caller) -> Option<WatchEvent> {
        let changes = caller.vault.bindings.changes();
        let newest = changes.newest();
        if newest == self.bindings_seen {
            return None;
        }
        let since = std::mem::replace(&mut self.bindings_seen, newest);
        let Some(changed) = changes.since(since) else {
            return Some(WatchEvent::Bindings { buckets: None });
        };
        let mut buckets: Vec<String> = changed
            .into_iter()
            .filter(|change| core.sees_bucket(caller, change.keyset_id, &change.bucket))
            .map(|change| change.bucket)
            .collect();
        buckets.sort_unstable();
        buckets.dedup();
        let too_many = buckets.len() > WATCH_BUCKETS_MAX;
        (!buckets.is_empty()).then(|| WatchEvent::Bindings { buckets: (!too_many).then_some(buckets) })
    }
}

impl Seen {
    fn now(core: &Core, caller: &Caller) -> Self {
        let policy = core.policy.load();
        let rights = policy.rights(&caller.row.identity, &caller.row.keysets);
        let keysets = caller.row.keysets.iter().filter_map(|name| caller.vault.keyset(name));
        let versions = keysets.map(|keyset| Versions::of(&keyset, policy.is_shredded_by_era(&keyset.name)));
        let versions = versions.collect();
        let freezes = &caller.vault.freezes;
        let is_frozen = |name: &&String| freezes.stops(&caller.row.identity, Some(name)).is_some();
        let frozen = caller.row.keysets.iter().filter(is_frozen).cloned().collect();
        Self { rights, versions, frozen, quarantined: caller.vault.quarantine.sum() }
    }

    /// One line for all that changed: the one that says most of what it takes.
    fn event_after(&self, before: &Self) -> WatchEvent {
        let state = self.digest();
        if self.frozen.iter().any(|name| !before.frozen.contains(name)) {
            WatchEvent::Frozen { state }
        } else if self.quarantined != before.quarantined {
            WatchEvent::Quarantined { state }
        } else {
            WatchEvent::Policy { state, less: !self.keeps_all_of(before) }
        }
    }

    fn keeps_all_of(&self, before: &Self) -> bool {
        let keysets_stay =
            before.versions.iter().all(|old| self.versions.iter().any(|new| new.keeps_all_of(old)));
        keysets_stay && self.rights.keep_all_of(&before.rights)
    }

    /// The same for the same rights, also after a restart.
    fn digest(&self) -> Id16 {
        let json =
            serde_json::to_vec(self).expect("sets of strings and numbers serialise to memory without fail");
        let mut digest = [0; 16];
        digest.copy_from_slice(&Sha256::digest(json)[..16]);
        Id16(digest)
    }
}
