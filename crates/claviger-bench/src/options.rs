//! What to measure, and how long.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Measures Claviger beside nginx and beside the store itself.
#[derive(Parser)]
#[command(name = "claviger-bench", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Run the cases and write the report
    Run(Options),
    /// How cost grows with the size of objects, the number of connections, of names in a bucket and of epochs
    Scale(ScaleOptions),
    /// The null store: enough of S3, all in memory, as fast as can be
    Store(StoreOptions),
}

/// A run. Contenders take turns within each round, so that what the machine does meanwhile meets all of them; what is
/// reported are medians over the rounds, and ratios within one round.
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) who: Who,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Seconds of load per case, contender and round
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Rounds; at least three for a spread that says something
    #[arg(long, default_value_t = 5)]
    pub(crate) rounds: usize,
    /// Only cases whose names contain this (may be given several times)
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// Connections that ask at once
    #[arg(long, default_value_t = 8)]
    pub(crate) connections: usize,
    /// Where results.json, results.md and the plot go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

/// A store of the user's.
#[derive(Args, Default)]
pub(crate) struct Place {
    /// A further contender, which stands before the same store already: NAME=URL. To be put beside Claviger, another
    /// gateway is started by hand before the store of --store
    #[arg(long, value_name = "NAME=URL")]
    pub(crate) also: Vec<String>,
    /// A store of yours in place of the null store. Claviger and nginx are started before it; objects are written into
    /// --bucket under claviger-bench/ and deleted at the end
    #[arg(long, value_name = "URL", requires = "credentials")]
    pub(crate) store: Option<String>,
    /// The account at that store: ID:SECRET, or the name of a file that holds this one line
    #[arg(long, value_name = "ID:SECRET|FILE")]
    pub(crate) credentials: Option<String>,
    /// The region of that store
    #[arg(long, default_value = "us-east-1")]
    pub(crate) region: String,
    /// A bucket that exists at that store
    #[arg(long, default_value = "claviger-bench")]
    pub(crate) bucket: String,
}

/// Who is measured.
#[derive(Args)]
pub(crate) struct Who {
    /// The program that is measured
    #[arg(long, value_name = "FILE", default_value = "target/release/claviger")]
    pub(crate) claviger: PathBuf,
    /// Another build of Claviger in the same rounds, NAME=FILE: before a change and after it. Its processor time and memory are
    /// reported too
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) beside: Vec<String>,
    /// Leave nginx out, where it can't be installed; there are no ratios to it then
    #[arg(long)]
    pub(crate) without_nginx: bool,
    /// Where the null store keeps what is too large for memory (default: the system's folder for temporary files)
    #[arg(long, value_name = "DIR")]
    pub(crate) keep_dir: Option<PathBuf>,
}

/// A run of curves. Every point is a load of its own, in which the contenders take turns; a point's figures are medians over
/// the rounds. What each curve should look like, and what it looks like, is printed below it.
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct ScaleOptions {
    #[command(flatten)]
    pub(crate) who: Who,
    /// Only curves whose names contain this (may be given several times): put-by-size, get-by-size, range-by-size,
    /// get-by-connections, streams-256, list-by-names, walk-by-names, get-by-epochs
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// Seconds of load per point, contender and round; what takes longer once is done once
    #[arg(long, default_value_t = 2.0)]
    pub(crate) seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// The largest object: 1KiB to 50GiB. Above 5 GiB it is written in parts
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    pub(crate) size_max: u64,
    /// The largest object that is kept as a whole to be read again, in --keep-dir. Of larger ones the store keeps both ends of
    /// each part, from which ranges are read
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = size)]
    pub(crate) kept_max: u64,
    /// The most connections
    #[arg(long, default_value_t = 1_000)]
    pub(crate) connections_max: usize,
    /// Length of the objects of which 256 are read at once
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    pub(crate) stream_len: u64,
    /// Seconds for which they are read
    #[arg(long, default_value_t = 10.0)]
    pub(crate) stream_seconds: f64,
    /// The most names in a bucket
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) names_max: u64,
    /// The most epochs. Each is begun by a gateway that is started for it: 10,000 take a quarter of an hour
    #[arg(long, default_value_t = 1_000)]
    pub(crate) epochs_max: usize,
    /// Where scale.json, scale.md and the plots go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

/// A number of bytes: `4096`, `64KiB`, `1MiB`, `50GiB`.
fn size(text: &str) -> Result<u64, String> {
    let at = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let shift = match &text[at..] {
        "" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => return Err(format!("{other} is no unit; there are KiB, MiB and GiB")),
    };
    let number: u64 = text[..at].parse().map_err(|_| format!("{text} is no size; 4GiB is one"))?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).ok_or_else(|| format!("{text} is out of range"))
}

/// The null store.
#[derive(Args)]
pub(crate) struct StoreOptions {
    /// Where plain HTTP is served (port 0: a free one)
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) http: std::net::SocketAddr,
    /// Where HTTPS is served
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) https: std::net::SocketAddr,
    /// Folder with server.pem and server.key
    #[arg(long, value_name = "DIR")]
    pub(crate) tls: PathBuf,
    /// The two addresses are written here, a line each, when both are served
    #[arg(long, value_name = "FILE")]
    pub(crate) ready_file: PathBuf,
    /// Bytes a second that the store takes and gives on each connection, for objects under limited/; 0 is no limit
    #[arg(long, default_value_t = 0)]
    pub(crate) limit: u64,
    /// Folder of the objects that it keeps on disk (those under large/); they are gone when it ends
    #[arg(long, value_name = "DIR")]
    pub(crate) keep_dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("50GiB"), Ok(50 << 30));
        for wrong in ["", "GiB", "4GB", "-1KiB", "0", "99999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
