//! How much of the service anyone can occupy: connections of strangers, of gateways and of operators, bodies, work, changes. Of
//! each there is a part that only operators get: nobody else can keep them from stopping somebody.

mod places;
mod rates;
mod turns;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use claviger_keyapi::{Identity, KeyServiceError, Role, UnavailableReason};

use crate::attempts::Attempts;
use crate::identity::Peer;
pub(crate) use places::{Place, Use};
use places::{Places, WhenEven};
pub(crate) use rates::Rate;
pub(crate) use turns::Part;
use turns::Shared;

/// Connections that have shown no certificate that counts (yet).
const STRANGERS_MAX: usize = 256;
/// The same from where an operator came within a day: other addresses, however many, take none of these.
const OPERATORS_STRANGERS_MAX: usize = 64;
/// The same over the socket of this machine.
const LOCAL_STRANGERS_MAX: usize = 16;
/// The same from one address (IPv6: one /64).
const STRANGERS_PER_SOURCE_MAX: usize = 32;
/// Connections of one source in a minute that came to nothing: handshakes that failed, and whoever has no certificate that counts, or
/// makes one connection after the other. Each costs us a key agreement and a signature; someone behind the same address who enrols
/// or mends his certificate has room enough.
const WASTED_PER_MINUTE_MAX: u32 = 300;
/// What stands for the socket of this machine where an address has to stand.
pub(crate) const THIS_MACHINE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// Connections of one identity. A gateway has one, two while it changes its certificate, one more for each process that runs with its
/// identity; an operator one for each command that runs.
const CONNECTIONS_PER_IDENTITY_MAX: usize = 16;
/// Connections of operators, besides those of gateways.
const OPERATORS_CONNECTIONS_MAX: usize = 64;
/// Addresses of one operator from which connections are taken however many came to nothing …
const SOURCES_PER_OPERATOR_MAX: usize = 8;
/// … for so long after he came from there last.
const SOURCE_KNOWN_MS: u64 = 86_400_000;
/// Bytes of bodies that are read or worked on, and of answers that are not read yet, over all connections of gateways and strangers.
const BODIES_LEN_MAX: usize = 64 << 20;
/// The same of operators, whose bodies are short but for what other replicas' logs tell.
const OPERATORS_BODIES_LEN_MAX: usize = 32 << 20;
/// The same of what operators ask in an emergency.
const URGENT_BODIES_LEN_MAX: usize = 4 << 20;
/// Requests of operators that are worked on at once; as many besides of those that lock the service or ask for its state.
const OPERATORS_TURNS: usize = 16;
/// The part of it that one name gets at most: a quarter. Strangers have one together.
const PARTS: usize = 4;
/// Renewals of one enrolment in a minute: as often as a gateway tries when answers get lost.
const RENEWALS_PER_MINUTE_MAX: u32 = 1;
/// Buckets that one gateway binds or unbinds in a minute. Each is a change of the ledger, for which everybody else waits.
const BINDING_CHANGES_PER_MINUTE_MAX: u32 = 300;
/// Epochs of one gateway that are registered in a minute. An honest one seals one an hour; the rest is for catching up after a restore.
const REGISTRATIONS_PER_MINUTE_MAX: u32 = 300;

/// A stranger's place.
pub(crate) type StrangersPlace = Place<IpAddr, ()>;
/// That of somebody enrolled.
pub(crate) type EnrolledPlace = Place<Identity, Peer>;

/// The bounds of one running service.
pub(crate) struct Admission {
    strangers: Places<IpAddr, ()>,
    operators_strangers: Places<IpAddr, ()>,
    local_strangers: Places<IpAddr, ()>,
    wasted: Attempts,
    gateways: Places<Identity, Peer>,
    operators: Places<Identity, Peer>,
    /// Where operators came from, and when last, on the boot-time clock.
    operators_sources: Mutex<BTreeMap<Identity, Vec<(IpAddr, u64)>>>,
    bodies: Shared,
    operators_bodies: Shared,
    urgent_bodies: Shared,
    turns: Shared,
    operators_turns: Shared,
    urgent_turns: Shared,
    pub(crate) renewals: Rate,
    pub(crate) binding_changes: Rate,
    pub(crate) registrations: Rate,
}

impl Admission {
    pub(crate) fn new(connections_max: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let turns = (4 * cores).max(16);
        Self {
            strangers: strangers(STRANGERS_MAX),
            operators_strangers: strangers(OPERATORS_STRANGERS_MAX),
            local_strangers: strangers(LOCAL_STRANGERS_MAX),
            wasted: Attempts::up_to(WASTED_PER_MINUTE_MAX),
            gateways: Places::new(connections_max, CONNECTIONS_PER_IDENTITY_MAX, WhenEven::TurnAway),
            operators: Places::new(
                OPERATORS_CONNECTIONS_MAX,
                CONNECTIONS_PER_IDENTITY_MAX,
                WhenEven::TurnAway,
            ),
            operators_sources: Mutex::default(),
            bodies: Shared::new(BODIES_LEN_MAX, BODIES_LEN_MAX / PARTS),
            operators_bodies: Shared::new(OPERATORS_BODIES_LEN_MAX, OPERATORS_BODIES_LEN_MAX / PARTS),
            urgent_bodies: Shared::new(URGENT_BODIES_LEN_MAX, URGENT_BODIES_LEN_MAX / PARTS),
            turns: Shared::new(turns, turns / PARTS),
            operators_turns: Shared::new(OPERATORS_TURNS, OPERATORS_TURNS / PARTS),
            urgent_turns: Shared::new(OPERATORS_TURNS, OPERATORS_TURNS / PARTS),
            renewals: Rate::new(RENEWALS_PER_MINUTE_MAX),
            binding_changes: Rate::new(BINDING_CHANGES_PER_MINUTE_MAX),
            registrations: Rate::new(REGISTRATIONS_PER_MINUTE_MAX),
        }
    }

    /// A place for someone who connects, from an address or over the socket of this machine; `None` if there is none. It is told to end
    /// when somebody else needs it more, or comes later.
    pub(crate) fn stranger(&self, address: Option<IpAddr>, now: Now) -> Option<StrangersPlace> {
        let Some(address) = address else { return self.local_strangers.enter(THIS_MACHINE, ()) };
        let source = source(address);
        if self.is_an_operators(source, now.boot_ms) {
            return self.operators_strangers.enter(source, ());
        }
        if self.wasted.admits(address, now.ms) { self.strangers.enter(source, ()) } else { None }
    }

    /// A connection from there came to nothing, or may.
    pub(crate) fn wasted(&self, address: IpAddr, now_ms: u64) {
        self.wasted.failed(address, now_ms);
    }

    /// A place for one whose certificate counts, and who comes from there; no address is the socket of this machine.
    pub(crate) fn enrolled(
        &self,
        peer: &Peer,
        address: Option<IpAddr>,
        now_boot_ms: u64,
    ) -> Option<EnrolledPlace> {
        match peer.identity.role() {
            Role::Gateway => self.gateways.enter(peer.identity.clone(), peer.clone()),
            Role::Admin => {
                if let Some(address) = address {
                    self.operator_came(&peer.identity, source(address), now_boot_ms);
                }
                self.operators.enter(peer.identity.clone(), peer.clone())
            }
        }
    }

    /// Ends the connections of those who don't count any more.
    pub(crate) fn end_where(&self, is_over: impl Fn(&Peer) -> bool) {
        self.gateways.end_where(&is_over);
        self.operators.end_where(&is_over);
    }

    /// Room for a body; `None` is a stranger.
    pub(crate) async fn body(&self, who: Option<&Identity>, len_max: usize) -> Result<Part, KeyServiceError> {
        let bodies = if is_operator(who) { &self.operators_bodies } else { &self.bodies };
        bodies.take(who, len_max).await
    }

    /// The same for what operators ask in an emergency: no answer that they leave unread takes it up.
    pub(crate) async fn urgent_body(
        &self,
        who: Option<&Identity>,
        len_max: usize,
    ) -> Result<Part, KeyServiceError> {
        if is_operator(who) {
            self.urgent_bodies.take(who, len_max).await
        } else {
            self.body(who, len_max).await
        }
    }

    /// A turn for what blocks. It has to be moved into the work, which goes on when the caller hangs up.
    pub(crate) async fn turn(&self, who: Option<&Identity>) -> Result<Part, KeyServiceError> {
        let turns = if is_operator(who) { &self.operators_turns } else { &self.turns };
        turns.take(who, 1).await
    }

    /// The same for what operators ask in an emergency.
    pub(crate) async fn urgent_turn(&self, who: Option<&Identity>) -> Result<Part, KeyServiceError> {
        self.urgent_turns.take(who, 1).await
    }

    fn operator_came(&self, operator: &Identity, source: IpAddr, now_boot_ms: u64) {
        let mut known = self.operators_sources.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = known.entry(operator.clone()).or_default();
        sources.retain(|(one, _)| *one != source);
        if sources.len() >= SOURCES_PER_OPERATOR_MAX {
            sources.remove(0);
        }
        sources.push((source, now_boot_ms));
    }

    fn is_an_operators(&self, source: IpAddr, now_boot_ms: u64) -> bool {
        let known = self.operators_sources.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant =
            |(one, at): &(IpAddr, u64)| *one == source && now_boot_ms < at.saturating_add(SOURCE_KNOWN_MS);
        known.values().flatten().any(is_meant)
    }
}

/// What both clocks show.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) ms: u64,
    pub(crate) boot_ms: u64,
}

impl Now {
    pub(crate) fn of(clock: &dyn claviger_env::Clock) -> Self {
        Self { ms: clock.now_ms(), boot_ms: clock.boot_ms() }
    }
}

fn strangers(most: usize) -> Places<IpAddr, ()> {
    Places::new(most, STRANGERS_PER_SOURCE_MAX, WhenEven::EndOldest)
}

fn is_operator(who: Option<&Identity>) -> bool {
    who.is_some_and(|who| who.role() == Role::Admin)
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
    use claviger_keyapi::tls::SpkiHash;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn at(ms: u64) -> Now {
        Now { ms, boot_ms: ms }
    }

    fn peer(name: &str) -> Peer {
        Peer { identity: name.parse().unwrap(), spki: SpkiHash([0; 32]), not_after_ms: u64::MAX }
    }

    #[test]
    fn a_source_whose_connections_come_to_nothing_waits_for_the_next_minute() {
        let admission = Admission::new(8);
        for _ in 0..WASTED_PER_MINUTE_MAX {
            assert!(admission.stranger(Some(ONE), at(0)).is_some());
            admission.wasted(ONE, 0);
        }
        assert!(admission.stranger(Some(ONE), at(59_999)).is_none());
        assert!(admission.stranger(Some("::ffff:192.0.2.1".parse().unwrap()), at(59_999)).is_none());
        assert!(admission.stranger(Some(OTHER), at(0)).is_some());
        assert!(admission.stranger(Some(ONE), at(60_000)).is_some());
    }

    #[test]
    fn where_an_operator_came_from_within_a_day_nobody_shuts_him_out() {
        let admission = Admission::new(8);
        drop(admission.enrolled(&peer("admin:first"), Some(ONE), 0));
        for address in [ONE, OTHER] {
            (0..WASTED_PER_MINUTE_MAX).for_each(|_| admission.wasted(address, 0));
        }
        assert!(admission.stranger(Some(ONE), at(1)).is_some());
        assert!(admission.stranger(Some(OTHER), at(1)).is_none());
        assert!(admission.stranger(Some(ONE), Now { ms: 1, boot_ms: SOURCE_KNOWN_MS }).is_none());
        // He can't make it forget where others came from.
        for n in 0..=255 {
            drop(admission.enrolled(&peer("admin:second"), Some([198, 51, 100, n].into()), 0));
        }
        assert!(admission.stranger(Some(ONE), at(1)).is_some());
        let known: usize = admission.operators_sources.lock().unwrap().values().map(Vec::len).sum();
        assert_eq!(known, 1 + SOURCES_PER_OPERATOR_MAX);
    }

    #[test]
    fn however_many_addresses_sit_or_come_again_the_newest_gets_a_place_and_an_operators_stays_his() {
        let admission = Admission::new(8);
        let address = |n: usize| {
            let [high, low] = u16::try_from(n).unwrap().to_be_bytes();
            Some(IpAddr::from([198, 51, high, low]))
        };
        drop(admission.enrolled(&peer("admin:first"), Some(ONE), 0));
        let sit: Vec<_> =
            (0..STRANGERS_MAX).map(|n| admission.stranger(address(n), at(0)).unwrap()).collect();
        assert!(admission.stranger(Some(OTHER), at(0)).is_some(), "an operator who was never there");
        let mut known = admission.stranger(Some(ONE), at(0)).unwrap();
        let come: Vec<_> = (300..500).map(|n| admission.stranger(address(n), at(0))).collect();
        assert!(come.iter().flatten().count() > 100);
        drop((sit, come));
        let mut told = std::pin::pin!(known.told_to_end());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(told.as_mut().poll(&mut context).is_pending(), "others take none of the operators' places");
        assert!(admission.stranger(None, at(0)).is_some(), "nor of this machine's");
    }

    #[test]
    fn gateways_take_no_place_from_operators() {
        let admission = Admission::new(2);
        let gateways: Vec<_> = ["gateway:a", "gateway:b"]
            .iter()
            .map(|name| admission.enrolled(&peer(name), Some(ONE), 0).unwrap())
            .collect();
        assert!(admission.enrolled(&peer("gateway:c"), Some(ONE), 0).is_none());
        assert!(admission.enrolled(&peer("admin:first"), Some(ONE), 0).is_some());
        drop(gateways);
        assert!(admission.enrolled(&peer("gateway:c"), Some(ONE), 0).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn gateways_take_no_turn_and_no_room_from_operators() {
        let admission = Admission::new(8);
        let mut held = Vec::new();
        for n in 0..PARTS {
            let who: Identity = format!("gateway:g{n}").parse().unwrap();
            held.push(admission.body(Some(&who), usize::MAX).await.unwrap());
            while let Ok(turn) = admission.turn(Some(&who)).await {
                held.push(turn);
            }
        }
        let other: Identity = "gateway:other".parse().unwrap();
        assert_eq!(admission.turn(Some(&other)).await.err(), Some(busy()));
        assert_eq!(admission.body(None, 1).await.err(), Some(busy()));
        let operator: Identity = "admin:first".parse().unwrap();
        assert!(admission.turn(Some(&operator)).await.is_ok());
        assert!(admission.body(Some(&operator), 64 << 10).await.is_ok());
    }

    #[test]
    fn an_ipv6_customer_is_one_source() {
        let at = |text: &str| source(text.parse().unwrap());
        assert_eq!(at("2001:db8:0:1::1"), at("2001:db8:0:1:ffff::2"));
        assert_ne!(at("2001:db8:0:1::1"), at("2001:db8:0:2::1"));
    }
}
