//! Curves as tables in Markdown, each with what its lines say.

use std::fmt::Write as _;

use super::curve::{Curve, Verdict};

const COLUMNS: [(&str, &str, usize); 8] = [
    ("gb_s", "GB/s", 3),
    ("cpu_s_per_gb", "CPU s/GB", 3),
    ("rps", "requests/s", 1),
    ("cpu_us_per_req", "CPU µs/request", 1),
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("upstream_per_req", "store requests per request", 3),
    ("rss_mib", "RSS MiB", 1),
];

pub(super) fn markdown(curve: &Curve) -> String {
    let points = curve.points();
    let there = |name: &str| points.iter().any(|(_, _, figures)| figures.contains_key(name));
    let columns: Vec<_> = COLUMNS.iter().filter(|(name, ..)| there(name)).collect();
    let mut text = format!("### {} (`{}`)\n\n| {} | series |", curve.title, curve.name, curve.x_label);
    columns.iter().for_each(|(_, head, _)| text.push_str(&format!(" {head} |")));
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(columns.len()));
    for (series, x, figures) in &points {
        let _ = write!(text, "| {} | {series} |", grouped(*x));
        for (name, _, digits) in &columns {
            match figures.get(name) {
                Some(value) => drop(write!(text, " {value:.digits$} |")),
                None => text.push_str(" – |"),
            }
        }
        text.push('\n');
    }
    text.push('\n');
    for watched in &curve.watched {
        for Verdict { series, fit } in curve.verdicts(watched) {
            let (figure, should) = (watched.label, watched.should);
            let _ = match fit {
                Some(fit) => writeln!(
                    text,
                    "- {series}, {figure}: {} (slope {:.2}, R² {:.2}); should be {should}{}",
                    fit.verdict(),
                    fit.slope,
                    fit.r2,
                    if fit.is_as(should) { "" } else { ": **it is not**" },
                ),
                None => writeln!(text, "- {series}, {figure}: too few points; should be {should}"),
            };
        }
    }
    curve.notes.iter().for_each(|note| text.push_str(&format!("\n{note}\n")));
    text
}

/// 1,000,000; sizes in bytes with their unit would be two columns.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_as_it_should_be_is_said_loudly() {
        let text = markdown(&super::super::curve::tests::curve());
        assert!(text.contains(
            "- claviger, MiB: worse than linear (slope 2.00, R² 1.00); should be flat: **it is not**"
        ));
        assert!(text.contains("- claviger, ms: linear"));
        assert!(text.contains("| 1,000 | direct | 500.00 | – |"), "{text}");
    }
}
