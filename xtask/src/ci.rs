//! `cargo xtask ci`: every check, with its time, and a summary.
//!
//! The order follows what is compiled: clippy and doc share the checked dependencies, test and fuzz come from the dev
//! profile, end-to-end tests run the release binary, so that each dependency is compiled three times and not more.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::command::{cargo, program, run, succeeds};
use crate::{borders, fuzz, release, tools};

/// What to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this step (may be given several times)
    #[arg(long, value_enum)]
    only: Vec<Step>,
    /// Everything but this step (may be given several times)
    #[arg(long, value_enum)]
    skip: Vec<Step>,
    /// Go on after a step has failed, to see all failures at once
    #[arg(long)]
    keep_going: bool,
}

/// One check.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Step {
    /// rustfmt
    Fmt,
    /// Crate borders: who uses whom, and what the pure crates pull in
    Borders,
    /// clippy with warnings as errors
    Clippy,
    /// Documentation with warnings as errors
    Doc,
    /// Unit, property and vector tests
    Test,
    /// The second decoder, in Python: it opens what Rust wrote and the other way round
    Python,
    /// Licences, bans and sources of all dependencies
    Deny,
    /// Known vulnerabilities, where their database can be fetched
    Advisories,
    /// Ten seconds of each fuzz target, where the tool can be installed
    Fuzz,
    /// The release binary
    Build,
    /// End-to-end tests with real clients: the embedded provider and Ceph RGW
    E2e,
}

/// How a step ended, if not in an error.
pub(crate) enum Outcome {
    Passed,
    /// It could not be run here, and why. Only for what the project allows to be missing.
    NotRun(String),
}

/// Runs the steps in order, to the first failure unless told to go on.
fn run_steps(steps: &[Step], keep_going: bool) -> Vec<(Step, Duration, Result<Outcome>)> {
    let mut done = Vec::new();
    for &step in steps {
        println!("\n=== {} ===", name(step));
        let begun = Instant::now();
        let outcome = step.run();
        let failed = outcome.is_err();
        if let Err(error) = &outcome {
            println!("error: {error:#}");
        }
        println!("--- {}: {:.1} s", name(step), begun.elapsed().as_secs_f32());
        done.push((step, begun.elapsed(), outcome));
        if failed && !keep_going {
            break;
        }
    }
    done
}

/// Runs what `options` ask for and prints the summary. False if a step failed.
///
/// # Errors
/// When no step is left to run.
pub(crate) fn run_ci(options: &Options) -> Result<bool> {
    let chosen = |step: &Step| {
        (options.only.is_empty() || options.only.contains(step)) && !options.skip.contains(step)
    };
    let steps: Vec<Step> = Step::value_variants().iter().copied().filter(chosen).collect();
    if steps.is_empty() {
        bail!("no step is left to run");
    }
    let done = run_steps(&steps, options.keep_going);
    println!("\n=== summary ===");
    let (mut passed, mut failed, mut not_run) = (0, 0, 0);
    for (step, time, outcome) in &done {
        let text = match outcome {
            Ok(Outcome::Passed) => {
                passed += 1;
                "passed".to_owned()
            }
            Ok(Outcome::NotRun(why)) => {
                not_run += 1;
                format!("NOT RUN: {why}")
            }
            Err(error) => {
                failed += 1;
                format!("FAILED: {error:#}")
            }
        };
        println!("{:<11} {:>7.1} s  {text}", name(*step), time.as_secs_f32());
    }
    for step in &steps[done.len()..] {
        not_run += 1;
        println!("{:<11}            not reached", name(*step));
    }
    let total: Duration = done.iter().map(|(_, time, _)| *time).sum();
    println!("total       {:>7.1} s", total.as_secs_f32());
    println!("steps: {passed} passed, {failed} failed, {not_run} skipped");
    Ok(failed == 0)
}

fn name(step: Step) -> String {
    step.to_possible_value().expect("no step is hidden").get_name().to_owned()
}

impl Step {
    fn run(self) -> Result<Outcome> {
        match self {
            Self::Fmt => fmt()?,
            Self::Borders => borders::check()?,
            Self::Clippy => clippy()?,
            Self::Doc => doc()?,
            Self::Test => run(cargo().args(["test", "--workspace", "--locked"]))?,
            Self::Python => run(program("bash").arg("tests/decoder/run.sh"))?,
            Self::Deny => deny()?,
            Self::Advisories => return advisories(),
            Self::Fuzz => return fuzz::run_all(),
            Self::Build => release::build().map(drop)?,
            Self::E2e => e2e()?,
        }
        Ok(Outcome::Passed)
    }
}

/// The workspace, and the two that stand beside it because of their dependencies.
fn fmt() -> Result<()> {
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml", "tests/clients/rust/Cargo.toml"] {
        run(cargo().args(["fmt", "--all", "--check", "--manifest-path", manifest]))?;
    }
    Ok(())
}

fn clippy() -> Result<()> {
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn doc() -> Result<()> {
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"]);
    run(doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
}

/// The suite finds the program through `CLAVIGER`, wherever cargo puts what it builds.
fn e2e() -> Result<()> {
    let binary = release::build()?;
    run(program("bash").arg("tests/e2e/suite.sh").env("CLAVIGER", binary))
}

fn deny() -> Result<()> {
    let tool = tools::CARGO_DENY.install()?;
    run(program(tool).args(["--locked", "check", "licenses", "bans", "sources"]))
}

/// The database lies in a Git repository that not every machine reaches. That is said, not hidden; a finding fails.
fn advisories() -> Result<Outcome> {
    let tool = tools::CARGO_DENY.install()?;
    if !succeeds(program(&tool).args(["--locked", "fetch", "db"])) {
        return Ok(Outcome::NotRun("the advisory database can't be fetched from here".to_owned()));
    }
    run(program(tool).args(["--locked", "check", "--disable-fetch", "advisories"]))?;
    Ok(Outcome::Passed)
}
