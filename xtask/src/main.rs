//! `cargo xtask`: the project's own tasks.

#![allow(clippy::print_stdout, reason = "a task's report goes to the terminal")]
#![allow(clippy::disallowed_methods, reason = "a developer's tool measures its own steps")]

mod bench;
mod borders;
mod ci;
mod command;
mod fuzz;
mod layout;
mod release;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own tasks.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that must hold before a change lands. Installs the tools it needs into target/tools.
    Ci(ci::Options),
    /// Only the crate borders: who may use whom, and what the pure crates may not pull in.
    Borders,
    /// How fast Claviger is beside nginx as a plain TLS proxy and beside the store itself; writes target/bench
    Bench(bench::Options),
    /// The program as it is released, into target/release: with what is recorded in deploy/profile, which makes small requests a
    /// third cheaper than what `cargo build --release` gives. Takes Debian's bolt-19, and installs it where it may
    Build,
    /// A new record for that, made with this compiler and this program; half an hour on two cores
    Profile,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Ci(options) => ci::run_ci(&options),
        Task::Bench(options) => bench::run_bench(&options),
        Task::Borders => borders::check().map(|()| true),
        Task::Build => release::build().map(|_| true),
        Task::Profile => release::profile(),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
