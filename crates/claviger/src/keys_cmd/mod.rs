//! `claviger keys …`: make a key service, unlock it, enrol gateways, look at what it knows.

/// Writes a line to standard output. Whoever reads it may stop early (`| head`); that is no mistake.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod backup;
mod brakes;
mod buckets;
mod budgets;
mod connection;
mod disclose;
mod hsm;
mod init;
mod keyset;
mod people;
mod policy;
mod proposals;
mod replica;
mod revoke;
pub(crate) mod share;
mod shred;
mod state;

use std::path::PathBuf;

use clap::Subcommand;

use crate::exit::Exit;
pub(crate) use state::moment;

/// Make and operate a key service
///
/// A new service, on its machine:
///   claviger keys init --config keyservice.toml --policy policy.toml --recovery DIR \
///       --operator first=DIR --operator second=DIR
///   claviger keyservice --config keyservice.toml
///
/// A new gateway takes two operators. One proposes, another approves, the first collects the token,
/// carries it there, and it is used within the hour:
///   claviger keys gateway enrol main --keyset default
///   claviger keys approve ID
///   claviger keys collect ID --token-file FILE
///   claviger gateway enrol --token-file FILE --config gateway.toml
///
/// Every command but init, restore, share and hsm speaks to the service over mutual TLS, as the operator whose identity
/// lies in --identity. What an operator may do stands in the service's policy.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Arguments),
    Unlock(state::UnlockArguments),
    UnlockChange(state::UnlockChangeArguments),
    /// Lock the service: every key is wiped from its memory, and nothing is released until it is unlocked
    Lock(Operator),
    /// Whether the service is unlocked, what is wrong with it, and what it holds
    Status(Operator),
    Backup(backup::BackupArguments),
    Restore(backup::RestoreArguments),
    /// Keysets: the roots that buckets are sealed under
    #[command(subcommand)]
    Keyset(keyset::Command),
    #[command(subcommand)]
    Shred(shred::Command),
    /// Shares on paper: check them, print them; offline, without a service
    #[command(subcommand)]
    Share(share::Command),
    /// The HSM that unlocks a service; on the service's machine
    #[command(subcommand)]
    Hsm(hsm::Command),
    /// Gateways: enrol, revoke, list
    #[command(subcommand)]
    Gateway(people::GatewayCommand),
    /// Operators: enrol, revoke, accept an enrolment
    #[command(subcommand)]
    Operator(people::OperatorCommand),
    /// The epoch registry
    #[command(subcommand)]
    Epochs(state::EpochsCommand),
    /// Buckets that are bound to keysets: list them, unbind those that no gateway unbinds
    #[command(subcommand)]
    Buckets(buckets::Command),
    /// The policy: show, propose, check, test, explain
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Replicas of the service: accept one that wants to join, list them, remove one that is gone
    #[command(subcommand)]
    Replica(replica::Command),
    /// What operators have proposed, and what it would do
    Proposals(Operator),
    Approve(proposals::ApproveArguments),
    /// Take the result of a proposal of yours that was approved, once
    Collect(proposals::CollectArguments),
    /// Take a proposal away
    Withdraw(proposals::WithdrawArguments),
    Disclose(disclose::DiscloseArguments),
    Freeze(brakes::FreezeArguments),
    Unfreeze(brakes::UnfreezeArguments),
    /// Budgets: how much gateways have opened, and how much they may
    #[command(subcommand)]
    Budgets(budgets::Command),
    /// The audit log
    #[command(subcommand)]
    Audit(state::AuditCommand),
}

/// Who asks, and where.
#[derive(clap::Args)]
pub(crate) struct Operator {
    /// Folder of the operator's identity (private key and certificate), written by `keys init` or `keys operator accept`
    #[arg(long, value_name = "DIR", env = "CLAVIGER_OPERATOR")]
    identity: PathBuf,

    /// The service's host:port, or unix:PATH for its admin_socket, if it is not the one that the identity was made with
    #[arg(long, value_name = "HOST:PORT|unix:PATH", default_value = "", hide_default_value = true)]
    address: String,
}

/// Runs the command.
///
/// # Errors
/// Exit code 2 for wrong usage, 1 for what fails or is refused.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Exit> {
    match arguments.command {
        Command::Init(arguments) => init::run(arguments).await,
        Command::Unlock(arguments) => state::unlock(arguments).await,
        Command::UnlockChange(arguments) => state::change_unlock(arguments).await,
        Command::Lock(operator) => state::lock(&operator).await,
        Command::Status(operator) => state::status(&operator).await,
        Command::Backup(arguments) => backup::backup(arguments).await,
        Command::Restore(arguments) => backup::restore(arguments).await,
        Command::Keyset(command) => keyset::run(command).await,
        Command::Hsm(command) => hsm::run(command),
        Command::Shred(command) => shred::run(command).await,
        Command::Share(command) => share::run(command),
        Command::Gateway(command) => people::run_gateway(command).await,
        Command::Operator(command) => people::run_operator(command).await,
        Command::Epochs(command) => state::epochs(command).await,
        Command::Buckets(command) => buckets::run(command).await,
        Command::Policy(command) => policy::run(command).await,
        Command::Replica(command) => replica::run(command).await,
        Command::Proposals(operator) => proposals::list(&operator).await,
        Command::Approve(arguments) => proposals::approve(arguments).await,
        Command::Collect(arguments) => proposals::collect(arguments).await,
        Command::Withdraw(arguments) => proposals::withdraw(arguments).await,
        Command::Disclose(arguments) => Box::pin(disclose::run(arguments)).await,
        Command::Freeze(arguments) => brakes::freeze(arguments).await,
        Command::Unfreeze(arguments) => brakes::unfreeze(arguments).await,
        Command::Budgets(command) => budgets::run(command).await,
        Command::Audit(command) => state::audit(command).await,
    }
}
