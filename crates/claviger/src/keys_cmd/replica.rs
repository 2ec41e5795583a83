use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use claviger_keyapi::Id16;
use claviger_keyapi::admin::{self, ReplicaInfo};
use claviger_keyapi::proposals::{Action, ReplicaRequest};
use claviger_keyapi::routes::Empty;

use super::connection::Connection;
use super::{Operator, proposals};
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Propose that a replica joins the service; another operator approves
    ///
    /// `claviger keyservice join` on the replica's machine wrote the request. Compare the log's id that it
    /// showed there with the one that the proposal names: whoever runs a replica holds the service's master.
    #[command(verbatim_doc_comment)]
    Add(AddArguments),
    /// List the replicas, with the keys that an auditor needs: of their logs, and those with which they cosign
    List(Operator),
    /// Propose that a replica which is gone for good counts no more; another operator approves
    ///
    /// It never takes over again, and gateways believe its log no more. What it knew it knows: if its machine
    /// was stolen while it was unlocked, the thief has the service's master (docs/operations.md, "Compromise of
    /// the root").
    #[command(verbatim_doc_comment)]
    Remove(RemoveArguments),
}

#[derive(clap::Args)]
pub(super) struct AddArguments {
    /// The request
    request: PathBuf,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct RemoveArguments {
    /// Its name, or the id of its log
    replica: String,

    #[command(flatten)]
    operator: Operator,
}

pub(super) async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Add(arguments) => add(arguments).await,
        Command::List(operator) => list(&operator).await,
        Command::Remove(arguments) => remove(arguments).await,
    }
}

async fn add(arguments: AddArguments) -> Result<(), Exit> {
    let name = arguments.request.display();
    let bytes = std::fs::read(&arguments.request).with_context(|| name.to_string()).map_err(Exit::usage)?;
    let request: ReplicaRequest = serde_json::from_slice(&bytes)
        .with_context(|| format!("{name} is not what `claviger keyservice join` wrote"))
        .map_err(Exit::usage)?;
    proposals::propose(&arguments.operator, Action::AddReplica { request }).await.map(drop)
}

async fn list(operator: &Operator) -> Result<(), Exit> {
    for replica in replicas(operator).await? {
        let name = replica.name.as_deref().unwrap_or("(the first)");
        let serves = if replica.is_active { ", serves" } else { "" };
        say!("{name}: log {}{serves}", replica.log_id);
        say!("  log key      {}", replica.log_key);
        match replica.witness_key {
            Some(key) => say!("  witness key  {key}"),
            None => say!("  witness key  none yet: it gets one when it serves next"),
        }
    }
    Ok(())
}

async fn remove(arguments: RemoveArguments) -> Result<(), Exit> {
    let wanted = &arguments.replica;
    let is_wanted = |replica: &ReplicaInfo| {
        replica.name.as_ref() == Some(wanted) || Id16::from_hex(wanted) == Some(replica.log_id)
    };
    let found = replicas(&arguments.operator).await?.into_iter().find(is_wanted);
    let replica =
        found.ok_or_else(|| Exit::failed(anyhow!("no replica {wanted}: claviger keys replica list")))?;
    let action = Action::RemoveReplica { log_id: replica.log_id };
    proposals::propose(&arguments.operator, action).await.map(drop)
}

async fn replicas(operator: &Operator) -> Result<Vec<ReplicaInfo>, Exit> {
    Connection::open(operator)?.ask(admin::REPLICA_LIST, &Empty {}).await
}
