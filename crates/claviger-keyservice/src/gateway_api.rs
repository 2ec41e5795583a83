//! What gateways ask, apart from the keys themselves (`release`): who they are, buckets, epochs.

use std::sync::Arc;

use claviger_format::{BucketId, EpochRecord};
use claviger_keyapi::routes::{
    BindRequest, BindingAnswer, BindingsAnswer, EpochAnswer, LedgerState, LogHead,
};
use claviger_keyapi::wire::Blob;
use claviger_keyapi::{
    Binding, Id16, KeyServiceError, NameKeyBytes, PskBytes, PublicKey, ReleaseError, Seed32, SessionInfo,
    SessionKeyset, UnavailableReason, Verb,
};
use zeroize::Zeroizing;

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::bindings::{BindingRow, ClosingRow};
use crate::keyset::Keyset;
use crate::ledger::Mark;
use crate::registry::{OpenError, Registry};
use crate::release::Release;
use crate::service::{Caller, Core, Work};
use crate::store::{Change, Kind};

/// Most buckets of one keyset: its record lists them all, and gateways read records of at most 1 MiB.
const BINDINGS_MAX: usize = 10_000;
const BUCKET_NAME_LEN: std::ops::RangeInclusive<usize> = 3..=63;

impl Core {
    /// The means of one request for keys. To whom everything is frozen nothing of it is even looked at.
    pub(crate) fn with_release<T>(
        &self,
        caller: &Caller,
        action: &'static str,
        run: impl FnOnce(&mut Release<'_>) -> Result<T, ServiceError>,
    ) -> Work<T> {
        if let Some(text) = caller.vault.freezes.stops(&caller.row.identity, None) {
            let refusal = KeyServiceError::Frozen { text };
            let record = caller.info.record(action, Outcome::Refused).refused_call(&refusal);
            return Work::new(Err(refusal.into()), vec![record]);
        }
        let policy = self.policy.load_full();
        let mut release = Release {
            core: self,
            caller,
            policy: &policy,
            lease_ttl_ms: u64::from(self.config.limits.lease_ttl_s) * 1000,
            derive_ttl_ms: u64::from(self.config.limits.derive_ttl_s) * 1000,
            records: Vec::new(),
        };
        let result = run(&mut release);
        Work::new(result, release.records)
    }

    /// The log as it is now, and which state of the ledger the service is in: a gateway that has seen a later one asks nothing more.
    pub(crate) fn log_head(&self, caller: &Caller, from: u64) -> Result<LogHead, ServiceError> {
        let logs = caller.vault.logs().iter().map(|log| log.key.to_string()).collect();
        let head = self.audit.head(from, logs)?;
        // Durable in the log, so that no crash takes it back.
        let Mark { seq, state } = caller.vault.mark();
        Ok(LogHead { state: Some(LedgerState { number: seq, digest: state }), ..head })
    }

    pub(crate) fn session(&self, caller: &Caller) -> Work<SessionInfo> {
        let mut record = caller.info.record("session", Outcome::Released);
        let result = self.try_session(caller);
        if let Ok(session) = &result {
            let names: Vec<&str> = session.keysets.iter().map(|keyset| keyset.name.as_str()).collect();
            record.keyset = Some(names.join(","));
        }
        Work::new(result, vec![record]).refused_if_failed()
    }

    fn try_session(&self, caller: &Caller) -> Result<SessionInfo, ServiceError> {
        let freezes = &caller.vault.freezes;
        if let Some(text) = freezes.stops(&caller.row.identity, None) {
            return Err(KeyServiceError::Frozen { text }.into());
        }
        let mut seed = Zeroizing::new([0u8; 32]);
        self.random.fill(&mut seed[..])?;
        let mut keysets = Vec::new();
        for keyset in self.keysets_of(caller) {
            // What a session gives seals new objects: of a frozen keyset it gives nothing.
            let is_frozen = freezes.stops(&caller.row.identity, Some(&keyset.name)).is_some();
            if !is_frozen {
                keysets.extend(self.session_keyset(caller, &keyset)?);
            }
        }
        let limits = self.config.limits;
        Ok(SessionInfo {
            identity: caller.row.identity.clone(),
            gateway_id: caller.row.uid,
            seed: Seed32::new(&seed),
            keysets,
            binding_ttl_s: limits.binding_ttl_s,
            lease_ttl_s: limits.lease_ttl_s,
            derive_ttl_s: limits.derive_ttl_s,
            session_ttl_s: limits.session_ttl_s,
        })
    }

    /// The keysets that the caller is enrolled for.
    fn keysets_of(&self, caller: &Caller) -> impl Iterator<Item = Arc<Keyset>> {
        caller.row.keysets.iter().filter_map(|name| caller.vault.keyset(name))
    }

    fn session_keyset(
        &self,
        caller: &Caller,
        keyset: &Keyset,
    ) -> Result<Option<SessionKeyset>, ServiceError> {
        let newest = keyset.newest().and_then(|version| Some((version, version.opens()?)));
        let Some((version, root)) = newest.or_else(|| keyset.newest_open()) else { return Ok(None) };
        let (mut verbs, narrow_verbs) = self.policy.load().verbs(&caller.row.identity, &keyset.name);
        if newest.is_none() {
            // Every version is retired: whatever policy says, nothing new is sealed.
            verbs.retain(|verb| *verb != Verb::Write);
        }
        if verbs.is_empty() && narrow_verbs.is_empty() {
            return Ok(None);
        }
        let psk = verbs.contains(&Verb::Write).then(|| root.psk(caller.row.uid.into()));
        let names = verbs.contains(&Verb::Names);
        Ok(Some(SessionKeyset {
            keyset_id: keyset.public_id(),
            name: keyset.name.clone(),
            version: version.number,
            public_key: PublicKey::new(version.public_key.as_bytes()),
            psk: psk.map(|psk| PskBytes::new(psk.expose())),
            name_key: names.then(|| NameKeyBytes::new(keyset.name_key.expose())),
            verbs,
            narrow_verbs,
            era_shred: self.policy.load().is_shredded_by_era(&keyset.name),
            record: Blob(keyset.record(caller.vault.bindings.ids_of(keyset.public_id()), &*self.random)?),
        }))
    }

    pub(crate) fn binding(&self, caller: &Caller, bucket: &str) -> BindingAnswer {
        let binding = caller.vault.bindings.get(bucket).filter(|row| self.sees(caller, row));
        if binding.is_some() {
            caller.vault.bindings.told(bucket, caller.row.uid, self.clock.boot_ms());
        }
        BindingAnswer { binding: binding.map(|row| row.answer(false)) }
    }

    pub(crate) fn bindings(&self, caller: &Caller) -> BindingsAnswer {
        let now_boot_ms = self.clock.boot_ms();
        let rows: Vec<_> =
            caller.vault.bindings.all().into_iter().filter(|row| self.sees(caller, row)).collect();
        for row in &rows {
            caller.vault.bindings.told(&row.bucket, caller.row.uid, now_boot_ms);
        }
        BindingsAnswer { bindings: rows.iter().map(|row| row.answer(false)).collect() }
    }

    fn sees(&self, caller: &Caller, row: &BindingRow) -> bool {
        self.sees_bucket(caller, row.keyset_id, &row.bucket)
    }

    /// Whether the caller may do anything at all in this bucket of this keyset.
    pub(crate) fn sees_bucket(&self, caller: &Caller, keyset_id: Id16, bucket: &str) -> bool {
        self.keysets_of(caller)
            .find(|keyset| keyset.public_id() == keyset_id)
            .is_some_and(|keyset| self.policy.load().sees_bucket(&caller.row.identity, &keyset.name, bucket))
    }

    pub(crate) fn bind(&self, caller: &Caller, request: &BindRequest) -> Work<Binding> {
        let mut record = caller.info.record("bind", Outcome::Done);
        record.bucket = Some(bounded(&request.bucket));
        record.keyset = request.keyset.as_deref().map(bounded);
        Work::changing(record, |record| self.try_bind(caller, request, record))
    }

    fn try_bind(
        &self,
        caller: &Caller,
        request: &BindRequest,
        record: &mut Record,
    ) -> Result<Binding, ServiceError> {
        let turn = self.change_as(caller)?;
        check_thawed(caller, None)?;
        let bindings = &caller.vault.bindings;
        let now_boot_ms = self.clock.boot_ms();
        check_bucket_name(&request.bucket)?;
        let keyset = self.keyset_to_bind(caller, &request.bucket, request.keyset.as_deref())?;
        check_thawed(caller, Some(&keyset.name))?;
        if let Some(row) = bindings.get(&request.bucket) {
            if row.keyset_id != keyset.public_id() {
                let text = format!("bucket {} is bound to another keyset", request.bucket);
                return Err(KeyServiceError::Conflict { text }.into());
            }
            // Nothing is changed: there is nothing to write down.
            bindings.told(&request.bucket, caller.row.uid, now_boot_ms);
            return Ok(row.answer(false));
        }
        if let Some(retry_after_ms) = bindings.closed_for_ms(&request.bucket, caller.row.uid, now_boot_ms) {
            return Err(KeyServiceError::BucketClosing { retry_after_ms }.into());
        }
        if bindings.count_of(keyset.public_id()) >= BINDINGS_MAX {
            let text =
                format!("keyset {} has {BINDINGS_MAX} buckets, the most that there can be", keyset.name);
            return Err(KeyServiceError::Conflict { text }.into());
        }
        let row = BindingRow {
            bucket: request.bucket.clone(),
            bucket_id: BucketId::draw(&request.bucket, &*self.random)?.as_str().to_owned(),
            keyset_id: keyset.public_id(),
            created_ms: caller.info.now_ms,
        };
        let changes = vec![
            Change::Put(Kind::Binding, caller.vault.row(Kind::Binding, &row.bucket, &row)),
            Change::Delete(Kind::Closing, row.bucket.clone()),
        ];
        record.bucket_id = Some(row.bucket_id.clone());
        self.admission.binding_changes.take(caller.row.uid, now_boot_ms)?;
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        let answer = row.answer(true);
        bindings.bind(row);
        bindings.told(&request.bucket, caller.row.uid, now_boot_ms);
        Ok(answer)
    }

    /// The keyset that is named, or the only one in which the caller may bind this bucket.
    fn keyset_to_bind(
        &self,
        caller: &Caller,
        bucket: &str,
        wanted: Option<&str>,
    ) -> Result<Arc<Keyset>, KeyServiceError> {
        let policy = self.policy.load();
        let may_bind = |keyset: &Arc<Keyset>| {
            keyset.newest().is_some()
                && policy.allows(&caller.row.identity, Verb::Bind, &keyset.name, Some((bucket, "")))
        };
        let mut choice: Vec<Arc<Keyset>> = self.keysets_of(caller).filter(may_bind).collect();
        if let Some(wanted) = wanted {
            choice.retain(|keyset| keyset.name == wanted);
        }
        match choice.len() {
            1 => Ok(choice.remove(0)),
            0 => Err(KeyServiceError::Denied {
                text: format!("{} may not bind bucket {bucket}", caller.row.identity),
            }),
            _ => {
                let names: Vec<&str> = choice.iter().map(|keyset| keyset.name.as_str()).collect();
                Err(KeyServiceError::Keyset { text: format!("say which keyset: {}", names.join(", ")) })
            }
        }
    }

    pub(crate) fn unbind(&self, caller: &Caller, bucket: &str, bucket_id: &str) -> Work<()> {
        let mut record = caller.info.record("unbind", Outcome::Done);
        record.bucket = Some(bounded(bucket));
        record.bucket_id = Some(bounded(bucket_id));
        Work::changing(record, |record| self.try_unbind(caller, bucket, bucket_id, record))
    }

    fn try_unbind(
        &self,
        caller: &Caller,
        bucket: &str,
        bucket_id: &str,
        record: &mut Record,
    ) -> Result<(), ServiceError> {
        let turn = self.change_as(caller)?;
        // An id that is gone is never used again: what lies in the bucket would be lost.
        check_thawed(caller, None)?;
        let row = caller.vault.bindings.get(bucket).ok_or(KeyServiceError::UnknownBucket)?;
        if row.bucket_id != bucket_id {
            // The caller means a binding that is gone; this one is its successor's.
            return Err(KeyServiceError::UnknownBucket.into());
        }
        if !self.may_bind_in(caller, &row) {
            let text = format!("{} may not unbind bucket {bucket}", caller.row.identity);
            return Err(KeyServiceError::Denied { text }.into());
        }
        let keyset = caller.vault.keyset_by_id(row.keyset_id);
        check_thawed(caller, keyset.as_ref().map(|keyset| keyset.name.as_str()))?;
        self.admission.binding_changes.take(caller.row.uid, self.clock.boot_ms())?;
        let closing =
            ClosingRow { bucket: bucket.to_owned(), unbound_ms: caller.info.now_ms, by: caller.row.uid };
        let mut changes = vec![
            Change::Delete(Kind::Binding, bucket.to_owned()),
            Change::Put(Kind::Closing, caller.vault.row(Kind::Closing, bucket, &closing)),
        ];
        let mut over = caller.vault.bindings.closed_long_enough(self.clock.boot_ms());
        over.retain(|name| name != bucket);
        changes.extend(over.iter().map(|name| Change::Delete(Kind::Closing, name.clone())));
        self.commit(&turn, changes, std::slice::from_ref(record))?;
        caller.vault.bindings.forget_closed(&over);
        caller.vault.bindings.unbind(bucket, &caller.vault.gateways(), self.clock.boot_ms());
        Ok(())
    }

    fn may_bind_in(&self, caller: &Caller, row: &BindingRow) -> bool {
        let keyset = self.keysets_of(caller).find(|keyset| keyset.public_id() == row.keyset_id);
        keyset.is_some_and(|keyset| {
            self.policy.load().allows(&caller.row.identity, Verb::Bind, &keyset.name, Some((&row.bucket, "")))
        })
    }

    pub(crate) fn register(&self, caller: &Caller, bytes: &[u8]) -> Work<()> {
        let result = self.try_register(caller, bytes);
        let Err(error) = &result else { return Work::silent(result) };
        let mut record =
            caller.info.record("register-epoch", Outcome::Refused).refused_call(&error.outward());
        record.epoch_id = EpochRecord::parse(bytes).ok().map(|record| record.header().epoch_id.into());
        Work::new(result, vec![record])
    }

    fn try_register(&self, caller: &Caller, bytes: &[u8]) -> Result<(), ServiceError> {
        let record = EpochRecord::parse(bytes)
            .map_err(|_| KeyServiceError::Malformed { text: "the epoch record".to_owned() })?;
        let header = *record.header();
        if Id16::from(header.gateway_id) != caller.row.uid {
            let text = "an epoch is registered by the gateway that sealed it".to_owned();
            return Err(KeyServiceError::Denied { text }.into());
        }
        if let Some(text) = caller.vault.freezes.stops(&caller.row.identity, None) {
            return Err(KeyServiceError::Frozen { text }.into());
        }
        let keyset = caller.vault.keyset_by_id(header.keyset_id.into());
        let may_write = keyset.is_some_and(|keyset| {
            caller.row.keysets.contains(&keyset.name)
                && self.policy.load().allows(&caller.row.identity, Verb::Write, &keyset.name, None)
        });
        if !may_write {
            let text = format!("{} may not write in this keyset", caller.row.identity);
            return Err(KeyServiceError::Denied { text }.into());
        }
        let registry = Registry { core: self, caller };
        registry.open(header.epoch_id, Some(bytes)).map_err(|error| match error {
            OpenError::Failed(error) => error,
            OpenError::Refused(ReleaseError::EpochRejected) => KeyServiceError::Conflict {
                text: "the epoch record does not authenticate, or another has its id".to_owned(),
            }
            .into(),
            OpenError::Refused(ReleaseError::Frozen { text }) => KeyServiceError::Frozen { text }.into(),
            OpenError::Refused(ReleaseError::TooManyEpochs) => too_many_epochs().into(),
            OpenError::Refused(other) => KeyServiceError::Denied { text: other.to_string() }.into(),
        })?;
        Ok(())
    }

    pub(crate) fn epoch_record(&self, caller: &Caller, epoch_id: Id16) -> Result<EpochAnswer, ServiceError> {
        let registry = Registry { core: self, caller };
        let row = registry.registered(epoch_id.into())?;
        let enrolled =
            |keyset_id: [u8; 16]| self.keysets_of(caller).any(|k| k.public_id() == Id16(keyset_id));
        Ok(EpochAnswer { record: row.filter(|row| enrolled(row.keyset_id)).map(|row| Blob(row.record)) })
    }
}

/// The minute that counts began with the first of them.
fn too_many_epochs() -> KeyServiceError {
    KeyServiceError::Unavailable { reason: UnavailableReason::Busy, retry_after_ms: 60_000 }
}

/// Nothing stops the caller, nor the keyset if one is named.
fn check_thawed(caller: &Caller, keyset: Option<&str>) -> Result<(), KeyServiceError> {
    match caller.vault.freezes.stops(&caller.row.identity, keyset) {
        Some(text) => Err(KeyServiceError::Frozen { text }),
        None => Ok(()),
    }
}

fn check_bucket_name(name: &str) -> Result<(), KeyServiceError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let sound = BUCKET_NAME_LEN.contains(&bytes.len())
        && bytes.iter().copied().all(allowed)
        && edge(bytes.first())
        && edge(bytes.last());
    if sound { Ok(()) } else { Err(KeyServiceError::Malformed { text: "the bucket's name".to_owned() }) }
}
