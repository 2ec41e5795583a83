//! `cargo xtask bench`: Claviger beside nginx and beside the store itself.

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{install, program, run, succeeds};
use crate::release;

/// What to hand on.
#[derive(Args)]
pub(crate) struct Options {
    /// Curves in place of cases: how cost grows with the size of objects, with connections, with names in a bucket and with
    /// epochs. Writes scale.json, scale.md and plots
    #[arg(long)]
    scale: bool,
    /// Handed on to claviger-bench: `cargo xtask bench -- --help` (or `--scale -- --help`) lists what there is
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds both programs as they are released, sees to nginx, and runs all cases (about ten minutes) or all
/// curves (about twenty).
///
/// # Errors
/// When something can't be built, installed or measured.
pub(crate) fn run_bench(options: &Options) -> Result<bool> {
    let claviger = release::build()?;
    let bench = release::build_bench()?;
    if !succeeds(program("nginx").arg("-v"))
        && !options.arguments.iter().any(|word| word == "--without-nginx")
    {
        install("nginx-light")
            .context("nginx is missing, and this user can't install it; -- --without-nginx leaves it out")?;
    }
    let mut bench = program(bench);
    bench.arg(if options.scale { "scale" } else { "run" }).arg("--claviger").arg(claviger);
    bench.arg("--out").arg(crate::command::root().join("target/bench"));
    run(bench.args(&options.arguments))?;
    Ok(true)
}
