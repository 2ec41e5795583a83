//! The logs of several replicas held against each other. Every change of what the service knows has a number, one sequence for all
//! replicas, and the record that tells of it a digest of everything that is known then. So two logs that tell of different states under one
//! number tell of two services that went apart; and a number that no log tells of is a record that is missing.
//!
//! What lies behind a log's checkpoint anybody who can write its folder may have added, so that accuses nobody by itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::folder::AuditFolder;
use super::recovery::covered_records;
use crate::ServiceError;

/// What several logs tell together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct States {
    /// Number of the newest state.
    pub newest: u64,
    /// How many states each log tells of, in the order of the folders.
    pub told: Vec<u64>,
    /// Numbers of states that none of them tells of: the first and the last of each gap.
    pub missing: Vec<(u64, u64)>,
    /// Numbers under which two of them tell of different states, with the places of both folders.
    pub forks: Vec<Fork>,
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
    state_seq: Option<u64>,
    #[serde(default)]
    state: Option<String>,
}

/// Reads all records of these logs. That each log is as it was written is for [`AuditFolder::verify`] to tell.
///
/// # Errors
/// [`ServiceError::Audit`] for what is not a record; [`ServiceError::Io`].
pub fn compare(folders: &[AuditFolder]) -> Result<States, ServiceError> {
    let mut known: BTreeMap<u64, (String, usize, bool)> = BTreeMap::new();
    let mut states = States::default();
    for (place, folder) in folders.iter().enumerate() {
        let (mut told, covered) = (BTreeSet::new(), covered_records(folder)?);
        folder.for_each_record(0, |line| {
            // A record that says nothing of a state is none of ours.
            let fields = serde_json::from_str::<Fields>(line.record).ok();
            if let Some((number, state)) = fields.and_then(|fields| fields.state_seq.zip(fields.state)) {
                let is_signed = line.index < covered;
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
            }
            true
        })?;
        states.told.push(told.len() as u64);
    }
    let mut next = 1;
    for number in known.keys() {
        if *number > next {
            states.missing.push((next, number - 1));
        }
        next = number + 1;
    }
    states.newest = next - 1;
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(states: &[(u64, &str)]) -> (tempfile::TempDir, AuditFolder) {
        let folder = tempfile::tempdir().unwrap();
        let line = |(index, (seq, state)): (usize, &(u64, &str))| {
            let record = format!("{{\"action\":\"bind\",\"state_seq\":{seq},\"state\":\"{state}\"}}");
            let mut bytes = Vec::new();
            claviger_audit::Line { index: index as u64, salt: [0; 16], record: &record }.write(&mut bytes);
            bytes
        };
        let text: Vec<u8> = states.iter().enumerate().flat_map(line).collect();
        std::fs::write(folder.path().join("00000000000000000000.jsonl"), text).unwrap();
        let audit = AuditFolder::new(folder.path());
        (folder, audit)
    }

    #[test]
    fn logs_that_take_turns_make_one_history() {
        let (_a, first) = log(&[(1, "a"), (2, "b"), (2, "b"), (5, "e")]);
        let (_b, second) = log(&[(2, "b"), (3, "c"), (4, "d"), (5, "e")]);
        let together = compare(&[first, second]).unwrap();
        assert_eq!(together, States { newest: 5, told: vec![3, 4], ..States::default() });
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
    }
}
