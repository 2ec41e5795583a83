use std::path::PathBuf;

use anyhow::Context as _;
use claviger_keyapi::Identity;
use claviger_keyapi::admin::{self, PolicyInForce};
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::Empty;
use claviger_keyservice::policy::{Policy, Question};

use super::Operator;
use super::connection::Connection;
use super::proposals::propose;
use super::state::moment;
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum PolicyCommand {
    /// The policy in force, as it was written: to a file with `> policy.toml`
    Show(Operator),
    /// Propose another policy; it counts once another operator has approved it
    Propose {
        /// The file
        file: PathBuf,

        #[command(flatten)]
        operator: Operator,
    },
    /// Look for mistakes in a policy file, on this machine
    Check {
        /// The file
        file: PathBuf,
    },
    Test(TestArguments),
    Explain(ExplainArguments),
}

/// Hold a policy file against expectations, on this machine: exit code 1 if it does not meet one
///
/// The expectations are a file of tables, as many as you like:
///
///     [[expect]]
///     identity = "gateway:camera"
///     verb = "read"
///     keyset = "default"
///     bucket = "photos"
///     key = "2026/01.jpg"
///     allow = false
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct TestArguments {
    /// The policy
    file: PathBuf,

    /// The expectations
    expectations: PathBuf,
}

/// Say whether a policy file grants something, by which line, or why not, on this machine
#[derive(clap::Args)]
pub(super) struct ExplainArguments {
    /// The policy
    file: PathBuf,

    /// Who: gateway:NAME or admin:NAME
    #[arg(long, value_name = "NAME")]
    identity: Identity,

    /// What: a verb as it stands in policy files
    #[arg(long, value_name = "VERB")]
    verb: String,

    /// In which keyset; not for operators
    #[arg(long, value_name = "NAME")]
    keyset: Option<String>,

    /// In which bucket; all of the keyset if it is left out
    #[arg(long, value_name = "NAME")]
    bucket: Option<String>,

    /// Of which object
    #[arg(long, value_name = "KEY", requires = "bucket")]
    key: Option<String>,
}

pub(super) async fn run(command: PolicyCommand) -> Result<(), Exit> {
    match command {
        PolicyCommand::Show(operator) => show(&operator).await,
        PolicyCommand::Propose { file, operator } => {
            Policy::load(&file).map_err(Exit::usage)?;
            let text = read(&file)?;
            propose(&operator, Action::Policy { text }).await.map(drop)
        }
        PolicyCommand::Check { file } => {
            let policy = Policy::load(&file).map_err(Exit::usage)?;
            say!("{}: {} grants, no mistakes", file.display(), policy.grants());
            Ok(())
        }
        PolicyCommand::Test(arguments) => test(&arguments),
        PolicyCommand::Explain(arguments) => explain(arguments),
    }
}

fn read(file: &PathBuf) -> Result<String, Exit> {
    std::fs::read_to_string(file)
        .with_context(|| format!("can't read {}", file.display()))
        .map_err(Exit::usage)
}

async fn show(operator: &Operator) -> Result<(), Exit> {
    let policy: PolicyInForce = Connection::open(operator)?.ask(admin::POLICY_SHOW, &Empty {}).await?;
    say!("# sha256 {}, in force since {}", policy.sha256, moment(policy.since_ms));
    if let (Some(proposer), Some(approver)) = (&policy.proposer, &policy.approver) {
        say!("# proposed by {proposer}, approved by {approver}");
    }
    for warning in &policy.warnings {
        say!("# warning: {warning}");
    }
    say!("{}", policy.text.trim_end());
    Ok(())
}

fn test(arguments: &TestArguments) -> Result<(), Exit> {
    let policy = Policy::load(&arguments.file).map_err(Exit::usage)?;
    let text = read(&arguments.expectations)?;
    let report = policy.test(&arguments.expectations, &text).map_err(Exit::usage)?;
    for failure in &report.failures {
        say!("{failure}");
    }
    if report.failures.is_empty() {
        say!("{} expectations, all met", report.expectations);
        return Ok(());
    }
    let count = report.failures.len();
    Err(Exit::failed(anyhow::anyhow!("{count} of {} expectations are not met", report.expectations)))
}

fn explain(arguments: ExplainArguments) -> Result<(), Exit> {
    let policy = Policy::load(&arguments.file).map_err(Exit::usage)?;
    let ExplainArguments { identity, verb, keyset, bucket, key, .. } = arguments;
    let decision = policy.explain(&Question { identity, verb, keyset, bucket, key }).map_err(Exit::usage)?;
    say!("{}", if decision.allowed { "granted" } else { "denied" });
    for line in decision.because {
        say!("  {line}");
    }
    Ok(())
}
