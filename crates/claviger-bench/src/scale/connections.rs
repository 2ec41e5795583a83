//! By the number of connections.

use anyhow::{Context, Result};

use super::Scale;
use super::curve::{Curve, Watched, x};
use super::fit::Shape;
use super::sizes::prepare;
use crate::load::{Work, streams};
use crate::run::observe;

const COUNTS: [usize; 6] = [1, 4, 16, 64, 256, 1_000];
const LEN: u64 = 4 << 10;
/// Reads of long objects at once.
const STREAMS: usize = 256;
/// Both cores are busy from here on, and whoever asks waits for the others.
const BUSY: f64 = 16.0;

impl Scale<'_> {
    pub(super) async fn get_by_connections(&self) -> Result<Curve> {
        let watched = vec![
            Watched::new("rps", "requests per second", Shape::KeptUp).from(BUSY),
            Watched::new("cpu_us_per_req", "CPU µs per request", Shape::Flat).from(BUSY),
            Watched::new("p50_ms", "p50 ms", Shape::Linear).from(BUSY),
            Watched::new("p99_ms", "p99 ms", Shape::Linear).from(BUSY),
            Watched::new("rss_mib", "peak RSS, MiB", Shape::Linear).from(BUSY),
        ];
        let title = "GET of 4 KiB by connections that ask at once";
        let mut curve = Curve::new("get-by-connections", title, "connections", watched);
        let work = Work::Get { len: LEN };
        for (name, side) in self.everybody() {
            prepare(name, side, &work).await?;
        }
        for count in COUNTS.into_iter().filter(|count| *count <= self.options.connections_max) {
            println!("  {count} connections");
            for _ in 0..self.options.rounds {
                for (name, side) in self.everybody() {
                    let measured = self
                        .measure(side, &work, count)
                        .await
                        .with_context(|| format!("{count} connections to {name}"))?;
                    curve.add(name, x(count as u64), &measured);
                }
            }
        }
        Ok(curve)
    }

    /// Peak memory with many long reads, by the length of what is read.
    pub(super) async fn streams(&self) -> Result<Curve> {
        let watched = vec![
            Watched::new("rss_mib", "peak RSS, MiB", Shape::Flat),
            Watched::new("cpu_s_per_gb", "CPU seconds per GB", Shape::Flat),
        ];
        let title = "256 objects that are read at once, by their size";
        let mut curve = Curve::new("streams-256", title, "bytes of each object", watched);
        let time = std::time::Duration::from_secs_f64(self.options.stream_seconds);
        curve.notes.push(format!(
            "Reads are broken off after {} s (--stream-seconds). Latencies are those to the first byte.",
            self.options.stream_seconds
        ));
        for len in [16, 4, 1].map(|part| self.options.stream_len / part).into_iter().filter(|len| *len > 0) {
            println!("  {STREAMS} times {len} bytes");
            let work = Work::Download { len };
            for (name, side) in self.everybody() {
                prepare(name, side, &work).await?;
                let streams = streams::open(&side.target, STREAMS).await?;
                let measured =
                    observe(side, streams.run(len, time)).await.with_context(|| name.to_owned())?;
                curve.add(name, x(len), &measured);
                crate::load::remove(&side.target, &work).await?;
            }
        }
        Ok(curve)
    }
}
