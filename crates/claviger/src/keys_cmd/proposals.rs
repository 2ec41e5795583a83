use std::path::PathBuf;

use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, Collected, ProposalInfo, ProposalList, ProposalRequest, ProposeRequest,
};
use claviger_keyapi::routes::Empty;
use claviger_keyservice::files::write_secret_new;

use super::Operator;
use super::connection::Connection;
use super::state::moment;
use crate::exit::Exit;

/// Do what another operator proposed
///
/// What matters takes two operators: enrolments, policies, unfreezing, the end of a quarantine. One proposes with
/// the natural command (claviger keys gateway enrol …) and gets an ID; another looks at it (claviger keys
/// proposals) and approves it. Both need the verb that it takes. Approving is done with an identity of
/// your own: nobody approves what he proposed himself, nor under another certificate of the same name.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ApproveArguments {
    /// The proposal's id
    id: String,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct WithdrawArguments {
    /// The proposal's id
    id: String,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct CollectArguments {
    /// The proposal's id
    id: String,

    /// New file that takes the enrolment token, mode 0600
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,

    #[command(flatten)]
    operator: Operator,
}

/// Proposes, and says what comes next.
pub(super) async fn propose(operator: &Operator, action: Action) -> Result<ProposalInfo, Exit> {
    let request = ProposeRequest { action, ttl_s: None };
    let proposal: ProposalInfo = Connection::open(operator)?.ask(proposals::PROPOSE, &request).await?;
    say!("Proposed as {}, until {}:", proposal.id, moment(proposal.expires_ms));
    for line in &proposal.words {
        say!("  {line}");
    }
    say!("Another operator: claviger keys approve {}", proposal.id);
    Ok(proposal)
}

pub(super) async fn approve(arguments: ApproveArguments) -> Result<(), Exit> {
    let request = ProposalRequest { id: arguments.id };
    let answer: ApproveAnswer =
        Connection::open(&arguments.operator)?.ask(proposals::APPROVE, &request).await?;
    for line in &answer.proposal.words {
        say!("  {line}");
    }
    if answer.done {
        say!("Done.");
    } else {
        say!("Approved. {} collects the result:", answer.proposal.proposer);
        say!("  claviger keys collect {} --token-file FILE", request.id);
    }
    Ok(())
}

pub(super) async fn withdraw(arguments: WithdrawArguments) -> Result<(), Exit> {
    let request = ProposalRequest { id: arguments.id };
    let _: Empty = Connection::open(&arguments.operator)?.ask(proposals::WITHDRAW, &request).await?;
    say!("{} is withdrawn.", request.id);
    Ok(())
}

pub(super) async fn collect(arguments: CollectArguments) -> Result<(), Exit> {
    let CollectArguments { id, token_file, operator } = arguments;
    if token_file.exists() {
        // Before asking: a result is handed out once.
        return Err(Exit::usage(anyhow::anyhow!("{} exists already", token_file.display())));
    }
    let Collected::EnrolToken(answer) =
        Connection::open(&operator)?.ask(proposals::COLLECT, &ProposalRequest { id }).await?;
    write_secret_new(&token_file, format!("{}\n", answer.token.expose()).as_bytes()).map_err(Exit::failed)?;
    say!("Token in {}, good once until {}", token_file.display(), moment(answer.expires_ms));
    say!("A gateway: claviger gateway enrol --token-file FILE --config gateway.toml");
    say!("An operator: claviger keys operator accept --token-file FILE --identity DIR");
    Ok(())
}

pub(super) async fn list(operator: &Operator) -> Result<(), Exit> {
    let answer: ProposalList = Connection::open(operator)?.ask(proposals::PROPOSAL_LIST, &Empty {}).await?;
    if answer.proposals.is_empty() {
        say!("No proposal stands.");
    }
    for proposal in answer.proposals {
        let state = proposal.approver.as_ref().map_or_else(
            || "waits for another operator".to_owned(),
            |approver| format!("approved by {approver}, waits to be collected"),
        );
        say!("{}  by {}, until {}: {state}", proposal.id, proposal.proposer, moment(proposal.expires_ms));
        for line in proposal.words {
            say!("  {line}");
        }
    }
    Ok(())
}
