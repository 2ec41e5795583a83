//! Places for connections: so many in all, and so many for one name. Nobody is turned away because somebody else came first: who
//! has his share already gives up a connection of his own for each new one, and if all places are taken, whoever holds the most
//! gives up one for a name that holds fewer. Where nobody is known yet, the connection that has been there for longest ends when
//! everybody holds one ([`WhenEven`]).

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What happens when all places are taken and nobody holds more than who comes would.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenEven {
    /// He comes again. For those whose certificate counts: there are not more names than operators enrolled.
    TurnAway,
    /// The connection that has been there for longest ends: nobody is known, and who came first has no better right.
    EndOldest,
}

/// Places that are shared by names of type `K`. With each goes what is known of who holds it.
pub(crate) struct Places<K, T> {
    most: usize,
    share: usize,
    when_even: WhenEven,
    inner: Arc<Mutex<Inner<K, T>>>,
}

struct Inner<K, T> {
    next: u64,
    count: usize,
    /// Of all names.
    leaving: usize,
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
    /// How far what was asked last has come; one of the three below.
    stage: AtomicU8,
    last_boot_ms: AtomicU64,
}

/// Nothing was done yet.
const ASKED: u8 = 0;
/// It is done, whether or not anybody hears of it.
const BEGUN: u8 = 1;
/// The connection ended before: it is not begun any more.
const OVER: u8 = 2;

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
    pub(crate) fn new(most: usize, share: usize, when_even: WhenEven) -> Self {
        let inner = Inner { next: 0, count: 0, leaving: 0, held: HashMap::new() };
        Self { most, share: share.min(most), when_even, inner: Arc::new(Mutex::new(inner)) }
    }

    /// A place. `None` if as many of its connections as it may have are ending just now. Besides, if every place is held by somebody
    /// who has no more than this one would, for [`WhenEven::TurnAway`]; and if as many connections as there are places are ending, for
    /// [`WhenEven::EndOldest`].
    pub(crate) fn enter(&self, key: K, who: T) -> Option<Place<K, T>> {
        let mut inner = lock(&self.inner);
        let (open, leaving) = inner.held.get(&key).map_or((0, 0), |held| (held.open.len(), held.leaving));
        let too_many_leave = self.when_even == WhenEven::EndOldest && inner.leaving >= self.most;
        if leaving >= self.share || too_many_leave {
            return None;
        }
        if open >= self.share {
            inner.end_one_of(&key);
        } else if inner.count >= self.most {
            let (richest, most) =
                inner.held.iter().map(|(key, held)| (key, held.open.len())).max_by_key(|(_, open)| *open)?;
            let gives_way = match self.when_even {
                _ if most >= open + 2 => richest.clone(),
                WhenEven::TurnAway => return None,
                // He holds as much as anybody: he is who makes room.
                WhenEven::EndOldest if open > 0 => key.clone(),
                WhenEven::EndOldest => inner.oldest()?,
            };
            inner.end_one_of(&gives_way);
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
        inner.leaving += ended;
    }
}

impl<K: Eq + Hash + Clone, T> Inner<K, T> {
    /// Who holds the connection that is the first to end of all.
    fn oldest(&self) -> Option<K> {
        let each = self.held.iter().flat_map(|(key, held)| held.open.iter().map(move |open| (key, open)));
        each.min_by_key(|(_, open)| open.rank()).map(|(key, _)| key.clone())
    }
}

impl<T> Open<T> {
    /// The least ends first: what has been idle for longest, first of all that over which nothing was ever asked; if all are busy, that
    /// whose last request came first.
    fn rank(&self) -> (bool, u64, u64) {
        (self.used.is_busy(), self.used.last_boot_ms.load(Ordering::Relaxed), self.number)
    }
}

impl<K: Eq + Hash, T> Inner<K, T> {
    /// See [`Open::rank`].
    fn end_one_of(&mut self, key: &K) {
        let Some(held) = self.held.get_mut(key) else { return };
        let least = held.open.iter().enumerate().min_by_key(|(_, open)| open.rank()).map(|(at, _)| at);
        if let Some(at) = least {
            held.open.remove(at);
            held.leaving += 1;
            self.count -= 1;
            self.leaving += 1;
        }
    }
}

impl Use {
    /// A request has come.
    pub(crate) fn begin(self: &Arc<Self>, now_boot_ms: u64) -> UnderWay {
        let _ = self.stage.compare_exchange(BEGUN, ASKED, Ordering::AcqRel, Ordering::Acquire);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.last_boot_ms.store(now_boot_ms, Ordering::Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether one is under way.
    fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// Whether what was asked may be done, which begins with this. To be asked by whoever has his turn.
    pub(crate) fn may_begin(&self) -> bool {
        self.stage
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now != OVER).then_some(BEGUN))
            .is_ok()
    }

    /// Whether the connection may end at once: nothing is being done for it, and nothing will be. Of one that carries one request at a
    /// time.
    pub(crate) fn ends_at_once(&self) -> bool {
        let ended = |now| if now == BEGUN && self.is_busy() { None } else { Some(OVER) };
        self.stage.fetch_update(Ordering::AcqRel, Ordering::Acquire, ended).is_ok()
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
            None => {
                held.leaving -= 1;
                inner.leaving -= 1;
            }
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
        let places = Places::new(8, 3, WhenEven::TurnAway);
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
        let places = Places::new(8, 2, WhenEven::TurnAway);
        let mut held = enter(&places, "a", 4);
        assert_eq!(told(&mut held), [0, 1]);
        assert!(places.enter("a", 4).is_none(), "as many as he may have are ending");
        assert!(places.enter("b", 0).is_some());
        drop(held.remove(0));
        assert!(places.enter("a", 4).is_some());
    }

    #[test]
    fn when_all_places_are_taken_whoever_holds_the_most_makes_room_for_who_holds_fewer() {
        let places = Places::new(6, 4, WhenEven::TurnAway);
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
        assert_eq!(
            (inner.count, inner.leaving, inner.held.len()),
            (0, 0, 0),
            "what was given back is forgotten"
        );
    }

    #[test]
    fn where_nobody_is_known_the_newest_comes_in_and_what_was_there_for_longest_ends() {
        let places = Places::new(3, 2, WhenEven::EndOldest);
        let mut held =
            [("a", 1), ("b", 1), ("c", 1)].map(|(key, count)| enter(&places, key, count).remove(0));
        let mut which = || held.iter_mut().map(is_told).collect::<Vec<_>>();
        let newest = enter(&places, "d", 1);
        assert_eq!(which(), [true, false, false]);
        // Who holds as much as anybody makes room himself: by coming again and again he ends nobody else's.
        let again = enter(&places, "b", 1);
        assert_eq!(which(), [true, true, false]);
        let third = enter(&places, "e", 1);
        assert_eq!(which(), [true, true, true]);
        // None of them goes away: there are never more than twice as many.
        assert!(places.enter("f", 0).is_none());
        drop(held);
        let mut last = enter(&places, "f", 1);
        assert!(!is_told(&mut last[0]));
        drop((newest, again, third, last));
        let inner = lock(&places.inner);
        assert_eq!((inner.count, inner.leaving, inner.held.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_done_and_idle_ends_before_what_is_under_way() {
        let places = Places::new(2, 1, WhenEven::EndOldest);
        let (mut busy, mut idle) = (enter(&places, "a", 1).remove(0), enter(&places, "b", 1).remove(0));
        let under_way = busy.used().begin(0);
        let newest = enter(&places, "c", 1);
        assert_eq!((is_told(&mut busy), is_told(&mut idle)), (false, true));
        drop((under_way, newest));
    }

    #[test]
    fn what_was_begun_is_waited_for_and_what_ended_before_is_not_begun() {
        let used = Arc::<Use>::default();
        let asks = used.begin(0);
        assert!(used.may_begin() && !used.ends_at_once());
        drop(asks);
        let asks_again = used.begin(1);
        assert!(used.ends_at_once() && !used.may_begin(), "it had only asked");
        drop(asks_again);
        let answered = Arc::<Use>::default();
        let asks = answered.begin(0);
        assert!(answered.may_begin());
        drop(asks);
        assert!(answered.ends_at_once());
        let asks_too_late = answered.begin(1);
        assert!(!answered.may_begin());
        drop(asks_too_late);
    }

    #[test]
    fn what_is_ended_for_a_reason_is_ended_of_everybody() {
        let places = Places::new(8, 4, WhenEven::TurnAway);
        let (mut one, mut other) = (enter(&places, "a", 2), enter(&places, "b", 2));
        places.end_where(|number| *number == 1);
        assert_eq!((told(&mut one), told(&mut other)), (vec![1], vec![1]));
        assert_eq!(lock(&places.inner).count, 2);
    }
}
