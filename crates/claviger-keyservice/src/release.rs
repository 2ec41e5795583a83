//! What releases keys: lease, derive, continue (docs/format.md §2.7, §2.8). Everything here decides and prepares; nothing
//! leaves before the records that come with it are durable.

use std::sync::Arc;

use claviger_format::{
    BucketId, Dek, EpochId, Error as FormatError, ObjectId, ObjectName, UnitGrant, UnitHeader, UnitRequest,
    UploadToken, envelope,
};
use claviger_keyapi::types::COPY_LENGTHS_MAX;
use claviger_keyapi::{
    ContinueItem, ContinueUnit, Continued, DekBytes, DeriveItem, DerivePurpose, Derived, EtagKeyBytes,
    FinishedUpload, Id16, Lease, LeaseItem, NewUnit, ReleaseError, UnitOutput, UploadKeyBytes, Verb,
    WekBytes,
};

use crate::ServiceError;
use crate::audit_record::{Outcome, Record, bounded};
use crate::bindings::BindingRow;
use crate::keyset::Keyset;
use crate::policy::{Policy, implying, verb_name};
use crate::registry::{OpenEpoch, OpenError, Registry};
use crate::service::{Caller, Core};
use crate::store::{FinishedRow, Kind};

/// Longest object key (S3).
const KEY_LEN_MAX: usize = 1024;
const ON_BEHALF_LEN_MAX: usize = 256;
/// Largest TLV length of an envelope (docs/format.md §5.2).
const TLV_LEN_MAX: u32 = 16_384;

/// One request that asks for keys.
pub(crate) struct Release<'a> {
    pub(crate) core: &'a Core,
    pub(crate) caller: &'a Caller,
    /// The policy of this request: one and the same for all of its items.
    pub(crate) policy: &'a Policy,
    pub(crate) lease_ttl_ms: u64,
    pub(crate) derive_ttl_ms: u64,
    pub(crate) records: Vec<Record>,
}

type Item<T> = Result<T, OpenError>;

impl Release<'_> {
    /// WEKs.
    pub(crate) fn lease(
        &mut self,
        items: Vec<LeaseItem>,
    ) -> Result<Vec<Result<Lease, ReleaseError>>, ServiceError> {
        items
            .into_iter()
            .map(|item| self.item("lease", |release, record| release.lease_one(&item, record)))
            .collect()
    }

    /// DEKs and unit keys of envelopes.
    pub(crate) fn derive(
        &mut self,
        items: Vec<DeriveItem>,
    ) -> Result<Vec<Result<Derived, ReleaseError>>, ServiceError> {
        items
            .into_iter()
            .map(|item| self.item("derive", |release, record| release.derive_one(&item, record)))
            .collect()
    }

    /// Unit keys of uploads.
    pub(crate) fn continue_upload(
        &mut self,
        items: Vec<ContinueItem>,
    ) -> Result<Vec<Result<Continued, ReleaseError>>, ServiceError> {
        items
            .into_iter()
            .map(|item| self.item("continue", |release, record| release.continue_one(&item, record)))
            .collect()
    }

    /// Uploads that ended. Nothing is released.
    pub(crate) fn finish(
        &mut self,
        items: Vec<FinishedUpload>,
    ) -> Result<Vec<Result<(), ReleaseError>>, ServiceError> {
        items
            .into_iter()
            .map(|item| self.item("finish-upload", |release, record| release.finish_one(&item, record)))
            .collect()
    }

    /// Runs one item and writes its record, whatever the end.
    fn item<T>(
        &mut self,
        action: &'static str,
        run: impl FnOnce(&mut Self, &mut Record) -> Item<T>,
    ) -> Result<Result<T, ReleaseError>, ServiceError> {
        let mut record = self.caller.info.record(action, Outcome::Released);
        match run(self, &mut record).and_then(|value| self.within_budget(&record).map(|()| value)) {
            Ok(value) => {
                self.records.push(record);
                Ok(Ok(value))
            }
            // The gateway only lacks the record and asks again at once: no decision was made, nothing to write down.
            Err(OpenError::Refused(ReleaseError::UnknownEpoch)) => Ok(Err(ReleaseError::UnknownEpoch)),
            Err(OpenError::Refused(refusal)) => {
                self.records.push(record.refused(&refusal));
                Ok(Err(refusal))
            }
            Err(OpenError::Failed(error)) => Err(error),
        }
    }

    /// The last question before something is released: it counts what is written down as released.
    fn within_budget(&self, record: &Record) -> Item<()> {
        let spent = self.core.spend(self.caller, self.policy, record);
        Ok(spent.map_err(|text| ReleaseError::Frozen { text })?)
    }

    fn lease_one(&mut self, item: &LeaseItem, record: &mut Record) -> Item<Lease> {
        record.epoch_id = Some(item.epoch_id);
        let epoch = self.open_epoch(item.epoch_id.into(), item.record.as_ref().map(AsRef::as_ref), record)?;
        self.permit(Verb::Lease, &epoch.keyset, None)?;
        Ok(Lease {
            wek: WekBytes::new(epoch.wek.expose()),
            sealer_id: epoch.header.gateway_id.into(),
            keyset_id: epoch.keyset.public_id(),
            ttl_ms: self.lease_ttl_ms,
            version: self.version_told(&epoch),
        })
    }

    fn derive_one(&mut self, item: &DeriveItem, record: &mut Record) -> Item<Derived> {
        self.claim(record, &item.bucket_id, &item.key, item.on_behalf_of.as_deref())?;
        record.purpose = Some(purpose_name(&item.purpose).to_owned());
        let header =
            UnitHeader::parse(item.header.as_bytes()).map_err(|_| malformed("the envelope header"))?;
        let context = header.context;
        record.epoch_id = Some(context.epoch_id.into());
        record.object_id = Some(context.object_id.into());
        let epoch = self.open_epoch(context.epoch_id, item.record.as_ref().map(AsRef::as_ref), record)?;
        let (binding, name) = self.object_name(&epoch, &item.bucket_id, &item.key, record)?;
        let object = Some((binding.bucket.as_str(), item.key.as_str()));
        // Before the name is verified: whoever may not open it learns nothing about it.
        self.permit_any(purpose_verbs(&item.purpose), &epoch.keyset, object)?;
        let dek = epoch.wek.dek(context.epoch_id, context.object_id);
        // docs/format.md §2.7: the name is verified by the envelope's own commitment; any other kind of header is refused.
        let unit =
            envelope::verify_binding(item.header.as_bytes(), &dek, &name).map_err(|error| match error {
                FormatError::BindingMismatch => ReleaseError::BindingMismatch,
                _ => malformed("the header is not one of a metadata envelope"),
            })?;
        record.name_verified = Some(true);
        match &item.purpose {
            DerivePurpose::Read => {
                Ok(Derived::Read { dek: DekBytes::new(dek.expose()), ttl_ms: self.derive_ttl_ms })
            }
            DerivePurpose::Head => {
                Ok(Derived::Head { unit: UnitOutput::new(unit.expose()), ttl_ms: self.derive_ttl_ms })
            }
            DerivePurpose::CopySource { dest_bucket_id, dest_key, tlv_lengths } => {
                let source = CopySource { epoch: &epoch, dek: &dek, object_id: context.object_id };
                let new_units = self.copy_units(&source, dest_bucket_id, dest_key, tlv_lengths, record)?;
                Ok(Derived::CopySource { unit: UnitOutput::new(unit.expose()), new_units })
            }
        }
    }

    fn copy_units(
        &mut self,
        source: &CopySource<'_>,
        dest_bucket_id: &str,
        dest_key: &str,
        tlv_lengths: &[u32],
        record: &mut Record,
    ) -> Item<Vec<NewUnit>> {
        record.dest_bucket_id = Some(bounded(dest_bucket_id));
        record.dest_key = Some(bounded(dest_key));
        let binding = self.live_binding(dest_bucket_id)?;
        if binding.keyset_id != source.epoch.keyset.public_id() {
            return Err(ReleaseError::KeysetMismatch.into());
        }
        // Re-binding writes: the destination needs `write`, which covers a keyset.
        self.permit(Verb::Write, &source.epoch.keyset, None)?;
        self.check_era(source.epoch)?;
        let name = checked_name(dest_bucket_id, dest_key)?;
        let sound = tlv_lengths.iter().all(|len| (1..=TLV_LEN_MAX).contains(len));
        if tlv_lengths.is_empty() || tlv_lengths.len() > COPY_LENGTHS_MAX || !sound {
            return Err(malformed("tlv_lengths: 1 to 4 numbers from 1 to 16384").into());
        }
        let mut units = Vec::with_capacity(tlv_lengths.len());
        for len in tlv_lengths {
            let request =
                UnitRequest::envelope(source.epoch.header.epoch_id, source.object_id, &name, u64::from(*len));
            units.push(self.draw_unit(source.dek, &request)?);
        }
        Ok(units)
    }

    fn continue_one(&mut self, item: &ContinueItem, record: &mut Record) -> Item<Continued> {
        record.purpose = Some(unit_name(item.unit));
        let upload = self.open_upload(
            &Upload { text: &item.upload_token, bucket_id: &item.bucket_id, key: &item.key },
            item.record.as_ref().map(AsRef::as_ref),
            item.on_behalf_of.as_deref(),
            record,
        )?;
        let fields = upload.token.fields();
        // Expiry blocks UploadPart and Complete, never Abort (docs/format.md §7.2).
        if item.unit != ContinueUnit::Check && upload.token.expired(self.caller.info.now_ms) {
            return Err(ReleaseError::UploadExpired.into());
        }
        if self.was_finished(fields.object_id)? {
            return Err(ReleaseError::UploadFinished.into());
        }
        let request = match item.unit {
            ContinueUnit::Check => None,
            ContinueUnit::Part { number, length } => {
                Some(UnitRequest::part(fields.epoch_id, fields.object_id, number, length))
            }
            ContinueUnit::Footer { parts, length } => {
                Some(UnitRequest::footer(fields.epoch_id, fields.object_id, parts, length))
            }
        };
        let unit = request.map(|request| self.draw_unit(&upload.dek, &request)).transpose()?;
        // With this key one can issue a token of any expiry: whoever only looks, or comes too late, does not get it.
        let upload_key = unit.is_some().then(|| UploadKeyBytes::new(upload.dek.upload_key().expose()));
        Ok(Continued {
            unit,
            upload_key,
            etag_key: EtagKeyBytes::new(upload.dek.etag_key().expose()),
            ttl_ms: self.derive_ttl_ms,
            version: upload.version,
        })
    }

    fn finish_one(&mut self, item: &FinishedUpload, record: &mut Record) -> Item<()> {
        record.outcome = Outcome::Done;
        let upload = self.open_upload(
            &Upload { text: &item.upload_token, bucket_id: &item.bucket_id, key: &item.key },
            item.record.as_ref().map(AsRef::as_ref),
            None,
            record,
        )?;
        let object_id = upload.token.fields().object_id;
        let finished_ms = self.caller.info.now_ms;
        let (id, body) = (object_id.to_string(), finished_ms.to_be_bytes());
        let mac = self.caller.vault.master.row_mac(Kind::FinishedUpload.name(), &id, &body).to_vec();
        let row = FinishedRow { finished_ms, mac };
        self.core.noted(self.core.store.finish_upload(object_id.as_bytes(), &row))?;
        Ok(())
    }

    fn was_finished(&self, object_id: ObjectId) -> Result<bool, ServiceError> {
        let Some(row) = self.core.store.finished_upload(object_id.as_bytes())? else { return Ok(false) };
        let (kind, id) = (Kind::FinishedUpload.name(), object_id.to_string());
        if self.caller.vault.master.row_is_ours(kind, &id, &row.finished_ms.to_be_bytes(), &row.mac) {
            return Ok(true);
        }
        Err(ServiceError::Tampered { kind, id })
    }

    /// Everything that `continue` and the report of its end have in common: epoch, token, name, permission.
    fn open_upload(
        &mut self,
        upload: &Upload<'_>,
        epoch_record: Option<&[u8]>,
        on_behalf_of: Option<&str>,
        record: &mut Record,
    ) -> Item<OpenUpload> {
        self.claim(record, upload.bucket_id, upload.key, on_behalf_of)?;
        let token = UploadToken::parse(upload.text).map_err(|_| malformed("the upload token"))?;
        let (epoch_id, object_id) = (token.fields().epoch_id, token.fields().object_id);
        record.epoch_id = Some(epoch_id.into());
        record.object_id = Some(object_id.into());
        let epoch = self.open_epoch(epoch_id, epoch_record, record)?;
        let (binding, name) = self.object_name(&epoch, upload.bucket_id, upload.key, record)?;
        self.permit(Verb::Write, &epoch.keyset, None)?;
        if record.outcome == Outcome::Released {
            self.permit(Verb::Continue, &epoch.keyset, Some((&binding.bucket, upload.key)))?;
        }
        let dek = epoch.wek.dek(epoch_id, object_id);
        token.verify(&dek.upload_key(), &name).map_err(|_| ReleaseError::BindingMismatch)?;
        record.name_verified = Some(true);
        Ok(OpenUpload { token, dek, version: self.version_told(&epoch) })
    }

    /// Opens an epoch of a keyset that the caller is enrolled for; a registration on the way is written down by itself.
    fn open_epoch(
        &mut self,
        epoch_id: EpochId,
        bytes: Option<&[u8]>,
        record: &mut Record,
    ) -> Result<Arc<OpenEpoch>, OpenError> {
        let registry = Registry { core: self.core, caller: self.caller };
        let epoch = registry.open(epoch_id, bytes)?;
        record.keyset = Some(epoch.keyset.name.clone());
        if record.outcome == Outcome::Released {
            self.check_brakes(&epoch)?;
        }
        Ok(epoch)
    }

    /// Nothing that is frozen is released, nor what a stolen gateway could have forged.
    fn check_brakes(&self, epoch: &OpenEpoch) -> Result<(), ReleaseError> {
        let vault = &self.caller.vault;
        if let Some(text) = vault.freezes.stops(&self.caller.row.identity, Some(&epoch.keyset.name)) {
            return Err(ReleaseError::Frozen { text });
        }
        if vault.quarantine.holds(&epoch.registered()) {
            return Err(ReleaseError::EpochQuarantined);
        }
        Ok(())
    }

    /// What a gateway has to know of an epoch where copies are bound to an era.
    fn version_told(&self, epoch: &OpenEpoch) -> Option<u32> {
        self.policy.is_shredded_by_era(&epoch.keyset.name).then_some(epoch.oldest_version)
    }

    /// docs/format.md §2.1: in a keyset that is shredded by era, what lies under an older version than the newest is bound to no other
    /// name. Such a copy would be lost with its source.
    fn check_era(&self, epoch: &OpenEpoch) -> Result<(), ReleaseError> {
        let (name, old) = (&epoch.keyset.name, epoch.oldest_version);
        if !self.policy.is_shredded_by_era(name) {
            return Ok(());
        }
        // The keyset as it is now: an epoch that is kept has it as it was when it was opened, perhaps before a rotation.
        let keyset = self.caller.vault.keyset_by_id(epoch.keyset.public_id());
        let so = match keyset.and_then(|keyset| keyset.newest().map(|newest| newest.number)) {
            Some(newest) if newest <= old => return Ok(()),
            Some(newest) => format!(
                "the newest is {newest}: the copy has to be encrypted anew, which takes the verb read on its source"
            ),
            None => "none is active: nothing is copied until it has a new version".to_owned(),
        };
        let text = format!(
            "the source lies under version {old} of keyset {name}, which is shredded by era, and {so}"
        );
        Err(ReleaseError::SealAnew { text })
    }

    /// Puts what the caller claims into the record, and refuses what would not fit there.
    fn claim(
        &self,
        record: &mut Record,
        bucket_id: &str,
        key: &str,
        on_behalf_of: Option<&str>,
    ) -> Result<(), ReleaseError> {
        record.bucket_id = Some(bounded(bucket_id));
        record.key = Some(bounded(key));
        record.name_verified = Some(false);
        record.on_behalf_of = on_behalf_of.map(bounded);
        if on_behalf_of.is_some_and(|text| text.len() > ON_BEHALF_LEN_MAX) {
            return Err(malformed("on_behalf_of is longer than 256 bytes"));
        }
        checked_name(bucket_id, key).map(drop)
    }

    /// The bucket must be bound now, and to the epoch's keyset (docs/format.md §5.1).
    fn object_name(
        &self,
        epoch: &OpenEpoch,
        bucket_id: &str,
        key: &str,
        record: &mut Record,
    ) -> Result<(BindingRow, ObjectName), ReleaseError> {
        let binding = self.live_binding(bucket_id)?;
        record.bucket = Some(binding.bucket.clone());
        if binding.keyset_id != epoch.keyset.public_id() {
            return Err(ReleaseError::KeysetMismatch);
        }
        Ok((binding, checked_name(bucket_id, key)?))
    }

    /// A bucket of a keyset that the caller is enrolled for; others' buckets are as unknown as those that don't exist.
    fn live_binding(&self, bucket_id: &str) -> Result<BindingRow, ReleaseError> {
        let binding = self.caller.vault.bindings.by_id(bucket_id).ok_or(ReleaseError::UnknownBucket)?;
        let keyset = self.caller.vault.keyset_by_id(binding.keyset_id);
        if keyset.is_some_and(|keyset| self.caller.row.keysets.contains(&keyset.name)) {
            return Ok(binding);
        }
        Err(ReleaseError::UnknownBucket)
    }

    fn draw_unit(&self, dek: &Dek, request: &UnitRequest<'_>) -> Item<NewUnit> {
        let grant = UnitGrant::draw(dek, request, &*self.core.random).map_err(|error| match error {
            FormatError::Random(error) => OpenError::Failed(error.into()),
            _ => OpenError::Refused(malformed("number or length of the unit")),
        })?;
        Ok(NewUnit {
            length: grant.context().length,
            salt: Id16::from(grant.context().salt),
            unit: UnitOutput::new(grant.keys().expose()),
        })
    }

    fn permit(&self, verb: Verb, keyset: &Keyset, object: Option<(&str, &str)>) -> Result<(), ReleaseError> {
        self.permit_any(&[verb], keyset, object)
    }

    fn permit_any(
        &self,
        verbs: &[Verb],
        keyset: &Keyset,
        object: Option<(&str, &str)>,
    ) -> Result<(), ReleaseError> {
        let enrolled = self.caller.row.keysets.contains(&keyset.name);
        let allows = |verb: &Verb| self.policy.allows(&self.caller.row.identity, *verb, &keyset.name, object);
        if enrolled && verbs.iter().any(allows) {
            return Ok(());
        }
        let verb = verbs.first().map_or("", |verb| verb_name(*verb));
        let place = object
            .map_or_else(|| "the whole keyset".to_owned(), |(bucket, _)| format!("this object of {bucket}"));
        Err(ReleaseError::Denied {
            text: format!("{} may not {verb} {place} in keyset {}", self.caller.row.identity, keyset.name),
        })
    }
}

struct CopySource<'a> {
    epoch: &'a OpenEpoch,
    dek: &'a Dek,
    object_id: ObjectId,
}

struct Upload<'a> {
    text: &'a str,
    bucket_id: &'a str,
    key: &'a str,
}

struct OpenUpload {
    token: UploadToken,
    dek: Dek,
    version: Option<u32>,
}

/// The name of an object, if it can be one.
pub(crate) fn checked_name(bucket_id: &str, key: &str) -> Result<ObjectName, ReleaseError> {
    if key.len() > KEY_LEN_MAX {
        return Err(malformed("the key is longer than 1,024 bytes"));
    }
    BucketId::new(bucket_id)
        .and_then(|id| ObjectName::new(id, key))
        .map_err(|_| malformed("bucket id or key"))
}

fn malformed(text: &str) -> ReleaseError {
    ReleaseError::Malformed { text: text.to_owned() }
}

fn purpose_verbs(purpose: &DerivePurpose) -> &'static [Verb] {
    implying(match purpose {
        DerivePurpose::Read => Verb::Read,
        DerivePurpose::Head => Verb::Head,
        DerivePurpose::CopySource { .. } => Verb::CopySource,
    })
}

fn purpose_name(purpose: &DerivePurpose) -> &'static str {
    match purpose {
        DerivePurpose::Read => "read",
        DerivePurpose::Head => "head",
        DerivePurpose::CopySource { .. } => "copy-source",
    }
}

fn unit_name(unit: ContinueUnit) -> String {
    match unit {
        ContinueUnit::Part { number, length } => format!("part {number}, {length} bytes"),
        ContinueUnit::Footer { parts, length } => format!("footer of {parts} parts, {length} bytes"),
        ContinueUnit::Check => "check".to_owned(),
    }
}
