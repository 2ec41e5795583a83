//! The streams that gateways hold open to hear at once what would otherwise reach them when their keys run out.
//!
//! Nobody is sent an event because somebody remembered to send it. Each stream looks at what its gateway may do now and tells
//! what differs from what it told before; a bell says when to look. So nothing is missed for want of a call in some handler,
//! and a stream that has fallen behind tells the newest state and not a queue of old ones.

mod look;
mod rights;
mod stream;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_keyapi::Id16;
use tokio::sync::watch;

pub(crate) use rights::{Rights, Scope};
pub(crate) use stream::{WatchBody, begin};

/// Streams of one identity at once. One would do; while a gateway is being replaced there are two, and what broke without a
/// word stays until it is noticed. The oldest gives way.
const STREAMS_PER_IDENTITY_MAX: usize = 4;

/// Every open stream, and the bell.
pub(crate) struct Watchers {
    bell: watch::Sender<()>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// By the `uid` of the identity, oldest first.
    streams: HashMap<Id16, Vec<u64>>,
    closed: bool,
}

/// One stream's place. Given back when it is dropped.
struct Place<'a> {
    watchers: &'a Watchers,
    uid: Id16,
    number: u64,
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self { bell: watch::Sender::new(()), open: Mutex::default() }
    }

    /// Something that may concern somebody has changed.
    pub(crate) fn ring(&self) {
        self.bell.send_replace(());
    }

    /// Ends every stream, and all that still come: the process is going down.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ring();
    }

    fn enter(&self, uid: Id16) -> Place<'_> {
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        let streams = open.streams.entry(uid).or_default();
        streams.push(number);
        if streams.len() > STREAMS_PER_IDENTITY_MAX {
            streams.remove(0);
            // The one that lost its place has to notice.
            self.ring();
        }
        Place { watchers: self, uid, number }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Each change leaves the map whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Whether the stream may go on.
    fn is_held(&self) -> bool {
        let open = self.watchers.lock();
        !open.closed && open.streams.get(&self.uid).is_some_and(|streams| streams.contains(&self.number))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = self.watchers.lock();
        if let Some(streams) = open.streams.get_mut(&self.uid) {
            streams.retain(|number| *number != self.number);
            if streams.is_empty() {
                open.streams.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Id16 = Id16([1; 16]);

    #[test]
    fn of_too_many_streams_of_one_identity_the_oldest_gives_way_and_others_keep_theirs() {
        let watchers = Watchers::new();
        let other = watchers.enter(Id16([2; 16]));
        let mut places: Vec<_> = (0..STREAMS_PER_IDENTITY_MAX).map(|_| watchers.enter(A)).collect();
        assert!(places.iter().all(Place::is_held));
        let bell = watchers.bell.subscribe();
        places.push(watchers.enter(A));
        assert!(bell.has_changed().unwrap());
        let held: Vec<bool> = places.iter().map(Place::is_held).collect();
        assert_eq!(held, [false, true, true, true, true]);
        assert!(other.is_held());
        drop((places, other));
        assert!(watchers.lock().streams.is_empty(), "what was given back is forgotten");
    }

    #[test]
    fn once_closed_no_stream_goes_on_or_begins() {
        let watchers = Watchers::new();
        let place = watchers.enter(A);
        watchers.close();
        assert!(!place.is_held());
        assert!(!watchers.enter(A).is_held());
    }
}
