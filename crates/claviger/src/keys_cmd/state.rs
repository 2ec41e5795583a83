use std::path::{Path, PathBuf};

use anyhow::Context as _;
use claviger_keyapi::Id16;
use claviger_keyapi::admin::{
    self, AdminStatus, AuditTail, AuditTailRequest, EpochList, EpochListRequest, QuarantineList,
    RollbackAccepted, UnlockRequest, UnlockShareRequest, UnlockState,
};
use claviger_keyapi::proposals::{Action, UnlockTo};
use claviger_keyapi::routes::{self, CheckpointRequest, Empty};
use claviger_keyapi::secret::SecretText;
use claviger_keyservice::files::read_secret;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Operator;
use super::connection::Connection;
use super::proposals::propose;
use super::share;
use crate::exit::Exit;

/// Most entries that one request returns.
const PAGE: u32 = 1000;

/// Unlock the service: with its passphrase, with one share of several, or by telling it to ask its HSM
///
/// `claviger keys status` says which way a service is unlocked. Shares are brought one at a time,
/// each by its holder and from wherever he is; the last that is needed unlocks. They are wiped
/// if no further one comes for 15 minutes.
///
/// The service unlocks only if somebody outside remembers its audit log and the log bears that out:
/// gateways do it by themselves, checkpoint_file in its configuration too. --checkpoint FILE brings
/// another witness, for example what `claviger keys audit checkpoint` printed; it may stand alone,
/// for a service that has its secret and waits for this. If what is remembered does not fit, the
/// service was put back to an earlier day. Two operators can say that it is to go on all the same,
/// each with --accept-rollback, then it is unlocked as always: revocations, freezes and policies
/// since that day are gone, and gateways that remember that log have to be told (docs/operations.md).
///
/// One of several replicas that can't be certain that the database shows it the present stands by
/// and says so; two operators can let it take over in the same way.
///
/// A locked service can't prove more than that it has the disk of the one you know. Bring secrets
/// only to a machine that you know is yours.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct UnlockArguments {
    #[command(flatten)]
    with: UnlockWith,

    #[command(flatten)]
    operator: Operator,
}

/// Propose another way to unlock the service, or a new secret for the same
///
/// Another operator approves. With an HSM that is all; else the one who proposed collects the new
/// passphrase or shares (claviger keys collect ID --to DIR), and they count once they were read
/// back. The old secret opens the database no more then, but every older copy of it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct UnlockChangeArguments {
    /// Which way
    #[arg(long, value_enum)]
    to: UnlockMethod,

    /// Number of unlock shares
    #[arg(long, value_name = "N", default_value_t = 5)]
    shares: u8,

    /// How many shares unlock (at least 2)
    #[arg(long, value_name = "M", default_value_t = 3)]
    threshold: u8,

    #[command(flatten)]
    operator: Operator,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum UnlockMethod {
    /// A new passphrase
    Passphrase,
    /// New shares
    Quorum,
    /// The HSM that the service's configuration names
    Pkcs11,
}

pub(super) async fn change_unlock(arguments: UnlockChangeArguments) -> Result<(), Exit> {
    let UnlockChangeArguments { to, shares, threshold, operator } = arguments;
    let to = match to {
        UnlockMethod::Passphrase => UnlockTo::Passphrase,
        UnlockMethod::Quorum => UnlockTo::Quorum { shares, threshold },
        UnlockMethod::Pkcs11 => UnlockTo::Pkcs11,
    };
    propose(&operator, Action::ChangeUnlock { to }).await.map(drop)
}

#[derive(clap::Args)]
#[group(required = true, multiple = true)]
struct UnlockWith {
    /// The passphrase's file, mode 0600
    #[arg(long, value_name = "FILE", group = "way")]
    passphrase_file: Option<PathBuf>,

    /// One unlock share: text, PNG or PDF; `-` reads what you type
    #[arg(long, value_name = "FILE", group = "way")]
    share: Option<PathBuf>,

    /// Make the service ask its HSM now
    #[arg(long, group = "way")]
    hsm: bool,

    /// Say, as one of two operators, that what is there is to be gone on with; good for 15 minutes
    #[arg(long, group = "way")]
    accept_rollback: bool,

    /// Show a checkpoint of the audit log that was kept elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "accept_rollback")]
    checkpoint: Option<PathBuf>,
}

#[derive(clap::Subcommand)]
pub(super) enum EpochsCommand {
    /// All registered epochs, by id
    List(EpochsArguments),
    /// Epochs that a stolen gateway could have forged objects in: they are not released
    Quarantine(Operator),
    Accept(AcceptArguments),
}

/// Propose to release epochs of a quarantine again; another operator approves it
///
/// Whatever the thief forged in them will be served as genuine. Compare the objects with what you know
/// first: claviger keys epochs quarantine names the epochs, the audit log who leased them.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct AcceptArguments {
    /// The gateway that was revoked: its 32-digit id from `keys gateway list`
    #[arg(long, value_name = "ID")]
    gateway_id: String,

    /// Epochs, 32 digits each; all of the gateway's if none is named
    epochs: Vec<String>,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct EpochsArguments {
    /// Only those of one gateway: its 32-digit id from `keys gateway list`
    #[arg(long, value_name = "ID")]
    gateway_id: Option<String>,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Subcommand)]
pub(super) enum AuditCommand {
    /// The last records, oldest first, as they stand in the log
    Tail(TailArguments),
    /// The newest checkpoint: kept elsewhere, it shows later whether the log was cut off or replaced
    ///
    /// Prints a signed note: the log's name, how many records it has, and the root of the tree
    /// over them. Keep it where nobody who runs the key service can change it, and give it to
    /// claviger audit verify --checkpoint FILE.
    #[command(verbatim_doc_comment)]
    Checkpoint(Operator),
    /// Propose to remove old records of releases from the log; another operator approves it
    ///
    /// Goes as far back as the retention allows that was fixed at init (keys init --retention-days).
    /// Records of releases (session, lease, derive, continue, finish-upload, refused registrations)
    /// go; everything that was changed is kept for ever. What is left of a record is its place and
    /// its hash: the log verifies as before, and every checkpoint and proof that was kept stays good.
    #[command(verbatim_doc_comment)]
    Prune(PruneArguments),
}

#[derive(clap::Args)]
pub(super) struct PruneArguments {
    /// Records before this moment, as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    before: String,

    #[command(flatten)]
    operator: Operator,
}

#[derive(clap::Args)]
pub(super) struct TailArguments {
    /// How many
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    count: u32,

    #[command(flatten)]
    operator: Operator,
}

pub(super) async fn unlock(arguments: UnlockArguments) -> Result<(), Exit> {
    let UnlockArguments { with, operator } = arguments;
    let connection = Connection::open(&operator)?;
    if let Some(file) = &with.checkpoint {
        show_checkpoint(file, &connection).await?;
    }
    if let Some(file) = with.share {
        return bring_share(&file, &operator).await;
    }
    if with.accept_rollback {
        return accept_rollback(&connection).await;
    }
    let status: AdminStatus = match with.passphrase_file {
        Some(file) => {
            let passphrase = read_secret(&file).map_err(Exit::usage)?;
            let request = UnlockRequest { passphrase: SecretText::new(passphrase.trim().to_owned()) };
            connection.ask(admin::UNLOCK, &request).await?
        }
        None if with.hsm => connection.ask(admin::UNLOCK_HSM, &Empty {}).await?,
        None => connection.ask(admin::STATUS, &Empty {}).await?,
    };
    show(&status);
    Ok(())
}

async fn show_checkpoint(file: &Path, connection: &Connection) -> Result<(), Exit> {
    let checkpoint =
        std::fs::read_to_string(file).with_context(|| file.display().to_string()).map_err(Exit::usage)?;
    connection.ask::<Empty>(routes::CHECKPOINT, &CheckpointRequest { checkpoint }).await?;
    say!("{}: shown", file.display());
    Ok(())
}

async fn accept_rollback(connection: &Connection) -> Result<(), Exit> {
    let accepted: RollbackAccepted = connection.ask(admin::ACCEPT_ROLLBACK, &Empty {}).await?;
    let names: Vec<String> = accepted.by.iter().map(ToString::to_string).collect();
    say!("accepted by    {}", names.join(", "));
    if names.len() < usize::from(accepted.needed) {
        say!("               another operator does the same: claviger keys unlock --accept-rollback");
    } else {
        say!("               now it can be unlocked as always, within 15 minutes of the first");
    }
    Ok(())
}

async fn bring_share(file: &Path, operator: &Operator) -> Result<(), Exit> {
    let share = share::read(file)?;
    let request = UnlockShareRequest { share: SecretText::new(share.to_line().to_string()) };
    let state: UnlockState = Connection::open(operator)?.ask(admin::UNLOCK_SHARE, &request).await?;
    if state.unlocked {
        say!("state          Unlocked");
    } else {
        show_shares(&state);
    }
    Ok(())
}

fn show_shares(state: &UnlockState) {
    let here: Vec<String> = state.shares_here.iter().map(ToString::to_string).collect();
    say!("unlock shares  {} of {} needed; set {}", here.len(), state.shares_needed, state.set);
    if !here.is_empty() {
        say!("               here: {}; wiped in {} s", here.join(", "), state.wiped_in_ms / 1000);
    }
}

pub(super) async fn lock(operator: &Operator) -> Result<(), Exit> {
    show(&Connection::open(operator)?.ask::<AdminStatus>(admin::LOCK, &Empty {}).await?);
    Ok(())
}

pub(super) async fn status(operator: &Operator) -> Result<(), Exit> {
    show(&Connection::open(operator)?.ask::<AdminStatus>(admin::STATUS, &Empty {}).await?);
    Ok(())
}

fn show(status: &AdminStatus) {
    say!("state          {:?}", status.state);
    for problem in &status.problems {
        say!("problem        {problem}");
    }
    let unlock = &status.unlock;
    say!("unlocked by    {}", unlock.method);
    if unlock.shares_needed > 0 && !unlock.unlocked {
        show_shares(unlock);
    }
    for note in &status.notes {
        say!("note           {note}");
    }
    say!("version        {}", status.version);
    say!("clock          {}", moment(status.now_ms));
    say!("policy         sha256 {}", status.policy_sha256);
    say!("gateways       {}", status.gateways);
    say!("buckets        {}", status.bindings);
    say!("epochs         {}", status.epochs);
    say!("audit records  {}", status.audit_records);
    if let Some(key) = &status.audit_key {
        say!("audit key      {key}");
    }
    match status.audit_checkpoint.as_deref().map(|note| note.lines().collect::<Vec<_>>()) {
        Some(lines) if lines.len() > 2 => say!("checkpoint     {} records, root {}", lines[1], lines[2]),
        _ => say!("checkpoint     none since the start"),
    }
    if status.proposals > 0 {
        say!("proposals      {} (claviger keys proposals)", status.proposals);
    }
    if status.quarantined > 0 {
        say!("quarantined    {} epochs (claviger keys epochs quarantine)", status.quarantined);
    }
    for freeze in &status.frozen {
        say!(
            "frozen         {} since {} by {}: {}",
            freeze.target,
            moment(freeze.frozen_ms),
            freeze.by.as_ref().map_or_else(|| "the service".to_owned(), ToString::to_string),
            freeze.reason
        );
    }
}

pub(super) async fn epochs(command: EpochsCommand) -> Result<(), Exit> {
    match command {
        EpochsCommand::List(arguments) => list_epochs(arguments).await,
        EpochsCommand::Quarantine(operator) => quarantine(&operator).await,
        EpochsCommand::Accept(AcceptArguments { gateway_id, epochs, operator }) => {
            let gateway_id = id(&gateway_id)?;
            let epochs = epochs.iter().map(|text| id(text)).collect::<Result<_, _>>()?;
            super::proposals::propose(&operator, Action::AcceptEpochs { gateway_id, epochs }).await.map(drop)
        }
    }
}

fn id(text: &str) -> Result<Id16, Exit> {
    Id16::from_hex(text)
        .ok_or_else(|| Exit::usage(anyhow::anyhow!("\"{text}\": an id is 32 lower-case hex digits")))
}

async fn quarantine(operator: &Operator) -> Result<(), Exit> {
    let list: QuarantineList = Connection::open(operator)?.ask(admin::QUARANTINE_LIST, &Empty {}).await?;
    for epoch in list.epochs {
        say!("{}  gateway {}  stolen since {}", epoch.epoch_id, epoch.gateway_id, moment(epoch.since_ms));
    }
    if list.left_out > 0 {
        say!("… and {} more (claviger keys epochs list --gateway-id ID)", list.left_out);
    }
    for held in list.gateways {
        let name = held.identity.map_or_else(String::new, |identity| format!(" ({identity})"));
        say!("gateway {}{name}: all that it sealed since {} is held", held.gateway_id, moment(held.since_ms));
        if let Some(until_ms) = held.leasable_until_ms {
            say!("  and all epochs of its keysets that were registered until {}", moment(until_ms));
        }
    }
    Ok(())
}

async fn list_epochs(arguments: EpochsArguments) -> Result<(), Exit> {
    let EpochsArguments { gateway_id, operator } = arguments;
    let gateway_id = gateway_id.map(|text| id(&text)).transpose()?;
    let connection = Connection::open(&operator)?;
    let mut request = EpochListRequest { gateway_id, after: None, limit: PAGE };
    loop {
        let page: EpochList = connection.ask(admin::EPOCH_LIST, &request).await?;
        for epoch in &page.epochs {
            say!(
                "{}  gateway {}  began {}  registered {}",
                epoch.epoch_id,
                epoch.gateway_id,
                moment(epoch.created_ms),
                moment(epoch.first_seen_ms)
            );
        }
        match page.epochs.last() {
            Some(last) if page.more => request.after = Some(last.epoch_id),
            _ => return Ok(()),
        }
    }
}

pub(super) async fn audit(command: AuditCommand) -> Result<(), Exit> {
    match command {
        AuditCommand::Tail(TailArguments { count, operator }) => {
            let tail: AuditTail =
                Connection::open(&operator)?.ask(admin::AUDIT_TAIL, &AuditTailRequest { count }).await?;
            tail.lines.iter().for_each(|line| say!("{line}"));
            Ok(())
        }
        AuditCommand::Checkpoint(operator) => {
            let status: AdminStatus = Connection::open(&operator)?.ask(admin::STATUS, &Empty {}).await?;
            let none =
                || anyhow::anyhow!("no checkpoint was signed since the service was started: unlock it first");
            let note = status.audit_checkpoint.ok_or_else(none).map_err(Exit::failed)?;
            say!("{}", note.trim_end());
            Ok(())
        }
        AuditCommand::Prune(PruneArguments { before, operator }) => {
            let before_ms = unix_ms(&before)?;
            propose(&operator, Action::Prune { before_ms }).await.map(drop)
        }
    }
}

/// Unix milliseconds as RFC 3339 in UTC.
pub(crate) fn moment(unix_ms: u64) -> String {
    let date = i64::try_from(unix_ms / 1000)
        .context("out of range")
        .and_then(|seconds| Ok(OffsetDateTime::from_unix_timestamp(seconds)?))
        .and_then(|date| Ok(date.format(&Rfc3339)?));
    date.unwrap_or_else(|_| format!("{unix_ms} ms"))
}

/// Unix milliseconds of an RFC 3339 text.
pub(super) fn unix_ms(text: &str) -> Result<u64, Exit> {
    let date = OffsetDateTime::parse(text, &Rfc3339).ok();
    date.and_then(|date| u64::try_from(date.unix_timestamp()).ok()?.checked_mul(1000)).ok_or_else(|| {
        Exit::usage(anyhow::anyhow!("\"{text}\" is no moment; write it as 2026-01-31T12:00:00Z"))
    })
}

#[cfg(test)]
mod tests {
    use super::{moment, unix_ms};

    #[test]
    fn a_moment_is_read_as_it_is_written() {
        assert_eq!(unix_ms("2025-06-15T15:06:40Z").ok(), Some(1_750_000_000_000));
        assert_eq!(unix_ms("2025-06-15T17:06:40+02:00").ok(), Some(1_750_000_000_000));
        assert!(unix_ms("yesterday").is_err() && unix_ms("1960-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn moments_are_written_in_utc_and_odd_ones_as_they_are() {
        assert_eq!(moment(1_750_000_000_000), "2025-06-15T15:06:40Z");
        assert_eq!(moment(u64::MAX), format!("{} ms", u64::MAX));
    }
}
