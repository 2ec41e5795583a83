//! Tables in Markdown, as docs/performance.md has them.

use std::fmt::Write as _;

use serde_json::Value;

use super::Report;
use crate::contenders::{CLAVIGER, DIRECT};

/// All cases, then each contender's own figures.
pub(super) fn markdown(report: &Report) -> String {
    let all = report.to_json();
    let mut text = String::from(
        "| case | CPU/byte ÷ nginx | CPU/request ÷ nginx | requests/s ÷ nginx | requests/s ÷ direct | spread |\n\
         |---|---|---|---|---|---|\n",
    );
    for case in list(&all["cases"]) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            case["case"].as_str().unwrap_or(""),
            number(&case["cpu_per_byte_vs_nginx"], 2),
            number(&case["cpu_per_req_vs_nginx"], 2),
            number(&case["rps_vs_nginx"], 2),
            number(&case["rps_vs_direct"], 2),
            number(&case["spread"], 2),
        );
    }
    text.push_str(
        "\n| case | contender | GB/s | CPU s/GB | requests/s | CPU µs/request | p50 ms | p99 ms | p99.9 ms | RSS MiB |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for case in list(&all["cases"]) {
        for contender in &report.contenders {
            let figures = &case["contenders"][contender];
            if figures.is_null() {
                continue;
            }
            let columns = [
                ("gb_s", 3),
                ("cpu_s_per_gb", 3),
                ("rps", 0),
                ("cpu_us_per_req", 1),
                ("p50_ms", 2),
                ("p99_ms", 2),
                ("p999_ms", 2),
                ("rss_mib", 0),
            ];
            let cells: Vec<String> =
                columns.iter().map(|(name, digits)| number(&figures[*name], *digits)).collect();
            let name = case["case"].as_str().unwrap_or("");
            let _ = writeln!(text, "| {name} | {contender} | {} |", cells.join(" | "));
        }
    }
    half_load(&all, report, &mut text);
    for (contender, took) in &report.startup_ms {
        let _ = writeln!(text, "\n{contender} answers {took:.0} ms after its start.");
    }
    text
}

fn half_load(all: &Value, report: &Report, text: &mut String) {
    let is_measured = |case: &&Value| !case["half_load"].is_null();
    if !list(&all["cases"]).iter().any(|case| is_measured(&case)) {
        return;
    }
    let _ = write!(
        text,
        "\nAt half the load that {CLAVIGER} can take, how much of it is more than {DIRECT}, and how much processor time the \
         host took from this machine in one round at most:\n\n\
         | case | contender | requests/s | CPU µs/request | p50 ms | p99 ms | added p50 | added p99 | stolen ms |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    for case in list(&all["cases"]).iter().filter(is_measured) {
        for contender in &report.contenders {
            let figures = &case["half_load"][contender];
            let _ = writeln!(
                text,
                "| {} | {contender} | {} | {} | {} | {} | {} | {} | {} |",
                case["case"].as_str().unwrap_or(""),
                number(&figures["rps"], 0),
                number(&figures["cpu_us_per_req"], 1),
                number(&figures["p50_ms"], 2),
                number(&figures["p99_ms"], 2),
                number(&figures["added_p50_ms"], 2),
                number(&figures["added_p99_ms"], 2),
                number(&figures["stolen_ms"], 0),
            );
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
}
