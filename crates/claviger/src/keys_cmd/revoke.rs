use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use claviger_audit::VerifierKey;
use claviger_keyapi::admin::{self, IdentityList, LogLeases, ReplicaInfo, RevokeAnswer, RevokeRequest};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{Id16, Identity, Role};
use claviger_keyservice::leases::read_copy;

use super::connection::Connection;
use super::people::NameArguments;
use super::state::{moment, unix_ms};
use crate::exit::Exit;

/// End a gateway's rights: it gets no keys any more, and what it sealed unregistered stays closed
///
/// If it was stolen say since when: whatever it sealed or leased since then could hold forged objects, and goes into
/// quarantine, until two operators accept it (claviger keys epochs --help).
///
/// What it leased stands in the log of the replica that served then. With several replicas, and unless the one that serves
/// has served without a break since that time, bring the others' logs: a copy of each one's audit folder, or the folder
/// itself, made after it served last. They are verified and read here. Without all of them EVERY epoch of the gateway's
/// keysets goes into quarantine, so that none of their objects opens: nobody can tell which of them it had. Freezing the
/// keysets meanwhile (claviger keys freeze --keyset NAME) is as good, and undone at once; a quarantine ends epoch by epoch.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RevokeArguments {
    #[command(flatten)]
    name: NameArguments,

    /// It was stolen: since when, as 2026-01-31T12:00:00Z. Can be said later, and again with an earlier time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,

    /// The audit folder of another replica, or a copy of it; several times for several
    #[arg(long, value_name = "DIR", requires = "since")]
    audit_folder: Vec<PathBuf>,
}

pub(super) async fn gateway(arguments: RevokeArguments) -> Result<(), Exit> {
    let RevokeArguments { name, since, audit_folder } = arguments;
    let since_ms = since.map(|text| unix_ms(&text)).transpose()?;
    revoke(Role::Gateway, &name, since_ms, &audit_folder).await
}

pub(super) async fn operator(arguments: &NameArguments) -> Result<(), Exit> {
    revoke(Role::Admin, arguments, None, &[]).await
}

async fn revoke(
    role: Role,
    arguments: &NameArguments,
    since_ms: Option<u64>,
    folders: &[PathBuf],
) -> Result<(), Exit> {
    let identity = Identity::new(role, &arguments.name).map_err(Exit::usage)?;
    let connection = Connection::open(&arguments.operator)?;
    let logs = match since_ms {
        Some(since_ms) if !folders.is_empty() => read(&connection, folders, &identity, since_ms).await?,
        _ => Vec::new(),
    };
    let request = RevokeRequest { identity, since_ms, logs };
    let answer: RevokeAnswer = connection.ask(admin::REVOKE, &request).await?;
    say!("{} is revoked. Keys that it holds already stay with it until their lease ends.", request.identity);
    if since_ms.is_none() {
        return Ok(());
    }
    say!("{} epochs are in quarantine: claviger keys epochs quarantine", answer.quarantined);
    say!("What it leased is read from the log of: {}", answer.read.join(", "));
    if !answer.unread.is_empty() {
        say!(
            "NOT READ: the log of {}. So ALL epochs of its keysets are in quarantine, leased or not. With the logs of all replicas \
             (--audit-folder) another time would be exact; what is in quarantine is accepted by two operators, once you know \
             what it leased there (claviger audit search AUDIT --identity {} --action lease)",
            answer.unread.join(", "),
            request.identity
        );
    }
    Ok(())
}

/// What these copies tell, and up to when.
async fn read(
    connection: &Connection,
    folders: &[PathBuf],
    identity: &Identity,
    since_ms: u64,
) -> Result<Vec<LogLeases>, Exit> {
    let replicas: Vec<ReplicaInfo> = connection.ask(admin::REPLICA_LIST, &Empty {}).await?;
    let keys: Result<Vec<VerifierKey>, _> = replicas.iter().map(|replica| replica.log_key.parse()).collect();
    let keys = keys.context("the replicas' keys").map_err(Exit::failed)?;
    let known: IdentityList = connection.ask(admin::IDENTITY_LIST, &Empty {}).await?;
    let of_name = known.identities.iter().filter(|known| known.identity == *identity);
    let gateways: Vec<Id16> = of_name.map(|known| known.gateway_id).collect();
    let mut told = Vec::new();
    for folder in folders {
        let (leases, until_ms) = read_one(folder, &keys, (identity, &gateways), since_ms)?;
        say!("{}: verified; its last record is of {}", folder.display(), moment(until_ms));
        told.push(leases);
    }
    Ok(told)
}

fn read_one(
    folder: &Path,
    keys: &[VerifierKey],
    who: (&Identity, &[Id16]),
    since_ms: u64,
) -> Result<(LogLeases, u64), Exit> {
    read_copy(folder, keys, who, since_ms)
        .map_err(|error| Exit::failed(anyhow!("{}: {error}; nothing was done", folder.display())))
}
