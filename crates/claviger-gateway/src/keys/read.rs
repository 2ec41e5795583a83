//! Keys to read with: leased epochs where policy grants the whole keyset, keys of single objects elsewhere. Both
//! give the same keys (docs/format.md §2.7); what differs is what the audit log names and what a stolen gateway holds.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use claviger_env::Clock;
use claviger_format::envelope::{Envelope, OpenedEnvelope};
use claviger_format::{Dek, EpochId, ObjectName, UnitKeys, Wek};
use claviger_keyapi::{
    Answer, Blob, DeriveItem, DerivePurpose, Derived, EnvelopeHeader, Id16, KeyService, KeyServiceError,
    Lease, LeaseItem, NewUnit, ReleaseError, Verb,
};
use moka::future::Cache;

use super::era::{Era, Moment, Term};
use super::opened::OpenedEnvelopes;
use super::session::{KeysetAccess, Session};
use crate::bindings::BoundBucket;
use crate::boxed::boxed;
use crate::error::GatewayError;
use crate::system_area::SystemArea;

/// Upper bound of every cached key's life, whatever the service answers (docs/format.md §2.7).
const LIFE_MAX: Duration = Duration::from_secs(15 * 60);
const LEASES_MAX: u64 = 4096;
const OBJECT_KEYS_MAX: u64 = 65_536;

/// An object whose envelope has been opened under the name that was asked for.
#[derive(Clone)]
pub(crate) struct OpenedObject {
    /// Layout, metadata, identity.
    pub envelope: Arc<OpenedEnvelope>,
    /// The object's key.
    pub dek: Arc<Dek>,
    /// When it was asked for: it may be used as long as that era lasts.
    pub held: Moment,
}

/// An object and the name it is asked under.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Its bucket.
    pub bound: &'a BoundBucket,
    /// The name that its envelope has to be bound to.
    pub name: &'a ObjectName,
    /// What the provider stores with it.
    pub envelope: &'a Envelope,
    /// The client's access key id, for the audit log of the key service.
    pub on_behalf_of: &'a str,
}

struct Leased {
    wek: Wek,
    keyset: Id16,
    /// The oldest version of the epoch, where the service says so.
    version: Option<u32>,
    term: Term,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct DerivedFor {
    name: Vec<u8>,
    header: [u8; 96],
    whole_object: bool,
}

enum DerivedKey {
    Object(Arc<Dek>),
    Metadata(UnitKeys),
}

struct CachedKey {
    key: DerivedKey,
    term: Term,
}

/// How the session lets this gateway read in a keyset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Lease,
    Derive,
}

/// The caches.
pub(crate) struct ReadKeys {
    keys: Arc<dyn KeyService>,
    session: Arc<Session>,
    system: Arc<SystemArea>,
    clock: Arc<dyn Clock>,
    era: Era,
    leases: Cache<EpochId, Arc<Leased>>,
    derived: Cache<DerivedFor, Arc<CachedKey>>,
    opened: OpenedEnvelopes,
}

impl ReadKeys {
    pub(crate) fn new(
        keys: Arc<dyn KeyService>,
        session: Arc<Session>,
        system: Arc<SystemArea>,
        clock: Arc<dyn Clock>,
        era: Era,
    ) -> Self {
        let leases = Cache::builder().max_capacity(LEASES_MAX).time_to_live(LIFE_MAX).build();
        let derived = Cache::builder().max_capacity(OBJECT_KEYS_MAX).time_to_live(LIFE_MAX).build();
        Self { keys, session, system, clock, era, leases, derived, opened: OpenedEnvelopes::new() }
    }

    /// Opens the envelope of an object and gives its key.
    ///
    /// # Errors
    /// Denied by policy; an integrity failure when the envelope was not made for this name.
    pub(crate) async fn open(&self, asked: Asked<'_>) -> Result<OpenedObject, GatewayError> {
        // Whether this gateway may, and by which way, is asked each time.
        let mode = self.mode(asked.bound, Verb::Read).await?;
        if let Some(opened) = self.opened.get(asked, mode, self.clock.boot_ms()) {
            return Ok(opened);
        }
        boxed(|| self.open_anew(asked, mode)).await
    }

    async fn open_anew(&self, asked: Asked<'_>, mode: Mode) -> Result<OpenedObject, GatewayError> {
        let (dek, term) = match mode {
            Mode::Lease => {
                let envelope = asked.envelope;
                let leased = self.leased(asked.bound, envelope.epoch_id()).await?;
                let dek = leased.wek.dek(envelope.epoch_id(), envelope.object_id());
                (Arc::new(dek.to_keep()), leased.term.clone())
            }
            Mode::Derive => {
                let cached = self.derived(asked, DerivePurpose::Read).await?;
                match &cached.key {
                    DerivedKey::Object(dek) => (dek.clone(), cached.term.clone()),
                    DerivedKey::Metadata(_) => {
                        return Err(GatewayError::Internal("a key of another purpose"));
                    }
                }
            }
        };
        let envelope =
            asked.envelope.open(&dek, asked.name).map_err(GatewayError::integrity("opening an envelope"))?;
        let opened = OpenedObject { envelope: Arc::new(envelope), dek, held: term.held.clone() };
        self.opened.insert(asked, mode, opened.clone(), term);
        Ok(opened)
    }

    /// Opens the envelope of an object for its metadata only.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_metadata(&self, asked: Asked<'_>) -> Result<Arc<OpenedEnvelope>, GatewayError> {
        if let Mode::Lease = self.mode(asked.bound, Verb::Head).await? {
            return Ok(self.open(asked).await?.envelope);
        }
        match &self.derived(asked, DerivePurpose::Head).await?.key {
            DerivedKey::Metadata(unit) => asked
                .envelope
                .open_with_unit_keys(unit)
                .map(Arc::new)
                .map_err(GatewayError::integrity("opening an envelope")),
            DerivedKey::Object(_) => Err(GatewayError::Internal("a key of another purpose")),
        }
    }

    /// Whether this gateway may read metadata somewhere in the bucket's keyset; a write-only one may not.
    ///
    /// # Errors
    /// When the key service can't say.
    pub(crate) async fn may_open_metadata(&self, bound: &BoundBucket) -> Result<bool, GatewayError> {
        let keyset = self.session.keyset(bound.keyset_id).await?;
        Ok(keyset.grants(Verb::Lease)
            || keyset.grants_somewhere(Verb::Head)
            || keyset.grants_somewhere(Verb::Read))
    }

    /// Whether the whole keyset is leased, so that copies are re-bound here and not by the service.
    ///
    /// # Errors
    /// When the key service can't say.
    pub(crate) async fn leases(&self, bound: &BoundBucket) -> Result<bool, GatewayError> {
        Ok(self.session.keyset(bound.keyset_id).await?.grants(Verb::Lease))
    }

    /// How this gateway may use the keyset of a bucket.
    ///
    /// # Errors
    /// When the key service can't say.
    pub(crate) async fn keyset(&self, bound: &BoundBucket) -> Result<Arc<KeysetAccess>, GatewayError> {
        self.session.keyset(bound.keyset_id).await
    }

    /// Whether a copy of this object may stay in its epoch, as far as this gateway is the one to decide it: where it leases. Where it
    /// does not, the service refuses to re-bind.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn may_stay_in_its_epoch(&self, asked: Asked<'_>) -> Result<bool, GatewayError> {
        let keyset = self.session.keyset(asked.bound.keyset_id).await?;
        if !keyset.era_shred || !keyset.grants(Verb::Lease) {
            return Ok(true);
        }
        let leased = self.leased(asked.bound, asked.envelope.epoch_id()).await?;
        // Of a keyset that is only read the session names the newest version that opens; nothing is written under that.
        Ok(keyset.psk.is_some() && keyset.is_of_this_era(leased.version))
    }

    /// The right to seal one new envelope of `tlv_len` bytes for `dest` over an object that stays closed here
    /// (docs/format.md §5.4).
    ///
    /// # Errors
    /// Denied by policy; binding mismatch.
    pub(crate) async fn rebind(
        &self,
        source: Asked<'_>,
        dest: &ObjectName,
        tlv_len: u32,
    ) -> Result<NewUnit, GatewayError> {
        let purpose = DerivePurpose::CopySource {
            dest_bucket_id: dest.bucket_id().as_str().to_owned(),
            dest_key: dest.key().to_owned(),
            tlv_lengths: vec![tlv_len],
        };
        match self.derive(source, purpose).await?.value {
            Derived::CopySource { mut new_units, .. } if new_units.len() == 1 => Ok(new_units.remove(0)),
            _ => Err(GatewayError::Internal("the key service answered another purpose than it was asked")),
        }
    }

    async fn mode(&self, bound: &BoundBucket, verb: Verb) -> Result<Mode, GatewayError> {
        let keyset = self.session.keyset(bound.keyset_id).await?;
        if keyset.grants(Verb::Lease) {
            return Ok(Mode::Lease);
        }
        // Who may read an object may read its metadata.
        if keyset.grants_somewhere(verb) || (verb == Verb::Head && keyset.grants_somewhere(Verb::Read)) {
            return Ok(Mode::Derive);
        }
        let text = format!(
            "this gateway holds a write-only identity in keyset {}: it can store objects but can't open them. Use a \
             gateway whose identity is granted lease or read.",
            keyset.name
        );
        Err(KeyServiceError::Denied { text }.into())
    }

    async fn leased(&self, bound: &BoundBucket, epoch_id: EpochId) -> Result<Arc<Leased>, GatewayError> {
        let is_over = |leased: &Leased| leased.term.is_over(self.clock.boot_ms());
        let leased = kept_or(&self.leases, epoch_id, is_over, || self.lease(epoch_id)).await?;
        // The answer may have been on its way when the era ended.
        leased.term.held.check()?;
        if leased.keyset != bound.keyset_id.into() {
            return Err(ReleaseError::KeysetMismatch.into());
        }
        Ok(leased)
    }

    async fn lease(&self, epoch_id: EpochId) -> Result<Arc<Leased>, GatewayError> {
        let held = self.era.now();
        let ask = |record| vec![LeaseItem { epoch_id: epoch_id.into(), record }];
        let mut answer = only(self.keys.lease(ask(None)).await?)?;
        if matches!(&answer.value, Err(error) if error.wants_record()) {
            let record = self.system.fetch_epoch(epoch_id).await?.ok_or(ReleaseError::UnknownEpoch)?;
            answer = only(self.keys.lease(ask(Some(Blob(record)))).await?)?;
        }
        let Lease { wek, keyset_id, ttl_ms, version, .. } = answer.value?;
        ::metrics::counter!(crate::metrics::LEASES).increment(1);
        let wek = Wek::from_slice(wek.expose()).map_err(GatewayError::integrity("a lease"))?;
        let term = held.until(ends(answer.sent_boot_ms, ttl_ms));
        Ok(Arc::new(Leased { wek, keyset: keyset_id, version, term }))
    }

    async fn derived(
        &self,
        asked: Asked<'_>,
        purpose: DerivePurpose,
    ) -> Result<Arc<CachedKey>, GatewayError> {
        let cache_key = DerivedFor {
            name: asked.name.extra(),
            header: asked.envelope.header_bytes(),
            whole_object: matches!(purpose, DerivePurpose::Read),
        };
        let is_over = |cached: &CachedKey| cached.term.is_over(self.clock.boot_ms());
        let derive = || self.derive_to_keep(asked, purpose);
        let cached = kept_or(&self.derived, cache_key, is_over, derive).await?;
        cached.term.held.check()?;
        Ok(cached)
    }

    async fn derive_to_keep(
        &self,
        asked: Asked<'_>,
        purpose: DerivePurpose,
    ) -> Result<Arc<CachedKey>, GatewayError> {
        let held = self.era.now();
        let answer = self.derive(asked, purpose).await?;
        let sent_boot_ms = answer.sent_boot_ms;
        let (key, ttl_ms) = match answer.value {
            Derived::Read { dek, ttl_ms } => {
                let dek = Dek::from_slice(dek.expose()).map_err(GatewayError::integrity("a derived key"))?;
                (DerivedKey::Object(Arc::new(dek.to_keep())), ttl_ms)
            }
            Derived::Head { unit, ttl_ms } => (DerivedKey::Metadata(unit_keys(&unit)?), ttl_ms),
            Derived::CopySource { .. } => return Err(GatewayError::Internal("a key of another purpose")),
        };
        Ok(Arc::new(CachedKey { key, term: held.until(ends(sent_boot_ms, ttl_ms)) }))
    }

    async fn derive(
        &self,
        asked: Asked<'_>,
        purpose: DerivePurpose,
    ) -> Result<Answer<Derived>, GatewayError> {
        let ask = |record| {
            vec![DeriveItem {
                record,
                header: EnvelopeHeader::new(&asked.envelope.header_bytes()),
                bucket_id: asked.name.bucket_id().as_str().to_owned(),
                key: asked.name.key().to_owned(),
                purpose: purpose.clone(),
                on_behalf_of: Some(asked.on_behalf_of.to_owned()),
            }]
        };
        let mut answer = only(self.keys.derive(ask(None)).await?)?;
        if matches!(&answer.value, Err(error) if error.wants_record()) {
            let epoch_id = asked.envelope.epoch_id();
            let record = self.system.fetch_epoch(epoch_id).await?.ok_or(ReleaseError::UnknownEpoch)?;
            answer = only(self.keys.derive(ask(Some(Blob(record)))).await?)?;
        }
        ::metrics::counter!(crate::metrics::DERIVED_KEYS).increment(1);
        Ok(Answer { value: answer.value?, sent_boot_ms: answer.sent_boot_ms })
    }

    /// Drops every key. To be called when an era has ended.
    pub(crate) fn forget(&self) {
        self.leases.invalidate_all();
        self.derived.invalidate_all();
        self.opened.forget();
    }

    /// Lets keys be wiped whose time is over although nobody asks for them. To be called every few seconds.
    pub(crate) async fn tick(&self) {
        let now_boot_ms = self.clock.boot_ms();
        self.opened.drop_over(now_boot_ms);
        for (epoch_id, leased) in &self.leases {
            if leased.term.is_over(now_boot_ms) {
                self.leases.invalidate(&*epoch_id).await;
            }
        }
        for (cache_key, cached) in &self.derived {
            if cached.term.is_over(now_boot_ms) {
                self.derived.invalidate(&*cache_key).await;
            }
        }
        self.leases.run_pending_tasks().await;
        self.derived.run_pending_tasks().await;
    }
}

/// What is kept under a key and is not over; else what `ask` gives, however many wait for it. Both are large, and boxed: every read
/// would carry the room for them, and copy it at each step.
async fn kept_or<K, V, F>(
    kept: &Cache<K, Arc<V>>,
    key: K,
    is_over: impl Fn(&V) -> bool,
    ask: impl FnOnce() -> F,
) -> Result<Arc<V>, GatewayError>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
    F: Future<Output = Result<Arc<V>, GatewayError>>,
{
    match boxed(|| kept.get(&key)).await {
        Some(value) if !is_over(&value) => return Ok(value),
        Some(_) => kept.invalidate(&key).await,
        None => {}
    }
    let asked = boxed(|| kept.try_get_with(key, ask())).await;
    asked.map_err(|error: Arc<GatewayError>| GatewayError::clone(&error))
}

/// When a key has to be wiped, on the boot-time clock: what the service says, but never later than the bound.
fn ends(sent_boot_ms: u64, ttl_ms: u64) -> u64 {
    let life_max_ms = u64::try_from(LIFE_MAX.as_millis()).unwrap_or(u64::MAX);
    sent_boot_ms.saturating_add(ttl_ms.min(life_max_ms))
}

/// The one result of a batch of one.
pub(crate) fn only<T>(
    answer: Answer<Vec<Result<T, ReleaseError>>>,
) -> Result<Answer<Result<T, ReleaseError>>, GatewayError> {
    let Answer { mut value, sent_boot_ms } = answer;
    match (value.pop(), value.is_empty()) {
        (Some(result), true) => Ok(Answer { value: result, sent_boot_ms }),
        _ => {
            Err(GatewayError::Internal("the key service answered another number of items than it was asked"))
        }
    }
}

/// The format's type of what came over the wire.
pub(crate) fn unit_keys(unit: &claviger_keyapi::UnitOutput) -> Result<UnitKeys, GatewayError> {
    UnitKeys::from_slice(unit.expose()).map_err(GatewayError::integrity("unit keys"))
}

#[cfg(test)]
mod tests;
