//! By the size of objects, from 1 KiB on. Content is made while it is sent, and compared by its place when it comes back.

use anyhow::{Context, Result};

use super::Scale;
use super::curve::{Curve, Watched, x};
use super::fit::Shape;
use crate::contenders::Side;
use crate::load::Work;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SIZES: [u64; 8] = [1 << 10, 16 << 10, 256 << 10, 4 * MIB, 64 * MIB, GIB, 10 * GIB, 50 * GIB];
/// What is added in between: the default run sees more than a gigabyte, and a line through ranges enough points.
const SIZES_BETWEEN: [u64; 2] = [256 * MIB, 4 * GIB];
/// From here on bytes cost more than requests do.
const BYTES_COUNT: f64 = (4 * MIB) as f64;
/// Objects up to this size are kept by the store in memory, and were compared before they are measured.
const IN_MEMORY_MAX: u64 = 64 * MIB;
/// Objects up to this size lie at the store for all contenders at once.
const TOGETHER_MAX: u64 = GIB;
/// Larger ones are measured in one round.
const ROUNDS_MAX: u64 = 4 * GIB;
/// Bytes that are under way at once, as long as they are those of several objects.
const UNDER_WAY: u64 = 256 * MIB;

fn watched() -> Vec<Watched> {
    vec![
        Watched::new("cpu_s_per_gb", "CPU seconds per GB", Shape::Flat).from(BYTES_COUNT),
        Watched::new("cpu_us_per_req", "CPU µs per request", Shape::Linear).from(BYTES_COUNT),
        Watched::new("p50_ms", "p50 ms", Shape::Linear).from(BYTES_COUNT),
        Watched::new("rss_mib", "peak RSS, MiB", Shape::Flat).from(BYTES_COUNT),
    ]
}

/// As many connections as the size allows: small objects one after the other would measure waiting.
fn connections(len: u64) -> usize {
    usize::try_from(UNDER_WAY / len).unwrap_or(1).clamp(1, 4)
}

impl Scale<'_> {
    fn sizes(&self) -> Vec<u64> {
        let mut sizes: Vec<u64> = SIZES.into_iter().chain(SIZES_BETWEEN).collect();
        sizes.sort_unstable();
        sizes.retain(|size| *size <= self.options.size_max);
        sizes
    }

    fn rounds_at(&self, len: u64) -> usize {
        if len > ROUNDS_MAX { 1 } else { self.options.rounds }
    }

    pub(super) async fn put_by_size(&self) -> Result<Curve> {
        let mut curve = Curve::new("put-by-size", "PUT by size of the object", "bytes", watched());
        curve.notes.push(
            "Objects above 5 GiB are written in parts of 64 MiB, one after the other. The store keeps nothing, or the ends of \
             each part."
                .to_owned(),
        );
        for len in self.sizes() {
            let work = Work::Upload { len };
            self.rounds(&mut curve, &self.everybody(), &work, len).await?;
        }
        Ok(curve)
    }

    /// Rounds at one size.
    async fn rounds(
        &self,
        curve: &mut Curve,
        contenders: &[(&str, &Side)],
        work: &Work,
        len: u64,
    ) -> Result<()> {
        println!("  {len} bytes");
        for _ in 0..self.rounds_at(len) {
            for (name, side) in contenders {
                let measured = self
                    .measure(side, work, connections(len))
                    .await
                    .with_context(|| format!("{len} bytes through {name}"))?;
                curve.add(name, x(len), &measured);
            }
        }
        Ok(())
    }

    pub(super) async fn get_by_size(&self) -> Result<Curve> {
        let mut curve = Curve::new("get-by-size", "GET by size of the object", "bytes", watched());
        let contenders = self.everybody();
        for len in self.sizes() {
            if len > self.options.kept_max {
                curve.notes.push(format!(
                    "Not read as a whole: {len} bytes, since the store keeps {} at most (--kept-max). See range-by-size.",
                    self.options.kept_max
                ));
                continue;
            }
            let work = if len <= IN_MEMORY_MAX { Work::Get { len } } else { Work::Download { len } };
            let together = if len <= TOGETHER_MAX { contenders.len() } else { 1 };
            for some in contenders.chunks(together) {
                for (name, side) in some {
                    prepare(name, side, &work).await?;
                }
                self.rounds(&mut curve, some, &work, len).await?;
                for (_, side) in some {
                    crate::load::remove(&side.target, &work).await?;
                }
            }
        }
        Ok(curve)
    }

    /// A range needs an object's footer, which grows with its parts, and is remembered.
    pub(super) async fn range_by_size(&self) -> Result<Curve> {
        let watched = vec![
            Watched::new("p50_ms", "p50 ms", Shape::Flat),
            Watched::new("cpu_us_per_req", "CPU µs per request", Shape::Flat),
            Watched::new("rss_mib", "peak RSS, MiB", Shape::Flat),
        ];
        let title = "GET of 64 KiB anywhere in an object, by its size";
        let mut curve = Curve::new("range-by-size", title, "bytes of the object", watched);
        curve.notes.push("Objects are written in parts of 64 MiB; ranges begin where parts do.".to_owned());
        for len in self.sizes().into_iter().filter(|len| *len >= IN_MEMORY_MAX) {
            let work = Work::Range { len };
            for (name, side) in self.pair() {
                prepare(name, side, &work).await?;
            }
            println!("  {len} bytes");
            for _ in 0..self.options.rounds {
                for (name, side) in self.pair() {
                    curve.add(name, x(len), &self.measure(side, &work, 4).await?);
                }
            }
            for (_, side) in self.pair() {
                crate::load::remove(&side.target, &work).await?;
            }
        }
        Ok(curve)
    }
}

pub(super) async fn prepare(name: &str, side: &Side, work: &Work) -> Result<()> {
    crate::load::prepare(&side.target, work)
        .await
        .with_context(|| format!("before it is read through {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_objects_go_side_by_side_and_large_ones_alone() {
        assert_eq!(SIZES.map(connections), [4, 4, 4, 4, 4, 1, 1, 1]);
    }
}
