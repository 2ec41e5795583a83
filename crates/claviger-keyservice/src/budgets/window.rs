//! Distinct things within a window that moves on with the time.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// When each thing was released last, for those within the window. Exact, and as large as the budget at most.
///
/// Times are milliseconds on the boot-time clock, below zero for what was before this machine was started.
#[derive(Debug)]
pub(super) struct Window<K> {
    last: HashMap<K, i64>,
    by_time: BTreeSet<(i64, K)>,
}

impl<K> Default for Window<K> {
    fn default() -> Self {
        Self { last: HashMap::new(), by_time: BTreeSet::new() }
    }
}

impl<K: Copy + Eq + Hash + Ord> Window<K> {
    /// Counts a release at `now`, unless it would be one distinct thing too many within `window_ms`.
    pub(super) fn spend(&mut self, key: K, now: i64, window_ms: i64, max: u32) -> bool {
        self.forget(now, window_ms);
        if !self.last.contains_key(&key) && self.last.len() >= max as usize {
            return false;
        }
        self.put(key, now);
        true
    }

    /// Counts a release that the log tells of, as far as there is room.
    pub(super) fn remember(&mut self, key: K, time: i64, max: u32) {
        match self.last.get(&key) {
            Some(later) if *later >= time => {}
            None if self.last.len() >= max as usize => {}
            _ => self.put(key, time),
        }
    }

    /// Distinct things in the window that ends now.
    pub(super) fn len(&mut self, now: i64, window_ms: i64) -> usize {
        self.forget(now, window_ms);
        self.last.len()
    }

    /// Distinct things that it holds, old ones too.
    pub(super) fn held(&self) -> usize {
        self.last.len()
    }

    /// Counts what another one holds, the newest first, as far as there is room.
    pub(super) fn add(&mut self, older: Self, max: Option<u32>) {
        let Some(max) = max else { return };
        for (time, key) in older.by_time.into_iter().rev() {
            self.remember(key, time, max);
        }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn put(&mut self, key: K, time: i64) {
        if let Some(before) = self.last.insert(key, time) {
            self.by_time.remove(&(before, key));
        }
        self.by_time.insert((time, key));
    }

    fn forget(&mut self, now: i64, window_ms: i64) {
        while let Some((time, key)) = self.by_time.first().copied()
            && now.saturating_sub(time) >= window_ms
        {
            self.by_time.pop_first();
            self.last.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same by definition: all releases are kept, and counted every time.
    struct Model(Vec<(i64, u32)>);

    impl Model {
        fn distinct(&self, now: i64, window_ms: i64) -> BTreeSet<u32> {
            self.0.iter().filter(|(time, _)| now - time < window_ms).map(|(_, key)| *key).collect()
        }
    }

    /// Numbers that are the same at every run.
    struct Sequence(u64);

    impl Sequence {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % bound
        }
    }

    #[test]
    fn no_window_wherever_it_begins_has_more_distinct_releases_than_the_budget() {
        for seed in 0..200 {
            let mut numbers = Sequence(seed);
            let (max, window_ms) = (1 + u32::try_from(numbers.below(6)).unwrap(), 50);
            let (mut window, mut model, mut now) = (Window::default(), Model(Vec::new()), -1_000);
            for _ in 0..300 {
                now += i64::try_from(numbers.below(20)).unwrap();
                let key = u32::try_from(numbers.below(12)).unwrap();
                let counted = model.distinct(now, window_ms);
                let may = counted.contains(&key) || counted.len() < max as usize;
                assert_eq!(window.spend(key, now, window_ms, max), may, "seed {seed}");
                if may {
                    model.0.push((now, key));
                }
                assert_eq!(window.len(now, window_ms), model.distinct(now, window_ms).len());
                assert_eq!(window.by_time.len(), window.last.len());
            }
            let ends = model.0.iter().map(|(time, _)| time + window_ms - 1);
            assert!(ends.into_iter().all(|end| {
                let begin = end - window_ms;
                let within: BTreeSet<u32> = model
                    .0
                    .iter()
                    .filter(|(time, _)| (begin + 1..=end).contains(time))
                    .map(|(_, key)| *key)
                    .collect();
                within.len() <= max as usize
            }));
        }
    }

    #[test]
    fn what_the_log_tells_of_never_makes_younger_nor_more_than_there_is_room_for() {
        let mut window = Window::default();
        window.remember(1, 100, 2);
        window.remember(1, 50, 2);
        window.remember(2, 10, 2);
        window.remember(3, 90, 2);
        assert_eq!(window.last, HashMap::from([(1, 100), (2, 10)]));
        window.remember(2, 60, 2);
        assert_eq!(window.by_time.len(), 2);
        assert_eq!(window.len(159, 100), 2);
        assert_eq!(window.len(160, 100), 1);
    }
}
