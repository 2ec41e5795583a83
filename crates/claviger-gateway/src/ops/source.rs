//! An object that is read: found at the provider, its envelope opened under the name that was asked for, its footer
//! verified, its body on the way.

use std::sync::Arc;

use claviger_format::envelope::Envelope;
use claviger_format::footer::{self, FooterRead, Manifest};
use claviger_format::layout::{CipherRange, PlainRange, covering_single, g_inverse};
use claviger_format::metadata::Layout;
use claviger_format::object::ObjectReader;
use claviger_format::{Dek, Error, ObjectName, OpenedEnvelope, Structure};
use claviger_s3::VersionId;
use claviger_s3::conditions::{ReadConditions, Verdict};
use claviger_s3::error::{ErrorCode, S3Error};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use super::manifests::{ManifestKey, Named, Seen};
use super::{object_headers, reply};
use crate::authz::{Permit, ReadObject};
use crate::bindings::BoundBucket;
use crate::body::open::OpenedBody;
use crate::dispatch::Call;
use crate::error::GatewayError;
use crate::gateway::Gateway;
use crate::keys::era::Moment;
use crate::keys::read::{Asked, OpenedObject};
use crate::upstream::Upstream;
use crate::upstream::object::{StoredHead, Wanted, Which};
use crate::upstream::object_settings::At;
use crate::upstream::transport::{StoreBody, read_up_to};

/// Last bytes of a single object that hold its footer: manifest of one entry, tag, header.
const SINGLE_FOOTER_LEN: u64 = 96 + 40 + 16 + 96;
/// Last bytes of a multipart object that are fetched at first; enough for some 1,600 parts.
const MULTIPART_FOOTER_LEN: u64 = 65_536;
/// What comes of an answer that turns out to be of no use is read up to this length, so that its connection can be used again.
const UNUSED_LEN_MAX: u64 = 256 << 10;

/// A name that may be read.
pub(crate) struct Source<'a> {
    gateway: &'a Gateway,
    upstream: &'a Upstream,
    on_behalf_of: &'a str,
    permit: &'a Permit<ReadObject>,
    version: Option<&'a VersionId>,
    /// The bucket.
    pub bound: Arc<BoundBucket>,
    name: ObjectName,
}

/// An object at the provider whose envelope parses; nothing is authenticated yet.
#[derive(Clone)]
pub(crate) struct Found {
    /// What the provider says.
    pub head: StoredHead,
    /// What it stores with the object.
    pub envelope: Envelope,
}

/// An object whose envelope is authentic under its name.
pub(crate) struct Object {
    /// What the provider says.
    pub head: StoredHead,
    /// Under which version id it was found; none in a bucket that never had versions.
    pub version: Option<VersionId>,
    /// Layout, metadata, identity.
    pub envelope: Arc<OpenedEnvelope>,
    /// Its key.
    pub dek: Arc<Dek>,
    /// How long that may be used.
    pub held: Moment,
    /// Plaintext bytes: authenticated for a single object, the provider's claim for a multipart one until its footer
    /// has been verified.
    pub length: u64,
}

impl<'a> Source<'a> {
    /// Resolves the bucket of a name that may be read; `version` if one was asked for.
    ///
    /// # Errors
    /// `NoSuchBucket`, or the key service's failure.
    pub(crate) async fn locate(
        call: &'a Call<'_>,
        permit: &'a Permit<ReadObject>,
        version: Option<&'a VersionId>,
    ) -> Result<Self, GatewayError> {
        let bound = call.gateway.bindings.resolve(permit.bucket()).await?;
        let name = bound.name(permit.key())?;
        Ok(Self {
            gateway: call.gateway,
            upstream: &call.upstream,
            on_behalf_of: call.on_behalf_of(),
            permit,
            version,
            bound,
            name,
        })
    }

    /// The name at the provider, in one version.
    pub(crate) fn at<'b>(&'b self, version: Option<&'b VersionId>) -> At<'b> {
        At { bucket: self.permit.bucket(), key: self.permit.key(), version: version.or(self.version) }
    }

    /// What was asked for.
    fn asked_for(&self) -> Which<'a> {
        Which { same_as: None, version: self.version }
    }

    /// Exactly what was found before, also if a newer version has come meanwhile.
    fn same_as<'b>(&'b self, object: &'b Object) -> Which<'b> {
        Which { same_as: Some(&object.head.etag), version: object.version.as_ref().or(self.version) }
    }

    /// What the store would say of a part number beyond the object's parts.
    pub(crate) fn no_such_part(&self) -> ErrorCode {
        self.upstream.profile().no_such_part
    }

    /// What to ask for first where a client wants the plaintext from `first` on, up to and including `last` or to the end.
    /// Where nothing else is known: as of an object of one unit, which most are. `None` if a HEAD has to tell.
    pub(crate) fn wanted_of_range(&self, first: u64, last: Option<u64>) -> Option<Wanted> {
        match self.gateway.manifests.seen(&self.named()) {
            Seen::Single => in_single(first, last),
            Seen::Parts(manifest) => in_parts(&manifest, first, last),
            Seen::PartsUnread => None,
        }
    }

    /// Remembers what is under this name, for [`Self::wanted_of_range`].
    pub(crate) fn saw(&self, head: &StoredHead, envelope: &OpenedEnvelope) {
        self.gateway.manifests.saw(self.named(), head, envelope);
    }

    fn named(&self) -> Named {
        Named { name: self.name.clone(), version: self.version.cloned() }
    }

    /// HEAD at the provider.
    ///
    /// # Errors
    /// The provider's; refused when there is no envelope of ours.
    pub(crate) async fn head(&self) -> Result<Found, GatewayError> {
        let (bucket, key) = (self.permit.bucket(), self.permit.key());
        found(self.version, self.upstream.head_object(bucket, key, self.asked_for()).await?)
    }

    /// GET at the provider.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub(crate) async fn get(&self, wanted: Wanted) -> Result<(Found, StoreBody), GatewayError> {
        let (bucket, key) = (self.permit.bucket(), self.permit.key());
        let (head, body) = self.upstream.get_object(bucket, key, wanted, self.asked_for()).await?;
        Ok((found(self.version, head)?, body))
    }

    /// The whole body of the very object that was found and opened before.
    ///
    /// # Errors
    /// [`GatewayError::Replaced`] when it has been, or when another version comes under the same tag.
    pub(crate) async fn get_again(&self, object: &Object) -> Result<StoreBody, GatewayError> {
        let (bucket, key) = (self.permit.bucket(), self.permit.key());
        let which = self.same_as(object);
        let (head, body) =
            self.upstream.get_object(bucket, key, Wanted::Whole, which).await.map_err(pinned)?;
        // Headers and body of one answer have to be of one version, also where the provider says so of two.
        if head.envelope != object.head.envelope || head.total_size != object.head.total_size {
            return Err(GatewayError::Replaced);
        }
        Ok(body)
    }

    /// What the key caches are asked about.
    pub(crate) fn asked<'b>(&'b self, found: &'b Found) -> Asked<'b> {
        Asked {
            bound: &self.bound,
            name: &self.name,
            envelope: &found.envelope,
            on_behalf_of: self.on_behalf_of,
        }
    }

    /// Opens the envelope and checks it against the size.
    ///
    /// # Errors
    /// Denied by policy; integrity.
    pub(crate) async fn open(&self, found: Found) -> Result<Object, GatewayError> {
        let OpenedObject { envelope, dek, held } = self.gateway.read_keys.open(self.asked(&found)).await?;
        let length = plaintext_len(&found.head, &envelope)?;
        let version = found.head.passed.version();
        Ok(Object { head: found.head, version, envelope, dek, held, length })
    }

    /// The verified footer of an object: the proof that it was committed, and the map of its parts.
    ///
    /// # Errors
    /// Integrity; 412 from the provider when the object has been replaced meanwhile.
    pub(crate) async fn manifest(&self, object: &Object) -> Result<Arc<Manifest>, GatewayError> {
        if let Some(manifest) = self.known_manifest(object) {
            return Ok(manifest);
        }
        let suffix_len = match object.envelope.layout {
            Layout::Single { .. } => SINGLE_FOOTER_LEN,
            Layout::Multipart => MULTIPART_FOOTER_LEN,
        };
        let manifest = match self.read_footer(object, suffix_len).await? {
            FooterRead::Verified(manifest) => manifest,
            FooterRead::NeedMore { suffix_len } => match self.read_footer(object, suffix_len).await? {
                FooterRead::Verified(manifest) => manifest,
                FooterRead::NeedMore { .. } => {
                    return Err(integrity(Error::Inconsistent(Structure::Footer)));
                }
            },
        };
        let manifest = Arc::new(manifest);
        self.gateway.manifests.insert(object.manifest_key(), manifest.clone(), &object.held);
        Ok(manifest)
    }

    /// The footer of an object if it has been verified before: no request is made.
    pub(crate) fn known_manifest(&self, object: &Object) -> Option<Arc<Manifest>> {
        self.gateway.manifests.get(&object.manifest_key())
    }

    async fn read_footer(&self, object: &Object, suffix_len: u64) -> Result<FooterRead, GatewayError> {
        let total_size = object.head.total_size;
        let first = total_size.saturating_sub(suffix_len);
        let suffix = self.fetch(object, first, total_size.saturating_sub(1)).await?;
        let OpenedEnvelope { epoch_id, object_id, .. } = *object.envelope;
        footer::open(&object.dek, epoch_id, object_id, &suffix, total_size).map_err(integrity)
    }

    /// Stored bytes `first..=last` of the very object that was found, in memory.
    async fn fetch(&self, object: &Object, first: u64, last: u64) -> Result<bytes::Bytes, GatewayError> {
        let wanted = Wanted::Bytes(first, Some(last));
        let (bucket, key) = (self.permit.bucket(), self.permit.key());
        let which = self.same_as(object);
        let (head, body) = self.upstream.get_object(bucket, key, wanted, which).await.map_err(pinned)?;
        let len = last + 1 - first;
        if head.range != Some((first, last + 1)) && (first > 0 || head.total_size != len) {
            return Err(GatewayError::UpstreamAnswer("another range than was asked for"));
        }
        let bytes = read_up_to(body, usize::try_from(len).unwrap_or(usize::MAX)).await?;
        if bytes.len() as u64 != len {
            return Err(GatewayError::UpstreamAnswer("fewer bytes than were asked for"));
        }
        Ok(bytes)
    }

    /// The whole object, authenticated; `body` delivers it from its first stored byte.
    ///
    /// # Errors
    /// Integrity, before any byte has been given out.
    pub(crate) async fn whole(&self, object: &Object, body: StoreBody) -> Result<OpenedBody, GatewayError> {
        let reader = match object.envelope.layout {
            Layout::Single { .. } => {
                ObjectReader::single(&object.dek, &object.envelope, object.head.total_size)
            }
            Layout::Multipart => {
                ObjectReader::multipart(&object.dek, &Box::pin(self.manifest(object)).await?)
            }
        };
        OpenedBody::begin(body, reader.map_err(integrity)?, object.held.clone()).await
    }

    /// A range of the object, authenticated. `early` is a body that was asked for before the layout was known; it is
    /// used if it begins where this range's ciphertext does.
    ///
    /// # Errors
    /// Integrity, before any byte has been given out; 412 from the provider when the object has been replaced.
    pub(crate) async fn range(
        &self,
        object: &Object,
        range: PlainRange,
        early: Option<StoreBody>,
    ) -> Result<OpenedBody, GatewayError> {
        let manifest = self.manifest(object).await?;
        let reader = match object.envelope.layout {
            Layout::Single { .. } => {
                ObjectReader::single_range(&object.dek, &object.envelope, &manifest, range)
            }
            Layout::Multipart => {
                let covering = manifest.covering(range).map_err(integrity)?;
                let header = match covering.first_header {
                    Some(wanted) => Some(self.fetch(object, wanted.first, wanted.last).await?),
                    None => None,
                };
                ObjectReader::multipart_range(&object.dek, &manifest, range, header.as_deref())
            }
        }
        .map_err(integrity)?;
        let wanted = reader.cipher_range();
        let begins = object.head.range.map_or(0, |(first, _)| first);
        let ends = object.head.range.map_or(object.head.total_size, |(_, end)| end);
        let body = match early {
            Some(body) if begins == wanted.first && ends > wanted.last => body,
            unfit => Box::pin(self.fetch_instead(object, wanted, unfit)).await?,
        };
        OpenedBody::begin(body, reader, object.held.clone()).await
    }

    /// A body that begins with the `wanted` bytes, where `unfit` has others.
    async fn fetch_instead(
        &self,
        object: &Object,
        wanted: CipherRange,
        unfit: Option<StoreBody>,
    ) -> Result<StoreBody, GatewayError> {
        self.saw(&object.head, &object.envelope);
        let fetched = self.fetch_stream(object, wanted.first, wanted.last);
        let mut fetched = std::pin::pin!(fetched);
        if let Some(unfit) = unfit {
            tokio::select! {
                fetched = &mut fetched => return fetched,
                () = drain(unfit) => (),
            }
        }
        fetched.await
    }

    async fn fetch_stream(&self, object: &Object, first: u64, last: u64) -> Result<StoreBody, GatewayError> {
        let wanted = Wanted::Bytes(first, Some(last));
        let (bucket, key) = (self.permit.bucket(), self.permit.key());
        let which = self.same_as(object);
        let (head, body) = self.upstream.get_object(bucket, key, wanted, which).await.map_err(pinned)?;
        match head.range {
            Some((start, end)) if start == first && end > last => Ok(body),
            None if first == 0 => Ok(body),
            _ => Err(GatewayError::UpstreamAnswer("another range than was asked for")),
        }
    }
}

/// Takes an answer to the question for version `asked`; for the newest if there is none.
///
/// # Errors
/// When it is about another version, or may be; when nothing of ours is there.
fn found(asked: Option<&VersionId>, head: StoredHead) -> Result<Found, GatewayError> {
    head.check_version(asked)?;
    Found::new(head)
}

impl Object {
    fn manifest_key(&self) -> ManifestKey {
        ManifestKey::of(&self.head, &self.envelope)
    }
}

impl Found {
    fn new(head: StoredHead) -> Result<Self, GatewayError> {
        let Some(text) = &head.envelope else { return Err(GatewayError::NotSealed("no envelope")) };
        let envelope =
            Envelope::parse(text).map_err(|_| GatewayError::NotSealed("not an envelope of ours"))?;
        Ok(Self { head, envelope })
    }
}

/// The object's plaintext length by its stored size, which must agree with the envelope of a single object
/// (docs/format.md §3.8).
///
/// # Errors
/// Integrity.
pub(crate) fn plaintext_len(head: &StoredHead, envelope: &OpenedEnvelope) -> Result<u64, GatewayError> {
    let claimed =
        g_inverse(head.total_size).ok_or_else(|| integrity(Error::Inconsistent(Structure::Body)))?;
    match envelope.layout {
        Layout::Single { length, .. } if length != claimed => {
            Err(integrity(Error::Inconsistent(Structure::Body)))
        }
        _ => Ok(claimed),
    }
}

/// Judges a client's conditions on what the provider says of the object.
///
/// # Errors
/// 304 with the validators, or 412.
pub(crate) fn judge(conditions: &ReadConditions, head: &StoredHead) -> Result<(), GatewayError> {
    match conditions.evaluate(&reply::marked(&head.etag), head.last_modified_ms) {
        Verdict::Proceed => Ok(()),
        Verdict::NotModified => Err(GatewayError::NotModified(object_headers::validators(head).collect())),
        Verdict::PreconditionFailed(condition) => {
            Err(S3Error::new(ErrorCode::PreconditionFailed).with_extra("Condition", condition).into())
        }
    }
}

/// Where the ciphertext of a range lies if the object is a single one; `None` for a range that can't be mapped without
/// its length.
fn in_single(first: u64, last: Option<u64>) -> Option<Wanted> {
    // An object so long that the range lies wholly inside: the mapping does not depend on the length then.
    let range = PlainRange::new(first, last.unwrap_or(first)).ok()?;
    let n = range.last().checked_add(1)?.checked_next_multiple_of(65_536)?;
    let covering = covering_single(n, range).ok()?;
    Some(Wanted::Bytes(covering.first, last.map(|_| covering.last)))
}

/// Where the ciphertext of a range lies if the object still is the one that this manifest is of; `None` beyond its end.
fn in_parts(manifest: &Manifest, first: u64, last: Option<u64>) -> Option<Wanted> {
    let end = manifest.length().checked_sub(1)?;
    let range = PlainRange::new(first, last.map_or(end, |last| last.min(end))).ok()?;
    let covering = manifest.covering(range).ok()?;
    Some(Wanted::Bytes(covering.data.first, Some(covering.data.last)))
}

/// Reads what is left of an answer that nobody wants, if it is little.
async fn drain(mut body: StoreBody) {
    if body.size_hint().exact().is_some_and(|len| len <= UNUSED_LEN_MAX) {
        // If it breaks off, its connection is not used again: that is all that an error means here.
        while let Some(Ok(_)) = body.frame().await {}
    }
}

/// What an error means for a request about the very object that was found before: neither its 412 nor its 416 is an
/// answer to what the client asked.
fn pinned(error: GatewayError) -> GatewayError {
    match error.upstream_code() {
        Some(ErrorCode::PreconditionFailed) => GatewayError::Replaced,
        Some(ErrorCode::InvalidRange) => {
            GatewayError::UpstreamAnswer("a range inside the object was refused")
        }
        _ => error,
    }
}

/// Whether an error says that the object changed between two requests.
pub(crate) fn was_replaced(error: &GatewayError) -> bool {
    matches!(error, GatewayError::Replaced)
}

fn integrity(source: Error) -> GatewayError {
    GatewayError::Integrity { context: "reading an object", source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claviger_s3::error::UpstreamError;
    use http::StatusCode;

    use crate::upstream::double;

    fn upstream(status: StatusCode) -> GatewayError {
        GatewayError::Upstream(Box::new(UpstreamError::parse(status, b"")))
    }

    #[test]
    fn what_the_provider_answers_to_the_gateways_own_pins_is_no_answer_to_the_client() {
        let replaced = pinned(upstream(StatusCode::PRECONDITION_FAILED));
        assert!(was_replaced(&replaced));
        assert_eq!(replaced.to_s3("/b/k").status(), StatusCode::SERVICE_UNAVAILABLE);
        let beyond = pinned(upstream(StatusCode::RANGE_NOT_SATISFIABLE));
        assert_eq!(beyond.to_s3("/b/k").status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(pinned(upstream(StatusCode::NOT_FOUND)).to_s3("/b/k").status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn an_answer_that_names_no_version_is_none_to_a_question_for_one() {
        let (version, null) = (VersionId::parse("v1").unwrap(), VersionId::parse("null").unwrap());
        let text = |error: GatewayError| error.to_string();
        for (shown, asked, expected) in [
            (None, Some(&version), "no version to a question for one"),
            (Some("v2"), Some(&version), "another version than was asked for"),
            // These are about the right one: what is refused is that nothing of ours is there.
            (Some("v1"), Some(&version), "no envelope"),
            (None, Some(&null), "no envelope"),
            (None, None, "no envelope"),
        ] {
            let headers: Vec<_> = shown.map(|shown| ("x-amz-version-id", shown)).into_iter().collect();
            let answer = double::object(&headers);
            let store = double::store("generic", move |_| answer.clone()).await;
            let which = Which { same_as: None, version: asked };
            let head = store.upstream.head_object("b", "k", which).await.unwrap();
            let error = found(asked, head).err().map(text).unwrap_or_default();
            assert!(error.ends_with(expected), "{shown:?} to {asked:?}: {error}");
        }
    }

    #[test]
    fn a_range_is_mapped_as_if_the_object_were_a_single_one() {
        let bytes = |wanted| match wanted {
            Some(Wanted::Bytes(first, last)) => (first, last),
            _ => panic!("not mapped"),
        };
        assert_eq!(bytes(in_single(0, Some(0))), (96, Some(96 + 65_552 - 1)));
        assert_eq!(bytes(in_single(65_536, Some(65_537))), (96 + 65_552, Some(96 + 2 * 65_552 - 1)));
        assert_eq!(bytes(in_single(70_000, None)), (96 + 65_552, None));
        assert!(in_single(u64::MAX, Some(u64::MAX)).is_none());
    }
}
