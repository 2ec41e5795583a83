//! `claviger keyservice`: run a key service, or check its configuration.

#![allow(clippy::print_stdout, reason = "the result of a check goes to standard output")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::random::Random;
use claviger_gateway::metrics;
use claviger_keyservice::files::read_secret;
use claviger_keyservice::join::{self, JoinOptions};
use claviger_keyservice::policy::Policy;
use claviger_keyservice::{Config, KeyService, Unlock, admin_listener};
use tokio::task::JoinHandle;

use crate::exit::Exit;
use crate::hardening::{Memory, refuse_unlocked};
use crate::serving;
use crate::signals::{self, Shutdown};

/// Run the key service: it holds the root keys, decides who may open what, and logs every release
///
/// Set up once:
///   1. Write a configuration and a policy; deploy/keyservice.toml and deploy/policy.toml show
///      every setting.
///   2. Make the service's secrets, the recovery shares and the first two operators:
///      claviger keys init --help
///   3. claviger keyservice --config keyservice.toml --check
///
/// Then operate it from anywhere with: claviger keys --help
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// The configuration (TOML)
    #[arg(long, value_name = "FILE", required = true)]
    config: Option<PathBuf>,

    /// Read the configuration and every file it names, say what is wrong, and end (exit code 2 if something is)
    #[arg(long)]
    check: bool,

    /// Don't start unless all memory can be locked, so that no key is ever swapped out
    #[arg(long)]
    require_locked_memory: bool,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a replica of a service that exists, on the machine where it is to run
    ///
    /// The configuration has a state_dir of its own and the service's [store.postgres]. What unlocks the
    /// service is needed here once: its passphrase file, its unlock shares, or its HSM. The request that
    /// is written takes two operators: claviger keys replica add REQUEST. Until then the replica releases nothing.
    #[command(verbatim_doc_comment)]
    Join(JoinArguments),
}

#[derive(clap::Args)]
struct JoinArguments {
    /// The replica's configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// The replica's name: a-z 0-9 - . _
    #[arg(long, value_name = "NAME")]
    name: String,

    /// File of an unlock share; several times
    #[arg(long = "share", value_name = "FILE")]
    shares: Vec<PathBuf>,

    /// New file that takes the request
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for a wrong configuration, 1 for what fails on the way.
pub(crate) async fn run(arguments: Arguments, memory: Memory) -> Result<(), Exit> {
    if let Some(Command::Join(arguments)) = arguments.command {
        return tokio::task::spawn_blocking(move || join(arguments)).await.map_err(Exit::failed)?;
    }
    let path = arguments.config.ok_or_else(|| Exit::usage(anyhow!("give --config FILE")))?;
    let config = Config::load(&path).map_err(Exit::usage)?;
    if arguments.check {
        return check(&path, &config);
    }
    refuse_unlocked(&memory, arguments.require_locked_memory)?;
    serve(config, &memory).await
}

fn join(arguments: JoinArguments) -> Result<(), Exit> {
    let config = Config::load(&arguments.config).map_err(Exit::usage)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(OsRandom::new(Arc::clone(&clock)).map_err(Exit::failed)?);
    let mut output = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&arguments.output)
        .with_context(|| arguments.output.display().to_string())
        .map_err(Exit::usage)?;
    let options = JoinOptions {
        name: arguments.name,
        share_files: arguments.shares,
        passphrase_file: config.passphrase_file.clone(),
    };
    let joined = join::join(&config, &options, &clock, &random).map_err(Exit::failed)?;
    let request = joined.request;
    serde_json::to_writer_pretty(&mut output, &request).map_err(Exit::failed)?;
    output.sync_all().map_err(Exit::failed)?;
    println!("{}: replica {} with log {}", arguments.output.display(), request.name, request.log_id);
    println!("  log key      {}", joined.log_key);
    println!("  witness key  {}", joined.witness_key);
    println!("Next, an operator: claviger keys replica add {}", arguments.output.display());
    Ok(())
}

fn check(path: &Path, config: &Config) -> Result<(), Exit> {
    if let Some(policy) = &config.policy {
        Policy::load(policy).map_err(Exit::usage)?;
    }
    if config.unlock == Unlock::PassphraseFile
        && let Some(passphrase) = &config.passphrase_file
        && passphrase.exists()
    {
        read_secret(passphrase).map_err(Exit::usage)?;
    }
    println!("{}: can be used", path.display());
    if !KeyService::is_initialised(config) {
        println!("{} holds no key service yet: claviger keys init --help", config.state_dir.display());
    }
    Ok(())
}

async fn serve(config: Config, memory: &Memory) -> Result<(), Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(OsRandom::new(Arc::clone(&clock)).map_err(Exit::failed)?);
    let shutdown = signals::listen()?;
    let listener = serving::bind(config.listen, "gateways and operators").await?;
    let opened = config.clone();
    let service = tokio::task::spawn_blocking(move || KeyService::open(opened, clock, random))
        .await
        .map_err(Exit::failed)?
        .map_err(Exit::usage)?;
    let admin = serve_admin(&service, &config, memory, &shutdown).await?;
    let (_, problems) = service.health();
    tracing::info!(address = %config.listen, ?problems, "the key service serves");
    service.serve(listener, shutdown.wait()).await.map_err(Exit::failed)?;
    if let Some(admin) = admin {
        admin.abort();
    }
    Ok(())
}

async fn serve_admin(
    service: &KeyService,
    config: &Config,
    memory: &Memory,
    shutdown: &Shutdown,
) -> Result<Option<JoinHandle<()>>, Exit> {
    let Some(address) = config.admin_listen else { return Ok(None) };
    if !address.ip().is_loopback() {
        return Err(Exit::usage(anyhow!("admin_listen must be a loopback address")));
    }
    let listener = serving::bind(address, "health and metrics").await?;
    let handle = metrics::install().context("metrics can't be set up")?;
    let render = Arc::new(move || handle.render());
    let (service, shutdown) = (service.clone(), shutdown.clone());
    let notes = memory.problem().map(str::to_owned).into_iter().collect();
    Ok(Some(tokio::spawn(admin_listener::serve(service, listener, render, notes, shutdown.wait()))))
}
