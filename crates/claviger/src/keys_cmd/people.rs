use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_env::SystemClock;
use claviger_gateway::key_client;
use claviger_keyapi::admin::{self, IdentityList};
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyapi::{Identity, Role};
use claviger_keyservice::ServiceError;
use claviger_keyservice::files::read_secret;

use super::Operator;
use super::connection::Connection;
use super::proposals::propose;
use super::revoke::{self, RevokeArguments};
use super::state::moment;
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum GatewayCommand {
    /// Propose a token for a gateway to enrol with: good once, for an hour at most from its collection
    Enrol(EnrolArguments),
    Revoke(RevokeArguments),
    /// Everyone who is or was enrolled
    List(Operator),
}

#[derive(clap::Subcommand)]
pub(super) enum OperatorCommand {
    /// Propose a token for another operator
    Enrol(OperatorEnrolArguments),
    /// Use such a token: the private key is made here
    Accept(AcceptArguments),
    /// End an operator's rights; the last one stays
    Revoke(NameArguments),
    Recover(RecoverArguments),
}

/// Enrol an operator with recovery shares, when two operators can't be found any more
///
/// Takes as many shares as open a keyset, any keyset of the service; whoever brings them can open
/// everything that was sealed under it anyway. Replaces who has the name. What he may do
/// stands in the policy: take a name that it knows. The service must be unlocked, and it writes this down.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RecoverArguments {
    /// Name; the policy calls him admin:NAME
    name: String,

    /// A share's file; several times
    #[arg(long, value_name = "FILE", required = true)]
    share: Vec<PathBuf>,

    /// The service's host:port
    #[arg(long, value_name = "HOST:PORT")]
    address: String,

    /// SHA-256 of the public key of the service's certificate authority, as `keys init` printed it
    #[arg(long, value_name = "HEX")]
    ca: String,

    /// New folder that takes the identity
    #[arg(long, value_name = "DIR", env = "CLAVIGER_OPERATOR")]
    identity: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct EnrolArguments {
    /// Name; the policy file calls it gateway:NAME
    name: String,

    /// Keyset that it may work in; several times for several
    #[arg(long, value_name = "NAME", required = true)]
    keyset: Vec<String>,

    #[command(flatten)]
    token: TokenArguments,
}

#[derive(clap::Args)]
pub(super) struct OperatorEnrolArguments {
    /// Name; the policy file calls him admin:NAME
    name: String,

    #[command(flatten)]
    token: TokenArguments,
}

#[derive(clap::Args)]
pub(super) struct TokenArguments {
    /// How long the token is good once it was collected, in seconds
    #[arg(long, value_name = "S", default_value_t = 3600)]
    ttl_s: u32,

    /// Replace someone of this name who is enrolled: he is revoked when the token is used
    #[arg(long)]
    replace: bool,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct NameArguments {
    /// Name, without gateway: or admin:
    pub(super) name: String,

    #[command(flatten)]
    pub(super) operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct AcceptArguments {
    /// The token's file, mode 0600
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,

    /// New folder that takes the identity
    #[arg(long, value_name = "DIR", env = "CLAVIGER_OPERATOR")]
    identity: PathBuf,
}

pub(super) async fn run_gateway(command: GatewayCommand) -> Result<(), Exit> {
    match command {
        GatewayCommand::Enrol(arguments) => {
            propose_token(Role::Gateway, &arguments.name, arguments.keyset, &arguments.token).await
        }
        GatewayCommand::Revoke(arguments) => Box::pin(revoke::gateway(arguments)).await,
        GatewayCommand::List(operator) => list(&operator).await,
    }
}

pub(super) async fn run_operator(command: OperatorCommand) -> Result<(), Exit> {
    match command {
        OperatorCommand::Enrol(arguments) => {
            propose_token(Role::Admin, &arguments.name, Vec::new(), &arguments.token).await
        }
        OperatorCommand::Accept(arguments) => accept(&arguments.token_file, &arguments.identity).await,
        OperatorCommand::Revoke(arguments) => revoke::operator(&arguments).await,
        OperatorCommand::Recover(arguments) => recover(arguments).await,
    }
}

async fn propose_token(
    role: Role,
    name: &str,
    keysets: Vec<String>,
    arguments: &TokenArguments,
) -> Result<(), Exit> {
    let identity = Identity::new(role, name).map_err(Exit::usage)?;
    let TokenArguments { ttl_s, replace, operator } = arguments;
    let action = Action::Enrol { identity, keysets, ttl_s: *ttl_s, replace: *replace };
    let proposal = propose(operator, action).await?;
    say!("Then you: claviger keys collect {} --token-file FILE", proposal.id);
    Ok(())
}

async fn recover(arguments: RecoverArguments) -> Result<(), Exit> {
    let identity = Identity::new(Role::Admin, &arguments.name).map_err(Exit::usage)?;
    let ca = arguments.ca.parse().map_err(Exit::usage)?;
    let shares = arguments
        .share
        .iter()
        .map(|path| Ok(SecretText::new(read_secret(path)?.to_string())))
        .collect::<Result<Vec<_>, ServiceError>>()
        .map_err(Exit::usage)?;
    let recovery = key_client::Recovery { address: arguments.address, ca, identity, shares };
    let stored = key_client::recover(recovery, &arguments.identity, Arc::new(SystemClock))
        .await
        .map_err(Exit::failed)?;
    say!("{} is enrolled; the identity lies in {}", stored.identity, arguments.identity.display());
    Ok(())
}

async fn accept(token_file: &Path, identity: &Path) -> Result<(), Exit> {
    let token = read_secret(token_file).map_err(Exit::usage)?;
    let stored = key_client::enrol_as(Role::Admin, &token, identity, Arc::new(SystemClock))
        .await
        .map_err(Exit::failed)?;
    say!("{} is enrolled; the identity lies in {}", stored.identity, identity.display());
    Ok(())
}

async fn list(operator: &Operator) -> Result<(), Exit> {
    let answer: IdentityList = Connection::open(operator)?.ask(admin::IDENTITY_LIST, &Empty {}).await?;
    for row in answer.identities {
        let state = row.revoked_ms.map_or_else(
            || format!("certificate until {}", moment(row.certificate_until_ms)),
            |revoked_ms| format!("revoked {}", moment(revoked_ms)),
        );
        say!("{}  {state}", row.identity);
        if row.identity.role() == Role::Gateway {
            say!("  id {}  keysets {}", row.gateway_id, row.keysets.join(", "));
        }
    }
    Ok(())
}
