//! `claviger keys buckets …`: what is bound, and its end where no gateway is there to do it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use anyhow::Context as _;
use claviger_keyapi::admin::{self, BindingInfo, BindingList, BindingListRequest};
use claviger_keyapi::proposals::{Action, BoundBucket, UNBIND_MAX};

use super::connection::Connection;
use super::state::moment;
use super::{Operator, proposals};
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Buckets that are bound: name, keyset, since when
    List(ListArguments),
    Unbind(UnbindArguments),
}

#[derive(clap::Args)]
pub(super) struct ListArguments {
    /// Only those of one keyset
    #[arg(long, value_name = "NAME")]
    keyset: Option<String>,

    #[command(flatten)]
    operator: Operator,
}

/// Propose to end the bindings of buckets; another operator approves it
///
/// For names that a stolen gateway took, or whose gateway is gone; else a gateway unbinds a bucket when a
/// client deletes it. Whatever lies in such a bucket is not opened any more under its name, for good.
/// Which names a gateway bound stands in the audit log: claviger audit search AUDIT --identity gateway:NAME
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct UnbindArguments {
    /// Names; `-` reads them from standard input, one a line. More than 200 become several proposals
    #[arg(required = true)]
    buckets: Vec<String>,

    #[command(flatten)]
    operator: Operator,
}

pub(super) async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::List(ListArguments { keyset, operator }) => {
            for bound in all(&operator, keyset).await? {
                say!("{}  keyset {}  since {}", bound.bucket, bound.keyset, moment(bound.created_ms));
            }
            Ok(())
        }
        Command::Unbind(arguments) => unbind(arguments).await,
    }
}

async fn unbind(arguments: UnbindArguments) -> Result<(), Exit> {
    let names = names(arguments.buckets)?;
    let bound: BTreeMap<String, String> = all(&arguments.operator, None)
        .await?
        .into_iter()
        .map(|bound| (bound.bucket, bound.bucket_id))
        .collect();
    let mut buckets = Vec::new();
    for bucket in names {
        let Some(bucket_id) = bound.get(&bucket).cloned() else {
            return Err(Exit::failed(anyhow::anyhow!(
                "no bucket {bucket} is bound: claviger keys buckets list"
            )));
        };
        buckets.push(BoundBucket { bucket, bucket_id });
    }
    for some in buckets.chunks(UNBIND_MAX) {
        proposals::propose(&arguments.operator, Action::Unbind { buckets: some.to_vec() }).await?;
    }
    Ok(())
}

fn names(given: Vec<String>) -> Result<BTreeSet<String>, Exit> {
    let mut names = BTreeSet::new();
    for name in given {
        if name != "-" {
            names.insert(name);
            continue;
        }
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("standard input").map_err(Exit::failed)?;
        names.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    Ok(names)
}

async fn all(operator: &Operator, keyset: Option<String>) -> Result<Vec<BindingInfo>, Exit> {
    let connection = Connection::open(operator)?;
    let mut request = BindingListRequest { keyset, after: None };
    let mut found = Vec::new();
    loop {
        let page: BindingList = connection.ask(admin::BINDING_LIST, &request).await?;
        found.extend(page.bindings);
        match found.last() {
            Some(last) if page.more => request.after = Some(last.bucket.clone()),
            _ => return Ok(found),
        }
    }
}
