use std::path::PathBuf;

use anyhow::anyhow;
use claviger_keyapi::admin::{
    self, ConfirmKeysetRequest, CreateKeysetRequest, KeysetInfo, KeysetList, KeysetShares,
};
use claviger_keyapi::proposals::Action;
use claviger_keyapi::routes::Empty;
use claviger_keyapi::secret::SecretText;
use claviger_keyservice::custody::paper::{self, Form, Sheet};
use claviger_keyservice::custody::shamir::Share;
use claviger_keyservice::files::private_folder;

use super::Operator;
use super::connection::Connection;
use super::proposals::propose;
use super::state::moment;
use crate::exit::Exit;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Make a keyset; it seals nothing until its recovery shares were written here, read back and proved
    Create(CreateArguments),
    /// Propose new recovery shares for a root; the old ones stay good until they are destroyed
    Reshare(ReshareArguments),
    /// All keysets with their buckets
    List(Operator),
}

#[derive(clap::Args)]
pub(super) struct CreateArguments {
    /// Name: a-z, 0-9, `-`
    name: String,

    /// Folder on this machine that takes the recovery shares; best on a disk in memory, such as /dev/shm
    #[arg(long, value_name = "DIR")]
    recovery: PathBuf,

    /// Number of recovery shares
    #[arg(long, value_name = "N", default_value_t = 5)]
    shares: u8,

    /// How many shares open the root (at least 2)
    #[arg(long, value_name = "M", default_value_t = 3)]
    threshold: u8,

    /// How shares are written: text (a line and 62 words to type), png (a QR code), pdf (a sheet to
    /// print, with words and QR code); several with commas
    #[arg(long, value_name = "FORM", value_delimiter = ',', default_value = "text")]
    shares_format: Vec<Form>,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct ReshareArguments {
    /// Name of the keyset
    name: String,

    /// Version of its root
    #[arg(long, value_name = "V", default_value_t = 1)]
    version: u32,

    /// Number of recovery shares
    #[arg(long, value_name = "N", default_value_t = 5)]
    shares: u8,

    /// How many shares open the root (at least 2)
    #[arg(long, value_name = "M", default_value_t = 3)]
    threshold: u8,

    #[command(flatten)]
    operator: Operator,
}

async fn reshare(arguments: ReshareArguments) -> Result<(), Exit> {
    let ReshareArguments { name, version, shares, threshold, operator } = arguments;
    let action = Action::Reshare { keyset: name, version, shares, threshold };
    propose(&operator, action).await.map(drop)
}

pub(super) async fn run(command: Command) -> Result<(), Exit> {
    match command {
        Command::Create(arguments) => create(arguments).await,
        Command::Reshare(arguments) => reshare(arguments).await,
        Command::List(operator) => list(&operator).await,
    }
}

async fn create(arguments: CreateArguments) -> Result<(), Exit> {
    let connection = Connection::open(&arguments.operator)?;
    private_folder(&arguments.recovery).map_err(Exit::failed)?;
    let request = CreateKeysetRequest {
        name: arguments.name.clone(),
        shares: arguments.shares,
        threshold: arguments.threshold,
    };
    let made: KeysetShares = connection.ask(admin::KEYSET_CREATE, &request).await?;
    let mut read_back = Vec::new();
    for share in &made.shares {
        let share = Share::parse(share.expose()).map_err(Exit::failed)?;
        let sheet = Sheet::new(&share, &arguments.name);
        let paths = sheet.write(&arguments.recovery, &arguments.shares_format).map_err(Exit::failed)?;
        // What the file says counts, not what was meant to be in it.
        let [first, ..] = paths.as_slice() else {
            return Err(Exit::usage(anyhow!("--shares-format names none")));
        };
        read_back.push(SecretText::new(paper::load(first).map_err(Exit::failed)?.to_line().to_string()));
        paths.iter().for_each(|path| say!("{}", path.display()));
    }
    let confirm = ConfirmKeysetRequest { keyset_id: made.keyset_id, shares: read_back };
    let keyset: KeysetInfo = connection.ask(admin::KEYSET_CONFIRM, &confirm).await?;
    say!(
        "Keyset {} is active; any {} of its {} shares open it.",
        keyset.name,
        keyset.threshold,
        keyset.shares
    );
    say!("Give each share to another person, offline, then empty the folder.");
    Ok(())
}

async fn list(operator: &Operator) -> Result<(), Exit> {
    let answer: KeysetList = Connection::open(operator)?.ask(admin::KEYSET_LIST, &Empty {}).await?;
    for keyset in answer.keysets {
        let version =
            keyset.version.map_or_else(|| "not active".to_owned(), |version| format!("version {version}"));
        say!("{}  {version}  id {}  root {}", keyset.name, keyset.keyset_id, keyset.root_fingerprint);
        let set = keyset.share_set.as_deref().unwrap_or("not known");
        say!("  {} of {} shares open it; set {set}", keyset.threshold, keyset.shares);
        for earlier in &keyset.earlier_sets {
            say!(
                "  still open it until destroyed: {} of {} shares of set {}, replaced {}",
                earlier.threshold,
                earlier.shares,
                earlier.set.as_deref().unwrap_or("not known"),
                moment(earlier.replaced_ms)
            );
        }
        say!(
            "  buckets: {}",
            if keyset.buckets.is_empty() { "none".to_owned() } else { keyset.buckets.join(", ") }
        );
    }
    Ok(())
}
