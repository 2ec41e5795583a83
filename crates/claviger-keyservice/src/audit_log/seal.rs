//! Seals on lines. A checkpoint covers the log up to a second ago; whoever can write the folder while the service is down could add
//! lines behind it, and the next unlock would sign them. So each line that an unlocked service writes has a MAC at the end of its
//! record, over its index, the entry of the line before it, its salt and the record: nobody else can make one, and none fits another
//! place or another line before it.
//!
//! A locked service has no key. What it writes (that it started, who was refused) has no seal, and decides nothing; whoever can
//! write the folder can write such lines, too. So there is a list of what it writes, field by field; it writes nothing else
//! (`writer`), and nothing else passes without a seal.

use claviger_audit::line::SALT_LEN;
use claviger_audit::pruning::allowed_before;
use claviger_audit::{Line, LogLine};
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use serde::de::IgnoredAny;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::folder::AuditFolder;
use crate::ServiceError;

/// The entry of a line; of the line before the first one it is all zeros.
pub(crate) type Entry = [u8; 32];
/// What stands before the first line.
pub(crate) const NOTHING: Entry = [0; 32];

const SEAL_LEN: usize = 16;
/// Where a record ends without a seal.
const END: &str = "}";
const BEFORE: &str = ",\"seal\":\"";
const AFTER: &str = "\"}";
const SUFFIX_LEN: usize = BEFORE.len() + 2 * SEAL_LEN + AFTER.len();

/// All that a locked service tells of as done. None of it says what is in force.
const DONE_WHILE_LOCKED: [&str; 5] = ["start", "unlock-share", "rollback-accept", "lock", "log-full"];
/// What it refuses, or is told and does not believe.
const REFUSED_WHILE_LOCKED: [&str; 8] = [
    "authenticate",
    "authorise",
    "unlock",
    "unlock-share",
    "activate",
    "contradiction",
    // How many requests and attempts to enrol were refused before it was locked, and had no record of their own.
    "refused",
    "enrol",
];
/// What the record of an unlock says that opens nothing.
pub(crate) const AS_A_STANDBY: &str = "as a standby";

/// The key of one log's seals.
pub(crate) struct SealKey(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKey(redacted)")
    }
}

impl SealKey {
    /// From a secret that only who holds the master can make.
    pub(crate) fn new(secret: Zeroizing<[u8; 32]>) -> Self {
        Self(secret)
    }

    /// The record with its seal; `None` if it is no JSON object with something in it. `before` is the entry of the line before.
    pub(crate) fn seal(
        &self,
        (index, before): (u64, &Entry),
        salt: &[u8; SALT_LEN],
        record: &str,
    ) -> Option<String> {
        let open = record.strip_suffix(END).filter(|open| open.len() > 1)?;
        let mut sealed = String::with_capacity(record.len() + SUFFIX_LEN);
        sealed.push_str(open);
        sealed.push_str(BEFORE);
        let mac = self.mac((index, before), salt, open).finalize().into_bytes();
        mac.iter().take(SEAL_LEN).for_each(|byte| sealed.push_str(&format!("{byte:02x}")));
        sealed.push_str(AFTER);
        Some(sealed)
    }

    /// Over the record, whose end is left out here.
    fn mac(&self, (index, before): (u64, &Entry), salt: &[u8; SALT_LEN], open: &str) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.0[..])
            .expect("HMAC takes a key of any length");
        mac.update(&index.to_be_bytes());
        mac.update(before);
        mac.update(salt);
        mac.update(open.as_bytes());
        mac.update(END.as_bytes());
        mac
    }

    /// Whether this key sealed the line; `None` if it has no seal.
    fn fits(&self, line: &Line<'_>, before: &Entry) -> Option<bool> {
        let (open, suffix) = line.record.split_at_checked(line.record.len().checked_sub(SUFFIX_LEN)?)?;
        let hex = suffix.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
        let Some(seal) = decode(hex) else { return Some(false) };
        Some(self.mac((line.index, before), &line.salt, open).verify_truncated_left(&seal).is_ok())
    }

    /// Whether anything may be concluded from the line: it is sealed. Not from what a locked service writes.
    ///
    /// # Errors
    /// [`ServiceError::Forged`] for what nobody but a forger can have written.
    pub(super) fn decides(&self, line: &Line<'_>, before: &Entry) -> Result<bool, ServiceError> {
        match self.fits(line, before) {
            Some(true) => Ok(true),
            None if is_harmless(line.record) => Ok(false),
            _ => Err(ServiceError::Forged { index: line.index }),
        }
    }
}

fn decode(hex: &str) -> Option<[u8; SEAL_LEN]> {
    let mut seal = [0; SEAL_LEN];
    for (byte, digits) in seal.iter_mut().zip(hex.as_bytes().as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    (hex.len() == 2 * SEAL_LEN).then_some(seal)
}

/// Whether a record without a seal decides nothing: it is one that a locked service writes, with no field besides.
pub(super) fn is_harmless(record: &str) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        action: String,
        outcome: String,
        #[serde(default)]
        what: Option<String>,
        #[serde(rename = "v", default)]
        _v: IgnoredAny,
        #[serde(rename = "time_ms", default)]
        _time_ms: IgnoredAny,
        #[serde(rename = "request_id", default)]
        _request_id: IgnoredAny,
        #[serde(rename = "identity", default)]
        _identity: IgnoredAny,
        #[serde(rename = "reason", default)]
        _reason: IgnoredAny,
        #[serde(rename = "subject", default)]
        _subject: IgnoredAny,
    }
    serde_json::from_str::<Fields>(record).is_ok_and(|fields| {
        let Fields { action, outcome, what, .. } = fields;
        let as_a_standby = what.is_some();
        let is_unlock = action == "unlock";
        what.is_none_or(|what| is_unlock && what == AS_A_STANDBY)
            && match outcome.as_str() {
                "done" => as_a_standby || DONE_WHILE_LOCKED.contains(&action.as_str()),
                "refused" => REFUSED_WHILE_LOCKED.contains(&action.as_str()),
                _ => false,
            }
    })
}

/// The lines behind a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Uncovered {
    /// How many records the checkpoint covers.
    pub(crate) from: u64,
    /// How many records there are.
    pub(crate) end: u64,
    /// From which record on the log's lines are sealed, if they are.
    pub(crate) sealed_from: Option<u64>,
}

/// Whether every record there was written by the service: all that decides something is sealed. Nothing may be pruned there: a
/// checkpoint covers the record that allows it before anything goes. Only where the checkpoint is lost, and these are all lines,
/// sealed records may allow it. Returns a digest of the lines that were read.
///
/// Of a log from before there were seals the lines are taken as they are, but for one that would allow records to be missing: there
/// was no pruning then.
///
/// # Errors
/// [`ServiceError::Forged`]; [`ServiceError::Audit`] for what is not a record; [`ServiceError::Io`].
pub(crate) fn check_lines(
    folder: &AuditFolder,
    lines: Uncovered,
    key: &SealKey,
) -> Result<[u8; 32], ServiceError> {
    let (mut outcome, mut digest) = (Ok(()), Sha256::new());
    // The first and the last pruned line, and before which index the records allow some.
    let (mut gap, mut allowed) = (None, 0);
    let mut before = NOTHING;
    folder.for_each_line(lines.from.saturating_sub(1), |line| {
        let (index, entry) = (line.index(), line.entry());
        let before = std::mem::replace(&mut before, entry);
        if index < lines.from {
            return true;
        }
        if index >= lines.end {
            return false;
        }
        digest.update(entry);
        let is_sealed = lines.sealed_from.is_some_and(|from| index >= from);
        outcome = match line {
            LogLine::Record(line) if is_sealed => key.decides(line, &before).map(|decides| {
                let end = Some(line.record).filter(|_| decides).and_then(allowed_before);
                allowed = allowed.max(end.unwrap_or(0).min(index));
            }),
            LogLine::Pruned(_) if lines.from == 0 => {
                gap = Some((gap.map_or(index, |(first, _)| first), index));
                Ok(())
            }
            LogLine::Record(line) if allowed_before(line.record).is_none() => Ok(()),
            _ => Err(ServiceError::Forged { index }),
        };
        outcome.is_ok()
    })?;
    outcome?;
    match gap {
        Some((first, last)) if last >= allowed => Err(ServiceError::Forged { index: first }),
        _ => Ok(digest.finalize().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DERIVE: &str = "{\"action\":\"derive\",\"outcome\":\"released\"}";

    fn key(byte: u8) -> SealKey {
        SealKey::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_seal_fits_its_record_at_its_place_and_no_other() {
        let salt = [3; SALT_LEN];
        let before = [5; 32];
        let sealed = key(1).seal((7, &before), &salt, DERIVE).unwrap();
        assert!(sealed.starts_with("{\"action\":\"derive\",\"outcome\":\"released\",\"seal\":\""));
        let fits =
            |key: &SealKey, index, salt, record: &str| key.fits(&Line { index, salt, record }, &before);
        assert_eq!(key(1).fits(&Line { index: 7, salt, record: &sealed }, &[6; 32]), Some(false));
        assert_eq!(fits(&key(1), 7, salt, &sealed), Some(true));
        assert_eq!(fits(&key(2), 7, salt, &sealed), Some(false));
        assert_eq!(fits(&key(1), 8, salt, &sealed), Some(false));
        assert_eq!(fits(&key(1), 7, [4; SALT_LEN], &sealed), Some(false));
        assert_eq!(fits(&key(1), 7, salt, DERIVE), None);
        for at in 0..sealed.len() {
            let mut altered = sealed.clone().into_bytes();
            altered[at] ^= 1;
            let altered = String::from_utf8(altered).unwrap();
            assert_ne!(fits(&key(1), 7, salt, &altered), Some(true), "byte {at}");
        }
        for none in ["", "{}", "}", "x", "é"] {
            assert!(
                key(1).seal((7, &before), &salt, none).is_none() && fits(&key(1), 7, salt, none).is_none(),
                "{none}"
            );
        }
    }

    #[test]
    fn nothing_is_pruned_behind_a_checkpoint_and_without_one_only_what_a_sealed_record_allows() {
        let folder = tempfile::tempdir().unwrap();
        let salt = [3; SALT_LEN];
        let line = |index: u64, record: &str| {
            let mut bytes = Vec::new();
            Line { index, salt, record }.write(&mut bytes);
            bytes
        };
        let gap = |index: u64| {
            let mut bytes = Vec::new();
            claviger_audit::Pruned { index, entry: [index.to_le_bytes()[0]; 32] }.write(&mut bytes);
            bytes
        };
        let entry = |line: &[u8]| LogLine::parse(&line[..line.len() - 1]).unwrap().entry();
        let sealed = |index: u64, before: &[u8], record: &str| {
            let before = if before.is_empty() { NOTHING } else { entry(before) };
            line(index, &key(1).seal((index, &before), &salt, record).unwrap())
        };
        let prune = "{\"action\":\"prune\",\"outcome\":\"done\",\"proposal\":\"1\",\"pruned_before\":2}";
        let check = |lines: &[Vec<u8>], from, sealed_from| {
            std::fs::write(folder.path().join(format!("{:020}.jsonl", 0)), lines.concat()).unwrap();
            let lines = Uncovered { from, end: u64::MAX, sealed_from };
            match check_lines(&AuditFolder::new(folder.path()), lines, &key(1)) {
                Ok(_) => None,
                Err(ServiceError::Forged { index }) => Some(index),
                Err(other) => panic!("{other}"),
            }
        };
        let (first, gone) = (sealed(0, b"", DERIVE), gap(1));
        let third = sealed(2, &gone, DERIVE);
        let fourth = sealed(3, &third, prune);
        let allowed = [first.clone(), gone.clone(), third.clone(), fourth];
        assert_eq!(check(&allowed, 0, Some(0)), None);
        assert_eq!(check(&allowed, 1, Some(0)), Some(1), "behind a checkpoint");
        assert_eq!(check(&allowed, 2, Some(0)), None);
        let second = sealed(1, &first, DERIVE);
        let too_much = [first.clone(), second.clone(), gap(2), sealed(3, &gap(2), prune)];
        assert_eq!(check(&too_much, 0, Some(0)), Some(2));
        let unsealed = [first.clone(), gone, third, line(3, prune)];
        assert_eq!(check(&unsealed, 0, Some(0)), Some(3));
        // Of a log from before there were seals, what anybody could have added allows nothing.
        assert_eq!(check(&unsealed, 2, None), Some(3));
        assert_eq!(check(&[line(0, DERIVE), line(1, "{\"n\":1}")], 0, None), None);
        // What anybody can write stands where it was written, and in nobody else's place.
        let refused = line(1, "{\"action\":\"authenticate\",\"outcome\":\"refused\"}");
        let third = sealed(2, &second, DERIVE);
        assert_eq!(check(&[first.clone(), second, third.clone()], 1, Some(0)), None);
        assert_eq!(check(&[first.clone(), refused.clone(), third], 1, Some(0)), Some(2));
        assert_eq!(check(&[first, refused.clone(), sealed(2, &refused, DERIVE)], 1, Some(0)), None);
    }

    #[test]
    fn without_a_seal_only_what_decides_nothing_is_believed() {
        let decided =
            |record: &str| key(1).decides(&Line { index: 0, salt: [0; SALT_LEN], record }, &NOTHING);
        let believed = |record: &str| decided(record).is_ok_and(|decides| !decides);
        for fine in [
            "{\"action\":\"start\",\"outcome\":\"done\"}",
            "{\"action\":\"unlock\",\"outcome\":\"refused\",\"reason\":\"no\"}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\"}",
            "{\"action\":\"unlock\",\"outcome\":\"done\",\"what\":\"as a standby\"}",
            "{\"action\":\"log-full\",\"outcome\":\"done\"}",
            "{\"v\":1,\"time_ms\":2,\"request_id\":\"3\",\"identity\":\"admin:a\",\"action\":\"unlock-share\",\"outcome\":\"refused\",\
             \"reason\":\"no\",\"subject\":\"share 1\"}",
        ] {
            assert!(believed(fine), "{fine}");
        }
        for forged in [
            DERIVE,
            "{\"action\":\"unlock\",\"outcome\":\"done\"}",
            "{\"action\":\"unfreeze\",\"outcome\":\"done\"}",
            "{\"action\":\"start\",\"outcome\":\"done\",\"state_seq\":7,\"state\":\"00\"}",
            "{\"action\":\"start\",\"outcome\":\"released\"}",
            "{\"action\":\"start\",\"action\":\"unfreeze\",\"outcome\":\"done\"}",
            "{\"n\":1}",
            "{\"action\":\"unlock\",\"outcome\":\"done\",\"what\":\"as another\"}",
            "{\"action\":\"lock\",\"outcome\":\"done\",\"what\":\"as a standby\"}",
            "{\"action\":\"freeze\",\"outcome\":\"refused\"}",
            "{\"action\":\"prune\",\"outcome\":\"refused\",\"before_ms\":8,\"pruned_before\":7}",
            // What is refused can't say anything besides.
            "{\"action\":\"authenticate\",\"outcome\":\"refused\",\"before_ms\":8}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\",\"pruned_before\":7}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\",\"rows\":[]}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\",\"retention_s\":1}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\",\"state\":\"00\",\"state_seq\":1}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\",\"epoch_id\":null}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\",\"anything\":1}",
        ] {
            assert!(!believed(forged), "{forged}");
        }
    }
}
