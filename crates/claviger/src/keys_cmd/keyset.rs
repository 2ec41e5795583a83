use std::path::PathBuf;

use anyhow::anyhow;
use claviger_keyapi::admin::{
    self, AdminStatus, ConfirmKeysetRequest, CreateKeysetRequest, KeysetInfo, KeysetList, KeysetShares,
    RetireRequest, VersionInfo, VersionState,
};
use claviger_keyapi::lifecycle::{self, ResealAnswer, ResealRequest};
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
    Rotate(RotateArguments),
    Retire(RetireArguments),
    Reseal(ResealArguments),
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

/// Propose a new version: a new root, with recovery shares of its own, that new objects are sealed under
///
/// Another operator approves, you collect the shares (claviger keys collect ID --to DIR), and once all of them came back from
/// their files the version is in force: gateways begin new epochs at once, and the versions before it only open. No object
/// is touched, so it takes a moment however much is stored.
///
/// What it does: whoever has an old root (its shares, an old backup) can't open what is sealed from now on. What it does
/// not do: take anything back that an old root opens. After the theft of a root, objects have to be copied anew.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RotateArguments {
    /// Name of the keyset
    name: String,

    /// Number of recovery shares
    #[arg(long, value_name = "N", default_value_t = 5)]
    shares: u8,

    /// How many shares open the root (at least 2)
    #[arg(long, value_name = "M", default_value_t = 3)]
    threshold: u8,

    #[command(flatten)]
    operator: Operator,
}

/// End writing in a keyset for good or until it gets a new version; everything in it still opens
///
/// At once no gateway gets what it takes to seal in this keyset; those that do not hear it seal on for up to an hour. One
/// operator suffices; its way back takes two: claviger keys keyset rotate NAME. Rotating retires older versions by itself.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RetireArguments {
    /// Name of the keyset
    name: String,

    #[command(flatten)]
    operator: Operator,
}

/// Seal what an older version opens to the newest one as well, so that the older one can be destroyed and nothing is lost
///
/// Works on the registry of the key service: a kilobyte for each epoch, no object. Two operators permit it: this proposes, another
/// approves, then --run does it, with a bar of its progress. It can be broken off and run again: it goes on with what is missing.
///
/// This is hygiene, not recovery. It takes nothing back: whoever has the old root (its shares, an old backup) and a copy of what
/// the provider stores opens what he could open before, since the keys of the objects stay what they are. After the theft of a
/// root only copying the objects anew helps. And what was sealed anew is NOT forgotten when the older version is destroyed.
/// The records in the bucket stay as they are: recovery without the key service's registry takes the shares of the older version.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ResealArguments {
    /// Name of the keyset
    name: String,

    /// The older version
    #[arg(long, value_name = "V")]
    version: u32,

    /// Do it, once it is approved
    #[arg(long)]
    run: bool,

    #[command(flatten)]
    operator: Operator,
}

async fn reseal(arguments: ResealArguments) -> Result<(), Exit> {
    let ResealArguments { name, version, run, operator } = arguments;
    if !run {
        return propose(&operator, Action::Reseal { keyset: name, version }).await.map(drop);
    }
    let connection = Connection::open(&operator)?;
    let status: AdminStatus = connection.ask(admin::STATUS, &Empty {}).await?;
    let (mut seen, mut resealed, mut after) = (0, 0, None);
    loop {
        let request = ResealRequest { keyset: name.clone(), version, after };
        let step: ResealAnswer = connection.ask(lifecycle::RESEAL, &request).await?;
        seen += u64::from(step.seen);
        resealed += u64::from(step.resealed);
        progress(seen, status.epochs);
        after = step.after;
        if after.is_none() {
            break;
        }
    }
    say!("{resealed} epochs of version {version} open under the newest version as well.");
    say!(
        "It takes nothing back: the old root opens them as before, until everything that holds it is destroyed."
    );
    Ok(())
}

/// A bar on the terminal, if there is one.
fn progress(done: u64, of: u64) {
    use std::io::{IsTerminal as _, Write as _};
    let mut out = std::io::stderr();
    if !out.is_terminal() {
        return;
    }
    let of = of.max(done).max(1);
    let filled = usize::try_from(done * 40 / of).unwrap_or(40);
    // A bar that can't be drawn is no reason to stop.
    let _ = write!(out, "\r[{:<40}] {done} of {of} epochs", "#".repeat(filled));
    if done >= of {
        let _ = writeln!(out);
    }
}

async fn rotate(arguments: RotateArguments) -> Result<(), Exit> {
    let RotateArguments { name, shares, threshold, operator } = arguments;
    propose(&operator, Action::Rotate { keyset: name, shares, threshold }).await.map(drop)
}

async fn retire(arguments: RetireArguments) -> Result<(), Exit> {
    let request = RetireRequest { keyset: arguments.name };
    let keyset: KeysetInfo =
        Connection::open(&arguments.operator)?.ask(admin::KEYSET_RETIRE, &request).await?;
    say!("Nothing new is sealed in keyset {}; everything in it still opens.", keyset.name);
    say!("To write again: claviger keys keyset rotate {}", keyset.name);
    Ok(())
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
        Command::Rotate(arguments) => rotate(arguments).await,
        Command::Retire(arguments) => retire(arguments).await,
        Command::Reseal(arguments) => reseal(arguments).await,
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
        let version = match (keyset.version, keyset.versions.last().map(|last| last.state)) {
            (Some(version), _) => format!("version {version}"),
            (None, Some(VersionState::Prepared) | None) => "not active".to_owned(),
            (None, Some(_)) => "read only".to_owned(),
        };
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
        if keyset.versions.len() > 1 {
            keyset.versions.iter().for_each(say_version);
        }
        if keyset.era_shred {
            say!("  shredded by era: copies of what lies under an older version are encrypted anew");
        }
        say!(
            "  buckets: {}",
            if keyset.buckets.is_empty() { "none".to_owned() } else { keyset.buckets.join(", ") }
        );
    }
    Ok(())
}

fn say_version(version: &VersionInfo) {
    let state = match version.state {
        VersionState::Prepared => "not active".to_owned(),
        VersionState::Active => "active".to_owned(),
        VersionState::Retired => format!("retired {}", moment(version.retired_ms.unwrap_or_default())),
        VersionState::Doomed => format!(
            "opens nothing, destroyed from {} on unless cancelled",
            moment(version.doom.as_ref().map_or(0, |doom| doom.due_ms))
        ),
        VersionState::Destroyed => format!("destroyed {}", moment(version.destroyed_ms.unwrap_or_default())),
    };
    say!(
        "  version {}  {state}  root {}  {} of {} shares of set {}",
        version.number,
        version.root_fingerprint,
        version.threshold,
        version.shares,
        version.share_set.as_deref().unwrap_or("not known")
    );
}
