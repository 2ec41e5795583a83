//! What audit logs tell of leases: epochs whose keys an identity was given since some moment, and whether a log can know all of them.
//!
//! Every replica writes down what it released itself, and no other. So where another one may have served since that moment, the log
//! of the one that answers is not enough: an operator brings copies of the others' logs, read on his machine ([`read_copy`]), or
//! whoever asks goes without them and takes every epoch for leased (decision 032).
//!
//! Whoever sets a service's clock back before he steals leaves records that look older than the theft. So what counts is also where a
//! record stands: one that a younger one precedes has a time that says nothing, and counts as one of the time that is asked for.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::Path;

use claviger_audit::note::NOTE_LEN_MAX;
use claviger_audit::pruning::has_seal;
use claviger_audit::{LogLine, Note, SignedCheckpoint, VerifierKey};
use claviger_keyapi::admin::LogLeases;
use claviger_keyapi::{Id16, Identity, KeyServiceError};
use serde::Deserialize;

use crate::ServiceError;
use crate::audit_log::offline::OfflineError;
use crate::audit_log::{AS_A_STANDBY, AuditFolder, OwnLines};
use crate::config::LEASE_TTL_S_MAX;
use crate::log_key::LogInfo;
use crate::quarantine::SEALING_MS;
use crate::service::Core;
use crate::vault::Vault;

/// A lease that it got so long before the theft may still have been in its memory.
const LEASE_MS: u64 = (LEASE_TTL_S_MAX as u64) * 1000;
/// Records have the times at which their requests came, and a request takes less than this. One that is older by more than a record
/// before it tells that the clock was set back.
const SET_BACK_MS: u64 = 10 * 60_000;
/// Most copies that are brought.
const COPIES_MAX: usize = 64;

#[derive(Deserialize)]
struct Fields {
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
    /// Those of the gateways that were registered since then.
    pub(crate) sealed: BTreeSet<Id16>,
    /// Replicas that were removed since then.
    removed: BTreeSet<String>,
    /// The newest moment before which the log may lack releases: they were pruned, or an older log was put back.
    lacks_before_ms: u64,
    /// Index and time of the record since which its service releases without a break.
    serves_since: Option<(u64, u64)>,
    /// Why the log can't tell, if it was altered or can't be read.
    unread: Option<String>,
    /// When the last record was written.
    until_ms: u64,
    next_index: u64,
    /// The newest time in records before those that are read.
    earlier_ms: u64,
    /// The same of those that were read in this turn.
    latest_ms: u64,
    undecided: Undecided,
}

/// Something of which it matters when it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Event {
    Leased(Id16),
    Sealed(Id16),
    Lost,
    Removed(String),
}

/// What happened before the time that is asked for, by records that no younger one is known to precede yet: the oldest time of each.
#[derive(Debug, Default)]
struct Undecided {
    by_time: BTreeSet<(u64, Event)>,
    times: HashMap<Event, u64>,
}

impl Undecided {
    fn add(&mut self, time_ms: u64, event: Event) {
        let known = self.times.get(&event).copied();
        if known.is_some_and(|known_ms| known_ms <= time_ms) {
            return;
        }
        if let Some(known_ms) = known {
            self.by_time.remove(&(known_ms, event.clone()));
        }
        self.times.insert(event.clone(), time_ms);
        self.by_time.insert((time_ms, event));
    }

    /// One that is older by so much than a record of this time, which precedes it.
    fn overtaken(&mut self, by_ms: u64) -> Option<Event> {
        self.by_time.first().filter(|(time_ms, _)| is_set_back(by_ms, *time_ms))?;
        let (_, event) = self.by_time.pop_first()?;
        self.times.remove(&event);
        Some(event)
    }
}

/// Whether between records of these times, in this order, somebody set the clock back.
fn is_set_back(before_ms: u64, after_ms: u64) -> bool {
    before_ms >= after_ms.saturating_add(SET_BACK_MS)
}

impl Leases {
    /// Reads what was written since the last time; at first the whole log: clocks go back too, so no part of it can be left out by its
    /// time. Only what the service wrote itself says anything, and a record that is missing, also at the end, is an error.
    pub(crate) fn read_on(&mut self, log: &OwnLines, wanted: &Wanted) -> Result<(), ServiceError> {
        let from_index = self.next_index;
        log.each_backward(|index, line| {
            if index < from_index {
                return Ok(ControlFlow::Break(()));
            }
            self.look(index, line.map(|line| line.record), wanted);
            Ok(ControlFlow::Continue(()))
        })?;
        self.earlier_ms = self.earlier_ms.max(self.latest_ms);
        // Nothing that was read later on stands before it.
        self.undecided = Undecided::default();
        Ok(())
    }

    /// The same for whoever has to go on with what there is: a log that was altered, or whose files can't be read, counts as one that
    /// was not read.
    pub(crate) fn read_as_far_as_it_goes(&mut self, log: &OwnLines, wanted: &Wanted) {
        if let Err(error) = self.read_on(log, wanted) {
            tracing::error!(%error, "the audit log can't tell what was leased");
            self.unread = Some(match error {
                ServiceError::Audit(why) => why,
                other => other.to_string(),
            });
        }
    }

    /// Looks at the record at an index, the newest first.
    fn look(&mut self, index: u64, record: Option<&str>, wanted: &Wanted) {
        let is_last = index >= self.next_index;
        self.next_index = self.next_index.max(index + 1);
        let Some((record, time_ms)) = record.and_then(|record| Some((record, time_of(record)?))) else {
            return;
        };
        if is_last {
            self.until_ms = time_ms;
        }
        self.latest_ms = self.latest_ms.max(time_ms);
        while let Some(event) = self.undecided.overtaken(time_ms) {
            self.count(event);
        }
        self.take(index, time_ms, record, wanted);
    }

    /// The same for one who reads a log from its beginning.
    fn look_on(&mut self, index: u64, record: &str, wanted: &Wanted) {
        let Some(time_ms) = time_of(record) else { return };
        self.until_ms = time_ms;
        self.take(index, time_ms, record, wanted);
        self.earlier_ms = self.earlier_ms.max(time_ms);
    }

    fn take(&mut self, index: u64, time_ms: u64, record: &str, wanted: &Wanted) {
        if !matters(record.as_bytes()) {
            return;
        }
        let Ok(fields) = serde_json::from_str::<Fields>(record) else { return };
        match (fields.action.as_str(), fields.outcome.as_str()) {
            ("lease", "released") if fields.identity == wanted.name => {
                let event = fields.epoch_id.map(Event::Leased);
                event.into_iter().for_each(|event| self.happened(time_ms, wanted.since_ms, event));
            }
            ("register-epoch", "done")
                if fields.subject.as_ref().is_some_and(|id| wanted.gateways.contains(id)) =>
            {
                let event = fields.epoch_id.map(Event::Sealed);
                event.into_iter().for_each(|event| self.happened(time_ms, wanted.sealed_since_ms, event));
            }
            ("replica-removed", "done") => {
                let name = fields.what.or(fields.subject).unwrap_or_default();
                self.happened(time_ms, wanted.since_ms, Event::Removed(name));
            }
            ("prune", "done") => {
                self.lacks_before_ms = self.lacks_before_ms.max(fields.before_ms.unwrap_or(u64::MAX));
            }
            ("restore" | "rollback-accepted", "done") => {
                self.lacks_before_ms = self.lacks_before_ms.max(time_ms);
                self.happened(time_ms, u64::MAX, Event::Lost);
            }
            ("unlock" | "activate", "done")
                if fields.what.as_deref() != Some(AS_A_STANDBY)
                    && self.serves_since.is_none_or(|(last, _)| last < index) =>
            {
                self.serves_since = Some((index, time_ms));
            }
            _ => {}
        }
    }

    /// Something happened at this time, by its record; it counts if that may have been since then.
    fn happened(&mut self, time_ms: u64, since_ms: u64, event: Event) {
        if time_ms >= since_ms || is_set_back(self.earlier_ms, time_ms) {
            self.count(event);
        } else {
            self.undecided.add(time_ms, event);
        }
    }

    fn count(&mut self, event: Event) {
        match event {
            Event::Leased(epoch_id) => self.epochs.extend([epoch_id]),
            Event::Sealed(epoch_id) => self.sealed.extend([epoch_id]),
            Event::Removed(name) => self.removed.extend([name]),
            // When it was nobody knows.
            Event::Lost => self.lacks_before_ms = u64::MAX,
        }
    }
}

/// Whose leases are asked for, and since when.
pub(crate) struct Wanted {
    name: Option<String>,
    /// Ids of the gateways, whose epochs are asked for.
    gateways: Vec<String>,
    since_ms: u64,
    sealed_since_ms: u64,
}

impl Wanted {
    /// Of an identity that may have been stolen at `theft_ms`: leases that it had then count. Without one only the log itself is
    /// looked at.
    pub(crate) fn new(identity: Option<&Identity>, gateways: &[Id16], theft_ms: u64) -> Self {
        Self {
            // No lease is without one.
            name: Some(identity.map(ToString::to_string).unwrap_or_default()),
            gateways: gateways.iter().map(ToString::to_string).collect(),
            since_ms: theft_ms.saturating_sub(LEASE_MS),
            sealed_since_ms: theft_ms.saturating_sub(SEALING_MS),
        }
    }
}

/// The time that a record tells.
fn time_of(record: &str) -> Option<u64> {
    const FIELD: &str = "\"time_ms\":";
    // No field before it has text of a caller's in it.
    let (_, rest) = record.split_once(FIELD)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Whether what is asked for can stand in this record: reading each as JSON would take minutes.
fn matters(line: &[u8]) -> bool {
    const FIELD: &[u8] = b"\"action\":\"";
    const ACTIONS: [&[u8]; 8] = [
        b"lease\"",
        b"register-epoch\"",
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
/// milliseconds. All of it is verified: `keys` are those of the service's logs, of which it has to be one. `gateways` are the ids of all
/// enrolments of the identity.
///
/// # Errors
/// [`OfflineError`]: it can't be read, does not verify, is none of these, or does not reach back so far.
pub fn read_copy(
    folder: &Path,
    keys: &[VerifierKey],
    (identity, gateways): (&Identity, &[Id16]),
    since_ms: u64,
) -> Result<(LogLeases, u64), OfflineError> {
    let folder = AuditFolder::new(folder);
    let bytes = folder.checkpoint()?;
    let bytes =
        bytes.ok_or_else(|| OfflineError::Checkpoint("there is no checkpoint in its folder".into()))?;
    let key = keys.iter().find(|key| SignedCheckpoint::open(&bytes, key).is_ok()).ok_or_else(|| {
        OfflineError::NotThere("it is none of the logs that claviger keys replica list shows".into())
    })?;
    let wanted = Wanted::new(Some(identity), gateways, since_ms);
    let (mut leases, mut is_sealed) = (Leases::default(), false);
    // What is read is what is verified: nobody can exchange a file between the two.
    let verified = folder.verify_each(key, Vec::new(), |line| {
        let LogLine::Record(line) = line else { return };
        let has_seal = has_seal(line.record);
        is_sealed |= has_seal;
        if has_seal || !is_sealed {
            leases.look_on(line.index, line.record, &wanted);
        }
    })?;
    if leases.lacks_before_ms > since_ms.saturating_sub(LEASE_MS) {
        let text =
            "releases of that time were pruned from it, or lost at a restore: it can't tell what was leased";
        return Err(OfflineError::NotThere(text.into()));
    }
    let told = LogLeases {
        checkpoint: verified.checkpoint.note().to_string(),
        epochs: leases.epochs.into_iter().collect(),
        sealed: leases.sealed.into_iter().collect(),
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
        if let Some(why) = &leases.unread {
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
            leases.sealed.extend(copy.sealed.iter().copied());
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
    use zeroize::Zeroizing;

    use super::*;
    use crate::audit_log::{BEFORE_ALL, SealKey};

    /// A log of these records, sealed but for those in square brackets.
    fn log(records: &[&str]) -> (tempfile::TempDir, OwnLines) {
        let folder = tempfile::tempdir().unwrap();
        let key = || SealKey::new(Zeroizing::new([1; 32]));
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
        let log = OwnLines::of_folder(folder.path(), key(), Some(0));
        (folder, log)
    }

    fn read(records: &[&str], since_ms: u64) -> Leases {
        let mut leases = Leases::default();
        let (_kept, log) = log(records);
        leases.read_on(&log, &x(since_ms)).unwrap();
        leases
    }

    fn x(theft_ms: u64) -> Wanted {
        Wanted::new(Some(&"gateway:x".parse().unwrap()), &[Id16([7; 16])], theft_ms)
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
    fn what_stands_behind_a_younger_record_counts_whatever_its_time() {
        const DAY_MS: u64 = 86_400_000;
        let released = |time_ms: u64, rest: &str| format!("{time_ms},\"outcome\":\"released\",{rest}");
        let lease = |time_ms: u64| {
            released(
                time_ms,
                &format!("\"identity\":\"gateway:x\",\"action\":\"lease\",\"epoch_id\":\"{EPOCH}\""),
            )
        };
        let sealed = |time_ms: u64| {
            format!(
                "{time_ms},\"action\":\"register-epoch\",\"outcome\":\"done\",\"epoch_id\":\"{EPOCH}\",\"subject\":\"{}\"",
                Id16([7; 16])
            )
        };
        let state = |time_ms: u64| format!("{time_ms},\"action\":\"state\",\"outcome\":\"done\"");
        let counts = |records: &[String], theft_ms: u64| {
            let records: Vec<&str> = records.iter().map(String::as_str).collect();
            let found = read(&records, theft_ms);
            // Read in parts, or from the beginning as a copy is, it comes to the same.
            let (_kept, whole) = log(&records);
            for cut in 0..=records.len() {
                let (_kept, first) = log(&records[..cut]);
                let mut parts = Leases::default();
                parts.read_on(&first, &x(theft_ms)).unwrap();
                parts.read_on(&whole, &x(theft_ms)).unwrap();
                assert_eq!((&parts.epochs, &parts.sealed), (&found.epochs, &found.sealed), "{cut}");
                assert_eq!(parts.lacks_before_ms, found.lacks_before_ms, "{cut}");
            }
            let mut on = Leases::default();
            for (index, record) in (0..).zip(&records) {
                let json = format!("{{\"v\":1,\"time_ms\":{record}}}");
                on.look_on(index, &json, &x(theft_ms));
            }
            assert_eq!((&on.epochs, &on.sealed), (&found.epochs, &found.sealed));
            assert_eq!((on.until_ms, on.lacks_before_ms), (found.until_ms, found.lacks_before_ms));
            (found.epochs.len(), found.sealed.len())
        };
        let theft_ms = 20 * DAY_MS;
        for (event, hit) in [(&lease as &dyn Fn(u64) -> String, (1, 0)), (&sealed, (0, 1))] {
            // Set back by ten days before the theft, and put right after it.
            let set_back = [state(19 * DAY_MS), event(10 * DAY_MS), state(21 * DAY_MS)];
            assert_eq!(counts(&set_back, theft_ms), hit);
            assert_eq!(counts(&set_back[..2], theft_ms), hit, "or never");
            // No clock was set: it was before.
            assert_eq!(
                counts(&[state(9 * DAY_MS), event(10 * DAY_MS), state(21 * DAY_MS)], theft_ms),
                (0, 0)
            );
            // Requests overtake each other.
            assert_eq!(counts(&[state(10 * DAY_MS + SET_BACK_MS - 1), event(10 * DAY_MS)], theft_ms), (0, 0));
            // What anybody can write says nothing of clocks.
            let planted = format!("[{}]", state(90 * DAY_MS));
            assert_eq!(
                read(&[&planted.replace("state", "start"), &event(10 * DAY_MS)], theft_ms).epochs.len(),
                0
            );
        }
        // The oldest of several leases decides, and of what was lost nobody knows when.
        assert_eq!(counts(&[state(19 * DAY_MS), lease(10 * DAY_MS), lease(19 * DAY_MS)], theft_ms), (1, 0));
        let restored = format!("{},\"action\":\"restore\",\"outcome\":\"done\"", 10 * DAY_MS);
        assert_eq!(read(&[&state(19 * DAY_MS), &restored], theft_ms).lacks_before_ms, u64::MAX);
        assert_eq!(read(&[&restored, &state(19 * DAY_MS)], theft_ms).lacks_before_ms, 10 * DAY_MS);
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
        let read = |log: &OwnLines| {
            let mut leases = Leases::default();
            leases.read_on(log, &x(LEASE_MS)).map(|()| leases.epochs.len())
        };
        assert_eq!(read(&log).unwrap(), 1);
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
            text.replace("\"start\"", "\"activate\""),
        ] {
            std::fs::write(&path, &edited).unwrap();
            assert!(matches!(read(&log), Err(ServiceError::Audit(_))), "{edited}");
            // Also if it was edited before the service knew any of it: their seals say so.
            let since_its_start =
                OwnLines::of_folder(folder.path(), SealKey::new(Zeroizing::new([1; 32])), Some(0));
            assert!(matches!(read(&since_its_start), Err(ServiceError::Audit(_))), "{edited}");
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
