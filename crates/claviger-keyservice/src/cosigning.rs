//! Replicas vouch for each other's logs. Each one, the one that serves and those that stand by, shows its newest checkpoint in the
//! database, with proofs that it continues what others cosigned before. Each other one checks that against the newest checkpoint that
//! it remembers, cosigns it (C2SP tlog-cosignature), remembers it in its own folder, and shows what it signed. Whose log it is keeps
//! that beside it, where an auditor finds it: another machine has seen this log so far, and it was the only one that it ever saw.
//!
//! Nobody believes the database, which is the courier. What contradicts is two checkpoints that this log's key signed and that can't
//! both be true. What does not fit in any other way (older, not signed, without a proof) is not cosigned and accuses nobody: notes say
//! how old the newest cosignature is.
//!
//! ```text
//! witness.key              in the state folder: the seed of the key that cosigns, under the master; on this machine only
//! witnessed/<log>          the newest checkpoint of another replica's log, with this one's cosignature
//! audit/cosigned/<log>     this log's newest checkpoint that the replica with that log cosigned
//! ```
//! All replicas hold the master, and with it the key of every log. So the key that cosigns is in no database: whoever has taken one
//! replica over can sign any log, and can't say in another one's name that it saw it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use claviger_audit::cosignature;
use claviger_audit::memory::Shown;
use claviger_audit::note::NOTE_LEN_MAX;
use claviger_audit::{Hash, LogMemory, Note, SignedCheckpoint, SigningKey, VerifierKey};
use claviger_format::Random;
use claviger_keyapi::admin::ReplicaInfo;
use claviger_keyapi::{Id16, KeyServiceError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::audit_log::{COSIGNED_FOLDER, read_checkpoint};
use crate::audit_record::{Outcome, RequestInfo};
use crate::custody::Master;
use crate::files::{read_secret_bytes, replace};
use crate::ledger::{Rows, Turn};
use crate::log_key::{LogInfo, register_witness, registered, witness_key};
use crate::outside::Evidence;
use crate::service::{Caller, Core};
use crate::store::{Kind, Notice};
use crate::{Config, ServiceError};

const KEY_FILE: &str = "witness.key";
const KEY_FILE_LEN_MAX: usize = 4 << 10;
const WITNESSED_FOLDER: &str = "witnessed";

/// How old the newest cosignature of another replica may be while there is something new, in milliseconds.
const LATE_MS: u64 = 10 * 60 * 1000;

/// When it was looked last, and what was wrong then.
#[derive(Default)]
pub(crate) struct Cosigning(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    looked_boot_ms: Option<u64>,
    seen: Seen,
}

/// What a look found besides what is in order.
#[derive(Default)]
struct Seen {
    /// What contradicts.
    problem: Option<String>,
    /// What keeps logs from being cosigned, and accuses nobody.
    notes: Vec<String>,
}

/// A log's newest checkpoint, and the proof that it continues its first `from` records.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    from: u64,
    checkpoint: String,
    /// In base64.
    proof: Vec<String>,
}

impl Cosigning {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, now_boot_ms: u64, every_ms: u64) -> bool {
        let mut inner = self.inner();
        let is_due = inner.looked_boot_ms.is_none_or(|at| now_boot_ms >= at.saturating_add(every_ms));
        if is_due {
            inner.looked_boot_ms = Some(now_boot_ms);
        }
        is_due
    }

    /// What keeps logs from being cosigned.
    pub(crate) fn notes(&self) -> Vec<String> {
        let inner = self.inner();
        inner.seen.problem.iter().chain(&inner.seen.notes).cloned().collect()
    }

    /// What contradicts, if that was not known.
    fn put(&self, seen: Seen) -> Option<String> {
        let mut inner = self.inner();
        let before = std::mem::replace(&mut inner.seen, seen);
        inner.seen.problem.clone().filter(|_| before.problem != inner.seen.problem)
    }
}

impl Core {
    /// Cosigns what others show and shows what is to be cosigned, now and then. Blocks.
    pub(crate) fn tend_cosigning(&self) {
        let Some(every_ms) = self.config.store.cosign_every_ms() else { return };
        if !self.cosigning.is_due(self.clock.boot_ms(), every_ms) {
            return;
        }
        let mut seen = Seen::default();
        match self.cosign(&mut seen) {
            Ok(()) => {}
            // The database's own troubles are told elsewhere.
            Err(ServiceError::Database(_) | ServiceError::DatabaseSetUp { .. } | ServiceError::Standby) => {
                return;
            }
            Err(error) => {
                tracing::error!(%error, "logs can't be cosigned");
                seen.notes.push(format!("logs can't be cosigned: {error}"));
            }
        }
        if let Some(problem) = self.cosigning.put(seen) {
            self.tell_of_contradiction(problem);
        }
    }

    /// Writes down that two replicas can't both be right.
    pub(crate) fn tell_of_contradiction(&self, text: String) {
        tracing::error!(%text, "the replicas' logs contradict each other");
        let refusal = KeyServiceError::Conflict { text };
        let recorded = self.local_info().and_then(|info| {
            let record = info.record("contradiction", Outcome::Refused).refused_call(&refusal);
            self.audit.append_blocking(vec![record.to_bytes()])
        });
        if let Err(error) = recorded {
            tracing::error!(%error, "a contradiction was not written down");
        }
    }

    /// One look.
    fn cosign(&self, seen: &mut Seen) -> Result<(), ServiceError> {
        let Some(me) = self.log_id() else { return Ok(()) };
        if let Ok(vault) = self.vault() {
            let logs = vault.logs();
            if logs.len() < 2 {
                return Ok(());
            }
            return self.cosign_each_other(&vault.master, me, &logs, seen);
        }
        let Some(master) = self.standby_master() else { return Ok(()) };
        let logs = registered(&master, &Rows::read(&master, &*self.store, &[Kind::Log])?)?;
        self.cosign_each_other(&master, me, &logs, seen)
    }

    fn cosign_each_other(
        &self,
        master: &Master,
        me: Id16,
        logs: &[LogInfo],
        seen: &mut Seen,
    ) -> Result<(), ServiceError> {
        let notices = self.store.notices()?;
        let key = read_witness_key(&self.config, master, me)?;
        let mine = logs.iter().find(|log| log.log_id == me).and_then(|log| log.witness.as_ref());
        if mine.is_some() && mine != key.as_ref().map(SigningKey::verifier) {
            let text = "the key that is registered for what this replica cosigns is not its own: somebody else can cosign in its name, \
                        and what it cosigns itself convinces nobody; remove the replica and let it join again";
            seen.notes.push(text.to_owned());
        }
        for (log, key) in logs.iter().filter(|log| log.log_id != me).zip(key.iter().cycle()) {
            self.cosign_one(log, (me, key), &notices, seen)?;
        }
        self.show_mine(me, logs, &notices, seen)
    }

    fn cosign_one(
        &self,
        log: &LogInfo,
        (me, key): (Id16, &SigningKey),
        notices: &[Notice],
        seen: &mut Seen,
    ) -> Result<(), ServiceError> {
        let path = self.witnessed_path(log);
        let mut mine = read_checkpoint(&path, NOTE_LEN_MAX)?;
        let mut memory = match &mine {
            Some(note) => LogMemory::restore(log.key.clone(), note)
                .map_err(|_| ServiceError::Damaged("checkpoint that was cosigned"))?,
            None => LogMemory::new(log.key.clone()),
        };
        let shown = find(notices, log.log_id, log.log_id).and_then(|body| serde_json::from_slice(body).ok());
        let heads: Vec<Head> = shown.unwrap_or_default();
        if let Some(head) = heads.iter().find(|head| head.from == memory.size()) {
            match believe(&mut memory, log, head) {
                Ok(Shows::Nothing) => {}
                Ok(Shows::Unfit(why)) => seen.notes.push(format!(
                    "what lies in the database of the log of {} is not cosigned, at {} records: {why}; if that stays so, hold the logs \
                     against each other",
                    log.title(),
                    memory.size()
                )),
                Ok(Shows::Newer(newer)) => {
                    let note = cosignature::cosign(&newer, key, self.clock.now_ms() / 1000)
                        .map_err(|error| ServiceError::Audit(error.to_string()))?;
                    let note = note.to_string().into_bytes();
                    // Remembered first: it must never say that it saw two.
                    replace(&path, &note)?;
                    mine = Some(note);
                }
                Err(text) => {
                    let (title, file) = (log.title(), path.display());
                    seen.problem = Some(format!(
                        "the log of {title} is not cosigned any more: {text}; what was cosigned last is {file}"
                    ));
                    return Ok(());
                }
            }
        }
        match mine {
            Some(note) if find(notices, log.log_id, me) != Some(&note) => self.store.put_notice(&Notice {
                log: log.log_id.to_string(),
                author: me.to_string(),
                body: note,
            }),
            _ => Ok(()),
        }
    }

    /// Keeps what others cosigned of this log, and shows its newest checkpoint with proofs from each of those.
    fn show_mine(
        &self,
        me: Id16,
        logs: &[LogInfo],
        notices: &[Notice],
        seen: &mut Seen,
    ) -> Result<(), ServiceError> {
        let Some(key) = self.audit.verifier() else { return Ok(()) };
        let mut sizes = BTreeSet::from([0]);
        for log in logs.iter().filter(|log| log.log_id != me) {
            let Some(body) = find(notices, me, log.log_id) else { continue };
            // Anybody may write there; only what bears both signatures is from there.
            let Some((checkpoint, _)) = cosigned(body, &key, log.witness.as_ref()) else { continue };
            sizes.insert(checkpoint.checkpoint().size);
            if let Some(problem) = self.keep_cosigned(log, &key, checkpoint, body)? {
                seen.problem = Some(problem);
            }
        }
        for log in logs.iter().filter(|log| log.log_id != me) {
            seen.notes.extend(self.is_late(log, &key)?);
        }
        let mut heads = Vec::new();
        for from in sizes {
            let head = self.audit.head(from, Vec::new())?;
            heads.push(Head { from, checkpoint: head.checkpoint, proof: head.proof });
        }
        let body = serde_json::to_vec(&heads).map_err(|_| ServiceError::Damaged("checkpoint"))?;
        if find(notices, me, me) != Some(&body) {
            self.store.put_notice(&Notice { log: me.to_string(), author: me.to_string(), body })?;
        }
        Ok(())
    }

    /// Keeps it if it is newer than what is kept: the database may hold older ones.
    fn keep_cosigned(
        &self,
        log: &LogInfo,
        key: &VerifierKey,
        checkpoint: SignedCheckpoint,
        note: &[u8],
    ) -> Result<Option<String>, ServiceError> {
        let path = self.cosigned_path(&log.log_id.to_string());
        let kept = self.kept(log, key)?;
        if kept.is_some_and(|(kept, _)| kept.checkpoint().size >= checkpoint.checkpoint().size) {
            return Ok(None);
        }
        let whose = format!("the replica {}", log.title());
        let contradiction = self.audit.contradicts(&[Evidence { whose, checkpoint }])?;
        if contradiction.is_none() {
            replace(&path, note)?;
        }
        Ok(contradiction)
    }

    /// The newest checkpoint of this log that this replica cosigned, as it is kept, and when that was, in seconds since 1970.
    fn kept(
        &self,
        log: &LogInfo,
        key: &VerifierKey,
    ) -> Result<Option<(SignedCheckpoint, u64)>, ServiceError> {
        let note = read_checkpoint(&self.cosigned_path(&log.log_id.to_string()), NOTE_LEN_MAX)?;
        Ok(note.and_then(|note| cosigned(&note, key, log.witness.as_ref())))
    }

    /// What to say of a replica that has cosigned nothing for long although there is something new. It may be off; the database may
    /// keep what it cosigns from arriving.
    fn is_late(&self, log: &LogInfo, key: &VerifierKey) -> Result<Option<String>, ServiceError> {
        let kept = self.kept(log, key)?;
        let size = kept.as_ref().map_or(0, |(kept, _)| kept.checkpoint().size);
        let since_ms = kept.map_or(log.since_ms, |(_, time_s)| time_s.saturating_mul(1000));
        let age_ms = self.clock.now_ms().saturating_sub(since_ms);
        let is_late = log.witness.is_some() && size < self.audit.covered() && age_ms > LATE_MS;
        let (title, minutes) = (log.title(), age_ms / 60_000);
        Ok(is_late.then(|| match size {
            0 => format!("the replica {title} has never cosigned this log"),
            _ => format!("the replica {title} cosigned this log {minutes} minutes ago, at {size} records, and not since"),
        }))
    }

    /// Where this replica remembers what it cosigned of that log.
    fn witnessed_path(&self, log: &LogInfo) -> PathBuf {
        self.config.state_dir.join(WITNESSED_FOLDER).join(log.log_id.to_string())
    }

    fn cosigned_path(&self, name: &str) -> PathBuf {
        self.config.audit_folder().join(COSIGNED_FOLDER).join(name)
    }

    /// Checkpoints of this log that other replicas saw, as evidence against an unlock. They vouch for nothing: they lie where rows
    /// and log do, and who puts those back puts them back as well.
    ///
    /// # Errors
    /// Those of the database; [`ServiceError::Io`].
    pub(crate) fn cosigned_evidence(&self, key: &VerifierKey) -> Result<Vec<Evidence>, ServiceError> {
        let Some(me) = self.log_id() else { return Ok(Vec::new()) };
        let of_me = |notice: &Notice| notice.log == me.to_string() && notice.author != me.to_string();
        let in_database = self.store.notices()?.into_iter().filter(of_me);
        let in_database = in_database.map(|notice| ("a replica, in the database,".to_owned(), notice.body));
        let in_folder = self.audit.cosigned()?.into_iter();
        let evidence = in_database.chain(in_folder).filter_map(|(whose, note)| {
            let checkpoint = SignedCheckpoint::open(&note, key).ok()?;
            Some(Evidence { whose, checkpoint })
        });
        Ok(evidence.collect())
    }

    /// Sees to it that what this replica cosigns can be verified, once there are several.
    ///
    /// # Errors
    /// Those of [`Core::commit`]; [`ServiceError::Io`].
    pub(crate) fn register_witness_key(
        &self,
        turn: &Turn<'_>,
        info: &RequestInfo,
    ) -> Result<(), ServiceError> {
        let (vault, logs) = (&turn.vault, turn.vault.logs());
        let mine = self.log_id().and_then(|me| logs.iter().find(|log| log.log_id == me));
        let Some(mine) = mine.filter(|_| logs.len() > 1) else { return Ok(()) };
        let key = match read_witness_key(&self.config, &vault.master, mine.log_id)? {
            Some(key) => key,
            None => make_witness_key(&self.config, &vault.master, mine.log_id, &*self.random)?,
        };
        if mine.witness.as_ref() == Some(key.verifier()) {
            return Ok(());
        }
        let (log, change) = register_witness(&vault.master, vault.ledger().rows(), mine.log_id, &key)?;
        let mut record = info.record("witness-key", Outcome::Done);
        record.subject = Some(key.verifier().to_string());
        self.commit(turn, vec![change], &[record])?;
        vault.put_log(log);
        Ok(())
    }

    /// How many records of this log the replica has cosigned; 0 of one that it never saw.
    pub(crate) fn witnessed_size(&self, log: &LogInfo) -> Result<u64, ServiceError> {
        let path = self.witnessed_path(log);
        let Some(note) = read_checkpoint(&path, NOTE_LEN_MAX)? else { return Ok(0) };
        let memory = LogMemory::restore(log.key.clone(), &note);
        Ok(memory.map_err(|_| ServiceError::Damaged("checkpoint that was cosigned"))?.size())
    }

    pub(crate) fn list_replicas(&self, caller: &Caller) -> Vec<ReplicaInfo> {
        let mine = self.audit.verifier();
        let info = |log: LogInfo| ReplicaInfo {
            is_active: mine.as_deref() == Some(&log.key),
            name: log.replica,
            log_id: log.log_id,
            log_key: log.key.to_string(),
            witness_key: log.witness.map(|key| key.to_string()),
            since_ms: log.since_ms,
        };
        caller.vault.logs().into_iter().map(info).collect()
    }
}

fn find(notices: &[Notice], log: Id16, author: Id16) -> Option<&Vec<u8>> {
    let (log, author) = (log.to_string(), author.to_string());
    notices.iter().find(|notice| notice.log == log && notice.author == author).map(|notice| &notice.body)
}

/// A checkpoint of this log with a good cosignature of this witness, and when that was made, in seconds since 1970.
fn cosigned(
    body: &[u8],
    log: &VerifierKey,
    witness: Option<&VerifierKey>,
) -> Option<(SignedCheckpoint, u64)> {
    let note = Note::parse(body).ok()?;
    let time_s = cosignature::verify(&note, witness?).ok()?;
    Some((SignedCheckpoint::of_note(note, log).ok()?, time_s))
}

/// What somebody put there as the head of a log.
#[derive(Debug)]
enum Shows {
    /// A checkpoint that continues the one that is remembered.
    Newer(SignedCheckpoint),
    /// The one that is remembered.
    Nothing,
    /// Something else, which proves nothing: it is older, or lacks a signature or a proof. Whoever can write the database can put
    /// such a thing there.
    Unfit(String),
}

/// What is shown, held against what is remembered; what it contradicts. Only two checkpoints of one size, both signed with the log's
/// key, do that whatever lies in the database.
fn believe(memory: &mut LogMemory, log: &LogInfo, head: &Head) -> Result<Shows, String> {
    if let (Some(known), Ok(shown)) =
        (memory.newest(), SignedCheckpoint::open(head.checkpoint.as_bytes(), &log.key))
    {
        let (known, shown) = (known.checkpoint(), shown.checkpoint());
        if known.size == shown.size && known.root != shown.root {
            return Err(format!("it has signed two histories of {} records", known.size));
        }
    }
    let proof: Option<Vec<Hash>> = head.proof.iter().map(|hash| Hash::from_base64(hash)).collect();
    // What is no proof proves nothing.
    let proof = proof.unwrap_or_default();
    let shown = Shown { key: &log.key, checkpoint: head.checkpoint.as_bytes(), proof: &proof };
    Ok(match memory.believe(&shown) {
        Ok(is_newer) => memory.newest().filter(|_| is_newer).cloned().map_or(Shows::Nothing, Shows::Newer),
        Err(why) => Shows::Unfit(why.to_string()),
    })
}

/// A fresh key for what this replica cosigns, in its state folder.
///
/// # Errors
/// [`ServiceError::Io`]; no randomness.
pub(crate) fn make_witness_key(
    config: &Config,
    master: &Master,
    log: Id16,
    random: &dyn Random,
) -> Result<SigningKey, ServiceError> {
    let mut seed = Zeroizing::new([0; 32]);
    random.fill(&mut seed[..])?;
    let sealed = master.seal(&seal_name(log), &seed[..], random)?;
    replace(&config.state_dir.join(KEY_FILE), &sealed)?;
    witness_key(log, &seed)
}

/// That key, if there is one.
fn read_witness_key(config: &Config, master: &Master, log: Id16) -> Result<Option<SigningKey>, ServiceError> {
    let path = config.state_dir.join(KEY_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let sealed = read_secret_bytes(&path, KEY_FILE_LEN_MAX)?;
    let opened = master.open(&seal_name(log), &sealed).ok_or(ServiceError::Damaged(KEY_FILE))?;
    let mut seed = Zeroizing::new([0; 32]);
    if opened.len() != seed.len() {
        return Err(ServiceError::Damaged(KEY_FILE));
    }
    seed.copy_from_slice(&opened);
    witness_key(log, &seed).map(Some)
}

fn seal_name(log: Id16) -> String {
    format!("witness/{log}")
}

#[cfg(test)]
mod tests {
    use claviger_audit::LogTree;
    use claviger_audit::note::KeyKind;

    use super::*;

    const A: Id16 = Id16([0xa; 16]);
    const B: Id16 = Id16([0xb; 16]);

    fn log_key() -> SigningKey {
        SigningKey::from_seed("claviger.invalid/log/a", KeyKind::Log, &[1; 32]).unwrap()
    }

    fn log() -> LogInfo {
        let key = log_key().verifier().clone();
        LogInfo { log_id: A, key, witness: None, replica: None, since_ms: 0 }
    }

    /// A checkpoint of so many records, of which those from `forked_at` on are others.
    fn head(size: u64, forked_at: u64) -> Head {
        let mut tree = LogTree::new();
        for n in 0..size {
            tree.push(&[u8::from(n >= forked_at); 32], &mut Vec::new());
        }
        let signed = SignedCheckpoint::sign(size, tree.root(), &log_key()).unwrap();
        Head { from: 0, checkpoint: signed.note().to_string(), proof: Vec::new() }
    }

    #[test]
    fn only_two_checkpoints_of_one_size_contradict_each_other_and_nothing_unproved_is_cosigned() {
        let mut memory = LogMemory::new(log().key);
        let mut shown = |head: Head| believe(&mut memory, &log(), &head);
        assert!(matches!(shown(head(5, 9)), Ok(Shows::Newer(_))));
        assert!(matches!(shown(head(5, 9)), Ok(Shows::Nothing)));
        // Two checkpoints of one size, both with the log's signature, are two histories.
        assert!(shown(head(5, 4)).is_err());
        // What anybody can put there accuses nobody: an older one, one without a proof, one that is none.
        let unsigned = Head { checkpoint: head(6, 9).checkpoint.replace("\n6\n", "\n7\n"), ..head(6, 9) };
        let none = Head { checkpoint: "?".to_owned(), ..head(6, 9) };
        for (n, unfit) in [head(4, 9), head(4, 3), head(6, 9), unsigned, none].into_iter().enumerate() {
            assert!(matches!(shown(unfit), Ok(Shows::Unfit(_))), "{n}");
        }
        let nonsense = Head { proof: vec!["?".to_owned()], ..head(5, 9) };
        assert!(matches!(shown(nonsense), Ok(Shows::Nothing)), "it needs no proof");
        assert_eq!(memory.size(), 5);
    }

    #[test]
    fn only_what_bears_both_signatures_is_kept() {
        let (key, witness) = (log_key(), witness_key(B, &[2; 32]).unwrap());
        let checkpoint = SignedCheckpoint::open(head(3, 9).checkpoint.as_bytes(), key.verifier()).unwrap();
        let note = cosignature::cosign(&checkpoint, &witness, 1_780_000_000).unwrap().to_string();
        let good = |note: &str, by: &SigningKey| {
            cosigned(note.as_bytes(), key.verifier(), Some(by.verifier())).is_some()
        };
        assert!(good(&note, &witness));
        assert!(!good(&note, &witness_key(B, &[3; 32]).unwrap()), "another machine's key");
        assert!(!good(&head(3, 9).checkpoint, &witness), "not cosigned");
        assert!(!good(&note.replace("\n3\n", "\n4\n"), &witness));
        assert!(cosigned(note.as_bytes(), key.verifier(), None).is_none());
    }
}
