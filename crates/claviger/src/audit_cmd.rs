//! `claviger audit`: the key service's audit log without the key service.

/// Writes a line to standard output. Whoever reads it may stop early (`| head`); that is no mistake.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod export;
mod select;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use claviger_audit::cosignature;
use claviger_audit::note::NoteError;
use claviger_audit::pruning::has_seal;
use claviger_audit::verify::Remembered;
use claviger_audit::{LogProof, SignedCheckpoint, VerifierKey};
use claviger_keyservice::audit_log::AuditFolder;
use claviger_keyservice::audit_log::offline::{OfflineError, check_proof};
use claviger_keyservice::audit_log::sessions::Back;
use claviger_keyservice::audit_log::states::{Fork, compare};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::exit::Exit;
use select::Selection;

/// Check, search and export the key service's audit log, and prove single records
///
/// Works on the service's own audit folder or on a copy, offline: it needs neither the service
/// nor any secret, and writes nothing into the folder. To check a log an auditor needs the log's
/// key (`claviger keys init` and `claviger keys status` print it) and, to find a log that was cut
/// off or replaced as a whole, a checkpoint that was kept elsewhere
/// (`claviger keys audit checkpoint`).
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[command(after_help = "Exit codes: 0 it is as it says, 1 it is not, 2 wrong usage, or it can't be read.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Check every record, tile and checkpoint of a log
    ///
    /// Finds any record that was edited, removed, added or moved, a log that was cut off, and
    /// with --checkpoint one that was replaced by another. Records behind the newest checkpoint
    /// are counted apart: nothing vouches for them until the next one is signed. Records that were
    /// pruned are accepted where a signed record of the log says so, after the retention that its
    /// first record fixes; nowhere else.
    #[command(verbatim_doc_comment)]
    Verify(VerifyArguments),
    /// Write a proof that one record is in the log: a file that says it all to whoever has the log's key
    Prove(ProveArguments),
    /// Check such a proof and print the record that it proves
    CheckProof(CheckProofArguments),
    /// Print the records that fit, as they stand in the log
    ///
    /// All conditions have to hold. A gateway with the verb `lease` opens objects by itself: then
    /// the log names the epoch, not the object, and --epoch finds who could open it. Check the log
    /// with `claviger audit verify` before you rely on what you find.
    #[command(verbatim_doc_comment)]
    Search(SearchArguments),
    /// Hold the logs of all replicas of one service against each other
    ///
    /// Finds replicas that went apart (different states under one number), one that went on from an
    /// older state than another had told of before, and states that no log tells of. A log that does
    /// not fit its own checkpoint, signed with the key that it names itself, is named, and accuses
    /// nobody. Whether that is the true key, `claviger audit verify` tells, one by one.
    #[command(verbatim_doc_comment)]
    Replicas(ReplicasArguments),
    /// Hand records on to another system: to standard output, to syslog, or to a collector of OpenTelemetry
    ///
    /// With --cursor the command goes on where it ended last time, and says so if records may have
    /// been sent already when it was interrupted, or if the log is not the one that it knows. With
    /// --follow it stays and sends what is written, once the log's checkpoint covers it (within a
    /// second while the service is unlocked; what a locked service writes comes after its unlock).
    ///
    /// Syslog (RFC 5424; TCP with RFC 6587's octet counting) acknowledges nothing: what was on the
    /// way when the receiver died is lost without a word. OTLP does, and is sent again until it is
    /// taken. Records hold names of objects and travel in the clear except by https: send them to
    /// an agent on this machine and let that one encrypt.
    #[command(verbatim_doc_comment)]
    Export(export::Arguments),
}

#[derive(clap::Args)]
struct VerifyArguments {
    /// The log: the folder `audit` of the service's state_dir, or a copy
    dir: PathBuf,

    /// The log's key: NAME+HASH+KEY
    #[arg(long, value_name = "VKEY")]
    key: String,

    /// A checkpoint of the log that was kept elsewhere; several times for several
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,

    /// The key with which another replica cosigns (`claviger keys replica list`): NAME+HASH+KEY; several times for
    /// several. Each has to have cosigned a checkpoint, in the log's folder `cosigned` or among those of --checkpoint
    #[arg(long, value_name = "VKEY")]
    witness: Vec<String>,
}

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
struct ProveArguments {
    /// The log: the folder `audit` of the service's state_dir, or a copy
    dir: PathBuf,

    /// The record's index
    #[arg(long, value_name = "N", group = "which")]
    index: Option<u64>,

    /// The id of the request that made the record (`x-request-id`)
    #[arg(long, value_name = "ID", group = "which")]
    request: Option<String>,

    /// New file that takes the proof
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(clap::Args)]
struct CheckProofArguments {
    /// The proof
    file: PathBuf,

    /// The log's key: NAME+HASH+KEY
    #[arg(long, value_name = "VKEY")]
    key: String,
}

#[derive(clap::Args)]
struct ReplicasArguments {
    /// The logs of all replicas: the folders `audit`, or copies
    #[arg(required = true, num_args = 2..)]
    dirs: Vec<PathBuf>,
}

#[derive(clap::Args)]
struct SearchArguments {
    /// The log: the folder `audit` of the service's state_dir, or a copy
    dir: PathBuf,

    #[command(flatten)]
    selection: Selection,
}

/// Runs the command.
///
/// # Errors
/// Exit code 1 if something does not verify or is not there, 2 for wrong usage and what can't be read.
pub(crate) async fn run(arguments: Arguments) -> Result<(), Exit> {
    match arguments.command {
        Command::Verify(arguments) => verify(&arguments),
        Command::Prove(arguments) => prove(&arguments),
        Command::CheckProof(arguments) => check(&arguments),
        Command::Search(arguments) => search(&arguments),
        Command::Replicas(arguments) => replicas(&arguments.dirs),
        Command::Export(arguments) => export::run(&arguments).await,
    }
}

fn verify(arguments: &VerifyArguments) -> Result<(), Exit> {
    let key = parse_key(&arguments.key)?;
    let folder = open(&arguments.dir)?;
    let mut remembered = cosigned(&folder, &key)?;
    let cosigned_count = remembered.len();
    for path in &arguments.checkpoint {
        remembered.push(self::remembered(path, &key)?);
    }
    let verified = folder.verify(&key, remembered.clone()).map_err(exit)?;
    let report = &verified.report;
    let root = verified.checkpoint.checkpoint().root.to_base64();
    say!("{}: verified", key.name());
    say!("records      {}", report.records);
    if report.pruned > 0 {
        say!("pruned       {} of them, as the log says and after its retention", report.pruned);
    }
    say!("checkpoint   covers {}, root {root}", report.signed);
    say!("tiles        {} compared", report.tiles);
    say!("remembered   {} checkpoints agree", arguments.checkpoint.len());
    if cosigned_count > 0 {
        say!("cosigned     {cosigned_count} checkpoints in its folder agree");
    }
    for witness in &arguments.witness {
        say!("cosigned     {}", newest_of_witness(&remembered, &parse_key(witness)?)?);
    }
    if report.records > report.signed {
        say!("not covered  the last {}: no checkpoint vouches for them yet", report.records - report.signed);
    }
    if verified.unfinished_len > 0 {
        say!("unfinished   {} bytes at the end: a record that was being written", verified.unfinished_len);
    }
    if cosigned_count > 0 && arguments.witness.is_empty() {
        say!("Who cosigned is not checked without --witness.");
    }
    if arguments.checkpoint.is_empty() && arguments.witness.is_empty() {
        say!("Without --checkpoint a log that was cut off or replaced as a whole verifies too.");
    }
    Ok(())
}

fn remembered(path: &Path, key: &VerifierKey) -> Result<Remembered, Exit> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).with_context(|| name.clone()).map_err(Exit::usage)?;
    let checkpoint = SignedCheckpoint::open(&bytes, key);
    let checkpoint = checkpoint.with_context(|| format!("{name} is no checkpoint of this log"));
    Ok(Remembered { checkpoint: checkpoint.map_err(Exit::usage)?, name })
}

/// Checkpoints in the log's own folder that other replicas cosigned. One that is not of this log is no slip: somebody put it there.
fn cosigned(folder: &AuditFolder, key: &VerifierKey) -> Result<Vec<Remembered>, Exit> {
    let notes = folder.cosigned().map_err(Exit::usage)?;
    let open = |(name, bytes): (String, Vec<u8>)| {
        let checkpoint = SignedCheckpoint::open(&bytes, key);
        let checkpoint = checkpoint.with_context(|| format!("{name} is no checkpoint of this log"));
        Ok(Remembered { checkpoint: checkpoint.map_err(Exit::failed)?, name })
    };
    notes.into_iter().map(open).collect()
}

/// What a witness saw last, in words.
fn newest_of_witness(remembered: &[Remembered], witness: &VerifierKey) -> Result<String, Exit> {
    let mut newest = None;
    for Remembered { name, checkpoint } in remembered {
        let time_s = match cosignature::verify(checkpoint.note(), witness) {
            Err(NoteError::Unsigned) => continue,
            time_s => time_s.with_context(|| name.clone()).map_err(Exit::failed)?,
        };
        newest = newest.max(Some((checkpoint.checkpoint().size, time_s)));
    }
    let missing = || Exit::failed(anyhow!("no checkpoint here is cosigned by {}", witness.name()));
    let (size, time_s) = newest.ok_or_else(missing)?;
    let time = i64::try_from(time_s).ok().and_then(|time_s| OffsetDateTime::from_unix_timestamp(time_s).ok());
    let time = time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| time_s.to_string());
    Ok(format!("by {}: the first {size}, seen {time}", witness.name()))
}

fn prove(arguments: &ProveArguments) -> Result<(), Exit> {
    let folder = open(&arguments.dir)?;
    let index = match (arguments.index, &arguments.request) {
        (Some(index), _) => index,
        (None, Some(request)) => only_record_of(&folder, request)?,
        (None, None) => return Err(Exit::usage(anyhow!("give --index or --request"))),
    };
    let proof = folder.prove(index).map_err(exit)?.to_string();
    let mut new = OpenOptions::new();
    let written = new.write(true).create_new(true).open(&arguments.output);
    written
        .and_then(|mut file| file.write_all(proof.as_bytes()).and_then(|()| file.sync_all()))
        .with_context(|| arguments.output.display().to_string())
        .map_err(Exit::usage)?;
    say!("{}: proves record {index}", arguments.output.display());
    Ok(())
}

/// The record of a request that made exactly one.
fn only_record_of(folder: &AuditFolder, request: &str) -> Result<u64, Exit> {
    let selection = Selection::of_request(request);
    let mut found = Vec::new();
    select::each(folder, 0, &selection, |line, _| found.push(line.index))?;
    match found[..] {
        [index] => Ok(index),
        [] => Err(Exit::failed(anyhow!("no record of a request {request}"))),
        _ => {
            let indexes: Vec<String> = found.iter().map(u64::to_string).collect();
            let indexes = indexes.join(", ");
            Err(Exit::usage(anyhow!(
                "request {request} made several records; choose with --index: {indexes}"
            )))
        }
    }
}

fn check(arguments: &CheckProofArguments) -> Result<(), Exit> {
    let key = parse_key(&arguments.key)?;
    let name = arguments.file.display();
    let bytes = std::fs::read(&arguments.file).with_context(|| name.to_string()).map_err(Exit::usage)?;
    let proof = LogProof::parse(&bytes).with_context(|| name.to_string()).map_err(Exit::failed)?;
    let (record, checkpoint) =
        check_proof(&proof, &key).map_err(|what| Exit::failed(anyhow!("{name} proves nothing: {what}")))?;
    let size = checkpoint.checkpoint().size;
    say!("record {} of {}, under a checkpoint of {size} records:", proof.index, key.name());
    say!("{record}");
    if !has_seal(&record) {
        say!(
            "It has no seal: it was written while the service was locked, by it or by whoever could write its folder, or before there \
             were seals."
        );
    }
    Ok(())
}

fn search(arguments: &SearchArguments) -> Result<(), Exit> {
    let folder = open(&arguments.dir)?;
    select::each(&folder, 0, &arguments.selection, |line, _| say!("{}", select::text(line)))
}

/// What to add where not all of it is signed.
fn unless(is_signed: bool) -> &'static str {
    if is_signed {
        return "";
    }
    "; not all of these records are under a good checkpoint, and whoever can write a folder can have added them"
}

fn replicas(dirs: &[PathBuf]) -> Result<(), Exit> {
    let folders = dirs.iter().map(|dir| open(dir)).collect::<Result<Vec<_>, _>>()?;
    let states = compare(&folders).map_err(Exit::usage)?;
    for (dir, told) in dirs.iter().zip(&states.told) {
        say!("{}: tells of {told} states", dir.display());
    }
    for (place, why) in &states.unverified {
        let dir = dirs[*place].display();
        say!("{dir}: {why}; look with claviger audit verify. Until then what it tells accuses nobody");
    }
    for Fork { number, folders: (one, other), is_signed } in &states.forks {
        let (one, other) = (dirs[*one].display(), dirs[*other].display());
        say!("state {number}: {one} and {other} went apart{}", unless(*is_signed));
    }
    for Back { folders: (one, other), from, told, by_numbers, is_signed } in &states.backs {
        let (one, other) = (dirs[*one].display(), dirs[*other].display());
        let before = if *by_numbers { "" } else { ", by the clocks of both, more than ten minutes before" };
        say!(
            "state {from}: {one} went on from there, and {other} had told of state {told}{before}: what was done since is undone{}",
            unless(*is_signed)
        );
    }
    for (first, last) in &states.missing {
        say!("states {first} to {last}: no log tells of them; one is missing, or was cut off");
    }
    for number in &states.anew {
        say!(
            "state {number}: two operators had accepted that what others knew was given up (record rollback-accepted or present-accepted), and numbers began anew"
        );
    }
    if states.is_one_history() {
        say!("together     one history of {} states", states.known);
        return Ok(());
    }
    Err(Exit::failed(anyhow!("the logs are not one history")))
}

fn open(dir: &Path) -> Result<AuditFolder, Exit> {
    let folder = AuditFolder::new(dir);
    let files = folder.files().map_err(Exit::usage)?;
    if files.is_empty() {
        let dir = dir.display();
        return Err(Exit::usage(anyhow!("{dir} holds no audit log: it is the folder `audit` in state_dir")));
    }
    Ok(folder)
}

fn parse_key(text: &str) -> Result<VerifierKey, Exit> {
    text.parse().with_context(|| format!("--key {text}")).map_err(Exit::usage)
}

fn exit(error: OfflineError) -> Exit {
    match error {
        OfflineError::Unreadable(error) => Exit::usage(error),
        error => Exit::failed(error),
    }
}
