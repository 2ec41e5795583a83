//! The logs of several replicas held against each other. Every change of what the service knows has a number, one sequence for all
//! replicas, and the record that tells of it a digest of everything that is known then. So two logs that tell of different states under one
//! number tell of two services that went apart; and a number that no log tells of is a record that is missing.
//!
//! One replica serves at a time, and each goes on from where the one before it ended (`sessions`). One that goes on from an older state
//! was shown an older database, also where it changed nothing since.
//!
//! What lies behind a log's checkpoint anybody who can write its folder may have added, so that accuses nobody by itself. Nor does
//! anything of a log that does not verify.

use std::collections::{BTreeMap, BTreeSet};

use claviger_audit::VerifierKey;
use serde::Deserialize;

use super::folder::AuditFolder;
use super::sessions::{Back, Sessions, backs};
use crate::ServiceError;

/// What several logs tell together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct States {
    /// Number of the newest state.
    pub newest: u64,
    /// How many states there are of which some log tells.
    pub known: u64,
    /// How many states each log tells of, in the order of the folders.
    pub told: Vec<u64>,
    /// Numbers of states that none of them tells of: the first and the last of each gap.
    pub missing: Vec<(u64, u64)>,
    /// Numbers under which two of them tell of different states, with the places of both folders.
    pub forks: Vec<Fork>,
    /// Replicas that went on from an older state than one that was told of before.
    pub backs: Vec<Back>,
    /// Numbers with which the service began to count anew, because two operators accepted that a history was given up.
    pub anew: Vec<u64>,
    /// Folders, by their places, whose log does not verify, and why.
    pub unverified: Vec<(usize, String)>,
}

impl States {
    /// Whether the logs are one history, and nothing contradicts it.
    #[must_use]
    pub fn is_one_history(&self) -> bool {
        self.forks.is_empty()
            && self.missing.is_empty()
            && self.backs.is_empty()
            && self.unverified.is_empty()
    }
}

/// Two logs that went apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// Number of the state.
    pub number: u64,
    /// The folders, by their places.
    pub folders: (usize, usize),
    /// Whether both records are under the checkpoint that lies in their folder.
    pub is_signed: bool,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    action: String,
    #[serde(default)]
    time_ms: u64,
    #[serde(default)]
    state_seq: Option<u64>,
    #[serde(default)]
    state: Option<String>,
}

/// A record, as far as it tells of states.
pub(super) struct Told<'a> {
    pub(super) action: &'a str,
    pub(super) time_ms: u64,
    pub(super) number: Option<u64>,
    pub(super) is_signed: bool,
}

/// Reads all records of these logs, twice where they have a checkpoint: it counts if it is signed with the key that the log itself names
/// and fits the records. Whether that is the true key is for [`AuditFolder::verify`] to tell, with the key from elsewhere.
///
/// # Errors
/// [`ServiceError::Audit`] for what is not a record; [`ServiceError::Io`].
pub fn compare(folders: &[AuditFolder]) -> Result<States, ServiceError> {
    let mut known: BTreeMap<u64, (String, usize, bool)> = BTreeMap::new();
    let mut states = States::default();
    let mut anew = BTreeSet::new();
    let mut sessions = Vec::new();
    for (place, folder) in folders.iter().enumerate() {
        let (mut told, mut mine) = (BTreeSet::new(), Sessions::default());
        let covered = signed_records(folder)?.unwrap_or_else(|why| {
            states.unverified.push((place, why));
            0
        });
        folder.for_each_record(0, |line| {
            // A record that says nothing of a state is none of ours.
            let Ok(fields) = serde_json::from_str::<Fields>(line.record) else { return true };
            let Fields { action, time_ms, state_seq, state } = fields;
            let is_signed = line.index < covered;
            let state = state_seq.zip(state);
            let number = state.as_ref().map(|(number, _)| *number);
            mine.take(&Told { action: &action, time_ms, number, is_signed });
            let Some((number, state)) = state else { return true };
            if ANEW.contains(&action.as_str()) {
                anew.insert(number);
            }
            let other = known.entry(number).or_insert_with(|| (state.clone(), place, is_signed));
            if other.0 != state {
                let (folders, is_signed) = ((other.1, place), other.2 && is_signed);
                states.forks.push(Fork { number, folders, is_signed });
            }
            // What is signed says it better.
            if is_signed && !other.2 {
                *other = (state, place, true);
            }
            told.insert(number);
            true
        })?;
        states.told.push(told.len() as u64);
        sessions.push(mine);
    }
    states.backs = backs(&sessions);
    states.known = known.len() as u64;
    states.newest = known.keys().next_back().copied().unwrap_or(0);
    states.missing = gaps(known.keys().copied(), &anew);
    states.anew = anew.into_iter().collect();
    Ok(states)
}

/// Records of those who accepted that what others know may be given up; or of a replica that completes what another one began with that.
pub(super) const ANEW: [&str; 3] = ["rollback-accepted", "present-accepted", "complete-anew"];

fn gaps(numbers: impl Iterator<Item = u64>, anew: &BTreeSet<u64>) -> Vec<(u64, u64)> {
    let (mut missing, mut next) = (Vec::new(), 1);
    for number in numbers {
        if number > next && !anew.contains(&number) {
            missing.push((next, number - 1));
        }
        next = number + 1;
    }
    missing
}

/// How many records of a log are under its checkpoint, if that is good; none if it has none.
fn signed_records(folder: &AuditFolder) -> Result<Result<u64, String>, ServiceError> {
    if folder.checkpoint()?.is_none() {
        return Ok(Ok(0));
    }
    // The first: later ones may have been added behind the checkpoint.
    let mut key = None;
    folder.for_each_record(0, |line| {
        key = named_key(line.record);
        key.is_none()
    })?;
    let Some(key) = key else { return Ok(Err("it has a checkpoint, and names no key".to_owned())) };
    let verified = folder.verify(&key, Vec::new());
    Ok(verified.map(|verified| verified.checkpoint.checkpoint().size).map_err(|error| error.to_string()))
}

/// The key that a record says the log is signed with.
fn named_key(record: &str) -> Option<VerifierKey> {
    #[derive(Deserialize)]
    struct Named {
        action: String,
        subject: Option<String>,
    }
    let named: Named = serde_json::from_str(record).ok()?;
    named.subject.filter(|_| named.action == "log-key")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use claviger_audit::SigningKey;
    use claviger_audit::note::KeyKind;
    use claviger_env::SystemClock;

    use super::super::AuditLog;
    use super::*;
    use crate::testing::random;

    fn of_records(records: &[String]) -> (tempfile::TempDir, AuditFolder) {
        let folder = tempfile::tempdir().unwrap();
        let line = |(index, record): (usize, &String)| {
            let mut bytes = Vec::new();
            claviger_audit::Line { index: index as u64, salt: [0; 16], record }.write(&mut bytes);
            bytes
        };
        let text: Vec<u8> = records.iter().enumerate().flat_map(line).collect();
        std::fs::write(folder.path().join("00000000000000000000.jsonl"), text).unwrap();
        let audit = AuditFolder::new(folder.path());
        (folder, audit)
    }

    fn record(action: &str, seq: u64, state: &str) -> String {
        format!("{{\"action\":\"{action}\",\"time_ms\":1,\"state_seq\":{seq},\"state\":\"{state}\"}}")
    }

    fn log(states: &[(u64, &str)]) -> (tempfile::TempDir, AuditFolder) {
        of_records(&states.iter().map(|(seq, state)| record("bind", *seq, state)).collect::<Vec<_>>())
    }

    /// A log of what each record did and the number of the state that it tells of.
    fn acts(acts: &[(&str, u64)]) -> (tempfile::TempDir, AuditFolder) {
        of_records(
            &acts.iter().map(|(action, seq)| record(action, *seq, &format!("{seq}"))).collect::<Vec<_>>(),
        )
    }

    #[test]
    fn logs_that_take_turns_make_one_history() {
        let (_a, first) = log(&[(1, "a"), (2, "b"), (2, "b"), (5, "e")]);
        let (_b, second) = log(&[(2, "b"), (3, "c"), (4, "d"), (5, "e")]);
        let together = compare(&[first, second]).unwrap();
        assert_eq!((together.newest, together.known, together.told.as_slice()), (5, 5, &[3, 4][..]));
        assert!(together.forks.is_empty() && together.missing.is_empty() && together.unverified.is_empty());
        let (_a, first) =
            acts(&[("init", 1), ("bind", 2), ("replaced", 2), ("witness", 4), ("activate", 5), ("bind", 6)]);
        let (_b, second) = acts(&[
            ("join", 1),
            ("witness", 2),
            ("activate", 2),
            ("bind", 3),
            ("lock", 3),
            ("unlock", 3),
            ("bind", 4),
            ("bind", 5),
        ]);
        assert!(compare(&[first, second]).unwrap().is_one_history());
    }

    #[test]
    fn forks_and_gaps_are_found_within_one_log_and_between_several() {
        let (_a, first) = log(&[(1, "a"), (2, "b"), (3, "c"), (3, "x")]);
        let (_b, second) = log(&[(2, "y"), (7, "g")]);
        let together = compare(&[first, second]).unwrap();
        assert_eq!(together.missing, [(4, 6)]);
        let fork = |number, folders| Fork { number, folders, is_signed: false };
        let forks = [fork(3, (0, 0)), fork(2, (0, 1))];
        assert_eq!((together.forks.as_slice(), together.newest), (&forks[..], 7));
        assert!(!together.is_one_history());
    }

    #[test]
    fn who_goes_on_from_an_older_state_than_was_told_of_is_found_though_he_changed_nothing() {
        // The other one made states 6 to 8 in one go, and this one begins at 5: there is no order in which both can be.
        let (_a, first) = acts(&[("init", 1), ("bind", 5), ("freeze", 6), ("policy", 8)]);
        let (_b, second) = acts(&[("join", 3), ("witness", 5), ("activate", 5)]);
        let together = compare(&[first, second]).unwrap();
        let back = &together.backs[0];
        assert_eq!((together.backs.len(), back.folders, back.from, back.told), (1, (1, 0), 5, 8));
        assert!(!back.is_signed && !together.is_one_history());
        // What it witnessed itself.
        let (_b, second) = acts(&[("join", 3), ("witness", 8), ("activate", 5)]);
        assert_eq!(compare(&[second]).unwrap().backs[0].folders, (0, 0));
    }

    #[test]
    fn a_history_that_two_operators_gave_up_leaves_no_gap_and_accuses_nobody() {
        let (_a, first) = acts(&[("init", 1), ("bind", 2), ("bind", 3), ("freeze", 4)]);
        let (_b, second) = acts(&[
            ("join", 2),
            ("witness", 2),
            ("present-accepted", 1_780_000_000_000),
            ("activate", 1_780_000_000_000),
            ("bind", 1_780_000_000_001),
        ]);
        let together = compare(&[first.clone(), second]).unwrap();
        assert_eq!((together.anew.as_slice(), together.known), (&[1_780_000_000_000][..], 6));
        assert!(together.is_one_history(), "{together:?}");
        // The one that began anew died before it wrote that down, and the first one completes it.
        let (_c, third) = acts(&[("join", 2), ("witness", 2), ("complete-anew", 1_780_000_000_000)]);
        let together = compare(&[first, third]).unwrap();
        assert_eq!(together.anew, [1_780_000_000_000]);
        assert!(together.is_one_history(), "{together:?}");
    }

    const NAME: &str = "claviger.invalid/log/00112233445566778899aabbccddeeff";

    /// A log that is signed, as the service leaves it.
    fn signed(state: &str) -> (tempfile::TempDir, AuditFolder) {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::from_seed(NAME, KeyKind::Log, &[1; 32]).unwrap();
        let named = format!("{{\"action\":\"log-key\",\"subject\":\"{}\"}}", key.verifier());
        let log =
            AuditLog::open(&folder.path().join("audit"), 1 << 20, random(), Arc::new(SystemClock)).unwrap().0;
        log.append_blocking(vec![named.into_bytes(), record("bind", 1, state).into_bytes()]).unwrap();
        log.sign_with(key).unwrap();
        log.stop_signing();
        drop(log);
        let audit = AuditFolder::new(&folder.path().join("audit"));
        (folder, audit)
    }

    #[test]
    fn only_what_is_under_a_good_checkpoint_accuses_as_signed() {
        let (_a, first) = signed("a");
        let (b, second) = signed("b");
        let forks = |folders: &[AuditFolder]| {
            let states = compare(folders).unwrap();
            assert_eq!(states.forks.len(), 1);
            (states.forks[0].is_signed, states.unverified.len())
        };
        assert_eq!(forks(&[first.clone(), second.clone()]), (true, 0));
        // Somebody who can write the folder adds a line, and edits the number in the checkpoint.
        let (_c, third) = signed("a");
        let path = b.path().join("audit/00000000000000000000.jsonl");
        let mut text = std::fs::read(&path).unwrap();
        let forged = record("bind", 2, "x");
        claviger_audit::Line { index: 2, salt: [0; 16], record: &forged }.write(&mut text);
        std::fs::write(&path, text).unwrap();
        let note = String::from_utf8(second.checkpoint().unwrap().unwrap()).unwrap();
        std::fs::write(second.checkpoint_path(), note.replacen("\n2\n", "\n3\n", 1)).unwrap();
        assert_eq!(forks(&[first, second]), (false, 1));
        assert!(compare(&[third]).unwrap().is_one_history());
    }
}
