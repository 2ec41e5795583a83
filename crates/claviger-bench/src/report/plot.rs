//! One picture: for each case, Claviger by nginx, with a line where both are equal.

use std::fmt::Write as _;

use super::Report;
use crate::contenders::{CLAVIGER, NGINX};

const ROW_HEIGHT: usize = 44;
const LEFT: f64 = 220.0;
/// Of a ratio of 1.
const UNIT: f64 = 260.0;
const RATIO_MAX: f64 = 2.0;
const TOP: usize = 60;

/// Bars of processor time and of requests a second, as SVG.
pub(super) fn ratios(report: &Report) -> String {
    let height = TOP + ROW_HEIGHT * report.order.len() + 20;
    let width = LEFT + UNIT * RATIO_MAX + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{CLAVIGER} by {NGINX}, medians over the rounds</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#b5541c\">processor time per byte (per request for lists): less is better</text>\n\
         <text x=\"440\" y=\"44\" fill=\"#1c6bb5\">requests per second: more is better</text>\n"
    );
    for (row, name) in report.order.iter().enumerate() {
        let rounds = &report.cases[name];
        let y = TOP + ROW_HEIGHT * row;
        let _ = writeln!(svg, "<text x=\"12\" y=\"{}\">{name}</text>", y + 24);
        let per_byte = rounds.ratio(CLAVIGER, NGINX, |figures| figures.cpu_s_per_gb);
        let cpu = per_byte.or_else(|| rounds.ratio(CLAVIGER, NGINX, |figures| figures.cpu_us_per_req));
        let rate = rounds.ratio(CLAVIGER, NGINX, |figures| Some(figures.rps));
        bar(&mut svg, y + 6, cpu, "#b5541c");
        bar(&mut svg, y + 23, rate, "#1c6bb5");
    }
    let x = LEFT + UNIT;
    let _ = writeln!(
        svg,
        "<line x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\" stroke=\"#444\" stroke-dasharray=\"4 3\"/>",
        TOP,
        height - 20
    );
    svg.push_str("</svg>\n");
    svg
}

fn bar(svg: &mut String, y: usize, ratio: Option<f64>, colour: &str) {
    let Some(ratio) = ratio else {
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\" fill=\"#888\">not measured</text>", y + 12);
        return;
    };
    let len = UNIT * ratio.clamp(0.0, RATIO_MAX);
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{len:.1}\" height=\"14\" fill=\"{colour}\"/>\
         <text x=\"{:.1}\" y=\"{}\" fill=\"{colour}\">{ratio:.2}</text>",
        LEFT + len + 6.0,
        y + 12
    );
}
