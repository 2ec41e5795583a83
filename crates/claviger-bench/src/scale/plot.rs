//! Curves as pictures: one below the other the figures of a curve that are looked at, axes logarithmic.

use std::fmt::Write as _;

use super::curve::{Curve, Watched};

const WIDTH: f64 = 640.0;
const LEFT: f64 = 90.0;
const RIGHT: f64 = 180.0;
const PANEL_HEIGHT: f64 = 260.0;
const TOP: f64 = 40.0;
/// Of a panel, above and below what is drawn.
const ABOVE: f64 = 24.0;
const BELOW: f64 = 44.0;
const COLOURS: [&str; 6] = ["#b5541c", "#1c6bb5", "#3a8f3a", "#8a3ab5", "#888888", "#b51c6b"];

/// A logarithmic axis from one power of ten to another.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    low: f64,
    high: f64,
    begin: f64,
    len: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, begin: f64, len: f64) -> Option<Self> {
        let logs: Vec<f64> = values.filter(|value| *value > 0.0).map(f64::log10).collect();
        let low = logs.iter().copied().reduce(f64::min)?.floor();
        let high = logs.iter().copied().reduce(f64::max)?.ceil();
        Some(Self { low, high: high.max(low + 1.0), begin, len })
    }

    fn at(self, value: f64) -> f64 {
        self.begin + self.len * (value.log10() - self.low) / (self.high - self.low)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        std::iter::successors(Some(self.low), |power| Some(power + 1.0))
            .take_while(move |power| *power <= self.high)
            .map(|power| 10_f64.powf(power))
    }
}

/// One picture for one curve.
pub(super) fn svg(curve: &Curve) -> String {
    #[allow(clippy::cast_precision_loss, reason = "a few panels")]
    let height = TOP + PANEL_HEIGHT * curve.watched.len() as f64;
    let width = LEFT + WIDTH + RIGHT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{}</text>\n",
        curve.title
    );
    let mut top = TOP;
    for watched in &curve.watched {
        panel(&mut svg, curve, watched, top);
        top += PANEL_HEIGHT;
    }
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, curve: &Curve, watched: &Watched, top: f64) {
    let lines = curve.lines(watched.figure);
    let all = || lines.iter().flat_map(|(_, points)| points);
    let bottom = top + PANEL_HEIGHT - BELOW;
    let (Some(x), Some(y)) = (
        Axis::over(all().map(|(x, _)| *x), LEFT, WIDTH),
        Axis::over(all().map(|(_, y)| *y), bottom, ABOVE + top - bottom),
    ) else {
        let _ = writeln!(svg, "<text x=\"12\" y=\"{}\">{}: not measured</text>", top + 20.0, watched.label);
        return;
    };
    grid(svg, x, y, top + ABOVE, bottom);
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", top + 14.0, watched.label);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        LEFT + WIDTH,
        bottom + 32.0,
        curve.x_label
    );
    let mut label_y = top + ABOVE + 12.0;
    for (series, points) in &lines {
        // The same in every panel, whoever is missing there.
        let colour = COLOURS[curve.number_of(series) % COLOURS.len()];
        let places: Vec<(f64, f64)> = points
            .iter()
            .filter(|(px, py)| *px > 0.0 && *py > 0.0)
            .map(|(px, py)| (x.at(*px), y.at(*py)))
            .collect();
        let path: Vec<String> = places.iter().map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (px, py) in places {
            let _ = writeln!(svg, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{label_y}\" fill=\"{colour}\">{series}</text>",
            LEFT + WIDTH + 12.0
        );
        label_y += 16.0;
    }
}

fn grid(svg: &mut String, x: Axis, y: Axis, top: f64, bottom: f64) {
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            short(tick)
        );
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT + WIDTH,
            LEFT - 8.0,
            at + 4.0,
            short(tick)
        );
    }
}

/// 1,000 as 1 k, 10,000,000 as 10 M.
fn short(value: f64) -> String {
    let units = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match units.iter().find(|(unit, _)| value >= unit * 0.999) {
        Some((unit, letter)) => format!("{:.0}{letter}", value / unit),
        None => format!("{}", (value * 1e6).round() / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_factor_of_ten_is_as_long_as_every_other() {
        let axis = Axis::over([3.0, 20_000.0].into_iter(), 100.0, 500.0).unwrap();
        let ticks: Vec<f64> = axis.ticks().map(|tick| axis.at(tick).round()).collect();
        assert_eq!(ticks, [100.0, 200.0, 300.0, 400.0, 500.0, 600.0]);
        assert!(Axis::over([0.0].into_iter(), 0.0, 1.0).is_none());
    }

    #[test]
    fn every_series_is_drawn_and_named() {
        let svg = svg(&super::super::curve::tests::curve());
        assert_eq!(svg.matches("<polyline").count(), 3);
        assert_eq!(svg.matches("<circle").count(), 12);
        assert!(svg.contains(">direct</text>") && svg.contains(">names</text>"));
    }

    #[test]
    fn a_series_has_its_colour_in_every_panel() {
        let mut curve = super::super::curve::tests::curve();
        curve.add_figure("nginx", 1.0, "rss_mib", 5.0);
        curve.add_figure("nginx", 1.0, "p50_ms", 5.0);
        let svg = svg(&curve);
        let of_nginx = format!("fill=\"{}\">nginx</text>", COLOURS[2]);
        assert_eq!(svg.matches(&of_nginx).count(), 2);
    }

    #[test]
    fn numbers_are_short() {
        let short: Vec<String> = [0.01, 1.0, 100.0, 1e3, 1e5, 1e9].into_iter().map(short).collect();
        assert_eq!(short, ["0.01", "1", "100", "1 k", "100 k", "1 G"]);
    }
}
