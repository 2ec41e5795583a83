//! A short run of each fuzz target, as many side by side as there are cores.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::ci::Outcome;
use crate::command::{output, program, root, run, target_dir};
use crate::tools;

/// Seconds that each target runs.
const SECONDS: u32 = 10;
/// Seconds for one input.
const INPUT_SECONDS: u32 = 10;
/// Megabytes that a target may take: no input may make a parser allocate without bound.
const MEMORY_MB: u32 = 1024;

/// Builds all targets and runs each.
///
/// # Errors
/// When a target does not build, or fails on an input; the input then lies in `fuzz/artifacts`.
pub(crate) fn run_all() -> Result<Outcome> {
    let tool = match tools::CARGO_FUZZ.install() {
        Ok(tool) => tool,
        Err(error) => return Ok(Outcome::NotRun(format!("cargo-fuzz can't be installed: {error:#}"))),
    };
    let list = output(program(&tool).current_dir(root().join("fuzz")).arg("list"))?;
    let targets: Vec<&str> = list.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    if targets.is_empty() {
        bail!("fuzz/ has no target");
    }
    let built = build(&tool)?;
    let failed = run_side_by_side(&targets, |target| run_target(&built.join(target), target));
    if !failed.is_empty() {
        bail!("fuzz targets failed: {}", failed.join(", "));
    }
    Ok(Outcome::Passed)
}

/// Gives the folder of the programs.
fn build(tool: &Path) -> Result<PathBuf> {
    let folder = target_dir().join("fuzz");
    let mut build = program(tool);
    // The instrumentation is behind an unstable flag, which a stable compiler takes on demand. The crates forbid
    // unsafe code, so that the address sanitizer would find nothing in them and only double the build.
    build.current_dir(root().join("fuzz")).env("RUSTC_BOOTSTRAP", "1").args(["build", "--sanitizer", "none"]);
    run(build.arg("--target-dir").arg(&folder))?;
    let host = host()?;
    Ok(folder.join(host).join("release"))
}

fn host() -> Result<String> {
    let version = output(program("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not name its host")
}

fn run_side_by_side<'a>(targets: &[&'a str], run: impl Fn(&str) -> Result<()> + Sync) -> Vec<&'a str> {
    let queue: Mutex<VecDeque<&str>> = Mutex::new(targets.iter().copied().collect());
    let failed = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(target) = next else { return };
                    if let Err(error) = run(target) {
                        println!("{target}: {error:#}");
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(target);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_target(binary: &Path, target: &str) -> Result<()> {
    let fuzz = root().join("fuzz");
    let (corpus, artifacts) = (fuzz.join("corpus").join(target), fuzz.join("artifacts").join(target));
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut command = program(binary);
    command.args([format!("-max_total_time={SECONDS}"), format!("-rss_limit_mb={MEMORY_MB}")]);
    command
        .arg(format!("-timeout={INPUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()));
    let ended = command.arg(&corpus).stdin(Stdio::null()).output().context("it can't be started")?;
    let log = String::from_utf8_lossy(&ended.stderr);
    let done = log.lines().rfind(|line| line.starts_with("Done "));
    match done {
        Some(done) if ended.status.success() => println!("{target}: {done}"),
        _ => {
            println!("{log}");
            bail!("ended with {}", ended.status);
        }
    }
    Ok(())
}
