//! Keys of multipart uploads: of those that this gateway began, kept until Complete, Abort or expiry; of others, one
//! unit at a time from the key service, which checks the upload token (docs/format.md §2.8).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use claviger_env::Clock;
use claviger_format::random::Random;
use claviger_format::token::UploadToken;
use claviger_format::unit::{Kind, UnitContext, UnitGrant, UnitRequest};
use claviger_format::{Dek, EtagKey, KeysetId, ObjectId, ObjectName, Salt};
use claviger_keyapi::{
    Answer, BATCH_ITEMS_MAX, Blob, ContinueItem, ContinueUnit, Continued, FinishedUpload, KeyService,
    KeyServiceError, ReleaseError,
};
use claviger_s3::error::{ErrorCode, S3Error};
use moka::sync::Cache;

use super::read::{only, unit_keys};
use crate::error::GatewayError;
use crate::system_area::SystemArea;

/// How long an upload may take from Create to Complete.
pub(crate) const UPLOAD_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Keys of this many uploads are kept; those beyond are continued through the key service.
const UPLOADS_MAX: u64 = 16_384;

/// Held parts that are remembered.
const HELD_MAX: u64 = 65_536;

/// An upload as a request names it.
#[derive(Clone, Copy)]
pub(crate) struct AskedUpload<'a> {
    /// The token, parsed but not yet believed.
    pub token: &'a UploadToken,
    /// The bucket and key of the request.
    pub name: &'a ObjectName,
    /// The client's access key id, for the audit log of the key service.
    pub on_behalf_of: &'a str,
}

/// The right to seal one unit of an upload.
pub(crate) struct UnitRight {
    /// Key and context.
    pub grant: UnitGrant,
    /// For part entity tags.
    pub etag_key: EtagKey,
}

/// An upload that began here.
#[derive(Clone)]
struct Begun {
    keyset_id: KeysetId,
    /// What its epoch is sealed to.
    version: u32,
    dek: Arc<Dek>,
}

/// The keys.
pub(crate) struct Uploads {
    keys: Arc<dyn KeyService>,
    system: Arc<SystemArea>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    begun: Cache<ObjectId, Begun>,
    /// Parts that this gateway has stored as held ones and not removed since.
    held_here: Cache<(ObjectId, u16), ()>,
    /// Plaintext bytes of the first parts that came by here, for providers that want all parts of one size.
    first_parts: Cache<ObjectId, u64>,
    /// Finished uploads that the key service has not heard of yet.
    unreported: Mutex<Vec<FinishedUpload>>,
}

impl Uploads {
    pub(crate) fn new(
        keys: Arc<dyn KeyService>,
        system: Arc<SystemArea>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let held_here = Cache::builder().max_capacity(HELD_MAX).time_to_live(UPLOAD_LIFE).build();
        let begun = Cache::builder().max_capacity(UPLOADS_MAX).time_to_live(UPLOAD_LIFE).build();
        let first_parts = Cache::builder().max_capacity(UPLOADS_MAX).time_to_live(UPLOAD_LIFE).build();
        Self { keys, system, clock, random, begun, held_here, first_parts, unreported: Mutex::default() }
    }

    /// Notes the length of an upload's first part.
    pub(crate) fn note_first_part(&self, object_id: ObjectId, length: u64) {
        self.first_parts.insert(object_id, length);
    }

    /// The length of an upload's first part, if it came by here.
    pub(crate) fn first_part_len(&self, object_id: ObjectId) -> Option<u64> {
        self.first_parts.get(&object_id)
    }

    /// Notes how a part was stored. Gives whether a held one of that number was stored here before, which a part that
    /// is not held has to clear away (docs/format.md §4.5).
    pub(crate) fn note_part(&self, object_id: ObjectId, number: u16, held: bool) -> bool {
        let was_held = self.held_here.remove(&(object_id, number)).is_some();
        if held {
            self.held_here.insert((object_id, number), ());
        }
        was_held && !held
    }

    /// Whether the upload began here and is not known to be over.
    pub(crate) fn is_open_here(&self, object_id: ObjectId) -> bool {
        self.begun.contains_key(&object_id)
    }

    /// Forgets the key of an upload that is over at the provider. To be called before what it left is cleared away: a
    /// held part that is stored later is then taken back by whoever stores it.
    pub(crate) fn close(&self, object_id: ObjectId) {
        self.begun.invalidate(&object_id);
        self.first_parts.invalidate(&object_id);
    }

    /// Keeps the key of an upload that begins here.
    pub(crate) fn remember(&self, object_id: ObjectId, keyset_id: KeysetId, version: u32, dek: Dek) {
        self.begun.insert(object_id, Begun { keyset_id, version, dek: Arc::new(dek) });
    }

    /// The oldest version that an upload's epoch is sealed to; the key service tells it of uploads in keysets that are shredded by era.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) async fn version(&self, asked: AskedUpload<'_>) -> Result<Option<u32>, GatewayError> {
        if let Some(begun) = self.begun_and_checked(asked)? {
            return Ok(Some(begun.version));
        }
        Ok(self.continued(asked, ContinueUnit::Check).await?.version)
    }

    /// Drops the keys of uploads in keysets that this gateway may not write any more. What is left of them goes on through the
    /// key service, if it lets it.
    pub(crate) fn keep_where(&self, may_write: impl Fn(KeysetId) -> bool) {
        for (object_id, begun) in &self.begun {
            if !may_write(begun.keyset_id) {
                self.begun.invalidate(&*object_id);
            }
        }
        self.begun.run_pending_tasks();
    }

    /// The key of an upload that began here, after the token and the name have been checked under it.
    ///
    /// # Errors
    /// `NoSuchUpload` when the token was not made for this name.
    pub(crate) fn begun_here(&self, asked: AskedUpload<'_>) -> Result<Option<Arc<Dek>>, GatewayError> {
        Ok(self.begun_and_checked(asked)?.map(|begun| begun.dek))
    }

    fn begun_and_checked(&self, asked: AskedUpload<'_>) -> Result<Option<Begun>, GatewayError> {
        let Some(begun) = self.begun.get(&asked.token.fields().object_id) else {
            return Ok(None);
        };
        asked.token.verify(&begun.dek.upload_key(), asked.name).map_err(|_| no_such_upload())?;
        Ok(Some(begun))
    }

    /// The right to seal part `number` of `length` plaintext bytes.
    ///
    /// # Errors
    /// `NoSuchUpload` for a token that is wrong, expired or finished; denied by policy.
    pub(crate) async fn part_right(
        &self,
        asked: AskedUpload<'_>,
        number: u16,
        length: u64,
    ) -> Result<UnitRight, GatewayError> {
        self.unit_right(asked, Kind::Part, number, length, ContinueUnit::Part { number, length }).await
    }

    /// The right to seal the footer over `parts` parts and `length` plaintext bytes.
    ///
    /// # Errors
    /// As [`Self::part_right`].
    pub(crate) async fn footer_right(
        &self,
        asked: AskedUpload<'_>,
        parts: u16,
        length: u64,
    ) -> Result<UnitRight, GatewayError> {
        self.unit_right(asked, Kind::Footer, parts, length, ContinueUnit::Footer { parts, length }).await
    }

    /// Checks the token, also an expired one, for ListParts and Abort; gives the key of its part entity tags.
    ///
    /// # Errors
    /// `NoSuchUpload` when the token was not made for this name.
    pub(crate) async fn check(&self, asked: AskedUpload<'_>) -> Result<EtagKey, GatewayError> {
        if let Some(dek) = self.begun_here(asked)? {
            return Ok(dek.etag_key());
        }
        let continued = self.continued(asked, ContinueUnit::Check).await?;
        EtagKey::from_slice(continued.etag_key.expose()).map_err(GatewayError::integrity("an entity tag key"))
    }

    /// Forgets an upload here and tells the key service that it is over; queued while the service is away
    /// (docs/format.md §2.8).
    pub(crate) async fn finished(&self, asked: AskedUpload<'_>) {
        self.begun.invalidate(&asked.token.fields().object_id);
        self.first_parts.invalidate(&asked.token.fields().object_id);
        self.report(vec![FinishedUpload {
            record: None,
            upload_token: asked.token.to_text(),
            bucket_id: asked.name.bucket_id().as_str().to_owned(),
            key: asked.name.key().to_owned(),
        }])
        .await;
    }

    async fn report(&self, items: Vec<FinishedUpload>) {
        match self.keys.finish_upload(items.clone()).await {
            Ok(results) => {
                for error in results.into_iter().filter_map(Result::err) {
                    tracing::warn!(%error, "the key service did not take note of a finished upload");
                }
            }
            // A freeze ends, too.
            Err(error)
                if error.retry_after_ms().is_some() || matches!(error, KeyServiceError::Frozen { .. }) =>
            {
                self.unreported.lock().unwrap_or_else(PoisonError::into_inner).extend(items);
            }
            Err(error) => {
                tracing::error!(%error, "a finished upload could not be reported to the key service")
            }
        }
    }

    /// Reports what is queued. To be called every few seconds.
    pub(crate) async fn tick(&self) {
        let mut queued = std::mem::take(&mut *self.unreported.lock().unwrap_or_else(PoisonError::into_inner));
        while !queued.is_empty() {
            let batch = queued.split_off(queued.len().saturating_sub(BATCH_ITEMS_MAX));
            self.report(batch).await;
        }
        self.begun.run_pending_tasks();
    }

    async fn unit_right(
        &self,
        asked: AskedUpload<'_>,
        kind: Kind,
        number: u16,
        length: u64,
        unit: ContinueUnit,
    ) -> Result<UnitRight, GatewayError> {
        let fields = asked.token.fields();
        if asked.token.expired(self.clock.now_ms()) {
            return Err(no_such_upload());
        }
        let (epoch_id, object_id) = (fields.epoch_id, fields.object_id);
        if let Some(dek) = self.begun_here(asked)? {
            let request = match unit {
                ContinueUnit::Footer { parts, length } => {
                    UnitRequest::footer(epoch_id, object_id, parts, length)
                }
                _ => UnitRequest::part(epoch_id, object_id, number, length),
            };
            let grant =
                UnitGrant::draw(&dek, &request, &*self.random).map_err(GatewayError::integrity("a unit"))?;
            return Ok(UnitRight { grant, etag_key: dek.etag_key() });
        }
        let continued = self.continued(asked, unit).await?;
        let drawn = continued.unit.ok_or(GatewayError::Internal("the key service sent no unit"))?;
        if drawn.length != length {
            return Err(GatewayError::Internal("the key service sent a unit of another length"));
        }
        let context =
            UnitContext { kind, number, length, epoch_id, object_id, salt: Salt::new(drawn.salt.0) };
        let etag_key = EtagKey::from_slice(continued.etag_key.expose())
            .map_err(GatewayError::integrity("an entity tag key"))?;
        let grant =
            UnitGrant::new(context, unit_keys(&drawn.unit)?).map_err(GatewayError::integrity("a unit"))?;
        Ok(UnitRight { grant, etag_key })
    }

    async fn continued(&self, asked: AskedUpload<'_>, unit: ContinueUnit) -> Result<Continued, GatewayError> {
        let ask = |record| {
            vec![ContinueItem {
                record,
                upload_token: asked.token.to_text(),
                bucket_id: asked.name.bucket_id().as_str().to_owned(),
                key: asked.name.key().to_owned(),
                unit,
                on_behalf_of: Some(asked.on_behalf_of.to_owned()),
            }]
        };
        let mut answer: Answer<Result<Continued, ReleaseError>> =
            only(self.keys.continue_upload(ask(None)).await?)?;
        if matches!(&answer.value, Err(error) if error.wants_record()) {
            let epoch_id = asked.token.fields().epoch_id;
            let record = self.system.fetch_epoch(epoch_id).await?.ok_or_else(no_such_upload)?;
            answer = only(self.keys.continue_upload(ask(Some(Blob(record)))).await?)?;
        }
        match answer.value {
            Ok(continued) => Ok(continued),
            // A token that was not made for this upload is, to a client, an upload that doesn't exist.
            Err(ReleaseError::BindingMismatch | ReleaseError::EpochRejected) => Err(no_such_upload()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What S3 says of an upload id that means nothing here.
pub(crate) fn no_such_upload() -> GatewayError {
    S3Error::new(ErrorCode::NoSuchUpload).into()
}
