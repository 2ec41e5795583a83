use std::path::{Path, PathBuf};

use anyhow::anyhow;
use claviger_keyapi::Id16;
use claviger_keyapi::admin::{self, EnrolTokenAnswer, KeysetList};
use claviger_keyapi::proposals::{
    self, Action, ApproveAnswer, Collected, ConfirmRequest, ProposalInfo, ProposalList, ProposalRequest,
    ProposeRequest, UnlockSecrets,
};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyservice::custody::paper::{self, Form, Sheet};
use claviger_keyservice::custody::shamir::Share;
use claviger_keyservice::files::{private_folder, read_secret, write_secret_new};

use super::connection::Connection;
use super::state::moment;
use super::{Operator, disclose};
use crate::exit::Exit;

/// Do what another operator proposed
///
/// What matters takes two operators: enrolments, policies, unfreezing, the end of a quarantine, the key
/// of an object. One proposes with the natural command (claviger keys gateway enrol …) and gets an ID;
/// another looks at it (claviger keys proposals) and approves it. Both need the verb that it takes. Approving is done with an identity of
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

    /// Of an enrolment: new file that takes the token, mode 0600
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Of shares, or of what unlocks the service: folder that takes new files; best on a disk in memory, such as /dev/shm.
    /// They are read back, and only then they count
    #[arg(long, value_name = "DIR", conflicts_with = "token_file")]
    to: Option<PathBuf>,

    /// Of the key of one object: new file that takes it, mode 0600
    #[arg(long, value_name = "FILE", conflicts_with_all = ["token_file", "to"])]
    key_file: Option<PathBuf>,

    /// How shares are written: text, png, pdf; several with commas
    #[arg(long, value_name = "FORM", value_delimiter = ',', default_value = "text")]
    shares_format: Vec<Form>,

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
        say!("  claviger keys collect {} {}", request.id, place_for(&answer.proposal.action));
    }
    Ok(())
}

pub(super) async fn withdraw(arguments: WithdrawArguments) -> Result<(), Exit> {
    let request = ProposalRequest { id: arguments.id };
    let _: Empty = Connection::open(&arguments.operator)?.ask(proposals::WITHDRAW, &request).await?;
    say!("{} is withdrawn.", request.id);
    Ok(())
}

/// What the command that collects it needs.
fn place_for(action: &Action) -> &'static str {
    match action {
        Action::ChangeUnlock { .. } | Action::Reshare { .. } | Action::Rotate { .. } => "--to DIR",
        Action::Disclose { .. } => "--key-file FILE",
        _ => "--token-file FILE",
    }
}

pub(super) async fn collect(arguments: CollectArguments) -> Result<(), Exit> {
    let connection = Connection::open(&arguments.operator)?;
    let CollectArguments { id, token_file, to, key_file, shares_format, .. } = arguments;
    // Before asking: a result is handed out once.
    let list: ProposalList = connection.ask(proposals::PROPOSAL_LIST, &Empty {}).await?;
    let proposal = list.proposals.iter().find(|proposal| proposal.id == id);
    let wanted = proposal.map_or("--token-file FILE", |proposal| place_for(&proposal.action));
    let request = ProposalRequest { id };
    if let ("--key-file FILE", Some(file)) = (wanted, &key_file) {
        return disclose::collect(&connection, &request, file).await;
    }
    match (wanted, token_file, to) {
        ("--to DIR", _, Some(folder)) => {
            private_folder(&folder).map_err(Exit::failed)?;
            let collected: Collected = connection.ask(proposals::COLLECT, &request).await?;
            keep(&connection, collected, request.id, (&folder, &shares_format)).await
        }
        ("--token-file FILE", Some(file), _) if file.exists() => {
            Err(Exit::usage(anyhow!("{} exists already", file.display())))
        }
        ("--token-file FILE", Some(file), _) => match connection.ask(proposals::COLLECT, &request).await? {
            Collected::EnrolToken(answer) => keep_token(&answer, &file),
            _ => Err(Exit::failed(anyhow!("it is no token; propose it again and collect it with --to DIR"))),
        },
        _ => Err(Exit::usage(anyhow!("this proposal is collected with {wanted}"))),
    }
}

fn keep_token(answer: &EnrolTokenAnswer, file: &Path) -> Result<(), Exit> {
    write_secret_new(file, format!("{}\n", answer.token.expose()).as_bytes()).map_err(Exit::failed)?;
    say!("Token in {}, good once until {}", file.display(), moment(answer.expires_ms));
    say!("A gateway: claviger gateway enrol --token-file FILE --config gateway.toml");
    say!("An operator: claviger keys operator accept --token-file FILE --identity DIR");
    Ok(())
}

/// Writes the new secret down, reads it back and confirms it.
async fn keep(
    connection: &Connection,
    collected: Collected,
    id: String,
    (folder, forms): (&Path, &[Form]),
) -> Result<(), Exit> {
    let (owner, texts) = match collected {
        Collected::UnlockSecrets(UnlockSecrets { service, secrets }) => (service, secrets),
        Collected::Shares(shares) => (keyset_name(connection, shares.keyset_id).await?, shares.shares),
        Collected::EnrolToken(_) | Collected::ObjectKey(_) => {
            return Err(Exit::failed(anyhow!(
                "it is something else, and was handed out now; propose it again"
            )));
        }
    };
    let mut read_back = Vec::new();
    for text in &texts {
        read_back.push(write_down(text, &owner, folder, forms)?);
    }
    let _: Empty = connection.ask(proposals::CONFIRM, &ConfirmRequest { id, secrets: read_back }).await?;
    say!(
        "Written, read back and in force. Give each share to another person, offline, then empty the folder."
    );
    say!(
        "What was replaced: shares of the root open it as before until they are destroyed; what unlocked the service"
    );
    say!(
        "opens older copies of its database. If the method changed, change `unlock` in its configuration as well."
    );
    Ok(())
}

async fn keyset_name(connection: &Connection, id: Id16) -> Result<String, Exit> {
    let list: KeysetList = connection.ask(admin::KEYSET_LIST, &Empty {}).await?;
    let keyset = list.keysets.into_iter().find(|keyset| keyset.keyset_id == id);
    Ok(keyset.map_or_else(|| id.to_string(), |keyset| keyset.name))
}

/// A passphrase goes into a file as it is, a share into one of each form. Returns what the files say.
fn write_down(text: &SecretText, owner: &str, folder: &Path, forms: &[Form]) -> Result<SecretText, Exit> {
    let Ok(share) = Share::parse(text.expose()) else {
        let path = folder.join("passphrase");
        write_secret_new(&path, format!("{}\n", text.expose()).as_bytes()).map_err(Exit::failed)?;
        say!("{}", path.display());
        let read = read_secret(&path).map_err(Exit::failed)?;
        return Ok(SecretText::new(read.trim().to_owned()));
    };
    let paths = Sheet::new(&share, owner).write(folder, forms).map_err(Exit::failed)?;
    let [first, ..] = paths.as_slice() else {
        return Err(Exit::usage(anyhow!("--shares-format names none")));
    };
    paths.iter().for_each(|path| say!("{}", path.display()));
    Ok(SecretText::new(paper::load(first).map_err(Exit::failed)?.to_line().to_string()))
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
