use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use claviger_env::{Clock, OsRandom, SystemClock};
use claviger_format::random::Random;
use claviger_gateway::key_client::{StoredIdentity, UnsignedIdentity};
use claviger_keyapi::{Identity, Role};
use claviger_keyservice::custody::paper::Form;
use claviger_keyservice::custody::unlock::establish::Method;
use claviger_keyservice::{Config, InitOptions, InitReport, NewOperator, Unlock, init};

use crate::exit::Exit;

/// Make a new key service: its secrets, the recovery shares of its first keyset, its first operators
///
/// Runs on the service's machine, once. It writes
///   - the database in the configuration's state_dir,
///   - what unlocks the service, as the configuration's `unlock` says: a generated passphrase of
///     256 bits, or unlock shares; with an HSM nothing, but the key has to be there already
///     (claviger keys hsm make-key),
///   - N recovery shares, any M of which open everything that was ever sealed under the keyset
///     without this service: they are read back and put together before the command ends. Give
///     each to another person, offline, and empty the folder,
///   - the identities of its first operators, two at least: what matters takes two. Hand each folder
///     to the person who is to be that operator; no one keeps two of them.
/// Nothing is ever overwritten.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// The service's configuration (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// New folder that takes the recovery shares; best on a disk in memory, such as /dev/shm
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

    /// Name of the first keyset
    #[arg(long, value_name = "NAME", default_value = "default")]
    keyset: String,

    /// A first operator and the folder that takes his identity; at least twice. The policy calls him admin:NAME
    #[arg(long, value_name = "NAME=DIR", required = true, value_parser = name_and_folder)]
    operator: Vec<(Identity, PathBuf)>,

    /// The first policy (TOML). From now on it lies in the database, and changing it takes two operators
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,

    /// How long the audit log keeps records of releases before two operators can prune them; at least 90, fixed for ever
    #[arg(long, value_name = "DAYS", default_value_t = 3650)]
    retention_days: u32,

    /// New file that takes the passphrase, if the configuration names none
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    /// With unlock = "quorum": new folder that takes the unlock shares
    #[arg(long, value_name = "DIR")]
    unlock_shares_dir: Option<PathBuf>,

    /// Number of unlock shares
    #[arg(long, value_name = "N", default_value_t = 5)]
    unlock_shares: u8,

    /// How many shares unlock the service (at least 2)
    #[arg(long, value_name = "M", default_value_t = 3)]
    unlock_threshold: u8,
}

fn name_and_folder(text: &str) -> Result<(Identity, PathBuf), String> {
    let (name, folder) = text.split_once('=').ok_or("NAME=DIR, for example first=operators/first")?;
    let identity = Identity::new(Role::Admin, name).map_err(|e| e.to_string())?;
    Ok((identity, PathBuf::from(folder)))
}

pub(super) async fn run(arguments: Arguments) -> Result<(), Exit> {
    let config = Config::load(&arguments.config).map_err(Exit::usage)?;
    for (_, folder) in &arguments.operator {
        if StoredIdentity::exists(folder) {
            return Err(Exit::usage(anyhow!("{} holds an identity already", folder.display())));
        }
    }
    let mut unsigned = Vec::new();
    for _ in &arguments.operator {
        unsigned.push(UnsignedIdentity::generate().map_err(Exit::failed)?);
    }
    let operators = arguments.operator.iter().zip(&unsigned).map(|((identity, _), unsigned)| NewOperator {
        identity: identity.clone(),
        csr: unsigned.csr().to_vec(),
    });
    let options = InitOptions {
        keyset: arguments.keyset.clone(),
        shares: arguments.shares,
        threshold: arguments.threshold,
        shares_dir: arguments.recovery.clone(),
        share_forms: arguments.shares_format.clone(),
        unlock: method(&arguments, &config)?,
        policy: arguments.policy.clone(),
        retention_days: arguments.retention_days,
        operators: operators.collect(),
    };
    let advertise = config.advertise.clone();
    let report =
        tokio::task::spawn_blocking(move || make(&config, &options)).await.map_err(Exit::failed)??;
    for ((unsigned, certificate), (identity, folder)) in
        unsigned.into_iter().zip(&report.operators).zip(&arguments.operator)
    {
        let identity = unsigned.signed(advertise.clone(), identity.clone(), certificate.clone());
        identity.save(folder).map_err(Exit::failed)?;
    }
    announce(&arguments, &report);
    Ok(())
}

fn make(config: &Config, options: &InitOptions) -> Result<InitReport, Exit> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let random: Arc<dyn Random> = Arc::new(OsRandom::new(Arc::clone(&clock)).map_err(Exit::failed)?);
    init(config, options, &clock, &random).map_err(Exit::failed)
}

/// How the service will be unlocked: the configuration says which way, the command line where to.
fn method(arguments: &Arguments, config: &Config) -> Result<Method, Exit> {
    let missing = |text: &str| Exit::usage(anyhow!("{text}"));
    match config.unlock {
        Unlock::PassphraseFile | Unlock::Operator => {
            let file = arguments.passphrase_file.clone().or_else(|| config.passphrase_file.clone());
            let file = file.ok_or_else(|| {
                missing("give --passphrase-file FILE, or passphrase_file in the configuration")
            })?;
            Ok(Method::Passphrase { file })
        }
        Unlock::Quorum => Ok(Method::Quorum {
            shares: arguments.unlock_shares,
            threshold: arguments.unlock_threshold,
            dir: arguments
                .unlock_shares_dir
                .clone()
                .ok_or_else(|| missing("unlock = \"quorum\" needs --unlock-shares-dir DIR"))?,
            forms: arguments.shares_format.clone(),
        }),
        Unlock::Pkcs11 => config
            .pkcs11
            .clone()
            .map(Method::Pkcs11)
            .ok_or_else(|| missing("the configuration has no [pkcs11]")),
    }
}

fn announce(arguments: &Arguments, report: &InitReport) {
    say!("The key service is made. Keyset {}, root {}", arguments.keyset, report.root_fingerprint);
    say!("{} recovery shares were written, read back and put together:", arguments.shares);
    for file in &report.share_files {
        say!("  {}", file.display());
    }
    say!(
        "  Any {} of them open everything. Give each to another person, offline, then empty the folder.",
        arguments.threshold
    );
    match report.unlock_files.as_slice() {
        [] => say!(
            "The service is unlocked by its HSM. Its key has to outlive this machine: back it up as the vendor says."
        ),
        [file] => {
            say!("The passphrase that unlocks the service: {}", file.display());
            say!("  Keep it apart from backups of the state folder: together they are the keys.");
        }
        files => {
            say!("{} unlock shares were written, read back and put together:", arguments.unlock_shares);
            files.iter().for_each(|file| say!("  {}", file.display()));
            say!("  Any {} of them unlock the service after a start.", arguments.unlock_threshold);
        }
    }
    for (identity, folder) in &arguments.operator {
        say!("Operator {identity}: {}", folder.display());
    }
    say!("  Hand each folder to the person who is to be that operator.");
    say!("The audit log's key, for whoever is to check the log: {}", report.log_key);
    say!("  Give it to your auditor now; `claviger audit verify --key` takes it.");
    say!("Certificate authority (SHA-256 of its public key): {}", report.ca_spki);
    say!("Next: claviger keyservice --config {}", arguments.config.display());
}
