//! Making a new key service: master, CA, first operators, policy, first keyset with its recovery shares. Ends only after the shares
//! were read back from their files and put together again.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_env::Clock;
use claviger_format::{Random, Root};
use claviger_keyapi::enrol::Certificate;
use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Id16, Identity, Role};
use rustls_pki_types::CertificateDer;

use crate::admin::keysets::{activate, check_keyset_name, check_shares};
use crate::audit_log::AuditLog;
use crate::audit_record::{Outcome, Record, RequestInfo};
use crate::config::Config;
use crate::custody::Master;
use crate::custody::paper::{self, Form, Sheet};
use crate::custody::shamir::{self, Share, root_fingerprint};
use crate::custody::unlock::establish::{Method, establish};
use crate::custody::unlock::{draw_master, store_wraps};
use crate::files::{StateLock, private_folder, read_owned};
use crate::identity::{Authority, Issued};
use crate::keyset::{KeysetRow, keyset_change, prepare_keyset};
use crate::log_key::{LogKey, log_key_record};
use crate::policy::{Policy, PolicyRow};
use crate::service::tls::replace_locked_tls;
use crate::store::location::{self, NewStore};
use crate::store::{Change, Kind, Store};
use crate::vault::{CA_ROW, IdentityRow, META_CA_KEY, row};
use crate::{ServiceError, Unlock, ledger};

/// Shortest retention of the audit log, in days: a theft of keys has to be found in it.
pub const RETENTION_DAYS_MIN: u32 = 90;

/// What a new service is made of.
#[derive(Debug)]
pub struct InitOptions {
    /// First keyset.
    pub keyset: String,
    /// Recovery shares to make of its root.
    pub shares: u8,
    /// How many of them open it.
    pub threshold: u8,
    /// Folder for the shares, a file each in each form; made with mode 0700. To be emptied by hand: the shares belong
    /// offline.
    pub shares_dir: PathBuf,
    /// How the shares are written; at least one form.
    pub share_forms: Vec<Form>,
    /// How the service will be unlocked; has to be what the configuration says.
    pub unlock: Method,
    /// The first policy. Two of the operators must hold the verb `policy` in it.
    pub policy: PathBuf,
    /// How long the audit log keeps records of releases, in days, at least [`RETENTION_DAYS_MIN`]. Fixed for ever.
    pub retention_days: u32,
    /// The first operators, two at least: what matters takes two.
    pub operators: Vec<NewOperator>,
}

/// An operator that a new service begins with.
#[derive(Debug)]
pub struct NewOperator {
    /// Name.
    pub identity: Identity,
    /// His certificate request, DER: his key never comes here.
    pub csr: Vec<u8>,
}

/// What was made.
#[derive(Debug)]
pub struct InitReport {
    /// The operators' certificates, in their order.
    pub operators: Vec<Certificate>,
    /// The hash that enrolment tokens carry.
    pub ca_spki: SpkiHash,
    /// Identity of the first keyset.
    pub keyset_id: Id16,
    /// Stands on its shares.
    pub root_fingerprint: String,
    /// The files of the shares.
    pub share_files: Vec<PathBuf>,
    /// The passphrase's file, or those of the unlock shares.
    pub unlock_files: Vec<PathBuf>,
    /// The audit log's name and public key: what an auditor verifies the log with.
    pub log_key: String,
}

/// Makes a service in `config.state_dir`. Nothing is overwritten: every file must be new. If it fails before the end the
/// service does not exist, and what was written may be deleted.
///
/// # Errors
/// [`ServiceError::AlreadyInitialised`]; [`ServiceError::Share`]; [`ServiceError::Io`]; others.
pub fn init(
    config: &Config,
    options: &InitOptions,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<InitReport, ServiceError> {
    if location::exists(&config.state_dir) {
        return Err(ServiceError::AlreadyInitialised(config.state_dir.clone()));
    }
    check_keyset_name(&options.keyset)?;
    let policy = checked_policy(options)?;
    if options.share_forms.is_empty() {
        return Err(ServiceError::Share("they have to be written in at least one form"));
    }
    check_method(config, &options.unlock)?;
    if options.retention_days < RETENTION_DAYS_MIN {
        let text = format!("the audit log keeps records for {RETENTION_DAYS_MIN} days at least");
        return Err(ServiceError::Question(text));
    }
    private_folder(&config.state_dir)?;
    let _alone = StateLock::take(&config.state_dir)?;
    refuse_old_log(config)?;
    // A service exists only once everything else does.
    let rows = NewStore::begin(config, clock, &**random)?;
    let report = build(config, options, policy, rows.store(), clock, random)?;
    rows.finish()?;
    Ok(report)
}

fn build(
    config: &Config,
    options: &InitOptions,
    policy: String,
    store: &dyn Store,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<InitReport, ServiceError> {
    let now_ms = clock.now_ms();
    let secret = draw_master(&**random)?;
    let (wrap, unlock_files) = establish(&options.unlock, &secret, &config.advertise, &**random)?;
    store_wraps(store, &[&wrap])?;
    let master = Master::new(&secret);
    let (certificate, key) = Authority::generate(&**clock, &**random)?;
    store.set_meta(META_CA_KEY, &master.seal(META_CA_KEY, &key, &**random)?)?;
    let authority = Authority::load(certificate.clone(), &key)?;
    replace_locked_tls(config, &authority, now_ms, &**random)?;
    let (mut keyset, root) =
        prepare_keyset(&master, &options.keyset, options.shares, options.threshold, &**random)?;
    let (share_files, root_fingerprint) = make_shares(options, &mut keyset, &root, &**random)?;
    let operators = options
        .operators
        .iter()
        .map(|operator| enrol(&authority, operator, now_ms, &**random))
        .collect::<Result<Vec<_>, _>>()?;
    let ca = Blob(certificate.to_vec());
    let mut log_key = LogKey::make(&master, &**random)?;
    let verifier = log_key.verifier().to_string();
    let mut changes = vec![
        Change::Put(Kind::Service, row(&master, Kind::Service, CA_ROW, &ca)),
        PolicyRow::first(policy, now_ms).change(&master),
        keyset_change(&master, &keyset),
        wrap.change(&master)?,
    ];
    changes.extend(operators.iter().map(|(operator, _)| {
        Change::Put(Kind::Identity, row(&master, Kind::Identity, &operator.uid.to_string(), operator))
    }));
    changes.extend(log_key.unstored.take());
    let mut record = first_record(options, &**random, now_ms)?;
    store.apply(&ledger::found(&master, changes, &mut record))?;
    begin_log(config, &record, (log_key, &master), clock, random)?;
    Ok(InitReport {
        operators: operators.iter().map(|(_, issued)| certificate_answer(&certificate, issued)).collect(),
        ca_spki: SpkiHash::of_certificate(&certificate).ok_or(ServiceError::Damaged("CA certificate"))?,
        keyset_id: keyset.keyset_id,
        root_fingerprint,
        share_files,
        unlock_files,
        log_key: verifier,
    })
}

/// Nothing is made that its own configuration could not unlock.
fn check_method(config: &Config, method: &Method) -> Result<(), ServiceError> {
    let fits = match (config.unlock, method) {
        (Unlock::PassphraseFile, Method::Passphrase { file }) => {
            config.passphrase_file.as_ref() == Some(file)
        }
        (Unlock::Operator, Method::Passphrase { .. })
        | (Unlock::Quorum, Method::Quorum { .. })
        | (Unlock::Pkcs11, Method::Pkcs11(_)) => true,
        _ => false,
    };
    if fits {
        return Ok(());
    }
    let actual = match config.unlock {
        Unlock::PassphraseFile => "its passphrase_file",
        Unlock::Operator => "a passphrase",
        Unlock::Quorum => "shares",
        Unlock::Pkcs11 => "an HSM",
    };
    let remedy = "say the same on the command line as in the configuration";
    Err(ServiceError::UnlockMethod { actual, asked: "what init was told", remedy })
}

/// Writes the shares and proves them in each form: read back from the files, put together, a test epoch opened.
fn make_shares(
    options: &InitOptions,
    keyset: &mut KeysetRow,
    root: &Root,
    random: &dyn Random,
) -> Result<(Vec<PathBuf>, String), ServiceError> {
    let shares =
        shamir::split(root.secret(), root.keyset_id(), 1, options.threshold, options.shares, random)?;
    private_folder(&options.shares_dir)?;
    let mut files = Vec::new();
    for form in &options.share_forms {
        let mut written = Vec::new();
        for share in &shares {
            written.extend(Sheet::new(share, &options.keyset).write(&options.shares_dir, &[*form])?);
        }
        let read_back = written.iter().map(|path| paper::load(path)).collect::<Result<Vec<_>, _>>()?;
        check_shares(root, options.shares, &read_back, random)?;
        files.append(&mut written);
    }
    activate(keyset, &shares.first().map(Share::set_text).unwrap_or_default());
    let fingerprint = root_fingerprint(root.public_key()?.as_bytes());
    Ok((files, fingerprint.iter().map(|b| format!("{b:02x}")).collect()))
}

/// Two operators at least, by different names, who can change the policy.
fn checked_policy(options: &InitOptions) -> Result<String, ServiceError> {
    let mut names: Vec<Identity> =
        options.operators.iter().map(|operator| operator.identity.clone()).collect();
    names.sort();
    names.dedup();
    let sound = names.len() == options.operators.len() && names.iter().all(|name| name.role() == Role::Admin);
    if !sound || names.len() < 2 {
        let text = "a service begins with two operators at least, admin: and different names".to_owned();
        return Err(ServiceError::Question(text));
    }
    let text = read_owned(&options.policy)?;
    Policy::parse(&options.policy, &text)?.check_changeable(&names)?;
    Ok(text)
}

fn enrol(
    authority: &Authority,
    operator: &NewOperator,
    now_ms: u64,
    random: &dyn Random,
) -> Result<(IdentityRow, Issued), ServiceError> {
    let issued = authority.issue_client(&operator.csr, &operator.identity, now_ms, random)?;
    Ok((IdentityRow::new(operator.identity.clone(), Vec::new(), &issued, now_ms, random)?, issued))
}

fn certificate_answer(ca: &CertificateDer<'static>, issued: &Issued) -> Certificate {
    Certificate {
        certificate: Blob(issued.certificate.to_vec()),
        ca: Blob(ca.to_vec()),
        gateway_id: Id16([0; 16]),
        not_before_ms: issued.not_before_ms,
        not_after_ms: issued.not_after_ms,
    }
}

fn first_record(options: &InitOptions, random: &dyn Random, now_ms: u64) -> Result<Record, ServiceError> {
    let mut id = [0u8; 8];
    random.fill(&mut id)?;
    let request_id = format!("{:016x}", u64::from_be_bytes(id));
    let info = RequestInfo { request_id, identity: None, now_ms };
    let mut record = info.record("init", Outcome::Done);
    record.keyset = Some(options.keyset.clone());
    record.retention_s = Some(u64::from(options.retention_days) * 86_400);
    let names: Vec<String> = options.operators.iter().map(|operator| operator.identity.to_string()).collect();
    record.subject = Some(names.join(", "));
    Ok(record)
}

/// The log's first records and its first checkpoint.
fn begin_log(
    config: &Config,
    first: &Record,
    (log_key, master): (LogKey, &Master),
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<(), ServiceError> {
    let folder = config.audit_folder();
    let len_max = config.limits.audit_file_len_max;
    let (log, _) = AuditLog::open(&folder, len_max, Arc::clone(random), Arc::clone(clock))?;
    let second = log_key_record(first.same_request("log-key", Outcome::Done), log_key.verifier());
    log.seal_with(log_key.seal_key(master))?;
    log.append_blocking(vec![first.to_bytes(), second.to_bytes()])?;
    log.copy_checkpoints_to(&config.checkpoint_file);
    log.sign_with(log_key.key)?;
    log.stop_signing();
    if log.has_failed() {
        return Err(ServiceError::Audit("its first checkpoint can't be written".into()));
    }
    if let Some(problem) = log.copy_problem() {
        return Err(ServiceError::Question(format!("{problem}\n  remedy: another checkpoint_file")));
    }
    Ok(())
}

/// A new service begins a new log: records of another one would be taken for its own.
pub(crate) fn refuse_old_log(config: &Config) -> Result<(), ServiceError> {
    let folder = config.audit_folder();
    match std::fs::read_dir(&folder).map(|mut entries| entries.next().is_some()) {
        Ok(false) => {}
        Ok(true) => {
            return Err(ServiceError::Audit(format!(
                "{} holds a log already; it is never overwritten nor gone on with: move it away",
                folder.display()
            )));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(ServiceError::io(&folder, error)),
    }
    if config.checkpoint_file.exists() {
        let file = config.checkpoint_file.display();
        let text = format!(
            "{file} is a checkpoint of another log, or its only copy: move it away, or choose another checkpoint_file"
        );
        return Err(ServiceError::Question(text));
    }
    Ok(())
}
