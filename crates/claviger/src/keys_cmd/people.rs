use std::path::{Path, PathBuf};
use std::sync::Arc;

use claviger_env::SystemClock;
use claviger_gateway::key_client;
use claviger_keyapi::admin::{self, EnrolTokenAnswer, EnrolTokenRequest, IdentityList, RevokeRequest};
use claviger_keyapi::routes::Empty;
use claviger_keyapi::{Identity, Role};
use claviger_keyservice::files::{read_secret, write_secret_new};

use super::Operator;
use super::connection::Connection;
use super::state::moment;
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum GatewayCommand {
    /// Make a token for a gateway to enrol with: good once, for an hour at most
    Enrol(EnrolArguments),
    /// End a gateway's rights: it gets no keys any more, and what it sealed unregistered stays closed
    Revoke(NameArguments),
    /// Everyone who is or was enrolled
    List(Operator),
}

#[derive(clap::Subcommand)]
pub(super) enum OperatorCommand {
    /// Make a token for another operator
    Enrol(OperatorEnrolArguments),
    /// Use such a token: the private key is made here
    Accept(AcceptArguments),
    /// End an operator's rights; the last one stays
    Revoke(NameArguments),
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
    /// New file that takes the token, mode 0600
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,

    /// How long the token is good, in seconds
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
    name: String,

    #[command(flatten)]
    operator: Operator,
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
            make_token(Role::Gateway, &arguments.name, arguments.keyset, &arguments.token).await?;
            say!("On the gateway: claviger gateway enrol --token-file FILE --config gateway.toml");
            Ok(())
        }
        GatewayCommand::Revoke(arguments) => revoke(Role::Gateway, &arguments).await,
        GatewayCommand::List(operator) => list(&operator).await,
    }
}

pub(super) async fn run_operator(command: OperatorCommand) -> Result<(), Exit> {
    match command {
        OperatorCommand::Enrol(arguments) => {
            make_token(Role::Admin, &arguments.name, Vec::new(), &arguments.token).await?;
            say!("The new operator: claviger keys operator accept --token-file FILE --identity DIR");
            Ok(())
        }
        OperatorCommand::Accept(arguments) => accept(&arguments.token_file, &arguments.identity).await,
        OperatorCommand::Revoke(arguments) => revoke(Role::Admin, &arguments).await,
    }
}

async fn make_token(
    role: Role,
    name: &str,
    keysets: Vec<String>,
    arguments: &TokenArguments,
) -> Result<(), Exit> {
    let identity = Identity::new(role, name).map_err(Exit::usage)?;
    let TokenArguments { token_file, ttl_s, replace, operator } = arguments;
    let request = EnrolTokenRequest { identity, keysets, ttl_s: *ttl_s, replace: *replace };
    let answer: EnrolTokenAnswer = Connection::open(operator)?.ask(admin::ENROL_TOKEN, &request).await?;
    write_secret_new(token_file, format!("{}\n", answer.token.expose()).as_bytes()).map_err(Exit::failed)?;
    say!(
        "Token for {} in {}, good once until {}",
        request.identity,
        token_file.display(),
        moment(answer.expires_ms)
    );
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

async fn revoke(role: Role, arguments: &NameArguments) -> Result<(), Exit> {
    let identity = Identity::new(role, &arguments.name).map_err(Exit::usage)?;
    let request = RevokeRequest { identity };
    let _: Empty = Connection::open(&arguments.operator)?.ask(admin::REVOKE, &request).await?;
    say!("{} is revoked. Keys that it holds already stay with it until their lease ends.", request.identity);
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
