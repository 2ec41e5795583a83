//! How fast Claviger is, beside nginx as a plain proxy and beside the store itself, in one run on one machine.
//!
//! ```text
//! cargo xtask bench --help
//! ```
//! `store` holds the null store that everything stands before, `contenders` starts who is measured, `load` asks, `run` takes
//! turns among them, `report` writes what came out. `scale` asks how all that grows. docs/performance.md says what the cases mean, and what they gave.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![allow(clippy::print_stdout, reason = "its report goes to the terminal")]

mod cases;
mod contenders;
mod load;
mod options;
mod process;
mod report;
mod run;
mod scale;
mod store;
mod tls;

use std::process::ExitCode;

use clap::Parser as _;

use crate::options::{Arguments, Task};

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Run(options) => run::run(&options),
        Task::Scale(options) => scale::run(&options),
        Task::Store(options) => store::serve(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
