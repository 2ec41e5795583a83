//! Bucket bindings, and the waiting time of a name whose bucket was deleted.
//!
//! Gateways keep a binding for a while. If a name were bound again at once, a gateway that still knows the old binding would
//! seal objects for a bucket id that nobody looks for any more. So the service remembers who fetched a binding, and keeps a
//! name closed after unbinding until the copies of all gateways *other than the one that binds again* have run out; that one
//! learns the new binding by doing so. The one that unbound it counts like any other. A gateway alone waits for nothing.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_env::Clock;
use claviger_keyapi::{Binding, Id16};
use serde::{Deserialize, Serialize};

use crate::binding_changes::BindingChanges;

/// A binding in the database; the id of its row is the bucket's name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BindingRow {
    pub(crate) bucket: String,
    pub(crate) bucket_id: String,
    pub(crate) keyset_id: Id16,
    pub(crate) created_ms: u64,
}

/// A name that was unbound; survives a restart, which forgets who had fetched it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClosingRow {
    pub(crate) bucket: String,
    pub(crate) unbound_ms: u64,
    pub(crate) by: Id16,
}

impl BindingRow {
    pub(crate) fn answer(&self, created: bool) -> Binding {
        Binding {
            bucket: self.bucket.clone(),
            bucket_id: self.bucket_id.clone(),
            keyset_id: self.keyset_id,
            created,
        }
    }
}

/// The bindings in memory.
pub(crate) struct Bindings {
    ttl_ms: u64,
    inner: Mutex<Inner>,
    changes: BindingChanges,
}

struct Inner {
    by_name: BTreeMap<String, BindingRow>,
    by_id: HashMap<String, String>,
    /// Bucket name → gateway → boot time until which it may use what it fetched.
    fetched: HashMap<String, HashMap<Id16, u64>>,
    /// Names that were unbound, in the same shape.
    closing: HashMap<String, HashMap<Id16, u64>>,
    /// Until then (boot time) everyone may know what he fetched before this process started.
    unknown_until: u64,
}

impl Bindings {
    pub(crate) fn load(
        rows: Vec<BindingRow>,
        closing: &[ClosingRow],
        gateways: &HashSet<Id16>,
        clock: &dyn Clock,
        ttl_ms: u64,
    ) -> Self {
        let unknown_until = clock.boot_ms().saturating_add(ttl_ms);
        let now_ms = clock.now_ms();
        let still_closing =
            |row: &&ClosingRow| now_ms.checked_sub(row.unbound_ms).is_none_or(|age| age < ttl_ms);
        let holders = || gateways.iter().map(|uid| (*uid, unknown_until)).collect::<HashMap<_, _>>();
        let closing = closing
            .iter()
            .map(|row| (row.bucket.clone(), if still_closing(&row) { holders() } else { HashMap::new() }))
            .collect();
        let by_id = rows.iter().map(|row| (row.bucket_id.clone(), row.bucket.clone())).collect();
        let by_name = rows.into_iter().map(|row| (row.bucket.clone(), row)).collect();
        let inner = Inner { by_name, by_id, fetched: HashMap::new(), closing, unknown_until };
        Self { ttl_ms, inner: Mutex::new(inner), changes: BindingChanges::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a handful of map operations that don't panic half way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was bound and unbound last.
    pub(crate) fn changes(&self) -> &BindingChanges {
        &self.changes
    }

    pub(crate) fn get(&self, bucket: &str) -> Option<BindingRow> {
        self.lock().by_name.get(bucket).cloned()
    }

    pub(crate) fn by_id(&self, bucket_id: &str) -> Option<BindingRow> {
        let inner = self.lock();
        inner.by_id.get(bucket_id).and_then(|name| inner.by_name.get(name)).cloned()
    }

    pub(crate) fn all(&self) -> Vec<BindingRow> {
        self.lock().by_name.values().cloned().collect()
    }

    /// Bucket ids of a keyset, ordered.
    pub(crate) fn ids_of(&self, keyset_id: Id16) -> Vec<String> {
        self.lock()
            .by_name
            .values()
            .filter(|row| row.keyset_id == keyset_id)
            .map(|row| row.bucket_id.clone())
            .collect()
    }

    /// Remembers that a gateway is told this binding now.
    pub(crate) fn told(&self, bucket: &str, gateway: Id16, now_boot_ms: u64) {
        let until = now_boot_ms.saturating_add(self.ttl_ms);
        self.lock().fetched.entry(bucket.to_owned()).or_default().insert(gateway, until);
    }

    /// How long the name stays closed for this gateway, in milliseconds; `None` if it is free.
    pub(crate) fn closed_for_ms(&self, bucket: &str, gateway: Id16, now_boot_ms: u64) -> Option<u64> {
        let inner = self.lock();
        let latest = inner
            .closing
            .get(bucket)?
            .iter()
            .filter(|(uid, _)| **uid != gateway)
            .map(|(_, until)| *until)
            .max()?;
        latest.checked_sub(now_boot_ms).filter(|wait| *wait > 0)
    }

    /// How many buckets a keyset has.
    pub(crate) fn count_of(&self, keyset_id: Id16) -> usize {
        self.lock().by_name.values().filter(|row| row.keyset_id == keyset_id).count()
    }

    /// Names that need not be kept closed any more: their rows can go.
    pub(crate) fn closed_long_enough(&self, now_boot_ms: u64) -> Vec<String> {
        let over = |holders: &HashMap<Id16, u64>| holders.values().all(|until| *until <= now_boot_ms);
        let inner = self.lock();
        inner.closing.iter().filter(|(_, holders)| over(holders)).map(|(name, _)| name.clone()).collect()
    }

    /// Forgets names whose rows are gone.
    pub(crate) fn forget_closed(&self, names: &[String]) {
        let mut inner = self.lock();
        names.iter().for_each(|name| drop(inner.closing.remove(name)));
    }

    pub(crate) fn bind(&self, row: BindingRow) {
        self.changes.note(row.keyset_id, &row.bucket);
        let mut inner = self.lock();
        inner.closing.remove(&row.bucket);
        inner.by_id.insert(row.bucket_id.clone(), row.bucket.clone());
        inner.by_name.insert(row.bucket.clone(), row);
    }

    /// Ends a binding. `gateways` are those that may have fetched it before this process started. The one that unbound it is
    /// waited for like any other: a request of its own that is under way may still use what it was told.
    pub(crate) fn unbind(&self, bucket: &str, gateways: &[Id16], now_boot_ms: u64) {
        let mut inner = self.lock();
        if let Some(row) = inner.by_name.remove(bucket) {
            inner.by_id.remove(&row.bucket_id);
            self.changes.note(row.keyset_id, bucket);
        }
        let mut holders = inner.fetched.remove(bucket).unwrap_or_default();
        if inner.unknown_until > now_boot_ms {
            for uid in gateways {
                let until = holders.entry(*uid).or_insert(0);
                *until = (*until).max(inner.unknown_until);
            }
        }
        holders.retain(|_, until| *until > now_boot_ms);
        inner.closing.insert(bucket.to_owned(), holders);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At {
        now_ms: u64,
        boot_ms: u64,
    }

    impl Clock for At {
        fn now_ms(&self) -> u64 {
            self.now_ms
        }
        fn boot_ms(&self) -> u64 {
            self.boot_ms
        }
    }

    const A: Id16 = Id16([1; 16]);
    const B: Id16 = Id16([2; 16]);

    fn row(bucket: &str) -> BindingRow {
        BindingRow {
            bucket: bucket.into(),
            bucket_id: format!("{bucket}#1"),
            keyset_id: Id16([9; 16]),
            created_ms: 0,
        }
    }

    fn bindings(closing: &[ClosingRow], gateways: &[Id16], boot_ms: u64) -> Bindings {
        let clock = At { now_ms: 1_000_000, boot_ms };
        Bindings::load(vec![row("b")], closing, &gateways.iter().copied().collect(), &clock, 30_000)
    }

    #[test]
    fn a_name_stays_closed_while_another_gateway_may_know_the_old_binding() {
        let bindings = bindings(&[], &[A, B], 0);
        bindings.told("b", B, 100_000);
        bindings.told("b", A, 100_000);
        bindings.unbind("b", &[A, B], 110_000);
        assert_eq!(bindings.closed_for_ms("b", A, 110_000), Some(20_000));
        assert_eq!(bindings.closed_for_ms("b", A, 130_000), None);
        assert_eq!(
            bindings.closed_for_ms("b", B, 110_000),
            Some(20_000),
            "B waits for A, which was told before it unbound"
        );
        assert!(bindings.closed_long_enough(129_999).is_empty());
        assert_eq!(bindings.closed_long_enough(130_000), ["b"]);
        bindings.forget_closed(&["b".into()]);
        assert!(bindings.closed_long_enough(130_000).is_empty());
        assert!(bindings.by_id("b#1").is_none());
    }

    #[test]
    fn with_nobody_else_a_name_is_free_at_once() {
        let bindings = bindings(&[], &[A], 0);
        bindings.told("b", A, 1_000);
        bindings.unbind("b", &[A], 1_001);
        assert_eq!(bindings.closed_for_ms("b", A, 1_001), None);
    }

    #[test]
    fn right_after_a_start_others_are_assumed_to_know_every_binding() {
        let bindings = bindings(&[], &[A, B], 50_000);
        bindings.unbind("b", &[A, B], 60_000);
        assert_eq!(bindings.closed_for_ms("b", A, 60_000), Some(20_000));
    }

    #[test]
    fn a_restart_does_not_open_a_closed_name() {
        let closing = |unbound_ms| [ClosingRow { bucket: "gone".into(), unbound_ms, by: A }];
        let wait = |unbound_ms, gateways: &[Id16]| {
            bindings(&closing(unbound_ms), gateways, 5_000).closed_for_ms("gone", A, 5_000)
        };
        assert_eq!(wait(990_000, &[A, B]), Some(30_000));
        assert_eq!(wait(960_000, &[A, B]), None);
        assert_eq!(wait(990_000, &[A]), None);
        assert_eq!(wait(2_000_000, &[A, B]), Some(30_000), "a wall clock that went back opens nothing");
    }

    #[test]
    fn bindings_are_found_by_name_and_by_id() {
        let bindings = bindings(&[], &[A], 0);
        bindings.bind(BindingRow { bucket_id: "c#7".into(), ..row("c") });
        assert_eq!(bindings.by_id("c#7").unwrap().bucket, "c");
        assert_eq!(bindings.get("c").unwrap().bucket_id, "c#7");
        assert_eq!(bindings.ids_of(Id16([9; 16])), ["b#1", "c#7"]);
        assert_eq!(bindings.all().len(), 2);
    }
}
