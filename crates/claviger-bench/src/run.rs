//! The contenders take turns, round by round and case by case.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cases::{self, Case};
use crate::contenders::{self, CLAVIGER, Contender, Side};
use crate::load::{self, Crew, Pace, Sample, Work};
use crate::options::Options;
use crate::process::stolen_ms;
use crate::report::{Measured, Report};

/// A run, from the start of the store to the report. What the contenders wrote to their logs is kept if it fails.
pub(crate) fn run(options: &Options) -> Result<()> {
    in_folder(|dir| run_in(options, dir))
}

/// Does something in a folder of its own, which is kept with the logs in it if that fails.
pub(crate) fn in_folder(run: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    // The same for clients and store; losing the race means that it is set.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::Builder::new().prefix("claviger-bench-").tempdir()?;
    run(dir.path()).map_err(|error| {
        let kept = dir.keep();
        error.context(format!("the logs are in {}", kept.display()))
    })
}

fn run_in(options: &Options, dir: &Path) -> Result<()> {
    let cases: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| options.only.is_empty() || options.only.iter().any(|text| case.name.contains(text)))
        // A store of the user's is as fast as it is.
        .filter(|case| options.place.store.is_none() || !case.name.ends_with("store-limited"))
        .collect();
    anyhow::ensure!(!cases.is_empty(), "no case has such a name");
    let field = contenders::start(&options.who, &options.place, dir)?;
    let contenders = &field.contenders;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::new(contenders);
    let outcome = runtime.block_on(take_turns(options, contenders, &cases, &mut report));
    if options.place.store.is_some() {
        runtime.block_on(clean(contenders))?;
    }
    outcome?;
    report.print();
    report.save(&options.out)
}

async fn take_turns(
    options: &Options,
    contenders: &[Contender],
    cases: &[Case],
    report: &mut Report,
) -> Result<()> {
    for case in cases {
        for contender in contenders {
            if let Some(side) = contender.side(case.scheme) {
                load::make_bucket(&side.target).await.with_context(|| contender.name.clone())?;
                load::prepare(&side.target, &case.work)
                    .await
                    .with_context(|| format!("{} before {}", case.name, contender.name))?;
            }
        }
    }
    let time = Duration::from_secs_f64(options.seconds);
    for round in 1..=options.rounds {
        let order = drawn_order(contenders.len(), round);
        let in_turn = || order.iter().map(|&number| &contenders[number]);
        for case in cases {
            println!("round {round} of {}: {}", options.rounds, case.name);
            let pace = Pace::Closed(options.connections.min(case.connections_max));
            for contender in in_turn() {
                let Some(side) = contender.side(case.scheme) else { continue };
                let measured = measure(side, &case.work, pace, time)
                    .await
                    .with_context(|| format!("{} through {}", case.name, contender.name))?;
                report.add(case, &contender.name, &measured);
            }
            if case.half_load
                && let Some(rate) = report.last_rate(case, CLAVIGER)
            {
                for contender in in_turn() {
                    let Some(side) = contender.side(case.scheme) else { continue };
                    let measured = measure(side, &case.work, Pace::PerSecond(rate / 2.0), time).await?;
                    report.add_half_load(case, &contender.name, &measured);
                }
            }
        }
    }
    Ok(())
}

/// The order of a round, drawn by lot, the same in each run: nobody always comes after the same one, which may have heated the
/// processor or used up what the host gives.
#[allow(clippy::cast_possible_truncation, reason = "numbers of contenders and rounds")]
fn drawn_order(count: usize, round: usize) -> Vec<usize> {
    const SEED: u64 = 2;
    // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
    const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = SEED.wrapping_add((round as u64).wrapping_mul(GAMMA));
    let mut draw = |below: usize| {
        state = state.wrapping_add(GAMMA);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    };
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        order.swap(last, draw(last + 1));
    }
    order
}

/// Opening connections is no part of it, nor is the beginning.
pub(crate) async fn measure(side: &Side, work: &Work, pace: Pace, time: Duration) -> Result<Measured> {
    let mut crew = Crew::open(&side.target, work, pace).await?;
    crew.run_in().await?;
    observe(side, crew.run(time)).await
}

/// What a load gives, and what the one before the store uses meanwhile.
pub(crate) async fn observe(side: &Side, load: impl Future<Output = Result<Sample>>) -> Result<Measured> {
    let before = match &side.process {
        Some(process) => {
            process.reset_peak()?;
            Some(process.used()?)
        }
        None => None,
    };
    let stolen_before = stolen_ms()?;
    let sample = load.await?;
    let stolen_ms = stolen_ms()? - stolen_before;
    let used = match (&side.process, before) {
        (Some(process), Some(before)) => {
            let after = process.used()?;
            Some((after.cpu_s - before.cpu_s, after.peak_rss_mib))
        }
        _ => None,
    };
    Ok(Measured { sample, used, stolen_ms })
}

async fn clean(contenders: &[Contender]) -> Result<()> {
    for contender in contenders {
        for scheme in [cases::Scheme::Http, cases::Scheme::Tls] {
            if let Some(side) = contender.side(scheme) {
                load::clean(&side.target)
                    .await
                    .with_context(|| format!("cleaning up after {}", contender.name))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_comes_after_everybody_else() {
        let first: Vec<_> = (1..=3).map(|round| drawn_order(3, round)).collect();
        assert_eq!(first, [[0, 1, 2], [1, 2, 0], [2, 1, 0]]);
        for count in 2..=6_usize {
            let rounds = 600 * count;
            let mut after = vec![vec![0; count]; count];
            for round in 1..=rounds {
                let order = drawn_order(count, round);
                assert_eq!((0..count).filter(|number| order.contains(number)).count(), count);
                order.windows(2).for_each(|pair| after[pair[0]][pair[1]] += 1);
            }
            for (before, of_one) in after.iter().enumerate() {
                for (number, &times) in of_one.iter().enumerate() {
                    // Each pair has one of `count` chances to be next to each other.
                    let expected =
                        if number == before { 0..1 } else { rounds / count * 4 / 5..rounds / count * 6 / 5 };
                    assert!(expected.contains(&times), "{number} after {before} of {count}: {times}");
                }
            }
        }
    }
}
