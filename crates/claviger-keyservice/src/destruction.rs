//! What comes after the decision to destroy a version (`proposals::destroy`): one operator takes it back, or its root is erased and
//! a certificate says what could still open it.
//!
//! The root goes when the time is over on the wall clock, and this process has been unlocked and has known of the decision for a
//! day on the boot-time clock: a clock that was set forward destroys nothing before a day has passed in which status, health and
//! metrics say what is coming.

use std::sync::Arc;

use claviger_format::EpochRecord;
use claviger_keyapi::admin::KeysetInfo;
use claviger_keyapi::lifecycle::{
    BackupsMade, Certificate, CertificateAnswer, EpochSpan, ShareSet, VersionRequest,
};
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{Id16, KeyServiceError};
use sha2::{Digest as _, Sha256};

use crate::ServiceError;
use crate::admin::keysets::fingerprint_text;
use crate::audit_record::{Outcome, Record, bounded};
use crate::config::LEASE_TTL_S_MAX;
use crate::keyset::{Destroyed, Doom, Keyset, Version, keyset_change};
use crate::ledger::Turn;
use crate::metrics::VERSIONS_DOOMED;
use crate::service::{Caller, Core, Work};
use crate::store::{Change, EpochRow, Kind, Store};
use crate::vault::Vault;
use crate::wording::moment;

/// How long a process knows of a decision before it carries it out, on the boot-time clock.
const NOTICE_MS: u64 = 24 * 60 * 60 * 1000;
/// Row of the backups that were begun.
const BACKUPS_ROW: &str = "backups";
/// Most of their times that are kept one by one.
const BACKUP_TIMES_MAX: usize = 1000;
/// Tells that what was deleted may still lie in the database's files.
const META_SCRUB: &str = "scrub_due";

impl Core {
    /// Takes back a decision to destroy a version: it opens again. One operator suffices.
    pub(crate) fn cancel_destruction(&self, caller: &Caller, request: &VersionRequest) -> Work<KeysetInfo> {
        let mut record = caller.info.record("destroy-cancelled", Outcome::Done);
        record.keyset = Some(bounded(&request.keyset));
        record.what = Some(format!("version {}", request.version));
        Work::changing(record, |record| {
            let turn = self.change_as(caller)?;
            let vault = &turn.vault;
            let keyset = vault.keyset(&request.keyset).ok_or_else(unknown)?;
            let mut row = self.stored_keyset(vault, &keyset)?;
            let version = row.versions.iter_mut().find(|stored| stored.number == request.version);
            let doom = version.and_then(|version| version.doom.take()).ok_or_else(|| {
                conflict(
                    "this version is not about to be destroyed; claviger keys keyset list shows which are",
                )
            })?;
            record.proposal = Some(doom.proposal);
            self.commit(&turn, vec![keyset_change(&vault.master, &row)], std::slice::from_ref(record))?;
            vault.put_keyset(row)?;
            let keyset = vault.keyset(&request.keyset).ok_or_else(unknown)?;
            Ok(self.keyset_info(caller, &keyset))
        })
    }

    /// Erases the roots whose time is over. Blocks; asked every few seconds.
    pub(crate) fn destroy_due(&self) -> Result<(), ServiceError> {
        let Ok(vault) = self.vault() else { return Ok(()) };
        let due = self.due(&vault);
        for (keyset, version) in &due {
            self.destroy(&vault, keyset, *version)?;
        }
        // Not while the database lacks a change that counts: that may be the one that takes the root out of it.
        if vault.scrub_is_due() && !vault.is_behind() {
            self.store.scrub()?;
            self.store.set_meta(META_SCRUB, b"")?;
            vault.set_scrub_due(false);
        }
        Ok(())
    }

    fn due(&self, vault: &Vault) -> Vec<(Arc<Keyset>, u32)> {
        let (now_ms, boot_ms) = (self.clock.now_ms(), self.clock.boot_ms());
        let keysets = vault.keysets();
        let doomed: Vec<Doomed> = keysets.iter().flat_map(doomed_of).collect();
        let mut seen = vault.dooms_seen();
        metrics::gauge!(VERSIONS_DOOMED).set(f64::from(u32::try_from(doomed.len()).unwrap_or(u32::MAX)));
        // A decision that was taken back and made again is another one, with a day of its own.
        seen.retain(|proposal, _| doomed.iter().any(|doomed| doomed.proposal == *proposal));
        let due = doomed.into_iter().filter(|doomed| {
            let since_ms = *seen.entry(doomed.proposal.clone()).or_insert(boot_ms);
            doomed.due_ms <= now_ms && boot_ms.saturating_sub(since_ms) >= NOTICE_MS
        });
        due.map(|doomed| (doomed.keyset, doomed.version)).collect()
    }

    fn destroy(&self, vault: &Arc<Vault>, keyset: &Keyset, number: u32) -> Result<(), ServiceError> {
        // Nothing is added to them: nothing is registered under a version that does not open.
        let epochs = self.epochs_of(vault, keyset, number, |_| {})?;
        let turn = self.change(vault)?;
        let info = self.local_info()?;
        let keyset = vault.keyset_by_id(keyset.public_id()).ok_or(ServiceError::Damaged("keyset"))?;
        let version = keyset.version(number).ok_or(ServiceError::Damaged("keyset"))?;
        // Cancelled in between.
        let Some(doom) = version.doom.as_ref().filter(|doom| doom.info.due_ms <= info.now_ms) else {
            return Ok(());
        };
        let mut record = info.record("destroy", Outcome::Done);
        let certificate = Certificate {
            destroyed_ms: info.now_ms,
            request_id: info.request_id.clone(),
            epochs,
            backups: backups_made(vault)?,
            unlock_method: self.unlock_state().method,
            store: self.config.store.name().to_owned(),
            ..certificate(&keyset, version, doom)
        };
        let text = serde_json::to_string(&certificate).map_err(|_| ServiceError::Damaged("certificate"))?;
        record.keyset = Some(keyset.name.clone());
        record.proposal = Some(doom.proposal.clone());
        record.subject = Some(sha256(&text));
        record.what = Some(format!(
            "version {number}, root {}: erased; {} epochs open no more; subject is the SHA-256 of the certificate",
            certificate.root_fingerprint, epochs.lost
        ));
        let mut row = self.stored_keyset(vault, &keyset)?;
        let stored = row.versions.iter_mut().find(|stored| stored.number == number);
        let stored = stored.ok_or(ServiceError::Damaged("keyset"))?;
        stored.root = Blob(Vec::new());
        stored.doom = None;
        stored.destroyed = Some(Destroyed {
            destroyed_ms: info.now_ms,
            public_key: Blob(version.public_key.as_bytes().to_vec()),
        });
        let id = certificate_row(keyset.public_id(), number);
        let kept = Change::Put(Kind::Service, vault.row(Kind::Service, &id, &text));
        // First, so that a crash leaves it to be done and not forgotten.
        self.store.set_meta(META_SCRUB, b"1")?;
        vault.set_scrub_due(true);
        self.commit(&turn, vec![keyset_change(&vault.master, &row), kept], std::slice::from_ref(&record))?;
        vault.put_keyset(row)?;
        vault.closed(keyset.public_id());
        tracing::warn!(keyset = keyset.name, version = number, "a key version was destroyed");
        Ok(())
    }

    /// The epochs of a version, as the registry has them; `lost` hears of each that no other version opens.
    pub(crate) fn epochs_of(
        &self,
        vault: &Vault,
        keyset: &Keyset,
        number: u32,
        mut lost: impl FnMut(&EpochRow),
    ) -> Result<EpochSpan, ServiceError> {
        let mut span = EpochSpan::default();
        self.each_epoch(vault, |row| count_epoch(&mut span, (keyset, number), row, &mut lost))?;
        Ok(span)
    }

    /// The certificate of a version that was destroyed.
    pub(crate) fn certificate(
        caller: &Caller,
        request: &VersionRequest,
    ) -> Result<CertificateAnswer, ServiceError> {
        let keyset = caller.vault.keyset(&request.keyset).ok_or_else(unknown)?;
        let id = certificate_row(keyset.public_id(), request.version);
        let json: Option<String> = caller.vault.ledger().rows().value(Kind::Service, &id)?;
        let json = json.ok_or_else(|| conflict("this version was not destroyed"))?;
        Ok(CertificateAnswer { sha256: sha256(&json), json })
    }

    /// Writes down that a backup begins: it holds every root that there is, for whoever opens it.
    pub(crate) fn note_backup(&self, turn: &Turn<'_>, record: &Record) -> Result<(), ServiceError> {
        let mut made = backups_made(&turn.vault)?;
        made.begun = made.begun.saturating_add(1);
        made.first_ms = made.first_ms.or(Some(record.time_ms()));
        made.newest_ms.push(record.time_ms());
        let surplus = made.newest_ms.len().saturating_sub(BACKUP_TIMES_MAX);
        made.newest_ms.drain(..surplus);
        let put = Change::Put(Kind::Service, turn.vault.row(Kind::Service, BACKUPS_ROW, &made));
        self.commit(turn, vec![put], std::slice::from_ref(record))
    }

    /// What is about to be destroyed.
    pub(crate) fn doom_notes(&self) -> Vec<String> {
        let Ok(vault) = self.vault() else { return Vec::new() };
        let keysets = vault.keysets();
        let note = |doomed: Doomed| {
            let (name, version, when) = (&doomed.keyset.name, doomed.version, moment(doomed.due_ms));
            format!(
                "version {version} of keyset {name} opens nothing and is destroyed {when}; to keep it: \
                 claviger keys shred cancel {name} --version {version}"
            )
        };
        keysets.iter().flat_map(doomed_of).map(note).collect()
    }
}

fn backups_made(vault: &Vault) -> Result<BackupsMade, ServiceError> {
    Ok(vault.ledger().rows().value(Kind::Service, BACKUPS_ROW)?.unwrap_or_default())
}

/// Whether what was deleted may still lie in the database's files, from before this start. Whoever could have this forgotten could
/// have copied those files.
pub(crate) fn scrub_was_left(store: &dyn Store) -> Result<bool, ServiceError> {
    Ok(store.meta(META_SCRUB)?.is_some_and(|value| !value.is_empty()))
}

/// A version that is to be destroyed.
struct Doomed {
    keyset: Arc<Keyset>,
    version: u32,
    /// Which proposal decided it.
    proposal: String,
    due_ms: u64,
}

fn doomed_of(keyset: &Arc<Keyset>) -> Vec<Doomed> {
    let doomed = |version: &Version| {
        let doom = version.doom.as_ref()?;
        Some(Doomed {
            keyset: Arc::clone(keyset),
            version: version.number,
            proposal: doom.proposal.clone(),
            due_ms: doom.info.due_ms,
        })
    };
    keyset.versions.iter().filter_map(doomed).collect()
}

/// Counts the epochs of a version; `lost` hears of each that no other version opens.
fn count_epoch(
    span: &mut EpochSpan,
    (keyset, number): (&Keyset, u32),
    row: &EpochRow,
    lost: impl FnOnce(&EpochRow),
) {
    if Id16(row.keyset_id) != keyset.public_id() {
        return;
    }
    let Ok(record) = EpochRecord::parse(&row.record) else { return };
    if !record.recipients().any(|(version, _)| version == number) {
        return;
    }
    let opens_it = |version: &Version| version.opens().is_some() && version.number != number;
    let mut versions = record.recipients().filter_map(|(version, _)| keyset.version(version));
    if versions.any(opens_it) {
        span.kept += 1;
        return;
    }
    span.lost += 1;
    span.first_ms = Some(span.first_ms.map_or(row.created_ms, |first| first.min(row.created_ms)));
    span.last_ms = Some(span.last_ms.map_or(row.created_ms, |last| last.max(row.created_ms)));
    lost(row);
}

/// As far as the version alone tells; the rest is empty.
fn certificate(keyset: &Keyset, version: &Version, doom: &Doom) -> Certificate {
    let earlier = version.earlier_sets.iter().map(|earlier| ShareSet {
        set: earlier.set.clone(),
        shares: earlier.shares,
        threshold: earlier.threshold,
        replaced_ms: Some(earlier.replaced_ms),
    });
    let last = ShareSet {
        set: version.set.clone(),
        shares: version.shares,
        threshold: version.threshold,
        replaced_ms: None,
    };
    Certificate {
        v: 1,
        keyset: keyset.name.clone(),
        keyset_id: keyset.public_id(),
        version: version.number,
        root_fingerprint: fingerprint_text(&version.public_key),
        decision: doom.info.clone(),
        proposal: doom.proposal.clone(),
        destroyed_ms: 0,
        request_id: String::new(),
        epochs: EpochSpan::default(),
        share_sets: earlier.chain([last]).collect(),
        backups: BackupsMade::default(),
        unlock_method: String::new(),
        store: String::new(),
        keys_in_use_until_ms: doom.info.decided_ms.saturating_add(u64::from(LEASE_TTL_S_MAX) * 1000),
        beyond: BEYOND.iter().map(|text| (*text).to_owned()).collect(),
    }
}

const BEYOND: [&str; 4] = [
    "other copies of the database from before (of its disk, its file system or its machine, and of a PostgreSQL server its \
     write-ahead log, archives and standbys) hold the root under the master, which what unlocked the service then still unwraps",
    "a master that was wrapped for an HSM or for unlock shares before is opened by that HSM or those shares, in such a copy",
    "keys of single epochs and objects that a stolen or altered gateway kept, and plaintext that was read, are not affected",
    "the names of objects, if they are sealed, are sealed under a key of the whole keyset and not under this version",
];

fn certificate_row(keyset_id: Id16, version: u32) -> String {
    format!("destroyed/{keyset_id}/{version}")
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unknown() -> ServiceError {
    KeyServiceError::Keyset { text: "there is no such keyset".to_owned() }.into()
}

fn conflict(text: &str) -> ServiceError {
    KeyServiceError::Conflict { text: text.to_owned() }.into()
}

#[cfg(test)]
mod tests;
