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
        // Nobody always comes after the same one, which may have heated the processor or used up what the host gives.
        let (last, first) = contenders.split_at((round - 1) % contenders.len());
        let in_turn = || first.iter().chain(last);
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
