//! Curves: what was measured at which point, and what became of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::fit::{Fit, Shape};
use crate::report::{Figures, Measured, median};

/// A figure of a curve that is looked at: plotted, and a line laid through it.
pub(super) struct Watched {
    pub(super) figure: &'static str,
    /// On the axis, with its unit.
    pub(super) label: &'static str,
    pub(super) should: Shape,
    /// The line goes through points from here on; before, something else costs.
    pub(super) from: f64,
}

impl Watched {
    pub(super) fn new(figure: &'static str, label: &'static str, should: Shape) -> Self {
        Self { figure, label, should, from: 0.0 }
    }

    pub(super) fn from(self, from: f64) -> Self {
        Self { from, ..self }
    }
}

/// A number of things or bytes, on an axis.
#[allow(clippy::cast_precision_loss, reason = "counts on an axis")]
pub(super) const fn x(count: u64) -> f64 {
    count as f64
}

/// Figures by their names, one for each round.
type Rounds = BTreeMap<&'static str, Vec<f64>>;

/// One curve.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// On the axis, with its unit.
    pub(super) x_label: &'static str,
    pub(super) watched: Vec<Watched>,
    /// What a reader has to know.
    pub(super) notes: Vec<String>,
    series: Vec<(String, Vec<(f64, Rounds)>)>,
}

/// What a line through a series says.
pub(super) struct Verdict<'a> {
    pub(super) series: &'a str,
    pub(super) fit: Option<Fit>,
}

impl Curve {
    pub(super) fn new(
        name: &'static str,
        title: &'static str,
        x_label: &'static str,
        watched: Vec<Watched>,
    ) -> Self {
        Self { name, title, x_label, watched, notes: Vec::new(), series: Vec::new() }
    }

    /// The figures of one round at a point.
    pub(super) fn add(&mut self, series: &str, x: f64, measured: &Measured) {
        let figures = Figures::of(measured);
        let mut add = |name, value: Option<f64>| {
            if let Some(value) = value {
                self.add_figure(series, x, name, value);
            }
        };
        add("rps", Some(figures.rps));
        add("gb_s", Some(figures.gb_s).filter(|rate| *rate > 0.0));
        add("p50_ms", Some(figures.p50_ms));
        add("p99_ms", Some(figures.p99_ms));
        add("cpu_s_per_gb", figures.cpu_s_per_gb);
        add("cpu_us_per_req", figures.cpu_us_per_req);
        add("rss_mib", figures.rss_mib);
    }

    /// One figure of one round at a point.
    pub(super) fn add_figure(&mut self, series: &str, x: f64, name: &'static str, value: f64) {
        let at = match self.series.iter().position(|(other, _)| other == series) {
            Some(at) => at,
            None => {
                self.series.push((series.to_owned(), Vec::new()));
                self.series.len() - 1
            }
        };
        let points = &mut self.series[at].1;
        let at = match points.iter().position(|(other, _)| other.total_cmp(&x).is_eq()) {
            Some(at) => at,
            None => {
                points.push((x, Rounds::new()));
                points.sort_by(|(one, _), (other, _)| one.total_cmp(other));
                points.iter().position(|(other, _)| other.total_cmp(&x).is_eq()).unwrap_or(0)
            }
        };
        points[at].1.entry(name).or_default().push(value);
    }

    /// The medians of a figure, by series; without those that lack it.
    pub(super) fn lines(&self, figure: &str) -> Vec<(&str, Vec<(f64, f64)>)> {
        let lines = self.series.iter().map(|(series, points)| {
            let points =
                points.iter().filter_map(|(x, rounds)| Some((*x, median(rounds.get(figure)?.clone())?)));
            (series.as_str(), points.collect::<Vec<_>>())
        });
        lines.filter(|(_, points)| !points.is_empty()).collect()
    }

    /// Which one a series is, counted from when it was first measured.
    pub(super) fn number_of(&self, series: &str) -> usize {
        self.series.iter().position(|(name, _)| name == series).unwrap_or(0)
    }

    pub(super) fn verdicts(&self, watched: &Watched) -> Vec<Verdict<'_>> {
        let verdict = |(series, points): (_, Vec<(f64, f64)>)| {
            let points: Vec<_> = points.into_iter().filter(|(x, _)| *x >= watched.from).collect();
            Verdict { series, fit: Fit::of(&points) }
        };
        self.lines(watched.figure).into_iter().map(verdict).collect()
    }

    /// By series and point: the medians of all figures.
    pub(super) fn points(&self) -> Vec<(&str, f64, BTreeMap<&'static str, f64>)> {
        let of = |series: &'_ (String, Vec<(f64, Rounds)>)| {
            let medians = |rounds: &Rounds| {
                rounds.iter().filter_map(|(name, values)| Some((*name, median(values.clone())?))).collect()
            };
            series.1.iter().map(|(x, rounds)| (*x, medians(rounds))).collect::<Vec<_>>()
        };
        let all = self.series.iter().map(|series| (series.0.as_str(), of(series)));
        all.flat_map(|(name, points)| points.into_iter().map(move |(x, figures)| (name, x, figures)))
            .collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let points = self
            .points()
            .into_iter()
            .map(|(series, x, figures)| json!({ "series": series, "x": x, "figures": figures }));
        let watched = self.watched.iter().map(|watched| {
            let verdicts = self.verdicts(watched).into_iter().map(|Verdict { series, fit }| {
                json!({
                    "series": series,
                    "slope": fit.map(|fit| fit.slope),
                    "r2": fit.map(|fit| fit.r2),
                    "verdict": fit.map_or("too few points", Fit::verdict),
                    "as_it_should": fit.map(|fit| fit.is_as(watched.should)),
                })
            });
            json!({
                "figure": watched.figure,
                "should": watched.should.to_string(),
                "from": watched.from,
                "lines": verdicts.collect::<Vec<_>>(),
            })
        });
        json!({
            "curve": self.name,
            "x": self.x_label,
            "notes": self.notes,
            "points": points.collect::<Vec<_>>(),
            "watched": watched.collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::scale) fn curve() -> Curve {
        let watched = vec![
            Watched { figure: "p50_ms", label: "ms", should: Shape::Linear, from: 10.0 },
            Watched { figure: "rss_mib", label: "MiB", should: Shape::Flat, from: 0.0 },
        ];
        let mut curve = Curve::new("walk", "A walk", "names", watched);
        for x in [1000.0, 1.0, 10.0, 100.0] {
            for round in [0.9, 1.0, 3.0] {
                curve.add_figure("claviger", x, "p50_ms", round * f64::max(x, 10.0));
                curve.add_figure("claviger", x, "rss_mib", round * x * x);
                curve.add_figure("direct", x, "p50_ms", round * x * 0.5);
            }
        }
        curve
    }

    #[test]
    fn points_are_medians_in_the_order_of_the_axis() {
        let lines = curve().lines("p50_ms").into_iter().map(|(name, line)| (name.to_owned(), line)).collect();
        let expected: Vec<(String, Vec<(f64, f64)>)> = vec![
            ("claviger".into(), vec![(1.0, 10.0), (10.0, 10.0), (100.0, 100.0), (1000.0, 1000.0)]),
            ("direct".into(), vec![(1.0, 0.5), (10.0, 5.0), (100.0, 50.0), (1000.0, 500.0)]),
        ];
        let lines: Vec<(String, Vec<(f64, f64)>)> = lines;
        assert_eq!(lines, expected);
        // The store's memory was not looked at.
        assert_eq!(curve().lines("rss_mib").len(), 1);
    }

    #[test]
    fn lines_go_through_the_points_that_count() {
        let curve = curve();
        let verdicts = curve.verdicts(&curve.watched[0]);
        assert_eq!(verdicts[0].fit.unwrap().verdict(), "linear");
        let json = curve.to_json();
        assert_eq!(json["watched"][1]["lines"][0]["verdict"], "worse than linear");
        assert_eq!(json["watched"][1]["lines"][0]["as_it_should"], false);
        assert_eq!(json["points"][2]["figures"]["p50_ms"], 100.0);
    }
}
