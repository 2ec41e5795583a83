//! `claviger gateway`: run a gateway, check its configuration, enrol it at the key service.

#![allow(clippy::print_stdout, reason = "the result of a check goes to standard output")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Subcommand;
use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::random::Random;
use claviger_gateway::Gateway;
use claviger_gateway::config::{Config, Severity};
use claviger_gateway::key_client::{self, KeyClient};
use claviger_gateway::metrics;
use claviger_gateway::profile::Profile;
use claviger_gateway::secret_file::read_secret_file;
use zeroize::Zeroizing;

use crate::exit::Exit;
use crate::hardening::{Memory, refuse_unlocked};
use crate::{serving, signals, store_kind};

/// Run the gateway: an S3 endpoint that seals what it stores
///
/// Set up once:
///   1. Write a configuration and access keys; deploy/gateway.toml and deploy/credentials.toml
///      show every setting.
///   2. At the key service, make a token that is good for one use: claviger keys --help
///   3. Here: claviger gateway enrol --token-file TOKEN --config gateway.toml
///   4. Here: claviger gateway --config gateway.toml --check
#[derive(clap::Args)]
#[command(verbatim_doc_comment, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,

    /// The configuration (TOML)
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,

    /// Open everything that the configuration names, say what is wrong, and end (exit code 2 if something is)
    #[arg(long)]
    check: bool,

    /// Don't start unless all memory can be locked, so that no key is ever swapped out
    #[arg(long)]
    require_locked_memory: bool,
}

#[derive(Subcommand)]
enum Action {
    Enrol(EnrolArguments),
}

/// Give this gateway its identity at the key service, with a token that is good for one use
///
/// The token holds the key service's address and the fingerprint of its authority: the gateway talks to no other. Its
/// private key is made here and never leaves the state folder.
#[derive(clap::Args)]
struct EnrolArguments {
    /// The token itself (other users of this machine can see it in the list of processes)
    #[arg(long, conflicts_with = "token_file", required_unless_present = "token_file")]
    token: Option<String>,

    /// File that holds the token, mode 0600
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The gateway's configuration, whose key_service.state_dir takes the identity
    #[arg(long, value_name = "FILE", conflicts_with = "state_dir", required_unless_present = "state_dir")]
    config: Option<PathBuf>,

    /// Folder that takes the identity
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a wrong configuration, 1 for what fails on the way.
pub(crate) async fn run(arguments: Arguments, memory: Memory) -> Result<(), Exit> {
    if let Some(Action::Enrol(enrol)) = arguments.action {
        return enrol_gateway(enrol).await;
    }
    let path = arguments.config.ok_or_else(|| Exit::usage(anyhow!("--config FILE is missing")))?;
    let config = load(&path)?;
    if arguments.check {
        return check(&config).await;
    }
    refuse_unlocked(&memory, arguments.require_locked_memory)?;
    serve(config).await
}

fn load(path: &Path) -> Result<Config, Exit> {
    Config::load(path).map_err(|error| Exit::usage(anyhow!("the configuration can't be used\n{error}")))
}

async fn check(config: &Config) -> Result<(), Exit> {
    let problems = config.check();
    for problem in &problems {
        println!("{problem}");
    }
    warn_of_another_kind(config).await;
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    if errors > 0 {
        return Err(Exit::usage(anyhow!(
            "{errors} of the {} findings keep the gateway from starting",
            problems.len()
        )));
    }
    println!("{}: can be used", config.source.display());
    Ok(())
}

/// The store itself may show that it is of another kind than the configuration says.
async fn warn_of_another_kind(config: &Config) {
    let said = Profile::of(config.upstream.profile);
    let Some(seen) = store_kind::ask(&config.upstream.endpoint).await.map(Profile::of) else { return };
    if seen.kind != said.kind {
        println!(
            "{}: warning: upstream.profile is \"{}\", but the store looks like {}\n    set profile = \"{}\" if it is",
            config.source.display(),
            said.name,
            seen.store,
            seen.name
        );
    }
}

/// What would keep the gateway from working is said before it starts, all of it at once.
fn refuse_problems(config: &Config) -> Result<(), Exit> {
    let (errors, warnings): (Vec<_>, Vec<_>) =
        config.check().into_iter().partition(|problem| problem.severity == Severity::Error);
    for warning in warnings {
        tracing::warn!(file = %warning.file.display(), line = warning.line, remedy = warning.remedy, "{}", warning.what);
    }
    if errors.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(Exit::usage(anyhow!("the configuration can't be used\n{}", list.join("\n"))))
}

async fn serve(config: Config) -> Result<(), Exit> {
    refuse_problems(&config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random = Arc::new(OsRandom::new(Arc::clone(&clock)).map_err(Exit::failed)?);
    let shutdown = signals::listen()?;
    if config.admin.is_some() {
        // Before anything is counted: what is recorded earlier is lost.
        metrics::install().map_err(Exit::failed)?;
    }
    let listener = serving::bind(config.listen, "S3 clients").await?;
    let keys = open_keys(&config, &clock)?;
    let renewal = tokio::spawn(Arc::clone(&keys).renewal());
    let gateway =
        Gateway::start(config.clone(), keys, Arc::clone(&clock), Arc::clone(&random) as Arc<dyn Random>)
            .await
            .map_err(Exit::usage)?;
    let address = listener.local_addr().map_err(Exit::failed)?;
    tracing::info!(%address, upstream = config.upstream.endpoint, "the gateway serves S3");
    serving::serve_gateway(gateway, &config, listener, clock, &*random, shutdown).await?;
    renewal.abort();
    Ok(())
}

fn open_keys(config: &Config, clock: &Arc<dyn Clock>) -> Result<Arc<KeyClient>, Exit> {
    let service = &config.key_service;
    KeyClient::open(&service.address(), &service.state_dir, Arc::clone(clock))
        .with_context(|| {
            format!(
                "the identity in {} can't be used; enrol this gateway first: claviger gateway enrol --help",
                service.state_dir.display()
            )
        })
        .map_err(Exit::usage)
}

async fn enrol_gateway(arguments: EnrolArguments) -> Result<(), Exit> {
    let token = match (arguments.token, arguments.token_file) {
        (Some(token), _) => Zeroizing::new(token),
        (None, Some(path)) => read_secret_file(&path).map_err(Exit::usage)?,
        (None, None) => return Err(Exit::usage(anyhow!("give --token-file FILE or --token TOKEN"))),
    };
    let state_dir = match (arguments.state_dir, arguments.config) {
        (Some(folder), _) => folder,
        (None, Some(config)) => load(&config)?.key_service.state_dir,
        (None, None) => return Err(Exit::usage(anyhow!("give --config FILE or --state-dir DIR"))),
    };
    key_client::enrol(token.trim(), &state_dir, Arc::new(SystemClock))
        .await
        .context("the gateway is not enrolled; a token is good for one use and at most an hour")?;
    println!("enrolled; the identity lies in {}", state_dir.display());
    Ok(())
}
