//! Requests for keys of single objects: as many as the service answers, or so many a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger_gateway::key_client::KeyClient;
use claviger_keyapi::{DeriveItem, DerivePurpose, KeyService as _};
use tokio::task::JoinSet;

use crate::report::Measured;
use crate::stand::{SERVICE_THREADS, Stand, name};
use crate::threads::cpu_s;

/// Gateways that ask, each over a connection of its own.
pub(crate) const IDENTITIES: usize = 4;
const EPOCHS: usize = 8;
const OBJECTS: usize = 1_024;

pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Objects in a request.
    pub(crate) batch: usize,
    /// Requests that share a sync of the log, at most.
    pub(crate) group_max: usize,
    pub(crate) pace: Pace,
}

#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// So many requests are always under way.
    Saturated(usize),
    /// So many objects are asked for in a second, whether the service keeps up or not.
    PerSecond(u32),
}

pub(crate) struct Load {
    gateways: Vec<Arc<KeyClient>>,
    items: Arc<[DeriveItem]>,
}

impl Load {
    /// Gateways, epochs and objects.
    pub(crate) async fn prepare(stand: &Stand) -> Self {
        let mut gateways = Vec::new();
        for number in 0..IDENTITIES {
            gateways.push(stand.world.enrol(&name(number)).await);
        }
        let writer = &gateways[0];
        let bucket_id = writer.keys.bind_bucket("photos", None).await.unwrap().value.bucket_id;
        let mut items = Vec::new();
        for _ in 0..EPOCHS {
            let epoch = writer.seal_epoch();
            writer.keys.register_epoch(&epoch.record).await.unwrap();
            for _ in 0..OBJECTS / EPOCHS {
                let key = format!("2026/11/scan-{:06}.dcm", items.len());
                let object = writer.seal_object(&epoch, &bucket_id, &key);
                items.push(DeriveItem {
                    record: None,
                    header: object.header,
                    bucket_id: bucket_id.clone(),
                    key,
                    purpose: DerivePurpose::Read,
                    on_behalf_of: Some("AKIDEXAMPLE".into()),
                });
            }
        }
        Self { gateways: gateways.into_iter().map(|gateway| gateway.keys).collect(), items: items.into() }
    }

    /// Runs one case for so long.
    pub(crate) fn run(&self, stand: &Stand, case: &Case, time: Duration) -> Measured {
        let log = stand.world.service().audit_log();
        log.group_at_most(case.group_max);
        let (cpu, begun) = (cpu_s(&SERVICE_THREADS), Instant::now());
        let mut latencies = stand.ask(self.ask(case, time));
        let (elapsed, cpu) = (begun.elapsed(), cpu_s(&SERVICE_THREADS) - cpu);
        latencies.sort_unstable();
        let released = latencies.len() * case.batch;
        Measured { case: case.name, released, elapsed, cpu_s: cpu, latencies }
    }

    async fn ask(&self, case: &Case, time: Duration) -> Vec<Duration> {
        let mut workers = JoinSet::new();
        let count = match case.pace {
            Pace::Saturated(in_flight) => in_flight,
            // Enough that none waits for an answer before its next turn, unless the service falls seconds behind.
            Pace::PerSecond(_) => 256,
        };
        let begun = Instant::now();
        for number in 0..count {
            let asking = Asking {
                keys: Arc::clone(&self.gateways[number % self.gateways.len()]),
                items: Arc::clone(&self.items),
                batch: case.batch,
                end: begun + time,
            };
            match case.pace {
                Pace::Saturated(_) => drop(workers.spawn(asking.without_a_pause(number))),
                Pace::PerSecond(objects) => {
                    let every = Duration::from_secs_f64(case.batch as f64 / f64::from(objects));
                    let first = begun + every * u32::try_from(number).unwrap();
                    drop(workers.spawn(asking.at_times(
                        first,
                        every * u32::try_from(count).unwrap(),
                        number,
                    )));
                }
            }
        }
        workers.join_all().await.concat()
    }
}

struct Asking {
    keys: Arc<KeyClient>,
    items: Arc<[DeriveItem]>,
    batch: usize,
    end: Instant,
}

impl Asking {
    async fn without_a_pause(self, number: usize) -> Vec<Duration> {
        let mut latencies = Vec::new();
        let mut at = number * self.batch;
        while Instant::now() < self.end {
            let sent = Instant::now();
            self.once(at).await;
            latencies.push(sent.elapsed());
            at += self.batch;
        }
        latencies
    }

    /// Latencies count from when a request was due, not from when it could be sent.
    async fn at_times(self, first: Instant, every: Duration, number: usize) -> Vec<Duration> {
        let mut latencies = Vec::new();
        let (mut due, mut at) = (first, number * self.batch);
        while due < self.end {
            tokio::time::sleep_until(due.into()).await;
            self.once(at).await;
            latencies.push(due.elapsed());
            due += every;
            at += self.batch;
        }
        latencies
    }

    async fn once(&self, at: usize) {
        let from = at % (self.items.len() - self.batch + 1);
        let answers = self.keys.derive(self.items[from..from + self.batch].to_vec()).await.unwrap().value;
        assert!(answers.len() == self.batch && answers.iter().all(Result::is_ok));
    }
}
