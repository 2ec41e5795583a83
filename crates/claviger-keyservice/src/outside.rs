//! What others remember of the audit log, without which the service unlocks nothing.
//!
//! Database and log vouch for each other; that both were put back to an earlier day only somebody outside can tell. So before an
//! unlock a checkpoint has to be shown that the log's own key signed and that its records bear out: by a gateway, by an
//! operator, or by the file `checkpoint_file`, which the service itself keeps apart from its state folder. If none is, or
//! one tells of records that the log does not have, two operators have to say that this is the log to go on with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use claviger_audit::note::NOTE_LEN_MAX;
use claviger_audit::{Checkpoint, Note, SignedCheckpoint, VerifierKey};
use claviger_keyapi::admin::RollbackAccepted;
use claviger_keyapi::routes::{CheckpointRequest, Empty};
use claviger_keyapi::tls::SpkiHash;
use claviger_keyapi::{Identity, KeyServiceError};
use sha2::{Digest as _, Sha256};

use crate::ServiceError;
use crate::audit_log::read_checkpoint;
use crate::audit_record::{Outcome, Record, RequestInfo, bounded};
use crate::config::Unlock;
use crate::identity::Peer;
use crate::ledger::Rows;
use crate::log_key::{LogKey, stored_verifier};
use crate::policy::{AdminVerb, Policy, PolicyRow};
use crate::service::{Core, Work};
use crate::store::Kind;
use crate::vault::IdentityRow;

/// How long an operator's word counts, on the boot-time clock.
const ACCEPTANCE_TTL_MS: u64 = 15 * 60_000;
/// Longest checkpoint that is taken from a caller, in bytes.
const SHOWN_LEN_MAX: usize = 4 << 10;
/// How many different operators have to accept a rollback.
const OPERATORS_NEEDED: usize = 2;

/// What was shown since the process began, and who accepts that it does not fit.
#[derive(Default)]
pub(crate) struct Outside(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// The newest of each gateway and operator. Signed with the key that stands in the database, whose MAC is checked at unlock.
    shown: BTreeMap<Identity, Note>,
    accepted: Vec<Acceptance>,
    /// Why the last unlock was refused, if it was for this.
    problem: Option<String>,
    /// The service unlocks itself as soon as something else is shown than was when it tried last.
    waits: Option<[u8; 32]>,
    /// Who contradicted the log while it was unlocked.
    told: BTreeMap<Identity, Told>,
}

/// The contradictions of one caller: the first is a record, those in the minute after it are counted.
struct Told {
    boot_ms: u64,
    unrecorded: u64,
}

/// Until a caller's next contradiction is a record again.
const TOLD_EVERY_MS: u64 = 60_000;

struct Acceptance {
    identity: Identity,
    spki: SpkiHash,
    boot_ms: u64,
}

/// A checkpoint of this log, and who shows it.
pub(crate) struct Evidence {
    pub(crate) whose: String,
    pub(crate) checkpoint: SignedCheckpoint,
}

impl Outside {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the service stays locked although its secret was there.
    pub(crate) fn problem(&self) -> Option<String> {
        self.inner().problem.clone()
    }

    /// Someone locked the service: it unlocks nothing by itself any more.
    pub(crate) fn locked(&self) {
        let mut inner = self.inner();
        (inner.waits, inner.problem) = (None, None);
    }

    /// How an unlock ended.
    pub(crate) fn tried<T>(&self, outcome: &Result<T, ServiceError>) {
        let mut inner = self.inner();
        match outcome {
            Ok(_) => *inner = Inner::default(),
            Err(error @ ServiceError::Unvouched { .. }) => inner.problem = Some(error.to_string()),
            Err(_) => {}
        }
    }

    /// A standby's log is borne out. What operators accept may be meant for its takeover.
    pub(crate) fn borne_out(&self) {
        let mut inner = self.inner();
        let accepted = std::mem::take(&mut inner.accepted);
        *inner = Inner { accepted, ..Inner::default() };
    }

    fn accepted(&self, now_boot_ms: u64) -> Vec<(Identity, SpkiHash)> {
        let mut inner = self.inner();
        inner.accepted.retain(|one| now_boot_ms < one.boot_ms.saturating_add(ACCEPTANCE_TTL_MS));
        inner.accepted.iter().map(|one| (one.identity.clone(), one.spki)).collect()
    }

    fn accept(&self, peer: &Peer, boot_ms: u64) {
        let mut inner = self.inner();
        inner.accepted.retain(|one| one.identity != peer.identity);
        inner.accepted.push(Acceptance { identity: peer.identity.clone(), spki: peer.spki, boot_ms });
    }

    /// Whether this contradiction gets a record, and how many came before it without one. Callers are enrolled: there are not many.
    fn to_record(&self, who: &Identity, boot_ms: u64) -> Option<u64> {
        let mut inner = self.inner();
        let told = inner.told.get_mut(who);
        let told = told.filter(|told| boot_ms < told.boot_ms.saturating_add(TOLD_EVERY_MS));
        if let Some(told) = told {
            told.unrecorded += 1;
            return None;
        }
        let before = inner.told.insert(who.clone(), Told { boot_ms, unrecorded: 0 });
        Some(before.map_or(0, |before| before.unrecorded))
    }

    /// Keeps what one shows while the database knows no key that it could be checked with.
    fn keep_unchecked(&self, who: Identity, note: Note) {
        self.inner().shown.entry(who).or_insert(note);
    }

    /// Keeps what one shows if it is more than he showed before.
    fn keep(&self, who: Identity, shown: &SignedCheckpoint) {
        let mut inner = self.inner();
        let size = |note: &Note| Checkpoint::parse(note.text()).map_or(0, |checkpoint| checkpoint.size);
        let known = inner.shown.get(&who).map(size);
        if known.is_none_or(|known| known < shown.checkpoint().size) {
            inner.shown.insert(who, shown.note().clone());
        }
    }
}

impl Core {
    /// A gateway or an operator shows what it remembers.
    pub(crate) fn show_checkpoint(&self, info: &RequestInfo, request: &CheckpointRequest) -> Work<Empty> {
        match self.try_show(info, request) {
            Ok(None) => Work::silent(Ok(Empty {})),
            Ok(Some(contradiction)) => {
                let refusal = KeyServiceError::Conflict { text: contradiction };
                tracing::error!(error = %refusal, identity = ?info.identity, "the audit log is contradicted");
                let unrecorded = info
                    .identity
                    .as_ref()
                    .map_or(Some(0), |who| self.outside.to_record(who, self.clock.boot_ms()));
                let record = unrecorded.map(|count| {
                    let mut record = info.record("contradiction", Outcome::Refused).refused_call(&refusal);
                    record.add_unrecorded(count, "contradictions of the same caller");
                    record
                });
                Work::new(Err(refusal.into()), record.into_iter().collect())
            }
            Err(error) => Work::silent(Err(error)),
        }
    }

    fn try_show(
        &self,
        info: &RequestInfo,
        request: &CheckpointRequest,
    ) -> Result<Option<String>, ServiceError> {
        let malformed = |text: &str| KeyServiceError::Malformed { text: text.to_owned() };
        let bytes = request.checkpoint.as_bytes();
        if bytes.len() > SHOWN_LEN_MAX {
            return Err(malformed("a checkpoint is shorter than that").into());
        }
        let note = Note::parse(bytes).map_err(|error| malformed(&error.to_string()))?;
        let who = info.identity.clone().ok_or(KeyServiceError::Internal)?;
        let is_unlocked = self.vault().is_ok();
        let key = match self.audit.verifier().filter(|_| is_unlocked) {
            Some(key) => Some((*key).clone()),
            None => stored_verifier(&*self.store, self.log_id())?,
        };
        let Some(key) = key else {
            // Somebody remembers a log with a key: then this database is from before it had one.
            self.outside.keep_unchecked(who, note);
            self.unlock_if_vouched();
            return Ok(None);
        };
        // Only what this log's key signed counts: nobody else can make the service wait or stay locked.
        let checkpoint = SignedCheckpoint::of_note(note, &key)
            .map_err(|error| malformed(&format!("not a checkpoint of this service's log: {error}")))?;
        if is_unlocked {
            let evidence = Evidence { whose: who.to_string(), checkpoint };
            return self.audit.contradicts(&[evidence]);
        }
        self.outside.keep(who, &checkpoint);
        self.unlock_if_vouched();
        Ok(None)
    }

    /// An operator says that the log as it is here is to be gone on with. While locked only.
    pub(crate) fn accept_rollback(&self, info: &RequestInfo, peer: Option<&Peer>) -> Work<RollbackAccepted> {
        let Some(peer) = peer else {
            return Work::silent(Err(KeyServiceError::Internal.into()));
        };
        Work::silent(self.try_accept(info, peer))
    }

    fn try_accept(&self, info: &RequestInfo, peer: &Peer) -> Result<RollbackAccepted, ServiceError> {
        if self.vault().is_ok() {
            let text = "the service is unlocked: there is no rollback to accept".to_owned();
            return Err(KeyServiceError::Conflict { text }.into());
        }
        // Written down before it counts.
        let record = info.record("rollback-accept", Outcome::Done);
        self.audit.append_blocking(vec![record.to_bytes()])?;
        let now_boot_ms = self.clock.boot_ms();
        self.outside.accept(peer, now_boot_ms);
        let by = self.outside.accepted(now_boot_ms).into_iter().map(|(identity, _)| identity).collect();
        self.unlock_if_vouched();
        Ok(RollbackAccepted { by, needed: u8::try_from(OPERATORS_NEEDED).unwrap_or(u8::MAX) })
    }

    /// Whether somebody outside bears out the log, with the key that stands in the database under a MAC. The record of an
    /// acceptance, if it took one; whose word counts say these rows. Nothing is written.
    ///
    /// # Errors
    /// [`ServiceError::Unvouched`].
    pub(crate) fn check_outside(
        &self,
        rows: &Rows,
        log: &LogKey,
        info: &RequestInfo,
    ) -> Result<Option<Record>, ServiceError> {
        let evidence = self.evidence(log.verifier())?;
        let is_new = log.unstored.is_some();
        let is_missing = !is_new && evidence.is_empty() && !self.audit.lacks_checkpoint();
        let problem = if is_new {
            self.who_remembers_a_key()?
        } else if self.audit.lacks_checkpoint() {
            Some("the audit log has lost its checkpoint, as if nothing had been signed yet".to_owned())
        } else if is_missing {
            Some("nobody outside has shown a checkpoint of the audit log".to_owned())
        } else {
            self.audit.contradicts(&evidence)?
        };
        // What other replicas saw can contradict; it vouches for nothing.
        let problem = match problem {
            None => self.audit.contradicts(&self.cosigned_evidence(log.verifier())?)?,
            some => some,
        };
        let Some(problem) = problem else { return Ok(None) };
        let record = info.record("rollback-accepted", Outcome::Done);
        self.accepted_by_two(rows, record, problem, remedy_for(is_missing)).map(Some)
    }

    /// Whether two operators say that this replica is to go on with what is here.
    ///
    /// # Errors
    /// [`ServiceError::Tampered`]; a policy that is none.
    pub(crate) fn is_accepted_by_two(&self, rows: &Rows) -> Result<bool, ServiceError> {
        Ok(self.accepting_operators(rows)?.len() >= OPERATORS_NEEDED)
    }

    /// The record of it that they do, in spite of this, filled in.
    ///
    /// # Errors
    /// [`ServiceError::Unvouched`] if not.
    pub(crate) fn accepted_by_two(
        &self,
        rows: &Rows,
        mut record: Record,
        problem: String,
        remedy: &'static str,
    ) -> Result<Record, ServiceError> {
        let by = self.accepting_operators(rows)?;
        if by.len() < OPERATORS_NEEDED {
            return Err(ServiceError::Unvouched { problem, remedy });
        }
        let names: Vec<String> = by.iter().map(ToString::to_string).collect();
        record.subject = Some(names.join(", "));
        record.what = Some(bounded(&problem));
        tracing::warn!(%problem, by = names.join(", "), "operators accepted to go on with what is here");
        Ok(record)
    }

    /// Of a log that would get its key now: whether somebody remembers that it had one.
    fn who_remembers_a_key(&self) -> Result<Option<String>, ServiceError> {
        let file = &self.config.checkpoint_file;
        let is_kept = read_checkpoint(file, NOTE_LEN_MAX)?.is_some().then(|| file.display().to_string());
        let whose = is_kept.or_else(|| self.outside.inner().shown.keys().next().map(ToString::to_string));
        Ok(whose.map(|whose| {
            format!(
                "{whose} remembers an audit log with a key, and the database knows of none: the service was put back to an earlier \
                 state"
            )
        }))
    }

    /// Those whose word counts: in these rows, not revoked, with the certificate that they showed, and with the verb.
    fn accepting_operators(&self, rows: &Rows) -> Result<Vec<Identity>, ServiceError> {
        let policy = match PolicyRow::of(rows)? {
            Some(row) => Arc::new(Policy::parse_text(&row.text)?),
            // Of a release before: the policy is the file.
            None => self.policy.load_full(),
        };
        let rows = rows.values::<IdentityRow>(Kind::Identity)?;
        let counts = |identity: &Identity, spki: SpkiHash| {
            let row = rows.iter().find(|row| row.identity == *identity && row.revoked_ms.is_none());
            row.is_some_and(|row| row.spki == spki || row.previous_spki == Some(spki))
                && policy.allows_operator(identity, AdminVerb::Unlock)
        };
        let accepted = self.outside.accepted(self.clock.boot_ms()).into_iter();
        let by = accepted.filter(|(identity, spki)| counts(identity, *spki)).map(|(identity, _)| identity);
        Ok(by.collect())
    }

    fn evidence(&self, key: &VerifierKey) -> Result<Vec<Evidence>, ServiceError> {
        let shown = self.outside.inner().shown.clone();
        let mut evidence: Vec<Evidence> = shown
            .into_iter()
            .filter_map(|(who, note)| {
                let checkpoint = SignedCheckpoint::of_note(note, key).ok()?;
                Some(Evidence { whose: who.to_string(), checkpoint })
            })
            .collect();
        let path = &self.config.checkpoint_file;
        let Some(bytes) = read_checkpoint(path, NOTE_LEN_MAX)? else { return Ok(evidence) };
        match SignedCheckpoint::open(&bytes, key) {
            Ok(checkpoint) => evidence.push(Evidence { whose: path.display().to_string(), checkpoint }),
            Err(error) => tracing::warn!(file = %path.display(), %error, "vouches for nothing"),
        }
        Ok(evidence)
    }

    /// From now on the service unlocks itself when somebody vouches for its log.
    pub(crate) fn wait_for_voucher(&self) {
        let seen = self.seen();
        self.outside.inner().waits = Some(seen);
    }

    /// If the service waits for a checkpoint, and something was shown since it tried last, it tries again.
    pub(crate) fn unlock_if_vouched(&self) {
        let seen = self.seen();
        {
            let mut inner = self.outside.inner();
            if self.vault().is_ok() || inner.waits.is_none_or(|tried| tried == seen) {
                return;
            }
            inner.waits = Some(seen);
        }
        match self.config.unlock {
            Unlock::PassphraseFile => {
                if let Err(error) = self.unlock_by_file_itself() {
                    tracing::error!(%error, "the service stays locked");
                }
            }
            Unlock::Pkcs11 => self.unlock_by_hsm_itself(),
            Unlock::Operator | Unlock::Quorum => {}
        }
    }

    /// A digest of everything that could make the next attempt end otherwise than the last one.
    fn seen(&self) -> [u8; 32] {
        let file = read_checkpoint(&self.config.checkpoint_file, NOTE_LEN_MAX);
        let accepted = self.outside.accepted(self.clock.boot_ms());
        let mut digest = Sha256::new();
        let mut add = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        add(&file.ok().flatten().unwrap_or_default());
        accepted.iter().for_each(|(identity, _)| add(identity.to_string().as_bytes()));
        self.outside.inner().shown.values().for_each(|note| add(note.to_string().as_bytes()));
        digest.finalize().into()
    }

    /// What to say of a locked service to which no unlock was tried yet.
    pub(crate) fn is_unvouched(&self) -> bool {
        let is_there = read_checkpoint(&self.config.checkpoint_file, NOTE_LEN_MAX);
        self.outside.inner().shown.is_empty() && !matches!(is_there, Ok(Some(_)))
    }
}

fn remedy_for(is_missing: bool) -> &'static str {
    if is_missing {
        "a gateway that ran since shows one by itself; or claviger keys unlock --checkpoint FILE; if nobody has one, two \
         operators: claviger keys unlock --accept-rollback"
    } else {
        "put back the newest database and state folder; if they are lost, two operators: claviger keys unlock \
         --accept-rollback, and then repeat every revocation since"
    }
}
