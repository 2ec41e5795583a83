//! By the number of epochs whose objects are read.
//!
//! A gateway begins an epoch in each hour, and whenever it is started. So many hours nobody has: gateways are started, write one object
//! and end, and another one reads all of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Scale;
use super::curve::{Curve, Watched, x};
use super::fit::Shape;
use crate::contenders::{CLAVIGER, DIRECT, WRITERS};
use crate::load::{self, Work};
use crate::run::observe;

const COUNTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const CONNECTIONS: usize = 4;
/// The key service takes 300 epochs of a gateway in a minute.
const EPOCH_EVERY: Duration = Duration::from_millis(210);

impl Scale<'_> {
    pub(super) async fn get_by_epochs(&self) -> Result<Curve> {
        let watched = vec![
            Watched::new("p50_ms", "p50 ms", Shape::Flat),
            Watched::new("p99_ms", "p99 ms", Shape::Flat),
            Watched::new("cpu_us_per_req", "CPU µs per request", Shape::Flat),
            Watched::new("rss_mib", "peak RSS, MiB", Shape::Flat),
        ];
        let title = "GET of 1 KiB by epochs that the objects are of";
        let mut curve = Curve::new("get-by-epochs", title, "epochs", watched);
        curve.notes.push(
            "\"first\" are reads of epochs that the gateway has no keys of yet: each leases one. The gateway holds the keys of \
             4,096 epochs."
                .to_owned(),
        );
        let claviger = self.field.secure(CLAVIGER).context("no gateway over TLS")?;
        let direct = self.field.secure(DIRECT).context("no store over TLS")?;
        tokio::task::block_in_place(|| (0..WRITERS).try_for_each(|number| self.field.enrol_writer(number)))?;
        let mut begun = 0;
        for epochs in COUNTS.into_iter().filter(|count| *count <= self.options.epochs_max) {
            println!("  {epochs} epochs");
            tokio::task::block_in_place(|| self.begin(begun..epochs))?;
            for number in begun..epochs {
                load::write_in_epoch(&direct.target, number).await?;
            }
            let first = load::each_epoch_once(&claviger.target, begun..epochs, CONNECTIONS);
            curve.add("claviger, first", x(epochs as u64), &observe(claviger, first).await?);
            begun = epochs;
            for _ in 0..self.options.rounds {
                for (name, side) in [(DIRECT, direct), (CLAVIGER, claviger)] {
                    let measured = self.measure(side, &Work::Epochs { epochs }, CONNECTIONS).await?;
                    curve.add(name, x(epochs as u64), &measured);
                }
            }
        }
        Ok(curve)
    }

    /// An epoch for each of these numbers, and an object in it.
    fn begin(&self, numbers: Range<usize>) -> Result<()> {
        let runtime = tokio::runtime::Handle::current();
        let one = |writer: usize, number: usize| -> Result<()> {
            let begun = Instant::now();
            let side = self.field.start_writer(writer)?;
            let written = runtime.block_on(load::write_in_epoch(&Arc::clone(&side.target), number));
            drop(side);
            std::thread::sleep(EPOCH_EVERY.saturating_sub(begun.elapsed()));
            written.with_context(|| format!("epoch {number}"))
        };
        std::thread::scope(|scope| {
            let of_writer = |writer: usize| {
                let (one, numbers) = (&one, numbers.clone());
                move || numbers.skip(writer).step_by(WRITERS).try_for_each(|number| one(writer, number))
            };
            let threads: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(of_writer(writer))).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(done) => done,
                Err(_) => anyhow::bail!("a thread that begins epochs ended"),
            })
        })
    }
}
