//! The lying provider as a process, for tests in other languages. Takes commands on standard input, one a line, and answers
//! each with one line:
//!
//! ```text
//! honest                      ok
//! always LIE TEXT             ok            this lie about every request whose path contains TEXT
//! once LIE TEXT N             ok            this lie once, after N others that it fits
//! reads SEED PERCENT          ok            any lie about reads at some percent of them
//! faults SEED PERCENT         ok            any fault at some percent of the writes
//! told                        N             how many lies were told so far
//! lies                        NAME NAME …   all lies about reads
//! received FILE               N             writes all that arrived so far to FILE
//! ```
//!
//! The first line that it prints is its endpoint. It ends with its standard input.
#![allow(clippy::print_stdout, reason = "that is how it talks")]

use std::io::BufRead as _;

use claviger_testkit::liar::{Lie, LyingProvider, READ_LIES, Script};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let liar = LyingProvider::start().await?;
    println!("{}", liar.endpoint());
    let (lines, mut asked) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = asked.recv().await {
        match obey(&liar, &line) {
            Some(answer) => println!("{answer}"),
            None => println!("what? {line}"),
        }
    }
    liar.stop().await;
    Ok(())
}

fn obey(liar: &LyingProvider, line: &str) -> Option<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let script = match *words.as_slice() {
        ["honest"] => Script::Honest,
        ["always", lie, text] => Script::Always(Lie::named(lie)?, text.to_owned()),
        ["once", lie, text, after] => {
            Script::Once { lie: Lie::named(lie)?, path: text.to_owned(), after: after.parse().ok()? }
        }
        ["reads", seed, percent] => Script::seeded_reads(seed.parse().ok()?, percent.parse().ok()?),
        ["faults", seed, percent] => Script::seeded_faults(seed.parse().ok()?, percent.parse().ok()?),
        ["told"] => return Some(liar.told().len().to_string()),
        ["lies"] => return Some(READ_LIES.map(|lie| format!("{lie:?}")).join(" ")),
        ["received", file] => {
            let received = liar.received();
            std::fs::write(file, &received).ok()?;
            return Some(received.len().to_string());
        }
        _ => return None,
    };
    liar.tell(script);
    Some("ok".to_owned())
}
