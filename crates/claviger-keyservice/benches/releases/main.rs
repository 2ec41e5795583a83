//! How fast keys are released when every one of them has a durable record first, and what a fleet costs that only renews its
//! leases. One process holds the service and whoever asks it, over real sockets and TLS; what the service's threads used is
//! told apart from the rest.
//!
//! ```text
//! cargo bench -p claviger-keyservice --bench releases -- --help
//! ```
//! docs/performance.md says what the cases mean, and what they gave.
#![allow(clippy::unwrap_used, reason = "a benchmark that can't go on should stop where it stands")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures time")]
#![allow(clippy::print_stdout, reason = "its report goes to the terminal")]

#[path = "../../tests/common/mod.rs"]
mod common;
mod fleet;
mod load;
mod report;
mod stand;
mod threads;

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use self::load::{Case, Pace};
use self::report::Report;
use self::stand::Stand;

/// Objects in a request where a case has batches: what a gateway asks for that lists a folder and opens it.
const BATCH: usize = 64;
/// Requests under way at once where the service is to be saturated.
const IN_FLIGHT: usize = 16;
/// The load whose half is looked at for its latency (issue: 10,000 a second).
const WANTED_PER_SECOND: u32 = 10_000;

/// Measures the key service: audited releases a second, their latency, and a fleet's renewals.
#[derive(Parser)]
struct Options {
    /// Seconds for each case and round.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Rounds; the cases take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Gateways of the fleet; 0 leaves it out.
    #[arg(long, default_value_t = 1_000)]
    gateways: usize,
    /// Seconds for which the fleet is watched.
    #[arg(long, default_value_t = 60)]
    fleet_seconds: u64,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench/keyservice.json")]
    json: PathBuf,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let time = Duration::from_secs(options.seconds);
    let mut report = Report::default();
    {
        let stand = Stand::new(load::IDENTITIES);
        let load = stand.ask(load::Load::prepare(&stand));
        let saturated =
            |name, batch, group_max| Case { name, batch, group_max, pace: Pace::Saturated(IN_FLIGHT) };
        let at = |name, batch, per_second| Case {
            name,
            batch,
            group_max: usize::MAX,
            pace: Pace::PerSecond(per_second),
        };
        let cases = [
            saturated("batches of 64", BATCH, usize::MAX),
            saturated("batches of 64, a sync for each request", BATCH, 1),
            saturated("single objects", 1, usize::MAX),
            saturated("single objects, a sync for each request", 1, 1),
            at("5,000/s in batches of 64", BATCH, WANTED_PER_SECOND / 2),
            at("5,000/s in batches of 8", 8, WANTED_PER_SECOND / 2),
        ];
        for round in 0..options.rounds {
            for case in &cases {
                println!("round {}: {}", round + 1, case.name);
                report.add(load.run(&stand, case, time));
            }
        }
        report.check_log(&stand);
    }
    report.print();
    if options.gateways > 0 {
        report.fleet = Some(fleet::run(options.gateways, Duration::from_secs(options.fleet_seconds)));
    }
    report.save(&options.json);
}
