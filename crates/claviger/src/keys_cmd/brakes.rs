use claviger_keyapi::admin;
use claviger_keyapi::proposals::{Action, FreezeRequest, FreezeTarget};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{Identity, Role};

use super::Operator;
use super::connection::Connection;
use super::proposals::propose;
use crate::exit::Exit;

/// Stop releasing keys at once: to a gateway, of a keyset, or all of them
///
/// One operator with the verb "freeze" suffices. Unfreezing takes two. Keys that were released stay
/// where they are until their lease ends. claviger keys status shows what is frozen.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct FreezeArguments {
    #[command(flatten)]
    target: Target,

    /// Why, for the log and the other operators
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,

    #[command(flatten)]
    operator: Operator,
}

/// Propose to release keys again; another operator approves it
#[derive(clap::Args)]
pub(super) struct UnfreezeArguments {
    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// Everything
    #[arg(long)]
    everything: bool,

    /// One keyset
    #[arg(long, value_name = "NAME")]
    keyset: Option<String>,

    /// One gateway
    #[arg(long, value_name = "NAME")]
    gateway: Option<String>,
}

impl Target {
    fn resolve(self) -> Result<FreezeTarget, Exit> {
        match (self.keyset, self.gateway) {
            (Some(name), _) => Ok(FreezeTarget::Keyset(name)),
            (None, Some(name)) => {
                Identity::new(Role::Gateway, &name).map(FreezeTarget::Identity).map_err(Exit::usage)
            }
            (None, None) => Ok(FreezeTarget::Everything),
        }
    }
}

pub(super) async fn freeze(arguments: FreezeArguments) -> Result<(), Exit> {
    let request = FreezeRequest { target: arguments.target.resolve()?, reason: arguments.reason };
    let _: Empty = Connection::open(&arguments.operator)?.ask(admin::FREEZE, &request).await?;
    say!(
        "{} is frozen: no key is released for it. Keys that are out stay good until their lease ends.",
        request.target
    );
    Ok(())
}

pub(super) async fn unfreeze(arguments: UnfreezeArguments) -> Result<(), Exit> {
    let target = arguments.target.resolve()?;
    propose(&arguments.operator, Action::Unfreeze { target }).await.map(drop)
}
