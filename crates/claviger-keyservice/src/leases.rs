//! What audit logs tell of leases: epochs whose keys an identity was given since some moment, and whether a log can know all of them.
//!
//! Every replica writes down what it released itself, and no other. So where another one may have served since that moment, the log
//! of the one that answers is not enough: an operator brings copies of the others' logs, read on his machine ([`read_copy`]), or
//! whoever asks goes without them and takes every epoch for leased (decision 032).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use claviger_audit::note::NOTE_LEN_MAX;
use claviger_audit::{LogLine, Note, SignedCheckpoint, VerifierKey};
use claviger_keyapi::admin::LogLeases;
use claviger_keyapi::{Id16, Identity, KeyServiceError};
use serde::Deserialize;

use crate::ServiceError;
use crate::audit_log::offline::OfflineError;
use crate::audit_log::{AS_A_STANDBY, AuditFolder, OwnLines};
use crate::config::LEASE_TTL_S_MAX;
use crate::log_key::LogInfo;
use crate::service::Core;
use crate::vault::Vault;

/// A lease that it got so long before the theft may still have been in its memory.
const LEASE_MS: u64 = (LEASE_TTL_S_MAX as u64) * 1000;
/// Most copies that are brought.
const COPIES_MAX: usize = 64;

#[derive(Deserialize)]
struct Fields {
    time_ms: u64,
    action: String,
    outcome: String,
    #[serde(default)]
    identity: Option<String>,
    #[serde(default)]
    epoch_id: Option<Id16>,
    #[serde(default)]
    subject: Option<String>,
    #[serde(default)]
    what: Option<String>,
    #[serde(default)]
    before_ms: Option<u64>,
}

/// What one log tells, as far as it was read.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Whose keys the identity was given since then.
    pub(crate) epochs: BTreeSet<Id16>,
    /// Replicas that were removed since then.
    removed: BTreeSet<String>,
    /// The newest moment before which the log may lack releases: they were pruned, or an older log was put back.
    lacks_before_ms: u64,
    /// Index and time of the record since which its service releases without a break.
    serves_since: Option<(u64, u64)>,
    /// Why the log can't tell, if it was altered.
    altered: Option<String>,
    /// When the last record was written.
    until_ms: u64,
    next_index: u64,
}

impl Leases {
    /// Reads what was written since the last time; at first the whole log: clocks go back too, so no part of it can be left out by its
    /// time. `theft_ms` is when the identity may have been stolen: leases that it had then count. Only what the service wrote itself
    /// says anything, and a record that is missing is an error.
    pub(crate) fn read_on(
        &mut self,
        log: &OwnLines,
        identity: Option<&Identity>,
        theft_ms: u64,
    ) -> Result<(), ServiceError> {
        let wanted = Wanted::new(identity, theft_ms);
        let from_index = self.next_index;
        log.each_backward(|index, line| {
            if index < from_index {
                return Ok(ControlFlow::Break(()));
            }
            self.look(index, line.map(|line| line.record), &wanted);
            Ok(ControlFlow::Continue(()))
        })
    }

    /// The same for whoever has to go on with what there is: a log that was altered counts as one that was not read.
    pub(crate) fn read_as_far_as_it_goes(
        &mut self,
        log: &OwnLines,
        identity: Option<&Identity>,
        theft_ms: u64,
    ) -> Result<(), ServiceError> {
        match self.read_on(log, identity, theft_ms) {
            Err(ServiceError::Audit(why)) => {
                tracing::error!(why, "the audit log can't tell what was leased");
                self.altered = Some(why);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// The same of another replica's log, all of which was verified.
    fn read_verified(
        &mut self,
        folder: &AuditFolder,
        identity: &Identity,
        theft_ms: u64,
    ) -> Result<(), ServiceError> {
        let wanted = Wanted::new(Some(identity), theft_ms);
        folder.each_line_backward(|path, line| {
            match LogLine::parse(line) {
                Ok(LogLine::Record(line)) => self.look(line.index, Some(line.record), &wanted),
                Ok(LogLine::Pruned(_)) => {}
                Err(error) => return Err(ServiceError::Audit(format!("{}: {error}", path.display()))),
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Looks at the record at an index, the newest first.
    fn look(&mut self, index: u64, record: Option<&str>, wanted: &Wanted) {
        let is_last = index >= self.next_index;
        self.next_index = self.next_index.max(index + 1);
        let Some(record) = record.filter(|record| is_last || matters(record.as_bytes())) else { return };
        let Ok(fields) = serde_json::from_str::<Fields>(record) else { return };
        if is_last {
            self.until_ms = fields.time_ms;
        }
        self.take(index, fields, wanted.name.as_deref(), wanted.since_ms);
    }

    fn take(&mut self, index: u64, record: Fields, name: Option<&str>, since_ms: u64) {
        match (record.action.as_str(), record.outcome.as_str()) {
            ("lease", "released") if record.identity.as_deref() == name && record.time_ms >= since_ms => {
                self.epochs.extend(record.epoch_id);
            }
            ("replica-removed", "done") if record.time_ms >= since_ms => {
                self.removed.insert(record.what.or(record.subject).unwrap_or_default());
            }
            ("prune", "done") => {
                self.lacks_before_ms = self.lacks_before_ms.max(record.before_ms.unwrap_or(u64::MAX));
            }
            ("restore" | "rollback-accepted", "done") => {
                self.lacks_before_ms = self.lacks_before_ms.max(record.time_ms);
            }
            ("unlock" | "activate", "done")
                if record.what.as_deref() != Some(AS_A_STANDBY)
                    && self.serves_since.is_none_or(|(last, _)| last < index) =>
            {
                self.serves_since = Some((index, record.time_ms));
            }
            _ => {}
        }
    }
}

/// Whose leases are asked for, and since when.
struct Wanted {
    name: Option<String>,
    since_ms: u64,
}

impl Wanted {
    fn new(identity: Option<&Identity>, theft_ms: u64) -> Self {
        Self { name: identity.map(ToString::to_string), since_ms: theft_ms.saturating_sub(LEASE_MS) }
    }
}

/// Whether what is asked for can stand in this record: reading each as JSON would take minutes.
fn matters(line: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"action\":\"";
    const ACTIONS: [&[u8]; 7] = [
        b"lease\"",
        b"replica-removed\"",
        b"prune\"",
        b"restore\"",
        b"rollback-accepted\"",
        b"unlock\"",
        b"activate\"",
    ];
    // No field before it has text of a caller's in it.
    let action = line.windows(FIELD.len()).position(|window| window == FIELD);
    action.is_some_and(|at| ACTIONS.iter().any(|action| line[at + FIELD.len()..].starts_with(action)))
}

/// What the copy of another replica's log tells, for [`claviger_keyapi::admin::RevokeRequest`], and when its last record was written, Unix
/// milliseconds. All of it is verified: `keys` are those of the service's logs, of which it has to be one.
///
/// # Errors
/// [`OfflineError`]: it can't be read, does not verify, is none of these, or does not reach back so far.
pub fn read_copy(
    folder: &Path,
    keys: &[VerifierKey],
    identity: &Identity,
    since_ms: u64,
) -> Result<(LogLeases, u64), OfflineError> {
    let folder = AuditFolder::new(folder);
    let bytes = folder.checkpoint()?;
    let bytes =
        bytes.ok_or_else(|| OfflineError::Checkpoint("there is no checkpoint in its folder".into()))?;
    let key = keys.iter().find(|key| SignedCheckpoint::open(&bytes, key).is_ok()).ok_or_else(|| {
        OfflineError::NotThere("it is none of the logs that claviger keys replica list shows".into())
    })?;
    let verified = folder.verify(key, Vec::new())?;
    let mut leases = Leases::default();
    leases.read_verified(&folder, identity, since_ms)?;
    if leases.lacks_before_ms > since_ms.saturating_sub(LEASE_MS) {
        let text =
            "releases of that time were pruned from it, or lost at a restore: it can't tell what was leased";
        return Err(OfflineError::NotThere(text.into()));
    }
    let told = LogLeases {
        checkpoint: verified.checkpoint.note().to_string(),
        epochs: leases.epochs.into_iter().collect(),
        removed: leases.removed.into_iter().collect(),
    };
    Ok((told, leases.until_ms))
}

/// Which logs were read, and which would have to be.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) read: Vec<String>,
    /// Empty: what was read is all that there is.
    pub(crate) unread: Vec<String>,
}

impl Core {
    /// What this replica's log does not tell of the time since `theft_ms`, and the copies do not either; what the copies tell is added to
    /// `leases`.
    pub(crate) fn coverage(
        &self,
        vault: &Vault,
        leases: &mut Leases,
        copies: &[LogLeases],
        theft_ms: u64,
    ) -> Result<Coverage, ServiceError> {
        let since_ms = theft_ms.saturating_sub(LEASE_MS);
        let own = self.audit.verifier();
        let (mine, others): (Vec<LogInfo>, Vec<LogInfo>) =
            vault.logs().into_iter().partition(|log| own.as_deref() == Some(&log.key));
        let mut coverage = Coverage::default();
        let mine = mine.first().map_or_else(|| "this replica".to_owned(), LogInfo::title);
        if let Some(why) = &leases.altered {
            coverage.unread.push(format!("{mine} ({why})"));
        } else if leases.lacks_before_ms > since_ms {
            coverage.unread.push(format!("{mine} (releases of that time were pruned, or lost at a restore)"));
        } else {
            coverage.read.push(mine);
        }
        let mut brought = BTreeSet::new();
        for copy in check_count(copies)? {
            let log = self.log_of_copy(&others, copy)?;
            brought.insert(log.log_id);
            leases.epochs.extend(copy.epochs.iter().copied());
            leases.removed.extend(copy.removed.iter().cloned());
        }
        // It has served without a break: nobody else has. By both clocks: whoever sets the wall clock back before he makes a
        // standby take over must not make it believe that it has served for a day.
        let by_boot_ms = self.clock.now_ms().saturating_sub(vault.open_for_ms(self.clock.boot_ms()));
        let is_alone =
            by_boot_ms <= since_ms && leases.serves_since.is_some_and(|(_, time_ms)| time_ms <= since_ms);
        for log in others {
            if brought.contains(&log.log_id) {
                coverage.read.push(log.title());
            } else if !is_alone {
                coverage.unread.push(log.title());
            }
        }
        if !is_alone {
            let removed = leases.removed.iter().map(|name| format!("{name} (removed since)"));
            coverage.unread.extend(removed);
        }
        Ok(coverage)
    }

    /// The log that this copy is of. It has to reach as far as this replica saw it reach.
    fn log_of_copy<'a>(&self, others: &'a [LogInfo], copy: &LogLeases) -> Result<&'a LogInfo, ServiceError> {
        let malformed = |text: &str| ServiceError::from(KeyServiceError::Malformed { text: text.to_owned() });
        let bytes = copy.checkpoint.as_bytes();
        if bytes.len() > NOTE_LEN_MAX {
            return Err(malformed("a checkpoint is shorter than that"));
        }
        let note = Note::parse(bytes).map_err(|error| malformed(&error.to_string()))?;
        let found = others
            .iter()
            .find_map(|log| Some((log, SignedCheckpoint::of_note(note.clone(), &log.key).ok()?)));
        let (log, checkpoint) = found
            .ok_or_else(|| malformed("that is not a copy of the log of another replica of this service"))?;
        let seen = self.witnessed_size(log)?;
        if checkpoint.checkpoint().size < seen {
            let text = format!(
                "the copy of the log of {} ends with record {}, and this replica saw {seen}: bring a newer copy",
                log.title(),
                checkpoint.checkpoint().size
            );
            return Err(KeyServiceError::Conflict { text }.into());
        }
        Ok(log)
    }
}

fn check_count(copies: &[LogLeases]) -> Result<&[LogLeases], ServiceError> {
    if copies.len() > COPIES_MAX {
        let text = format!("at most {COPIES_MAX} copies of logs at once");
        return Err(KeyServiceError::Malformed { text }.into());
    }
    Ok(copies)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit_log::{BEFORE_ALL, SealKey};

    /// A log of these records, sealed but for those in square brackets.
    fn log(records: &[&str]) -> (tempfile::TempDir, OwnLines) {
        let folder = tempfile::tempdir().unwrap();
        let key = || SealKey::new(zeroize::Zeroizing::new([1; 32]));
        let (mut text, mut before) = (Vec::new(), BEFORE_ALL);
        for (index, record) in (0..).zip(records) {
            let bare = record.strip_prefix('[').and_then(|record| record.strip_suffix(']'));
            let json = format!("{{\"v\":1,\"time_ms\":{}}}", bare.unwrap_or(record));
            let salt = [0; 16];
            let sealed =
                if bare.is_some() { json } else { key().seal((index, &before), &salt, &json).unwrap() };
            let line = claviger_audit::Line { index, salt, record: &sealed };
            line.write(&mut text);
            before = line.entry();
        }
        std::fs::write(folder.path().join("00000000000000000000.jsonl"), text).unwrap();
        let log = OwnLines::new(folder.path(), key(), Some(0));
        (folder, log)
    }

    fn read(records: &[&str], since_ms: u64) -> Leases {
        let mut leases = Leases::default();
        let (_kept, log) = log(records);
        leases.read_on(&log, Some(&"gateway:x".parse().unwrap()), since_ms).unwrap();
        leases
    }

    const EPOCH: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn only_what_was_released_to_this_one_since_then_counts() {
        let lease = |time_ms: u64, who: &str, outcome: &str| {
            format!(
                "{time_ms},\"identity\":\"{who}\",\"action\":\"lease\",\"outcome\":\"{outcome}\",\"epoch_id\":\"{EPOCH}\""
            )
        };
        let counts = |record: String| read(&[&record], 2 * LEASE_MS).epochs.len();
        assert_eq!(counts(lease(LEASE_MS, "gateway:x", "released")), 1, "it may have held it at the theft");
        assert_eq!(counts(lease(LEASE_MS - 1, "gateway:x", "released")), 0);
        assert_eq!(counts(lease(LEASE_MS, "gateway:y", "released")), 0);
        assert_eq!(counts(lease(LEASE_MS, "gateway:x", "refused")), 0);
        // A caller's text that looks like it.
        let text = format!(
            "{LEASE_MS},\"action\":\"derive\",\"outcome\":\"released\",\"key\":\"\\\"action\\\":\\\"lease\\\"\",\"epoch_id\":\"{EPOCH}\""
        );
        assert_eq!(counts(text), 0);
    }

    #[test]
    fn what_anybody_could_add_or_take_away_says_nothing() {
        let lease = format!(
            "{LEASE_MS},\"identity\":\"gateway:x\",\"action\":\"lease\",\"outcome\":\"released\",\"epoch_id\":\"{EPOCH}\""
        );
        let start = format!("[{},\"action\":\"start\",\"outcome\":\"done\"]", 9 * LEASE_MS);
        let (folder, log) = log(&[
            &lease,
            "9,\"action\":\"state\",\"outcome\":\"done\"",
            &start,
            "9,\"action\":\"state\",\"outcome\":\"done\"",
        ]);
        let read = || {
            let mut leases = Leases::default();
            leases.read_on(&log, Some(&"gateway:x".parse().unwrap()), LEASE_MS).map(|()| leases.epochs.len())
        };
        assert_eq!(read().unwrap(), 1);
        let path = folder.path().join("00000000000000000000.jsonl");
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let gap = format!("{{\"index\":0,\"pruned\":\"{}\"}}", "0".repeat(64));
        let harmless = format!(
            "{{\"index\":0,\"salt\":\"{}\",\"record\":{{\"action\":\"start\",\"outcome\":\"done\"}}}}",
            "0".repeat(32)
        );
        for edited in [
            text.replace(first, &harmless),
            text.replace("gateway:x", "gateway:y"),
            text.replace("\"lease\"", "\"leave\""),
            text.replace(first, &gap),
            text.replace(&format!("{first}\n"), ""),
            text.replace("\"start\"", "\"activate\""),
        ] {
            std::fs::write(&path, &edited).unwrap();
            assert!(matches!(read(), Err(ServiceError::Audit(_))), "{edited}");
        }
    }

    #[test]
    fn a_log_says_since_when_its_service_serves_what_it_lost_and_who_was_removed() {
        let leases = read(
            &[
                "5,\"action\":\"unlock\",\"outcome\":\"done\"",
                "6,\"action\":\"unlock\",\"outcome\":\"done\",\"what\":\"as a standby\"",
                "7,\"action\":\"activate\",\"outcome\":\"refused\"",
                "8,\"action\":\"activate\",\"outcome\":\"done\"",
                "[9,\"action\":\"unlock\",\"outcome\":\"refused\"]",
                "10,\"action\":\"prune\",\"outcome\":\"refused\",\"before_ms\":99",
                "11,\"action\":\"prune\",\"outcome\":\"done\",\"before_ms\":3",
                "12,\"action\":\"replica-removed\",\"outcome\":\"done\",\"what\":\"c\"",
                "13,\"action\":\"start\",\"outcome\":\"done\"",
            ],
            0,
        );
        let lacks = |record: &str| read(&[record], 0).lacks_before_ms;
        assert_eq!(lacks("14,\"action\":\"restore\",\"outcome\":\"done\""), 14);
        assert_eq!(lacks("15,\"action\":\"rollback-accepted\",\"outcome\":\"done\""), 15);
        assert_eq!(leases.serves_since, Some((3, 8)));
        assert_eq!((leases.lacks_before_ms, leases.until_ms, leases.next_index), (3, 13, 9));
        assert_eq!(leases.removed.into_iter().collect::<Vec<_>>(), ["c"]);
    }
}
