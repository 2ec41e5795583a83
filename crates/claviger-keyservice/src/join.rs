//! `claviger keyservice join`: a state folder becomes a replica's of a service that exists. It reads the service's database beside
//! whoever works with it, and changes nothing there: the request that it writes takes two operators.

use std::path::PathBuf;
use std::sync::Arc;

use claviger_env::Clock;
use claviger_format::Random;
use claviger_keyapi::proposals::ReplicaRequest;

use crate::audit_log::{AuditLog, SealKey};
use crate::audit_record::{Outcome, RequestInfo};
use crate::backup::restore::unwrap;
use crate::cosigning::make_witness_key;
use crate::custody::unlock::Stored;
use crate::custody::{Master, paper};
use crate::files::{StateLock, private_folder};
use crate::init::refuse_old_log;
use crate::ledger::{Rows, stored_mark};
use crate::log_key::{check_request, log_key_record, make_request};
use crate::service::tls::replace_locked_tls;
use crate::store::{Kind, location};
use crate::vault::load_authority;
use crate::{Config, ServiceError};

/// Longest name of a replica, in bytes.
const NAME_LEN_MAX: usize = 64;

/// What a replica needs besides its configuration.
#[derive(Debug)]
pub struct JoinOptions {
    /// Its name.
    pub name: String,
    /// Files of unlock shares, in any form, if that is how the service is unlocked.
    pub share_files: Vec<PathBuf>,
    /// The passphrase, if that is how.
    pub passphrase_file: Option<PathBuf>,
}

/// A replica that waits to be registered.
#[derive(Debug)]
pub struct Joined {
    /// What two operators are asked.
    pub request: ReplicaRequest,
    /// What its log is verified with.
    pub log_key: String,
    /// What its cosignatures are verified with.
    pub witness_key: String,
}

/// Makes a replica in `config.state_dir`, and the request that registers its log. Until it is registered it releases nothing.
///
/// # Errors
/// [`ServiceError::AlreadyInitialised`]; [`ServiceError::Question`] without `[store.postgres]`; what keeps the master closed;
/// those of the database.
pub fn join(
    config: &Config,
    options: &JoinOptions,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
) -> Result<Joined, ServiceError> {
    if location::exists(&config.state_dir) {
        return Err(ServiceError::AlreadyInitialised(config.state_dir.clone()));
    }
    check_name(&options.name)?;
    let store = location::look(config, clock)?;
    let shares = options.share_files.iter().map(|path| paper::load(path)).collect::<Result<Vec<_>, _>>()?;
    let unwrapped = unwrap(Stored::load(&*store)?, &shares, options.passphrase_file.as_deref(), config)?;
    let master = Master::new(&unwrapped.secret);
    // What joins releases nothing before it took over, and then it checks all of it.
    let rows = Rows::read(&master, &*store, &[Kind::Service, Kind::Log])?;
    unwrapped.verify(&rows, &*store)?;
    let authority = load_authority(&master, &rows, &*store)?;
    let mark = stored_mark(&master, &*store)?.ok_or(ServiceError::Damaged("ledger"))?;
    private_folder(&config.state_dir)?;
    let _alone = StateLock::take(&config.state_dir)?;
    refuse_old_log(config)?;
    replace_locked_tls(config, &authority, clock.now_ms(), &**random)?;
    let witness = |log| make_witness_key(config, &master, log, &**random);
    let (key, request) = make_request(&master, &options.name, witness, &**random)?;
    // Before anything is written that could be taken for a replica: its name may be taken.
    let registered = check_request(&master, &rows, &request, 0)?.0;
    let mut id = [0u8; 8];
    random.fill(&mut id)?;
    let request_id = format!("{:016x}", u64::from_be_bytes(id));
    let info = RequestInfo { request_id, identity: None, now_ms: clock.now_ms() };
    let mut first = info.record("join", Outcome::Done);
    first.subject = Some(options.name.clone());
    first.set_state(&mark);
    let second = log_key_record(info.record("log-key", Outcome::Done), key.verifier());
    let folder = config.audit_folder();
    let len_max = config.limits.audit_file_len_max;
    let (log, _) = AuditLog::open(&folder, len_max, Arc::clone(random), Arc::clone(clock))?;
    log.seal_with(SealKey::new(master.lines_secret(&request.log_id.0)))?;
    log.append_blocking(vec![first.to_bytes(), second.to_bytes()])?;
    log.copy_checkpoints_to(&config.checkpoint_file);
    log.sign_with(key)?;
    log.stop_signing();
    if log.has_failed() {
        return Err(ServiceError::Audit("its first checkpoint can't be written".into()));
    }
    if let Some(problem) = log.copy_problem() {
        return Err(ServiceError::Question(format!("{problem}\n  remedy: another checkpoint_file")));
    }
    location::join(&config.state_dir, &*store)?;
    let witness_key = registered.witness.map(|key| key.to_string()).unwrap_or_default();
    Ok(Joined { request, log_key: registered.key.to_string(), witness_key })
}

/// A name that can stand in a line.
pub(crate) fn check_name(name: &str) -> Result<(), ServiceError> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    if (1..=NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(good) {
        return Ok(());
    }
    Err(ServiceError::Question(format!("a replica's name has 1 to {NAME_LEN_MAX} of a-z 0-9 - . _")))
}
