//! Gateways that hold their streams and renew what they hold as the lifetimes tell them, and open no object of their own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger_gateway::key_client::{self, KeyClient};
use claviger_keyapi::proposals::{self, Collected, ProposalInfo, ProposalRequest, ProposeRequest};
use claviger_keyapi::{Id16, KeyService as _, LeaseItem, SessionInfo};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{self, World, ask};
use crate::stand::{SERVICE_THREADS, Stand, name};
use crate::threads::cpu_s;

/// Epochs that a gateway has leases of.
const LEASES: usize = 16;
/// Enrolments under way at once.
const ENROLLING: usize = 8;

/// Figures of one fleet.
pub(crate) fn run(gateways: usize, time: Duration) -> Value {
    println!("a fleet of {gateways} gateways enrols");
    let stand = Stand::new(gateways);
    let (fleet, epochs) = stand.ask(enrol_all(&stand.world, gateways));
    println!("it renews its leases for {} s", time.as_secs());
    let records = stand.world.service().audit_log().records();
    let (cpu, begun) = (cpu_s(&SERVICE_THREADS), Instant::now());
    let asked = stand.ask(async {
        let mut members = JoinSet::new();
        for (number, member) in fleet.into_iter().enumerate() {
            // Spread over the first period, as gateways are that were started at different times.
            let part = number as f64 / gateways as f64;
            members.spawn(member.renew(epochs.clone(), part, begun + time));
        }
        members.join_all().await.into_iter().fold(BTreeMap::new(), |mut sum, one| {
            for (what, count) in one {
                *sum.entry(what).or_insert(0u64) += count;
            }
            sum
        })
    });
    let (elapsed_s, cpu) = (begun.elapsed().as_secs_f64(), cpu_s(&SERVICE_THREADS) - cpu);
    json!({
        "gateways": gateways,
        "leases_of_each": LEASES,
        "seconds": elapsed_s,
        "asked": asked,
        "records": stand.world.service().audit_log().records() - records,
        "cpu_s": cpu,
        "percent_of_a_core": 100.0 * cpu / elapsed_s,
    })
}

struct Member {
    keys: Arc<KeyClient>,
    session: SessionInfo,
}

async fn enrol_all(world: &World, gateways: usize) -> (Vec<Member>, Vec<Id16>) {
    let (first, second) = (world.operator(), world.second_operator());
    let mut members = Vec::new();
    let mut numbers = 0..gateways;
    loop {
        let some: Vec<usize> = numbers.by_ref().take(ENROLLING).collect();
        if some.is_empty() {
            break;
        }
        let enrolling = some.into_iter().map(|number| enrol(world, &first, &second, number));
        members.extend(futures_util::future::join_all(enrolling).await);
    }
    let writer = world.gateway(&name(0)).await;
    writer.keys.bind_bucket("photos", None).await.unwrap();
    let mut epochs = Vec::new();
    for _ in 0..LEASES {
        let epoch = writer.seal_epoch();
        writer.keys.register_epoch(&epoch.record).await.unwrap();
        epochs.push(epoch.id.into());
    }
    (members, epochs)
}

async fn enrol(world: &World, first: &KeyClient, second: &KeyClient, number: usize) -> Member {
    let name = name(number);
    let action = common::enrol(&format!("gateway:{name}"), &["default"], false);
    let made: ProposalInfo =
        ask(first, proposals::PROPOSE, &ProposeRequest { action, ttl_s: None }).await.unwrap();
    let request = ProposalRequest { id: made.id };
    ask::<proposals::ApproveAnswer>(second, proposals::APPROVE, &request).await.unwrap();
    let collected = ask(first, proposals::COLLECT, &request).await.unwrap();
    let Collected::EnrolToken(answer) = collected else { panic!("no token") };
    let folder = world.path(&name);
    let token = answer.token.expose();
    when_admitted(async || key_client::enrol(token, &folder, world.clock.clone()).await).await;
    let keys = KeyClient::open(&world.config.listen.to_string(), &folder, world.clock.clone()).unwrap();
    let session = when_admitted(async || keys.session().await).await.value;
    Member { keys, session }
}

/// The service takes 300 strangers a minute from one address, and a gateway that enrols is one.
async fn when_admitted<T, E: std::fmt::Debug>(ask: impl AsyncFn() -> Result<T, E>) -> T {
    for _ in 0..60 {
        if let Ok(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    ask().await.unwrap()
}

impl Member {
    /// Until the end: the stream is held; leases, the binding of one bucket and the session are asked for again at four fifths of
    /// their lifetimes.
    async fn renew(self, epochs: Vec<Id16>, part: f64, end: Instant) -> BTreeMap<&'static str, u64> {
        let mut stream = self.keys.watch().await.unwrap();
        let period = |ttl_s: u32| Duration::from_secs_f64(f64::from(ttl_s) * 0.8);
        let first = |every: Duration| Instant::now() + every.mul_f64(part);
        let (every_lease, every_binding, every_session) = (
            period(self.session.lease_ttl_s),
            period(self.session.binding_ttl_s),
            period(self.session.session_ttl_s),
        );
        let (mut lease, mut binding, mut session) =
            (first(every_lease), first(every_binding), first(every_session));
        let mut asked = BTreeMap::new();
        loop {
            let next = lease.min(binding).min(session).min(end);
            tokio::select! {
                event = stream.next() => {
                    event.unwrap().unwrap();
                    *asked.entry("events").or_insert(0) += 1;
                    continue;
                }
                () = tokio::time::sleep_until(next.into()) => {}
            }
            if next == end {
                return asked;
            }
            let what = if next == lease {
                let items = epochs.iter().map(|epoch| LeaseItem { epoch_id: *epoch, record: None }).collect();
                let leases = self.keys.lease(items).await.unwrap().value;
                assert!(leases.iter().all(Result::is_ok));
                lease += every_lease;
                "leases, in batches"
            } else if next == binding {
                assert!(self.keys.binding("photos").await.unwrap().value.is_some());
                binding += every_binding;
                "bindings"
            } else {
                self.keys.session().await.unwrap();
                session += every_session;
                "sessions"
            };
            *asked.entry(what).or_insert(0) += 1;
        }
    }
}
