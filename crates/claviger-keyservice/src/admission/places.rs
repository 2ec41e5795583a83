//! Places for connections: so many in all, and so many for one name. Nobody is turned away because somebody else came first: who
//! has his share already gives up a connection of his own for each new one, and if all places are taken, whoever holds the most
//! gives up one for a name that holds fewer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Places that are shared by names of type `K`. With each goes what is known of who holds it.
pub(crate) struct Places<K, T> {
    most: usize,
    share: usize,
    inner: Arc<Mutex<Inner<K, T>>>,
}

struct Inner<K, T> {
    next: u64,
    count: usize,
    held: HashMap<K, Held<T>>,
}

struct Held<T> {
    /// Oldest first.
    open: Vec<Open<T>>,
    /// Connections that were told to end and are not gone yet.
    leaving: usize,
}

struct Open<T> {
    number: u64,
    who: T,
    used: Arc<Use>,
    /// Dropping it tells the connection to end.
    _stay: oneshot::Sender<()>,
}

/// What a connection is used for, as far as it takes to choose one that may end.
#[derive(Default)]
pub(crate) struct Use {
    under_way: AtomicUsize,
    last_boot_ms: AtomicU64,
}

/// A request that is under way.
pub(crate) struct UnderWay(Arc<Use>);

/// One place, given back when it is dropped.
pub(crate) struct Place<K: Eq + Hash + Clone, T> {
    key: K,
    number: u64,
    used: Arc<Use>,
    told: oneshot::Receiver<()>,
    inner: Arc<Mutex<Inner<K, T>>>,
}

impl<K: Eq + Hash + Clone, T> Places<K, T> {
    /// `most` places, of which one name holds `share`.
    pub(crate) fn new(most: usize, share: usize) -> Self {
        let inner = Inner { next: 0, count: 0, held: HashMap::new() };
        Self { most, share: share.min(most), inner: Arc::new(Mutex::new(inner)) }
    }

    /// A place. `None` if every place is held by somebody who has no more than this one would, or if as many of its connections
    /// as it may have are ending just now.
    pub(crate) fn enter(&self, key: K, who: T) -> Option<Place<K, T>> {
        let mut inner = lock(&self.inner);
        let (open, leaving) = inner.held.get(&key).map_or((0, 0), |held| (held.open.len(), held.leaving));
        if leaving >= self.share {
            return None;
        }
        if open >= self.share {
            inner.end_one_of(&key);
        } else if inner.count >= self.most {
            let (richest, most) =
                inner.held.iter().map(|(key, held)| (key, held.open.len())).max_by_key(|(_, open)| *open)?;
            if most < open + 2 {
                return None;
            }
            let richest = richest.clone();
            inner.end_one_of(&richest);
        }
        let (stay, told) = oneshot::channel();
        let used = Arc::<Use>::default();
        let number = inner.next;
        inner.next += 1;
        inner.count += 1;
        let held = inner.held.entry(key.clone()).or_insert_with(|| Held { open: Vec::new(), leaving: 0 });
        held.open.push(Open { number, who, used: Arc::clone(&used), _stay: stay });
        Some(Place { key, number, used, told, inner: Arc::clone(&self.inner) })
    }

    /// Ends every connection of which this is true.
    pub(crate) fn end_where(&self, is_over: impl Fn(&T) -> bool) {
        let mut inner = lock(&self.inner);
        let mut ended = 0;
        for held in inner.held.values_mut() {
            let before = held.open.len();
            held.open.retain(|open| !is_over(&open.who));
            held.leaving += before - held.open.len();
            ended += before - held.open.len();
        }
        inner.count -= ended;
    }
}

impl<K: Eq + Hash, T> Inner<K, T> {
    /// The one that has been idle for longest, first of all those over which nothing was ever asked; if all are busy, the one whose
    /// last request came first.
    fn end_one_of(&mut self, key: &K) {
        let Some(held) = self.held.get_mut(key) else { return };
        let rank = |open: &Open<T>| {
            let is_busy = open.used.under_way.load(Ordering::Relaxed) > 0;
            (is_busy, open.used.last_boot_ms.load(Ordering::Relaxed), open.number)
        };
        let least = held.open.iter().enumerate().min_by_key(|(_, open)| rank(open)).map(|(at, _)| at);
        if let Some(at) = least {
            held.open.remove(at);
            held.leaving += 1;
            self.count -= 1;
        }
    }
}

impl Use {
    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>, now_boot_ms: u64) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.last_boot_ms.store(now_boot_ms, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<K: Eq + Hash + Clone, T> Place<K, T> {
    pub(crate) fn used(&self) -> &Arc<Use> {
        &self.used
    }

    /// Ready once the connection has to end. Not to be asked again then.
    pub(crate) async fn told_to_end(&mut self) {
        // Nothing is ever sent.
        let _ = (&mut self.told).await;
    }
}

impl<K: Eq + Hash + Clone, T> Drop for Place<K, T> {
    fn drop(&mut self) {
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        let Some(held) = inner.held.get_mut(&self.key) else { return };
        match held.open.iter().position(|open| open.number == self.number) {
            Some(at) => {
                held.open.remove(at);
                inner.count -= 1;
            }
            None => held.leaving -= 1,
        }
        if held.open.is_empty() && held.leaving == 0 {
            inner.held.remove(&self.key);
        }
    }
}

fn lock<K, T>(inner: &Mutex<Inner<K, T>>) -> MutexGuard<'_, Inner<K, T>> {
    // Each change leaves the counts right.
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Held = Vec<Place<&'static str, u32>>;

    fn is_told(place: &mut Place<&'static str, u32>) -> bool {
        place.told.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    fn told(held: &mut Held) -> Vec<usize> {
        held.iter_mut().enumerate().filter_map(|(at, place)| is_told(place).then_some(at)).collect()
    }

    fn enter(places: &Places<&'static str, u32>, key: &'static str, count: u32) -> Held {
        (0..count).map(|number| places.enter(key, number).unwrap()).collect()
    }

    #[test]
    fn who_has_his_share_gives_up_the_connection_that_he_has_not_used_for_longest() {
        let places = Places::new(8, 3);
        let mut held = enter(&places, "a", 3);
        let busy = held[0].used().begin(0);
        drop(held[1].used().begin(2));
        drop(held[2].used().begin(1));
        held.extend(enter(&places, "a", 1));
        assert_eq!(
            told(&mut held),
            [2],
            "not the busy one, and of the idle ones the one used before the other"
        );
        drop(held.remove(2));
        drop(busy);
        held.extend(enter(&places, "a", 1));
        assert_eq!(told(&mut held), [0]);
    }

    #[test]
    fn who_lets_none_of_his_connections_end_gets_no_more() {
        let places = Places::new(8, 2);
        let mut held = enter(&places, "a", 4);
        assert_eq!(told(&mut held), [0, 1]);
        assert!(places.enter("a", 4).is_none(), "as many as he may have are ending");
        assert!(places.enter("b", 0).is_some());
        drop(held.remove(0));
        assert!(places.enter("a", 4).is_some());
    }

    #[test]
    fn when_all_places_are_taken_whoever_holds_the_most_makes_room_for_who_holds_fewer() {
        let places = Places::new(6, 4);
        let (mut one, mut other) = (enter(&places, "a", 4), enter(&places, "b", 2));
        let mut third = enter(&places, "c", 1);
        assert_eq!((told(&mut one), told(&mut other)), (vec![0], vec![]));
        third.extend(enter(&places, "c", 1));
        assert_eq!(told(&mut one), [0, 1]);
        assert!(places.enter("c", 2).is_none(), "all have the same");
        let fourth = enter(&places, "d", 1);
        let last = enter(&places, "e", 1);
        let sixth = enter(&places, "f", 1);
        assert!(places.enter("g", 0).is_none(), "everybody has one");
        drop((one, other, third, fourth, last, sixth));
        let inner = lock(&places.inner);
        assert_eq!((inner.count, inner.held.len()), (0, 0), "what was given back is forgotten");
    }

    #[test]
    fn what_is_ended_for_a_reason_is_ended_of_everybody() {
        let places = Places::new(8, 4);
        let (mut one, mut other) = (enter(&places, "a", 2), enter(&places, "b", 2));
        places.end_where(|number| *number == 1);
        assert_eq!((told(&mut one), told(&mut other)), (vec![1], vec![1]));
        assert_eq!(lock(&places.inner).count, 2);
    }
}
