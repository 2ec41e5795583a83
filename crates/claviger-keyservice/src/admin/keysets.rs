//! Keysets: made, proved by their recovery shares, listed.

use std::collections::BTreeSet;

use claviger_format::{
    EpochHeader, EpochId, EpochRecord, KemPublicKey, KeyVersionState, Random, Root, RootSecret, SealTo,
    SealerId, Wek,
};
use claviger_keyapi::KeyServiceError;
use claviger_keyapi::admin::{
    ConfirmKeysetRequest, CreateKeysetRequest, EarlierSetInfo, KeysetInfo, KeysetList, KeysetShares,
    RetireRequest, VersionInfo, VersionState,
};
use claviger_keyapi::secret::SecretText;
use subtle::ConstantTimeEq as _;

use crate::ServiceError;
use crate::audit_record::{Outcome, Record};
use crate::custody::shamir::{self, Share, root_fingerprint};
use crate::keyset::{EarlierSet, Keyset, KeysetRow, Version, keyset_change, prepare_keyset};
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};
use crate::vault::Vault;

const KEYSETS_MAX: usize = 256;
const NAME_LEN_MAX: usize = 63;

impl Core {
    /// Prepares a keyset and hands out its recovery shares. It seals nothing until they came back.
    pub(crate) fn create_keyset(&self, caller: &Caller, request: &CreateKeysetRequest) -> Work<KeysetShares> {
        let mut record = caller.info.record("keyset-create", Outcome::Done);
        record.keyset = Some(crate::audit_record::bounded(&request.name));
        Work::changing(record, |record| self.try_create_keyset(caller, request, record))
    }

    fn try_create_keyset(
        &self,
        caller: &Caller,
        request: &CreateKeysetRequest,
        record: &Record,
    ) -> Result<KeysetShares, ServiceError> {
        let turn = self.change_as(caller)?;
        check_keyset_name(&request.name)?;
        let existing = caller.vault.keyset(&request.name);
        // A keyset whose shares never came back has sealed nothing: it may be made again.
        if existing.is_some_and(|keyset| keyset.is_proved()) {
            return Err(KeyServiceError::Conflict { text: format!("keyset {} exists", request.name) }.into());
        }
        if caller.vault.keysets().len() >= KEYSETS_MAX {
            return Err(KeyServiceError::Conflict { text: format!("more than {KEYSETS_MAX} keysets") }.into());
        }
        let vault = &caller.vault;
        let (row, root) =
            prepare_keyset(&vault.master, &request.name, request.shares, request.threshold, &*self.random)?;
        let shares = shamir::split(
            root.secret(),
            root.keyset_id(),
            1,
            request.threshold,
            request.shares,
            &*self.random,
        )?;
        let mut changes = vec![keyset_change(&vault.master, &row)];
        changes.extend(
            vault.keyset(&request.name).map(|old| Change::Delete(Kind::Keyset, old.public_id().to_string())),
        );
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        let keyset_id = row.keyset_id;
        vault.put_keyset(row)?;
        let line = |share: &Share| SecretText::new(share.to_line().to_string());
        Ok(KeysetShares { keyset_id, shares: shares.iter().map(line).collect() })
    }

    /// Takes the shares as they were read back; only if they give the root, and that opens a test epoch, the keyset
    /// becomes active.
    pub(crate) fn confirm_keyset(&self, caller: &Caller, request: &ConfirmKeysetRequest) -> Work<KeysetInfo> {
        let mut record = caller.info.record("keyset-confirm", Outcome::Done);
        record.subject = Some(request.keyset_id.to_string());
        Work::changing(record, |record| self.try_confirm_keyset(caller, request, record))
    }

    fn try_confirm_keyset(
        &self,
        caller: &Caller,
        request: &ConfirmKeysetRequest,
        record: &Record,
    ) -> Result<KeysetInfo, ServiceError> {
        let turn = self.change_as(caller)?;
        let vault = &caller.vault;
        let unknown = || KeyServiceError::Keyset { text: "there is no such keyset".to_owned() };
        let keyset = vault.keyset_by_id(request.keyset_id).ok_or_else(unknown)?;
        if keyset.versions.len() > 1 {
            let text = format!("keyset {} is proved already", keyset.name);
            return Err(KeyServiceError::Conflict { text }.into());
        }
        let version = keyset.versions.last().ok_or(ServiceError::Damaged("keyset"))?;
        let shares =
            request.shares.iter().map(|text| Share::parse(text.expose())).collect::<Result<Vec<_>, _>>()?;
        check_shares(
            version.root().ok_or(ServiceError::Damaged("keyset"))?,
            version.shares,
            &shares,
            &*self.random,
        )?;
        let mut row = self.stored_keyset(vault, &keyset)?;
        let version = row.versions.last_mut().ok_or(ServiceError::Damaged("keyset"))?;
        version.is_proved = true;
        version.set = shares.first().map(Share::set_text);
        self.commit(&turn, vec![keyset_change(&vault.master, &row)], std::slice::from_ref(record))?;
        vault.put_keyset(row)?;
        let keyset = vault.keyset_by_id(request.keyset_id).ok_or_else(unknown)?;
        Ok(self.keyset_info(caller, &keyset))
    }

    /// Ends writing: every version only opens from now on. Its way back is a new version.
    pub(crate) fn retire_keyset(&self, caller: &Caller, request: &RetireRequest) -> Work<KeysetInfo> {
        let mut record = caller.info.record("retire", Outcome::Done);
        record.keyset = Some(crate::audit_record::bounded(&request.keyset));
        Work::changing(record, |record| {
            let turn = self.change_as(caller)?;
            let vault = &caller.vault;
            let unknown = || KeyServiceError::Keyset { text: "there is no such keyset".to_owned() };
            let keyset = vault.keyset(&request.keyset).ok_or_else(unknown)?;
            let mut row = self.stored_keyset(vault, &keyset)?;
            let retired = row.retire(caller.info.now_ms);
            if retired.is_empty() {
                let text = format!("keyset {} has no active version", keyset.name);
                return Err(KeyServiceError::Conflict { text }.into());
            }
            record.what = Some(format!("retired: {retired:?}; nothing new is sealed in this keyset"));
            self.commit(&turn, vec![keyset_change(&vault.master, &row)], std::slice::from_ref(record))?;
            vault.put_keyset(row)?;
            let keyset = vault.keyset(&request.keyset).ok_or_else(unknown)?;
            Ok(self.keyset_info(caller, &keyset))
        })
    }

    /// The row that counts, to be changed. That the database shows another one is no reason to go on as if nothing were.
    pub(crate) fn stored_keyset(&self, vault: &Vault, keyset: &Keyset) -> Result<KeysetRow, ServiceError> {
        let id = keyset.public_id().to_string();
        let tampered = || ServiceError::Tampered { kind: Kind::Keyset.name(), id: id.clone() };
        let rows = self.store.rows(Kind::Keyset)?;
        let ledger = vault.ledger();
        let row = ledger.rows().get(Kind::Keyset, &id);
        // One that the database does not have yet it can't show.
        if !vault.is_behind() && rows.iter().find(|row| row.id == id) != row {
            return Err(tampered());
        }
        ledger.rows().value(Kind::Keyset, &id)?.ok_or_else(tampered)
    }

    pub(crate) fn list_keysets(&self, caller: &Caller) -> KeysetList {
        let keysets = caller.vault.keysets();
        KeysetList { keysets: keysets.iter().map(|keyset| self.keyset_info(caller, keyset)).collect() }
    }

    /// A keyset for operators.
    pub(crate) fn keyset_info(&self, caller: &Caller, keyset: &Keyset) -> KeysetInfo {
        let bindings = caller.vault.bindings.all();
        let last = keyset.versions.last();
        KeysetInfo {
            keyset_id: keyset.public_id(),
            name: keyset.name.clone(),
            version: keyset.newest().map(|version| version.number),
            root_fingerprint: last.map_or_else(String::new, |version| fingerprint_text(&version.public_key)),
            shares: last.map_or(0, |version| version.shares),
            threshold: last.map_or(0, |version| version.threshold),
            share_set: last.and_then(|version| version.set.clone()),
            earlier_sets: last
                .map(|version| version.earlier_sets.iter().map(earlier_info).collect())
                .unwrap_or_default(),
            buckets: bindings
                .into_iter()
                .filter(|b| b.keyset_id == keyset.public_id())
                .map(|b| b.bucket)
                .collect(),
            versions: keyset.versions.iter().map(version_info).collect(),
            era_shred: self.policy.load().is_shredded_by_era(&keyset.name),
        }
    }
}

/// Recovery shares as read back must be all of them, agree, and give a root that opens a fresh test epoch.
pub(crate) fn check_shares(
    root: &Root,
    count: u8,
    shares: &[Share],
    random: &dyn Random,
) -> Result<(), ServiceError> {
    let distinct: BTreeSet<u8> = shares.iter().map(|share| share.index).collect();
    if shares.len() != usize::from(count) || distinct.len() != shares.len() {
        return Err(ServiceError::Share("all of them must be read back, each once"));
    }
    let threshold = usize::from(shares.first().map_or(0, |share| share.threshold));
    let quorum = shares.get(..threshold).ok_or(ServiceError::Share("too few"))?;
    // All of them together agree only if each lies on the same polynomial; a bare quorum must do as well.
    for combined in [shamir::combine(shares)?, shamir::combine(quorum)?] {
        if !bool::from(combined.expose().ct_eq(root.secret().expose())) {
            return Err(ServiceError::Share("they give another root"));
        }
        open_test_epoch(root, combined, random)?;
    }
    Ok(())
}

fn open_test_epoch(root: &Root, combined: RootSecret, random: &dyn Random) -> Result<(), ServiceError> {
    let wek = Wek::generate(random, &[0; 32])?;
    let header = EpochHeader {
        created_ms: 0,
        epoch_id: EpochId::draw(random)?,
        gateway_id: SealerId::KEY_SERVICE,
        keyset_id: root.keyset_id(),
    };
    let (public_key, psk) = (root.public_key()?, root.psk(SealerId::KEY_SERVICE));
    let to = SealTo {
        version: root.version(),
        public_key: &public_key,
        sealer_id: SealerId::KEY_SERVICE,
        psk: &psk,
    };
    let record = EpochRecord::seal(&header, &wek, &to, random)?;
    let opened = record.open(&Root::new(combined, root.keyset_id(), root.version()))?;
    if bool::from(opened.expose().ct_eq(wek.expose())) {
        Ok(())
    } else {
        Err(ServiceError::Share("they don't open a test epoch"))
    }
}

fn version_info(version: &Version) -> VersionInfo {
    VersionInfo {
        number: version.number,
        state: match version.state {
            KeyVersionState::Prepared => VersionState::Prepared,
            KeyVersionState::Active => VersionState::Active,
            KeyVersionState::Retired if version.doom.is_some() => VersionState::Doomed,
            KeyVersionState::Retired => VersionState::Retired,
            KeyVersionState::Destroyed => VersionState::Destroyed,
        },
        root_fingerprint: fingerprint_text(&version.public_key),
        shares: version.shares,
        threshold: version.threshold,
        share_set: version.set.clone(),
        retired_ms: version.retired_ms,
        doom: version.doom.as_ref().map(|doom| doom.info.clone()),
        destroyed_ms: version.destroyed_ms,
    }
}

/// The fingerprint of a root as it stands on its shares, hex.
pub(crate) fn fingerprint_text(public_key: &KemPublicKey) -> String {
    root_fingerprint(public_key.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

fn earlier_info(earlier: &EarlierSet) -> EarlierSetInfo {
    EarlierSetInfo {
        set: earlier.set.clone(),
        shares: earlier.shares,
        threshold: earlier.threshold,
        replaced_ms: earlier.replaced_ms,
    }
}

/// Keyset names: 1 to 63 of `a-z`, `0-9`, `-`.
pub(crate) fn check_keyset_name(name: &str) -> Result<(), KeyServiceError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let first = name.bytes().next();
    if first.is_some_and(|b| b.is_ascii_alphanumeric())
        && name.len() <= NAME_LEN_MAX
        && name.bytes().all(allowed)
    {
        return Ok(());
    }
    Err(KeyServiceError::Malformed { text: "a keyset's name is 1 to 63 of a-z, 0-9, -".to_owned() })
}

/// The row of version 1 becomes active, with the set of shares that proved it.
pub(crate) fn activate(row: &mut KeysetRow, set: &str) {
    row.versions.iter_mut().for_each(|version| {
        version.is_proved = true;
        version.set = Some(set.to_owned());
    });
}
