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
    /// The null store: enough of S3, all in memory, as fast as can be
    Store(StoreOptions),
}

/// A run. Contenders take turns within each round, so that what the machine does meanwhile meets all of them; what is
/// reported are medians over the rounds, and ratios within one round.
#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Options {
    /// The program that is measured
    #[arg(long, value_name = "FILE", default_value = "target/release/claviger")]
    pub(crate) claviger: PathBuf,
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
    /// Leave nginx out, where it can't be installed; there are no ratios to it then
    #[arg(long)]
    pub(crate) without_nginx: bool,
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
}
