use std::path::PathBuf;

use anyhow::Context as _;
use claviger_keyapi::proposals::{Action, ReplicaRequest};

use super::{Operator, proposals};
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Propose that a replica joins the service; another operator approves
    ///
    /// `claviger keyservice join` on the replica's machine wrote the request. Compare the log's key that it
    /// showed there with the one that the proposal names: whoever runs a replica holds the service's master.
    #[command(verbatim_doc_comment)]
    Add(AddArguments),
}

#[derive(clap::Args)]
pub(super) struct AddArguments {
    /// The request
    request: PathBuf,

    #[command(flatten)]
    operator: Operator,
}

pub(super) async fn run(command: Command) -> Result<(), Exit> {
    let Command::Add(arguments) = command;
    let name = arguments.request.display();
    let bytes = std::fs::read(&arguments.request).with_context(|| name.to_string()).map_err(Exit::usage)?;
    let request: ReplicaRequest = serde_json::from_slice(&bytes)
        .with_context(|| format!("{name} is not what `claviger keyservice join` wrote"))
        .map_err(Exit::usage)?;
    proposals::propose(&arguments.operator, Action::AddReplica { request }).await.map(drop)
}
