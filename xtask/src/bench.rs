//! `cargo xtask bench`: Claviger beside nginx and beside the store itself.

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{program, run, succeeds, target_dir};
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
    release::build(&["claviger", "claviger-bench"])?;
    if !succeeds(program("nginx").arg("-v"))
        && !options.arguments.iter().any(|word| word == "--without-nginx")
    {
        run(program("apt-get").args(["install", "-y", "--no-install-recommends", "nginx-light"])).context(
            "nginx is missing, and this user can't install it: apt-get install nginx-light, or -- --without-nginx",
        )?;
    }
    let release = target_dir().join("release");
    let mut bench = program(release.join("claviger-bench"));
    bench.arg(if options.scale { "scale" } else { "run" }).arg("--claviger").arg(release.join("claviger"));
    bench.arg("--out").arg(crate::command::root().join("target/bench"));
    run(bench.args(&options.arguments))?;
    Ok(true)
}
