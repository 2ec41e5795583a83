//! Seals on lines. A checkpoint covers the log up to a second ago; whoever can write the folder while the service is down could add
//! lines behind it, and the next unlock would sign them. So each line that an unlocked service writes has a MAC at the end of its
//! record, over its index, its salt and the record: nobody else can make one, and none fits another place.
//!
//! A locked service has no key. What it writes (that it started, who was refused) has no seal, and decides nothing; whoever can
//! write the folder can write such lines, too.

use std::ops::ControlFlow;

use claviger_audit::LogLine;
use claviger_audit::line::SALT_LEN;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::folder::AuditFolder;
use crate::ServiceError;

const SEAL_LEN: usize = 16;
/// Where a record ends without a seal.
const END: &str = "}";
const BEFORE: &str = ",\"seal\":\"";
const AFTER: &str = "\"}";
const SUFFIX_LEN: usize = BEFORE.len() + 2 * SEAL_LEN + AFTER.len();

/// Besides what is refused, all that a locked service tells of. None of it says what is in force.
const WHILE_LOCKED: [&str; 5] = ["start", "unlock-share", "rollback-accept", "lock", "log-full"];
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

    /// The record with its seal; `None` if it is no JSON object with something in it.
    pub(super) fn seal(&self, index: u64, salt: &[u8; SALT_LEN], record: &str) -> Option<String> {
        let open = record.strip_suffix(END).filter(|open| open.len() > 1)?;
        let mut sealed = String::with_capacity(record.len() + SUFFIX_LEN);
        sealed.push_str(open);
        sealed.push_str(BEFORE);
        let mac = self.mac(index, salt, record).finalize().into_bytes();
        mac.iter().take(SEAL_LEN).for_each(|byte| sealed.push_str(&format!("{byte:02x}")));
        sealed.push_str(AFTER);
        Some(sealed)
    }

    fn mac(&self, index: u64, salt: &[u8; SALT_LEN], record: &str) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.0[..])
            .expect("HMAC takes a key of any length");
        mac.update(&index.to_be_bytes());
        mac.update(salt);
        mac.update(record.as_bytes());
        mac
    }

    /// Whether this key sealed the line; `None` if it has no seal.
    fn fits(&self, line: &claviger_audit::Line<'_>) -> Option<bool> {
        let (open, suffix) = line.record.split_at_checked(line.record.len().checked_sub(SUFFIX_LEN)?)?;
        let hex = suffix.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
        let Some(seal) = decode(hex) else { return Some(false) };
        let record = format!("{open}{END}");
        Some(self.mac(line.index, &line.salt, &record).verify_truncated_left(&seal).is_ok())
    }

    /// Whether the service wrote this line, as far as that can be told.
    fn is_genuine(&self, line: &claviger_audit::Line<'_>) -> bool {
        self.fits(line).unwrap_or_else(|| is_harmless(line.record))
    }
}

fn decode(hex: &str) -> Option<[u8; SEAL_LEN]> {
    let mut seal = [0; SEAL_LEN];
    for (byte, digits) in seal.iter_mut().zip(hex.as_bytes().as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    (hex.len() == 2 * SEAL_LEN).then_some(seal)
}

/// Whether a record without a seal decides nothing.
pub(super) fn is_harmless(record: &str) -> bool {
    #[derive(Deserialize)]
    struct Fields {
        action: String,
        outcome: String,
        what: Option<String>,
        state: Option<String>,
        state_seq: Option<u64>,
    }
    serde_json::from_str::<Fields>(record).is_ok_and(|fields| {
        let action = fields.action.as_str();
        let is_of_a_standby = action == "unlock" && fields.what.as_deref() == Some(AS_A_STANDBY);
        let is_of_a_locked = fields.outcome == "done" && (is_of_a_standby || WHILE_LOCKED.contains(&action));
        fields.state.is_none()
            && fields.state_seq.is_none()
            && (fields.outcome == "refused" || is_of_a_locked)
    })
}

/// Whether every record from `from` to before `end` was written by the service: all that decides something is sealed.
///
/// # Errors
/// [`ServiceError::Forged`]; [`ServiceError::Audit`] for what is not a record; [`ServiceError::Io`].
pub(crate) fn check_lines(
    folder: &AuditFolder,
    (from, end): (u64, u64),
    key: &SealKey,
) -> Result<(), ServiceError> {
    let mut forged = None;
    folder.each_line_backward(|path, bytes| {
        let line =
            LogLine::parse(bytes).map_err(|_| super::folder::damaged(path, "a line is not a record"))?;
        if line.index() < from {
            return Ok(ControlFlow::Break(()));
        }
        if let LogLine::Record(line) = line
            && line.index < end
            && !key.is_genuine(&line)
        {
            forged = Some(line.index);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    forged.map_or(Ok(()), |index| Err(ServiceError::Forged { index }))
}

#[cfg(test)]
mod tests {
    use claviger_audit::Line;

    use super::*;

    const DERIVE: &str = "{\"action\":\"derive\",\"outcome\":\"released\"}";

    fn key(byte: u8) -> SealKey {
        SealKey::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_seal_fits_its_record_at_its_place_and_no_other() {
        let salt = [3; SALT_LEN];
        let sealed = key(1).seal(7, &salt, DERIVE).unwrap();
        assert!(sealed.starts_with("{\"action\":\"derive\",\"outcome\":\"released\",\"seal\":\""));
        let fits = |key: &SealKey, index, salt, record: &str| key.fits(&Line { index, salt, record });
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
                key(1).seal(7, &salt, none).is_none() && fits(&key(1), 7, salt, none).is_none(),
                "{none}"
            );
        }
    }

    #[test]
    fn without_a_seal_only_what_decides_nothing_is_believed() {
        let believed = |record: &str| key(1).is_genuine(&Line { index: 0, salt: [0; SALT_LEN], record });
        for fine in [
            "{\"action\":\"start\",\"outcome\":\"done\"}",
            "{\"action\":\"unlock\",\"outcome\":\"refused\",\"reason\":\"no\"}",
            "{\"action\":\"authenticate\",\"outcome\":\"refused\"}",
            "{\"action\":\"unlock\",\"outcome\":\"done\",\"what\":\"as a standby\"}",
            "{\"action\":\"log-full\",\"outcome\":\"done\"}",
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
        ] {
            assert!(!believed(forged), "{forged}");
        }
    }
}
