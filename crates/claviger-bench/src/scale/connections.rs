//! By the number of connections.

use anyhow::{Context, Result};

use super::Scale;
use super::curve::{Curve, Watched};
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

#[allow(clippy::cast_precision_loss, reason = "counts on an axis")]
const fn x(count: usize) -> f64 {
    count as f64
}

impl Scale<'_> {
    pub(super) async fn get_by_connections(&self) -> Result<Curve> {
        let watched = vec![
            Watched { figure: "rps", label: "requests per second", should: Shape::KeptUp, from: BUSY },
            Watched {
                figure: "cpu_us_per_req",
                label: "CPU µs per request",
                should: Shape::Flat,
                from: BUSY,
            },
            Watched { figure: "p50_ms", label: "p50 ms", should: Shape::Linear, from: BUSY },
            Watched { figure: "p99_ms", label: "p99 ms", should: Shape::Linear, from: BUSY },
            Watched { figure: "rss_mib", label: "peak RSS, MiB", should: Shape::Linear, from: BUSY },
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
                    curve.add(name, x(count), &measured);
                }
            }
        }
        Ok(curve)
    }

    /// Peak memory with many long reads, by the length of what is read.
    pub(super) async fn streams(&self) -> Result<Curve> {
        let watched = vec![
            Watched { figure: "rss_mib", label: "peak RSS, MiB", should: Shape::Flat, from: 0.0 },
            Watched { figure: "cpu_s_per_gb", label: "CPU seconds per GB", should: Shape::Flat, from: 0.0 },
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
                #[allow(clippy::cast_precision_loss, reason = "a size on an axis")]
                curve.add(name, len as f64, &measured);
                crate::load::remove(&side.target, &work).await?;
            }
        }
        Ok(curve)
    }
}
