//! What came out: for programs (results.json), for people (the terminal, results.md), and as a picture.

mod plot;
mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use crate::cases::Case;
use crate::contenders::{CLAVIGER, Contender, DIRECT, NGINX};
use crate::load::Sample;

/// One contender in one case and round.
pub(crate) struct Measured {
    pub(crate) sample: Sample,
    /// Processor seconds, and the most resident memory in MiB; of what runs here.
    pub(crate) used: Option<(f64, f64)>,
    /// What the host took from this machine meanwhile, all processors together.
    pub(crate) stolen_ms: f64,
}

/// The figures of one contender in one case and round.
#[derive(Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) rps: f64,
    pub(crate) gb_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    p999_ms: f64,
    pub(crate) cpu_s_per_gb: Option<f64>,
    pub(crate) cpu_us_per_req: Option<f64>,
    pub(crate) rss_mib: Option<f64>,
    stolen_ms: f64,
}

impl Figures {
    #[allow(clippy::cast_precision_loss, reason = "counts of a run")]
    pub(crate) fn of(measured: &Measured) -> Self {
        let sample = &measured.sample;
        let gb = sample.content_len as f64 / 1e9;
        let requests = sample.latencies.len() as f64;
        Self {
            rps: sample.per_second(),
            gb_s: gb / sample.elapsed.as_secs_f64(),
            p50_ms: sample.quantile_ms(0.5),
            p99_ms: sample.quantile_ms(0.99),
            p999_ms: sample.quantile_ms(0.999),
            cpu_s_per_gb: measured.used.filter(|_| gb > 0.0).map(|(cpu_s, _)| cpu_s / gb),
            cpu_us_per_req: measured.used.map(|(cpu_s, _)| 1e6 * cpu_s / requests),
            rss_mib: measured.used.map(|(_, rss_mib)| rss_mib),
            stolen_ms: measured.stolen_ms,
        }
    }
}

/// Of one case: figures by contender and round.
#[derive(Default)]
struct Rounds {
    closed: BTreeMap<String, Vec<Figures>>,
    half_load: BTreeMap<String, Vec<Figures>>,
}

/// A run's figures.
pub(crate) struct Report {
    order: Vec<String>,
    cases: BTreeMap<String, Rounds>,
    contenders: Vec<String>,
    startup_ms: BTreeMap<String, f64>,
}

impl Report {
    pub(crate) fn new(contenders: &[Contender]) -> Self {
        let startup =
            |contender: &Contender| Some((contender.name.clone(), contender.startup?.as_secs_f64() * 1e3));
        Self {
            order: Vec::new(),
            cases: BTreeMap::new(),
            contenders: contenders.iter().map(|contender| contender.name.clone()).collect(),
            startup_ms: contenders.iter().filter_map(startup).collect(),
        }
    }

    fn rounds(&mut self, case: &Case) -> &mut Rounds {
        if !self.cases.contains_key(&case.name) {
            self.order.push(case.name.clone());
        }
        self.cases.entry(case.name.clone()).or_default()
    }

    pub(crate) fn add(&mut self, case: &Case, contender: &str, measured: &Measured) {
        let figures = Figures::of(measured);
        self.rounds(case).closed.entry(contender.to_owned()).or_default().push(figures);
    }

    pub(crate) fn add_half_load(&mut self, case: &Case, contender: &str, measured: &Measured) {
        let figures = Figures::of(measured);
        self.rounds(case).half_load.entry(contender.to_owned()).or_default().push(figures);
    }

    /// Turns a second of the newest round.
    pub(crate) fn last_rate(&self, case: &Case, contender: &str) -> Option<f64> {
        Some(self.cases.get(&case.name)?.closed.get(contender)?.last()?.rps)
    }

    fn to_json(&self) -> Value {
        let cases: Vec<Value> = self.order.iter().map(|name| self.case_to_json(name)).collect();
        json!({
            "cases": cases,
            "startup_ms": self.startup_ms,
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
        })
    }

    fn case_to_json(&self, name: &str) -> Value {
        let rounds = &self.cases[name];
        let mut case = match rounds.closed.get(CLAVIGER) {
            Some(figures) => summary(figures),
            None => Map::new(),
        };
        case.insert("case".into(), json!(name));
        let further = rounds.closed.keys().map(String::as_str);
        let others = [NGINX, DIRECT]
            .into_iter()
            .chain(further.filter(|name| ![NGINX, DIRECT, CLAVIGER].contains(name)));
        for other in others {
            let mut add = |what: &str, value: Option<f64>| {
                case.insert(format!("{what}_vs_{other}"), json!(value));
            };
            add("rps", rounds.ratio(CLAVIGER, other, |figures| Some(figures.rps)));
            if other != DIRECT {
                add("cpu_per_byte", rounds.ratio(CLAVIGER, other, |figures| figures.cpu_s_per_gb));
                add("cpu_per_req", rounds.ratio(CLAVIGER, other, |figures| figures.cpu_us_per_req));
            }
        }
        if !rounds.half_load.is_empty() {
            case.insert("half_load".into(), rounds.half_load_to_json());
        }
        let contenders: Map<String, Value> = rounds
            .closed
            .iter()
            .map(|(contender, figures)| (contender.clone(), Value::Object(summary(figures))))
            .collect();
        case.insert("contenders".into(), Value::Object(contenders));
        Value::Object(case)
    }

    /// For the terminal.
    pub(crate) fn print(&self) {
        println!("\n{}", table::markdown(self));
    }

    /// results.json, results.md and results.svg.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("results.json"), serde_json::to_vec_pretty(&self.to_json())?)?;
        std::fs::write(dir.join("results.md"), table::markdown(self))?;
        std::fs::write(dir.join("results.svg"), plot::ratios(self))?;
        println!("{0}/results.json {0}/results.md {0}/results.svg", dir.display());
        Ok(())
    }
}

impl Rounds {
    /// The median over the rounds of one contender's figure by another's.
    fn ratio(&self, one: &str, other: &str, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        let (ours, theirs) = (self.closed.get(one)?, self.closed.get(other)?);
        let ratios = ours.iter().zip(theirs).map(|(one, other)| Some(figure(one)? / figure(other)?));
        median(ratios.collect::<Option<Vec<f64>>>()?)
    }

    /// How long a request takes at half the load that Claviger can take, and how much longer than at the store itself.
    fn half_load_to_json(&self) -> Value {
        let added = |contender: &str, figure: &dyn Fn(&Figures) -> f64| {
            let (ours, direct) = (self.half_load.get(contender)?, self.half_load.get(DIRECT)?);
            median(ours.iter().zip(direct).map(|(one, other)| figure(one) - figure(other)).collect())
        };
        let of = |contender: &String| {
            let middle = |figure: &dyn Fn(&Figures) -> f64| {
                median(self.half_load[contender].iter().map(figure).collect())
            };
            json!({
                "p50_ms": middle(&|figures| figures.p50_ms),
                "p99_ms": middle(&|figures| figures.p99_ms),
                "added_p50_ms": added(contender, &|figures| figures.p50_ms),
                "added_p99_ms": added(contender, &|figures| figures.p99_ms),
                "rps": self.half_load[contender].first().map(|figures| figures.rps),
                "cpu_us_per_req": self.half_load[contender]
                    .iter()
                    .map(|figures| figures.cpu_us_per_req)
                    .collect::<Option<Vec<f64>>>()
                    .and_then(median),
                "stolen_ms": most_stolen(&self.half_load[contender]),
            })
        };
        Value::Object(self.half_load.keys().map(|contender| (contender.clone(), of(contender))).collect())
    }
}

/// Of the round from which the host took most.
fn most_stolen(figures: &[Figures]) -> f64 {
    figures.iter().map(|figures| figures.stolen_ms).fold(0.0, f64::max)
}

/// Medians over the rounds; the spread is the largest rate by the smallest, and of stolen time it is the most.
fn summary(figures: &[Figures]) -> Map<String, Value> {
    let middle = |figure: &dyn Fn(&Figures) -> Option<f64>| {
        median(figures.iter().map(figure).collect::<Option<Vec<f64>>>()?)
    };
    let rates = figures.iter().map(|figures| figures.rps);
    let spread = rates.clone().fold(0.0, f64::max) / rates.fold(f64::MAX, f64::min);
    let fields = [
        ("gb_s", middle(&|figures| Some(figures.gb_s))),
        ("cpu_s_per_gb", middle(&|figures| figures.cpu_s_per_gb)),
        ("rps", middle(&|figures| Some(figures.rps))),
        ("cpu_us_per_req", middle(&|figures| figures.cpu_us_per_req)),
        ("p50_ms", middle(&|figures| Some(figures.p50_ms))),
        ("p99_ms", middle(&|figures| Some(figures.p99_ms))),
        ("p999_ms", middle(&|figures| Some(figures.p999_ms))),
        ("rss_mib", middle(&|figures| figures.rss_mib)),
        ("spread", Some(spread)),
        ("stolen_ms", Some(most_stolen(figures))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

/// The middle one, or what is between both in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 0 => Some(f64::midpoint(values[middle - 1], values[middle])),
        _ => Some(values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_both() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn ratios_are_those_within_a_round() {
        let figures = |rps| Figures {
            rps,
            gb_s: 0.0,
            p50_ms: 0.0,
            p99_ms: 0.0,
            p999_ms: 0.0,
            cpu_s_per_gb: None,
            cpu_us_per_req: None,
            rss_mib: None,
            stolen_ms: 0.0,
        };
        let mut rounds = Rounds::default();
        // The machine is half as fast in the second round, for both.
        rounds.closed.insert(CLAVIGER.into(), vec![figures(90.0), figures(45.0), figures(95.0)]);
        rounds.closed.insert(NGINX.into(), vec![figures(100.0), figures(50.0), figures(100.0)]);
        assert_eq!(rounds.ratio(CLAVIGER, NGINX, |figures| Some(figures.rps)), Some(0.9));
        assert_eq!(rounds.ratio(CLAVIGER, NGINX, |figures| figures.cpu_s_per_gb), None);
    }
}
