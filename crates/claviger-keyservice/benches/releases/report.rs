//! What came out, for people and for programs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::stand::Stand;

/// One case in one round.
pub(crate) struct Measured {
    pub(crate) case: &'static str,
    pub(crate) released: usize,
    pub(crate) elapsed: Duration,
    /// Of the service's threads.
    pub(crate) cpu_s: f64,
    /// Of each request, sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Measured {
    fn per_second(&self) -> f64 {
        self.released as f64 / self.elapsed.as_secs_f64()
    }

    fn cpu_us_per_release(&self) -> f64 {
        1e6 * self.cpu_s / self.released as f64
    }

    /// Milliseconds within which this part of the requests was answered.
    fn quantile_ms(&self, part: f64) -> f64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        let at = ((self.latencies.len() as f64 * part).ceil() as usize).clamp(1, self.latencies.len());
        1e3 * self.latencies[at - 1].as_secs_f64()
    }
}

#[derive(Default)]
pub(crate) struct Report {
    rounds: BTreeMap<&'static str, Vec<Measured>>,
    order: Vec<&'static str>,
    pub(crate) fleet: Option<Value>,
}

impl Report {
    pub(crate) fn add(&mut self, measured: Measured) {
        if !self.rounds.contains_key(measured.case) {
            self.order.push(measured.case);
        }
        self.rounds.entry(measured.case).or_default().push(measured);
    }

    /// Every key that was counted has its record in the log.
    pub(crate) fn check_log(&self, stand: &Stand) {
        let released: usize = self.rounds.values().flatten().map(|measured| measured.released).sum();
        assert_eq!(released_records(&stand.world.config.state_dir.join("audit")), released);
    }

    fn cases(&self) -> Vec<Value> {
        self.order
            .iter()
            .map(|case| {
                let rounds = &self.rounds[case];
                let middle = |value: &dyn Fn(&Measured) -> f64| median(rounds.iter().map(value).collect());
                let rates: Vec<f64> = rounds.iter().map(Measured::per_second).collect();
                let spread = rates.iter().copied().fold(0.0, f64::max)
                    / rates.iter().copied().fold(f64::MAX, f64::min);
                json!({
                    "case": case,
                    "released_per_second": middle(&Measured::per_second),
                    "spread": spread,
                    "p50_ms": middle(&|measured| measured.quantile_ms(0.5)),
                    "p99_ms": middle(&|measured| measured.quantile_ms(0.99)),
                    "p999_ms": middle(&|measured| measured.quantile_ms(0.999)),
                    "cpu_us_per_release": middle(&Measured::cpu_us_per_release),
                })
            })
            .collect()
    }

    /// For the terminal: medians of the rounds.
    pub(crate) fn print(&self) {
        println!(
            "{:42} {:>10} {:>7} {:>9} {:>9} {:>9} {:>11}",
            "case", "keys/s", "spread", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs/key"
        );
        for case in self.cases() {
            let number = |name: &str| case[name].as_f64().unwrap();
            println!(
                "{:42} {:>10.0} {:>7.2} {:>9.2} {:>9.2} {:>9.2} {:>11.1}",
                case["case"].as_str().unwrap(),
                number("released_per_second"),
                number("spread"),
                number("p50_ms"),
                number("p99_ms"),
                number("p999_ms"),
                number("cpu_us_per_release"),
            );
        }
    }

    pub(crate) fn save(&self, path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let all = json!({"cases": self.cases(), "fleet": self.fleet});
        std::fs::write(path, serde_json::to_vec_pretty(&all).unwrap()).unwrap();
        if let Some(fleet) = &self.fleet {
            println!("fleet: {fleet:#}");
        }
        println!("{}", path.display());
    }
}

/// Counts them in all files of the log: a run of a minute fills more than one.
fn released_records(audit: &Path) -> usize {
    let files = std::fs::read_dir(audit).unwrap().map(|entry| entry.unwrap().path());
    let records = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let lines = records.flat_map(|path| BufReader::new(File::open(path).unwrap()).lines());
    let is_release = |line: &String| {
        let record = &serde_json::from_str::<Value>(line).unwrap()["record"];
        record["action"] == "derive" && record["outcome"] == "released"
    };
    lines.map(Result::unwrap).filter(is_release).count()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
