//! The `claviger` binary: gateway, key service, the tools around them, and a demonstration of all in one process.

#![allow(
    rustdoc::bare_urls,
    clippy::doc_lazy_continuation,
    reason = "the doc comments of arguments are the program's help text too"
)]

mod allocator;
mod audit_cmd;
mod demo;
mod exit;
mod gateway_cmd;
mod hardening;
mod keys_cmd;
mod keyservice_cmd;
mod logging;
mod peek;
mod recover;
mod s3_client;
mod serving;
mod signals;
mod store_kind;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Exit;
use hardening::Memory;
use logging::LogFormat;

/// Encrypts what a cloud object store keeps, with keys that only your key service holds.
///
/// S3 clients speak to the gateway as to any S3 store. The gateway seals every object before it
/// leaves and opens it on its way back: the store holds ciphertext, the keys stay with the key
/// service on your premises.
///
/// To see it work, on one machine and without any set-up:
///
///   claviger demo
#[derive(Parser)]
#[command(name = "claviger", version, max_term_width = 100, arg_required_else_help = true)]
#[command(verbatim_doc_comment)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Form of the log on standard error
    #[arg(long, value_enum, default_value = "auto", global = true, env = "CLAVIGER_LOG_FORMAT")]
    #[arg(help_heading = "Log", hide_possible_values = true, value_name = "auto|json|human")]
    log_format: LogFormat,

    /// What to log: error, warn, info, debug, trace, or a list like info,claviger_gateway=debug
    #[arg(long, global = true, env = "CLAVIGER_LOG", value_name = "FILTER", help_heading = "Log")]
    log: Option<String>,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Peek(peek::Arguments),
    Gateway(gateway_cmd::Arguments),
    Keyservice(keyservice_cmd::Arguments),
    Keys(keys_cmd::Arguments),
    Audit(audit_cmd::Arguments),
    Recover(recover::Arguments),
    Open(recover::open::Arguments),
}

impl Command {
    /// What talks to a person logs warnings only, unless told otherwise.
    fn log_default(&self) -> &'static str {
        match self {
            Self::Gateway(_) | Self::Keyservice(_) => "info",
            Self::Demo(_)
            | Self::Peek(_)
            | Self::Keys(_)
            | Self::Audit(_)
            | Self::Recover(_)
            | Self::Open(_) => "warn",
        }
    }

    /// The two services hold keys for as long as they run.
    fn is_service(&self) -> bool {
        matches!(self, Self::Gateway(_) | Self::Keyservice(_))
    }

    async fn run(self, memory: Memory) -> Result<(), Exit> {
        match self {
            Self::Demo(arguments) => Box::pin(demo::run(arguments)).await,
            Self::Peek(arguments) => peek::run(arguments).await,
            Self::Gateway(arguments) => gateway_cmd::run(arguments, memory).await,
            Self::Keyservice(arguments) => keyservice_cmd::run(arguments, memory).await,
            Self::Keys(arguments) => keys_cmd::run(arguments).await,
            Self::Audit(arguments) => Box::pin(audit_cmd::run(arguments)).await,
            Self::Recover(arguments) => Box::pin(recover::run(arguments)).await,
            Self::Open(arguments) => Box::pin(recover::open::run(arguments)).await,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = run(arguments);
    logging::flush();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => exit.report(),
    }
}

fn run(arguments: Arguments) -> Result<(), Exit> {
    // Every command handles secrets: shares, tokens, private keys.
    hardening::close_to_others().map_err(Exit::failed)?;
    let memory = if arguments.command.is_service() {
        // Before the threads are there: their stacks are memory too.
        hardening::lock_memory()
    } else {
        Memory::NotLocked(String::new())
    };
    let filter = arguments.log.as_deref().unwrap_or(arguments.command.log_default());
    let buffers = arguments.command.is_service();
    logging::init(arguments.log_format, filter, buffers).map_err(Exit::usage)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Exit::failed)?;
    runtime.block_on(arguments.command.run(memory))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_after_the_command_too() {
        let arguments = Arguments::try_parse_from(["claviger", "demo", "--log-format", "json"]).unwrap();
        assert_eq!(arguments.log_format, LogFormat::Json);
    }
}
