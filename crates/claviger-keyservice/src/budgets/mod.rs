//! Budgets: how many distinct epochs and objects of a keyset an identity was given within a window, and what happens when it
//! wants more.
//!
//! What counts is what the log says was released: [`Item::of`] reads it from a record, the same for one that is about to be
//! written and for those that are read back at unlock. Counting and deciding are one step under one lock, so requests side by
//! side don't get more than one after the other. Whoever exceeds is stopped in that moment, in memory, and frozen in the ledger
//! right after; the items before that in the same request are released.
//!
//! Time is the boot-time clock's while the service is unlocked, so nobody refills a budget by setting the wall clock.

mod counting;
mod from_log;
mod window;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_keyapi::admin::{BudgetInfo, BudgetList};
use claviger_keyapi::proposals::FreezeTarget;
use claviger_keyapi::{Id16, Identity};

use crate::audit_record::{Outcome, Record};
use crate::policy::{Budget, Policy, Table};
use crate::service::{Caller, Core};
use crate::vault::Vault;
pub(crate) use counting::Ahead;
use window::Window;

/// Something whose key is released, as far as budgets count it. Whoever has the key of an epoch has all of its objects', so
/// the two are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    Epoch([u8; 16]),
    /// Epoch and object id: what a DEK is derived from. Copies of an object have its DEK.
    Object([[u8; 16]; 2]),
}

impl Item {
    /// What the record of a release tells of; `None` for what no budget counts.
    pub(crate) fn of(
        action: &str,
        is_released: bool,
        epoch_id: Option<Id16>,
        object_id: Option<Id16>,
    ) -> Option<Self> {
        match action {
            _ if !is_released => None,
            "lease" => Some(Self::Epoch(epoch_id?.0)),
            "derive" | "continue" => Some(Self::Object([epoch_id?.0, object_id?.0])),
            _ => None,
        }
    }

    fn max(&self, budget: &Budget) -> Option<u32> {
        match self {
            Self::Epoch(_) => budget.epochs_max,
            Self::Object(_) => budget.objects_max,
        }
    }

    fn of_record(record: &Record) -> Option<Self> {
        let is_released = record.outcome == Outcome::Released;
        Self::of(record.action(), is_released, record.epoch_id, record.object_id)
    }
}

/// What was used of one budget.
#[derive(Debug, Default)]
struct Used {
    epochs: Window<[u8; 16]>,
    objects: Window<[[u8; 16]; 2]>,
}

/// What was used of all budgets.
#[derive(Default)]
pub(crate) struct Budgets {
    /// Whether the unlock read only the end of the log, and the rest is still to be counted.
    is_partial: AtomicBool,
    used: Mutex<BTreeMap<Identity, BTreeMap<String, Used>>>,
}

impl Budgets {
    fn used(&self) -> MutexGuard<'_, BTreeMap<Identity, BTreeMap<String, Used>>> {
        // A panic between the two halves of a window could leave one of them too long: that counts too much, never too little.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, unless it is one too many.
    fn spend(&self, identity: &Identity, keyset: &str, budget: &Budget, item: &Item, boot_ms: u64) -> bool {
        let Some(max) = item.max(budget) else { return true };
        let now = i64::try_from(boot_ms).unwrap_or(i64::MAX);
        let mut all = self.used();
        let used = entry(&mut all, identity, keyset);
        match item {
            Item::Epoch(id) => used.epochs.spend(*id, now, budget.window_ms(), max),
            Item::Object(ids) => used.objects.spend(*ids, now, budget.window_ms(), max),
        }
    }

    /// Counts what the log tells of.
    fn remember(&self, table: &Table, identity: &str, keyset: &str, item: &Item, (time, age_ms): (i64, i64)) {
        let Ok(identity) = identity.parse::<Identity>() else { return };
        let Some(budget) = table.get(&identity).and_then(|budgets| budgets.get(keyset)) else { return };
        let Some(max) = item.max(budget) else { return };
        if age_ms >= budget.window_ms() {
            return;
        }
        let mut all = self.used();
        let used = entry(&mut all, &identity, keyset);
        match item {
            Item::Epoch(id) => used.epochs.remember(*id, time, max),
            Item::Object(ids) => used.objects.remember(*ids, time, max),
        }
    }

    /// Epochs and objects in the window that ends now.
    fn len(&self, identity: &Identity, keyset: &str, budget: &Budget, boot_ms: u64) -> (u64, u64) {
        let now = i64::try_from(boot_ms).unwrap_or(i64::MAX);
        let mut all = self.used();
        let Some(used) = all.get_mut(identity).and_then(|own| own.get_mut(keyset)) else { return (0, 0) };
        let (epochs, objects) =
            (used.epochs.len(now, budget.window_ms()), used.objects.len(now, budget.window_ms()));
        (epochs as u64, objects as u64)
    }

    /// Whether no window has room for something that was released so long ago.
    fn are_full(&self, table: &Table, age_ms: i64) -> bool {
        let all = self.used();
        table.iter().all(|(identity, own)| {
            own.iter().filter(|(_, budget)| budget.window_ms() > age_ms).all(|(keyset, budget)| {
                let Some(used) = all.get(identity).and_then(|own| own.get(keyset)) else { return false };
                let is_full = |max: Option<u32>, len: usize| max.is_none_or(|max| len >= max as usize);
                is_full(budget.epochs_max, used.epochs.held())
                    && is_full(budget.objects_max, used.objects.held())
            })
        })
    }

    /// Counts what was counted elsewhere, as far as there is room.
    fn add(&self, other: Self, table: &Table) {
        let others = other.used.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.used();
        for (identity, own) in others {
            for (keyset, older) in own {
                let Some(budget) = table.get(&identity).and_then(|budgets| budgets.get(&keyset)) else {
                    continue;
                };
                let used = entry(&mut all, &identity, &keyset);
                used.epochs.add(older.epochs, budget.epochs_max);
                used.objects.add(older.objects, budget.objects_max);
            }
        }
    }

    fn forget(&self, identity: &str) {
        let Ok(identity) = identity.parse::<Identity>() else { return };
        self.used().remove(&identity);
    }

    /// The identity was unfrozen: a new window begins.
    pub(crate) fn begin_anew(&self, target: &FreezeTarget) {
        let FreezeTarget::Identity(identity) = target else { return };
        for used in self.used().get_mut(identity).into_iter().flat_map(BTreeMap::values_mut) {
            used.epochs.clear();
            used.objects.clear();
        }
    }

    /// Drops what no budget of this table asks for.
    fn keep(&self, table: &Table) {
        self.used().retain(|identity, own| {
            let budgets = table.get(identity);
            own.retain(|keyset, _| budgets.is_some_and(|budgets| budgets.contains_key(keyset)));
            !own.is_empty()
        });
    }
}

fn entry<'a>(
    all: &'a mut BTreeMap<Identity, BTreeMap<String, Used>>,
    identity: &Identity,
    keyset: &str,
) -> &'a mut Used {
    if !all.get(identity).is_some_and(|own| own.contains_key(keyset)) {
        all.entry(identity.clone()).or_default().insert(keyset.to_owned(), Used::default());
    }
    let used = all.get_mut(identity).and_then(|own| own.get_mut(keyset));
    used.expect("it was there or was just put there")
}

impl Core {
    /// Counts a release that is about to be written down. `Err`: it is one too many, in words; its caller is stopped.
    pub(crate) fn spend(&self, caller: &Caller, policy: &Policy, record: &Record) -> Result<(), String> {
        let identity = &caller.row.identity;
        let Some(item) = Item::of_record(record) else { return Ok(()) };
        let Some(keyset) = record.keyset.as_deref() else { return Ok(()) };
        let Some(budget) = policy.budget(identity, keyset) else { return Ok(()) };
        if caller.vault.budgets.spend(identity, keyset, budget, &item, self.clock.boot_ms()) {
            return Ok(());
        }
        let reason = format!("its budget is used up: {budget}, keyset {keyset}");
        Err(caller.vault.freezes.trip(identity, reason))
    }

    /// Another policy is in force, whose new budgets were counted already.
    pub(crate) fn drop_old_budgets(&self, vault: &Vault) {
        vault.budgets.keep(self.policy.load().budgets());
    }

    /// How far each budget is used.
    pub(crate) fn list_budgets(&self, caller: &Caller) -> BudgetList {
        let (policy, boot_ms) = (self.policy.load(), self.clock.boot_ms());
        let mut budgets = Vec::new();
        for (identity, own) in policy.budgets() {
            for (keyset, budget) in own {
                let (epochs, objects) = caller.vault.budgets.len(identity, keyset, budget, boot_ms);
                budgets.push(BudgetInfo {
                    identity: identity.clone(),
                    keyset: keyset.clone(),
                    window_s: budget.window_s,
                    epochs: budget.epochs_max.map(|_| epochs),
                    epochs_max: budget.epochs_max,
                    objects: budget.objects_max.map(|_| objects),
                    objects_max: budget.objects_max,
                    stopped: caller.vault.freezes.stops(identity, Some(keyset)),
                });
            }
        }
        BudgetList { budgets }
    }
}
