//! Records for other systems.

mod cursor;
mod otlp;
mod sender;
mod syslog;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use claviger_audit::{Checkpoint, LogLine, Note};
use claviger_keyservice::ServiceError;
use claviger_keyservice::audit_log::{AuditFolder, Tail};

use self::cursor::{Cursor, Place};
use self::sender::{Destination, Sender, Trouble};
use super::select::{self, Selection};
use crate::exit::Exit;

/// Most records that are sent at once.
const BATCH_MAX: usize = 256;
/// How often a log that is followed is looked at.
const POLL: Duration = Duration::from_millis(500);
/// How long a receiver that is away is left alone, doubled with each attempt up to the second.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The log: the folder `audit` of the service's state_dir, or a copy
    dir: PathBuf,

    /// jsonl: lines as they stand in the log; syslog: RFC 5424, one message a line, the log's line as its text; otlp: OTLP in
    /// JSON, one request a line
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,

    /// Where to, in place of standard output: udp://HOST:PORT, tcp://HOST:PORT or unix:///dev/log for syslog,
    /// http://HOST:PORT or https://… for otlp (/v1/logs if it has no path)
    #[arg(long, value_name = "URL")]
    to: Option<String>,

    /// File that remembers how far it went; made if it is not there
    #[arg(long, value_name = "FILE")]
    cursor: Option<PathBuf>,

    /// Stay, and hand on what is written
    #[arg(long)]
    follow: bool,

    /// Begin with this record; a cursor that is there goes before
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: u64,

    /// HOSTNAME of the syslog messages, host.name of OTLP
    #[arg(long, value_name = "NAME", default_value = "-", value_parser = syslog::hostname)]
    hostname: String,

    #[command(flatten)]
    selection: Selection,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Jsonl,
    Syslog,
    Otlp,
}

/// Records that are sent together, and where the log goes on after them.
struct Batch {
    items: Vec<String>,
    after: Place,
    /// How many on the way were pruned.
    pruned: u64,
}

/// What goes on as long as the command runs.
struct Export<'a> {
    arguments: &'a Arguments,
    folder: AuditFolder,
    tail: Tail,
    cursor: Cursor,
    sender: Sender,
}

pub(super) async fn run(arguments: &Arguments) -> Result<(), Exit> {
    let folder = super::open(&arguments.dir)?;
    let destination = Destination::parse(arguments.to.as_deref(), arguments.format).map_err(Exit::usage)?;
    let cursor = Cursor::open(arguments.cursor.clone(), arguments.from).map_err(Exit::usage)?;
    let mut tail = Tail::new(folder.clone());
    check_place(&mut tail, cursor.place())?;
    if let Some(end) = cursor.unsure() {
        tell(&format!(
            "records {} to {} may have been sent already when the last export was interrupted; they are sent again",
            cursor.place().next,
            end.saturating_sub(1)
        ));
    }
    let sender = Sender::new(destination).map_err(Exit::failed)?;
    Export { arguments, folder, tail, cursor, sender }.run().await
}

impl Export<'_> {
    async fn run(mut self) -> Result<(), Exit> {
        let mut pruned = 0;
        loop {
            let limit = if self.arguments.follow { signed_size(&self.folder)? } else { u64::MAX };
            let batch = self.next_batch(limit)?;
            pruned += batch.pruned;
            if batch.after.next > self.cursor.place().next {
                self.send(batch).await?;
            } else if self.arguments.follow {
                tokio::time::sleep(POLL).await;
            } else {
                break;
            }
        }
        if pruned > 0 {
            tell(&format!("{pruned} records were pruned: what they said can't be handed on any more"));
        }
        Ok(())
    }

    fn next_batch(&mut self, limit: u64) -> Result<Batch, Exit> {
        let mut batch = Batch { items: Vec::new(), after: self.cursor.place().clone(), pruned: 0 };
        let arguments = self.arguments;
        let mut wrong = None;
        while self.tail.next_index() < limit && batch.items.len() < BATCH_MAX && wrong.is_none() {
            let went_on = self.tail.read(|line| {
                batch.after = Place::after(line);
                match line {
                    LogLine::Pruned(_) => batch.pruned += 1,
                    LogLine::Record(record) => match select::chosen(&arguments.selection, record) {
                        Ok(Some(fields)) => batch.items.push(match arguments.format {
                            Format::Jsonl => select::text(record),
                            Format::Syslog => syslog::message(record, &fields, &arguments.hostname),
                            Format::Otlp => otlp::log_record(record, &fields),
                        }),
                        Ok(None) => {}
                        Err(error) => wrong = Some(error),
                    },
                }
                false
            });
            if !went_on.map_err(exit)? {
                break;
            }
        }
        wrong.map_or(Ok(batch), |error| Err(Exit::failed(error)))
    }

    async fn send(&mut self, batch: Batch) -> Result<(), Exit> {
        let messages = match self.arguments.format {
            Format::Otlp if batch.items.is_empty() => Vec::new(),
            Format::Otlp => vec![otlp::request(&batch.items, &self.arguments.hostname)],
            Format::Jsonl | Format::Syslog => batch.items,
        };
        self.cursor.begin(batch.after.next).map_err(Exit::failed)?;
        let mut wait = RETRY;
        loop {
            match self.sender.send(&messages).await {
                Ok(()) => break,
                Err(Trouble::MayPass(error)) if self.arguments.follow => {
                    tell(&format!("{error:#}; trying again in {} s", wait.as_secs()));
                    tokio::time::sleep(wait).await;
                    wait = (2 * wait).min(RETRY_MAX);
                }
                Err(Trouble::MayPass(error) | Trouble::Final(error)) => return Err(Exit::failed(error)),
            }
        }
        self.cursor.done(batch.after).map_err(Exit::failed)
    }
}

/// The log at hand has to be the one that was exported so far.
fn check_place(tail: &mut Tail, place: &Place) -> Result<(), Exit> {
    let Some(last) = place.next.checked_sub(1) else { return Ok(()) };
    let Some(entry) = &place.entry else {
        return tail.seek(place.next).map_err(exit);
    };
    tail.seek(last).map_err(exit)?;
    let mut found = None;
    tail.read(|line| {
        found = Place::after(line).entry;
        false
    })
    .map_err(exit)?;
    match found {
        Some(found) if found == *entry => Ok(()),
        Some(_) => Err(Exit::failed(anyhow!(
            "record {last} is not the one that was handed on last: this is another log, or it was put back to an earlier day and has \
             gone on differently. If that is known, remove the cursor and begin with --from"
        ))),
        None => Err(Exit::failed(anyhow!(
            "records up to {last} were handed on, and this log ends before: it was cut off or put back to an earlier day"
        ))),
    }
}

/// How many records the checkpoint in the folder covers. Not verified: that is for `claviger audit verify`.
fn signed_size(folder: &AuditFolder) -> Result<u64, Exit> {
    let Some(bytes) = folder.checkpoint().map_err(exit)? else { return Ok(0) };
    let parse = || Checkpoint::parse(Note::parse(&bytes).ok()?.text()).ok();
    let checkpoint = parse().context("the checkpoint in its folder is none").map_err(Exit::failed)?;
    Ok(checkpoint.size)
}

fn exit(error: ServiceError) -> Exit {
    match error {
        ServiceError::Audit(_) => Exit::failed(error),
        other => Exit::usage(other),
    }
}

/// On standard error: standard output may be what is read by a machine.
fn tell(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}
