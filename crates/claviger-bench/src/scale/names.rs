//! By the number of names in a bucket: pages at its beginning, in its middle and at its end, and walks from one end to the other.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::Scale;
use super::curve::{Curve, Watched, x};
use super::fit::Shape;
use crate::cases::Scheme;
use crate::contenders::{CLAVIGER, Side};
use crate::load::names::{PAGE, name, requests_at};
use crate::load::{self, Work};

const COUNTS: [u64; 4] = [1_000, 10_000, 100_000, 1_000_000];
const CONNECTIONS: usize = 4;

/// Where pages begin: behind which name.
fn places(names: u64) -> Vec<(&'static str, String)> {
    let mut places = vec![("begin", String::new())];
    if names >= 2 * PAGE {
        places.push(("middle", name(names / 2 - 1)));
        places.push(("end", name(names - PAGE - 1)));
    }
    places
}

impl Scale<'_> {
    fn counts(&self) -> impl Iterator<Item = u64> {
        let most = self.options.names_max;
        COUNTS.into_iter().filter(move |count| *count <= most)
    }

    /// The contenders, in buckets of so many names.
    async fn at_names(&self, names: u64) -> Result<Vec<(&str, Side)>> {
        let mut all = Vec::new();
        for (contender, side) in self.pair() {
            let ending = if contender == CLAVIGER { "-sealed" } else { "" };
            let target = Arc::new(side.target.in_bucket(&format!("names-{names}{ending}")));
            load::make_bucket(&target).await.with_context(|| contender.to_owned())?;
            all.push((contender, Side { target, process: side.process.clone() }));
        }
        Ok(all)
    }

    pub(super) async fn list_by_names(&self) -> Result<Curve> {
        let watched = vec![
            Watched::new("p50_ms", "p50 ms", Shape::Flat),
            Watched::new("cpu_us_per_req", "CPU µs per page", Shape::Flat),
            Watched::new("upstream_per_req", "store requests per request", Shape::Flat),
            Watched::new("rss_mib", "peak RSS, MiB", Shape::Flat),
        ];
        let title = "LIST of 1,000 names by names in the bucket";
        let mut curve = Curve::new("list-by-names", title, "names in the bucket", watched);
        for names in self.counts() {
            println!("  {names} names");
            let contenders = self.at_names(names).await?;
            for _ in 0..self.options.rounds {
                for (place, after) in places(names) {
                    for (contender, side) in &contenders {
                        let work = Work::Page { after: after.clone() };
                        self.page(&mut curve, &format!("{contender}, {place}"), names, side, &work).await?;
                    }
                }
            }
        }
        Ok(curve)
    }

    async fn page(
        &self,
        curve: &mut Curve,
        series: &str,
        names: u64,
        side: &Side,
        work: &Work,
    ) -> Result<()> {
        let store = &self.field.contenders.first().context("no store")?;
        let store = &store.side(Scheme::Http).context("no store over HTTP")?.target;
        let before = requests_at(store).await?;
        let measured = self.measure(side, work, CONNECTIONS).await?;
        // Without the question before. Each connection asked once before it was counted.
        let asked = requests_at(store).await? - before - 1;
        let turns = measured.sample.latencies.len() + CONNECTIONS;
        curve.add(series, x(names), &measured);
        curve.add_figure(series, x(names), "upstream_per_req", x(asked) / x(turns as u64));
        Ok(())
    }

    pub(super) async fn walk_by_names(&self) -> Result<Curve> {
        let watched = vec![
            Watched::new("p50_ms", "ms for all pages", Shape::Linear),
            Watched::new("cpu_us_per_req", "CPU µs for all pages", Shape::Linear),
            Watched::new("rss_mib", "peak RSS, MiB", Shape::Flat),
        ];
        let title = "A walk through a bucket by names in it";
        let mut curve = Curve::new("walk-by-names", title, "names in the bucket", watched);
        curve.notes.push("A request is a walk: all pages of 1,000, one after the other.".to_owned());
        for names in self.counts() {
            println!("  {names} names");
            for _ in 0..self.options.rounds {
                for (contender, side) in &self.at_names(names).await? {
                    let measured = self.measure(side, &Work::Walk { names }, 1).await?;
                    curve.add(contender, x(names), &measured);
                }
            }
        }
        Ok(curve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_full_wherever_it_begins() {
        assert_eq!(places(1_000).len(), 1);
        let end = &places(10_000)[2].1;
        assert_eq!(*end, name(8_999));
        assert_eq!(places(2_000)[1].1, name(999));
    }
}
