//! How much of the service anyone can occupy: connections of strangers, connections of the enrolled, bodies, work.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_keyapi::{Identity, KeyServiceError, UnavailableReason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attempts::Attempts;

/// Connections that have shown no certificate (yet).
const STRANGERS_MAX: usize = 256;
/// The same from one address (IPv6: one /64), so that one machine can't hold all of them.
const STRANGERS_PER_SOURCE_MAX: u32 = 32;
/// Connections of one source in a minute that came to nothing: handshakes that failed, and whoever has no certificate. Each costs
/// us a key agreement and a signature; someone behind the same address who enrols or mends his certificate has room enough.
const WASTED_PER_MINUTE_MAX: u32 = 300;
/// Bytes of bodies that are read or worked on, over all connections.
const BODIES_LEN_MAX: usize = 64 << 20;
/// The same of one identity, and of all strangers together: nobody takes all of it.
const SHARE_LEN_MAX: usize = 16 << 20;
/// How long a request waits for room before it is told to come again.
const PATIENCE: Duration = Duration::from_secs(1);

/// The bounds of one running service.
pub(crate) struct Admission {
    strangers: Arc<Semaphore>,
    per_source: Arc<Mutex<HashMap<IpAddr, u32>>>,
    wasted: Attempts,
    enrolled: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    /// By identity; `None` is every stranger. Names come from certificates of ours, so there are not many.
    shares: Mutex<BTreeMap<Option<Identity>, Arc<Semaphore>>>,
    work: Arc<Semaphore>,
}

/// Room for one body, given back when it is dropped.
pub(crate) struct Room {
    _own: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// A stranger's place, given back when it is dropped.
pub(crate) struct StrangersPlace {
    _permit: OwnedSemaphorePermit,
    source: IpAddr,
    per_source: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

impl Drop for StrangersPlace {
    fn drop(&mut self) {
        let mut per_source = self.per_source.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = per_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                per_source.remove(&self.source);
            }
        }
    }
}

impl Admission {
    pub(crate) fn new(connections_max: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            strangers: Arc::new(Semaphore::new(STRANGERS_MAX)),
            per_source: Arc::default(),
            wasted: Attempts::up_to(WASTED_PER_MINUTE_MAX),
            enrolled: Arc::new(Semaphore::new(connections_max)),
            bodies: Arc::new(Semaphore::new(BODIES_LEN_MAX)),
            shares: Mutex::default(),
            work: Arc::new(Semaphore::new((4 * cores).max(16))),
        }
    }

    /// A place for someone who connects; `None` if there is none.
    pub(crate) fn stranger(&self, address: IpAddr, now_ms: u64) -> Option<StrangersPlace> {
        if !self.wasted.admits(address, now_ms) {
            return None;
        }
        let permit = Arc::clone(&self.strangers).try_acquire_owned().ok()?;
        let source = source(address);
        let mut per_source = self.per_source.lock().unwrap_or_else(PoisonError::into_inner);
        let count = per_source.entry(source).or_insert(0);
        if *count >= STRANGERS_PER_SOURCE_MAX {
            return None;
        }
        *count += 1;
        Some(StrangersPlace { _permit: permit, source, per_source: Arc::clone(&self.per_source) })
    }

    /// A connection from there came to nothing, or may.
    pub(crate) fn wasted(&self, address: IpAddr, now_ms: u64) {
        self.wasted.failed(address, now_ms);
    }

    /// A place for one who has shown a certificate of ours.
    pub(crate) fn enrolled(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.enrolled).try_acquire_owned().ok()
    }

    /// Room for a body.
    pub(crate) async fn body(
        &self,
        identity: Option<&Identity>,
        len_max: usize,
    ) -> Result<Room, KeyServiceError> {
        let permits = u32::try_from(len_max.clamp(1, SHARE_LEN_MAX)).unwrap_or(u32::MAX);
        let own = room(self.share(identity).acquire_many_owned(permits)).await?;
        let of_all = room(Arc::clone(&self.bodies).acquire_many_owned(permits)).await?;
        Ok(Room { _own: own, _of_all: of_all })
    }

    fn share(&self, identity: Option<&Identity>) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let share = shares.entry(identity.cloned());
        Arc::clone(share.or_insert_with(|| Arc::new(Semaphore::new(SHARE_LEN_MAX))))
    }

    /// A turn for what blocks. It has to be moved into the work, which goes on when the caller hangs up.
    pub(crate) async fn work(&self) -> Result<OwnedSemaphorePermit, KeyServiceError> {
        room(Arc::clone(&self.work).acquire_owned()).await
    }
}

async fn room(
    acquire: impl Future<Output = Result<OwnedSemaphorePermit, tokio::sync::AcquireError>>,
) -> Result<OwnedSemaphorePermit, KeyServiceError> {
    match tokio::time::timeout(PATIENCE, acquire).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(busy()),
    }
}

pub(crate) fn busy() -> KeyServiceError {
    KeyServiceError::Unavailable { reason: UnavailableReason::Busy, retry_after_ms: 1_000 }
}

/// What counts as one source: an IPv4 address, or an IPv6 network of the size that one customer gets.
pub(crate) fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_never_takes_every_strangers_place() {
        let admission = Admission::new(8);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        let held: Vec<_> =
            (0..STRANGERS_PER_SOURCE_MAX).map(|_| admission.stranger(one, 0).unwrap()).collect();
        assert!(admission.stranger(one, 0).is_none());
        assert!(admission.stranger("::ffff:192.0.2.1".parse().unwrap(), 0).is_none());
        assert!(admission.stranger("192.0.2.2".parse().unwrap(), 0).is_some());
        drop(held);
        assert!(admission.stranger(one, 0).is_some());
        assert_eq!(admission.per_source.lock().unwrap().len(), 0, "what was given back is forgotten");
    }

    #[test]
    fn a_source_whose_connections_come_to_nothing_waits_for_the_next_minute() {
        let admission = Admission::new(8);
        let one: IpAddr = "192.0.2.1".parse().unwrap();
        for _ in 0..WASTED_PER_MINUTE_MAX {
            assert!(admission.stranger(one, 0).is_some());
            admission.wasted(one, 0);
        }
        assert!(admission.stranger(one, 59_999).is_none());
        assert!(admission.stranger("192.0.2.2".parse().unwrap(), 0).is_some());
        assert!(admission.stranger(one, 60_000).is_some());
    }

    #[test]
    fn an_ipv6_customer_is_one_source() {
        let at = |text: &str| source(text.parse().unwrap());
        assert_eq!(at("2001:db8:0:1::1"), at("2001:db8:0:1:ffff::2"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8:0:2::1"));
    }

    #[tokio::test]
    async fn without_room_a_request_is_told_to_come_again() {
        let admission = Admission::new(8);
        let name = |n: usize| format!("gateway:g{n}").parse::<Identity>().unwrap();
        let of = async |who: Identity, len| admission.body(Some(&who), len).await;
        let mut held = vec![of(name(0), SHARE_LEN_MAX).await.unwrap()];
        assert_eq!(of(name(0), 1).await.err(), Some(busy()), "one has his share");
        for n in 1..BODIES_LEN_MAX / SHARE_LEN_MAX {
            held.push(of(name(n), SHARE_LEN_MAX).await.unwrap());
        }
        assert_eq!(of(name(9), 1).await.err(), Some(busy()), "all have all of it");
        drop(held);
        assert!(of(name(0), 1).await.is_ok());
    }
}
