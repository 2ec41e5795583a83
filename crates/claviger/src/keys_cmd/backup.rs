use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::random::Random;
use claviger_keyapi::admin::{self, BackupBegun, BackupPart, BackupReadRequest};
use claviger_keyapi::routes::Empty;
use claviger_keyservice::Config;
use claviger_keyservice::backup::restore::{self, RestoreOptions, RestoreReport};

use super::Operator;
use super::connection::Connection;
use super::state::moment;
use crate::exit::Exit;

/// Take a backup of the running service: its database and its audit log, as they are together now
///
/// The file opens nothing by itself: what it holds is sealed. To restore it takes, by the way the
/// service is unlocked,
///   - recovery shares of one keyset, as many as open it, and the passphrase; or
///   - the unlock shares, as many as unlock it; or
///   - the HSM and its PIN.
/// It holds names of buckets and objects all the same: keep it encrypted.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct BackupArguments {
    /// New file that takes the backup
    file: PathBuf,

    #[command(flatten)]
    operator: Operator,
}

/// Make a service from a backup, on the machine where it is to run
///
/// The configuration's state_dir must hold no service; nor must the database, if it names one. The
/// backup may go into another kind of database than it came from. Every row is checked against the
/// audit log before the service exists.
///
/// The restored service knows nothing of what happened after the backup: repeat every revocation
/// that was made since, before gateways reach it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RestoreArguments {
    /// The backup
    file: PathBuf,

    /// The configuration (TOML) of the service that is to be
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// File of a share, in any form; as many as needed: recovery shares of one keyset if the service
    /// has a passphrase, its unlock shares if it is unlocked by a quorum
    #[arg(long = "share", value_name = "FILE", verbatim_doc_comment)]
    shares: Vec<PathBuf>,

    /// The passphrase that was valid when the backup was made, if the configuration names no file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

pub(super) async fn backup(arguments: BackupArguments) -> Result<(), Exit> {
    if arguments.file.exists() {
        return Err(Exit::usage(anyhow!("{} exists; it is not overwritten", arguments.file.display())));
    }
    let unfinished = unfinished(&arguments.file);
    let mut out = create(&unfinished).map_err(Exit::usage)?;
    let connection = Connection::open(&arguments.operator)?;
    let begun: BackupBegun = connection.ask(admin::BACKUP_BEGIN, &Empty {}).await?;
    let mut len = 0;
    for part in 0.. {
        let request = BackupReadRequest { backup_id: begun.backup_id, part };
        let answer: BackupPart = connection.ask_patiently(admin::BACKUP_READ, &request).await?;
        out.write_all(&answer.bytes.0).map_err(Exit::failed)?;
        len += answer.bytes.0.len();
        if answer.last {
            break;
        }
    }
    out.sync_all().map_err(Exit::failed)?;
    drop(out);
    // Read back: a backup that can't be restored is none.
    let made_ms = restore::check(&unfinished).map_err(Exit::failed)?;
    fs::rename(&unfinished, &arguments.file).map_err(Exit::failed)?;
    say!("{}: {len} bytes, as of {}, read back and whole", arguments.file.display(), moment(made_ms));
    say!("To restore it: claviger keys restore --help");
    Ok(())
}

fn unfinished(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".unfinished");
    PathBuf::from(name)
}

/// Left over from an attempt that was interrupted, it goes.
fn create(path: &Path) -> anyhow::Result<File> {
    if path.exists() {
        fs::remove_file(path).with_context(|| format!("can't remove {}", path.display()))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.with_context(|| format!("can't write {}", path.display()))
}

pub(super) async fn restore(arguments: RestoreArguments) -> Result<(), Exit> {
    let config = Config::load(&arguments.config).map_err(Exit::usage)?;
    let passphrase_file = arguments.passphrase_file.clone().or_else(|| config.passphrase_file.clone());
    let options =
        RestoreOptions { file: arguments.file.clone(), share_files: arguments.shares, passphrase_file };
    let report =
        tokio::task::spawn_blocking(move || run(&config, &options)).await.map_err(Exit::failed)??;
    say!(
        "Restored as of {}: {} rows, {} audit records; all agree.",
        moment(report.made_ms),
        report.rows,
        report.audit_records
    );
    say!("It knows nothing of what happened since. Repeat every revocation before gateways reach it.");
    say!("Next: claviger keyservice --config {}", arguments.config.display());
    Ok(())
}

fn run(config: &Config, options: &RestoreOptions) -> Result<RestoreReport, Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(OsRandom::new(Arc::clone(&clock)).map_err(Exit::failed)?);
    restore::restore(config, options, &clock, &random).map_err(Exit::failed)
}
